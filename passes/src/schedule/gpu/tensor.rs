//! Products of bf16 or f16 matrices by the matrix instructions of warps. Tiles of the factors pass through a pipe of slots in
//! shared memory: a factor that lies in memory is copied there asynchronously some chunks ahead, one that is computed is
//! loaded before the product of a chunk and stored behind it. Results of 16 bits leave by 16 bytes, through shared memory.

use super::super::emit::{Bind, Emitter, Frame, output_name};
use super::super::index::{add, ceil, dim, mul};
use super::super::write::{buffer, repeat, select};
use super::matmul::{Product, reads_pad};
use crate::region::{AxisId, Index, Region, Term, TermId};
use std::collections::BTreeMap;
use tilewright_ir::device::mma::{self, MmaShape};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::tree::{BufferAttr, Pipe, PipelineOp};
use tilewright_ir::kernel::verify::LAYOUT;
use tilewright_ir::kernel::{Access, Block, Buffer, Expr, LoadMods, Space, Stmt, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Bytes of shared memory that slots may take: what every target has, with some left for other tiles.
const SHARED: i64 = 90 * 1024;
/// Elements of the contracted axis in a chunk.
const DEPTH: i64 = 32;
/// Most slots of a pipe.
const STAGES: i64 = 4;
/// Blocks below which smaller tiles keep more of a device busy.
const FEW_BLOCKS: i64 = 108;
/// Warps that a block has at least, where its tile has pieces for them.
const WARPS: i64 = 4;

/// The schedule of a kernel of products on matrix instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Rows and columns of a block's tile.
    pub tile: [i64; 2],
    /// Warps along rows and columns.
    pub warps: [i64; 2],
    /// Elements of the contracted axis in a chunk.
    pub depth: i64,
    /// Slots of a pipe.
    pub stages: i64,
    /// The instruction.
    row: &'static MmaShape,
}

impl Tensor {
    /// Threads of a block.
    pub fn threads(&self) -> i64 {
        32 * self.warps[0] * self.warps[1]
    }
}

/// The value in 16 bits whose conversion to f32 a factor is.
pub(super) fn narrow(region: &Region, factor: TermId) -> Option<(TermId, DType)> {
    match &region.terms[factor].0 {
        Term::Map(ScalarOp::Cast { to: DType::F32 }, args) => {
            let &x = args.first()?;
            let dtype = region.terms[x].1;
            matches!(dtype, DType::Bf16 | DType::F16).then_some((x, dtype))
        }
        _other => None,
    }
}

