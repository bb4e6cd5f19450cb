//! Which part of a model a name scope is: its layer, and what kind of work.

use serde::Serialize;
use std::fmt;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Tables of tokens and positions.
    Embedding,
    /// Queries, keys, values, and the way back to the hidden state.
    AttentionProjections,
    /// Products of queries and keys, softmax, products with values.
    AttentionScores,
    /// The feed-forward network.
    Mlp,
    /// Layer and RMS norms.
    Norm,
    /// Logits.
    Head,
    /// The loss.
    Loss,
    /// Norm of the gradient, clipping, moments, new weights.
    Optimiser,
    /// What stands in no scope that is known.
    Other,
}

/// Names of scopes, as the models here, GGUF files and Hugging Face have them.
const NAMES: &[(&str, Kind)] = &[
    ("embedding", Kind::Embedding),
    ("embeddings", Kind::Embedding),
    ("embed_tokens", Kind::Embedding),
    ("token_embd", Kind::Embedding),
    ("position_embd", Kind::Embedding),
    ("wte", Kind::Embedding),
    ("wpe", Kind::Embedding),
    ("attn", Kind::AttentionProjections),
    ("attn_q", Kind::AttentionProjections),
    ("attn_k", Kind::AttentionProjections),
    ("attn_v", Kind::AttentionProjections),
    ("attn_qkv", Kind::AttentionProjections),
    ("attn_output", Kind::AttentionProjections),
    ("attention", Kind::AttentionProjections),
    ("self_attn", Kind::AttentionProjections),
    ("scores", Kind::AttentionScores),
    ("mlp", Kind::Mlp),
    ("ffn", Kind::Mlp),
    ("ffn_gate", Kind::Mlp),
    ("ffn_up", Kind::Mlp),
    ("ffn_down", Kind::Mlp),
    ("ffn_output", Kind::Mlp),
    ("intermediate", Kind::Mlp),
    ("feed_forward", Kind::Mlp),
    ("norm", Kind::Norm),
    ("LayerNorm", Kind::Norm),
    ("full_layer_layer_norm", Kind::Norm),
    ("ln1", Kind::Norm),
    ("ln2", Kind::Norm),
    ("lnf", Kind::Norm),
    ("ln_1", Kind::Norm),
    ("ln_2", Kind::Norm),
    ("ln_f", Kind::Norm),
    ("input_layernorm", Kind::Norm),
    ("post_attention_layernorm", Kind::Norm),
    ("attn_norm", Kind::Norm),
    ("ffn_norm", Kind::Norm),
    ("output_norm", Kind::Norm),
    ("head", Kind::Head),
    ("lm_head", Kind::Head),
    ("loss", Kind::Loss),
    ("optimiser", Kind::Optimiser),
];

impl Kind {
    /// The kind of a scope: that of its last part with a known name. What is only called an output is that of the MLP in a layer, and
    /// else that of the model.
    pub fn of(scope: &str) -> Kind {
        let known = |part: &str| NAMES.iter().find(|(name, _)| *name == part).map(|(_, kind)| *kind);
        match scope.rsplit('.').find_map(known) {
            Some(kind) => kind,
            None if !scope.split('.').any(|part| part == "output") => Kind::Other,
            None if layer(scope).is_empty() => Kind::Head,
            None => Kind::Mlp,
        }
    }

    /// Its name in texts.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Embedding => "embedding",
            Kind::AttentionProjections => "attention projections",
            Kind::AttentionScores => "attention scores",
            Kind::Mlp => "MLP",
            Kind::Norm => "norm",
            Kind::Head => "head",
            Kind::Loss => "loss",
            Kind::Optimiser => "optimiser",
            Kind::Other => "other",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The layer of a scope: all up to its first number, `h.3` of `h.3.attn.q`; empty outside of layers.
pub fn layer(scope: &str) -> &str {
    let mut end = 0;
    for part in scope.split('.') {
        end += part.len();
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            return &scope[..end];
        }
        end += 1;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_say_layers_and_kinds() {
        for (scope, of_layer, kind) in [
            ("h.11.attn.q", "h.11", Kind::AttentionProjections),
            ("h.0.attn.scores", "h.0", Kind::AttentionScores),
            ("model.layers.3.mlp.up", "model.layers.3", Kind::Mlp),
            ("h.0.ln1", "h.0", Kind::Norm),
            ("head", "", Kind::Head),
            ("blk.2.ffn_gate.weight", "blk.2", Kind::Mlp),
            ("encoder.layer.1.output.dense.weight", "encoder.layer.1", Kind::Mlp),
            ("encoder.layer.1.attention.output.dense.bias", "encoder.layer.1", Kind::AttentionProjections),
            ("output.weight", "", Kind::Head),
            ("encoder.layer.1.output.LayerNorm.bias", "encoder.layer.1", Kind::Norm),
            ("", "", Kind::Other),
            ("h2.mlp", "", Kind::Mlp),
        ] {
            assert_eq!((layer(scope), Kind::of(scope)), (of_layer, kind), "{scope}");
        }
    }
}
