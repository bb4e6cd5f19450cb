//! Imported and rewritten terms mean what the reference interpreter says: every result element, several extractions.

use super::super::eval::{Bounded, fold_rows, scalar};
use super::super::*;
use super::*;
use egg::{CostFunction, Extractor, RecExpr};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Attention, Graph as Dsl, RopeLayout, Tensor, concat, stack};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::{Bindings, DType};

/// Picks different equal terms for different seeds.
struct Whim(u64);

impl CostFunction<ENode> for Whim {
    type Cost = u64;
    fn cost<C: FnMut(Id) -> u64>(&mut self, node: &ENode, mut costs: C) -> u64 {
        let text = node.head.to_string();
        let taste = text.bytes().fold(self.0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)) % 16;
        let own = if self.0 == 0 { 1 } else { 1 + taste };
        node.children.iter().fold(own, |sum, c| sum.saturating_add(costs(*c)))
    }
}

struct Memory {
    extents: Vec<i64>,
    tensors: Vec<(Vec<i64>, Vec<f64>)>,
}

impl Memory {
    fn eval(&self, e: &RecExpr<ENode>, id: Id, point: &mut Vec<i64>) -> f64 {
        let node = &e[id];
        let attr = |i: usize| match &e[node.children[i]].head {
            Head::Attr(a) => a.clone(),
            other => panic!("{other} is no attribute"),
        };
        let axis = || match attr(0) {
            Attr::Axis(a) => usize::from(a),
            other => panic!("{other} is no axis"),
        };
        match &node.head {
            Head::Attr(Attr::Const(n)) => n.value(),
            Head::Attr(a) => panic!("{a} is no value"),
            Head::Iota => point[axis()] as f64,
            Head::Extent => self.extents[axis()] as f64,
            Head::Scalar(tilewright_ir::op::ScalarOp::Cast { .. }) => self.eval(e, node.children[0], point),
            // A selected value that is not chosen may be anything.
            Head::Scalar(op) => {
                let args: Vec<Bounded> =
                    node.children.iter().map(|c| Bounded::exact(self.eval(e, *c, point))).collect();
                scalar(op.kind(), &args).unwrap().value
            }
            Head::Load | Head::Gather => {
                let (Attr::Input(t), Attr::Map(map)) = (attr(0), attr(1)) else { panic!("load") };
                let found = node.children.get(2).map_or(0, |c| self.eval(e, *c, point) as i64);
                let at: Vec<i64> = map.iter().map(|m| place(m, point, found)).collect();
                let (shape, data) = &self.tensors[t as usize];
                assert_eq!(shape.len(), at.len());
                let inside = at.iter().zip(shape).all(|(i, n)| (0..*n).contains(i));
                let flat = at.iter().zip(shape).fold(0, |sum, (i, n)| sum * n + i);
                if inside { data[flat as usize] } else { f64::NAN }
            }
            Head::At => {
                let Attr::Subst(map) = attr(0) else { panic!("at") };
                let mut moved = point.clone();
                for (axis, with) in &map {
                    moved[usize::from(*axis)] = place(with, point, 0);
                }
                self.eval(e, node.children[1], &mut moved)
            }
            Head::Fold(kind) => {
                let axis = axis();
                let before = point[axis];
                let mut rows = Vec::new();
                for i in 0..self.extents[axis] {
                    point[axis] = i;
                    let row = node.children[1..].iter().map(|c| Bounded::exact(self.eval(e, *c, point)));
                    rows.push(row.collect());
                }
                point[axis] = before;
                fold_rows(*kind, &rows).unwrap().value
            }
        }
    }
}

fn place(e: &Affine, point: &[i64], found: i64) -> i64 {
    let of = |a: AxisId| if a == GATHERED { found } else { point[usize::from(a)] };
    e.constant + e.terms.iter().map(|(a, k)| k * of(*a)).sum::<i64>()
}

