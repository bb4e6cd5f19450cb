//! Small graphs of models that have no file: what rules are for.

use tilewright::models::{Activation, EncoderConfig, EncoderFamily, EncoderHead, encoder};
use tilewright_ir::dsl::{Attention, Graph, Tensor, concat, einsum};
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType;
use tilewright_passes::autodiff::{Form, differentiate};

fn bert(family: EncoderFamily) -> Module {
    let bert = family == EncoderFamily::Bert;
    let config = EncoderConfig {
        family,
        layers: 2,
        width: 24,
        embedding_width: if bert { 24 } else { 10 },
        heads: 3,
        feed_forward: 40,
        vocabulary: 50,
        positions: 20,
        token_types: 2,
        activation: if bert { Activation::Gelu } else { Activation::GeluTanh },
        epsilon: 1e-12,
        pad: 0,
        float: DType::F32,
        head: EncoderHead::Embedding,
        hidden_states: false,
        attention: vec![],
    };
    encoder(&config).unwrap()
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

/// A vision transformer: patches, a class token, one block, a head.
fn vit(float: DType) -> Module {
    let g = &Graph::new("main");
    let batch = g.symbol("batch", 1..=64);
    let image = g.input("image", float, [batch.clone(), 3.into(), 16.into(), 16.into()]);
    let patches = image.rearrange("b c (h p) (w q) -> b (h w) (c p q)", &[("p", 8), ("q", 8)]);
    let class = g.weight("class", float, (1, 1, 24)).broadcast_to([batch, 1.into(), 24.into()]);
    let tokens = concat(&[&class, &linear(g, &patches, "patch", 192, 24)], 1).unwrap();
    let x = tokens + g.weight("positions", float, (5, 24));
    let h = norm(g, &x, "norm1", 24);
    let heads = |name: &str| linear(g, &h, name, 24, 24).rearrange("b s (h d) -> b h s d", &[("h", 3)]);
    let attended = heads("query").attention(&heads("key"), &heads("value"), Attention::default());
    let x = x + linear(g, &attended.rearrange("b h s d -> b s (h d)", &[]), "out", 24, 24);
    let up = linear(g, &norm(g, &x, "norm2", 24), "up", 24, 48).gelu();
    let x = x + linear(g, &up, "down", 48, 24);
    let logits = linear(g, &norm(g, &x, "norm", 24).slice(1, 0, 1).squeeze(1), "head", 24, 10);
    g.finish(&[&logits.softmax(-1)]).unwrap()
}

/// A mixture of experts: all experts, of which the likeliest counts.
fn moe(float: DType) -> Module {
    let g = &Graph::new("main");
    let n = g.symbol("n", 1..=256);
    let x = g.input("x", float, [n, 16.into()]);
    let logits = x.linear(&g.weight("router", float, (4, 16)));
    let chosen = logits.eq(logits.max_keep(&[1])).cast(float) * logits.softmax(1);
    let up = einsum("nd,efd->enf", &[&x, &g.weight("up", float, (4, 32, 16))]).unwrap();
    let gate = einsum("nd,efd->enf", &[&x, &g.weight("gate", float, (4, 32, 16))]).unwrap().silu();
    let out = einsum("enf,edf->end", &[&(gate * up), &g.weight("down", float, (4, 16, 32))]).unwrap();
    g.finish(&[&einsum("end,ne->nd", &[&out, &chosen]).unwrap()]).unwrap()
}

/// A linear layer with a low-rank adapter, after a norm.
fn lora(float: DType) -> Module {
    let g = &Graph::new("main");
    let n = g.symbol("n", 1..=256);
    let x = g.input("x", float, [n, 32.into()]).rms_norm(&g.weight("norm", float, [32]), 1e-6);
    let low = x.linear(&g.weight("a", float, (4, 32))).linear(&g.weight("b", float, (48, 4)));
    g.finish(&[&(x.linear(&g.weight("w", float, (48, 32))) + low * 0.5)]).unwrap()
}

/// The loss of a linear head without its logits.
fn head() -> Module {
    let g = &Graph::new("main");
    let n = g.symbol("n", 1..=256);
    let x = g.input("x", DType::F32, [n.clone(), 16.into()]);
    let logits = x.linear(&g.weight("w", DType::F32, (50, 16)));
    g.finish(&[&logits.cross_entropy(&g.input("targets", DType::I64, [n]))]).unwrap()
}

/// The gradient of that loss.
fn head_gradient() -> Module {
    differentiate(&head(), &["x", "w"], Form::Gradient).unwrap().module
}

/// Attention in primitives, whose scores or weights something is done to.
fn attention(scores: fn(&Graph, Tensor) -> Tensor, weights: fn(&Graph, Tensor) -> Tensor) -> Module {
    let g = &Graph::new("main");
    let n = g.symbol("n", 1..=256);
    let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [2.into(), n.clone(), 16.into()]));
    let s = scores(g, einsum("hid,hjd->hij", &[&q, &k]).unwrap() * 0.25);
    g.finish(&[&einsum("hij,hjd->hid", &[&weights(g, s.softmax(-1)), &v]).unwrap()]).unwrap()
}

fn as_it_is(_: &Graph, x: Tensor) -> Tensor {
    x
}

/// Which positions count, as large as `x`.
fn kept(g: &Graph, x: &Tensor) -> Tensor {
    g.input("kept", DType::Bool, x.shape())
}

/// A mask of infinities that is added.
fn mask_added(g: &Graph, x: Tensor) -> Tensor {
    &x + kept(g, &x).select(0.5, f64::NEG_INFINITY)
}

/// A mask that says what does not count.
fn mask_turned(g: &Graph, x: Tensor) -> Tensor {
    kept(g, &x).select(f64::NEG_INFINITY, &x)
}

/// Dropout by a choice.
fn dropped(g: &Graph, x: Tensor) -> Tensor {
    kept(g, &x).select(&x, 0.0) * 1.25
}

/// Dropout by factors.
fn dropped_by_factors(g: &Graph, x: Tensor) -> Tensor {
    let factors = g.input("factors", DType::F32, x.shape());
    x * factors
}

/// Every model with its name.
pub fn models() -> Vec<(&'static str, Module)> {
    let file = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/programs").join(name);
        tilewright_ir::text::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
    };
    vec![
        ("GPT-2", file("gpt2.tw")),
        ("Llama", file("llama_q4_1.tw")),
        ("BERT", bert(EncoderFamily::Bert)),
        ("ALBERT", bert(EncoderFamily::Albert)),
        ("ViT", vit(DType::F32)),
        ("ViT bf16", vit(DType::Bf16)),
        ("MoE", moe(DType::F32)),
        ("MoE f16", moe(DType::F16)),
        ("LoRA", lora(DType::F32)),
        ("LoRA bf16", lora(DType::Bf16)),
        ("attention, mask added", attention(mask_added, as_it_is)),
        ("attention, mask turned", attention(mask_turned, as_it_is)),
        ("attention, dropout", attention(as_it_is, dropped)),
        ("attention, factors", attention(as_it_is, dropped_by_factors)),
        ("loss", head()),
        ("loss gradient", head_gradient()),
    ]
}
