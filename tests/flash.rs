//! Attention in its variants, written in primitives: level 2 finds one kernel for each by rules that they share, the kernel
//! agrees with the interpreter, and memory grows as sequences do. `UPDATE_DOCS=1` rewrites the table of rules in
//! `docs/attention.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/losses.rs"]
mod losses;
#[path = "support/random.rs"]
mod random;
#[path = "support/variants.rs"]
mod variants;

use random::Random;
use std::sync::Arc;
use tilewright::compile::{Options, compile, lower};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::dsl::Graph;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::kernel::text::print_program;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::cover::{Context, Kind, Positive, cover};
use tilewright_passes::egraph::{
    self, CoverLimits, Device, Fold, Head, Limits, Numerics, RuleSet, Saturation, Term, saturate, shipped,
};
use tilewright_runtime::plan::plan_programs;
use variants::{Sizes, VARIANTS, Variant};

fn options() -> Options {
    Options { opt_level: 2, ..Options::host().unwrap() }
}

/// The kinds of the kernels that level 2 chooses on the device, and the rules that fired.
fn kernels(module: &Module, rules: &RuleSet, device: &str) -> (Vec<Kind>, Vec<String>) {
    kernels_on(module, rules, &Device::named(device).unwrap())
}

fn kernels_on(module: &Module, rules: &RuleSet, device: &Device) -> (Vec<Kind>, Vec<String>) {
    let f = module.entry().unwrap();
    let import = egraph::import(f).unwrap();
    let limits = Limits::of(import.graph.total_size());
    let Saturation { graph, fired, .. } = saturate(import.graph.clone(), rules, Numerics::Reassociate, limits).unwrap();
    let context = Context::new(f, &import, &graph, &Bindings::new()).unwrap();
    let roots: Vec<_> = import.roots.iter().map(|r| graph.find(r.class)).collect();
    let found = cover(&graph, &roots, &context, device, CoverLimits::default()).unwrap();
    (found.cuts.into_iter().map(|c| c.kind).collect(), fired.into_iter().map(|f| f.rule.to_string()).collect())
}

/// This machine with slow memory, on which nothing is stored that need not be.
fn slow_memory() -> Options {
    let options = options();
    let device = Device::named(&format!("cpu-{}", options.isa.name())).unwrap();
    let device = Device { memory: Positive(1e8), cache: Positive(1e8), ..device };
    Options { device: Some(Arc::new(device)), ..options }
}

fn is_one_attention(kinds: &[Kind]) -> bool {
    matches!(kinds, [Kind::Attention { .. }])
}

/// Values for the parameters: small numbers, masks that hide a third.
fn inputs(module: &Module) -> Vec<Array> {
    let mut random = Random(5);
    let make = |param: &tilewright_ir::graph::Param| {
        let shape = param.ty.concrete(&Bindings::new()).unwrap();
        let n: usize = shape.iter().product();
        match param.ty.dtype {
            DType::Bool => Array::from_bool(&shape, &(0..n).map(|i| i % 3 != 1).collect::<Vec<_>>()).unwrap(),
            DType::I64 => Array::from_i64(&shape, &vec![0; n]).unwrap(),
            dtype => {
                let mut bytes: Vec<u8> = Vec::new();
                for _ in 0..n {
                    let number = Array::from_number(dtype, f64::from(random.signed() * 2.0)).unwrap();
                    bytes.extend(&**number.bytes());
                }
                Array::new(dtype, &shape, Bytes::new(bytes)).unwrap()
            }
        }
    };
    module.entry().unwrap().params.iter().map(make).collect()
}

#[test]
fn each_variant_is_one_kernel() {
    let rules = shipped().unwrap();
    for device in ["cpu-avx512", "cpu-avx2"] {
        for v in VARIANTS {
            let (kinds, _) = kernels(&v.module(v.sizes(8192)), &rules, device);
            let names: Vec<&str> = kinds.iter().map(Kind::name).collect();
            assert!(is_one_attention(&kinds), "{} on {device}: {names:?}", v.name);
        }
    }
}

#[test]
fn kernels_of_variants_agree_with_the_interpreter() {
    for isa in [Isa::best(), Isa::Portable] {
        for v in VARIANTS {
            // Two tiles of keys, three where the first is hidden from some rows.
            let tokens = if v.name.contains("window") || v.name == "band" { 300 } else { 150 };
            let module = v.module(v.sizes(tokens));
            let inputs = inputs(&module);
            let expected = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
            let executable = compile(&module, &Options { isa, ..options() }).unwrap();
            let found = executable.run(&inputs, &Bindings::new()).unwrap();
            let (found, expected) = (found[0].to_f64().unwrap(), expected[0].to_f64().unwrap());
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max);
            assert!(worst < 3e-5 && found.iter().all(|x| x.is_finite()), "{} on {isa:?}: {worst}", v.name);
        }
    }
}

