//! What covers choose.

use super::super::super::Limits;
use super::super::super::lang::{Fold, Head};
use super::super::*;
use super::meaning::{check, covered, stage};
use tilewright_ir::dsl::{Attention, Graph as Dsl, RopeLayout, Tensor, concat};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Dim};

/// The cover for a device, sizes as they are.
fn chosen(module: &Module, device: &str, likely: &[(&str, i64)]) -> Cover {
    stage(module, likely, Limits::default()).cover(device, CoverLimits::default())
}

fn kinds(cover: &Cover) -> Vec<&'static str> {
    let name = |cut: &Cut| match cut.kind {
        Kind::Copy => "copy",
        Kind::Pointwise => "pointwise",
        Kind::Row => "row",
        Kind::Contraction(_) => "contraction",
        Kind::Attention { .. } => "attention",
        Kind::Generic => "generic",
    };
    cover.cuts.iter().map(name).collect()
}

fn has(cut: &Cut, fold: Fold) -> bool {
    cut.nodes.values().any(|n| n.head == Head::Fold(fold))
}

const F: DType = DType::F32;

#[test]
fn norms_and_softmax_are_one_kernel_each() {
    for width in [64i64, 768, 4096] {
        for name in ["softmax", "layer norm", "rms norm", "log softmax"] {
            let g = Dsl::new("main");
            let x = g.input("x", F, [128, width]);
            let (w, b) = (g.weight("w", F, [width]), g.weight("b", F, [width]));
            let y = match name {
                "softmax" => x.softmax(-1),
                "layer norm" => x.layer_norm(Some(&w), Some(&b), 1e-5),
                "rms norm" => x.rms_norm(&w, 1e-5),
                _last => x.log_softmax(-1),
            };
            let module = g.finish(&[&y]).unwrap();
            for device in Device::names() {
                let cover = chosen(&module, device, &[]);
                assert_eq!(kinds(&cover), ["row"], "{name} {width} {device}");
            }
        }
    }
}

#[test]
fn products_take_their_epilogue() {
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=1024);
    let x = g.input("x", F, [s.clone(), 768.into()]);
    let (w, b) = (g.weight("w", F, [768, 3072]), g.weight("b", F, [3072]));
    let y = (x.matmul(&w) + &b).gelu_tanh();
    let module = g.finish(&[&y]).unwrap();
    for device in Device::names() {
        for s in [1, 7, 256] {
            assert_eq!(kinds(&chosen(&module, device, &[("s", s)])), ["contraction"], "{device} {s}");
        }
    }
}

/// A pre-norm block as in GPT-2.
fn block(g: &Dsl, x: &Tensor, i: usize, (batch, s): (&Dim, &Dim), width: i64, heads: i64) -> Tensor {
    let size = width / heads;
    let shape = |last: &[i64]| [vec![batch.clone(), s.clone()], last.iter().map(|&n| n.into()).collect()].concat();
    let weight = |name: &str, shape: &[i64]| g.weight(&format!("{name}{i}"), x.ty().dtype, shape.to_vec());
    let norm = |x: &Tensor, n: &str| {
        let (w, c) = (weight(&format!("{n}.w"), &[width]), weight(&format!("{n}.b"), &[width]));
        x.layer_norm(Some(&w), Some(&c), 1e-5)
    };
    let qkv = norm(x, "ln").matmul(&weight("qkv", &[width, 3 * width])) + weight("qb", &[3 * width]);
    let head = |j: i64| qkv.slice(2, width * j, width * (j + 1)).reshape(shape(&[heads, size])).permute(&[0, 2, 1, 3]);
    let options = Attention { causal: true, ..Attention::default() };
    let out = head(0).attention(&head(1), &head(2), options).permute(&[0, 2, 1, 3]).reshape(shape(&[width]));
    let x = x + (out.matmul(&weight("wo", &[width, width])) + weight("ob", &[width]));
    let wide = (norm(&x, "lm").matmul(&weight("up", &[width, 4 * width])) + weight("ub", &[4 * width])).gelu_tanh();
    &x + (wide.matmul(&weight("down", &[4 * width, width])) + weight("db", &[width]))
}

pub(super) fn blocks(count: usize, dtype: DType, width: i64, heads: i64) -> Module {
    let g = Dsl::new("main");
    let (b, s) = (g.symbol("b", 1..=8), g.symbol("s", 1..=1024));
    let mut x = g.input("x", dtype, [b.clone(), s.clone(), width.into()]);
    for i in 0..count {
        x = block(&g, &x, i, (&b, &s), width, heads);
    }
    g.finish(&[&x]).unwrap()
}

