//! What `tilewright train` is told: a TOML file.

use super::budget::CheckpointConfig;
use super::precision::{LossScaleConfig, Precision};
use super::validation::ValidationConfig;
use crate::formats::{read_text, shown};
use crate::models::decoder::{DecoderConfig, DecoderFamily, DecoderNames, Lora};
use crate::optim::{Adam, AdamW, Muon, Optimiser, Schedule, Sgd};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::DType;

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

/// A model by its sizes, or one in a folder as it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A folder with `config.json`, `model.safetensors` and `tokenizer.json`, such as one that a run wrote, or a GGUF file of a
    /// Llama; beside `context` nothing else is said then.
    pub from: Option<PathBuf>,
    /// `gpt` or `llama`.
    pub family: Option<Family>,
    /// Blocks.
    pub layers: Option<usize>,
    /// Size of the hidden state.
    pub width: Option<usize>,
    /// Query heads.
    pub heads: Option<usize>,
    /// Heads of keys and values; `heads` if absent.
    pub kv_heads: Option<usize>,
    /// Inner size of the feed-forward network; if absent 4 times the width, or 8/3 of it in a Llama.
    pub feed_forward: Option<usize>,
    /// Tokens of a sequence.
    pub context: usize,
    /// Whether the output matrix is the token embedding; so if absent.
    pub tied: Option<bool>,
}

/// Which model.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// GPT-2.
    Gpt,
    /// Llama.
    Llama,
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

/// An optimiser by name; what is absent is as its paper has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "name", rename_all = "lowercase")]
pub enum OptimiserConfig {
    /// Stochastic gradient descent.
    Sgd {
        /// 0 if absent.
        #[serde(default)]
        momentum: f64,
        /// False if absent.
        #[serde(default)]
        nesterov: bool,
        /// 0 if absent.
        #[serde(default)]
        decay: f64,
    },
    /// Adam.
    Adam {
        /// 0.9 and 0.999 if absent.
        betas: Option<[f64; 2]>,
        /// 0 if absent.
        #[serde(default)]
        decay: f64,
    },
    /// AdamW.
    Adamw {
        /// 0.9 and 0.95 if absent.
        betas: Option<[f64; 2]>,
        /// 0.1 if absent.
        decay: Option<f64>,
    },
    /// Muon for hidden matrices, AdamW for the rest.
    Muon {
        /// 0.95 if absent.
        momentum: Option<f64>,
        /// Of hidden matrices; 0 if absent.
        #[serde(default)]
        decay: f64,
        /// The rate of the others as a part of that of hidden matrices; 0.015 if absent.
        other_rate: Option<f64>,
    },
}

impl Default for OptimiserConfig {
    fn default() -> OptimiserConfig {
        OptimiserConfig::Adamw { betas: None, decay: None }
    }
}

impl OptimiserConfig {
    /// What moments keep of the step before.
    fn kept(&self) -> Vec<(&'static str, f64)> {
        match self {
            OptimiserConfig::Sgd { momentum, .. } => vec![("optimiser.momentum", *momentum)],
            OptimiserConfig::Muon { momentum, .. } => vec![("optimiser.momentum", momentum.unwrap_or(0.0))],
            OptimiserConfig::Adam { betas, .. } | OptimiserConfig::Adamw { betas, .. } => {
                betas.iter().flatten().map(|beta| ("optimiser.betas", *beta)).collect()
            }
        }
    }

    /// The optimiser, for matrices stored as those of `model` are.
    pub fn optimiser(&self, model: &DecoderConfig) -> Box<dyn Optimiser> {
        match *self {
            OptimiserConfig::Sgd { momentum, nesterov, decay } => Box::new(Sgd { momentum, nesterov, decay }),
            OptimiserConfig::Adam { betas, decay } => {
                let usual = Adam::default();
                Box::new(Adam { betas: betas.unwrap_or(usual.betas), decay, ..usual })
            }
            OptimiserConfig::Adamw { betas, decay } => {
                Box::new(AdamW { betas: betas.unwrap_or([0.9, 0.95]), decay: decay.unwrap_or(0.1), ..AdamW::default() })
            }
            OptimiserConfig::Muon { momentum, decay, other_rate } => {
                let usual = Muon { inputs_first: model.inputs_first(), decay, ..Muon::default() };
                let (momentum, other_rate) =
                    (momentum.unwrap_or(usual.momentum), other_rate.unwrap_or(usual.other_rate));
                Box::new(Muon { momentum, other_rate, ..usual })
            }
        }
    }
}

/// Rates.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// `constant`, `cosine`, `linear` or `wsd`; cosine if absent.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// Largest rate.
    pub peak: f64,
    /// Rate at the end; a tenth of the largest if absent.
    pub least: Option<f64>,
    /// Steps to the largest.
    #[serde(default)]
    pub warmup: u64,
    /// Steps down from it, of `wsd`; a fifth of all if absent.
    pub decay: Option<u64>,
}

