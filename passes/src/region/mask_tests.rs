//! What is read off masks, and what is not because a dtype might wrap.

use super::{Affine, Builder, Limits, Source, limits};
use tilewright_ir::graph::Value;
use tilewright_ir::op::GraphOp;
use tilewright_ir::text::parse;
use tilewright_ir::types::Dim;

/// Where along `j` the mask `%m` of positions `%i` and `%j`, both below `n`, can hold.
fn read(dtype: &str, most: i64, lines: &[&str]) -> Limits {
    let body = lines.join("\n");
    let text = format!(
        "func @main(%x: f32[n, n]) -> bool[n, n] where n in 1..={most} {{\n\
         %i = iota axis=0 shape=[n, n] dtype={dtype}\n%j = iota axis=1 shape=[n, n] dtype={dtype}\n{body}\nreturn %m\n}}"
    );
    let module = parse("test", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    let f = module.entry().unwrap();
    let source = |v: Value| match &f.node(v).op {
        GraphOp::Parameter { .. } => Source::Buffer("x".into()),
        _computed => Source::Inline,
    };
    let region = Builder::region(f, &source, f.results[0]).unwrap();
    limits(&region, region.outputs[0].root, 1)
}

/// `i + more`.
fn row(more: i64) -> Affine {
    Affine { base: Dim::constant(more), terms: vec![(0, 1)] }
}

fn number(dtype: &str, value: i64) -> String {
    format!("%s = constant {dtype}[] = {value}\n%c = broadcast %s shape=[n, n] dims=[]")
}

#[test]
fn every_integer_that_cannot_wrap_is_a_position() {
    for (dtype, most) in
        [("i64", i64::MAX >> 3), ("u64", 1 << 40), ("i32", 1 << 31), ("u32", 1 << 32), ("i16", 1 << 15), ("u8", 256)]
    {
        let causal = |most| read(dtype, most, &["%m = le %j, %i"]).ends;
        assert_eq!(causal(most), [row(1)], "{dtype}");
        if !dtype.ends_with("64") {
            assert_eq!(causal(most + 1), [], "{dtype}: the last position is no number of it");
        }
    }
}

#[test]
fn arithmetic_is_followed_where_it_fits() {
    let window = |dtype: &str, most| {
        let far = number(dtype, 100);
        read(dtype, most, &[&far, "%d = sub %i, %j", "%m = lt %d, %c"]).starts
    };
    assert_eq!(window("i32", 1 << 31), [row(-99)]);
    assert_eq!(window("i8", 128), [row(-99)]);
    // What is negative wraps.
    assert_eq!(window("u32", 1 << 20), []);
    let shifted = |dtype: &str, by: i64| {
        let by = number(dtype, by);
        read(dtype, 1000, &[&by, "%a = add %i, %c", "%m = ge %a, %j"]).ends
    };
    assert_eq!(shifted("i32", i64::from(i32::MAX) - 999), [row(i64::from(i32::MAX) - 998)]);
    assert_eq!(shifted("i32", i64::from(i32::MAX) - 998), []);
    assert_eq!(shifted("i16", 20_000), [row(20_001)]);
    assert_eq!(shifted("i16", 32_000), []);
    assert_eq!(shifted("u16", 64_536), [row(64_537)]);
    assert_eq!(shifted("u16", 64_537), []);
    assert_eq!(shifted("i64", i64::MAX - 100), []);
}

#[test]
fn a_cast_keeps_what_its_dtype_has() {
    let through = |to: &str, most| {
        let (a, b) = (format!("%a = cast %i to={to}"), format!("%b = cast %j to={to}"));
        read("i32", most, &[&a, &b, "%m = gt %a, %b"]).ends
    };
    assert_eq!(through("i64", 1 << 20), [row(0)]);
    assert_eq!(through("u8", 256), [row(0)]);
    assert_eq!(through("u8", 257), []);
    // Floats round.
    assert_eq!(through("f32", 100), []);
}

#[test]
fn distances_and_multiples() {
    let band = number("i32", 8);
    let band = read("i32", 4096, &[&band, "%d = sub %i, %j", "%a = abs %d", "%m = le %a, %c"]);
    assert_eq!((band.starts, band.ends), (vec![row(-8)], vec![row(9)]));
    let three = number("i32", 3);
    let steep = |most| read("i32", most, &[&three, "%a = mul %c, %i", "%m = lt %j, %a"]).ends;
    assert_eq!(steep(1 << 20), [Affine { base: Dim::constant(0), terms: vec![(0, 3)] }]);
    assert_eq!(steep(1 << 30), []);
}
