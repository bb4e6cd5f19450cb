//! Snapshots: a stage of a compilation as text under a header of facts (FLOPs, bytes, launches, schedules, rules), and what
//! differs between two of them. The macro that pins them in tests is in the crate `tilewright-snapshot`.

mod diff;
mod facts;
mod files;
mod report;
mod take;

pub use diff::{Change, Diff, SectionDiff, diff};
pub(crate) use facts::{attribute, counted};
pub use files::{Outcome, Pair, compare};
pub use report::{json, text};
pub use take::{Settings, take};

use std::fmt;
use tilewright_ir::diag::{Diagnostic, Place};

/// Version of the header.
const VERSION: u32 = 1;
const MAGIC: &str = "// tilewright snapshot ";

/// What a section of the header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// How the snapshot was made.
    Settings,
    /// A function of the module.
    Function,
    /// A kernel, named `function.kernel`.
    Kernel,
}

/// Facts of one thing, each a key with a value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Section {
    /// What it is.
    pub kind: Kind,
    /// Its name; empty for settings.
    pub name: String,
    /// Keys and values, in the order in which they are shown.
    pub facts: Vec<(String, String)>,
}

impl Section {
    /// The value of a fact.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// A stage of a compilation: `parse(print(s)) == s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Settings first, then functions, then kernels.
    pub sections: Vec<Section>,
    /// The text of the stage.
    pub body: String,
}

/// The header as comments, an empty line, the text.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            match section.kind {
                Kind::Settings => writeln!(f, "{MAGIC}{VERSION}")?,
                Kind::Function => writeln!(f, "// function {}", section.name)?,
                Kind::Kernel => writeln!(f, "// kernel {}", section.name)?,
            }
            for (key, value) in &section.facts {
                writeln!(f, "//   {key}: {value}")?;
            }
        }
        write!(f, "\n{}", self.body)
    }
}

impl Snapshot {
    /// Parses the text of a snapshot, with insta's header above it or without; `file` names it in errors.
    ///
    /// Errors: `snapshot-format`, with the line.
    pub fn parse(file: &str, text: &str) -> Result<Snapshot, Diagnostic> {
        let wrong = |line: usize, expected: &str| {
            let at = format!("{file}:{}", line + 1);
            Diagnostic::new("snapshot-format", expected).at(Place::Named(at.into()), "")
        };
        let all: Vec<&str> = text.lines().collect();
        // insta writes its own header between two lines of `---`.
        let start = match all.first() {
            Some(&"---") => {
                2 + all[1..].iter().position(|l| *l == "---").ok_or_else(|| {
                    wrong(0, "expected the second `---` that ends the header of insta, found the end of the file")
                })?
            }
            _no_header => 0,
        };
        let first = all.get(start).and_then(|l| l.strip_prefix(MAGIC));
        match first.map(str::parse) {
            Some(Ok(VERSION)) => {}
            Some(_) => return Err(wrong(start, "expected version 1 of the snapshots, found another")),
            None => {
                let expected = "expected a snapshot of Tilewright, which starts with `// tilewright snapshot 1`";
                return Err(wrong(start, expected).note(
                    "`tilewright compile --snapshot` and, in tests, `assert_kernel_snapshot!` write such files",
                ));
            }
        }
        let mut sections = vec![Section { kind: Kind::Settings, name: String::new(), facts: Vec::new() }];
        let mut at = start + 1;
        while let Some(line) = all.get(at).and_then(|l| l.strip_prefix("//")) {
            let name = |word: &str| line.strip_prefix(word).map(str::to_string);
            if let Some(fact) = line.strip_prefix("   ") {
                let (key, value) =
                    fact.split_once(": ").ok_or_else(|| wrong(at, "expected a fact, `//   key: value`"))?;
                let facts = sections.last_mut().map(|s| &mut s.facts);
                facts.into_iter().for_each(|f| f.push((key.to_string(), value.to_string())));
            } else if let Some(name) = name(" function ") {
                sections.push(Section { kind: Kind::Function, name, facts: Vec::new() });
            } else if let Some(name) = name(" kernel ") {
                sections.push(Section { kind: Kind::Kernel, name, facts: Vec::new() });
            } else {
                return Err(wrong(at, "expected `// function NAME`, `// kernel NAME` or `//   key: value`"));
            }
            at += 1;
        }
        if all.get(at).is_some_and(|l| !l.is_empty()) {
            return Err(wrong(at, "expected an empty line between the header and the text"));
        }
        let body: String = all.iter().skip(at + 1).flat_map(|l| [*l, "\n"]).collect();
        Ok(Snapshot { sections, body })
    }

    /// How it was made.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.sections.first()?.get(key)
    }

    fn of(&self, kind: Kind) -> Vec<&Section> {
        self.sections.iter().filter(|s| s.kind == kind).collect()
    }
}
