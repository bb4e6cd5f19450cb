//! What differs between two snapshots of one stage: facts by key, kernels by name or by what they contain, then the text.

use super::{Kind, Section, Snapshot};
use similar::TextDiff;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time for the search of a short text difference. A text that takes longer gets a longer difference, which is still right.
const PATIENCE: Duration = Duration::from_secs(2);
/// Kernels whose lines are this much the same are one kernel with another name.
const ALIKE: f64 = 0.5;
/// Most kernels without a partner of their name that are compared by content.
const MOST: usize = 256;

/// A fact that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// Its key.
    pub key: String,
    /// The old value; none for a new fact.
    pub old: Option<String>,
    /// The new value; none for a fact that is gone.
    pub new: Option<String>,
}

/// A function or a kernel that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SectionDiff {
    /// Only the new snapshot has it.
    Added(Section),
    /// Only the old one has it.
    Removed(Section),
    /// Both have it.
    Changed {
        /// What it is.
        kind: Kind,
        /// Its name in the old snapshot.
        old: String,
        /// Its name in the new one.
        new: String,
        /// Facts that differ. None where only the text or the name does.
        facts: Vec<Change>,
    },
}

/// What differs; empty where nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Diff {
    /// How the snapshots were made.
    pub settings: Vec<Change>,
    /// Functions, then kernels, in the order of the new snapshot; what is gone comes last.
    pub sections: Vec<SectionDiff>,
    /// The texts as a unified difference; empty where they are the same.
    pub text: String,
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }
}

/// The differences from `old` to `new`.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Diff {
    if old == new {
        return Diff::default();
    }
    let mut sections = matched(Kind::Function, old, new);
    sections.extend(matched(Kind::Kernel, old, new));
    let settings = match (old.sections.first(), new.sections.first()) {
        (Some(a), Some(b)) => changes(a, b),
        _none => Vec::new(),
    };
    let text = if old.body == new.body {
        String::new()
    } else {
        let lines = TextDiff::configure().timeout(PATIENCE).diff_lines(&old.body, &new.body);
        lines.unified_diff().context_radius(3).header("old", "new").to_string()
    };
    Diff { settings, sections, text }
}

/// Facts that differ: those of the new section in its order, then those that are gone.
fn changes(old: &Section, new: &Section) -> Vec<Change> {
    let before: BTreeMap<&str, &str> = old.facts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let after: BTreeMap<&str, &str> = new.facts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let changed = new.facts.iter().filter(|(k, v)| before.get(k.as_str()) != Some(&v.as_str()));
    let changed = changed.map(|(k, v)| Change {
        key: k.clone(),
        old: before.get(k.as_str()).map(ToString::to_string),
        new: Some(v.clone()),
    });
    let gone = old.facts.iter().filter(|(k, _)| !after.contains_key(k.as_str()));
    changed.chain(gone.map(|(k, v)| Change { key: k.clone(), old: Some(v.clone()), new: None })).collect()
}

/// A section with the lines of its text.
struct Part<'a> {
    section: &'a Section,
    lines: Vec<String>,
}

fn matched(kind: Kind, old: &Snapshot, new: &Snapshot) -> Vec<SectionDiff> {
    let (before, after) = (parts(kind, old), parts(kind, new));
    let mut partner: Vec<Option<usize>> = vec![None; after.len()];
    let mut taken = vec![false; before.len()];
    let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    // Names that repeat are taken from the front.
    for (i, part) in before.iter().enumerate().rev() {
        names.entry(&part.section.name).or_default().push(i);
    }
    for (mine, part) in partner.iter_mut().zip(&after) {
        if let Some(i) = names.get_mut(part.section.name.as_str()).and_then(Vec::pop) {
            (*mine, taken[i]) = (Some(i), true);
        }
    }
    // The most alike first. A function is its name.
    let free = |flags: Vec<bool>| flags.into_iter().enumerate().filter(|(_, free)| *free).map(|(i, _)| i).take(MOST);
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    if kind == Kind::Kernel {
        let left: Vec<usize> = free(taken.iter().map(|t| !t).collect()).collect();
        for j in free(partner.iter().map(Option::is_none).collect()) {
            pairs.extend(left.iter().map(|&i| (alike(&before[i], &after[j]), i, j)).filter(|p| p.0 >= ALIKE));
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    for (_, i, j) in pairs {
        if !taken[i] && partner[j].is_none() {
            (partner[j], taken[i]) = (Some(i), true);
        }
    }
    let mut found = Vec::new();
    for (part, partner) in after.iter().zip(partner) {
        let Some(other) = partner.map(|i| &before[i]) else {
            found.push(SectionDiff::Added(part.section.clone()));
            continue;
        };
        let facts = changes(other.section, part.section);
        let (old, new) = (&other.section.name, &part.section.name);
        if !facts.is_empty() || old != new || other.lines != part.lines {
            found.push(SectionDiff::Changed { kind, old: old.clone(), new: new.clone(), facts });
        }
    }
    let gone = before.iter().zip(taken).filter(|(_, taken)| !taken);
    found.extend(gone.map(|(part, _)| SectionDiff::Removed(part.section.clone())));
    found
}

/// The sections of a kind with the lines of their text. Kernels stand in the text in the order of the header; where their
/// numbers differ, which only an edit by hand can cause, they are compared by their facts.
fn parts(kind: Kind, snapshot: &Snapshot) -> Vec<Part<'_>> {
    let sections = snapshot.of(kind);
    let cuda = snapshot.setting("stage") == Some("cuda");
    let head = if cuda { "// kernel " } else { "kernel " };
    let mut blocks: Vec<Vec<String>> = Vec::new();
    if kind == Kind::Kernel {
        let mut open = false;
        for line in snapshot.body.lines() {
            if let Some(rest) = line.strip_prefix(head) {
                // The name is no content.
                blocks.push(vec![rest.split_once(' ').map_or("", |(_, rest)| rest).to_string()]);
                open = true;
            } else if let Some(block) = blocks.last_mut().filter(|_| open) {
                // The C function has the kernel's name too.
                block.push(if line.starts_with("extern ") {
                    line.split('(').skip(1).collect()
                } else {
                    line.to_string()
                });
                open = !line.starts_with('}');
            }
        }
    }
    if blocks.len() != sections.len() {
        blocks = vec![Vec::new(); sections.len()];
    }
    sections.into_iter().zip(blocks).map(|(section, lines)| Part { section, lines }).collect()
}

/// How much of two kernels is the same, from 0 to 1: lines that both have, facts among them.
fn alike(a: &Part<'_>, b: &Part<'_>) -> f64 {
    let count = |part: &Part<'_>| {
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let facts = part.section.facts.iter().map(|(key, value)| format!("{key}: {value}"));
        facts.chain(part.lines.iter().map(|l| l.trim().to_string())).for_each(|l| *lines.entry(l).or_default() += 1);
        lines
    };
    let (a, b) = (count(a), count(b));
    let both: usize = a.iter().map(|(line, n)| b.get(line).map_or(0, |m| *n.min(m))).sum();
    let all: usize = a.values().chain(b.values()).sum();
    // Counts of lines are small.
    if all == 0 { 1.0 } else { 2.0 * both as f64 / all as f64 }
}
