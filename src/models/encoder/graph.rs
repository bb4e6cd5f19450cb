//! The module of an encoder.

use super::{Activation, EncoderConfig, EncoderFamily, EncoderHead, MAX_BATCH};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, Tensor, nn::Linear};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Dim};

/// Names of weights: in a layer, then of the head.
struct Names {
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attended: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
    head_dense: &'static str,
    head_norm: &'static str,
    head_bias: &'static str,
}

impl EncoderFamily {
    const fn names(self) -> Names {
        match self {
            EncoderFamily::Bert => Names {
                query: "attention.self.query",
                key: "attention.self.key",
                value: "attention.self.value",
                attended: "attention.output.dense",
                attention_norm: "attention.output.LayerNorm",
                up: "intermediate.dense",
                down: "output.dense",
                norm: "output.LayerNorm",
                head_dense: "cls.predictions.transform.dense",
                head_norm: "cls.predictions.transform.LayerNorm",
                head_bias: "cls.predictions.bias",
            },
            EncoderFamily::Albert => Names {
                query: "attention.query",
                key: "attention.key",
                value: "attention.value",
                attended: "attention.dense",
                attention_norm: "attention.LayerNorm",
                up: "ffn",
                down: "ffn_output",
                norm: "full_layer_layer_norm",
                head_dense: "predictions.dense",
                head_norm: "predictions.LayerNorm",
                head_bias: "predictions.bias",
            },
        }
    }

    /// Where the weights of layer number `layer` are.
    fn scope(self, layer: usize) -> String {
        match self {
            EncoderFamily::Bert => format!("encoder.layer.{layer}"),
            EncoderFamily::Albert => "encoder.albert_layer_groups.0.albert_layers.0".into(),
        }
    }
}

/// What every function of the module needs.
struct Builder<'a> {
    g: &'a Graph,
    config: &'a EncoderConfig,
    names: Names,
    batch: Dim,
    seq: Dim,
}

/// The module of an encoder; see the [module](super) for its parameters and results.
///
/// Errors: `model-config` for sizes that do not fit together, and those of the DSL.
pub fn encoder(config: &EncoderConfig) -> Result<Module, Diagnostic> {
    config.check()?;
    let g = &Graph::new("main");
    let (batch, seq) = (g.symbol("batch", 1..=MAX_BATCH as i64), g.symbol("seq", 1..=config.positions as i64));
    let b = Builder { g, config, names: config.family.names(), batch, seq };
    g.function("layer", |_| [b.layer()]);
    if !config.attention.is_empty() {
        g.function("probabilities", |_| [b.probabilities()]);
    }

    let tokens = g.input("tokens", DType::I64, (&b.batch, &b.seq));
    let mask = g.input("mask", DType::Bool, (&b.batch, &b.seq));
    let (embedding, words) = b.embedding(&tokens);
    let (mut states, mut probabilities) = (vec![embedding.clone()], Vec::new());
    let mut x = embedding;
    for layer in 0..config.layers {
        let scope = config.family.scope(layer);
        if config.attention.contains(&layer) {
            let [found] = g.scope(&scope, || g.call("probabilities", &[&x, &mask]));
            probabilities.push((layer, found));
        }
        [x] = g.scope(&scope, || g.call("layer", &[&x, &mask]));
        states.push(x.clone());
    }
    let first = match config.head {
        EncoderHead::Embedding => pooled(&x, &mask),
        EncoderHead::Logits => b.logits(&x, &words),
        EncoderHead::Loss => {
            let targets = g.input("targets", DType::I64, (&b.batch, &b.seq));
            loss(&b.logits(&x, &words), &targets, &mask)
        }
    };
    let states = states.iter().filter(|_| config.hidden_states);
    let asked = config.attention.iter().filter_map(|l| probabilities.iter().find(|(k, _)| k == l).map(|(_, p)| p));
    g.finish(&[&first].into_iter().chain(states).chain(asked).collect::<Vec<_>>())
}