#[test]
fn a_gpt2_block_is_seven_kernels() {
    let module = blocks(1, F, 768, 12);
    let want = ["row", "contraction", "attention", "contraction", "row", "contraction", "contraction"];
    for s in [16, 128, 1024] {
        let cover = chosen(&module, "cpu-avx512", &[("b", 1), ("s", s)]);
        assert_eq!(kinds(&cover), want, "{s} tokens");
        assert!(has(&cover.cuts[2], Fold::EsumIf));
    }
}

#[test]
fn a_small_block_means_the_same() {
    let module = blocks(1, DType::F64, 8, 2);
    for device in ["cpu-avx512", "h100"] {
        let stage = stage(&module, &[("b", 2), ("s", 128)], Limits::default());
        let cover = stage.cover(device, CoverLimits::default());
        check(&module, &stage, &cover, &[("b", 2), ("s", 3)]);
    }
}

#[test]
fn attention_is_one_kernel() {
    for (heads, groups, queries, causal) in [(4, 4, 512, true), (8, 2, 512, true), (4, 4, 512, false), (8, 2, 1, true)]
    {
        let g = Dsl::new("main");
        let keys = 512;
        let q = g.input("q", F, [1, heads, queries, 64]);
        let (k, v) = (g.input("k", F, [1, groups, keys, 64]), g.input("v", F, [1, groups, keys, 64]));
        let out = q.attention(&k, &v, Attention { causal, ..Attention::default() });
        let module = g.finish(&[&out]).unwrap();
        let cover = chosen(&module, "cpu-avx512", &[]);
        assert_eq!(kinds(&cover), ["attention"], "{heads} {groups} {queries} {causal}");
        assert!(has(&cover.cuts[0], if causal { Fold::EsumIf } else { Fold::Esum }));
    }
}

type Program = fn(&Dsl) -> Vec<Tensor>;

#[test]
fn covers_mean_the_same() {
    const D: DType = DType::F64;
    fn x(g: &Dsl) -> Tensor {
        g.input("x", D, [3, 4])
    }
    let programs: &[Program] = &[
        |g| {
            let w = g.weight("w", D, [4]);
            vec![x(g).layer_norm(Some(&w), Some(&w), 1e-5)]
        },
        |g| {
            let x = x(g);
            vec![x.softmax(0), x.softmax(-1)]
        },
        |g| {
            let (w, m) = (g.weight("w", D, [4]), g.weight("m", D, [4, 6]));
            vec![x(g).layer_norm(Some(&w), None, 1e-5).matmul(&m).gelu_tanh()]
        },
        |g| {
            let (w, table, ids) = (g.weight("w", D, [4]), g.weight("t", D, [5, 4]), g.input("i", DType::I64, [3]));
            let rms = table.take(&ids, 0).rms_norm(&w, 1e-5).matmul(&table.transpose(0, 1));
            vec![rms.clone(), rms.cross_entropy(&ids)]
        },
        |g| {
            let x = x(g);
            vec![x.clone(), x.transpose(0, 1), x.exp().slice(1, 1, 3)]
        },
        |g| {
            let x = x(g);
            let square = x.matmul(&x.transpose(0, 1));
            vec![&square + square.transpose(0, 1), square.matmul(&square)]
        },
        |g| {
            let x = x(g);
            vec![concat(&[&x.flip(&[1]), &x], 1).unwrap().exp()]
        },
        |g| {
            let x = x(g);
            vec![x.sum(&[0, 1]), x.var(&[-1], 1)]
        },
    ];
    for program in programs {
        let g = Dsl::new("main");
        let results = program(&g);
        covered(&g, &results.iter().collect::<Vec<_>>(), &[]);
    }
}

#[test]
fn attention_means_the_same() {
    for causal in [true, false] {
        let g = Dsl::new("main");
        let d = DType::F64;
        let (q, k, v) = (g.input("q", d, [1, 4, 3, 2]), g.input("k", d, [1, 2, 3, 2]), g.input("v", d, [1, 2, 3, 2]));
        let angle = g.input("angle", d, [3, 1]);
        let rope = |x: &Tensor| x.rope(&angle.cos(), &angle.sin(), RopeLayout::Half);
        let out = rope(&q).attention(&rope(&k), &v, Attention { causal, ..Attention::default() });
        covered(&g, &[&out], &[]);
    }
}

