//! What names mean while a kernel is emitted: numbers, buffers, lazy tiles.

use cranelift_codegen::ir::{Type, Value, types};
use cranelift_frontend::Variable;
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::View;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// An i64 of the generated code, with its value where it is known now.
#[derive(Clone, Copy, Debug)]
pub struct Num {
    /// The code's value.
    pub value: Value,
    /// Known value.
    pub constant: Option<i64>,
}

/// A buffer in memory. Strides are in bytes.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Name in the kernel.
    pub name: Ident,
    /// Element type.
    pub dtype: DType,
    /// Address of the first element.
    pub base: Value,
    /// Axes with extents.
    pub axes: Vec<(Ident, Num)>,
    /// Bytes between neighbours, per axis.
    pub strides: Vec<Num>,
    /// Positions of the last axis but one that its stride spans: the steps of a block in panels of a block format, else 1.
    pub span: i64,
    /// Whether it is an argument of the kernel.
    pub argument: bool,
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Binding {
    /// Loop variable, symbol or constant.
    Index(Num),
    /// Argument, `cache` buffer, or `reg` buffer with axes.
    Memory(Rc<Memory>),
    /// View.
    View(Rc<View>),
    /// `reg` buffer without axes.
    Register(Variable, DType),
    /// `let` name.
    Tile(Rc<Tile>),
}

/// A position along a buffer axis: `start + sum of coefficient * axis (+ coefficient * gathered)`.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Part without tile axes.
    pub start: Num,
    /// Tile axes with coefficients.
    pub terms: Vec<(Ident, i64)>,
    /// Loaded index tile with coefficient.
    pub gather: Option<(Rc<Tile>, i64)>,
}

/// An element exists only where `0 <= at < extent` (the lower bound only with `low`).
#[derive(Clone, Debug)]
pub struct Mask {
    /// Position.
    pub at: Affine,
    /// Bound.
    pub extent: Value,
    /// Whether it may be negative.
    pub low: bool,
}

/// A box of a buffer: what an access means.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Buffer behind views.
    pub memory: Rc<Memory>,
    /// Address of the element where all axes are 0.
    pub base: Value,
    /// Axes of the box.
    pub axes: Vec<(Ident, Num)>,
    /// Bytes between neighbours, per axis.
    pub steps: Vec<Num>,
    /// Conditions of open dims.
    pub masks: Vec<Mask>,
    /// Index tiles with byte strides.
    pub gathers: Vec<(Rc<Tile>, Num)>,
    /// Index tiles with the extent that their values must stay below, and the number of the check.
    pub limits: Vec<(Rc<Tile>, Value, usize)>,
}

impl Plan {
    /// Step of an axis; none where it broadcasts.
    pub fn step(&self, axis: &Ident) -> Option<Num> {
        self.axes.iter().position(|(name, _)| name == axis).map(|at| self.steps[at])
    }
}

/// How a tile's elements are had.
#[derive(Clone, Debug)]
pub enum Node {
    /// A literal.
    Int(i64),
    /// A literal.
    Real(f64),
    /// Computed before.
    Value(Value),
    /// Read where it is used; the second is what masked elements read.
    Load(Plan, Option<Rc<Tile>>),
    /// Elementwise.
    Op(ScalarOp, Vec<Rc<Tile>>),
    /// Start plus position along an axis.
    Iota(Ident, Value),
}

/// A lazy tile.
#[derive(Clone, Debug)]
pub struct Tile {
    /// Unique number.
    pub id: u32,
    /// Element type.
    pub dtype: DType,
    /// Axes with sizes.
    pub axes: Vec<(Ident, i64)>,
    /// Whether an elementary function is computed for each element.
    pub costly: bool,
    /// Whether halves of memory are converted for its elements.
    pub halves: bool,
    /// Elements.
    pub node: Node,
}

impl Tile {
    /// Whether it varies along an axis.
    pub fn has(&self, axis: &Ident) -> bool {
        self.axes.iter().any(|(name, _)| name == axis)
    }
}

/// The Cranelift type of a value; half floats and elements of block encodings are computed as f32.
pub fn clif_type(dtype: DType) -> Result<Type, Diagnostic> {
    Ok(match dtype {
        DType::F64 => types::F64,
        DType::F32 | DType::F16 | DType::Bf16 => types::F32,
        DType::Q8_0 | DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::Q6K => types::F32,
        DType::I8 | DType::U8 | DType::Bool => types::I8,
        DType::I16 | DType::U16 => types::I16,
        DType::I32 | DType::U32 => types::I32,
        DType::I64 | DType::U64 => types::I64,
    })
}

/// Something that the CPU emitter does not take.
pub fn unsupported(what: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new("cpu-unsupported", format!("the CPU emitter does not support {what}"))
}

/// A kernel that breaks the rules of the language.
pub fn malformed(what: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::new("kernel-invalid", what.to_string())
}
