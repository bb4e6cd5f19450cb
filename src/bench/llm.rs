//! A language model from a GGUF file: prompts of 128 and 512 tokens, greedy decoding of 64 tokens after 16 and after 512.

use super::machine::{Others, peak_rss_mb};
use super::{More, Row, Setup, Times, digits, rate, row};
use crate::formats::Gguf;
use crate::generate::{LanguageModel, Sampling};
use crate::models::Outputs;
use std::path::Path;
use std::time::{Duration, Instant};
use tilewright_ir::diag::Diagnostic;

/// Runs that count; one more warms up.
const RUNS: usize = 5;
const DECODED: usize = 64;
const CONTEXT: usize = 1024;
const PROMPTS: [usize; 3] = [16, 128, 512];

/// Two sentences in the tokens of SmolLM2, which prompts repeat.
const SENTENCES: [u32; 14] = [378, 3575, 282, 4649, 314, 7042, 30, 378, 3575, 282, 4521, 314, 11452, 30];

/// Measures the model in `file`, and hands each row over. `tokens` are the first ones after 512.
///
/// Errors: those of the file, of the compiler and of `show`; `token` for a vocabulary of less than 11453.
pub fn llm(file: &Path, setup: &Setup, mut show: impl FnMut(Row) -> Result<(), Diagnostic>) -> Result<(), Diagnostic> {
    let start = Instant::now();
    let gguf = Gguf::open(file)?;
    let mut model = LanguageModel::open(&gguf, CONTEXT, Outputs::default(), &setup.options)?;
    let load = digits(start.elapsed().as_secs_f64(), 3);
    let mut reads: [Vec<Duration>; 3] = Default::default();
    let mut decodes: [Vec<Duration>; 3] = Default::default();
    let mut tokens = Vec::new();
    let mut others = Others::watch();
    for run in 0..=RUNS {
        if run == 1 {
            others = Others::watch();
            reads.iter_mut().chain(&mut decodes).for_each(Vec::clear);
        }
        for (i, length) in PROMPTS.into_iter().enumerate() {
            let prompt: Vec<u32> = SENTENCES.iter().copied().cycle().take(length).collect();
            model.reset();
            let start = Instant::now();
            let mut logits = model.read(&prompt)?.logits;
            reads[i].push(start.elapsed());
            if length == 128 {
                continue;
            }
            tokens.clear();
            let start = Instant::now();
            for _ in 0..DECODED {
                let token = Sampling::greedy().choose(&logits);
                tokens.push(token);
                logits = model.read(&[token])?.logits;
            }
            decodes[i].push(start.elapsed());
        }
    }
    for i in [1, 2] {
        let times = Times::of(std::mem::take(&mut reads[i]), &others);
        let more = More { tokens_s: rate(PROMPTS[i], times.median), ..More::default() };
        show(row("llm_prefill", PROMPTS[i].to_string(), &times, setup, more))?;
    }
    for (i, name) in [(0, "llm_decode_short"), (2, "llm_decode")] {
        let times = Times::of(std::mem::take(&mut decodes[i]), &others);
        let more = More {
            tokens_s: rate(DECODED, times.median),
            load_s: Some(load),
            peak_rss_mb: peak_rss_mb(),
            tokens: Some(tokens.iter().copied().take(8).collect()),
            ..More::default()
        };
        show(row(name, format!("{DECODED} after {}", PROMPTS[i]), &times, setup, more))?;
    }
    Ok(())
}
