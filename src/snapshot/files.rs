//! Snapshots in files and folders.

use super::{Diff, Snapshot, diff};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};

/// Bytes of the largest file that is read. Snapshots of whole models have fewer.
const LARGEST: u64 = 64 << 20;

/// How one snapshot fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing differs.
    Equal,
    /// Something does.
    Different(Diff),
    /// Only the new folder has it.
    Added,
    /// Only the old folder has it.
    Removed,
}

/// A snapshot by name, and how it fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The new file, or the file inside the folders, without `.snap`.
    pub name: String,
    /// How it fared.
    pub outcome: Outcome,
}

/// Compares two files, or the snapshots of two folders by their paths inside. Where a folder has `x.snap.new` beside `x.snap`,
/// the new side is `x.snap.new`; so a folder compared with itself shows what waits for a review. Snapshots of others are left
/// out of folders.
///
/// Errors: `file`, `text`, `snapshot-size`, `snapshot-format`; `snapshot-none` where neither folder has a snapshot,
/// `snapshot-pair` for a file beside a folder and for different stages.
pub fn compare(old: &Path, new: &Path) -> Result<Vec<Pair>, Diagnostic> {
    match (old.is_dir(), new.is_dir()) {
        (true, true) => folders(old, new),
        (false, false) => {
            let name = new.display().to_string();
            Ok(vec![Pair { outcome: pair(&name, &read(old)?, &read(new)?)?, name }])
        }
        (_folder, _file) => {
            let message = "expected two files or two folders, found a file and a folder";
            Err(Diagnostic::new("snapshot-pair", message))
        }
    }
}

fn pair(name: &str, old: &Snapshot, new: &Snapshot) -> Result<Outcome, Diagnostic> {
    let stage = |s: &Snapshot| s.setting("stage").unwrap_or("none").to_string();
    let (a, b) = (stage(old), stage(new));
    if a != b {
        let message = format!("expected two snapshots of one stage, found `{a}` and `{b}`");
        return Err(Diagnostic::new("snapshot-pair", message).at(Place::Named(name.into()), ""));
    }
    let found = diff(old, new);
    Ok(if found.is_empty() { Outcome::Equal } else { Outcome::Different(found) })
}

fn folders(old: &Path, new: &Path) -> Result<Vec<Pair>, Diagnostic> {
    let (before, after) = (below(old, false)?, below(new, true)?);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let side = |files: &BTreeMap<String, PathBuf>| files.get(name).map(|path| ours(path)).transpose();
        let outcome = match (side(&before)?.flatten(), side(&after)?.flatten()) {
            (Some(a), Some(b)) => pair(name, &a, &b)?,
            (Some(_), None) => Outcome::Removed,
            (None, Some(_)) => Outcome::Added,
            (None, None) => continue,
        };
        found.push(Pair { name: name.clone(), outcome });
    }
    if found.is_empty() {
        let message = format!("neither {} nor {} has a snapshot of Tilewright", old.display(), new.display());
        return Err(Diagnostic::new("snapshot-none", message));
    }
    Ok(found)
}

/// Snapshots below a folder by their path in it; with `pending` those that wait for a review are in the place of those that
/// they would replace. Links are not followed: they may lead back.
fn below(root: &Path, pending: bool) -> Result<BTreeMap<String, PathBuf>, Diagnostic> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = open.pop() {
        let unreadable = |e| Diagnostic::new("file", format!("cannot read the folder {}: {e}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let inside = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            if let Some(name) = inside.strip_suffix(".snap") {
                found.entry(name.to_string()).or_insert(path);
            } else if let Some(name) = inside.strip_suffix(".snap.new").filter(|_| pending) {
                found.insert(name.to_string(), path);
            }
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Snapshot, Diagnostic> {
    Snapshot::parse(&path.display().to_string(), &text(path)?)
}

/// A snapshot in a folder; none if it is another program's.
fn ours(path: &Path) -> Result<Option<Snapshot>, Diagnostic> {
    let text = text(path)?;
    if !text.contains(super::MAGIC) {
        return Ok(None);
    }
    Snapshot::parse(&path.display().to_string(), &text).map(Some)
}

fn text(path: &Path) -> Result<String, Diagnostic> {
    let at = |d: Diagnostic| d.at(Place::Named(path.display().to_string().into()), "");
    // What cannot be asked cannot be mapped either.
    let length = std::fs::metadata(path).map_or(0, |m| m.len());
    if length > LARGEST {
        let message = format!("expected a snapshot of at most {LARGEST} bytes, found {length}");
        return Err(at(Diagnostic::new("snapshot-size", message)));
    }
    crate::formats::read_text(path)
}
