//! One node while it is built: its operands, attributes, and the words of its errors.

use super::super::shown;
use super::{Attribute, OnnxNode};
use std::cell::RefCell;
use std::collections::BTreeSet;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::types::{DType, Dim};

/// An operand: a tensor of the graph, and its value where that is known.
#[derive(Clone)]
pub(super) struct Operand {
    pub(super) tensor: Tensor,
    pub(super) value: Option<Array>,
}

/// One node while it is built.
pub(super) struct Call<'a> {
    /// Where its primitives go.
    pub(super) graph: &'a Graph,
    /// Version of the op's domain.
    pub(super) opset: i64,
    node: &'a OnnxNode,
    operands: Vec<Option<Operand>>,
    read: RefCell<BTreeSet<&'static str>>,
}

type Found<T> = Result<T, Diagnostic>;

impl<'a> Call<'a> {
    pub(super) fn new(graph: &'a Graph, opset: i64, node: &'a OnnxNode, operands: Vec<Option<Operand>>) -> Call<'a> {
        Call { graph, opset, node, operands, read: RefCell::default() }
    }

    /// Number of operands, absent ones between others among them.
    pub(super) fn count(&self) -> usize {
        self.operands.len()
    }

    /// Number of results that the node names.
    pub(super) fn results(&self) -> usize {
        self.node.outputs.len()
    }

    /// An error about this op.
    pub(super) fn wrong(&self, code: &'static str, message: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::new(code, format!("{} {message}", shown(&self.node.op)))
    }

    /// A shape that does not fit.
    pub(super) fn misfit(&self, message: impl std::fmt::Display) -> Diagnostic {
        self.wrong("shape-mismatch", message)
    }

    fn operand(&self, index: usize) -> Option<&Operand> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// Operand `index`, if it is there.
    pub(super) fn maybe(&self, index: usize) -> Option<Tensor> {
        self.operand(index).map(|o| o.tensor.clone())
    }

    /// Operand `index`.
    pub(super) fn tensor(&self, index: usize) -> Found<Tensor> {
        self.maybe(index).ok_or_else(|| self.wrong("onnx-input", format!("needs operand {index}, which is absent")))
    }

    /// All operands, none absent.
    pub(super) fn tensors(&self) -> Found<Vec<Tensor>> {
        (0..self.count()).map(|i| self.tensor(i)).collect()
    }

    /// The value of operand `index`, if it is known.
    pub(super) fn known(&self, index: usize) -> Option<&Array> {
        self.operand(index).and_then(|o| o.value.as_ref())
    }

    /// The value of operand `index`.
    pub(super) fn array(&self, index: usize) -> Found<&Array> {
        let message = || format!("needs the value of operand {index} at import: it decides the shape of the result");
        self.tensor(index)?;
        self.known(index).ok_or_else(|| self.wrong("onnx-input", message()))
    }

    /// The integers of operand `index`, a known list or scalar; `None` if it is absent.
    pub(super) fn maybe_ints(&self, index: usize) -> Found<Option<Vec<i64>>> {
        if self.operand(index).is_none() {
            return Ok(None);
        }
        let array = self.array(index)?;
        let message = || format!("needs integers as operand {index}, found {}{:?}", array.dtype(), array.shape());
        if array.shape().len() > 1 {
            return Err(self.wrong("onnx-input", message()));
        }
        integers(array).map(Some).ok_or_else(|| self.wrong("onnx-input", message()))
    }

    /// The integers of operand `index`, a known list or scalar.
    pub(super) fn ints(&self, index: usize) -> Found<Vec<i64>> {
        self.tensor(index)?;
        Ok(self.maybe_ints(index)?.unwrap_or_default())
    }

    /// The one integer of operand `index`; `default` if it is absent.
    pub(super) fn int_operand(&self, index: usize, default: i64) -> Found<i64> {
        let Some(list) = self.maybe_ints(index)? else { return Ok(default) };
        let [one] = list[..] else {
            let message = format!("needs one integer as operand {index}, found {}", list.len());
            return Err(self.wrong("onnx-input", message));
        };
        Ok(one)
    }

    fn attribute(&self, key: &'static str) -> Option<&Attribute> {
        self.read.borrow_mut().insert(key);
        self.node.attributes.get(key)
    }

    fn bad(&self, key: &str, want: &str, found: &Attribute) -> Diagnostic {
        self.wrong("onnx-attribute", format!("needs {want} as `{key}`, found {found:?}"))
    }

    fn absent(&self, key: &str, want: &str) -> Diagnostic {
        self.wrong("onnx-attribute", format!("needs {want} as `{key}`, which is absent"))
    }

    /// An integer that may be absent.
    pub(super) fn maybe_int(&self, key: &'static str) -> Found<Option<i64>> {
        match self.attribute(key) {
            None => Ok(None),
            Some(Attribute::Int(i)) => Ok(Some(*i)),
            Some(found) => Err(self.bad(key, "an integer", found)),
        }
    }

    /// An integer.
    pub(super) fn int(&self, key: &'static str, default: i64) -> Found<i64> {
        Ok(self.maybe_int(key)?.unwrap_or(default))
    }

    /// An integer that must be there.
    pub(super) fn needed_int(&self, key: &'static str) -> Found<i64> {
        self.maybe_int(key)?.ok_or_else(|| self.absent(key, "an integer"))
    }

    /// Truth as 0 or 1.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> Found<bool> {
        Ok(self.int(key, i64::from(default))? != 0)
    }

    /// A number that may be absent.
    pub(super) fn maybe_float(&self, key: &'static str) -> Found<Option<f64>> {
        match self.attribute(key) {
            None => Ok(None),
            Some(Attribute::Float(x)) => Ok(Some(*x)),
            Some(Attribute::Int(i)) => Ok(Some(*i as f64)),
            Some(found) => Err(self.bad(key, "a number", found)),
        }
    }

    /// A number.
    pub(super) fn float(&self, key: &'static str, default: f64) -> Found<f64> {
        Ok(self.maybe_float(key)?.unwrap_or(default))
    }

    /// A number that must be there.
    pub(super) fn needed_float(&self, key: &'static str) -> Found<f64> {
        self.maybe_float(key)?.ok_or_else(|| self.absent(key, "a number"))
    }

    /// One of the words of `allowed`; the first if it is absent.
    pub(super) fn word(&self, key: &'static str, allowed: &[&'static str]) -> Found<&'static str> {
        let found = match self.attribute(key) {
            None => return Ok(allowed.first().copied().unwrap_or_default()),
            Some(Attribute::Text(text)) => allowed.iter().copied().find(|a| a == text),
            Some(_) => None,
        };
        let message = || {
            let found = self.node.attributes.get(key);
            format!("needs one of {} as `{key}`, found {found:?}", allowed.join(" "))
        };
        found.ok_or_else(|| self.wrong("onnx-attribute", message()))
    }

    /// A text that must be there.
    pub(super) fn text(&self, key: &'static str) -> Found<&str> {
        match self.attribute(key) {
            Some(Attribute::Text(text)) => Ok(text),
            Some(found) => Err(self.bad(key, "a text", found)),
            None => Err(self.absent(key, "a text")),
        }
    }

    /// Integers, or `None` if absent.
    pub(super) fn int_list(&self, key: &'static str) -> Found<Option<Vec<i64>>> {
        match self.attribute(key) {
            None => Ok(None),
            Some(Attribute::Ints(list)) => Ok(Some(list.clone())),
            Some(found) => Err(self.bad(key, "a list of integers", found)),
        }
    }

    /// Numbers, or `None` if absent.
    pub(super) fn float_list(&self, key: &'static str) -> Found<Option<Vec<f64>>> {
        match self.attribute(key) {
            None => Ok(None),
            Some(Attribute::Floats(list)) => Ok(Some(list.clone())),
            Some(Attribute::Ints(list)) => Ok(Some(list.iter().map(|&i| i as f64).collect())),
            Some(found) => Err(self.bad(key, "a list of numbers", found)),
        }
    }

    /// A tensor, or `None` if absent.
    pub(super) fn tensor_attribute(&self, key: &'static str) -> Found<Option<Array>> {
        match self.attribute(key) {
            None => Ok(None),
            Some(Attribute::Tensor(array)) => Ok(Some(array.clone())),
            Some(found) => Err(self.bad(key, "a tensor", found)),
        }
    }

    /// Integers that older opsets have as an attribute and newer ones as operand `index`.
    pub(super) fn ints_of(&self, index: usize, key: &'static str) -> Found<Option<Vec<i64>>> {
        match self.int_list(key)? {
            Some(list) => Ok(Some(list)),
            None => self.maybe_ints(index),
        }
    }

    /// The dtype with ONNX's number `code`.
    pub(super) fn dtype(&self, key: &str, code: i64) -> Found<DType> {
        let found = CODES.iter().find(|(c, _)| *c == code).map(|(_, d)| *d);
        found.ok_or_else(|| {
            let known: Vec<String> = CODES.iter().map(|(c, d)| format!("{c} ({d})")).collect();
            let message = format!("has `{key}` {code}, which is no dtype here; there are {}", known.join(", "));
            self.wrong("onnx-attribute", message)
        })
    }

    /// Refuses attributes that nobody looked at.
    pub(super) fn all_read(&self) -> Found<()> {
        let read = self.read.borrow();
        let Some(unknown) = self.node.attributes.keys().find(|k| !read.contains(k.as_str())) else { return Ok(()) };
        let known: Vec<&str> = read.iter().copied().collect();
        let known = if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) };
        Err(self.wrong("onnx-attribute", format!("has no attribute {} here; {known}", shown(unknown))))
    }

    /// The axis that `axis`, perhaps negative, means.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Found<usize> {
        let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        let found = from_start.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank);
        found.ok_or_else(|| self.wrong("bad-axis", format!("has the axis {axis}, out of range for rank {rank}")))
    }

    /// Axes without signs, sorted, each once.
    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Found<Vec<usize>> {
        let mut out = axes.iter().map(|&a| self.axis(a, rank)).collect::<Found<Vec<usize>>>()?;
        out.sort_unstable();
        match out.windows(2).find(|w| w[0] == w[1]) {
            Some(w) => Err(self.wrong("bad-axis", format!("has the axis {} twice in {axes:?}", w[0]))),
            None => Ok(out),
        }
    }

    /// Sizes, all known. Errors: also the mistake that `x` comes from.
    pub(super) fn shape(&self, x: &Tensor) -> Found<Vec<i64>> {
        if x.is_poisoned() {
            return Err(mistake(self.graph));
        }
        let sizes = x.shape().iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
        sizes.ok_or_else(|| self.wrong("onnx-input", format!("needs known sizes, found {}", x.ty())))
    }

    /// Sizes of `x`, whose rank must be `rank`.
    pub(super) fn sizes<const N: usize>(&self, x: &Tensor, what: &str) -> Found<[i64; N]> {
        let shape = self.shape(x)?;
        let found = shape.len();
        shape.try_into().map_err(|_| self.misfit(format!("needs {N} axes of {what}, found {found}")))
    }

    /// The product of sizes.
    pub(super) fn product(&self, sizes: &[i64]) -> Found<i64> {
        let product = sizes.iter().try_fold(1i64, |n, &d| n.checked_mul(d));
        product.ok_or_else(|| self.wrong("dim-overflow", "has a size that does not fit in 64 bits"))
    }
}

