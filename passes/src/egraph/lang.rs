//! The index language: an e-class is a scalar function of named axes. Attributes are leaf children, so that patterns can
//! bind an axis or a map like any other operand.

use egg::{Id, Language};
use smallvec::{SmallVec, smallvec};
use std::fmt;
use tilewright_ir::op::{ScalarKind, ScalarOp};
use tilewright_ir::types::DType;

/// Number of an axis in the tables of its e-graph; below [`MAX_AXES`].
pub type AxisId = u8;
/// A set of axes, one bit each.
pub type AxisSet = u128;
/// Axes that one e-graph can hold.
pub const MAX_AXES: usize = 128;

/// The set of one axis; empty for a number that is no axis.
pub fn axis_bit(axis: AxisId) -> AxisSet {
    1u128.checked_shl(axis.into()).unwrap_or(0)
}

/// An affine index: constant plus multiples of axes, sorted by axis, no zero coefficient.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Affine {
    /// The constant part.
    pub constant: i64,
    /// Axes with their coefficients; most often one.
    pub terms: SmallVec<[(AxisId, i64); 1]>,
}

impl Affine {
    /// The position along one axis.
    pub fn axis(axis: AxisId) -> Affine {
        Affine { constant: 0, terms: smallvec![(axis, 1)] }
    }

    /// A fixed position.
    pub fn constant(constant: i64) -> Affine {
        Affine { constant, terms: SmallVec::new() }
    }

    /// Axes that occur.
    pub fn free(&self) -> AxisSet {
        self.terms.iter().fold(0, |set, t| set | axis_bit(t.0))
    }

    /// The axis if this is just the position along one.
    pub fn as_axis(&self) -> Option<AxisId> {
        match self.terms.as_slice() {
            [(axis, 1)] if self.constant == 0 => Some(*axis),
            _ => None,
        }
    }

    /// Replaces axes, all at once; `None` on overflow.
    pub fn substitute(&self, map: &[(AxisId, Affine)]) -> Option<Affine> {
        let mut out = Affine::constant(self.constant);
        for (axis, factor) in &self.terms {
            let with = map.iter().find(|m| m.0 == *axis).map_or_else(|| Affine::axis(*axis), |m| m.1.clone());
            out.constant = out.constant.checked_add(factor.checked_mul(with.constant)?)?;
            for (b, inner) in with.terms {
                let product = factor.checked_mul(inner)?;
                match out.terms.iter_mut().find(|t| t.0 == b) {
                    Some(t) => t.1 = t.1.checked_add(product)?,
                    None => out.terms.push((b, product)),
                }
            }
        }
        out.terms.retain(|t| t.1 != 0);
        out.terms.sort_unstable();
        Some(out)
    }
}

impl fmt::Display for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (axis, factor) in &self.terms {
            let plus = if first { "" } else { "+" };
            first = false;
            match factor {
                1 => write!(f, "{plus}@{axis}")?,
                k => write!(f, "{plus}{k}*@{axis}")?,
            }
        }
        if first || self.constant != 0 {
            write!(f, "{}{}", if first { "" } else { "+" }, self.constant)?;
        }
        Ok(())
    }
}

/// An exact number of a dtype: floats as the bits of the f64 that equals them, integers and bools as i64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// Element type.
    pub dtype: DType,
    /// Exact bits.
    pub bits: u64,
}

impl Number {
    /// A number of `dtype` with this value; `None` if the dtype is not a float and the value not a whole number.
    pub fn new(dtype: DType, value: f64) -> Option<Number> {
        if dtype.is_float() {
            return Some(Number { dtype, bits: value.to_bits() });
        }
        // Above 2^53 an f64 does not name one integer.
        let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
        exact.then_some(Number { dtype, bits: (value as i64) as u64 })
    }

    /// The value, rounded for large integers.
    pub fn value(self) -> f64 {
        if self.dtype.is_float() { f64::from_bits(self.bits) } else { (self.bits as i64) as f64 }
    }
}

/// An attribute leaf.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attr {
    /// An axis.
    Axis(AxisId),
    /// A constant; the only attribute that is also a value.
    Const(Number),
    /// A stored tensor, by its number in the tables.
    Input(u32),
    /// One index per stored dim.
    Map(Vec<Affine>),
    /// Axes to replace, sorted by axis.
    Subst(Vec<(AxisId, Affine)>),
    /// An element type.
    DType(DType),
}

/// A fold: binds its first child, an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fold {
    /// (sum j x)
    Sum,
    /// (fold-max j x), -inf for nothing
    Max,
    /// (fold-min j x), inf for nothing
    Min,
    /// (fold-prod j x), 1 for nothing
    Prod,
    /// (esum j s w): the sum of exp(s - max over j of s) * w, in one pass
    Esum,
    /// (esum-if j p s w): the same over the j where p holds; the others are skipped
    EsumIf,
    /// (m2 j x): the sum of squared distances from the mean, in one pass
    M2,
}

