//! The programs: parts of small transformers with odd sizes, and their inputs.

use crate::random::Random;
use std::path::Path;
use std::sync::Arc;
use tilewright::compile::{MAX_OPT_LEVEL, Options, lower_gpu};
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright::models::{Gpt2Config, LlamaConfig, Outputs, WeightTypes, gpt2, llama};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::dsl::nn::{LayerNorm, Linear, RmsNorm};
use tilewright_ir::dsl::{Attention, Graph, RopeLayout};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::Program;
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_passes::egraph::Device;
use tilewright_runtime::device::Plan;

/// A program with values for its symbols.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub module: Module,
    pub bindings: Bindings,
    /// Inputs, where they are not random.
    given: Option<Vec<Array>>,
    /// What kernels are priced by, if not by the description of the target.
    machine: Option<&'static str>,
}

fn case(name: &'static str, module: Module, symbols: &[(&str, i64)]) -> Case {
    let bindings = symbols.iter().map(|(s, v)| ((*s).into(), *v)).collect();
    Case { name: name.into(), module, bindings, given: None, machine: None }
}

/// Priced for a device with so little bandwidth that scores of any size are dear.
fn attention_case(name: &'static str, (dtype, width, causal): (DType, i64, bool), n: i64) -> Case {
    Case { machine: Some("l4"), ..case(name, half_attention(dtype, width, causal), &[("n", n)]) }
}

/// `gelu(x) * y + 1` over a symbolic axis.
pub fn pointwise() -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=4096);
    let (x, y) = (g.input("x", DType::F32, (&n, 100)), g.input("y", DType::F32, (100,)));
    let out = x.gelu_tanh() * y + 1.0;
    g.finish(&[&out]).unwrap()
}

pub fn softmax() -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=4096);
    let out = g.input("x", DType::F32, (&n, 1000)).softmax(-1);
    g.finish(&[&out]).unwrap()
}

pub fn layer_norm() -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=4096);
    let out = LayerNorm::new(&g, "norm", 768, 1e-5).forward(&g.input("x", DType::F32, (&n, 768)));
    g.finish(&[&out]).unwrap()
}

/// RMS norm, gate and up, silu, product, down, residual.
pub fn swiglu() -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=4096);
    let x = g.input("x", DType::F32, (&n, 72));
    let h = RmsNorm::new(&g, "norm", 72, 1e-5).forward(&x);
    let linear = |name, from: i64, to: i64, x: &_| Linear::new(&g, name, DType::F32, from, to, false).forward(x);
    let inner = linear("gate", 72, 100, &h).silu() * linear("up", 72, 100, &h);
    let out = x + linear("down", 100, 72, &inner);
    g.finish(&[&out]).unwrap()
}

/// Causal attention with two heads a group over a symbolic length.
pub fn attention() -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=512);
    let q = g.input("q", DType::F32, (4, &n, 24));
    let (k, v) = (g.input("k", DType::F32, (2, &n, 24)), g.input("v", DType::F32, (2, &n, 24)));
    let out = q.attention(&k, &v, Attention { causal: true, ..Attention::default() });
    g.finish(&[&out]).unwrap()
}

/// Attention of 16-bit floats with two heads a group over a symbolic length, on matrix instructions at level 2.
pub fn half_attention(dtype: DType, width: i64, causal: bool) -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=512);
    let q = g.input("q", dtype, (4, &n, width));
    let (k, v) = (g.input("k", dtype, (2, &n, width)), g.input("v", dtype, (2, &n, width)));
    let out = q.attention(&k, &v, Attention { causal, ..Attention::default() });
    g.finish(&[&out]).unwrap()
}

pub fn gpt2_model() -> Module {
    let outputs = Outputs { all_logits: true, hidden_states: false, loss: false };
    let sizes = Gpt2Config { layers: 2, width: 48, heads: 3, feed_forward: 100, ..Gpt2Config::small(33) };
    gpt2(&Gpt2Config { vocabulary: 67, context: 33, outputs, ..sizes }).unwrap()
}

