//! What `tilewright train` is told: a TOML file.

mod model;
mod optimiser;

pub use model::{Family, LoraConfig, ModelConfig};
pub use optimiser::{OptimiserConfig, ScheduleConfig, ScheduleKind};

use super::budget::CheckpointConfig;
use super::precision::{LossScaleConfig, Precision};
use super::validation::ValidationConfig;
use crate::formats::{read_text, shown};
use crate::models::decoder::Lora;
use crate::optim::Schedule;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};

/// A whole run. Paths are relative to the folder of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where checkpoints, metrics and the model are written.
    pub out: PathBuf,
    /// Of first weights, of the order of the data, of dropout.
    #[serde(default)]
    pub seed: u64,
    /// The model.
    pub model: ModelConfig,
    /// What it learns.
    pub data: DataConfig,
    /// Batches and steps.
    pub train: TrainConfig,
    /// How weights move.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// How fast.
    pub schedule: ScheduleConfig,
    /// Adapters instead of all weights.
    pub lora: Option<LoraConfig>,
    /// How the loss is scaled where products are f16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScaleConfig>,
    /// What is kept.
    #[serde(default)]
    pub save: SaveConfig,
    /// See [`Config::fingerprint`].
    #[serde(skip)]
    run: serde_json::Value,
}

/// Text or tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text files, joined.
    #[serde(default)]
    pub text: Vec<PathBuf>,
    /// Files of tokens, little-endian one after the other, which are mapped into memory.
    #[serde(default)]
    pub tokens: Vec<PathBuf>,
    /// How these are stored; u16 if absent.
    #[serde(default, skip_serializing_if = "TokenType::is_narrow")]
    pub token_type: TokenType,
    /// `characters` (those of the text), or a `tokenizer.json`. If absent that of the folder that the model is from, else characters.
    pub tokenizer: Option<PathBuf>,
    /// What the model is tested on: a part of the data, or files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationConfig>,
}

/// How tokens are stored in files.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// Two bytes, for vocabularies of at most 65,536.
    #[default]
    U16,
    /// Four bytes.
    U32,
}

impl TokenType {
    // Such runs are described without it, as those were that began before there was a choice.
    fn is_narrow(&self) -> bool {
        *self == TokenType::U16
    }

    /// Bytes of a token.
    pub fn bytes(self) -> usize {
        match self {
            TokenType::U16 => 2,
            TokenType::U32 => 4,
        }
    }

    /// As a configuration has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            TokenType::U16 => "u16",
            TokenType::U32 => "u32",
        }
    }
}

/// Batches and steps.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Steps of the whole run.
    pub steps: u64,
    /// Sequences of a step.
    pub batch: usize,
    /// Parts of a batch that are computed one after the other, to save memory.
    #[serde(default = "one")]
    pub parts: usize,
    /// What is computed again on the way back instead of kept, to save memory; nothing if absent.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// What is dropped after the embedding and at the end of each half of a block.
    #[serde(default)]
    pub dropout: f64,
    /// The most that the norm over all gradients may be; 1 if absent, 0 for no limit.
    #[serde(default = "unit")]
    pub clip: f64,
    /// What averages of the weights keep at a step; no averages if absent.
    pub average: Option<f64>,
    /// In what products of matrices compute; weights, moments and statistics are f32. f32 if absent.
    #[serde(default, skip_serializing_if = "Precision::is_full")]
    pub precision: Precision,
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

/// Checkpoints and metrics.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SaveConfig {
    /// Steps between checkpoints.
    pub every: u64,
    /// How many of the last ones stay.
    pub keep: usize,
    /// Steps between lines of metrics.
    pub metrics: u64,
    /// Steps between losses on `data.validation`.
    // Of no run's description, as some began before it was.
    #[serde(skip_serializing)]
    pub validation: u64,
}

