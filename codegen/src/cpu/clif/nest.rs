//! Loop nests over the elements of a tile.

use super::element::Frame;
use super::emitter::{Emitter, FLAGS};
use super::types::{Memory, Node, Plan, Tile, malformed, unsupported};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// A part of the inner axis of a tile.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The axis.
    pub axis: &'a Ident,
    /// Its size in the tile.
    pub size: i64,
    /// The first position.
    pub begin: Value,
    /// The position after the last.
    pub end: Value,
    /// Whether that is all of it.
    pub whole: bool,
}

type Body<'f> = dyn FnMut(&mut Emitter<'_>, Frame) -> Result<(), Diagnostic> + 'f;

/// All loads of a tile, each once.
pub fn loads(tile: &Rc<Tile>) -> Vec<Rc<Tile>> {
    let (mut found, mut seen, mut open) = (Vec::new(), BTreeSet::new(), vec![tile.clone()]);
    while let Some(tile) = open.pop() {
        if !seen.insert(tile.id) {
            continue;
        }
        match &tile.node {
            Node::Load(plan, pad) => {
                open.extend(plan.gathers.iter().map(|(gather, _)| gather.clone()).chain(pad.clone()));
                found.push(tile.clone());
            }
            Node::Op(_, operands) => open.extend(operands.iter().cloned()),
            Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Iota(..) => {}
        }
    }
    found
}

