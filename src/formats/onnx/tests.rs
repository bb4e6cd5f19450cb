//! Tests of the mapping: errors, folding, integers at their edges, hostile text. The meaning of ops is tested with data
//! of others, in `tests/conformance_onnx.rs`.

use super::*;
use tilewright_ir::array::Bytes;
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::{GraphKind, GraphOp};
use tilewright_ir::types::{Bindings, DType, Dim};

/// A node of the standard domain.
fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> OnnxNode {
    let names = |list: &[&str]| list.iter().map(|n| n.to_string()).collect();
    let attributes = attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    OnnxNode { op: op.into(), domain: String::new(), inputs: names(inputs), outputs: names(outputs), attributes }
}

/// A graph of opset 18 that returns what its last node makes.
fn graph(inputs: &[(&str, Type)], initialisers: &[(&str, Array)], nodes: Vec<OnnxNode>) -> OnnxGraph {
    OnnxGraph {
        opset: BTreeMap::from([("ai.onnx".into(), 18)]),
        outputs: nodes.last().map(|n| n.outputs.clone()).unwrap_or_default(),
        nodes,
        inputs: inputs.iter().map(|(n, t)| (n.to_string(), t.clone())).collect(),
        initialisers: initialisers.iter().map(|(n, a)| (n.to_string(), a.clone())).collect(),
    }
}

fn f32s(shape: &[i64]) -> Type {
    Type::new(DType::F32, shape.iter().copied())
}

fn ints(list: &[i64]) -> Array {
    Array::from_i64(&[list.len()], list).unwrap()
}

/// i8 elements.
fn bytes(list: &[i8]) -> Array {
    Array::new(DType::I8, &[list.len()], Bytes::new(list.iter().map(|x| *x as u8).collect::<Vec<u8>>())).unwrap()
}

fn error(graph: &OnnxGraph) -> Diagnostic {
    OnnxProgram::build(graph, &BTreeMap::new()).unwrap_err()
}

/// The value of one node of constants, computed by the program: inputs are parameters.
fn value(op: &str, operands: &[Array], attributes: &[(&str, Attribute)]) -> Array {
    let names = ["a", "b", "c"];
    let ty = |a: &Array| Type::new(a.dtype(), a.shape().iter().copied());
    let inputs: Vec<(&str, Type)> = names.iter().copied().zip(operands.iter().map(ty)).collect();
    let graph = graph(&inputs, &[], vec![node(op, &names[..operands.len()], &["y"], attributes)]);
    let given: BTreeMap<String, Array> = names.iter().map(|n| n.to_string()).zip(operands.iter().cloned()).collect();
    let program = OnnxProgram::build(&graph, &given).unwrap();
    let arguments = program.arguments(&given).unwrap();
    run(&program.module, "main", &arguments, &Bindings::new(), Mode::Strict).unwrap().remove(0)
}

#[test]
fn errors_name_the_node_and_what_would_be_right() {
    let x = ("x", f32s(&[2, 3]));
    let one = |n: OnnxNode| graph(std::slice::from_ref(&x), &[], vec![n]);
    let int = Attribute::Int;
    let cases = [
        (one(node("Frobnicate", &["x"], &["y"], &[])), "onnx-op", "there is no op `Frobnicate` here"),
        (one(node("softmax", &["x"], &["y"], &[])), "onnx-op", "there is Softmax"),
        (one(node("Loop", &["x"], &["y"], &[])), "onnx-op", "control flow with subgraphs"),
        (one(node("Where", &["x", "x"], &["y"], &[])), "onnx-input", "`Where` takes 3 operands, found 2"),
        (one(node("Slice", &[], &["y"], &[])), "onnx-input", "`Slice` takes 1 to 5 operands, found 0"),
        (one(node("Max", &["x", ""], &["y"], &[])), "onnx-input", "needs operand 1, which is absent"),
        (one(node("Abs", &["z"], &["y"], &[])), "onnx-graph", "no value `z` before its use"),
        (one(node("Abs", &["x"], &["x"], &[])), "onnx-graph", "`x` is defined twice"),
        (one(node("Abs", &["x"], &["y", "z"], &[])), "onnx-graph", "names 2 results, the op has 1"),
        (
            one(node("Abs", &["x"], &["y"], &[("axis", int(1))])),
            "onnx-attribute",
            "no attribute `axis` here; it has none",
        ),
        (one(node("Cast", &["x"], &["y"], &[("to", int(8))])), "onnx-attribute", "`to` 8, which is no dtype here"),
        (one(node("Cast", &["x"], &["y"], &[])), "onnx-attribute", "needs an integer as `to`, which is absent"),
        (
            one(node("Gelu", &["x"], &["y"], &[("approximate", Attribute::Text("sin".into()))])),
            "onnx-attribute",
            "needs one of none tanh as `approximate`",
        ),
        (one(node("Softmax", &["x"], &["y"], &[("axis", int(2))])), "bad-axis", "out of range for rank 2"),
        (one(node("And", &["x", "x"], &["y"], &[])), "dtype-mismatch", "`and` needs integers or bools"),
        (one(node("Reshape", &["x", "x"], &["y"], &[])), "onnx-input", "a shape depends on the input `x`"),
    ];
    for (graph, code, words) in cases {
        let error = error(&graph);
        let text = error.to_string();
        assert!(error.code == code && text.contains(words), "expected {code}, {words}, found {text}");
        assert!(!text.contains("src/"), "a line of ours: {text}");
        // What is wrong with the graph as a whole has no node.
        assert!(code == "onnx-input" && words.contains("a shape") || text.contains("node 0"), "{text}");
    }
    let none = OnnxGraph { opset: BTreeMap::new(), ..one(node("Abs", &["x"], &["y"], &[])) };
    assert!(error(&none).to_string().contains("no version of the domain `ai.onnx`"));
}