impl Builder<'_> {
    fn weight(&self, name: &str, shape: &[usize]) -> Tensor {
        self.g.weight(name, self.config.float, shape.to_vec())
    }

    #[track_caller]
    fn linear(&self, x: &Tensor, name: &str, from: usize, to: usize) -> Tensor {
        Linear::new(self.g, name, self.config.float, from, to, true).forward(x)
    }

    #[track_caller]
    fn norm(&self, x: &Tensor, name: &str, width: usize) -> Tensor {
        let [weight, bias] = ["weight", "bias"].map(|part| self.weight(&format!("{name}.{part}"), &[width]));
        x.layer_norm(Some(&weight), Some(&bias), self.config.epsilon)
    }

    #[track_caller]
    fn activation(&self, x: &Tensor) -> Tensor {
        match self.config.activation {
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Relu => x.relu(),
        }
    }

    /// The hidden state before the first layer, and the table of words.
    fn embedding(&self, tokens: &Tensor) -> (Tensor, Tensor) {
        let (c, width) = (self.config, self.config.embedding_width);
        let table =
            |name: &str, rows: usize| self.weight(&format!("embeddings.{name}_embeddings.weight"), &[rows, width]);
        let words = table("word", c.vocabulary);
        let types = table("token_type", c.token_types).slice(0, 0, 1);
        let positions = table("position", c.positions).slice(0, 0, &self.seq);
        let x = self.norm(&(words.embedding(tokens) + types + positions), "embeddings.LayerNorm", width);
        let x = match c.family {
            EncoderFamily::Bert => x,
            EncoderFamily::Albert => self.linear(&x, "encoder.embedding_hidden_mapping_in", width, c.width),
        };
        (x, words)
    }

    /// The parameters of a layer's function: the hidden state, and the mask as `[batch, 1, 1, seq]`.
    fn inputs(&self) -> (Tensor, Tensor) {
        let x = self.g.input("x", self.config.float, (&self.batch, &self.seq, self.config.width));
        let mask = self.g.input("mask", DType::Bool, (&self.batch, &self.seq));
        let seen = mask.unsqueeze(1).unsqueeze(1);
        (x, seen)
    }

    /// A linear layer of x, by heads: `[batch, heads, seq, size]`.
    #[track_caller]
    fn heads(&self, x: &Tensor, name: &str) -> Tensor {
        let (width, heads) = (self.config.width, self.config.heads as i64);
        self.linear(x, name, width, width).rearrange("b s (h d) -> b h s d", &[("h", heads)])
    }

    /// One layer: the hidden state `[batch, seq, width]` to the next.
    fn layer(&self) -> Tensor {
        let (c, n) = (self.config, &self.names);
        let (x, seen) = self.inputs();
        let [q, k, v] = [n.query, n.key, n.value].map(|name| self.heads(&x, name));
        let attended = q.attention(&k, &v, Attention { mask: Some(&seen), ..Attention::default() });
        let attended = attended.rearrange("b h s d -> b s (h d)", &[]);
        let x = x + self.linear(&attended, n.attended, c.width, c.width);
        let x = self.norm(&x, n.attention_norm, c.width);
        let inner = self.activation(&self.linear(&x, n.up, c.width, c.feed_forward));
        self.norm(&(&x + self.linear(&inner, n.down, c.feed_forward, c.width)), n.norm, c.width)
    }

    /// How much each token attends to each, `[batch, heads, seq, seq]`, in the layer whose weights these are.
    fn probabilities(&self) -> Tensor {
        let (x, seen) = self.inputs();
        let [q, k] = [self.names.query, self.names.key].map(|name| self.heads(&x, name));
        let size = self.config.width / self.config.heads;
        let scores = q.matmul(&k.transpose(-1, -2)) / (size as f64).sqrt();
        seen.select(&scores, f64::NEG_INFINITY).softmax(-1)
    }

    fn logits(&self, x: &Tensor, words: &Tensor) -> Tensor {
        let (c, n) = (self.config, &self.names);
        let inner = self.activation(&self.linear(x, n.head_dense, c.width, c.embedding_width));
        let inner = self.norm(&inner, n.head_norm, c.embedding_width);
        inner.linear(words) + self.weight(n.head_bias, &[c.vocabulary])
    }
}

/// The mean of x `[batch, seq, width]` over what the mask shows, divided by its length.
fn pooled(x: &Tensor, mask: &Tensor) -> Tensor {
    let sum = mask.unsqueeze(-1).select(x, 0.0).sum(&[1]);
    let mean = sum / mask.cast(x.dtype()).sum_keep(&[1]);
    let length = (&mean * &mean).sum_keep(&[-1]).sqrt();
    mean / length.maximum(1e-12)
}

/// The mean over what the mask shows of minus the logarithm of the probability that the logits give to the targets.
fn loss(logits: &Tensor, targets: &Tensor, mask: &Tensor) -> Tensor {
    let chosen = logits.log_softmax(-1).take_along(&targets.unsqueeze(-1), -1).squeeze(-1);
    let sum = mask.select(&chosen, 0.0).sum(&[0, 1]);
    -(sum / mask.cast(logits.dtype()).sum(&[0, 1]))
}
