//! V1: names are declared, kinds fit, values have no axis that their place lacks.

use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident, IndexDim};
use crate::kernel::tree::{Block, Buffer, Kernel, LoadMods, Stmt};
use crate::op::{Family, ScalarOp};
use crate::types::DType;

/// Kind of an element. A number literal fits integers and floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Literal,
    Float,
    Int,
    Bool,
    /// A block encoding.
    Block,
}

fn kind_of(dtype: DType) -> Kind {
    match dtype {
        DType::Bool => Kind::Bool,
        d if d.is_float() => Kind::Float,
        d if d.is_block() => Kind::Block,
        _ => Kind::Int,
    }
}

/// Kind and axis names of a tile.
#[derive(Clone, Debug)]
struct Shape {
    kind: Kind,
    axes: Vec<Ident>,
}

#[derive(Clone)]
enum Name {
    Value(Shape),
    Buffer(Shape, bool),
}

struct Checker {
    names: Vec<(Ident, Name)>,
}

fn wrong(message: String) -> Diagnostic {
    Diagnostic::new("kernel-type", message)
}

/// Checks names and kinds of a kernel.
pub(super) fn check(kernel: &Kernel) -> Result<(), Diagnostic> {
    let mut c = Checker { names: Vec::new() };
    for (n, _) in &kernel.constants {
        c.integer(n)?;
    }
    for s in &kernel.symbols {
        c.integer(&s.name)?;
    }
    for b in &kernel.arguments {
        c.declare(b, &b.name)?;
    }
    for v in &kernel.views {
        let Some(Name::Buffer(base, _)) = c.find(&v.buffer).cloned() else {
            return Err(Diagnostic::new("kernel-name", format!("`{v}`: `{}` is no buffer", v.buffer)));
        };
        let axes: Vec<Ident> = v.axes.iter().map(|a| a.0.clone()).collect();
        let mark = c.names.len();
        axes.iter().for_each(|a| c.names.push((a.clone(), integer())));
        v.dims.iter().try_for_each(|(e, _)| c.shape(e).map(|_| ()))?;
        c.names.truncate(mark);
        c.fresh(&v.name)?;
        c.names.push((v.name.clone(), Name::Buffer(Shape { kind: base.kind, axes }, false)));
    }
    c.block(&kernel.body)
}

fn integer() -> Name {
    Name::Value(Shape { kind: Kind::Int, axes: Vec::new() })
}

impl Checker {
    fn find(&self, name: &str) -> Option<&Name> {
        self.names.iter().rev().find(|(n, _)| **n == *name).map(|(_, v)| v)
    }

    /// Buffers, constants and symbols are not declared twice.
    fn fresh(&self, name: &str) -> Result<(), Diagnostic> {
        match self.find(name) {
            Some(Name::Buffer(..)) => Err(Diagnostic::new("kernel-name", format!("`{name}` is declared twice"))),
            Some(Name::Value(_)) | None => Ok(()),
        }
    }

    fn integer(&mut self, name: &Ident) -> Result<(), Diagnostic> {
        if self.find(name).is_some() {
            return Err(Diagnostic::new("kernel-name", format!("`{name}` is declared twice")));
        }
        self.names.push((name.clone(), integer()));
        Ok(())
    }

    fn declare(&mut self, b: &Buffer, name: &str) -> Result<(), Diagnostic> {
        self.fresh(name)?;
        let mut axes: Vec<Ident> = Vec::new();
        for (a, e) in &b.axes {
            if axes.contains(a) {
                return Err(wrong(format!("`{b}` has the axis `{a}` twice")));
            }
            self.shape(e)?;
            axes.push(a.clone());
        }
        let mut put =
            |name: String, kind, axes| self.names.push((name.into(), Name::Buffer(Shape { kind, axes }, false)));
        if b.dtype.is_block() {
            put(format!("{name}.d"), Kind::Float, axes.clone());
            put(format!("{name}.m"), Kind::Float, axes.clone());
            let mut bytes = axes.clone();
            bytes.push("e".into());
            put(format!("{name}.qs"), Kind::Int, bytes);
        }
        let shape = Shape { kind: kind_of(b.dtype), axes };
        let register = b.space == crate::kernel::tree::Space::Reg;
        self.names.push((name.into(), Name::Buffer(shape, register)));
        Ok(())
    }

