//! `tilewright grad`: its output is a file that runs; bad questions are errors that say what would be right.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

const MODEL: &str = "func @layer(%x: f32[n, 8], weight %w: f32[8, 8]) -> f32[n, 8] where n in 1..=64 {
  %0 = dot %x, %w contract=[1]x[0]
  %1 = tanh %0
  return %1
}
func @main(%x: f32[n, 8], weight %w: f32[8, 8], %unused: f32[2], %ids: i64[3]) -> f32[] where n in 1..=64 {
  %0 = call %x, %w function=@layer
  %1 = call %0, %w function=@layer
  %2 = sum %1 axes=[0, 1]
  return %2
}
";

/// Standard output if it succeeded, and what it said.
fn tilewright(folder: &Path, args: &[&str]) -> (Option<String>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(args).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success().then(|| text(out.stdout)), text(out.stderr))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.tw"), MODEL).unwrap();
    folder
}

/// Every form, and a derivative of each derivative, runs as machine code as it does on the interpreter.
#[test]
fn derivatives_are_files_that_run() {
    let folder = folder();
    let run = |args: &[&str]| {
        let (out, said) = tilewright(folder.path(), args);
        out.unwrap_or_else(|| panic!("{args:?}: {said}"))
    };
    for form in ["gradient", "value-and-gradient", "pullback", "pushforward"] {
        run(&["grad", "m.tw", "--wrt", "x,w", "--form", form, "-o", "g.tw"]);
        run(&["run", "g.tw", "--check"]);
        run(&["grad", "g.tw", "--wrt", "w", "--form", "pullback", "-o", "h.tw"]);
        run(&["run", "h.tw", "--check", "--set", "n=3"]);
    }
    let kernels = run(&["grad", "m.tw", "--wrt", "w", "--emit", "kernel"]);
    assert!(kernels.contains("program layer.bwd"), "{kernels}");
}

#[test]
fn questions_without_an_answer() {
    let folder = folder();
    let refused = |args: &[&str]| {
        let (out, said) = tilewright(folder.path(), args);
        assert!(out.is_none(), "{args:?}");
        said
    };
    let said = refused(&["grad", "m.tw", "--wrt", "y"]);
    assert!(said.contains("error[unknown-parameter]") && said.contains("`%x`, `%w`"), "{said}");
    let said = refused(&["grad", "m.tw", "--wrt", "ids"]);
    assert!(said.contains("error[no-gradient]") && said.contains("m.tw:6:"), "{said}");
    let said = refused(&["grad", "m.tw", "--function", "layer"]);
    assert!(said.contains("error[not-scalar]") && said.contains("--form pullback"), "{said}");
}

#[test]
fn what_does_not_matter_is_said() {
    let folder = folder();
    let (out, said) = tilewright(folder.path(), &["grad", "m.tw"]);
    assert!(said.contains("warning[unrelated]") && said.contains("`%unused`"), "{said}");
    assert!(out.unwrap().contains("-> (f32[n, 8], f32[8, 8], f32[2])"));
}
