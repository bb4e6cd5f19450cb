//! What must hold for the sizes of a call, beyond the declared ranges of its symbols.
//!
//! Inference refuses what it can see: a slice with known ends outside its operand. Where sizes are symbols, the same
//! conditions become requirements, which whoever runs the function tests once a call.

use crate::diag::{Diagnostic, Place};
use crate::graph::Function;
use crate::op::GraphOp;
use crate::types::{Dim, Type};

/// A size that must not be negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// The size.
    pub size: Dim,
    /// What it is: "the rest of axis 0 behind this `slice`".
    pub what: String,
    /// Whether it is negative where an axis is empty that has to give results.
    pub filled: bool,
    /// The first line of the node.
    pub place: Option<Place>,
}

impl Requirement {
    /// The error of a call for which the size is `value`: `symbol`, or `empty-axis` as the interpreter says.
    pub fn broken(&self, value: i64) -> Diagnostic {
        let (what, size) = (&self.what, &self.size);
        let d = if self.filled {
            let results = match value.unsigned_abs() {
                1 => "the result".into(),
                n => format!("{n} results"),
            };
            Diagnostic::new("empty-axis", format!("{what} is empty, so {results} would have nothing to choose from"))
        } else {
            Diagnostic::new("symbol", format!("{what} is `{size}`, which must not be negative, found {value}"))
        };
        self.place.iter().fold(d, |d, p| d.at(p.clone(), "here"))
    }
}

/// The requirements of the live nodes of `f` that do not follow from the ranges of its symbols, each once.
///
/// Errors: `dim-overflow`.
pub fn requirements(f: &Function) -> Result<Vec<Requirement>, Diagnostic> {
    let mut found: Vec<Requirement> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let live = f.live();
    for (node, _) in f.nodes.iter().zip(live).filter(|(_, live)| *live) {
        // An axis of which nothing is said must not be empty.
        let mut add = |size: Option<Dim>, what: &str, axis: usize| -> Result<(), Diagnostic> {
            let size = size.ok_or_else(|| Diagnostic::new("dim-overflow", "a size does not fit in 64 bits"))?;
            if size.bounds(&f.symbols).0 >= 0 || !seen.insert(size.clone()) {
                return Ok(());
            }
            let filled = what.is_empty();
            let gap = if filled { "" } else { " " };
            let what = format!("{what}{gap}axis {axis} in this `{}`", super::shown_name(&node.op));
            found.push(Requirement { size, what, filled, place: node.places.first().cloned() });
            Ok(())
        };
        let operand = |i: usize| node.args.get(i).map(|&a| f.ty(a));
        let size = |ty: Option<&Type>, axis: usize| ty.and_then(|t| t.shape.get(axis).cloned());
        match &node.op {
            GraphOp::Slice { start, limit, .. } => {
                for (axis, (s, l)) in start.iter().zip(limit).enumerate() {
                    add(Some(s.clone()), "the start on", axis)?;
                    add(l.checked_sub(s), "the length along", axis)?;
                    add(size(operand(0), axis).and_then(|n| n.checked_sub(l)), "the rest behind the end on", axis)?;
                }
            }
            GraphOp::UpdateSlice { start } => {
                for (axis, s) in start.iter().enumerate() {
                    let end = size(operand(1), axis).and_then(|n| n.checked_add(s));
                    let rest = size(operand(0), axis).and_then(|n| n.checked_sub(&end?));
                    add(Some(s.clone()), "the start on", axis)?;
                    add(rest, "the rest behind the end on", axis)?;
                }
            }
            GraphOp::Argmax { axis } | GraphOp::Argmin { axis } => {
                // Where the axis may be empty there must be no results.
                if size(operand(0), *axis).is_some_and(|n| n.bounds(&f.symbols).0 < 1) {
                    let elements = |ty: Option<&Type>| ty.and_then(Type::elements);
                    let more = elements(operand(0)).zip(elements(node.types.first()));
                    let more = more.and_then(|(all, results)| all.checked_sub(&results));
                    add(more, "", *axis)?;
                }
            }
            GraphOp::Pad { amounts } => {
                for (axis, (low, high)) in amounts.iter().enumerate() {
                    add(Some(low.clone()), "the amount before", axis)?;
                    add(Some(high.clone()), "the amount after", axis)?;
                }
            }
            GraphOp::Parameter { .. }
            | GraphOp::Constant { .. }
            | GraphOp::Iota { .. }
            | GraphOp::Size { .. }
            | GraphOp::Map { .. }
            | GraphOp::Reduce { .. }
            | GraphOp::Cumsum { .. }
            | GraphOp::Dot { .. }
            | GraphOp::Broadcast { .. }
            | GraphOp::Reshape { .. }
            | GraphOp::Transpose { .. }
            | GraphOp::Concat { .. }
            | GraphOp::Flip { .. }
            | GraphOp::Take { .. }
            | GraphOp::TakeAlong { .. }
            | GraphOp::ScatterAdd { .. }
            | GraphOp::Call { .. }
            | GraphOp::Cond { .. }
            | GraphOp::Scan { .. } => {}
        }
        for ty in &node.types {
            for (axis, d) in ty.shape.iter().enumerate().filter(|(_, d)| d.as_const().is_none()) {
                add(Some(d.clone()), "the size of", axis)?;
            }
        }
    }
    Ok(found)
}
