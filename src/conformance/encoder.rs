//! The sets `minilm` (sentence embeddings by a BERT) and `rxn_albert` (logits of an ALBERT).
//!
//! Every `.safetensors` file of the folder but the weights is a case: `input_ids` and `attention_mask`, and what other
//! people's code computed from them, as far as it is there: `logits`, `embeddings`, `embeddings_f64`, `cosine_f64`,
//! `hidden.K` (0 is the embedding, K what layer K gives), `attention.K`. Rows of padding are not compared. The `.json`
//! file of the same name may have texts with the ids that the tokenizer must give.

use super::checks::{Checks, finish, model_file, read_index};
use super::forced::derivative;
use super::{Options, Report, Runner};
use crate::embed::EncoderFolder;
use crate::formats::{Safetensors, map_file};
use crate::models::{EncoderConfig, EncoderFamily, EncoderHead, encoder};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::Form;

/// Where models are that a set lacks, see [`model_file`].
const MINILM: &str = "models/minilm";
const RXN_ALBERT: &str = "models/rxn_albert";

/// Ends of the names of weights and configuration in a set's own folder.
const WEIGHTS: &str = "_weights.safetensors";
const CONFIG: &str = "_config.json";

/// Largest absolute errors. Runs in f32 and f64 differ by a tenth of these or less.
const LOGITS: f64 = 1e-3;
const HIDDEN: f64 = 1e-4;
const PROBABILITIES: f64 = 1e-4;
const EMBEDDING: f64 = 1e-5;
/// Of a run in f64 from a run in f64.
const EMBEDDING_F64: f64 = 1e-9;

/// Of a loss.
const LOSS: f64 = 1e-5;
/// Of a gradient, as parts of its norm.
const GRADIENT: f64 = 1e-3;
const GRADIENT_F64: f64 = 1e-6;
/// Smaller norms count as this part of the largest: a bias that softmax does not see has a gradient of rounding errors.
const LEAST_GRADIENT: f64 = 1e-3;

/// The `.json` file of a case, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    sentences: Vec<Text>,
}

#[derive(Debug, Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

/// Runs the cases of `folder` with the model in `models/minilm`.
///
/// Errors: `model-file` without the model; `conformance-set` for a dtype other than f32 and f64, or a folder without cases;
/// those of reading the set and the model. Failed cases are in the report.
pub fn minilm(folder: &Path, options: &Options) -> Result<Report, Diagnostic> {
    set("minilm", folder, EncoderFolder::open(&model_file(folder, MINILM)?)?, options)
}

/// Runs the cases of `folder` with the weights that are there, or else with the model in `models/rxn_albert`.
///
/// Errors: as for [`minilm`].
pub fn rxn_albert(folder: &Path, options: &Options) -> Result<Report, Diagnostic> {
    let files = files(folder)?;
    let ending = |end: &str| files.iter().find(|p| p.to_string_lossy().ends_with(end));
    let model = match (ending(WEIGHTS), ending(CONFIG)) {
        (Some(weights), Some(config)) => {
            let name = config.display().to_string();
            let config = EncoderConfig::from_json(&name, &map_file(config)?, Some(EncoderFamily::Albert))?;
            EncoderFolder::new(config, folder.into(), Safetensors::open(weights)?)
        }
        _ => EncoderFolder::open(&model_file(folder, RXN_ALBERT)?)?,
    };
    set("rxn_albert", folder, model, options)
}

/// The files of `folder`, sorted. Errors: `file`.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let failed = |e: std::io::Error| {
        let error = Diagnostic::new("file", format!("cannot read the folder: {e}"));
        error.at(Place::Named(folder.display().to_string().into()), "")
    };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut found = entries.map(|e| Ok(e.map_err(failed)?.path())).collect::<Result<Vec<_>, _>>()?;
    found.sort();
    Ok(found)
}