/// Products of 16-bit floats: whole tiles and rests, factors that lie across, batches, computed factors, and what follows.
pub fn halves(dtype: DType) -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=4096);
    let linear = |name: &str, from: i64, to: i64, x: &tilewright_ir::dsl::Tensor| {
        Linear::new(&g, name, dtype, from, to, true).forward(x)
    };
    let x = g.input("x", dtype, (&n, 72));
    // Bias and gelu behind, a norm and two products of one factor before.
    let h = RmsNorm::new(&g, "norm", 72, 1e-5).forward(&x.cast(DType::F32)).cast(dtype) * 0.2;
    let inner = linear("gate", 72, 100, &h).silu() * linear("up", 72, 100, &h);
    let y = g.input("y", dtype, (&n, 100));
    let out = &x + linear("down", 100, 72, &y);
    // Neither factor has the contracted axis innermost; sizes that are no multiples of 2.
    let (a, b) = (g.input("a", dtype, (3, 40, 33)), g.input("b", dtype, (3, 40, 130)));
    let across = a.permute(&[0, 2, 1]).matmul(&b);
    // Scores of a symbolic length on both sides, of heads that lie side by side.
    let q = x.reshape((&n, 3, 24)).permute(&[1, 0, 2]);
    let scores = (q.matmul(&q.permute(&[0, 2, 1])) * 0.2).softmax(-1);
    let mixed = scores.matmul(&q);
    g.finish(&[&inner, &out, &across, &mixed]).unwrap()
}

/// Positions that are cast: to floats and back, and to integers in which they wrap.
fn positions() -> Module {
    let text = "func @main(%y: i64[n, 300]) -> (bool[n, 300], i64[n, 300]) where n in 1..=64 {
        %0 = iota axis=1 shape=[n, 300] dtype=f32
        %1 = flip %0 axes=[1]
        %2 = cast %1 to=i64
        %3 = eq %2, %y
        %4 = iota axis=1 shape=[n, 300] dtype=i64
        %5 = cast %4 to=i8
        %6 = cast %5 to=i64
        return %3, %6
    }";
    parse("positions.tw", text).unwrap()
}

/// Block-quantised weights: a product, and rows taken by index.
fn blocks() -> Module {
    let g = Graph::new("main");
    let n = g.symbol("n", 1..=64);
    let (x, ids) = (g.input("x", DType::F32, (&n, 64)), g.input("ids", DType::I64, (&n,)));
    let of = |dtype: DType| {
        let w = g.weight(dtype.name(), dtype, (40, 64));
        [x.linear(&w), w.embedding(&ids).cast(DType::F32)]
    };
    let all = [of(DType::Q4_0), of(DType::Q8_0)].concat();
    g.finish(&all.iter().collect::<Vec<_>>()).unwrap()
}

pub fn llama_model(weights: DType) -> Module {
    let mut config = LlamaConfig {
        layers: 1,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_size: 16,
        feed_forward: 96,
        vocabulary: 40,
        rope_base: 10_000.0,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: false,
        capacity: 32,
        dtypes: WeightTypes::new(),
        outputs: Outputs { all_logits: true, hidden_states: false, loss: false },
    };
    for name in config.names().filter(|n| !n.contains("norm")) {
        config.dtypes.insert(name, weights);
    }
    llama(&config).unwrap()
}

/// Running sums, searches, scatters, long rows and halves.
fn others() -> Module {
    let text = "func @main(%x: f32[n, 37], %i: i64[n, 37], %b: bf16[n, 37], %h: f16[n, 37], %l: f32[3, m]) ->
         (f32[n, 37], i64[n], i64[3], f32[n, 37], f32[n, 37], bf16[n, 37], f16[n, 37], f32[3, m], f32[n, 37])
         where n in 1..=64, m in 1..=9000 {
       %0 = cumsum %x axis=1
       %1 = argmax %x axis=1
       %2 = argmin %l axis=1
       %3 = take_along %x, %i axis=1
       %4 = scatter_add %x, %i, %x axis=1
       %5 = add %b, %b
       %6 = exp %h
       %7 = reduce_max %l axes=[1]
       %8 = broadcast %7 shape=[3, m] dims=[0]
       %9 = sub %l, %8
       %10 = cumsum %x axis=0
       return %0, %1, %2, %3, %4, %5, %6, %9, %10
     }";
    tilewright_ir::text::parse("others.tw", text).unwrap_or_else(|d| panic!("{d}"))
}

