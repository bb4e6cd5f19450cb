//! What comes back means what it meant: programs of the DSL without a rule, and with terms by whim.

use super::super::index::import;
use super::super::testing::{MOVEMENTS, picked, sample};
use super::super::*;
use super::*;
use std::collections::BTreeSet;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Attention, Graph as Dsl, RopeLayout, Tensor, concat};
use tilewright_ir::infer::require::requirements;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType};
use tilewright_ir::verify::verify;

const F: DType = DType::F32;

/// A module with one function instead of its entry.
fn with(module: &Module, function: Function) -> Module {
    let mut out = Module::default();
    for (name, other) in &module.functions {
        let f = if *name == function.name { function.clone() } else { other.clone() };
        out.functions.insert(name.clone(), f);
    }
    out
}

/// Everything in one piece: the terms that a seed picks.
fn back(module: &Module, import: &Import, graph: &Graph, seed: u64) -> Function {
    let f = module.entry().unwrap();
    let roots: BTreeSet<Id> = import.roots.iter().map(|r| graph.find(r.class)).collect();
    let outputs: Vec<Vec<Id>> = roots.into_iter().filter(|c| simple(graph, *c).is_none()).map(|c| vec![c]).collect();
    let nodes: Vec<BTreeMap<Id, ENode>> = outputs.iter().map(|o| picked(graph, o[0], seed)).collect();
    let pieces = outputs.iter().zip(&nodes).map(|(o, nodes)| Piece { outputs: o, nodes, what: "all".into() });
    export(module, f, import, graph, &pieces.collect::<Vec<_>>()).unwrap().function
}

fn ops(f: &Function) -> Vec<&'static str> {
    f.nodes.iter().skip(f.params.len()).map(|n| tilewright_ir::infer::shown_name(&n.op)).collect()
}

/// Compares a program with what comes back; gives that, without a rule and with all of them.
fn check(g: &Dsl, results: &[&Tensor], bindings: &[(&str, i64)]) -> [Function; 2] {
    let module = g.finish(results).unwrap();
    let f = module.entry().unwrap();
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, &bindings)).collect();
    let import = import(f).unwrap();
    let plain = back(&module, &import, &import.graph, 0);
    let mut all = vec![(plain.clone(), true)];
    let grown = saturate(import.graph.clone(), &shipped().unwrap(), Numerics::Reassociate, Limits::default()).unwrap();
    for seed in [0, 1, 2, 4, 77] {
        all.push((back(&module, &import, &grown.graph, seed), false));
    }
    let ruled = all[1].0.clone();
    for (function, exact) in all {
        let found = with(&module, function);
        verify(&found).unwrap();
        let text = print(&found);
        assert_eq!(difference(&parse("back", &text).unwrap(), &found), None, "{text}");
        let mode = if exact { Mode::Strict } else { Mode::Meaning };
        let want = run(&module, &f.name, &inputs, &bindings, mode).unwrap();
        let got = run(&found, &f.name, &inputs, &bindings, mode).unwrap_or_else(|d| panic!("{d}\n{text}"));
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.shape(), want.shape());
            let (got, want) = (got.to_f64().unwrap(), want.to_f64().unwrap());
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
            let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (!exact && close(*a, *b));
            assert!(got.iter().zip(&want).all(same), "exact {exact}: {got:?}\n{want:?}\n{}{text}", print(&module));
        }
    }
    [plain, ruled]
}

#[test]
fn movement_comes_back() {
    let more: [fn(&Tensor) -> Tensor; 9] = [
        |x| x.exp().pad(0, 1, 2, 0.5).pad(1, 2, 0, -1.0).flip(&[0, 1]),
        |x| concat(&[x, &x.slice(1, 0, 1), &x.flip(&[1]).exp()], 1).unwrap(),
        |x| concat(&[&x.exp(), x, &x.abs()], 0).unwrap(),
        |x| x.sum(&[0, 1]) + x.transpose(0, 1).sum(&[0, 1]),
        |x| x.transpose(0, 1),
        |x| x.reshape([24]),
        |x| x.exp().reshape([3, 8]).cumsum(0).sum(&[0]),
        |x| x.pad(0, 0, 1, 2.0).pad(0, 1, 0, 2.0), // one mask for both
        |x| x.slice_by(1, 0, 6, 2).pad(1, 2, 3, 2.0).pad(1, 1, 1, 2.0).abs(),
    ];
    let programs = || MOVEMENTS.iter().chain(&more);
    for program in programs() {
        let g = Dsl::new("main");
        let x = g.input("x", F, [4, 6]);
        check(&g, &[&program(&x)], &[]);
    }
    let g = Dsl::new("main");
    let x = g.input("x", F, [4, 6]);
    let all: Vec<Tensor> = programs().map(|p| p(&x)).collect();
    check(&g, &all.iter().collect::<Vec<_>>(), &[]);
}

