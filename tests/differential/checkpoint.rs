//! Checkpointed gradients of random graphs and loops have the bits of the plain ones: on the interpreter, and as machine code under
//! `exact`, where what is fused in one computation and not in the other must not show.

use super::data::Fill;
use super::drawn::graphs;
use super::grad::{moving, step};
use super::machine::{Built, Case};
use super::random::Random;
use std::cell::Cell;
use tilewright::compile::{Options, compile};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Derivative, Module, Param};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::print;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::{Form, checkpoint, differentiate};
use tilewright_passes::checkpoint::{Segments, segmented};
use tilewright_passes::egraph::Numerics;

/// Graphs of a run without `TILEWRIGHT_CASES`; one of [`COMPILED`] runs as machine code, too.
const CASES: u32 = 300;
const COMPILED: u64 = 8;

#[test]
fn checkpointed_gradients_have_the_same_bits() {
    let (compared, regions) = (Cell::new(0u32), Cell::new(0u32));
    let cases_wanted = graphs(13, CASES, |built, case| {
        let found = law(built, case)?;
        compared.set(compared.get() + u32::from(found > 0));
        regions.set(regions.get() + found);
        Ok(())
    });
    println!("{} of {cases_wanted} graphs with {} regions", compared.get(), regions.get());
    assert!(3 * compared.get() > cases_wanted);
}

/// Compares gradients with and without all functions being regions. How many there are.
fn law(built: &Built, case: &Case) -> Result<u32, String> {
    let entry = built.module.entry().map_err(|d| d.to_string())?;
    let names: Vec<&str> = moving(built)?.into_iter().map(|i| &*entry.params[i].name).collect();
    if names.is_empty() {
        return Ok(0);
    }
    let mut marked = built.module.clone();
    let of_ops = marked.functions.values_mut().filter(|f| f.derivative == Derivative::OfOps);
    let regions = of_ops.map(|f| f.derivative = Derivative::Checkpoint).count() as u32;
    let made = |m: &Module| differentiate(m, &names, Form::Pullback).map(|d| d.module).map_err(|d| d.to_string());
    let (plain, again) = (made(&built.module)?, made(&marked)?);
    let mut random = Random(case.seed);
    for bindings in &built.bindings {
        let fill = |(p, f): (&Param, &Fill)| f.array(&p.ty, bindings, &mut random, case.special);
        let mut inputs = entry.params.iter().zip(&built.fills).map(fill).collect::<Result<Vec<Array>, _>>()?;
        let floats = entry.results.len();
        let values = interp::run(&built.module, "main", &inputs, bindings, Mode::Strict).map_err(|d| d.to_string())?;
        inputs.extend(values[..floats].iter().filter(|a| a.dtype().is_float()).cloned());
        same(&plain, &again, &inputs, bindings, case.seed.is_multiple_of(COMPILED), equal)?;
    }
    Ok(regions)
}

pub type Equal = fn(&[Array], &[Array]) -> Result<(), String>;

/// Whether both have equal results, on the interpreter, and as machine code if `compiled`.
pub fn same(
    a: &Module,
    b: &Module,
    inputs: &[Array],
    bindings: &Bindings,
    compiled: bool,
    equal: Equal,
) -> Result<(), String> {
    let strict = |m: &Module| interp::run(m, "main", inputs, bindings, Mode::Strict).map_err(|d| d.to_string());
    equal(&strict(a)?, &strict(b)?).map_err(|d| format!("on the interpreter, {d}\n{}", print(b)))?;
    for opt_level in if compiled { &[1, 2][..] } else { &[] } {
        let host = Options::host().map_err(|d| d.to_string())?;
        let options = Options { opt_level: *opt_level, numerics: Numerics::Exact, threads: 1, ..host };
        let run =
            |m: &Module| compile(m, &options).and_then(|code| code.run(inputs, bindings)).map_err(|d| d.to_string());
        equal(&run(a)?, &run(b)?).map_err(|d| format!("level {opt_level}, {d}\n{}", print(b)))?;
    }
    Ok(())
}

/// Bits, but that one NaN is like another.
pub fn equal(a: &[Array], b: &[Array]) -> Result<(), String> {
    compared(a, b, |x, y| x.to_bits() == y.to_bits())
}

/// Bits, but that one zero is like another, too.
pub fn equal_numbers(a: &[Array], b: &[Array]) -> Result<(), String> {
    compared(a, b, |x, y| x == y)
}

fn compared(a: &[Array], b: &[Array], equal: fn(f64, f64) -> bool) -> Result<(), String> {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        let (x, y) = (a.to_f64().ok_or("blocks")?, b.to_f64().ok_or("blocks")?);
        let same = |(x, y): (&f64, &f64)| equal(*x, *y) || (x.is_nan() && y.is_nan());
        if a.shape() != b.shape() || !x.iter().zip(&y).all(same) {
            return Err(format!("result {i}: {x:?} and {y:?}"));
        }
    }
    if a.len() == b.len() { Ok(()) } else { Err(format!("{} and {} results", a.len(), b.len())) }
}

/// Loops of random steps in segments, and chains of random regions, which share a weight: its gradient is summed in the same order.
#[test]
fn loops_and_chains_have_the_same_bits_in_segments() {
    for seed in 0..24u64 {
        // One of 7 steps has a segment that is shorter.
        let length = [4, 6, 7, 9, 12][seed as usize % 5];
        let graph = |region: bool| {
            let g = Graph::new("main");
            let inputs = |g: &Graph| [0, 1, 2].map(|i| g.input(["a", "b", "w"][i], DType::F32, [3]));
            g.function("step", |g| {
                let [a, b, w] = inputs(g);
                step(seed, &[a, b, w, g.input("s", DType::F32, [3])])
            });
            let [a, b, w] = inputs(&g);
            let s = g.input("s", DType::F32, [length as i64, 3]);
            let loss = |[a, b, w, s]: &[Tensor; 4]| {
                let all = g.scan("step", &[a, b, w], &[s], length as i64);
                let one = |x: &Tensor| step(seed + 1, &[x.clone(), b.clone(), w.clone(), a.clone()])[0].clone();
                let mut x = &all[0] * &all[1];
                for _ in 0..3 {
                    x = if region { checkpoint(one)(&x) } else { one(&x) };
                }
                x.sum(&[0]) + all[3].sin().sum(&[0, 1])
            };
            (g.clone(), loss(&[a, b, w, s]))
        };
        let finished = |region: bool| {
            let (g, loss) = graph(region);
            g.finish(&[&loss]).unwrap_or_else(|d| panic!("{d}"))
        };
        let (plain, again) = (finished(false), segmented(&finished(true), Segments::Sqrt).unwrap());
        let made = |m: &Module| differentiate(m, &["a", "b", "w", "s"], Form::ValueAndGradient).unwrap().module;
        let mut random = Random(seed);
        let inputs: Vec<Array> = [vec![3], vec![3], vec![3], vec![length, 3]]
            .iter()
            .map(|shape| {
                let n = shape.iter().product::<usize>();
                let numbers: Vec<f32> = (0..n).map(|_| random.below(33) as f32 / 16.0 - 1.0).collect();
                Array::from_f32(shape, &numbers).unwrap()
            })
            .collect();
        let compiled = seed.is_multiple_of(COMPILED);
        let equal = if length == 7 { equal_numbers } else { equal };
        same(&made(&plain), &made(&again), &inputs, &Bindings::new(), compiled, equal)
            .unwrap_or_else(|d| panic!("seed {seed}: {d}"));
    }
}
