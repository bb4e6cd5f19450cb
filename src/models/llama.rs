//! Llama (Touvron et al. 2023): grouped-query attention, rotary positions, RMS norm, SwiGLU, by the tensor names of GGUF.

use super::{Outputs, Positions, Trunk, WeightTypes, block_names, cached_attention, check_sizes, config_error};
use crate::formats::Gguf;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, RopeLayout, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{DType, Dim};

/// Weights of a block that are matrices, and whose dtypes may differ.
const MATRICES: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// Sizes and choices of a Llama model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Number of blocks.
    pub layers: usize,
    /// Size of the hidden state.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Size of a head, even.
    pub head_size: usize,
    /// Inner size of the feed-forward network.
    pub feed_forward: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
    /// Divisors of the rotary frequencies, `head_size / 2` of them, or none.
    pub rope_factors: Vec<f64>,
    /// Which elements rotate together.
    pub rope_layout: RopeLayout,
    /// Added to the mean square in RMS norms.
    pub epsilon: f64,
    /// The output matrix is the token embedding.
    pub tied: bool,
    /// Tokens that the caches hold.
    pub capacity: usize,
    /// Dtypes by tensor name, f32 where absent.
    pub dtypes: WeightTypes,
    /// What is returned.
    pub outputs: Outputs,
}

impl LlamaConfig {
    /// From the metadata and tensors of a GGUF file; `capacity` is the caller's, at most the file's context length.
    ///
    /// Errors: `gguf-metadata`, `checkpoint-tensor`, `checkpoint-dtype`, `model-config`.
    pub fn from_gguf(gguf: &Gguf, capacity: usize) -> Result<LlamaConfig, Diagnostic> {
        let family = gguf.str("general.architecture")?;
        if family != "llama" {
            return Err(config_error("general.architecture", &format!("`llama`, found `{}`", family.escape_default())));
        }
        let has = |key: &str| gguf.metadata.contains_key(key);
        let (width, heads) = (gguf.usize("llama.embedding_length")?, gguf.usize("llama.attention.head_count")?);
        let by_width = width.checked_div(heads).unwrap_or(0);
        let optional = |key: &str, other: usize| if has(key) { gguf.usize(key) } else { Ok(other) };
        let head_size = optional("llama.attention.key_length", by_width)?;
        let rotated = optional("llama.rope.dimension_count", head_size)?;
        if rotated != head_size {
            return Err(config_error("llama.rope.dimension_count", &format!("{head_size}, found {rotated}")));
        }
        if has("llama.rope.scaling.type") && gguf.str("llama.rope.scaling.type")? != "none" {
            return Err(config_error("llama.rope.scaling.type", "`none`"));
        }
        let context = optional("llama.context_length", capacity)?;
        if capacity > context {
            return Err(config_error("capacity", &format!("at most the context length {context}, found {capacity}")));
        }
        let factors = if gguf.names().any(|n| n == "rope_freqs.weight") {
            gguf.tensor("rope_freqs.weight")?.to_f64().ok_or_else(|| config_error("rope_freqs.weight", "a float"))?
        } else {
            Vec::new()
        };
        let table = gguf.shape("token_embd.weight")?;
        let mut config = LlamaConfig {
            layers: gguf.usize("llama.block_count")?,
            width,
            heads,
            kv_heads: optional("llama.attention.head_count_kv", heads)?,
            head_size,
            feed_forward: gguf.usize("llama.feed_forward_length")?,
            vocabulary: table.first().copied().unwrap_or(0),
            rope_base: if has("llama.rope.freq_base") { gguf.f64("llama.rope.freq_base")? } else { 10_000.0 },
            rope_factors: factors,
            rope_layout: RopeLayout::Interleaved,
            epsilon: gguf.f64("llama.attention.layer_norm_rms_epsilon")?,
            tied: !gguf.names().any(|n| n == "output.weight"),
            capacity,
            dtypes: WeightTypes::new(),
            outputs: Outputs::default(),
        };
        config.check()?;
        // The first block that the file lacks ends this, whatever number of blocks it claims.
        for name in config.names() {
            let dtype = gguf.tensor(&name)?.dtype();
            config.dtypes.insert(name, dtype);
        }
        Ok(config)
    }

    /// Names of the checkpoint's weights, in the order of their use.
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        let blocks = (0..self.layers).flat_map(|i| {
            let norms = ["attn_norm", "ffn_norm"];
            norms.into_iter().chain(MATRICES).map(move |n| format!("blk.{i}.{n}.weight"))
        });
        let output = if self.tied { None } else { Some("output.weight".to_string()) };
        ["token_embd.weight".to_string()]
            .into_iter()
            .chain(blocks)
            .chain(["output_norm.weight".to_string()])
            .chain(output)
    }

    fn check(&self) -> Result<(), Diagnostic> {
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_size", self.head_size),
            ("feed_forward", self.feed_forward),
            ("vocabulary", self.vocabulary),
        ];
        check_sizes(&sizes, self.capacity)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(config_error("kv_heads", &format!("a divisor of {}, found {}", self.heads, self.kv_heads)));
        }
        if !self.head_size.is_multiple_of(2) {
            return Err(config_error("head_size", &format!("an even number, found {}", self.head_size)));
        }
        let factors = self.rope_factors.len();
        if factors != 0 && factors != self.head_size / 2 {
            return Err(config_error("rope_factors", &format!("none or {}, found {factors}", self.head_size / 2)));
        }
        Ok(())
    }

    fn dtype(&self, name: &str) -> DType {
        self.dtypes.get(name).copied().unwrap_or(DType::F32)
    }
}

