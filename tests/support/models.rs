//! Small graphs of models that have no file: what rules are for.

use tilewright::bench::{self, Lora, Moe, Vit};
use tilewright::models::{Activation, EncoderConfig, EncoderFamily, EncoderHead, encoder};
use tilewright_ir::dsl::{Graph, Tensor, einsum};
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

fn vit(float: DType) -> Module {
    bench::vit(Vit { image: 16, patch: 8, width: 24, heads: 3, classes: 10, float }).unwrap()
}

fn moe(float: DType) -> Module {
    bench::moe(Moe { experts: 4, width: 16, inner: 32, float }).unwrap()
}

fn lora(float: DType) -> Module {
    bench::lora(Lora { width: 32, out: 48, rank: 4, float }).unwrap()
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
