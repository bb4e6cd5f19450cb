//! Kernels of every kind against plain Rust.

use super::{clif_text, compile, eval};
use crate::cpu::ukernel::{Isa, find};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::Kernel;
use tilewright_ir::kernel::text::parse_kernel;
use tilewright_ir::types::DType;

fn parse(text: &str) -> Kernel {
    parse_kernel("test", text).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs all items, in two calls.
fn run(text: &str, symbols: &[i64], args: &mut [&mut [u8]]) {
    let kernel = parse(text);
    let names: Vec<String> = kernel.symbols.iter().map(|symbol| symbol.name.to_string()).collect();
    let (_module, compiled) = compile(&[&kernel], Isa::best()).unwrap_or_else(|error| panic!("{error}"));
    let lookup = |name: &str| names.iter().position(|other| other == name).map(|at| symbols[at]);
    let items: i64 = compiled[0].grid.iter().map(|extent| eval(extent, &lookup).unwrap()).product();
    let mut scratch = vec![0u8; compiled[0].scratch_bytes + 64];
    let offset = scratch.as_ptr().align_offset(64);
    let pointers: Vec<*mut u8> = args.iter_mut().map(|arg| arg.as_mut_ptr()).collect();
    for (begin, end) in [(0, items / 2), (items / 2, items)] {
        // Safety: the tests pass buffers of the declared sizes.
        unsafe { compiled[0].call(&pointers, symbols, scratch.as_mut_ptr().add(offset), begin, end) }.unwrap();
    }
}

fn bytes<T>(data: &mut [T]) -> &mut [u8] {
    // Safety: plain numbers.
    unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), size_of_val(data)) }
}

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (at, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "at {at}: found {x}, expected {y}");
    }
}

#[test]
fn pointwise_with_odd_sizes() {
    for n in [1usize, 3, 4, 63, 64, 65, 200] {
        let (mut gate, mut up, mut y) = (numbers(n, 1), numbers(n, 2), vec![9.0f32; n + 8]);
        run(
            "kernel swiglu target cpu { sym n in 1..=268435456; const TILE = 64
             in gate: f32[e=n]; in up: f32[e=n]; out y: f32[e=n]
             par t in ceil(n, TILE) at grid { let g = load gate[t*TILE +? TILE] pad 0; let u = load up[t*TILE +? TILE] pad 0
               store y[t*TILE +? TILE] = g / (1.0 + exp(-g)) * u } }",
            &[n as i64],
            &mut [bytes(&mut gate), bytes(&mut up), bytes(&mut y)],
        );
        let expected: Vec<f32> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        close(&y[..n], &expected, 1e-6);
        assert!(y[n..].iter().all(|x| *x == 9.0), "the store is clipped");
    }
}

#[test]
fn softmax_of_rows() {
    let (r, c) = (5usize, 37usize);
    let (mut x, mut y) = (numbers(r * c, 3), vec![0f32; r * c]);
    run(
        "kernel softmax target cpu { sym rows in 1..=1000; const C = 37
         in x: f32[r=rows, c=C]; out y: f32[r=rows, c=C]
         par i in rows at grid { let v = load x[i, :]; let m = max_of(v, c); let p = exp(v - m)
           store y[i, :] = p / sum(p, c) } }",
        &[r as i64],
        &mut [bytes(&mut x), bytes(&mut y)],
    );
    for row in 0..r {
        let v = &x[row * c..][..c];
        let m = v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = v.iter().map(|v| (v - m).exp()).sum();
        let expected: Vec<f32> = v.iter().map(|v| (v - m).exp() / sum).collect();
        close(&y[row * c..][..c], &expected, 1e-5);
    }
}