/// `x.reshape(x.shape[0], -1)` as exporters write it: nothing of it is computed by the program.
#[test]
fn arithmetic_of_shapes_is_done_at_import() {
    let nodes = vec![
        node("Shape", &["x"], &["shape"], &[]),
        node("Gather", &["shape", "zero"], &["rows"], &[]),
        node("Unsqueeze", &["rows", "zeros"], &["row"], &[]),
        node("Concat", &["row", "rest"], &["wanted"], &[("axis", Attribute::Int(0))]),
        node("Reshape", &["x", "wanted"], &["y"], &[]),
    ];
    let zero = Array::from_i64(&[], &[0]).unwrap();
    let constants = [("zero", zero), ("zeros", ints(&[0])), ("rest", ints(&[-1]))];
    let program = OnnxProgram::build(&graph(&[("x", f32s(&[2, 3, 5]))], &constants, nodes), &BTreeMap::new()).unwrap();
    let main = program.module.entry().unwrap();
    assert_eq!(main.ty(main.results[0]).shape, [Dim::from(2), Dim::from(15)]);
    let live = main.live();
    let kinds: Vec<GraphKind> = main.nodes.iter().zip(live).filter(|(_, l)| *l).map(|(n, _)| n.op.kind()).collect();
    assert_eq!(kinds, [GraphKind::Parameter, GraphKind::Reshape]);
}

#[test]
fn inputs_that_decide_shapes_are_no_parameters() {
    let nodes = vec![node("Neg", &["minus"], &["shape"], &[]), node("Expand", &["x", "shape"], &["y"], &[])];
    let graph = graph(&[("x", f32s(&[1])), ("minus", Type::new(DType::I64, [2i64]))], &[], nodes);
    assert!(error(&graph).to_string().contains("a shape depends on the input `minus`"));
    let given = BTreeMap::from([("minus".to_string(), ints(&[-3, -4]))]);
    let program = OnnxProgram::build(&graph, &given).unwrap();
    assert_eq!(program.parameters, ["x"]);
    let x = Array::from_f32(&[1], &[2.5]).unwrap();
    let y = run(&program.module, "main", &[x], &Bindings::new(), Mode::Strict).unwrap().remove(0);
    assert_eq!((y.shape(), y.to_f64().unwrap()), (&[3, 4][..], vec![2.5; 12]));
    let other = BTreeMap::from([("minus".to_string(), ints(&[-3]))]);
    assert!(OnnxProgram::build(&graph, &other).unwrap_err().to_string().contains("is declared as i64[2]"));
}

/// Large initialisers stay parameters, small ones are constants, and large values of constants are left to the program.
#[test]
fn large_tensors_stay_outside() {
    let large = Array::from_f32(&[40, 40], &[0.5; 1600]).unwrap();
    let small = Array::from_f32(&[40], &[0.5; 40]).unwrap();
    let nodes = vec![node("Expand", &["small", "shape"], &["wide"], &[]), node("Add", &["large", "wide"], &["y"], &[])];
    let constants = [("large", large), ("small", small), ("shape", ints(&[40, 40]))];
    let program = OnnxProgram::build(&graph(&[], &constants, nodes), &BTreeMap::new()).unwrap();
    assert_eq!(program.parameters, ["large"]);
    let main = program.module.entry().unwrap();
    let largest = main.nodes.iter().filter_map(|n| match &n.op {
        GraphOp::Constant { value } => Some(value.0.len()),
        _ => None,
    });
    assert_eq!(largest.max(), Some(40));
    assert_eq!(program.arguments(&BTreeMap::new()).unwrap().len(), 1);
}

