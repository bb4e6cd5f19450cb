//! Blocks of transformer models with random weights, for [`levels`](super::levels()) and for tests of rules.

use crate::models::encoder::{Activation, EncoderConfig, EncoderFamily, EncoderHead, encoder};
use crate::models::{LlamaConfig, Outputs, WeightTypes, llama};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, RopeLayout, Tensor, concat, einsum};
use tilewright_ir::graph::Module;
use tilewright_ir::types::{Bindings, DType};

/// A program with the sizes that it is measured for.
pub struct Block {
    /// What it is called in tables.
    pub name: String,
    /// The program.
    pub module: Module,
    /// Values of its symbols.
    pub sizes: Bindings,
}

impl Block {
    fn new(name: &str, module: Module, sizes: &[(&str, i64)]) -> Block {
        Block { name: name.into(), module, sizes: sizes.iter().map(|(s, n)| ((*s).into(), *n)).collect() }
    }
}

/// Blocks of the usual models in their true sizes.
///
/// Errors: those of building a module.
pub fn blocks() -> Result<Vec<Block>, Diagnostic> {
    let mut out = Vec::new();
    for tokens in [1, 128, 512] {
        out.push(Block::new(
            &format!("GPT-2 block, {tokens} token{}", if tokens == 1 { "" } else { "s" }),
            super::gpt2::one_block(tokens)?,
            &[],
        ));
    }
    for (what, seq, past) in [("prompt of 64", 64, 0), ("decoding after 512", 1, 512)] {
        let name = format!("SmolLM2 block, {what}");
        out.push(Block::new(&name, smollm2()?, &[("seq", seq), ("past", past)]));
    }
    for (name, family) in [("BERT layer", EncoderFamily::Bert), ("ALBERT layer", EncoderFamily::Albert)] {
        let sizes = [("batch", 8), ("seq", 64)];
        out.push(Block::new(&format!("{name}, 8 x 64 tokens"), encoder(&encoder_config(family))?, &sizes));
    }
    let vit = vit(Vit { image: 224, patch: 16, width: 768, heads: 12, classes: 1000, float: DType::F32 })?;
    out.push(Block::new("ViT with one block, one image", vit, &[("batch", 1)]));
    let moe = moe(Moe { experts: 8, width: 512, inner: 1024, float: DType::F32 })?;
    out.push(Block::new("MoE layer, 8 experts, 64 tokens", moe, &[("n", 64)]));
    let lora = lora(Lora { width: 768, out: 2304, rank: 16, float: DType::F32 })?;
    out.push(Block::new("norm and linear with LoRA, 128 tokens", lora, &[("n", 128)]));
    Ok(out)
}

/// SmolLM2-135M with one block and few words.
fn smollm2() -> Result<Module, Diagnostic> {
    let matrices = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let dtypes: WeightTypes = matrices.iter().map(|m| (format!("blk.0.{m}.weight"), DType::Q4_1)).collect();
    llama(&LlamaConfig {
        layers: 1,
        width: 576,
        heads: 9,
        kv_heads: 3,
        head_size: 64,
        feed_forward: 1536,
        vocabulary: 256,
        rope_base: 1e5,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: true,
        capacity: 640,
        dtypes,
        outputs: Outputs::default(),
    })
}

/// MiniLM with one layer, or ALBERT-base with one pass; few words.
fn encoder_config(family: EncoderFamily) -> EncoderConfig {
    let bert = family == EncoderFamily::Bert;
    let width = if bert { 384 } else { 768 };
    EncoderConfig {
        family,
        layers: 1,
        width,
        embedding_width: if bert { width } else { 128 },
        heads: 12,
        feed_forward: 4 * width,
        vocabulary: 256,
        positions: 512,
        token_types: 2,
        activation: if bert { Activation::Gelu } else { Activation::GeluTanh },
        epsilon: 1e-12,
        pad: 0,
        float: DType::F32,
        head: EncoderHead::Embedding,
        hidden_states: false,
        attention: Vec::new(),
    }
}

/// The DSL gives no tensor where it got none.
fn nothing() -> Diagnostic {
    Diagnostic::bug("an operation of no tensors")
}

fn linear(g: &Graph, x: &Tensor, name: &str, from: i64, to: i64) -> Tensor {
    let w = g.weight(&format!("{name}.weight"), x.dtype(), (to, from));
    let b = g.weight(&format!("{name}.bias"), x.dtype(), [to]);
    x.linear(&w) + b
}