/// In f16 and bf16 the same, but where a graph rounds positions: these are computed as slowly as stored.
#[test]
fn halves_are_one_kernel_too() {
    let rules = shipped().unwrap();
    for dtype in [DType::Bf16, DType::F16] {
        for v in VARIANTS.iter().filter(|v| v.name != "ALiBi") {
            let (kinds, _) = kernels(&v.module(Sizes { dtype, ..v.sizes(8192) }), &rules, "cpu-avx512");
            let names: Vec<&str> = kinds.iter().map(Kind::name).collect();
            assert!(is_one_attention(&kinds), "{} in {dtype}: {names:?}", v.name);
        }
    }
    for v in VARIANTS {
        let module = v.module(Sizes { dtype: DType::Bf16, ..v.sizes(150) });
        let inputs = inputs(&module);
        // What is rounded at every op, as the graph says, and what is not; where scores are stored, they are rounded.
        let [strict, meaning] = [Mode::Strict, Mode::Meaning]
            .map(|mode| run(&module, "main", &inputs, &Bindings::new(), mode).unwrap()[0].to_f64().unwrap());
        let found = compile(&module, &options()).unwrap().run(&inputs, &Bindings::new()).unwrap()[0].to_f64().unwrap();
        let outside = |x: f64, a: f64, b: f64| (x - a.max(b)).max(a.min(b) - x).max(0.0) / (1.0 + a.abs());
        let worst = (0..found.len()).map(|i| outside(found[i], strict[i], meaning[i])).fold(0.0, f64::max);
        assert!(worst < 2e-2 && found.iter().all(|x| x.is_finite()), "{}: {worst}", v.name);
    }
}

/// Of a row that is hidden whole, softmax is NaN. Weights that are hidden once more are 0, and so is what pads them.
#[test]
fn what_hides_a_row_twice_leaves_zeros() {
    let v = VARIANTS.iter().find(|v| v.name == "padding, weights hidden too").unwrap();
    let module = v.module(v.sizes(150));
    let mut inputs = inputs(&module);
    let mask = inputs.iter_mut().find(|a| a.dtype() == DType::Bool).unwrap();
    *mask = Array::from_bool(mask.shape(), &[false; 300]).unwrap();
    let found = compile(&module, &options()).unwrap().run(&inputs, &Bindings::new()).unwrap();
    assert!(found[0].to_f64().unwrap().iter().all(|x| *x == 0.0), "weights");

    let g = Graph::new("main");
    let x = g.input("x", DType::F32, [3, 40]);
    let e = (&x - x.max_keep(&[-1])).exp();
    let padded = (&e / e.sum_keep(&[-1])).pad(1, 0, 2, 0.0);
    let module = g.finish(&[&padded]).unwrap();
    let x = Array::from_f32(&[3, 40], &[f32::NEG_INFINITY; 120]).unwrap();
    let found = compile(&module, &options()).unwrap().run(&[x], &Bindings::new()).unwrap()[0].to_f64().unwrap();
    for row in found.chunks(42) {
        assert!(row[..40].iter().all(|x| x.is_nan()) && row[40..] == [0.0, 0.0], "{row:?}");
    }
}

#[test]
fn tiles_that_masks_hide_are_not_visited() {
    for v in VARIANTS {
        let programs = lower(&v.module(v.sizes(8192)), &options()).unwrap();
        let text = print_program(programs.last().unwrap());
        let loops = text.lines().find(|l| l.trim_start().starts_with("for jt in")).unwrap();
        let (first, last) = loops.split_once(" .. ").unwrap();
        let near = v.name.contains("window") || v.name == "band";
        assert_eq!(!first.ends_with("in 0"), near, "{}: {loops}", v.name);
        let ends = near && !v.name.starts_with("decoding") || ["causal", "ALiBi"].iter().any(|w| v.name.contains(w));
        assert!(!ends || last.contains("mt*"), "{}: {loops}", v.name);
    }
}

#[test]
fn memory_grows_as_the_sequence_does() {
    for v in VARIANTS {
        let [short, long] = [8192, 32768].map(|n| {
            let programs = lower(&v.module(v.sizes(n)), &options()).unwrap();
            let plans = plan_programs(&programs).unwrap();
            plans.last().unwrap().peak.eval(&Bindings::new()).unwrap()
        });
        assert!(long <= 4 * short + 4096, "{}: {short} bytes for 8192 tokens, {long} for 32768", v.name);
        // Keys and values once more, as panels.
        let sizes = v.sizes(8192);
        let packed = sizes.batch * sizes.groups * sizes.keys * (sizes.head + sizes.values + 64) * 4;
        assert!(short <= packed, "{}: {short} bytes beside inputs and results", v.name);
    }
}

