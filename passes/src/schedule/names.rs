//! Names in kernels: symbols keep those that callers use, and what a template names moves out of their way.
//!
//! While a kernel is made, [`super::dim`] marks symbols, so that a symbol `t` and a loop variable `t` stay apart; at the end
//! [`apart`] takes the marks off and renames the others.

use std::collections::BTreeSet;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, BufferAttr, Expr, IndexDim, Kernel, Stmt};
use tilewright_ir::types::Symbol;

/// No name of a template or of the graph starts with it.
const MARK: char = '$';

/// A symbol inside a kernel that is being made.
pub(super) fn marked(symbol: &str) -> Ident {
    format!("{MARK}{symbol}").into()
}

/// An expression over symbols alone, for steps of programs.
pub fn plain(mut e: Expr) -> Expr {
    Names { rename: &|name| unmark(name).unwrap_or_else(|| name.clone()) }.expr(&mut e);
    e
}

/// The symbol that a marked name is of.
fn unmark(name: &Ident) -> Option<Ident> {
    name.strip_prefix(MARK).map(Ident::from)
}

/// Gives symbols their own names, and others to whatever has the name of one.
pub fn apart(kernel: &mut Kernel) {
    let symbols: BTreeSet<Symbol> = kernel.symbols.iter().map(|s| s.name.clone()).collect();
    let own = |name: &Ident| {
        let mut name = name.clone();
        while symbols.contains(&*name) {
            name = format!("{name}_").into();
        }
        name
    };
    rename(kernel, &|name| unmark(name).unwrap_or_else(|| own(name)));
}

/// Renames whatever has a name inside a kernel: buffers, axes, variables, tiles, symbols where they are read.
pub(super) fn rename(kernel: &mut Kernel, to: &dyn Fn(&Ident) -> Ident) {
    let names = Names { rename: to };
    for b in &mut kernel.arguments {
        names.name(&mut b.name);
        names.axes(&mut b.axes);
        names.attrs(&mut b.attrs);
    }
    for v in &mut kernel.views {
        names.name(&mut v.name);
        names.name(&mut v.buffer);
        names.axes(&mut v.axes);
        v.dims.iter_mut().for_each(|(e, _)| names.expr(e));
    }
    names.attrs(&mut kernel.attrs);
    names.block(&mut kernel.body);
}

struct Names<'f> {
    rename: &'f dyn Fn(&Ident) -> Ident,
}

impl Names<'_> {
    fn name(&self, name: &mut Ident) {
        *name = (self.rename)(name);
    }

    fn axes(&self, axes: &mut [(Ident, Expr)]) {
        for (name, size) in axes {
            self.name(name);
            self.expr(size);
        }
    }

    fn attrs(&self, attrs: &mut [BufferAttr]) {
        attrs.iter_mut().flat_map(|a| &mut a.args).for_each(|e| self.expr(e));
    }

    fn expr(&self, e: &mut Expr) {
        match e {
            Expr::Int(_) | Expr::Real(_) => {}
            Expr::Name(name) => self.name(name),
            Expr::Scalar(_, args) | Expr::Order(args, _) => args.iter_mut().for_each(|e| self.expr(e)),
            Expr::Binary(_, a, b) => {
                self.expr(a);
                self.expr(b);
            }
            Expr::Reduce(_, x, axis) => {
                self.expr(x);
                self.name(axis);
            }
            Expr::Iota(axis, start, size) => {
                self.name(axis);
                self.expr(start);
                self.expr(size);
            }
        }
    }

    fn access(&self, a: &mut Access) {
        self.name(&mut a.buffer);
        for dim in a.dims.iter_mut().flatten() {
            match dim {
                IndexDim::All => {}
                IndexDim::Point { at, .. } | IndexDim::Checked { at } => self.expr(at),
                IndexDim::Range { start, size, upto, .. } => {
                    self.expr(start);
                    self.expr(size);
                    upto.iter_mut().for_each(|e| self.expr(e));
                }
                IndexDim::Gather(name) => self.name(name),
            }
        }
    }

    fn block(&self, block: &mut [Stmt]) {
        block.iter_mut().for_each(|s| self.stmt(s));
    }

    fn stmt(&self, s: &mut Stmt) {
        match s {
            Stmt::Buffer(b) => {
                self.name(&mut b.name);
                self.axes(&mut b.axes);
                self.attrs(&mut b.attrs);
            }
            Stmt::Par { vars, body, .. } => {
                self.axes(vars);
                self.block(body);
            }
            Stmt::For { var, low, high, step, body, .. } => {
                self.name(var);
                self.expr(low);
                self.expr(high);
                step.iter_mut().for_each(|e| self.expr(e));
                self.block(body);
            }
            Stmt::If { condition, yes, no } => {
                self.expr(condition);
                self.block(yes);
                self.block(no);
            }
            Stmt::Load { name, access, mods } => {
                self.name(name);
                self.access(access);
                mods.pad.iter_mut().for_each(|e| self.expr(e));
            }
            Stmt::Let { names, value } => {
                names.iter_mut().for_each(|n| self.name(n));
                self.expr(value);
            }
            Stmt::Set { name, value } => {
                self.name(name);
                self.expr(value);
            }
            Stmt::Store { access, value, .. } => {
                self.access(access);
                self.expr(value);
            }
            Stmt::Copy { to, from, mods } => {
                self.access(to);
                self.access(from);
                mods.pad.iter_mut().for_each(|e| self.expr(e));
                mods.on.iter_mut().for_each(|name| self.name(name));
            }
            Stmt::Mma { to, terms, init, .. } => {
                self.access(to);
                for (a, b) in terms {
                    self.access(a);
                    self.access(b);
                }
                init.iter_mut().for_each(|e| self.expr(e));
            }
            Stmt::Pipe(p) => {
                self.name(&mut p.name);
                for b in &mut p.buffers {
                    self.axes(&mut b.axes);
                    self.attrs(&mut b.attrs);
                }
            }
            Stmt::Pipeline(_, name) => self.name(name),
            // Kernels of several teams, which no template here makes.
            Stmt::Queue(..)
            | Stmt::Roles(_)
            | Stmt::Skip(..)
            | Stmt::Await(..)
            | Stmt::Sync(..)
            | Stmt::TurnWait(..)
            | Stmt::TurnNext(_) => {}
        }
    }
}
