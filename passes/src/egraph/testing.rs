//! What tests of terms share: data, and extraction by whim.

use super::Graph;
use super::lang::{ENode, Fold, Head};
use egg::{CostFunction, Extractor, Id, Language};
use std::collections::btree_map::{BTreeMap, Entry};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Tensor, concat, stack};
use tilewright_ir::graph::Function;
use tilewright_ir::types::{Bindings, DType, Type};

/// Functions of a tensor `[4, 6]` that move elements: views that split axes, overlap and cut across each other.
pub const MOVEMENTS: [fn(&Tensor) -> Tensor; 12] = [
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

/// Data for an input; positions are below 3.
pub(crate) fn sample(seed: usize, ty: &Type, bindings: &Bindings) -> Array {
    let shape = ty.concrete(bindings).unwrap();
    let n: usize = shape.iter().product();
    let f = |i: usize| ((i * 37 + seed * 11 + 5) % 101) as f64 / 33.0 - 1.4;
    let array = match ty.dtype {
        DType::I64 => Array::from_i64(&shape, &(0..n).map(|i| ((i * 7 + seed) % 3) as i64).collect::<Vec<_>>()),
        DType::F32 => Array::from_f32(&shape, &(0..n).map(|i| f(i) as f32).collect::<Vec<_>>()),
        _other => Array::from_f64(&shape, &(0..n).map(f).collect::<Vec<_>>()),
    };
    array.unwrap()
}

/// Samples for all parameters of a function.
pub(super) fn samples(f: &Function, bindings: &Bindings) -> Vec<Array> {
    f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, bindings)).collect()
}

/// Picks different equal terms for different seeds.
pub(crate) struct Whim(pub u64);

impl CostFunction<ENode> for Whim {
    type Cost = u64;
    fn cost<C: FnMut(Id) -> u64>(&mut self, node: &ENode, mut costs: C) -> u64 {
        let text = node.head.to_string();
        let taste = text.bytes().fold(self.0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)) % 16;
        // One seed takes folds in one pass wherever it can.
        let online = matches!(&node.head, Head::Fold(Fold::Esum | Fold::EsumIf | Fold::M2));
        let taste = if self.0 == 4 && matches!(node.head, Head::Fold(_)) && !online { 1000 } else { taste };
        let own = if self.0 == 0 { 1 } else { 1 + taste };
        node.children.iter().fold(own, |sum, c| sum.saturating_add(costs(*c)))
    }
}

/// The nodes of the term for `root` that a seed picks.
pub(super) fn picked(graph: &Graph, root: Id, seed: u64) -> BTreeMap<Id, ENode> {
    let extractor = Extractor::new(graph, Whim(seed));
    let (mut nodes, mut open) = (BTreeMap::new(), vec![graph.find(root)]);
    while let Some(class) = open.pop() {
        if let Entry::Vacant(slot) = nodes.entry(class) {
            let node = extractor.find_best_node(class).clone().map_children(|c| graph.find(c));
            open.extend(&node.children);
            slot.insert(node);
        }
    }
    nodes
}

/// Panics unless all elements agree, up to rounding in f64.
pub(super) fn agree(got: &[f64], want: &Array, what: &str) {
    let want = want.to_f64().unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let close = (got - want).abs() <= 1e-11 * (1.0 + want.abs());
        assert!(close || (got.is_nan() && want.is_nan()), "{what}, element {i}: {got}, not {want}");
    }
}
