//! Whether grid points write apart from each other, and whether an output is written completely: mixed radix.

use super::context::Context;
use super::linear::{Form, Unknown};
use std::collections::BTreeSet;

/// One dim of a box: elements `start .. start + size` of `extent`.
#[derive(Clone, PartialEq)]
pub(super) struct Written {
    pub start: Form,
    pub size: Form,
    pub extent: Form,
    /// Without gaps between neighbouring elements.
    pub dense: bool,
}

/// `order` coordinates with the linear index that they come from.
pub(super) struct Coordinates {
    pub names: Vec<Unknown>,
    pub source: Form,
    /// Number of coordinates in all.
    pub total: Form,
}

/// A term of an index: the variable, and how far apart neighbouring values of it are.
struct Digit {
    variable: Unknown,
    stride: Form,
    extent: Option<Form>,
}

impl Context {
    /// The digits of `start`; none if something in it is neither a variable with an extent nor the same everywhere.
    fn digits(&mut self, start: &Form) -> Option<Vec<Digit>> {
        let mut digits = Vec::new();
        for (u, c) in &start.terms {
            let info = self.unknowns.get(*u)?.clone();
            if info.uniform {
                continue;
            }
            let parts = if info.factors.is_empty() { vec![*u] } else { info.factors };
            let (moving, fixed): (Vec<_>, Vec<_>) = parts.into_iter().partition(|f| !self.unknowns[*f].uniform);
            let [variable] = moving.as_slice() else { return None };
            let mut stride = Form::number(c.checked_abs()?);
            for f in fixed {
                stride = self.product(&stride, &Form::unknown(f))?;
            }
            let info = &self.unknowns[*variable];
            if info.extent.is_none() && !info.parallel && !info.counted {
                return None;
            }
            digits.push(Digit { variable: *variable, stride, extent: info.extent.clone() });
        }
        // constants first, by size: a smaller stride must come first
        digits.sort_by_key(|d| (d.stride.as_number().is_none(), d.stride.as_number()));
        Some(digits)
    }

    /// The parallel variables that one dim tells apart.
    fn separated(&mut self, start: &Form, size: &Form) -> Option<Vec<Unknown>> {
        let digits = self.digits(start)?;
        let mut span = size.clone();
        let (parallel, looped): (Vec<Digit>, Vec<Digit>) =
            digits.into_iter().partition(|d| self.unknowns[d.variable].parallel || d.extent.is_none());
        for d in &looped {
            let steps = d.extent.as_ref()?.offset(-1)?;
            span = span.plus(&self.product(&d.stride, &steps)?, 1)?;
        }
        let mut found = Vec::new();
        for (i, d) in parallel.iter().enumerate() {
            if !self.prove(&d.stride.plus(&span, -1)?) {
                return None;
            }
            found.push(d.variable);
            match &d.extent {
                Some(n) => span = span.plus(&self.product(&d.stride, &n.offset(-1)?)?, 1)?,
                None if i + 1 == parallel.len() => {}
                None => return None,
            }
        }
        Some(found)
    }

    /// Parallel variables for which two values may write the same element.
    pub(super) fn races(&mut self, dims: &[Written], parallel: &[Unknown], orders: &[Coordinates]) -> Vec<Unknown> {
        let mut apart: BTreeSet<Unknown> = BTreeSet::new();
        for d in dims {
            apart.extend(self.separated(&d.start, &d.size).unwrap_or_default());
        }
        let mut changed = true;
        while changed {
            changed = false;
            for o in orders {
                if o.names.iter().all(|n| apart.contains(n)) {
                    for u in self.separated(&o.source, &Form::number(1)).unwrap_or_default() {
                        changed |= apart.insert(u);
                    }
                }
            }
        }
        let mut missing = Vec::new();
        for u in parallel {
            let single = match self.unknowns[*u].extent.clone() {
                Some(n) => Form::number(1).plus(&n, -1).is_some_and(|f| self.prove(&f)),
                None => false,
            };
            if !apart.contains(u) && !single {
                missing.push(*u);
            }
        }
        missing
    }

    /// Whether boxes with these `dims` are disjoint for any two different values of `variables`, loops among them.
    pub(super) fn tells_apart(&mut self, dims: &[Written], variables: &[Unknown]) -> bool {
        let before: Vec<bool> =
            variables.iter().map(|u| std::mem::replace(&mut self.unknowns[*u].parallel, true)).collect();
        let missing = self.races(dims, variables, &[]);
        variables.iter().zip(before).for_each(|(u, was)| self.unknowns[*u].parallel = was);
        missing.is_empty()
    }

    /// Whether the boxes of all values of all variables fill the dim.
    pub(super) fn fills(&mut self, d: &Written) -> Option<bool> {
        let uniform: Vec<Unknown> = d.start.terms.keys().copied().filter(|u| self.unknowns[*u].uniform).collect();
        if d.start.constant != 0 || !uniform.is_empty() || !d.dense {
            return Some(false);
        }
        if d.start.terms.values().any(|c| *c < 0) {
            return Some(false);
        }
        let mut span = d.size.clone();
        for digit in self.digits(&d.start)? {
            // A variable of one value moves nothing.
            if digit.extent.as_ref().and_then(Form::as_number) == Some(1) {
                continue;
            }
            // what the loop's own bound cuts off must lie past the end
            if let Some((value, limit)) = self.unknowns[digit.variable].clip.clone()
                && let rest = d.start.plus(&value, -1)?
                && (rest.terms.contains_key(&digit.variable)
                    || !self.prove(&limit.plus(&rest, 1)?.plus(&d.extent, -1)?))
            {
                return Some(false);
            }
            // neighbours may overlap, but must not leave a gap
            if !self.prove(&span.plus(&digit.stride, -1)?) {
                return Some(false);
            }
            span = self.product(&digit.stride, &digit.extent?.offset(-1)?)?.plus(&span, 1)?;
        }
        let goal = span.plus(&d.extent, -1)?;
        Some(self.prove(&goal))
    }
}
