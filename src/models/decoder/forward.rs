//! What a decoder computes.

use super::{DecoderConfig, DecoderFamily, DecoderNames, Weights};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, Key, RopeLayout, Tensor};
use tilewright_ir::types::DType;

/// The function of a block.
const BLOCK: &str = "block";

impl DecoderConfig {
    /// Logits `[batch, seq, vocabulary]` of tokens `[batch, seq]`, from the weights by their roles, which may be those of the
    /// adapters, too. With a probability and a key, elements are [dropped](Tensor::dropout) after the embedding and at the end of
    /// each half of a block. It declares the function `block`, so it stands once in a graph. Its parts have scopes: `embedding`, `h.N`
    /// and in it `ln1`, `attn.q`, `attn.scores`, `mlp.up` and so on, `lnf`, `head`.
    ///
    /// Errors, when the graph is finished: `model-weight` for weights that are missing; `model-config` for sequences longer than
    /// the context; those of the DSL.
    #[track_caller]
    pub fn logits(&self, ids: &Tensor, weights: &Weights, dropped: Option<(f64, &Key)>) -> Tensor {
        let g = ids.graph();
        let seq = ids.dim(-1).as_const().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= self.context);
        let Some(seq) = seq else {
            let message =
                format!("expected tokens [batch, seq] with at most {} of seq, found {}", self.context, ids.ty());
            return g.fail(Diagnostic::new("model-config", message));
        };
        let given = Given { g, config: self, weights };
        let table = given.get("wte");
        let mut shared = Vec::new();
        let mut x = g.scope("embedding", || {
            let x = table.embedding(ids);
            let x = match self.family {
                DecoderFamily::Gpt => x + given.get("wpe").slice(0, 0, seq),
                DecoderFamily::Llama => x,
            };
            match dropped {
                Some((probability, key)) => x.dropout(probability, &key.numbered(0)),
                None => x,
            }
        });
        if self.family == DecoderFamily::Llama {
            shared.extend(self.rope(g, seq));
        }
        self.declare_block(g, &x, &shared, weights, dropped.map(|(probability, _)| probability));
        for layer in 0..self.layers {
            let scope = format!("h.{layer}.");
            let own = weights.iter().filter(|(role, _)| role.starts_with(&scope)).map(|(_, t)| t);
            let key = dropped.map(|(_, key)| key.numbered(layer as u32 + 1).words().clone());
            let args: Vec<&Tensor> = [&x].into_iter().chain(&shared).chain(own).chain(&key).collect();
            let [next] = g.scope(&format!("h.{layer}"), || g.call(BLOCK, &args));
            x = next;
        }
        let x = given.norm("lnf", &x);
        g.scope("head", || if self.tied { x.linear(&table) } else { given.output(&x) })
    }

    /// The function of a block: `x`, what all layers share, the weights of a layer in the order of their roles, the key of what is
    /// dropped with the probability `drops`.
    fn declare_block(&self, g: &Graph, x: &Tensor, shared: &[Tensor], weights: &Weights, drops: Option<f64>) {
        let (dtype, shape) = (x.dtype(), x.shape().to_vec());
        g.function(BLOCK, |g| {
            let x = g.input("x", dtype, &shape);
            let one = |(i, t): (usize, &Tensor)| g.input(&format!("shared.{i}"), t.dtype(), t.shape());
            let shared: Vec<Tensor> = shared.iter().enumerate().map(one).collect();
            let of_first = weights.iter().filter_map(|(role, t)| Some((role.strip_prefix("h.0.")?, t)));
            let own = of_first.map(|(role, t)| (role.to_string(), g.input(role, t.dtype(), t.shape())));
            let own: Weights = own.collect();
            let given = Given { g, config: self, weights: &own };
            let keys = drops.map(|p| (p, Key::of(&g.input("key", DType::U32, [2])).split::<2>()));
            let drop = |x: Tensor, half: usize| match &keys {
                Some((probability, keys)) => x.dropout(*probability, &keys[half]),
                None => x,
            };
            let n = given.norm("ln1", &x);
            let x = g.scope("attn", || &x + drop(given.attention(&n, &shared), 0));
            let n = given.norm("ln2", &x);
            [g.scope("mlp", || &x + drop(given.feed_forward(&n), 1))]
        });
        if self.checkpoint {
            g.checkpoint(BLOCK);
        }
    }

    /// Cosines and sines `[seq, head_size / 2]` of the positions, computed in f64.
    fn rope(&self, g: &Graph, seq: usize) -> [Tensor; 2] {
        let half = self.head_size / 2;
        let angle = |at: usize| {
            let (position, i) = (at / half, at % half);
            position as f64 * self.rope_base.powf(-((2 * i) as f64) / self.head_size as f64)
        };
        [f64::cos as fn(f64) -> f64, f64::sin].map(|f| {
            let values: Vec<f64> = (0..seq * half).map(|at| f(angle(at))).collect();
            let array = match self.float {
                DType::F64 => Array::from_f64(&[seq, half], &values),
                _narrower => Array::from_f32(&[seq, half], &values.iter().map(|x| *x as f32).collect::<Vec<_>>()),
            };
            match array {
                Ok(array) => g.constant(array).cast(self.float),
                Err(error) => g.fail(error),
            }
        })
    }
}

