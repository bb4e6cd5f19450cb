//! Large graphs: long lines of nodes, very many operands, results and functions run at every level; 10^4 nested calls are
//! refused by a stated limit.

use crate::harness::Place;
use std::fmt::Write;
use tilewright::compile::MAX_OPT_LEVEL;

/// Operands and results of one node.
const NODES: usize = 100_000;
/// Nodes in a line. Everything but the search for buffers in a run is linear in them; 10^5 take minutes at level 0.
const LINE: usize = 10_000;

/// A graph of `nodes` nodes, each made by `node(number, the value before)`.
fn line(params: &str, ty: &str, nodes: usize, node: impl Fn(usize, &str) -> String) -> String {
    let mut text = format!("func @main({params}) -> {ty} {{\n");
    let mut before = "%x".to_string();
    for i in 0..nodes {
        writeln!(text, "  %{i} = {}", node(i, &before)).unwrap();
        before = format!("%{i}");
    }
    write!(text, "  return {before}\n}}\n").unwrap();
    text
}

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
fn a_line_of_maps() {
    runs_at_every_level("neg.tw", &line("%x: f32[8]", "f32[8]", LINE, |_, x| format!("neg {x}")));
}

#[test]
fn a_line_of_maps_that_read_far_back() {
    let node = |i: usize, x: &str| if i < 3 { format!("neg {x}") } else { format!("max {x}, %{}", i / 2) };
    runs_at_every_level("far.tw", &line("%x: f32[8]", "f32[8]", LINE, node));
}

#[test]
fn a_line_of_movement() {
    let node = |i: usize, x: &str| match i % 4 {
        0 => format!("reshape {x} shape=[2, 4]"),
        1 => format!("transpose {x} perm=[1, 0]"),
        2 => format!("reshape {x} shape=[8]"),
        _ => format!("flip {x} axes=[0]"),
    };
    runs_at_every_level("move.tw", &line("%x: f32[8]", "f32[8]", LINE, node));
}

#[test]
fn a_line_of_reductions() {
    let node = |i: usize, x: &str| match i % 2 {
        0 => format!("reduce_max {x} axes=[1]"),
        _ => format!("broadcast {x} shape=[4, 4] dims=[0]"),
    };
    let text = line("%x: f32[4, 4]", "f32[4, 4]", LINE, node);
    runs_at_every_level("reduce.tw", &text);
}

#[test]
fn a_line_of_products_and_running_sums() {
    let node = |i: usize, x: &str| match i % 2 {
        0 => format!("dot {x}, %w contract=[1]x[0]"),
        _ => format!("cumsum {x} axis=0"),
    };
    runs_at_every_level("dot.tw", &line("%x: f32[2, 2], weight %w: f32[2, 2]", "f32[2, 2]", LINE, node));
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
