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

#[test]
fn derivatives_are_checked_against_differences() {
    let folder = folder();
    let (out, said) = tilewright(folder.path(), &["grad", "m.tw", "--check", "--set", "n=3", "--wrt", "x,w"]);
    let out = out.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(out.matches(": agree").count(), 2, "{out}");
    let stopped = MODEL.replacen(" where", " stop_gradient where", 1);
    std::fs::write(folder.path().join("stopped.tw"), stopped).unwrap();
    let (out, said) = tilewright(folder.path(), &["grad", "stopped.tw", "--check", "--wrt", "w"]);
    assert!(out.is_none() && said.contains("error[wrong-gradient]: by `%w`: the derivative is 0"), "{said}");
    // Nothing is compared where there are no values.
    let nowhere = "func @main(%x: f32[]) -> f32[] {\n  %0 = abs %x\n  %1 = neg %0\n  %2 = sqrt %1\n  return %2\n}";
    std::fs::write(folder.path().join("nowhere.tw"), nowhere).unwrap();
    let (out, said) = tilewright(folder.path(), &["grad", "nowhere.tw", "--check"]);
    assert!(out.is_none() && said.contains("error[unchecked-gradient]"), "{said}");
}

#[test]
fn the_hunt_names_the_node_that_made_the_first_nan() {
    let folder = folder();
    let text = "func @step(%c: f32[2], %s: f32[2]) -> f32[2] {
  %0 = sub %c, %s
  %1 = sqrt %0
  return %1
}
func @main(%x: f32[2], %s: f32[3, 2]) -> f32[] {
  %0 = mul %x, %x
  %1 = scan %0, %s body=@step carries=1 length=3
  %2 = sum %1 axes=[0]
  return %2
}
";
    let at = folder.path();
    std::fs::write(at.join("roots.tw"), text).unwrap();
    let (out, said) = tilewright(at, &["run", "roots.tw", "--nan-hunt"]);
    assert!(out.is_none(), "{said}");
    for part in ["error[not-finite]: `sqrt` in `@step` makes NaN in", "roots.tw:3:", "roots.tw:8:", "of 3 of the scan"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("note: operand 0: f32[2], -"), "{said}");
    // The square root of 0 is fine, its gradient is not: the line is that of the square root.
    std::fs::write(
        at.join("norm.tw"),
        "func @main(%x: f32[3]) -> f32[] {\n  %0 = sub %x, %x\n  %1 = mul %0, %0\n  %2 = sum %1 axes=[0]\n  %3 = sqrt %2\n  return %3\n}",
    )
    .unwrap();
    let (out, _) = tilewright(at, &["run", "norm.tw", "--nan-hunt"]);
    assert_eq!(out.as_deref(), Some("no node makes a NaN or an infinity\n"));
    let (out, said) = tilewright(at, &["grad", "norm.tw", "--nan-hunt"]);
    assert!(out.is_none() && said.contains("`div` in `@main` makes infinity in 1 of 1 elements"), "{said}");
    assert!(said.contains("norm.tw:5:"), "{said}");
}
