//! Random graphs over many examples: `vmap` of a graph gives what a loop over the examples gives, and so does that of its
//! gradient.

use super::machine::{Built, Case, build, cases};
use super::random::Random;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::Cell;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType, SymbolDecl, Type};
use tilewright_passes::autodiff::{Form, differentiate};
use tilewright_passes::vmap::{Count, batch};

/// Graphs of a run without `TILEWRIGHT_CASES`.
const CASES: u32 = 200;

/// Examples.
const COUNT: usize = 3;

#[test]
fn many_examples_at_once_are_a_loop_over_them() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    let cases_wanted = number("TILEWRIGHT_CASES").map_or(CASES, |n| n as u32);
    let mut seed = [23u8; 32];
    seed[..8].copy_from_slice(&number("TILEWRIGHT_SEED").unwrap_or(1).to_le_bytes());
    let config = Config { cases: cases_wanted, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (plain, gradients) = (Cell::new(0u32), Cell::new(0u32));
    let outcome = runner.run(&cases(), |case| {
        let built = build(&case).map_err(TestCaseError::fail)?;
        let shown = |m: &Module, d: String| TestCaseError::fail(format!("{d}\n{}{:?}", print(m), built.bindings));
        plain.set(plain.get() + compared(&built, &built.module, &case).map_err(|d| shown(&built.module, d))?);
        if let Some(pull) = pullback(&built) {
            gradients.set(gradients.get() + compared(&built, &pull, &case).map_err(|d| shown(&pull, d))?);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    println!("{cases_wanted} graphs, {} runs, {} of gradients", plain.get(), gradients.get());
    assert!(plain.get() > cases_wanted && 4 * gradients.get() > cases_wanted);
}

/// The cotangents of all floats, where there are some.
fn pullback(built: &Built) -> Option<Module> {
    let f = built.module.entry().ok()?;
    let names: Vec<&str> = f.params.iter().filter(|p| p.ty.dtype.is_float()).map(|p| &*p.name).collect();
    if names.is_empty() {
        return None;
    }
    differentiate(&built.module, &names, Form::Pullback).ok().map(|made| made.module)
}

/// Compares both for each of the case's sizes. How many runs were compared.
fn compared(built: &Built, module: &Module, case: &Case) -> Result<u32, String> {
    let f = module.entry().map_err(|d| d.to_string())?;
    let mut random = Random(case.seed);
    // Where each parameter gets the examples; at least one does.
    // Blocks lie along the last axis, so examples are in front of them.
    let rank = |ty: &Type| if ty.dtype.is_block() { 0 } else { ty.rank() };
    let mut axes: Vec<Option<usize>> = f.params.iter().map(|p| random.axis(rank(&p.ty))).collect();
    if axes.iter().all(Option::is_none) {
        axes.iter_mut().take(1).for_each(|axis| *axis = Some(0));
    }
    let named: Vec<(&str, usize)> = f.params.iter().zip(&axes).filter_map(|(p, a)| Some((&*p.name, (*a)?))).collect();
    if named.is_empty() {
        return Ok(0);
    }
    let count = Count::Symbol(SymbolDecl::new("examples", 0, 64));
    let made = batch(module, &named, &count).map_err(|d| d.to_string())?;
    let again = parse("batched", &print(&made)).map_err(|d| d.to_string())?;
    if let Some(found) = difference(&made, &again) {
        return Err(format!("another program comes back from its text: {found}"));
    }
    let mut runs = 0;
    for bindings in &built.bindings {
        let mut examples: Vec<Vec<Array>> = Vec::new();
        for e in 0..COUNT {
            let mut inputs = Vec::new();
            for (i, p) in f.params.iter().enumerate() {
                let shared = if e > 0 && axes[i].is_none() { Some(examples[0][i].clone()) } else { None };
                // Cotangents follow the parameters.
                let fill = built.fills.get(i).unwrap_or(&super::data::Fill::Lattice);
                inputs.push(shared.map_or_else(|| fill.array(&p.ty, bindings, &mut random, case.special), Ok)?);
            }
            examples.push(inputs);
        }
        let run = |m: &Module, inputs: &[Array], b: &Bindings| {
            interp::run(m, "main", inputs, b, Mode::Strict).map_err(|d| d.to_string())
        };
        let each = examples.iter().map(|x| run(module, x, bindings)).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<Array> = (0..axes.len())
            .map(|i| axes[i].map_or_else(|| examples[0][i].clone(), |axis| stacked(&column(&examples, i), axis)))
            .collect();
        let mut with = bindings.clone();
        with.insert("examples".into(), COUNT as i64);
        for (r, found) in run(&made, &inputs, &with)?.iter().enumerate() {
            let want = stacked(&column(&each, r), 0);
            if !same(&want, found) {
                return Err(format!("{named:?}, result {r}: {want:?}\n{found:?}\n{}", print(&made)));
            }
        }
        runs += 1;
    }
    Ok(runs)
}

#[test]
fn the_gradient_of_many_examples_is_that_of_each() {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[29u8; 32]));
    let compared = Cell::new(0u32);
    let outcome = runner.run(&cases(), |case| {
        let built = build(&case).map_err(TestCaseError::fail)?;
        let shown = |d: String| TestCaseError::fail(format!("{d}\n{}{:?}", print(&built.module), built.bindings));
        compared.set(compared.get() + commute(&built, &case).map_err(shown)?);
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    assert!(4 * compared.get() > CASES, "{} comparisons", compared.get());
}

/// The gradient of the batched graph against the batched gradient; what all examples share has the sum of theirs. How many
/// gradients were compared: none where halves round on the way.
fn commute(built: &Built, case: &Case) -> Result<u32, String> {
    let (module, mut random) = (&built.module, Random(case.seed));
    let f = module.entry().map_err(|d| d.to_string())?;
    let half = |ty: &Type| matches!(ty.dtype, DType::F16 | DType::Bf16);
    let rounds = module.functions.values().flat_map(|f| &f.nodes).flat_map(|n| &n.types).any(half);
    let wrt: Vec<usize> = (0..f.params.len()).filter(|&i| f.params[i].ty.dtype.is_float()).collect();
    let Some(pull) = pullback(built).filter(|_| !rounds && !case.special) else { return Ok(0) };
    let shared: Vec<bool> = (0..f.params.len()).map(|i| i > 0 && random.below(3) == 0).collect();
    let axes = |m: &Module| -> Vec<String> {
        let params = m.entry().map_or(&[][..], |f| &f.params).iter().enumerate();
        params.filter(|(i, _)| !shared.get(*i).is_some_and(|s| *s)).map(|(_, p)| p.name.to_string()).collect()
    };
    let many = |m: &Module, names: &[String]| {
        let named: Vec<(&str, usize)> = names.iter().map(|n| (n.as_str(), 0)).collect();
        batch(m, &named, &Count::Fixed(COUNT as i64)).map_err(|d| d.to_string())
    };
    let inside = many(&pull, &axes(&pull))?;
    let names: Vec<&str> = wrt.iter().map(|&i| &*f.params[i].name).collect();
    let outside = differentiate(&many(module, &axes(module))?, &names, Form::Pullback).map_err(|d| d.to_string())?;
    let mut compared = 0;
    for bindings in &built.bindings {
        let mut inputs = Vec::new();
        for (i, p) in inside.entry().map_err(|d| d.to_string())?.params.iter().enumerate() {
            let fill = built.fills.get(i).unwrap_or(&super::data::Fill::Lattice);
            inputs.push(fill.array(&p.ty, bindings, &mut random, false)?);
        }
        let run = |m: &Module| interp::run(m, "main", &inputs, bindings, Mode::Meaning).map_err(|d| d.to_string());
        let (each, all) = (run(&inside)?, run(&outside.module)?);
        for (k, &i) in wrt.iter().enumerate() {
            let at = f.results.len() + k;
            let (each, all) = (each[at].to_f64().unwrap_or_default(), all[at].to_f64().unwrap_or_default());
            let n = all.len();
            for j in 0..n {
                let parts: Vec<f64> =
                    if shared[i] { each.iter().skip(j).step_by(n).copied().collect() } else { vec![each[j]] };
                let (sum, size) = parts.iter().fold((0.0, 0.0), |(s, m): (f64, f64), x| (s + x, m + x.abs()));
                if size.is_finite() && (sum - all[j]).abs() > 1e-5 * size + 1e-8 {
                    return Err(format!("by {}, element {j}: {sum} and {}", f.params[i].name, all[j]));
                }
            }
            compared += 1;
        }
    }
    Ok(compared)
}

fn column(rows: &[Vec<Array>], i: usize) -> Vec<Array> {
    rows.iter().map(|row| row[i].clone()).collect()
}

/// The same bits, any NaN: in the strict interpreter an example is computed as it is alone, in the same order.
fn same(a: &Array, b: &Array) -> bool {
    let floats = |x: &Array| if x.dtype().is_float() { x.to_f64() } else { None };
    let shape = a.dtype() == b.dtype() && a.shape() == b.shape();
    shape
        && match (floats(a), floats(b)) {
            (Some(a), Some(b)) => {
                a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
            }
            _ => a.bytes()[..] == b.bytes()[..],
        }
}

/// The arrays along a new axis.
fn stacked(examples: &[Array], axis: usize) -> Array {
    let first = &examples[0];
    let (outer, inner) = first.shape().split_at(axis);
    let (outer, inner) = (outer.iter().product::<usize>(), inner.iter().product::<usize>());
    let size = first.dtype().bytes(inner).unwrap();
    let mut bytes = Vec::new();
    for o in 0..outer {
        examples.iter().for_each(|x| bytes.extend_from_slice(&x.bytes()[o * size..(o + 1) * size]));
    }
    let mut shape = first.shape().to_vec();
    shape.insert(axis, examples.len());
    Array::new(first.dtype(), &shape, Bytes::new(bytes)).unwrap()
}

trait Axes {
    fn axis(&mut self, rank: usize) -> Option<usize>;
}

impl Axes for Random {
    /// An axis of a value of one rank more, or none.
    fn axis(&mut self, rank: usize) -> Option<usize> {
        let pick = self.below(2 * rank + 3);
        Some(pick).filter(|&axis| axis <= rank)
    }
}
