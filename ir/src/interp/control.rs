//! Calls, conditionals, scans.

use super::frame::{Argument, Frame, Machine};
use super::movement;
use super::value::{Data, Tensor, allowed};
use crate::diag::Diagnostic;
use std::sync::Arc;

pub(super) fn call(
    machine: &Machine<'_>,
    frame: &Frame<'_>,
    function: &str,
    args: &[Tensor],
) -> Result<Vec<Tensor>, Diagnostic> {
    let arguments = args.iter().cloned().map(Argument::Tensor).collect();
    machine.call(function, arguments, &frame.bindings, frame.depth)
}

pub(super) fn cond(
    machine: &Machine<'_>,
    frame: &Frame<'_>,
    yes: &str,
    no: &str,
    args: &[Tensor],
) -> Result<Vec<Tensor>, Diagnostic> {
    let (condition, rest) = args.split_first().ok_or_else(|| Diagnostic::bug("`cond` has no operand"))?;
    let &[holds] = condition.bools()? else {
        let found = condition.ty();
        return Err(Diagnostic::new("shape-mismatch", format!("`cond` needs a bool[] first, found {found}")));
    };
    call(machine, frame, if holds { yes } else { no }, rest)
}

pub(super) fn scan(
    machine: &Machine<'_>,
    frame: &Frame<'_>,
    body: &str,
    carries: usize,
    length: usize,
    args: &[Tensor],
) -> Result<Vec<Tensor>, Diagnostic> {
    if carries > args.len() {
        return Err(Diagnostic::new("operand-count", format!("`scan` carries {carries} of {} operands", args.len())));
    }
    let (initial, whole) = args.split_at(carries);
    if let Some(t) = whole.iter().find(|t| t.shape.first() != Some(&length)) {
        let message = format!("`scan` of {length} steps needs {length} slices, found {}", t.ty());
        return Err(Diagnostic::new("shape-mismatch", message));
    }
    let mut state = initial.to_vec();
    let mut stacked: Vec<Vec<Tensor>> = Vec::new();
    // Without a step the body still says what the empty stacks look like: it runs once on slices of zeros.
    for step in 0..length.max(1) {
        let mut inner = state.clone();
        for t in whole {
            inner.push(if length == 0 { zero_slice(t)? } else { movement::leading(t, step)? });
        }
        let mut results = call(machine, frame, body, &inner).map_err(|d| match d.code {
            "not-finite" => d.note(format!("in step {step} of {length} of the scan of `@{body}`")),
            _ => d,
        })?;
        if results.len() < carries || results.iter().zip(initial).any(|(a, b)| a.ty() != b.ty()) {
            let message = format!("`@{body}` must first return its {carries} carries, of the same types");
            return Err(Diagnostic::new("shape-mismatch", message));
        }
        let slices = results.split_off(carries);
        stacked.resize(slices.len(), Vec::new());
        for (stack, slice) in stacked.iter_mut().zip(slices) {
            stack.push(slice);
        }
        if length > 0 {
            state = results;
        }
    }
    for stack in stacked {
        state.push(if length == 0 { empty(&stack)? } else { movement::stack(&stack)? });
    }
    Ok(state)
}

/// One slice of zeros, of the shape that a slice of `t` would have.
fn zero_slice(t: &Tensor) -> Result<Tensor, Diagnostic> {
    let shape = t.shape[1..].to_vec();
    let n = allowed(t.dtype, &shape)?;
    let data = match &*t.data {
        Data::Float(_) => Data::Float(vec![0.0; n]),
        Data::Int(_) => Data::Int(vec![0; n]),
        Data::Bool(_) => Data::Bool(vec![false; n]),
        Data::Block(_) => {
            let bytes = t.dtype.bytes(n).ok_or_else(|| Diagnostic::bug("a row does not fill blocks"))?;
            Data::Block(crate::array::Bytes::new(vec![0u8; bytes]))
        }
    };
    Ok(Tensor::new(t.dtype, shape, data))
}

/// No slices, of the type that `stack` shows.
fn empty(stack: &[Tensor]) -> Result<Tensor, Diagnostic> {
    let one = stack.first().ok_or_else(|| Diagnostic::bug("a scan made no slice"))?;
    let shape: Vec<usize> = std::iter::once(0).chain(one.shape.iter().copied()).collect();
    let data = match &*one.data {
        Data::Float(_) => Data::Float(Vec::new()),
        Data::Int(_) => Data::Int(Vec::new()),
        Data::Bool(_) => Data::Bool(Vec::new()),
        Data::Block(b) => Data::Block(b.slice(0, 0).ok_or_else(|| Diagnostic::bug("no empty slice"))?),
    };
    Ok(Tensor { dtype: one.dtype, shape, data: Arc::new(data) })
}
