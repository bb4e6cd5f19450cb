//! Attention as people write it, in primitives of the DSL, and with its composite.

use tilewright_ir::dsl::{Attention, Graph, Tensor, einsum};
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType;

/// How large it is, and of what.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub batch: i64,
    pub heads: i64,
    /// Heads of keys and values.
    pub groups: i64,
    pub queries: i64,
    pub keys: i64,
    /// Of queries and keys.
    pub head: i64,
    /// Of values.
    pub values: i64,
    /// Of everything that is no mask.
    pub dtype: DType,
}

/// One way to write attention.
pub struct Variant {
    pub name: &'static str,
    /// What is not as usual about its sizes.
    resize: fn(Sizes) -> Sizes,
    build: fn(&Graph, Sizes, [Tensor; 3]) -> Tensor,
}

const SIZES: Sizes =
    Sizes { batch: 2, heads: 4, groups: 4, queries: 0, keys: 0, head: 64, values: 64, dtype: DType::F32 };

impl Variant {
    /// Its sizes for so many tokens.
    pub fn sizes(&self, tokens: i64) -> Sizes {
        (self.resize)(Sizes { queries: tokens, keys: tokens, ..SIZES })
    }

    /// Queries, keys and values are the first parameters.
    pub fn module(&self, s: Sizes) -> Module {
        let (g, dtype) = (Graph::new("main"), s.dtype);
        let q = g.input("q", dtype, [s.batch, s.heads, s.queries, s.head]);
        let k = g.input("k", dtype, [s.batch, s.groups, s.keys, s.head]);
        let v = g.input("v", dtype, [s.batch, s.groups, s.keys, s.values]);
        let out = (self.build)(&g, s, [q, k, v]);
        g.finish(&[&out]).unwrap_or_else(|d| panic!("{}: {d}", self.name))
    }
}

/// `q k^T`, one group of heads after the other: `[batch, groups, each, queries, keys]`.
fn products(s: Sizes, q: &Tensor, k: &Tensor) -> Tensor {
    let q = q.reshape([s.batch, s.groups, s.heads / s.groups, s.queries, s.head]);
    einsum("b g r i d, b g j d -> b g r i j", &[&q, k]).unwrap()
}

fn scale(s: Sizes) -> f64 {
    1.0 / (s.head as f64).sqrt()
}

fn scaled(s: Sizes, q: &Tensor, k: &Tensor) -> Tensor {
    products(s, q, k) * scale(s)
}

fn softmax(scores: &Tensor) -> Tensor {
    let e = (scores - scores.max_keep(&[-1])).exp();
    &e / e.sum_keep(&[-1])
}

fn weigh(s: Sizes, weights: &Tensor, v: &Tensor) -> Tensor {
    let out = einsum("b g r i j, b g j e -> b g r i e", &[weights, v]).unwrap();
    out.reshape([s.batch, s.heads, s.queries, s.values])
}

/// Scores that are changed before the softmax.
fn with(s: Sizes, [q, k, v]: &[Tensor; 3], change: impl Fn(Tensor) -> Tensor) -> Tensor {
    weigh(s, &softmax(&change(scaled(s, q, k))), v)
}

/// Positions of queries and of keys, `[queries, keys]`.
fn positions(g: &Graph, s: Sizes) -> (Tensor, Tensor) {
    let shape = [s.queries, s.keys];
    (g.iota(DType::I64, shape, 0), g.iota(DType::I64, shape, 1))
}

fn causal(g: &Graph, s: Sizes) -> Tensor {
    let (i, j) = positions(g, s);
    j.le(i)
}

fn hide(shown: &Tensor, scores: &Tensor) -> Tensor {
    shown.select(scores, f64::NEG_INFINITY)
}

/// A mask that is added to scores.
fn added(g: &Graph, s: Sizes, shown: &Tensor) -> Tensor {
    shown.select(g.scalar(s.dtype, 0.0), f64::NEG_INFINITY)
}

fn window(s: Sizes) -> i64 {
    s.keys / 8
}

/// `[batch, keys]` as it meets scores.
fn padding(g: &Graph, s: Sizes, dtype: DType) -> Tensor {
    g.input("padding", dtype, [s.batch, s.keys]).reshape([s.batch, 1, 1, 1, s.keys])
}

