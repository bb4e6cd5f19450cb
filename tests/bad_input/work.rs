//! Graphs that would take years are refused before they run, with the node that takes them; no limit refuses what is small.

use crate::harness::Place;
use std::fmt::Write;
use tilewright::array::Array;
use tilewright::compile::{Options, compile};
use tilewright::text::parse;
use tilewright::types::Bindings;

/// Functions that call the one before them twice: 2^62 calls of the first.
fn doubled() -> String {
    let mut text = String::from("func @f0(%x: f32[4]) -> f32[4] {\n  %0 = neg %x\n  return %0\n}\n");
    for i in 1..=62 {
        let call = format!("function=@f{}", i - 1);
        writeln!(text, "func @f{i}(%x: f32[4]) -> f32[4] {{ %0 = call %x {call}\n %1 = call %0 {call}\n return %1 }}")
            .unwrap();
    }
    text
}

const SCAN: &str = "func @b(%c: f32[]) -> f32[] { %0 = sin %c\n return %0 }
func @main(%x: f32[]) -> f32[] { %0 = scan %x body=@b carries=1 length=1000000000000\n return %0 }";

const NESTED: &str = "func @a(%c: f32[]) -> f32[] { return %c }
func @b(%c: f32[]) -> f32[] { %0 = scan %c body=@a carries=1 length=100000000\n return %0 }
func @main(%x: f32[]) -> f32[] { %0 = scan %x body=@b carries=1 length=100000000\n return %0 }";

const FOLD: &str = "func @main() -> f32[] {
  %0 = constant f32[] = 2.0
  %1 = broadcast %0 shape=[1000000000, 1000000000] dims=[]
  %2 = prod %1 axes=[0, 1]
  return %2
}";

const BRANCH: &str = "func @id(%x: f32[2]) -> f32[2] { return %x }
func @far(%x: f32[2]) -> f32[2] { %0 = broadcast %x shape=[2, 1000000000000000] dims=[0]\n %1 = sum %0 axes=[1]\n return %1 }
func @main(%p: bool[], %x: f32[2]) -> f32[2] { %0 = cond %p, %x yes=@id no=@far\n return %0 }";

#[test]
fn what_would_take_years_is_refused_before_it_runs() {
    let place = Place::new();
    let doubled = doubled();
    for (text, amount, at) in [
        (&*doubled, "1.39e22 operations", "bad.tw:2:8: most of it is this `neg` of `@f0`, which runs 4.61e18 times"),
        (SCAN, "2e15 operations", "bad.tw:1:36: most of it is this `sin` of `@b`, which runs 1e12 times"),
        (NESTED, "1e19 operations", "--max-work"),
        (BRANCH, "4e15 operations", "of `@far`, which runs once"),
    ] {
        place.write("bad.tw", text);
        let shown = ["error[too-much-work]", amount, at, "expected at most 1e1", "--max-work"];
        for device in [&["--device", "cpu"][..], &["--device", "interpreter"], &["--device", "cuda"], &["--check"]] {
            place.refused(&[&["run", "bad.tw", "--output", "out.safetensors"], device].concat(), &shown);
        }
        place.runs(&["compile", "bad.tw", "--emit", "plan"]);
    }
    // The interpreter has no memory for the values, either, and says so first.
    place.write("bad.tw", FOLD);
    place.refused(&["run", "bad.tw"], &["error[too-much-work]", "2e18 operations", "expected at most 1e13"]);
    let large = ["error[too-large]", "bad.tw:3:8", "in this `broadcast` of `@main`"];
    place.refused(&["run", "bad.tw", "--device", "interpreter"], &large);
    // Not after a run that the compiled code could end.
    let text = FOLD.replace("1000000000, 1000000000", "1000000000, 1").replace("prod", "reduce_max");
    place.write("bad.tw", text);
    place.refused(&["run", "bad.tw", "--check", "--output", "out.safetensors"], &large);
}

