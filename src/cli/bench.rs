//! `tilewright bench`: measure the work of the peers' scripts.

use super::options::CompileArgs;
use crate::bench::{self, Gemm, Row, Setup};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
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
    /// Logits of GPT-2 small with random weights, 128 and 512 tokens
    Gpt2,
    /// Sentence embeddings, one text and 32, padded and not
    Encoder {
        /// A folder with config.json and model.safetensors of a BERT or ALBERT
        #[arg(long)]
        model: PathBuf,
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
        Work::Gpt2 => bench::gpt2(&setup, show),
        Work::Encoder { model } => bench::encoder(model, &setup, show),
        Work::Llm { model } => bench::llm(model, &setup, show),
    }
}
