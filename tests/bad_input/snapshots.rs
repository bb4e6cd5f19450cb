//! `diff` on what is no snapshot.

use crate::harness::Place;

const GOOD: &str = "// tilewright snapshot 1\n//   stage: graph\n// function main\n//   ops: 1\n\nfunc\n";

/// Refused with exit code 2, whichever side is bad.
#[track_caller]
fn refused(place: &Place, path: &str, shown: &[&str]) {
    for args in [["diff", "good.snap", path], ["diff", path, "good.snap"]] {
        place.refused(&args, shown);
        assert_eq!(place.run(&args).code, Some(2), "{args:?}");
    }
}

#[test]
fn files_that_are_no_snapshots() {
    let place = Place::new();
    place.write("good.snap", GOOD);
    std::fs::create_dir(place.path("folder")).unwrap();
    refused(&place, "none.snap", &["error[file]", "none.snap"]);
    refused(&place, "/dev/zero", &["error[file]"]);
    refused(&place, "folder", &["error[snapshot-pair]"]);
    place.refused(&["diff", "folder", "folder"], &["error[snapshot-none]"]);
    place.refused(&["diff", "good.snap"], &[]);
    for (text, shown) in [
        ("", "x.snap:1"),
        ("---", "x.snap:1"),
        ("---\nsource: a.rs\n---\nnot ours\n", "x.snap:4"),
        ("// tilewright snapshot 2\n", "version"),
        ("// tilewright snapshot 99999999999999999999\n", "version"),
        ("// tilewright snapshot 1\n// poem\n", "x.snap:2"),
        ("// tilewright snapshot 1\n//   fact\n", "x.snap:2"),
        ("// tilewright snapshot 1\nfunc\n", "x.snap:2"),
    ] {
        place.write("x.snap", text);
        refused(&place, "x.snap", &["error[snapshot-format]", shown]);
    }
    place.write("x.snap", [0x2d, 0x2d, 0xff, 0xfe, 0]);
    refused(&place, "x.snap", &["error[text]"]);
    place.write("x.snap", GOOD.replace("graph", "kernel"));
    refused(&place, "x.snap", &["error[snapshot-pair]", "`kernel`"]);
    std::fs::File::create(place.path("x.snap")).unwrap().set_len(1 << 40).unwrap();
    refused(&place, "x.snap", &["error[snapshot-size]"]);
}

/// Texts without a line in common, kernels by the thousand, keys and names that repeat.
#[test]
fn large_and_odd_snapshots_are_compared() {
    let place = Place::new();
    let lines = |word: &str| (0..100_000).map(|i| format!("{word} {i}\n")).collect::<String>();
    let kernels = |word: &str| {
        let each = |i: i32| format!("// kernel {word}{i}\n//   flops: {i}\n//   flops: {i}\n// kernel same\n");
        (0..3000).map(each).collect::<String>()
    };
    let write = |name: &str, word: &str| {
        let head = "// tilewright snapshot 1\n//   stage: kernel\n";
        place.write(name, format!("{head}{}\n{}", kernels(word), lines(word)));
    };
    write("a.snap", "a");
    write("b.snap", "b");
    let ended = place.run(&["diff", "a.snap", "b.snap"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("+b 99999\n"));
    assert_eq!(place.run(&["diff", "a.snap", "a.snap"]).code, Some(0));
}
