//! Printing of kernels: one statement a line, two spaces a level, parentheses only where precedence needs them.

use super::ops;
use crate::kernel::expr::{Access, Expr, IndexDim};
use crate::kernel::tree::{
    Block, Buffer, BufferAttr, Kernel, Level, LoadMods, PipelineOp, Space, Stmt, SyncScope, View,
};
use crate::op::ScalarOp;
use std::fmt::{self, Display, Write};

/// The canonical text of `kernel`.
pub fn print_kernel(kernel: &Kernel) -> String {
    kernel.to_string()
}

fn commas<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|x| x.to_string()).collect::<Vec<_>>().join(", ")
}

fn write_real(f: &mut fmt::Formatter<'_>, x: f64) -> fmt::Result {
    if x.is_nan() { f.write_str("nan") } else { write!(f, "{x:?}") }
}

/// Writes `e` as an operand whose operators must bind at least as tightly as `least`.
fn write_expr(f: &mut fmt::Formatter<'_>, e: &Expr, least: u8) -> fmt::Result {
    match e {
        Expr::Int(n) => write!(f, "{n}"),
        Expr::Real(x) => write_real(f, *x),
        Expr::Name(n) => f.write_str(n),
        Expr::Scalar(op, args) => write_scalar(f, op, args, least),
        Expr::Binary(op, a, b) => write!(f, "{}({a}, {b})", ops::binary_name(*op)),
        Expr::Reduce(r, x, axis) => write!(f, "{}({x}, {axis})", ops::reduce_name(*r)),
        Expr::Iota(axis, start, size) => write!(f, "iota({axis}, {start}, {size})"),
        Expr::Order(args, kind) => write!(f, "order({}, {kind})", commas(args)),
    }
}

fn write_scalar(f: &mut fmt::Formatter<'_>, op: &ScalarOp, args: &[Expr], least: u8) -> fmt::Result {
    if let (Some((sign, strength)), [a, b]) = (ops::infix(op), args) {
        let parens = strength < least;
        if parens {
            f.write_str("(")?;
        }
        write_expr(f, a, strength)?;
        let tight = matches!(op, ScalarOp::Mul {} | ScalarOp::Div {});
        if tight {
            f.write_str(sign)?
        } else {
            write!(f, " {sign} ")?
        }
        write_expr(f, b, strength + 1)?;
        return if parens { f.write_str(")") } else { Ok(()) };
    }
    let sign = match (op, args) {
        // `-1` is a literal, so the negation of a literal keeps its name
        (ScalarOp::Neg {}, [Expr::Int(_) | Expr::Real(_)]) => None,
        (ScalarOp::Neg {}, [_]) => Some("-"),
        (ScalarOp::Not {}, [_]) => Some("!"),
        (_, _) => None,
    };
    if let (Some(sign), [a]) = (sign, args) {
        f.write_str(sign)?;
        return write_expr(f, a, ops::UNARY);
    }
    write!(f, "{}({})", ops::call_name(op), commas(args))
}

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_expr(f, self, 0)
    }
}

impl Display for IndexDim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexDim::All => f.write_str(":"),
            IndexDim::Point { at, open } => write!(f, "{at}{}", if *open { "?" } else { "" }),
            IndexDim::Checked { at } => write!(f, "{at}!"),
            IndexDim::Range { start, size, open, upto } => {
                write!(f, "{start} {} {size}", if *open { "+?" } else { "+:" })?;
                upto.as_ref().map_or(Ok(()), |u| write!(f, " upto {u}"))
            }
            IndexDim::Gather(tile) => write!(f, "gather {tile}"),
        }
    }
}

impl Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.buffer)?;
        if self.back > 0 {
            write!(f, "@{}", self.back)?;
        }
        if let Some(field) = &self.field {
            write!(f, ".{field}")?;
        }
        self.dims.as_ref().map_or(Ok(()), |d| write!(f, "[{}]", commas(d)))
    }
}

impl Display for BufferAttr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.args.is_empty() { Ok(()) } else { write!(f, "({})", commas(&self.args)) }
    }
}

impl Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Space::In => "in",
            Space::Out => "out",
            Space::InOut => "inout",
            Space::Work => "work",
            Space::Shared => "shared",
            Space::Cache => "cache",
            Space::Reg => "reg",
        })
    }
}

fn axes(axes: &[(crate::kernel::expr::Ident, Expr)]) -> String {
    commas(axes.iter().map(|(a, e)| format!("{a}={e}")))
}

fn attrs(attrs: &[BufferAttr]) -> String {
    attrs.iter().map(|a| format!(" {a}")).collect()
}

fn slot(b: &Buffer) -> String {
    format!("{}: {}[{}]{}", b.name, b.dtype, axes(&b.axes), attrs(&b.attrs))
}

impl Display for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.space, slot(self))
    }
}

impl Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = self.dims.iter().map(|(e, open)| format!("{e}{}", if *open { "?" } else { "" }));
        write!(f, "view {}[{}] = {}[{}]", self.name, axes(&self.axes), self.buffer, commas(dims))
    }
}

impl Display for LoadMods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pad) = &self.pad {
            f.write_str(" pad ")?;
            write_expr(f, pad, ops::UNARY)?;
        }
        if let Some(on) = &self.on {
            write!(f, " on {on}")?;
        }
        if self.multicast {
            f.write_str(" multicast")?;
        }
        self.hint.as_ref().map_or(Ok(()), |h| write!(f, " hint({h})"))
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Grid => "grid",
        Level::Cluster => "cluster",
        Level::Warp => "warp",
    }
}

fn scope(scope: SyncScope) -> &'static str {
    match scope {
        SyncScope::Team => "team",
        SyncScope::Block => "block",
        SyncScope::Cluster => "cluster",
        SyncScope::Grid => "grid",
        SyncScope::Prior => "prior",
    }
}