/// Folds of bools and of small integers, over short, long and outer axes; the sum of a row as an integer.
fn small_numbers() -> Module {
    let text = "func @main(%x: bool[n, 300], %y: bool[4, 6, 50], %z: bool[m], %i: i8[n, 300], %u: u16[n, 40],
         %f: f32[n, 33]) ->
         (bool[n], bool[n], bool[n], bool[n], bool[300], bool[300], bool[4, 6], bool[4, 50], bool[], bool[],
          i64[n], i8[n], i8[n], u16[n], u16[40], i64[n]) where n in 1..=64, m in 1..=9000 {
       %0 = sum %x axes=[1]
       %1 = prod %x axes=[1]
       %2 = reduce_max %x axes=[1]
       %3 = reduce_min %x axes=[1]
       %4 = sum %x axes=[0]
       %5 = prod %x axes=[0]
       %6 = prod %y axes=[2]
       %7 = sum %y axes=[1]
       %8 = sum %z axes=[0]
       %9 = prod %z axes=[0]
       %10 = argmax %x axis=1
       %11 = sum %i axes=[1]
       %12 = reduce_max %i axes=[1]
       %13 = reduce_min %u axes=[1]
       %14 = sum %u axes=[0]
       %15 = sum %f axes=[1]
       %16 = cast %15 to=i64
       %17 = mul %16, %16
       return %0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %17
     }";
    tilewright_ir::text::parse("small_numbers.tw", text).unwrap_or_else(|d| panic!("{d}"))
}

/// The text of a program that `scripts/gpu-suite.sh` runs is that of the module here; `TILEWRIGHT_UPDATE=1` writes it.
#[test]
fn files_of_programs_are_these_modules() {
    let modules = [
        ("pointwise", pointwise()),
        ("softmax", softmax()),
        ("layer_norm", layer_norm()),
        ("swiglu", swiglu()),
        ("attention", attention()),
        ("gpt2", gpt2_model()),
        ("llama_q4_1", llama_model(DType::Q4_1)),
    ];
    for (name, module) in modules {
        let path = format!("{}/tests/data/programs/{name}.tw", env!("CARGO_MANIFEST_DIR"));
        // Lines of this file are no part of a program.
        let text = tilewright_ir::text::print(&module);
        if std::env::var_os("TILEWRIGHT_UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{path} is not the text of the module; TILEWRIGHT_UPDATE=1 cargo test --test cuda files"
        );
    }
}

/// All cases.
pub fn cases() -> Vec<Case> {
    vec![
        case("pointwise", pointwise(), &[("n", 7)]),
        case("softmax", softmax(), &[("n", 3)]),
        case("layer_norm", layer_norm(), &[("n", 3)]),
        case("swiglu", swiglu(), &[("n", 70)]),
        case("attention", attention(), &[("n", 19)]),
        case("gpt2", gpt2_model(), &[("seq", 13), ("past", 9)]),
        case("llama_q4_1", llama_model(DType::Q4_1), &[("seq", 5), ("past", 3)]),
        case("bf16", halves(DType::Bf16), &[("n", 70)]),
        case("f16", halves(DType::F16), &[("n", 130)]),
        attention_case("attention_bf16", (DType::Bf16, 24, true), 70),
        attention_case("attention_f16", (DType::F16, 64, false), 131),
        attention_case("attention_wide", (DType::Bf16, 128, true), 37),
        crate::products::case(DType::Bf16, 1),
        crate::products::case(DType::F16, 2),
        crate::products::case(DType::Bf16, 3),
        case("blocks", blocks(), &[("n", 5)]),
        case("positions", positions(), &[("n", 5)]),
        case("others", others(), &[("n", 5), ("m", 2500)]),
        case("small_numbers", small_numbers(), &[("n", 5), ("m", 2500)]),
    ]
}

/// The op programs of the reference data, on their inputs.
pub fn op_programs() -> Vec<Case> {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ops"));
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("index.json")).unwrap()).unwrap();
    let case = |entry: &serde_json::Value| {
        let file = Safetensors::open(data.join(entry["file"].as_str().unwrap())).unwrap();
        let program = OpProgram::from_file(&file, DType::F32).unwrap();
        let given = Some(program.read_inputs(&file).unwrap());
        let name: String = entry["name"].as_str().unwrap().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        Case { name: format!("op_{name}"), module: program.module, bindings: Bindings::new(), given, machine: None }
    };
    index.as_array().unwrap().iter().map(case).collect()
}

