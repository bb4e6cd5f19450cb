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
        ("05_gemm_sm80", "release ab\n    }\n    for s", "}\n    for s", "kernel-pipe"),
        ("05_gemm_sm80", "wait ab\n      acquire ab", "acquire ab", "kernel-pipe"),
        (
            "05_gemm_sm80",
            "for s in 0 .. 3 unroll {\n      acquire",
            "for s in 0 .. 4 unroll {\n      acquire",
            "kernel-pipe",
        ),
        ("05_gemm_sm80", "for s in 0 .. 3 unroll {\n      wait", "for s in 0 .. 2 unroll {\n      wait", "kernel-pipe"),
        ("05_gemm_sm80", "      commit ab\n      mma", "      mma", "kernel-pipe"),
        (
            "05_gemm_sm80",
            "      mma acc += ab.A * ab.B via mma_m16n8k16_bf16\n      release ab",
            "      release ab\n      mma acc += ab.A * ab.B via mma_m16n8k16_bf16",
            "kernel-pipe",
        ),
        ("05_gemm_sm80", "via mma_m16n8k16_bf16", "via mma_m16n8k16_f16", "kernel-product"),
        ("05_gemm_sm80", "BM = 128", "BM = 144", "kernel-product"),
        ("05_gemm_sm80", "BK = 32, KT = 24", "BK = 24, KT = 32", "kernel-product"),
        ("05_gemm_sm80", "reg acc: f32", "reg acc: f16", "kernel-product"),
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

#[test]
fn what_is_known_ends_with_its_reason() {
    let hidden = "kernel k target cpu { sym n in 1..=8; in x: f32[e=n]; out y: f32[e=n]
        par z in 1 at grid { reg m: i64[]; set m = 100; let v = load x[n - 1]; store y[n - 1] = v } }";
    verify(&parse_kernel("k", hidden).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let register = parse_kernel("k", &hidden.replace("reg m: i64[]; set m", "reg n: i64[]; set n")).unwrap();
    assert_eq!(verify(&register).unwrap_err().code, "kernel-type");
    // Indices of a gather, or beside a mask, are checked where elements are used: nothing follows for later statements.
    let gathered = "kernel k target cpu { in i: i64[t=4]; in x: f32[e=8]; in w: f32[f=16]; out y: f32[t=4]
        par t in 4 at grid { let j = load i[t]; let v = load x[j!]; let u = load w[2*j +: 2]; store y[t] = v + sum(u, f) } }";
    verify(&parse_kernel("k", gathered).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let masked = gathered.replace("x: f32[e=8]", "x: f32[e=8, g=4]").replace("x[j!]", "x[j!, 4?]");
    for lazy in [gathered.replace("x[j!]", "x[gather j]"), masked] {
        assert_eq!(verify(&parse_kernel("k", &lazy).unwrap()).unwrap_err().code, "kernel-bounds", "{lazy}");
    }
}

