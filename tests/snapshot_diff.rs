//! `tilewright diff`: what it says of a changed rule, a new kernel, another schedule; its exit codes; folders. Snapshots are
//! the same wherever the model stands, and parse.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use tilewright::compile::Target;
use tilewright::emit::Stage;
use tilewright::snapshot::{Settings, Snapshot, diff, take};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::text::parse;
use tilewright_passes::egraph::Numerics;

const OLD: &str = "// tilewright snapshot 1
//   stage: kernel
//   numerics: reassociate
// function main
//   launches: 1
//   flops: 8*n (at most 800)
//   rule one-pass: reassociates, 2 times
// kernel main.map_8
//   flops: 8*n (at most 800)
//   grid: i in ceil(n, 16)
//   buffer acc: cache f32[m=16]

program main {
  launch map_8(x, y)
}

kernel map_8 target cpu {
  par i in ceil(n, 16) at grid {
    let a = load x[i]
    let b = exp(a)
    store y[i] = b
  }
}
";

/// Exit code and standard output of `diff`.
fn run(args: &[&Path], json: bool) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilewright"));
    command.arg("diff").args(args);
    let out = if json { command.arg("--json") } else { &mut command }.output().unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}

/// The report on two texts, under names that do not depend on the folder.
fn report(old: &str, new: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("m.snap"), text).unwrap();
        path
    };
    let (code, out) = run(&[&write("old", old), &write("new", new)], false);
    assert_eq!(code, Some(if out.is_empty() { 0 } else { 1 }));
    out
}

#[test]
fn equal_snapshots_are_silent() {
    assert_eq!(report(OLD, OLD), "");
    // The header of insta is no part of a snapshot.
    assert_eq!(report(OLD, &format!("---\nsource: a.rs\nassertion_line: 3\n---\n{OLD}")), "");
}

#[test]
fn a_rule_that_fires_no_more() {
    let new = OLD.replace("//   rule one-pass: reassociates, 2 times\n", "//   rule mul-one: exact, 1 time\n");
    let new = new.replace("numerics: reassociate", "numerics: exact");
    let new = new.replace("8*n (at most 800)", "10*n (at most 1000)");
    let new = new.replace("    let b = exp(a)\n", "    let m = max(a)\n    let b = exp(a - m)\n");
    insta::assert_snapshot!(report(OLD, &new));
}

#[test]
fn kernels_that_come_and_go() {
    let more = "\nkernel sum_9 target cpu {\n  par z in 1 at grid {\n    let s = sum(y)\n    store r = s\n  }\n}\n";
    let header = "//   buffer acc: cache f32[m=16]\n";
    let new = OLD
        .replace("launches: 1", "launches: 2")
        .replace(header, &format!("{header}// kernel main.sum_9\n//   flops: n\n//   grid: z in 1\n"))
        + more;
    insta::assert_snapshot!("kernel_added", report(OLD, &new));
    insta::assert_snapshot!("kernel_removed", report(&new, OLD));
    // Another name, the same content: no kernel came or went.
    let renamed = report(&new, &new.replace("map_8", "map_11"));
    assert!(renamed.contains("~ kernel main.map_11 (was main.map_8)"), "{renamed}");
    assert!(!renamed.contains("\n+ kernel") && !renamed.contains("\n- kernel"), "{renamed}");
    // A name that now belongs to something else stays with its name.
    let other = OLD.replace("exp", "tanh");
    assert!(report(OLD, &other).contains("~ kernel main.map_8: only its text\n"));
}

#[test]
fn another_schedule() {
    let new =
        OLD.replace("ceil(n, 16)", "ceil(n, 32)").replace("//   buffer acc: cache f32[m=16]\n", "//   mma: avx2_f32\n");
    insta::assert_snapshot!(report(OLD, &new));
}

#[test]
fn folders_pending_snapshots_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.kernel.snap", OLD);
    write("b.kernel.snap", OLD);
    write("b.kernel.snap.new", &OLD.replace("launches: 1", "launches: 3"));
    write("c.kernel.snap.new", OLD);
    write("other.snap", "---\nsource: x.rs\n---\nsomebody else's\n");
    let (code, out) = run(&[folder.path(), folder.path()], true);
    assert_eq!(code, Some(1));
    let rows: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let status: Vec<_> = rows.iter().map(|r| (r["name"].as_str().unwrap(), r["status"].as_str().unwrap())).collect();
    assert_eq!(status, [("a.kernel", "equal"), ("b.kernel", "different"), ("c.kernel", "added")]);
    let change = &rows[1]["sections"][0]["changed"]["facts"][0];
    assert_eq!(*change, serde_json::json!({ "key": "launches", "old": "1", "new": "3" }));
    let text = run(&[folder.path(), folder.path()], false).1;
    assert!(text.contains("launches: 1 -> 3, +200.0 %\n") && text.ends_with("2 of 3 snapshots differ\n"), "{text}");
}

