//! Graphs as JSON in the metadata of a safetensors file.
//!
//! `{"opset": {domain: version}, "nodes": [{"op", "domain", "inputs", "outputs", "attrs"}, ..], "inputs": [names],
//! "outputs": [names]}`; an attribute is a number, a text, a list, or a tensor `{"dtype", "shape", "values"}`. The
//! dialect is Python's: `NaN`, `Infinity` and `-Infinity` are numbers.

use super::super::{Safetensors, shown};
use super::{Attribute, OnnxGraph, OnnxNode};
use half::f16;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use tilewright_ir::array::{Array, Bytes, element_count, round_to_odd};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::{DType, Type};

/// The key of the metadata.
pub(super) const KEY: &str = "onnx";

fn wrong(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("onnx-json", message)
}

/// The graph of a file, and its inputs.
pub(super) fn read(file: &Safetensors) -> Result<(OnnxGraph, BTreeMap<String, Array>), Diagnostic> {
    let text = file.metadata.get(KEY).ok_or_else(|| wrong(format!("the file has no metadata `{KEY}`")))?;
    let mut graph = parse(text)?;
    let mut inputs = BTreeMap::new();
    for (name, ty) in &mut graph.inputs {
        let array = file.tensor(&format!("in.{name}"))?;
        *ty = Type::new(array.dtype(), array.shape().iter().copied());
        inputs.insert(name.clone(), array);
    }
    for key in file.names() {
        if let Some(name) = key.strip_prefix("init.") {
            graph.initialisers.insert(name.to_owned(), file.tensor(key)?);
        }
    }
    Ok((graph, inputs))
}

/// The graph that `text` describes; inputs are f32 scalars until their tensors are read.
pub(super) fn parse(text: &str) -> Result<OnnxGraph, Diagnostic> {
    let json: Json = serde_json::from_str(&quoted(text)).map_err(|e| wrong(format!("the graph is not JSON: {e}")))?;
    let map = json.as_object().ok_or_else(|| wrong("expected an object as the graph"))?;
    let mut graph = OnnxGraph { outputs: names(map, "outputs")?, ..OnnxGraph::default() };
    graph.inputs = names(map, "inputs")?.into_iter().map(|n| (n, Type::scalar(DType::F32))).collect();
    let opset = map.get("opset").and_then(Json::as_object);
    for (domain, version) in opset.ok_or_else(|| wrong("expected an object `opset` of versions by domain"))? {
        let version = version.as_i64();
        let version = version.ok_or_else(|| wrong(format!("expected an integer as version of {}", shown(domain))))?;
        graph.opset.insert(domain.clone(), version);
    }
    let nodes = map.get("nodes").and_then(Json::as_array).ok_or_else(|| wrong("expected a list `nodes`"))?;
    for (number, json) in nodes.iter().enumerate() {
        let at = |d: Diagnostic| d.at(Place::Named(format!("node {number}").into()), "");
        graph.nodes.push(node(json).map_err(at)?);
    }
    Ok(graph)
}

fn node(json: &Json) -> Result<OnnxNode, Diagnostic> {
    let map = json.as_object().ok_or_else(|| wrong("expected an object as node"))?;
    let text = |key: &str| {
        let found = map.get(key).and_then(Json::as_str).map(str::to_owned);
        found.ok_or_else(|| wrong(format!("expected a text as `{key}`")))
    };
    let attrs = map.get("attrs").and_then(Json::as_object).ok_or_else(|| wrong("expected an object `attrs`"))?;
    let mut attributes = BTreeMap::new();
    for (name, value) in attrs {
        let value = attribute(value).map_err(|d| d.at(Place::Named(shown(name).into()), "the attribute"))?;
        attributes.insert(name.clone(), value);
    }
    let (inputs, outputs) = (names(map, "inputs")?, names(map, "outputs")?);
    Ok(OnnxNode { op: text("op")?, domain: text("domain")?, inputs, outputs, attributes })
}

fn names(map: &Map<String, Json>, key: &str) -> Result<Vec<String>, Diagnostic> {
    let list = map.get(key).and_then(Json::as_array);
    let list = list.and_then(|l| l.iter().map(|n| n.as_str().map(str::to_owned)).collect());
    list.ok_or_else(|| wrong(format!("expected a list of names as `{key}`")))
}

