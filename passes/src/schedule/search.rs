//! Positions of extremes: a sequential search.

use super::emit::{Bind, Emitted, Emitter, Frame};
use super::index::dim;
use crate::region::{AxisId, TermId};
use std::collections::BTreeMap;
use tilewright_ir::kernel::{Buffer, Expr, Space, Stmt, expr::Ident};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

impl Emitter<'_> {
    /// A sequential search; all axes are points.
    pub(super) fn arg_fold(&mut self, term: TermId, largest: bool, axis: AxisId, arg: TermId, place: usize) -> Emitted {
        let region = self.region;
        let dtype = region.terms[arg].1;
        let above = self.frames.split_off(place + 1);
        let (var, best, at) = (self.fresh("j"), self.fresh("s"), self.fresh("s"));
        let j = Expr::Name(var.clone());
        self.frames.push(Frame { binds: BTreeMap::from([(axis, Bind::Point(j.clone()))]), ..Frame::default() });
        let value = self.emit(arg)?;
        let mut body = self.pop()?.stmts;
        let op = if largest { ScalarOp::Gt {} } else { ScalarOp::Lt {} };
        let old = Expr::Name(best.clone());
        let mut better = Expr::scalar(op, [value.clone(), old.clone()]);
        if dtype.is_float() {
            let nan = Expr::scalar(ScalarOp::Ne {}, [value.clone(), value.clone()]);
            let known = Expr::scalar(ScalarOp::Eq {}, [old.clone(), old.clone()]);
            let first_nan = Expr::scalar(ScalarOp::And {}, [nan, known]);
            better = Expr::scalar(ScalarOp::Or {}, [better, first_nan]);
        }
        let first = Expr::scalar(ScalarOp::Eq {}, [j.clone(), Expr::Int(0)]);
        let better = Expr::scalar(ScalarOp::Or {}, [better, first]);
        let name = self.fresh("v");
        body.push(Stmt::Let { names: vec![name.clone()], value: better });
        let pick = |new: Expr, old: &Ident| Stmt::Set {
            name: old.clone(),
            value: Expr::scalar(ScalarOp::Select {}, [Expr::Name(name.clone()), new, Expr::Name(old.clone())]),
        };
        body.push(pick(j, &at));
        body.push(pick(value, &best));
        let stmts = &mut self.last()?.stmts;
        let scalar = |name: &Ident, dtype| {
            Stmt::Buffer(Buffer { space: Space::Reg, name: name.clone(), dtype, axes: Vec::new(), attrs: Vec::new() })
        };
        stmts.push(scalar(&best, dtype));
        stmts.push(scalar(&at, DType::I64));
        stmts.push(Stmt::Set { name: best.clone(), value: Expr::cast(dtype, Expr::Int(0)) });
        stmts.push(Stmt::Set { name: at.clone(), value: Expr::Int(0) });
        let high = dim(&region.axes[axis].1);
        stmts.push(Stmt::For { var, low: Expr::Int(0), high, step: None, unroll: false, body });
        let result = self.remember(term, place, Expr::Name(at));
        self.frames.extend(above);
        Ok(result)
    }
}
