//! Kernels of the corpus against plain loops, and faults that a run must find.

use super::{Tensor, run};
use crate::kernel::text::parse_kernel;
use crate::kernel::tree::Kernel;
use crate::types::Bindings;

fn kernel(file: &str, constants: &[(&str, i64)]) -> Kernel {
    let path = format!("{}/tests/kernels/{file}.kir", env!("CARGO_MANIFEST_DIR"));
    let mut k = parse_kernel(file, &std::fs::read_to_string(path).unwrap()).unwrap();
    for (name, value) in constants {
        k.constants.iter_mut().find(|c| &*c.0 == *name).unwrap().1 = *value;
    }
    k
}

fn symbols(of: &[(&str, i64)]) -> Bindings {
    of.iter().map(|(n, v)| ((*n).into(), *v)).collect()
}

/// Reproducible numbers in -1..1.
fn numbers(seed: u64, n: usize) -> Vec<f64> {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (s >> 33) as f64 / (1u64 << 30) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn floats(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::float(shape, numbers(seed, shape.iter().product()))
}

#[track_caller]
fn close(found: &Tensor, want: &[f64], tolerance: f64) {
    let found = found.floats().unwrap();
    assert_eq!(found.len(), want.len());
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        assert!((f - w).abs() <= tolerance * (1.0 + w.abs()), "element {i}: {f}, expected {w}");
    }
}

#[test]
fn swiglu() {
    let n = 2048 + 77;
    let mut args = [floats(1, &[n]), floats(2, &[n]), floats(3, &[n])];
    run(&kernel("01_pointwise", &[]), &mut args, &symbols(&[("n", n as i64)])).unwrap();
    let (g, u) = (numbers(1, n), numbers(2, n));
    let want: Vec<f64> = g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
    close(&args[2], &want, 1e-12);
}

#[test]
fn layer_norms() {
    for file in ["02a_layer_norm_gpu", "02b_layer_norm_cpu"] {
        let (rows, d) = (9, 768);
        let mut args = [floats(1, &[rows, d]), floats(2, &[d]), floats(3, &[d]), floats(4, &[rows, d])];
        run(&kernel(file, &[]), &mut args, &symbols(&[("rows", rows as i64)])).unwrap();
        let (x, g, b) = (numbers(1, rows * d), numbers(2, d), numbers(3, d));
        let mut want = Vec::new();
        for row in x.chunks(d) {
            let mean = row.iter().sum::<f64>() / d as f64;
            let var = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / d as f64;
            want.extend((0..d).map(|j| (row[j] - mean) / (var + 1e-5).sqrt() * g[j] + b[j]));
        }
        close(&args[3], &want, 1e-6);
    }
}

#[test]
fn gemm_with_bias_and_gelu() {
    let constants = [("N", 128), ("K", 12), ("KC", 6), ("MC", 24), ("NC", 64)];
    let (m, n, k, nr) = (29, 128, 12, 32);
    let b = numbers(2, k * n);
    let mut panels = vec![0.0; k * n];
    for i in 0..k {
        for j in 0..n {
            panels[(j / nr * k + i) * nr + j % nr] = b[i * n + j];
        }
    }
    let mut args = [floats(1, &[m, k]), Tensor::float(&[n / nr, k, nr], panels), floats(3, &[n]), floats(4, &[m, n])];
    run(&kernel("04a_gemm_cpu_avx512", &constants), &mut args, &symbols(&[("M", m as i64)])).unwrap();
    let (a, bias) = (numbers(1, m * k), numbers(3, n));
    let mut want = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let t = (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum::<f64>() + bias[j];
            want.push(0.5 * t * (1.0 + (0.79788456 * (t + 0.044715 * t * t * t)).tanh()));
        }
    }
    close(&args[3], &want, 1e-12);
}