#[test]
fn barriers_come_between() {
    let g = Dsl::new("main");
    let x = g.input("x", DType::F64, [4, 6]);
    let e = x.exp();
    let c = e.cumsum(1);
    let y = (&c + &e).exp();
    let z = (&y + &e).cumsum(0) * &c;
    covered(&g, &[&z, &e, &y], &[]);
}

#[test]
fn shared_work_is_paid_once() {
    // A product that two rows read is stored once, not computed twice.
    let g = Dsl::new("main");
    let (x, w) = (g.input("x", F, [256, 512]), g.weight("w", F, [512, 512]));
    let y = x.matmul(&w);
    let module = g.finish(&[&y.softmax(-1), &y.softmax(0)]).unwrap();
    let cover = chosen(&module, "cpu-avx512", &[]);
    assert_eq!(cover.cuts.iter().filter(|c| matches!(c.kind, Kind::Contraction(_))).count(), 1, "{:?}", kinds(&cover));
    // The softmax of columns takes more kernels than that of rows, as its exponentials are not held.
    assert_eq!(kinds(&cover).iter().filter(|k| **k == "row").count(), 3, "{:?}", kinds(&cover));
}

#[test]
fn columns_are_folded_once() {
    let of = |device: &str, shape: [i64; 2], make: &dyn Fn(&Tensor) -> Tensor| {
        let g = Dsl::new("main");
        let x = g.input("x", F, shape);
        let module = g.finish(&[&make(&x)]).unwrap();
        chosen(&module, device, &[]).cuts.len()
    };
    let centred = |x: &Tensor| x - &x.mean_keep(&[0]);
    let norm = |x: &Tensor| centred(x) * (&centred(x) * &centred(x)).mean_keep(&[0]).rsqrt();
    for device in ["cpu-avx2", "cpu-avx512_bf16"] {
        // What is added up is made where it is added, whatever axis neighbours lie along.
        assert_eq!(of(device, [2048, 256], &|x| (x * x).sum(&[0])), 1, "{device}");
        assert_eq!(of(device, [512, 768], &norm), 1, "{device}");
    }
    // A block for each row would fold all columns again.
    assert!(of("h200", [1024, 1024], &norm) > 1);
    assert_eq!(of("h200", [1024, 1024], &|x| x.softmax(1)), 1);
}

#[test]
fn two_runs_agree() {
    let module = blocks(2, F, 768, 12);
    let show = || format!("{:?}", chosen(&module, "cpu-avx512", &[("b", 1), ("s", 128)]));
    assert_eq!(show(), show());
}

/// A block as in Llama, with caches that hold the keys and values of earlier tokens.
pub(super) fn llama(weights: DType, dtype: DType, width: i64, (heads, groups): (i64, i64), wide: i64) -> Module {
    let g = Dsl::new("main");
    let (seq, past) = (g.symbol("seq", 1..=2048), g.symbol("past", 0..=2047));
    let all = past.checked_add(&seq).unwrap();
    let size = width / heads;
    let weight = |name: &str, to: i64, from: i64| g.weight(name, weights, [to, from]);
    let x = g.input("x", dtype, [seq.clone(), width.into()]);
    let half = [seq.clone(), (size / 2).into()];
    let (cos, sin) = (g.input("cos", dtype, half.clone()), g.input("sin", dtype, half));
    let cache = [groups, 2048, size];
    let (k_cache, v_cache) = (g.donated("k_cache", dtype, cache), g.donated("v_cache", dtype, cache));
    let norm = |name: &str, x: &Tensor| x.rms_norm(&g.weight(name, dtype, [width]), 1e-5);
    let n = norm("attn_norm", &x);
    let split = |x: Tensor, h: i64| x.rearrange("s (h d) -> h s d", &[("h", h)]);
    let q = split(n.linear(&weight("q", width, width)), heads).rope(&cos, &sin, RopeLayout::Interleaved);
    let k = split(n.linear(&weight("k", groups * size, width)), groups).rope(&cos, &sin, RopeLayout::Interleaved);
    let v = split(n.linear(&weight("v", groups * size, width)), groups);
    let (keys, values) = (k_cache.update_slice(&k, (0, &past, 0)), v_cache.update_slice(&v, (0, &past, 0)));
    let options = Attention { causal: true, ..Attention::default() };
    let out = q.attention(&keys.slice(1, 0, &all), &values.slice(1, 0, &all), options);
    let x = x + out.rearrange("h s d -> s (h d)", &[]).linear(&weight("o", width, width));
    let n = norm("ffn_norm", &x);
    let gate = n.linear(&weight("gate", wide, width)).silu();
    let up = n.linear(&weight("up", wide, width));
    let y = &x + (gate * up).linear(&weight("down", width, wide));
    g.finish(&[&y, &keys, &values]).unwrap()
}