/// A shape is not computed from a tensor of any size.
#[test]
fn work_at_import_is_bounded() {
    let nodes = vec![
        node("ConstantOfShape", &["huge"], &["many"], &[]),
        node("ReduceSum", &["many"], &["sum"], &[("keepdims", Attribute::Int(0))]),
        node("Cast", &["sum"], &["size"], &[("to", Attribute::Int(7))]),
        node("Expand", &["x", "size"], &["y"], &[]),
    ];
    let graph = graph(&[("x", f32s(&[1]))], &[("huge", ints(&[1 << 20, 1 << 20]))], nodes);
    let error = error(&graph);
    assert!(error.code == "too-large" && error.to_string().contains("node 0"), "{error}");
}

#[test]
fn integers_at_their_edges() {
    let (a, b) = (bytes(&[-128, 127, -7, 7, -7, 5]), bytes(&[-1, 2, 2, -2, 0, 0]));
    let of =
        |op: &str, attributes: &[(&str, Attribute)]| value(op, &[a.clone(), b.clone()], attributes).to_f64().unwrap();
    // Wrap around, toward zero, and nothing by nothing.
    assert_eq!(of("Div", &[]), [-128.0, 63.0, -3.0, -3.0, 0.0, 0.0]);
    assert_eq!(of("Mul", &[]), [-128.0, -2.0, -14.0, -14.0, 0.0, 0.0]);
    assert_eq!(of("Sub", &[]), [-127.0, 125.0, -9.0, 9.0, -7.0, 5.0]);
    // The sign of the divisor, or of the dividend.
    assert_eq!(of("Mod", &[]), [0.0, 1.0, 1.0, -1.0, 0.0, 0.0]);
    assert_eq!(of("Mod", &[("fmod", Attribute::Int(1))]), [0.0, 1.0, -1.0, 1.0, 0.0, 0.0]);
    // Places count from the end in a dtype that cannot hold the size.
    let table = Array::from_i64(&[300], &(0..300).collect::<Vec<i64>>()).unwrap();
    assert_eq!(value("Gather", &[table, bytes(&[-1, 100])], &[]).to_f64().unwrap(), [299.0, 100.0]);
    let large = [f64::NAN, 1e30, -1e30, 200.7, -3.9];
    let cast = |code: i64| {
        value("Cast", &[Array::from_f64(&[5], &large).unwrap()], &[("to", Attribute::Int(code))]).to_f64().unwrap()
    };
    assert_eq!(cast(3), [0.0, 127.0, -128.0, 127.0, -3.0]);
    assert_eq!(cast(2), [0.0, 255.0, 0.0, 200.0, 0.0]);
    assert_eq!(cast(9), [1.0; 5]);
}

/// NaN is the largest, equal elements keep their order.
#[test]
fn the_largest_in_order() {
    let x = Array::from_f32(&[5], &[1.0, f32::NAN, 3.0, 1.0, 3.0]).unwrap();
    let graph =
        graph(&[("x", f32s(&[5]))], &[("k", ints(&[4]))], vec![node("TopK", &["x", "k"], &["values", "ids"], &[])]);
    let program = OnnxProgram::build(&graph, &BTreeMap::new()).unwrap();
    let out = run(&program.module, "main", &[x], &Bindings::new(), Mode::Strict).unwrap();
    assert_eq!(out[1].to_f64().unwrap(), [1.0, 2.0, 4.0, 0.0]);
    assert_eq!(out[0].to_f64().unwrap()[1..], [3.0, 3.0, 1.0]);
}