/// ONNX's numbers of dtypes.
const CODES: &[(i64, DType)] = &[
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (16, DType::Bf16),
];

/// The mistake of a graph under construction, without lines of ours.
pub(super) fn mistake(graph: &Graph) -> Diagnostic {
    let Err(mut found) = graph.finish(&[]) else { return Diagnostic::bug("a poisoned tensor without a mistake") };
    found.labels.retain(|(place, _)| !matches!(place, tilewright_ir::diag::Place::Rust { .. }));
    found
}

/// The elements of an integer array that fit in 64 bits with sign.
pub(super) fn integers(array: &Array) -> Option<Vec<i64>> {
    let bytes: &[u8] = array.bytes();
    Some(match array.dtype() {
        DType::I64 => bytes.as_chunks().0.iter().map(|c| i64::from_le_bytes(*c)).collect(),
        DType::U64 => {
            let each = bytes.as_chunks().0.iter().map(|c| i64::try_from(u64::from_le_bytes(*c)).ok());
            each.collect::<Option<Vec<i64>>>()?
        }
        // Exact in f64.
        dtype if dtype.is_int() => array.to_f64()?.into_iter().map(|x| x as i64).collect(),
        _ => return None,
    })
}

/// A list of integers as an array.
pub(super) fn int_array(list: &[i64]) -> Result<Array, Diagnostic> {
    Array::from_i64(&[list.len()], list)
}

/// The largest (or smallest) number of a dtype, as a scalar.
pub(super) fn extreme(dtype: DType, largest: bool) -> Result<Array, Diagnostic> {
    let bytes = dtype.block().1;
    let data = if dtype.is_float() {
        let x = if largest { f64::INFINITY } else { f64::NEG_INFINITY };
        match dtype {
            DType::F64 => x.to_le_bytes().to_vec(),
            DType::F32 => (x as f32).to_le_bytes().to_vec(),
            DType::F16 => half::f16::from_f64(x).to_le_bytes().to_vec(),
            _bf16 => half::bf16::from_f64(x).to_le_bytes().to_vec(),
        }
    } else if dtype == DType::Bool {
        vec![u8::from(largest)]
    } else {
        let mut data = vec![if largest { 0xff } else { 0 }; bytes];
        if dtype.is_signed() {
            data[bytes - 1] ^= 0x80;
        }
        data
    };
    Array::new(dtype, &[], Bytes::new(data))
}
