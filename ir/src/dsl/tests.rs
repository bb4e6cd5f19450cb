//! Types and errors of graphs built by the DSL.

use super::{Attention, Graph, RopeLayout, Tensor, concat, einsum, nn, stack};
use crate::diag::{Diagnostic, Place};
use crate::graph::{Module, Role};
use crate::op::ReduceKind;
use crate::types::DType::{Bool, F32, I64, Q4_1};

fn shape(t: &Tensor) -> String {
    t.ty().to_string()
}

fn failure(g: &Graph, t: &Tensor) -> Diagnostic {
    assert!(t.is_poisoned(), "{t:?} is not poisoned");
    g.finish(&[t]).expect_err("a mistake")
}

fn lines(d: &Diagnostic) -> Vec<u32> {
    let line = |p: &Place| match p {
        Place::Rust { line, file, .. } => {
            assert!(file.ends_with("dsl/tests.rs"), "{file}");
            Some(*line)
        }
        Place::Text { .. } | Place::Named(_) => None,
    };
    d.labels.iter().filter_map(|(p, _)| line(p)).collect()
}

/// The module satisfies the verifier, and its text parses back to the same module.
fn verify(module: &Module) {
    crate::verify::verify(module).unwrap_or_else(|d| panic!("{d}"));
    let text = crate::text::print(module);
    let again = crate::text::parse("printed", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    assert_eq!(crate::text::difference(module, &again), None, "{text}");
}

#[test]
fn shape_mismatch_names_both_operands_and_three_lines() {
    let g = Graph::new("main");
    let line = line!();
    let a = g.input("a", F32, [2, 3]);
    let b = g.input("b", F32, [2, 4]);
    let sum = &a + &b;
    let later = sum.exp().softmax(5).sum(&[7]);
    assert!(later.is_poisoned() && g.failed());
    let d = failure(&g, &later);
    assert_eq!(d.code, "shape-mismatch");
    assert!(d.message.contains("f32[2, 3]") && d.message.contains("f32[2, 4]"), "{}", d.message);
    assert!(d.message.contains("axis 1 is 3 on the left, axis 1 is 4 on the right"), "{}", d.message);
    assert_eq!(lines(&d), [line + 3, line + 1, line + 2]);
}

#[test]
fn every_method_reports_the_callers_line() {
    type Mistake = fn(&Tensor, &Tensor) -> Tensor;
    let mistakes: [(&str, Mistake, u32); 14] = [
        ("bad-axis", |x, _| x.softmax(2), line!()),
        ("bad-axis", |x, _| x.mean(&[-3]), line!()),
        ("bad-axis", |x, i| x.take(i, 9), line!()),
        ("bad-axis", |x, _| x.argmax(-4), line!()),
        ("shape-mismatch", |x, _| x.matmul(x), line!()),
        ("shape-mismatch", |x, _| x.reshape([7]), line!()),
        ("dtype-mismatch", |x, i| x.take(x, 0) + i.exp(), line!()),
        ("bad-pattern", |x, _| x.rearrange("a b -> b", &[]), line!()),
        ("bad-literal", |_, i| i + 0.5, line!()),
        ("shape-mismatch", |x, _| x.attention(x, x, Attention::default()), line!()),
        ("shape-mismatch", |x, i| x.rope(i, i, RopeLayout::Half), line!()),
        ("shape-mismatch", |x, _| x.layer_norm(Some(&x.flip(&[0])), None, 1e-5).linear(&x.transpose(0, 1)), line!()),
        ("bad-attribute", |x, _| x.slice(0, 1, 9), line!()),
        ("shape-mismatch", |x, i| einsum("ab,ab", &[x, i]).expect("a tensor"), line!()),
    ];
    for (code, mistake, line) in mistakes {
        let g = Graph::new("main");
        let x = g.input("x", F32, [2, 3]);
        let i = g.input("i", I64, [2, 5]);
        let d = failure(&g, &mistake(&x, &i));
        assert_eq!((d.code, lines(&d)[0]), (code, line), "{d}");
    }
}

#[test]
fn broadcasting_is_written_out() {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=8);
    let a = g.input("a", F32, (&n, 1, 3));
    let b = g.input("b", F32, [4, 1]);
    let c = 2.0 * (&a - &b) / &a;
    assert_eq!(shape(&c), "f32[n, 4, 3]");
    assert_eq!(shape(&a.gt(&b).select(&a, 0.0)), "f32[n, 4, 3]");
    let m = g.finish(&[&c]).expect("a module");
    verify(&m);
    let entry = m.entry().expect("main");
    assert_eq!(entry.symbols[0].name.as_ref(), "n");
    assert!(entry.nodes.iter().any(|n| n.op.info().name == "broadcast"));
}

