//! `.tw` and `.rules` texts.

use crate::harness::Place;

/// Text, and what the error must show.
const BAD: &[(&str, &[&str])] = &[
    ("", &["empty-module"]),
    ("func", &["bad.tw:1:"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = neg %x\n ret", &["bad.tw:2:2"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = neg %x }", &["bad.tw:1:", "return"]),
    ("func @main(%x: f99[8]) -> f32[8] { return %x }", &["unknown-dtype", "bad.tw:1:16"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = neg %1\n %1 = neg %x\n return %1 }", &["unknown-value", "%1"]),
    ("func @main(%x: f32[8], %y: f32[9]) -> f32[8] { %0 = add %x, %y\n return %0 }", &["shape-mismatch", "bad.tw:1:"]),
    ("func @main(%x: f32[8], %y: i64[8]) -> f32[8] { %0 = add %x, %y\n return %0 }", &["dtype-mismatch", "bad.tw:1:"]),
    ("func @\"main", &["no closing quote"]),
    // What begins no token is said before all that it makes look wrong.
    ("func @main(%x: f32[8]) -> f32[8] { %0 = exp $x\n return %0 }", &["no token", "bad.tw:1:45"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = reshape %x; shape=[8]\n return %0 }", &["no token", "bad.tw:1:51"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = exp %größe\n return %0 }", &["no token", "bad.tw:1:48"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = call %x function=@größe\n return %0 }", &["no token", "bad.tw:1:61"]),
    // A function that calls itself, two that call each other.
    ("func @f(%x: f32[8]) -> f32[8] { %0 = call %x function=@f\n return %0 }", &["unknown-function", "@f"]),
    (
        "func @f(%x: f32[8]) -> f32[8] { %0 = call %x function=@g\n return %0 }
         func @g(%x: f32[8]) -> f32[8] { %0 = call %x function=@f\n return %0 }",
        &["unknown-function", "@g", "bad.tw:1:"],
    ),
    // Dims that overflow.
    ("func @main(%x: f32[99999999999999999999999]) -> f32[1] { return %x }", &["dim-overflow", "bad.tw:1:20"]),
    (
        "func @main(%x: f32[9223372036854775807, 9223372036854775807]) -> f32[1] { %0 = reshape %x shape=[1]\n return %0 }",
        &["dim-overflow", "bad.tw:1:"],
    ),
    (
        "func @main(%x: f32[8]) -> f32[8] { %c = constant f32[] = 0.0
          %0 = pad %x, %c amounts=[(9223372036854775807, 9223372036854775807)]\n return %0 }",
        &["dim-overflow", "bad.tw:2:"],
    ),
    (
        "func @main(%x: f32[n]) -> f32[n] where n in 5..=1 { %0 = neg %x\n return %0 }",
        &["bad-symbol"],
    ),
    // Huge attribute numbers.
    ("func @main(%x: f32[8]) -> f32[8] { %0 = flip %x axes=[18446744073709551615]\n return %0 }", &["bad-attribute"]),
    ("func @main(%x: f32[8]) -> f32[8] { %0 = flip %x axes=[999999999999999999999999999]\n return %0 }", &["bad-attribute"]),
    (
        "func @main(%x: f32[8]) -> f32[8] { %0 = slice %x start=[-9223372036854775808] limit=[8] stride=[1]\n return %0 }",
        &["bad.tw:1:"],
    ),
    (
        "func @f(%x: f32[8]) -> f32[8] { %0 = neg %x\n return %0 }
         func @main(%x: f32[8]) -> f32[8] { %0 = scan %x body=@f carries=18446744073709551615 length=3\n return %0 }",
        &["bad-attribute", "bad.tw:3:"],
    ),
    ("func @main() -> f32[1099511627776] { %0 = constant f32[1099511627776] = [1.0]\n return %0 }", &["array-size"]),
    // Sizes that no machine has.
    ("func @main(%x: f32[1099511627776]) -> f32[1099511627776] { %0 = neg %x\n return %0 }", &["f32[1099511627776] takes more than"]),
    ("func @main() -> i64[1099511627776] { %0 = iota axis=0 shape=[1099511627776] dtype=i64\n return %0 }", &["memory"]),
    (
        "func @main(%x: f32[1]) -> f32[1] { %0 = broadcast %x shape=[4611686018427387904] dims=[0]
          %1 = cumsum %0 axis=0\n %2 = slice %1 start=[0] limit=[1] stride=[1]\n return %2 }",
        &["dim-overflow", "bad.tw:1:"],
    ),
    ("func @main(%x: f32[0]) -> f32[1099511627776, 1099511627776, 0] { %0 = broadcast %x shape=[1099511627776, 1099511627776, 0] dims=[2]
          %1 = neg %0\n return %1 }", &["dim-overflow", "bad.tw:1:"]),
    (
        "func @main(%x: f32[1]) -> f32[1] { %0 = broadcast %x shape=[1099511627776] dims=[0]
          %1 = cumsum %0 axis=0\n %2 = slice %1 start=[0] limit=[1] stride=[1]\n return %2 }",
        &["memory"],
    ),
];

