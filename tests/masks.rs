//! Masks of positions in every integer dtype: what they hide is not visited where their arithmetic is proved not to wrap, and
//! is computed as the interpreter does where it may.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use std::sync::Arc;
use tilewright::compile::{Options, compile, lower, lower_gpu};
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::text::parse;
use tilewright_ir::types::Bindings;
use tilewright_passes::egraph::Device;

/// Attention over `n` positions, where `mask` makes `%m` of rows `%i`, keys `%j` and the number `%c` of their dtype.
fn attention(dtype: &str, size: &str, number: i64, mask: &str) -> Module {
    let to = if size == "n" { " where n in 1..=4096" } else { "" };
    let text = format!(
        "func @main(%q: f32[2, {size}, 16], %k: f32[2, {size}, 16], %v: f32[2, {size}, 16]) -> f32[2, {size}, 16]{to} {{
  %s = dot %q, %k batch=[0]x[0] contract=[2]x[2]
  %i = iota axis=1 shape=[2, {size}, {size}] dtype={dtype}
  %j = iota axis=2 shape=[2, {size}, {size}] dtype={dtype}
  %one = constant {dtype}[] = {number}
  %c = broadcast %one shape=[2, {size}, {size}] dims=[]
{mask}
  %least = constant f32[] = -inf
  %hidden = broadcast %least shape=[2, {size}, {size}] dims=[]
  %x = select %m, %s, %hidden
  %top = reduce_max %x axes=[2]
  %tops = broadcast %top shape=[2, {size}, {size}] dims=[0, 1]
  %below = sub %x, %tops
  %e = exp %below
  %sum = sum %e axes=[2]
  %sums = broadcast %sum shape=[2, {size}, {size}] dims=[0, 1]
  %w = div %e, %sums
  %out = dot %w, %v batch=[0]x[0] contract=[2]x[1]
  return %out
}}"
    );
    parse("test", &text).unwrap_or_else(|d| panic!("{d}\n{text}"))
}

const CAUSAL: &str = "%m = le %j, %i";
const WINDOW: &str = "%a = le %j, %i\n%d = sub %i, %j\n%b = lt %d, %c\n%m = and %a, %b";
const NEAR: &str = "%d = sub %i, %j\n%m = lt %d, %c";
const SHIFTED: &str = "%d = sub %i, %j\n%g = add %d, %c\n%zero = sub %c, %c\n%m = ge %g, %zero";

fn options() -> Options {
    Options { opt_level: 2, ..Options::host().unwrap() }
}

/// Whether a loop over keys begins or ends elsewhere than at the ends.
fn skips(module: &Module) -> bool {
    let programs = lower(module, &options()).unwrap();
    let text = programs.iter().flat_map(|p| &p.kernels).map(ToString::to_string).collect::<String>();
    let lines: Vec<&str> = text.lines().filter(|l| l.contains("for jt in")).collect();
    assert!(!lines.is_empty(), "no attention:\n{text}");
    lines.iter().all(|l| !l.contains("for jt in 0 .. ceil(n, 128)"))
}

/// Machine code against the interpreter; a row of which nothing is shown is NaN in both.
fn agrees(module: &Module, what: &str) {
    let mut random = Random(3);
    let executable = compile(module, &options()).unwrap();
    for n in [1usize, 130, 300] {
        let bindings = Bindings::from([("n".into(), n as i64)]);
        let inputs: Vec<Array> = (0..3)
            .map(|_| {
                Array::from_f32(&[2, n, 16], &(0..2 * n * 16).map(|_| random.signed()).collect::<Vec<_>>()).unwrap()
            })
            .collect();
        let want = run(module, "main", &inputs, &bindings, Mode::Meaning).unwrap()[0].to_f64().unwrap();
        let found = executable.run(&inputs, &bindings).unwrap()[0].to_f64().unwrap();
        for (at, (x, y)) in found.iter().zip(&want).enumerate() {
            let same = (x.is_nan() && y.is_nan()) || (x - y).abs() < 3e-5;
            assert!(same, "{what}, {n} positions, element {at}: {x}, the interpreter has {y}");
        }
    }
}

#[test]
fn what_cannot_wrap_is_skipped() {
    for dtype in ["i64", "i32", "i16", "u64", "u32", "u16"] {
        for (name, mask) in [("causal", CAUSAL), ("window", WINDOW)] {
            let module = attention(dtype, "n", 40, mask);
            assert!(skips(&module), "{name} in {dtype}");
            agrees(&module, &format!("{name} in {dtype}"));
        }
    }
}

#[test]
fn what_may_wrap_is_computed() {
    let (i32_end, i64_end) = (i64::from(i32::MAX), i64::MAX);
    for (dtype, number, mask) in [
        // Unsigned differences wrap where the key is after the row.
        ("u32", 40, NEAR),
        // 127 is not 4095.
        ("i8", 40, CAUSAL),
        ("u8", 40, CAUSAL),
        ("i32", i32_end - 100, SHIFTED),
        ("i32", -i32_end, SHIFTED),
        ("i64", i64_end - 100, SHIFTED),
        ("i64", -i64_end, SHIFTED),
        ("i16", 32_700, SHIFTED),
    ] {
        let module = attention(dtype, "n", number, mask);
        assert!(!skips(&module), "{dtype} {number} {mask}");
        agrees(&module, &format!("{dtype} {number} {mask}"));
    }
}

/// Prices count what is left in every dtype alike.
#[test]
fn devices_choose_the_same_kernels() {
    let device = Some(Arc::new(Device::named("a100").unwrap()));
    let options = Options { device, ..options() };
    for (name, mask) in [("causal", CAUSAL), ("window", WINDOW)] {
        let count = |dtype: &str| {
            let programs = lower_gpu(&attention(dtype, "8192", 1024, mask), &options, "sm_80").unwrap();
            programs.iter().map(|p| p.kernels.len()).sum::<usize>()
        };
        assert_eq!([count("i32"), count("u32")], [count("i64"); 2], "{name}");
    }
}
