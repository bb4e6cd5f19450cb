//! Calls, conditionals and scans in machine code against the interpreter: sharing and donation of memory above all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use tilewright::compile::{Options, compile, lower};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::kernel::text::print_program;
use tilewright_ir::kernel::{ScanArgument, Step};
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType};

impl Random {
    fn array(&mut self, dtype: DType, shape: &[usize]) -> Array {
        let n = shape.iter().product();
        // Small, so that long recurrences do not amplify roundings.
        let mut real = || (self.next() >> 40) as f32 / (1 << 25) as f32 - 0.25;
        match dtype {
            DType::F32 => Array::from_f32(shape, &(0..n).map(|_| real()).collect::<Vec<f32>>()).unwrap(),
            DType::Bool => Array::from_bool(shape, &(0..n).map(|_| real() > 0.0).collect::<Vec<bool>>()).unwrap(),
            DType::I64 => {
                Array::from_i64(shape, &(0..n).map(|_| (real() * 100.0) as i64).collect::<Vec<i64>>()).unwrap()
            }
            DType::Q8_0 => {
                let scale = half::f16::from_f32(0.003).to_le_bytes();
                let byte = |i: usize| if i % 34 < 2 { scale[i % 34] } else { self.next() as u8 };
                Array::new(dtype, shape, Bytes::new((0..n / 32 * 34).map(byte).collect::<Vec<u8>>())).unwrap()
            }
            other => panic!("{other}"),
        }
    }
}

fn module(text: &str) -> Module {
    parse("t", text).unwrap_or_else(|e| panic!("{e}"))
}

fn options(opt_level: u8, threads: usize) -> Options {
    Options { opt_level, threads, isa: Isa::best(), ..Options::host().unwrap() }
}

/// Every level, 1 and 2 threads, each run twice on one executable, for each choice of the symbols.
fn check(text: &str, choices: &[&[(&str, i64)]]) {
    let module = module(text);
    let mut random = Random(choices.len() as u64);
    for (level, threads) in [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2)] {
        let executable = compile(&module, &options(level, threads)).unwrap_or_else(|e| panic!("{e}"));
        for choice in choices {
            let bindings: Bindings = choice.iter().map(|(s, v)| ((*s).into(), *v)).collect();
            for run in 0..2 {
                let params = module.entry().unwrap().params.iter();
                let inputs: Vec<Array> =
                    params.map(|p| random.array(p.ty.dtype, &p.ty.concrete(&bindings).unwrap())).collect();
                let name = &module.entry().unwrap().name;
                let exact = interp::run(&module, name, &inputs, &bindings, Mode::Meaning).unwrap();
                let found = executable.run(&inputs, &bindings).unwrap_or_else(|e| panic!("{choice:?}: {e}"));
                assert_eq!(found.len(), exact.len());
                for (k, (x, y)) in found.iter().zip(&exact).enumerate() {
                    assert_eq!((x.dtype(), x.shape()), (y.dtype(), y.shape()), "{choice:?}");
                    let (a, b) = (x.to_f64().unwrap(), y.to_f64().unwrap());
                    let near = a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()));
                    let show = || executable.programs().map(print_program).collect::<String>();
                    assert!(
                        near,
                        "level {level}, {threads} threads, {choice:?}, run {run}, result {k}: {a:?} for {b:?}\n{}",
                        show()
                    );
                }
            }
        }
    }
}

const RNN: &str = "
func @cell(%h: f32[b, 7], %w: f32[7, 7], %u: f32[5, 7], %x: f32[b, 5]) where b in 1..=64 {
  %0 = dot %h, %w batch=[]x[] contract=[1]x[0]
  %1 = dot %x, %u batch=[]x[] contract=[1]x[0]
  %2 = add %0, %1
  %3 = tanh %2
  return %3, %w, %u, %3
}
func @main(%h: f32[b, 7], weight %w: f32[7, 7], weight %u: f32[5, 7], %xs: f32[t, b, 5]) where b in 1..=64, t in 0..=40 {
  %0 = scan %h, %w, %u, %xs body=@cell carries=3 length=t
  return %0#0, %0#1, %0#3
}";