    /// Kind and axes of the tile of an access.
    fn access(&self, a: &Access) -> Result<Shape, Diagnostic> {
        let name = a.field.as_ref().map_or_else(|| a.buffer.to_string(), |f| format!("{}.{f}", a.buffer));
        let Some(Name::Buffer(shape, _)) = self.find(&name) else {
            return Err(Diagnostic::new("kernel-name", format!("`{a}`: `{name}` is no buffer here")));
        };
        let Some(dims) = &a.dims else { return Ok(shape.clone()) };
        if dims.len() != shape.axes.len() {
            return Err(wrong(format!("`{a}` has {} indices for {} axes", dims.len(), shape.axes.len())));
        }
        let mut axes = Vec::new();
        for (d, axis) in dims.iter().zip(&shape.axes) {
            match d {
                IndexDim::All => axes.push(axis.clone()),
                IndexDim::Point { at, .. } | IndexDim::Checked { at } => self.index(at)?,
                IndexDim::Range { start, size, upto, .. } => {
                    self.index(start)?;
                    self.index(size)?;
                    upto.as_ref().map_or(Ok(()), |u| self.index(u))?;
                    if !axes.contains(axis) {
                        axes.push(axis.clone());
                    }
                }
                IndexDim::Gather(t) => match self.find(t) {
                    Some(Name::Value(s)) if s.kind == Kind::Int => {
                        axes.extend(s.axes.iter().filter(|a| !axes.contains(a)).cloned().collect::<Vec<_>>());
                    }
                    Some(_) | None => return Err(wrong(format!("`{a}`: `{t}` is no tile of integers"))),
                },
            }
        }
        Ok(Shape { kind: shape.kind, axes })
    }

    /// An integer without axes.
    fn index(&self, e: &Expr) -> Result<(), Diagnostic> {
        let s = self.shape(e)?;
        let fits = matches!(s.kind, Kind::Int | Kind::Literal) && s.axes.is_empty();
        if fits { Ok(()) } else { Err(wrong(format!("the index `{e}` is no single integer"))) }
    }

    fn shape(&self, e: &Expr) -> Result<Shape, Diagnostic> {
        let plain = |kind| Shape { kind, axes: Vec::new() };
        Ok(match e {
            Expr::Int(_) => plain(Kind::Literal),
            Expr::Real(_) => plain(Kind::Float),
            Expr::Name(n) => match self.find(n) {
                Some(Name::Value(s) | Name::Buffer(s, true)) => s.clone(),
                Some(Name::Buffer(_, false)) => return Err(wrong(format!("`{n}` is memory; load it"))),
                None => return Err(Diagnostic::new("kernel-name", format!("unknown name `{n}`"))),
            },
            Expr::Binary(_, a, b) => {
                self.index(a)?;
                self.index(b)?;
                plain(Kind::Int)
            }
            Expr::Reduce(r, x, axis) => {
                let mut s = self.shape(x)?;
                let at = s.axes.iter().position(|a| a == axis);
                let at = at.ok_or_else(|| wrong(format!("`{e}`: the tile has no axis `{axis}`")))?;
                s.axes.remove(at);
                use crate::kernel::expr::TileReduce as R;
                let kind = if matches!(r, R::Argmax | R::Argmin) { Kind::Int } else { s.kind };
                Shape { kind, axes: s.axes }
            }
            Expr::Iota(axis, start, size) => {
                self.index(start)?;
                self.index(size)?;
                Shape { kind: Kind::Int, axes: vec![axis.clone()] }
            }
            Expr::Order(args, _) => {
                args.iter().try_for_each(|a| self.index(a))?;
                plain(Kind::Int)
            }
            Expr::Scalar(op, args) => self.scalar(e, op, args)?,
        })
    }

    fn scalar(&self, e: &Expr, op: &ScalarOp, args: &[Expr]) -> Result<Shape, Diagnostic> {
        if !op.info().arity.accepts(args.len()) {
            return Err(wrong(format!("`{e}` has {} operands", args.len())));
        }
        let shapes: Vec<Shape> = args.iter().map(|a| self.shape(a)).collect::<Result<_, _>>()?;
        let mut axes: Vec<Ident> = Vec::new();
        for a in shapes.iter().flat_map(|s| &s.axes) {
            if !axes.contains(a) {
                axes.push(a.clone());
            }
        }
        if let ScalarOp::Cast { to } = op {
            return Ok(Shape { kind: kind_of(*to), axes });
        }
        let select = matches!(op, ScalarOp::Select {});
        if select && shapes.first().is_some_and(|s| s.kind != Kind::Bool) {
            return Err(wrong(format!("`{e}`: the condition is no bool")));
        }
        let mut kind = Kind::Literal;
        for s in shapes.iter().skip(usize::from(select)) {
            kind = match (kind, s.kind) {
                (_, Kind::Block) => return Err(wrong(format!("`{e}`: a block encoding has no arithmetic; cast it"))),
                (Kind::Literal, k) | (k, Kind::Literal) if k != Kind::Bool => k,
                (a, b) if a == b => a,
                (Kind::Literal, Kind::Bool) if shapes.len() == 1 || select => Kind::Bool,
                (Kind::Literal, Kind::Bool) if shapes.iter().all(|s| s.kind == Kind::Bool) => Kind::Bool,
                // index arithmetic meets floats in scales such as `x * n`
                (Kind::Float, Kind::Int) | (Kind::Int, Kind::Float) => {
                    return Err(wrong(format!("`{e}` mixes integers and floats; cast one")));
                }
                (_, _) => return Err(wrong(format!("`{e}` mixes bools and numbers"))),
            };
        }
        match op.info().family {
            Family::Comparison => kind = Kind::Bool,
            Family::Arithmetic | Family::Transcendental if kind == Kind::Bool => {
                return Err(wrong(format!("`{e}` is arithmetic on bools")));
            }
            _ => {}
        }
        Ok(Shape { kind, axes })
    }

