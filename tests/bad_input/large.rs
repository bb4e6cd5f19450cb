//! Large graphs: very many operands, results and functions run at every level, 10^4 nested calls are refused by a stated limit.

use crate::harness::Place;
use std::fmt::Write;
use tilewright::compile::MAX_OPT_LEVEL;

const NODES: usize = 100_000;

fn runs_at_every_level(name: &str, text: &str) {
    let place = Place::new();
    place.write(name, text);
    for level in 0..=MAX_OPT_LEVEL {
        let level = level.to_string();
        place.runs(&["run", name, "--opt-level", &level, "--threads", "1"]);
    }
    place.runs(&["run", name, "--device", "interpreter"]);
}

#[test]
fn one_node_of_very_many_operands_and_results() {
    let args = vec!["%x"; NODES].join(", ");
    let text = format!("func @main(%x: f32[1]) -> f32[{NODES}] {{ %0 = concat {args} axis=0\n return %0 }}");
    runs_at_every_level("concat.tw", &text);
    let (types, results) = (vec!["f32[1]"; NODES].join(", "), vec!["%0"; NODES].join(", "));
    let text = format!("func @main(%x: f32[1]) -> ({types}) {{ %0 = neg %x\n return {results} }}");
    runs_at_every_level("results.tw", &text);
}

fn chain(functions: usize) -> String {
    let mut text = String::from("func @f0(%x: f32[8]) -> f32[8] { %0 = neg %x\n return %0 }\n");
    for i in 1..functions {
        let before = i - 1;
        writeln!(text, "func @f{i}(%x: f32[8]) -> f32[8] {{ %0 = call %x function=@f{before}\n return %0 }}").unwrap();
    }
    text
}

#[test]
fn nested_calls_are_bounded() {
    runs_at_every_level("chain.tw", &chain(60));
    let place = Place::new();
    place.write("deep.tw", chain(10_000));
    for level in 0..=MAX_OPT_LEVEL {
        let level = level.to_string();
        place.refused(&["run", "deep.tw", "--opt-level", &level], &["call-depth", "deep.tw:19999", "64"]);
        place.refused(&["compile", "deep.tw", "--emit", "kernel", "--opt-level", &level], &["call-depth"]);
    }
    place.refused(&["run", "deep.tw", "--device", "interpreter"], &["call-depth", "deep.tw:"]);
    // Parsing, verifying and printing need no stack.
    place.runs(&["compile", "deep.tw", "--emit", "graph", "--output", "graph.txt"]);
}

#[test]
fn very_many_functions() {
    let mut text = String::new();
    for i in 0..5_000 {
        writeln!(text, "func @f{i}(%x: f32[8]) -> f32[8] {{ %0 = neg %x\n return %0 }}").unwrap();
    }
    runs_at_every_level("functions.tw", &text);
}