#[test]
fn recurrent_cell_of_symbolic_length() {
    let choices: &[&[(&str, i64)]] =
        &[&[("b", 3), ("t", 6)], &[("b", 1), ("t", 1)], &[("b", 4), ("t", 0)], &[("b", 33), ("t", 40)]];
    check(RNN, choices);
    // Weights that only pass through are no carries, so that nothing copies them.
    let programs = lower(&module(RNN), &options(1, 1)).unwrap();
    let Some(Step::Scan(scan)) = programs[1].steps.first() else { panic!("{}", print_program(&programs[1])) };
    let fixed = scan.arguments.iter().filter(|a| matches!(a, ScanArgument::Fixed(_))).count();
    assert_eq!((programs[1].steps.len(), fixed), (1, 2));
    let line = "carry n4, fixed, fixed, stack n4_3 = scan(t) cell(carry h, fixed w, fixed u, slice xs) with(b=b)";
    assert!(print_program(&programs[1]).contains(line), "{}", print_program(&programs[1]));
}

#[test]
fn nested_scans_write_where_the_outermost_stacks() {
    let text = "
func @inner(%a: f32[], %n: i64[], %x: f32[m]) where m in 0..=9 {
  %0 = sum %x axes=[0]
  %1 = add %a, %0
  %one = constant i64[] = 1
  %2 = add %n, %one
  %3 = broadcast %1 shape=[m] dims=[]
  %4 = mul %3, %x
  return %1, %2, %4, %0
}
func @outer(%a: f32[], %n: i64[], %x: f32[k, m]) where k in 0..=9, m in 0..=9 {
  %0 = scan %a, %n, %x body=@inner carries=2 length=k
  return %0#0, %0#1, %0#2, %0#3, %0#1
}
func @main(%a: f32[], %n: i64[], %x: f32[l, k, m]) where l in 0..=9, k in 0..=9, m in 0..=9 {
  %0 = scan %a, %n, %x body=@outer carries=2 length=l
  return %0#0, %0#1, %0#2, %0#3, %0#4
}";
    check(
        text,
        &[
            &[("l", 3), ("k", 4), ("m", 5)],
            &[("l", 1), ("k", 1), ("m", 1)],
            &[("l", 0), ("k", 4), ("m", 5)],
            &[("l", 4), ("k", 0), ("m", 5)],
            &[("l", 2), ("k", 3), ("m", 0)],
            &[("l", 9), ("k", 9), ("m", 9)],
        ],
    );
}

#[test]
fn carries_change_places() {
    // Fibonacci, a rotation, and a carry that is the slice before; initial values are constants and inputs.
    let text = "
func @body(%a: f32[3], %b: f32[3], %c: f32[3], %last: f32[3], %x: f32[3]) {
  %0 = add %a, %b
  return %b, %0, %a, %x, %last, %0, %x
}
func @main(%a: f32[3], %x: f32[n, 3]) where n in 0..=9 {
  %one = constant f32[3] = [1.0, 2.0, 3.0]
  %0 = scan %a, %one, %one, %a, %x body=@body carries=4 length=n
  return %0#0, %0#1, %0#2, %0#3, %0#4, %0#5, %0#6, %a, %one
}";
    check(text, &[&[("n", 0)], &[("n", 1)], &[("n", 2)], &[("n", 9)]]);
}

