//! Every kernel of this machine against an f64 reference, its siblings bit for bit, and itself under any split of rows.

use super::block::NR;
use super::*;
use crate::cpu::pack::{pack_pairs, pack_panels_block, pack_panels_f32, pack_panels_f64, packed_bytes};
use half::{bf16, f16};
use tilewright_ir::array::{Array, Bytes};

/// A small generator (splitmix64), so that data is the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1, with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Random GGML blocks with scales of ordinary size.
    pub fn blocks(&mut self, dtype: DType, elements: usize) -> Vec<u8> {
        let (per, size) = dtype.block();
        let mut bytes = Vec::new();
        for _ in 0..elements / per {
            let start = bytes.len();
            bytes.extend((0..size).map(|_| self.bits() as u8));
            let halves: &[usize] = match dtype {
                DType::Q4_1 | DType::Q4K => &[0, 2],
                DType::Q6K => &[208],
                _ => &[0],
            };
            for at in halves {
                bytes[start + at..start + at + 2].copy_from_slice(&f16::from_f32(self.unit()).to_le_bytes());
            }
        }
        bytes
    }
}

/// A problem: rows of f64 and a `[k, n]` matrix in the kernel's own format, packed, and as f64 for the reference.
struct Problem {
    k: usize,
    lda: usize,
    a: Vec<f64>,
    /// `[n][k]`.
    b: Vec<f64>,
    packed: Vec<u8>,
}

const COLUMN_TAIL: usize = 5;

/// The values of GGML rows as the interpreter has them.
fn dequantised(dtype: DType, rows: Vec<u8>) -> Vec<f32> {
    let (per, size) = dtype.block();
    let array = Array::new(dtype, &[rows.len() / size * per], Bytes::new(rows)).unwrap();
    tilewright_ir::blocks::dequantised_values(&array).unwrap()
}

/// Up to eight bytes.
fn eight(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(eight)
}

/// A number in memory: f32 or a half.
fn bytes(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::Bf16 => bf16::from_f32(x).to_bits().to_ne_bytes().to_vec(),
        DType::F16 => f16::from_f32(x).to_bits().to_ne_bytes().to_vec(),
        _ => x.to_ne_bytes().to_vec(),
    }
}

/// The nearest number of a dtype.
fn rounded(dtype: DType, x: f32) -> f64 {
    match dtype {
        DType::Bf16 => bf16::from_f32(x).to_f64(),
        DType::F16 => f16::from_f32(x).to_f64(),
        _ => f64::from(x),
    }
}

impl Problem {
    /// `n` leaves `COLUMN_TAIL` padding columns.
    fn new(kernel: &UKernel, k: usize) -> Problem {
        let mut random = Random(k as u64 + 1);
        let n = kernel.nr - COLUMN_TAIL;
        let lda = k + 3;
        let a = (0..kernel.mr * lda).map(|_| rounded(kernel.a, random.unit())).collect();
        let mut packed = vec![0xff; packed_bytes(kernel.b, k, n, kernel.nr).unwrap()];
        let b: Vec<f64> = match kernel.b {
            DType::F32 => {
                let b: Vec<f32> = (0..n * k).map(|_| random.unit()).collect();
                let mut panel = vec![f32::NAN; packed.len() / 4];
                pack_panels_f32(&b, k, n, 1, k, kernel.nr, &mut panel).unwrap();
                packed = panel.iter().flat_map(|x| x.to_ne_bytes()).collect();
                b.iter().map(|&x| f64::from(x)).collect()
            }
            DType::Bf16 => {
                let b: Vec<bf16> = (0..n * k).map(|_| bf16::from_f32(random.unit())).collect();
                let bits: Vec<u16> = b.iter().map(|x| x.to_bits()).collect();
                let mut panel = vec![u16::MAX; packed.len() / 2];
                pack_pairs(&bits, (k, n), (1, k), kernel.nr, &mut panel).unwrap();
                packed = panel.iter().flat_map(|x| x.to_ne_bytes()).collect();
                b.iter().map(|x| f64::from(x.to_f32())).collect()
            }
            DType::F64 => {
                let b: Vec<f64> = (0..n * k).map(|_| f64::from(random.unit())).collect();
                let mut panel = vec![f64::NAN; packed.len() / 8];
                pack_panels_f64(&b, k, n, 1, k, kernel.nr, &mut panel).unwrap();
                packed = panel.iter().flat_map(|x| x.to_ne_bytes()).collect();
                b
            }
            dtype => {
                let rows = random.blocks(dtype, n * k);
                pack_panels_block(dtype, &rows, k, n, kernel.nr, &mut packed).unwrap();
                dequantised(dtype, rows).iter().map(|&x| f64::from(x)).collect()
            }
        };
        Problem { k, lda, a, b, packed }
    }