#[test]
fn causal_flash_attention() {
    let constants = [("H", 3), ("HK", 1), ("D", 4), ("BM", 4), ("BN", 8)];
    let (s, h, d) = (11, 3, 4);
    let mut args = [
        floats(1, &[1, s, h, d]),
        floats(2, &[1, s, 1, d]),
        floats(3, &[1, s, 1, d]),
        floats(4, &[1, s, h, d]),
        floats(5, &[1, h, s]),
    ];
    run(&kernel("07a_flash_cpu", &constants), &mut args, &symbols(&[("S", s as i64)])).unwrap();
    let (q, k, v) = (numbers(1, s * h * d), numbers(2, s * d), numbers(3, s * d));
    let mut want = vec![0.0; s * h * d];
    for i in 0..s {
        for hh in 0..h {
            let e: Vec<f64> = (0..=i)
                .map(|j| (0..d).map(|c| q[(i * h + hh) * d + c] * k[j * d + c]).sum::<f64>() * 0.18033688)
                .map(f64::exp2)
                .collect();
            for c in 0..d {
                let total: f64 = e.iter().enumerate().map(|(j, e)| e * v[j * d + c]).sum();
                want[(i * h + hh) * d + c] = total / e.iter().sum::<f64>();
            }
        }
    }
    close(&args[3], &want, 1e-12);
}

#[test]
fn decode_in_two_launches() {
    let constants = [("HK", 2), ("G", 2), ("D", 4), ("PAGE", 4), ("S", 3), ("PMAX", 5)];
    let (b, hk, g, d, page, s, pmax, pages) = (2, 2, 2, 4, 4, 3, 5, 7);
    let table: Vec<i64> = vec![3, 1, 6, 0, 2, 5, 4, 0, 0, 0];
    let lens = [17i64, 6];
    let mut args = vec![
        floats(1, &[b, hk, g, d]),
        floats(2, &[pages, page, hk, d]),
        floats(3, &[pages, page, hk, d]),
        Tensor::int(&[b, pmax], table.clone()),
        Tensor::int(&[b], lens.to_vec()),
        floats(4, &[b, hk, s, g, d]),
        floats(5, &[b, hk, s, g]),
    ];
    let sizes = symbols(&[("B", b as i64), ("P", pages as i64)]);
    run(&kernel("09a_decode_split", &constants), &mut args, &sizes).unwrap();
    let mut combine = [args[5].clone(), args[6].clone(), floats(6, &[b, hk, g, d])];
    let constants = [("HK", 2), ("G", 2), ("D", 4), ("S", 3)];
    run(&kernel("09b_decode_combine", &constants), &mut combine, &sizes).unwrap();
    let (q, k, v) = (numbers(1, b * hk * g * d), numbers(2, pages * page * hk * d), numbers(3, pages * page * hk * d));
    let mut want = vec![0.0; b * hk * g * d];
    for at in 0..b * hk * g {
        let (bi, hi) = (at / (hk * g), at / g % hk);
        let row = |j: usize| ((table[bi * pmax + j / page] as usize * page + j % page) * hk + hi) * d;
        let e: Vec<f64> = (0..lens[bi] as usize)
            .map(|j| ((0..d).map(|c| q[at * d + c] * k[row(j) + c]).sum::<f64>() * 0.12753139).exp2())
            .collect();
        for c in 0..d {
            want[at * d + c] =
                e.iter().enumerate().map(|(j, e)| e * v[row(j) + c]).sum::<f64>() / e.iter().sum::<f64>();
        }
    }
    close(&combine[2], &want, 1e-12);
}

#[test]
fn gradients_of_embeddings() {
    let (t, v, d) = (13, 5, 8);
    let ids: Vec<i64> = (0..t as i64).map(|i| i * 7 % 5 % 4).collect();
    let (g, old) = (numbers(1, t * d), numbers(2, v * d));
    let mut want = old.clone();
    for (i, id) in ids.iter().enumerate() {
        (0..d).for_each(|c| want[*id as usize * d + c] += g[i * d + c]);
    }
    let constants = [("V", v as i64), ("D", d as i64), ("CB", 4)];
    let sizes = symbols(&[("T", t as i64)]);
    let mut columns = [floats(1, &[t, d]), Tensor::int(&[t], ids.clone()), floats(2, &[v, d])];
    run(&kernel("10b_embed_grad_cpu", &constants), &mut columns, &sizes).unwrap();
    close(&columns[2], &want, 1e-12);

    let mut order: Vec<i64> = (0..t as i64).collect();
    order.sort_by_key(|i| ids[*i as usize]);
    let start: Vec<i64> = (0..=v as i64).map(|x| ids.iter().filter(|id| **id < x).count() as i64).collect();
    let mut segments = [floats(1, &[t, d]), Tensor::int(&[t], order), Tensor::int(&[v + 1], start), floats(2, &[v, d])];
    run(&kernel("10a_embed_grad_gpu", &constants), &mut segments, &sizes).unwrap();
    close(&segments[3], &want, 1e-12);
}