impl Fold {
    /// All folds.
    pub const ALL: &'static [Fold] = &[Fold::Sum, Fold::Max, Fold::Min, Fold::Prod, Fold::Esum, Fold::EsumIf, Fold::M2];

    /// Name in rule files and number of children with the axis.
    pub const fn info(self) -> (&'static str, usize) {
        match self {
            Fold::Sum => ("sum", 2),
            Fold::Max => ("fold-max", 2),
            Fold::Min => ("fold-min", 2),
            Fold::Prod => ("fold-prod", 2),
            Fold::Esum => ("esum", 3),
            Fold::EsumIf => ("esum-if", 4),
            Fold::M2 => ("m2", 2),
        }
    }
}

/// What a node computes from its children.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// A scalar op.
    Scalar(ScalarOp),
    /// (load input map): an element of a stored tensor; outside of it, any value (an import selects around it).
    Load,
    /// (gather input map index): like load, with the loaded index in the place of the axis [`GATHERED`].
    Gather,
    /// (at subst x): x with axes replaced.
    At,
    /// (iota axis dtype): the position along an axis.
    Iota,
    /// (extent axis dtype): the size of an axis.
    Extent,
    /// A fold.
    Fold(Fold),
    /// An attribute.
    Attr(Attr),
}

/// The axis number that stands for the loaded index in the map of a gather; never a real axis.
pub const GATHERED: AxisId = AxisId::MAX;

impl Head {
    /// The head with this name in rule files and its number of children there (`iota` and `extent` without dtype).
    pub fn by_name(name: &str) -> Option<(Head, usize)> {
        let fixed = [("load", Head::Load, 2), ("at", Head::At, 2), ("gather", Head::Gather, 3)];
        let more = [("iota", Head::Iota, 1), ("extent", Head::Extent, 1)];
        if let Some((_, head, arity)) = fixed.into_iter().chain(more).find(|row| row.0 == name) {
            return Some((head, arity));
        }
        if let Some(fold) = Fold::ALL.iter().find(|f| f.info().0 == name) {
            return Some((Head::Fold(*fold), fold.info().1));
        }
        if let Some(to) = name.strip_prefix("cast-").and_then(|d| d.parse().ok()) {
            return Some((Head::Scalar(ScalarOp::Cast { to }), 1));
        }
        let kind = ScalarKind::by_name(name)?;
        // Rows with attributes (cast) are not plain names.
        let op = ScalarOp::from_parts(kind, &[])?;
        let arity = (1..=3).find(|&n| kind.info().arity.accepts(n))?;
        Some((Head::Scalar(op), arity))
    }

    /// The names that rules use, without those of casts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let scalars = ScalarKind::ALL.iter().map(|k| k.info().name).filter(|name| Head::by_name(name).is_some());
        ["iota", "extent"].into_iter().chain(Fold::ALL.iter().map(|f| f.info().0)).chain(scalars)
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Head::Scalar(ScalarOp::Cast { to }) => write!(f, "cast-{to}"),
            Head::Scalar(op) => f.write_str(op.info().name),
            Head::Load => f.write_str("load"),
            Head::Gather => f.write_str("gather"),
            Head::At => f.write_str("at"),
            Head::Iota => f.write_str("iota"),
            Head::Extent => f.write_str("extent"),
            Head::Fold(fold) => f.write_str(fold.info().0),
            Head::Attr(attr) => write!(f, "{attr}"),
        }
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Axis(axis) => write!(f, "@{axis}"),
            Attr::Const(number) => write!(f, "{}", number.value()),
            Attr::Input(input) => write!(f, "in{input}"),
            Attr::Map(map) => {
                let parts: Vec<String> = map.iter().map(Affine::to_string).collect();
                write!(f, "[{}]", parts.join(","))
            }
            Attr::Subst(map) => {
                let parts: Vec<String> = map.iter().map(|(axis, with)| format!("@{axis}:={with}")).collect();
                write!(f, "{{{}}}", parts.join(","))
            }
            Attr::DType(dtype) => write!(f, "{dtype}"),
        }
    }
}

/// A node of the e-graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ENode {
    /// What it computes.
    pub head: Head,
    /// Operands; attributes first. The e-graph copies nodes all the time.
    pub children: SmallVec<[Id; 4]>,
}

impl ENode {
    /// A node.
    pub fn new(head: Head, children: Vec<Id>) -> ENode {
        ENode { head, children: SmallVec::from_slice(&children) }
    }

    /// An attribute leaf.
    pub fn attr(attr: Attr) -> ENode {
        ENode { head: Head::Attr(attr), children: SmallVec::new() }
    }
}

impl fmt::Display for ENode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.fmt(f)
    }
}

impl Language for ENode {
    type Discriminant = Head;

    fn discriminant(&self) -> Head {
        self.head.clone()
    }

    fn matches(&self, other: &ENode) -> bool {
        self.head == other.head && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}