#[test]
fn layer_norm_in_strips() {
    let (r, d) = (11usize, 128usize);
    let (mut x, mut gamma, mut beta) = (numbers(r * d, 4), numbers(d, 5), numbers(d, 6));
    let mut y = vec![0f32; r * d];
    run(
        "kernel layer_norm target cpu { sym rows in 1..=1048576; const D = 128, GRAIN = 4, S = 32
         in x: f32[r=rows, c=D]; in gamma: f32[c=D]; in beta: f32[c=D]; out y: f32[r=rows, c=D]
         par blk in ceil(rows, GRAIN) at grid {
           for i in blk*GRAIN .. min(blk*GRAIN + GRAIN, rows) {
             reg s: f32[c=S]; reg q: f32[c=S]; set s = 0; for j in 0 .. D/S { let v = load x[i, j*S +: S]; set s = s + v }
             let mean = sum(s, c)*0.0078125; set q = 0
             for j in 0 .. D/S { let v = load x[i, j*S +: S]; set q = q + (v - mean)*(v - mean) }
             let rstd = rsqrt(sum(q, c)*0.0078125 + 1e-5)
             for j in 0 .. D/S { let v = load x[i, j*S +: S]; let g = load gamma[j*S +: S]; let b = load beta[j*S +: S]
               store y[i, j*S +: S] = (v - mean)*rstd*g + b } } } }",
        &[r as i64],
        &mut [bytes(&mut x), bytes(&mut gamma), bytes(&mut beta), bytes(&mut y)],
    );
    for row in 0..r {
        let v = &x[row * d..][..d];
        let mean = v.iter().sum::<f32>() / d as f32;
        let variance = v.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / d as f32;
        let expected: Vec<f32> =
            (0..d).map(|j| (v[j] - mean) / (variance + 1e-5).sqrt() * gamma[j] + beta[j]).collect();
        close(&y[row * d..][..d], &expected, 1e-5);
    }
}

#[test]
fn views_transpose_stride_and_pad() {
    let (m, n) = (7usize, 9usize);
    let (mut x, mut y) = (numbers(m * n, 7), vec![0f32; n * m]);
    run(
        "kernel transpose target cpu { sym m in 1..=99; sym n in 1..=99; in x: f32[m=m, n=n]; out y: f32[n=n, m=m]
         view v[n=n, m=m] = x[m, n]
         par i in ceil(n, 4), j in ceil(m, 8) at grid { let t = load v[i*4 +? 4, j*8 +? 8] pad 0
           store y[i*4 +? 4, j*8 +? 8] = t } }",
        &[m as i64, n as i64],
        &mut [bytes(&mut x), bytes(&mut y)],
    );
    for i in 0..n {
        for j in 0..m {
            assert_eq!(y[i * m + j], x[j * n + i]);
        }
    }
    let mut z = vec![0f32; 16];
    run(
        "kernel pad target cpu { const N = 16; in x: f32[e=9]; out z: f32[e=N]; view v[e=N] = x[e - 3 ?]
         par b in 1 at grid { let t = load v[:] pad 5; store z[:] = t } }",
        &[],
        &mut [bytes(&mut x), bytes(&mut z)],
    );
    for i in 0..16 {
        assert_eq!(z[i], if (3..12).contains(&i) { x[i - 3] } else { 5.0 }, "at {i}");
    }
}

#[test]
fn gather_by_loaded_index() {
    let (v, d, t) = (10usize, 12usize, 5usize);
    let (mut table, mut y) = (numbers(v * d, 8), vec![0f32; t * d]);
    let mut ids: Vec<i32> = vec![3, 0, 9, 9, 1];
    run(
        "kernel take target cpu { sym T in 1..=99; const V = 10, D = 12
         in table: f32[v=V, c=D]; in ids: i32[t=T] values(0, V); out y: f32[t=T, c=D]
         par t in T at grid { let id = load ids[t]; let r = load table[id, :]; store y[t, :] = r } }",
        &[t as i64],
        &mut [bytes(&mut table), bytes(&mut ids), bytes(&mut y)],
    );
    for i in 0..t {
        assert_eq!(y[i * d..][..d], table[ids[i] as usize * d..][..d]);
    }
}

