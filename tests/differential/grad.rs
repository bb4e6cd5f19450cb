//! Random graphs have derivatives, and forward and reverse mode agree: `ct . (J t) = (ct J) . t`. Second derivatives are the same in
//! both orders, and symmetric.

use super::data::Fill;
use super::drawn::graphs;
use super::machine::{Built, Case};
use super::random::Random;
use std::cell::Cell;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Module, Node, Param};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::op::{GraphOp, ReduceKind};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::autodiff::{Form, differentiate, hvp, value_and_grad};

/// Graphs of a run without `TILEWRIGHT_CASES`.
const CASES: u32 = 300;

#[test]
fn forward_and_reverse_mode_agree() {
    // Graphs of integers, or with halves, have nothing to compare.
    holds(law, |cases, compared, moving| 10 * compared > cases && 2 * moving > compared);
}

#[test]
fn second_derivatives_agree_in_both_orders_and_are_symmetric() {
    // Many graphs are linear, and their second derivatives 0.
    holds(second_law, |cases, compared, moving| 10 * compared > cases && 20 * moving > compared);
}

/// Two numbers that are equal, and the sum of the magnitudes that they are sums of.
type Sides = (f64, f64, f64);

/// Draws graphs, of which `law` holds; `enough` says of their number, that of comparisons, and of those that are not 0, whether
/// that shows anything.
fn holds(law: fn(&Built, &Case) -> Result<Vec<Sides>, String>, enough: fn(u32, u32, u32) -> bool) {
    let (compared, moving) = (Cell::new(0u32), Cell::new(0u32));
    let cases_wanted = graphs(11, CASES, |built, case| {
        for (left, right, size) in law(built, case)? {
            compared.set(compared.get() + 1);
            moving.set(moving.get() + u32::from(left != 0.0));
            let error = (left - right).abs();
            // What cancels inside, as in the sum of a softmax, leaves roundings of f64 that the size does not show.
            if error > 1e-5 * size + 1e-8 {
                return Err(format!("{left} on one side, {right} on the other, of a size of {size}"));
            }
        }
        Ok(())
    });
    println!("{cases_wanted} graphs, {} comparisons, {} of them not 0", compared.get(), moving.get());
    assert!(enough(cases_wanted, compared.get(), moving.get()));
}

/// Parameters of f32 and f64, if there are some and a float result.
pub fn moving(built: &Built) -> Result<Vec<usize>, String> {
    let entry = built.module.entry().map_err(|d| d.to_string())?;
    let wide = |ty: &Type| matches!(ty.dtype, DType::F32 | DType::F64);
    let wrt: Vec<usize> = (0..entry.params.len()).filter(|&i| wide(&entry.params[i].ty)).collect();
    let has_loss = entry.results.iter().any(|&r| entry.ty(r).dtype.is_float());
    Ok(if has_loss { wrt } else { Vec::new() })
}

/// Whether numbers of this graph can be compared: halves round on the way, and special values make NaN.
fn comparable(built: &Built, case: &Case) -> bool {
    !case.special
        && !built.module.functions.values().flat_map(|f| &f.nodes).flat_map(|n| &n.types).any(|t| half(t.dtype))
}

