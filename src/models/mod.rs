//! Model families as DSL programs: configuration from a checkpoint, the module, its weights by name.
//!
//! Encoders are in [`mod@encoder`], language models as they are trained in [`mod@decoder`]; the rest of this page is about language
//! models that generate.
//!
//! A model's block is one function, called once per layer with that layer's weights: the module does not grow with depth
//! but for the calls. Sizes: the symbols `seq` (new tokens in this call) and `past` (tokens in the caches before it); the
//! caller keeps `past + seq <= capacity`.
//!
//! Parameters of the entry: `tokens`, `i64[seq]`; the donated caches `cache.N.k` and `cache.N.v`, `f32[kv_heads, capacity,
//! head_size]; weights. Results: logits f32[1, vocab] of the last token, or f32[seq, vocab]; the caches in the order of
//! layers, k before v; if asked, hidden states f32[seq, width]: the embedding, then after each block.

mod bind;
pub mod decoder;
pub mod encoder;
pub mod gpt2;
pub mod llama;

pub use bind::{bind_checkpoint, bind_weights};
pub use decoder::{DecoderConfig, DecoderFamily, DecoderNames, Lora};
pub use encoder::{Activation, EncoderConfig, EncoderFamily, EncoderHead, encoder};
pub use gpt2::{Gpt2Config, gpt2};
pub use llama::{LlamaConfig, llama, rope_tables};

use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Dim};

/// What a model returns beside its caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Logits of every new token, not only of the last.
    pub all_logits: bool,
    /// The embedding and the result of each block.
    pub hidden_states: bool,
    /// Instead of logits a scalar: the mean cross-entropy of each new token but the first, predicted from those before it.
    /// Calls have two tokens at least.
    pub loss: bool,
}

/// Dtypes of weights by name; f32 where absent.
pub type WeightTypes = BTreeMap<String, DType>;

/// Longest cache, so that sizes stay far from overflow.
const MAX_CAPACITY: usize = 1 << 24;

/// The two symbols and their sum.
struct Positions {
    seq: Dim,
    past: Dim,
    all: Dim,
}

impl Positions {
    /// Declares `seq` in 1..=capacity and `past` in 0..=capacity - 1.
    fn declare(g: &Graph, capacity: usize) -> Result<Positions, Diagnostic> {
        let capacity = i64::try_from(capacity).map_err(|_| config_error("capacity", "a capacity that fits 63 bits"))?;
        let (seq, past) = (g.symbol("seq", 1..=capacity), g.symbol("past", 0..=capacity - 1));
        let all = past.checked_add(&seq).ok_or_else(|| Diagnostic::bug("seq + past overflows"))?;
        Ok(Positions { seq, past, all })
    }
}

/// A configuration that cannot be.
fn config_error(what: &str, expected: &str) -> Diagnostic {
    Diagnostic::new("model-config", format!("{what}: expected {expected}"))
}

/// Checks what every family needs: sizes that are not zero, heads that divide.
fn check_sizes(sizes: &[(&str, usize)], capacity: usize) -> Result<(), Diagnostic> {
    for (name, size) in sizes {
        if *size == 0 || *size > 1 << 30 {
            return Err(config_error(name, &format!("1 to 2^30, found {size}")));
        }
    }
    if capacity == 0 || capacity > MAX_CAPACITY {
        return Err(config_error("capacity", &format!("1 to {MAX_CAPACITY}, found {capacity}")));
    }
    Ok(())
}

/// Attention of q, k, v `[heads, seq, size]` over the caches `[groups, capacity, size]`, into which k and v are written
/// at `past`. Gives `[seq, heads * size]` and the new caches.
#[track_caller]
fn cached_attention(q: &Tensor, new: [&Tensor; 2], caches: [&Tensor; 2], at: &Positions) -> (Tensor, [Tensor; 2]) {
    let start = || (0, &at.past, 0);
    let keys = caches[0].update_slice(new[0], start());
    let values = caches[1].update_slice(new[1], start());
    let (seen_keys, seen_values) = (keys.slice(1, 0, &at.all), values.slice(1, 0, &at.all));
    let options = Attention { causal: true, ..Attention::default() };
    let out = q.attention(&seen_keys, &seen_values, options).rearrange("h s d -> s (h d)", &[]);
    (out, [keys, values])
}

/// A call's operands and what the layers add up to: the running hidden state, caches, hidden states.
struct Trunk {
    x: Tensor,
    caches: Vec<Tensor>,
    hidden: Vec<Tensor>,
}

impl Trunk {
    fn new(embedding: Tensor) -> Trunk {
        Trunk { hidden: vec![embedding.clone()], x: embedding, caches: Vec::new() }
    }

    /// Calls `function` as layer number `layer` in the weight scope `scope`, on the hidden state, `shared` and the
    /// layer's caches of shape `[groups, capacity, size]`.
    #[track_caller]
    fn layer(&mut self, g: &Graph, function: &str, scope: &str, layer: usize, shared: &[&Tensor], cache: [usize; 3]) {
        let k = g.donated(&format!("cache.{layer}.k"), DType::F32, cache);
        let v = g.donated(&format!("cache.{layer}.v"), DType::F32, cache);
        let args: Vec<&Tensor> = [&self.x].into_iter().chain(shared.iter().copied()).chain([&k, &v]).collect();
        let [x, k, v] = g.scope(scope, || g.call(function, &args));
        self.hidden.push(x.clone());
        self.x = x;
        self.caches.extend([k, v]);
    }

    /// The hidden state of the tokens whose logits are asked for.
    #[track_caller]
    fn chosen(&self, outputs: Outputs, at: &Positions) -> Tensor {
        match at.seq.checked_sub(&Dim::constant(1)) {
            Some(last) if !outputs.all_logits && !outputs.loss => self.x.narrow(0, last, 1),
            Some(_) | None => self.x.clone(),
        }
    }

    /// Closes the entry with its results, in order.
    fn finish(&self, g: &Graph, logits: &Tensor, tokens: &Tensor, outputs: Outputs) -> Result<Module, Diagnostic> {
        let first = if outputs.loss { next_token_loss(logits, tokens) } else { logits.clone() };
        let hidden = self.hidden.iter().filter(|_| outputs.hidden_states);
        g.finish(&[&first].into_iter().chain(&self.caches).chain(hidden).collect::<Vec<_>>())
    }
}

/// Row i of the logits predicts token i + 1.
fn next_token_loss(logits: &Tensor, tokens: &Tensor) -> Tensor {
    let seq = tokens.dim(0);
    let Some(rows) = seq.checked_sub(&Dim::constant(1)) else { return logits.clone() };
    logits.slice(0, 0, rows).cross_entropy(&tokens.slice(0, 1, seq))
}

/// The function for each layer: layers whose weights have the same dtypes share one.
fn block_names(layers: usize, dtypes: impl Fn(usize) -> Vec<DType>) -> Vec<(String, usize)> {
    let mut kinds: Vec<Vec<DType>> = Vec::new();
    let mut out = Vec::with_capacity(layers);
    for layer in 0..layers {
        let own = dtypes(layer);
        let kind = kinds.iter().position(|k| *k == own).unwrap_or(kinds.len());
        if kind == kinds.len() {
            kinds.push(own);
        }
        out.push((if kind == 0 { "block".into() } else { format!("block_{kind}") }, kind));
    }
    out
}

#[cfg(test)]
mod tests;
