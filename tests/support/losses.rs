//! Losses over classes of products: no kernel stores what is folded and looked up.

use super::{inputs, options, slow_memory};
use tilewright::compile::{Options, compile, lower};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::kernel::{Program, Step};
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;
use tilewright_runtime::plan::plan_programs;

const ROWS: i64 = 240;
const WIDTH: i64 = 32;
const CLASSES: i64 = 1000;

/// Logits and targets to a loss.
type Loss = fn(&Graph, &Tensor, &Tensor) -> Tensor;

const LOSSES: [(&str, Loss); 6] = [
    ("plain", |_, logits, targets| logits.cross_entropy(targets)),
    ("bias", |g, logits, targets| {
        (logits + g.weight("b", DType::F32, [CLASSES]).broadcast_to([ROWS, CLASSES])).cross_entropy(targets)
    }),
    ("soft cap", |_, logits, targets| ((logits / 30.0).tanh() * 30.0).cross_entropy(targets)),
    ("next token", |_, logits, targets| logits.slice(0, 0, ROWS - 1).cross_entropy(&targets.slice(0, 1, ROWS))),
    ("examples", |_, logits, targets| {
        logits.reshape([4, ROWS / 4, CLASSES]).cross_entropy(&targets.reshape([4, ROWS / 4]))
    }),
    ("scaled by class", |g, logits, targets| {
        let scale = g.iota(DType::F32, [ROWS, CLASSES], 1) * 1e-3;
        (logits * scale).cross_entropy(targets)
    }),
];

fn module(loss: Loss, tied: bool, also: fn(&Tensor) -> Option<Tensor>) -> Module {
    let g = Graph::new("main");
    let x = g.input("x", DType::F32, [ROWS, WIDTH]);
    let targets = g.input("targets", DType::I64, [ROWS]);
    let logits = match tied {
        true => x.matmul(&g.weight("w", DType::F32, [CLASSES, WIDTH]).transpose(0, 1)),
        false => x.matmul(&g.weight("w", DType::F32, [WIDTH, CLASSES])),
    };
    let loss = loss(&g, &logits, &targets);
    let also = also(&logits);
    let results: Vec<&Tensor> = std::iter::once(&loss).chain(&also).collect();
    g.finish(&results).unwrap()
}

/// Values, with `first` as the first target.
fn values(module: &Module, first: i64) -> Vec<Array> {
    let targets: Vec<i64> = (0..ROWS).map(|i| if i == 5 { first } else { i * 31 % CLASSES }).collect();
    let mut all = inputs(module);
    *all.iter_mut().find(|a| a.dtype() == DType::I64).unwrap() = Array::from_i64(&[ROWS as usize], &targets).unwrap();
    all
}

fn launches(programs: &[Program], name: &str) -> usize {
    let of = |p: &Program| {
        let is = |s: &&Step| matches!(s, Step::Launch(l) if p.kernels[l.kernel].name.starts_with(name));
        p.steps.iter().filter(is).count()
    };
    programs.iter().map(of).sum()
}

#[test]
fn a_loss_over_classes_stores_no_logits() {
    for (name, loss) in LOSSES {
        for tied in [false, true] {
            let module = module(loss, tied, |_| None);
            let programs = lower(&module, &slow_memory()).unwrap();
            let peak = plan_programs(&programs).unwrap()[0].peak.eval(&Bindings::new()).unwrap();
            let inputs = values(&module, 17);
            let expected = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap()[0].to_f64().unwrap();
            let executable = compile(&module, &slow_memory()).unwrap();
            let found = executable.run(&inputs, &Bindings::new()).unwrap()[0].to_f64().unwrap();
            assert!((found[0] - expected[0]).abs() < 1e-5 * expected[0].abs(), "{name}: {found:?} for {expected:?}");
            assert!(peak < ROWS * CLASSES, "{name}: {peak} bytes");
            for outside in [-1, CLASSES] {
                let refused = executable.run(&values(&module, outside), &Bindings::new()).unwrap_err();
                assert!(refused.to_string().contains(&outside.to_string()), "{name}: {refused}");
            }
        }
    }
}

#[test]
fn what_is_stored_anyway_is_looked_up_there() {
    let plain = LOSSES[0].1;
    let others: [fn(&Tensor) -> Option<Tensor>; 4] =
        [|x| Some(x.clone()), |x| Some(x.argmax(-1)), |x| Some(x.matmul(&x.transpose(0, 1))), |x| Some(x.sum(&[0]))];
    for (i, also) in others.into_iter().enumerate() {
        let programs = lower(&module(plain, false, also), &options()).unwrap();
        assert_eq!((launches(&programs, "take_along"), launches(&programs, "take")), (1, 1), "{i}");
    }
    let programs = lower(&module(plain, false, |_| None), &options()).unwrap();
    assert_eq!((launches(&programs, "take_along"), launches(&programs, "take")), (0, 1));
}

/// Where sums keep their order, the product stays, and only what is elementwise is computed at the targets alone.
#[test]
fn exact_lookups_pass_what_is_elementwise() {
    // Without the mean: a sum over two axes, one of size 1, may add in another order.
    let each: Loss = |_, logits, targets| (logits / 30.0).tanh().log_softmax(-1).take_along(&targets.unsqueeze(-1), -1);
    let module = module(each, false, |_| None);
    let exact = Options { numerics: Numerics::Exact, ..options() };
    let programs = lower(&module, &exact).unwrap();
    assert_eq!((launches(&programs, "take_along"), launches(&programs, "take")), (1, 1));
    let inputs = values(&module, 17);
    let [plain, moved] = [Options { opt_level: 0, ..exact.clone() }, exact]
        .map(|o| compile(&module, &o).unwrap().run(&inputs, &Bindings::new()).unwrap()[0].bytes().to_vec());
    assert_eq!(plain, moved);
}

/// Elements of blocks are read as the floats that they are cast to.
#[test]
fn lookups_stay_behind_the_cast_of_blocks() {
    let text = "func @main(%w: q8_0[5, 32], %i: i64[5, 3]) -> f32[5, 3] {
  %0 = cast %w to=f32
  %1 = mul %0, %0
  %2 = take_along %1, %i axis=1
  return %2
}";
    let module = tilewright_ir::text::parse("t.tw", text).unwrap();
    // A scale of 1 in f16, then 32 integers.
    let block = |row: i32| [0x00, 0x3c].into_iter().chain((0..32).map(move |i| ((i * 37 + row * 11) % 101 - 50) as u8));
    let blocks: Vec<u8> = (0..5).flat_map(block).collect();
    let weights = Array::new(DType::Q8_0, &[5, 32], Bytes::new(blocks)).unwrap();
    let at = Array::from_i64(&[5, 3], &(0..15).map(|i| i * 7 % 32).collect::<Vec<i64>>()).unwrap();
    let inputs = [weights, at];
    let expected = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap();
    for opt_level in 0..=2 {
        let executable = compile(&module, &Options { opt_level, ..options() }).unwrap();
        assert_eq!(executable.run(&inputs, &Bindings::new()).unwrap()[0].to_f64(), expected[0].to_f64(), "{opt_level}");
    }
}
