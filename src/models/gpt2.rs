//! GPT-2 (Radford et al. 2019): learned positions, layer norm, gelu by tanh, output matrix tied to the embedding, or one of its own.

use super::{Outputs, Positions, Trunk, WeightTypes, block_names, cached_attention, check_sizes, config_error};
use crate::formats::Gguf;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Dim};

/// Whose names and layout the weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gpt2Names {
    /// GGUF: `blk.0.attn_qkv.weight`, matrices stored `[out, in]`.
    Gguf,
    /// Hugging Face: `h.0.attn.c_attn.weight`, matrices stored `[in, out]`.
    HuggingFace,
}

/// Names of one convention: of a block (norm, attention in, attention out, norm, up, down), then of the whole model.
struct Names {
    scope: &'static str,
    block: [&'static str; 6],
    tokens: &'static str,
    positions: &'static str,
    norm: &'static str,
    output: &'static str,
}

impl Gpt2Names {
    const fn names(self) -> Names {
        match self {
            Gpt2Names::Gguf => Names {
                scope: "blk",
                block: ["attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"],
                tokens: "token_embd",
                positions: "position_embd",
                norm: "output_norm",
                output: "output",
            },
            Gpt2Names::HuggingFace => Names {
                scope: "h",
                block: ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"],
                tokens: "wte",
                positions: "wpe",
                norm: "ln_f",
                output: "lm_head",
            },
        }
    }
}

/// Sizes and choices of a GPT-2 model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Number of blocks.
    pub layers: usize,
    /// Size of the hidden state, a multiple of `heads`.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Inner size of the feed-forward network.
    pub feed_forward: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Rows of the position table.
    pub context: usize,
    /// Added to variances.
    pub epsilon: f64,
    /// The output matrix is the token embedding.
    pub tied: bool,
    /// Tokens that the caches hold, at most `context`.
    pub capacity: usize,
    /// Names and layout of the weights.
    pub names: Gpt2Names,
    /// Dtypes by tensor name, f32 where absent.
    pub dtypes: WeightTypes,
    /// What is returned.
    pub outputs: Outputs,
}

impl Gpt2Config {
    /// The 124M model as on Hugging Face, with caches of `capacity` tokens.
    pub fn small(capacity: usize) -> Gpt2Config {
        Gpt2Config {
            layers: 12,
            width: 768,
            heads: 12,
            feed_forward: 3072,
            vocabulary: 50257,
            context: 1024,
            epsilon: 1e-5,
            tied: true,
            capacity,
            names: Gpt2Names::HuggingFace,
            dtypes: WeightTypes::new(),
            outputs: Outputs::default(),
        }
    }

    /// From the metadata and tensors of a GGUF file. Errors: `gguf-metadata`, `checkpoint-tensor`, `checkpoint-dtype`,
    /// `model-config`.
    pub fn from_gguf(gguf: &Gguf, capacity: usize) -> Result<Gpt2Config, Diagnostic> {
        let family = gguf.str("general.architecture")?;
        if family != "gpt2" {
            return Err(config_error("general.architecture", &format!("`gpt2`, found `{}`", family.escape_default())));
        }
        let rows = |name: &str| gguf.shape(name).map(|s| s.first().copied().unwrap_or(0));
        let mut config = Gpt2Config {
            layers: gguf.usize("gpt2.block_count")?,
            width: gguf.usize("gpt2.embedding_length")?,
            heads: gguf.usize("gpt2.attention.head_count")?,
            feed_forward: gguf.usize("gpt2.feed_forward_length")?,
            vocabulary: rows("token_embd.weight")?,
            context: rows("position_embd.weight")?,
            epsilon: gguf.f64("gpt2.attention.layer_norm_epsilon")?,
            tied: !gguf.names().any(|n| n == "output.weight"),
            capacity,
            names: Gpt2Names::Gguf,
            dtypes: WeightTypes::new(),
            outputs: Outputs::default(),
        };
        config.check()?;
        let names: Vec<String> = gguf.names().map(str::to_string).collect();
        for name in names {
            let dtype = gguf.tensor(&name)?.dtype();
            config.dtypes.insert(name, dtype);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), Diagnostic> {
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
        ];
        check_sizes(&sizes, self.capacity)?;
        if !self.width.is_multiple_of(self.heads) {
            return Err(config_error("heads", &format!("a divisor of {}, found {}", self.width, self.heads)));
        }
        if self.capacity > self.context {
            return Err(config_error("capacity", &format!("at most {}, found {}", self.context, self.capacity)));
        }
        Ok(())
    }

