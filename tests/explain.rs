//! `tilewright explain`: chains replay over cases, models and op programs; the answers as text, JSON and page; errors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use tilewright::compile::{Options, Target};
use tilewright::explain::Explanation;
use tilewright::formats::Safetensors;
use tilewright::formats::op_program::OpProgram;
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::types::{Bindings, DType};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Exit code, standard output, standard error.
fn tilewright(arguments: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// Explains and replays a file; gives the answer, and how many uses of rules were replayed.
fn replayed(path: &Path, more: &[&str]) -> (String, usize) {
    let all = [&["explain", path.to_str().unwrap(), "--replay"], more].concat();
    let (code, answer, said) = tilewright(&all);
    assert_eq!(code, Some(0), "{}: {said}", path.display());
    let line = said.lines().last().unwrap_or_default();
    let uses = line.strip_prefix("replayed ").unwrap_or_else(|| panic!("{}: {said}", path.display()));
    assert!(!answer.contains("the rules stopped"), "{}:\n{answer}", path.display());
    // Kernels are chosen for the sizes that are set.
    let other = answer.contains("these would be other kernels");
    assert!(!other || more.contains(&"--set"), "{}:\n{answer}", path.display());
    (answer, uses.split(' ').next().unwrap().parse().unwrap())
}

fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "tw") {
            out.push(path);
        }
    }
}

#[test]
fn chains_of_the_cases_replay() {
    let mut all = Vec::new();
    files(&root("tests/cases"), &mut all);
    all.retain(|p| !p.starts_with(root("tests/cases/errors")));
    let mut uses = 0;
    for path in &all {
        let sizes: &[&str] = if path.ends_with("slice_requires.tw") { &["--set", "n=9"] } else { &[] };
        uses += replayed(path, sizes).1;
    }
    assert!(all.len() > 70 && uses > 80, "{uses} in {} cases", all.len());
}

#[test]
fn chains_of_the_models_replay() {
    for (file, sizes, least) in [
        ("gpt2.tw", ["seq=5", "past=3"], 5),
        ("llama_q4_1.tw", ["seq=4", "past=2"], 5),
        ("swiglu.tw", ["n=3", ""], 0),
        ("attention.tw", ["n=7", ""], 4),
    ] {
        let sets: Vec<&str> = sizes.iter().filter(|s| !s.is_empty()).flat_map(|s| ["--set", s]).collect();
        let path = root("tests/data/programs").join(file);
        let (answer, uses) = replayed(&path, &sets);
        assert!(uses >= least, "{file}: {uses}\n{answer}");
        for numerics in ["exact", "rounding", "approx"] {
            replayed(&path, &[&sets[..], &["--numerics", numerics]].concat());
        }
        replayed(&path, &[&sets[..], &["--target", "sm_90a"]].concat());
    }
}

#[test]
fn chains_of_op_programs_replay() {
    let data = root("tests/data/ops");
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("index.json")).unwrap()).unwrap();
    let options = Options { isa: Isa::Avx512, ..Options::host().unwrap() };
    let mut uses = 0;
    for case in index.as_array().unwrap() {
        let file = Safetensors::open(data.join(case["file"].as_str().unwrap())).unwrap();
        let program = OpProgram::from_file(&file, DType::F32).unwrap();
        let inputs = program.read_inputs(&file).unwrap();
        let module = &program.module;
        let found = Explanation::new(module, &options, Target::Cpu, &Bindings::new()).unwrap();
        let replayed = found.replay(module, module.entry().unwrap(), &Bindings::new(), &inputs);
        uses += replayed.unwrap_or_else(|d| panic!("{}: {d}", case["name"])).unwrap().steps;
        for f in &found.report.functions {
            assert!(
                f.notes.iter().all(|n| n.starts_with("before the rules, and at each level here: ")),
                "{}: {:?}",
                case["name"],
                f.notes
            );
            assert!(f.kernels.iter().flat_map(|k| &k.chains).all(|c| c.steps.is_some() || c.value.is_none()));
        }
    }
    assert!(uses >= 20, "{uses}");
}