fn inline(body: &str, args: &mut [Tensor]) -> Result<(), String> {
    let text = format!("kernel k target cpu {{ in x: f32[r=3, c=4]; out y: f32[c=4, r=3]; {body} }}");
    run(&parse_kernel("k", &text).unwrap(), args, &Bindings::new()).map_err(|e| e.to_string())
}

#[test]
fn views_masks_and_gathers() {
    let mut args = [floats(1, &[3, 4]), floats(2, &[4, 3])];
    let x = numbers(1, 12);
    inline("view t[c=4, r=3] = x[r - 1?, 3 - c]; let a = load t[:, :] pad 7; store y[:, :] = a", &mut args).unwrap();
    let want: Vec<f64> = (0..12).map(|i| if i % 3 == 0 { 7.0 } else { x[(i % 3 - 1) * 4 + 3 - i / 3] }).collect();
    close(&args[1], &want, 0.0);

    inline("let i = 2 - iota(r, 0, 3); let a = load x[gather i, :]; store y[:, :] = a", &mut args).unwrap();
    let want: Vec<f64> = (0..12).map(|i| x[(2 - i % 3) * 4 + i / 3]).collect();
    close(&args[1], &want, 0.0);

    inline("store y[0, :] = 1", &mut args).unwrap();
    assert!(args[1].floats().unwrap()[3..].iter().all(|v| v.is_nan()), "unwritten output is NaN");
}

#[test]
fn an_unsplit_panel_operand() {
    let text = "kernel k target cpu { in a: f32[m=2, k=3]; in b: f32[nb=2, k=3, n=4]; out y: f32[m=2, n=7]
        mma y += a * b via f32_portable init 1 }";
    let (m, k, n) = (2, 3, 7);
    let mut args = [floats(1, &[m, k]), floats(2, &[2, k, 4]), floats(3, &[m, n])];
    run(&parse_kernel("k", text).unwrap(), &mut args, &Bindings::new()).unwrap();
    let (a, b) = (numbers(1, m * k), numbers(2, 2 * k * 4));
    let at = |p: usize, j: usize| b[(j / 4 * k + p) * 4 + j % 4];
    let want: Vec<f64> = (0..m * n).map(|i| (0..k).map(|p| a[i / n * k + p] * at(p, i % n)).sum()).collect();
    close(&args[2], &want, 1e-15);
}

#[test]
fn faults_are_found() {
    for (body, message) in [
        ("let a = load x[3, :]", "reaches 3 on axis `r` of size 3"),
        ("let a = load x[0, 1 +: 4]", "reaches 4 on axis `c`"),
        ("let a = load x[-1?, :]", "reaches -1"),
        ("let a = load x[0]", "1 indices for 2 axes"),
        ("store x[:, :] = 1", "read-only"),
        ("let a = load x[:, :]; store y[:, 0] = a", "axis `r`"),
        ("let a = load z[0]", "`z` is no buffer"),
        ("reg i: i32[]; set i = 1.5", "cannot be kept as integer"),
        ("reg s: f32[a=1099511627776]", "2^28"),
        ("acquire p", "`p` is no pipe"),
        ("par w in 2 at warp { sync block }", "does not run a sync"),
        ("let a = ceil(4, 0)", "positive divisor"),
        ("store y[:, :] = sum(x, q)", "no axis `q`"),
    ] {
        let mut args = [floats(1, &[3, 4]), floats(2, &[4, 3])];
        let e = inline(body, &mut args).unwrap_err();
        assert!(e.contains(message), "{body}: {e}");
    }
}
