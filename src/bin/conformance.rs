//! `conformance`: compares a device with reference data. Exit status: 0 all passed, 1 failures, 2 usage errors.

use clap::Parser;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tilewright::cli::options::CompileArgs;
use tilewright::compile::Precision;
use tilewright::conformance::{Device, Forced, Options, SETS, run_set};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// Runs reference data through a device and compares the results.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder with one folder per set
    #[arg(long)]
    data: PathBuf,
    /// Set to run: ops, onnx_node, nnsmith, smollm2, minilm, rxn_albert or train; all that the folder has if absent
    #[arg(long)]
    set: Option<String>,
    /// interpreter, cpu or cuda
    #[arg(long, default_value = "interpreter")]
    device: Device,
    /// Compare gradients, too, where a set has them: ops, smollm2, rxn_albert
    #[arg(long)]
    grads: bool,
    /// Force checkpointing on gradients (--grads, and the set train): blocks (if nothing is said) keeps nothing of a block but its input; sqrt
    /// makes about sqrt(n) segments of a chain of n blocks; bytes such as 500M, a part such as 25%, or minimum say how large the planned
    /// arena may be. A program without a chain is one block
    #[arg(long, value_name = "blocks|sqrt|BYTES|PART%|minimum", num_args = 0..=1, default_missing_value = "blocks")]
    checkpoint: Option<Forced>,
    #[command(flatten)]
    compile: CompileArgs,
    /// Dtype of floats where a set leaves it open: f64 or f32; the interpreter's default is f64, that of other devices f32
    #[arg(long)]
    float: Option<DType>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(diagnostic) => {
            let _ = writeln!(std::io::stderr(), "{diagnostic}");
            ExitCode::from(2)
        }
    }
}

/// Whether every case passed.
fn run(arguments: &Arguments) -> Result<bool, Diagnostic> {
    // The only one, and what every device does.
    let Precision::Highest = arguments.compile.precision;
    let options = Options {
        device: arguments.device,
        grads: arguments.grads,
        checkpoint: arguments.checkpoint.unwrap_or_default(),
        opt_level: arguments.compile.opt_level,
        numerics: arguments.compile.numerics,
        float: arguments.float.unwrap_or(arguments.device.float()),
        threads: arguments.compile.threads.map(usize::from),
        rules: arguments.compile.user_rules()?,
    };
    let there = || SETS.iter().copied().filter(|s| arguments.data.join(s).is_dir()).collect();
    let sets: Vec<&str> = arguments.set.as_deref().map_or_else(there, |s| vec![s]);
    if sets.is_empty() {
        let message = format!("{} has none of the sets {}", arguments.data.display(), SETS.join(" "));
        return Err(Diagnostic::new("conformance-set", message));
    }
    let mut passed = true;
    for set in sets {
        let report = run_set(set, &arguments.data, &options)?;
        let failed = report.failures.iter().map(|f| format!("FAILED {f}\n"));
        let notes = report.notes.iter().map(|n| format!("{n}\n"));
        let text: String = failed.chain(notes).chain([format!("{report}\n")]).collect();
        // Where nobody reads the report, the exit code still tells.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        passed &= report.failures.is_empty();
    }
    Ok(passed)
}
