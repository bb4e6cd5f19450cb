//! The command: runs that stop and go on, bad configurations and disks, models that generate.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub(super) const TEXT: &str =
    "in the beginning god created the heaven and the earth.\nand the earth was without form, and void;\n";

pub(super) const CONFIG: &str = r#"
out = "out"
seed = 5
[model]
family = "gpt"
layers = 2
width = 16
heads = 2
context = 16
[data]
text = ["text.txt"]
[train]
steps = 12
batch = 4
parts = 2
dropout = 0.1
average = 0.5
[schedule]
peak = 0.02
warmup = 3
[save]
every = 3
metrics = 1
"#;

/// A folder with a text and a configuration.
pub(super) fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.txt"), TEXT.repeat(8)).unwrap();
    std::fs::write(folder.path().join("run.toml"), config).unwrap();
    folder
}

fn command(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilewright"));
    command.arg("train").arg(folder.join("run.toml")).args(["--opt-level", "1"]).args(more);
    command
}

pub(super) fn run(folder: &Path, more: &[&str]) -> Output {
    command(folder, more).output().unwrap()
}

#[track_caller]
pub(super) fn done(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
pub(super) fn fails(output: &Output, parts: &[&str]) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "no `{part}` in {said}"));
}

pub(super) fn model(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("out/model.safetensors")).unwrap()
}

pub(super) fn checkpoints(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder.join("out/checkpoints")).unwrap();
    let paths = all.map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> = paths.filter(|p| p.file_name().is_some_and(|n| n != "lock")).collect();
    all.sort();
    all
}

pub(super) fn losses(folder: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let line = |l: &str| {
        let value: serde_json::Value = serde_json::from_str(l).unwrap();
        (value["step"].as_u64().unwrap(), value["loss"].as_f64().unwrap())
    };
    text.lines().map(line).collect()
}

#[test]
fn a_run_that_stops_goes_on_to_the_same_bits() {
    let (whole, stopped) = (folder(CONFIG), folder(CONFIG));
    let printed = done(&run(whole.path(), &["--threads", "1"]));
    assert!(printed.contains("step     12  loss "), "{printed}");
    done(&run(stopped.path(), &["--until", "7"]));
    assert!(!stopped.path().join("out/model.safetensors").exists());
    // What a run leaves that was killed while it wrote.
    let steps = checkpoints(stopped.path());
    std::fs::write(stopped.path().join("out/checkpoints/step-0000000009.safetensors.77.part"), b"half").unwrap();
    let lost = losses(stopped.path());
    std::fs::write(stopped.path().join("out/metrics.jsonl"), format!("{}{{\"step\":8,\"lo", lines(&lost))).unwrap();
    assert_eq!(steps.len(), 2, "{steps:?}");
    // The file may be named from another place.
    let mut elsewhere = Command::new(env!("CARGO_BIN_EXE_tilewright"));
    elsewhere.args(["train", "run.toml", "--opt-level", "1", "--threads", "2"]).current_dir(stopped.path());
    done(&elsewhere.output().unwrap());
    assert!(checkpoints(stopped.path()).iter().all(|p| p.extension().is_some_and(|e| e == "safetensors")));
    assert!(model(whole.path()) == model(stopped.path()), "the models differ");
    assert_eq!(losses(whole.path()), losses(stopped.path()));
    assert!(std::fs::read_to_string(whole.path().join("out/loss.svg")).unwrap().contains("<polyline"));
    let all = losses(whole.path());
    assert!(all.len() == 12 && all[11].1 < all[0].1 - 0.3, "{all:?}");
    generates(whole.path(), "in the");
    // A run that is done has nothing to do.
    done(&run(whole.path(), &[]));
}

fn lines(all: &[(u64, f64)]) -> String {
    let line = |(step, loss): &(u64, f64)| {
        let rest = "\"norm\":1.0,\"rate\":0.1,\"tokens_per_s\":1.0";
        format!("{{\"step\":{step},\"loss\":{},{rest}}}\n", serde_json::to_string(loss).unwrap())
    };
    all.iter().map(line).collect()
}

