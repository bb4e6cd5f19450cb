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
fn steps_that_devices_have_not_are_a_warning_beside_cuda_text() {
    let place = Place::new();
    let text = "func @b(%c: f32[4]) -> f32[4] { %0 = sin %c\n return %0 }
func @main(%x: f32[4]) -> f32[4] { %0 = scan %x body=@b carries=1 length=9\n %1 = scan %0 body=@b carries=1 length=8\n return %1 }";
    place.write("g.tw", text);
    let ended = place.run(&["compile", "g.tw", "--emit", "cuda"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for shown in ["warning[device-unsupported]", "no `scan`", "g.tw:3:41", "and in 1 more"] {
        assert!(ended.stderr.contains(shown), "{shown}: {}", ended.stderr);
    }
    assert!(ended.stdout.contains("__global__") && ended.stdout.contains("// ") && ended.stdout.contains("scan(9)"));
    assert_eq!(place.run(&["compile", "g.tw", "--emit", "kernel"]).stderr, "");
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

/// f16 products that overflow on the way, and a bf16 sum that a rounding on the way changes.
const ROUNDED: &str = "func @main(%x: f16[2, 3], %y: bf16[2, 3]) -> (f16[2, 3], bf16[2, 3], bool[2, 3]) {
  %0 = constant f16[] = 3000.0\n %1 = broadcast %0 shape=[2, 3] dims=[]
  %2 = exp %x\n %3 = mul %2, %1\n %4 = mul %3, %3\n %5 = div %4, %3
  %6 = constant bf16[] = 1000.0\n %7 = broadcast %6 shape=[2, 3] dims=[]
  %8 = add %y, %7\n %9 = sub %8, %7\n %10 = gt %9, %y
  return %5, %9, %10
}";

#[test]
fn halves_that_round_or_overflow_on_the_way_are_right_unless_one_mode_is_named() {
    let place = Place::new();
    place.write("g.tw", ROUNDED);
    for numerics in ["exact", "rounding", "reassociate", "approx"] {
        for level in ["0", "1", "2"] {
            place.runs(&["run", "g.tw", "--check", "--numerics", numerics, "--opt-level", level]);
        }
    }
    place.runs(&["run", "g.tw", "--check", "--numerics", "exact", "--interpreter", "strict"]);
    let ended = place.run(&["run", "g.tw", "--check", "--numerics", "exact", "--interpreter", "f64"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let said = ["error[check]", "result 0 (f16[2, 3])", " at [0, 0]: found inf, expected ", "(f64)", "relative"];
    assert!(said.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);
    // The interpreter alone rounds every op unless it is told not to.
    let strict = place.runs(&["run", "g.tw", "--device", "interpreter"]);
    assert!(strict.contains("result 0: f16[2,3] [inf,"), "{strict}");
    let wide = place.runs(&["run", "g.tw", "--device", "interpreter", "--interpreter", "f64"]);
    assert!(!wide.contains("inf"), "{wide}");
}

#[test]
fn numbers_have_the_digits_of_their_dtype() {
    let place = Place::new();
    let text = "func @main() -> (f32[3], bf16[2], bool[2], u64[1], f64[1]) {
      %0 = constant f32[3] = [123456789.0, 0.1, nan]\n %1 = constant bf16[2] = [0.1, 3.39e38]
      %2 = constant bool[2] = [true, false]\n %3 = constant u64[1] = [18446744073709551615]\n %4 = constant f64[1] = [0.1]
      return %0, %1, %2, %3, %4 }";
    place.write("g.tw", text);
    let out = place.runs(&["run", "g.tw"]);
    for line in ["[123456790.0, 0.1, nan]", "[0.1, 3.39e38]", "[true, false]", "[18446744073709551615]", "f64[1] [0.1]"]
    {
        assert!(out.contains(line), "{out}");
    }
    // The text itself: this parser of JSON changes last digits.
    let json = place.runs(&["run", "g.tw", "--json"]);
    for first in ["[123456790.0,0.1,\"nan\"]", "[0.1,3.39e+38]", "[true,false]", "[18446744073709551615]", "[0.1]"] {
        assert!(json.contains(&format!("\"first\":{first}")), "{first}: {json}");
    }
}

#[test]
fn rules_say_what_they_assume_and_from_which_level_they_fire() {
    let place = Place::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in place.runs(&["rules", "list", "--json"]).lines() {
        let rule: serde_json::Value = serde_json::from_str(line).unwrap();
        let (class, numerics) = (rule["class"].as_str().unwrap(), rule["numerics"].as_str().unwrap());
        let want = match class {
            "reassociates" | "domain" => "reassociate",
            other => other,
        };
        assert_eq!(numerics, want, "{line}");
        assert_eq!(rule["assumes"].as_array().unwrap().is_empty(), class != "domain", "{line}");
        seen.insert(class.to_string());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["approx", "domain", "exact", "reassociates", "rounding"]);
    let list = place.runs(&["rules", "list"]);
    let row = list.lines().find(|l| l.starts_with("max-shift ")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[1..3], ["domain(finite(?b))", "reassociate"]);
}

#[test]
fn random_indices_are_inside() {
    let place = Place::new();
    let text = "func @main(%x: f32[n, 2], %i: i64[50], %y: f32[3, 4], %j: u8[3, 4]) -> (f32[50, 2], f32[3, 4])
        where n in 1..=9 { %0 = take %x, %i axis=0\n %1 = take_along %y, %j axis=0\n return %0, %1 }";
    place.write("g.tw", text);
    for n in ["n=1", "n=2", "n=9"] {
        for seed in ["0", "1"] {
            place.runs(&["run", "g.tw", "--set", n, "--seed", seed, "--check"]);
        }
    }
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
    let want = ["[\"nan\",\"nan\"]", "[\"-inf\",\"-inf\"]", "[0.1]", "[-9007199254740993]", "[true]", "[200]"];
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
