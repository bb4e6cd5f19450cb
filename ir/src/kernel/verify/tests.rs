//! The corpus is proved; planted faults are refused.

use super::verify;
use crate::kernel::text::parse_kernel;

fn text(file: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/kernels/{file}.kir", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_corpus_is_proved() {
    let mut bounds = 0;
    let mut failed = Vec::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let k = parse_kernel(&name, &text(&name)).unwrap();
        match verify(&k) {
            Ok(r) => {
                bounds += r.bounds;
                // persistent loops cover their tiles, which is not proved
                if r.complete() == matches!(&*name, "06_gemm_sm90" | "06b_gemm_ping_pong") {
                    failed.push(format!("{name}: incomplete {:?}", r.outputs));
                }
            }
            Err(e) => failed.push(format!("{name}: {e}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(bounds > 300, "{bounds}");
}

#[test]
fn planted_faults_are_refused() {
    for (file, from, to, code) in [
        ("01_pointwise", "load gate[t*TILE +? TILE]", "load gate[t*TILE +: TILE]", "kernel-bounds"),
        ("01_pointwise", "store y[t*TILE +? TILE]", "store y[t*TILE - 1 +? TILE]", "kernel-bounds"),
        ("01_pointwise", "store y[t*TILE +? TILE]", "store y[t*2047 +? TILE]", "kernel-race"),
        ("01_pointwise", "store y[", "store gate[", "kernel-type"),
        ("01_pointwise", "= load up[", "= load down[", "kernel-name"),
        ("01_pointwise", "exp(-g)", "exp(-h)", "kernel-name"),
        ("02a_layer_norm_gpu", "store y[blk*WARPS + w?", "store y[blk + w?", "kernel-race"),
        ("02a_layer_norm_gpu", "sum(v, c)", "sum(v, r)", "kernel-type"),
        ("02b_layer_norm_cpu", "min(blk*GRAIN + GRAIN, rows)", "blk*GRAIN + GRAIN", "kernel-bounds"),
        ("02b_layer_norm_cpu", "for j in 0 .. D/S", "for j in 0 .. D/S + 1", "kernel-bounds"),
        ("04a_gemm_cpu_avx512", "nt*(NC/NR) + j, kb*KC", "nt*(NC/NR) + j + 1, kb*KC", "kernel-bounds"),
        ("04a_gemm_cpu_avx512", "store y[mt*MC + i?, nt*NC", "store y[mt*MC + i?, nt", "kernel-race"),
        ("07a_flash_cpu", "h/3", "h/2", "kernel-bounds"),
        ("07a_flash_cpu", "store lse[b, h, qt*BM + i?]", "store lse[b, 0, qt*BM + i?]", "kernel-race"),
        ("09a_decode_split", "values(0, P)", "", "kernel-bounds"),
        ("09a_decode_split", "po[b, hk, s, :, :]", "po[b, hk, 0, :, :]", "kernel-race"),
        ("10a_embed_grad_gpu", "start[v + 1]", "start[v + 2]", "kernel-bounds"),
        ("10b_embed_grad_cpu", "values(0, V)", "values(0, V + 1)", "kernel-bounds"),
    ] {
        let good = text(file);
        assert!(good.contains(from), "{file}: {from}");
        let bad = parse_kernel(file, &good.replace(from, to)).unwrap_or_else(|e| panic!("{e}"));
        match verify(&bad) {
            Err(e) => assert_eq!(e.code, code, "{file}, {to}: {e}"),
            Ok(r) => panic!("{file}: `{to}` passed: {r:?}"),
        }
    }
}

#[test]
fn gaps_are_not_called_complete() {
    for (file, from, to) in [
        ("01_pointwise", "store y[t*TILE +? TILE]", "store y[t*TILE + 1 +? TILE]"),
        ("01_pointwise", "par t in ceil(n, TILE)", "par t in ceil(n - 1, TILE)"),
        ("02b_layer_norm_cpu", "min(blk*GRAIN + GRAIN, rows)", "min(blk*GRAIN + GRAIN, rows - 1)"),
        ("05_gemm_sm80", "order(t, ceil(M, BM), ", "order(t, ceil(M, BM) + 1, "),
        ("09b_decode_combine", "hk in HK at", "hk in HK - 1 at"),
    ] {
        let good = text(file);
        assert!(good.contains(from), "{file}: {from}");
        let bad = parse_kernel(file, &good.replace(from, to)).unwrap_or_else(|e| panic!("{e}"));
        let report = verify(&bad).unwrap_or_else(|e| panic!("{e}"));
        assert!(!report.complete(), "{file}: {to}");
    }
}

#[test]
fn views_and_products_of_symbols() {
    let text = "kernel k target cpu { const T = 32
        sym b in 1..=64; sym s in 1..=4096
        in x: f32[r=b*s, c=8]; out y: f32[r=b*s, c=8]; out z: f32[r=b*s]
        view t[b=b, s=s, c=8] = x[b*s + s - 1?, c]
        view w[c=8, i=b, j=s] = y[i*s + j, c]
        par i in b at grid { for j in 0 .. s { let v = load x[i*s + j, :]; store w[:, i, j] = v } }
        par i in ceil(b*s, T) at grid { let v = load x[i*T +? T, :] pad 0; store z[i*T +? T] = sum(v, c) } }";
    // the axes of `t` hide the symbols of its sizes, as in any scope
    let text = text.replace("view t[b=b, s=s, c=8] = x[b*s + s - 1?, c]", "view t[i=b, j=s, c=8] = x[i*s + j - 1?, c]");
    let k = parse_kernel("k", &text).unwrap();
    let report = verify(&k).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.complete(), "{report:?}");
    for (from, to) in [("= y[i*s + j, c]", "= y[i*s + j + 1, c]"), ("- 1?", "- 1"), ("0 .. s ", "0 .. s + 1 ")] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text);
        assert_eq!(verify(&parse_kernel("k", &bad).unwrap()).unwrap_err().code, "kernel-bounds", "{to}");
    }
}

#[test]
fn a_loop_cut_at_the_rest_of_a_tile() {
    let text = "kernel k target cpu { sym m in 1..=64; in x: f32[m=m]; out y: f32[m=m]
        par t in ceil(m, 8) at grid { for r in 0 .. min(8, m - 8*t) { let v = load x[t*8 + r]; store y[t*8 + r] = v } } }";
    let k = parse_kernel("k", text).unwrap();
    assert!(verify(&k).unwrap_or_else(|e| panic!("{e}")).complete());
    let short = parse_kernel("k", &text.replace("m - 8*t)", "m - 8*t - 1)")).unwrap();
    assert!(!verify(&short).unwrap_or_else(|e| panic!("{e}")).complete());
    let long = parse_kernel("k", &text.replace("m - 8*t)", "m - 8*t + 1)")).unwrap();
    assert_eq!(verify(&long).unwrap_err().code, "kernel-bounds");
}
