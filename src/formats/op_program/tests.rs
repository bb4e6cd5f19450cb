//! Tests of what the reference data does not have: other spellings, hostile programs.

use super::*;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::types::Bindings;

fn eval(inputs: &str, nodes: &str, arrays: &[Array]) -> Result<Vec<f64>, Diagnostic> {
    let text = format!("{{\"inputs\": {inputs}, \"nodes\": {nodes}, \"outputs\": [\"y\"]}}");
    let program = OpProgram::parse(&text, DType::F64)?;
    let out = run(&program.module, "main", arrays, &Bindings::new(), Mode::Meaning)?;
    Ok(out[0].to_f64().unwrap())
}

const MATRIX: &str = r#"{"x": {"shape": [2, 2], "dtype": "f64", "grad": true}}"#;

fn matrix() -> Array {
    Array::from_f64(&[2, 2], &[1.0, 2.0, 3.0, 5.0]).unwrap()
}

#[test]
fn einsum_without_an_arrow_and_with_a_trace() {
    let on = |equation: &str| {
        let nodes = format!(r#"[["y", "einsum", ["x"], {{"equation": "{equation}"}}]]"#);
        eval(MATRIX, &nodes, &[matrix()]).unwrap()
    };
    assert_eq!(on("ba"), [1.0, 3.0, 2.0, 5.0]);
    assert_eq!(on("ii"), [6.0]);
    assert_eq!(on("ij->j"), [4.0, 7.0]);
}

#[test]
fn cross_entropy_smooths_and_ignores() {
    let inputs =
        r#"{"t": {"shape": [2], "dtype": "i64", "grad": false}, "x": {"shape": [2, 2], "dtype": "f64", "grad": true}}"#;
    let nodes = r#"[["y", "cross_entropy", ["x", "t"], {"ignore_index": 7, "label_smoothing": 0.2}]]"#;
    let targets = Array::from_i64(&[2], &[7, 0]).unwrap();
    let found = eval(inputs, nodes, &[targets, matrix()]).unwrap()[0];
    // Row (3, 5), class 0: -log p = (2 + z, z) with z = log(1 + exp(-2)).
    let z = (-2f64).exp().ln_1p();
    let expected = 0.8 * (2.0 + z) + 0.1 * ((2.0 + z) + z);
    assert!((found - expected).abs() < 1e-14, "{found} {expected}");
}

#[test]
fn softplus_is_linear_above_twenty_as_in_torch() {
    let inputs = r#"{"x": {"shape": [3], "dtype": "f64", "grad": true}}"#;
    let x = Array::from_f64(&[3], &[0.0, 21.0, 1000.0]).unwrap();
    let found = eval(inputs, r#"[["y", "softplus", ["x"], {}]]"#, &[x]).unwrap();
    assert_eq!(found, [std::f64::consts::LN_2, 21.0, 1000.0]);
}

#[test]
fn hostile_programs_are_refused() {
    let nodes = [
        r#"[["y", "nothing", ["x"], {}]]"#,
        r#"[["y", "neg", ["z"], {}]]"#,
        r#"[["y", "neg", ["x", "x"], {}]]"#,
        r#"[["y", "sum", ["x"], {"dims": [2]}]]"#,
        r#"[["y", "sum", ["x"], {"dims": [-9223372036854775808]}]]"#,
        r#"[["y", "sum", ["x"], {"dims": [0, 0]}]]"#,
        r#"[["y", "reshape", ["x"], {"shape": [-1, 0]}]]"#,
        r#"[["y", "reshape", ["x"], {"shape": [4611686018427387904, 4]}]]"#,
        r#"[["y", "broadcast_to", ["x"], {"shape": [9223372036854775807, 9223372036854775807, 2, 2]}]]"#,
        r#"[["y", "slice", ["x"], {"dim": 0, "step": 0}]]"#,
        r#"[["y", "pad", ["x"], {"pads": [[9223372036854775807, 9223372036854775807], [0, 0]]}]]"#,
        r#"[["y", "einsum", ["x"], {"equation": "i.j"}]]"#,
        r#"[["y", "einsum", ["x"], {"equation": "ij->ik"}]]"#,
        r#"[["y", "attention", ["x", "x", "x"], {}]]"#,
        r#"[["y", "rope", ["x", "x", "x"], {"style": "other"}]]"#,
        r#"[["y", "where", ["x", "x", "x"], {}]]"#,
        r#"[["y", "concat", [], {"dim": 0}]]"#,
        r#"[["y", 3, ["x"], {}]]"#,
        r#"["y"]"#,
        r#"7"#,
    ];
    for node in nodes {
        assert!(eval(MATRIX, node, &[matrix()]).is_err(), "{node}");
    }
    for text in ["", "[]", "{}", r#"{"inputs": {"x": {"shape": [-1], "dtype": "f64"}}, "nodes": [], "outputs": []}"#] {
        assert_eq!(OpProgram::parse(text, DType::F32).unwrap_err().code, "op-program", "{text}");
    }
}