/// Checks one program; returns its barriers and copies.
fn check(g: &Dsl, results: &[&Tensor], bindings: &[(&str, i64)]) -> (usize, usize) {
    let module = g.finish(results).unwrap();
    let f = module.entry().unwrap().clone();
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let import = import(&f).unwrap();
    let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, &bindings)).collect();
    // The interpreter's values of everything that the terms load, beside the results.
    let mut wide = f.clone();
    wide.results.extend(import.stored.iter().map(|s| s.value));
    let mut wide_module = Module::default();
    for (name, other) in &module.functions {
        wide_module.functions.insert(name.clone(), if *name == f.name { wide.clone() } else { other.clone() });
    }
    let want = run(&wide_module, &f.name, &inputs, &bindings, Mode::Meaning).unwrap();
    let axes = &import.graph.analysis.axes;
    let memory = Memory {
        extents: axes.iter().map(|a| a.dim.eval(&bindings).unwrap()).collect(),
        tensors: import
            .stored
            .iter()
            .zip(&want[f.results.len()..])
            .map(|(s, a)| (s.atoms.iter().map(|d| d.eval(&bindings).unwrap()).collect(), a.to_f64().unwrap()))
            .collect(),
    };
    let grown = saturate(import.graph.clone(), &shipped().unwrap(), Numerics::Approx, Limits::default()).unwrap();
    for (graph, seed) in [(&import.graph, 0), (&grown.graph, 0), (&grown.graph, 1), (&grown.graph, 77)] {
        let extractor = Extractor::new(graph, Whim(seed));
        for (value, want) in f.results.iter().zip(&want) {
            let (_, term) = extractor.find_best(graph.find(import.classes[value]));
            let data = want.to_f64().unwrap();
            let atoms: Vec<AxisId> = import.layouts[value].concat();
            for (flat, want) in data.iter().enumerate() {
                let (mut point, mut rest) = (vec![0; memory.extents.len()], flat as i64);
                for axis in atoms.iter().rev() {
                    point[usize::from(*axis)] = rest % memory.extents[usize::from(*axis)];
                    rest /= memory.extents[usize::from(*axis)];
                }
                let got = memory.eval(&term, egg::Id::from(term.len() - 1), &mut point);
                let close = (got - want).abs() <= 1e-11 * (1.0 + want.abs());
                assert!(close || (got.is_nan() && want.is_nan()), "element {flat}: {got}, not {want}; {term}");
            }
        }
    }
    (import.barriers.len(), import.copies)
}

fn sample(seed: usize, ty: &tilewright_ir::types::Type, bindings: &Bindings) -> Array {
    let shape = ty.concrete(bindings).unwrap();
    let n: usize = shape.iter().product();
    match ty.dtype {
        DType::I64 => {
            Array::from_i64(&shape, &(0..n).map(|i| ((i * 7 + seed) % 3) as i64).collect::<Vec<_>>()).unwrap()
        }
        _ => {
            let f = |i: usize| ((i * 37 + seed * 11 + 5) % 101) as f64 / 33.0 - 1.4;
            Array::from_f64(&shape, &(0..n).map(f).collect::<Vec<_>>()).unwrap()
        }
    }
}

const F: DType = DType::F64;

