//! GPT and Llama as they are trained: whole batches of sequences, without caches, from weights that are values of the graph.
//!
//! [`gpt2`](super::gpt2()) and [`llama`](super::llama()) are the same models as they generate. A block is one function, called
//! once a layer, so that its gradient is one function too.

mod forward;
mod generating;
mod gguf;
mod json;
mod names;

pub use names::DecoderNames;

use super::{check_sizes, config_error};
use crate::optim::Weight;
use names::{GPT_BLOCK, GPT_REST, LLAMA_BLOCK, LLAMA_REST, Row};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Tensor;
use tilewright_ir::types::{DType, Dim, Type};

/// Which model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderFamily {
    /// GPT-2 (Radford et al. 2019): learned positions, layer norm, gelu by tanh, biases.
    Gpt,
    /// Llama (Touvron et al. 2023): rotary positions in half style, RMS norm, SwiGLU, grouped queries, no biases.
    Llama,
}

/// Low-rank adapters of all matrices between hidden states (Hu et al., LoRA, 2021): `x W + alpha / rank x A B`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lora {
    /// Columns of A.
    pub rank: usize,
    /// Factor of the product, times the rank.
    pub alpha: f64,
}

impl Lora {
    /// The factor of `A B`.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }
}

/// Sizes and choices of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Which model.
    pub family: DecoderFamily,
    /// Number of blocks.
    pub layers: usize,
    /// Size of the hidden state.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`; that of GPT is `heads`.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_size: usize,
    /// Inner size of the feed-forward network.
    pub feed_forward: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Longest sequence.
    pub context: usize,
    /// Added to variances, or to mean squares.
    pub epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Whether the output matrix is the token embedding.
    pub tied: bool,
    /// Names and layout of the weights.
    pub names: DecoderNames,
    /// Dtype of the weights and of all that is computed.
    pub float: DType,
    /// Adapters, if there are any.
    pub lora: Option<Lora>,
    /// Whether the way back of a gradient keeps nothing of a block but its input, and computes the block again.
    pub checkpoint: bool,
}

/// How a weight starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// Normal numbers of this standard deviation.
    Normal(f64),
    /// Uniform numbers between plus and minus this.
    Uniform(f64),
    /// Ones.
    Ones,
    /// Zeros.
    Zeros,
}

/// A weight of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it is, whatever it is called: `wte`, `h.0.qkv.w`.
    pub role: String,
    /// Its name, type and treatment.
    pub weight: Weight,
    /// How it starts: as GPT-2 does, with projections back to the hidden state smaller by the root of their number.
    pub start: Start,
}

/// Weights by role.
pub type Weights = BTreeMap<String, Tensor>;

