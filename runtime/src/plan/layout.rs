//! The numbers of a plan for the sizes of a call: offsets and size of the arena, computed once per sizes.

use super::{ALIGN, Content, Plan};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::{Bindings, Dim, Symbol};

/// Layouts that are kept before all are forgotten: a decoder has new sizes with every token.
const KEPT: usize = 1024;

/// The arena of a program for the sizes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// First byte of each slot, a multiple of [`ALIGN`].
    pub offsets: Vec<usize>,
    /// Bytes of the arena; every slot ends before.
    pub peak: usize,
}

/// A program and the values of its symbols in their order.
type Key = (usize, Vec<i64>);

/// Layouts by program and sizes.
#[derive(Debug, Default)]
pub struct Layouts {
    known: BTreeMap<Key, Arc<Layout>>,
}

impl Layouts {
    /// The layout of program `index` under `bindings`. Errors: `symbol`, `dim-overflow`.
    pub fn get(&mut self, plans: &[Plan], index: usize, bindings: &Bindings) -> Result<Arc<Layout>, Diagnostic> {
        if self.known.len() > KEPT {
            self.known.clear();
        }
        let wanted = key(plans, index, bindings)?;
        // Callees first, without recursion: calls may be nested as deeply as there are functions.
        let mut stack = vec![(wanted.clone(), bindings.clone())];
        while let Some((top, bindings)) = stack.last().cloned() {
            let mut missing = Vec::new();
            if !self.known.contains_key(&top)
                && let Some(layout) = self.evaluate(plans, top.0, &bindings, &mut missing)?
            {
                self.known.insert(top, Arc::new(layout));
            }
            if missing.is_empty() {
                stack.pop();
            }
            stack.extend(missing);
        }
        self.known.get(&wanted).cloned().ok_or_else(|| Diagnostic::bug("a program without a layout"))
    }

    /// `None` if layouts of callees are `missing`.
    fn evaluate(
        &self,
        plans: &[Plan],
        index: usize,
        bindings: &Bindings,
        missing: &mut Vec<(Key, Bindings)>,
    ) -> Result<Option<Layout>, Diagnostic> {
        let plan = plan(plans, index)?;
        let sizes =
            plan.sizes.iter().map(|ty| crate::executable::bytes_of(ty, bindings)).collect::<Result<Vec<_>, _>>()?;
        let mut bytes = Vec::with_capacity(plan.slots.len());
        for slot in &plan.slots {
            let exact = match &slot.content {
                Content::Buffers(types) => types.iter().map(|&t| sizes[t]).max().unwrap_or(0),
                Content::Frame(callees) => {
                    let mut largest = 0;
                    for (callee, symbols) in callees {
                        let inner = inner_bindings(symbols.iter(), bindings)?;
                        let key = key(plans, *callee, &inner)?;
                        match self.known.get(&key) {
                            Some(layout) => largest = layout.peak.max(largest),
                            None => missing.push((key, inner)),
                        }
                    }
                    largest
                }
            };
            bytes.push(exact.checked_next_multiple_of(ALIGN).ok_or_else(overflow)?);
        }
        if !missing.is_empty() {
            missing.sort();
            missing.dedup();
            return Ok(None);
        }
        let mut layout = Layout { offsets: Vec::with_capacity(bytes.len()), peak: 0 };
        for (slot, &size) in plan.slots.iter().zip(&bytes) {
            let mut offset = 0;
            for &low in &slot.above {
                let start = layout.offsets.get(low).ok_or_else(|| Diagnostic::bug("slots that are not in order"))?;
                offset = offset.max(start + bytes[low]);
            }
            layout.offsets.push(offset);
            layout.peak = layout.peak.max(offset.checked_add(size).ok_or_else(overflow)?);
        }
        Ok(Some(layout))
    }
}

fn plan(plans: &[Plan], index: usize) -> Result<&Plan, Diagnostic> {
    plans.get(index).ok_or_else(|| Diagnostic::bug("a program without a plan"))
}

fn key(plans: &[Plan], index: usize, bindings: &Bindings) -> Result<Key, Diagnostic> {
    let value = |name: &Symbol| {
        let found = bindings.get(name).copied();
        found.ok_or_else(|| Diagnostic::new("symbol", format!("no value for symbol `{name}`")))
    };
    let values = plan(plans, index)?.symbols.iter().map(|s| value(&s.name)).collect::<Result<_, _>>()?;
    Ok((index, values))
}

/// The bindings of a callee: ours, and its own symbols in ours. Errors: `symbol`.
pub(crate) fn inner_bindings<'s>(
    symbols: impl Iterator<Item = (&'s Symbol, &'s Dim)>,
    bindings: &Bindings,
) -> Result<Bindings, Diagnostic> {
    let mut inner = bindings.clone();
    for (symbol, dim) in symbols {
        inner.insert(symbol.clone(), dim.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?);
    }
    Ok(inner)
}

fn overflow() -> Diagnostic {
    Diagnostic::new("dim-overflow", "the memory of this call does not fit in 64 bits")
}
