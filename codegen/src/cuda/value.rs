//! Expressions: index arithmetic in `long long`, and scalar programs at an element of a tile.

use super::emitter::{Axes, Binding, Element, Emitted, Emitter, Stop, Tile};
use super::{invalid, scalar, unsupported};
use tilewright_ir::kernel::expr::{BinaryOp, Expr, TileReduce};
use tilewright_ir::op::{Family, ScalarOp};
use tilewright_ir::types::DType;

/// Without the parentheses around the whole, where they are one pair.
pub(super) fn bare(text: &str) -> &str {
    let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) else { return text };
    let mut depth = 0i32;
    for c in inner.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth < 0 {
            return text;
        }
    }
    inner
}

/// Whether a literal in it is no integer.
fn has_real(e: &Expr) -> bool {
    matches!(e, Expr::Real(_)) || e.operands().into_iter().any(has_real)
}

impl Emitter<'_> {
    /// An index expression as C of type `long long` (or a narrower integer, widened by C).
    pub fn index(&mut self, e: &Expr) -> Emitted<String> {
        if let Some(n) = self.constant(e) {
            return Ok(scalar::integer(DType::I64, n)?);
        }
        match e {
            Expr::Name(n) => match self.lookup(n)? {
                Binding::Index(c) => Ok(c),
                Binding::Tile(t) if t.axes.is_empty() && (t.dtype.is_int() || t.dtype == DType::Bool) => Ok(t.c),
                Binding::Tile(_) | Binding::Memory(_) | Binding::View(_) | Binding::Constant(_) => {
                    Err(invalid(format!("`{n}` is not an index")).into())
                }
            },
            Expr::Binary(op, a, b) => {
                let (a, b) = (self.index(a)?, self.index(b)?);
                let f = match op {
                    BinaryOp::Ceil => "ceil_div",
                    BinaryOp::Floor => "floor_div",
                    BinaryOp::Mod => "mod_of",
                };
                Ok(format!("{f}({}, {})", bare(&a), bare(&b)))
            }
            Expr::Scalar(op, args) => {
                let args = args.iter().map(|a| self.index(a)).collect::<Emitted<Vec<String>>>()?;
                match (op, args.as_slice()) {
                    (ScalarOp::Add {}, [a, b]) => Ok(format!("({a} + {b})")),
                    (ScalarOp::Sub {}, [a, b]) => Ok(format!("({a} - {b})")),
                    (ScalarOp::Mul {}, [a, b]) => Ok(format!("({a} * {b})")),
                    (ScalarOp::And {}, [a, b]) => Ok(format!("({a} & {b})")),
                    (ScalarOp::Or {}, [a, b]) => Ok(format!("({a} | {b})")),
                    (ScalarOp::Max {}, [a, b]) => Ok(format!("max_of<long long>({}, {})", bare(a), bare(b))),
                    (ScalarOp::Min {}, [a, b]) => Ok(format!("min_of<long long>({}, {})", bare(a), bare(b))),
                    (ScalarOp::Cast { to: DType::I64 }, [a]) => Ok(a.clone()),
                    (ScalarOp::Cast { to }, [a]) if to.is_int() => Ok(scalar::cast(DType::I64, *to, a.clone())?),
                    (ScalarOp::Select {}, [c, a, b]) => Ok(format!("({c} ? {a} : {b})")),
                    _ => Ok(scalar::apply(op, DType::I64, &args)?),
                }
            }
            Expr::Int(_) | Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => {
                Err(invalid("expected an index expression over loop variables, symbols and constants").into())
            }
        }
    }

    /// Whether it is arithmetic on positions and sizes, which is what [`Emitter::index`] knows: data may be a float, or
    /// wrap where it is cast.
    pub fn is_position(&self, e: &Expr) -> Emitted<bool> {
        if let Expr::Name(n) = e {
            return Ok(matches!(self.lookup(n)?, Binding::Index(_) | Binding::Constant(_)));
        }
        // A position that is cast is data: a float, or an integer that may have wrapped.
        if matches!(e, Expr::Scalar(ScalarOp::Cast { to }, _) if *to != DType::I64) {
            return Ok(false);
        }
        e.operands().into_iter().try_fold(true, |all, x| Ok(all && self.is_position(x)?))
    }

    /// The dtype, `None` for literals.
    pub fn dtype(&self, e: &Expr) -> Emitted<Option<DType>> {
        Ok(match e {
            Expr::Int(_) | Expr::Real(_) => None,
            Expr::Name(n) => match self.lookup(n)? {
                Binding::Constant(_) => None,
                Binding::Index(_) => Some(DType::I64),
                Binding::Tile(t) => Some(t.dtype),
                Binding::Memory(_) | Binding::View(_) => {
                    return Err(invalid(format!("expected a tile, found the buffer `{n}`; load it first")).into());
                }
            },
            Expr::Scalar(op, args) => match op {
                ScalarOp::Cast { to } => Some(*to),
                _ if op.info().family == Family::Comparison => Some(DType::Bool),
                ScalarOp::Select {} => self.join(args.get(1..).unwrap_or_default())?,
                _ => self.join(args)?,
            },
            Expr::Binary(..) | Expr::Iota(..) | Expr::Order(..) => Some(DType::I64),
            Expr::Reduce(TileReduce::Argmax | TileReduce::Argmin, ..) => Some(DType::I64),
            Expr::Reduce(_, a, _) => self.dtype(a)?,
        })
    }

    /// The dtype in which an expression is computed: its own; of literals alone that of the context, or else what they
    /// are without one, an integer unless one of them is not whole.
    pub fn dtype_in(&self, e: &Expr, context: Option<DType>) -> Emitted<DType> {
        if let Some(d) = self.dtype(e)? {
            return Ok(d);
        }
        let real = has_real(e);
        let fits = |d: &DType| d.is_float() || !real;
        Ok(context.filter(fits).unwrap_or(if real { DType::F32 } else { DType::I64 }))
    }

    /// The dtype of the operands of a scalar op whose result has dtype `d`: that of the context `d`, but where the result
    /// has another dtype than they.
    pub fn operands_dtype(&self, op: &ScalarOp, args: &[Expr], d: DType) -> Emitted<DType> {
        match (op, args) {
            // A literal is cast by being written in the dtype; an expression of literals is computed first.
            (ScalarOp::Cast { to }, [Expr::Int(_) | Expr::Real(_)]) => Ok(*to),
            (ScalarOp::Cast { .. } | ScalarOp::IsNan {}, [x]) => self.dtype_in(x, None),
            _ if op.info().family == Family::Comparison => {
                let real = args.iter().any(has_real);
                Ok(self.join(args)?.unwrap_or(if real { DType::F32 } else { DType::I64 }))
            }
            _ => Ok(d),
        }
    }

    /// The one dtype of operands; integers of two widths meet at i64, as loaded integers do with indices.
    fn join(&self, args: &[Expr]) -> Emitted<Option<DType>> {
        let mut found = None;
        for a in args {
            found = match (found, self.dtype(a)?) {
                (x, None) | (None, x) => x,
                (Some(x), Some(y)) if x == y => Some(x),
                (Some(x), Some(y)) if x.is_int() && y.is_int() => Some(DType::I64),
                (Some(x), Some(y)) => {
                    return Err(invalid(format!("expected operands of one dtype, found {x} and {y}")).into());
                }
            };
        }
        Ok(found)
    }

    /// The axes of an expression, in order of appearance.
    pub fn axes(&self, e: &Expr) -> Emitted<Axes> {
        let mut axes = Axes::new();
        self.collect_axes(e, &mut axes)?;
        Ok(axes)
    }

    fn collect_axes(&self, e: &Expr, out: &mut Axes) -> Emitted<()> {
        let mut add = |axis: (std::sync::Arc<str>, i64)| match out.iter().find(|a| a.0 == axis.0) {
            Some(a) if a.1 == axis.1 => Ok(()),
            Some(a) => Err(invalid(format!("axis `{}` has the sizes {} and {}", axis.0, a.1, axis.1))),
            None => {
                out.push(axis);
                Ok(())
            }
        };
        match e {
            Expr::Name(n) => {
                if let Binding::Tile(t) = self.lookup(n)? {
                    for a in t.axes {
                        add(a)?;
                    }
                }
                Ok(())
            }
            Expr::Scalar(_, args) => args.iter().try_for_each(|a| self.collect_axes(a, out)),
            Expr::Reduce(_, a, axis) => {
                for a in self.axes(a)?.into_iter().filter(|a| a.0 != *axis) {
                    add(a)?;
                }
                Ok(())
            }
            Expr::Iota(axis, _, size) => {
                let size = self.constant(size).ok_or_else(|| invalid("expected a constant size of iota"))?;
                Ok(add((axis.clone(), size))?)
            }
            Expr::Int(_) | Expr::Real(_) | Expr::Binary(..) | Expr::Order(..) => Ok(()),
        }
    }

    /// The value of an expression without reductions at an element, in dtype `want`.
    pub fn value(&mut self, e: &Expr, want: DType, at: &Element) -> Emitted<String> {
        let found = self.dtype(e)?.unwrap_or(want);
        let text = self.raw(e, found, at)?;
        if found == want {
            Ok(text)
        } else if found.is_int() && want.is_int() {
            Ok(scalar::cast(found, want, text)?)
        } else {
            Err(invalid(format!("expected {want}, found {found}; cast it")).into())
        }
    }

    fn raw(&mut self, e: &Expr, d: DType, at: &Element) -> Emitted<String> {
        match e {
            Expr::Int(n) => Ok(scalar::integer(d, *n)?),
            Expr::Real(x) => Ok(scalar::literal(d, *x)?),
            Expr::Name(n) => match self.lookup(n)? {
                Binding::Constant(v) => Ok(scalar::integer(d, v)?),
                Binding::Index(c) => Ok(c),
                Binding::Tile(t) => self.leaf(&t, at),
                Binding::Memory(_) | Binding::View(_) => Err(invalid(format!("`{n}` is not a tile")).into()),
            },
            Expr::Binary(..) => self.index(e),
            Expr::Iota(axis, start, _) => {
                let start = self.index(start)?;
                let i = at.index_of(axis)?;
                Ok(if start == "0" { format!("(long long){i}") } else { format!("({start} + {i})") })
            }
            Expr::Scalar(op, args) => self.scalar(op, args, d, at),
            Expr::Reduce(..) => Err(tilewright_ir::diag::Diagnostic::bug("a reduction was not hoisted").into()),
            Expr::Order(..) => Err(unsupported("`order` inside an expression").into()),
        }
    }

    fn scalar(&mut self, op: &ScalarOp, args: &[Expr], d: DType, at: &Element) -> Emitted<String> {
        match op {
            ScalarOp::Cast { to } => {
                let [x] = args else { return Err(invalid("a cast has one operand").into()) };
                let from = self.operands_dtype(op, args, d)?;
                let x = self.value(x, from, at)?;
                Ok(scalar::cast(from, *to, x)?)
            }
            ScalarOp::Select {} => {
                let [c, x, y] = args else { return Err(invalid("select has three operands").into()) };
                let (c, x, y) = (self.value(c, DType::Bool, at)?, self.value(x, d, at)?, self.value(y, d, at)?);
                Ok(format!("({c} ? {x} : {y})"))
            }
            _ => {
                let operand = self.operands_dtype(op, args, d)?;
                let args = args.iter().map(|a| self.value(a, operand, at)).collect::<Emitted<Vec<String>>>()?;
                Ok(scalar::apply(op, operand, &args)?)
            }
        }
    }

    /// A tile at an element.
    pub fn leaf(&mut self, t: &Tile, at: &Element) -> Emitted<String> {
        if t.axes.is_empty() {
            return Ok(t.c.clone());
        }
        if t.shared {
            self.fresh = false;
            let mut offset = String::new();
            for (axis, size) in &t.axes {
                let i = at.index_of(axis)?;
                offset = if offset.is_empty() { i } else { format!("({offset}) * {size} + {i}") };
            }
            return Ok(scalar::read(t.dtype, format!("{}[{offset}]", t.c)));
        }
        match &at.slot {
            Some(r) if at.axes == t.axes => Ok(format!("{}[{r}]", t.c)),
            Some(_) | None => Err(Stop::Shared(t.c.clone())),
        }
    }
}