pub(super) fn generates(folder: &Path, prompt: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilewright"));
    command.arg("generate").arg("--model").arg(folder.join("out"));
    command.args(["--greedy", "--max-tokens", "4", "--opt-level", "1", "--json", "--prompt", prompt]);
    let said = done(&command.output().unwrap());
    let value: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(value["text"].as_str().is_some_and(|t| !t.is_empty()), "{said}");
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bits() {
    let config = CONFIG.replace("steps = 12", "steps = 400").replace("every = 3", "every = 20");
    let (whole, killed) = (folder(&config), folder(&config));
    done(&run(whole.path(), &[]));
    let mut child = command(killed.path(), &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let there = |name: &str| killed.path().join("out/checkpoints").join(name).exists();
    // However slow the machine is, it is killed after a checkpoint, and most likely before the end.
    while !there("step-0000000040.safetensors") && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    done(&run(killed.path(), &[]));
    assert!(model(whole.path()) == model(killed.path()), "the models differ");
}

#[test]
fn adapters_learn_beside_weights_that_stay() {
    let base = CONFIG.replace("\"gpt\"", "\"llama\"").replace("average = 0.5\n", "").replace("seed = 5", "seed = 6");
    let first = folder(&base);
    done(&run(first.path(), &[]));
    generates(first.path(), "and the");
    let from = format!("[model]\nfrom = {:?}\ncontext = 16\n", first.path().join("out"));
    let rest = base.split_once("[data]").unwrap().1.replace("peak = 0.02", "peak = 0.05");
    let lora = format!("out = \"out\"\nseed = 6\n{from}[lora]\nrank = 3\n[data]{rest}");
    let second = folder(&lora);
    done(&run(second.path(), &[]));
    let (before, after) = (losses(first.path()), losses(second.path()));
    assert!(after[11].1 < after[0].1 && after[0].1 < before[0].1 - 0.3, "{before:?} {after:?}");
    generates(second.path(), "and the");
    let open = |folder: &Path| tilewright::formats::Safetensors::open(folder.join("out/model.safetensors")).unwrap();
    let (a, b) = (open(first.path()), open(second.path()));
    assert!(a.names().eq(b.names()));
    for name in a.names() {
        let same = a.tensor(name).unwrap() == b.tensor(name).unwrap();
        assert_eq!(same, !name.contains("proj"), "{name}");
    }
}

#[test]
fn blocks_that_are_computed_again_give_the_same_bits() {
    for precision in ["f32", "bf16"] {
        let config = CONFIG.replace("batch = 4", &format!("batch = 4\nprecision = \"{precision}\""));
        let (kept, again) = (folder(&config), folder(&config.replace("batch = 4", "batch = 4\ncheckpoint = true")));
        done(&run(kept.path(), &["--until", "5"]));
        done(&run(again.path(), &["--until", "5"]));
        assert!(state(kept.path()) == state(again.path()), "{precision}");
    }
}

#[test]
fn typos_are_told_with_the_nearest_key() {
    for (from, to, parts) in [
        ("layers = 2", "layres = 2", ["layres", "the nearest known one is `layers`", "run.toml:6"]),
        ("[train]", "[trian]", ["trian", "the nearest known one is `train`", "run.toml"]),
        ("steps = 12", "steps = \"12\"", ["invalid type", "run.toml:13", ""]),
        ("steps = 12", "steps = 0", ["train.steps: expected 1 to 2^40, found 0", "", ""]),
        ("parts = 2", "parts = 3", ["train.parts: expected a divisor of the batch 4, found 3", "", ""]),
        ("heads = 2", "heads = 3", ["heads: expected a divisor of the width 16, found 3", "", ""]),
        (
            "parts = 2",
            "precision = \"fp16\"",
            ["unknown variant `fp16`", "the nearest known one is `f16`", "run.toml:15"],
        ),
        ("parts = 2", "precision = \"bfloat16\"", ["bfloat16", "the nearest known one is `bf16`", ""]),
        ("[save]", "[loss_scale]\n[save]", ["loss_scale: expected train.precision = \"f16\" beside it", "", ""]),
        ("context = 16", "context = 5000", ["expected 10001 tokens for sequences of 5000", "", ""]),
        ("text.txt", "texts.txt", ["texts.txt", "cannot open", ""]),
    ] {
        assert!(CONFIG.contains(from));
        fails(&run(folder(&CONFIG.replace(from, to)).path(), &[]), &parts);
    }
}

#[test]
fn another_run_does_not_go_on_from_a_checkpoint() {
    let folder = folder(CONFIG);
    done(&run(folder.path(), &["--until", "1"]));
    std::fs::write(folder.path().join("run.toml"), CONFIG.replace("seed = 5", "seed = 6")).unwrap();
    fails(&run(folder.path(), &[]), &["expected `seed` 6, found 5", "name another `out`"]);
}

#[test]
fn a_full_disk_leaves_the_old_checkpoint() {
    let folder = folder(CONFIG);
    done(&run(folder.path(), &["--until", "3"]));
    let before = checkpoints(folder.path());
    let bytes = std::fs::read(&before[0]).unwrap();
    // No file may grow beyond 16 KiB, and the signal that says so is ignored: writes fail as those to a full disk do.
    let limited = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "-", env!("CARGO_BIN_EXE_tilewright"), "train"])
        .arg(folder.path().join("run.toml"))
        .args(["--opt-level", "1"])
        .output()
        .unwrap();
    fails(&limited, &["cannot write the file"]);
    assert_eq!(checkpoints(folder.path()), before);
    assert!(std::fs::read(&before[0]).unwrap() == bytes);
    done(&run(folder.path(), &[]));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_the_work() {
    let folder = folder(CONFIG);
    std::fs::write(folder.path().join("out"), "a file in the way").unwrap();
    fails(&run(folder.path(), &[]), &["cannot make the folder", "out"]);
}

#[test]
fn tokens_may_come_from_a_mapped_file() {
    let config = CONFIG.replace("text = [\"text.txt\"]", "tokens = [\"a.bin\"]");
    let folder = folder(&config);
    let tokens: Vec<u8> = (0..2000u16).flat_map(|i| (i % 41 * (i % 41) % 17).to_le_bytes()).collect();
    std::fs::write(folder.path().join("a.bin"), &tokens).unwrap();
    done(&run(folder.path(), &["--json"]));
    let all = losses(folder.path());
    assert!(all[11].1 < all[0].1, "{all:?}");
    std::fs::write(folder.path().join("a.bin"), &tokens[..999]).unwrap();
    fails(
        &run(folder.path(), &[]),
        &["expected tokens of 2 bytes each, as data.token_type u16 has, found 999 bytes", "a.bin"],
    );
}

#[test]
fn the_example_of_the_book_learns() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/book/training.md");
    let page = std::fs::read_to_string(page).unwrap();
    let config = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = folder(config);
    done(&run(folder.path(), &[]));
    let all = losses(folder.path());
    assert!(all.last().unwrap().1 < all[0].1 - 1.0, "{all:?}");
    generates(folder.path(), "in the");
}

