//! Matrix products inside regions, and how they are cut for the micro-kernels: `m` rows of one operand that is read where
//! it lies, `n` columns of the other, `k` folded, and batch axes that one or both operands have.

use super::index::dim;
use crate::region::{Affine, AxisId, Index, Output, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::device::ukernel::{self, UKernelShape};
use tilewright_ir::kernel::Expr;
use tilewright_ir::op::{ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, Type};

/// A matrix product inside a region that the micro-kernels compute.
#[derive(Clone, Debug)]
pub struct Contraction {
    /// The region, with its axes named `m`, `n`, `k` and `b..`; row axes may be merged into one.
    pub region: Region,
    /// The fold term that is the product.
    pub fold: TermId,
    /// Axis of the rows.
    pub m: AxisId,
    /// Axis of the columns.
    pub n: AxisId,
    /// Axis of the fold.
    pub k: AxisId,
    /// Input with the rows, contiguous along `k`.
    pub a: usize,
    /// Where the rows are.
    pub a_map: Vec<Index>,
    /// Input with the columns.
    pub b: usize,
    /// Where the columns are, unless they are packed.
    pub b_map: Vec<Index>,
    /// Dtype of the columns' input.
    pub b_dtype: DType,
    /// Whether the columns are a weight, so that packing them costs nothing per call.
    pub weight: bool,
    /// How many rows share a matrix of columns.
    pub rows: Dim,
    /// Where the columns are in memory.
    pub columns: Columns,
}

/// Element strides of the operand with the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Elements before the first.
    pub offset: Dim,
    /// Axes besides `k` and `n`, with their strides.
    pub batch: Vec<(AxisId, Dim)>,
    /// Between neighbours in k.
    pub k_stride: Dim,
    /// Between neighbours in n.
    pub n_stride: Dim,
}

/// Columns of a panel of any block encoding.
const BLOCK_PANEL: i64 = 32;

/// Rows that fill tiles of any micro-kernel, with little left over.
const MANY_ROWS: i64 = 64;

/// Fewest rows for which packing the columns at each call pays.
const FEW_ROWS: i64 = 16;

/// The same for columns that can be read where they lie, which takes 1.5 to 2 times as long as to read panels.
const REPACKED_ROWS: i64 = 128;

impl Contraction {
    /// Length of the fold.
    pub fn depth(&self) -> &Dim {
        &self.region.axes[self.k].1
    }

    /// The micro-kernel of an instruction set that computes it: for halves the one for their pairs, else that of f32.
    pub fn row(&self, isa: &str) -> Option<&'static UKernelShape> {
        let whole = |row: &UKernelShape| self.depth().as_const().is_some_and(|k| k % row.k_step == 0);
        let find = |a, b| ukernel::find(isa, a, b).filter(|row| row.k_step == 1 || whole(row));
        let b = self.b_dtype;
        let a = if b.is_block() { DType::F32 } else { b };
        find(a, b).or_else(|| find(a, DType::F32).filter(|_| is_half(b)))
    }

    /// Whether the micro-kernel can read the columns where they lie.
    pub fn direct(&self, row: &UKernelShape) -> bool {
        let whole = self.region.axes[self.n].1.as_const().is_some_and(|n| n % row.nr == 0);
        !self.weight
            && row.k_step == 1
            && row.b == self.b_dtype
            && self.columns.n_stride.is(1)
            && whole
            && !self.b_map.is_empty()
    }

    /// When columns that could be read where they lie are packed all the same: rows of a matrix a few lines apart fall on few
    /// sets of the first cache, and many rows read them again and again.
    pub fn when_repacked(&self, row: &UKernelShape) -> When {
        let width = &self.region.axes[self.n].1;
        if width.is(row.nr) && self.columns.k_stride.is(row.nr) {
            return When::Never;
        }
        When::at_least(&self.rows, REPACKED_ROWS)
    }

    /// Whether packing pays: always, never, or where the expression holds.
    pub fn when_packed(&self) -> When {
        if self.weight { When::Always } else { When::many(&self.rows) }
    }
}