#[test]
fn donated_carries_are_changed_in_place_and_nothing_else_is() {
    // Rows of a cache are overwritten one after the other; the initial cache is read afterwards, shared, constant, dead.
    let body = "
func @step(donated %cache: f32[6, 4], %at: f32[1, 4], %row: f32[1, 4]) {
  %0 = slice %cache start=[1, 0] limit=[6, 4] stride=[1, 1]
  %1 = add %at, %row
  %2 = concat %0, %1 axis=0
  %3 = update_slice %cache, %1 start=[3, 0]
  %4 = add %3, %2
  %5 = update_slice %4, %1 start=[0, 0]
  return %5, %1, %2
}";
    let mains = [
        "%0 = scan %cache, %at, %rows body=@step carries=2 length=n return %0#0, %0#1, %0#2, %cache",
        "%0 = scan %cache, %at, %rows body=@step carries=2 length=n return %0#0, %0#1, %0#2",
        "%z = constant f32[] = 0.5 %zz = broadcast %z shape=[6, 4] dims=[]
         %0 = scan %zz, %at, %rows body=@step carries=2 length=n return %0#0, %0#1, %0#2, %zz",
        "%z = constant f32[] = 0.5 %zz = broadcast %z shape=[6, 4] dims=[]
         %0 = scan %zz, %at, %rows body=@step carries=2 length=n %1 = add %0#0, %cache return %1, %0#2",
        "%0 = call %cache, %at, %at function=@step return %0#0, %0#1, %cache",
        "%0 = call %cache, %at, %at function=@step
         %1 = scan %0#0, %0#1, %rows body=@step carries=2 length=n return %1#0, %1#1, %0#2, %0#0",
    ];
    for main in mains {
        let main =
            format!("func @main(%cache: f32[6, 4], %at: f32[1, 4], %rows: f32[n, 1, 4]) where n in 0..=9 {{ {main} }}");
        check(&format!("{body}\n{main}"), &[&[("n", 0)], &[("n", 1)], &[("n", 5)]]);
        let main = main.replace("(%cache", "(donated %cache");
        check(&format!("{body}\n{main}"), &[&[("n", 0)], &[("n", 1)], &[("n", 5)]]);
    }
}

#[test]
fn a_donated_cache_is_not_copied() {
    let text = "
func @step(donated %cache: f32[6, 4], %row: f32[2, 4]) {
  %0 = update_slice %cache, %row start=[3, 0]
  return %0
}
func @main(donated %cache: f32[6, 4], %rows: f32[n, 2, 4]) where n in 0..=9 {
  %0 = scan %cache, %rows body=@step carries=1 length=n
  return %0
}";
    let executable = compile(&module(text), &options(1, 1)).unwrap();
    let bindings = Bindings::from([("n".into(), 3)]);
    let inputs = [executable.zeroed_param(0, &bindings).unwrap(), executable.zeroed_param(1, &bindings).unwrap()];
    let results = executable.run_buffers(&inputs, &bindings).unwrap();
    assert_eq!(results[0].pointer(), inputs[0].pointer());
    check(text, &[&[("n", 0)], &[("n", 4)]]);
}