fn set(name: &str, folder: &Path, mut model: EncoderFolder, options: &Options) -> Result<Report, Diagnostic> {
    if !matches!(options.float, DType::F32 | DType::F64) {
        let message = format!("the set {name} has tolerances for f32 and f64, found {}", options.float);
        return Err(Diagnostic::new("conformance-set", message));
    }
    model.config.float = options.float;
    let mut cases = files(folder)?;
    cases.retain(|p| p.extension().is_some_and(|e| e == "safetensors") && !p.to_string_lossy().ends_with(WEIGHTS));
    if cases.is_empty() {
        let message = format!("the set {name} has no cases in {}", folder.display());
        return Err(Diagnostic::new("conformance-set", message));
    }
    let mut report = Report { set: name.into(), device: options.device.to_string(), ..Report::default() };
    for path in cases {
        let case = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        finish(&case, run(&path, &model, options), &mut report);
        if options.grads && has_gradients(&path)? {
            finish(&format!("{case} grad"), gradients(&path, &model, options), &mut report);
        }
    }
    Ok(report)
}

/// The inputs of a case and what is known of it.
struct Case {
    file: Safetensors,
    tokens: Array,
    mask: Vec<bool>,
    /// Rows and columns of the tokens.
    shape: [usize; 2],
    /// The numbers K of the tensors `hidden.K` and `attention.K`.
    hidden: Vec<usize>,
    attention: Vec<usize>,
}

impl Case {
    fn open(path: &Path) -> Result<Case, Diagnostic> {
        let file = Safetensors::open(path)?;
        let wrong = |what: &str| Diagnostic::new("conformance-index", format!("{}: {what}", path.display()));
        let tokens = file.tensor("input_ids")?;
        let mask = file.tensor("attention_mask")?;
        let shape = <[usize; 2]>::try_from(tokens.shape()).ok().filter(|_| tokens.dtype() == DType::I64);
        let shape = shape.filter(|s| s[0] > 0 && s[1] > 0);
        let shape = shape.ok_or_else(|| wrong("expected `input_ids` as i64 with rows and columns"))?;
        if mask.shape() != shape {
            return Err(wrong("expected `attention_mask` in the shape of `input_ids`"));
        }
        let mask = mask.to_f64().ok_or_else(|| wrong("expected numbers in `attention_mask`"))?;
        let mask = mask.iter().map(|m| *m != 0.0).collect();
        let numbers = |prefix: &str| file.names().filter_map(|n| n.strip_prefix(prefix)?.parse().ok()).collect();
        let (hidden, attention) = (numbers("hidden."), numbers("attention."));
        Ok(Case { file, tokens, mask, shape, hidden, attention })
    }

    fn has(&self, name: &str) -> bool {
        self.file.names().any(|n| n == name)
    }

    /// Compares with the tensor `name` where the mask shows: both are `[batch, .., seq, n]`.
    fn compare(&self, name: &str, found: &Array, tolerance: f64, checks: &mut Checks) -> Result<(), Diagnostic> {
        let expected = self.file.tensor(name)?;
        if found.shape() != expected.shape() {
            checks.fail(format!("{name}: expected the shape {:?}, found {:?}", expected.shape(), found.shape()));
            return Ok(());
        }
        let (found, expected) = (self.shown(found)?, self.shown(&expected)?);
        checks.close(name, &found, &expected, |_| tolerance);
        Ok(())
    }

    /// The rows of `array` that the mask shows.
    fn shown(&self, array: &Array) -> Result<Vec<f64>, Diagnostic> {
        let values = numbers(array)?;
        let [batch, seq] = self.shape;
        let columns = array.shape().last().copied().unwrap_or(1);
        let groups = (values.len() / columns.max(1)).checked_div(batch * seq).unwrap_or(0);
        let rows = values.chunks_exact(columns.max(1)).enumerate();
        let is_shown = |row: usize| self.mask.get(row / (groups.max(1) * seq) * seq + row % seq).copied() == Some(true);
        Ok(rows.filter(|(row, _)| is_shown(*row)).flat_map(|(_, values)| values).copied().collect())
    }

    /// Tokens and mask of one row, without its padding; none if that is not at the end.
    fn alone(&self, row: usize) -> Result<Option<[Array; 2]>, Diagnostic> {
        let seq = self.shape[1];
        let mask = &self.mask[row * seq..(row + 1) * seq];
        let length = mask.iter().filter(|m| **m).count();
        if length == 0 || !mask[..length].iter().all(|m| *m) {
            return Ok(None);
        }
        let ids: Vec<i64> = numbers(&self.tokens)?[row * seq..row * seq + length].iter().map(|t| *t as i64).collect();
        Ok(Some([Array::from_i64(&[1, length], &ids)?, Array::from_bool(&[1, length], &vec![true; length])?]))
    }
}