/// The schedule, if all factors of all products are of one dtype that an instruction multiplies.
pub(super) fn schedule(region: &Region, products: &[Product]) -> Option<Tensor> {
    let factors: Vec<(TermId, DType)> =
        products.iter().flat_map(|p| p.factors).map(|f| narrow(region, f)).collect::<Option<_>>()?;
    let &(_, dtype) = factors.first()?;
    let row = mma::find(dtype).filter(|_| factors.iter().all(|f| f.1 == dtype))?;
    let first = products.first()?;
    let size = |axis: AxisId| region.axes[axis].1.as_const();
    let fitting = |n: Option<i64>, most: i64| match n {
        Some(n) => [16, 32, 64, 128].into_iter().find(|t| *t >= n).unwrap_or(128).min(most),
        // Whoever has few rows computes less in vain.
        None => most.min(64),
    };
    let several = products.len() > 1;
    let mut tile = [fitting(size(first.tile[0]), if several { 64 } else { 128 }), fitting(size(first.tile[1]), 128)];
    let blocks = |tile: [i64; 2]| {
        let along = |axis: AxisId, t: i64| size(axis).map(|n| (n + t - 1) / t);
        let rest = (0..region.rank).filter(|a| !first.tile.contains(a)).map(&size);
        let batch = rest.map(|n| n.unwrap_or(FEW_BLOCKS)).fold(1i64, i64::saturating_mul);
        Some(along(first.tile[0], tile[0])?.saturating_mul(along(first.tile[1], tile[1])?).saturating_mul(batch))
    };
    while blocks(tile).is_some_and(|n| n < FEW_BLOCKS) && tile[0].max(tile[1]) > 64 {
        let larger = usize::from(tile[1] > tile[0]);
        tile[larger] /= 2;
    }
    // A warp has at most 64 x 32 results, 64 registers a lane.
    let mut each = [tile[0].min(if several { 32 } else { 64 }), tile[1].min(32)];
    while (tile[0] / each[0]) * (tile[1] / each[1]) < WARPS && each[0].max(each[1]) > 16 {
        let larger = usize::from(each[1] > each[0]);
        each[larger] /= 2;
    }
    let length = size(*first.contracted.last()?);
    let depth = if length.is_some_and(|k| k <= DEPTH / 2) { DEPTH / 2 } else { DEPTH };
    let chunk = |operands: &[Operand]| operands.iter().map(|o| tile[o.side] * depth * 2).sum::<i64>();
    let bytes = groups(region, products)?.iter().map(|g| chunk(&g.operands)).sum::<i64>();
    // No more than there are chunks to fetch ahead.
    let most = length.map_or(STAGES, |k| (k / depth + 2).min(STAGES));
    let staged = (0..region.outputs.len()).filter(|&i| staged(region, i, first.tile)).count();
    let results = i64::try_from(staged).ok()?.saturating_mul(tile[0] * tile[1] * 2);
    let stages = (SHARED.saturating_sub(results) / bytes.max(1)).min(most).max(2);
    Some(Tensor { tile, warps: [tile[0] / each[0], tile[1] / each[1]], depth, stages, row })
}

/// A factor of products of one group.
struct Operand {
    /// The value in 16 bits.
    term: TermId,
    /// Whether the tile's columns are its own side, else the rows.
    side: usize,
    /// Name of its buffer in the slots.
    name: Ident,
    /// Whether its own side, not the contracted axis, lies together in memory.
    across: bool,
}

/// Products that contract the same axes: they share a loop, and factors.
struct Group<'p> {
    contracted: &'p [AxisId],
    operands: Vec<Operand>,
    /// Number of the product, and of its two operands.
    products: Vec<(usize, [usize; 2])>,
}

fn groups<'p>(region: &Region, products: &'p [Product]) -> Option<Vec<Group<'p>>> {
    let mut groups: Vec<Group<'p>> = Vec::new();
    for (number, p) in products.iter().enumerate() {
        let at = match groups.iter().position(|g| g.contracted == p.contracted) {
            Some(at) => at,
            None => {
                let new = Group { contracted: &p.contracted, operands: Vec::new(), products: Vec::new() };
                groups.push(new);
                groups.len() - 1
            }
        };
        let group = &mut groups[at];
        let mut pair = [0; 2];
        for (side, &factor) in p.factors.iter().enumerate() {
            let (term, _) = narrow(region, factor)?;
            let known = group.operands.iter().position(|o| (o.term, o.side) == (term, side));
            pair[side] = known.unwrap_or(group.operands.len());
            if known.is_none() {
                let count = group.operands.iter().filter(|o| o.side == side).count();
                let suffix = if count == 0 { String::new() } else { count.to_string() };
                let name = format!("{}{suffix}", ["A", "B"][side]).into();
                let across = together(region, term, p.tile[side]) && !together(region, term, *p.contracted.last()?);
                group.operands.push(Operand { term, side, name, across });
            }
        }
        group.products.push((number, pair));
    }
    Some(groups)
}

/// Whether a load below `term` reads `axis` contiguously.
pub(super) fn together(region: &Region, term: TermId, axis: AxisId) -> bool {
    match &region.terms[term].0 {
        Term::Load { map, .. } => match map.last() {
            Some(Index::Affine(a)) => a.terms.contains(&(axis, 1)),
            Some(Index::Term(_)) | None => false,
        },
        other => other.operands().into_iter().any(|t| region.free[t].contains(&axis) && together(region, t, axis)),
    }
}

