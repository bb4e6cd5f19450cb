//! Which names statements read and write: decides when a lazy tile must be computed.

use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, Expr, IndexDim, Stmt};

/// Whether an expression names `name`.
pub fn in_expr(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Name(other) => **other == *name,
        Expr::Scalar(_, args) | Expr::Order(args, _) => args.iter().any(|arg| in_expr(arg, name)),
        Expr::Binary(_, a, b) | Expr::Iota(_, a, b) => in_expr(a, name) || in_expr(b, name),
        Expr::Reduce(_, arg, _) => in_expr(arg, name),
        Expr::Int(_) | Expr::Real(_) => false,
    }
}

fn in_access(access: &Access, name: &str) -> bool {
    *access.buffer == *name
        || access.dims.iter().flatten().any(|dim| match dim {
            IndexDim::All => false,
            IndexDim::Point { at, .. } | IndexDim::Checked { at } => in_expr(at, name),
            IndexDim::Range { start, size, upto, .. } => {
                in_expr(start, name) || in_expr(size, name) || upto.as_ref().is_some_and(|upto| in_expr(upto, name))
            }
            IndexDim::Gather(other) => **other == *name,
        })
}

/// Whether a statement, or one inside it, names `name`.
pub fn in_stmt(stmt: &Stmt, name: &str) -> bool {
    let block = |block: &[Stmt]| block.iter().any(|stmt| in_stmt(stmt, name));
    match stmt {
        Stmt::Par { vars, body, .. } => vars.iter().any(|(_, extent)| in_expr(extent, name)) || block(body),
        Stmt::For { low, high, body, .. } => in_expr(low, name) || in_expr(high, name) || block(body),
        Stmt::If { condition, yes, no } => in_expr(condition, name) || block(yes) || block(no),
        Stmt::Load { access, .. } => in_access(access, name),
        Stmt::Let { value, .. } => in_expr(value, name),
        Stmt::Set { name: to, value } => **to == *name || in_expr(value, name),
        Stmt::Store { access, value, .. } => in_access(access, name) || in_expr(value, name),
        Stmt::Copy { to, from, .. } => in_access(to, name) || in_access(from, name),
        Stmt::Mma { to, terms, init, .. } => {
            in_access(to, name)
                || terms.iter().any(|(a, b)| in_access(a, name) || in_access(b, name))
                || init.as_ref().is_some_and(|init| in_expr(init, name))
        }
        Stmt::Buffer(_)
        | Stmt::Pipe(_)
        | Stmt::Queue(..)
        | Stmt::Roles(_)
        | Stmt::Pipeline(..)
        | Stmt::Skip(..)
        | Stmt::Await(..)
        | Stmt::Sync(..)
        | Stmt::TurnWait(..)
        | Stmt::TurnNext(_) => false,
    }
}

/// Names of buffers that a statement writes.
pub fn written(stmt: &Stmt, found: &mut Vec<Ident>) {
    match stmt {
        Stmt::Par { body, .. } | Stmt::For { body, .. } => body.iter().for_each(|stmt| written(stmt, found)),
        Stmt::If { yes, no, .. } => yes.iter().chain(no).for_each(|stmt| written(stmt, found)),
        Stmt::Set { name, .. } => found.push(name.clone()),
        Stmt::Store { access, .. } => found.push(access.buffer.clone()),
        Stmt::Copy { to, .. } | Stmt::Mma { to, .. } => found.push(to.buffer.clone()),
        Stmt::Load { .. }
        | Stmt::Let { .. }
        | Stmt::Buffer(_)
        | Stmt::Pipe(_)
        | Stmt::Queue(..)
        | Stmt::Roles(_)
        | Stmt::Pipeline(..)
        | Stmt::Skip(..)
        | Stmt::Await(..)
        | Stmt::Sync(..)
        | Stmt::TurnWait(..)
        | Stmt::TurnNext(_) => {}
    }
}