#[test]
fn donated_carries_that_come_back_twice_or_change_places() {
    // Each result may be overwritten by the next step, so no two may share memory, nor be the caller's.
    let bodies = [
        "func @step(donated %a: f32[4], donated %b: f32[4], %r: f32[1]) { return %b, %a }",
        "func @step(donated %a: f32[4], donated %b: f32[4], %r: f32[1]) {
           %0 = update_slice %a, %r start=[1] return %0, %0 }",
        "func @step(donated %a: f32[4], donated %b: f32[4], %r: f32[1]) {
           %0 = update_slice %a, %r start=[1] %1 = add %0, %b return %1, %0, %0, %1 }",
        "func @step(donated %a: f32[4], %b: f32[4], %r: f32[1]) {
           %0 = update_slice %a, %r start=[1] return %b, %0, %b }",
        "func @step(donated %a: f32[4], %b: f32[4], %r: f32[1]) {
           %c = constant f32[4] = [1.0, 2.0, 3.0, 4.0] %0 = update_slice %a, %r start=[1] return %c, %0, %c }",
        "func @step(%a: f32[4], donated %b: f32[4], %r: f32[1]) {
           %0 = update_slice %b, %r start=[1] %1 = add %a, %0 return %a, %1, %0, %a }",
        "func @step(donated %a: f32[4], donated %b: f32[4], %r: f32[1]) {
           %0 = update_slice %b, %r start=[1] return %a, %a, %0, %a }",
        "func @flip(donated %a: f32[4], %r: f32[1]) {
           %0 = update_slice %a, %r start=[2] return %0 }
         func @step(%a: f32[4], donated %b: f32[4], %r: f32[1]) {
           %0 = call %b, %r function=@flip %1 = call %a, %r function=@flip return %a, %0, %1, %b }",
    ];
    for body in bodies {
        for (a, b) in [("%a", "%b"), ("%a", "%a"), ("%c", "%b")] {
            for kept in ["", ", %a, %c"] {
                let text = format!(
                    "{body} func @main(donated %a: f32[4], %b: f32[4], %r: f32[n, 1]) where n in 0..=9 {{
                       %c = constant f32[4] = [9.0, 8.0, 7.0, 6.0]
                       %0 = scan {a}, {b}, %r body=@step carries=2 length=n
                       %1 = slice %r start=[0, 0] limit=[1, 1] stride=[1, 1]
                       %2 = reshape %1 shape=[1]
                       %3 = update_slice %0#0, %2 start=[0]
                       return %0#1, %3{kept} }}"
                );
                // The slice needs a row, and `verify` wants a result for what is donated.
                let text = text.replace("n in 0..", "n in 1..");
                check(&text, &[&[("n", 1)], &[("n", 2)], &[("n", 5)]]);
            }
        }
    }
}

#[test]
fn results_of_calls_share_nothing() {
    // The callees return an argument, a constant, and one value twice; each result is then overwritten by the caller.
    let text = "
func @same(%x: f32[4], %y: f32[2, 2]) { %0 = reshape %y shape=[4] return %x, %0, %x }
func @fixed(%x: f32[4], %y: f32[2, 2]) { %c = constant f32[4] = [1.0, 2.0, 3.0, 4.0] return %c, %c, %x }
func @main(%p: bool[], %x: f32[4], %y: f32[2, 2], %u: f32[1]) {
  %0 = call %x, %y function=@same
  %1 = update_slice %0#0, %u start=[0]
  %2 = update_slice %0#1, %u start=[1]
  %3 = call %x, %y function=@fixed
  %4 = update_slice %3#0, %u start=[0]
  %5 = update_slice %3#1, %u start=[1]
  %6 = cond %p, %x, %y yes=@same no=@fixed
  %7 = update_slice %6#0, %u start=[2]
  %8 = update_slice %6#2, %u start=[3]
  return %1, %2, %3#2, %4, %5, %7, %6#1, %8, %x, %y
}";
    check(text, &[&[], &[], &[], &[]]);
}

#[test]
fn conditions_under_a_scan() {
    let text = "
func @grow(donated %h: f32[m], %x: f32[m]) where m in 1..=40 {
  %0 = exp %x
  %1 = add %h, %0
  %2 = slice %1 start=[0] limit=[1] stride=[1]
  %3 = update_slice %1, %2 start=[m - 1]
  return %3, %0
}
func @keep(%h: f32[m], %x: f32[m]) where m in 1..=40 { return %h, %x }
func @step(%h: f32[m], %n: i64[], %p: bool[], %x: f32[m]) where m in 1..=40 {
  %0 = cond %p, %h, %x yes=@grow no=@keep
  %1 = sum %0#0 axes=[0]
  %2 = constant f32[] = 2.0
  %3 = gt %1, %2
  %4 = cond %3, %0#0, %0#1 yes=@keep no=@grow
  %5 = cast %p to=i64
  %6 = add %n, %5
  return %4#0, %6, %4#1, %6
}
func @main(%h: f32[m], %n: i64[], %p: bool[t], %x: f32[t, m]) where m in 1..=40, t in 0..=20 {
  %0 = scan %h, %n, %p, %x body=@step carries=2 length=t
  return %0#0, %0#1, %0#2, %0#3
}";
    check(text, &[&[("m", 1), ("t", 0)], &[("m", 1), ("t", 1)], &[("m", 5), ("t", 12)], &[("m", 40), ("t", 20)]]);
}

