//! Flags, paths, and inputs that do not fit the graph.

use crate::harness::{Place, safetensors};

const GRAPH: &str =
    "func @main(%x: f32[n, 4], %i: i64[3]) -> f32[3, 4] where n in 1..=8 { %0 = take %x, %i axis=0\n return %0 }";

#[test]
fn unknown_flags_and_values_are_usage_errors() {
    let place = Place::new();
    place.write("g.tw", GRAPH);
    for args in [
        &["--nosuch"][..],
        &["nosuch"],
        &["run"],
        &["run", "g.tw", "--nosuch"],
        &["run", "g.tw", "--opt-level", "99"],
        &["run", "g.tw", "--opt-level", "-1"],
        &["run", "g.tw", "--threads", "0"],
        &["run", "g.tw", "--threads", "99999999999999999999"],
        &["run", "g.tw", "--device", "abacus"],
        &["run", "g.tw", "--seed", "x"],
        &["compile", "g.tw", "--emit", "poem"],
        &["generate", "--model", "g.tw"],
        &["generate", "--model", "g.tw", "--prompt", "x", "--temperature", "nan"],
        &["generate", "--model", "g.tw", "--prompt", "x", "--top-p", "7"],
        &["embed", "x"],
        &["embed", "--model", "g.tw", "x", "--max-length", "0"],
        &["embed", "--model", "g.tw", "x", "--batch-size", "0"],
        &["ops", "extra"],
    ] {
        place.refused(args, &[]);
        assert_eq!(place.run(args).code, Some(2), "{args:?}");
    }
    for set in ["n", "n=", "n=x", "n=99999999999999999999", "n=0", "n=9", "n=-1", "m=1", "=", ""] {
        place.refused(&["run", "g.tw", "--set", set], &["symbol"]);
    }
    let conformance = env!("CARGO_BIN_EXE_conformance");
    std::fs::create_dir(place.path("nnsmith")).unwrap();
    let args = ["--data", ".", "--set", "nnsmith"];
    place.run_binary(conformance, &args).is_refused(&args, &["error[conformance-set]", "found none in ./nnsmith"]);
    std::fs::remove_dir(place.path("nnsmith")).unwrap();
    for args in [
        &["--data", "none"][..],
        &["--data", "."],
        &["--data", ".", "--set", "ops"],
        &["--data", ".", "--set", "poems"],
        &["--data", ".", "--device", "abacus"],
        &["--data", "g.tw", "--set", "smollm2"],
    ] {
        place.run_binary(conformance, args).is_refused(args, &[]);
    }
}

#[test]
fn paths_that_are_no_files() {
    let place = Place::new();
    place.write("g.tw", GRAPH);
    std::fs::create_dir(place.path("folder")).unwrap();
    for path in ["none.tw", "folder", "g.tw/below", "/dev/zero", "none.safetensors"] {
        place.refused(&["run", path], &["error[file]"]);
        place.refused(&["compile", path], &["error[file]"]);
        place.refused(&["rules", "check", path], &["error[file]"]);
        place.refused(&["generate", "--model", path, "--prompt", "x"], &["error[file]"]);
        place.refused(&["embed", "--model", path, "x"], &["error[file]"]);
        place.refused(&["run", "g.tw", "--inputs", path], &["error[file]"]);
    }
    // Results have nowhere to go: an error, and no part of a file.
    for path in ["folder", "none/out", "g.tw/out"] {
        place.refused(&["run", "g.tw", "--output", path], &["error["]);
        place.refused(&["compile", "g.tw", "--output", path], &["error["]);
    }
}

#[test]
fn inputs_that_do_not_fit() {
    let place = Place::new();
    place.write("g.tw", GRAPH);
    let floats = |n: usize| [0u8, 0, 128, 63].repeat(n);
    let ids = |v: [i64; 3]| v.map(i64::to_le_bytes).concat();
    let good = safetensors(&[("x", "F32", &[2, 4], floats(8)), ("i", "I64", &[3], ids([0, 1, 1]))]);
    place.write("good.safetensors", &good);
    place.runs(&["run", "g.tw", "--inputs", "good.safetensors", "--check"]);
    let more = [
        ("x", "F32", &[2, 4][..], floats(8)),
        ("i", "I64", &[3], ids([0, 1, 1])),
        ("y\\u001b", "F32", &[1], floats(1)),
    ];
    place.write("more.safetensors", safetensors(&more));
    let shown =
        ["error[inputs]", "more.safetensors has tensors that no parameter takes: `y\\u{1b}`", "`@main` takes `x`, `i`"];
    place.refused(&["run", "g.tw", "--inputs", "more.safetensors", "--output", "out.safetensors"], &shown);
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("i`", safetensors(&[("x", "F32", &[2, 4], floats(8))])),
        ("x`", safetensors(&[("x", "F64", &[2, 2], floats(8)), ("i", "I64", &[3], ids([0, 1, 1]))])),
        ("x`", safetensors(&[("x", "F32", &[8], floats(8)), ("i", "I64", &[3], ids([0, 1, 1]))])),
        ("x`", safetensors(&[("x", "F32", &[4, 2], floats(8)), ("i", "I64", &[3], ids([0, 1, 1]))])),
        ("i`", safetensors(&[("x", "F32", &[2, 4], floats(8)), ("i", "I64", &[1, 3], ids([0, 1, 1]))])),
        ("n", safetensors(&[("x", "F32", &[9, 4], floats(36)), ("i", "I64", &[3], ids([0, 1, 1]))])),
        ("n", safetensors(&[("x", "F32", &[0, 4], floats(0)), ("i", "I64", &[3], ids([0, 1, 1]))])),
        // Indices outside of the table.
        ("0..2", safetensors(&[("x", "F32", &[2, 4], floats(8)), ("i", "I64", &[3], ids([0, 2, 1]))])),
        ("0..2", safetensors(&[("x", "F32", &[2, 4], floats(8)), ("i", "I64", &[3], ids([0, i64::MIN, 1]))])),
        ("bad.safetensors", good[..good.len() - 1].to_vec()),
        ("bad.safetensors", good[..20].to_vec()),
        ("bad.safetensors", Vec::new()),
    ];
    for (shown, bytes) in bad {
        place.write("bad.safetensors", bytes);
        for device in ["cpu", "interpreter"] {
            let args =
                ["run", "g.tw", "--inputs", "bad.safetensors", "--device", device, "--output", "out.safetensors"];
            place.refused(&args, &[shown]);
        }
    }
}
