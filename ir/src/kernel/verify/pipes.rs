//! V6 for pipes of one team: slots are taken, filled, handed over, read and freed in turn, in every run.
//!
//! One team is sequential, so counts decide: a slot is being filled, full, or held. A loop whose number of trips is not
//! constant must leave the counts as they were; then every trip meets what the first one met.

use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident};
use crate::kernel::tree::{Block, Kernel, Pipe, PipelineOp, Stmt};
use std::collections::BTreeMap;

/// Slots of a pipe by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slots {
    stages: u32,
    filling: u32,
    full: u32,
    held: u32,
}

/// The state of the pipes in scope.
type State = BTreeMap<Ident, Slots>;

/// Most trips of a constant loop that are followed.
const MOST_TRIPS: i64 = 64;

struct Checker<'k> {
    constants: &'k [(Ident, i64)],
}

/// Checks the pipes whose producer and consumer are the whole block; those between roles are not looked at.
pub(super) fn check(kernel: &Kernel) -> Result<(), Diagnostic> {
    Checker { constants: &kernel.constants }.block(&kernel.body, &mut State::new())
}

fn wrong(message: String) -> Diagnostic {
    Diagnostic::new("kernel-pipe", message)
}

impl Checker<'_> {
    fn constant(&self, e: &Expr) -> Option<i64> {
        match e {
            Expr::Int(n) => Some(*n),
            Expr::Name(name) => self.constants.iter().find(|c| c.0 == *name).map(|c| c.1),
            Expr::Real(_)
            | Expr::Scalar(..)
            | Expr::Binary(..)
            | Expr::Reduce(..)
            | Expr::Iota(..)
            | Expr::Order(..) => None,
        }
    }

    fn block(&self, block: &Block, state: &mut State) -> Result<(), Diagnostic> {
        let mut own: Vec<(&Pipe, Option<Slots>)> = Vec::new();
        for s in block {
            if let Stmt::Pipe(p) = s
                && *p.from == *"all"
                && *p.to == *"all"
            {
                let slots = Slots { stages: p.stages, filling: 0, full: 0, held: 0 };
                own.push((p, state.insert(p.name.clone(), slots)));
            }
            self.stmt(s, state)?;
        }
        for (p, outer) in own.into_iter().rev() {
            let left = state.remove(&p.name);
            if let Some(s) = left.filter(|s| s.filling + s.full + s.held > 0) {
                let message = format!("`{}` ends with {} full and {} held slots", p.name, s.full + s.filling, s.held);
                return Err(wrong(message).note("wait for and release every slot"));
            }
            outer.map(|slots| state.insert(p.name.clone(), slots));
        }
        Ok(())
    }

    fn stmt(&self, s: &Stmt, state: &mut State) -> Result<(), Diagnostic> {
        match s {
            Stmt::Pipeline(op, name) => self.verb(*op, name, state),
            Stmt::For { var, low, high, step, body, .. } => {
                let trips = self.trips(low, high, step.as_ref());
                let before = state.clone();
                for _ in 0..trips.unwrap_or(1) {
                    self.block(body, state)?;
                    if *state == before {
                        return Ok(());
                    }
                }
                if trips.is_none() && *state != before {
                    return Err(wrong(format!("a trip of the loop over `{var}` leaves other slots than it found")));
                }
                Ok(())
            }
            Stmt::If { condition, yes, no } => {
                let mut other = state.clone();
                self.block(yes, state)?;
                self.block(no, &mut other)?;
                if *state == other { Ok(()) } else { Err(wrong(format!("slots depend on `{condition}`"))) }
            }
            Stmt::Par { vars, body, .. } => {
                let before = state.clone();
                self.block(body, state)?;
                let vars: Vec<&str> = vars.iter().map(|v| &*v.0).collect();
                let left = || wrong(format!("a point of `par {}` leaves other slots than it found", vars.join(", ")));
                if *state == before { Ok(()) } else { Err(left()) }
            }
            Stmt::Roles(roles) => roles.iter().try_for_each(|r| self.block(&r.body, &mut state.clone())),
            _other => self.accesses(s, state),
        }
    }

    fn trips(&self, low: &Expr, high: &Expr, step: Option<&Expr>) -> Option<i64> {
        let step = step.map_or(Some(1), |e| self.constant(e)).filter(|s| *s > 0)?;
        let length = self.constant(high)?.checked_sub(self.constant(low)?)?;
        let trips = length.max(0).checked_add(step - 1)? / step;
        (trips <= MOST_TRIPS).then_some(trips)
    }

    fn verb(&self, op: PipelineOp, name: &Ident, state: &mut State) -> Result<(), Diagnostic> {
        let Some(slots) = state.get_mut(name) else { return Ok(()) };
        let used = slots.filling + slots.full + slots.held;
        match op {
            PipelineOp::Acquire if slots.filling > 0 => {
                Err(wrong(format!("`acquire {name}` before the last `commit`")))
            }
            PipelineOp::Acquire if used == slots.stages => {
                Err(wrong(format!("`acquire {name}` waits for ever: none of {used} slots is released")))
            }
            PipelineOp::Acquire => {
                slots.filling = 1;
                Ok(())
            }
            PipelineOp::Commit if slots.filling == 0 => Err(wrong(format!("`commit {name}` without a slot"))),
            PipelineOp::Commit => {
                slots.filling = 0;
                slots.full += 1;
                Ok(())
            }
            PipelineOp::Wait if slots.full == 0 => {
                Err(wrong(format!("`wait {name}` waits for ever: no slot is committed")))
            }
            PipelineOp::Wait => {
                slots.full -= 1;
                slots.held += 1;
                Ok(())
            }
            PipelineOp::Release if slots.held == 0 => Err(wrong(format!("`release {name}` without a slot"))),
            PipelineOp::Release => {
                slots.held -= 1;
                Ok(())
            }
        }
    }

    /// A slot is written while it is filled, and read while it is held.
    fn accesses(&self, s: &Stmt, state: &State) -> Result<(), Diagnostic> {
        let writes = usize::from(s.writes().is_some() && !matches!(s, Stmt::Set { .. }));
        for (i, access) in s.accesses().into_iter().enumerate() {
            let Some(slots) = of(access, state) else { continue };
            if i < writes && slots.filling == 0 {
                return Err(wrong(format!("`{access}` is written without `acquire`")));
            }
            if i >= writes && slots.held <= access.back {
                return Err(wrong(format!("`{access}` is read without `wait`")));
            }
        }
        Ok(())
    }
}

fn of<'s>(access: &Access, state: &'s State) -> Option<&'s Slots> {
    access.field.as_ref().and_then(|_| state.get(&access.buffer))
}
