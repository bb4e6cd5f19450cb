//! A folder as Hugging Face and sentence-transformers lay it out.

use crate::formats::{Checkpoint, Safetensors, map_file, tokenizer::Tokenizer};
use crate::models::{EncoderConfig, EncoderFamily, bind_checkpoint};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::Module;

/// Tables of words are often padded to a multiple of this.
const TABLE_STEP: usize = 128;

/// An encoder on disk: `config.json`, `model.safetensors` and, for texts, `tokenizer.json`.
pub struct EncoderFolder {
    /// What `config.json` says.
    pub config: EncoderConfig,
    path: PathBuf,
    weights: Checkpoint,
    /// Before all names but those of heads: `bert.` in files of models with a head, else empty.
    prefix: &'static str,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
}

impl EncoderFolder {
    /// Opens the model; no weights are read.
    ///
    /// Errors: `file`; `model-config`; `pooling` if `1_Pooling/config.json` asks for another than that of means; those of
    /// safetensors files.
    pub fn open(path: &Path) -> Result<EncoderFolder, Diagnostic> {
        if !path.is_dir() {
            let found = if path.exists() { "a file" } else { "nothing" };
            let message =
                format!("expected a folder with config.json, model.safetensors and tokenizer.json, found {found}");
            return Err(Diagnostic::new("file", message).at(Place::Named(path.display().to_string().into()), ""));
        }
        let config = path.join("config.json");
        let config = EncoderConfig::from_json(&config.display().to_string(), &map_file(&config)?, None)?;
        check_pooling(&path.join("1_Pooling/config.json"))?;
        let weights = Safetensors::open(path.join("model.safetensors"))?;
        Ok(EncoderFolder::new(config, path.into(), weights))
    }

    /// A model whose configuration and weights are at hand; `path` is where the tokenizer is.
    pub fn new(config: EncoderConfig, path: PathBuf, weights: Safetensors) -> EncoderFolder {
        let prefix = match config.family {
            EncoderFamily::Bert => "bert.",
            EncoderFamily::Albert => "albert.",
        };
        let prefix = if weights.names().any(|n| n.starts_with(prefix)) { prefix } else { "" };
        EncoderFolder { config, path, weights: Checkpoint::Safetensors(weights), prefix }
    }

    /// The weights of `module`, made from this folder's configuration. Weights of heads that are not used and buffers
    /// that are no weights may be there, too.
    ///
    /// Errors: `weight-mismatch`; those of the checkpoint.
    pub fn weights(&self, module: &Module) -> Result<BTreeMap<String, Array>, Diagnostic> {
        let is_head = |name: &str| HEADS.iter().any(|h| name.starts_with(h));
        let rename = |name: &str| self.checkpoint_name(name);
        let spare = |name: &str| {
            let inner = name.strip_prefix(self.prefix).unwrap_or(name);
            is_head(name) || SPARE.iter().any(|s| inner.starts_with(s))
        };
        let file = self.path.join("model.safetensors").display().to_string();
        bind_checkpoint(&self.weights, module, rename, spare).map_err(|d| match d.labels.is_empty() {
            true => d.at(Place::Named(file.into()), ""),
            false => d,
        })
    }

    /// The name in the checkpoint of a weight of the module.
    pub fn checkpoint_name(&self, weight: &str) -> String {
        let is_head = HEADS.iter().any(|h| weight.starts_with(h));
        if is_head { weight.to_string() } else { format!("{}{weight}", self.prefix) }
    }

    /// Whether there is a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        self.path.join("tokenizer.json").exists()
    }

    /// The tokenizer. Errors: `file`, `tokenizer`; `vocabulary` if it has ids that the model's table lacks, or the table
    /// more rows than padding explains.
    pub fn tokenizer(&self) -> Result<Tokenizer, Diagnostic> {
        let path = self.path.join("tokenizer.json");
        let tokenizer = Tokenizer::open(&path)?;
        let (tokens, rows) = (tokenizer.vocabulary_size(), self.config.vocabulary);
        if tokens > rows || rows > tokens.next_multiple_of(TABLE_STEP) {
            let message =
                format!("the tokenizer has {tokens} tokens, the model has embeddings for {rows} (vocab_size)");
            let error = Diagnostic::new("vocabulary", message).at(Place::Named(path.display().to_string().into()), "");
            return Err(error.note("the tokenizer belongs to another model"));
        }
        Ok(tokenizer)
    }

    /// Tokens of the longest text: `max_seq_length` of `sentence_bert_config.json` where it is, at most the positions.
    ///
    /// Errors: `file`; `model-config` for a limit that is no positive number.
    pub fn max_length(&self) -> Result<usize, Diagnostic> {
        let path = self.path.join("sentence_bert_config.json");
        let limits: Option<Limits> = read_optional(&path)?;
        let length = limits.and_then(|l| l.max_seq_length).unwrap_or(self.config.positions);
        if length == 0 {
            let error = Diagnostic::new("model-config", "max_seq_length: expected at least 1, found 0");
            return Err(error.at(Place::Named(path.display().to_string().into()), ""));
        }
        Ok(length.min(self.config.positions))
    }
}

/// Where the names of heads start, which have no prefix.
const HEADS: &[&str] = &["cls.", "predictions.", "sop_classifier.", "classifier."];

/// Tensors of the body that an embedding does not use.
const SPARE: &[&str] = &["pooler.", "embeddings.position_ids", "embeddings.token_type_ids"];

/// Refuses folders whose embeddings are not means: to compute means anyway would be silently wrong.
fn check_pooling(path: &Path) -> Result<(), Diagnostic> {
    let modes: BTreeMap<String, serde_json::Value> = read_optional(path)?.unwrap_or_default();
    let is_on = |key: &String| key.starts_with("pooling_mode_") && modes[key] == true;
    match modes.keys().find(|k| is_on(k) && *k != "pooling_mode_mean_tokens") {
        Some(mode) => {
            let message = format!("expected the pooling `pooling_mode_mean_tokens`, found `{}`", mode.escape_debug());
            Err(Diagnostic::new("pooling", message).at(Place::Named(path.display().to_string().into()), ""))
        }
        None => Ok(()),
    }
}

/// The JSON file at `path`, if there is one.
fn read_optional<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Diagnostic> {
    if !path.exists() {
        return Ok(None);
    }
    let json = serde_json::from_slice(&map_file(path)?).map_err(|e| {
        let error = Diagnostic::new("model-config", format!("expected a JSON object: {e}"));
        error.at(Place::Named(path.display().to_string().into()), "")
    })?;
    Ok(Some(json))
}
