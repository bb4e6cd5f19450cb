//! The table of ops: which there are, how many operands each takes, which of these must be known, and what builds it.

use super::super::shown;
use super::call::Call;
use super::{
    OnnxNode, attention, elementwise, index, left_out, linear, loss, movement, norm, optimizer, quantise, reduce,
    shape, sort,
};
use tilewright_ir::array::Array;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::dsl::Tensor;

/// What builds an op.
#[derive(Clone, Copy)]
pub(super) enum Build {
    /// One result.
    One(fn(&Call) -> Result<Tensor, Diagnostic>),
    /// Several results.
    Many(fn(&Call) -> Result<Vec<Tensor>, Diagnostic>),
    /// A result that follows from attributes and from types of the operands, and is known at import.
    Known(fn(&Call) -> Result<Array, Diagnostic>),
}
use Build::{Known, Many, One};

/// An op.
pub(super) struct Row {
    /// Its domain; empty for the standard one.
    pub(super) domain: &'static str,
    /// Its name.
    pub(super) op: &'static str,
    /// The least and the largest number of operands.
    pub(super) operands: (usize, usize),
    /// Operands whose values must be known, as they decide shapes.
    pub(super) values: &'static [usize],
    /// What builds it.
    pub(super) build: Build,
}

/// Any number of operands.
const ANY: usize = usize::MAX;

const fn row(op: &'static str, least: usize, most: usize, values: &'static [usize], build: Build) -> Row {
    Row { domain: "", op, operands: (least, most), values, build }
}

/// The domain of optimisers.
pub(super) const TRAINING: &str = "ai.onnx.preview.training";