/// The module of a Llama model; see the [module](super) for its parameters and results. The weights `rope.cos` and
/// `rope.sin` are those of [`rope_tables`].
///
/// Errors: `model-config` for sizes that do not fit together, and those of the DSL.
pub fn llama(config: &LlamaConfig) -> Result<Module, Diagnostic> {
    config.check()?;
    let g = Graph::new("main");
    let at = Positions::declare(&g, config.capacity)?;
    let local = |layer: usize, name: &str| config.dtype(&format!("blk.{layer}.{name}.weight"));
    let own = |layer: usize| ["attn_norm", "ffn_norm"].into_iter().chain(MATRICES).map(|n| local(layer, n)).collect();
    let blocks = block_names(config.layers, own);
    let mut declared = 0;
    for (layer, (name, kind)) in blocks.iter().enumerate() {
        if *kind == declared {
            g.function(name, |g| block(g, config, &at, |n| local(layer, n)));
            declared += 1;
        }
    }

    let tokens = g.input("tokens", DType::I64, (&at.seq,));
    let table_dtype = config.dtype("token_embd.weight");
    let table = g.weight("token_embd.weight", table_dtype, (config.vocabulary, config.width));
    let half = [config.capacity, config.head_size / 2];
    let angles = |name: &str| g.weight(name, DType::F32, half).slice(0, &at.past, &at.all);
    let (cos, sin) = (angles("rope.cos"), angles("rope.sin"));
    let mut trunk = Trunk::new(table.embedding(&tokens).cast(DType::F32));
    let cache = [config.kv_heads, config.capacity, config.head_size];
    for (layer, (name, _)) in blocks.iter().enumerate() {
        trunk.layer(&g, name, &format!("blk.{layer}"), layer, &[&cos, &sin], cache);
    }
    let x = trunk.chosen(config.outputs, &at);
    let norm = g.weight("output_norm.weight", config.dtype("output_norm.weight"), [config.width]).cast(DType::F32);
    let x = x.rms_norm(&norm, config.epsilon);
    let logits = if config.tied {
        x.linear(&table)
    } else {
        x.linear(&g.weight("output.weight", config.dtype("output.weight"), (config.vocabulary, config.width)))
    };
    trunk.finish(&g, &logits, &tokens, config.outputs)
}

/// One block: x, the rotary tables and the caches to x and the caches.
fn block(g: &Graph, config: &LlamaConfig, at: &Positions, dtype: impl Fn(&str) -> DType) -> [Tensor; 3] {
    let width = Dim::from(config.width);
    let (heads, groups) = (config.heads as i64, config.kv_heads as i64);
    let (queries, pairs) = (config.heads * config.head_size, config.kv_heads * config.head_size);
    let weight = |name: &str, to: usize, from: usize| g.weight(&format!("{name}.weight"), dtype(name), (to, from));
    let x = g.input("x", DType::F32, (&at.seq, &width));
    let cos = g.input("cos", DType::F32, (&at.seq, config.head_size / 2));
    let sin = g.input("sin", DType::F32, (&at.seq, config.head_size / 2));
    let cache = [config.kv_heads, config.capacity, config.head_size];
    let (k_cache, v_cache) = (g.donated("k_cache", DType::F32, cache), g.donated("v_cache", DType::F32, cache));
    let norm = |name: &str, x: &Tensor| {
        let weight = g.weight(&format!("{name}.weight"), dtype(name), (&width,));
        x.rms_norm(&weight.cast(DType::F32), config.epsilon)
    };

    let n = norm("attn_norm", &x);
    let split = |x: Tensor, h: i64| x.rearrange("s (h d) -> h s d", &[("h", h)]);
    let q = split(n.linear(&weight("attn_q", queries, config.width)), heads).rope(&cos, &sin, config.rope_layout);
    let k = split(n.linear(&weight("attn_k", pairs, config.width)), groups).rope(&cos, &sin, config.rope_layout);
    let v = split(n.linear(&weight("attn_v", pairs, config.width)), groups);
    let (attended, [k_cache, v_cache]) = cached_attention(&q, [&k, &v], [&k_cache, &v_cache], at);
    let x = x + attended.linear(&weight("attn_output", config.width, queries));

    let n = norm("ffn_norm", &x);
    let gate = n.linear(&weight("ffn_gate", config.feed_forward, config.width)).silu();
    let up = n.linear(&weight("ffn_up", config.feed_forward, config.width));
    let down = (gate * up).linear(&weight("ffn_down", config.width, config.feed_forward));
    [x + down, k_cache, v_cache]
}

/// Cosines and sines f32[capacity, head_size / 2] of position times frequency base^(-2i / head_size), computed in f64.
///
/// Errors: `model-config`.
pub fn rope_tables(config: &LlamaConfig) -> Result<(Array, Array), Diagnostic> {
    config.check()?;
    let half = config.head_size / 2;
    let entries = config.capacity.checked_mul(half).filter(|n| *n <= 1 << 32);
    let entries = entries.ok_or_else(|| config_error("capacity", "rotary tables of at most 2^32 entries"))?;
    let (mut cos, mut sin) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
    for position in 0..config.capacity {
        for i in 0..half {
            let frequency = config.rope_base.powf(-((2 * i) as f64) / config.head_size as f64);
            let angle = position as f64 * (frequency / config.rope_factors.get(i).copied().unwrap_or(1.0));
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
    }
    let shape = [config.capacity, half];
    Ok((Array::from_f32(&shape, &cos)?, Array::from_f32(&shape, &sin)?))
}