const SOFTMAX: &str = "func @main(%x: f32[n, 64], weight %w: f32[64, 32]) -> f32[n, 32] where n in 1..=256 {
  %0 = reduce_max %x axes=[1]
  %1 = broadcast %0 shape=[n, 64] dims=[0]
  %2 = sub %x, %1
  %3 = exp %2
  %4 = sum %3 axes=[1]
  %5 = broadcast %4 shape=[n, 64] dims=[0]
  %6 = div %3, %5
  %7 = dot %6, %w batch=[]x[] contract=[1]x[0]
  return %7
}
";

#[test]
fn snapshots_depend_on_the_graph_alone_and_parse() {
    let here = parse("a.tw", SOFTMAX).unwrap();
    let moved = parse("elsewhere/b.tw", &format!("// moved\n\n{SOFTMAX}")).unwrap();
    for settings in [Settings::default(), Settings::default().opt_level(0), Settings::default().target(Target::Sm90a)] {
        let (a, b) = (take(&here, &settings).unwrap(), take(&moved, &settings).unwrap());
        assert_eq!(a, b);
        for (stage, snapshot) in a {
            assert_eq!(Snapshot::parse(&stage, &snapshot.to_string()).unwrap(), snapshot, "{stage}");
        }
    }
    let others = Settings::default().stages([Stage::Regions, Stage::Clif]).isa(Isa::Portable);
    assert_eq!(take(&here, &others).unwrap().len(), 2);
    let code = |settings: Settings| take(&here, &settings).unwrap_err().code;
    assert_eq!(code(Settings::default().stages([Stage::Asm])), "stage-machine");
    assert_eq!(code(Settings::default().stages([Stage::Clif])), "stage-machine");
    assert_eq!(code(Settings::default().opt_level(3)), "opt-level");
    assert_eq!(code(Settings::default().stages([Stage::Plan]).target(Target::Sm80)), "stage-target");
}

/// Few rows and many are two kernels, of which a call runs one.
#[test]
fn launches_that_exclude_each_other_count_once() {
    let module = parse("causal.tw", include_str!("cases/attention/causal.tw")).unwrap();
    let (_, snapshot) = take(&module, &Settings::default().stages([Stage::Kernel])).unwrap().remove(0);
    let (program, kernels) = (&snapshot.sections[1], &snapshot.sections[2..]);
    assert_eq!(kernels.len(), 2);
    assert_eq!((program.get("launches"), program.get("alternative launches")), (Some("1"), Some("1")));
    assert!(kernels.iter().all(|k| k.get("when").is_some() && k.get("flops") == program.get("flops")));
}

#[test]
fn numerics_show_in_rules_and_kernels_have_costs() {
    let module = parse("a.tw", SOFTMAX).unwrap();
    let kernel = |numerics| {
        let all = take(&module, &Settings::default().stages([Stage::Kernel, Stage::Cuda]).numerics(numerics)).unwrap();
        all.into_iter().map(|(_, snapshot)| snapshot).collect::<Vec<_>>()
    };
    let (loose, exact) = (kernel(Numerics::Reassociate), kernel(Numerics::Exact));
    for snapshot in loose.iter().chain(&exact) {
        let kernels: Vec<_> = snapshot.sections.iter().skip(2).collect();
        assert!(!kernels.is_empty());
        for k in kernels {
            assert!(["flops", "bytes", "grid"].iter().all(|key| k.get(key).is_some()), "{k:?}");
        }
    }
    let fired = |s: &Snapshot| s.to_string().matches("reassociates, ").count();
    assert!(fired(&loose[0]) > 0 && fired(&exact[0]) == 0);
    assert!(loose[1].sections[1].get("shared memory").is_some() && loose[0].sections[1].get("shared memory").is_none());
    let found = diff(&loose[0], &exact[0]);
    assert!(found.settings.iter().any(|c| c.key == "numerics"), "{found:?}");
}
