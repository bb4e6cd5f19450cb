//! `tilewright embed`: sentence embeddings.

use super::options::CompileArgs;
use super::progress;
use crate::bench::machine::peak_rss_mb;
use crate::embed::{EncoderFolder, SentenceEncoder};
use crate::formats::tokenizer::Tokenizer;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Instant;
use tilewright_ir::diag::Diagnostic;

/// Most bytes that are read from standard input.
const MAX_INPUT: u64 = 1 << 30;

/// Arguments of `embed`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A folder with config.json, model.safetensors and tokenizer.json of a BERT or ALBERT
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The texts; lines of standard input if absent
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Tokens of a text, special ones included; the rest is cut off with a warning. The model's own limit if absent
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_length: Option<u32>,
    /// Texts in one padded batch. Texts of similar length go together
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    #[command(flatten)]
    compile: CompileArgs,
    /// One JSON object: embeddings, tokens of each text, times in seconds, memory
    #[arg(long)]
    json: bool,
    /// Print the time of each kernel
    #[arg(long)]
    profile: bool,
}

/// A text as ids.
struct Encoded {
    ids: Vec<u32>,
    /// Ids before the end was cut off.
    whole: usize,
}

/// What `--json` prints. A value tree would print f32 numbers with the digits of f64.
#[derive(serde::Serialize)]
struct Report<'a> {
    embeddings: &'a [Vec<f32>],
    tokens: Vec<usize>,
    truncated: Vec<bool>,
    compile_s: f64,
    run_s: f64,
    peak_rss_mb: Option<u64>,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let options = args.compile.options()?;
    progress::stage("reading the model");
    let folder = EncoderFolder::open(&args.model)?;
    let tokenizer = folder.tokenizer()?;
    let limit = limit(args, &folder)?;
    let texts = if args.texts.is_empty() { read_lines()? } else { args.texts.clone() };
    progress::stage("reading the texts");
    let encoded = texts.iter().enumerate().map(|(i, text)| encode(&tokenizer, i, text, limit));
    let encoded = encoded.collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    progress::stage("compiling");
    let mut model = SentenceEncoder::new(&folder, &options)?;
    let compiled = start.elapsed().as_secs_f64();
    if args.profile {
        model.enable_profile();
    }
    let start = Instant::now();
    let embeddings = embed(&model, &encoded, usize::from(args.batch_size))?;
    let ran = start.elapsed().as_secs_f64();
    if let Some(profile) = model.profile() {
        super::note(&profile.to_string());
    }
    if args.json {
        let report = Report {
            embeddings: &embeddings,
            tokens: encoded.iter().map(|e| e.ids.len()).collect(),
            truncated: encoded.iter().map(|e| e.whole > e.ids.len()).collect(),
            compile_s: compiled,
            run_s: ran,
            peak_rss_mb: peak_rss_mb(),
        };
        let text = serde_json::to_string(&report).map_err(|e| Diagnostic::bug(format!("no JSON: {e}")))?;
        return super::print(&format!("{text}\n"));
    }
    for embedding in &embeddings {
        let numbers: Vec<String> = embedding.iter().map(f32::to_string).collect();
        super::print(&format!("{}\n", numbers.join(" ")))?;
    }
    super::note(&format!(
        "{} texts, {} numbers each; compiled in {compiled:.2} s, ran in {ran:.3} s (packing included)\n",
        embeddings.len(),
        model.width()
    ));
    Ok(())
}

/// The most tokens of a text. Errors: `text-length` for more than the model has positions.
fn limit(args: &Args, folder: &EncoderFolder) -> Result<usize, Diagnostic> {
    let positions = folder.config.positions;
    match args.max_length.map(|l| l as usize) {
        Some(length) if length > positions => {
            let message = format!("--max-length is {length}, but the model has {positions} positions");
            Err(Diagnostic::new("text-length", message))
        }
        Some(length) => Ok(length),
        None => folder.max_length(),
    }
}

fn read_lines() -> Result<Vec<String>, Diagnostic> {
    let missing =
        || Diagnostic::new("no-text", "expected texts as arguments or as lines of standard input, found none");
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err(missing());
    }
    let mut bytes = Vec::new();
    let read = input.lock().take(MAX_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|e| Diagnostic::new("file", format!("cannot read standard input: {e}")))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Diagnostic::new("file", format!("expected at most {MAX_INPUT} bytes of standard input")));
    }
    let text = crate::formats::utf8("standard input", &bytes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.is_empty() { Err(missing()) } else { Ok(text.lines().map(str::to_string).collect()) }
}

/// Ids of text number `i`. Errors: those of the tokenizer; `token` if there are none, as an empty text has for a tokenizer
/// that adds nothing.
fn encode(tokenizer: &Tokenizer, i: usize, text: &str, limit: usize) -> Result<Encoded, Diagnostic> {
    let (ids, whole) = tokenizer.encode_at_most(text, limit)?;
    if ids.is_empty() {
        return Err(Diagnostic::new("token", format!("text {i} has no tokens")));
    }
    if whole > ids.len() {
        super::note(&format!("warning: text {i} has {whole} tokens, cut to {limit}\n"));
    }
    Ok(Encoded { ids, whole })
}

/// Embeddings in the order of the texts. Batches are made of texts of similar length, so that little is padded.
fn embed(model: &SentenceEncoder, texts: &[Encoded], batch: usize) -> Result<Vec<Vec<f32>>, Diagnostic> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].ids.len());
    let mut embeddings = vec![Vec::new(); texts.len()];
    progress::steps("embedding", texts.len().div_ceil(batch));
    for part in order.chunks(batch) {
        let ids: Vec<&[u32]> = part.iter().map(|&i| &*texts[i].ids).collect();
        for (&i, embedding) in part.iter().zip(model.embed(&ids)?) {
            embeddings[i] = embedding;
        }
        progress::step();
    }
    Ok(embeddings)
}
