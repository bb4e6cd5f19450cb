//! What a ledger is of: a model by name, by its files, or a program.

use crate::formats::{Gguf, read_text};
use crate::models::{DecoderConfig, DecoderFamily, EncoderConfig, encoder};
use std::path::Path;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::text::nearest;
use tilewright_ir::types::{Bindings, Symbol};

/// Shipped configurations, as `config.json` of Hugging Face has them; no weights.
const MODELS: &[(&str, &str)] = &[
    ("gpt2", include_str!("models/gpt2.json")),
    ("gpt2-medium", include_str!("models/gpt2-medium.json")),
    ("gpt2-large", include_str!("models/gpt2-large.json")),
    ("gpt2-xl", include_str!("models/gpt2-xl.json")),
    ("gpt3", include_str!("models/gpt3.json")),
    ("smollm2-135m", include_str!("models/smollm2-135m.json")),
    ("smollm2-360m", include_str!("models/smollm2-360m.json")),
    ("smollm2-1.7b", include_str!("models/smollm2-1.7b.json")),
    ("tinyllama", include_str!("models/tinyllama.json")),
    ("llama-2-7b", include_str!("models/llama-2-7b.json")),
    ("mistral-7b", include_str!("models/mistral-7b.json")),
    ("llama-3-8b", include_str!("models/llama-3-8b.json")),
    ("llama-3-70b", include_str!("models/llama-3-70b.json")),
];

/// Whether a `config.json` is that of an encoder.
fn is_encoder(text: &str) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_str(text).ok();
    value.is_some_and(|v| v["model_type"].as_str().is_some_and(|t| ["bert", "albert"].contains(&t)))
}

/// What is counted.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A language model by its sizes.
    Decoder {
        /// What it was called.
        name: String,
        /// Its sizes.
        config: DecoderConfig,
    },
    /// Any program.
    Program {
        /// What it was called.
        name: String,
        /// Its entry is counted.
        module: Module,
        /// Sizes of its symbols.
        sizes: Bindings,
    },
}

impl Subject {
    /// Names of the shipped configurations.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|row| row.0)
    }

    /// A shipped configuration. Errors: `unknown-model`, with the nearest name.
    pub fn named(name: &str) -> Result<Subject, Diagnostic> {
        let Some((_, text)) = MODELS.iter().find(|row| row.0 == name) else {
            let message = format!("no model and no file is called `{}`", name.escape_default());
            let error = Diagnostic::new("unknown-model", message);
            let error = match nearest(name, Subject::names()) {
                Some(near) => error.note(format!("the nearest is `{near}`")),
                None => error,
            };
            let names: Vec<&str> = Subject::names().collect();
            return Err(error.note(format!("there are {}", names.join(", "))));
        };
        let config = DecoderConfig::from_json(&format!("{name}.json"), text)?;
        Ok(Subject::Decoder { name: name.into(), config })
    }

    /// The model of a folder with a `config.json`, or of a GGUF file; no weights are read. A BERT or an ALBERT is a program, of which a
    /// batch is one text of the most tokens.
    ///
    /// Errors: those of the files; `model-config` for another model.
    pub fn open(path: &Path) -> Result<Subject, Diagnostic> {
        let name = path.display().to_string();
        if !path.is_dir() {
            return Ok(Subject::Decoder { name, config: DecoderConfig::of_gguf(&Gguf::open(path)?)? });
        }
        let file = path.join("config.json");
        let (named, text) = (file.display().to_string(), read_text(&file)?);
        if is_encoder(&text) {
            let config = EncoderConfig::from_json(&named, text.as_bytes(), None)?;
            let most = i64::try_from(config.positions).unwrap_or(i64::MAX);
            let sizes = Bindings::from([("batch".into(), 1), ("seq".into(), most)]);
            return Ok(Subject::Program { name, module: encoder(&config)?, sizes });
        }
        let config = DecoderConfig::from_json(&named, &text)?;
        Ok(Subject::Decoder { name, config })
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        match self {
            Subject::Decoder { name, .. } | Subject::Program { name, .. } => name,
        }
    }

    /// One line of its sizes.
    pub(super) fn sizes(&self) -> String {
        let c = match self {
            Subject::Decoder { config, .. } => config,
            Subject::Program { sizes, .. } => {
                let one = |(symbol, n): (&Symbol, &i64)| format!(" of {symbol}={n}");
                return format!("a program{}", sizes.iter().map(one).collect::<String>());
            }
        };
        let family = match c.family {
            DecoderFamily::Gpt => "GPT-2",
            DecoderFamily::Llama => "Llama",
        };
        let keys = if c.kv_heads == c.heads { String::new() } else { format!(", {} of keys", c.kv_heads) };
        format!(
            "{family} of {} layers, width {}, {} heads of {}{keys}, inner size {}, {} tokens",
            c.layers, c.width, c.heads, c.head_size, c.feed_forward, c.vocabulary
        )
    }
}
