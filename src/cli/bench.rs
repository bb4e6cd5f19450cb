//! `tilewright bench`: measure the work of the peers' scripts.

use super::inputs;
use super::options::{CompileArgs, Compute};
use crate::bench::Block;
use crate::bench::{self, Gemm, Row, Setup};
use crate::compile::Target;
use crate::formats::write_whole;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::text;
use tilewright_ir::types::DType;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    work: Work,
    #[command(flatten)]
    compile: CompileArgs,
    /// One JSON object a line
    #[arg(long, global = true)]
    json: bool,
    /// Print the time of each kernel of one more run; not of encoder and llm
    #[arg(long, global = true)]
    profile: bool,
}

#[derive(clap::Subcommand)]
enum Work {
    /// One product of matrices; the right one is a weight
    Gemm {
        /// Rows of the left matrix
        #[arg(long, default_value_t = 1024)]
        m: usize,
        /// Columns of the left matrix
        #[arg(long, default_value_t = 1024)]
        k: usize,
        /// Columns of the right matrix
        #[arg(long, default_value_t = 1024)]
        n: usize,
        /// Of operands and result; sums are f32
        #[arg(long, value_enum, default_value_t = GemmDType::F32)]
        dtype: GemmDType,
    },
    /// Fused memory-bound operations, f32
    Elementwise,
    /// Attention of prompts and of single tokens, f32
    Attention,
    /// Training steps (forward, gradients, AdamW) of a GPT of 6 layers, 384 wide, on 8 texts of 256 tokens
    Train {
        /// Of contractions; all else is f32
        #[arg(long, value_enum, default_value_t = Compute::F32)]
        compute: Compute,
    },
    /// The arena and the operations of forward pass and gradients of a GPT on 1024 tokens, f32: without checkpointing, with sqrt(n) segments,
    /// within 50 % and 25 % of the memory, and with the least
    Checkpoint {
        /// Blocks
        #[arg(long, default_value_t = 24)]
        layers: usize,
        /// Size of the hidden state, a multiple of 64
        #[arg(long, default_value_t = 512)]
        width: usize,
        /// Only plan, run nothing
        #[arg(long)]
        plan_only: bool,
        /// Write the curve of memory against operations to this file
        #[arg(long)]
        svg: Option<PathBuf>,
    },
    /// Logits of GPT-2 small with random weights, 128 and 512 tokens
    Gpt2,
    /// Sentence embeddings, one text and 32, padded and not
    Encoder {
        /// A folder with config.json and model.safetensors of a BERT or ALBERT
        #[arg(long)]
        model: PathBuf,
    },
    /// What levels 0, 1 and 2, and 2 without each group of rules, make of programs: kernels, bytes, predicted and measured time
    Levels {
        /// .tw files, op programs or ONNX graphs, on random inputs; blocks of the usual models if absent
        files: Vec<PathBuf>,
        /// The size of a symbol of the files, such as seq=1024; may be repeated
        #[arg(long = "set", value_name = "SYMBOL=VALUE", requires = "files")]
        set: Vec<String>,
        /// What to compile for; only what is for the CPU runs
        #[arg(long, value_enum, default_value_t = Target::Cpu)]
        target: Target,
        /// Seconds for which each program runs; with 0 nothing runs
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// Write each program as a .tw file here, for `explain`, `tune` and `bisect`; measure nothing
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
    /// How well the cost walk predicts times: all schedules of 24 regions in two series, each alone, with nothing in a core's caches; ranks
    /// of one series by the other, and by the predictions
    Schedules {
        /// Runs of each schedule in a series, in turns; the median beside the others of its turn counts
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10000))]
        sweeps: u16,
    },
    /// Prompts and decoding with a language model
    Llm {
        /// A GGUF file of the llama architecture
        #[arg(long)]
        model: PathBuf,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum GemmDType {
    F32,
    Bf16,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let setup = Setup { options: args.compile.options()?, profile: args.profile };
    let show = |row: Row| {
        let json = || serde_json::to_string(&row).map_err(|e| Diagnostic::bug(format!("a row has no JSON: {e}")));
        super::print(&if args.json { format!("{}\n", json()?) } else { format!("{row}\n") })
    };
    super::progress::stage("measuring");
    match &args.work {
        Work::Gemm { m, k, n, dtype } => {
            let dtype = match dtype {
                GemmDType::F32 => DType::F32,
                GemmDType::Bf16 => DType::Bf16,
            };
            show(bench::gemm(Gemm { m: *m, k: *k, n: *n, dtype }, &setup)?)
        }
        Work::Elementwise => bench::elementwise(&setup, show),
        Work::Attention => bench::attention(&setup, show),
        Work::Train { compute } => show(bench::train(&setup, compute.policy()?.as_ref())?),
        Work::Checkpoint { layers, width, plan_only, svg } => {
            let progress = |done, of| super::progress::stage(&format!("costing {} of {of}", done + 1));
            let mut show = |row: bench::CheckpointRow| {
                let json = || serde_json::to_string(&row).map_err(|e| Diagnostic::bug(format!("no JSON: {e}")));
                super::print(&if args.json { format!("{}\n", json()?) } else { format!("{row}\n") })
            };
            let picture = bench::checkpoint(&setup, (*layers, *width), !plan_only, &progress, &mut show)?;
            svg.as_deref().map_or(Ok(()), |path| write_whole(path, |out| out.write_all(picture.as_bytes())))
        }
        Work::Gpt2 => bench::gpt2(&setup, show),
        Work::Levels { files, set, target, seconds, write } => {
            let blocks = blocks(files, set)?;
            write
                .as_deref()
                .map_or_else(|| levels(args, &setup, &blocks, (*target, *seconds)), |dir| write_all(&blocks, dir))
        }
        Work::Schedules { sweeps } => {
            if !args.json {
                super::print(&format!("{}\n", bench::SCHEDULES_HEAD))?;
            }
            bench::schedules(&setup.options, usize::from(*sweeps), |row| {
                let json =
                    || serde_json::to_string(&row).map_err(|e| Diagnostic::bug(format!("a row has no JSON: {e}")));
                super::print(&if args.json { format!("{}\n", json()?) } else { format!("{row}\n") })
            })
        }
        Work::Encoder { model } => bench::encoder(model, &setup, show),
        Work::Llm { model } => bench::llm(model, &setup, show),
    }
}

/// The programs that are named, or blocks of the usual models.
fn blocks(files: &[PathBuf], set: &[String]) -> Result<Vec<Block>, Diagnostic> {
    let one = |file: &PathBuf| -> Result<Block, Diagnostic> {
        let module = super::load_module(file, None)?;
        let sizes = inputs::sizes_of(set, &module, module.entry()?)?;
        Ok(Block { name: file.display().to_string(), module: module.into_inner(), sizes })
    };
    if files.is_empty() { bench::blocks() } else { files.iter().map(one).collect() }
}

/// Programs as files, each named by its block; a comment says how to explain one for the sizes of its block.
fn write_all(blocks: &[Block], dir: &Path) -> Result<(), Diagnostic> {
    for Block { name, module, sizes } in blocks {
        let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let file = dir.join(words.collect::<Vec<_>>().join("_").to_lowercase()).with_extension("tw");
        let sizes: String = sizes.iter().map(|(symbol, size)| format!(" --set {symbol}={size}")).collect();
        let text = format!("// {name}\n// tilewright explain {}{sizes}\n{}", file.display(), text::print(module));
        write_whole(&file, |out| out.write_all(text.as_bytes()))?;
        super::print(&format!("{}{sizes}\n", file.display()))?;
    }
    Ok(())
}

fn levels(args: &Args, setup: &Setup, blocks: &[Block], (target, seconds): (Target, f64)) -> Result<(), Diagnostic> {
    let budget =
        Duration::try_from_secs_f64(seconds).map_err(|e| Diagnostic::new("option", format!("--seconds: {e}")))?;
    for Block { name, module, sizes } in blocks {
        let runs = target.gpu().is_none() && budget > Duration::ZERO;
        let inputs = if runs { Some(inputs::random(module, 1, sizes)?) } else { None };
        super::progress::stage("choosing kernels");
        let all = bench::levels(module, (inputs.as_deref(), sizes), &setup.options, target, budget)?;
        if !args.json {
            super::print(&format!("{name}\n"))?;
        }
        for variant in all {
            let text = if args.json {
                let row = serde_json::json!({ "bench": "levels", "shape": name, "target": target_name(target), "row": variant });
                row.to_string()
            } else {
                variant.to_string()
            };
            super::print(&format!("{text}\n"))?;
        }
    }
    Ok(())
}

fn target_name(target: Target) -> &'static str {
    target.gpu().unwrap_or("cpu")
}