/// Weights of a scope.
struct Given<'a> {
    g: &'a Graph,
    config: &'a DecoderConfig,
    weights: &'a Weights,
}

impl Given<'_> {
    fn get(&self, role: &str) -> Tensor {
        let missing =
            || self.g.fail(Diagnostic::new("model-weight", format!("expected a weight for `{role}`, found none")));
        self.weights.get(role).cloned().unwrap_or_else(missing)
    }

    fn norm(&self, role: &str, x: &Tensor) -> Tensor {
        let weight = self.get(&format!("{role}.w"));
        self.g.scope(role, || match self.config.family {
            DecoderFamily::Gpt => {
                x.layer_norm(Some(&weight), Some(&self.get(&format!("{role}.b"))), self.config.epsilon)
            }
            DecoderFamily::Llama => x.rms_norm(&weight, self.config.epsilon),
        })
    }

    /// The product with a matrix and its adapters, and its bias where there is one.
    fn linear(&self, role: &str, x: &Tensor) -> Tensor {
        self.g.scope(role, || self.product(role, x))
    }

    fn product(&self, role: &str, x: &Tensor) -> Tensor {
        let weight = self.get(&format!("{role}.w"));
        let mut y = if self.config.inputs_first() { x.matmul(&weight) } else { x.linear(&weight) };
        let part = |part: &str| self.weights.get(&format!("{role}.w.{part}"));
        if let (Some(lora), Some(a), Some(b)) = (self.config.lora, part("lora_a"), part("lora_b")) {
            y = y + x.matmul(a).matmul(b) * lora.scale();
        }
        match self.weights.get(&format!("{role}.b")) {
            Some(bias) => y + bias,
            None => y,
        }
    }

    /// Logits of a hidden state by a matrix of their own.
    fn output(&self, x: &Tensor) -> Tensor {
        let weight = self.get("head.w");
        match self.config.names {
            DecoderNames::Short => x.matmul(&weight),
            DecoderNames::HuggingFace => x.linear(&weight),
        }
    }

    fn attention(&self, x: &Tensor, rope: &[Tensor]) -> Tensor {
        let config = self.config;
        let split = |x: &Tensor, h: usize| x.rearrange("b s (h d) -> b h s d", &[("h", h as i64)]);
        let [q, k, v] = match config.family {
            DecoderFamily::Gpt => {
                let all = self.linear("qkv", x);
                [0, 1, 2].map(|i| split(&all.slice(-1, i * config.width, (i + 1) * config.width), config.heads))
            }
            DecoderFamily::Llama => {
                let of = |role: &str, heads: usize| split(&self.linear(role, x), heads);
                [of("q", config.heads), of("k", config.kv_heads), of("v", config.kv_heads)]
            }
        };
        let turned = |x: Tensor| match rope {
            [cos, sin] => x.rope(cos, sin, RopeLayout::Half),
            _none => x,
        };
        let causal = Attention { causal: true, ..Attention::default() };
        let scores = || turned(q).attention(&turned(k), &v, causal).rearrange("b h s d -> b s (h d)", &[]);
        let attended = self.g.scope("scores", scores);
        self.linear("proj", &attended)
    }

    fn feed_forward(&self, x: &Tensor) -> Tensor {
        match self.config.family {
            DecoderFamily::Gpt => self.linear("out", &self.linear("fc", x).gelu_tanh()),
            DecoderFamily::Llama => self.linear("down", &(self.linear("gate", x).silu() * self.linear("up", x))),
        }
    }
}
