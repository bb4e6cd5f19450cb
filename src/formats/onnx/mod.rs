//! ONNX graphs: from a neutral parsed form to Graph IR.
//!
//! Whoever reads a file fills an [`OnnxGraph`]; [`OnnxProgram::build`] maps it, op by op, by the table of `table.rs`.
//! Sizes are known at import: values that decide shapes (those of `Reshape`, `Slice`, .. and whatever they are computed
//! from) are evaluated by the reference interpreter while the graph is built, as is every node of small constants. Graph
//! inputs on which a shape depends must be given; the program is one for these values, and has no such parameter.

mod attention;
mod call;
mod demand;
mod elementwise;
mod import;
mod index;
mod json;
mod left_out;
mod linear;
mod loss;
mod movement;
mod norm;
mod optimizer;
mod quantise;
mod reduce;
mod shape;
mod sort;
mod table;

use super::Safetensors;
use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::graph::Module;
use tilewright_ir::types::Type;

pub use left_out::{LEFT_OUT, LeftOut, left_out};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// Integers; also the list of nothing.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f64>),
    /// A tensor.
    Tensor(Array),
    /// What no op of the table takes, by its kind: a graph, texts.
    Other(String),
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxNode {
    /// Name of the op, such as `Gather`.
    pub op: String,
    /// Domain of the op; empty or `ai.onnx` for the standard ops.
    pub domain: String,
    /// Names of the operands, empty for an absent one.
    pub inputs: Vec<String>,
    /// Names of the results, empty for one that nobody wants.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// A parsed graph, whatever file it comes from.
#[derive(Clone, Debug, Default)]
pub struct OnnxGraph {
    /// Version of each domain's ops; the standard domain is `ai.onnx`.
    pub opset: BTreeMap<String, i64>,
    /// Nodes, each after those whose results it uses.
    pub nodes: Vec<OnnxNode>,
    /// Inputs with their types, all sizes known.
    pub inputs: Vec<(String, Type)>,
    /// Names of the results.
    pub outputs: Vec<String>,
    /// Tensors that belong to the graph.
    pub initialisers: BTreeMap<String, Array>,
}

/// A graph that was mapped.
#[derive(Clone, Debug)]
pub struct OnnxProgram {
    /// A module with the function `main`.
    pub module: Module,
    /// Names of the parameters, in order: inputs that are left, then large initialisers.
    pub parameters: Vec<String>,
    /// Names of the results, in order.
    pub outputs: Vec<String>,
    weights: BTreeMap<String, Array>,
}

impl OnnxProgram {
    /// Maps `graph`; `given` has values of inputs on which shapes depend, others in it are not looked at.
    ///
    /// Errors: `onnx-op` (not in the table), `onnx-attribute`, `onnx-input` (a wrong number of operands, a value that is
    /// not known), `onnx-graph` (names without values), and those of type inference, with the node as place.
    pub fn build(graph: &OnnxGraph, given: &BTreeMap<String, Array>) -> Result<OnnxProgram, Diagnostic> {
        import::build(graph, given)
    }

    /// Maps the graph of a file of reference data: safetensors with the graph as JSON under the key `onnx`, its inputs as
    /// tensors `in.NAME` and its initialisers as `init.NAME`. Gives the arguments of the parameters, too.
    ///
    /// Errors: `onnx-json`, `checkpoint-tensor`, `checkpoint-dtype`, those of [`OnnxProgram::build`].
    pub fn from_file(file: &Safetensors) -> Result<(OnnxProgram, Vec<Array>), Diagnostic> {
        let read = || {
            let (graph, inputs) = json::read(file)?;
            let program = OnnxProgram::build(&graph, &inputs)?;
            let arguments = program.arguments(&inputs)?;
            Ok((program, arguments))
        };
        read().map_err(|d: Diagnostic| d.at(Place::Named(file.file.as_str().into()), ""))
    }

    /// One array per parameter. Errors: `onnx-input` for an input that is absent from `inputs`.
    pub fn arguments(&self, inputs: &BTreeMap<String, Array>) -> Result<Vec<Array>, Diagnostic> {
        let find = |name: &String| {
            let found = self.weights.get(name).or_else(|| inputs.get(name));
            let absent = || Diagnostic::new("onnx-input", format!("no value for the input {}", super::shown(name)));
            found.cloned().ok_or_else(absent)
        };
        self.parameters.iter().map(find).collect()
    }
}

impl OnnxGraph {
    /// The graph of a file of reference data, see [`OnnxProgram::from_file`]. Errors: `onnx-json`, `checkpoint-tensor`,
    /// `checkpoint-dtype`.
    pub fn from_file(file: &Safetensors) -> Result<OnnxGraph, Diagnostic> {
        json::read(file).map(|(graph, _)| graph)
    }

    /// Whether the file has a graph for [`OnnxProgram::from_file`].
    pub fn is_in(file: &Safetensors) -> bool {
        file.metadata.contains_key(json::KEY)
    }
}

#[cfg(test)]
mod tests;
