//! `mma`: layouts of accumulators, and `via simt_f32`: chunks of 16 of the contracted axis staged in shared memory, a register tile a thread.

use super::emitter::{Axes, Binding, Element, Emitted, Emitter, Grid, Layout, Tile};
use super::value::bare;
use super::{invalid, scalar, unsupported};
use tilewright_ir::device::mma;
use tilewright_ir::kernel::expr::{Access, Expr, Ident};
use tilewright_ir::kernel::tree::{Block, Buffer, Space, Stmt};
use tilewright_ir::types::DType;

/// Elements of the contracted axis a chunk.
const CHUNK: i64 = 16;

impl Emitter<'_> {
    /// Gives the accumulators of the kernel's products their layout, before anything is emitted.
    pub fn collect_grids(&mut self, body: &Block) -> Emitted<()> {
        let mut accumulators = Vec::new();
        let mut registers = Vec::new();
        walk(body, &mut accumulators, &mut registers);
        for b in registers.iter().filter(|b| accumulators.contains(&b.name)) {
            let sizes = b.axes.iter().map(|(n, s)| Some((n.clone(), self.constant(s)?))).collect::<Option<Axes>>();
            let Some(axes) = sizes.filter(|a| a.len() == 2) else { continue };
            let layout = match b.attrs.iter().find(|a| &*a.name == "layout") {
                Some(attr) => self.warps(b, attr, &axes)?,
                None => self.square(&axes)?,
            };
            if !self.grids.iter().any(|g| g.axes == axes) {
                self.grids.push(Grid { axes, layout });
            }
        }
        Ok(())
    }

    /// Threads in nearly a square.
    fn square(&self, axes: &Axes) -> Emitted<Layout> {
        let fits = [16, 32, 8].into_iter().find(|c| {
            let rows = self.threads / c;
            axes[1].1 % c == 0 && axes[0].1 > 0 && axes[0].1 % rows == 0
        });
        let columns = fits.ok_or_else(|| {
            invalid(format!("{}x{} does not divide among {} threads", axes[0].1, axes[1].1, self.threads))
        })?;
        Ok(Layout::Threads { rows: self.threads / columns, columns })
    }

    pub fn mma(&mut self, to: &Access, terms: &[(Access, Access)], via: &str, init: &Option<Expr>) -> Emitted<()> {
        let Binding::Tile(acc) = self.lookup(&to.buffer)? else {
            return Err(unsupported(format!("the accumulator `{}` outside registers", to.buffer)).into());
        };
        let whole = to.dims.is_none() && !acc.shared && acc.dtype == DType::F32;
        let grid = self.grids.iter().find(|g| g.axes == acc.axes).cloned();
        let Some(grid) = grid.filter(|_| whole) else {
            return Err(unsupported(format!(
                "the accumulator `{}`, expected a whole f32[m, n] in registers",
                to.buffer
            ))
            .into());
        };
        if let Some(e) = init {
            let condition = self.index(e)?;
            let slots = self.elements(&acc.axes)? / self.threads;
            if condition != "0" {
                self.open(if condition == "1" { String::new() } else { format!("if ({})", bare(&condition)) });
                self.line("#pragma unroll");
                self.line(format!("for (int r = 0; r < {slots}; ++r) {}[r] = 0.0f;", acc.c));
                self.close();
            }
        }
        let row = mma::named(via);
        for (a, b) in terms {
            match (grid.layout, row) {
                (Layout::Warps { high, wide }, Some(row)) => self.product_of_warps(&acc, (high, wide), row, a, b)?,
                (Layout::Threads { rows, columns }, None) if via == "simt_f32" => {
                    self.product(&acc, (rows, columns), a, b)?;
                }
                (Layout::Warps { .. } | Layout::Threads { .. }, _) => {
                    return Err(unsupported(format!("products via `{via}` into the layout of `{}`", acc.c)).into());
                }
            }
        }
        Ok(())
    }

    fn product(&mut self, acc: &Tile, (rows, columns): (i64, i64), a: &Access, b: &Access) -> Emitted<()> {
        let (_, a_axes) = self.access_type(a)?;
        let (_, b_axes) = self.access_type(b)?;
        let (m, n) = (acc.axes[0].clone(), acc.axes[1].clone());
        // The first factor may be the one with the columns.
        let (a, a_axes, b, b_axes) = if a_axes.contains(&m) { (a, a_axes, b, b_axes) } else { (b, b_axes, a, a_axes) };
        let k = a_axes.iter().find(|x| **x != m).cloned();
        let fits = |axes: &Axes, own: &(Ident, i64), k: &(Ident, i64)| {
            axes.len() == 2 && axes.contains(own) && axes.contains(k)
        };
        let Some(k) = k.filter(|k| fits(&a_axes, &m, k) && fits(&b_axes, &n, k) && k.0 != n.0) else {
            return Err(unsupported("a product that is not [m, k] by [k, n]").into());
        };
        // A mask takes staging: its zeros are not in the buffer.
        if self.is_shared(a)? && self.is_shared(b)? && !a.is_masked() && !b.is_masked() {
            return self.product_of_shared(acc, (rows, columns), (a, &a_axes), (b, &b_axes), &k);
        }
        let (a_part, b_part) = (self.c_name(&format!("{}_a", acc.c)), self.c_name(&format!("{}_b", acc.c)));
        let (a_row, b_row) = (m.1 + 1, n.1 + 1);
        self.open("");
        self.declare_shared(DType::F32, &a_part, CHUNK * a_row)?;
        self.declare_shared(DType::F32, &b_part, CHUNK * b_row)?;
        self.open(format!("for (int k0 = 0; k0 < {}; k0 += {CHUNK})", k.1));
        self.line("__syncthreads();");
        self.stage(a, &a_axes, &k, &a_part, a_row)?;
        self.stage(b, &b_axes, &k, &b_part, b_row)?;
        self.line("__syncthreads();");
        let (high, wide) = (m.1 / rows, n.1 / columns);
        self.line("#pragma unroll");
        self.open(format!("for (int kk = 0; kk < {CHUNK}; ++kk)"));
        self.line(format!("float a_part[{high}], b_part[{wide}];"));
        self.line("#pragma unroll");
        self.line(format!(
            "for (int i = 0; i < {high}; ++i) a_part[i] = {a_part}[kk * {a_row} + tid / {columns} + i * {rows}];"
        ));
        self.line("#pragma unroll");
        self.line(format!(
            "for (int j = 0; j < {wide}; ++j) b_part[j] = {b_part}[kk * {b_row} + tid % {columns} + j * {columns}];"
        ));
        self.line("#pragma unroll");
        self.open(format!("for (int r = 0; r < {}; ++r)", high * wide));
        self.line(format!("{0}[r] = fmaf(a_part[r / {wide}], b_part[r % {wide}], {0}[r]);", acc.c));
        self.close();
        self.close();
        self.close();
        self.close();
        self.fresh = false;
        Ok(())
    }

    fn is_shared(&self, a: &Access) -> Emitted<bool> {
        Ok(match self.lookup(&a.buffer)? {
            Binding::Memory(m) => m.shared && m.dtype == DType::F32,
            Binding::Tile(_) | Binding::View(_) | Binding::Index(_) | Binding::Constant(_) => false,
        })
    }

    /// Operands that lie in shared memory already.
    fn product_of_shared(
        &mut self,
        acc: &Tile,
        (rows, columns): (i64, i64),
        (a, a_axes): (&Access, &Axes),
        (b, b_axes): (&Access, &Axes),
        k: &(Ident, i64),
    ) -> Emitted<()> {
        let (high, wide) = (acc.axes[0].1 / rows, acc.axes[1].1 / columns);
        let at = |axes: &Axes, own: String| {
            let index = axes.iter().map(|x| if x.0 == k.0 { "kk".to_string() } else { own.clone() }).collect();
            Element { axes: axes.clone(), index, slot: None }
        };
        let a_place = self.address(a, &at(a_axes, format!("(tid / {columns} + i * {rows})")))?.place;
        let b_place = self.address(b, &at(b_axes, format!("(tid % {columns} + j * {columns})")))?.place;
        // Wholly unrolled, the addresses of all steps take the registers of the tile.
        self.line("#pragma unroll 4");
        self.open(format!("for (int kk = 0; kk < {}; ++kk)", k.1));
        self.line(format!("float a_part[{high}], b_part[{wide}];"));
        self.line("#pragma unroll");
        self.line(format!("for (int i = 0; i < {high}; ++i) a_part[i] = {a_place};"));
        self.line("#pragma unroll");
        self.line(format!("for (int j = 0; j < {wide}; ++j) b_part[j] = {b_place};"));
        self.line("#pragma unroll");
        self.open(format!("for (int r = 0; r < {}; ++r)", high * wide));
        self.line(format!("{0}[r] = fmaf(a_part[r / {wide}], b_part[r % {wide}], {0}[r]);", acc.c));
        self.close();
        self.close();
        self.fresh = false;
        Ok(())
    }

    /// Copies one chunk of an operand to `part[k][own]`, 0 where it is masked or past the contracted axis.
    fn stage(&mut self, a: &Access, axes: &Axes, k: &(Ident, i64), part: &str, row: i64) -> Emitted<()> {
        let chunk: Axes = axes.iter().map(|x| if x == k { (x.0.clone(), CHUNK) } else { x.clone() }).collect();
        let elements = self.elements(&chunk)?;
        let index: Vec<String> = axes.iter().map(|x| format!("i_{}", x.0)).collect();
        self.open(format!("for (int e = tid; e < {elements}; e += {})", self.threads));
        let local: Vec<String> =
            chunk.iter().map(|x| if x.0 == k.0 { "kk".to_string() } else { format!("i_{}", x.0) }).collect();
        self.split("e", &chunk, &local);
        self.line(format!("const int i_{} = k0 + kk;", k.0));
        let at = Element { axes: axes.clone(), index, slot: None };
        let mut address = self.address(a, &at)?;
        let d = address.memory.dtype;
        if !matches!(d, DType::F32 | DType::F16 | DType::Bf16) {
            return Err(unsupported(format!("simt_f32 on {d}")).into());
        }
        if k.1 % CHUNK != 0 {
            let inside = format!("i_{} < {}", k.0, k.1);
            address.mask = Some(match address.mask {
                Some(m) => format!("({inside} && {m})"),
                None => format!("({inside})"),
            });
        }
        let value = address.read(Some(scalar::literal(DType::F32, 0.0)?));
        let own = local.iter().find(|c| *c != "kk").cloned().unwrap_or_default();
        self.line(format!("{part}[kk * {row} + {own}] = {value};"));
        self.close();
        Ok(())
    }
}

/// Names of the accumulators and all `reg` buffers.
fn walk<'k>(body: &'k Block, accumulators: &mut Vec<Ident>, registers: &mut Vec<&'k Buffer>) {
    for s in body {
        if let Stmt::Buffer(b) = s
            && b.space == Space::Reg
        {
            registers.push(b);
        }
        if let Stmt::Mma { to, .. } = s {
            accumulators.push(to.buffer.clone());
        }
        s.blocks().into_iter().for_each(|body| walk(body, accumulators, registers));
    }
}
