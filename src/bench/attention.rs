//! Attention, f32. `gflops` counts the masked half too.

use super::numpy::NumpyRandom;
use super::{More, Prepared, Row, SECOND, Setup, giga, mean_size, row};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph};
use tilewright_ir::types::DType;

struct Case {
    name: &'static str,
    batch: usize,
    heads: usize,
    groups: usize,
    queries: usize,
    keys: usize,
    size: usize,
    causal: bool,
}

const fn case(name: &'static str, [batch, heads, groups, queries, keys, size]: [usize; 6], causal: bool) -> Case {
    Case { name, batch, heads, groups, queries, keys, size, causal }
}

const CASES: [Case; 6] = [
    case("1x12x1024x64 causal", [1, 12, 12, 1024, 1024, 64], true),
    case("1x9(3)x2048x64 causal", [1, 9, 3, 2048, 2048, 64], true),
    case("1x8x512x128", [1, 8, 8, 512, 512, 128], false),
    case("8x12x128x64 causal", [8, 12, 12, 128, 128, 64], true),
    case("decode 1x12x2048x64", [1, 12, 12, 1, 2048, 64], false),
    case("decode 8x9(3)x1024x64", [8, 9, 3, 1, 1024, 64], false),
];

/// Measures every case, and hands each row over as it comes.
///
/// Errors: those of the compiler and of `show`.
pub fn attention(setup: &Setup, mut show: impl FnMut(Row) -> Result<(), Diagnostic>) -> Result<(), Diagnostic> {
    for c in CASES {
        let query = [c.batch, c.heads, c.queries, c.size];
        let memory = [c.batch, c.groups, c.keys, c.size];
        let g = Graph::new("main");
        let [q, k, v] = [("q", query), ("k", memory), ("v", memory)].map(|(n, s)| g.input(n, DType::F32, s));
        let module = g.finish(&[&q.attention(&k, &v, Attention { causal: c.causal, ..Attention::default() })])?;
        let mut random = NumpyRandom::new(0);
        let input = |s: [usize; 4]| Array::from_f32(&s, &random.normal(s.iter().product()));
        let inputs: Vec<Array> = [query, memory, memory].into_iter().map(input).collect::<Result<_, _>>()?;
        let mut prepared = Prepared::new(&module, &inputs, setup)?;
        let check = mean_size(prepared.result()?);
        let times = prepared.measure(SECOND)?;
        let flops = 4.0 * (c.batch * c.heads * c.queries * c.keys * c.size) as f64;
        let more = More { gflops: giga(flops, times.median), check, ..More::default() };
        show(row("attention", c.name.into(), &times, setup, more))?;
    }
    Ok(())
}
