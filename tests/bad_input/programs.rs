//! Op programs: JSON in the metadata of a safetensors file.

use crate::harness::Place;

fn file(program: &str) -> Vec<u8> {
    let header = serde_json::json!({ "__metadata__": { "program": program } }).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out
}

const X: &str = r#""inputs": {"x": {"shape": [3, 4], "dtype": "f64"}}"#;

#[test]
fn garbage_programs_are_errors() {
    let place = Place::new();
    let node = |node: &str| format!(r#"{{{X}, "nodes": [{node}], "outputs": ["y"]}}"#);
    let mut odd: Vec<String> = Vec::new();
    let mut texts: Vec<String> =
        ["", "garbage", "null", "[]", "{}", "{\"inputs\": 3}", "{\"inputs\": {}, \"nodes\": {}}"]
            .map(String::from)
            .to_vec();
    texts.push("[".repeat(1_000_000));
    texts.push("{\"inputs\":".repeat(100_000));
    texts.push(format!(r#"{{{X}, "nodes": [], "outputs": ["nothing"]}}"#));
    texts.push(node(r#"["y", "no_such_op", ["x"], {}]"#));
    texts.push(node(r#"["y", "sigmoid", ["y"], {}]"#));
    texts.push(node(r#"["y", "sigmoid", [], {}]"#));
    texts.push(node(r#"["y", "sigmoid", ["x", "x", "x"], {}]"#));
    texts.push(node(r#"["y", "sigmoid", "x", {}]"#));
    texts.push(node(r#"["y", "sigmoid"]"#));
    texts.push(node(r#"[1, 2, 3, 4]"#));
    for op in ["reshape", "sum", "softmax", "transpose", "permute", "slice", "pad", "cat", "gather", "cumsum", "einsum"]
    {
        for value in
            ["9223372036854775807", "-9223372036854775808", "1e308", "[9223372036854775807]", "[[1,2],3]", "\"x\""]
        {
            let attrs = ["dim", "dims", "shape", "start", "end", "step", "pad", "equation", "value", "keepdim"]
                .map(|key| format!("\"{key}\": {value}"))
                .join(", ");
            odd.push(node(&format!(r#"["y", "{op}", ["x"], {{{attrs}}}]"#)));
        }
    }
    for shape in ["[-1]", "[1.5]", "[1e30]", "\"x\"", "[[]]"] {
        texts.push(format!(
            r#"{{"inputs": {{"x": {{"shape": {shape}, "dtype": "f64"}}}}, "nodes": [["y", "sigmoid", ["x"], {{}}]], "outputs": ["y"]}}"#
        ));
    }
    for text in texts {
        place.write("bad.safetensors", file(&text));
        let ended = place.run(&["compile", "bad.safetensors"]);
        ended.is_refused(&["compile", &text[..text.len().min(200)]], &["bad.safetensors"]);
    }
    // Some of these are programs that mean something.
    let mut refused = 0;
    for text in odd {
        place.write("bad.safetensors", file(&text));
        let ended = place.run(&["compile", "bad.safetensors"]);
        if ended.code != Some(0) {
            ended.is_refused(&["compile", &text], &["bad.safetensors"]);
            refused += 1;
        }
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn missing_inputs_are_errors() {
    let place = Place::new();
    let text = format!(r#"{{{X}, "nodes": [["y", "sigmoid", ["x"], {{}}]], "outputs": ["y"]}}"#);
    place.write("no_input.safetensors", file(&text));
    place.refused(&["run", "no_input.safetensors"], &["in.x"]);
    place.runs(&["compile", "no_input.safetensors"]);
}