#[test]
fn the_configurations_of_the_examples_are_some() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let open = |path: &str| tilewright::train::Config::open(&examples.join(path)).unwrap_or_else(|d| panic!("{d}"));
    let config = open("char_gpt/char_gpt.toml");
    assert_eq!((config.model.layers, config.model.width, config.train.steps), (Some(6), Some(384), 2200));
    assert_eq!(open("lora/lora.toml").lora.map(|l| l.rank), Some(8));
}

/// The metrics of a run, line by line.
pub(super) fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The scale of the loss starts so large that the first steps are skipped; it is part of what goes on.
#[test]
fn a_run_in_f16_goes_on_with_its_scale() {
    let config =
        CONFIG.replace("average = 0.5\n", "precision = \"f16\"\n") + "[loss_scale]\nfirst = 4194304\ninterval = 2\n";
    let (whole, stopped) = (folder(&config), folder(&config));
    let printed = done(&run(whole.path(), &["--threads", "1"]));
    assert!(printed.contains("  scale 4194304\n"), "{printed}");
    let all = metrics(whole.path());
    let scales: Vec<f64> = all.iter().map(|m| m["loss_scale"].as_f64().unwrap()).collect();
    let skipped: Vec<bool> = all.iter().map(|m| m["norm"].is_null()).collect();
    assert!(skipped[0] && !skipped[11], "{all:?}");
    for i in 1..scales.len() {
        let factor = scales[i] / scales[i - 1];
        assert!(if skipped[i - 1] { factor == 0.5 } else { factor == 1.0 || factor == 2.0 }, "step {i}: {scales:?}");
    }
    // The rate is that of the steps that moved something.
    let first = skipped.iter().position(|skipped| !skipped).unwrap();
    assert!((1..9).contains(&first) && all[first]["rate"] == all[0]["rate"], "{all:?}");
    assert!(scales.windows(2).any(|pair| pair[1] > pair[0]), "it never grows: {scales:?}");
    // Before and behind a skipped step.
    for until in ["1", "4", "9"] {
        done(&run(stopped.path(), &["--until", until]));
    }
    done(&run(stopped.path(), &["--threads", "2"]));
    assert!(model(whole.path()) == model(stopped.path()), "the models differ");
    let without_times = |folder: &Path| {
        let line = |mut m: serde_json::Value| {
            let all = m.as_object_mut().unwrap();
            all.retain(|key, _| key != "tokens_per_s" && key != "mfu");
            m
        };
        metrics(folder).into_iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(without_times(whole.path()), without_times(stopped.path()));
    generates(whole.path(), "in the");
}

#[test]
fn a_run_in_bf16_learns_as_one_in_f32_does() {
    let config = CONFIG.replace("average = 0.5\n", "").replace("dropout = 0.1\n", "");
    let (full, half) = (folder(&config), folder(&config.replace("parts = 2", "parts = 2\nprecision = \"bf16\"")));
    done(&run(full.path(), &[]));
    done(&run(half.path(), &[]));
    let (a, b) = (losses(full.path()), losses(half.path()));
    assert!(a.iter().zip(&b).all(|(a, b)| (a.1 - b.1).abs() < 0.01), "{a:?} {b:?}");
    assert!(a != b && metrics(half.path()).iter().all(|m| m.get("loss_scale").is_none()));
}

#[derive(Debug, PartialEq)]
struct Seen {
    step: u64,
    validation: Option<f64>,
    mfu: f64,
}

fn seen(folder: &Path) -> Vec<Seen> {
    let text = std::fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let line = |l: &str| {
        let value: serde_json::Value = serde_json::from_str(l).unwrap();
        let (step, mfu) = (value["step"].as_u64().unwrap(), value["mfu"].as_f64().unwrap());
        Seen { step, validation: value["validation"].as_f64(), mfu }
    };
    text.lines().map(line).collect()
}

/// A run with a validation loss, on a part of the data or on a file, learns as one without on the same text; the loss is that of the
/// weights after the step, and the same where the run goes on.
#[test]
fn a_validation_loss_changes_nothing_and_goes_on() {
    // A text that is not learned, of the same characters.
    let other = TEXT.repeat(2).chars().rev().collect::<String>();
    let text = TEXT.repeat(8);
    let plain = folder(CONFIG);
    done(&run(plain.path(), &[]));
    let config = CONFIG.replace("metrics = 1", "metrics = 5\nvalidation = 4");
    let tested = folder(&config.replace("[\"text.txt\"]", "[\"text.txt\"]\nvalidation = [\"other.txt\"]"));
    std::fs::write(tested.path().join("other.txt"), &other).unwrap();
    let printed = done(&run(tested.path(), &["--until", "7"]));
    assert!(printed.contains("validation ") && printed.contains("MFU "), "{printed}");
    done(&run(tested.path(), &[]));
    assert!(model(plain.path()) == model(tested.path()), "the models differ");
    let all = seen(tested.path());
    // Lines of metrics at 1, 5, 10 and the ends; losses at each fourth and at the ends.
    let steps = |with: bool| all.iter().filter(|s| s.validation.is_some() == with).map(|s| s.step).collect::<Vec<_>>();
    assert_eq!((steps(true), steps(false)), (vec![4, 7, 8, 12], vec![1, 5, 10]));
    assert!(all.iter().all(|s| s.mfu > 0.0 && s.mfu < 1.0), "{all:?}");
    let whole = folder(&config.replace("[\"text.txt\"]", "[\"text.txt\"]\nvalidation = [\"other.txt\"]"));
    std::fs::write(whole.path().join("other.txt"), &other).unwrap();
    done(&run(whole.path(), &["--threads", "1"]));
    let of = |all: &[Seen], step: u64| all.iter().find(|s| s.step == step).and_then(|s| s.validation).unwrap();
    let whole = seen(whole.path());
    assert_eq!((of(&whole, 8), of(&whole, 12)), (of(&all, 8), of(&all, 12)));
    // The text backwards is not learned, and the same text is.
    let same = folder(&config.replace("[\"text.txt\"]", "[\"text.txt\"]\nvalidation = [\"other.txt\"]"));
    std::fs::write(same.path().join("other.txt"), &text).unwrap();
    done(&run(same.path(), &[]));
    let same = seen(same.path());
    assert!(of(&same, 12) < of(&same, 4) && of(&same, 12) < of(&all, 12) - 0.1, "{same:?} {all:?}");
    assert!(std::fs::read_to_string(tested.path().join("out/loss.svg")).unwrap().contains("<circle"));
}

/// The end of the data is not learned: the run is that on the text without it.
#[test]
fn a_part_of_the_data_is_kept_apart() {
    let text = TEXT.repeat(8);
    let (whole, cut) = (folder(&CONFIG.replace("[\"text.txt\"]", "[\"text.txt\"]\nvalidation = 0.25")), folder(CONFIG));
    std::fs::write(cut.path().join("text.txt"), &text[..text.len() / 4 * 3]).unwrap();
    done(&run(whole.path(), &[]));
    done(&run(cut.path(), &[]));
    assert!(model(whole.path()) == model(cut.path()), "the models differ");
    assert!(seen(whole.path()).last().unwrap().validation.is_some());
}

#[test]
fn validation_that_cannot_be_is_said() {
    for (value, words) in [
        ("0.9", &["train-config", "data.validation", "at most 0.5"][..]),
        ("0", &["train-config", "above 0", "found 0"]),
        ("[]", &["train-config", "at least one file"]),
        ("\"other.txt\"", &["train-config", "expected a part of the data such as 0.05, or a list of files"]),
        ("[\"none.txt\"]", &["file", "none.txt"]),
        ("[\"short.txt\"]", &["train-data", "data.validation", "17 tokens"]),
    ] {
        let folder = folder(&CONFIG.replace("[\"text.txt\"]", &format!("[\"text.txt\"]\nvalidation = {value}")));
        std::fs::write(folder.path().join("short.txt"), "in the").unwrap();
        fails(&run(folder.path(), &[]), words);
    }
}

/// The state at the last checkpoint.
fn state(folder: &Path) -> Vec<(tilewright::array::Array, String)> {
    let file = tilewright::formats::Safetensors::open(checkpoints(folder).last().unwrap()).unwrap();
    let names: Vec<String> = file.names().map(str::to_string).collect();
    names.into_iter().map(|n| (file.tensor(&n).unwrap(), n)).collect()
}

/// A configuration of four blocks with a line more below `[train]`.
fn budgeted(config: &str, line: &str) -> String {
    config.replace("layers = 2", "layers = 4").replace("[train]\n", &format!("[train]\n{line}\n"))
}

#[test]
fn steps_within_a_budget_have_the_same_bits() {
    for (budget, train) in [
        ("75 %", "parts = 2"),
        ("sqrt", "parts = 1"),
        ("sqrt", "parts = 2\nprecision = \"bf16\""),
        ("min", "parts = 1\nprecision = \"f16\""),
    ] {
        let config = CONFIG.replace("parts = 2", train);
        let plain = folder(&budgeted(&config, "checkpoint = \"none\""));
        let again = folder(&budgeted(&config, &format!("checkpoint = \"{budget}\"")));
        done(&run(plain.path(), &["--until", "3"]));
        let output = run(again.path(), &["--until", "3"]);
        done(&output);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("more operations") && said.contains("GFLOP of products"), "{said}");
        assert!(state(plain.path()) == state(again.path()), "{budget} {train}");
        let all = metrics(again.path());
        let first = &all[0]["checkpointing"];
        let [arena, without] = ["arena", "arena_without"].map(|key| first[key].as_u64().unwrap());
        assert!(arena < without && (budget != "75 %" || 4 * arena <= 3 * without), "{first}");
        assert!(first["operations"].as_f64().unwrap() > 1.0, "{first}");
        assert!(all[1..].iter().all(|m| m.get("checkpointing").is_none()), "{all:?}");
    }
}

