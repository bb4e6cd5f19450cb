//! `tilewright diff`: what differs between snapshots. Exit codes as those of `diff`: 0 equal, 1 different, 2 trouble.

use crate::snapshot::{Outcome, compare, json, text};
use std::path::PathBuf;
use std::process::ExitCode;
use tilewright_ir::diag::Diagnostic;

/// Arguments of `diff`.
#[derive(clap::Args)]
#[command(
    after_help = "Snapshots come from tests (`assert_kernel_snapshot!` of the crate tilewright-snapshot) and from `tilewright compile --snapshot`.\n\
    A folder with pending snapshots (.snap.new) compared with itself shows what waits for a review.\n\
    Exit code 0: equal; 1: different; 2: usage, or a file that cannot be read."
)]
pub(super) struct Args {
    /// A snapshot (.snap, .snap.new), or a folder of them
    old: PathBuf,
    /// What to compare with it
    new: PathBuf,
    /// One JSON object a snapshot
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match differ(args) {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(1),
        Err(diagnostic) => {
            super::note(&format!("{diagnostic}\n"));
            ExitCode::from(2)
        }
    }
}

/// Prints the differences; whether there are any.
fn differ(args: &Args) -> Result<bool, Diagnostic> {
    let pairs = compare(&args.old, &args.new)?;
    super::print(&if args.json { json(&pairs) } else { text(&pairs) })?;
    Ok(pairs.iter().any(|p| p.outcome != Outcome::Equal))
}