/// A tuple with one place outside is no place, even where the merged one is inside.
#[test]
fn places_outside_are_errors() {
    let table = Array::from_f32(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let gather = |ids: [i64; 2]| {
        let graph = graph(
            &[("x", f32s(&[2, 3])), ("ids", Type::new(DType::I64, [1i64, 2]))],
            &[],
            vec![node("GatherND", &["x", "ids"], &["y"], &[])],
        );
        let program = OnnxProgram::build(&graph, &BTreeMap::new()).unwrap();
        let ids = Array::from_i64(&[1, 2], &ids).unwrap();
        run(&program.module, "main", &[table.clone(), ids], &Bindings::new(), Mode::Strict)
    };
    assert_eq!(gather([1, -1]).unwrap()[0].to_f64().unwrap(), [5.0]);
    assert_eq!(gather([0, 4]).unwrap_err().code, "index-out-of-range");
    assert_eq!(gather([-3, 0]).unwrap_err().code, "index-out-of-range");
}

#[test]
fn what_is_left_out_has_no_row() {
    for row in LEFT_OUT {
        assert!(row.ops.is_sorted() && !row.reason.is_empty(), "{row:?}");
        for op in row.ops {
            let node = OnnxNode { op: op.to_string(), domain: row.domain.into(), ..OnnxNode::default() };
            assert_eq!(table::find(0, &node).is_ok(), !row.without.is_empty(), "{op}");
            let graph = OnnxGraph { nodes: vec![node.clone()], ..OnnxGraph::default() };
            assert_eq!(left_out(&graph), Some((*op, row.reason)));
            let with = BTreeMap::from([(row.without.to_string(), Attribute::Float(0.5))]);
            let graph = OnnxGraph { nodes: vec![OnnxNode { attributes: with, ..node }], ..OnnxGraph::default() };
            assert_eq!(left_out(&graph).is_none(), !row.without.is_empty(), "{op}");
        }
    }
}

const TEXT: &str = r#"{"opset": {"ai.onnx": 18}, "inputs": ["x"], "outputs": ["y", "s", "z"], "nodes": [
  {"op": "Constant", "domain": "", "inputs": [], "outputs": ["c"],
   "attrs": {"value": {"dtype": "float32", "shape": [2, 1], "values": [-Infinity, NaN]}}},
  {"op": "Constant", "domain": "", "inputs": [], "outputs": ["i"],
   "attrs": {"value": {"dtype": "int64", "shape": [2], "values": [1, 1]}}},
  {"op": "Add", "domain": "", "inputs": ["x", "c"], "outputs": ["Infinity \"NaN\\"], "attrs": {}},
  {"op": "Transpose", "domain": "", "inputs": ["Infinity \"NaN\\"], "outputs": ["y"], "attrs": {"perm": [1, 0]}},
  {"op": "Slice", "domain": "ai.onnx", "inputs": ["y", "i", "i", "", "i"], "outputs": ["e"], "attrs": {}},
  {"op": "Split", "domain": "", "inputs": ["y"], "outputs": ["s", "t", "u"], "attrs": {"axis": 0, "num_outputs": 3}},
  {"op": "Expand", "domain": "", "inputs": ["x", "i"], "outputs": ["z"], "attrs": {}}]}"#;

#[test]
fn numbers_of_python_are_read() {
    let graph = json::parse(TEXT).unwrap();
    let Some(Attribute::Tensor(value)) = graph.nodes[0].attributes.get("value") else { panic!("no tensor") };
    let numbers = value.to_f64().unwrap();
    assert!(numbers[0] == f64::NEG_INFINITY && numbers[1].is_nan());
    // In texts they are words.
    assert_eq!(graph.nodes[2].outputs, ["Infinity \"NaN\\"]);
    let broken = json::parse(r#"{"opset": {}, "inputs": [], "outputs": [], "nodes": [{"op": NaN}]}"#).unwrap_err();
    assert!(broken.code == "onnx-json" && broken.to_string().contains("node 0"), "{broken}");
}

/// Bytes of a graph changed at random: an error or a program, never a panic.
#[test]
fn hostile_text_is_an_error() {
    let mut state = 17u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let words =
        ["-1", "9223372036854775807", "4294967296", "NaN", "\"x\"", "[]", "{}", "null", "0", "\\", "\"", "1e999"];
    let ops =
        ["Reshape", "Pad", "Tile", "TopK", "Range", "OneHot", "Squeeze", "Einsum", "GatherND", "Attention", "Gemm"];
    let (mut programs, mut errors) = (0, 0);
    for round in 0..3000 {
        let mut text = TEXT.to_owned();
        // The first is as it should be.
        for _ in 0..if round == 0 { 0 } else { 1 + random(2) } {
            let at = random(text.len());
            let end = (at + random(4)).min(text.len());
            text.replace_range(at..end, words[random(words.len())]);
        }
        if round % 3 == 1 {
            let known = ["Constant", "Add", "Transpose", "Slice", "Split", "Expand"];
            text = TEXT
                .replace(&format!("\"{}\"", known[random(known.len())]), &format!("\"{}\"", ops[random(ops.len())]));
        }
        let built = json::parse(&text).and_then(|mut graph| {
            graph.inputs.iter_mut().for_each(|(_, ty)| *ty = f32s(&[2, 3]));
            OnnxProgram::build(&graph, &BTreeMap::new())
        });
        match built {
            Ok(_) => programs += 1,
            Err(error) => {
                assert!(round > 0, "{error}");
                errors += 1;
            }
        }
    }
    assert!(programs > 20 && errors > 1000, "{programs} programs, {errors} errors");
}