fn numbers(array: &Array) -> Result<Vec<f64>, Diagnostic> {
    let wrong = || Diagnostic::new("conformance-result", format!("expected numbers, found {}", array.dtype()));
    array.to_f64().ok_or_else(wrong)
}

fn run(path: &Path, model: &EncoderFolder, options: &Options) -> Result<Checks, Diagnostic> {
    let case = Case::open(path)?;
    let mut checks = Checks::default();
    texts(path, model, &mut checks)?;
    let head = if case.has("logits") { EncoderHead::Logits } else { EncoderHead::Embedding };
    let (hidden_states, attention) = (!case.hidden.is_empty(), case.attention.clone());
    let config = EncoderConfig { head, hidden_states, attention, ..model.config.clone() };
    let module = encoder(&config)?;
    let runner = Runner::new(&module, options)?;
    let inputs = Inputs { module: &module, weights: model.weights(&module)? };
    let mask = Array::from_bool(&case.shape, &case.mask)?;
    let mut results = runner.run(&inputs.with([case.tokens.clone(), mask])?)?.into_iter();
    let first = results.next().ok_or_else(|| Diagnostic::new("conformance-result", "there are no results"))?;
    let states: Vec<Array> = results.by_ref().take(if hidden_states { config.layers + 1 } else { 0 }).collect();
    for &k in &case.hidden {
        match states.get(k) {
            Some(state) => case.compare(&format!("hidden.{k}"), state, HIDDEN, &mut checks)?,
            None => checks.fail(format!("there is no hidden state {k}")),
        }
    }
    for (k, found) in case.attention.iter().zip(results) {
        case.compare(&format!("attention.{k}"), &found, PROBABILITIES, &mut checks)?;
    }
    match head {
        EncoderHead::Logits => case.compare("logits", &first, LOGITS, &mut checks)?,
        EncoderHead::Embedding => embeddings(&case, &first, &runner, &inputs, &mut checks)?,
        EncoderHead::Loss => return Err(Diagnostic::bug("a case of outputs has no targets")),
    }
    Ok(checks)
}

/// Whether a case has recorded gradients.
fn has_gradients(path: &Path) -> Result<bool, Diagnostic> {
    Ok(Safetensors::open(path)?.names().any(|n| n == "grad_loss"))
}

/// The loss of predicting every token that is no padding, and its gradients: `grad_loss`, `gradnorm.K` for the norm of the
/// gradient of weight K, `grad.K` for all of it.
fn gradients(path: &Path, model: &EncoderFolder, options: &Options) -> Result<Checks, Diagnostic> {
    let case = Case::open(path)?;
    let mut checks = Checks::default();
    let config = EncoderConfig { head: EncoderHead::Loss, hidden_states: false, ..model.config.clone() };
    let module = encoder(&EncoderConfig { attention: Vec::new(), ..config })?;
    let weights: Vec<String> =
        module.entry()?.params.iter().filter(|p| p.role == Role::Weight).map(|p| p.name.to_string()).collect();
    let wrt: Vec<&str> = weights.iter().map(String::as_str).collect();
    let size = |at: usize| case.shape.get(at).map_or(1, |&n| n as i64);
    let sizes = Bindings::from([("batch".into(), size(0)), ("seq".into(), size(1))]);
    let made = derivative(&module, &wrt, Form::ValueAndGradient, options, &sizes)?;
    let inputs = Inputs { module: &made, weights: model.weights(&module)? };
    let mask = Array::from_bool(&case.shape, &case.mask)?;
    let inputs = inputs.with([case.tokens.clone(), mask, case.tokens.clone()])?;
    let results = Runner::new(&made, options)?.run(&inputs)?;
    let results = results.iter().map(numbers).collect::<Result<Vec<Vec<f64>>, Diagnostic>>()?;
    let Some((loss, found)) = results.split_first() else { return Err(Diagnostic::bug("a loss without a result")) };
    checks.close("grad_loss", loss, &numbers(&case.file.tensor("grad_loss")?)?, |_| LOSS);
    let part = if options.float == DType::F64 { GRADIENT_F64 } else { GRADIENT };
    let recorded = |kind: &str, weight: &str| {
        let name = format!("{kind}.{}", model.checkpoint_name(weight));
        if case.has(&name) { Ok(Some(numbers(&case.file.tensor(&name)?)?)) } else { Ok(None) }
    };
    let norms = weights.iter().map(|w| recorded("gradnorm", w)).collect::<Result<Vec<_>, Diagnostic>>()?;
    let norms: Vec<Option<f64>> = norms.into_iter().map(|n| n.and_then(|n| n.first().copied())).collect();
    let least = norms.iter().flatten().fold(0f64, |m, n| m.max(*n)) * LEAST_GRADIENT;
    for ((weight, norm), found) in weights.iter().zip(norms).zip(found) {
        let Some(norm) = norm else { continue };
        let tolerance = part * norm.max(least);
        let length = found.iter().map(|x| x * x).sum::<f64>().sqrt();
        checks.close(&format!("gradnorm.{weight}"), &[length], &[norm], |_| tolerance);
        if let Some(expected) = recorded("grad", weight)? {
            checks.close(&format!("grad.{weight}"), found, &expected, |_| tolerance);
        }
    }
    Ok(checks)
}