/// The form of a schedule.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The same after the warm-up.
    Constant,
    /// Half a cosine.
    #[default]
    Cosine,
    /// A line.
    Linear,
    /// Warm-up, stable, decay.
    Wsd,
}

/// Adapters.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Their inner size.
    pub rank: usize,
    /// Factor of their product, times the rank; twice the rank if absent.
    pub alpha: Option<f64>,
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
        let peak = self.schedule.peak;
        number("schedule.peak", peak.is_finite() && peak > 0.0, "a number above 0", peak.to_string())?;
        let rank = self.lora.as_ref().map_or(1, |l| l.rank);
        number("lora.rank", (1..=1 << 16).contains(&rank), "1 to 2^16", rank.to_string())?;
        number("lora", self.lora.is_none() || self.model.from.is_some(), "model.from beside it", "none".into())?;
        self.loss_scale.as_ref().map_or(Ok(()), |scale| scale.check(train.precision))?;
        self.data.validation.as_ref().map_or(Ok(()), ValidationConfig::check)?;
        let kinds = usize::from(self.data.text.is_empty()) + usize::from(self.data.tokens.is_empty());
        number("data", kinds == 1, "either text or tokens", if kinds == 2 { "neither" } else { "both" }.into())
    }

    /// The rates.
    pub fn schedule(&self) -> Schedule {
        let ScheduleConfig { kind, peak, least, warmup, decay } = self.schedule.clone();
        let (least, steps) = (least.unwrap_or(peak / 10.0), self.train.steps);
        match kind {
            ScheduleKind::Constant => Schedule::Constant { peak, warmup },
            ScheduleKind::Cosine => Schedule::Cosine { peak, least, warmup, steps },
            ScheduleKind::Linear => Schedule::Linear { peak, least, warmup, steps },
            ScheduleKind::Wsd => {
                Schedule::Wsd { peak, least, warmup, decay: decay.unwrap_or(steps.div_ceil(5)), steps }
            }
        }
    }

    /// The adapters.
    pub fn lora(&self) -> Option<Lora> {
        self.lora.as_ref().map(|l| Lora { rank: l.rank, alpha: l.alpha.unwrap_or(2.0 * l.rank as f64) })
    }

    /// What must stay the same for a run to go on: everything but where it writes and how often.
    pub fn fingerprint(&self) -> String {
        self.run.to_string()
    }

    fn described(&self) -> Result<serde_json::Value, Diagnostic> {
        let same = Config { out: PathBuf::new(), save: SaveConfig::default(), ..self.clone() };
        serde_json::to_value(&same).map_err(|e| Diagnostic::bug(format!("a configuration cannot be written: {e}")))
    }
}

impl ModelConfig {
    /// The model by its sizes. Errors: `train-config` for one that is missing; `model-config`.
    pub fn sized(&self, vocabulary: usize) -> Result<DecoderConfig, Diagnostic> {
        let missing = |key: &str| {
            let message = format!("model.{key}: expected a value, or a folder as model.from, found neither");
            Diagnostic::new("train-config", message)
        };
        let family = match self.family.ok_or_else(|| missing("family"))? {
            Family::Gpt => DecoderFamily::Gpt,
            Family::Llama => DecoderFamily::Llama,
        };
        let layers = self.layers.ok_or_else(|| missing("layers"))?;
        let width = self.width.ok_or_else(|| missing("width"))?;
        let heads = self.heads.ok_or_else(|| missing("heads"))?;
        let inner = match family {
            DecoderFamily::Gpt => width.saturating_mul(4),
            // Whole panels of the matrix kernels.
            DecoderFamily::Llama => (width.saturating_mul(8) / 3).next_multiple_of(32),
        };
        let config = DecoderConfig {
            family,
            layers,
            width,
            heads,
            kv_heads: self.kv_heads.unwrap_or(heads),
            head_size: width.checked_div(heads).unwrap_or(0),
            feed_forward: self.feed_forward.unwrap_or(inner),
            vocabulary,
            context: self.context,
            epsilon: 1e-5,
            rope_base: 10_000.0,
            tied: self.tied.unwrap_or(true),
            names: DecoderNames::HuggingFace,
            float: DType::F32,
            lora: None,
            checkpoint: false,
        };
        config.check()?;
        Ok(config)
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

impl ModelConfig {
    /// Errors: `train-config` where sizes stand beside the folder that has them.
    pub(super) fn nothing_but_from(&self) -> Result<(), Diagnostic> {
        let said = [
            ("family", self.family.is_some()),
            ("layers", self.layers.is_some()),
            ("width", self.width.is_some()),
            ("heads", self.heads.is_some()),
            ("kv_heads", self.kv_heads.is_some()),
            ("feed_forward", self.feed_forward.is_some()),
            ("tied", self.tied.is_some()),
        ];
        match said.iter().find(|(_, there)| *there) {
            Some((key, _)) => {
                let message = format!("model.{key}: expected nothing beside model.from, which has it");
                Err(Diagnostic::new("train-config", message))
            }
            None => Ok(()),
        }
    }
}
