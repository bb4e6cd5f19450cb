//! The set `smollm2`: SmolLM2-135M-Instruct on three prompts against recorded numbers, and its tokenizer.

use super::checks::{Checks, finish, floats, ids, model_file, read_index};
use super::forced::derivative;
use super::{Device, Options, Report, Runner};
use crate::compile;
use crate::formats::{Gguf, Safetensors, dequantise::dequantise, tokenizer::Tokenizer};
use crate::generate::{LanguageModel, Sampling};
use crate::models::{LlamaConfig, Outputs, WeightTypes, llama, rope_tables};
use serde::Deserialize;
use std::path::Path;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::Form;

/// Where the weights are, see [`model_file`].
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Largest absolute error of a logit. Runs in f32 and f64 differ by less than a tenth of this.
const LOGITS: f64 = 1e-3;

/// Largest error of a hidden state, as a part of the largest magnitude in it or of 1.
const HIDDEN: f64 = 1e-4;

/// Largest error of an element x of a hidden state, as a part of 1 + |x|. A few elements are 10,000 times as large as the
/// rest, so that [`HIDDEN`] alone would pass anything in the rest.
const HIDDEN_ELEMENT: f64 = 1e-3;

/// Largest absolute error of a loss.
const LOSS: f64 = 1e-5;

/// Largest error of a gradient's norm, and of each of its elements, as parts of the norm.
const GRADIENT: f64 = 1e-3;

/// Hidden states that are recorded: 0 is the embedding, K is what block K reads, 30 what the last block gives.
const STATES: [usize; 4] = [0, 1, 15, 30];

/// `smollm2.json`, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Index {
    prompts: Vec<Prompt>,
    tokenizer: Vec<Text>,
    grad: Gradients,
}

