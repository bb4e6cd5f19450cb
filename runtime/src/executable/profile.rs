//! Where the time goes: launches and packings by program and name, counted when asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A program and what it launches or packs.
pub type Name = (Arc<str>, Arc<str>);

/// Time spent by kernel.
#[derive(Default)]
pub struct Profile {
    steps: Mutex<BTreeMap<Name, (u64, Duration)>>,
}

impl Profile {
    /// Adds one run of `name` of a program that began at `start`.
    pub(super) fn add(&self, program: &Arc<str>, name: &Arc<str>, start: Instant) {
        let time = start.elapsed();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = steps.entry((program.clone(), name.clone())).or_default();
        *entry = (entry.0 + 1, entry.1 + time);
    }

    /// Program and name, how often, total time; the longest first.
    pub fn rows(&self) -> Vec<(Name, u64, Duration)> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> = steps.iter().map(|(name, (n, time))| (name.clone(), *n, *time)).collect();
        rows.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
        rows
    }

    /// Forgets everything so far.
    pub fn clear(&self) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let all: Duration = rows.iter().map(|r| r.2).sum();
        for ((program, name), count, time) in rows {
            let part = time.as_secs_f64() / all.as_secs_f64().max(1e-12) * 100.0;
            writeln!(f, "{:>10.3} ms {part:>5.1} %  {count:>6} x  {program}.{name}", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}