#[test]
fn movement_means_the_same() {
    let programs: &[fn(&Tensor) -> Tensor] = &[
        |x| x.reshape([4, 2, 3]).permute(&[2, 0, 1]).reshape([3, 8]).exp(),
        |x| x.slice(1, 2, 4) + x.slice(1, 1, 3),
        |x| x.slice(1, 3, 6) * x.slice(1, 0, 3),
        |x| x.slice_by(1, 1, 6, 2).exp(),
        |x| x.slice_by(1, 0, 6, 4).exp(),
        |x| x.pad(0, 1, 2, 0.5).pad(1, 2, 0, -1.0).flip(&[0, 1]),
        |x| concat(&[x, &x.slice(1, 0, 1), &x.flip(&[1])], 1).unwrap(),
        |x| stack(&[x, &(x * 2.0), &x.exp()], 1).unwrap().reshape([4, 18]),
        |x| x.slice(0, 3, 4) + x,
        |x| x.reshape([2, 2, 6]).slice(1, 1, 2).reshape([2, 6]).sum(&[0]) + x,
        |x| x.reshape([24]).slice(0, 13, 14) + x,
        |x| x.max(&[0]) + x.min(&[0]) * x.prod(&[0]),
    ];
    for (number, program) in programs.iter().enumerate() {
        let g = Dsl::new("main");
        let x = g.input("x", F, [4, 6]);
        // One slice splits the axis into blocks, the next one cuts across them.
        let most = usize::from(number == 1);
        assert!(check(&g, &[&program(&x)], &[]).0 <= most, "program {number}");
    }
    // All at once the axes are split in ways that do not agree; some views then go through memory.
    let g = Dsl::new("main");
    let x = g.input("x", F, [4, 6]);
    let all: Vec<Tensor> = programs.iter().map(|p| p(&x)).collect();
    assert!(check(&g, &all.iter().collect::<Vec<_>>(), &[]).0 > 0);
}

#[test]
fn the_same_tensor_under_two_names() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [3, 3]);
    let gram = x.matmul(&x);
    let (barriers, copies) = check(&g, &[&(&x + x.transpose(0, 1)), &gram, &gram.matmul(&x.transpose(0, 1))], &[]);
    assert_eq!(barriers, 0);
    assert!(copies > 0);
}

#[test]
fn what_does_not_factor_means_the_same() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [6, 10]);
    let y = x.exp().reshape([4, 15]);
    let (barriers, _) = check(&g, &[&(&y + y.cumsum(1)), &x.softmax(-1)], &[]);
    assert_eq!(barriers, 2);
}

#[test]
fn attention_means_the_same() {
    for (queries, causal) in [(3, true), (2, true), (3, false)] {
        let g = Dsl::new("main");
        let (q, k, v) =
            (g.input("q", F, [1, 4, queries, 2]), g.input("k", F, [1, 2, 3, 2]), g.input("v", F, [1, 2, 3, 2]));
        let out = q.attention(&k, &v, Attention { causal, ..Attention::default() });
        assert_eq!(check(&g, &[&out], &[]).0, 0);
    }
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=64);
    let (x, w) = (g.input("x", F, [1.into(), s.clone(), 4.into()]), g.weight("w", F, [4, 12]));
    let qkv = x.matmul(&w);
    let head = |i: i64| {
        qkv.slice(2, 4 * i, 4 * (i + 1)).reshape([1.into(), s.clone(), 2.into(), 2.into()]).permute(&[0, 2, 1, 3])
    };
    let out = head(0).attention(&head(1), &head(2), Attention { causal: true, ..Attention::default() });
    let out = out.permute(&[0, 2, 1, 3]).reshape([1.into(), s.clone(), 4.into()]) + &x;
    assert_eq!(check(&g, &[&out], &[("s", 3)]).0, 0);
}

#[test]
fn norms_losses_and_gathers_mean_the_same() {
    let g = Dsl::new("main");
    let (x, w, table) = (g.input("x", F, [3, 4]), g.weight("w", F, [4]), g.weight("table", F, [5, 4]));
    let ids = g.input("ids", DType::I64, [3]);
    let norm = x.layer_norm(Some(&w), Some(&w), 1e-5);
    let rms = table.take(&ids, 0).rms_norm(&w, 1e-5).matmul(&table.transpose(0, 1));
    let (barriers, _) = check(&g, &[&norm, &rms, &rms.cross_entropy(&ids), &x.var(&[-1], 1)], &[]);
    // The two gathers: of the table, and of the loss.
    assert_eq!(barriers, 2);
}

#[test]
fn rope_means_the_same() {
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        let g = Dsl::new("main");
        let (x, angle) = (g.input("x", F, [2, 3, 4]), g.input("angle", F, [3, 2]));
        let y = x.rope(&angle.cos(), &angle.sin(), layout);
        assert_eq!(check(&g, &[&y], &[]).0, 0);
    }
}