#[derive(Debug, Deserialize)]
struct Gradients {
    norm_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Prompt {
    text: String,
}

#[derive(Debug, Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

/// Runs the prompts and the tokenizer cases of `folder`. The interpreter runs the tokenizer cases only.
///
/// Errors: `model-file` without the weights; `device-unavailable`; `conformance-set` for a dtype that the set has no
/// numbers for; those of reading the set and the model. Failed cases are in the report.
pub fn smollm2(folder: &Path, options: &Options) -> Result<Report, Diagnostic> {
    if options.device == Device::Cuda {
        return Err(Diagnostic::new("device-unavailable", "the set smollm2 has no run on CUDA devices yet"));
    }
    if options.device == Device::Cpu && options.float != DType::F32 {
        let message = format!("the set smollm2 has tolerances for f32, found {}", options.float);
        return Err(Diagnostic::new("conformance-set", message));
    }
    let index = read_index(&folder.join("smollm2.json"))?;
    let file = Safetensors::open(folder.join("smollm2.safetensors"))?;
    let gguf = Gguf::open(model_file(folder, MODEL)?)?;
    let mut report = Report { set: "smollm2".into(), device: options.device.to_string(), ..Report::default() };
    finish("texts", texts(&index, &file, &gguf), &mut report);
    if options.device == Device::Interpreter {
        report.skipped += index.prompts.len();
        report.notes.push("prompts are skipped: the interpreter is too slow for a model of this size".into());
    } else {
        prompts(&index, &file, &gguf, options, &mut report)?;
    }
    if options.grads {
        finish("grad", gradients(&index, &file, &gguf, options), &mut report);
    }
    Ok(report)
}

/// Every text, prompts included, gives its ids.
fn texts(index: &Index, file: &Safetensors, gguf: &Gguf) -> Result<Checks, Diagnostic> {
    let tokenizer = Tokenizer::from_gguf(gguf)?;
    let mut checks = Checks::default();
    for case in &index.tokenizer {
        checks.equal(&format!("{:?}", case.text), &tokenizer.encode(&case.text)?, &case.ids);
    }
    for (j, prompt) in index.prompts.iter().enumerate() {
        let expected = ids(file, &format!("p{j}.ids"))?;
        checks.equal(&format!("{:?}", prompt.text), &tokenizer.encode(&prompt.text)?, &expected);
    }
    Ok(checks)
}

/// All prompts with one compiled model, whose capacity is that of the longest.
fn prompts(
    index: &Index,
    file: &Safetensors,
    gguf: &Gguf,
    options: &Options,
    report: &mut Report,
) -> Result<(), Diagnostic> {
    let mut capacity = 0;
    for j in 0..index.prompts.len() {
        let (read, written) = (ids(file, &format!("p{j}.ids"))?, ids(file, &format!("p{j}.greedy"))?);
        capacity = capacity.max(read.len() + written.len());
    }
    let host = compile::Options::host()?;
    let threads = options.threads.unwrap_or(host.threads);
    let (opt_level, numerics, rules) = (options.opt_level, options.numerics, options.rules.clone());
    let host = compile::Options { opt_level, numerics, threads, rules, ..host };
    let outputs = Outputs { all_logits: true, hidden_states: true, loss: false };
    let mut model = LanguageModel::open(gguf, capacity, outputs, &host)?;
    for j in 0..index.prompts.len() {
        model.reset();
        let name = format!("p{j}");
        finish(&name, prompt(&name, file, &mut model), report);
    }
    Ok(())
}

/// The mean loss of predicting each token of a text, and its gradients by all weights, which are f32: `grad.loss`,
/// `grad.norms`, `grad.NAME`, and corners `grad.NAME[:R,:C]`.
fn gradients(index: &Index, file: &Safetensors, gguf: &Gguf, options: &Options) -> Result<Checks, Diagnostic> {
    let tokens = file.tensor("grad.ids")?;
    let outputs = Outputs { loss: true, ..Outputs::default() };
    let config = LlamaConfig { outputs, ..LlamaConfig::from_gguf(gguf, tokens.len())? };
    let (cos, sin) = rope_tables(&config)?;
    let module = llama(&LlamaConfig { dtypes: WeightTypes::new(), ..config })?;
    let wrt: Vec<&str> = index.grad.norm_names.iter().map(String::as_str).collect();
    let start = Bindings::from([("past".into(), 0)]);
    let length = i64::try_from(tokens.len()).map_err(|_| Diagnostic::bug("more tokens than numbers"))?;
    let sizes = Bindings::from([("past".into(), 0), ("seq".into(), length)]);
    let made = derivative(&module, &wrt, Form::ValueAndGradient, options, &sizes)?;
    let entry = made.entry()?;
    let others = entry.results.len() - wrt.len();
    let inputs = entry.params.iter().map(|p| match &*p.name {
        "tokens" => Ok(tokens.clone()),
        "rope.cos" => Ok(cos.clone()),
        "rope.sin" => Ok(sin.clone()),
        name if name.starts_with("cache.") => {
            let shape = p.ty.concrete(&Bindings::new()).map_err(Diagnostic::bug)?;
            Array::from_f32(&shape, &vec![0.0; shape.iter().product()])
        }
        name => dequantise(&gguf.tensor(name)?),
    });
    let inputs = inputs.collect::<Result<Vec<Array>, Diagnostic>>()?;
    let results = Runner::new(&made, options)?.run_with(&inputs, &start)?;
    let mut checks = Checks::default();
    let numbers = |a: &Array| a.to_f64().ok_or_else(|| Diagnostic::bug("a gradient without numbers"));
    checks.close("grad.loss", &numbers(&results[0])?, &numbers(&file.tensor("grad.loss")?)?, |_| LOSS);
    let norms = numbers(&file.tensor("grad.norms")?)?;
    for ((name, norm), found) in wrt.iter().zip(norms).zip(&results[others..]) {
        let values = numbers(found)?;
        let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        checks.close(&format!("norm of {name}"), &[length], &[norm], |_| GRADIENT * norm);
        for recorded in file.names().filter_map(|n| n.strip_prefix("grad.")?.strip_prefix(name)) {
            let expected = file.tensor(&format!("grad.{name}{recorded}"))?;
            let columns = expected.shape().last().copied().unwrap_or(1);
            let width = found.shape().last().copied().unwrap_or(1);
            let corner: Vec<f64> =
                values.chunks_exact(width).flat_map(|row| &row[..columns]).copied().take(expected.len()).collect();
            checks.close(&format!("grad.{name}{recorded}"), &corner, &numbers(&expected)?, |_| GRADIENT * norm);
        }
    }
    Ok(checks)
}

/// The prompt in one call, then the greedy tokens in calls of one token.
fn prompt(name: &str, file: &Safetensors, model: &mut LanguageModel) -> Result<Checks, Diagnostic> {
    let mut checks = Checks::default();
    let tokens = ids(file, &format!("{name}.ids"))?;
    let step = model.read(&tokens)?;
    let rows = rows(&step.logits, tokens.len())?;
    let (first, last) = (rows[0], rows[rows.len() - 1]);
    checks.close("last logits", last, &floats(file, &format!("{name}.last.logits"))?, |_| LOGITS);
    for (place, logits) in [("first", first), ("last", last)] {
        let expected = ids(file, &format!("{name}.{place}.top20_ids"))?;
        let top = largest(logits, expected.len());
        checks.equal(&format!("largest {place} logits"), &top, &expected);
        let found: Vec<f32> = top.iter().map(|&i| logits[i as usize]).collect();
        let expected = floats(file, &format!("{name}.{place}.top20_logits"))?;
        checks.close(&format!("largest {place} logits"), &found, &expected, |_| LOGITS);
    }
    let argmax: Vec<u32> = rows.iter().map(|r| Sampling::greedy().choose(r)).collect();
    checks.equal("argmax", &argmax, &ids(file, &format!("{name}.argmax"))?);
    for k in STATES {
        let expected = floats(file, &format!("{name}.hidden.{k}"))?;
        let size = expected.iter().fold(1f64, |m, x| m.max(f64::from(x.abs())));
        let missing = || Diagnostic::new("conformance-result", format!("there is no hidden state {k}"));
        let tolerance = |x: f64| (HIDDEN * size).min(HIDDEN_ELEMENT * (1.0 + x.abs()));
        checks.close(&format!("hidden {k}"), step.hidden.get(k).ok_or_else(missing)?, &expected, tolerance);
    }
    greedy(name, file, model, last, &mut checks)?;
    Ok(checks)
}

/// Compares the greedy tokens, and the logit of each, after `logits`. Each token is the model's own choice.
fn greedy(
    name: &str,
    file: &Safetensors,
    model: &mut LanguageModel,
    logits: &[f32],
    checks: &mut Checks,
) -> Result<(), Diagnostic> {
    let expected = ids(file, &format!("{name}.greedy"))?;
    let (mut written, mut found, mut logits) = (Vec::new(), Vec::new(), logits.to_vec());
    while written.len() < expected.len() {
        let token = Sampling::greedy().choose(&logits);
        written.push(token);
        found.push(logits[token as usize]);
        if written.len() < expected.len() {
            logits = model.read(&[token])?.logits;
        }
    }
    checks.equal("greedy tokens", &written, &expected);
    checks.close("greedy logits", &found, &floats(file, &format!("{name}.greedy_logit"))?, |_| LOGITS);
    Ok(())
}

/// `logits` cut into `count` rows of one length, none of them empty.
fn rows(logits: &[f32], count: usize) -> Result<Vec<&[f32]>, Diagnostic> {
    let width = logits.len().checked_div(count).unwrap_or(0);
    if width == 0 || width * count != logits.len() {
        let message = format!("expected logits for {count} tokens, found {} numbers", logits.len());
        return Err(Diagnostic::new("conformance-result", message));
    }
    Ok(logits.chunks_exact(width).collect())
}

/// Ids of the `count` largest logits, the largest first; the smaller id first of equals.
fn largest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_logits_in_order() {
        assert_eq!(largest(&[0.5, 2.0, -1.0, 2.0], 3), [1, 3, 0]);
        assert!(rows(&[0.0; 6], 4).is_err() && rows(&[], 0).is_err());
    }
}
