//! Speed of the micro-kernels, of packing and of the polynomials, on this machine.
//!
//! `cargo run --release -p tilewright-codegen --example ukernel_bench`. Every figure is the best of several runs. The peak is
//! that of a loop of independent fused multiply-adds in registers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::hint::black_box;
use std::time::Instant;
use tilewright_codegen::cpu::pack::{pack_panels_block, pack_panels_f32, packed_bytes};
use tilewright_codegen::cpu::poly::{self, Scalar};
use tilewright_codegen::cpu::ukernel::{Isa, STRIPS, UKERNELS, UKernel, block::NR};
use tilewright_ir::types::DType;

fn main() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        println!("peak of fused multiply-adds, 512 bits f32: {:.1} GFLOP/s", peak());
    }
    for kernel in UKERNELS.iter().filter(|kernel| (kernel.available)() && kernel.k_step == 1) {
        for k in [128, 256, 512] {
            println!("{} m {} k {k}: {:.1} GFLOP/s", kernel.name, kernel.mr, tile(kernel, kernel.mr, k));
        }
    }
    for kernel in UKERNELS.iter().filter(|kernel| (kernel.available)() && kernel.b.is_block()) {
        println!("{} m {} k 512, cached: {:.1} GFLOP/s", kernel.name, kernel.mr, tile(kernel, kernel.mr, 512));
        println!("{} m 1 k 512, cached: {:.1} GFLOP/s", kernel.name, tile(kernel, 1, 512));
    }
    for threads in [1, 2] {
        println!("read 96 MB, {threads} thread(s): {:.1} GB/s", read(threads));
        let streams = |kernel: &&UKernel| {
            kernel.isa != Isa::Portable && (kernel.available)() && (kernel.b.is_block() || kernel.b == DType::F32)
        };
        for kernel in UKERNELS.iter().filter(streams) {
            println!("{} m 1, 96 MB, {threads} thread(s): {:.1} GB/s", kernel.name, stream(kernel, threads));
        }
    }
    strips();
    packing();
    polynomials();
}

/// Seconds of the fastest of `runs` calls.
fn best(runs: usize, mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| time(&mut f)).fold(f64::INFINITY, f64::min)
}

#[cfg(target_arch = "x86_64")]
fn peak() -> f64 {
    use std::arch::x86_64::*;
    /// Twelve chains cover the latency of two units; separate variables stay in registers, an array did not.
    #[target_feature(enable = "avx512f")]
    fn chains(steps: usize) -> __m512 {
        let x = _mm512_set1_ps(black_box(0.5));
        macro_rules! chains {
            ($($sum:ident)+) => {{
                $( let mut $sum = x; )+
                for _ in 0..steps {
                    $( $sum = _mm512_fmadd_ps($sum, x, x); )+
                }
                let mut all = x;
                $( all = _mm512_add_ps(all, $sum); )+
                all
            }};
        }
        chains!(a b c d e f g h i j k l)
    }
    let steps = 1_000_000;
    let seconds = best(20, || {
        // SAFETY: the caller looked for AVX-512F.
        black_box(unsafe { chains(steps) });
    });
    (steps * 12 * 32) as f64 / seconds / 1e9
}

/// GFLOP/s of one tile again and again, everything in the first two caches.
fn tile(kernel: &UKernel, m: usize, k: usize) -> f64 {
    let a = vec![0u64; m * k + 64];
    let b = vec![0u64; packed_bytes(kernel.b, k, kernel.nr, kernel.nr).unwrap_or(0) / 8 + 64];
    let mut c = vec![0u64; m * kernel.nr + 64];
    let calls = if kernel.isa == Isa::Portable { 200 } else { 20_000 };
    let seconds = best(10, || {
        for _ in 0..calls {
            let (a, b, c) = (a.as_ptr().cast(), b.as_ptr().cast(), c.as_mut_ptr().cast());
            // SAFETY: the vectors hold the operands (8 bytes an element and more), and the kernel is available.
            unsafe { (kernel.function)(m, k, a, k, black_box(b), kernel.nr, c, kernel.nr, 1) };
        }
    });
    (2 * m * k * kernel.nr * calls) as f64 / seconds / 1e9
}

/// Splits the panels of a buffer over threads and calls `work(panels, bytes of a panel)` on each part.
fn share(panels: &[u8], panel: usize, threads: usize, work: impl Fn(&[u8]) + Sync) {
    let each = (panels.len() / panel).div_ceil(threads) * panel;
    std::thread::scope(|scope| {
        for part in panels.chunks(each) {
            let work = &work;
            scope.spawn(move || work(part));
        }
    });
}

