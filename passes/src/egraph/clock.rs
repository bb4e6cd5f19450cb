//! The clock that egg reads beside its work.

use quanta::{Clock, with_clock};

/// Does `work` while egg's clock stands, as nothing depends on it: its first reading would find out how fast the counter of the
/// processor runs, which takes milliseconds, and on a busy machine 200.
pub(super) fn stopped<T>(work: impl FnOnce() -> T) -> T {
    let (clock, _) = Clock::mock();
    with_clock(&clock, work)
}