#[test]
fn a_llama_block_is_twelve_kernels() {
    let want = [
        "row",
        "contraction",
        "contraction",
        "pointwise",
        "contraction",
        "pointwise",
        "attention",
        "contraction",
        "row",
        "contraction",
        "contraction",
        "contraction",
    ];
    for weights in [F, DType::Q4_0, DType::Q8_0] {
        let module = llama(weights, F, 576, (9, 3), 1536);
        for seq in [1, 16, 256] {
            let cover = chosen(&module, "cpu-avx512", &[("seq", seq), ("past", 200)]);
            assert_eq!(kinds(&cover), want, "{weights} {seq}");
            // Blocks are dequantised where they are read, and no cache is copied.
            let blocks = |cut: &Cut| matches!(&cut.kind, Kind::Contraction(p) if !cut.nodes.contains_key(&p[0].right));
            assert!(!cover.cuts.iter().any(blocks));
        }
    }
}

#[test]
fn a_small_llama_block_means_the_same() {
    let module = llama(DType::F64, DType::F64, 8, (4, 2), 6);
    for device in ["cpu-avx512", "h100"] {
        let stage = stage(&module, &[("seq", 64), ("past", 64)], Limits::default());
        let cover = stage.cover(device, CoverLimits::default());
        check(&module, &stage, &cover, &[("seq", 3), ("past", 2)]);
    }
}

#[test]
fn layers_do_not_change_each_other() {
    let one = chosen(&blocks(1, F, 768, 12), "cpu-avx512", &[("b", 1), ("s", 128)]);
    let four = chosen(&blocks(4, F, 768, 12), "cpu-avx512", &[("b", 1), ("s", 128)]);
    assert_eq!(four.cuts.len(), 4 * one.cuts.len());
    assert!((four.price - 4.0 * one.price).abs() < 1e-3 * four.price, "{} {}", four.price, one.price);
    assert!(four.counts.remembered > four.counts.enumerated / 2, "{:?}", four.counts);
}

#[test]
fn a_long_chain_is_a_few_kernels() {
    let g = Dsl::new("main");
    let mut x = g.input("x", F, [64, 256]);
    for i in 0..2_000 {
        x = if i % 2 == 0 { x.sin() } else { x.cos() };
    }
    let cover = chosen(&g.finish(&[&x]).unwrap(), "cpu-avx512", &[]);
    assert!((2_000 / 160..2_000 / 60).contains(&cover.cuts.len()), "{}", cover.cuts.len());
}

#[test]
fn too_many_classes_are_refused() {
    let module = blocks(1, F, 768, 12);
    let stage = stage(&module, &[], Limits::default());
    let limits = CoverLimits { classes: 10, ..CoverLimits::default() };
    let device = Device::named("cpu-avx512").unwrap();
    let error = cover(&stage.grown.graph, &stage.context.roots, &stage.context, &device, limits).unwrap_err();
    assert_eq!(error.code, "too-many-classes");
}