#[test]
fn a_run_within_a_budget_goes_on_to_the_same_bits() {
    let config = budgeted(CONFIG, "checkpoint = \"sqrt\"");
    let (whole, stopped) = (folder(&config), folder(&config));
    done(&run(whole.path(), &["--threads", "1"]));
    done(&run(stopped.path(), &["--until", "5"]));
    done(&run(stopped.path(), &["--threads", "2"]));
    assert!(model(whole.path()) == model(stopped.path()), "the models differ");
    assert_eq!(losses(whole.path()), losses(stopped.path()));
}

#[test]
fn adapters_learn_within_a_budget() {
    let base = budgeted(&CONFIG.replace("average = 0.5\n", ""), "");
    let first = folder(&base);
    done(&run(first.path(), &["--until", "12"]));
    let from = format!("[model]\nfrom = {:?}\ncontext = 16\n", first.path().join("out"));
    let rest = base.split_once("[data]").unwrap().1;
    let lora = |line: &str| {
        let config = format!("out = \"out\"\nseed = 6\n{from}[lora]\nrank = 3\n[data]{rest}");
        folder(&config.replace("[train]\n", &format!("[train]\n{line}\n")))
    };
    let (plain, again) = (lora(""), lora("checkpoint = \"sqrt\""));
    done(&run(plain.path(), &[]));
    done(&run(again.path(), &[]));
    assert!(model(plain.path()) == model(again.path()), "the models differ");
}

