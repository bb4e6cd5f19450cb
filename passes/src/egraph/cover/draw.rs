//! Kernels as pictures: a node for each value, with what is too small for a node of its own in its label.

use super::super::facts::{Graph, Sort};
use super::super::lang::Head;
use super::super::words::Words;
use super::Cut;
use egg::Id;
use tilewright_ir::types::DType;

/// A value of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Its class.
    pub class: Id,
    /// What computes it; constants, positions and sizes among its operands are said here.
    pub label: String,
    /// Its axes.
    pub axes: String,
    /// Its dtype.
    pub dtype: Option<DType>,
    /// Operands that are drawn: values of the kernel, or what it reads from others.
    pub operands: Vec<Id>,
}

/// The values of a cut, but for constants, positions and sizes.
pub fn drawn(graph: &Graph, cut: &Cut) -> Vec<Drawn> {
    let small = |id: &Id| {
        let node = cut.nodes.get(id).filter(|_| !cut.outputs.contains(id));
        node.filter(|n| matches!(n.head, Head::Attr(_) | Head::Iota | Head::Extent))
    };
    let words = Words(graph);
    let attr = |id: &Id| graph[*id].data.attr.as_ref().map(|a| words.attr(a)).unwrap_or_default();
    let mut out = Vec::new();
    for (class, node) in cut.nodes.iter().filter(|(id, _)| small(id).is_none()) {
        let mut label = if node.head == Head::Load { String::new() } else { node.head.to_string() };
        let mut operands = Vec::new();
        for child in &node.children {
            let said = match (graph[*child].data.sort, small(child)) {
                (Sort::Attr, _) if node.head == Head::Load => attr(child),
                (Sort::Attr, _) => format!(" {}", attr(child)),
                (Sort::Value(_), Some(leaf)) => match (&leaf.head, leaf.children.first()) {
                    (Head::Attr(constant), _) => format!(" {}", words.attr(constant)),
                    (head, axis) => format!(" {head}({})", axis.map(attr).unwrap_or_default()),
                },
                (Sort::Value(_), None) => {
                    if !operands.contains(child) {
                        operands.push(*child);
                    }
                    continue;
                }
            };
            label += &said;
        }
        let data = &graph[*class].data;
        out.push(Drawn { class: *class, label, axes: words.axes(data.free), dtype: data.dtype(), operands });
    }
    out
}
