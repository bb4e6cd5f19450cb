//! Products that are computed as something else: with one-hot rows lookups, with one-hot columns sums at places, of joined operands
//! the sum of the parts' products. Machine code against the interpreter, and what the kernels are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use tilewright::compile::{Options, compile, lower};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::egraph::Numerics;

fn options(numerics: Numerics) -> Options {
    Options { opt_level: 2, numerics, ..Options::host().unwrap() }
}

/// Machine code at every policy against the interpreter; ids are from `low` to below `high`.
fn check(text: &str, (low, high): (i64, i64), bindings: &[(&str, i64)], random: &mut Random) -> Module {
    let module = parse("graph", text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let mut inputs = Vec::new();
    for p in &module.entry().unwrap().params {
        let shape = p.ty.concrete(&bindings).unwrap();
        let n: usize = shape.iter().product();
        let width = usize::try_from(high - low).unwrap();
        let mut id = || low + i64::try_from(random.below(width)).unwrap();
        inputs.push(match p.ty.dtype {
            DType::I64 => Array::from_i64(&shape, &(0..n).map(|_| id()).collect::<Vec<_>>()).unwrap(),
            DType::I32 => {
                let bytes = (0..n).flat_map(|_| i32::try_from(id()).unwrap().to_le_bytes()).collect::<Vec<u8>>();
                Array::new(DType::I32, &shape, Bytes::new(bytes)).unwrap()
            }
            _float => Array::from_f32(&shape, &(0..n).map(|_| random.signed()).collect::<Vec<_>>()).unwrap(),
        });
    }
    let want = run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
    for numerics in [Numerics::Exact, Numerics::Rounding, Numerics::Reassociate, Numerics::Approx] {
        let executable = compile(&module, &options(numerics)).unwrap_or_else(|d| panic!("{d}\n{text}"));
        let found = executable.run(&inputs, &bindings).unwrap_or_else(|d| panic!("{d}\n{text}"));
        for (number, (found, want)) in found.iter().zip(&want).enumerate() {
            let (found, want) = (found.to_f64().unwrap(), want.to_f64().unwrap());
            let bad = found.iter().zip(&want).position(|(x, y)| (x - y).abs() > 1e-5 * (1.0 + y.abs()));
            assert!(found.len() == want.len() && bad.is_none(), "{numerics}, result {number} at {bad:?}\n{text}");
        }
    }
    module
}

/// The kernels that are chosen by default.
fn text_of(module: &Module) -> String {
    let programs = lower(module, &options(Numerics::Reassociate)).unwrap();
    programs.iter().flat_map(|p| &p.kernels).map(ToString::to_string).collect()
}

/// One-hot rows of ids times a table, in each order of operands and of the table's axes.
fn embedding(rows: &str, classes: i64, left: bool, transposed: bool) -> String {
    let table = if transposed { format!("f32[24, {classes}]") } else { format!("f32[{classes}, 24]") };
    let over = usize::from(transposed);
    let (product, result) = match left {
        true => (format!("dot %c, %w contract=[2]x[{over}]"), format!("f32[{rows}, 3, 24]")),
        false => (format!("dot %w, %c contract=[{over}]x[2]"), format!("f32[24, {rows}, 3]")),
    };
    format!(
        "func @main(%ids: i64[{rows}, 3], %w: {table}) -> {result} where n in 1..=64 {{\n  \
         %i = iota axis=0 shape=[{classes}] dtype=i64\n  %p = broadcast %i shape=[{rows}, 3, {classes}] dims=[2]\n  \
         %b = broadcast %ids shape=[{rows}, 3, {classes}] dims=[0, 1]\n  %m = eq %b, %p\n  %c = cast %m to=f32\n  \
         %0 = {product}\n  return %0\n}}\n"
    )
}

#[test]
fn a_product_with_one_hot_rows_is_a_lookup() {
    let mut random = Random(3);
    for left in [true, false] {
        for transposed in [true, false] {
            for rows in ["n", "5"] {
                // Elements that lie apart are slower to read.
                let classes = if transposed { 1100 } else { 100 };
                let text = embedding(rows, classes, left, transposed);
                // Ids outside choose nothing.
                let module = check(&text, (-20, classes + 20), &[("n", 5)], &mut random);
                let kernels = text_of(&module);
                assert!(!kernels.contains("mma") && !kernels.contains(&format!("k={classes}")), "{kernels}");
            }
        }
    }
    let module = check(&embedding("n", 100, true, false).replace("i64", "i32"), (-20, 120), &[("n", 5)], &mut random);
    assert!(!text_of(&module).contains("mma"));
    // A few classes stay in a kernel.
    check(&embedding("n", 8, true, false), (-2, 10), &[("n", 7)], &mut random);
}

/// The gradient of a lookup, as a product with one-hot columns.
fn gradient(rows: i64, classes: i64, left: bool) -> String {
    let (product, result) = match left {
        true => ("dot %c, %g contract=[0, 1]x[0, 1]", format!("f32[{classes}, 4, 6]")),
        false => ("dot %g, %c contract=[0, 1]x[0, 1]", format!("f32[4, 6, {classes}]")),
    };
    format!(
        "func @main(%ids: i64[{rows}, 3], %g: f32[{rows}, 3, 4, 6]) -> {result} {{\n  \
         %p = iota axis=2 shape=[{rows}, 3, {classes}] dtype=i64\n  \
         %b = broadcast %ids shape=[{rows}, 3, {classes}] dims=[0, 1]\n  %m = eq %p, %b\n  %c = cast %m to=f32\n  \
         %0 = {product}\n  return %0\n}}\n"
    )
}

#[test]
fn a_product_with_one_hot_columns_is_a_sum_at_places() {
    let mut random = Random(5);
    for left in [true, false] {
        // A few classes are a product.
        check(&gradient(40, 70, left), (-5, 75), &[], &mut random);
        let module = check(&gradient(40, 1100, left), (-5, 1105), &[], &mut random);
        let programs = lower(&module, &options(Numerics::Reassociate)).unwrap();
        let names: Vec<String> = programs.iter().flat_map(|p| &p.kernels).map(|k| k.name.to_string()).collect();
        assert!(names.iter().any(|n| n.contains("scatter")), "{names:?}");
        // Every row at one place.
        check(&gradient(40, 1100, left), (1099, 1100), &[], &mut random);
    }
}

/// Sums of halves run in f32 and round once: neither sums of parts nor sums at places do that.
#[test]
fn sums_of_halves_round_once() {
    let half = |dtype: &str, text: String| text.replace("f32", dtype);
    for (dtype, bound) in [("bf16", 1.0 / 128.0), ("f16", 1.0 / 1024.0)] {
        // 256 and 1 is 256 in bf16.
        let columns = half(dtype, gradient(1400, 1100, true));
        // Parts cancel: each is beyond f16.
        let rows = half(
            dtype,
            joined("8", [128, 128, 128], 24, true, false).replace("%2 = tanh %1\n  return %2", "return %1"),
        );
        let rows = rows.replace(" where n in 1..=256", "");
        for (text, signs) in [(columns, [1.0, 1.0, 1.0]), (rows, [1.0, -1.0, 0.5])] {
            let module = parse("graph", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
            let mut inputs = Vec::new();
            for (number, p) in module.entry().unwrap().params.iter().enumerate() {
                let shape = p.ty.concrete(&Bindings::new()).unwrap();
                let n: usize = shape.iter().product();
                let large = if text.contains("concat") && number < 3 { 300.0 } else { 1.0 };
                let sign = if text.contains("concat") && number < 3 { signs[number] } else { 1.0 };
                let x = if text.contains("concat") && number == 3 { 3.0 } else { large * sign };
                inputs.push(match p.ty.dtype {
                    DType::I64 => Array::from_i64(&shape, &vec![7; n]).unwrap(),
                    d => {
                        let bytes = Array::from_number(d, x).unwrap().bytes().repeat(n);
                        Array::new(d, &shape, Bytes::new(bytes)).unwrap()
                    }
                });
            }
            let want = run(&module, "main", &inputs, &Bindings::new(), Mode::Meaning).unwrap()[0].to_f64().unwrap();
            let executable = compile(&module, &options(Numerics::Reassociate)).unwrap();
            let found = executable.run(&inputs, &Bindings::new()).unwrap()[0].to_f64().unwrap();
            let bad = found.iter().zip(&want).find(|(x, y)| (*x - *y).abs() > bound * y.abs() || x.is_nan());
            assert!(bad.is_none(), "{dtype}: {bad:?}\n{text}");
        }
    }
}

/// What looks like it and is not: another comparison, ids that vary along the classes, a sum over some of the rows.
#[test]
fn what_is_not_one_hot_is_computed() {
    let mut random = Random(9);
    let text = embedding("n", 100, true, false).replace("eq %b, %p", "ge %b, %p");
    check(&text, (-20, 120), &[("n", 5)], &mut random);
    let along = "func @main(%ids: i64[100], %w: f32[100, 24]) -> f32[6, 24] {\n  \
                 %p = iota axis=1 shape=[6, 100] dtype=i64\n  %b = broadcast %ids shape=[6, 100] dims=[1]\n  \
                 %m = eq %p, %b\n  %c = cast %m to=f32\n  %0 = dot %c, %w contract=[1]x[0]\n  return %0\n}\n";
    check(along, (0, 100), &[], &mut random);
    let some = "func @main(%ids: i64[7, 3], %g: f32[7, 24]) -> f32[3, 80, 24] {\n  \
                %p = iota axis=2 shape=[7, 3, 80] dtype=i64\n  %b = broadcast %ids shape=[7, 3, 80] dims=[0, 1]\n  \
                %m = eq %p, %b\n  %c = cast %m to=f32\n  %0 = dot %c, %g contract=[0]x[0]\n  return %0\n}\n";
    check(some, (-4, 84), &[], &mut random);
}

/// `concat(x, y, z) w`, with the joined operand on either side; `w` lies either way.
fn joined(rows: &str, parts: [i64; 3], columns: i64, left: bool, transposed: bool) -> String {
    let [a, b, c] = parts;
    let depth = a + b + c;
    let weight = if transposed { format!("f32[{columns}, {depth}]") } else { format!("f32[{depth}, {columns}]") };
    let over = usize::from(transposed);
    let (product, result) = match left {
        true => (format!("dot %0, %w contract=[1]x[{over}]"), format!("f32[{rows}, {columns}]")),
        false => (format!("dot %w, %0 contract=[{over}]x[1]"), format!("f32[{columns}, {rows}]")),
    };
    format!(
        "func @main(%x: f32[{rows}, {a}], %y: f32[{rows}, {b}], %z: f32[{rows}, {c}], weight %w: {weight}) -> {result} \
         where n in 1..=256 {{\n  %0 = concat %x, %y, %z axis=1\n  %1 = {product}\n  %2 = tanh %1\n  return %2\n}}\n"
    )
}

#[test]
fn a_product_of_joined_operands_is_a_sum_of_products() {
    let mut random = Random(13);
    for left in [true, false] {
        for transposed in [true, false] {
            for rows in ["n", "37"] {
                let text = joined(rows, [96, 40, 64], 24, left, transposed);
                let module = check(&text, (0, 1), &[("n", 37)], &mut random);
                let kernels = text_of(&module);
                let products = kernels.matches("mma ").count();
                assert!(products == 3 && !kernels.contains("=200"), "{products} products:\n{kernels}");
            }
        }
    }
    // Sums so far would be larger than the whole.
    let text = joined("37", [96, 40, 64], 240, true, false);
    let kernels = text_of(&check(&text, (0, 1), &[("n", 1)], &mut random));
    assert_eq!(kernels.matches("mma ").count(), 1, "{kernels}");
}

/// Parts of a weight, and of rows, are read where they lie.
#[test]
fn parts_of_operands_are_read_where_they_lie() {
    let mut random = Random(17);
    for (weight, start, limit, over) in [
        ("[500, 64]", "[300, 0]", "[500, 64]", 0),
        ("[64, 500]", "[0, 300]", "[64, 500]", 1),
        ("[200, 160]", "[0, 32]", "[200, 96]", 0),
        // Parts that divide their dims are blocks of these.
        ("[400, 64]", "[200, 0]", "[400, 64]", 0),
        ("[64, 600]", "[0, 200]", "[64, 400]", 1),
        ("[200, 128]", "[0, 64]", "[200, 128]", 0),
    ] {
        let part = if over == 0 { "[200, 64]" } else { "[64, 200]" };
        let text = format!(
            "func @main(%x: f32[90, 200], weight %w: f32{weight}) -> f32[90, 64] {{\n  \
             %0 = slice %w start={start} limit={limit} stride=[1, 1] : f32{part}\n  %1 = dot %x, %0 contract=[1]x[{over}]\n  \
             return %1\n}}\n"
        );
        let kernels = text_of(&check(&text, (0, 1), &[], &mut random));
        assert_eq!((kernels.matches("mma ").count(), kernels.matches("kernel ").count()), (1, 1), "{kernels}");
    }
    // Rows that do not lie along the sum are copied first.
    let text = "func @main(%x: f32[260, 2, 136], weight %w: f32[2, 128, 96]) -> f32[2, 128, 96] {\n  \
                %0 = slice %x start=[128, 0, 8] limit=[256, 2, 136] stride=[1, 1, 1]\n  \
                %1 = dot %0, %w batch=[1]x[0] contract=[0]x[1]\n  return %1\n}\n";
    let kernels = text_of(&check(text, (0, 1), &[], &mut random));
    assert!(kernels.matches("mma ").count() == 1 && kernels.matches("kernel ").count() <= 2, "{kernels}");
    let text = "func @main(%x: f32[90, 500], weight %w: f32[200, 64]) -> f32[90, 64] {\n  \
                %0 = slice %x start=[0, 100] limit=[90, 300] stride=[1, 1]\n  %1 = dot %0, %w contract=[1]x[0]\n  return %1\n}\n";
    let kernels = text_of(&check(text, (0, 1), &[], &mut random));
    assert_eq!((kernels.matches("mma ").count(), kernels.matches("kernel ").count()), (1, 1), "{kernels}");
}