#[test]
fn limits_are_what_the_user_says_and_sizes_are_those_of_the_call() {
    let place = Place::new();
    let text = "func @main(%x: f32[n]) -> f32[n] where n in 0..=100000 { %0 = neg %x\n return %0 }";
    place.write("g.tw", text);
    // A node counts 1000 and an operation an element.
    for (n, most) in [("n=234", "1234"), ("n=99000", "1e5"), ("n=99001", "none"), ("n=4", "1.004e3")] {
        place.runs(&["run", "g.tw", "--set", n, "--max-work", most, "--check"]);
    }
    place.refused(&["run", "g.tw", "--set", "n=235", "--max-work", "1234"], &["takes 1235 operations"]);
    place.refused(&["run", "g.tw", "--set", "n=99001", "--max-work", "1e5"], &["takes 1e5 operations"]);
    for most in ["x", "-1", "nan", "inf", "1e20", ""] {
        assert_eq!(place.run(&["run", "g.tw", &format!("--max-work={most}")]).code, Some(2), "{most}");
    }
    // The sizes of inputs count, too.
    let input = crate::harness::safetensors(&[("x", "F32", &[300], vec![0; 1200])]);
    place.write("x.safetensors", input);
    let with = ["run", "g.tw", "--inputs", "x.safetensors", "--max-work"];
    place.runs(&[&with[..], &["1300"]].concat());
    place.refused(&[&with[..], &["1299"]].concat(), &["takes 1300 operations, expected at most 1299"]);
}

#[test]
fn what_has_no_place_is_refused_before_it_runs() {
    let place = Place::new();
    place.write("g.tw", SCAN);
    // Without a limit of work it would take days.
    let long = ["run", "g.tw", "--max-work", "none", "--output"];
    place.refused(&[&long[..], &["none/out.safetensors"]].concat(), &["error[file]", "none/out.safetensors"]);
    // Under the harness's limit of memory there is no room for what the interpreter would allow.
    let text = "func @main(%x: f32[]) -> f32[400000000] { %0 = broadcast %x shape=[400000000] dims=[]\n return %0 }";
    place.write("large.tw", text);
    place.refused(&["run", "large.tw", "--device", "interpreter"], &["error[out-of-memory]", "large.tw:1:48"]);
    place.write("empty.tw", "// nothing");
    for command in ["run", "explain", "grad"] {
        place.refused(&[command, "empty.tw"], &["error[empty-module]", "--> empty.tw"]);
    }
    place.refused(&["compile", "empty.tw", "--emit", "kernel"], &["error[empty-module]", "--> empty.tw"]);
}

/// Each call saves what its sine needs, so each level saves twice as much as the one below.
#[test]
fn derivatives_that_save_ever_more_are_refused() {
    let place = Place::new();
    let text = doubled().replace("f32[4]", "f32[]").replace("neg", "sin");
    place.write("g.tw", text);
    place.refused(&["grad", "g.tw"], &["error[too-many-saved]", "needs 8191 values", "at most 4096", "g.tw:"]);
}

/// A library call runs as long as it takes, unless its caller sets a limit.
#[test]
fn callers_of_the_library_set_limits() {
    let text = "func @main(%x: f32[n]) -> f32[n] where n in 0..=100000 { %0 = neg %x\n return %0 }";
    let module = parse("g.tw", text).unwrap();
    let host = Options::host().unwrap();
    assert_eq!(host.max_work, None);
    let code = compile(&module, &Options { max_work: Some(1234), ..host }).unwrap();
    let run = |n: usize| code.run(&[Array::from_f32(&[n], &vec![1.0; n]).unwrap()], &Bindings::new());
    assert_eq!(run(234).unwrap()[0].to_f32(), Some(vec![-1.0; 234]));
    assert_eq!(run(235).unwrap_err().code, "too-much-work");
    assert!(run(0).is_ok());
}