impl Default for SaveConfig {
    fn default() -> SaveConfig {
        SaveConfig { every: 200, keep: 2, metrics: 10, validation: 100 }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// Errors: `file`, `text`; `train-config` for what is no such TOML (an unknown key with the nearest known one), and numbers
    /// that cannot be.
    pub fn open(path: &Path) -> Result<Config, Diagnostic> {
        let name = path.display().to_string();
        let mut config = Config::parse(&name, &read_text(path)?)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let tested = match &mut config.data.validation {
            Some(ValidationConfig::Files(files)) => files.iter_mut(),
            _none => Default::default(),
        };
        let data = config.data.text.iter_mut().chain(&mut config.data.tokens).chain(tested);
        for p in data.chain([&mut config.out]).chain(&mut config.model.from) {
            *p = folder.join(&*p);
        }
        if let Some(tokenizer) = config.data.tokenizer.as_mut().filter(|t| t.as_os_str() != CHARACTERS) {
            *tokenizer = folder.join(&*tokenizer);
        }
        Ok(config)
    }

    /// Like [`Config::open`], from text, with paths as they are.
    pub fn parse(name: &str, text: &str) -> Result<Config, Diagnostic> {
        let mut config: Config = toml::from_str(text).map_err(|e| wrong(name, text, &e))?;
        // With paths as the file has them, so that it does not matter from where it is named.
        config.run = config.described()?;
        config.check().map_err(|d| d.at(Place::Named(name.into()), ""))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Diagnostic> {
        let (train, save) = (&self.train, &self.save);
        let number = |key: &str, ok: bool, expected: &str, found: String| {
            let message = format!("{key}: expected {expected}, found {found}");
            if ok { Ok(()) } else { Err(Diagnostic::new("train-config", message)) }
        };
        for (key, n) in [
            ("train.steps", train.steps),
            ("train.batch", train.batch as u64),
            ("train.parts", train.parts as u64),
            ("save.every", save.every),
            ("save.keep", save.keep as u64),
            ("save.metrics", save.metrics),
            ("save.validation", save.validation),
        ] {
            number(key, (1..=1 << 40).contains(&n), "1 to 2^40", n.to_string())?;
        }
        let divides = train.batch.is_multiple_of(train.parts);
        number("train.parts", divides, &format!("a divisor of the batch {}", train.batch), train.parts.to_string())?;
        number("train.clip", train.clip >= 0.0, "0 or more", train.clip.to_string())?;
        let parts = [("train.dropout", train.dropout), ("train.average", train.average.unwrap_or(0.0))];
        for (key, x) in parts.into_iter().chain(self.optimiser.kept()) {
            number(key, (0.0..1.0).contains(&x), "at least 0 and less than 1", x.to_string())?;
        }
        for (key, x) in self.optimiser.factors() {
            number(key, x.is_finite() && x >= 0.0, "a number of 0 or more", x.to_string())?;
        }
        if let OptimiserConfig::Sgd { momentum: 0.0, nesterov: true, .. } = self.optimiser {
            number("optimiser.nesterov", false, "optimiser.momentum above 0 beside it", "0".into())?;
        }
        let peak = self.schedule.peak;
        number("schedule.peak", peak.is_finite() && peak > 0.0, "a number above 0", peak.to_string())?;
        self.schedule.check(train.steps)?;
        let rank = self.lora.as_ref().map_or(1, |l| l.rank);
        let alpha = self.lora.as_ref().and_then(|l| l.alpha).unwrap_or(1.0);
        number("lora.alpha", alpha.is_finite(), "a finite number", alpha.to_string())?;
        number("lora.rank", (1..=1 << 16).contains(&rank), "1 to 2^16", rank.to_string())?;
        number("lora", self.lora.is_none() || self.model.from.is_some(), "model.from beside it", "none".into())?;
        self.loss_scale.as_ref().map_or(Ok(()), |scale| scale.check(train.precision))?;
        self.data.validation.as_ref().map_or(Ok(()), ValidationConfig::check)?;
        let kinds = usize::from(self.data.text.is_empty()) + usize::from(self.data.tokens.is_empty());
        number("data", kinds == 1, "either text or tokens", if kinds == 2 { "neither" } else { "both" }.into())?;
        let typed = !self.data.token_type.is_narrow() && self.data.tokens.is_empty();
        number("data.token_type", !typed, "data.tokens beside it", "text".into())
    }

    /// The rates.
    pub fn schedule(&self) -> Schedule {
        self.schedule.schedule(self.train.steps)
    }

    /// The adapters.
    pub fn lora(&self) -> Option<Lora> {
        self.lora.as_ref().map(LoraConfig::adapters)
    }

    /// Takes the tokens of a sequence from the model that the run starts from, unless they are said.
    pub(super) fn complete(&mut self, context: usize) {
        let context = *self.model.context.get_or_insert(context);
        // As if it were said.
        if let Some(said) = self.run.pointer_mut("/model/context") {
            *said = context.into();
        }
    }

    /// What must stay the same for a run to go on: everything but where it writes and how often, and the number of its steps, which may
    /// become another.
    pub fn fingerprint(&self) -> String {
        self.run.to_string()
    }

    fn described(&self) -> Result<serde_json::Value, Diagnostic> {
        let same = Config { out: PathBuf::new(), save: SaveConfig::default(), ..self.clone() };
        serde_json::to_value(&same).map_err(|e| Diagnostic::bug(format!("a configuration cannot be written: {e}")))
    }
}

/// The name of the vocabulary of the text's own characters.
pub(super) const CHARACTERS: &str = "characters";

/// An error of the parser with its line; of an unknown key with the nearest known one.
fn wrong(name: &str, text: &str, error: &toml::de::Error) -> Diagnostic {
    let line = error.span().map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or(name.to_string(), |line| format!("{name}:{line}"));
    let said = error.message();
    let mut d = Diagnostic::new("train-config", said.to_string()).at(Place::Named(place.into()), "");
    // Serde writes the key and those it knows in backticks.
    if said.starts_with("unknown field") || said.starts_with("unknown variant") {
        let mut quoted = said.split('`').skip(1).step_by(2);
        let found = quoted.next().unwrap_or_default();
        let near = quoted.max_by(|a, b| strsim::jaro_winkler(found, a).total_cmp(&strsim::jaro_winkler(found, b)));
        if let Some(near) = near {
            d = d.note(format!("the nearest known one is {}", shown(near)));
        }
    }
    d
}