fn attribute(json: &Json) -> Result<Attribute, Diagnostic> {
    Ok(match json {
        Json::Number(n) => match n.as_i64() {
            Some(i) => Attribute::Int(i),
            None => Attribute::Float(n.as_f64().ok_or_else(|| wrong(format!("the number {n} does not fit")))?),
        },
        Json::String(text) => match special(text) {
            Some(x) => Attribute::Float(x),
            None => Attribute::Text(text.clone()),
        },
        Json::Array(list) => {
            let ints = list.iter().map(Json::as_i64).collect::<Option<Vec<i64>>>();
            let floats = || list.iter().map(number).collect::<Option<Vec<f64>>>();
            match ints {
                Some(ints) => Attribute::Ints(ints),
                None => floats().map_or(Attribute::Other("a list".into()), Attribute::Floats),
            }
        }
        Json::Object(map) => Attribute::Tensor(tensor(map)?),
        Json::Bool(_) => Attribute::Other("a truth value".into()),
        Json::Null => Attribute::Other("nothing".into()),
    })
}

/// Names of NumPy.
const DTYPES: &[(&str, DType)] = &[
    ("float16", DType::F16),
    ("float32", DType::F32),
    ("float64", DType::F64),
    ("int8", DType::I8),
    ("int16", DType::I16),
    ("int32", DType::I32),
    ("int64", DType::I64),
    ("uint8", DType::U8),
    ("uint16", DType::U16),
    ("uint32", DType::U32),
    ("uint64", DType::U64),
    ("bool", DType::Bool),
];

fn tensor(map: &Map<String, Json>) -> Result<Array, Diagnostic> {
    let name = map.get("dtype").and_then(Json::as_str).unwrap_or_default();
    let dtype = DTYPES.iter().find(|(n, _)| *n == name).map(|(_, d)| *d).ok_or_else(|| {
        let known: Vec<&str> = DTYPES.iter().map(|(n, _)| *n).collect();
        wrong(format!("expected a tensor with one of the dtypes {}, found {}", known.join(" "), shown(name)))
    })?;
    let size = |d: &Json| d.as_u64().and_then(|d| usize::try_from(d).ok());
    let shape = map.get("shape").and_then(Json::as_array).and_then(|l| l.iter().map(size).collect::<Option<Vec<_>>>());
    let shape = shape.ok_or_else(|| wrong("expected a list of sizes as `shape`"))?;
    let values = map.get("values").and_then(Json::as_array).ok_or_else(|| wrong("expected a list `values`"))?;
    if element_count(&shape) != Some(values.len()) {
        return Err(wrong(format!("{} values do not fill a tensor of shape {shape:?}", values.len())));
    }
    let mut bytes = Vec::new();
    for value in values {
        let element = element(dtype, value);
        bytes.extend(element.ok_or_else(|| wrong(format!("the value {value} is no {dtype}")))?);
    }
    Array::new(dtype, &shape, Bytes::new(bytes))
}

/// Little-endian bytes of a value.
fn element(dtype: DType, json: &Json) -> Option<Vec<u8>> {
    let integer = || json.as_i64().map(i128::from).or_else(|| json.as_u64().map(i128::from));
    Some(match dtype {
        DType::F64 => number(json)?.to_le_bytes().to_vec(),
        DType::F32 => (number(json)? as f32).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(round_to_odd(number(json)?)).to_le_bytes().to_vec(),
        DType::I8 => i8::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::U8 => u8::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::I16 => i16::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::U16 => u16::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::I32 => i32::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::U32 => u32::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::I64 => i64::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::U64 => u64::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
        DType::Bool => {
            vec![json.as_bool().map(u8::from).or_else(|| json.as_u64().filter(|b| *b < 2).map(|b| b as u8))?]
        }
        _not_in_the_table => return None,
    })
}

/// A number, or one of the words that [`quoted`] leaves.
fn number(json: &Json) -> Option<f64> {
    json.as_f64().or_else(|| special(json.as_str()?))
}

/// What marks a quoted word: no JSON text of a graph has it.
const MARK: &str = "\u{1}";

fn special(text: &str) -> Option<f64> {
    match text.strip_prefix(MARK)? {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// The text with the three words that JSON does not have as marked texts.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside = false;
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|w| !inside && rest.starts_with(w));
        if let Some(word) = word {
            // A JSON text writes a control character as an escape.
            out += &format!("\"\\u0001{word}\"");
            rest = &rest[word.len()..];
            continue;
        }
        let mut length = c.len_utf8();
        match c {
            '"' => inside = !inside,
            '\\' if inside => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}
