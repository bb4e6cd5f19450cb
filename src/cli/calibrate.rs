//! `tilewright calibrate`: measure this machine, and write the description that kernels are priced by.

use crate::bench;
use crate::compile::Options;
use crate::formats::{check_writable, write_whole};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_passes::egraph::Device;

/// Arguments of `calibrate`.
#[derive(clap::Args)]
#[command(after_help = "`--machine FILE` of the other commands prices kernels by what was measured.")]
pub(super) struct Args {
    /// Threads; all cores if absent
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// File to write; standard output if absent
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let threads = args.threads.map_or(Options::host()?.threads, usize::from);
    args.output.as_deref().map_or(Ok(()), check_writable)?;
    super::progress::stage("measuring");
    let found = bench::calibrate(threads)?;
    let no_json = |e: serde_json::Error| Diagnostic::bug(format!("a description has no JSON: {e}"));
    let text = format!("{}\n", serde_json::to_string_pretty(&found).map_err(no_json)?);
    // What is written can be read.
    Device::parse("calibration.json", &text)?;
    match &args.output {
        None => super::print(&text),
        Some(file) => write_whole(file, |out| out.write_all(text.as_bytes())),
    }
}