/// With `H` the second derivatives of `sum(ct . f)`: `w . (H v)` forward over reverse is that of reverse over forward, and
/// `v . (H w)`.
fn second_law(built: &Built, case: &Case) -> Result<Vec<Sides>, String> {
    let module = &built.module;
    let entry = module.entry().map_err(|d| d.to_string())?;
    let wrt = moving(built)?;
    // The slope of a product has no second derivative of its own where an element is 0.
    let product = |n: &Node| matches!(n.op, GraphOp::Reduce { kind: ReduceKind::Prod, .. });
    if wrt.is_empty() || !comparable(built, case) || module.functions.values().flat_map(|f| &f.nodes).any(product) {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = wrt.iter().map(|&i| &*entry.params[i].name).collect();
    let made = |m: &Module, form| differentiate(m, &names, form).map(|d| d.module).map_err(|d| d.to_string());
    let forward_over_reverse = made(&made(module, Form::Pullback)?, Form::Pushforward)?;
    let reverse_over_forward = made(&made(module, Form::Pushforward)?, Form::Pullback)?;
    let (mut random, mut out) = (Random(case.seed), Vec::new());
    for bindings in &built.bindings {
        let fill = |(p, f): (&Param, &Fill)| f.array(&p.ty, bindings, &mut random, false);
        let inputs = entry.params.iter().zip(&built.fills).map(fill).collect::<Result<Vec<Array>, _>>()?;
        let values = results(module, &inputs, bindings)?;
        let floats: Vec<&Array> = values.iter().filter(|a| a.dtype().is_float()).collect();
        let cts: Vec<Array> = floats.iter().map(|y| noise(y, &mut random)).collect();
        let [v, w] = [0, 1].map(|_| wrt.iter().map(|&i| noise(&inputs[i], &mut random)).collect::<Vec<Array>>());
        let last = |all: Vec<Array>| all[all.len() - wrt.len()..].to_vec();
        let along = |t: &[Array]| results(&forward_over_reverse, &[&inputs[..], &cts, t].concat(), bindings).map(last);
        let zeros: Vec<Array> = floats.iter().map(|y| zero(y)).collect();
        let back = last(results(&reverse_over_forward, &[&inputs[..], &v, &zeros, &cts].concat(), bindings)?);
        let (hv, hw) = (along(&v)?, along(&w)?);
        if let (Some((a, x)), Some((b, y)), Some((c, z))) = (inner(&hv, &w), inner(&back, &w), inner(&hw, &v)) {
            let size = x.max(y).max(z);
            out.extend([(a, b, size), (a, c, size)]);
        }
    }
    Ok(out)
}

fn zero(like: &Array) -> Array {
    let bytes = vec![0; like.bytes().len()];
    Array::new(like.dtype(), like.shape(), tilewright_ir::array::Bytes::new(bytes)).unwrap()
}

/// Loops of random steps have the gradients of the steps one after the other.
#[test]
fn the_gradient_of_a_scan_is_that_of_its_steps() {
    for seed in 0..40 {
        let numbers = |n: usize, by: u64| {
            let mut random = Random(100 * seed + by);
            (0..n).map(|_| random.below(33) as f64 / 16.0 - 1.0).collect::<Vec<f64>>()
        };
        let length = 1 + seed as usize % 5;
        let build = |looped: bool| {
            let g = Graph::new("main");
            let inputs = |g: &Graph| [0, 1, 2].map(|i| g.input(["a", "b", "w"][i], DType::F64, [3]));
            g.function("step", |g| {
                let [a, b, w] = inputs(g);
                step(seed, &[a, b, w, g.input("s", DType::F64, [3])])
            });
            let [a, b, w] = inputs(&g);
            let s = g.input("s", DType::F64, [length as i64, 3]);
            let loss = |[a, b, w, s]: &[Tensor; 4]| {
                if looped {
                    let all = g.scan("step", &[a, b, w], &[s], length as i64);
                    return (&all[0] * &all[1]).sum(&[0]) + all[3].sin().sum(&[0, 1]);
                }
                let (mut a, mut b, mut total) = (a.clone(), b.clone(), g.scalar(DType::F64, 0.0));
                for i in 0..length as i64 {
                    let row = s.slice(0, i, i + 1).squeeze(0);
                    let [next, other, _, stack] = step(seed, &[a, b, w.clone(), row]);
                    (a, b, total) = (next, other, total + stack.sin().sum(&[0]));
                }
                (a * b).sum(&[0]) + total
            };
            let all = [a, b, w, s];
            let (y, d) = value_and_grad(loss)(&all);
            let second = hvp(loss)(&all, &all);
            let out: Vec<&Tensor> = [&y].into_iter().chain(&d).chain(&second).collect();
            g.finish(&out).unwrap_or_else(|d| panic!("{d}"))
        };
        let inputs: Vec<Array> = [3, 3, 3, 3 * length]
            .iter()
            .zip(1..)
            .map(|(&n, by)| {
                let shape = if n == 3 && by < 4 { vec![3] } else { vec![length, 3] };
                Array::from_f64(&shape, &numbers(n, by)).unwrap()
            })
            .collect();
        let [looped, unrolled] =
            [true, false].map(|looped| results(&build(looped), &inputs, &Bindings::new()).unwrap());
        for (i, (a, b)) in looped.iter().zip(&unrolled).enumerate() {
            let near = |(a, b): (f64, f64)| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
            let (a, b) = (a.to_f64().unwrap(), b.to_f64().unwrap());
            assert!(a.iter().copied().zip(b.iter().copied()).all(near), "seed {seed}, result {i}: {a:?} {b:?}");
        }
    }
}

/// A random step: carries `a` and `b`, of which one may stay, a carry `w` that stays, and what is stacked.
pub fn step(seed: u64, [a, b, w, s]: &[Tensor; 4]) -> [Tensor; 4] {
    let mut random = Random(seed);
    let mut values = vec![a.clone(), b.clone(), w.clone(), s.clone()];
    for _ in 0..6 {
        let [x, y] = [0, 1].map(|_| values[random.below(values.len())].clone());
        values.push(match random.below(6) {
            0 => x * y,
            1 => x + y,
            2 => x.tanh(),
            3 => (x * 0.5).sin() - y,
            4 => (-(&x * &x)).exp(),
            _ => x.maximum(&y),
        });
    }
    let pick = |i: usize| values[values.len() - i].clone();
    let other = if random.below(3) == 0 { b.clone() } else { pick(2) };
    [pick(1).tanh(), other, w.clone(), pick(3)]
}

/// Both sides of the law for each of the case's sizes, and the sum of the magnitudes that the sides are sums of. None where
/// nothing moves, where halves round on the way, or where a slope is infinite.
fn law(built: &Built, case: &Case) -> Result<Vec<Sides>, String> {
    let module = &built.module;
    let entry = module.entry().map_err(|d| d.to_string())?;
    let wrt = moving(built)?;
    if wrt.is_empty() {
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
    if !comparable(built, case) {
        return Ok(Vec::new());
    }
    let (mut random, mut out) = (Random(case.seed), Vec::new());
    for bindings in &built.bindings {
        let fill = |(p, f): (&Param, &Fill)| f.array(&p.ty, bindings, &mut random, false);
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
