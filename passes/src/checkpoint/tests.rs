//! Segments: which blocks are found, what is kept, and that nothing changes.

use super::{Candidate, Segmented, Segments, blocks, candidates, segmented};
use crate::autodiff::{Form, Keep, differentiate, differentiate_keeping};
use crate::mixed::{Policy, mixed_precision};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Attention, Graph, Tensor};
use tilewright_ir::flops::type_bytes;
use tilewright_ir::graph::{Derivative, Module};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType};

pub(super) fn numbers(like: &Module, by: f64) -> Vec<Array> {
    let entry = like.entry().unwrap();
    let array = |(i, p): (usize, &tilewright_ir::graph::Param)| {
        let shape: Vec<usize> = p.ty.shape.iter().map(|d| d.as_const().unwrap() as usize).collect();
        let count: usize = shape.iter().product();
        if p.ty.dtype == DType::I64 {
            return Array::from_i64(&shape, &(0..count as i64).map(|x| x % 3).collect::<Vec<_>>()).unwrap();
        }
        let numbers: Vec<f64> = (0..count).map(|x| ((x + 7 * i) as f64 * 0.7 + by).sin()).collect();
        if p.ty.dtype == DType::F32 {
            return Array::from_f32(&shape, &numbers.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap();
        }
        Array::from_f64(&shape, &numbers).unwrap()
    };
    entry.params.iter().enumerate().map(array).collect()
}

pub(super) fn bits(m: &Module, inputs: &[Array]) -> Vec<Vec<u8>> {
    let all = run(m, "main", inputs, &Bindings::new(), Mode::Strict).unwrap_or_else(|d| panic!("{d}\n{}", print(m)));
    all.iter().map(|a| a.bytes().to_vec()).collect()
}

/// Differentiates both by all floats, and compares. The gradient of the second.
fn agree(plain: &Module, again: &Module) -> Module {
    assert_eq!(difference(again, &parse("again", &print(again)).unwrap()), None);
    let entry = plain.entry().unwrap();
    let wrt: Vec<&str> = entry.params.iter().filter(|p| p.ty.dtype.is_float()).map(|p| &*p.name).collect();
    let made = [plain, again].map(|m| differentiate(m, &wrt, Form::ValueAndGradient).unwrap().module);
    let inputs = numbers(&made[0], 0.1);
    assert_eq!(bits(&made[0], &inputs), bits(&made[1], &inputs), "{}", print(&made[1]));
    let [_, again] = made;
    again
}

fn regions(m: &Module) -> Vec<&str> {
    m.functions.values().filter(|f| f.derivative == Derivative::Checkpoint).map(|f| &*f.name).collect()
}

/// Blocks of attention and a perceptron over few tokens, called or written out, between an embedding and a loss.
fn gpt(layers: usize, called: bool) -> Module {
    gpt_in(DType::F64, layers, called)
}

fn gpt_in(float: DType, layers: usize, called: bool) -> Module {
    let g = Graph::new("main");
    let (ids, words) = (g.input("ids", DType::I64, [1, 4]), g.weight("words", float, [3, 8]));
    let shapes = [[8, 24], [8, 8], [8, 32], [32, 8]];
    let block = |x: &Tensor, w: &[Tensor]| {
        let all = x.layer_norm(None, None, 1e-5).matmul(&w[0]);
        let part = |i: usize| all.slice(-1, i * 8, (i + 1) * 8).rearrange("b s (h d) -> b h s d", &[("h", 2)]);
        let causal = Attention { causal: true, ..Attention::default() };
        let y = part(0).attention(&part(1), &part(2), causal).rearrange("b h s d -> b s (h d)", &[]);
        let x = x + y.matmul(&w[1]);
        &x + x.layer_norm(None, None, 1e-5).matmul(&w[2]).gelu_tanh().matmul(&w[3])
    };
    if called {
        g.function("block", |g| {
            let x = g.input("x", float, [1, 4, 8]);
            let w: Vec<Tensor> = (0..4).map(|i| g.weight(&format!("w{i}"), float, shapes[i])).collect();
            [block(&x, &w)]
        });
    }
    let mut x = words.embedding(&ids);
    for layer in 0..layers {
        x = g.scope(&format!("{layer}"), || {
            if called {
                let [y] = g.call("block", &[&x]);
                return y;
            }
            let w: Vec<Tensor> = (0..4).map(|i| g.weight(&format!("w{i}"), float, shapes[i])).collect();
            block(&x, &w)
        });
    }
    let loss = x.layer_norm(None, None, 1e-5).linear(&words).cross_entropy(&ids);
    g.finish(&[&loss]).unwrap()
}

#[test]
fn blocks_are_found_called_or_written_out() {
    for called in [true, false] {
        let plain = gpt(7, called);
        assert_eq!(blocks(&plain), Some(7), "{}", print(&plain));
        let again = segmented(&plain, Segments::Sqrt).unwrap();
        // Three segments of 2, 2 and 3 blocks: two functions, as two segments are equal.
        let calls =
            |m: &Module| m.entry().unwrap().nodes.iter().filter(|n| matches!(n.op, GraphOp::Call { .. })).count();
        assert_eq!((calls(&again), regions(&again).len()), (3, 2), "{}", print(&again));
        let made = agree(&plain, &again);
        // The first way keeps what is between segments, and the last value.
        let kept = made
            .entry()
            .unwrap()
            .nodes
            .iter()
            .filter(|n| matches!(&n.op, GraphOp::Call { function } if !function.contains(".bwd")));
        assert!(kept.inspect(|n| assert_eq!(n.types.len(), 1)).count() == 3);
        // As many segments as blocks: one function for all.
        let each = segmented(&plain, Segments::Number(100)).unwrap();
        assert_eq!((calls(&each), regions(&each).len()), (7, 1), "{}", print(&each));
        agree(&plain, &each);
    }
}

/// Casts of all weights stand before the first block there.
#[test]
fn blocks_are_found_in_mixed_precision() {
    for called in [true, false] {
        let plain = mixed_precision(&gpt_in(DType::F32, 7, called), &Policy::new(DType::Bf16).unwrap()).unwrap();
        assert_eq!(blocks(&plain), Some(7), "{}", print(&plain));
        let again = segmented(&plain, Segments::Sqrt).unwrap();
        assert_eq!(regions(&again).len(), 2, "{}", print(&again));
        agree(&plain, &again);
    }
    // A weight that all blocks share is cast once, and its cotangents are summed in bf16, as without segments.
    let g = Graph::new("main");
    let (x, w) = (g.input("x", DType::F32, [4, 8]), g.weight("w", DType::F32, [8, 8]));
    let x = (0..6).fold(x, |x, _| x.matmul(&w).tanh() + x);
    let module = g.finish(&[&x.sum(&[0, 1])]).unwrap();
    let plain = mixed_precision(&module, &Policy::new(DType::Bf16).unwrap()).unwrap();
    assert!(blocks(&plain) >= Some(5), "{}", print(&plain));
    agree(&plain, &segmented(&plain, Segments::Sqrt).unwrap());
}

#[test]
fn a_scan_becomes_a_scan_of_scans() {
    for length in [4, 7, 9, 12] {
        let g = Graph::new("main");
        g.function("step", |g| {
            let [x, w] = ["x", "w"].map(|n| g.input(n, DType::F64, [3]));
            let s = g.input("s", DType::F64, [3, 3]);
            let y = (&x * &w).matmul(&s).tanh();
            [&y + &x, w, y.exp()]
        });
        let [x, w] = ["x", "w"].map(|n| g.input(n, DType::F64, [3]));
        let s = g.input("s", DType::F64, [length, 3, 3]);
        let all = g.scan("step", &[&x, &w], &[&s], length);
        let plain = g.finish(&[&((&all[0] * &all[1]).sum(&[0]) + all[2].sin().sum(&[0, 1]))]).unwrap();
        assert_eq!(blocks(&plain), Some(length as usize));
        let again = segmented(&plain, Segments::Sqrt).unwrap();
        assert_eq!(regions(&again).len(), if length == 7 { 2 } else { 1 }, "{}", print(&again));
        let made = agree(&plain, &again);
        // What is kept of a scan: a carry for each segment.
        let scans = made.entry().unwrap().nodes.iter().filter(|n| matches!(n.op, GraphOp::Scan { .. }));
        let stacked: Vec<usize> = scans.map(|n| n.types.len()).take(1).collect();
        assert_eq!(stacked, [4], "{}", print(&made));
    }
}

#[test]
fn a_chain_in_a_function_that_is_called_is_found_there() {
    let inner = gpt(4, true);
    let text = print(&inner).replace("@main", "@loss");
    let params = inner.entry().unwrap().params.len();
    let head = text[text.find("func @loss(").unwrap()..].lines().next().unwrap().replace("@loss", "@main");
    let names = inner.entry().unwrap().params.iter().map(|p| match p.name.contains('.') {
        true => format!("%\"{}\"", p.name),
        false => format!("%{}", p.name),
    });
    let args = names.collect::<Vec<_>>().join(", ");
    let outer = parse("t.tw", &format!("{text}\n{head}\n  %0 = call {args} function=@loss\n  return %0\n}}")).unwrap();
    assert_eq!((outer.entry().unwrap().params.len(), blocks(&outer)), (params, Some(4)));
    agree(&outer, &segmented(&outer, Segments::Sqrt).unwrap());
}

#[test]
fn without_a_chain_there_is_an_error() {
    let m = parse(
        "t.tw",
        "func @main(%x: f64[3]) -> f64[] {\n  %0 = sin %x\n  %1 = exp %0\n  %2 = sum %1 axes=[0]\n  return %2\n}",
    );
    let d = segmented(&m.unwrap(), Segments::Sqrt).unwrap_err();
    assert_eq!(d.code, "no-chain", "{d}");
}

#[test]
fn candidates_keep_less_and_less_and_have_the_same_bits() {
    for called in [true, false] {
        let plain = gpt(5, called);
        let names: Vec<String> = plain.entry().unwrap().params.iter().map(|p| p.name.to_string()).collect();
        let wrt: Vec<&str> = names[1..].iter().map(String::as_str).collect();
        let all = candidates(&plain, &wrt, Form::ValueAndGradient).unwrap();
        assert!((8..=32).contains(&all.len()), "{}", all.len());
        let inputs = numbers(&all[0].made.module, 0.1);
        let expected = bits(&all[0].made.module, &inputs);
        for c in &all {
            assert_eq!(expected, bits(&c.made.module, &inputs), "{:?} {:?}", c.plan.keep, c.plan.segments);
        }
        let bytes = |c: &Candidate| {
            let values = c.made.kept.iter().flat_map(|k| &k.values);
            values.map(|v| type_bytes(&v.ty).unwrap().as_const().unwrap()).sum::<i64>()
        };
        let again = |c: &Candidate| c.made.kept.iter().map(|k| k.again).sum::<f64>();
        let priced = all.iter().filter(|c| c.plan.segments == Segmented::No && c.plan.keep != Keep::Costly);
        let priced: Vec<&Candidate> = priced.collect();
        // A dearer byte: fewer of them, and more done again.
        for pair in priced.windows(2) {
            assert!(bytes(pair[1]) < bytes(pair[0]) && again(pair[1]) > again(pair[0]), "{:?}", pair[1].plan.keep);
        }
        // What a kernel makes of values that are kept anyway is free, so less is kept at no price.
        assert!(!called || bytes(priced[0]) < bytes(&all[0]));
        assert_eq!(again(priced[0]), 0.0);
        assert_eq!(bytes(priced[priced.len() - 1]), 0);
    }
}

/// Of all choices of what is run again, the cut has the least price: a graph small enough to try them all.
#[test]
fn a_cut_is_the_best_of_all_choices() {
    let m = parse(
        "t.tw",
        "func @f(%x: f64[4, 6], %w: f64[6, 3], %v: f64[3, 8]) -> f64[4, 8] {
          %0 = dot %x, %w contract=[1]x[0]
          %1 = sin %0
          %2 = sum %1 axes=[1]
          %3 = broadcast %2 shape=[4, 3] dims=[0]
          %4 = mul %1, %3
          %5 = dot %4, %v contract=[1]x[0]
          %6 = exp %5
          return %6
        }
        func @main(%x: f64[4, 6], %w: f64[6, 3], %v: f64[3, 8]) -> f64[] {
          %0 = call %x, %w, %v function=@f
          %1 = sum %0 axes=[0, 1]
          return %1
        }",
    );
    // Bytes and operations of what may be kept: `0` or not, `2` or not, `5` or not; elementwise values follow from these.
    let (dot, sum, exp) = ((4 * 3 * 8, 4 * 3 * 2 * 6), (4 * 8, 4 * 3), (4 * 8 * 8, 4 * 8 * 2 * 3));
    for price in [0.25, 0.4, 0.5, 1.0, 1.6, 4.0] {
        let best = (0..8u32).map(|kept| {
            let one = |bit: u32, (bytes, again): (i32, i32)| {
                if kept & (1 << bit) != 0 { price * f64::from(bytes) } else { f64::from(again) }
            };
            one(0, dot) + one(1, sum) + one(2, exp)
        });
        let best = best.fold(f64::MAX, f64::min);
        let made = differentiate_keeping(m.as_ref().unwrap(), &["x", "w", "v"], Form::Gradient, Keep::PerByte(price));
        let kept = made.unwrap().kept;
        let bytes: i64 =
            kept.iter().flat_map(|k| &k.values).map(|v| type_bytes(&v.ty).unwrap().as_const().unwrap()).sum();
        let found = price * bytes as f64 + kept.iter().map(|k| k.again).sum::<f64>();
        assert!((found - best).abs() < 1e-9, "{price}: {found} and {best}");
    }
}

