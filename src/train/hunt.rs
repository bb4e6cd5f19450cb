//! The hunt for the node of a step that made a NaN or an infinity: what the step began with is kept, and the step runs again in the
//! interpreter.

use super::metrics::Metrics;
use crate::compile::{MAX_WORK_INTERPRETED, Work};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Module, Param};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::{Bindings, DType, Type};

/// What the step that runs now began with, as its program takes it.
#[derive(Default)]
pub(super) struct Hunt {
    batch: Vec<Array>,
    state: Vec<Array>,
}

impl Hunt {
    /// Copies the state, whose memory the step writes to. Errors: `array-size`, for a bug.
    pub(super) fn begin(&mut self, batch: &[Array], state: &[Array]) -> Result<(), Diagnostic> {
        let copy = |a: &Array| Array::new(a.dtype(), a.shape(), Bytes::new(a.bytes().to_vec()));
        self.state = state.iter().map(copy).collect::<Result<_, _>>()?;
        self.batch = batch.to_vec();
        Ok(())
    }

    /// Looks at what the step made: the norm, and each tensor of the new state that was finite before. What a scaled loss skips is no
    /// fault, so there the norm does not count.
    ///
    /// Errors: `diverged`.
    pub(super) fn check(&self, m: &Metrics, names: &[(String, Type)], after: &[Array]) -> Result<(), Diagnostic> {
        let step = m.step;
        if m.loss_scale.is_none() && !m.norm.is_finite() {
            let message = format!("the norm of the gradients of step {step} is {}", m.norm);
            return Err(Diagnostic::new("diverged", message));
        }
        let mut all = names.iter().zip(self.state.iter().zip(after));
        match all.find(|(_, (before, after))| finite(before) && !finite(after)) {
            Some(((name, _), _)) => {
                let message = format!("`{name}` has a NaN or an infinity after step {step}");
                Err(Diagnostic::new("diverged", message))
            }
            None => Ok(()),
        }
    }

    /// What made the step end a run with `ended`: the error `not-finite` of the first node that made a NaN or an infinity; or `ended`
    /// with the reason why none is named. `module` is the step, which takes `frozen` last.
    pub(super) fn find(&self, ended: Diagnostic, module: &Module, frozen: &[Array]) -> Diagnostic {
        let inputs = [&self.batch, &self.state, frozen].concat();
        let hunted = || {
            let entry = module.entry()?;
            let work = Work::of(module, &entry.name, &Bindings::new())?;
            interp::fits(&work)?;
            work.check(MAX_WORK_INTERPRETED)?;
            interp::hunt(module, &entry.name, &inputs, &Bindings::new(), Mode::Strict)
        };
        let found = match hunted() {
            Ok(_) => ended.note("in the interpreter no node of this step makes a NaN or an infinity"),
            Err(found) if found.code == "not-finite" => {
                let found = found.note(format!("the run ends as {}", ended.message));
                ended.notes.into_iter().fold(found, Diagnostic::note)
            }
            Err(cannot) => ended.note(format!("the hunt cannot run this step: {}", cannot.message)),
        };
        let params = module.entry().map_or(&[][..], |f| &f.params);
        let bad: Vec<_> = params.iter().zip(&inputs).filter(|(_, a)| !finite(a)).collect();
        let note = |d: Diagnostic, (p, _): &(&Param, &Array)| {
            d.note(format!("`%{}` has a NaN or an infinity before the step", p.name))
        };
        let named = bad.iter().take(NAMED).fold(found, note);
        match bad.len().saturating_sub(NAMED) {
            0 => named,
            more => named.note(format!("{more} more have one, too")),
        }
    }
}

/// Looks at the state before a run does anything.
///
/// Errors: `not-finite` for the first tensor that has a NaN or an infinity, with where.
pub(super) fn began(step: u64, names: &[(String, Type)], state: &[Array]) -> Result<(), Diagnostic> {
    let mut bad = names.iter().zip(state).filter(|(_, a)| !finite(a));
    let Some(((name, _), first)) = bad.next() else { return Ok(()) };
    let all = first.to_f64().unwrap_or_default();
    let count = all.iter().filter(|x| !x.is_finite()).count();
    let at = all.iter().position(|x| !x.is_finite()).unwrap_or_default();
    let x = all.get(at).copied().unwrap_or(f64::NAN);
    let mut place = at;
    let mut index: Vec<String> = Vec::new();
    for size in first.shape().iter().rev() {
        index.insert(0, (place % size.max(&1)).to_string());
        place /= size.max(&1);
    }
    let from = if step == 0 {
        "the weights that the run begins with".into()
    } else {
        format!("the checkpoint after step {step}")
    };
    let message = format!(
        "`{name}` of {from}: expected finite numbers, found {x} at [{}], and {count} of {} in all that are none",
        index.join(", "),
        all.len()
    );
    let error = Diagnostic::new("not-finite", message);
    Err(match bad.count() {
        0 => error,
        more => error.note(format!("{more} other tensors have such numbers, too")),
    })
}

/// Most tensors that are named in notes.
const NAMED: usize = 4;

/// Whether all elements are numbers.
fn finite(a: &Array) -> bool {
    if a.dtype() == DType::F32 {
        let (words, _none) = a.bytes().as_chunks::<4>();
        return words.iter().all(|w| f32::from_le_bytes(*w).is_finite());
    }
    !a.dtype().is_float() || a.to_f64().is_none_or(|all| all.iter().all(|x| x.is_finite()))
}