/// When something is done.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// At every call.
    Always,
    /// At no call.
    Never,
    /// Where this holds for the symbols.
    If(Expr),
}

impl When {
    /// Where so many rows share a matrix of columns that packing it at each call pays.
    pub(super) fn many(rows: &Dim) -> When {
        When::at_least(rows, FEW_ROWS)
    }

    fn at_least(rows: &Dim, least: i64) -> When {
        match rows.as_const() {
            Some(n) if n >= least => When::Always,
            Some(_) => When::Never,
            None => When::If(Expr::scalar(ScalarOp::Ge {}, [dim(rows), Expr::Int(least)])),
        }
    }
}

/// A factor of the product.
pub(super) struct Factor<'r> {
    pub(super) input: usize,
    pub(super) map: &'r [Index],
    /// Whether it is dequantised.
    pub(super) block: bool,
    /// Whether it is converted from halves.
    pub(super) half: bool,
}

/// Whether products of a dtype are those of its values in f32, which are exact.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::Bf16)
}

/// Element strides of a map's axes, from its start.
pub(super) struct Strides {
    pub(super) offset: Dim,
    pub(super) axes: BTreeMap<AxisId, Dim>,
}

pub(super) fn factor(region: &Region, term: TermId) -> Option<Factor<'_>> {
    match &region.terms[term].0 {
        Term::Load { input, map, open: false } => {
            let block = region.inputs[*input].1.dtype.is_block();
            Some(Factor { input: *input, map, block, half: false })
        }
        Term::Map(ScalarOp::Cast { to: DType::F32 }, args) => match &region.terms[*args.first()?].0 {
            Term::Load { input, map, open: false } => {
                let dtype = region.inputs[*input].1.dtype;
                let (block, half) = (dtype.is_block(), is_half(dtype));
                (block || half).then_some(Factor { input: *input, map, block, half })
            }
            _other => None,
        },
        _other => None,
    }
}

/// The axes of a map that reads each dim whole, in order.
fn plain(region: &Region, factor: &Factor<'_>) -> Option<Vec<AxisId>> {
    let shape = &region.inputs[factor.input].1.shape;
    let axis = |(index, n): (&Index, &Dim)| match index {
        Index::Affine(a) => a.plain_axis().filter(|&x| region.axes[x].1 == *n),
        Index::Term(_) => None,
    };
    factor.map.iter().zip(shape).map(axis).collect()
}

fn only_fold(region: &Region) -> Option<(TermId, AxisId, TermId)> {
    let mut found = None;
    for (id, (term, _)) in region.terms.iter().enumerate() {
        match term {
            Term::Fold { kind: ReduceKind::Sum, axis, arg } if found.is_none() => found = Some((id, *axis, *arg)),
            Term::Fold { .. } | Term::ArgFold { .. } | Term::Online { .. } | Term::Moment { .. } | Term::Product => {
                return None;
            }
            Term::Const(_) | Term::Iota(_) | Term::Size(_) | Term::Load { .. } | Term::Map(..) => {}
        }
    }
    found
}

/// Strides of what a factor reads; none for gathers and for maps that walk backwards.
pub(super) fn strides(region: &Region, factor: &Factor<'_>) -> Option<Strides> {
    let shape = &region.inputs[factor.input].1.shape;
    let (mut offset, mut axes, mut stride) = (Dim::constant(0), BTreeMap::new(), Dim::constant(1));
    for (index, size) in factor.map.iter().zip(shape).rev() {
        let Index::Affine(at) = index else { return None };
        if at.base.as_const().is_some_and(|b| b < 0) {
            return None;
        }
        offset = offset.checked_add(&at.base.checked_mul(&stride)?)?;
        for &(axis, coefficient) in &at.terms {
            let step = stride.checked_mul(&Dim::constant(coefficient))?;
            let old: Dim = axes.remove(&axis).unwrap_or_else(|| Dim::constant(0));
            if coefficient <= 0 {
                return None;
            }
            axes.insert(axis, old.checked_add(&step)?);
        }
        stride = stride.checked_mul(size)?;
    }
    Some(Strides { offset, axes })
}