/// GB/s of a matrix-vector product over 96 MB of weights, k 2048.
fn stream(kernel: &UKernel, threads: usize) -> f64 {
    let k = 2048;
    let panel = packed_bytes(kernel.b, k, kernel.nr, kernel.nr).unwrap_or(0);
    // Not zero: the system backs untouched zero pages with one page, which stays in the cache.
    let weights = vec![0x0101_0101_0101_0101u64; 96_000_000 / panel * panel / 8];
    // SAFETY: a view of the same memory as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(weights.as_ptr().cast::<u8>(), weights.len() * 8) };
    let a = vec![0.5f32; k];
    let seconds = best(8, || {
        share(bytes, panel, threads, |part| {
            let mut c = vec![0f32; kernel.nr];
            for panel in part.chunks_exact(panel) {
                let (a, c) = (a.as_ptr().cast(), c.as_mut_ptr().cast());
                // SAFETY: one panel, one row, one row of sums; the kernel is available.
                unsafe { (kernel.function)(1, k, a, k, panel.as_ptr(), kernel.nr, c, kernel.nr, 0) };
            }
            black_box(&c);
        });
    });
    bytes.len() as f64 / seconds / 1e9
}

/// GB/s of adding up 96 MB.
fn read(threads: usize) -> f64 {
    let words = vec![1u64; 12_000_000];
    // SAFETY: a view of the same memory as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8) };
    let seconds = best(8, || {
        share(bytes, 4096, threads, |part| {
            let words =
                part.chunks_exact(8).map(|x| u64::from_ne_bytes([x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]]));
            black_box(words.fold(0u64, u64::wrapping_add));
        });
    });
    bytes.len() as f64 / seconds / 1e9
}

fn strips() {
    for kernel in STRIPS.iter().filter(|kernel| (kernel.available)()) {
        let k = 256;
        let src = vec![0u64; packed_bytes(kernel.b, k, NR, NR).unwrap_or(0) / 8];
        let mut dst = vec![0f32; k * NR];
        let seconds = best(10, || {
            for _ in 0..1000 {
                // SAFETY: `src` holds the panel, `dst` its floats; the kernel is available.
                unsafe { (kernel.function)(k, black_box(src.as_ptr().cast()), dst.as_mut_ptr()) };
            }
        });
        println!("{}: {:.1} Gelem/s", kernel.name, (k * NR * 1000) as f64 / seconds / 1e9);
    }
}

fn packing() {
    let (k, n) = (2048, 8192);
    for dtype in [DType::Q4_0, DType::Q4_1, DType::Q8_0] {
        let bytes = packed_bytes(dtype, k, n, NR).unwrap_or(0);
        let (src, mut dst) = (vec![1u8; bytes], vec![0u8; bytes]);
        let seconds = best(5, || drop(black_box(pack_panels_block(dtype, &src, k, n, NR, &mut dst))));
        println!("pack {dtype}: {:.2} GB/s", bytes as f64 / seconds / 1e9);
    }
    let (src, mut dst) = (vec![1f32; k * n], vec![0f32; k * n]);
    for (name, k_stride, n_stride) in [("rows", n, 1), ("columns", 1, k)] {
        let seconds = best(5, || drop(black_box(pack_panels_f32(&src, k, n, k_stride, n_stride, NR, &mut dst))));
        println!("pack f32 by {name}: {:.2} GB/s", (4 * k * n) as f64 / seconds / 1e9);
    }
}

/// The programs as Rust over one f32 at a time; rustc may use AVX2 and FMA, and vectorises these loops by itself.
fn polynomials() {
    macro_rules! measure {
        ($($name:ident)+) => {{
            $(
                #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
                fn $name(from: &[f32], to: &mut [f32]) {
                    for (x, y) in from.iter().zip(to) {
                        *y = poly::$name(&mut Scalar, *x);
                    }
                }
                let from: Vec<f32> = (0..4096).map(|i| i as f32 * 0.001 + 0.01).collect();
                let mut to = vec![0f32; from.len()];
                let seconds = best(10, || {
                    for _ in 0..200 {
                        // SAFETY: the caller looked for AVX2 and FMA.
                        #[allow(unused_unsafe)]
                        unsafe { $name(black_box(&from), &mut to) };
                    }
                });
                println!("{}: {:.2} Gelem/s", stringify!($name), (200 * from.len()) as f64 / seconds / 1e9);
            )+
        }};
    }
    if Isa::best() != Isa::Portable {
        measure!(exp exp2 expm1 log log2 log1p tanh erf sin cos);
    }
}
