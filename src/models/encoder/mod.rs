//! Encoders: BERT (Devlin et al. 2018) and ALBERT (Lan et al. 2019), by the names of Hugging Face.
//!
//! Both add words, positions and token type 0, and put each norm after its sum. BERT has weights for every layer; ALBERT
//! has narrow embeddings, which a matrix widens, and calls its one layer with the same weights again and again.
//!
//! Symbols: `batch` and `seq`. Parameters of the entry: `tokens`, `i64[batch, seq]`, where any id of the vocabulary may
//! stand for padding; `mask`, `bool[batch, seq]`, true where a token is, at least once in every row; weights. Results:
//! what the head gives ([`EncoderHead`]); if asked, hidden states `[batch, seq, width]`: the embedding, then after each
//! layer; if asked, attention probabilities `[batch, heads, seq, seq]`. Rows of padding hold numbers without a meaning.

mod config;
mod graph;

pub use graph::encoder;

use super::{check_sizes, config_error};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::DType;

/// Most texts in one call.
pub const MAX_BATCH: usize = 1 << 16;

/// Most layers: a call each in the entry.
const MAX_LAYERS: usize = 1 << 10;

/// Whose layers and whose names of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderFamily {
    /// `encoder.layer.0.attention.self.query.weight`; a head is `cls.predictions`.
    Bert,
    /// `encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight`; a head is `predictions`.
    Albert,
}

/// The function inside the feed-forward network and the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// By erf.
    Gelu,
    /// By tanh.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// What is made of the last hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderHead {
    /// `[batch, width]`: their mean over the tokens of each text, divided by its length (or by 1e-12, if that is more).
    Embedding,
    /// `[batch, seq, vocabulary]`: logits of the masked language model, by the table of words.
    Logits,
    /// A scalar: the mean cross-entropy of the logits where the mask shows a token, against `targets`, `i64[batch, seq]`, a
    /// parameter after the mask.
    Loss,
}

/// Sizes and choices of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// BERT or ALBERT.
    pub family: EncoderFamily,
    /// Number of layers, or of passes through the one layer.
    pub layers: usize,
    /// Size of the hidden state, a multiple of `heads`.
    pub width: usize,
    /// Width of the tables; that of the hidden state for BERT.
    pub embedding_width: usize,
    /// Heads.
    pub heads: usize,
    /// Inner size of the feed-forward network.
    pub feed_forward: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Rows of the position table: the longest text.
    pub positions: usize,
    /// Rows of the table of token types.
    pub token_types: usize,
    /// Activation.
    pub activation: Activation,
    /// Added to variances.
    pub epsilon: f64,
    /// Id of padding.
    pub pad: u32,
    /// Dtype of all arithmetic: f32 or f64.
    pub float: DType,
    /// The first result.
    pub head: EncoderHead,
    /// Whether hidden states are returned.
    pub hidden_states: bool,
    /// Layers, from 0, whose attention probabilities are returned, in this order.
    pub attention: Vec<usize>,
}

impl EncoderConfig {
    /// Errors: `model-config`.
    fn check(&self) -> Result<(), Diagnostic> {
        let sizes = [
            ("num_hidden_layers", self.layers),
            ("hidden_size", self.width),
            ("embedding_size", self.embedding_width),
            ("num_attention_heads", self.heads),
            ("intermediate_size", self.feed_forward),
            ("vocab_size", self.vocabulary),
            ("type_vocab_size", self.token_types),
        ];
        check_sizes(&sizes, self.positions)?;
        if self.layers > MAX_LAYERS {
            return Err(config_error("num_hidden_layers", &format!("at most {MAX_LAYERS}, found {}", self.layers)));
        }
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("a divisor of hidden_size {}, found {}", self.width, self.heads);
            return Err(config_error("num_attention_heads", &message));
        }
        if self.family == EncoderFamily::Bert && self.embedding_width != self.width {
            let message = format!("hidden_size {} in a BERT, found {}", self.width, self.embedding_width);
            return Err(config_error("embedding_size", &message));
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return Err(config_error("layer_norm_eps", &format!("a number from 0, found {}", self.epsilon)));
        }
        if self.pad as usize >= self.vocabulary {
            let message = format!("an id below vocab_size {}, found {}", self.vocabulary, self.pad);
            return Err(config_error("pad_token_id", &message));
        }
        if !matches!(self.float, DType::F32 | DType::F64) {
            return Err(config_error("float", &format!("f32 or f64, found {}", self.float)));
        }
        match self.attention.iter().find(|l| **l >= self.layers) {
            Some(layer) => Err(config_error("attention", &format!("layers below {}, found {layer}", self.layers))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