    fn dtype(&self, name: &str) -> DType {
        self.dtypes.get(name).copied().unwrap_or(DType::F32)
    }
}

/// The module of a GPT-2 model; see the [module](super) for its parameters and results.
///
/// Errors: `model-config` for sizes that do not fit together, and those of the DSL.
pub fn gpt2(config: &Gpt2Config) -> Result<Module, Diagnostic> {
    config.check()?;
    let g = Graph::new("main");
    let at = Positions::declare(&g, config.capacity)?;
    let names = config.names.names();
    let path = |layer: usize| format!("{}.{layer}", names.scope);
    let own = |layer: usize| {
        let both = |n: &str| [format!("{}.{n}.weight", path(layer)), format!("{}.{n}.bias", path(layer))];
        names.block.iter().flat_map(|n| both(n)).map(|n| config.dtype(&n)).collect()
    };
    let blocks = block_names(config.layers, own);
    let mut declared = 0;
    for (layer, (name, kind)) in blocks.iter().enumerate() {
        if *kind == declared {
            g.function(name, |g| block(g, config, &at, |n| config.dtype(&format!("{}.{n}", path(layer)))));
            declared += 1;
        }
    }

    let tokens = g.input("tokens", DType::I64, (&at.seq,));
    let table = |name: &str, rows: usize| {
        let name = format!("{name}.weight");
        g.weight(&name, config.dtype(&name), (rows, config.width))
    };
    let words = table(names.tokens, config.vocabulary);
    let positions = table(names.positions, config.context).cast(DType::F32).slice(0, &at.past, &at.all);
    let mut trunk = Trunk::new(words.embedding(&tokens).cast(DType::F32) + positions);
    let cache = [config.heads, config.capacity, config.width / config.heads];
    for (layer, (name, _)) in blocks.iter().enumerate() {
        trunk.layer(&g, name, &path(layer), layer, &[], cache);
    }
    let x = trunk.chosen(config.outputs, &at);
    let x = norm(&g, &x, names.norm, config, |n| config.dtype(n));
    let logits = x.linear(&if config.tied { words } else { table(names.output, config.vocabulary) });
    trunk.finish(&g, &logits, &tokens, config.outputs)
}

fn norm(g: &Graph, x: &Tensor, name: &str, config: &Gpt2Config, dtype: impl Fn(&str) -> DType) -> Tensor {
    let weight = |name: String| g.weight(&name, dtype(&name), [config.width]).cast(DType::F32);
    let (weight, bias) = (weight(format!("{name}.weight")), weight(format!("{name}.bias")));
    x.layer_norm(Some(&weight), Some(&bias), config.epsilon)
}

/// One block: x and the caches to x and the caches.
fn block(g: &Graph, config: &Gpt2Config, at: &Positions, dtype: impl Fn(&str) -> DType) -> [Tensor; 3] {
    let [norm_1, qkv, output, norm_2, up, down] = config.names.names().block;
    let width = Dim::from(config.width);
    let x = g.input("x", DType::F32, (&at.seq, &width));
    let cache = [config.heads, config.capacity, config.width / config.heads];
    let (k_cache, v_cache) = (g.donated("k_cache", DType::F32, cache), g.donated("v_cache", DType::F32, cache));
    let linear = |x: &Tensor, name: &str, from: usize, to: usize| {
        let (matrix, vector) = (format!("{name}.weight"), format!("{name}.bias"));
        let product = match config.names {
            Gpt2Names::Gguf => x.linear(&g.weight(&matrix, dtype(&matrix), (to, from))),
            Gpt2Names::HuggingFace => x.matmul(&g.weight(&matrix, dtype(&matrix), (from, to)).cast(DType::F32)),
        };
        product + g.weight(&vector, dtype(&vector), [to]).cast(DType::F32)
    };

    let n = norm(g, &x, norm_1, config, &dtype);
    let all = linear(&n, qkv, config.width, 3 * config.width);
    let part = |i: usize| {
        let part = all.slice(1, i * config.width, (i + 1) * config.width);
        part.rearrange("s (h d) -> h s d", &[("h", config.heads as i64)])
    };
    let (attended, [k_cache, v_cache]) = cached_attention(&part(0), [&part(1), &part(2)], [&k_cache, &v_cache], at);
    let x = x + linear(&attended, output, config.width, config.width);

    let n = norm(g, &x, norm_2, config, &dtype);
    let inner = linear(&n, up, config.width, config.feed_forward).gelu_tanh();
    let x = x + linear(&inner, down, config.feed_forward, config.width);
    [x, k_cache, v_cache]
}
