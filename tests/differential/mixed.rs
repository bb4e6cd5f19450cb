//! Random graphs in mixed precision have the bits of the plain form of the same: a graph all in f32, each of whose contractions has
//! operands and a result that were rounded and widened again, one by one. Types, texts and a second pass are what they were.

use super::data::Fill;
use super::drawn::graphs;
use super::machine::{Built, Case};
use super::random::Random;
use std::cell::Cell;
use tilewright_ir::array::Array;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Param, Value};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::op::{GraphOp, ScalarOp};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType;
use tilewright_passes::mixed::{Policy, mixed_precision};

/// Graphs of a run without `TILEWRIGHT_CASES`.
const CASES: u32 = 400;

#[test]
fn mixed_precision_rounds_operands_and_results_of_contractions_and_nothing_else() {
    let (products, differ) = (Cell::new(0u32), Cell::new(0u32));
    let cases_wanted = graphs(31, CASES, |built, case| {
        let contracts = |n: &Node| matches!(n.op, GraphOp::Dot { .. }) && n.types[0].dtype == DType::F32;
        let has = built.module.functions.values().flat_map(|f| &f.nodes).any(contracts);
        products.set(products.get() + u32::from(has));
        for dtype in [DType::Bf16, DType::F16] {
            differ.set(differ.get() + u32::from(law(built, case, dtype)?));
        }
        Ok(())
    });
    println!(
        "{cases_wanted} graphs, {} with contractions, {} runs that rounding changed",
        products.get(),
        differ.get()
    );
    assert!(20 * products.get() > cases_wanted && 40 * differ.get() > cases_wanted);
}

/// Whether the mixed graph gives something else than the one in f32.
fn law(built: &Built, case: &Case, dtype: DType) -> Result<bool, String> {
    let policy = Policy::new(dtype).map_err(|d| d.to_string())?;
    let made = mixed_precision(&built.module, &policy).map_err(|d| d.to_string())?;
    let signature = |m: &Module| -> Vec<_> {
        let of = |f: &Function| (f.params.clone(), f.results.iter().map(|&r| f.ty(r).clone()).collect::<Vec<_>>());
        m.functions.iter().map(|(name, f)| (name.clone(), of(f))).collect()
    };
    if signature(&made) != signature(&built.module) {
        return Err(format!("a type changed:\n{}", print(&made)));
    }
    let again = parse("mixed", &print(&made)).map_err(|d| d.to_string())?;
    if let Some(found) = difference(&made, &again) {
        return Err(format!("another program comes back from its text: {found}"));
    }
    let twice = mixed_precision(&made, &policy).map_err(|d| d.to_string())?;
    if !made.functions.values().zip(twice.functions.values()).all(|(a, b)| a.same_ops(b)) {
        return Err(format!("a second pass changes\n{}", print(&made)));
    }
    let plain = plain(&built.module, dtype)?;
    let (entry, mut random, mut rounded) = (built.module.entry().map_err(|d| d.to_string())?, Random(case.seed), false);
    for bindings in &built.bindings {
        let fill = |(p, f): (&Param, &Fill)| f.array(&p.ty, bindings, &mut random, case.special);
        let inputs = entry.params.iter().zip(&built.fills).map(fill).collect::<Result<Vec<Array>, _>>()?;
        let run = |m: &Module| interp::run(m, &entry.name, &inputs, bindings, Mode::Strict).map_err(|d| d.to_string());
        // An integer that was a float before may be an index that is outside in one and not in the other.
        let (found, expected) = (run(&made), run(&plain));
        match (&found, &expected) {
            (Ok(found), Ok(expected)) => {
                for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                    if !same(found, expected) {
                        return Err(format!("{dtype}, result {i}: {found:?}, expected {expected:?}\n{}", print(&made)));
                    }
                }
                rounded |= run(&built.module).is_ok_and(|full| full.iter().zip(found).any(|(a, b)| !same(a, b)));
            }
            (Err(_), Err(_)) => {}
            _one => return Err(format!("{dtype}: {found:?}, expected {expected:?}")),
        }
    }
    Ok(rounded)
}

/// The same bits, but for those of a NaN.
fn same(a: &Array, b: &Array) -> bool {
    let equal = |(x, y): (f64, f64)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    match (a.to_f64(), b.to_f64()) {
        (Some(x), Some(y)) if a.dtype().is_float() => x.len() == y.len() && x.into_iter().zip(y).all(equal),
        _exact => a == b,
    }
}

/// Each contraction of f32 between roundings; those of encoded weights as they are.
fn plain(module: &Module, dtype: DType) -> Result<Module, String> {
    let mut module = module.clone();
    let names: Vec<_> = module.functions.keys().cloned().collect();
    for name in names {
        let f = module.functions[&name].clone();
        let mut out = Function { nodes: Vec::new(), results: Vec::new(), ..f.clone() };
        let mut moved: Vec<NodeId> = Vec::new();
        let at = |moved: &[NodeId], v: Value| Value { node: moved[v.node.index()], ..v };
        for node in &f.nodes {
            let encoded = |v: &Value| {
                let from = f.node(*v);
                matches!(from.op, GraphOp::Map { op: ScalarOp::Cast { .. } }) && f.ty(from.args[0]).dtype.is_block()
            };
            let rounds = matches!(node.op, GraphOp::Dot { .. }) && node.types[0].dtype == DType::F32;
            let round = |out: &mut Function, mut v: Value| {
                for to in [dtype, DType::F32] {
                    let op = GraphOp::Map { op: ScalarOp::Cast { to } };
                    let node = out.push(&module, op, &[v], None, &"".into()).map_err(|d| d.to_string())?;
                    v = Value { node, index: 0 };
                }
                Ok::<Value, String>(v)
            };
            let mut args: Vec<Value> = node.args.iter().map(|&a| at(&moved, a)).collect();
            let rounds = rounds && !node.args.iter().any(encoded);
            if rounds {
                for arg in &mut args {
                    *arg = round(&mut out, *arg)?;
                }
            }
            let id = NodeId(out.nodes.len() as u32);
            out.nodes.push(Node { args, ..node.clone() });
            moved.push(if rounds { round(&mut out, Value { node: id, index: 0 })?.node } else { id });
        }
        out.results = f.results.iter().map(|&r| at(&moved, r)).collect();
        module.functions.insert(name, out);
    }
    Ok(module)
}
