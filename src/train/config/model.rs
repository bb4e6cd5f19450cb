//! The model of a run, as a configuration says it.

use crate::models::decoder::{DecoderConfig, DecoderFamily, DecoderNames, Lora};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

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
    /// Tokens of a sequence; if absent as many as the model of `from` takes at most.
    pub context: Option<usize>,
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

/// Adapters.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Their inner size.
    pub rank: usize,
    /// Factor of their product, times the rank; twice the rank if absent.
    pub alpha: Option<f64>,
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
            context: self.context.ok_or_else(|| missing("context"))?,
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

    /// Errors: `train-config` where sizes stand beside the folder that has them.
    pub(in crate::train) fn nothing_but_from(&self) -> Result<(), Diagnostic> {
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

impl LoraConfig {
    /// The adapters.
    pub(super) fn adapters(&self) -> Lora {
        Lora { rank: self.rank, alpha: self.alpha.unwrap_or(2.0 * self.rank as f64) }
    }
}