    /// Runs rows `first..first + m`; `c` has `ldc` columns a row and is given back as f64.
    fn run(&self, kernel: &UKernel, first: usize, m: usize, c: &[f64], ldc: usize, accumulate: bool) -> Vec<f64> {
        self.run_apart(kernel, first, m, c, (ldc, kernel.nr), accumulate)
    }

    /// As [`Problem::run`], with the rows of the panel `ldb` elements apart.
    fn run_apart(
        &self,
        kernel: &UKernel,
        first: usize,
        m: usize,
        c: &[f64],
        (ldc, ldb): (usize, usize),
        accumulate: bool,
    ) -> Vec<f64> {
        assert!(first + m <= kernel.mr && c.len() == m * ldc && ldc >= kernel.nr && ldb >= kernel.nr);
        let a = &self.a[first * self.lda..];
        let row = kernel.nr * kernel.b.block().1;
        let gap = vec![0xff; (ldb - kernel.nr) * kernel.b.block().1];
        let apart: Vec<u8> = if gap.is_empty() {
            self.packed.clone()
        } else {
            self.packed.chunks(row).flat_map(|r| [r, gap.as_slice()].concat()).collect()
        };
        // Vectors of u64 keep the copied bytes aligned.
        let panel: Vec<u64> = apart.chunks(8).map(eight).collect();
        let b = panel.as_ptr().cast();
        let flag = usize::from(accumulate);
        if kernel.c == DType::F64 {
            let mut c = c.to_vec();
            // SAFETY: lengths are checked above; the caller checked that the kernel is available.
            unsafe {
                (kernel.function)(m, self.k, a.as_ptr().cast(), self.lda, b, ldb, c.as_mut_ptr().cast(), ldc, flag)
            };
            return c;
        }
        // Vectors of u64 keep these bytes aligned, too.
        let a: Vec<u8> = a.iter().flat_map(|&x| bytes(kernel.a, x as f32)).collect();
        let a: Vec<u64> = a.chunks(8).map(eight).collect();
        let mut c: Vec<f32> = c.iter().map(|&x| x as f32).collect();
        // SAFETY: as above.
        unsafe { (kernel.function)(m, self.k, a.as_ptr().cast(), self.lda, b, ldb, c.as_mut_ptr().cast(), ldc, flag) };
        c.iter().map(|&x| f64::from(x)).collect()
    }

    /// The exact sum (nearly) and the sum of magnitudes of element `(i, j)`.
    fn reference(&self, i: usize, j: usize) -> (f64, f64) {
        let n = self.b.len().checked_div(self.k).unwrap_or(0);
        if j >= n {
            return (0.0, 0.0);
        }
        let terms = (0..self.k).map(|p| self.a[i * self.lda + p] * self.b[j * self.k + p]);
        terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()))
    }
}

fn folds(kernel: &UKernel) -> impl Iterator<Item = usize> {
    let step = kernel.k_step;
    [0, 1, 2, 31, 32, 33, 64, 300, 320, 512].into_iter().filter(move |k| k % step == 0 && (*k < 512 || step > 32))
}

fn here() -> impl Iterator<Item = &'static UKernel> {
    UKERNELS.iter().filter(|kernel| (kernel.available)())
}

#[test]
fn rows_of_a_panel_may_lie_apart() {
    for kernel in here().filter(|kernel| kernel.k_step == 1) {
        for k in folds(kernel) {
            let problem = Problem::new(kernel, k);
            for m in 1..=kernel.mr {
                let before: Vec<f64> = (0..m * kernel.nr).map(|i| i as f64 * 0.25 - 3.0).collect();
                let run = |ldb| problem.run_apart(kernel, 0, m, &before, (kernel.nr, ldb), true);
                assert!(run(kernel.nr) == run(2 * kernel.nr + 1), "{} m {m} k {k}", kernel.name);
            }
        }
    }
}