#[test]
fn contraction_with_epilogue() {
    for isa in Isa::ALL.iter().filter(|isa| isa.available()) {
        let row = find(*isa, DType::F32, DType::F32).unwrap();
        let (m, k, n, nr) = (29usize, 40usize, row.nr * 2, row.nr);
        let (mut a, b, mut bias) = (numbers(m * k, 9), numbers(k * n, 10), numbers(n, 11));
        let mut panels = vec![0f32; k * n];
        for p in 0..k {
            for j in 0..n {
                panels[(j / nr * k + p) * nr + j % nr] = b[p * n + j];
            }
        }
        let mut y = vec![0f32; m * n];
        let text = format!(
            "kernel gemm target cpu {{ sym M in 1..=65536; const N = {n}, K = {k}, NR = {nr}, KC = 20, MC = 16
             in a: f32[m=M, k=K]; in bp: f32[nb=N/NR, k=K, n=NR]; in bias: f32[n=N]; out y: f32[m=M, n=N]
             cache c: f32[m=MC, n=NR]
             par mt in ceil(M, MC), nt in N/NR at grid {{
               for kb in 0 .. K/KC {{
                 mma c[:, :] += a[mt*MC +? MC, kb*KC +: KC] * bp[nt, kb*KC +: KC, :] via {} init kb == 0 }}
               let v = load c[:, :]; let b = load bias[nt*NR +: NR]
               store y[mt*MC +? MC, nt*NR +: NR] = tanh(v + b) }} }}",
            row.name
        );
        run(&text, &[m as i64], &mut [bytes(&mut a), bytes(&mut panels), bytes(&mut bias), bytes(&mut y)]);
        let mut expected = vec![0f32; m * n];
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum();
                expected[i * n + j] = (sum + bias[j]).tanh();
            }
        }
        close(&y, &expected, 2e-5);
    }
}

#[test]
fn values_are_not_changed_by_later_stores() {
    let n = 8usize;
    let (mut x, mut y) = (numbers(n, 12), vec![0f32; n]);
    let before = x.clone();
    run(
        "kernel swap target cpu { const N = 8; inout x: f32[e=N]; out y: f32[e=N]
         par b in 1 at grid { let v = load x[:]; store x[:] = v * 2.0; store y[:] = v } }",
        &[],
        &mut [bytes(&mut x), bytes(&mut y)],
    );
    assert_eq!(y, before);
    assert_eq!(x, before.iter().map(|x| x * 2.0).collect::<Vec<_>>());
}

#[test]
fn text_of_a_kernel_and_refusals() {
    let kernel = parse("kernel one target cpu { out y: f32[e=4]; par b in 1 at grid { store y[:] = 1.0 } }");
    assert!(clif_text(&kernel, Isa::Portable).unwrap().contains("f32x4"));
    let kernel = parse("kernel one target sm_80 { out y: f32[e=4]; par b in 1 at grid { store y[:] = 1.0 } }");
    let refused: Diagnostic = clif_text(&kernel, Isa::Portable).unwrap_err();
    assert_eq!(refused.code, "cpu-unsupported");
}

#[test]
fn a_strip_with_a_masked_end_and_positions() {
    let (r, c) = (3usize, 75usize);
    let (mut x, mut y, mut at) = (numbers(r * c, 13), vec![0f32; r], vec![0i64; r]);
    run(
        "kernel rows target cpu { sym rows in 1..=99; sym C in 1..=99
         in x: f32[r=rows, c=C]; out y: f32[r=rows]; out at: i64[r=rows]
         par i in rows at grid {
           reg s: f32[c=32]; set s = 0
           for j in 0 .. ceil(C, 32) { let v = load x[i, j*32 +? 32] pad 9
             set s = s + select(iota(c, j*32, 32) < C, exp(v), 0.0) }
           store y[i] = sum(s, c)
           let w = load x[i, 0 +? 96] pad -9
           store at[i] = argmax_of(w, c) } }",
        &[r as i64, c as i64],
        &mut [bytes(&mut x), bytes(&mut y), bytes(&mut at)],
    );
    let rows: Vec<&[f32]> = x.chunks(c).collect();
    let sums: Vec<f32> = rows.iter().map(|row| row.iter().map(|x| x.exp()).sum()).collect();
    close(&y, &sums, 1e-5);
    for (row, at) in rows.iter().zip(&at) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(row.iter().position(|x| *x == most), usize::try_from(*at).ok());
    }
}

