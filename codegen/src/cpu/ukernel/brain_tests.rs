//! Products of bf16 pairs, bit for bit, against what the instructions are said to do: orders of sums, numbers below the least
//! normal f32, infinities, NaNs and signed zeros; at any size, and on many threads at once.

use super::tests::Random;
use super::*;
use crate::cpu::pack::{pack_pairs, packed_bytes};

/// Steps of the fold of one instruction of AMX.
const STEPS: usize = 32;
/// What stands where a kernel may neither read nor write: a NaN of bf16, and one of f32.
const NEVER: u16 = 0x7fa5;
const UNTOUCHED: u32 = 0x7fa5_5a5a;

/// The kernels of pairs that this processor has; says which it has not.
fn kernels() -> Vec<&'static UKernel> {
    let all = UKERNELS.iter().filter(|kernel| kernel.b == DType::Bf16);
    let (here, absent): (Vec<&UKernel>, Vec<&UKernel>) = all.partition(|kernel| (kernel.available)());
    absent.iter().for_each(|kernel| eprintln!("skipped: this machine has no {}", kernel.isa.name()));
    here
}

/// Below the least normal number: 0 of the same sign.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// `sum + a b`, rounded once; what goes in and comes out is flushed.
fn step(sum: f32, (a, b): (u16, u16)) -> f32 {
    let wide = |bits: u16| flushed(f32::from_bits(u32::from(bits) << 16));
    flushed(wide(a).mul_add(wide(b), flushed(sum)))
}

/// What `start` becomes by the pairs of factors, as the documents of the kernels have it.
fn expected(isa: Isa, start: Option<f32>, factors: &[(u16, u16)]) -> f32 {
    if isa == Isa::AmxBf16 {
        return factors.chunks(STEPS).fold(start.unwrap_or(0.0), |sum, steps| {
            let chain = |first| steps.iter().skip(first).step_by(2).fold(0.0, |sum, &x| step(sum, x));
            flushed(flushed(sum) + flushed(chain(0) + chain(1)))
        });
    }
    let sum = factors.chunks(2).fold(0.0, |sum, pair| pair.iter().rev().fold(sum, |sum, &x| step(sum, x)));
    start.map_or(sum, |start| start + sum)
}

/// Numbers of ordinary size, or bits of any kind.
fn number(random: &mut Random, any: bool) -> u16 {
    const SPECIAL: [u16; 10] = [0, 0x8000, 1, 0x8001, 0x007f, 0x0080, 0x8080, 0x1f80, 0x7f7f, 0x9fc0];
    const RARE: [u16; 4] = [0x7f80, 0xff80, 0x7fc0, 0xffa0];
    match random.bits() % 64 {
        0 if any => RARE[random.bits() as usize % RARE.len()],
        // Products of two of these are on either side of the least normal number.
        1..16 if any => 0x1f00 | random.bits() as u16 & 0x81ff,
        16..24 if any => SPECIAL[random.bits() as usize % SPECIAL.len()],
        _ => half::bf16::from_f32(random.unit()).to_bits(),
    }
}

/// A product of `m` rows, `n` columns in one panel and `k` steps with random factors, checked bit by bit. Rows of `a` and `c`
/// are further apart than they are long.
fn check(kernel: &UKernel, (m, n, k): (usize, usize, usize), any: bool, accumulate: bool, random: &mut Random) {
    let (lda, ldc) = (k + 3, kernel.nr + 2);
    let a: Vec<u16> = (0..m * lda).map(|i| if i % lda < k { number(random, any) } else { NEVER }).collect();
    let b: Vec<u16> = (0..k * n).map(|_| number(random, any)).collect();
    let mut panel = vec![0; packed_bytes(DType::Bf16, k, n, kernel.nr).unwrap() / 2];
    pack_pairs(&b, (k, n), (n, 1), kernel.nr, &mut panel).unwrap();
    panel.extend([NEVER; 64]);
    let before = |i: usize| if accumulate { i as f32 * 0.25 - 3.0 } else { f32::NAN };
    let edge = |i: usize| i % ldc >= kernel.nr || i >= m * ldc;
    let mut c: Vec<f32> =
        (0..(m + 1) * ldc).map(|i| if edge(i) { f32::from_bits(UNTOUCHED) } else { before(i) }).collect();
    let (from, panels, to) = (a.as_ptr().cast(), panel.as_ptr().cast(), c.as_mut_ptr().cast());
    // SAFETY: the vectors have these rows and steps, and the kernel is available.
    unsafe { (kernel.function)(m, k, from, lda, panels, kernel.nr, to, ldc, usize::from(accumulate)) };
    for (at, found) in c.iter().enumerate() {
        let (i, j) = (at / ldc, at % ldc);
        if edge(at) {
            assert_eq!(found.to_bits(), UNTOUCHED, "{} wrote beside its tile", kernel.name);
            continue;
        }
        let column = |p: usize| if j < n { b[p * n + j] } else { 0 };
        let factors: Vec<(u16, u16)> = (0..k).map(|p| (a[i * lda + p], column(p))).collect();
        let want = expected(kernel.isa, accumulate.then(|| before(at)), &factors);
        let same = want.to_bits() == found.to_bits() || want.is_nan() && found.is_nan();
        let name = kernel.name;
        assert!(same, "{name} m {m} n {n} k {k} accumulate {accumulate} ({i}, {j}): {found:e}, expected {want:e}");
    }
}

#[test]
fn products_of_pairs_have_the_bits_of_their_definition() {
    for kernel in kernels() {
        let mut random = Random(7);
        for case in 0..120 {
            let below = |n: usize, random: &mut Random| 1 + random.bits() as usize % n;
            let (m, n) = (below(kernel.mr, &mut random), below(kernel.nr, &mut random));
            let k = 2 * below(65, &mut random);
            check(kernel, (m, n, k), case % 2 == 1, case % 4 >= 2, &mut random);
        }
        for k in [0, 2, 30, 32, 34, 62, 64, 66, 1024] {
            for m in [1, 2, 15, 16, 17, 31, 32].into_iter().filter(|m| *m <= kernel.mr) {
                check(kernel, (m, kernel.nr, k), k < 1024, true, &mut random);
                check(kernel, (m, kernel.nr, k), k < 1024, false, &mut random);
            }
        }
    }
}

/// Tiles are a state of the processor that each thread has for itself.
#[test]
fn threads_do_not_see_the_tiles_of_others() {
    for kernel in kernels() {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for case in 0..40 {
                        let m = 1 + (case + thread as usize * 5) % kernel.mr;
                        check(kernel, (m, kernel.nr, 2 + 2 * case), false, case % 2 == 0, &mut random);
                    }
                });
            }
        });
    }
}
