//! `tilewright check-kernels`: CUDA text through NVRTC, for each target. No GPU is needed.

use super::progress;
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_runtime::device::cuda::{Nvrtc, per_kernel};

/// Arguments of `check-kernels`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// CUDA text, or insta snapshots of it; every `*.cuda.*.snap` and `*.cu` below this folder if none is named
    files: Vec<PathBuf>,
    /// Skip everything, with exit code 0, where NVRTC is not installed
    #[arg(long)]
    allow_missing: bool,
    /// One JSON object per kernel and target before the last line
    #[arg(long)]
    json: bool,
}

/// Targets, the least first: text for one compiles for those after it.
const TARGETS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];

#[derive(Default)]
struct Counts {
    compiled: usize,
    failed: usize,
    skipped: usize,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let files = if args.files.is_empty() { below(Path::new("."))? } else { args.files.clone() };
    if files.is_empty() {
        let message = "expected *.cuda.*.snap or *.cu files below this folder, found none";
        return Err(Diagnostic::new("no-kernels", message));
    }
    let mut texts = Vec::new();
    let mut counts = Counts::default();
    for path in &files {
        match cuda_text(path)? {
            Some(text) => texts.push((path, text)),
            // a program of calls and loops of others
            None => {
                super::note(&format!("skipped {}, which has no kernel\n", path.display()));
                counts.skipped += TARGETS.len();
            }
        }
    }
    // What checks nothing must not look like a success.
    if texts.is_empty() {
        let message = "expected a `__global__` function in one of these files, found none";
        return Err(Diagnostic::new("no-kernels", message));
    }
    let nvrtc = match Nvrtc::load() {
        Ok(nvrtc) => nvrtc,
        Err(missing) if args.allow_missing && missing.code == "nvrtc-missing" => {
            super::note(&format!("{missing}\n"));
            counts.skipped += texts.len() * TARGETS.len();
            return last_line(&counts);
        }
        Err(other) => return Err(other),
    };
    progress::steps("compiling", texts.len() * TARGETS.len());
    for (path, text) in &texts {
        // NVRTC adds its own ending.
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.strip_suffix(".cu").unwrap_or(&name);
        let least = TARGETS.iter().position(|t| text.contains(&format!(" target {t} "))).unwrap_or(0);
        for (i, target) in TARGETS.into_iter().enumerate() {
            if i < least {
                counts.skipped += 1;
            } else {
                match nvrtc.compile(name, text, target) {
                    Ok(done) => {
                        counts.compiled += 1;
                        usage(path, target, &done.log, args.json)?;
                    }
                    Err(wrong) => {
                        counts.failed += 1;
                        let place = Place::Named(path.display().to_string().into());
                        super::note(&format!("{}\n", wrong.at(place, target)));
                    }
                }
            }
            progress::step();
        }
    }
    last_line(&counts)
}

fn last_line(counts: &Counts) -> Result<(), Diagnostic> {
    let Counts { compiled, failed, skipped } = counts;
    super::print(&format!("{compiled} compiled, {failed} failed, {skipped} skipped\n"))?;
    let message = || format!("{failed} texts do not compile");
    if *failed == 0 { Ok(()) } else { Err(Diagnostic::new("check-kernels", message())) }
}

/// A line per kernel of a text: registers of a thread, bytes of spills, bytes of static shared memory.
fn usage(path: &Path, target: &str, log: &str, json: bool) -> Result<(), Diagnostic> {
    let mut out = String::new();
    for (kernel, usage) in per_kernel(log) {
        let (registers, shared, spills) =
            (usage.registers, usage.shared_bytes, usage.spill_stores.saturating_add(usage.spill_loads));
        let file = path.display();
        out += &if json {
            let row = serde_json::json!({
                "file": file.to_string(), "kernel": kernel, "target": target,
                "registers": registers, "spill_bytes": spills, "shared_bytes": shared,
            });
            format!("{row}\n")
        } else {
            format!(
                "{target:<6} {registers:>3} registers {spills:>4} B spills {shared:>6} B shared  {kernel}  {file}\n"
            )
        };
    }
    super::print(&out)
}

/// The text of a file, or none if it is a program without kernels; a snapshot's header, between two lines of `---`, is
/// left out. Errors: a file that is neither CUDA C by its name nor by what is in it.
fn cuda_text(path: &Path) -> Result<Option<String>, Diagnostic> {
    let text = crate::formats::read_text(path)?;
    let body = text.strip_prefix("---\n").and_then(|rest| Some(rest.split_once("\n---\n")?.1));
    let body = body.unwrap_or(&text);
    if !body.contains("__global__") {
        if path.extension().is_some_and(|e| e == "cu" || e == "snap") {
            return Ok(None);
        }
        let message = format!("expected CUDA text with a `__global__` function, found none in {}", path.display());
        return Err(Diagnostic::new("no-kernels", message));
    }
    Ok(Some(body.to_string()))
}

/// Snapshots of CUDA text below a folder, sorted. Build folders and hidden ones are left out.
fn below(root: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let (mut found, mut open) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = open.pop() {
        let unreadable = |e| Diagnostic::new("file", format!("cannot read the folder {}: {e}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(unreadable)?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            // Links are not followed: they may lead back.
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if name != "target" && !name.starts_with('.') {
                    open.push(path);
                }
            } else if name.ends_with(".cu") || (name.ends_with(".snap") && name.contains(".cuda.")) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
