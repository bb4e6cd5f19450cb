//! The functions of f32 against f64: a dense sample always, every f32 where `TILEWRIGHT_EXHAUSTIVE` is set.

// `!(a <= b)` is true for NaN, which is what a check of errors wants.
#![allow(clippy::neg_cmp_op_on_partial_ord)]

use super::*;

type Row = (&'static str, fn(&mut Scalar, f32) -> f32, fn(f64) -> f64, f64);

/// Name, function, reference, and the largest error allowed, in ulp: what the function's doc states.
const ROWS: &[Row] = &[
    ("exp", exp, f64::exp, 1.45),
    ("exp2", exp2, f64::exp2, 1.27),
    ("expm1", expm1, f64::exp_m1, 1.45),
    ("log", log, f64::ln, 0.91),
    ("log2", log2, f64::log2, 1.49),
    ("log1p", log1p, f64::ln_1p, 1.66),
    ("tanh", tanh, f64::tanh, 1.38),
    ("erf", erf, libm::erf, 1.25),
    ("sin", sin, f64::sin, 1.56),
    ("cos", cos, f64::cos, 1.57),
];

/// The distance of `found` from `exact` in ulp of the f32 nearest to `exact`; 0 for equal specials, infinite for wrong ones.
fn error(found: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if exact.is_nan() || nearest.is_infinite() || found.is_infinite() {
        // The last finite value may round up to infinity or not: half an ulp either way is an ulp of MAX.
        let close = |x: f32| if x.is_infinite() { f64::from(f32::MAX) * (1.0 + 2f64.powi(-24)) } else { f64::from(x) };
        let same = found == nearest || found.is_nan() && exact.is_nan();
        let edge = !exact.is_nan() && !found.is_nan() && exact.is_finite() && found > 0.0 && nearest > 0.0;
        return if same {
            0.0
        } else if edge {
            (close(found) - exact).abs() / 2f64.powi(104)
        } else {
            f64::INFINITY
        };
    }
    let exponent = ((nearest.to_bits() >> 23 & 0xff) as i32).max(1);
    (f64::from(found) - exact).abs() / 2f64.powi(exponent - 127 - 23)
}

fn inside(name: &str, x: f32) -> bool {
    !(name == "sin" || name == "cos") || !(x.abs() > TRIG_LIMIT) || x.is_infinite()
}

/// The largest error over `count` f32, evenly spread over all bit patterns, and where.
fn largest((name, function, reference, _): Row, stride: usize) -> (f64, f32) {
    let one = |start: u32| {
        let mut worst = (0.0, 0.0);
        for bits in (start..=u32::MAX).step_by(2 * stride) {
            let x = f32::from_bits(bits);
            if inside(name, x) {
                let error = error(function(&mut Scalar, x), reference(f64::from(x)));
                if !(error <= worst.0) {
                    worst = (error, x);
                }
            }
        }
        worst
    };
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| one(stride as u32));
        (one(0), other.join().unwrap())
    });
    if first.0 >= second.0 { first } else { second }
}

#[test]
fn errors_stay_within_what_the_docs_say() {
    // A prime stride, so that the sample has all low bits: 1.3 million values a function.
    let exhaustive = std::env::var_os("TILEWRIGHT_EXHAUSTIVE").is_some();
    let stride = if exhaustive { 1 } else { 3301 };
    let mut wrong = Vec::new();
    for &row in ROWS {
        let (error, at) = largest(row, stride);
        println!("{}: {error:.4} ulp at {at:e}", row.0);
        if !(error <= row.3) {
            wrong.push(format!("{}: {error} ulp at {at:e}, allowed {}", row.0, row.3));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn edges_have_their_exact_values() {
    let (infinity, nan) = (f32::INFINITY, f32::NAN);
    let denormal = f32::from_bits(1);
    let same = |name: &str, x: f32, expected: f32| {
        let function = ROWS.iter().find(|row| row.0 == name).unwrap().1;
        let found = function(&mut Scalar, x);
        let equal = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(equal, "{name}({x:e}) = {found:e}, expected {expected:e}");
    };
    for (name, ..) in ROWS {
        same(name, nan, nan);
    }
    for name in ["expm1", "log1p", "tanh", "sin"] {
        for x in [0.0, -0.0, denormal, -denormal, f32::MIN_POSITIVE] {
            same(name, x, x);
        }
    }
    for (name, low, zero, high) in [
        ("exp", 0.0, 1.0, infinity),
        ("exp2", 0.0, 1.0, infinity),
        ("expm1", -1.0, 0.0, infinity),
        ("log", nan, -infinity, infinity),
        ("log2", nan, -infinity, infinity),
        ("log1p", nan, 0.0, infinity),
        ("tanh", -1.0, 0.0, 1.0),
        ("erf", -1.0, 0.0, 1.0),
        ("sin", nan, 0.0, nan),
        ("cos", nan, 1.0, nan),
    ] {
        same(name, -infinity, low);
        same(name, 0.0, zero);
        same(name, infinity, high);
    }
    for name in ["exp", "exp2"] {
        same(name, f32::MAX, infinity);
        same(name, f32::MIN, 0.0);
    }
    same("log", -0.0, -infinity);
    same("log", -denormal, nan);
    same("log1p", -1.0, -infinity);
    same("log1p", -1.000_000_1, nan);
    same("erf", -0.0, -0.0);
    for exponent in -149i16..128 {
        let power = 2f64.powi(exponent.into()) as f32;
        same("exp2", exponent.into(), power);
        same("log2", power, exponent.into());
    }
}

#[test]
fn large_angles_go_through_f64() {
    for x in [1.0e5f32, 1.0e10, -3.0e38, 7.5e22] {
        assert!(error(sin_any(x), f64::from(x).sin()) <= 0.5001);
        assert!(error(cos_any(x), f64::from(x).cos()) <= 0.5001);
    }
    assert!(sin_any(f32::INFINITY).is_nan() && cos_any(f32::NAN).is_nan());
}

#[test]
fn f64_functions_agree_with_std() {
    for (name, function) in wide::FUNCTIONS {
        let row = ROWS.iter().find(|row| row.0 == *name).unwrap();
        for i in -2000..2000 {
            let x = f64::from(i) * 0.017;
            let (found, expected) = (function(x), row.2(x));
            let close = (found - expected).abs() <= 2.0 * f64::EPSILON * expected.abs();
            assert!(
                close || found == expected || found.is_nan() && expected.is_nan(),
                "{name}({x}) {found} {expected}"
            );
        }
    }
    assert_eq!(wide::FUNCTIONS.len(), ROWS.len());
    // Twenty digits of erf(1), so that libm is not only compared with itself.
    assert!((wide::erf(1.0) - 0.842_700_792_949_714_869_34).abs() <= f64::EPSILON);
}
