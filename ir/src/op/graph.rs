//! The table of graph ops.

use super::attr::{Axes, Axis, Dims, DotDims, Literal, Name, PadAmounts, ReduceKind, Strides};
use super::macros::op_table;
use super::scalar::ScalarOp;
use crate::types::{DType, Dim};

op_table!(
    /// A node of a graph, without its operands. There is no implicit broadcasting.
    GraphOp,
    /// The kind of a [`GraphOp`].
    GraphKind {
    /// The function's parameter number `index`
    Parameter { index: Axis } "parameter" Exactly(0) Source;
    /// A tensor known at compile time
    Constant { value: Literal } "constant" Exactly(0) Source;
    /// The position along `axis`, in every element of `shape`
    Iota { axis: Axis, shape: Dims, dtype: DType } "iota" Exactly(0) Source;
    /// The value of a symbolic size, as an i64 scalar
    Size { dim: Dim } "size" Exactly(0) Source;
    /// A scalar op at every element; operands have one shape; printed under the scalar's name
    Map { op: ScalarOp } "map" AtLeast(1) Elementwise;
    /// Folds `axes`, which leave the shape; printed under the kind's name
    Reduce { kind: ReduceKind, axes: Axes } "reduce" Exactly(1) Reduction;
    /// Position of the first largest element along `axis`, as i64; NaN counts as largest
    Argmax { axis: Axis } "argmax" Exactly(1) Reduction;
    /// Position of the first smallest element along `axis`, as i64; NaN counts as smallest
    Argmin { axis: Axis } "argmin" Exactly(1) Reduction;
    /// Running sum along `axis`, inclusive
    Cumsum { axis: Axis } "cumsum" Exactly(1) Reduction;
    /// Sum of products; result axes: batch, free of the left, free of the right
    Dot { dims: DotDims } "dot" Exactly(2) Contraction;
    /// Repeats into `shape`; operand axis i becomes result axis `dims[i]`, other axes are new; size-1 axes stretch
    Broadcast { shape: Dims, dims: Axes } "broadcast" Exactly(1) Movement;
    /// The same elements in row-major order under another shape
    Reshape { shape: Dims } "reshape" Exactly(1) Movement;
    /// Result axis i is operand axis `perm[i]`
    Transpose { perm: Axes } "transpose" Exactly(1) Movement;
    /// Elements start, start + stride, ..., below limit, per axis; strides positive
    Slice { start: Dims, limit: Dims, stride: Strides } "slice" Exactly(1) Movement;
    /// Adds elements before and after each axis; the second operand is the scalar to fill with
    Pad { amounts: PadAmounts } "pad" Exactly(2) Movement;
    /// Joins the operands along `axis`, in order
    Concat { axis: Axis } "concat" AtLeast(1) Movement;
    /// Reverses `axes`
    Flip { axes: Axes } "flip" Exactly(1) Movement;
    /// take(x, ids): axis `axis` of x is replaced by the shape of the integer tensor ids; ids must be inside
    Take { axis: Axis } "take" Exactly(2) Indexing;
    /// take_along(x, ids): ids has x's rank, and its sizes but along `axis`; `result[..i..] = x[..ids[..i..]..]` along `axis`
    TakeAlong { axis: Axis } "take_along" Exactly(2) Indexing;
    /// scatter_add(base, ids, source): ids has base's rank, and its sizes but along `axis`, and source the shape of ids; base
    /// with source added at ids along `axis`, in row-major order of source
    ScatterAdd { axis: Axis } "scatter_add" Exactly(3) Indexing;
    /// update_slice(x, update): x with the box at `start` replaced by update
    UpdateSlice { start: Dims } "update_slice" Exactly(2) Indexing;
    /// The results of function `function` on the operands
    Call { function: Name } "call" AtLeast(0) Control;
    /// cond(p, operands..): `yes` on the operands if the bool scalar p holds, else `no`
    Cond { yes: Name, no: Name } "cond" AtLeast(1) Control;
    /// scan over the leading axis, `length` steps: operands are initial carries, then whole tensors of which `body` gets one slice per step; body returns carries, then slices to be stacked
    Scan { body: Name, carries: Axis, length: Dim } "scan" AtLeast(0) Control;
});