#[test]
fn axes_may_be_negative_and_kept() {
    let g = Graph::new("main");
    let x = g.input("x", F32, [2, 3, 4]);
    assert_eq!(shape(&x.sum(&[-1, 0])), "f32[3]");
    assert_eq!(shape(&x.max_keep(&[-2])), "f32[2, 1, 4]");
    assert_eq!(shape(&x.permute(&[-1, 0, 1])), "f32[4, 2, 3]");
    assert_eq!(shape(&x.var(&[1], 1)), "f32[2, 4]");
    assert_eq!(shape(&x.reshape([-1, 6])), "f32[4, 6]");
    assert_eq!(shape(&x.logsumexp(1)), "f32[2, 4]");
    assert_eq!(shape(&x.narrow(-1, 1, 2)), "f32[2, 3, 2]");
    assert_eq!(shape(&x.pad(-1, 1, 2, 0.0)), "f32[2, 3, 7]");
    assert_eq!(shape(&concat(&[&x, &x, &x], 1).expect("three")), "f32[2, 9, 4]");
    assert_eq!(shape(&stack(&[&x, &x], -1).expect("two")), "f32[2, 3, 4, 2]");
    assert_eq!(shape(&x.tril(0)), "f32[2, 3, 4]");
    assert_eq!(shape(&x.argmax(-1)), "i64[2, 3]");
    let w = g.input("w", F32, [5, 4, 6]);
    assert_eq!(shape(&g.input("v", F32, [4]).matmul(&w)), "f32[5, 6]");
    assert_eq!(shape(&g.input("u", F32, (2, 1, 3, 4)).matmul(&w)), "f32[2, 5, 3, 6]");
    verify(&g.finish(&[&x]).expect("a module"));
}

#[test]
fn einsum_types() {
    let g = Graph::new("main");
    let s = g.symbol("s", 1..=64);
    let q = g.input("q", F32, (2, 12, &s, 64));
    let k = g.input("k", F32, (2, 12, 7, 64));
    let e = |p: &str, t: &[&Tensor]| shape(&einsum(p, t).expect("operands"));
    assert_eq!(e("b h q d, b h k d -> b h q k", &[&q, &k]), "f32[2, 12, s, 7]");
    assert_eq!(e("bhqd,bhkd->bhqk", &[&q, &k]), "f32[2, 12, s, 7]");
    assert_eq!(e("...qd,...kd->q...k", &[&q, &k]), "f32[s, 2, 12, 7]");
    assert_eq!(e("bhqd,bhkd", &[&q, &k]), "f32[7, s]");
    assert_eq!(e("bhqd->dq", &[&q]), "f32[64, s]");
    let square = g.input("square", F32, (&s, 3, &s));
    assert_eq!(e("iai->ai", &[&square]), "f32[3, s]");
    assert_eq!(e("iai->", &[&square]), "f32[]");
    let (a, b, c) = (g.input("x", F32, [2, 3]), g.input("y", F32, [3, 4]), g.input("z", F32, [4, 5]));
    assert_eq!(e("ij,jk,kl->il", &[&a, &b, &c]), "f32[2, 5]");
    assert_eq!(e("ij,kl->iljk", &[&a, &c]), "f32[2, 5, 3, 4]");
    assert_eq!(e("...i,...i->...i", &[&g.input("w", F32, [1, 3]), &a]), "f32[2, 3]");
    verify(&g.finish(&[&q]).expect("a module"));
}

#[test]
fn einsum_errors_draw_a_caret() {
    for (pattern, code, column, message) in [
        ("ij,jk->il", "bad-pattern", 9, "label `l` of the result is in no operand"),
        ("ij,ik->jk", "shape-mismatch", 4, "label `i` has size 2 in operand 0 and 3 in operand 1"),
        ("ij,jk->jj", "bad-pattern", 9, "twice in the result"),
        ("ijk,jk->i", "bad-pattern", 1, "3 labels for operand 0, which is f32[2, 3]"),
        ("ij->i", "bad-pattern", 1, "the pattern has 1 operands, the call has 2"),
        ("ij;jk->i", "bad-pattern", 3, "unexpected `;`"),
        ("ij,jk->ik->i", "bad-pattern", 10, "a second `->`"),
        ("(ij),jk->ik", "bad-pattern", 1, "groups belong to `rearrange`"),
    ] {
        let g = Graph::new("main");
        let (a, b) = (g.input("a", F32, [2, 3]), g.input("b", F32, [3, 4]));
        let d = failure(&g, &einsum(pattern, &[&a, &b]).expect("a tensor"));
        assert_eq!(d.code, code, "{d}");
        assert!(d.message.contains(message), "{pattern}: {}", d.message);
        assert!(matches!(d.labels[0].0, Place::Text { column: c, .. } if c == column), "{d}");
        assert!(d.to_string().contains(&format!("| {}^", " ".repeat(column as usize - 1))), "{d}");
    }
}