/// `swizzle(b, m, s)` for rows of so many elements of 2 bytes: the 16 bytes that 8 rows have in one column lie in different
/// banks, of which there are 128 bytes.
fn swizzle(row: i64) -> [i64; 3] {
    let bits = |n: i64| i64::from(63 - n.max(1).leading_zeros());
    let chunks = (row / 8).clamp(1, 8);
    [bits(chunks), 3, bits(row.max(64)) - 3]
}

fn attr(name: &str, args: impl IntoIterator<Item = Expr>) -> BufferAttr {
    BufferAttr { name: name.into(), args: args.into_iter().collect() }
}

/// How many warps share an accumulator along its rows and columns.
pub(super) fn layout(warps: [i64; 2]) -> BufferAttr {
    attr("layout", [Expr::name(LAYOUT), Expr::Int(warps[0]), Expr::Int(warps[1])])
}

/// A buffer in shared memory with rows of so many elements of 2 bytes, spread over banks where that is a power of two.
pub(super) fn swizzled(mut shared: Buffer, row: i64) -> Buffer {
    if row > 0 && row & (row - 1) == 0 {
        shared.attrs = vec![attr("swizzle", swizzle(row).map(Expr::Int))];
    }
    shared
}

/// All products: their accumulators hold the values of their outermost folds.
pub(super) fn accumulate(emitter: &mut Emitter<'_>, products: &[Product], how: &Tensor) -> Result<(), Diagnostic> {
    let region = emitter.region;
    let groups = groups(region, products).ok_or_else(|| Diagnostic::bug("a product of other factors"))?;
    for (number, product) in products.iter().enumerate() {
        let axes = product.tile.iter().zip(how.tile).map(|(&a, s)| (region.axes[a].0.clone(), Expr::Int(s))).collect();
        let mut acc = buffer(Space::Reg, accumulator(number), DType::F32, axes);
        acc.attrs = vec![layout(how.warps)];
        let start = Stmt::Set { name: acc.name.clone(), value: Expr::Int(0) };
        emitter.last()?.stmts.extend([Stmt::Buffer(acc), start]);
    }
    for (number, group) in groups.iter().enumerate() {
        let tile = products[group.products[0].0].tile;
        let name: Ident = if number == 0 { "ab".into() } else { format!("ab{number}").into() };
        Ring { group, tile, name, how }.accumulate(emitter)?;
    }
    for (number, product) in products.iter().enumerate() {
        emitter.last()?.memo.insert(product.top, Expr::Name(accumulator(number)));
    }
    Ok(())
}

/// Whether a tile of an output passes through shared memory: its values are of 16 bits, and 16 bytes of a row lie together,
/// while lanes hold four.
fn staged(region: &Region, output: usize, tile: [AxisId; 2]) -> bool {
    let o = &region.outputs[output];
    let columns = region.axes[tile[1]].1.as_const();
    matches!(region.terms[o.root].1, DType::Bf16 | DType::F16)
        && o.axes.last() == Some(&tile[1])
        && columns.is_some_and(|n| n % 8 == 0)
        && tile.iter().all(|a| region.free[o.root].contains(a))
}

/// Stores every output at its position.
pub(super) fn store_outputs(emitter: &mut Emitter<'_>, tile: [AxisId; 2], how: &Tensor) -> Result<(), Diagnostic> {
    let region = emitter.region;
    for (i, output) in region.outputs.iter().enumerate() {
        if !staged(region, i, tile) {
            emitter.store_output(i)?;
            continue;
        }
        let value = emitter.emit(output.root)?;
        let dims = output.axes.iter().map(|&a| emitter.dim_of(a)).collect::<Result<Vec<_>, _>>()?;
        let name: Ident = format!("staged{i}").into();
        let axes = tile.iter().zip(how.tile).map(|(&a, s)| (region.axes[a].0.clone(), Expr::Int(s))).collect();
        let mut b = buffer(Space::Shared, name.clone(), region.terms[output.root].1, axes);
        b.attrs = vec![attr("swizzle", swizzle(how.tile[1]).map(Expr::Int))];
        let from = Access::whole(&name);
        let to = Access::new(&output_name(i), dims);
        let store = Stmt::Store { access: from.clone(), mods: LoadMods::default(), value, add: false };
        let copy = Stmt::Copy { to, from, mods: LoadMods::default() };
        emitter.last()?.stmts.extend([Stmt::Buffer(b), store, copy]);
    }
    Ok(())
}