#[test]
fn text_says_what_a_kernel_is_from() {
    let (text, _) = replayed(&root("tests/cases/attention/causal.tw"), &["--kernel", "0"]);
    for part in [
        "kernel 0 `dot_20_few`, `dot_20`: attention",
        "level 0: 16 launches",
        "level 1: 3 launches",
        "second: attention",
        "esum-masked (domain(finite(?w)), online.rules:",
        "causal.tw:12:",
        "(esum a3 (select %6[a1 a3] %3[a0 a1 a3] -inf) 1)",
        "=> (esum-if a3 %6[a1 a3] %3[a0 a1 a3] 1)",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let by_name = replayed(&root("tests/cases/attention/causal.tw"), &["--kernel", "dot_20"]).0;
    assert_eq!(text, by_name);
}

#[test]
fn json_has_chains_costs_and_the_second_choice() {
    let file = root("tests/cases/attention/causal.tw");
    let (code, json, said) = tilewright(&["explain", file.to_str().unwrap(), "--json", "--set", "n=64"]);
    assert_eq!(code, Some(0), "{said}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let f = &json["functions"][0];
    assert_eq!(f["sizes"]["n"], 64);
    assert_eq!(f["levels"][2]["launches"], 1);
    let peak = |level: usize| f["peak"][level].as_i64().unwrap();
    assert!(peak(0) > peak(1) && peak(1) > peak(2));
    let k = &f["kernels"][0];
    assert!(k["second"]["loss"].as_f64().unwrap() > 0.0);
    assert!(k["before"][0]["bytes"].as_i64() > k["cost"]["bytes"].as_i64());
    assert!(k["before"][0]["seconds"].as_f64() > k["cost"]["seconds"].as_f64());
    let rules: Vec<&str> =
        k["chains"][0]["steps"].as_array().unwrap().iter().map(|s| s["rule"].as_str().unwrap()).collect();
    assert!(rules.contains(&"esum-weighted") && rules.contains(&"esum-masked"), "{rules:?}");
    let nodes = |part: &str| f[part].as_array().unwrap().len();
    assert!(nodes("graph") == 21 && nodes("chosen") > 8);
}

#[test]
fn the_page_needs_nothing_else_and_says_what_the_graph_says_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let (file, page) = (folder.path().join("<b>.tw"), folder.path().join("page.html"));
    let graph = "func @main(%\"</script><i>\": f32[n]) -> f32[n] where n in 1..=8 {\n  %0 = neg %\"</script><i>\"\n  %1 = neg %0\n  %2 = exp %1\n  return %2\n}\n";
    std::fs::write(&file, graph).unwrap();
    let (code, out, said) = tilewright(&["explain", file.to_str().unwrap(), "--html", page.to_str().unwrap()]);
    assert!(code == Some(0) && out.is_empty(), "{said}");
    let html = std::fs::read_to_string(&page).unwrap();
    for part in ["neg-neg", "as given: 4 nodes", "&lt;/script&gt;&lt;i&gt;", "&lt;b&gt;.tw", "data-kernels=\"0\""] {
        assert!(html.contains(part), "no `{part}`");
    }
    assert_eq!(html.matches("<script>").count(), 1);
    assert_eq!(html.matches("</script>").count(), 1);
    let outside = ["src=", "href=", "url(", "@import", "fetch("];
    assert!(outside.iter().all(|o| !html.contains(o)));
    assert_eq!(html.matches("http").count(), html.matches("http://www.w3.org/2000/svg").count());
}

#[test]
fn mistakes_are_errors_that_say_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let good = root("tests/cases/attention/causal.tw");
    let good = good.to_str().unwrap();
    let bad = folder.path().join("bad.tw");
    std::fs::write(&bad, "func @main(%x: f32[2]) -> f32[3] {\n  return %x\n}\n").unwrap();
    let nowhere = folder.path().join("no/such.html");
    for (arguments, code, part) in [
        (vec![bad.to_str().unwrap()], 1, "error["),
        (vec!["/no/such.tw"], 1, "error["),
        (vec![good, "--opt-level", "1"], 1, "stage-level"),
        (vec![good, "--kernel", "1"], 1, "`@main` has dot_20_few"),
        (vec![good, "--kernel", "nothing"], 1, "there is no kernel `nothing`"),
        (vec![good, "--set", "m=3"], 1, "no symbol `m`"),
        (vec![good, "--set", "n=3000"], 1, "must be in 1..=512"),
        (vec![good, "--set", "n=3", "--set", "n=4"], 1, "set twice"),
        (vec![good, "--html", nowhere.to_str().unwrap()], 1, "error[file]"),
        (vec![good, "--html", "x", "--json"], 2, "cannot be used with"),
        (vec![good, "--target", "sm_70"], 2, "sm_80"),
    ] {
        let (found, out, said) = tilewright(&[&["explain"], &arguments[..]].concat());
        assert_eq!(found, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part) && out.is_empty(), "{arguments:?}: {said}");
    }
}

/// By the prices of a device no choice of level 2 is dearer than the fixed order of level 1, whose values are priced alike. The
/// scores of 16,384 rows are far more than a cache, and a norm before a product with an adapter has more kernels than are looked at.
#[test]
fn no_choice_is_dearer_than_the_fixed_order() {
    let program = root("tests/data/levels/attention_bf16.tw");
    let attention = ["bench", "levels", program.to_str().unwrap()];
    for what in [&["bench", "levels"][..], &attention] {
        let (code, answer, said) = tilewright(&[what, &["--target", "sm_90a", "--machine", "h200", "--json"]].concat());
        assert_eq!(code, Some(0), "{said}");
        let mut before = f64::NAN;
        for line in answer.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let row = &line["row"];
            let seconds = row["predicted_s"].as_f64().unwrap();
            match row["level"].as_str().unwrap() {
                "1" => before = seconds,
                "2" => assert!(seconds <= before * (1.0 + 1e-6), "{line}: level 1 takes {before}"),
                _other => {}
            }
        }
        assert!(before.is_finite());
    }
}

