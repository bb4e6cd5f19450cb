//! Batches made on a thread of their own, while the step before runs.

use super::data::Batches;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;

/// Batches that are made ahead.
const AHEAD: usize = 2;

/// Batches of steps, in order. The thread ends with it.
pub(super) struct Prefetch(Receiver<Result<[Array; 2], Diagnostic>>);

impl Prefetch {
    /// Begins with the batches of `steps`, in `shape`.
    pub(super) fn start(batches: Arc<Batches>, shape: Vec<usize>, steps: Range<u64>) -> Prefetch {
        let (give, take) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            for step in steps {
                // Nobody takes them any more.
                if give.send(batches.batch(step, &shape)).is_err() {
                    break;
                }
            }
        });
        Prefetch(take)
    }

    /// The next one. Errors: those of making it.
    pub(super) fn next(&self) -> Result<[Array; 2], Diagnostic> {
        self.0.recv().map_err(|_| Diagnostic::bug("the thread of the data ended early"))?
    }
}