#[test]
fn einops_types() {
    let g = Graph::new("main");
    let s = g.symbol("s", 1..=64);
    let x = g.input("x", F32, (2, &s, 768));
    let r = x.rearrange("b s (h d) -> b h s d", &[("h", 12)]);
    assert_eq!(shape(&r), "f32[2, 12, s, 64]");
    assert_eq!(shape(&r.rearrange("b h s d -> (b s) (h d)", &[])), "f32[2*s, 768]");
    assert_eq!(shape(&r.rearrange("b ... d -> d (b ...)", &[])), "f32[64, 24*s]");
    assert_eq!(shape(&x.rearrange("b s d -> 1 b s () d", &[])), "f32[1, 2, s, 1, 768]");
    assert_eq!(shape(&x.reduce("b s (d two) -> d b", ReduceKind::Max, &[("two", 2)])), "f32[384, 2]");
    assert_eq!(shape(&x.reduce_mean("... d -> ...", &[])), "f32[2, s]");
    assert_eq!(shape(&x.repeat("b s d -> b (s r) d k", &[("r", 3), ("k", 5)])), "f32[2, 3*s, 768, 5]");
    verify(&g.finish(&[&x]).expect("a module"));
}

#[test]
fn einops_errors_draw_a_caret() {
    type Op = fn(&Tensor, &str) -> Tensor;
    let rearrange: Op = |t, p| t.rearrange(p, &[("h", 5)]);
    let repeat: Op = |t, p| t.repeat(p, &[]);
    for (op, pattern, code, column) in [
        (rearrange, "a (h d) -> a h d", "shape-mismatch", 4),
        (rearrange, "a (d e h) -> a d e h", "bad-pattern", 6),
        (rearrange, "a h -> h", "bad-pattern", 1),
        (rearrange, "a (b h -> a", "bad-pattern", 3),
        (rearrange, "a b) h -> a", "bad-pattern", 4),
        (rearrange, "a h h -> a h", "bad-pattern", 1),
        (rearrange, "h 2 -> h", "bad-pattern", 3),
        (repeat, "a b -> a b c", "bad-pattern", 12),
        (repeat, "a b", "bad-pattern", 1),
    ] {
        let g = Graph::new("main");
        let x = g.input("x", F32, [4, 6]);
        let d = failure(&g, &op(&x, pattern));
        assert_eq!(d.code, code, "{pattern}: {d}");
        assert!(matches!(d.labels[0].0, Place::Text { column: c, .. } if c == column), "{pattern}: {d}");
    }
}

fn mlp(g: &Graph) {
    g.function("block", |g| {
        let x = g.input("x", F32, ("n", 64));
        let y = g.scope("mlp", || nn::Linear::new(g, "up", Q4_1, 64, 64, true).forward(&x));
        [&x + y]
    });
}

#[test]
fn weights_pass_through_calls_by_path() {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=8);
    mlp(&g);
    let mut x = g.input("x", F32, (&n, 64));
    for i in 0..3 {
        [x] = g.scope(&format!("blocks.{i}"), || g.call("block", &[&x]));
    }
    let m = g.finish(&[&x]).expect("a module");
    verify(&m);
    let entry = m.entry().expect("main");
    let names: Vec<&str> = entry.params.iter().map(|p| &*p.name).collect();
    assert_eq!(names[..3], ["x", "blocks.0.mlp.up.weight", "blocks.0.mlp.up.bias"]);
    assert_eq!((names.len(), entry.nodes.len(), m.functions.len()), (7, 10, 2));
    assert_eq!(entry.params[1].role, Role::Weight);
    assert_eq!(entry.nodes[8].scope.as_ref(), "blocks.1");
}

#[test]
fn misuse_of_functions_is_reported() {
    let run = |mistake: fn(&Graph) -> Tensor| {
        let g = Graph::new("main");
        g.symbol("n", 1..=8);
        mlp(&g);
        let t = mistake(&g);
        g.finish(&[&t]).expect_err("a mistake").code
    };
    assert_eq!(run(|g| g.call::<1>("blok", &[])[0].clone()), "unknown-function");
    assert_eq!(run(|g| g.call::<1>("block", &[])[0].clone()), "operand-count");
    assert_eq!(run(|g| g.call::<2>("block", &[&g.input("x", F32, [3, 64])])[1].clone()), "operand-count");
    assert_eq!(run(|g| g.call::<1>("block", &[&g.input("x", F32, [3, 65])])[0].clone()), "shape-mismatch");
    assert_eq!(run(|g| g.input("x", F32, ("m", 2))), "unknown-symbol");
    assert_eq!(run(|g| g.input("x", F32, [1]) + g.input("x", F32, [1])), "duplicate-parameter");
    assert_eq!(run(|g| Graph::new("main").input("x", F32, [1]).exp() + g.input("y", F32, [1])), "foreign-tensor");
    assert_eq!(
        run(|g| {
            let x = g.input("x", F32, [1]);
            g.function("f", |_| [x.exp()]);
            x
        }),
        "foreign-tensor"
    );
    assert_eq!(
        run(|g| {
            mlp(g);
            g.input("x", F32, [1])
        }),
        "duplicate-function"
    );
}

