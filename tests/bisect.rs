//! `tilewright bisect`, through the binary: what it says, what it writes, its exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use std::path::Path;
use std::process::Command;

const GRAPH: &str = "func @main(%x: f32[n, 12]) -> (f32[n], f32[n, 12]) where n in 1..=64 {
  %0 = exp %x
  %1 = sum %0 axes=[1]
  %2 = broadcast %1 shape=[n, 12] dims=[0]
  %3 = div %0, %2
  %4 = sqrt %3
  %5 = neg %4
  return %1, %5
}
";

fn tilewright(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).current_dir(folder).args(arguments).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_wrong_rule_is_found_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("x.tw"), GRAPH).unwrap();
    std::fs::write(path.join("my.rules"), "# ours\nroot: exact\n  (sqrt ?a) => ?a\n").unwrap();
    let (code, out, err) = tilewright(path, &["bisect", "x.tw"]);
    assert_eq!((code, out.as_str()), (Some(0), "no result differs from the interpreter\n"), "{err}");
    let wrong = ["bisect", "x.tw", "--rules", "my.rules", "--unchecked-rules", "--set", "n=9"];
    let (code, out, err) = tilewright(path, &wrong);
    assert_eq!(code, Some(1));
    assert!(err.contains("error[miscompiled]: wrong: the rule `root` (exact), my.rules:2: in f64, left is "), "{err}");
    assert!(out.contains("result 1 (f32[9, 12]) differs from the interpreter at "), "{out}");
    assert!(out.contains("made small: 1 of 6 nodes: sqrt at x.tw:6:8\n"), "{out}");
    // The command that it says shows the difference; the program is that of one element.
    let again = out.lines().last().unwrap().trim();
    assert!(again.starts_with("tilewright run bisect/x.tw --check --inputs bisect/x.safetensors"), "{again}");
    let arguments: Vec<&str> = again.split(' ').skip(1).collect();
    let (code, _, err) = tilewright(path, &arguments);
    assert!(code == Some(1) && err.contains("differs from the interpreter"), "{err}");
    let text = std::fs::read_to_string(path.join("bisect/x.tw")).unwrap();
    assert!(text.starts_with("// Wrong: the rule `root`") && text.contains("f32[1, 1]"), "{text}");
    // The same for programs that read it.
    let (code, out, _) = tilewright(path, &[&wrong[..], &["--json", "--out", "else"]].concat());
    let row: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &row["differs"], &row["kind"]), (Some(1), &true.into(), &"rule".into()), "{row}");
    assert_eq!(row["rules"], serde_json::json!([{ "name": "root", "at": "my.rules:2" }]));
    assert!(path.join(row["inputs"].as_str().unwrap()).exists(), "{row}");
    let (code, out, _) = tilewright(path, &["bisect", "x.tw", "--json"]);
    assert_eq!((code, out.as_str()), (Some(0), "{\"differs\":false}\n"));
    // Inputs of the user.
    let inputs = ["bisect", "bisect/x.tw", "--inputs", "bisect/x.safetensors"];
    assert_eq!(tilewright(path, &inputs).0, Some(0));
    let (code, _, err) = tilewright(path, &["bisect", "absent.tw"]);
    assert!(code == Some(1) && err.contains("error[file]"), "{err}");
}
