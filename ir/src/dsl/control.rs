//! Conditionals and loops over functions of the module.

use super::{Graph, Tensor};
use crate::op::GraphOp;
use crate::types::Dim;

impl Graph {
    /// The results of the function `yes` on `args` where the bool scalar `condition` holds, else of `no`; none after a
    /// mistake. Both take and return the same types. Weights of the functions are passed like other parameters.
    #[track_caller]
    pub fn cond(&self, condition: &Tensor, yes: &str, no: &str, args: &[&Tensor]) -> Vec<Tensor> {
        let all: Vec<&Tensor> = [&[condition], args].concat();
        self.emit_all(&GraphOp::Cond { yes: yes.into(), no: no.into() }, &all).unwrap_or_default()
    }

    /// `length` calls of the function `body`: it gets the carries and one slice of the leading axis of each of `slices`,
    /// and returns the next carries, then slices to be stacked. The results are the last carries, then the stacks; none
    /// after a mistake.
    #[track_caller]
    pub fn scan(&self, body: &str, carries: &[&Tensor], slices: &[&Tensor], length: impl Into<Dim>) -> Vec<Tensor> {
        let op = GraphOp::Scan { body: body.into(), carries: carries.len(), length: length.into() };
        self.emit_all(&op, &[carries, slices].concat()).unwrap_or_default()
    }
}