/// Texts give their ids, where there are a tokenizer and texts.
fn texts(path: &Path, model: &EncoderFolder, checks: &mut Checks) -> Result<(), Diagnostic> {
    let index = path.with_extension("json");
    if !index.is_file() || !model.has_tokenizer() {
        return Ok(());
    }
    let index: Index = read_index(&index)?;
    let tokenizer = model.tokenizer()?;
    for text in &index.sentences {
        checks.equal(&format!("{:?}", text.text), &tokenizer.encode_with_special(&text.text)?, &text.ids);
    }
    Ok(())
}

/// Compares embeddings with what is there of them, and with those of each text alone.
fn embeddings(
    case: &Case,
    found: &Array,
    runner: &Runner<'_>,
    inputs: &Inputs<'_>,
    checks: &mut Checks,
) -> Result<(), Diagnostic> {
    let tolerance = if found.dtype() == DType::F64 { EMBEDDING_F64 } else { EMBEDDING };
    let values = numbers(found)?;
    for (name, tolerance) in [("embeddings", EMBEDDING), ("embeddings_f64", tolerance)] {
        if case.has(name) {
            checks.close(name, &values, &numbers(&case.file.tensor(name)?)?, |_| tolerance);
        }
    }
    let width = values.len() / case.shape[0];
    if case.has("cosine_f64") {
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let rows = || values.chunks_exact(width.max(1));
        let cosines: Vec<f64> = rows().flat_map(|a| rows().map(move |b| product(a, b))).collect();
        checks.close("cosine_f64", &cosines, &numbers(&case.file.tensor("cosine_f64")?)?, |_| tolerance);
    }
    for (row, expected) in values.chunks_exact(width.max(1)).enumerate() {
        let Some(alone) = case.alone(row)? else { continue };
        let alone = runner.run(&inputs.with(alone)?)?;
        let alone = alone.first().map(numbers).transpose()?.unwrap_or_default();
        checks.close(&format!("text {row} alone"), &alone, expected, |_| tolerance);
    }
    Ok(())
}

/// The parameters of a module beside tokens and mask.
struct Inputs<'a> {
    module: &'a Module,
    weights: std::collections::BTreeMap<String, Array>,
}

impl Inputs<'_> {
    fn with<const N: usize>(&self, inputs: [Array; N]) -> Result<Vec<Array>, Diagnostic> {
        let mut inputs = inputs.into_iter();
        let params = self.module.entry()?.params.iter();
        let arrays = params.map(|p| match p.role {
            Role::Weight => self.weights.get(&*p.name).cloned(),
            Role::Input | Role::Donated => inputs.next(),
        });
        arrays.collect::<Option<_>>().ok_or_else(|| Diagnostic::bug("an encoder has parameters without a value"))
    }
}
