//! `tilewright check-kernels`: exit codes, and the last line.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use tilewright_runtime::device::cuda::Nvrtc;

fn check(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilewright"));
    let out = command.arg("check-kernels").args(arguments).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

const GOOD: &str = "tests/cases/cuda/row.cuda.2.snap";

#[test]
fn texts_are_compiled_for_each_target() {
    if Nvrtc::load().is_err() {
        assert_eq!(check(&[GOOD]).0, Some(2));
        let (code, out, _) = check(&[GOOD, "--allow-missing"]);
        assert_eq!((code, out.as_str()), (Some(0), "0 compiled, 0 failed, 3 skipped\n"));
        eprintln!("skipped: NVRTC is not installed");
        return;
    }
    let (code, out, err) = check(&[GOOD]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().last(), Some("3 compiled, 0 failed, 0 skipped"));
    assert!(out.contains(" registers    0 B spills"), "{out}");
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.cu");
    std::fs::write(&bad, "extern \"C\" __global__ void k(float* x) { x[0] = y; }\n").unwrap();
    let (code, out, err) = check(&[bad.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert_eq!(out, "0 compiled, 3 failed, 0 skipped\n");
    assert!(err.contains("bad.cu") && !err.contains(".cu.cu") && err.contains("sm_89"), "{err}");
}

#[test]
fn what_is_no_cuda_text_is_an_error() {
    let (code, out, err) = check(&["README.md", "--allow-missing"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("no-kernels") && err.contains("README.md"), "{err}");
    assert_eq!(check(&["tests/absent.cu"]).0, Some(1));
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.cu");
    std::fs::write(&empty, "// nothing\n").unwrap();
    let (code, _, err) = check(&[empty.to_str().unwrap(), "--allow-missing"]);
    assert!(code == Some(1) && err.contains("no-kernels"), "{err}");
}
