//! `tilewright generate`: answer a prompt.

use super::options::CompileArgs;
use super::progress;
use crate::bench::machine::peak_rss_mb;
use crate::compile::Options;
use crate::formats::{Gguf, chat::Chat, tokenizer::Tokenizer};
use crate::generate::{LanguageModel, ModelFolder, Sampling};
use crate::models::Outputs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tilewright_ir::diag::{Diagnostic, Place};

/// Arguments of `generate`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF file of the llama architecture, or a folder that `train` wrote (config.json, model.safetensors, tokenizer.json,
    /// perhaps tokenizer_config.json)
    #[arg(long)]
    model: PathBuf,
    /// What to say to it
    #[arg(long)]
    prompt: String,
    /// Pass the prompt as it is, without the model's chat template; so with a model that has none
    #[arg(long)]
    raw: bool,
    /// Always the most probable token
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "seed"])]
    greedy: bool,
    /// Higher is more varied; 0 is greedy
    #[arg(long, default_value_t = 0.7, value_parser = temperature, allow_negative_numbers = true)]
    temperature: f32,
    /// Smallest probability mass that is kept
    #[arg(long, default_value_t = 0.9, value_parser = probability, allow_negative_numbers = true)]
    top_p: f32,
    /// The same seed gives the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop after this many tokens
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_tokens: u32,
    #[command(flatten)]
    compile: CompileArgs,
    /// One JSON object at the end instead of a stream: text, tokens, rates, memory
    #[arg(long)]
    json: bool,
    /// Print the time of each kernel, for the prompt and for the answer
    #[arg(long)]
    profile: bool,
}

fn temperature(text: &str) -> Result<f32, String> {
    let t: f32 = text.parse().map_err(|_| "expected a number".to_string())?;
    if (0.0..=100.0).contains(&t) { Ok(t) } else { Err("expected 0 to 100".into()) }
}

fn probability(text: &str) -> Result<f32, String> {
    let p: f32 = text.parse().map_err(|_| "expected a number".to_string())?;
    if p > 0.0 && p <= 1.0 { Ok(p) } else { Err("expected more than 0 and at most 1".into()) }
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let file = args.model.display().to_string();
    answer(args).map_err(|d| {
        let named = d.labels.iter().any(|(place, _)| place.to_string().contains(&file));
        if named { d } else { d.at(Place::Named(file.into()), "") }
    })
}

fn answer(args: &Args) -> Result<(), Diagnostic> {
    let options = args.compile.options()?;
    let Opened { tokenizer, prompt, mut model, compiled } = opened(args, &options)?;
    if args.profile {
        model.enable_profile();
    }
    let mut sampling = if args.greedy {
        Sampling::greedy()
    } else {
        Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed }
    };
    let mut stream = tokenizer.stream(true);
    let start = Instant::now();
    progress::stage("reading the prompt");
    let mut logits = model.read(&prompt)?.logits;
    let read = start.elapsed();
    // The answer is shown as it is written, unless it is one object at the end.
    if args.json {
        progress::steps("answering", args.max_tokens as usize)
    } else {
        progress::done()
    }
    print_profile(&model, "prompt");
    let start = Instant::now();
    let (mut written, mut answer) = (0u32, String::new());
    let mut show = |text: &str| {
        answer += text;
        if args.json { Ok(true) } else { super::print_while_read(text) }
    };
    while written < args.max_tokens && model.past() < model.capacity() {
        let token = sampling.choose(&logits);
        if tokenizer.ends().contains(&token) {
            break;
        }
        let read = show(&stream.push(token)?)?;
        written += 1;
        progress::step();
        // Nobody would see the rest.
        if !read {
            break;
        }
        logits = model.read(&[token])?.logits;
    }
    let decoded = start.elapsed();
    print_profile(&model, "answer");
    show(&stream.finish()?)?;
    let (prompt, written) = (prompt.len(), written as usize);
    let (read, decoded) = (rate(prompt, read), rate(written, decoded));
    if args.json {
        let report = serde_json::json!({
            "text": answer, "compile_s": compiled.as_secs_f64(), "prompt_tokens": prompt,
            "prompt_tokens_per_s": read, "tokens": written, "tokens_per_s": decoded, "peak_rss_mb": peak_rss_mb(),
        });
        return super::print(&format!("{report}\n"));
    }
    super::print("\n")?;
    super::note(&format!("compiled in {:.2} s\n", compiled.as_secs_f64()));
    super::note(&format!("prompt: {prompt} tokens, {read:.1} tokens/s (packing included)\n"));
    super::note(&format!("answer: {written} tokens, {decoded:.1} tokens/s\n"));
    if let Some(peak) = peak_rss_mb() {
        super::note(&format!("peak memory: {peak} MB\n"));
    }
    Ok(())
}

/// A model that is ready to read its prompt.
struct Opened {
    tokenizer: Tokenizer,
    prompt: Vec<u32>,
    model: LanguageModel,
    /// How long it took to compile.
    compiled: Duration,
}

fn opened(args: &Args, options: &Options) -> Result<Opened, Diagnostic> {
    progress::stage("reading the model");
    let capacity = |context: usize, prompt: &[u32]| context.min(prompt.len().saturating_add(args.max_tokens as usize));
    if args.model.is_dir() {
        let folder = ModelFolder::open(&args.model)?;
        let files = folder.files()?;
        let tokenizer = folder.tokenizer(&files)?;
        let prompt = match files.chat.template {
            Some(_) if !args.raw => tokenizer.encode(&files.chat.prompt(&[("user", &args.prompt)], true)?)?,
            _plain => tokenizer.encode_with_special(&args.prompt)?,
        };
        progress::stage("compiling");
        let start = Instant::now();
        let model = folder.model(capacity(folder.context(), &prompt), options)?;
        return Ok(Opened { tokenizer, prompt, model, compiled: start.elapsed() });
    }
    let gguf = Gguf::open(&args.model)?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let chat = || Chat::from_gguf(&gguf)?.prompt(&[("user", args.prompt.as_str())], true);
    let text = if args.raw { args.prompt.clone() } else { chat()? };
    let prompt = tokenizer.encode(&text)?;
    let capacity = capacity(gguf.usize("llama.context_length").unwrap_or(2048), &prompt);
    progress::stage("compiling");
    let start = Instant::now();
    let model = LanguageModel::open(&gguf, capacity, Outputs::default(), options)?;
    Ok(Opened { tokenizer, prompt, model, compiled: start.elapsed() })
}

fn print_profile(model: &LanguageModel, what: &str) {
    if let Some(profile) = model.profile() {
        super::note(&format!("{what}:\n{profile}"));
        profile.clear();
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}