/// Under `exact` each product is a kernel of its own, that no rule changes: it is listed, and its time is in every sum.
#[test]
fn what_no_rule_changes_is_listed_and_priced() {
    let path = root("tests/cases/optimized/attention.tw");
    let module = tilewright_ir::text::parse("graph", &std::fs::read_to_string(path).unwrap()).unwrap();
    let numerics = tilewright_passes::egraph::Numerics::Exact;
    let options = Options { opt_level: 2, isa: Isa::Avx512, numerics, ..Options::host().unwrap() };
    let report = Explanation::new(&module, &options, Target::Cpu, &Bindings::new()).unwrap().report;
    let f = &report.functions[0];
    let products: Vec<_> = f.barriers.iter().filter(|b| b.operation.starts_with("dot ")).collect();
    assert_eq!(products.len(), 2, "{:?}", f.barriers);
    assert!(products.iter().all(|b| b.cost.flops > Some(0) && !b.names.is_empty() && b.why.contains("one order")));
    let chosen = f.kernels.iter().map(|k| k.cost.seconds.unwrap()).sum::<f64>();
    let apart = f.barriers.iter().map(|b| b.cost.seconds.unwrap()).sum::<f64>();
    assert!((f.levels[2].seconds.unwrap() - chosen - apart).abs() < 1e-12 && f.bound >= apart);
    let launches = f.kernels.iter().map(|k| k.cost.launches).sum::<usize>();
    assert_eq!(f.levels[2].launches, launches + f.barriers.iter().map(|b| b.cost.launches).sum::<usize>());
}

/// Tensors that are written out for what reads them from memory are listed as well.
#[test]
fn what_is_listed_is_all_that_runs() {
    let text = "func @main(%x: f32[64, 40], weight %w: f32[40, 24]) -> f32[32, 24] {\n  \
                %0 = slice %x start=[8, 0] limit=[40, 40] stride=[1, 1]\n  %1 = exp %0\n  \
                %2 = slice %1 start=[0, 0] limit=[32, 40] stride=[1, 1]\n  %3 = dot %2, %w contract=[1]x[0]\n  return %3\n}\n";
    let module = tilewright_ir::text::parse("graph", text).unwrap();
    for numerics in [tilewright_passes::egraph::Numerics::Exact, Default::default()] {
        let options = Options { opt_level: 2, numerics, ..Options::host().unwrap() };
        let report = Explanation::new(&module, &options, Target::Cpu, &Bindings::new()).unwrap().report;
        let f = &report.functions[0];
        let all = || f.kernels.iter().map(|k| &k.cost).chain(f.barriers.iter().map(|b| &b.cost));
        let launches = all().map(|c| c.launches).sum::<usize>();
        let bytes = all().map(|c| c.bytes.unwrap()).sum::<i64>();
        assert_eq!((f.levels[2].launches, f.levels[2].bytes.unwrap()), (launches, bytes), "{numerics}");
    }
}

/// A declaration says for which size kernels are chosen.
#[test]
fn kernels_are_chosen_for_the_likely_size() {
    let of = |range: &str| {
        let text = format!(
            "func @main(%x: f32[n, 64], weight %w: f32[64, 64]) -> f32[n, 64] where n in {range} {{\n  \
             %0 = dot %x, %w contract=[1]x[0]\n  return %0\n}}\n"
        );
        let module = tilewright_ir::text::parse("graph", &text).map_err(|d| d.code)?;
        let options = Options { opt_level: 2, ..Options::host().unwrap() };
        let report = Explanation::new(&module, &options, Target::Cpu, &Bindings::new()).unwrap().report;
        assert!(report.functions[0].notes.is_empty(), "{:?}", report.functions[0].notes);
        Ok((report.functions[0].sizes["n"], report.functions[0].levels[2].flops.unwrap()))
    };
    let flops = |n: i64| 2 * 64 * 64 * n;
    assert_eq!(of("1..=4096"), Ok((256, flops(256))));
    assert_eq!(of("1..=4096 likely 1000"), Ok((1000, flops(1000))));
    assert_eq!(of("8..=4096 by 8 likely 1024"), Ok((1024, flops(1024))));
    assert_eq!(of("1..=4096 likely 5000"), Err("bad-symbol"));
    assert_eq!(of("8..=4096 by 8 likely 1001"), Err("bad-symbol"));
}
