//! What is shown while one waits: a line on standard error, where that is a terminal, from a second after the command has
//! begun. [`super::print`] and [`super::note`] take it away for as long as they write.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// How long nothing is shown.
const QUIET: Duration = Duration::from_secs(1);
/// How often the line is drawn: rarely enough for what is measured meanwhile.
const TICK: Duration = Duration::from_millis(250);

/// The line of this process; none where nobody waits.
static LINE: Mutex<Option<Line>> = Mutex::new(None);

struct Line {
    bar: ProgressBar,
    since: Instant,
    shown: bool,
}

/// Says `what` is done from now on.
pub(crate) fn stage(what: &str) {
    start(what, None);
}

/// Says that `what` is done in `length` steps.
pub(crate) fn steps(what: &str, length: usize) {
    start(what, Some(length));
}

/// One of the [`steps`] is done.
pub(crate) fn step() {
    with(|line| {
        line.iter().for_each(|l| l.bar.inc(1));
    });
}

/// Says that `done` of `length` steps are done, and `what` of them.
pub(crate) fn reached(what: &str, done: u64, length: u64) {
    with(|line| {
        line.iter().for_each(|l| {
            l.bar.set_length(length);
            l.bar.set_position(done);
            l.bar.set_message(what.to_string());
        });
    });
}

/// Nobody waits any more.
pub(crate) fn done() {
    with(|line| {
        line.take().iter().for_each(|l| l.bar.finish_and_clear());
    });
}

/// Runs `work`, which writes to the terminal, without the line.
pub(crate) fn hidden<T>(work: impl FnOnce() -> T) -> T {
    with(|line| match line {
        Some(line) => line.bar.suspend(work),
        None => work(),
    })
}

fn with<T>(work: impl FnOnce(&mut Option<Line>) -> T) -> T {
    work(&mut LINE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn start(what: &str, length: Option<usize>) {
    static DRAWN: Once = Once::new();
    if !std::io::stderr().is_terminal() {
        return;
    }
    with(|line| match line {
        Some(line) => line.stage(what, length, ProgressDrawTarget::stderr),
        None => *line = Some(Line::new(what, length, Instant::now())),
    });
    DRAWN.call_once(|| {
        // It ends with the process.
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(TICK);
                with(|line| line.iter_mut().for_each(|l| l.draw(l.since.elapsed(), ProgressDrawTarget::stderr)));
            }
        });
    });
}

impl Line {
    fn new(what: &str, length: Option<usize>, since: Instant) -> Line {
        Line { bar: bar(what, length, ProgressDrawTarget::hidden()), since, shown: false }
    }

    fn stage(&mut self, what: &str, length: Option<usize>, target: impl FnOnce() -> ProgressDrawTarget) {
        self.bar.finish_and_clear();
        self.bar = bar(what, length, if self.shown { target() } else { ProgressDrawTarget::hidden() });
    }

    /// Draws it, `elapsed` after the command began.
    fn draw(&mut self, elapsed: Duration, target: impl FnOnce() -> ProgressDrawTarget) {
        if elapsed >= QUIET && !self.shown {
            self.shown = true;
            self.bar.set_draw_target(target());
        }
        self.bar.tick();
    }
}

fn bar(what: &str, length: Option<usize>, target: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length.map(|n| n as u64), target).with_message(what.to_string());
    let template = if length.is_some() { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{spinner} {msg} {elapsed}" };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::InMemoryTerm;

    #[test]
    fn the_line_comes_after_a_second_and_says_what_is_done() {
        let term = InMemoryTerm::new(4, 60);
        let target = || ProgressDrawTarget::term_like(Box::new(term.clone()));
        let mut line = Line::new("compiling", None, Instant::now());
        line.draw(QUIET / 2, target);
        line.stage("running", None, target);
        line.draw(QUIET / 2, target);
        assert_eq!(term.contents(), "");
        line.draw(QUIET, target);
        assert!(term.contents().contains("running"), "{}", term.contents());
        line.stage("checking rules", Some(7), target);
        line.bar.inc(3);
        line.draw(QUIET, target);
        assert!(term.contents().contains("checking rules") && term.contents().contains("3/7"), "{}", term.contents());
        line.bar.suspend(|| assert_eq!(term.contents(), ""));
        line.bar.finish_and_clear();
        assert_eq!(term.contents(), "");
    }
}