#[test]
fn attention_types() {
    let g = Graph::new("main");
    let (s, p) = (g.symbol("seq", 1..=64), g.symbol("past", 0..=64));
    let all = s.checked_add(&p).expect("a dim");
    let q = g.input("q", F32, (2, 9, &s, 64));
    let (k, v) = (g.input("k", F32, (2, 3, &all, 64)), g.input("v", F32, (2, 3, &all, 32)));
    let mask = g.input("mask", Bool, (2, 1, 1, &all));
    let bias = g.input("bias", F32, (9, &s, &all));
    let out = q.attention(&k, &v, Attention { causal: true, mask: Some(&mask), ..Attention::default() });
    assert_eq!(shape(&out), "f32[2, 9, seq, 32]");
    let with_bias = q.attention(&k, &v, Attention { mask: Some(&bias), scale: Some(1.0), ..Attention::default() });
    assert_eq!(shape(&with_bias), "f32[2, 9, seq, 32]");
    let angles = g.input("angles", F32, (&s, 32));
    assert_eq!(shape(&q.rope(&angles, &angles, RopeLayout::Interleaved)), "f32[2, 9, seq, 64]");
    assert_eq!(shape(&q.rope(&angles, &angles, RopeLayout::Half)), "f32[2, 9, seq, 64]");
    let logits = g.input("logits", F32, (&s, 100));
    assert_eq!(shape(&logits.cross_entropy(&g.input("targets", I64, (&s,)))), "f32[]");
    verify(&g.finish(&[&out]).expect("a module"));
}

#[test]
fn cond_and_scan_call_functions() {
    let g = Graph::new("main");
    g.function("step", |g| {
        let (sum, x) = (g.input("sum", F32, [3]), g.input("x", F32, [3]));
        let next = sum + x;
        [next.clone(), next.exp()]
    });
    g.function("up", |g| [g.input("x", F32, [3]).exp()]);
    g.function("down", |g| [-g.input("x", F32, [3])]);
    let n = g.symbol("n", 1..=9);
    let x = g.input("x", F32, (&n, 3));
    let scanned = g.scan("step", &[&g.full(F32, [3], 0.0)], &[&x], &n);
    assert_eq!(scanned.iter().map(shape).collect::<Vec<_>>(), ["f32[3]", "f32[n, 3]"]);
    let chosen = g.cond(&scanned[0].sum(&[0]).gt(1i64), "up", "down", &[&scanned[0]]);
    assert_eq!(shape(&chosen[0]), "f32[3]");
    verify(&g.finish(&[&chosen[0], &scanned[1]]).expect("a module"));
}

/// Whatever the pattern, the result is an error or a module that the verifier accepts.
#[test]
fn random_patterns_and_axes_never_panic() {
    let pieces = ["a", "b", "c", "ab", " ", " ", ",", "->", "...", "(", ")", "1", "()", "-", "é", "2", "ba"];
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut accepted = 0;
    for _ in 0..4000 {
        let count = 1 + next(7);
        let mut pattern: String = (0..count).map(|_| pieces[next(pieces.len())]).collect();
        pattern.push_str(if next(2) == 0 { " -> a" } else { "->" });
        let g = Graph::new("main");
        let n = g.symbol("n", 0..=4);
        let (x, y) = (g.input("x", F32, (&n, 2)), g.input("y", F32, (1, &n, 2)));
        let axis = [-4, -1, 0, 1, 2, i64::MIN, i64::MAX][next(7)];
        let result = match next(8) {
            0 => einsum(&pattern, &[&x]).expect("a tensor"),
            1 => einsum(&pattern, &[&x, &y]).expect("a tensor"),
            2 => x.rearrange(&pattern, &[]),
            3 => y.reduce(&pattern, ReduceKind::Sum, &[("a", 2)]),
            4 => x.repeat(&pattern, &[("a", axis)]),
            5 => x.softmax(axis).tril(axis).pad(axis, axis, 1, 0.0),
            6 => y.slice_by(1, axis, &n, axis).cumsum(axis).unsqueeze(axis),
            _ => y.narrow(axis, axis, axis).reshape([axis, -1]).matmul(&x.transpose(axis, 0)),
        };
        if let Ok(module) = g.finish(&[&result]) {
            accepted += 1;
            verify(&module);
        }
    }
    assert!(accepted > 100, "{accepted}");
}
