//! Selects by position: what the import makes of `concat` and `pad` goes back to them.
//!
//! before: `(select (lt (iota j) 3) x y)`, of which x is there up to 3 and y from 3 on      after: `concat x, y`

use super::build::{Group, Tensor, broken, isolated, target};
use super::terms::{Cut, Export};
use crate::egraph::lang::{AxisId, ENode, Head};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::NodeId;
use tilewright_ir::op::{GraphOp, ScalarOp};

/// Positions of an axis that a condition holds for.
type Range = (AxisId, i64, i64);

impl Export<'_> {
    fn inside<'c>(&self, cut: &'c Cut<'_>, class: Id) -> Option<&'c ENode> {
        cut.nodes.get(&self.graph.find(class))
    }

    fn whole(&self, class: Id) -> Option<i64> {
        let number = self.graph[class].data.number?;
        (!number.dtype.is_float()).then_some(number.bits as i64)
    }

    /// `iota` of an axis of known size, that size.
    fn position(&self, cut: &Cut<'_>, class: Id) -> Option<(AxisId, i64)> {
        let node = self.inside(cut, class).filter(|n| n.head == Head::Iota)?;
        let axis = self.graph[*node.children.first()?].data.axis()?;
        Some((axis, self.build.size(axis).ok()?.as_const()?))
    }

    /// Where a condition on the position along one axis holds.
    fn range(&self, cut: &Cut<'_>, class: Id) -> Option<Range> {
        let node = self.inside(cut, class)?;
        let &[a, b] = node.children.as_slice() else { return None };
        match &node.head {
            Head::Scalar(ScalarOp::Lt {}) => {
                let (axis, size) = self.position(cut, a)?;
                Some((axis, 0, self.whole(b)?.clamp(0, size)))
            }
            Head::Scalar(ScalarOp::Le {}) => {
                let (axis, size) = self.position(cut, b)?;
                Some((axis, self.whole(a)?.clamp(0, size), size))
            }
            Head::Scalar(ScalarOp::And {}) => {
                let ((x, l, h), (y, m, i)) = (self.range(cut, a)?, self.range(cut, b)?);
                (x == y && l.max(m) <= h.min(i)).then(|| (x, l.max(m), h.min(i)))
            }
            _other => None,
        }
    }

    fn made_by(&self, class: Id, op: impl Fn(&GraphOp) -> bool) -> bool {
        self.origins.get(&class).is_some_and(|all| all.iter().any(|n: &NodeId| op(&self.source.nodes[n.index()].op)))
    }

    /// A select that is a concat or a pad.
    pub(super) fn select(&mut self, cut: &mut Cut<'_>, class: Id, node: &ENode) -> Result<Option<Tensor>, Diagnostic> {
        let &[condition, yes, no] = node.children.as_slice() else { return Ok(None) };
        let Some((axis, low, high)) = self.range(cut, condition) else { return Ok(None) };
        match self.pad(cut, (axis, low, high), yes, no)? {
            Some(padded) => Ok(Some(padded)),
            None if low == 0 => self.concat(cut, class, axis),
            None => Ok(None),
        }
    }

    /// `yes` is there exactly where the condition holds, `no` is a scalar.
    fn pad(&mut self, cut: &mut Cut<'_>, range: Range, yes: Id, no: Id) -> Result<Option<Tensor>, Diagnostic> {
        let (axis, low, high) = range;
        let fill = self.class(cut, no)?;
        if !fill.dims.is_empty() {
            return Ok(None);
        }
        let x = self.class(cut, yes)?;
        let Some(&(from, to)) = x.windows.get(&axis) else { return Ok(None) };
        if from > low || to < high {
            return Ok(None);
        }
        let size = self.build.size(axis)?.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
        let mut x = self.build.window(&x, axis, low, high)?;
        let dim = x.dims.iter().position(|g| g.contains(&axis)).ok_or_else(|| broken("a part of an absent axis"))?;
        x.value = self.build.pad_with(x.value, fill.value, dim, low, size - high)?;
        x.windows.remove(&axis);
        Ok(Some(x))
    }

    /// The parts of a chain of selects by `position < start`, with where they begin and end.
    fn chain(&self, cut: &Cut<'_>, class: Id, axis: AxisId, end: i64, parts: &mut Vec<(Id, i64, i64)>) {
        let class = self.graph.find(class);
        if let Some(node) = self.inside(cut, class)
            && let (Head::Scalar(ScalarOp::Select {}), &[condition, yes, no]) = (&node.head, node.children.as_slice())
            && let Some((a, 0, start)) = self.range(cut, condition)
            && a == axis
            && start <= end
        {
            self.chain(cut, yes, axis, start, parts);
            parts.push((no, start, end));
        } else {
            parts.push((class, 0, end));
        }
    }

    fn concat(&mut self, cut: &mut Cut<'_>, class: Id, axis: AxisId) -> Result<Option<Tensor>, Diagnostic> {
        let size = self.build.size(axis)?.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
        let mut chain = Vec::new();
        self.chain(cut, class, axis, size, &mut chain);
        let mut parts = Vec::new();
        for (part, low, high) in chain.into_iter().filter(|p| p.1 < p.2) {
            parts.push((self.class(cut, part)?, low, high));
        }
        let joined = self.made_by(class, |op| matches!(op, GraphOp::Concat { .. }));
        if !joined && !parts.iter().any(|p| p.0.windows.contains_key(&axis)) {
            return Ok(None);
        }
        for (x, low, high) in &mut parts {
            for other in x.windows.keys().copied().filter(|a| *a != axis).collect::<Vec<_>>() {
                let size = self.build.size(other)?.as_const().ok_or_else(|| broken("a part of a symbolic size"))?;
                *x = self.build.window(x, other, 0, size)?;
            }
            if x.atoms().contains(&axis) {
                *x = self.build.window(x, axis, *low, *high)?;
            } else {
                x.windows.insert(axis, (*low, *high));
            }
        }
        let tensors: Vec<Tensor> = parts.into_iter().map(|p| p.0).collect();
        let hints = self.hints.get(&class).cloned().unwrap_or_default();
        if let Some(done) = self.blocks(&tensors, axis, &hints)? {
            return Ok(Some(done));
        }
        let mut named: Vec<Vec<Group>> = tensors.iter().map(|x| x.dims.clone()).collect();
        named.push(vec![vec![axis]]);
        let dims = target(&named, &hints);
        let dims = isolated(&dims, &BTreeSet::from([axis]));
        let along = dims.iter().position(|g| *g == [axis]).ok_or_else(|| broken("joins along an absent axis"))?;
        let mut values = Vec::new();
        for x in &tensors {
            values.push(self.build.convert(x, &dims)?.value);
        }
        let value = match values.as_slice() {
            [one] => *one,
            _several => self.build.push(GraphOp::Concat { axis: along }, &values)?,
        };
        Ok(Some(Tensor { value, dims, windows: BTreeMap::new() }))
    }

    /// Parts of one position each, along the major atom of a dim: they are joined along the whole dim.
    fn blocks(&mut self, parts: &[Tensor], axis: AxisId, hints: &[Vec<Group>]) -> Result<Option<Tensor>, Diagnostic> {
        let single = |x: &Tensor| x.windows.get(&axis).is_some_and(|(low, high)| high - low == 1);
        let size = self.build.size(axis)?.as_const();
        if parts.iter().any(|x| x.atoms().contains(&axis) || !single(x)) || size != i64::try_from(parts.len()).ok() {
            return Ok(None);
        }
        let mut all: BTreeSet<AxisId> = parts.iter().flat_map(Tensor::atoms).collect();
        all.insert(axis);
        let has = |h: &&Vec<Group>| {
            let covers = h.iter().flatten().copied().collect::<BTreeSet<_>>() == all;
            covers && h.iter().any(|g| g.len() > 1 && g.first() == Some(&axis))
        };
        let Some(hint) = hints.iter().find(has) else { return Ok(None) };
        let without: Vec<Group> =
            hint.iter().map(|g| g.iter().copied().filter(|a| *a != axis).collect::<Group>()).collect();
        let along = hint.iter().position(|g| g.first() == Some(&axis)).unwrap_or_default();
        let mut values = Vec::new();
        for x in parts {
            let x = Tensor { windows: BTreeMap::new(), ..x.clone() };
            values.push(self.build.convert(&x, &without)?.value);
        }
        let value = self.build.push(GraphOp::Concat { axis: along }, &values)?;
        Ok(Some(Tensor { value, dims: hint.clone(), windows: BTreeMap::new() }))
    }
}