fn accumulator(number: usize) -> Ident {
    if number == 0 { "acc".into() } else { format!("acc{number}").into() }
}

/// What is to be done for one chunk.
struct Chunk {
    /// Loads and what is computed of them.
    loads: Block,
    /// Asynchronous copies.
    copies: Block,
    /// Stores of what was computed.
    stores: Block,
}

/// The pipe of a group.
struct Ring<'g> {
    group: &'g Group<'g>,
    tile: [AxisId; 2],
    name: Ident,
    how: &'g Tensor,
}

impl Ring<'_> {
    fn declare(&self, region: &Region, deepest: AxisId) -> Stmt {
        let slot = |o: &Operand| {
            let own = (region.axes[self.tile[o.side]].0.clone(), self.how.tile[o.side]);
            let sum = (region.axes[deepest].0.clone(), self.how.depth);
            let axes = if o.across { [sum, own] } else { [own, sum] };
            let swizzle = attr("swizzle", swizzle(axes[1].1).map(Expr::Int));
            let axes = axes.into_iter().map(|(n, s)| (n, Expr::Int(s))).collect();
            let mut b = buffer(Space::Shared, o.name.clone(), self.how.row.dtype, axes);
            b.attrs = vec![swizzle];
            b
        };
        Stmt::Pipe(Pipe {
            name: self.name.clone(),
            stages: u32::try_from(self.how.stages).unwrap_or(2),
            via: "cp_async".into(),
            from: "all".into(),
            to: "all".into(),
            attrs: Vec::new(),
            buffers: self.group.operands.iter().map(slot).collect(),
        })
    }

    fn turn(&self, op: PipelineOp) -> Stmt {
        Stmt::Pipeline(op, self.name.clone())
    }

    fn slot(&self, o: &Operand) -> Access {
        Access { field: Some(o.name.clone()), ..Access::whole(&self.name) }
    }

    fn accumulate(&self, emitter: &mut Emitter<'_>) -> Result<(), Diagnostic> {
        let region = emitter.region;
        let Some((&deepest, outer)) = self.group.contracted.split_last() else {
            return Err(Diagnostic::bug("a product without a fold"));
        };
        emitter.last()?.stmts.push(self.declare(region, deepest));
        let mut loops: Vec<(Ident, Expr)> = Vec::new();
        for &axis in outer {
            let var: Ident = format!("k{axis}").into();
            loops.push((var.clone(), dim(&region.axes[axis].1)));
            emitter.frames.push(Frame::with(BTreeMap::from([(axis, Bind::Point(Expr::Name(var)))])));
        }
        let (ahead, depth) = (self.how.stages - 1, Expr::Int(self.how.depth));
        // Slots ahead of the first product.
        let first = self.chunk(emitter, deepest, mul(Expr::name("s"), depth.clone()))?;
        // Copies alone are short.
        let unroll = first.stores.is_empty();
        let mut body = vec![self.turn(PipelineOp::Acquire)];
        body.extend(first.copies.into_iter().chain(first.loads).chain(first.stores));
        body.push(self.turn(PipelineOp::Commit));
        let fill = match repeat("s", Expr::Int(ahead), body) {
            Stmt::For { var, low, high, step, body, .. } => Stmt::For { var, low, high, step, unroll, body },
            other => other,
        };
        // The product of a chunk while later ones are on their way.
        let next = self.chunk(emitter, deepest, mul(add(Expr::name("kb"), Expr::Int(ahead)), depth))?;
        let mut body = vec![self.turn(PipelineOp::Wait), self.turn(PipelineOp::Acquire)];
        body.extend(next.copies.into_iter().chain(next.loads));
        let computed = !next.stores.is_empty();
        if !computed {
            body.push(self.turn(PipelineOp::Commit));
        }
        for &(number, [a, b]) in &self.group.products {
            let terms = vec![(self.slot(&self.group.operands[a]), self.slot(&self.group.operands[b]))];
            let (to, via) = (Access::whole(&accumulator(number)), self.how.row.name.into());
            body.push(Stmt::Mma { to, terms, via, init: None, on: None });
        }
        body.push(self.turn(PipelineOp::Release));
        body.extend(next.stores);
        if computed {
            body.push(self.turn(PipelineOp::Commit));
        }
        let chunks = ceil(dim(&region.axes[deepest].1), self.how.depth);
        let frame = emitter.last()?;
        frame.stmts.extend([fill, repeat("kb", chunks, body)]);
        // What was fetched ahead of the last chunk is zeros.
        for _ in 0..ahead {
            frame.stmts.extend([self.turn(PipelineOp::Wait), self.turn(PipelineOp::Release)]);
        }
        for (var, high) in loops.into_iter().rev() {
            emitter.close(var, high)?;
        }
        Ok(())
    }

    /// The factors from `start` on along the contracted axis, zeros past its end.
    fn chunk(&self, emitter: &mut Emitter<'_>, deepest: AxisId, start: Expr) -> Result<Chunk, Diagnostic> {
        let region = emitter.region;
        let (name, size) = (region.axes[deepest].0.clone(), dim(&region.axes[deepest].1));
        let bind = Bind::Tile { start: start.clone(), size: self.how.depth, open: true };
        emitter.frames.push(Frame::with(BTreeMap::from([(deepest, bind)])));
        let (mut copies, mut stores) = (Vec::new(), Vec::new());
        for operand in &self.group.operands {
            let to = self.slot(operand);
            if let Term::Load { input, map, open } = &region.terms[operand.term].0
                && map.iter().all(|i| matches!(i, Index::Affine(_)))
            {
                let from = emitter.access(*input, map, &BTreeMap::new(), *open)?;
                let mods = LoadMods { pad: Some(Expr::Int(0)), on: Some(self.name.clone()), ..LoadMods::default() };
                copies.push(Stmt::Copy { to, from, mods });
                continue;
            }
            let mut value = emitter.emit(operand.term)?;
            if !reads_pad(region, operand.term) {
                let at = Expr::Iota(name.clone(), Box::new(start.clone()), Box::new(Expr::Int(self.how.depth)));
                let inside = Expr::scalar(ScalarOp::Lt {}, [at, size.clone()]);
                value = select(inside, value, Expr::cast(self.how.row.dtype, Expr::Real(0.0)));
            }
            stores.push(Stmt::Store { access: to, mods: LoadMods::default(), value, add: false });
        }
        let loads = emitter.pop()?.stmts;
        Ok(Chunk { loads, copies, stores })
    }
}

#[cfg(test)]
mod tests {
    use super::swizzle;

    /// A phase of `ldmatrix`, and 8 threads of an asynchronous copy.
    #[test]
    fn eight_accesses_of_16_bytes_lie_in_different_banks() {
        for row in [16i64, 32, 64, 128] {
            let [b, m, s] = swizzle(row);
            assert!(b <= s, "the bits that are xored and those that they are xored with are apart");
            let bank = |i: i64| (i ^ ((i >> (m + s)) & ((1 << b) - 1)) << m) * 2 % 128 / 16;
            let all = |of: &dyn Fn(i64) -> i64| {
                let mut seen: Vec<i64> = (0..8).map(|i| bank(of(i))).collect();
                seen.sort_unstable();
                seen == (0..8).collect::<Vec<_>>()
            };
            for column in (0..row).step_by(8) {
                for first in (0..16).step_by(8) {
                    assert!(all(&|i| (first + i) * row + column), "rows {first}.. of {row}, column {column}");
                }
            }
            assert!(all(&|i| 8 * i), "a copy to rows of {row}");
        }
    }
}
