//! Which values must agree with themselves.

use super::agreeing;
use tilewright_ir::text::parse;

/// As [`once`], of what stands as it is written.
fn as_it_is(body: &str) -> Vec<u32> {
    let text = format!("func @main(%x: f32[5, 7], %y: f32[5, 7], %w: f32[7, 7]) {{\n{body}\n}}\n");
    let m = parse("agree", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    let f = m.entry().unwrap();
    agreeing(f, &f.live()).as_it_is.into_iter().map(|id| id.0 - f.params.len() as u32).collect()
}

/// The numbers of the nodes, as the text of a function of `%x: f32[5, 7]`, `%y` like it and `%w: f32[7, 7]` has them, that are
/// computed once.
fn once(body: &str) -> Vec<u32> {
    let text = format!("func @main(%x: f32[5, 7], %y: f32[5, 7], %w: f32[7, 7]) {{\n{body}\n}}\n");
    let m = parse("agree", &text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    let f = m.entry().unwrap();
    agreeing(f, &f.live()).once.into_iter().map(|id| id.0 - f.params.len() as u32).collect()
}

const PRODUCT: &str = "
  %0 = dot %x, %w contract=[1]x[0]
  %1 = reduce_max %0 axes=[1]
  %2 = broadcast %1 shape=[5, 7] dims=[0]";

#[test]
fn a_product_and_its_maximum_agree() {
    for jump in [
        "%3 = eq %0, %2\n  return %3",
        "%3 = ge %0, %2\n  return %3",
        "%3 = sub %2, %0\n  %4 = sqrt %3\n  return %4",
        "%3 = sub %2, %0\n  %4 = neg %3\n  %5 = constant f32[] = 0.0\n  %6 = broadcast %5 shape=[5, 7] dims=[]
         %7 = ge %4, %6\n  return %7",
        "%3 = div %0, %2\n  %4 = floor %3\n  return %4",
        // The same arithmetic on both sides.
        "%3 = exp %0\n  %4 = exp %2\n  %5 = eq %3, %4\n  return %5",
        // Between the difference and the jump.
        "%3 = sub %2, %0\n  %4 = mul %3, %y\n  %5 = reduce_max %4 axes=[1]\n  %6 = sqrt %5\n  return %6",
        // Written twice.
        "%3 = dot %x, %w contract=[1]x[0]\n  %4 = eq %3, %2\n  return %4",
    ] {
        assert_eq!(once(&format!("{PRODUCT}\n  {jump}")), [0], "{jump}");
    }
}

#[test]
fn integers_that_floats_became_agree() {
    let whole = "%3 = cast %0 to=i32\n  %4 = reduce_max %3 axes=[1]\n  %5 = broadcast %4 shape=[5, 7] dims=[0]
        %6 = eq %3, %5\n  return %6";
    assert_eq!(once(&format!("{PRODUCT}\n  {whole}")), [3]);
    // Those of labels are exact.
    let labels = "%0 = iota axis=1 shape=[5, 7] dtype=i64\n  %1 = mul %0, %0\n  %2 = reduce_max %1 axes=[1]
        %3 = broadcast %2 shape=[5, 7] dims=[0]\n  %4 = eq %1, %3\n  return %4";
    assert_eq!(once(labels), [0u32; 0]);
}

#[test]
fn the_nearest_value_of_both_sides_is_the_one() {
    let text = "
  %0 = dot %x, %w contract=[1]x[0]
  %1 = mul %0, %y
  %2 = transpose %1 perm=[1, 0]
  %3 = reduce_min %2 axes=[0]
  %4 = broadcast %3 shape=[5, 7] dims=[0]
  %5 = eq %1, %4
  return %5";
    assert_eq!(once(text), [1]);
    // Pairs of elements of one value.
    let ranks = "
  %0 = dot %x, %w contract=[1]x[0]
  %1 = sum %0 axes=[1]
  %2 = broadcast %1 shape=[5, 5] dims=[0]
  %3 = broadcast %1 shape=[5, 5] dims=[1]
  %4 = gt %2, %3
  return %4";
    assert_eq!(once(ranks), [1]);
}

#[test]
fn one_of_two_agrees_with_itself_down_to_its_sums() {
    let chosen = |value: &str| format!("{value}\n  %3 = max %2, %y\n  %4 = eq %2, %3\n  return %4");
    let product = "%0 = dot %x, %w contract=[1]x[0]\n  %1 = exp %0\n  %2 = mul %1, %y";
    assert_eq!(once(&chosen(product)), [0]);
    let elementwise = "%0 = add %x, %y\n  %1 = exp %0\n  %2 = mul %1, %y";
    assert_eq!(once(&chosen(elementwise)), [0u32; 0]);
}

#[test]
fn smooth_functions_of_both_ask_for_nothing() {
    for soft in [
        "%3 = sub %0, %2\n  %4 = exp %3\n  return %4",
        "%3 = sub %0, %2\n  %4 = exp %3\n  %5 = sum %4 axes=[1]\n  %6 = log %5\n  return %6",
        // A threshold that is no value of its own.
        "%3 = gt %0, %y\n  return %3",
        "%3 = constant f32[] = 0.0\n  %4 = broadcast %3 shape=[5, 7] dims=[]\n  %5 = gt %0, %4\n  return %5",
        // Sums round: nobody relies on what is equal behind them.
        "%3 = sum %0 axes=[1]\n  %4 = broadcast %3 shape=[5, 7] dims=[0]\n  %5 = gt %0, %4\n  return %5",
        "%3 = mul %0, %y\n  %4 = gt %0, %3\n  return %4",
    ] {
        assert_eq!(once(&format!("{PRODUCT}\n  {soft}")), [0u32; 0], "{soft}");
    }
    // What is in memory is always the same.
    assert_eq!(
        once("%0 = reduce_max %x axes=[1]\n  %1 = broadcast %0 shape=[5, 7] dims=[0]\n  %2 = eq %x, %1\n  return %2"),
        [0u32; 0]
    );
}

#[test]
fn arithmetic_between_stands_as_it_is() {
    assert_eq!(as_it_is(&format!("{PRODUCT}\n  %3 = eq %0, %2\n  return %3")), [0u32; 0]);
    assert_eq!(as_it_is(&format!("{PRODUCT}\n  %3 = exp %0\n  %4 = exp %2\n  %5 = eq %3, %4\n  return %5")), [3, 4]);
    // Of what is in memory, too: a rule may divide by multiplying.
    let quotient =
        "%0 = reduce_max %x axes=[1]\n  %1 = broadcast %0 shape=[5, 7] dims=[0]\n  %2 = div %x, %1\n  %3 = floor %2
        return %3";
    assert_eq!(as_it_is(quotient), [2]);
    assert_eq!(once(quotient), [0u32; 0]);
}

#[test]
fn a_value_and_its_maximum_leave_together() {
    assert_eq!(once(&format!("{PRODUCT}\n  return %0, %1")), [0]);
    assert_eq!(once(&format!("{PRODUCT}\n  return %1")), [0u32; 0]);
    assert_eq!(once(&format!("{PRODUCT}\n  %3 = reduce_min %0 axes=[1]\n  return %1, %3")), [0u32; 0]);
    assert_eq!(once(&format!("{PRODUCT}\n  %3 = transpose %0 perm=[1, 0]\n  return %0, %3")), [0u32; 0]);
}
