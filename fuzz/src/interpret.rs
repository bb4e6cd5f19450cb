//! Running accepted modules on the interpreter, if a bound on the work is small.

use crate::driver::skeleton;
use crate::random::Random;
use std::collections::BTreeMap;
use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::flops;
use tilewright_ir::graph::{Function, Module, Node};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::op::{GraphOp, Name};
use tilewright_ir::types::{Bindings, DType, Dim, SymbolDecl, Type};

/// Elements and operations of a module that is interpreted, at most.
const MOST_WORK: i64 = 100_000;

/// A small size in the range of each symbol.
pub fn sizes(symbols: &[SymbolDecl]) -> Bindings {
    let one = |s: &SymbolDecl| {
        let low = (s.low.saturating_add(s.step - 1) / s.step).saturating_mul(s.step);
        let wanted = low.max(3 / s.step * s.step);
        (s.name.clone(), if wanted <= s.high { wanted } else { low })
    };
    symbols.iter().map(one).collect()
}

/// A bound on elements and operations of a function: at `sizes`, or for all sizes of its symbols.
fn work(f: &Function, sizes: Option<&Bindings>, known: &BTreeMap<Name, i64>) -> i64 {
    let value = |d: &Dim| match sizes {
        Some(b) => d.eval(b).unwrap_or(i64::MAX),
        None => d.bounds(&f.symbols).1,
    };
    let elements = |t: &Type| t.shape.iter().fold(1i64, |n, d| n.saturating_mul(value(d).max(0)));
    let node = |n: &Node| {
        let args: Vec<&Type> = n.args.iter().map(|&a| f.ty(a)).collect();
        let inside =
            n.callees().iter().map(|c| known.get(*c).copied().unwrap_or(i64::MAX)).fold(0, i64::saturating_add);
        let trips = match n.op {
            // No more than the elements of its largest operand or result.
            GraphOp::Scan { .. } => args.iter().copied().chain(&n.types).map(elements).max().unwrap_or(1).max(64),
            _ => 1,
        };
        let flops = flops::cost(&n.op, &args, &n.types).map_or(0, |c| value(&c.flops).max(0));
        let moved = args.iter().copied().chain(&n.types).map(elements).fold(1, i64::saturating_add);
        moved.saturating_add(flops).saturating_add(inside.saturating_mul(trips))
    };
    f.nodes.iter().map(node).fold(0, i64::saturating_add)
}

/// Any array of a type: small integers, so that they are often indices.
pub fn array(dtype: DType, shape: &[usize], random: &mut Random) -> Option<Array> {
    let count = element_count(shape)?;
    let (per, size) = dtype.block();
    let mut bytes = Vec::with_capacity(count / per * size);
    for _ in 0..count / per {
        match dtype {
            DType::F64 => bytes.extend((random.unit() * 4.0 - 2.0).to_le_bytes()),
            DType::F32 => bytes.extend((random.unit() as f32 * 4.0 - 2.0).to_le_bytes()),
            DType::Bool => bytes.push(random.below(2) as u8),
            d if d.is_float() || d.is_block() => bytes.extend((0..size).map(|_| random.below(0x3c) as u8)),
            _integer => bytes.extend((random.below(4) as u64).to_le_bytes().into_iter().take(size)),
        }
    }
    Array::new(dtype, shape, Bytes::new(bytes)).ok()
}

/// Inputs of the entry for small sizes, if running it is little work.
pub fn inputs(module: &Module) -> Option<(Vec<Array>, Bindings)> {
    let entry = module.entry().ok()?;
    let sizes = sizes(&entry.symbols);
    let mut known = BTreeMap::new();
    for (name, f) in module.functions.iter().filter(|(_, f)| f.name != entry.name) {
        known.insert(name.clone(), work(f, None, &known));
    }
    if work(entry, Some(&sizes), &known) > MOST_WORK {
        return None;
    }
    let mut random = Random(entry.nodes.len() as u64);
    let one = |p: &tilewright_ir::graph::Param| array(p.ty.dtype, &p.ty.concrete(&sizes).ok()?, &mut random);
    let inputs: Option<Vec<Array>> = entry.params.iter().map(one).collect();
    Some((inputs?, sizes))
}

/// Runs a small module in both modes; gives what came of it. Errors: a bug is reported, or results of other types than
/// promised.
pub fn small(module: &Module) -> Result<String, String> {
    let Some((inputs, sizes)) = inputs(module) else { return Ok("large".into()) };
    let entry = module.entry().map_err(|d| d.to_string())?;
    let mut ran = String::new();
    for mode in [Mode::Meaning, Mode::Strict] {
        match interp::run(module, &entry.name, &inputs, &sizes, mode) {
            Ok(results) => {
                let want: Vec<&Type> = entry.results.iter().map(|&r| entry.ty(r)).collect();
                let fits = |(t, a): (&&Type, &Array)| {
                    t.dtype == a.dtype() && t.concrete(&sizes).is_ok_and(|shape| shape == a.shape())
                };
                if want.len() != results.len() || !want.iter().zip(&results).all(fits) {
                    return Err("results have other types than the function says".into());
                }
                ran = "ran".into();
            }
            Err(error) if error.code == "bug" => return Err(format!("the interpreter reports a bug: {error}")),
            Err(error) => ran = format!("{}: {}", error.code, skeleton(&error.message)),
        }
    }
    Ok(ran)
}
