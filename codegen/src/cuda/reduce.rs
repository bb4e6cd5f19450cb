//! Reductions: to a scalar over registers and warps; of rows by a warp each; of other axes by the owner of the result.

use super::emitter::{Binding, Element, Emitted, Emitter};
use super::value::bare;
use super::{invalid, scalar};
use tilewright_ir::kernel::expr::{Expr, Ident, TileReduce};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// The expression, which is wanted in dtype `want`, with its reductions computed before it and replaced by names.
    pub fn hoist(&mut self, e: &Expr, want: DType, hint: &str) -> Emitted<Expr> {
        Ok(match e {
            Expr::Scalar(op, args) => {
                let of = self.dtype_in(e, Some(want))?;
                let of = self.operands_dtype(op, args, of)?;
                let select = matches!(op, ScalarOp::Select {});
                let wants = args.iter().enumerate().map(|(i, a)| (a, if select && i == 0 { DType::Bool } else { of }));
                let args = wants.map(|(a, d)| self.hoist(a, d, hint)).collect::<Emitted<Vec<Expr>>>()?;
                Expr::Scalar(op.clone(), args)
            }
            Expr::Reduce(kind, a, axis) => {
                let position = matches!(kind, TileReduce::Argmax | TileReduce::Argmin);
                let d = self.dtype_in(a, Some(want).filter(|_| !position))?;
                let a = self.hoist(a, d, hint)?;
                self.reduce(*kind, &a, d, axis, hint)?
            }
            Expr::Int(_) | Expr::Real(_) | Expr::Name(_) | Expr::Binary(..) | Expr::Iota(..) | Expr::Order(..) => {
                e.clone()
            }
        })
    }

    #[allow(clippy::too_many_lines, reason = "one arm per kind of reduction")]
    fn reduce(&mut self, kind: TileReduce, a: &Expr, d: DType, axis: &Ident, hint: &str) -> Emitted<Expr> {
        let (op, suffix) = match kind {
            TileReduce::Sum => ("Sum", "sum"),
            TileReduce::Prod => ("Prod", "prod"),
            TileReduce::Max => ("Max", "max"),
            TileReduce::Min => ("Min", "min"),
            TileReduce::Argmax => return self.position(TileReduce::Max, a, d, axis, hint),
            TileReduce::Argmin => return self.position(TileReduce::Min, a, d, axis, hint),
        };
        // A sum of bools is whether any holds, a product whether all do.
        let op = match (d, op) {
            (DType::Bool, "Sum") => "Max",
            (DType::Bool, "Prod") => "Min",
            (_number, op) => op,
        };
        // Literals and results of C's promotions are int: only the dtype says what is folded.
        let of = if d.is_int() { format!("{op}::of<{}>", scalar::computed(d)?) } else { format!("{op}::of") };
        let axes = self.axes(a)?;
        let Some(place) = axes.iter().position(|x| x.0 == *axis) else {
            return Err(invalid(format!("the reduced tile has no axis `{axis}`")).into());
        };
        let n = axes[place].1;
        let start = identity(kind, d)?;
        let ty = scalar::computed(d)?;
        let name: Ident = format!("{hint}_{suffix}").into();
        let mut rest = axes.clone();
        rest.remove(place);
        let by_warp = !rest.is_empty() && place + 1 == axes.len() && n >= 32;
        let t = self.declare_tile(&name, rest.clone(), d, by_warp)?;
        // Temporaries are named apart from what the kernel declares.
        let temporary: Ident = format!("%{}", t.c).into();
        self.bind(&temporary, Binding::Tile(t.clone()));
        if rest.is_empty() {
            self.line(format!("{} = {start};", t.c));
            self.each(&axes, |this, at| {
                let x = this.value(a, d, at)?;
                this.line(format!("{0} = {of}({0}, {1});", t.c, bare(&x)));
                Ok(())
            })?;
            let scratch = self.c_name(&format!("{}_scratch", t.c));
            let wide = if d.is_float() && d != DType::F64 { DType::F32 } else { d };
            self.declare_shared(wide, &scratch, self.threads / 32)?;
            self.line(format!("{0} = block_reduce<{1}, {op}>({0}, {scratch});", t.c, self.threads));
            self.fresh = true;
            return Ok(Expr::Name(temporary));
        }
        let inner = format!("i_{axis}");
        let mut index: Vec<String> = axes.iter().map(|x| format!("i_{}", x.0)).collect();
        index[place] = inner.clone();
        let all = Element { axes, index: index.clone(), slot: None };
        if by_warp {
            self.before_write();
            let rows = self.elements(&rest)?;
            let warps = self.threads / 32;
            self.open(format!("for (int row = tid / 32; row < {rows}; row += {warps})"));
            self.split("row", &rest, &index);
            self.line(format!("{ty} part = {start};"));
            self.open(format!("for (int {inner} = tid % 32; {inner} < {n}; {inner} += 32)"));
            let x = self.value(a, d, &all)?;
            self.line(format!("part = {of}(part, {});", bare(&x)));
            self.close();
            self.line(format!("part = warp_reduce<{op}>(part);"));
            let bits = scalar::write(d, "part".to_string());
            self.line(format!("if (tid % 32 == 0) {}[row] = {bits};", t.c));
            self.close();
            self.sync();
            return Ok(Expr::Name(temporary));
        }
        if t.shared {
            self.before_write();
        }
        self.each(&rest, |this, at| {
            this.line(format!("{ty} part = {start};"));
            this.line("#pragma unroll 8");
            this.open(format!("for (int {inner} = 0; {inner} < {n}; ++{inner})"));
            let x = this.value(a, d, &all)?;
            this.line(format!("part = {of}(part, {});", bare(&x)));
            this.close();
            let value = if t.shared { scalar::write(d, "part".to_string()) } else { "part".to_string() };
            let place = this.owned(&t, at)?;
            this.line(format!("{place} = {value};"));
            Ok(())
        })?;
        if t.shared {
            self.sync();
        }
        Ok(Expr::Name(temporary))
    }

    /// First position of the extreme value: the least index whose element equals it, NaN to NaN.
    fn position(&mut self, kind: TileReduce, a: &Expr, d: DType, axis: &Ident, hint: &str) -> Emitted<Expr> {
        let best = self.reduce(kind, a, d, axis, hint)?;
        let axes = self.axes(a)?;
        let n = axes.iter().find(|x| x.0 == *axis).map_or(0, |x| x.1);
        let nan = |e: &Expr| Expr::scalar(ScalarOp::IsNan {}, vec![e.clone()]);
        let equal = Expr::scalar(ScalarOp::Eq {}, vec![a.clone(), best.clone()]);
        let both = Expr::scalar(ScalarOp::And {}, vec![nan(a), nan(&best)]);
        let hit = Expr::scalar(ScalarOp::Or {}, vec![equal, both]);
        let at = Expr::Iota(axis.clone(), Box::new(Expr::Int(0)), Box::new(Expr::Int(n)));
        let position = Expr::scalar(ScalarOp::Select {}, vec![hit, at, Expr::Int(n)]);
        self.reduce(TileReduce::Min, &position, DType::I64, axis, hint)
    }
}

fn identity(kind: TileReduce, d: DType) -> Emitted<String> {
    let (low, high) = scalar::int_bounds(d);
    Ok(match kind {
        TileReduce::Sum | TileReduce::Max | TileReduce::Argmax if d == DType::Bool => "false".to_string(),
        TileReduce::Prod | TileReduce::Min | TileReduce::Argmin if d == DType::Bool => "true".to_string(),
        TileReduce::Sum => "0".to_string(),
        TileReduce::Prod => "1".to_string(),
        TileReduce::Max | TileReduce::Argmax if d.is_float() => scalar::literal(d, f64::NEG_INFINITY)?,
        TileReduce::Min | TileReduce::Argmin if d.is_float() => scalar::literal(d, f64::INFINITY)?,
        TileReduce::Max | TileReduce::Argmax => low,
        TileReduce::Min | TileReduce::Argmin => high,
    })
}
