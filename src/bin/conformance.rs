//! `conformance`: compares a device with reference data. Exit status: 0 all passed, 1 failures, 2 usage errors.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use tilewright::conformance::{Device, Options, SETS, run_set};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// Runs reference data through a device and compares the results.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder with one folder per set
    #[arg(long)]
    data: PathBuf,
    /// Set to run; all if absent
    #[arg(long)]
    set: Option<String>,
    /// interpreter, cpu or cuda
    #[arg(long, default_value = "interpreter")]
    device: Device,
    /// Compare gradients, too
    #[arg(long)]
    grads: bool,
    /// 0: each primitive is a kernel; 1: fusion in a fixed order
    #[arg(long, default_value_t = tilewright::compile::DEFAULT_OPT_LEVEL, value_parser = clap::value_parser!(u8).range(0..=1))]
    opt_level: u8,
    /// Dtype of floats: f64 or f32; the interpreter's default is f64, that of other devices f32
    #[arg(long)]
    precision: Option<DType>,
    /// Rounding that rewrites may change: the interpreter changes none
    #[arg(long)]
    numerics: Option<String>,
    /// Threads; the interpreter uses one
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(diagnostic) => {
            eprintln!("{diagnostic}");
            ExitCode::from(2)
        }
    }
}

/// Whether every case passed.
fn run(arguments: &Arguments) -> Result<bool, Diagnostic> {
    let options = Options {
        device: arguments.device,
        grads: arguments.grads,
        opt_level: arguments.opt_level,
        float: arguments.precision.unwrap_or(arguments.device.float()),
    };
    let sets: Vec<&str> = arguments.set.as_deref().map_or(SETS.to_vec(), |s| vec![s]);
    let mut passed = true;
    for set in sets {
        let report = run_set(set, &arguments.data, &options)?;
        report.failures.iter().for_each(|f| println!("FAILED {f}"));
        println!("{report}");
        passed &= report.failures.is_empty();
    }
    Ok(passed)
}
