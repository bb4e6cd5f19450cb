//! One diagnostic for every crate: code, message, labelled places, notes.

mod render;

pub use render::render;

use std::fmt;
use std::sync::Arc;

/// Where something comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A line of the user's Rust program.
    Rust {
        /// Source file as the compiler names it.
        file: &'static str,
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
    },
    /// A range of bytes of a text that was parsed.
    Text {
        /// Name of the file, or of the kind of input.
        file: Arc<str>,
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
        /// Length in characters, at least 1.
        length: u32,
    },
    /// Something that has a name but no line: a tensor of a file, a node of a graph, a command line flag.
    Named(Arc<str>),
}

impl Place {
    /// The caller's Rust line; call it in a `#[track_caller]` function.
    #[track_caller]
    pub fn caller() -> Place {
        let at = std::panic::Location::caller();
        Place::Rust { file: at.file(), line: at.line(), column: at.column() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Rust { file, line, .. } => write!(f, "{file}:{line}"),
            Place::Text { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Place::Named(name) => f.write_str(name),
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The result is right, but something costs more than the user may expect.
    Warning,
    /// There is no result.
    Error,
}

/// What went wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// An error unless made by [`Diagnostic::warning`].
    pub severity: Severity,
    /// Stable short code such as `shape-mismatch`.
    pub code: &'static str,
    /// One lower-case sentence: expected, found.
    pub message: String,
    /// Places with what is to be said about each; the first is the primary one.
    pub labels: Vec<(Place, String)>,
    /// Further help.
    pub notes: Vec<String>,
    /// Lines of the source texts that labels point into, by `(file, line)`, so that carets can be drawn later.
    pub lines: Vec<(Arc<str>, u32, String)>,
}

impl Diagnostic {
    /// An error without places.
    pub fn new(code: &'static str, message: impl Into<String>) -> Diagnostic {
        let (severity, message) = (Severity::Error, message.into());
        Diagnostic { severity, code, message, labels: Vec::new(), notes: Vec::new(), lines: Vec::new() }
    }

    /// A warning without places.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::new(code, message) }
    }

    /// A broken invariant of ours, not a mistake of the user's.
    pub fn bug(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new("bug", message).note("this is a bug in tilewright, please report it")
    }

    /// Adds a labelled place.
    #[must_use]
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Diagnostic {
        self.labels.push((place, label.into()));
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Diagnostic {
        self.notes.push(note.into());
        self
    }
}

/// The full rendering: message, places with carets where the source line is known, notes.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(self))
    }
}

impl std::error::Error for Diagnostic {}
