//! Differences of snapshots for people and for programs.

use super::{Change, Diff, Kind, Outcome, Pair, Section, SectionDiff};
use std::fmt::Write;

/// The report: what changed in words, the difference of the texts, and a line that counts. Empty where all are equal.
pub fn text(pairs: &[Pair]) -> String {
    let mut out = String::new();
    let mut equal = 0;
    for Pair { name, outcome } in pairs {
        // Writing to a string does not fail.
        let _ = match outcome {
            Outcome::Equal => {
                equal += 1;
                Ok(())
            }
            Outcome::Added => writeln!(out, "{name}: new\n"),
            Outcome::Removed => writeln!(out, "{name}: gone\n"),
            Outcome::Different(diff) => writeln!(out, "{name}\n{}", of_diff(diff)),
        };
    }
    if equal < pairs.len() {
        let differ = pairs.len() - equal;
        let (s, verb) = (if pairs.len() == 1 { "" } else { "s" }, if differ == 1 { "differs" } else { "differ" });
        let _ = writeln!(out, "{differ} of {} snapshot{s} {verb}", pairs.len());
    }
    out
}

fn of_diff(diff: &Diff) -> String {
    let mut out = String::new();
    diff.settings.iter().for_each(|c| change(&mut out, "  ", c));
    for section in &diff.sections {
        of_section(&mut out, section);
    }
    if diff.text.is_empty() { out } else { out + "\n" + &diff.text }
}

fn of_section(out: &mut String, section: &SectionDiff) {
    let _ = match section {
        SectionDiff::Added(s) => writeln!(out, "+ {} {}{}", word(s.kind), s.name, short(s)),
        SectionDiff::Removed(s) => writeln!(out, "- {} {}{}", word(s.kind), s.name, short(s)),
        SectionDiff::Changed { kind, old, new, facts } => {
            let was = if old == new { String::new() } else { format!(" (was {old})") };
            let what = match (facts.is_empty(), old == new) {
                (true, true) => ": only its text",
                (true, false) => ": only its name and its text",
                (false, _) => "",
            };
            let line = writeln!(out, "~ {} {new}{was}{what}", word(*kind));
            facts.iter().for_each(|c| change(out, "    ", c));
            line
        }
    };
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Settings => "settings",
        Kind::Function => "function",
        Kind::Kernel => "kernel",
    }
}

/// What one wants to know first of a kernel that came or went.
fn short(section: &Section) -> String {
    let wanted = ["launches", "flops", "bytes", "shared memory", "when", "grid", "mma"];
    let found = wanted.iter().filter_map(|key| Some(format!("{key} {}", section.get(key)?)));
    let found: Vec<String> = found.collect();
    if found.is_empty() { String::new() } else { format!(": {}", found.join("; ")) }
}

fn change(out: &mut String, indent: &str, c: &Change) {
    let _ = match (&c.old, &c.new) {
        (Some(old), Some(new)) => writeln!(out, "{indent}{}: {old} -> {new}{}", c.key, percent(c)),
        (None, Some(new)) => writeln!(out, "{indent}+ {}: {new}", c.key),
        (Some(old), None) => writeln!(out, "{indent}- {}: {old}", c.key),
        (None, None) => Ok(()),
    };
}

/// How much more or less, where both sides are numbers.
fn percent(c: &Change) -> String {
    match (c.old.as_deref().and_then(number), c.new.as_deref().and_then(number)) {
        // A level is no amount.
        (Some(old), Some(new)) if old != new && old != 0 && c.key != "level" => {
            // Good to one digit is enough.
            format!(", {:+.1} %", 100.0 * (new as f64 - old as f64) / old as f64)
        }
        _no_numbers => String::new(),
    }
}

/// The number that a value is or may be at most: `64*n (at most 4096)`, `4096`, `8576 bytes`.
fn number(value: &str) -> Option<i64> {
    if let Some((_, most)) = value.split_once(" (at most ") {
        return most.strip_suffix(')')?.parse().ok();
    }
    let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
    if rest.is_empty() || rest.starts_with("bytes") { first.parse().ok() } else { None }
}

/// A line of JSON for each pair: `name`, `status` (`equal`, `different`, `added`, `removed`); for those that differ
/// `settings`, `sections`, `text`.
pub fn json(pairs: &[Pair]) -> String {
    let row = |pair: &Pair| {
        let status = match &pair.outcome {
            Outcome::Equal => "equal",
            Outcome::Different(_) => "different",
            Outcome::Added => "added",
            Outcome::Removed => "removed",
        };
        let mut row = serde_json::json!({ "name": pair.name, "status": status });
        if let Outcome::Different(diff) = &pair.outcome {
            row["settings"] = serde_json::json!(diff.settings);
            row["sections"] = serde_json::json!(diff.sections);
            row["text"] = serde_json::json!(diff.text);
        }
        format!("{row}\n")
    };
    pairs.iter().map(row).collect()
}