#[test]
fn concats_and_pads_come_back_as_such() {
    let g = Dsl::new("main");
    let (x, angle) = (g.input("x", F, [2, 3, 4]), g.input("angle", F, [3, 2]));
    let rope = check(&g, &[&x.rope(&angle.cos(), &angle.sin(), RopeLayout::Half)], &[]);
    for f in rope {
        assert!(ops(&f).contains(&"concat") && !ops(&f).contains(&"select"), "{:?}", ops(&f));
    }
    let g = Dsl::new("main");
    let x = g.input("x", F, [4, 6]);
    for f in check(&g, &[&x.exp().pad(0, 1, 2, 0.5).abs().pad(1, 2, 0, -1.0)], &[]) {
        assert!(ops(&f).contains(&"pad") && !ops(&f).contains(&"select"), "{:?}", ops(&f));
    }
}

#[test]
fn products_come_back_as_products() {
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=64);
    let (x, w) = (g.input("x", F, [2.into(), s, 8.into()]), g.weight("w", F, [8, 12]));
    for f in check(&g, &[&(x.matmul(&w) + 1.0)], &[("s", 3)]) {
        assert_eq!(ops(&f), ["dot", "constant", "broadcast", "add"]);
    }
    for dtype in [DType::F16, DType::Bf16] {
        let g = Dsl::new("main");
        let (x, w) = (g.input("x", F, [5, 8]), g.weight("w", F, [8, 12]));
        let y = x.cast(dtype).matmul(&w.cast(dtype)).cast(F);
        assert_eq!(ops(&check(&g, &[&y], &[])[0]), ["cast", "cast", "dot", "cast"]);
    }
    let g = Dsl::new("main");
    let x = g.input("x", F, [5, 5]);
    check(&g, &[&x.matmul(&x), &x.matmul(&x.transpose(0, 1)), &(&x + x.transpose(0, 1))], &[]);
}

#[test]
fn one_pass_folds_come_back_as_definitions() {
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=64);
    let (x, w) = (g.input("x", F, [1.into(), s.clone(), 4.into()]), g.weight("w", F, [4, 12]));
    let qkv = x.matmul(&w);
    let head = |i: i64| {
        qkv.slice(2, 4 * i, 4 * (i + 1)).reshape([1.into(), s.clone(), 2.into(), 2.into()]).permute(&[0, 2, 1, 3])
    };
    let out = head(0).attention(&head(1), &head(2), Attention { causal: true, ..Attention::default() });
    let out = out.permute(&[0, 2, 1, 3]).reshape([1.into(), s, 4.into()]) + &x;
    for f in check(&g, &[&out], &[("s", 5)]) {
        assert_eq!(ops(&f).iter().filter(|o| **o == "dot").count(), 3, "{:?}", ops(&f));
    }
    let g = Dsl::new("main");
    let (x, w) = (g.input("x", F, [3, 7]), g.weight("w", F, [7]));
    check(&g, &[&x.softmax(-1), &x.layer_norm(Some(&w), Some(&w), 1e-5), &x.softmax(0), &x.var(&[-1], 1)], &[]);
}

#[test]
fn barriers_stay() {
    let g = Dsl::new("main");
    let (x, w, table) = (g.input("x", F, [3, 4]), g.weight("w", F, [4]), g.weight("table", F, [5, 4]));
    let ids = g.input("ids", DType::I64, [3]);
    let rms = table.take(&ids, 0).rms_norm(&w, 1e-5).matmul(&table.transpose(0, 1));
    let [plain, ruled] = check(&g, &[&rms, &rms.cross_entropy(&ids), &x.cumsum(1), &x.argmax(0), &x], &[]);
    for f in [plain, ruled] {
        assert!(["take", "cumsum", "argmax"].iter().all(|op| ops(&f).contains(op)), "{:?}", ops(&f));
    }
}

/// A part of a dim that has no elements.
#[test]
fn empty_parts_come_back() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [0]);
    check(&g, &[&x.reshape([0, 3]).slice(1, 1, 2).exp()], &[]);
}

/// Nodes keep their scope and their places; a view without use is gone.
/// A part of a concat asks for positions in a pad that is shorter than the part.
#[test]
fn positions_go_on_beyond_their_axis() {
    let g = Dsl::new("main");
    let (x, y) = (g.input("x", DType::F32, (5,)), g.input("y", DType::F32, (17,)));
    let padded = x.pad(0, 0, 1, 0.0);
    check(&g, &[&concat(&[&padded, &y, &padded], 0).unwrap().slice(0, 1, 29)], &[]);
}

