//! The parts of expressions, accesses and statements, for whoever asks which names a kernel uses where.

use super::expr::{Access, Expr, Ident, IndexDim};
use super::tree::{Block, Stmt};

impl Expr {
    /// The expressions that this one is made of, in order.
    pub fn operands(&self) -> Vec<&Expr> {
        match self {
            Expr::Int(_) | Expr::Real(_) | Expr::Name(_) => Vec::new(),
            Expr::Scalar(_, args) | Expr::Order(args, _) => args.iter().collect(),
            Expr::Binary(_, a, b) | Expr::Iota(_, a, b) => vec![a, b],
            Expr::Reduce(_, x, _) => vec![x],
        }
    }

    /// Whether `name` is read, at any depth. Axes are not read.
    pub fn reads(&self, name: &str) -> bool {
        matches!(self, Expr::Name(other) if **other == *name) || self.operands().iter().any(|e| e.reads(name))
    }
}

impl Access {
    /// The expressions of its dims, in order.
    pub fn operands(&self) -> Vec<&Expr> {
        let of = |dim| match dim {
            &IndexDim::All | &IndexDim::Gather(_) => Vec::new(),
            IndexDim::Point { at, .. } | IndexDim::Checked { at } => vec![at],
            IndexDim::Range { start, size, upto, .. } => [start, size].into_iter().chain(upto).collect(),
        };
        self.dims.iter().flatten().flat_map(of).collect()
    }

    /// Whether its buffer, an index tile or an expression of its dims is `name`.
    pub fn names(&self, name: &str) -> bool {
        let gathers = |dim: &IndexDim| matches!(dim, IndexDim::Gather(tile) if **tile == *name);
        *self.buffer == *name
            || self.dims.iter().flatten().any(gathers)
            || self.operands().iter().any(|e| e.reads(name))
    }
}

impl Stmt {
    /// The expressions of the statement itself: neither those of its accesses nor those of the statements inside it.
    pub fn operands(&self) -> Vec<&Expr> {
        match self {
            Stmt::Buffer(b) => b.axes.iter().map(|(_, size)| size).collect(),
            Stmt::Pipe(p) => p.buffers.iter().flat_map(|b| &b.axes).map(|(_, size)| size).collect(),
            Stmt::Par { vars, .. } => vars.iter().map(|(_, extent)| extent).collect(),
            Stmt::For { low, high, step, .. } => [low, high].into_iter().chain(step).collect(),
            Stmt::If { condition, .. } => vec![condition],
            Stmt::Load { mods, .. } | Stmt::Copy { mods, .. } => mods.pad.iter().collect(),
            Stmt::Let { value, .. } | Stmt::Set { value, .. } => vec![value],
            Stmt::Store { mods, value, .. } => std::iter::once(value).chain(&mods.pad).collect(),
            Stmt::Mma { init, .. } => init.iter().collect(),
            Stmt::Skip(_, count) => vec![count],
            Stmt::TurnWait(_, turn) => vec![turn],
            Stmt::Queue(..)
            | Stmt::Roles(_)
            | Stmt::Pipeline(..)
            | Stmt::Await(..)
            | Stmt::Sync(..)
            | Stmt::TurnNext(_) => Vec::new(),
        }
    }

    /// The accesses of the statement itself, those that write first.
    pub fn accesses(&self) -> Vec<&Access> {
        match self {
            Stmt::Load { access, .. } | Stmt::Store { access, .. } => vec![access],
            Stmt::Copy { to, from, .. } => vec![to, from],
            Stmt::Mma { to, terms, .. } => std::iter::once(to).chain(terms.iter().flat_map(|(a, b)| [a, b])).collect(),
            Stmt::TurnWait(access, _) | Stmt::TurnNext(access) => vec![access],
            Stmt::Buffer(_)
            | Stmt::Pipe(_)
            | Stmt::Queue(..)
            | Stmt::Par { .. }
            | Stmt::For { .. }
            | Stmt::If { .. }
            | Stmt::Roles(_)
            | Stmt::Let { .. }
            | Stmt::Set { .. }
            | Stmt::Pipeline(..)
            | Stmt::Skip(..)
            | Stmt::Await(..)
            | Stmt::Sync(..) => Vec::new(),
        }
    }

    /// The blocks inside it, in order.
    pub fn blocks(&self) -> Vec<&Block> {
        match self {
            Stmt::Par { body, .. } | Stmt::For { body, .. } => vec![body],
            Stmt::If { yes, no, .. } => vec![yes, no],
            Stmt::Roles(roles) => roles.iter().map(|role| &role.body).collect(),
            Stmt::Buffer(_)
            | Stmt::Pipe(_)
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
            | Stmt::TurnNext(_) => Vec::new(),
        }
    }

    /// The buffer or view that the statement itself writes.
    pub fn writes(&self) -> Option<&Ident> {
        match self {
            Stmt::Set { name, .. } => Some(name),
            Stmt::Store { access: to, .. } | Stmt::Copy { to, .. } | Stmt::Mma { to, .. } | Stmt::TurnNext(to) => {
                Some(&to.buffer)
            }
            Stmt::Buffer(_)
            | Stmt::Pipe(_)
            | Stmt::Queue(..)
            | Stmt::Par { .. }
            | Stmt::For { .. }
            | Stmt::If { .. }
            | Stmt::Roles(_)
            | Stmt::Load { .. }
            | Stmt::Let { .. }
            | Stmt::Pipeline(..)
            | Stmt::Skip(..)
            | Stmt::Await(..)
            | Stmt::Sync(..)
            | Stmt::TurnWait(..) => None,
        }
    }

    /// Whether the statement, or one inside it, reads or writes `name`. A declaration does neither.
    pub fn names(&self, name: &str) -> bool {
        self.writes().is_some_and(|written| **written == *name)
            || self.operands().iter().any(|e| e.reads(name))
            || self.accesses().iter().any(|access| access.names(name))
            || self.blocks().into_iter().flatten().any(|stmt| stmt.names(name))
    }

    /// The names that the statement, and those inside it, write, in order; some more than once.
    pub fn written(&self) -> Vec<&Ident> {
        let inside = self.blocks().into_iter().flatten().flat_map(Stmt::written);
        self.writes().into_iter().chain(inside).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::text::parse_kernel;
    use crate::kernel::tree::Stmt;

    #[test]
    fn names_are_found_wherever_they_stand() {
        let text = "kernel k target cpu { in x: f32[e=8]; out y: f32[e=8]; par z in 1 at grid {
            for i in a .. b step c { if d == 0 { let t = load x[e + 0 +? 8 upto f] pad sum(g, e) } }
            store y[gather h] = order(p, q, r, row) + iota(e, l, m)
            copy y[n!] <- x[o?] pad s } }";
        let kernel = parse_kernel("k", text).unwrap_or_else(|error| panic!("{error}"));
        let par = &kernel.body[0];
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "l", "m", "n", "o", "p", "q", "r", "s", "x", "y"] {
            assert!(par.names(name), "{name}");
        }
        for name in ["z", "i", "t", "row", "w"] {
            assert!(!par.names(name), "{name}");
        }
        let written: Vec<&str> = par.written().into_iter().map(|name| &**name).collect();
        assert_eq!(written, ["y", "y"]);
        let Stmt::Par { body, .. } = par else { panic!("{text}") };
        assert!(!body[0].names("y") && body[0].written().is_empty());
    }
}
