//! `tilewright checkpoint`, and budgets of memory: the plan is within, the numbers are those of the plain gradient.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};
use tilewright::array::Array;
use tilewright::autodiff::{Form, differentiate};
use tilewright::checkpoint::{Budget, Cost, within};
use tilewright::compile::{Options, compile};
use tilewright::dsl::Graph;
use tilewright::graph::Module;
use tilewright::passes::egraph::Numerics;
use tilewright::types::{Bindings, DType};

/// Layers of a perceptron, each twice as wide inside.
fn perceptron(layers: usize) -> Module {
    let g = Graph::new("main");
    let mut x = g.input("x", DType::F32, [64, 32]);
    for layer in 0..layers {
        let weight = |n: &str, shape: [usize; 2]| g.input(&format!("{n}{layer}"), DType::F32, shape);
        let (up, down) = (weight("up", [32, 64]), weight("down", [64, 32]));
        x = &x + (x.layer_norm(None, None, 1e-5).matmul(&up)).gelu_tanh().matmul(&down);
    }
    g.finish(&[&(&x * &x).mean(&[0, 1])]).unwrap()
}

fn options() -> Options {
    Options { numerics: Numerics::Exact, threads: 1, ..Options::host().unwrap() }
}

#[test]
fn a_gradient_within_a_budget_has_the_bits_of_the_plain_one() {
    let module = perceptron(6);
    let names: Vec<String> = module.entry().unwrap().params.iter().map(|p| p.name.to_string()).collect();
    let wrt: Vec<&str> = names.iter().map(String::as_str).collect();
    let sizes = Bindings::new();
    let within = |budget| within(&module, &wrt, Form::Gradient, (budget, &sizes), &options(), &|_, _| {});
    let plain = differentiate(&module, &wrt, Form::Gradient).unwrap().module;
    let most = Cost::of(&plain, &options(), &sizes).unwrap();
    let least = within(Budget::Least).unwrap();
    let bottom = least.points[least.chosen].cost.peak;
    assert!(2 * bottom < most.peak, "{least}");
    let inputs: Vec<Array> = module
        .entry()
        .unwrap()
        .params
        .iter()
        .map(|p| {
            let shape = p.ty.concrete(&sizes).unwrap();
            let numbers = (0..shape.iter().product()).map(|i: usize| ((i * 31 + p.name.len()) as f32 * 0.37).sin());
            Array::from_f32(&shape, &numbers.collect::<Vec<_>>()).unwrap()
        })
        .collect();
    let run = |m: &Module| compile(m, &options()).unwrap().run(&inputs, &sizes).unwrap();
    let expected = run(&plain);
    let half = (most.peak / 2) as u64;
    let mut flops = most.flops;
    for budget in [Budget::Bytes(most.peak as u64), Budget::Bytes(half), Budget::Least] {
        let curve = within(budget).unwrap();
        let cost = curve.points[curve.chosen].cost;
        assert_eq!(cost, Cost::of(&curve.module, &options(), &sizes).unwrap());
        if let Budget::Bytes(most) = budget {
            assert!(cost.peak as u64 <= most);
        }
        // Less memory is not had for fewer operations.
        assert!(cost.flops >= flops || budget == Budget::Bytes(most.peak as u64));
        flops = cost.flops;
        for (a, b) in expected.iter().zip(run(&curve.module)) {
            assert_eq!(a.bytes().to_vec(), b.bytes().to_vec(), "{curve}");
        }
        // What is done again is never less than the bound.
        let point = &curve.points[curve.chosen];
        assert!(curve.least_again(point).is_none_or(|bound| bound <= point.again + 1.0), "{curve}");
        assert!(curve.svg().matches("<circle").count() == curve.points.len() + 2);
    }
    let d = within(Budget::Bytes(bottom as u64 - 1)).unwrap_err();
    assert_eq!(d.code, "checkpoint-budget");
    assert!(d.to_string().contains(&format!("the least takes {bottom} bytes")), "{d}");
}

fn tilewright(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tilewright")).args(args).output().unwrap()
}