const fn training(op: &'static str, build: Build) -> Row {
    Row { domain: TRAINING, op, operands: (2, ANY), values: &[], build }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    row("Abs", 1, 1, &[], One(|c| Ok(c.tensor(0)?.abs()))),
    row("Add", 2, 2, &[], One(|c| Ok(c.tensor(0)? + c.tensor(1)?))),
    row("And", 2, 2, &[], One(|c| Ok(c.tensor(0)? & c.tensor(1)?))),
    row("ArgMax", 1, 1, &[], One(|c| sort::arg(c, true))),
    row("ArgMin", 1, 1, &[], One(|c| sort::arg(c, false))),
    row("Attention", 3, 7, &[], Many(attention::attention)),
    row("Cast", 1, 1, &[], One(elementwise::cast)),
    row("CastLike", 2, 2, &[], One(elementwise::cast_like)),
    row("Ceil", 1, 1, &[], One(|c| Ok(c.tensor(0)?.ceil()))),
    row("Clip", 1, 3, &[], One(elementwise::clip)),
    row("Concat", 1, ANY, &[], One(movement::concatenate)),
    row("Constant", 0, 0, &[], Known(shape::constant)),
    row("ConstantOfShape", 1, 1, &[0], One(shape::constant_of_shape)),
    row("Cos", 1, 1, &[], One(|c| Ok(c.tensor(0)?.cos()))),
    row("CumSum", 2, 2, &[1], One(sort::cumsum)),
    row("DequantizeLinear", 2, 3, &[], One(quantise::dequantise)),
    row("Div", 2, 2, &[], One(|c| Ok(c.tensor(0)? / c.tensor(1)?))),
    row("DynamicQuantizeLinear", 1, 1, &[], Many(quantise::dynamic)),
    row("Einsum", 1, ANY, &[], One(linear::einsum)),
    row("Equal", 2, 2, &[], One(|c| Ok(c.tensor(0)?.eq(c.tensor(1)?)))),
    row("Erf", 1, 1, &[], One(|c| Ok(c.tensor(0)?.erf()))),
    row("Exp", 1, 1, &[], One(|c| Ok(c.tensor(0)?.exp()))),
    row("Expand", 2, 2, &[1], One(movement::expand)),
    row("EyeLike", 1, 1, &[], One(shape::eye_like)),
    row("Flatten", 1, 1, &[], One(movement::flatten)),
    row("Floor", 1, 1, &[], One(|c| Ok(c.tensor(0)?.floor()))),
    row("Gather", 2, 2, &[], One(index::gather)),
    row("GatherElements", 2, 2, &[], One(index::gather_elements)),
    row("GatherND", 2, 2, &[], One(index::gather_nd)),
    row("Gelu", 1, 1, &[], One(elementwise::gelu)),
    row("Gemm", 2, 3, &[], One(linear::gemm)),
    row("Greater", 2, 2, &[], One(|c| Ok(c.tensor(0)?.gt(c.tensor(1)?)))),
    row("GreaterOrEqual", 2, 2, &[], One(|c| Ok(c.tensor(0)?.ge(c.tensor(1)?)))),
    row("Identity", 1, 1, &[], One(|c| c.tensor(0))),
    row("IsInf", 1, 1, &[], One(elementwise::is_inf)),
    row("IsNaN", 1, 1, &[], One(|c| Ok(c.tensor(0)?.is_nan()))),
    row("LayerNormalization", 2, 3, &[], Many(norm::layer_norm)),
    row("LeakyRelu", 1, 1, &[], One(elementwise::leaky_relu)),
    row("Less", 2, 2, &[], One(|c| Ok(c.tensor(0)?.lt(c.tensor(1)?)))),
    row("LessOrEqual", 2, 2, &[], One(|c| Ok(c.tensor(0)?.le(c.tensor(1)?)))),
    row("Log", 1, 1, &[], One(|c| Ok(c.tensor(0)?.log()))),
    row("LogSoftmax", 1, 1, &[], One(|c| norm::softmax(c, true))),
    row("MatMul", 2, 2, &[], One(|c| Ok(c.tensor(0)?.matmul(&c.tensor(1)?)))),
    row("MatMulInteger", 2, 4, &[], One(linear::matmul_integer)),
    row("Max", 1, ANY, &[], One(|c| elementwise::fold(c, |x, y| x.maximum(y)))),
    row("Mean", 1, ANY, &[], One(elementwise::mean)),
    row("Min", 1, ANY, &[], One(|c| elementwise::fold(c, |x, y| x.minimum(y)))),
    row("Mod", 2, 2, &[], One(elementwise::modulo)),
    row("Mul", 2, 2, &[], One(|c| Ok(c.tensor(0)? * c.tensor(1)?))),
    row("Neg", 1, 1, &[], One(|c| Ok(-c.tensor(0)?))),
    row("NegativeLogLikelihoodLoss", 2, 3, &[], One(loss::nll)),
    row("Not", 1, 1, &[], One(|c| Ok(!c.tensor(0)?))),
    row("OneHot", 3, 3, &[1], One(index::one_hot)),
    row("Or", 2, 2, &[], One(|c| Ok(c.tensor(0)? | c.tensor(1)?))),
    row("Pad", 1, 4, &[1, 3], One(movement::pad)),
    row("Pow", 2, 2, &[], One(elementwise::power)),
    row("QuantizeLinear", 2, 3, &[], One(quantise::quantise)),
    row("RMSNormalization", 2, 2, &[], One(norm::rms_norm)),
    row("Range", 3, 3, &[0, 1, 2], One(shape::range)),
    row("Reciprocal", 1, 1, &[], One(|c| Ok(1.0 / c.tensor(0)?))),
    row("ReduceL1", 1, 2, &[1], One(reduce::l1)),
    row("ReduceL2", 1, 2, &[1], One(reduce::l2)),
    row("ReduceLogSum", 1, 2, &[1], One(reduce::log_sum)),
    row("ReduceLogSumExp", 1, 2, &[1], One(reduce::log_sum_exp)),
    row("ReduceMax", 1, 2, &[1], One(reduce::max)),
    row("ReduceMean", 1, 2, &[1], One(reduce::mean)),
    row("ReduceMin", 1, 2, &[1], One(reduce::min)),
    row("ReduceProd", 1, 2, &[1], One(reduce::prod)),
    row("ReduceSum", 1, 2, &[1], One(reduce::sum)),
    row("ReduceSumSquare", 1, 2, &[1], One(reduce::sum_square)),
    row("Relu", 1, 1, &[], One(|c| Ok(c.tensor(0)?.relu()))),
    row("Reshape", 2, 2, &[1], One(movement::reshape)),
    row("RotaryEmbedding", 3, 4, &[], One(attention::rotary)),
    row("Round", 1, 1, &[], One(|c| Ok(c.tensor(0)?.round()))),
    row("ScatterElements", 3, 3, &[], One(index::scatter_elements)),
    row("ScatterND", 3, 3, &[], One(index::scatter_nd)),
    row("Shape", 1, 1, &[], Known(shape::shape)),
    row("Sigmoid", 1, 1, &[], One(|c| Ok(c.tensor(0)?.sigmoid()))),
    row("Sign", 1, 1, &[], One(|c| Ok(c.tensor(0)?.sign()))),
    row("Sin", 1, 1, &[], One(|c| Ok(c.tensor(0)?.sin()))),
    row("Size", 1, 1, &[], Known(shape::size)),
    row("Slice", 1, 5, &[1, 2, 3, 4], One(movement::slice)),
    row("Softmax", 1, 1, &[], One(|c| norm::softmax(c, false))),
    row("SoftmaxCrossEntropyLoss", 2, 3, &[], Many(loss::softmax_cross_entropy)),
    row("Softplus", 1, 1, &[], One(|c| Ok(c.tensor(0)?.softplus()))),
    row("Split", 1, 2, &[1], Many(movement::split)),
    row("Sqrt", 1, 1, &[], One(|c| Ok(c.tensor(0)?.sqrt()))),
    row("Squeeze", 1, 2, &[1], One(movement::squeeze)),
    row("Sub", 2, 2, &[], One(|c| Ok(c.tensor(0)? - c.tensor(1)?))),
    row("Sum", 1, ANY, &[], One(|c| elementwise::fold(c, |x, y| x + y))),
    row("Swish", 1, 1, &[], One(elementwise::swish)),
    row("Tanh", 1, 1, &[], One(|c| Ok(c.tensor(0)?.tanh()))),
    row("TensorScatter", 2, 3, &[], One(index::tensor_scatter)),
    row("Tile", 2, 2, &[1], One(movement::tile)),
    row("TopK", 1, 2, &[1], Many(sort::top_k)),
    row("Transpose", 1, 1, &[], One(movement::transpose)),
    row("Trilu", 1, 2, &[1], One(shape::trilu)),
    row("Unsqueeze", 1, 2, &[1], One(movement::unsqueeze)),
    row("Where", 3, 3, &[], One(|c| Ok(c.tensor(0)?.select(c.tensor(1)?, c.tensor(2)?)))),
    row("Xor", 2, 2, &[], One(|c| Ok(c.tensor(0)? ^ c.tensor(1)?))),
    training("Adagrad", Many(optimizer::adagrad)),
    training("Adam", Many(optimizer::adam)),
    training("Momentum", Many(optimizer::momentum)),
];