impl DecoderConfig {
    /// Errors: `model-config` for sizes that do not fit together.
    pub fn check(&self) -> Result<(), Diagnostic> {
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_size", self.head_size),
            ("feed_forward", self.feed_forward),
            ("vocabulary", self.vocabulary),
        ];
        check_sizes(&sizes, self.context)?;
        let whole = self.heads * self.head_size;
        match self.family {
            DecoderFamily::Gpt if self.kv_heads != self.heads => {
                Err(config_error("kv_heads", &format!("{} as a GPT has, found {}", self.heads, self.kv_heads)))
            }
            DecoderFamily::Gpt if whole != self.width => {
                let expected = format!("a divisor of the width {}, found {}", self.width, self.heads);
                Err(config_error("heads", &expected))
            }
            DecoderFamily::Llama if !self.head_size.is_multiple_of(2) => {
                Err(config_error("head_size", &format!("an even number, found {}", self.head_size)))
            }
            _ if !self.heads.is_multiple_of(self.kv_heads) => {
                Err(config_error("kv_heads", &format!("a divisor of {}, found {}", self.heads, self.kv_heads)))
            }
            DecoderFamily::Gpt | DecoderFamily::Llama => Ok(()),
        }
    }

    /// The weights without adapters, in the order of their use.
    pub fn entries(&self) -> Vec<Entry> {
        let (block, rest) = match self.family {
            DecoderFamily::Gpt => (GPT_BLOCK, GPT_REST),
            DecoderFamily::Llama => (LLAMA_BLOCK, LLAMA_REST),
        };
        let (first, last): (Vec<&Row>, Vec<&Row>) = rest.iter().partition(|row| row.first);
        let mut all: Vec<Entry> = first.into_iter().map(|row| self.entry(row, None)).collect();
        for layer in 0..self.layers {
            all.extend(block.iter().map(|row| self.entry(row, Some(layer))));
        }
        let last = last.into_iter().filter(|row| row.role != "head.w" || !self.tied);
        all.extend(last.map(|row| self.entry(row, None)));
        all
    }

    /// The adapters, `A` and `B` of each matrix, named after it with `.lora_a` and `.lora_b`.
    pub fn adapters(&self) -> Vec<Entry> {
        let Some(lora) = self.lora else { return Vec::new() };
        let hidden = self.entries().into_iter().filter(|e| e.weight.hidden);
        let both = hidden.flat_map(|e| {
            let [from, to] = self.sides(&e.weight.ty);
            // As torch's linear layers start: Kaiming's uniform with a = sqrt(5). The product starts as zeros.
            let start = Start::Uniform(1.0 / (from.as_const().unwrap_or(1).max(1) as f64).sqrt());
            let one = |part: &str, shape: [Dim; 2], start: Start| Entry {
                role: format!("{}.{part}", e.role),
                weight: Weight::new(format!("{}.{part}", e.weight.name), Type::new(self.float, shape)),
                start,
            };
            let rank = Dim::from(lora.rank);
            [one("lora_a", [from, rank.clone()], start), one("lora_b", [rank, to], Start::Zeros)]
        });
        both.collect()
    }

    /// Inputs and outputs of a matrix.
    fn sides(&self, ty: &Type) -> [Dim; 2] {
        let size = |axis: usize| ty.shape.get(axis).cloned().unwrap_or(Dim::constant(1));
        if self.inputs_first() { [size(0), size(1)] } else { [size(1), size(0)] }
    }

    /// Whether matrices are stored `[in, out]`.
    pub fn inputs_first(&self) -> bool {
        self.family == DecoderFamily::Gpt || self.names == DecoderNames::Short
    }

    fn entry(&self, row: &Row, layer: Option<usize>) -> Entry {
        let (role, name) = match layer {
            Some(layer) => (format!("h.{layer}.{}", row.role), self.names.in_block(self.family, layer, row)),
            None => (row.role.to_string(), self.names.of(row).to_string()),
        };
        let size = |s| self.size(s);
        let shape: Vec<usize> = match row.to {
            None => vec![size(row.from)],
            // Tables and the output matrix of Hugging Face's Llama have rows of the hidden state.
            Some(to) if row.table && !(row.role == "head.w" && self.names == DecoderNames::Short) => {
                vec![size(to), size(row.from)]
            }
            Some(to) if self.inputs_first() => vec![size(row.from), size(to)],
            Some(to) => vec![size(to), size(row.from)],
        };
        let mut weight = Weight::new(name, Type::new(self.float, shape));
        weight.hidden &= !row.table;
        let start = match row.to {
            None if row.role.ends_with(".b") => Start::Zeros,
            None => Start::Ones,
            Some(_) if row.residual => Start::Normal(0.02 / ((2 * self.layers) as f64).sqrt()),
            Some(_) => Start::Normal(0.02),
        };
        Entry { role, weight, start }
    }

    fn size(&self, size: names::Size) -> usize {
        match size {
            names::Size::Width => self.width,
            names::Size::Queries => self.heads * self.head_size,
            names::Size::Keys => self.kv_heads * self.head_size,
            names::Size::All => 3 * self.width,
            names::Size::Inner => self.feed_forward,
            names::Size::Vocabulary => self.vocabulary,
            names::Size::Context => self.context,
        }
    }
}