#[test]
fn a_cover_can_be_read() {
    let module = blocks(1, F, 768, 12);
    let stage = stage(&module, &[("b", 1), ("s", 128)], Limits::default());
    let (cover, explanation) = stage.explained("cpu-avx512", CoverLimits::default());
    let text = print_cover(&cover, &explanation, &stage.grown.graph, &stage.function, &stage.import);
    for part in [
        "7 kernels",
        "kernel 2: attention",
        "(esum-if ",
        "contraction (a0 a1) x (a6) over (a2)",
        "next: ",
        "dot@",
        "made by rules: ",
        "esum-if ",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    // Every node that is no view is computed somewhere.
    let known: BTreeSet<_> = cover.cuts.iter().flat_map(|c| origins(c, &stage.grown.graph, &stage.import)).collect();
    let dots = (0u32..).zip(&stage.function.nodes).filter(|(_, n)| n.op.info().name == "dot");
    for (number, _) in dots {
        let inside = cover.cuts.iter().filter(|c| {
            let nodes = origins(c, &stage.grown.graph, &stage.import);
            nodes.contains(&tilewright_ir::graph::NodeId(number))
        });
        assert!(inside.count() <= 1, "dot {number} is computed twice");
    }
    assert!(known.len() > 20);
}

#[test]
fn devices_parse_and_errors_have_places() {
    for name in Device::names() {
        assert_eq!(Device::named(name).unwrap().name, name);
    }
    assert_eq!(Device::named("h1000").unwrap_err().code, "unknown-device");
    let text = include_str!("../../../../devices/cpu-avx512.json");
    let bad = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let error = Device::parse("mine.json", &text.replace(from, to)).unwrap_err();
        assert_eq!(error.code, "device-syntax");
        assert!(error.to_string().contains('^'), "{error}");
        error
    };
    assert!(bad("\"memory\": 43e9", "\"memory\": -1").message.contains("above 0"));
    assert!(bad("\"memory\": 43e9,", "").message.contains("memory"));
    assert!(bad("\"f64\": 222e9", "\"f65\": 1").message.contains("f65"));
    assert!(bad("\"launch\"", "\"lunch\"").message.contains("lunch"));
    for cut in (0..text.trim_end().len()).step_by(11) {
        assert!(Device::parse("cut", &text[..cut]).is_err());
    }
}

/// Random programs of a small size.
pub(super) fn random(seed: u64) -> Module {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % n
    };
    let g = Dsl::new("main");
    let n = 3i64;
    let mut values = vec![g.input("x", DType::F64, [n, n]), g.input("y", DType::F64, [n, n])];
    let (row, matrix) = (g.weight("row", DType::F64, [n]), g.weight("m", DType::F64, [n, n]));
    for _ in 0..3 + below(8) {
        let a = values[below(values.len())].clone();
        let b = values[below(values.len())].clone();
        let next = match below(15) {
            0 => &a + &b,
            1 => &a * &b,
            2 => &a - &b,
            3 => a.tanh(),
            4 => a.exp(),
            5 => a.transpose(0, 1),
            6 => a.softmax(-1),
            7 => a.softmax(0),
            8 => a.layer_norm(Some(&row), None, 1e-5),
            9 => a.matmul(&matrix),
            10 => a.matmul(&b).tanh(),
            11 => &a * a.sum(&[1]).reshape([n, 1]).broadcast_to([n, n]),
            12 => a.flip(&[0]),
            13 => a.cumsum(1),
            _last => a.rms_norm(&row, 1e-5),
        };
        values.push(next.sin());
    }
    let last = values.len() - 1;
    g.finish(&[&values[last], &values[last - 1], &values[below(last)]]).unwrap()
}

#[test]
fn random_programs_mean_the_same() {
    for seed in 1..=60 {
        let module = random(seed);
        let limits = if seed % 3 == 0 { Limits { iterations: 3, nodes: 40 } } else { Limits::default() };
        let stage = stage(&module, &[], limits);
        for device in ["cpu-avx512", "h100"] {
            let keep = if seed % 2 == 0 { 6 } else { 1 };
            let cover = stage.cover(device, CoverLimits { keep, ..CoverLimits::default() });
            check(&module, &stage, &cover, &[]);
        }
    }
}

#[test]
fn values_of_one_pass_are_stored_together() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [512, 4096]);
    let (mean, lse) = (x.mean(&[1]), x.max(&[1]));
    let module = g.finish(&[&mean, &lse]).unwrap();
    let together = chosen(&module, "h100", &[]);
    assert_eq!(together.cuts.len(), 1, "{:?}", kinds(&together));
    assert_eq!(together.cuts[0].outputs.len(), 2);
    assert_eq!(chosen(&module, "cpu-avx512", &[]).cuts.len(), 2);
    // An inner value that is a result too.
    let g = Dsl::new("main");
    let x = g.input("x", F, [512, 4096]);
    let e = x.exp();
    let module = g.finish(&[&e, &(&e / e.sum(&[1]).reshape([512, 1]).broadcast_to([512, 4096]))]).unwrap();
    let cover = chosen(&module, "h100", &[]);
    assert_eq!((cover.cuts.len(), cover.cuts[0].outputs.len()), (1, 2), "{:?}", kinds(&cover));
}