impl Row {
    /// Refuses a wrong number of operands.
    pub(super) fn check(&self, node: &OnnxNode) -> Result<(), Diagnostic> {
        let ((least, most), found) = (self.operands, node.inputs.len());
        if (least..=most).contains(&found) {
            return Ok(());
        }
        let want = match most {
            ANY => format!("{least} or more"),
            _ if least == most => least.to_string(),
            _ => format!("{least} to {most}"),
        };
        Err(Diagnostic::new("onnx-input", format!("{} takes {want} operands, found {found}", shown(self.op))))
    }
}

/// The row of a node's op. Errors: `onnx-op`, with the reason if the op is left out.
pub(super) fn find(number: usize, node: &OnnxNode) -> Result<&'static Row, Diagnostic> {
    let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
    let found = TABLE.iter().find(|r| r.op == node.op && r.domain == domain);
    found.ok_or_else(|| {
        let name = if domain.is_empty() { node.op.clone() } else { format!("{domain}.{}", node.op) };
        let mut error = Diagnostic::new("onnx-op", format!("there is no op {} here", shown(&name)));
        if let Some(row) = left_out::row(node) {
            error = error.note(format!("it is left out: {}", row.reason));
        }
        let near: Vec<&str> = TABLE.iter().map(|r| r.op).filter(|o| o.eq_ignore_ascii_case(&node.op)).collect();
        if !near.is_empty() {
            error = error.note(format!("there is {}", near.join(", ")));
        }
        placed(error, number, node)
    })
}

/// The error with its node, once.
pub(super) fn placed(error: Diagnostic, number: usize, node: &OnnxNode) -> Diagnostic {
    let place = Place::Named(format!("node {number}").into());
    if error.labels.iter().any(|(p, _)| *p == place) {
        return error;
    }
    let names = |list: &[String]| list.iter().map(|n| shown(n)).collect::<Vec<_>>().join(", ");
    error.at(place, format!("{} = {}({})", names(&node.outputs), shown(&node.op), names(&node.inputs)))
}