impl Random {
    fn array(&mut self, ty: &Type, bindings: &Bindings) -> Array {
        let shape = ty.concrete(bindings).unwrap();
        let n: usize = shape.iter().product();
        let mut bytes = Vec::new();
        match ty.dtype {
            // So many hold that whole folds are `true` and `false`, and that the extreme one is not always the first.
            DType::Bool => {
                let rare = self.below(2) == 0;
                (0..n).for_each(|_| bytes.push(u8::from((self.below(100) == 0) == rare)));
            }
            // So small that sums do not wrap, which the kernel interpreter does not do.
            DType::I8 => (0..n).for_each(|_| bytes.push((self.below(5) as i8 - 2) as u8)),
            DType::U16 => (0..n).for_each(|_| bytes.extend((self.below(1000) as u16).to_le_bytes())),
            DType::I64 => (0..n).for_each(|_| bytes.extend((self.next() % 37).to_le_bytes())),
            DType::F16 => (0..n).for_each(|_| bytes.extend(half::f16::from_f32(self.signed()).to_le_bytes())),
            DType::Bf16 => (0..n).for_each(|_| bytes.extend(half::bf16::from_f32(self.signed()).to_le_bytes())),
            DType::F32 => (0..n).for_each(|_| bytes.extend(self.signed().to_le_bytes())),
            d => {
                let (per, size) = d.block();
                for _ in 0..n / per {
                    let start = bytes.len();
                    (0..size).for_each(|_| bytes.push(self.next() as u8));
                    let scales = if d == DType::Q4_1 { 2 } else { 1 };
                    for i in 0..scales {
                        let scale = half::f16::from_f32(0.02 * self.signed()).to_le_bytes();
                        bytes[start + 2 * i..start + 2 * i + 2].copy_from_slice(&scale);
                    }
                }
            }
        }
        Array::new(ty.dtype, &shape, Bytes::new(bytes)).unwrap()
    }
}

impl Case {
    /// A case of random inputs.
    pub fn new(name: String, module: Module, bindings: Bindings) -> Case {
        Case { name, module, bindings, given: None, machine: None }
    }

    pub fn inputs(&self) -> Vec<Array> {
        if let Some(given) = &self.given {
            return given.clone();
        }
        let mut random = Random(11);
        let params = &self.module.entry().unwrap().params;
        params.iter().map(|p| random.array(&p.ty, &self.bindings)).collect()
    }

    pub fn expected(&self, inputs: &[Array]) -> Vec<Array> {
        let entry = &self.module.entry().unwrap().name;
        interp::run(&self.module, entry, inputs, &self.bindings, Mode::Meaning).unwrap_or_else(|d| panic!("{d}"))
    }

    /// The options of a level.
    pub fn options(&self, opt_level: u8) -> Options {
        let device = self.machine.map(|name| Arc::new(Device::named(name).unwrap()));
        Options { device, ..level_options(opt_level) }
    }

    /// Programs and plan at a level.
    pub fn lowered(&self, opt_level: u8) -> (Vec<Program>, Plan) {
        let programs =
            lower_gpu(&self.module, &self.options(opt_level), "sm_80").unwrap_or_else(|d| panic!("{}: {d}", self.name));
        let main = programs.iter().position(|p| &*p.name == "main").unwrap();
        let plan = Plan::new(&programs, main, &self.bindings).unwrap_or_else(|d| panic!("{}: {d}", self.name));
        (programs, plan)
    }
}

pub fn levels() -> std::ops::RangeInclusive<u8> {
    0..=MAX_OPT_LEVEL
}

/// The default options at a level.
pub fn level_options(opt_level: u8) -> Options {
    Options { opt_level, ..Options::host().unwrap() }
}

/// Compares results; `tolerance` is relative to 1 + |x|.
pub fn compare(what: &str, found: &[Vec<f64>], expected: &[Array], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let e64 = e.to_f64().unwrap();
        assert_eq!(f.len(), e64.len(), "{what}: result {i}");
        // One unit in the last place of a half.
        let tolerance = match e.dtype() {
            DType::F16 => 2e-3,
            DType::Bf16 => 1.6e-2,
            _wide => tolerance,
        };
        for (j, (a, b)) in f.iter().zip(&e64).enumerate() {
            let close = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * (1.0 + b.abs());
            assert!(close, "{what}: result {i} element {j}: {a} instead of {b}");
        }
    }
}