/// The region's contraction, if it is one product that the micro-kernels compute: a sum over one axis of a product of two
/// loads, one contiguous along that axis. `weight` says which inputs are weights.
pub fn contraction(region: &Region, weight: &dyn Fn(usize) -> bool) -> Option<Contraction> {
    let (fold, k, product) = only_fold(region)?;
    let Term::Map(ScalarOp::Mul {}, args) = &region.terms[product].0 else { return None };
    let (x, y) = (factor(region, *args.first()?)?, factor(region, *args.get(1)?)?);
    let known = region.axes[k].1.as_const().is_none_or(|n| n > 0);
    if x.input == y.input || region.free[fold].len() != region.rank || region.outputs.len() != 1 || !known {
        return None;
    }
    // Which operand has the columns: encoded blocks, else a weight, else that which gives the output's last axis.
    let last = *region.outputs.first()?.axes.last()?;
    let swap = match (x.block != y.block, weight(x.input), weight(y.input)) {
        (true, _, _) => x.block,
        (false, true, false) => true,
        (false, false, true) => false,
        (false, _, _) => region.free[*args.first()?].contains(&last) && !region.free[*args.get(1)?].contains(&last),
    };
    let (first, second) = if swap { (y, x) } else { (x, y) };
    let sides = Sides { region, fold, k, weight };
    sides.either(&first, &second).or_else(|| sides.either(&second, &first))
}

/// A region with its product.
struct Sides<'r> {
    region: &'r Region,
    fold: TermId,
    k: AxisId,
    weight: &'r dyn Fn(usize) -> bool,
}

