//! `tilewright bench`: one JSON object a line, with the keys that the peers' scripts print.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn bench(arguments: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).arg("bench").args(arguments).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_product_is_one_line_and_exact() {
    for dtype in ["f32", "bf16"] {
        let sizes = ["gemm", "--m", "3", "--k", "70", "--n", "33", "--threads", "2", "--json", "--dtype", dtype];
        let (ok, out, err) = bench(&sizes);
        assert!(ok, "{err}");
        assert_eq!(out.lines().count(), 1, "{out}");
        let row: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(row["bench"], "gemm");
        assert_eq!(row["peer"], "tilewright");
        assert_eq!(row["shape"], "3x70x33");
        assert_eq!(row["threads"], 2);
        assert_eq!(row["dtype"], dtype);
        assert_eq!(row["precision"], "highest");
        // Of inputs rounded to bf16, and of a result rounded to it.
        let most = if dtype == "f32" { 1e-6 } else { 0.05 };
        assert!(row["error"].as_f64().unwrap() < most, "{out}");
        for key in ["median_s", "min_s", "gflops", "check"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key}: {out}");
        }
        assert!(row["machine"].as_str().unwrap().contains("cores"), "{out}");
    }
}

/// Sizes that pass as numbers and do not fit the address space.
#[test]
#[cfg(unix)]
fn products_without_memory_are_errors() {
    for (m, k, n) in [("20000", "20000", "20000"), ("1", "2147483648", "1"), ("46340", "1", "46340")] {
        for dtype in ["f32", "bf16"] {
            let out = Command::new("sh")
                .args(["-c", "ulimit -v 6000000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tilewright"), "bench", "gemm"])
                .args(["--m", m, "--k", k, "--n", n, "--dtype", dtype])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{said}");
            assert!(said.contains("error[out-of-memory]") && said.contains(&format!("{m}x{k}x{n}")), "{said}");
        }
    }
}

#[test]
#[cfg(unix)]
fn a_model_without_memory_is_an_error() {
    let out = Command::new("sh")
        .args(["-c", "ulimit -v 600000; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tilewright"), "bench", "gpt2"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && said.contains("error[out-of-memory]"), "{said}");
}

#[test]
fn wrong_sizes_and_files_are_errors() {
    let (ok, out, err) = bench(&["gemm", "--m", "0"]);
    assert!(!ok && out.is_empty() && err.contains("bench-size"), "{err}");
    let (ok, _, err) = bench(&["gemm", "--m", "4294967296", "--k", "4294967296"]);
    assert!(!ok && err.contains("bench-size"), "{err}");
    let (ok, _, err) = bench(&["llm", "--model", "/nonexistent.gguf"]);
    assert!(!ok && err.contains("/nonexistent.gguf"), "{err}");
    let (ok, _, err) = bench(&["encoder", "--model", "/nonexistent"]);
    assert!(!ok && err.contains("/nonexistent"), "{err}");
    assert!(!bench(&["gemm", "--dtype", "q4_0"]).0);
}