/// A maximum is compared with what it is of: one of two runs must not be compared with the other.
#[test]
fn what_is_computed_again_is_not_compared_with_what_is_kept() {
    let m = parse(
        "agree.tw",
        "func @f(%x: f32[40, 6], %w: f32[6, 30]) -> f32[40] {
          %0 = dot %x, %w contract=[1]x[0]
          %1 = reduce_max %0 axes=[1]
          return %1
        }
        func @main(%x: f32[40, 6], %w: f32[6, 30]) -> f32[] {
          %0 = call %x, %w function=@f
          %1 = mul %0, %0
          %2 = sum %1 axes=[0]
          return %2
        }",
    )
    .unwrap();
    let mut kept_nothing = 0;
    for price in [0.01, 0.1, 1.0, 10.0, 100.0] {
        let made = differentiate_keeping(&m, &["x", "w"], Form::Gradient, Keep::PerByte(price)).unwrap();
        let kept: Vec<&str> =
            made.kept.iter().filter(|k| k.forward.starts_with('f')).flat_map(|k| &k.values).map(|v| v.op).collect();
        assert!(kept == ["dot"] || kept.is_empty(), "{price}: {kept:?}");
        kept_nothing += u32::from(kept.is_empty());
    }
    assert!(0 < kept_nothing && kept_nothing < 5);
}