fn verb(op: PipelineOp) -> &'static str {
    match op {
        PipelineOp::Acquire => "acquire",
        PipelineOp::Commit => "commit",
        PipelineOp::Wait => "wait",
        PipelineOp::Release => "release",
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    out.push_str(&"  ".repeat(depth));
    out.push_str(text);
    out.push('\n');
}

fn block(out: &mut String, depth: usize, head: &str, body: &Block) {
    line(out, depth, &format!("{head} {{"));
    for s in body {
        stmt(out, depth + 1, s);
    }
    line(out, depth, "}");
}

fn optional(word: &str, e: &Option<impl Display>) -> String {
    e.as_ref().map(|e| format!(" {word} {e}")).unwrap_or_default()
}

/// Appends one statement with its blocks.
fn stmt(out: &mut String, depth: usize, s: &Stmt) {
    match s {
        Stmt::Par { vars, level: at, body } => {
            let vars: String = commas(vars.iter().map(|(v, n)| format!("{v} in {n}")));
            let gap = if vars.is_empty() { "" } else { " " };
            block(out, depth, &format!("par {vars}{gap}at {}", level(*at)), body);
        }
        Stmt::For { var, low, high, step, unroll, body } => {
            let unroll = if *unroll { " unroll" } else { "" };
            block(out, depth, &format!("for {var} in {low} .. {high}{}{unroll}", optional("step", step)), body);
        }
        Stmt::If { condition, yes, no } => {
            block(out, depth, &format!("if {condition}"), yes);
            if !no.is_empty() {
                out.truncate(out.len() - 1);
                out.push_str(" else {\n");
                no.iter().for_each(|s| stmt(out, depth + 1, s));
                line(out, depth, "}");
            }
        }
        Stmt::Roles(roles) => {
            line(out, depth, "roles {");
            for r in roles {
                let instances = r.instances.as_ref().map(|(v, n)| format!("({v} in {n})")).unwrap_or_default();
                let regs = optional("regs", &r.registers);
                let head = format!("{}{instances} warps {}..{}{regs}", r.name, r.first, r.end);
                block(out, depth + 1, &head, &r.body);
            }
            line(out, depth, "}");
        }
        Stmt::Pipe(p) => {
            let head = format!("pipe {}[{}] via {} from {} to {}", p.name, p.stages, p.via, p.from, p.to);
            line(out, depth, &format!("{head}{} {{", attrs(&p.attrs)));
            p.buffers.iter().for_each(|b| line(out, depth + 1, &slot(b)));
            line(out, depth, "}");
        }
        Stmt::Buffer(_)
        | Stmt::Queue(..)
        | Stmt::Load { .. }
        | Stmt::Let { .. }
        | Stmt::Set { .. }
        | Stmt::Store { .. }
        | Stmt::Copy { .. }
        | Stmt::Mma { .. }
        | Stmt::Pipeline(..)
        | Stmt::Skip(..)
        | Stmt::Await(..)
        | Stmt::Sync(..)
        | Stmt::TurnWait(..)
        | Stmt::TurnNext(_) => line(out, depth, &simple(s)),
    }
}

/// The text of a statement without blocks.
fn simple(s: &Stmt) -> String {
    match s {
        Stmt::Buffer(b) => b.to_string(),
        Stmt::Queue(name, via) => format!("queue {name} via {via}"),
        Stmt::Load { name, access, mods } => format!("let {name} = load {access}{mods}"),
        Stmt::Let { names, value } => format!("let {} = {value}", commas(names)),
        Stmt::Set { name, value } => format!("set {name} = {value}"),
        Stmt::Store { access, mods, value, add } => {
            let (verb, sign) = if *add { ("add", "+=") } else { ("store", "=") };
            format!("{verb} {access}{mods} {sign} {value}")
        }
        Stmt::Copy { to, from, mods } => format!("copy {to} <- {from}{mods}"),
        Stmt::Mma { to, terms, via, init, on } => {
            let terms = commas(terms.iter().map(|(a, b)| format!("{a} * {b}")));
            format!("mma {to} += {terms} via {via}{}{}", optional("init", init), optional("on", on))
        }
        Stmt::Pipeline(op, name) => format!("{} {name}", verb(*op)),
        Stmt::Skip(pipe, n) => format!("skip {pipe} {n}"),
        Stmt::Await(queue, n) => format!("await {queue} {n}"),
        Stmt::Sync(at, fence) => format!("sync {}{}", scope(*at), if *fence { " async" } else { "" }),
        Stmt::TurnWait(access, e) => format!("turn_wait {access} == {e}"),
        Stmt::TurnNext(access) => format!("turn_next {access}"),
        Stmt::Par { .. } | Stmt::For { .. } | Stmt::If { .. } | Stmt::Roles(_) | Stmt::Pipe(_) => String::new(),
    }
}

/// The canonical text.
impl Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        let _ = writeln!(out, "kernel {} target {}{} {{", self.name, self.target, attrs(&self.attrs));
        if !self.constants.is_empty() {
            let constants = commas(self.constants.iter().map(|(n, v)| format!("{n} = {v}")));
            line(&mut out, 1, &format!("const {constants}"));
        }
        for s in &self.symbols {
            let by = if s.step == 1 { String::new() } else { format!(" by {}", s.step) };
            line(&mut out, 1, &format!("sym {} in {}..={}{by}", s.name, s.low, s.high));
        }
        self.arguments.iter().for_each(|b| line(&mut out, 1, &b.to_string()));
        self.views.iter().for_each(|v| line(&mut out, 1, &v.to_string()));
        self.body.iter().for_each(|s| stmt(&mut out, 1, s));
        out.push_str("}\n");
        f.write_str(&out)
    }
}
