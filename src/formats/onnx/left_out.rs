//! Ops that are left out on purpose, and why. A runner of foreign graphs skips what is listed here, and nothing else.

use super::table::TRAINING;
use super::{OnnxGraph, OnnxNode};

/// Ops that are left out for one reason.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// Domain of the ops; empty for the standard one.
    pub domain: &'static str,
    /// Names of the ops.
    pub ops: &'static [&'static str],
    /// The attribute without which they are left out; with it they are not. Empty: always.
    pub without: &'static str,
    /// Why they are left out.
    pub reason: &'static str,
}

/// All that is left out.
#[rustfmt::skip]
pub const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        domain: "",
        ops: &["If", "Loop", "Scan"],
        without: "",
        reason: "control flow with subgraphs",
    },
    LeftOut {
        domain: "",
        ops: &["Compress", "NonMaxSuppression", "NonZero", "Unique"],
        without: "",
        reason: "the shape of the result depends on data",
    },
    LeftOut {
        domain: "",
        ops: &["ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
               "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
               "SequenceMap", "SplitToSequence"],
        without: "",
        reason: "values that are no tensors",
    },
    LeftOut {
        domain: "",
        ops: &["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"],
        without: "",
        reason: "strings",
    },
    LeftOut {
        domain: "",
        ops: &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
        without: "",
        reason: "random numbers",
    },
    LeftOut {
        domain: "",
        ops: &["ConvInteger", "QLinearConv", "QLinearMatMul"],
        without: "",
        reason: "quantised products with a rounding of their own",
    },
    LeftOut {
        domain: TRAINING,
        ops: &["Adam"],
        without: "epsilon",
        reason: "the default of the specification, 1e-6, is not the 1e-2 that ONNX's own test of it expects",
    },
];

/// The row of a node's op.
pub(super) fn row(node: &OnnxNode) -> Option<&'static LeftOut> {
    let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
    let has = |attribute: &str| !attribute.is_empty() && node.attributes.contains_key(attribute);
    let fits = |row: &&LeftOut| row.domain == domain && row.ops.contains(&node.op.as_str()) && !has(row.without);
    LEFT_OUT.iter().find(fits)
}

/// The first op of a graph that is left out, with the reason.
pub fn left_out(graph: &OnnxGraph) -> Option<(&str, &'static str)> {
    graph.nodes.iter().find_map(|node| row(node).map(|r| (node.op.as_str(), r.reason)))
}
