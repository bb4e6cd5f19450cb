//! What commands answer to odd but legal wishes: closed pipes, functions, differences, JSON.

use crate::harness::Place;
use std::io::Read;
use std::process::{Command, Stdio};

const HALVES: &str = "func @main(%x: bf16[64, 64], %y: f16[64, 64]) -> (bf16[64, 64], f16[64, 64], f32[64]) {
  %0 = exp %x
  %1 = mul %0, %0
  %2 = dot %1, %1 contract=[1]x[0]
  %3 = exp %y
  %4 = mul %3, %3
  %5 = div %4, %3
  %6 = cast %2 to=f32
  %7 = sum %6 axes=[1]
  return %2, %5, %7
}";

/// Ends of the pipe to which a command still wrote after its reader had gone.
#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let place = Place::new();
    place.write("g.tw", HALVES);
    for args in [
        &[][..],
        &["rules", "list"],
        &["rules", "check"],
        &["ops"],
        &["compile", "g.tw"],
        &["compile", "g.tw", "--emit", "clif"],
        &["run", "g.tw", "--check"],
        &["--help"],
        &["nosuch"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tilewright"))
            .args(args)
            .current_dir(place.path("."))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before the first word.
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let code = child.wait().unwrap().code();
        let wrong_usage = args == ["nosuch"];
        assert_eq!(code, Some(if wrong_usage { 2 } else { 0 }), "{args:?}: {said}");
        assert!(wrong_usage || said.is_empty(), "{args:?}: {said}");
    }
    // Nobody hears what is wrong, either; the exit code tells.
    let mut child = Command::new(env!("CARGO_BIN_EXE_tilewright"))
        .args(["run", "none.tw"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn stages_name_the_targets_that_they_have() {
    let place = Place::new();
    place.write("g.tw", HALVES);
    for (stage, target) in [("cuda", "cpu"), ("clif", "sm_80"), ("asm", "sm_80"), ("asm", "sm_90a"), ("plan", "sm_89")]
    {
        let (stage_shown, target_shown) = (format!("`{stage}`"), format!("`{target}`"));
        let shown = ["error[stage-target]", stage_shown.as_str(), target_shown.as_str()];
        place.refused(&["compile", "g.tw", "--emit", stage, "--target", target], &shown);
    }
    let cuda = place.runs(&["compile", "g.tw", "--emit", "cuda"]);
    assert_eq!(cuda, place.runs(&["compile", "g.tw", "--emit", "cuda", "--target", "sm_80"]));
}

#[test]
fn a_function_of_the_file_is_run_and_compiled() {
    let place = Place::new();
    let text = "func @twice(%x: f32[2]) -> f32[2] { %0 = add %x, %x\n return %0 }
        func @main(%x: f32[2]) -> f32[2] { %0 = call %x function=@twice\n return %0 }
        func @four(%x: f32[3], %y: f32[2]) -> (f32[3], f32[2]) {
          %0 = neg %x\n %1 = call %y function=@twice\n return %0, %1 }
        func @last(%x: f32[2]) -> f32[2] { %0 = call %x function=@main\n return %0 }";
    place.write("g.tw", text);
    assert!(place.runs(&["run", "g.tw", "--check"]).contains("result 0: f32[2]"));
    for device in ["cpu", "interpreter"] {
        let out = place.runs(&["run", "g.tw", "--function", "four", "--check", "--device", device]);
        assert!(out.contains("result 0: f32[3]") && out.contains("result 1: f32[2]"), "{out}");
    }
    let out = place.runs(&["compile", "g.tw", "--function", "twice"]);
    assert!(out.contains("program twice") && !out.contains("program main"), "{out}");
    place.refused(&["run", "g.tw", "--function", "none"], &["error[no-function]", "`none`", "`twice`"]);
    place.refused(&["run", "g.tw", "--function", "last"], &["error[function-entry]"]);
}

#[test]
fn halves_may_differ_by_roundings_of_halves() {
    let place = Place::new();
    place.write("g.tw", HALVES);
    let out = place.runs(&["run", "g.tw", "--check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["passed"], true, "{out}");
    let tolerances: Vec<f64> =
        report["results"].as_array().unwrap().iter().map(|r| r["tolerance"].as_f64().unwrap()).collect();
    assert_eq!(tolerances, [0.0625, 0.0078125, 0.0625], "{out}");
}

#[test]
fn json_has_numbers() {
    let place = Place::new();
    let text = "func @main(%x: f32[2]) -> (f32[2], f32[2], f32[1], i64[1], bool[1], u8[1]) {
          %0 = mul %x, %x\n %1 = neg %0\n %2 = log %1\n %3 = constant f32[1] = [0.1]\n %4 = constant i64[1] = [-9007199254740993]
          %5 = constant bool[1] = [true]\n %6 = constant u8[1] = [200]\n %7 = sub %0, %0\n %8 = log %7
          return %2, %8, %3, %4, %5, %6 }";
    place.write("g.tw", text);
    let out = place.runs(&["run", "g.tw", "--check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let first = |i: usize| report["results"][i]["first"].to_string();
    let found: Vec<String> = (0..6).map(first).collect();
    let want = ["[\"nan\",\"nan\"]", "[\"-inf\",\"-inf\"]", "[0.1]", "[-9007199254740993]", "[1]", "[200]"];
    assert_eq!(found, want, "{out}");
    assert_eq!(report["error"].as_f64(), Some(0.0), "{out}");
}

#[test]
fn wishes_that_contradict_themselves_are_errors() {
    let place = Place::new();
    place.write("g.tw", "func @main(%x: f32[n]) -> f32[n] where n in 1..=8 { %0 = neg %x\n return %0 }");
    place.refused(&["run", "g.tw", "--set", "n=2", "--set", "n=3"], &["error[symbol]", "`n` is set twice"]);
    place.refused(&["run", "g.tw", "--threads", "100000"], &["1..=1024"]);
    place.write("none.rules", "");
    place.refused(&["rules", "check", "none.rules"], &["error[no-rules]", "none.rules has no rules"]);
    place.write("none.rules", "// nothing\n");
    place.refused(&["rules", "check", "none.rules"], &["error["]);
}

#[test]
fn outputs_go_where_links_lead() {
    let place = Place::new();
    place.write("g.tw", HALVES);
    place.write("file", "old");
    for (link, to) in [("to_file", place.path("file")), ("to_device", "/dev/null".into())] {
        std::os::unix::fs::symlink(&to, place.path(link)).unwrap();
        place.runs(&["compile", "g.tw", "--output", link]);
        assert_eq!(std::fs::read_link(place.path(link)).unwrap(), to);
    }
    assert!(std::fs::read_to_string(place.path("file")).unwrap().contains("program main"));
}

#[test]
fn many_threads_a_core_are_a_warning() {
    let place = Place::new();
    place.write("g.tw", HALVES);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let warned = |threads: usize| {
        let ended = place.run(&["run", "g.tw", "--threads", &threads.to_string()]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr.contains("warning[threads]")
    };
    assert!(!warned(cores.min(1024)));
    assert_eq!(warned(1024), 1024 > 4 * cores);
}