#[test]
fn scopes_and_places_stay() {
    let text = "func @main(%x: f32[4, 6]) -> f32[4, 6] {\n %0 = transpose %x perm=[1, 0]\n %1 = exp %0 @\"a.b\"\n \
        %2 = transpose %1 perm=[1, 0]\n return %2\n}";
    let module = parse("graph", text).unwrap();
    let f = module.entry().unwrap();
    let import = import(f).unwrap();
    let out = back(&module, &import, &import.graph, 0);
    let exp = out.nodes.iter().find(|n| matches!(n.op, GraphOp::Map { .. })).unwrap();
    assert_eq!(&*exp.scope, "a.b");
    assert_eq!(exp.places, f.nodes[2].places);
}

/// A slice whose end only the source's own conditions keep inside stays a slice, and so the conditions stay.
#[test]
fn conditions_on_sizes_stay() {
    let text = "func @main(%x: f32[9, 4]) -> f32[past + seq, 4] where seq in 1..=9, past in 0..=8 {\n \
        %0 = exp %x\n %1 = slice %0 start=[0, 0] limit=[past + seq, 4] stride=[1, 1]\n %2 = abs %1\n return %2\n}";
    let module = parse("graph", text).unwrap();
    let f = module.entry().unwrap();
    let import = import(f).unwrap();
    let out = back(&module, &import, &import.graph, 0);
    assert!(ops(&out).contains(&"slice") && !ops(&out).contains(&"take"), "{:?}", ops(&out));
    let sizes = |f: &Function| requirements(f).unwrap().into_iter().map(|r| r.size).collect::<Vec<_>>();
    assert_eq!(sizes(&out), sizes(f));
}

/// Reads that no view gives, which rules may make: a diagonal, several axes in one index, positions outside.
#[test]
fn any_affine_read_has_a_form() {
    let text = "func @main(%x: f32[4, 6], %i: f32[4], %j: f32[6], %k: f32[3], %n: f32[0, 5], %z: f32[5]) -> f32[1] {\n \
        %0 = constant f32[] = 1.0\n %1 = broadcast %0 shape=[1] dims=[]\n return %1\n}";
    let module = parse("graph", text).unwrap();
    let f = module.entry().unwrap();
    let axes: Vec<AxisInfo> = [4, 6, 3, 5].map(|n| AxisInfo { name: "a".into(), dim: n.into() }).to_vec();
    let affine = |constant, terms: &[(AxisId, i64)]| Affine { constant, terms: terms.into() };
    // Per read: parameter, indices of its atoms as they are in its dims, positions inside and their elements.
    let reads: &[(usize, Vec<Affine>)] = &[
        (0, vec![affine(0, &[(2, 1)]), affine(0, &[(2, 1)])]),
        (0, vec![affine(0, &[(2, 1)]), affine(1, &[(2, 2)])]),
        (0, vec![affine(-1, &[(1, 1)]), affine(7, &[(1, -2)])]),
        (0, vec![affine(3, &[]), affine(0, &[(2, 1), (0, 1)])]),
        (0, vec![affine(5, &[]), affine(-9, &[(2, 1)])]),
        (2, vec![affine(-1, &[(2, 2), (0, 1)])]),
        (4, vec![affine(0, &[(2, 1)]), affine(0, &[(3, 1)])]),
    ];
    let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, &Bindings::new())).collect();
    for (param, indices) in reads {
        let mut build = Builder::new(&module, &axes, f).unwrap();
        let shape: Vec<i64> = f.params[*param].ty.shape.iter().map(|d| d.as_const().unwrap()).collect();
        let slot = |(n, index): (&i64, &Affine)| vec![read::Slot { size: (*n).into(), index: index.clone() }];
        let groups: Vec<_> = shape.iter().zip(indices).map(slot).collect();
        let tensor = build.read(f.param(*param), &groups).unwrap();
        let tensor = build.full(&tensor).unwrap();
        let names: Vec<AxisId> = tensor.dims.iter().flatten().copied().collect();
        build.out.results = vec![tensor.value];
        let out = with(&module, build.out);
        let got = run(&out, "main", &inputs, &Bindings::new(), Mode::Strict).unwrap().remove(0).to_f64().unwrap();
        let data = inputs[*param].to_f64().unwrap();
        let sizes: Vec<i64> = names.iter().map(|a| axes[usize::from(*a)].dim.as_const().unwrap()).collect();
        assert_eq!(got.len() as i64, sizes.iter().product::<i64>());
        for (flat, got) in got.iter().enumerate() {
            let (mut rest, mut point) = (flat as i64, BTreeMap::new());
            for (name, size) in names.iter().zip(&sizes).rev() {
                point.insert(*name, rest % size);
                rest /= size;
            }
            let place = |e: &Affine| e.constant + e.terms.iter().map(|(a, k)| k * point[a]).sum::<i64>();
            let at: Vec<i64> = indices.iter().map(place).collect();
            if at.iter().zip(&shape).all(|(i, n)| (0..*n).contains(i)) {
                let flat = at.iter().zip(&shape).fold(0, |sum, (i, n)| sum * n + i);
                assert_eq!(*got, data[flat as usize], "{param} {indices:?} at {point:?}");
            }
        }
    }
}