    fn fits(&self, what: &str, value: &Shape, place: &Shape) -> Result<(), Diagnostic> {
        if let Some(a) = value.axes.iter().find(|a| !place.axes.contains(a)) {
            return Err(wrong(format!(
                "`{what}`: the value has the axis `{a}`, the place has [{}]",
                place.axes.join(", ")
            )));
        }
        // What a masked element of a block encoding decodes to is a number.
        let literal = value.kind == Kind::Literal && matches!(place.kind, Kind::Float | Kind::Int | Kind::Block);
        if value.kind == place.kind || literal {
            return Ok(());
        }
        Err(wrong(format!("`{what}`: a {:?} value for a {:?} place", value.kind, place.kind).to_lowercase()))
    }

    /// A pad is one value of the kind of what is loaded.
    fn pad(&self, what: &str, mods: &LoadMods, kind: Kind) -> Result<(), Diagnostic> {
        // 0 and 1 are truth values, too, where nothing but a pad can be meant.
        let truth = kind == Kind::Bool && matches!(mods.pad, Some(Expr::Int(0 | 1)));
        match mods.pad.as_ref().filter(|_| !truth) {
            Some(pad) => self.fits(what, &self.shape(pad)?, &Shape { kind, axes: Vec::new() }),
            None => Ok(()),
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), Diagnostic> {
        let mark = self.names.len();
        block.iter().try_for_each(|s| self.stmt(s))?;
        self.names.truncate(mark);
        Ok(())
    }

    fn stmt(&mut self, s: &Stmt) -> Result<(), Diagnostic> {
        match s {
            Stmt::Buffer(b) => self.declare(b, &b.name),
            Stmt::Pipe(p) => p.buffers.iter().try_for_each(|b| self.declare(b, &format!("{}.{}", p.name, b.name))),
            Stmt::Par { vars, body, .. } => {
                vars.iter().try_for_each(|(_, e)| self.index(e))?;
                let mark = self.names.len();
                vars.iter().for_each(|(v, _)| self.names.push((v.clone(), integer())));
                self.block(body)?;
                self.names.truncate(mark);
                Ok(())
            }
            Stmt::For { var, low, high, step, body, .. } => {
                self.index(low)?;
                self.index(high)?;
                step.as_ref().map_or(Ok(()), |e| self.index(e))?;
                let mark = self.names.len();
                self.names.push((var.clone(), integer()));
                self.block(body)?;
                self.names.truncate(mark);
                Ok(())
            }
            Stmt::If { condition, yes, no } => {
                let s = self.shape(condition)?;
                if !s.axes.is_empty() || s.kind == Kind::Float {
                    return Err(wrong(format!("the condition `{condition}` is no single bool")));
                }
                self.block(yes)?;
                self.block(no)
            }
            Stmt::Roles(roles) => roles.iter().try_for_each(|r| {
                let mark = self.names.len();
                r.instances.iter().for_each(|(v, _)| self.names.push((v.clone(), integer())));
                self.block(&r.body)?;
                self.names.truncate(mark);
                Ok(())
            }),
            Stmt::Load { name, access, mods } => {
                let shape = self.access(access)?;
                self.pad(&format!("load {access}{mods}"), mods, shape.kind)?;
                self.names.push((name.clone(), Name::Value(shape)));
                Ok(())
            }
            Stmt::Let { names, value } => {
                let shape = self.shape(value)?;
                names.iter().for_each(|n| self.names.push((n.clone(), Name::Value(shape.clone()))));
                Ok(())
            }
            Stmt::Set { name, value } => match self.find(name) {
                Some(Name::Buffer(place, true)) => {
                    self.fits(&format!("set {name} = {value}"), &self.shape(value)?, place)
                }
                Some(_) | None => Err(wrong(format!("`set {name}`: `{name}` is no `reg` buffer"))),
            },
            Stmt::Store { access, value, .. } => {
                let place = self.access(access)?;
                self.fits(&format!("store {access} = {value}"), &self.shape(value)?, &place)
            }
            Stmt::Copy { to, from, mods } => {
                let (place, value) = (self.access(to)?, self.access(from)?);
                self.pad(&format!("copy {to} <- {from}{mods}"), mods, value.kind)?;
                self.fits(&format!("copy {to} <- {from}"), &value, &place)
            }
            Stmt::Mma { to, terms, init, .. } => {
                self.access(to)?;
                for (a, b) in terms {
                    self.access(a)?;
                    self.access(b)?;
                }
                init.as_ref().map_or(Ok(()), |e| self.shape(e).map(|_| ()))
            }
            Stmt::TurnWait(a, e) => self.access(a).and_then(|_| self.index(e)),
            Stmt::TurnNext(a) => self.access(a).map(|_| ()),
            Stmt::Queue(..) | Stmt::Pipeline(..) | Stmt::Skip(..) | Stmt::Await(..) | Stmt::Sync(..) => Ok(()),
        }
    }
}