fn slopes(g: &Graph, s: Sizes) -> Tensor {
    g.input("slopes", s.dtype, [s.groups, s.heads / s.groups]).reshape([s.groups, s.heads / s.groups, 1, 1])
}

fn kept(g: &Graph, s: Sizes, dtype: DType) -> Tensor {
    g.input("kept", dtype, [s.batch, s.groups, s.heads / s.groups, s.queries, s.keys])
}

const fn variant(name: &'static str, build: fn(&Graph, Sizes, [Tensor; 3]) -> Tensor) -> Variant {
    Variant { name, resize: |s| s, build }
}

const fn sized(
    name: &'static str,
    resize: fn(Sizes) -> Sizes,
    build: fn(&Graph, Sizes, [Tensor; 3]) -> Tensor,
) -> Variant {
    Variant { name, resize, build }
}

fn plain(_: &Graph, s: Sizes, all: [Tensor; 3]) -> Tensor {
    with(s, &all, |x| x)
}

fn masked(g: &Graph, s: Sizes, all: [Tensor; 3]) -> Tensor {
    with(s, &all, |x| hide(&causal(g, s), &x))
}

pub const VARIANTS: &[Variant] = &[
    variant("plain", plain),
    variant("no scale", |_, s, [q, k, v]| weigh(s, &softmax(&products(s, &q, &k)), &v)),
    variant("queries scaled", |_, s, [q, k, v]| weigh(s, &softmax(&products(s, &(q * scale(s)), &k)), &v)),
    variant("scores divided", |_, s, [q, k, v]| weigh(s, &softmax(&(products(s, &q, &k) / 8.0)), &v)),
    variant("without the maximum", |_, s, [q, k, v]| {
        let e = scaled(s, &q, &k).exp();
        weigh(s, &(&e / e.sum_keep(&[-1])), &v)
    }),
    variant("divided after the values", |_, s, [q, k, v]| {
        let scores = scaled(s, &q, &k);
        let e = (&scores - scores.max_keep(&[-1])).exp();
        let sums = e.sum_keep(&[-1]).reshape([s.batch, s.heads, s.queries, 1]);
        weigh(s, &e, &v) / sums
    }),
    variant("causal", masked),
    variant("causal, what is hidden first", |g, s, all| {
        let (i, j) = positions(g, s);
        with(s, &all, |x| j.gt(&i).select(f64::NEG_INFINITY, &x))
    }),
    variant("causal, added", |g, s, all| with(s, &all, |x| x + added(g, s, &causal(g, s)))),
    variant("sliding window", |g, s, all| {
        let (i, j) = positions(g, s);
        let near = (&i - &j).lt(window(s));
        with(s, &all, |x| hide(&(j.le(&i) & &near), &x))
    }),
    variant("sliding window, two masks", |g, s, all| {
        let (i, j) = positions(g, s);
        let near = j.gt(&i - window(s));
        with(s, &all, |x| hide(&near, &hide(&causal(g, s), &x)))
    }),
    sized(
        "sliding window of a cache",
        |s| Sizes { queries: s.keys / 3, ..s },
        |g, s, all| {
            let (i, j) = positions(g, s);
            let i = i + (s.keys - s.queries);
            with(s, &all, |x| hide(&(j.le(&i) & (&i - &j).lt(window(s))), &x))
        },
    ),
    sized(
        "decoding, sliding window",
        |s| Sizes { queries: 1, ..s },
        |g, s, all| {
            let (_, j) = positions(g, s);
            with(s, &all, |x| hide(&j.ge(s.keys - window(s)), &x))
        },
    ),
    variant("band", |g, s, all| {
        let (i, j) = positions(g, s);
        with(s, &all, |x| hide(&(&i - &j).abs().le(window(s)), &x))
    }),
    variant("padding", |g, s, all| with(s, &all, |x| hide(&padding(g, s, DType::Bool), &x))),
    variant("padding, added", |g, s, all| {
        with(s, &all, |x| x + (1.0 - padding(g, s, DType::Bool).cast(s.dtype)) * -1e4)
    }),
    variant("padding, added infinities", |g, s, all| with(s, &all, |x| x + added(g, s, &padding(g, s, DType::Bool)))),
    variant("padding and causal", |g, s, all| {
        with(s, &all, |x| hide(&(causal(g, s) & padding(g, s, DType::Bool)), &x))
    }),
    variant("causal, then a mask added", |g, s, all| {
        with(s, &all, |x| hide(&causal(g, s), &x) + padding(g, s, s.dtype))
    }),
    variant("mask of queries and keys", |g, s, all| {
        let mask = g.input("mask", s.dtype, [s.queries, s.keys]);
        with(s, &all, |x| x + &mask)
    }),
    sized("grouped heads", |s| Sizes { groups: 2, ..s }, masked),
    sized("one head of keys", |s| Sizes { groups: 1, ..s }, masked),
    variant("ALiBi", |g, s, all| {
        let (i, j) = positions(g, s);
        let far = (&j - &i).cast(s.dtype);
        with(s, &all, |x| hide(&causal(g, s), &(x + slopes(g, s) * &far)))
    }),
    variant("bias of relative positions", |g, s, all| {
        let bias = g.input("bias", s.dtype, [s.groups, s.heads / s.groups, s.queries, s.keys]);
        with(s, &all, |x| x + &bias)
    }),
    variant("soft cap", |g, s, all| with(s, &all, |x| hide(&causal(g, s), &((x / 30.0).tanh() * 30.0)))),
    sized(
        "cross attention",
        |s| Sizes { queries: s.keys / 2 + 3, values: 32, ..s },
        |g, s, all| with(s, &all, |x| hide(&padding(g, s, DType::Bool), &x)),
    ),
    variant("dropout", |g, s, [q, k, v]| {
        let weights = softmax(&hide(&causal(g, s), &scaled(s, &q, &k)));
        weigh(s, &(kept(g, s, DType::Bool).select(weights, 0.0) * 1.25), &v)
    }),
    variant("dropout, scaled first", |g, s, [q, k, v]| {
        let weights = softmax(&scaled(s, &q, &k)) * 1.25;
        weigh(s, &kept(g, s, DType::Bool).select(weights, 0.0), &v)
    }),
    variant("padding, weights hidden too", |g, s, [q, k, v]| {
        let shown = padding(g, s, DType::Bool);
        let weights = softmax(&hide(&shown, &scaled(s, &q, &k)));
        weigh(s, &shown.select(weights, 0.0), &v)
    }),
    variant("dropout by factors", |g, s, [q, k, v]| {
        let weights = softmax(&scaled(s, &q, &k));
        weigh(s, &(weights * kept(g, s, s.dtype) * 1.25), &v)
    }),
    sized("decoding", |s| Sizes { queries: 1, ..s }, plain),
    sized(
        "decoding, grouped heads",
        |s| Sizes { queries: 1, groups: 2, ..s },
        |g, s, all| with(s, &all, |x| hide(&padding(g, s, DType::Bool), &x)),
    ),
    sized("heads of 32", |s| Sizes { head: 32, values: 32, ..s }, masked),
    sized("heads of 80", |s| Sizes { head: 80, values: 80, ..s }, masked),
    sized("heads of 96", |s| Sizes { head: 96, values: 96, ..s }, masked),
    sized("heads of 128", |s| Sizes { head: 128, values: 128, ..s }, masked),
    sized("heads of 256", |s| Sizes { head: 256, values: 256, ..s }, masked),
    sized("wider keys than values", |s| Sizes { head: 192, values: 128, ..s }, masked),
    variant("composite", |_, _, [q, k, v]| q.attention(&k, &v, Attention::default())),
    sized(
        "composite, causal, grouped heads",
        |s| Sizes { groups: 2, ..s },
        |_, _, [q, k, v]| q.attention(&k, &v, Attention { causal: true, ..Attention::default() }),
    ),
    variant("composite, mask", |g, s, [q, k, v]| {
        let mask = g.input("mask", DType::Bool, [s.batch, s.keys]).reshape([s.batch, 1, 1, s.keys]);
        q.attention(&k, &v, Attention { mask: Some(&mask), ..Attention::default() })
    }),
];