#[test]
fn pads_are_single_values() {
    for statement in ["let w = load x[4 +? 8] pad v; store y[:] = w", "copy y[:] <- x[4 +? 8] pad v"] {
        let text = format!(
            "kernel k target cpu {{ in x: f32[e=8]; out y: f32[e=8]
             par z in 1 at grid {{ let v = load x[:]; {statement} }} }}"
        );
        assert_eq!(verify(&parse_kernel("k", &text).unwrap()).unwrap_err().code, "kernel-type", "{statement}");
        verify(&parse_kernel("k", &text.replace("pad v", "pad sum(v, e)")).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn a_product_of_a_bounded_symbol_with_itself() {
    let text = "kernel k target cpu { sym m in 1..=40; in x: f32[e=m*m]; out y: f32[e=m*m]
        par z in 1 at grid { cache row: f32[e=1792]
        for j in 0 .. ceil(m*m, 256) { let v = load x[j*256 +? 256] pad 0; store row[j*256 +: 256] = v }
        for j in 0 .. ceil(m*m, 256) { let v = load row[j*256 +: 256]; store y[j*256 +? 256] = v } } }";
    verify(&parse_kernel("k", text).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    // 1792 = 7 tiles hold 40*40 elements but not 43*43
    for (from, to) in [("e=1792", "e=1791"), ("1..=40", "1..=43")] {
        let bad = parse_kernel("k", &text.replace(from, to)).unwrap();
        assert_eq!(verify(&bad).unwrap_err().code, "kernel-bounds", "{to}");
    }
}

#[test]
fn a_product_of_symbols_that_are_not_zero_is_not_zero() {
    let text = "kernel k target cpu { sym n in 1..=40; in x: f32[d=8]; inout y: f32[e=32*n*n]
        view box[d=8] = y[16 + d]
        par t in 1 at grid { let v = load x[t*8 +: 8]; store box[t*8 +: 8] = v } }";
    verify(&parse_kernel("k", text).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    for (from, to) in [("1..=40", "0..=40"), ("16 + d", "25 + d")] {
        let bad = parse_kernel("k", &text.replace(from, to)).unwrap();
        assert_eq!(verify(&bad).unwrap_err().code, "kernel-bounds", "{to}");
    }
}

#[test]
fn an_output_over_its_input() {
    let rows = "kernel k target cpu { sym n in 1..=64; in x: f32[r=n, c=512]; in b: f32[c=512]; out y: f32[r=n, c=512]
        view w[r=n, k=512] = x[r, k]
        par blk in ceil(n, 4) at grid { for i in 0 .. min(4, n - 4*blk) {
          reg s: f32[]; set s = f32(0)
          for j in 0 .. 2 { let v = load w[blk*4 + i, j*256 +: 256]; set s = s + sum(v, k) }
          for t in 0 .. 2 { let v = load x[blk*4 + i, t*256 +: 256]; let g = load b[t*256 +: 256]
            store y[blk*4 + i, t*256 +: 256] = (v - s)*g } } } }";
    let may = |text: &str, input: usize, output: usize| {
        super::may_overwrite(&parse_kernel("k", text).unwrap_or_else(|e| panic!("{e}\n{text}")), input, output)
    };
    assert!(may(rows, 0, 2));
    assert!(!may(rows, 1, 2), "another type");
    for (from, to, why) in [
        ("w[blk*4 + i, j*256", "w[0, j*256", "every row reads the first"),
        ("w[blk*4 + i, j*256", "w[n - 1 - blk*4 - i, j*256", "rows read each other"),
        ("load x[blk*4 + i, t*256", "load x[blk*4 + i, 256 - t*256", "the second turn reads what the first wrote"),
        (
            "for i in 0 .. min(4, n - 4*blk) {",
            "for i in 0 .. min(4, n - 4*blk) { let e = load x[blk*4 + i, 0]",
            "read where used",
        ),
        ("(v - s)*g }", "(v - s)*g; store y[blk*4 + i, t*256 +: 256] = v }", "two stores"),
        (
            "(v - s)*g }",
            "(v - s)*g }; for t in 0 .. 2 { let v = load x[blk*4 + i, t*256 +: 256]; set s = s + sum(v, c) }",
            "read after",
        ),
        ("= (v - s)*g", "= v - sum(v, c)", "not element by element"),
        ("out y: f32[r=n, c=512]", "out y: f32[c=n, r=512]", "transposed"),
        ("target cpu", "target sm_80", "other threads"),
    ] {
        let bad = rows.replace(from, to);
        assert_ne!(bad, rows, "{from}");
        assert!(!may(&bad, 0, 2), "{why}");
    }
}

/// Grids of one launch run in no order.
#[test]
fn grids_side_by_side_do_not_touch_what_another_one_writes() {
    let of = |second: &str| {
        let text = format!(
            "kernel k target sm_80 threads(32) {{\n  in x: f32[i=8]\n  out y: f32[i=8]\n  inout z: f32[i=8]\n  \
             par b in 8 at grid {{\n    let v = load x[b]\n    store y[b] = v\n  }}\n  \
             par b in 8 at grid {{\n{second}  }}\n}}\n"
        );
        verify(&parse_kernel("k", &text).unwrap()).map_err(|d| (d.code, d.message))
    };
    let report = of("    let v = load x[b]\n    store z[b] = v\n").unwrap();
    assert!(report.complete(), "{:?}", report.outputs);
    let (code, message) = of("    let v = load x[b]\n    store y[b] = v\n").unwrap_err();
    assert!(code == "kernel-race" && message.contains("`y`"), "{code}: {message}");
    // A tile in a grid's own memory has a name that another grid may have, too.
    let own = "    shared t: f32[i=8]\n    let v = load x[0 +: 8]\n    store t[0 +: 8] = v\n    let w = load t[b]\n    store z[b] = w\n";
    of(own).unwrap();
}