impl Emitter<'_> {
    /// Runs `body` at every position of `axes`.
    pub fn nest(&mut self, axes: &[(Ident, i64)], frame: Frame, body: &mut Body<'_>) -> Result<(), Diagnostic> {
        let Some(((axis, size), rest)) = axes.split_first() else { return body(self, frame) };
        let (zero, one) = (self.b.ins().iconst(types::I64, 0), self.b.ins().iconst(types::I64, 1));
        let high = self.b.ins().iconst(types::I64, *size);
        self.each(zero, high, one, |e, at| e.nest(rest, frame.with(axis, at), body))
    }

    /// The part of `begin..end` of the inner axis where no load is masked: `(low, high)`, within it.
    pub fn clear_range(
        &mut self,
        tile: &Rc<Tile>,
        frame: &mut Frame,
        begin: Value,
        end: Value,
    ) -> Result<(Value, Value), Diagnostic> {
        let Some((inner, _)) = frame.inner.clone() else { return Ok((begin, end)) };
        let (mut low, mut high) = (begin, end);
        for load in loads(tile).iter().filter(|load| load.has(&inner)) {
            let Node::Load(plan, _) = &load.node else { continue };
            (low, high) = self.clip(plan, frame, &inner, low, high)?;
        }
        if low != begin {
            low = self.b.ins().smin(low, end);
        }
        if high != end {
            high = self.b.ins().smax(high, low);
        }
        Ok((low, high))
    }

    /// `low..high` without what the masks of a plan take away; may be empty by `high < low`.
    fn clip(
        &mut self,
        plan: &Plan,
        frame: &mut Frame,
        inner: &Ident,
        mut low: Value,
        mut high: Value,
    ) -> Result<(Value, Value), Diagnostic> {
        for mask in &plan.masks {
            let gathers = mask.at.gather.as_ref().is_some_and(|(tile, _)| tile.has(inner));
            let coefficient = mask.at.terms.iter().find(|(axis, _)| axis == inner).map_or(0, |(_, c)| *c);
            if gathers || coefficient < 0 {
                // Nothing is known: every element is looked at.
                high = low;
                continue;
            }
            if coefficient == 0 {
                let holds = self.mask_holds(mask, frame, 0)?;
                high = self.b.ins().select(holds, high, low);
                continue;
            }
            let mut rest = mask.clone();
            rest.at.terms.retain(|(axis, _)| axis != inner);
            let start = self.position_of(&rest.at, frame, 0)?;
            let factor = self.num(coefficient);
            let minus = self.num(coefficient - 1);
            let room = self.b.ins().isub(mask.extent, start);
            let room = self.b.ins().iadd(room, minus.value);
            let last = self.floor_div(super::types::Num { value: room, constant: None }, factor);
            high = self.b.ins().smin(high, last.value);
            if mask.low {
                let first = self.b.ins().isub(minus.value, start);
                let first = self.floor_div(super::types::Num { value: first, constant: None }, factor);
                low = self.b.ins().smax(low, first.value);
            }
        }
        Ok((low, high))
    }

    /// Writes a tile to a box; elements outside are dropped.
    pub fn store_tile(&mut self, to: &Plan, value: &Rc<Tile>, add: bool) -> Result<(), Diagnostic> {
        // Elements of a block have no places of their own.
        if to.memory.dtype.is_block() {
            return Err(unsupported(format!("a store of {} elements", to.memory.dtype)));
        }
        // Rows of a store are cut where their masks end, so positions must grow along them.
        if to.masks.iter().any(|mask| mask.at.gather.is_some() || mask.at.terms.iter().any(|(_, c)| *c < 0)) {
            return Err(unsupported(format!("a masked store to `{}` in this order", to.memory.name)));
        }
        let dtype = to.memory.dtype;
        let value = if value.dtype == dtype {
            value.clone()
        } else if matches!(value.node, Node::Int(_)) {
            self.tile(dtype, Vec::new(), value.node.clone())
        } else {
            return Err(malformed(format!("a tile of {} is stored to `{}` of {dtype}", value.dtype, to.memory.name)));
        };
        let mut axes = Vec::new();
        for (axis, size) in &to.axes {
            let known =
                size.constant.ok_or_else(|| malformed(format!("axis `{axis}` of a tile has no constant size")))?;
            axes.push((axis.clone(), known));
        }
        for (axis, size) in &value.axes {
            if !axes.iter().any(|(other, n)| other == axis && n == size) {
                return Err(malformed(format!("`{}` has no axis `{axis}` of size {size}", to.memory.name)));
            }
        }
        let value = if add {
            let plan = Plan { masks: Vec::new(), ..to.clone() };
            let old = self.tile(dtype, axes.clone(), Node::Load(plan, None));
            self.operation(&ScalarOp::Add {}, vec![old, value])?
        } else {
            value
        };
        let element = dtype.block().1 as i64;
        let is_contiguous = |at: usize| to.steps[at].constant == Some(element);
        let inner = (0..axes.len()).rev().find(|at| is_contiguous(*at)).or(axes.len().checked_sub(1));
        let Some(inner) = inner else {
            return self.store_element(to, &value, &mut Frame { checked: true, ..Frame::default() });
        };
        let scattered = !to.gathers.is_empty();
        let side_by_side = is_contiguous(inner) && !scattered;
        let vector = side_by_side && dtype == DType::F32 && axes[inner].1 >= 4;
        let (axis, size) = axes.remove(inner);
        self.nest(&axes, Frame::default(), &mut |e, frame| {
            e.store_row(to, &value, frame, (&axis, size), (vector, side_by_side))
        })
    }

    fn store_element(&mut self, to: &Plan, value: &Rc<Tile>, frame: &mut Frame) -> Result<(), Diagnostic> {
        let mut holds: Option<Value> = None;
        for mask in &to.masks {
            let one = self.mask_holds(mask, frame, 0)?;
            holds = Some(match holds {
                Some(all) => self.b.ins().band(all, one),
                None => one,
            });
        }
        let body = |e: &mut Self, frame: &mut Frame| {
            let element = e.element(value, frame, 0)?;
            let address = e.address_of(None, to, frame, 0)?;
            e.write(to.memory.dtype, element, address)
        };
        match holds {
            Some(holds) => {
                let mut inside = frame.clone();
                self.when(holds, |e| body(e, &mut inside))
            }
            None => body(self, frame),
        }
    }

    /// One row: the inner axis of a store.
    fn store_row(
        &mut self,
        to: &Plan,
        value: &Rc<Tile>,
        mut frame: Frame,
        (axis, size): (&Ident, i64),
        (vector, side_by_side): (bool, bool),
    ) -> Result<(), Diagnostic> {
        let zero = self.b.ins().iconst(types::I64, 0);
        let size_value = self.b.ins().iconst(types::I64, size);
        frame.inner = Some((axis.clone(), [zero; 4]));
        let (begin, end) = self.clip(to, &mut frame, axis, zero, size_value)?;
        let some = self.b.ins().icmp(IntCC::SignedLessThan, begin, end);
        let row = Row { axis, size, begin, end, whole: begin == zero && end == size_value };
        let body = |e: &mut Self| {
            frame.checked = true;
            if (vector && e.fill_in_place(to, value, &frame, &row)?)
                || (side_by_side && e.fill_halves(to, value, &frame, &row)?)
            {
                return Ok(());
            }
            let value = e.strips(value, &frame, &row, &mut BTreeMap::new())?;
            e.fill(to, &value, frame, &row, vector)
        };
        if to.masks.is_empty() { body(self) } else { self.when(some, body) }
    }

    /// Writes the elements of a row.
    pub fn fill(
        &mut self,
        to: &Plan,
        value: &Rc<Tile>,
        mut frame: Frame,
        row: &Row<'_>,
        vector: bool,
    ) -> Result<(), Diagnostic> {
        let Row { axis, size, begin, end, whole } = *row;
        let (zero, one) = (self.b.ins().iconst(types::I64, 0), self.b.ins().iconst(types::I64, 1));
        self.prepare(value, &mut frame)?;
        let row = self.row_address(to, &frame)?;
        let element = |e: &mut Self, at: Value| {
            let mut frame = frame.at([at; 4], true);
            let element = e.element(value, &mut frame, 0)?;
            let address = if to.gathers.is_empty() {
                let step = to.step(axis).map_or(zero, |step| step.value);
                let offset = e.b.ins().imul(at, step);
                e.b.ins().iadd(row, offset)
            } else {
                e.address_of(None, to, &mut frame, 0)?
            };
            e.write(to.memory.dtype, element, address)
        };
        if !vector {
            return self.each(begin, end, one, element);
        }
        let (low, high) = self.clear_range(value, &mut frame.clone(), begin, end)?;
        if low != begin {
            self.each(begin, low, one, element)?;
        }
        let quads = |e: &mut Self, value: &Rc<Tile>, first: Value, count: i64| {
            for quad in 0..count {
                let at = e.b.ins().iadd_imm_s(first, 4 * quad);
                let mut frame = frame.at(e.lanes(at), false);
                let quad = e.quad(value, &mut frame)?;
                let offset = e.b.ins().imul_imm_s(at, 4);
                let address = e.b.ins().iadd(row, offset);
                e.b.ins().store(FLAGS, quad, address, 0);
            }
            Ok(())
        };
        let known = whole && high == end && low == begin;
        // Cheap elements come four vectors a step: the loop itself would cost as much as they do.
        let mut begin = low;
        if !value.costly && size >= 16 {
            let (wide, step) = (self.whole_quads(low, high, 16), self.b.ins().iconst(types::I64, 16));
            self.each(low, wide, step, |e, at| quads(e, value, at, 4))?;
            begin = wide;
        }
        let whole = self.whole_quads(low, high, 4);
        if begin == low || !known || size % 16 != 0 {
            let four = self.b.ins().iconst(types::I64, 4);
            self.each(begin, whole, four, |e, at| quads(e, value, at, 1))?;
        }
        if known && size % 4 == 0 {
            return Ok(());
        }
        let Some((top, pads)) = self.padded(value, &mut frame.clone(), (whole, end))? else {
            return self.each(whole, end, one, element);
        };
        // From the end of what is there to the next group of four, the groups that are padding, and what is left.
        let missing = self.b.ins().isub(top, whole);
        let missing = self.b.ins().iadd_imm_s(missing, 3);
        let missing = self.b.ins().band_imm_s(missing, -4);
        let first = self.b.ins().iadd(whole, missing);
        let first = self.b.ins().smin(first, end);
        let last = self.whole_quads(first, end, 4);
        let four = self.b.ins().iconst(types::I64, 4);
        self.each(whole, first, one, element)?;
        self.each(first, last, four, |e, at| quads(e, &pads, at, 1))?;
        self.each(last, end, one, element)
    }

    /// Where the masked loads of a tile have all ended along the inner axis, not before the first position, and what the tile is
    /// from there on: their padding instead of them. None if no load ends in a place of its own.
    fn padded(
        &mut self,
        tile: &Rc<Tile>,
        frame: &mut Frame,
        (begin, end): (Value, Value),
    ) -> Result<Option<(Value, Rc<Tile>)>, Diagnostic> {
        let Some((inner, _)) = frame.inner.clone() else { return Ok(None) };
        let (mut top, mut some) = (begin, false);
        for load in loads(tile).iter().filter(|load| load.has(&inner)) {
            let Node::Load(plan, pad) = &load.node else { continue };
            if plan.masks.is_empty() {
                continue;
            }
            let [mask] = plan.masks.as_slice() else { return Ok(None) };
            if pad.is_none() || mask.low || mask.at.gather.is_some() || mask.at.terms != [(inner.clone(), 1)] {
                return Ok(None);
            }
            let (_, high) = self.clip(plan, frame, &inner, begin, end)?;
            top = self.b.ins().smax(top, high);
            some = true;
        }
        Ok(some.then(|| (top, self.with_padding(tile, &inner, &mut BTreeMap::new()))))
    }

    /// A tile with their padding in place of the masked loads that vary along `inner`.
    fn with_padding(&mut self, tile: &Rc<Tile>, inner: &Ident, done: &mut BTreeMap<u32, Rc<Tile>>) -> Rc<Tile> {
        if let Some(known) = done.get(&tile.id) {
            return known.clone();
        }
        let padded = match &tile.node {
            Node::Load(plan, Some(pad)) if tile.has(inner) && !plan.masks.is_empty() => pad.clone(),
            Node::Op(op, operands) if tile.has(inner) => {
                let operands = operands.iter().map(|x| self.with_padding(x, inner, done)).collect();
                self.tile(tile.dtype, tile.axes.clone(), Node::Op(op.clone(), operands))
            }
            Node::Op(..) | Node::Load(..) | Node::Int(_) | Node::Real(_) | Node::Value(_) | Node::Iota(..) => {
                tile.clone()
            }
        };
        done.insert(tile.id, padded.clone());
        padded
    }

    /// The end of the last whole group of `n` (a power of 2) in `low..high`.
    pub fn whole_quads(&mut self, low: Value, high: Value, n: i64) -> Value {
        let length = self.b.ins().isub(high, low);
        let length = self.b.ins().band_imm_s(length, -n);
        self.b.ins().iadd(low, length)
    }

    /// Four neighbouring positions.
    pub fn lanes(&mut self, at: Value) -> [Value; 4] {
        [0, 1, 2, 3].map(|lane| if lane == 0 { at } else { self.b.ins().iadd_imm_s(at, lane) })
    }

    /// A new buffer in scratch memory for a tile with these axes.
    pub fn scratch_plan(&mut self, dtype: DType, axes: &[(Ident, i64)]) -> Result<Plan, Diagnostic> {
        let mut stride = dtype.block().1 as i64;
        let mut steps = Vec::new();
        for (_, size) in axes.iter().rev() {
            steps.push(self.num(stride));
            let next = stride.checked_mul(*size).filter(|n| *n >= 0);
            stride = next.ok_or_else(|| malformed("a tile is larger than memory"))?;
        }
        steps.reverse();
        let bytes = usize::try_from(stride).map_err(|_| malformed("a tile is larger than memory"))?;
        let base = self.allocate(bytes)?;
        let mut sizes = Vec::new();
        for (axis, size) in axes {
            sizes.push((axis.clone(), self.num(*size)));
        }
        let memory = Memory {
            name: "#tile".into(),
            dtype,
            base,
            axes: sizes.clone(),
            strides: steps.clone(),
            span: 1,
            argument: false,
        };
        let (masks, gathers, limits) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Plan { memory: Rc::new(memory), base, axes: sizes, steps, masks, gathers, limits })
    }

    /// Computes a tile now, into a value or scratch memory.
    pub fn materialise(&mut self, tile: &Rc<Tile>) -> Result<Rc<Tile>, Diagnostic> {
        if tile.axes.is_empty() {
            let value = self.scalar_of(tile)?;
            return Ok(self.tile(tile.dtype, Vec::new(), Node::Value(value)));
        }
        let plan = self.scratch_plan(tile.dtype, &tile.axes)?;
        self.store_tile(&plan, tile, false)?;
        Ok(self.tile(tile.dtype, tile.axes.clone(), Node::Load(plan, None)))
    }
}