fn norm(g: &Graph, x: &Tensor, name: &str, width: i64) -> Tensor {
    let w = g.weight(&format!("{name}.weight"), x.dtype(), [width]);
    let b = g.weight(&format!("{name}.bias"), x.dtype(), [width]);
    x.layer_norm(Some(&w), Some(&b), 1e-6)
}

/// Sizes of [`vit`]. The inner width of the feed-forward network is four times `width`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Vit {
    /// Pixels of a side, a multiple of `patch`.
    pub image: i64,
    pub patch: i64,
    pub width: i64,
    pub heads: i64,
    pub classes: i64,
    pub float: DType,
}

/// A vision transformer with one block (Dosovitskiy et al., An Image is Worth 16x16 Words, 2021): patches, a class token, a head.
/// `image`, `[batch, 3, image, image]`, to probabilities `[batch, classes]`.
///
/// Errors: those of building a module.
pub fn vit(s: Vit) -> Result<Module, Diagnostic> {
    let (g, width) = (&Graph::new("main"), s.width);
    let (side, inside) = (s.image / s.patch, 3 * s.patch * s.patch);
    let batch = g.symbol("batch", 1..=64);
    let image = g.input("image", s.float, [batch.clone(), 3.into(), s.image.into(), s.image.into()]);
    let patches = image.rearrange("b c (h p) (w q) -> b (h w) (c p q)", &[("p", s.patch), ("q", s.patch)]);
    let class = g.weight("class", s.float, (1, 1, width)).broadcast_to([batch, 1.into(), width.into()]);
    let tokens = concat(&[&class, &linear(g, &patches, "patch", inside, width)], 1).ok_or_else(nothing)?;
    let x = tokens + g.weight("positions", s.float, (side * side + 1, width));
    let h = norm(g, &x, "norm1", width);
    let heads = |name: &str| linear(g, &h, name, width, width).rearrange("b s (h d) -> b h s d", &[("h", s.heads)]);
    let attended = heads("query").attention(&heads("key"), &heads("value"), Attention::default());
    let x = x + linear(g, &attended.rearrange("b h s d -> b s (h d)", &[]), "out", width, width);
    let up = linear(g, &norm(g, &x, "norm2", width), "up", width, 4 * width).gelu();
    let x = x + linear(g, &up, "down", 4 * width, width);
    let class = norm(g, &x, "norm", width).slice(1, 0, 1).squeeze(1);
    g.finish(&[&linear(g, &class, "head", width, s.classes).softmax(-1)])
}

/// Sizes of [`moe`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Moe {
    pub experts: i64,
    pub width: i64,
    pub inner: i64,
    pub float: DType,
}

/// A mixture of experts, gated: all are computed, the likeliest counts. `x`, `[n, width]`, to the same.
///
/// Errors: those of building a module.
pub fn moe(s: Moe) -> Result<Module, Diagnostic> {
    let (g, float) = (&Graph::new("main"), s.float);
    let n = g.symbol("n", 1..=256);
    let x = g.input("x", float, [n, s.width.into()]);
    let logits = x.linear(&g.weight("router", float, (s.experts, s.width)));
    let chosen = logits.eq(logits.max_keep(&[1])).cast(float) * logits.softmax(1);
    let matrices = |name: &str| g.weight(name, float, (s.experts, s.inner, s.width));
    let up = einsum("nd,efd->enf", &[&x, &matrices("up")]).ok_or_else(nothing)?;
    let gate = einsum("nd,efd->enf", &[&x, &matrices("gate")]).ok_or_else(nothing)?.silu();
    let down = g.weight("down", float, (s.experts, s.width, s.inner));
    let out = einsum("enf,edf->end", &[&(gate * up), &down]).ok_or_else(nothing)?;
    g.finish(&[&einsum("end,ne->nd", &[&out, &chosen]).ok_or_else(nothing)?])
}

/// Sizes of [`lora`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Lora {
    pub width: i64,
    pub out: i64,
    pub rank: i64,
    pub float: DType,
}

/// An RMS norm, then a linear layer with a low-rank adapter (Hu et al., LoRA, 2021). `x`, `[n, width]`, to `[n, out]`.
///
/// Errors: those of building a module.
pub fn lora(s: Lora) -> Result<Module, Diagnostic> {
    let (g, float) = (&Graph::new("main"), s.float);
    let n = g.symbol("n", 1..=256);
    let x = g.input("x", float, [n, s.width.into()]).rms_norm(&g.weight("norm", float, [s.width]), 1e-6);
    let low = x.linear(&g.weight("a", float, (s.rank, s.width))).linear(&g.weight("b", float, (s.out, s.rank)));
    g.finish(&[&(x.linear(&g.weight("w", float, (s.out, s.width))) + low * 0.5)])
}
