//! Every row of the op tables at every dtype that it takes, in machine code against the interpreter. Ops, attributes and
//! operands are drawn at random and kept if type inference takes them, so a new row is tested without an edit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod data;
mod draw;
#[path = "../support/random.rs"]
mod random;

use data::{Data, same, values};
use draw::{Case, helpers};
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use tilewright::compile::{Options, Target, compile, optimized};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::graph::{Function, Module, Param, Role, Value};
use tilewright_ir::infer::scalar_type;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::op::{Attr, Family, GraphKind, GraphOp, ScalarKind, ScalarOp};
use tilewright_ir::types::{Bindings, DType, Dim, SymbolDecl, Type};

/// The greatest or the union of `x` with itself: a node that changes nothing, to fuse with.
fn itself(module: &Module, f: &mut Function, x: Value) -> Value {
    let op = match f.ty(x).dtype {
        DType::Bool => ScalarOp::Or {},
        d if d.is_block() => return x,
        _number => ScalarOp::Max {},
    };
    let node = f.push(module, GraphOp::Map { op }, &[x, x], None, &"".into()).unwrap();
    Value { node, index: 0 }
}

/// A function of one op; `wrapped` puts a node that changes nothing before and behind it.
fn single(mut module: Module, op: &GraphOp, types: &[Type], wrapped: bool) -> Module {
    let named = |(i, ty): (usize, &Type)| Param { name: format!("x{i}").into(), ty: ty.clone(), role: Role::Input };
    let params = types.iter().enumerate().map(named).collect();
    let mut f = Function::new("main", vec![SymbolDecl::new("n", 0, 4096)], params);
    let mut args: Vec<Value> = (0..types.len()).map(|i| f.param(i)).collect();
    if wrapped {
        args = args.into_iter().map(|a| itself(&module, &mut f, a)).collect();
    }
    let node = f.push(&module, op.clone(), &args, None, &"".into()).unwrap();
    let results = (0..f.nodes[node.index()].types.len()).map(|i| Value { node, index: i as u32 });
    f.results = results.collect();
    if wrapped {
        f.results = f.results.clone().into_iter().map(|r| itself(&module, &mut f, r)).collect();
    }
    module.functions.insert("main".into(), f);
    module
}