#[test]
fn products_match_the_reference() {
    for kernel in here() {
        let unit = if kernel.c == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        for k in folds(kernel) {
            let problem = Problem::new(kernel, k);
            for m in 1..=kernel.mr {
                for accumulate in [false, true] {
                    let ldc = kernel.nr + 2;
                    let before: Vec<f64> = (0..m * ldc).map(|i| i as f64 * 0.25 - 3.0).collect();
                    let c = problem.run(kernel, 0, m, &before, ldc, accumulate);
                    for (at, &found) in c.iter().enumerate() {
                        let (i, j) = (at / ldc, at % ldc);
                        if j >= kernel.nr {
                            assert_eq!(found, before[at], "{} wrote past its columns", kernel.name);
                            continue;
                        }
                        let (sum, size) = problem.reference(i, j);
                        let start = if accumulate { before[at] } else { 0.0 };
                        // k + 3 roundings of partial results that no term exceeds; q4_1 adds cancelling `min` terms.
                        let bound = (k as f64 + 3.0) * unit * (3.0 * size + start.abs());
                        let expected = start + sum;
                        let name = kernel.name;
                        assert!(
                            (found - expected).abs() <= bound,
                            "{name} k {k} m {m} ({i}, {j}): {found}, {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_a_tile_change_no_bit_and_blocks_of_a_fold_are_added() {
    for kernel in here() {
        // 96 steps are whole instructions of AMX.
        let (length, cut_at) = if kernel.k_step > 32 { (768, 256) } else { (320, 96) };
        let problem = Problem::new(kernel, length);
        let zeros = vec![0.0; kernel.mr * kernel.nr];
        let whole = problem.run(kernel, 0, kernel.mr, &zeros, kernel.nr, false);
        for m in 1..=kernel.mr {
            for first in 0..=kernel.mr - m {
                let part = problem.run(kernel, first, m, &zeros[..m * kernel.nr], kernel.nr, false);
                assert_eq!(
                    part,
                    whole[first * kernel.nr..(first + m) * kernel.nr],
                    "{} rows {first} + {m}",
                    kernel.name
                );
            }
        }
        let bytes = |k: usize| k * problem.packed.len() / length;
        let cut = |k: usize, from: usize| Problem {
            k,
            lda: problem.lda,
            a: problem.a[from..].to_vec(),
            b: Vec::new(),
            packed: problem.packed[bytes(from)..bytes(from + k)].to_vec(),
        };
        let first = cut(cut_at, 0).run(kernel, 0, 1, &zeros[..kernel.nr], kernel.nr, false);
        let both = cut(length - cut_at, cut_at).run(kernel, 0, 1, &first, kernel.nr, true);
        if kernel.b.is_block() || kernel.isa == Isa::AmxBf16 {
            assert_eq!(both, whole[..kernel.nr], "{} cut at {cut_at}", kernel.name);
            continue;
        }
        let second = cut(length - cut_at, cut_at).run(kernel, 0, 1, &zeros[..kernel.nr], kernel.nr, false);
        let f64s = kernel.c == DType::F64;
        let sum = |(a, b): (&f64, &f64)| if f64s { a + b } else { f64::from(*a as f32 + *b as f32) };
        let sums: Vec<f64> = first.iter().zip(&second).map(sum).collect();
        // Rows of halves are taken in blocks inside, which are added one by one.
        if kernel.a == kernel.b {
            assert_eq!(both, sums, "{} cut at {cut_at}", kernel.name);
        }
    }
}

#[test]
fn instruction_sets_agree_bit_for_bit() {
    for kernel in here().filter(|kernel| kernel.b.is_block()) {
        let portable = find(Isa::Portable, kernel.a, kernel.b).unwrap();
        let problem = Problem::new(kernel, if kernel.k_step > 32 { 512 } else { 320 });
        let start: Vec<f64> = (0..2 * NR).map(|i| i as f64 * 0.1).collect();
        let found = problem.run(kernel, 1, 2, &start, NR, true);
        assert_eq!(found, problem.run(portable, 1, 2, &start, NR, true), "{}", kernel.name);
    }
}

#[test]
fn strips_are_ggmls_values() {
    for kernel in STRIPS.iter().filter(|kernel| (kernel.available)()) {
        let (k, n) = (3 * kernel.b.block().0, NR - COLUMN_TAIL);
        let rows = Random(7).blocks(kernel.b, n * k);
        let mut panel = vec![0xff; packed_bytes(kernel.b, k, n, NR).unwrap()];
        pack_panels_block(kernel.b, &rows, k, n, NR, &mut panel).unwrap();
        let expected = dequantised(kernel.b, rows);
        let mut found = vec![f32::NAN; k * NR];
        // SAFETY: three panel blocks in, `k * NR` floats out, and the kernel is available.
        unsafe { (kernel.function)(k, panel.as_ptr(), found.as_mut_ptr()) };
        for j in 0..NR {
            for p in 0..k {
                let value = found[j / kernel.nr * k * kernel.nr + p * kernel.nr + j % kernel.nr];
                let expected = if j < n { expected[j * k + p] } else { 0.0 };
                assert!(value == expected, "{} ({p}, {j}): {value}, expected {expected}", kernel.name);
            }
        }
        let product = find(kernel.isa, DType::F32, DType::F32).unwrap();
        assert_eq!(product.nr, kernel.nr, "{} does not feed {}", kernel.name, product.name);
    }
}

#[test]
fn names_follow_from_the_rows() {
    for kernel in UKERNELS {
        let isa = kernel.isa.name();
        let what = match kernel.a {
            _ if kernel.isa == Isa::Avx512Bf16 => "pairs".into(),
            _ if kernel.isa == Isa::AmxBf16 => "tiles".into(),
            DType::F16 | DType::Bf16 => kernel.a.to_string(),
            _ => kernel.b.to_string(),
        };
        assert_eq!(kernel.name, format!("{isa}_{what}"));
        assert_eq!(packed_bytes(kernel.b, 256, kernel.nr, kernel.nr), kernel.b.bytes(256 * kernel.nr));
    }
    assert!(find(Isa::best(), DType::F32, DType::F32).is_some() && find(Isa::best(), DType::I8, DType::I8).is_none());
}

/// What the schedules are made for is what is here.
#[test]
fn shapes_of_schedules_are_these_rows() {
    let rows =
        |isa: &str| tilewright_ir::device::ukernel::UKERNELS.iter().filter(|row| row.isa == isa).collect::<Vec<_>>();
    let mut seen = 0;
    for (isa, name) in Isa::ALL.iter().map(|isa| (*isa, isa.name())) {
        let here: Vec<&UKernel> = UKERNELS.iter().filter(|kernel| kernel.isa == isa).collect();
        if here.is_empty() {
            assert!(isa != Isa::Portable && cfg!(not(target_arch = "x86_64")));
            continue;
        }
        let there = rows(name);
        assert_eq!(here.len(), there.len(), "{name}");
        for (kernel, shape) in here.iter().zip(there) {
            let found = (kernel.name, kernel.a, kernel.b, kernel.mr as i64, kernel.nr as i64, kernel.k_step as i64);
            assert_eq!(found, (shape.name, shape.a, shape.b, shape.mr, shape.nr, shape.k_step));
            // All sums are in f32 but those of f64.
            let sums = if shape.b == DType::F64 { DType::F64 } else { DType::F32 };
            assert_eq!(kernel.c, sums, "{}", kernel.name);
        }
        seen += here.len();
    }
    assert_eq!(seen, UKERNELS.len());
    let known: usize = Isa::ALL.iter().map(|isa| rows(isa.name()).len()).sum();
    assert_eq!(known, tilewright_ir::device::ukernel::UKERNELS.len());
}

/// What is infinite or NaN is so by the definition, in each row alone; what overflows only without its scale is a number.
#[test]
fn products_of_blocks_with_infinities_match_the_reference() {
    for kernel in here().filter(|kernel| kernel.b.is_block()) {
        let mut problem = Problem::new(kernel, kernel.k_step.max(64));
        let lda = problem.lda;
        for (row, at, value) in [(0, 5, f64::INFINITY), (1, 40, f64::NEG_INFINITY), (2, 0, 2.9e36), (3, 63, f64::NAN)] {
            problem.a[row * lda + at] = f64::from(value as f32);
        }
        for start in [0.0, 1.5] {
            let before = vec![start; kernel.mr * kernel.nr];
            let c = problem.run(kernel, 0, kernel.mr, &before, kernel.nr, start != 0.0);
            for (at, &found) in c.iter().enumerate().filter(|(at, _)| at % kernel.nr < kernel.nr - COLUMN_TAIL) {
                let expected = start + problem.reference(at / kernel.nr, at % kernel.nr).0;
                let close = (found - expected).abs() <= 1e-4 * expected.abs();
                // Beyond f32 it is infinite.
                let same = found == f64::from(expected as f32) || (found.is_nan() && expected.is_nan()) || close;
                assert!(same, "{} ({}, {}): {found}, {expected}", kernel.name, at / kernel.nr, at % kernel.nr);
            }
        }
    }
}