#[test]
fn integers_casts_and_halves() {
    let mut a: Vec<i32> = vec![7, -7, i32::MIN, 5, 0, 100];
    let mut b: Vec<i32> = vec![2, 2, -1, 0, 3, 33];
    let mut f: Vec<f32> = vec![300.7, -2.5, f32::NAN, 1e20, -1e20, 0.1];
    let (mut q, mut m, mut s) = (vec![0i32; 6], vec![0i32; 6], vec![0i32; 6]);
    let (mut h, mut g) = (vec![0u16; 6], vec![0u8; 6]);
    run(
        "kernel ints target cpu { const N = 6; in a: i32[e=N]; in b: i32[e=N]; in f: f32[e=N]
         out q: i32[e=N]; out m: i32[e=N]; out s: i32[e=N]; out h: f16[e=N]; out g: u8[e=N]
         par z in 1 at grid { let x = load a[:]; let y = load b[:]; let t = load f[:]
           store q[:] = div(x, y); store m[:] = rem(x, y); store s[:] = shl(x, y); store h[:] = f16(t); store g[:] = u8(t) } }",
        &[],
        &mut [
            bytes(&mut a),
            bytes(&mut b),
            bytes(&mut f),
            bytes(&mut q),
            bytes(&mut m),
            bytes(&mut s),
            bytes(&mut h),
            bytes(&mut g),
        ],
    );
    assert_eq!(q, [3, -3, i32::MIN, 0, 0, 3]);
    assert_eq!(m, [1, -1, 0, 0, 0, 1]);
    assert_eq!(s, [28, -28, 0, 5, 0, 0]);
    assert_eq!(g, [255, 0, 0, 255, 0, 0]);
    let halves: Vec<u16> = f.iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
    assert_eq!(h, halves);
}

#[test]
fn reads_of_what_is_written_come_first() {
    let n = 8usize;
    let start = numbers(n, 14);
    let (mut x, mut y, mut z) = (start.clone(), vec![1f32; 5], vec![0f32; n]);
    run(
        "kernel pads target cpu { const N = 8; inout x: f32[e=N]; in y: f32[e=5]; out z: f32[e=N]
         par b in 1 at grid { let v = load x[:]; store x[:] = v * 2.0
           let w = load y[0 +? N] pad sum(v, e); store z[:] = w } }",
        &[],
        &mut [bytes(&mut x), bytes(&mut y), bytes(&mut z)],
    );
    close(&z[5..], &[start.iter().sum(); 3], 1e-5);

    let mut x = start.clone();
    run(
        "kernel moved target cpu { const N = 8; inout x: f32[e=N]
         par b in 1 at grid { copy x[1 +: 7] <- x[0 +: 7] } }",
        &[],
        &mut [bytes(&mut x)],
    );
    assert_eq!(x[1..], start[..7]);

    let mut x = start.clone();
    run(
        "kernel next target cpu { const N = 8; inout x: f32[e=N]
         par b in 1 at grid { reg i: i64[]; set i = 0; let v = load x[i +: 7]; set i = i + 1; store x[i +: 7] = v } }",
        &[],
        &mut [bytes(&mut x)],
    );
    assert_eq!(x[1..], start[..7]);

    let (mut x, mut y) = (numbers(4 * n, 15), vec![0f32; 4 * n]);
    run(
        "kernel rows target cpu { in x: f32[r=4, c=8]; out y: f32[r=4, c=8]
         par b in 1 at grid { reg s: f32[r=4, c=8]; let v = load x[:, :]; set s = v; let first = load s[0, :]
           set s = s + first; store y[:, :] = s } }",
        &[],
        &mut [bytes(&mut x), bytes(&mut y)],
    );
    let expected: Vec<f32> = (0..4 * n).map(|at| x[at] + x[at % n]).collect();
    assert_eq!(y, expected);
}

#[test]
fn quotients_of_indices_are_those_of_numbers() {
    let (mut ids, mut found) = ([-7i64, 7, 0, -3], [0i64; 16]);
    run(
        "kernel quotients target cpu { sym n in 1..=9; in ids: i64[t=4]; out y: i64[t=4, e=4]
         par t in 4 at grid { let x = load ids[t]
           store y[t, 0] = 0 + sum(iota(k, x / 2, 1), k); store y[t, 1] = 0 + sum(iota(k, rem(x, 2), 1), k)
           store y[t, 2] = 0 + sum(iota(k, x / (n - 5), 1), k); store y[t, 3] = 0 + sum(iota(k, rem(x, n - 5), 1), k) } }",
        &[5],
        &mut [bytes(&mut ids), bytes(&mut found)],
    );
    let expected: Vec<i64> = ids.iter().flat_map(|x| [x / 2, x % 2, 0, 0]).collect();
    assert_eq!(found, *expected);
}