impl Sides<'_> {
    /// The contraction with rows of `a` and columns of `b`.
    fn either(&self, a: &Factor<'_>, b: &Factor<'_>) -> Option<Contraction> {
        let b_dtype = self.region.inputs[b.input].1.dtype;
        let fits = match b_dtype {
            DType::F32 | DType::F64 => self.region.inputs[a.input].1.dtype == b_dtype,
            DType::F16 | DType::Bf16 => b.half && a.half && self.region.inputs[a.input].1.dtype == b_dtype,
            _ => b.block && self.region.inputs[a.input].1.dtype == DType::F32,
        };
        if !fits || a.block {
            return None;
        }
        self.merged(a, b, b_dtype).or_else(|| self.batched(a, b, b_dtype))
    }

    /// All row axes as one: the rows lie one after the other, and no term needs one of their axes.
    fn merged(&self, a: &Factor<'_>, b: &Factor<'_>, b_dtype: DType) -> Option<Contraction> {
        let (region, k) = (self.region, self.k);
        let (rows, columns) = (plain(region, a)?, plain(region, b)?);
        if !region.outputs.iter().all(|o| o.axes.iter().copied().eq(0..region.rank)) {
            return None;
        }
        let (n, b_rows) = match columns.as_slice() {
            [n, x] if *x == k => (*n, true),
            [x, n] if *x == k => (*n, false),
            _other => return None,
        };
        if (b.block && !b_rows) || rows.last() != Some(&k) || n == k {
            return None;
        }
        // The rows' axes are the output's other axes, in order, and the columns' axis is the first or the last.
        let others: Vec<AxisId> = (0..region.rank).filter(|&x| x != n).collect();
        let n_last = n + 1 == region.rank;
        if rows[..rows.len() - 1] != others[..] || !(n_last || n == 0) {
            return None;
        }
        let size = others.iter().try_fold(Dim::constant(1), |p, &x| p.checked_mul(&region.axes[x].1))?;
        let (m, n_axis) = if n_last { (0, 1) } else { (1, 0) };
        let place = |axis| Index::Affine(Affine::axis(axis));
        let (one, depth, width) = (Dim::constant(1), region.axes[k].1.clone(), region.axes[n].1.clone());
        let (b_map, k_stride, n_stride) = if b_rows {
            (vec![place(n_axis), place(2)], one, depth)
        } else {
            (vec![place(2), place(n_axis)], width, one)
        };
        let flat = flatten(region, &others, n, k, (m, n_axis), &size, (a.input, b.input, &b_map))?;
        Some(Contraction {
            region: flat,
            fold: self.fold,
            m,
            n: n_axis,
            k: 2,
            a: a.input,
            a_map: vec![place(m), place(2)],
            b: b.input,
            b_map,
            b_dtype,
            weight: (self.weight)(b.input),
            rows: size,
            columns: Columns { offset: Dim::constant(0), batch: Vec::new(), k_stride, n_stride },
        })
    }

    /// One row axis; all others are points of the grid.
    fn batched(&self, a: &Factor<'_>, b: &Factor<'_>, b_dtype: DType) -> Option<Contraction> {
        let (region, k) = (self.region, self.k);
        let (rows, mut columns) = (strides(region, a)?, strides(region, b)?);
        if !rows.axes.get(&k).is_some_and(|s| s.is(1)) {
            return None;
        }
        let only = |these: &Strides, other: &Strides| -> Vec<AxisId> {
            let lacks = |x: &&AxisId| **x != k && !other.axes.contains_key(x);
            these.axes.keys().filter(lacks).copied().collect()
        };
        let (row_axes, column_axes) = (only(&rows, &columns), only(&columns, &rows));
        let last = *region.outputs.first()?.axes.last()?;
        // Rows of blocks lie one after the other, their last axis fills panels.
        let blocks = if b.block { Some(plain(region, b)?) } else { None };
        let n = match &blocks {
            Some(axes) => *axes.iter().rev().nth(1)?,
            None if column_axes.contains(&last) => last,
            None => *column_axes.iter().find(|x| columns.axes[x].is(1)).or(column_axes.last())?,
        };
        if !column_axes.contains(&n) {
            return None;
        }
        // One that is known to fill tiles, the longest of them; else a symbol, which is likely to; else the largest constant.
        let length = |x: &AxisId| match region.axes[*x].1.as_const() {
            Some(n) => (n >= MANY_ROWS, n),
            None => (false, i64::MAX),
        };
        let m = *row_axes.iter().max_by_key(|x| length(x))?;
        let count = row_axes.iter().try_fold(Dim::constant(1), |p, &x| p.checked_mul(&region.axes[x].1))?;
        let (k_stride, n_stride) = (columns.axes.remove(&k)?, columns.axes.remove(&n)?);
        let mut batch: Vec<(AxisId, Dim)> = columns.axes.into_iter().collect();
        if let Some(axes) = blocks {
            let whole = region.axes[n].1.as_const().is_some_and(|n| n % BLOCK_PANEL == 0);
            if axes.last() != Some(&k) || !(whole || batch.is_empty()) {
                return None;
            }
            batch.sort_by_key(|(axis, _)| axes.iter().position(|x| x == axis));
        }
        let mut named = region.clone();
        for (axis, (name, _)) in named.axes.iter_mut().enumerate() {
            *name = match axis {
                x if x == m => "m".into(),
                x if x == n => "n".into(),
                x if x == k => "k".into(),
                x => format!("b{x}").into(),
            };
        }
        Some(Contraction {
            region: named,
            fold: self.fold,
            m,
            n,
            k,
            a: a.input,
            a_map: a.map.to_vec(),
            b: b.input,
            b_map: b.map.to_vec(),
            b_dtype,
            weight: (self.weight)(b.input),
            rows: count,
            columns: Columns { offset: columns.offset, batch, k_stride, n_stride },
        })
    }
}

