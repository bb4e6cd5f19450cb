//! What expressions and accesses cost, and the numbers that positions have.

use super::{
    CALL, LANES, LINE, Memory, NEAR_RATE, NEAREST, NEST, SINGLE, STATEMENT, Spent, TURN, Tile, WAY, WAYS, Walk, bytes,
};
use crate::egraph::cover::work;
use tilewright_ir::kernel::{Access, BinaryOp, Expr, IndexDim, Stmt, TileReduce, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Rows below which sums of a micro-kernel wait for each other: the steps of a fused multiply-add.
const CHAINS: f64 = 4.0;

/// How often a strip in scratch goes through the second cache and back. It is written, read, written and read; tiles of 4096 of tanh, of GELU and of SwiGLU take 1.1 to 3
/// microseconds more than as many elements in tiles of 512 on Sapphire Rapids, which is twice to six times that.
const PASSES: f64 = 8.0;

/// Seconds of a row of an elementary function in scratch beyond those of its elements: it leaves the first cache as far as it does not fit
/// there beside what comes in and goes out.
fn strip(tile: Tile) -> f64 {
    let size = tile.elements * bytes(tile.dtype);
    2.0 * PASSES * size / NEAR_RATE * (3.0 * size / NEAREST).min(1.0)
}

/// Whether the positions of an access along an axis depend on `var`.
fn reads(dim: &IndexDim, var: &str) -> bool {
    match dim {
        IndexDim::All => false,
        IndexDim::Point { at, .. } | IndexDim::Checked { at, .. } => at.reads(var),
        IndexDim::Range { start, .. } => start.reads(var),
        // Data chooses.
        IndexDim::Gather(_) => true,
    }
}

impl Walk<'_> {
    /// A position or size.
    pub(super) fn number(&self, e: &Expr) -> Option<f64> {
        match e {
            Expr::Int(n) => Some(*n as f64),
            Expr::Name(name) => self.numbers.get(name).copied(),
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.number(a)?, self.number(b)?);
                Some(match op {
                    BinaryOp::Floor => (a / b).floor(),
                    BinaryOp::Ceil => (a / b).ceil(),
                    BinaryOp::Mod => a.rem_euclid(b),
                })
            }
            Expr::Scalar(op, args) => {
                let args = args.iter().map(|a| self.number(a)).collect::<Option<Vec<f64>>>()?;
                match (op, args.as_slice()) {
                    (ScalarOp::Add {}, [a, b]) => Some(a + b),
                    (ScalarOp::Sub {}, [a, b]) => Some(a - b),
                    (ScalarOp::Mul {}, [a, b]) => Some(a * b),
                    (ScalarOp::Neg {}, [a]) => Some(-a),
                    (ScalarOp::Min {}, [a, b]) => Some(a.min(*b)),
                    (ScalarOp::Max {}, [a, b]) => Some(a.max(*b)),
                    (ScalarOp::Div {}, [a, b]) => Some((a / b).trunc()),
                    (ScalarOp::Cast { .. }, [a]) => Some(*a),
                    _other => None,
                }
            }
            Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => None,
        }
    }

    /// A loop: its body in the middle of its range, as often as it turns but for the last, which may be cut short.
    pub(super) fn turns(&mut self, var: &Ident, (low, high, step): (f64, f64, f64), body: &[Stmt]) -> Option<()> {
        let trips = ((high - low) / step).ceil().max(0.0);
        if trips == 0.0 {
            return Some(());
        }
        let mut all = self.spent;
        all.seconds += trips * TURN;
        self.loops.push((var.clone(), trips));
        let middle = ((trips - 2.0) / 2.0).floor();
        for (at, times) in [(middle, trips - 1.0), (trips - 1.0, 1.0)].into_iter().filter(|(_, times)| *times > 0.0) {
            self.numbers.insert(var.clone(), low + step * at);
            self.spent = Spent::default();
            self.block(body)?;
            all.add(times, self.spent);
        }
        self.spent = all;
        self.loops.pop();
        Some(())
    }

    /// Seconds of `operations` and `special` functions on each element of a tile.
    pub(super) fn elements(&self, tile: Tile, operations: f64, special: f64) -> f64 {
        let rate = self.device.vector.of(tile.dtype) / self.device.cores.0;
        let each = (operations + special * self.device.special.0) / rate;
        if tile.elements <= 1.0 { SINGLE * each } else { tile.elements * each }
    }

    /// A name for a value: a number where it is one, else a tile.
    pub(super) fn bind(&mut self, names: &[Ident], value: &Expr) -> Option<()> {
        match (names, self.number(value)) {
            ([name], Some(number)) => {
                self.numbers.insert(name.clone(), number);
            }
            ([name], None) => {
                let tile = self.value(value)?;
                self.tiles.insert(name.clone(), tile);
            }
            _several => return None,
        }
        Some(())
    }

    /// The tile that an expression is; its cost is added.
    pub(super) fn value(&mut self, e: &Expr) -> Option<Tile> {
        let one = Tile { elements: 1.0, dtype: DType::F32 };
        match e {
            Expr::Int(_) | Expr::Real(_) => Some(one),
            Expr::Name(name) => Some(self.tiles.get(name).copied().unwrap_or(one)),
            Expr::Scalar(op, args) => {
                let tiles = args.iter().map(|a| self.value(a)).collect::<Option<Vec<Tile>>>()?;
                let widest = tiles.into_iter().fold(one, |a, b| if b.elements >= a.elements { b } else { a });
                let (operations, special) = work(op);
                self.spent.seconds += self.elements(widest, operations, special);
                if widest.elements > 1.0 {
                    self.spent.seconds += STATEMENT;
                }
                if widest.elements > 1.0 && special > 0.0 {
                    self.spent.seconds += NEST + strip(widest);
                }
                Some(match op {
                    ScalarOp::Cast { to } => Tile { dtype: *to, ..widest },
                    _other => widest,
                })
            }
            Expr::Binary(..) => Some(one),
            Expr::Reduce(kind, arg, _) => {
                let tile = self.value(arg)?;
                let place = matches!(kind, TileReduce::Argmax | TileReduce::Argmin);
                self.spent.seconds += self.elements(tile, if place { SINGLE } else { 1.0 }, 0.0) + LANES;
                Some(Tile { elements: 1.0, ..tile })
            }
            Expr::Iota(_, _, size) => Some(Tile { elements: self.number(size)?, dtype: DType::I64 }),
            Expr::Order(..) => None,
        }
    }

    /// What an access covers; bytes of arguments are counted, and strides.
    pub(super) fn access(&mut self, access: &Access) -> Option<Tile> {
        let memory = self.buffers.get(&access.buffer)?.clone();
        let mut elements = 1.0;
        // Neighbours are neighbours in memory where only one dim covers more than one element.
        let mut inner = memory.along.is_some();
        let dims = access.dims.iter().flatten();
        for (i, (dim, &extent)) in dims.zip(&memory.axes).enumerate() {
            let covered = match dim {
                IndexDim::All => extent,
                IndexDim::Point { .. } | IndexDim::Checked { .. } => 1.0,
                IndexDim::Range { start, size, open, .. } => {
                    let size = self.number(size)?;
                    match self.number(start) {
                        Some(start) if *open => size.min(extent - start).max(0.0),
                        _inside => size,
                    }
                }
                IndexDim::Gather(tile) => {
                    inner = false;
                    self.tiles.get(tile)?.elements
                }
            };
            elements *= covered;
            inner &= covered <= 1.0 || memory.along == Some(i);
        }
        if access.dims.is_none() {
            elements = memory.axes.iter().product();
        }
        let tile = Tile { elements, dtype: memory.dtype };
        if memory.argument {
            let moved = self.fresh(access, elements * bytes(memory.dtype));
            self.spent.moved += moved;
            if self.breaks(access, &memory, elements) {
                self.spent.broken += moved;
                self.spent.parts += 1.0;
            }
        } else if memory.axes.iter().product::<f64>() * bytes(memory.dtype) > NEAREST {
            // Accumulators of many rows leave the first cache before they are stored.
            self.spent.seconds += elements * bytes(memory.dtype) / NEAR_RATE;
        }
        self.spent.seconds += if elements > 1.0 { STATEMENT + LINE * self.away(access, &memory) } else { 0.0 };
        self.spent.seconds += self.elements(tile, if inner || elements <= 1.0 { 0.25 } else { SINGLE }, 0.0);
        Some(tile)
    }

    /// Of the bytes of an access those that the second cache has not: a loop that does not change what is accessed comes back to the same bytes,
    /// which are still there unless what the loops inside it access fills that cache.
    fn fresh(&self, access: &Access, size: f64) -> f64 {
        let (mut fresh, mut between) = (size, size);
        for (var, trips) in self.loops.iter().rev() {
            if access.dims.iter().flatten().any(|dim| reads(dim, var)) {
                between *= trips;
            } else if between <= self.device.own_cache_bytes.0 {
                fresh /= trips;
            }
        }
        fresh
    }

    /// How many of the lines of a tile across rows do not stay in the first cache: the larger the power of 2 that divides the size of a row,
    /// the fewer of its sets they fall on.
    fn away(&self, access: &Access, memory: &Memory) -> f64 {
        let dims = access.dims.as_deref().unwrap_or(&[]);
        let Some(at) = dims.iter().position(|dim| matches!(dim, IndexDim::Range { .. })) else { return 0.0 };
        let (IndexDim::Range { size, .. }, rest) = (&dims[at], &dims[at + 1..]) else { return 0.0 };
        if memory.along == Some(at) || rest.is_empty() || !rest.iter().all(|dim| matches!(dim, IndexDim::Point { .. }))
        {
            return 0.0;
        }
        let row = memory.axes.iter().skip(at + 1).product::<f64>() * bytes(memory.dtype);
        if row < 64.0 {
            return 0.0;
        }
        let shared = 1_i64 << (row as i64).trailing_zeros().min(WAY.trailing_zeros());
        let held = WAYS * (WAY / shared.max(64)) as f64;
        let lines = self.number(size).unwrap_or(0.0);
        (lines - held).max(0.0)
    }

    /// Whether the innermost loop reads a part of another row each time.
    fn breaks(&self, access: &Access, memory: &Memory, elements: f64) -> bool {
        let (Some((turn, _)), Some(at), Some(dims)) =
            (self.loops.get(self.outside..).and_then(<[_]>::last), memory.along, access.dims.as_deref())
        else {
            return false;
        };
        let Some(IndexDim::Range { start, .. }) = dims.get(at) else { return false };
        let row = |(i, dim): (usize, &IndexDim)| i != at && matches!(dim, IndexDim::Point { at, .. } if at.reads(turn));
        dims.iter().enumerate().any(row) && !start.reads(turn) && elements < memory.axes[at]
    }

    /// Products of a micro-kernel: its multiplications, and its accumulators once in and once out.
    pub(super) fn product(&mut self, to: &Access, terms: &[(Access, Access)]) -> Option<()> {
        let mut all = self.spent;
        let cells = self.access(to)?.elements;
        let mut seconds = 2.0 * cells * 4.0 / NEAR_RATE + CALL;
        for (a, b) in terms {
            self.spent = Spent::default();
            let panels = b;
            let (a, b) = (self.access(a)?, self.access(b)?);
            // Of A only the rows that are there are covered, so B tells the depth.
            let depth = b.elements / self.columns(to)?.max(1.0);
            let rate = self.device.matrix.of(b.dtype) / self.device.cores.0;
            // Sums of few rows wait for each other.
            let rows = (a.elements / depth.max(1.0)).max(CHAINS);
            let multiply = 2.0 * rows * b.elements / rate;
            // Meanwhile rows of A and columns of B come, from the second cache at best.
            let fetch = (a.elements * bytes(a.dtype) + b.elements * bytes(b.dtype)) / NEAR_RATE;
            seconds += multiply.max(fetch);
            all.moved += self.spent.moved;
            all.changes += self.changes(panels);
        }
        all.seconds += seconds;
        self.spent = all;
        Some(())
    }

    /// How often the fold of a panel is left before its end for another panel, as a share of the calls that come to it first. With few
    /// panels in turn what was fetched ahead of one is often still there.
    fn changes(&self, panels: &Access) -> f64 {
        let Some([panel, depth, ..]) = panels.dims.as_deref() else { return 0.0 };
        let inside = self.loops.get(self.outside..).unwrap_or(&[]);
        let turns = |dim| inside.iter().filter(|(var, _)| reads(dim, var)).map(|(_, trips)| *trips).product::<f64>();
        let (several, parts) = (turns(panel), turns(depth));
        if several > 1.0 && parts > 1.0 { (1.0 - 1.0 / several) * self.fresh(panels, 1.0) } else { 0.0 }
    }

    /// Columns of an accumulator.
    fn columns(&self, to: &Access) -> Option<f64> {
        match to.dims.as_ref()?.last()? {
            IndexDim::Range { size, .. } => self.number(size),
            IndexDim::All => self.buffers.get(&to.buffer)?.axes.last().copied(),
            IndexDim::Point { .. } | IndexDim::Checked { .. } => Some(1.0),
            IndexDim::Gather(_) => None,
        }
    }
}
