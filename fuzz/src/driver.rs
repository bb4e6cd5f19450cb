//! The loop: choose, mutate, run, keep what is new.

use crate::memory;
use crate::minimise::minimise;
use crate::mutate::{Dictionary, mutate};
use crate::random::Random;
use crate::targets::{Outcome, Target};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

/// What one input may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The least time of three runs, since others may be using the machine.
    pub time: Duration,
    /// Bytes alive beyond those before the input.
    pub memory: usize,
}

/// One second in release builds, ten in debug builds; 256 MiB.
impl Default for Limits {
    fn default() -> Limits {
        Limits { time: Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 }), memory: 256 << 20 }
    }
}

/// How long, and how.
pub struct Settings {
    /// Inputs at most.
    pub runs: u64,
    /// Where randomness starts.
    pub seed: u64,
    /// Time at most.
    pub time: Option<Duration>,
    /// What one input may cost.
    pub limits: Limits,
    /// Gets the number and the bytes of every input before it runs, for whoever watches this process.
    pub journal: Option<File>,
    /// Distinct failures after which to stop.
    pub failures: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { runs: 10_000, seed: 1, time: None, limits: Limits::default(), journal: None, failures: 10 }
    }
}

/// An input that must not do what it did.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// The shortest input found that does it.
    pub input: Vec<u8>,
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs tried.
    pub runs: u64,
    /// Of these, accepted by the reader.
    pub accepted: u64,
    /// Different outcomes.
    pub outcomes: usize,
    /// The longest time that an input took, and the most memory.
    pub most: (Duration, usize),
    /// What failed, once each.
    pub failures: Vec<Failure>,
}

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of watched code are kept instead of printed.
fn watch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                PANIC.with(|p| *p.borrow_mut() = info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}

/// What an input did, its time and its memory.
pub struct Measured {
    /// The target's answer, or what went wrong.
    pub outcome: Result<Outcome, String>,
    /// Time.
    pub time: Duration,
    /// Bytes.
    pub memory: usize,
}

fn once(target: &dyn Target, input: &[u8]) -> Measured {
    watch_panics();
    let start = Instant::now();
    WATCHED.set(true);
    let (result, memory) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| target.run(input))));
    WATCHED.set(false);
    let time = start.elapsed();
    let outcome = result.unwrap_or_else(|_| Err(PANIC.with(|p| p.borrow().clone())));
    Measured { outcome, time, memory }
}

/// Runs one input. The outcome is an error for a panic, a broken property, and a cost beyond the limits.
pub fn run(target: &dyn Target, input: &[u8], limits: Limits) -> Measured {
    let mut found = once(target, input);
    for _ in 0..2 {
        if found.time > limits.time && found.outcome.is_ok() {
            found.time = found.time.min(once(target, input).time);
        }
    }
    if found.outcome.is_ok() && found.time > limits.time {
        found.outcome = Err(format!("too slow: {:?}, allowed are {:?}", found.time, limits.time));
    } else if found.outcome.is_ok() && found.memory > limits.memory {
        found.outcome = Err(format!("too much memory: {} bytes, allowed are {}", found.memory, limits.memory));
    }
    found
}

/// What two messages that differ in names and numbers have in common.
pub fn skeleton(message: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for c in message.chars().take(200) {
        match c {
            '`' => quoted = !quoted,
            _ if quoted => {}
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

/// Inputs beyond the seeds, at most.
const MOST_GROWN: usize = 4000;

/// Mutates and runs until `settings` say to stop.
///
/// Errors: the journal cannot be written.
pub fn fuzz(target: &dyn Target, settings: &mut Settings) -> std::io::Result<Report> {
    let start = Instant::now();
    let seeds = target.seeds();
    let dictionary = Dictionary::new(if target.text() { &seeds } else { &[] }, target.words());
    let mut random = Random(settings.seed);
    let (mut known, mut failed) = (BTreeSet::new(), BTreeSet::new());
    let mut grown: Vec<Vec<u8>> = Vec::new();
    let mut report = Report::default();
    while report.runs < settings.runs && report.failures.len() < settings.failures {
        if settings.time.is_some_and(|t| start.elapsed() > t) {
            break;
        }
        let pick = |random: &mut Random| -> Vec<u8> {
            let from = if grown.is_empty() || random.below(3) == 0 { &seeds } else { &grown };
            from.get(random.below(from.len())).cloned().unwrap_or_default()
        };
        let mut input = match seeds.get(report.runs as usize) {
            // First the seeds as they are.
            Some(seed) => seed.clone(),
            None => {
                let (mut input, other) = (pick(&mut random), pick(&mut random));
                mutate(&mut input, &other, target.text(), &dictionary, &mut random);
                input
            }
        };
        target.repair(&mut input, &mut random);
        if let Some(journal) = &mut settings.journal {
            journal.seek(SeekFrom::Start(0))?;
            let head = [report.runs.to_le_bytes(), (input.len() as u64).to_le_bytes()].concat();
            journal.write_all(&[&head[..], &input].concat())?;
        }
        let found = run(target, &input, settings.limits);
        report.runs += 1;
        report.most = (report.most.0.max(found.time), report.most.1.max(found.memory));
        match found.outcome {
            Ok(outcome) => {
                report.accepted += u64::from(outcome.accepted);
                if known.insert(outcome.signature) {
                    if grown.len() < MOST_GROWN {
                        grown.push(input);
                    } else {
                        grown[random.below(MOST_GROWN)] = input;
                    }
                }
            }
            Err(reason) => {
                if failed.insert(skeleton(&reason)) {
                    let input = minimise(target, input, &reason, settings.limits);
                    report.failures.push(Failure { reason, input });
                }
            }
        }
    }
    report.outcomes = known.len();
    Ok(report)
}