#[test]
fn budgets_that_cannot_be_are_told() {
    for (line, parts) in [
        ("checkpoint = \"sqr\"", ["`sqr` is no budget", "the nearest is `sqrt`", "run.toml:13"]),
        ("checkpoint = \"500 Mb\"", ["`500 Mb` is no budget", "500M or 1.5 GB (k, M, G;", "run.toml:13"]),
        ("checkpoint = \"0 %\"", ["`0 %` is no budget", "", ""]),
        ("checkpoint = [1]", ["expected true, false, or a budget", "", "run.toml:13"]),
        ("chekpoint = \"sqrt\"", ["chekpoint", "the nearest known one is `checkpoint`", "run.toml:13"]),
        ("checkpoint = 1000", ["checkpoint-budget", "the least takes", "asked for by train.checkpoint"]),
    ] {
        fails(&run(folder(&budgeted(CONFIG, line)).path(), &[]), &parts);
    }
    // The budget is part of what a run is.
    let folder = folder(&budgeted(CONFIG, "checkpoint = \"sqrt\""));
    done(&run(folder.path(), &["--until", "1"]));
    std::fs::write(folder.path().join("run.toml"), budgeted(CONFIG, "checkpoint = \"min\"")).unwrap();
    fails(&run(folder.path(), &[]), &["checkpoint"]);
}