/// What came of a case.
enum Outcome {
    Agrees,
    /// The interpreter refuses the data.
    NoMeaning,
    /// There is no machine code, for this reason.
    Refused(&'static str),
    Differs(String),
}

fn compare(module: &Module, inputs: &[Array], bindings: &Bindings, level: u8, tolerance: f64) -> Outcome {
    let Ok(exact) = interp::run(module, "main", inputs, bindings, Mode::Strict) else { return Outcome::NoMeaning };
    let options = Options { opt_level: level, threads: 1, isa: Isa::best(), ..Options::host().unwrap() };
    if level == 2 {
        let back = optimized(module, &options, Target::Cpu);
        let found = match back.and_then(|m| interp::run(&m, "main", inputs, bindings, Mode::Strict)) {
            Ok(found) => found,
            Err(d) => return Outcome::Differs(format!("back from the e-graph: {d}")),
        };
        if let Some(how) = difference(&found, &exact, inputs, tolerance) {
            return Outcome::Differs(format!("back from the e-graph: {how}"));
        }
    }
    let found = match compile(module, &options).and_then(|e| e.run(inputs, bindings)) {
        Ok(found) => found,
        Err(d) if d.code == "cpu-unsupported" => return Outcome::Refused(d.code),
        Err(d) => return Outcome::Differs(d.to_string()),
    };
    difference(&found, &exact, inputs, tolerance).map_or(Outcome::Agrees, Outcome::Differs)
}

/// Where results differ from what they should be, by more than the tolerance.
fn difference(found: &[Array], exact: &[Array], inputs: &[Array], tolerance: f64) -> Option<String> {
    for (x, y) in found.iter().zip(exact) {
        if (x.dtype(), x.shape()) != (y.dtype(), y.shape()) {
            return Some(format!("{}{:?} for {}{:?}", x.dtype(), x.shape(), y.dtype(), y.shape()));
        }
        if let Some(i) = same(x, y, tolerance) {
            let (a, b) = (x.to_f64().unwrap()[i], y.to_f64().unwrap()[i]);
            let of = |array: &Array| {
                let all = array.to_f64().unwrap_or_default();
                if all.len() == x.len() { format!("{:?}", all[i]) } else { format!("{all:?}") }
            };
            let operands: Vec<String> = inputs.iter().map(of).collect();
            return Some(format!("element {i} is {a:?}, expected {b:?}, of {}", operands.join(" and ")));
        }
    }
    (found.len() != exact.len()).then(|| "too few results".into())
}

/// Relative error that is allowed; 0 asks for the same number, the sign of zero included.
fn tolerance(family: Family, dtype: DType) -> f64 {
    let loose = matches!(family, Family::Transcendental | Family::Reduction | Family::Contraction);
    match dtype {
        _ if !loose => 0.0,
        DType::F64 => 1e-12,
        DType::F32 => 2e-6,
        DType::F16 => 2e-3,
        DType::Bf16 => 1.6e-2,
        _exact => 0.0,
    }
}

fn report(wrong: &BTreeMap<String, String>) {
    let lines: Vec<String> = wrong.iter().map(|(what, how)| format!("{what}: {how}")).collect();
    assert!(wrong.is_empty(), "{} cases differ\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn scalar_ops_at_every_dtype_on_extreme_values() {
    let (mut checked, mut wrong, mut refused) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    let bindings = Bindings::from([("n".into(), 1)]);
    let attributes = |kind: ScalarKind| -> Vec<Vec<Attr>> {
        if kind.info().attrs.is_empty() {
            vec![vec![]]
        } else {
            DType::ALL.iter().map(|d| vec![Attr::DType(*d)]).collect()
        }
    };
    for &kind in ScalarKind::ALL {
        for attrs in attributes(kind) {
            let op = ScalarOp::from_parts(kind, &attrs).unwrap();
            let arity = (0..5).find(|n| kind.info().arity.accepts(*n)).unwrap();
            for &dtype in DType::ALL {
                let all = vec![dtype; arity];
                let chosen: Vec<DType> = (0..arity).map(|i| if i == 0 { DType::Bool } else { dtype }).collect();
                let Some(dtypes) = [all, chosen].into_iter().find(|d| scalar_type(&op, d).is_ok()) else { continue };
                let result = scalar_type(&op, &dtypes).unwrap();
                let arrays = data::extremes(&dtypes);
                let types: Vec<Type> = arrays.iter().map(|a| Type::new(a.dtype(), a.shape().iter().copied())).collect();
                let graph = GraphOp::Map { op: op.clone() };
                let inexact = matches!(op, ScalarOp::Rsqrt {}) || dtype.is_block();
                let family = if inexact { Family::Transcendental } else { kind.info().family };
                for level in [0, 1, 2] {
                    let module = single(Module::default(), &graph, &types, level > 0);
                    let outcome = compare(&module, &arrays, &bindings, level, tolerance(family, result));
                    let what = format!("{op:?} of {dtype} at level {level}");
                    match outcome {
                        Outcome::Agrees => drop(checked.insert((kind, dtype))),
                        Outcome::Refused(_) => drop(refused.insert(dtype)),
                        Outcome::NoMeaning => panic!("{what} has no meaning"),
                        Outcome::Differs(how) => drop(wrong.insert(what, how)),
                    }
                }
            }
        }
    }
    report(&wrong);
    assert!(checked.len() > 350, "{}", checked.len());
    assert!(refused.iter().all(|d| d.is_block()), "{refused:?}");
}

#[test]
fn graph_ops_at_every_dtype() {
    let mut random = Random(5);
    let (mut checked, mut wrong, mut refused) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for &kind in GraphKind::ALL {
        for &dtype in DType::ALL.iter().filter(|d| !d.is_block()) {
            for shape in draw::SHAPES {
                for level in [0, 1, 2] {
                    let symbolic = random.below(2) == 0;
                    let shape: Vec<Dim> = shape.iter().map(|&d| Dim::constant(d)).collect();
                    let Some(Case { op, x, types, bindings }) = draw::case(&mut random, kind, dtype, &shape, symbolic)
                    else {
                        continue;
                    };
                    let family = match &op {
                        GraphOp::Map { op } => op.info().family,
                        other => other.info().family,
                    };
                    let how = match family {
                        Family::Indexing => Data::Small,
                        Family::Reduction | Family::Contraction => Data::Tame,
                        _any => Data::Wild,
                    };
                    let inputs: Vec<Array> = types
                        .iter()
                        .map(|t| values(&mut random, t.dtype, &t.concrete(&bindings).unwrap(), how))
                        .collect();
                    let tolerance = tolerance(family, dtype);
                    let module = single(helpers(&x), &op, &types, level > 0);
                    let shown: Vec<String> = types.iter().map(|t| t.to_string()).collect();
                    let what = format!("{op:?} of {} with {bindings:?} at level {level}", shown.join(", "));
                    match compare(&module, &inputs, &bindings, level, tolerance) {
                        Outcome::Agrees => *checked.entry((kind, dtype)).or_insert(0) += 1,
                        Outcome::NoMeaning => {}
                        Outcome::Refused(code) => drop(refused.insert((kind, dtype, code))),
                        Outcome::Differs(how) => drop(wrong.insert(what, how)),
                    }
                }
            }
        }
    }
    report(&wrong);
    assert!(refused.is_empty(), "{refused:?}");
    let dtypes = |kind: GraphKind| checked.keys().filter(|(k, _)| *k == kind).count();
    // Every case reads parameters; no other row may be left out at any dtype.
    let missing: Vec<(GraphKind, usize)> = GraphKind::ALL
        .iter()
        .filter(|k| **k != GraphKind::Parameter)
        .map(|&k| (k, dtypes(k)))
        .filter(|(_, n)| *n < 13)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
