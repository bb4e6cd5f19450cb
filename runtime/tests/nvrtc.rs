//! Compiles the CUDA C of every snapshot for three architectures. Skipped, with the reason, where there is no NVRTC.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::time::Instant;
use tilewright_runtime::device::cuda::Nvrtc;

const TARGETS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];

/// Name and text of every snapshot.
fn snapshots() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../codegen/tests/cuda/snapshots");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // The snapshot's own header ends with the second line of dashes.
        let body = text.splitn(3, "---\n").nth(2).unwrap().to_string();
        found.push((path.file_stem().unwrap().to_string_lossy().into_owned(), body));
    }
    found.sort();
    found
}

fn compiler() -> Option<Nvrtc> {
    match Nvrtc::load() {
        Ok(n) => Some(n),
        Err(d) => {
            assert_eq!(d.code, "nvrtc-missing");
            println!("SKIPPED: {}", d.message);
            None
        }
    }
}

#[test]
fn every_snapshot_compiles() {
    let all = snapshots();
    assert!(all.len() >= 6);
    let Some(nvrtc) = compiler() else { return };
    println!("NVRTC {:?}", nvrtc.version());
    for (name, text) in &all {
        for target in TARGETS {
            let start = Instant::now();
            let done = nvrtc.compile(name, text, target).unwrap_or_else(|d| panic!("{d}"));
            let ms = start.elapsed().as_secs_f64() * 1e3;
            let u = done.usage;
            assert!(done.cubin.starts_with(b"\x7fELF"), "{name} {target}");
            assert!(u.registers > 0 && u.registers <= 255, "{name} {target}: {}", done.log);
            assert_eq!((u.spill_stores, u.spill_loads), (0, 0), "{name} {target}: {}", done.log);
            println!(
                "{name:18} {target:7} {:3} registers, 0 spills, {:5} B shared, {ms:6.1} ms",
                u.registers, u.shared_bytes
            );
        }
    }
}

#[test]
fn a_wrong_text_is_a_typed_error() {
    let Some(nvrtc) = compiler() else { return };
    let error = nvrtc.compile("wrong", "extern \"C\" __global__ void wrong() { nothing; }", "sm_80").unwrap_err();
    assert_eq!(error.code, "nvrtc-compile");
    assert!(error.notes.iter().any(|n| n.contains("wrong.cu(1)")), "{error}");
}

#[test]
fn the_cache_gives_the_same_cubin() {
    let Some(nvrtc) = compiler() else { return };
    let folder = std::env::temp_dir().join(format!("tilewright-nvrtc-test-{}", std::process::id()));
    let nvrtc = nvrtc.with_cache(&folder);
    let text = "extern \"C\" __global__ void one(int* x) { *x = 1; }";
    let first = nvrtc.compile("one", text, "sm_80").unwrap();
    let second = nvrtc.compile("one", text, "sm_80").unwrap();
    assert!(!first.cached && second.cached);
    assert_eq!((first.cubin, first.usage), (second.cubin, second.usage));
    std::fs::remove_dir_all(&folder).unwrap();
}