#[test]
fn the_command_writes_a_program_a_report_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::write(at("m.tw"), tilewright::text::print(&perceptron(4))).unwrap();
    let (file, svg) = (at("m.tw").display().to_string(), at("m.svg").display().to_string());
    let made = tilewright(&["checkpoint", &file, "--memory", "min", "--wrt", "up0,down0", "--svg", &svg]);
    assert!(made.status.success(), "{made:?}");
    let module = tilewright::text::parse("out.tw", std::str::from_utf8(&made.stdout).unwrap()).unwrap();
    assert_eq!(module.entry().unwrap().results.len(), 2);
    let report = String::from_utf8(made.stderr).unwrap();
    assert!(report.contains("keep what is costly") && report.contains("at least"), "{report}");
    assert!(std::fs::read_to_string(at("m.svg")).unwrap().starts_with("<svg"));
    for (memory, code) in [("1K", "checkpoint-budget"), ("ten", "no budget"), ("-1", "no budget")] {
        let made = tilewright(&["checkpoint", &file, &format!("--memory={memory}")]);
        assert!(!made.status.success());
        assert!(String::from_utf8(made.stderr).unwrap().contains(code), "{memory}");
    }
    std::fs::write(
        at("s.tw"),
        "func @main(%x: f32[4]) -> f32[] {\n  %0 = sin %x\n  %1 = sum %0 axes=[0]\n  return %1\n}",
    )
    .unwrap();
    let made = tilewright(&["checkpoint", &at("s.tw").display().to_string(), "--memory", "sqrt"]);
    assert!(String::from_utf8(made.stderr).unwrap().contains("no-chain"));
}

/// The memory that a run touches is the planned arena, within 5 %, and less of it takes more operations.
#[test]
fn runs_touch_the_memory_that_is_planned() {
    let made = tilewright(&["bench", "checkpoint", "--layers", "6", "--width", "128", "--threads", "1", "--json"]);
    assert!(made.status.success(), "{made:?}");
    let text = String::from_utf8(made.stdout).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    // The logits alone are more than a quarter.
    assert_eq!(rows.len(), 4, "{text}");
    assert!(String::from_utf8(made.stderr).unwrap().contains("25 %: error[checkpoint-budget]"));
    let number = |row: &serde_json::Value, key: &str| row[key].as_f64().unwrap();
    for row in &rows {
        let planned = number(row, "arena");
        // Where the system does not tell, there is nothing to compare.
        let measured = row["measured"].as_f64().unwrap_or(planned);
        assert!((measured / planned - 1.0).abs() < 0.05, "{row}");
    }
    // None, half, the least.
    let budgets = [&rows[0], &rows[2], &rows[3]];
    for pair in budgets.windows(2) {
        assert!(number(pair[1], "arena") < number(pair[0], "arena"), "{text}");
        assert!(number(pair[1], "added") >= number(pair[0], "added"), "{text}");
    }
    assert!(2.0 * number(&rows[2], "arena") <= number(&rows[0], "arena"), "{text}");
}

#[test]
fn budgets_are_read_as_they_are_shown() {
    let shown = |text: &str| text.parse::<Budget>().map(|budget| budget.to_string());
    for (text, budget) in [
        ("none", "none"),
        ("minimum", "min"),
        ("500000000", "500000000 B"),
        ("500M", "500000000 B"),
        ("1.5 GB", "1500000000 B"),
        ("100k", "100000 B"),
        ("100K", "100000 B"),
        ("100 kB", "100000 B"),
        ("5 MiB", "5242880 B"),
        ("1Ki", "1024 B"),
        ("3Mi", "3145728 B"),
        ("0.5 GiB", "536870912 B"),
        ("2G", "2000000000 B"),
        ("12.5 %", "12.5 %"),
        ("25%", "25 %"),
    ] {
        assert_eq!(shown(text), Ok(budget.to_string()));
        assert_eq!(shown(budget), Ok(budget.to_string()));
    }
    for text in ["", "5 MBi", "5 Mb", "5 BB", "0", "0 %", "101 %", "1e9", "-5M", "99999999999 GB", "nan", ".", "%"] {
        assert!(shown(text).is_err(), "{text}");
    }
    assert!(shown("minimal").unwrap_err().contains("the nearest is `min"));
}