/// The region with the axes `others` merged into one. `None` where a term needs one of several merged axes.
fn flatten(
    region: &Region,
    others: &[AxisId],
    n: AxisId,
    k: AxisId,
    (m_axis, n_axis): (AxisId, AxisId),
    size: &Dim,
    (a, b, b_map): (usize, usize, &[Index]),
) -> Option<Region> {
    let mut flat = region.clone();
    let (m_entry, n_entry) = (("m".into(), size.clone()), ("n".into(), region.axes[n].1.clone()));
    flat.axes = if m_axis == 0 { vec![m_entry, n_entry] } else { vec![n_entry, m_entry] };
    flat.axes.push(("k".into(), region.axes[k].1.clone()));
    flat.rank = 2;
    flat.outputs = vec![Output { root: region.outputs.first()?.root, axes: vec![0, 1] }];
    let rename = |x: AxisId| match x {
        x if x == n => Some(n_axis),
        x if x == k => Some(2),
        x if others == [x] => Some(m_axis),
        _merged => None,
    };
    let affine = |x: &Affine| -> Option<Affine> {
        let mut terms = x.terms.iter().map(|&(t, c)| Some((rename(t)?, c))).collect::<Option<Vec<_>>>()?;
        terms.sort_unstable();
        Some(Affine { base: x.base.clone(), terms })
    };
    let whole: Vec<Index> = (0..region.rank).map(|x| Index::Affine(Affine::axis(x))).collect();
    let mut merged = vec![false; region.inputs.len()];
    for (id, (term, _)) in region.terms.iter().enumerate() {
        let new = match term {
            Term::Iota(x) => Term::Iota(affine(x)?),
            Term::Load { input, .. } if *input == b => Term::Load { input: b, map: b_map.to_vec(), open: false },
            Term::Load { input, .. } if *input == a && region.free[id].contains(&k) => {
                let rows = vec![Index::Affine(Affine::axis(m_axis)), Index::Affine(Affine::axis(2))];
                Term::Load { input: a, map: rows, open: false }
            }
            Term::Load { input, .. } if *input == a => return None,
            Term::Load { input, map, open } => {
                let exact = !open
                    && *map == whole
                    && region.inputs[*input].1.shape.iter().eq(region.axes[..region.rank].iter().map(|x| &x.1));
                if exact && others.len() != 1 {
                    merged[*input] = true;
                    let map = (0..2).map(|x| Index::Affine(Affine::axis(x))).collect();
                    Term::Load { input: *input, map, open: false }
                } else {
                    let map = map
                        .iter()
                        .map(|i| match i {
                            Index::Affine(x) => Some(Index::Affine(affine(x)?)),
                            Index::Term(t) => Some(Index::Term(*t)),
                        })
                        .collect::<Option<Vec<_>>>()?;
                    if merged[*input] || map.iter().any(|i| matches!(i, Index::Term(t) if region.free[*t].contains(&n)))
                    {
                        return None;
                    }
                    Term::Load { input: *input, map, open: *open }
                }
            }
            Term::Fold { kind, arg, .. } => Term::Fold { kind: *kind, axis: 2, arg: *arg },
            other => other.clone(),
        };
        flat.terms[id].0 = new;
        flat.free[id] = region.free[id].iter().map(|&x| rename(x).unwrap_or(m_axis)).collect();
    }
    let pair: Vec<Dim> = flat.axes[..2].iter().map(|x| x.1.clone()).collect();
    for (input, _) in merged.iter().enumerate().filter(|(_, m)| **m) {
        flat.inputs[input].1 = Type { dtype: flat.inputs[input].1.dtype, shape: pair.clone() };
    }
    // An input read both merged and in another way would need two shapes.
    let both =
        region.terms.iter().any(|(t, _)| matches!(t, Term::Load { input, map, .. } if merged[*input] && *map != whole));
    flat.inputs[a].1 = Type { dtype: flat.inputs[a].1.dtype, shape: vec![size.clone(), region.axes[k].1.clone()] };
    (!both).then_some(flat)
}
