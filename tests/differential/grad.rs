//! Random graphs have derivatives, and forward and reverse mode agree: `ct . (J t) = (ct J) . t`.

use super::machine::{Built, Case, build, cases};
use super::random::Random;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::Cell;
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::autodiff::{Form, differentiate};

/// Graphs of a run without `TILEWRIGHT_CASES`.
const CASES: u32 = 300;

#[test]
fn forward_and_reverse_mode_agree() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    let cases_wanted = number("TILEWRIGHT_CASES").map_or(CASES, |n| n as u32);
    let mut seed = [11u8; 32];
    seed[..8].copy_from_slice(&number("TILEWRIGHT_SEED").unwrap_or(1).to_le_bytes());
    let config = Config { cases: cases_wanted, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (compared, moving) = (Cell::new(0u32), Cell::new(0u32));
    let outcome = runner.run(&cases(), |case| {
        let built = build(&case).map_err(TestCaseError::fail)?;
        let sides = law(&built, &case);
        let shown = |d: String| TestCaseError::fail(format!("{d}\n{}{:?}", print(&built.module), built.bindings));
        for (forward, reverse, size) in sides.map_err(shown)? {
            compared.set(compared.get() + 1);
            moving.set(moving.get() + u32::from(forward != 0.0));
            let error = (forward - reverse).abs();
            // What cancels inside, as in the sum of a softmax, leaves roundings of f64 that the size does not show.
            if error > 1e-5 * size + 1e-8 {
                return Err(shown(format!("forward {forward}, reverse {reverse}, of a size of {size}")));
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    println!("{cases_wanted} graphs, {} comparisons, {} of them not 0", compared.get(), moving.get());
    // Graphs of integers, or with halves, have nothing to compare.
    assert!(10 * compared.get() > cases_wanted && 2 * moving.get() > compared.get());
}

/// Both sides of the law for each of the case's sizes, and the sum of the magnitudes that the sides are sums of. None where
/// nothing moves, where halves round on the way, or where a slope is infinite.
fn law(built: &Built, case: &Case) -> Result<Vec<(f64, f64, f64)>, String> {
    let module = &built.module;
    let entry = module.entry().map_err(|d| d.to_string())?;
    let wide = |ty: &Type| matches!(ty.dtype, DType::F32 | DType::F64);
    let wrt: Vec<usize> = (0..entry.params.len()).filter(|&i| wide(&entry.params[i].ty)).collect();
    if wrt.is_empty() || !entry.results.iter().any(|&r| entry.ty(r).dtype.is_float()) {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = wrt.iter().map(|&i| &*entry.params[i].name).collect();
    let push = differentiate(module, &names, Form::Pushforward).map_err(|d| d.to_string())?.module;
    let pull = differentiate(module, &names, Form::Pullback).map_err(|d| d.to_string())?.module;
    for made in [&push, &pull] {
        let again = parse("derivative", &print(made)).map_err(|d| d.to_string())?;
        if let Some(found) = difference(made, &again) {
            return Err(format!("another derivative comes back from its text: {found}"));
        }
    }
    if module.functions.values().flat_map(|f| &f.nodes).flat_map(|n| &n.types).any(|t| half(t.dtype)) || case.special {
        return Ok(Vec::new());
    }
    let (mut random, mut out) = (Random(case.seed), Vec::new());
    for bindings in &built.bindings {
        let fill =
            |(p, f): (&tilewright_ir::graph::Param, &super::data::Fill)| f.array(&p.ty, bindings, &mut random, false);
        let inputs = entry.params.iter().zip(&built.fills).map(fill).collect::<Result<Vec<Array>, _>>()?;
        let tangents: Vec<Array> = wrt.iter().map(|&i| noise(&inputs[i], &mut random)).collect();
        let moved = results(&push, &[&inputs[..], &tangents].concat(), bindings)?;
        let values = moved[..entry.results.len()].iter().filter(|a| a.dtype().is_float());
        let cts: Vec<Array> = values.map(|y| noise(y, &mut random)).collect();
        let back = results(&pull, &[&inputs[..], &cts].concat(), bindings)?;
        let forward = inner(&moved[entry.results.len()..], &cts);
        let reverse = inner(&back[entry.results.len()..], &tangents);
        if let (Some((forward, size)), Some((reverse, other))) = (forward, reverse) {
            out.push((forward, reverse, size.max(other)));
        }
    }
    Ok(out)
}

fn half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

fn results(module: &Module, inputs: &[Array], bindings: &Bindings) -> Result<Vec<Array>, String> {
    interp::run(module, "main", inputs, bindings, Mode::Meaning).map_err(|d| d.to_string())
}

/// Quarters, of the type of `like`.
fn noise(like: &Array, random: &mut Random) -> Array {
    let numbers: Vec<f64> = (0..like.len()).map(|_| random.below(17) as f64 / 4.0 - 2.0).collect();
    if like.dtype() == DType::F64 {
        return Array::from_f64(like.shape(), &numbers).unwrap();
    }
    Array::from_f32(like.shape(), &numbers.iter().map(|x| *x as f32).collect::<Vec<f32>>()).unwrap()
}

/// The inner product and the sum of its parts' magnitudes; none if that is not finite.
fn inner(a: &[Array], b: &[Array]) -> Option<(f64, f64)> {
    let parts = a.iter().zip(b).flat_map(|(a, b)| {
        let (a, b) = (a.to_f64().unwrap_or_default(), b.to_f64().unwrap_or_default());
        a.into_iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>()
    });
    let (sum, size) = parts.fold((0.0, 0.0), |(sum, size), part: f64| (sum + part, size + part.abs()));
    size.is_finite().then_some((sum, size))
}
