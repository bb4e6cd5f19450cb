//! Language models in folders, as `tilewright train` writes them.

use super::LanguageModel;
use crate::compile::Options;
use crate::formats::{read_text, tokenizer::Tokenizer, tokenizer_files::TokenizerFiles};
use crate::models::decoder::{DecoderConfig, DecoderFamily};
use crate::models::{Outputs, gpt2, llama, rope_tables};
use crate::train::read_weights;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::Module;

/// A folder with `config.json`, `model.safetensors` and `tokenizer.json` of a GPT-2 or a Llama, by the names of Hugging Face.
pub struct ModelFolder {
    folder: PathBuf,
    config: DecoderConfig,
}

impl ModelFolder {
    /// Reads the configuration. Errors: `file`, `model-config`.
    pub fn open(folder: &Path) -> Result<ModelFolder, Diagnostic> {
        let path = folder.join("config.json");
        let config = DecoderConfig::from_json(&path.display().to_string(), &read_text(&path)?)?;
        Ok(ModelFolder { folder: folder.into(), config })
    }

    /// The most tokens that the model has positions for.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// What its files say of tokens and conversations. Errors: those of [`TokenizerFiles::open`].
    pub fn files(&self) -> Result<TokenizerFiles, Diagnostic> {
        TokenizerFiles::open(&self.folder.join("tokenizer.json"))
    }

    /// The tokenizer of `files`. Errors: `tokenizer`; `vocabulary` for one with tokens that the model lacks.
    pub fn tokenizer(&self, files: &TokenizerFiles) -> Result<Tokenizer, Diagnostic> {
        let path = self.folder.join("tokenizer.json");
        let tokenizer = files.tokenizer(&path.display().to_string())?;
        let (tokens, rows) = (tokenizer.vocabulary_size(), self.config.vocabulary);
        if tokens <= rows {
            return Ok(tokenizer);
        }
        let message = format!("the tokenizer has {tokens} tokens, the model has embeddings for {rows} (vocab_size)");
        let error = Diagnostic::new("vocabulary", message).at(Place::Named(path.display().to_string().into()), "");
        Err(error.note("the tokenizer belongs to another model"))
    }

    /// The compiled model, for contexts of at most `capacity` tokens.
    ///
    /// Errors: those of the files, of the model's configuration and of the compiler.
    pub fn model(&self, capacity: usize, options: &Options) -> Result<LanguageModel, Diagnostic> {
        let outputs = Outputs::default();
        let weights = read_weights(&self.folder.join("model.safetensors"), &self.config)?;
        let (module, weights) = match self.config.family {
            DecoderFamily::Gpt => self.gpt(capacity, weights)?,
            DecoderFamily::Llama => self.llama(capacity, weights)?,
        };
        let sizes = [self.config.vocabulary, self.config.width];
        LanguageModel::new(&module, &weights, sizes, capacity, outputs, options)
    }

    fn gpt(&self, capacity: usize, weights: Vec<Array>) -> Result<Parts, Diagnostic> {
        let c = &self.config;
        let module = gpt2(&c.as_gpt2(capacity))?;
        Ok((module, c.entries().into_iter().map(|e| e.weight.name).zip(weights).collect()))
    }

    fn llama(&self, capacity: usize, weights: Vec<Array>) -> Result<Parts, Diagnostic> {
        let c = &self.config;
        let config = c.as_llama(capacity);
        let mut named = BTreeMap::new();
        for (e, array) in c.entries().iter().zip(weights) {
            named.insert(e.gguf_name()?, array);
        }
        let (cos, sin) = rope_tables(&config)?;
        named.extend([("rope.cos".to_string(), cos), ("rope.sin".to_string(), sin)]);
        Ok((llama(&config)?, named))
    }
}

/// A module and its weights by name.
type Parts = (Module, BTreeMap<String, Array>);