/// Products whose operands do not fit would read or write what is not theirs.
#[test]
fn products_that_do_not_fit_are_refused() {
    let row = find(Isa::Portable, DType::F32, DType::F32).unwrap();
    let text = format!(
        "kernel one target cpu {{ in a: f32[m=4, k=8]; in ids: i64[m=4]; in b: f32[nb=2, k=8, n={nr}]; out y: f32[m=4, n={nr}]
         par z in 1 at grid {{ cache c: f32[m=4, n={nr}]; let i = load ids[:]
           mma c[:, :] += a[:, :] * b[0, :, :] via {name}; let v = load c[:, :]; store y[:, :] = v }} }}",
        nr = row.nr,
        name = row.name
    );
    assert!(clif_text(&parse(&text), Isa::Portable).is_ok());
    for (from, to, code) in [
        ("b[0, :, :]", "b[0, 0 +: 4, :]", "kernel-invalid"),
        ("c[:, :] +=", "c[0 +: 3, :] +=", "kernel-invalid"),
        ("c[:, :] += a[:, :]", "c[0, :] += a[5?, :]", "cpu-unsupported"),
        ("a[:, :]", "a[gather i, :]", "cpu-unsupported"),
        ("cache c: f32[m=4, n=8]", "cache c: f32[m=4, n=16]", "kernel-invalid"),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text, "{from}");
        let error = clif_text(&parse(&bad), Isa::Portable).unwrap_err();
        assert_eq!(error.code, code, "{to}: {error}");
    }
}

#[test]
fn pads_are_single_values_of_the_loaded_dtype() {
    for pad in ["v", "f64(1.0)"] {
        let text = format!(
            "kernel one target cpu {{ in x: f32[e=8]; out y: f32[e=8]
             par z in 1 at grid {{ let v = load x[:]; let w = load x[4 +? 8] pad {pad}; store y[:] = w }} }}"
        );
        assert_eq!(clif_text(&parse(&text), Isa::Portable).unwrap_err().code, "kernel-invalid", "{pad}");
    }
}

#[test]
fn masked_stores_backwards_are_refused() {
    let text = "kernel back target cpu { in x: f32[e=8]; work w: f32[e=8]; view v[e=8] = w[7 - e ?]
        par b in 1 at grid { let t = load x[:]; store v[:] = t } }";
    assert_eq!(clif_text(&parse(text), Isa::Portable).unwrap_err().code, "cpu-unsupported");
    assert!(clif_text(&parse(&text.replace("7 - e ?", "7 - e")), Isa::Portable).is_ok());
}

/// What is the same in all turns of a loop is computed before it.
#[test]
fn a_tile_that_a_loop_reads_is_computed_once() {
    let text = "kernel columns target cpu { in x: f32[i=9, j=8]; in s: f32[j=8]; out z: f32[i=9, j=8]
         par p in 1 at grid { let a = load s[0 +: 8]; let b = f32(1.0)/a
           for i in 0 .. 9 { let v = load x[i, 0 +: 8]; let w = v*b; store z[i, 0 +: 8] = w } } }";
    let clif = clif_text(&parse(text), Isa::Portable).unwrap();
    let mut blocks = clif.split("\n\n").filter(|block| block.contains("fmul"));
    assert!(clif.contains("fdiv") && blocks.all(|block| !block.contains("fdiv")), "{clif}");
    let (x, s, mut z) = (numbers(72, 3), numbers(8, 4), vec![0f32; 72]);
    run(text, &[], &mut [bytes(&mut x.clone()), bytes(&mut s.clone()), bytes(&mut z)]);
    for (at, z) in z.iter().enumerate() {
        assert_eq!(*z, x[at] * (1.0 / s[at % 8]));
    }
}