#[test]
fn layers_of_encoded_weights_are_scanned() {
    // One call per layer: slices of the stacked weights, packed once each.
    let text = "
func @layer(%h: f32[b, 64], weight %w: q8_0[64, 64], weight %v: f32[64, 64]) where b in 1..=9 {
  %0 = cast %w to=f32
  %1 = dot %h, %0 batch=[]x[] contract=[1]x[1]
  %2 = tanh %1
  %3 = dot %2, %v batch=[]x[] contract=[1]x[0]
  %4 = tanh %3
  return %4
}
func @main(%h: f32[b, 64], weight %w: q8_0[5, 64, 64], weight %v: f32[5, 64, 64]) where b in 1..=9 {
  %0 = scan %h, %w, %v body=@layer carries=1 length=5
  return %0
}";
    check(text, &[&[("b", 1)], &[("b", 9)]]);
}

#[test]
fn sizes_out_of_a_callees_range_are_refused() {
    let text = "
func @few(%x: f32[m]) where m in 1..=4 { %0 = neg %x return %0 }
func @main(%p: bool[], %x: f32[n], %y: f32[2, n]) where n in 1..=9 {
  %0 = cond %p, %x yes=@few no=@few
  %1 = scan %x, %y body=@pair carries=1 length=2
  %2 = call %x function=@few
  return %0, %1, %2
}";
    let text =
        text.replace("func @main", "func @pair(%a: f32[m], %b: f32[m]) where m in 1..=4 { return %b } func @main");
    let executable = compile(&module(&text), &options(1, 1)).unwrap();
    let run = |n: usize| {
        let arrays = [(DType::Bool, vec![]), (DType::F32, vec![n]), (DType::F32, vec![2, n])];
        let inputs: Vec<Array> = arrays.iter().map(|(d, s)| Random(1).array(*d, s)).collect();
        executable.run(&inputs, &Bindings::new()).map_err(|d| d.code)
    };
    assert!(run(4).is_ok());
    assert_eq!(run(5).err(), Some("symbol"));
}

#[test]
fn a_size_that_a_body_declares_and_nothing_has_is_any() {
    let text = "
func @step(%x: f32[3]) -> f32[3] where m in 2..=4 { %0 = sin %x return %0 }
func @main(%p: bool[], %x: f32[n, 3]) where n in 1..=2 {
  %0 = sum %x axes=[0]
  %1 = scan %0 body=@step carries=1 length=2
  %2 = cond %p, %1 yes=@step no=@step
  %3 = call %2 function=@step
  return %3
}";
    check(text, &[&[("n", 2)]]);
}

#[test]
fn calls_too_deep_are_refused() {
    let deep = |n: usize| {
        let mut text = String::from("func @f0(%x: f32[]) { %0 = neg %x return %0 }\n");
        for i in 1..=n {
            let before = i - 1;
            text += &format!("func @f{i}(%x: f32[]) {{ %0 = call %x function=@f{before} return %0 }}\n");
        }
        compile(&module(&text), &options(1, 1)).map_err(|d| d.code).map(|e| {
            let x = Array::from_f32(&[], &[3.0]).unwrap();
            e.run(&[x], &Bindings::new()).unwrap()[0].to_f64().unwrap()[0]
        })
    };
    assert_eq!((deep(64), deep(65)), (Ok(-3.0), Err("call-depth")));
}
