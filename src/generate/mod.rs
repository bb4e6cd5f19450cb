//! Language models: a compiled model with its caches, fed tokens, giving logits.

mod folder;
mod sample;

pub use folder::ModelFolder;
pub use sample::Sampling;

use crate::compile::{Options, compile};
use crate::formats::Gguf;
use crate::models::{LlamaConfig, Outputs, bind_weights, llama};
use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::types::Bindings;
use tilewright_runtime::buffer::Buffer;
use tilewright_runtime::executable::{Executable, Profile};

/// A model that has read `past` tokens.
pub struct LanguageModel {
    executable: Executable,
    /// One per parameter; `None` is the tokens. Caches are replaced after each call.
    arguments: Vec<Option<Buffer>>,
    /// Which parameters are caches, in the order of the results after the logits.
    caches: Vec<usize>,
    vocabulary: usize,
    width: usize,
    capacity: usize,
    outputs: Outputs,
    past: usize,
}

/// What a call returns.
pub struct Step {
    /// `[rows, vocabulary]`: one row, or one per token if all logits were asked for.
    pub logits: Vec<f32>,
    /// Hidden states `[tokens, width]` if asked for: the embedding, then after each block.
    pub hidden: Vec<Vec<f32>>,
}

impl LanguageModel {
    /// Compiles the model of a GGUF file for contexts of at most `capacity` tokens. Prompts of any length and single
    /// tokens run the same programs.
    ///
    /// Errors: those of the file, of the model's configuration and of the compiler.
    pub fn open(
        gguf: &Gguf,
        capacity: usize,
        outputs: Outputs,
        options: &Options,
    ) -> Result<LanguageModel, Diagnostic> {
        let config = LlamaConfig { outputs, ..LlamaConfig::from_gguf(gguf, capacity)? };
        let module = llama(&config)?;
        let weights = bind_weights(gguf, &module)?;
        LanguageModel::new(&module, &weights, [config.vocabulary, config.width], capacity, outputs, options)
    }

    /// Compiles `module`, a model with caches, for its weights by name; its sizes are those of the vocabulary and of the hidden
    /// state.
    pub(crate) fn new(
        module: &Module,
        weights: &BTreeMap<String, Array>,
        [vocabulary, width]: [usize; 2],
        capacity: usize,
        outputs: Outputs,
        options: &Options,
    ) -> Result<LanguageModel, Diagnostic> {
        let executable = compile(module, options)?;
        let (mut arguments, mut caches) = (Vec::new(), Vec::new());
        for (i, param) in executable.program().params.iter().enumerate() {
            let name = &*param.buffer.name;
            arguments.push(match param.role {
                Role::Input => None,
                Role::Donated => {
                    caches.push(i);
                    Some(executable.zeroed_param(i, &Bindings::new())?)
                }
                Role::Weight => {
                    let missing = || Diagnostic::new("checkpoint-tensor", format!("no weight `{name}`"));
                    Some(executable.share(weights.get(name).ok_or_else(missing)?)?)
                }
            });
        }
        Ok(LanguageModel { executable, arguments, caches, vocabulary, width, capacity, outputs, past: 0 })
    }

    /// Counts the time of every kernel from now on.
    pub fn enable_profile(&mut self) {
        self.executable.enable_profile();
    }

    /// The times so far, if they are counted.
    pub fn profile(&self) -> Option<&Profile> {
        self.executable.profile()
    }

    /// Tokens read so far.
    pub fn past(&self) -> usize {
        self.past
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything that was read.
    pub fn reset(&mut self) {
        self.past = 0;
    }

    /// Reads `tokens`.
    ///
    /// Errors: `token` for an empty list or an id outside the vocabulary; `context-full`.
    pub fn read(&mut self, tokens: &[u32]) -> Result<Step, Diagnostic> {
        if tokens.is_empty() {
            return Err(Diagnostic::new("token", "there is no token to read"));
        }
        if let Some(t) = tokens.iter().find(|&&t| t as usize >= self.vocabulary) {
            let message = format!("token {t} is outside the vocabulary of {}", self.vocabulary);
            return Err(Diagnostic::new("token", message));
        }
        if self.past + tokens.len() > self.capacity {
            let (past, new, capacity) = (self.past, tokens.len(), self.capacity);
            let message = match past {
                0 => format!("{new} tokens do not fit into a context of {capacity}"),
                past => format!("{new} tokens after {past} do not fit into a context of {capacity}"),
            };
            return Err(Diagnostic::new("context-full", message));
        }
        let ids: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
        let ids = self.executable.copy_in(&Array::from_i64(&[ids.len()], &ids)?)?;
        let arguments: Vec<Buffer> = self.arguments.iter().map(|a| a.clone().unwrap_or_else(|| ids.clone())).collect();
        let bindings = Bindings::from([("seq".into(), tokens.len() as i64), ("past".into(), self.past as i64)]);
        let results = self.executable.run_buffers(&arguments, &bindings)?;
        drop(arguments);
        for (&at, cache) in self.caches.iter().zip(results.iter().skip(1)) {
            self.arguments[at] = Some(cache.clone());
        }
        self.past += tokens.len();
        let rows = if self.outputs.all_logits { tokens.len() } else { 1 };
        let logits = values(&results[0], rows * self.vocabulary)?;
        let states = results.iter().skip(1 + self.caches.len());
        let hidden = states.map(|b| values(b, tokens.len() * self.width)).collect::<Result<_, _>>()?;
        Ok(Step { logits, hidden })
    }
}

fn values(buffer: &Buffer, count: usize) -> Result<Vec<f32>, Diagnostic> {
    let bytes = buffer.bytes(count * 4).ok_or_else(|| Diagnostic::bug("a result is too small"))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
}