#[test]
fn wrong_texts_are_errors_with_a_place() {
    let place = Place::new();
    for (text, shown) in BAD {
        place.write("bad.tw", text);
        for device in ["cpu", "interpreter"] {
            // The interpreter words what it has no memory for in its own way.
            let own = |s| if device == "interpreter" && s == "memory" { "too-large" } else { s };
            let shown: Vec<&str> = shown.iter().copied().map(own).collect();
            place.refused(&["run", "bad.tw", "--device", device, "--output", "out.safetensors"], &shown);
        }
    }
    // What is wrong with a text alone, not with the memory that its run would take.
    for (text, shown) in BAD.iter().filter(|(_, shown)| !shown.contains(&"memory")) {
        place.write("bad.tw", text);
        // No function is nothing to show.
        if !text.is_empty() && !text.contains("1099511627776]) ->") {
            place.run(&["compile", "bad.tw", "--output", "out.txt"]).is_refused(&["compile", text], shown);
            assert!(!place.path("out.txt").exists());
        }
    }
}

#[test]
fn bytes_that_are_no_text() {
    let place = Place::new();
    let texts: &[&[u8]] = &[b"func @main(%x: f32[8]) -> f32[8] { \xff\xfe }", b"\xef\xbb\xbf\xc0\x80", &[0xff; 4096]];
    for bytes in texts {
        place.write("bad.tw", bytes);
        place.refused(&["run", "bad.tw"], &["bad.tw", "UTF-8"]);
        place.write("bad.rules", bytes);
        place.refused(&["rules", "check", "bad.rules"], &["bad.rules", "UTF-8"]);
    }
    place.write("nul.tw", [0u8; 1000]);
    place.refused(&["run", "nul.tw"], &["nul.tw:1:1"]);
    place.write("lines.tw", b"// one\n// \xc3\xa9\xff\n");
    place.refused(&["run", "lines.tw"], &["lines.tw is not UTF-8: line 2, column 5 has the byte 0xff"]);
    place.write("wide.tw", b"\xff\xfef\0u\0n\0c\0");
    place.refused(&["run", "wide.tw"], &["it begins as UTF-16 does"]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_text() {
    let place = Place::new();
    place.write("mark.tw", "\u{feff}func @main(%x: f32[2]) -> f32[2] { %0 = neg %x\n return %0 }");
    place.runs(&["run", "mark.tw", "--check"]);
    place.write("bad.tw", "\u{feff}fun");
    place.refused(&["run", "bad.tw"], &["bad.tw:1:1", "1 | fun\n"]);
    place.write("mark.rules", "\u{feff}group marks\ntwice: exact\n  (neg (neg ?x)) => ?x\n");
    place.runs(&["rules", "check", "mark.rules"]);
}

#[test]
fn terminals_get_no_commands_from_texts() {
    let place = Place::new();
    for text in
        ["func \u{1b}[2J", "func @\"\u{1b}[31m\"(%x: f32[1]) -> f32[2] { return %x }", "\0", "// ok\n\u{9b}5m \u{202e}"]
    {
        place.write("bad\u{1b}[1m.tw", text);
        let ended = place.run(&["run", "bad\u{1b}[1m.tw"]);
        ended.is_refused(&["run", text], &["bad\\u{1b}[1m.tw:"]);
        let raw = ended.stderr.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{text:?}: {:?}", ended.stderr);
    }
}

#[test]
fn every_prefix_of_a_text_ends() {
    let text = "func @f(%x: f32[n, 4]) -> f32[n, 4] where n in 1..=8 by 2 { %0 = tanh %x : f32[n, 4]\n return %0 }
func @main(%x: f32[b, 4], weight %w: f32[4, 3]) -> f32[b, 3] where b in 2..=8 by 2 {
  %0 = call %x function=@f\n  %1 = dot %0, %w contract=[1]x[0] : f32[b, 3]
  %2 = constant f32[3] = [1.0, -inf, nan]\n  %3 = broadcast %2 shape=[b, 3] dims=[1]\n  %4 = add %1, %3\n  return %4\n}\n";
    let place = Place::new();
    for end in (0..text.len()).step_by(7) {
        place.write("cut.tw", &text[..end]);
        let ended = place.run(&["compile", "cut.tw", "--emit", "graph"]);
        // A cut behind the first function leaves a module.
        if ended.code != Some(0) {
            ended.is_refused(&["cut.tw", &text[..end]], &[]);
        }
    }
    place.write("whole.tw", text);
    place.runs(&["run", "whole.tw", "--check"]);
}

#[test]
fn deep_nesting_is_an_error() {
    let place = Place::new();
    let n = 100_000;
    let deep = |open: &str, close: &str| format!("{}n{}", open.repeat(n), close.repeat(n));
    for dim in [deep("(", ")"), deep("floordiv(", ", 2)"), deep("mod(", ", 2)"), deep("-", ""), deep("(-", ")")] {
        place.write("deep.tw", format!("func @main(%x: f32[{dim}]) -> f32[n] where n in 1..=4 {{ return %x }}"));
        place.refused(&["run", "deep.tw"], &["deep.tw:1:"]);
    }
    let sizes = "(a + b + c + d)*".repeat(60);
    let symbols = "where a in 1..=2, b in 1..=2, c in 1..=2, d in 1..=2";
    place.write("wide.tw", format!("func @main(%x: f32[{sizes}1]) -> f32[8] {symbols} {{ return %x }}"));
    place.refused(&["run", "wide.tw"], &["dim-overflow", "wide.tw:1:"]);
    let axes = ["1"; 100_000].join(", ");
    place.write("rank.tw", format!("func @main(%x: f32[{axes}]) -> f32[{axes}] {{ return %x }}"));
    place.refused(&["run", "rank.tw"], &["at most 64 axes"]);
    place.write("brackets.tw", "[".repeat(n));
    place.refused(&["run", "brackets.tw"], &["brackets.tw:1:1"]);
    for pattern in ["(neg ".repeat(n) + "?a" + &")".repeat(n), "(".repeat(n), "(add ?a ".repeat(n), ")".repeat(n)] {
        place.write("deep.rules", format!("group g\n\nname: exact\n  {pattern} => ?a\n"));
        place.refused(&["rules", "check", "deep.rules"], &["deep.rules:"]);
    }
}

#[test]
fn garbage_rules_are_errors() {
    let place = Place::new();
    for text in [
        "rule ((((\n",
        "group g\n\na: exact\n",
        "group g\n\na: exact\n  (neg ?a)\n",
        "group g\n\na: exact\n  (nothing ?a) => ?a\n",
        "group g\n\na: exact\n  ?a => ?b\n",
        "group g\n\na: sometimes\n  (neg (neg ?a)) => ?a\n",
        "group g\n\na: exact\n  (add ?a 99999999999999999999999999999999999e999999999) => ?a\n",
    ] {
        place.write("bad.rules", text);
        let ended = place.run(&["rules", "check", "bad.rules"]);
        ended.is_refused(&["rules", "check", text], &[]);
    }
    // A wrong rule is found, not believed.
    place.write("wrong.rules", "group g\n\nwrong: exact\n  (add ?a ?b) => ?a\n");
    let ended = place.run(&["rules", "check", "wrong.rules"]);
    ended.is_refused(&["wrong.rules"], &["rule-check"]);
}
