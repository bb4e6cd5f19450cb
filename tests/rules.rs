//! Every shipped rewrite rule holds on random data, with seeds other than those of the unit tests; rules that are wrong are found
//! so, through the binary, with a program that shows it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::path::Path;
use std::process::Command;
use tilewright::compile::{Gate, Options, UserRules, compile, fired, regions};
use tilewright_ir::array::Array;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::text::parse;
use tilewright_ir::types::Bindings;
use tilewright_passes::egraph::{check_rule, shipped};

#[test]
fn shipped_rules_hold() {
    let set = shipped().unwrap();
    assert!(set.rules.len() >= 30, "only {} rules", set.rules.len());
    // `TILEWRIGHT_CASES` asks for more.
    let seeds = std::env::var("TILEWRIGHT_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let wrong: Vec<String> = set
        .rules
        .iter()
        .flat_map(|rule| (100..100 + seeds).filter_map(move |seed| check_rule(rule, seed).err()))
        .map(|e| e.to_string())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn tilewright(arguments: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(arguments).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

const WRONG: &str = "tests/data/rules/wrong.rules";

#[test]
fn wrong_rules_are_found_with_programs_that_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("found");
    let (code, stdout, stderr) = tilewright(&["rules", "check", WRONG, "--json", "--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    let rows: Vec<serde_json::Value> = stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(rows.len() >= 40, "{}", rows.len());
    assert!(stderr.contains(&format!("{} rules are wrong", rows.len())), "{stderr}");
    let (mut programs, mut equal) = (0, Vec::new());
    for row in &rows {
        assert_eq!(row["passed"], false, "{row}");
        let Some(path) = row["program"].as_str() else { continue };
        programs += 1;
        let text = std::fs::read_to_string(path).unwrap();
        let module = parse(path, &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
        let results = run(&module, "main", &[], &Bindings::new(), Mode::Strict).unwrap();
        let [left, right] = results.as_slice() else { panic!("two sides\n{text}") };
        assert!(left.len() <= 9, "not made small\n{text}");
        if !differs(left, right) {
            equal.push(row["name"].as_str().unwrap().to_string());
        }
    }
    // Without data there is none of a type that is wrong; a fold in one pass is not what its definition is.
    assert_eq!((programs, equal), (rows.len() - 1, vec!["one-pass".to_string()]));
    let left_over =
        std::fs::read_dir(&out).unwrap().filter(|e| !e.as_ref().unwrap().path().display().to_string().ends_with(".tw"));
    assert_eq!(left_over.count(), 0);
}

fn differs(left: &Array, right: &Array) -> bool {
    let (x, y) = (left.to_f64().unwrap(), right.to_f64().unwrap());
    x.iter().zip(&y).any(|(x, y)| x.to_bits() != y.to_bits() && !(x.is_nan() && y.is_nan()))
}

/// For people, a wrong rule is said once, with its place; conditions come with what is wrong without them.
#[test]
fn the_report_names_places_and_conditions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.rules");
    let text =
        "right: exact\n  (fold-max ?j ?a) => ?a\n  if indep(?a, ?j), nonempty(?j)\nwrong: exact\n  (add ?a 0) => ?a\n";
    std::fs::write(&file, text).unwrap();
    let (file, out) = (file.to_str().unwrap(), folder.path().join("out"));
    let (code, stdout, _) = tilewright(&["rules", "check", file, "--verbose", "--out", out.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout.matches("is wrong").count(), 1, "{stdout}");
    assert!(stdout.contains("two.rules:4: the rule `wrong` is wrong: in f64, left is 0.0, right is -0.0"), "{stdout}");
    assert!(stdout.contains("  ?a[] = [-0.0]\n"), "{stdout}");
    assert!(stdout.contains("right: exact, tested in f64; f32; f16; bf16; bool\n"), "{stdout}");
    assert!(stdout.contains("  without nonempty(?j): in f64, left is -inf, right is 1.0\n    ?j of 0\n"), "{stdout}");
    assert!(stdout.contains("rules: 1 passed, 1 failed; conditions: 2, 0 not needed\n"), "{stdout}");
    assert!(Path::new(&out).join("wrong.tw").exists());
}

const SQUARES: &str = "func @main(%x: f32[3]) -> f32[3] {\n  %0 = mul %x, %x\n  %1 = sqrt %0\n  return %1\n}\n";
const ABS: &str = "root-of-a-square: domain(finite(?a))\n  (sqrt (mul ?a ?a)) => (abs ?a)\n";

/// `--rules` adds rules of the user at level 2 as their class and `--numerics` allow, once they pass the check.
#[test]
fn rules_of_the_user_fire_once_they_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (graph, abs) = (write("x.tw", SQUARES), write("abs.rules", ABS));
    let show = |more: &[&str]| tilewright(&[&["compile", &graph, "--emit", "regions"], more].concat());
    let (code, stdout, stderr) = show(&["--rules", &abs]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("rule root-of-a-square of the user: domain, ") && stdout.contains("(abs "), "{stdout}");
    for other in [&["--rules", &abs, "--numerics", "exact"][..], &[]] {
        let (_, stdout, _) = show(other);
        assert!(!stdout.contains("of the user") && stdout.contains("(sqrt "), "{stdout}");
    }
    // One that is wrong is refused with the data, and taken where the user wants it.
    let wrong = write("wrong.rules", "first: exact\n  (sqrt ?a) => (neg ?a)\n");
    let (code, stdout, stderr) = show(&["--rules", &wrong]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("error[wrong-rule]: the rule `first` is wrong: in f64") && stderr.contains("?a[] = ["),
        "{stderr}"
    );
    assert!(stderr.contains("wrong.rules:1:1") && stderr.contains("--unchecked-rules"), "{stderr}");
    let (code, stdout, _) = show(&["--rules", &wrong, "--unchecked-rules"]);
    assert!(code == Some(0) && stdout.contains("rule first of the user"), "{stdout}");
    let run = |more: &[&str]| {
        tilewright(&[&["run", &graph, "--check", "--rules", &wrong, "--unchecked-rules"], more].concat())
    };
    let (code, _, stderr) = run(&[]);
    assert!(code == Some(1) && stderr.contains("differs from the interpreter"), "{stderr}");
    let (code, _, stderr) = run(&["--opt-level", "1"]);
    assert!(code == Some(0) && stderr.contains("warning[unused-rules]"), "{stderr}");
    for (text, said) in [
        ("", "no-rules"),
        ("neg-neg: exact\n  (neg (neg ?a)) => ?a\n", "duplicate-rule"),
        ("a: exact\n", "rule-syntax"),
    ] {
        let file = write("bad.rules", text);
        let (code, _, stderr) = show(&["--rules", &file]);
        assert!(code == Some(1) && stderr.contains(&format!("error[{said}]")), "{stderr}");
    }
}

#[test]
fn the_library_takes_rules_too() {
    let module = parse("x.tw", SQUARES).unwrap();
    let rules = UserRules::default().with("abs.rules", ABS, Gate::Checked).unwrap();
    let options = Options { rules, ..Options::host().unwrap() };
    assert!(fired(&module, &options).unwrap()[0].iter().any(|f| &*f.rule == "root-of-a-square"));
    assert!(regions(&module, &options, tilewright::compile::Target::Cpu).unwrap().contains("(abs "));
    let x = Array::from_f32(&[3], &[-1e30, 2.0, -0.5]).unwrap();
    let results = compile(&module, &options).unwrap().run(&[x], &Bindings::new()).unwrap();
    assert_eq!(results[0].to_f32().unwrap(), [1e30, 2.0, 0.5]);
    let wrong = UserRules::default().with("w.rules", "w: exact\n  (sqrt ?a) => ?a\n", Gate::Checked).unwrap_err();
    assert_eq!(wrong.code, "wrong-rule");
}