/// What is measured describes this machine, in the words of the shipped descriptions.
#[test]
fn a_calibration_is_a_description() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("here.json");
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright"))
        .args(["calibrate", "--threads", "1", "--output"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let device = tilewright_passes::egraph::Device::parse("here", &std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(device.name.starts_with("cpu-") && device.cores.0 == 1.0, "{device:?}");
    assert!(device.cache.0 >= device.memory.0 && device.matrix.has(tilewright_ir::types::DType::Bf16));
}

#[test]
fn levels_and_groups_of_rules_are_lines() {
    let file = std::env::temp_dir().join(format!("tilewright-levels-{}.tw", std::process::id()));
    let text = "func @norm(%x: f32[8, 64]) -> f32[8, 64] {\n  %0 = exp %x\n  return %0\n}\n
func @main(%x: f32[8, 64]) -> f32[8, 64] {\n  %0 = call %x function=@norm\n  %1 = call %0 function=@norm\n  return %1\n}\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let (ok, out, err) = bench(&["levels", path, "--json", "--seconds", "0.001"]);
    assert!(ok, "{err}");
    let rows: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let levels: Vec<&str> = rows.iter().map(|r| r["row"]["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["0", "1", "2"], "no rule fires");
    for row in &rows {
        // Each call counts.
        assert_eq!(row["row"]["launches"], 2, "{row}");
        assert_eq!(row["row"]["bytes"], 2 * 2 * 8 * 64 * 4, "{row}");
        assert!(row["row"]["min_s"].as_f64().unwrap() > 0.0 && row["row"]["predicted_s"].as_f64().unwrap() > 0.0);
    }
    let seconds = |row: usize, what: &str| rows[row]["row"][what].as_f64();
    assert_eq!((seconds(0, "bound_s"), seconds(1, "bound_s")), (None, None), "no choice, no bound");
    let (bound, chosen) = (seconds(2, "bound_s").unwrap(), seconds(2, "predicted_s").unwrap());
    assert!(bound > 0.0 && bound <= chosen * (1.0 + 1e-9), "{bound} {chosen}");
    let (ok, out, err) = bench(&["levels", path, "--seconds", "0", "--target", "sm_90a", "--without-rules", "views"]);
    assert!(ok && out.lines().count() == 4 && !out.contains("ms measured"), "{out}{err}");
    assert!(
        out.lines().nth(3).unwrap().ends_with("gap 0.0 %") && !out.lines().nth(2).unwrap().contains("gap"),
        "{out}"
    );
    let (ok, _, err) = bench(&["levels", path, "--without-rules", "softmax"]);
    assert!(!ok && err.contains("error[unknown-rule]") && err.contains("online"), "{err}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn blocks_of_the_usual_models_are_written_as_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (ok, out, err) = bench(&["levels", "--write", path]);
    assert!(ok, "{err}");
    assert!(out.contains("smollm2_block_prompt_of_64.tw --set past=0 --set seq=64\n"), "{out}");
    for line in out.lines() {
        let (file, _) = line.split_once(".tw").unwrap();
        let text = std::fs::read_to_string(format!("{file}.tw")).unwrap();
        assert!(text.contains(&format!("\n// tilewright explain {line}\n")), "{text}");
        let module = tilewright_ir::text::parse(line, &text).unwrap();
        tilewright_ir::verify::verify(&module).unwrap();
    }
    let (ok, _, err) = bench(&["levels", "--write", &format!("{path}/nowhere")]);
    assert!(!ok && err.contains("nowhere"), "{err}");
}

/// For every function of the blocks, at the budget that is used unless one is named.
#[test]
fn what_is_chosen_for_blocks_is_near_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let (_, files, _) = bench(&["levels", "--write", folder.path().to_str().unwrap()]);
    let mut functions = 0;
    for line in files.lines() {
        for (target, machine) in [("cpu", "cpu-avx512"), ("sm_90a", "h200")] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tilewright"));
            command.arg("explain").args(line.split(' ')).args(["--target", target, "--machine", machine]);
            let out = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let gaps: Vec<f64> =
                out.lines().filter_map(|l| l.split_once("a gap of ")?.1.split_once(" %")?.0.parse().ok()).collect();
            assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap < 10.0), "{line} for {machine}: {gaps:?}");
            functions += gaps.len();
        }
    }
    assert!(functions >= 20, "{functions}");
}

#[test]
fn columns_have_no_more_kernels_than_at_level_1() {
    for name in ["squares", "batch_norm", "softmax"] {
        let file = format!("{}/tests/data/levels/columns_{name}.tw", env!("CARGO_MANIFEST_DIR"));
        let (ok, out, err) = bench(&["levels", &file, "--json", "--seconds", "0"]);
        assert!(ok, "{err}");
        let rows: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(rows[2]["row"]["launches"].as_i64() <= rows[1]["row"]["launches"].as_i64(), "{out}");
    }
}