/// What softmax needs to become one pass, by rules that any of several may stand for.
const FAMILIES: &[(&str, &[&str])] = &[
    (
        "a sum weighted by exponentials keeps its own maximum",
        &["esum-weighted", "esum-weighted-product", "esum-selected-weighted"],
    ),
    ("the sum of exponentials keeps the same one", &["esum-plain"]),
    (
        "a row's divisor leaves the product with the values",
        &["mul-div-right", "sum-divisor", "div-row", "sum-row-scale", "sum-row-gain", "esum-divisor", "esum-factor"],
    ),
];

/// Whether a variant of 8,192 tokens is one kernel without some rules.
fn found_without(v: &Variant, rules: &RuleSet, out: &[&str]) -> bool {
    let rest = rules.rules.iter().filter(|r| !out.contains(&&*r.name)).cloned().collect();
    is_one_attention(&kernels(&v.module(v.sizes(8192)), &RuleSet { rules: rest }, "cpu-avx512").0)
}

#[test]
fn variants_share_the_rules_that_they_need() {
    let rules = shipped().unwrap();
    for (what, family) in FAMILIES {
        for v in VARIANTS.iter().filter(|v| v.name != "divided after the values") {
            assert!(!found_without(v, &rules, family), "{} is found, though nothing says that {what}", v.name);
        }
    }
    let mut table = String::from("| variant | rules without which it is more kernels than one |\n| --- | --- |\n");
    for v in VARIANTS {
        let (_, fired) = kernels(&v.module(v.sizes(8192)), &rules, "cpu-avx512");
        let needed = fired.iter().filter(|rule| !found_without(v, &rules, &[rule]));
        let needed: Vec<String> = needed.map(|rule| format!("`{rule}`")).collect();
        table += &format!("| {} | {} |\n", v.name, needed.join(", "));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/attention.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- rules -->\n", "<!-- end -->\n");
    let from = text.find(begin).unwrap() + begin.len();
    let to = text.find(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{table}{}", &text[..from], &text[to..])).unwrap();
    } else {
        assert_eq!(table, text[from..to], "UPDATE_DOCS=1 rewrites docs/attention.md");
    }
}

/// Counts of heads in a term: sums and one-pass sums, exponentials.
fn count(term: &Term, sums: &mut usize, exponentials: &mut usize) {
    if let Term::Apply(head, args) = term {
        *sums += usize::from(*head == Head::Fold(Fold::Sum));
        let exp = matches!(head, Head::Scalar(tilewright_ir::op::ScalarOp::Exp {}));
        *exponentials += usize::from(exp || matches!(head, Head::Fold(Fold::Esum | Fold::EsumIf)));
        args.iter().for_each(|a| count(a, sums, exponentials));
    }
}

#[test]
fn no_rule_knows_attention() {
    for rule in shipped().unwrap().rules {
        let (mut sums, mut exponentials) = (0, 0);
        count(&rule.left, &mut sums, &mut exponentials);
        // One for the product of queries and keys, one for that with values.
        assert!(exponentials == 0 || sums < 2, "{}", rule.name);
    }
}

#[test]
fn a_maximum_and_a_plain_sum_go_along() {
    // What a loss over classes has: the maximum stays, and a sum of squares of the scores is taken in the same pass.
    for (rows, keys) in [(64, 1000), (37, 257)] {
        for result in ["%9", "%13"] {
            let text = format!(
                "func @main(%q: f32[{rows}, 4], %k: f32[{keys}, 4]) -> f32[{rows}] {{
                %1 = dot %q, %k contract=[1]x[1]\n %2 = reduce_max %1 axes=[1]
                %3 = broadcast %2 shape=[{rows}, {keys}] dims=[0]\n %4 = sub %1, %3\n %5 = exp %4\n %6 = sum %5 axes=[1]
                %7 = log %6\n %9 = add %7, %2
                %11 = mul %1, %1\n %12 = sum %11 axes=[1]\n %13 = add %9, %12\n return {result} }}"
            );
            let module = tilewright_ir::text::parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
            let device = slow_memory().device.unwrap();
            assert!(is_one_attention(&kernels_on(&module, &shipped().unwrap(), &device).0), "{result}");
            let inputs = inputs(&module);
            let expected = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
            let found = compile(&module, &slow_memory()).unwrap().run(&inputs, &Bindings::new()).unwrap();
            for (x, y) in found[0].to_f64().unwrap().into_iter().zip(expected[0].to_f64().unwrap()) {
                assert!((x - y).abs() < 1e-5 * (1.0 + y.abs()), "{x} for {y}");
            }
        }
    }
}
