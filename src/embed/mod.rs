//! Sentence embeddings: a folder with an encoder, compiled once for every number and length of texts.

mod folder;

pub use folder::EncoderFolder;

use crate::compile::{Options, compile};
use crate::models::{EncoderConfig, encoder};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::types::{Bindings, DType};
use tilewright_runtime::buffer::Buffer;
use tilewright_runtime::executable::{Executable, Profile};

/// A compiled encoder with its weights.
pub struct SentenceEncoder {
    executable: Executable,
    /// One per parameter; `None` for tokens and mask.
    weights: Vec<Option<Buffer>>,
    config: EncoderConfig,
}

impl SentenceEncoder {
    /// Compiles the model of `folder`.
    ///
    /// Errors: those of binding the weights ([`EncoderFolder::weights`]) and of the compiler.
    pub fn new(folder: &EncoderFolder, options: &Options) -> Result<SentenceEncoder, Diagnostic> {
        let module = encoder(&folder.config)?;
        let weights = folder.weights(&module)?;
        let executable = compile(&module, options)?;
        let shared = executable.program().params.iter().map(|param| match param.role {
            Role::Weight => {
                let name = &*param.buffer.name;
                let missing = || Diagnostic::bug(format!("the weight `{name}` was not bound"));
                executable.share(weights.get(name).ok_or_else(missing)?).map(Some)
            }
            Role::Input | Role::Donated => Ok(None),
        });
        let weights = shared.collect::<Result<_, _>>()?;
        Ok(SentenceEncoder { executable, weights, config: folder.config.clone() })
    }

    /// Counts the time of every kernel from now on.
    pub fn enable_profile(&mut self) {
        self.executable.enable_profile();
    }

    /// The times so far, if they are counted.
    pub fn profile(&self) -> Option<&Profile> {
        self.executable.profile()
    }

    /// Numbers in an embedding.
    pub fn width(&self) -> usize {
        self.config.width
    }

    /// Embeddings of `texts`, lists of ids, in one run padded to the longest. What a text is padded with changes nothing.
    ///
    /// Errors: `token` for a text without tokens or an id outside the vocabulary; `text-length` for more tokens than the
    /// model has positions; those of the run.
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, Diagnostic> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let [tokens, mask] = padded(texts, &self.config)?;
        let floats = self.run(&tokens, &mask)?;
        Ok(floats.chunks_exact(self.width()).map(<[f32]>::to_vec).collect())
    }

    /// Embeddings `[batch, width]` of `tokens`, `i64[batch, seq]`, where `mask`, `bool[batch, seq]`, shows a token. Rows
    /// whose mask shows none give NaN.
    ///
    /// Errors: `input-type` for other shapes and dtypes; those of the run.
    pub fn run(&self, tokens: &Array, mask: &Array) -> Result<Vec<f32>, Diagnostic> {
        let (batch, seq) = match (tokens.shape(), mask.shape()) {
            ([batch, seq], of_mask) if [*batch, *seq] == of_mask => (*batch, *seq),
            (tokens, mask) => {
                let message = format!("expected tokens and mask [batch, seq], found {tokens:?} and {mask:?}");
                return Err(Diagnostic::new("input-type", message));
            }
        };
        if tokens.dtype() != DType::I64 || mask.dtype() != DType::Bool {
            let message = format!("expected tokens i64 and mask bool, found {} and {}", tokens.dtype(), mask.dtype());
            return Err(Diagnostic::new("input-type", message));
        }
        let bindings = Bindings::from([("batch".into(), batch as i64), ("seq".into(), seq as i64)]);
        let mut inputs = [self.executable.copy_in(tokens)?, self.executable.copy_in(mask)?].into_iter();
        let arguments: Option<Vec<Buffer>> = self.weights.iter().map(|w| w.clone().or_else(|| inputs.next())).collect();
        let arguments = arguments.ok_or_else(|| Diagnostic::bug("an encoder has other inputs than tokens and mask"))?;
        let results = self.executable.run_buffers(&arguments, &bindings)?;
        let missing = || Diagnostic::bug("the embeddings are too small");
        let bytes = results.first().and_then(|r| r.bytes(batch * self.width() * 4)).ok_or_else(missing)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect())
    }
}

/// Tokens `i64[batch, seq]` and mask `bool[batch, seq]` of `texts`, padded to the longest.
fn padded(texts: &[&[u32]], config: &EncoderConfig) -> Result<[Array; 2], Diagnostic> {
    let seq = texts.iter().map(|t| t.len()).max().unwrap_or(0);
    let (mut tokens, mut mask) = (Vec::new(), Vec::new());
    for (i, text) in texts.iter().enumerate() {
        if text.is_empty() {
            return Err(Diagnostic::new("token", format!("text {i} has no tokens")));
        }
        if text.len() > config.positions {
            let message = format!("text {i} has {} tokens, the model has {} positions", text.len(), config.positions);
            return Err(Diagnostic::new("text-length", message));
        }
        if let Some(t) = text.iter().find(|&&t| t as usize >= config.vocabulary) {
            let message = format!("token {t} of text {i} is outside the vocabulary of {}", config.vocabulary);
            return Err(Diagnostic::new("token", message));
        }
        let padding = seq - text.len();
        tokens.extend(text.iter().map(|&t| i64::from(t)).chain(std::iter::repeat_n(i64::from(config.pad), padding)));
        mask.extend((0..seq).map(|at| at < text.len()));
    }
    let shape = [texts.len(), seq];
    Ok([Array::from_i64(&shape, &tokens)?, Array::from_bool(&shape, &mask)?])
}
