//! Interpreter of kernels for one team at a time: floats as f64, integers as i64, memory starts as NaN.
//!
//! Grid points run one after the other in row-major order. Every access is checked against its buffer. Kernels whose
//! meaning needs teams that run together (roles and their pipes, queues, turns, cluster syncs) are refused.

mod access;
mod eval;
mod exec;
mod mma;
mod pipe;
#[cfg(test)]
mod pipe_tests;
mod scalar;
#[cfg(test)]
mod tests;
mod value;

pub use value::{Data, Tensor};

use crate::diag::Diagnostic;
use crate::kernel::tree::{Kernel, Space};
use crate::types::Bindings;
use exec::Machine;
use std::sync::Arc;
use value::{Memory, Value, ViewValue};

/// Runs `kernel` on `args`, one tensor for each argument buffer in order; `out`, `inout` and `work` are written back.
///
/// Errors: `kernel-unsupported`; `kernel-run` for wrong arguments, an access outside its buffer, a type that does not
/// fit, or a run that exceeds the interpreter's budget of steps and memory.
pub fn run(kernel: &Kernel, args: &mut [Tensor], symbols: &Bindings) -> Result<(), Diagnostic> {
    let mut m = Machine::new();
    for (name, value) in &kernel.constants {
        m.bind(name, Value::Int(*value));
    }
    for s in &kernel.symbols {
        let value = *symbols.get(&s.name).ok_or_else(|| failed(format!("no value for symbol `{}`", s.name)))?;
        if value < s.low || value > s.high || value % s.step.max(1) != 0 {
            let range = format!("{}..={} by {}", s.low, s.high, s.step);
            return Err(failed(format!("symbol `{}` = {value} is not in {range}", s.name)));
        }
        m.bind(&s.name, Value::Int(value));
    }
    for fact in kernel.attrs.iter().filter(|a| &*a.name == "require").flat_map(|a| &a.args) {
        let value = m.int(fact)?;
        if value < 0 {
            return Err(failed(format!("`{}` requires `{fact}` >= 0, found {value}", kernel.name)));
        }
    }
    if args.len() != kernel.arguments.len() {
        let (want, found) = (kernel.arguments.len(), args.len());
        return Err(failed(format!("`{}` takes {want} buffers, found {found}", kernel.name)));
    }
    for (buffer, arg) in kernel.arguments.iter().zip(args.iter()) {
        let axes = m.axes(&buffer.axes)?;
        let shape: Vec<usize> = axes.iter().map(|a| a.1).collect();
        if shape != arg.shape || !arg.data.fits(buffer.dtype) || arg.data.len() != shape.iter().product::<usize>() {
            let found = format!("{}{:?}", arg.data.kind(), arg.shape);
            return Err(failed(format!("buffer `{}` is {}{shape:?}, found {found}", buffer.name, buffer.dtype)));
        }
        // what a kernel only writes must not depend on what was there
        let data = if buffer.space == Space::Out { arg.data.poisoned() } else { arg.data.clone() };
        m.add_memory(&buffer.name, Memory { axes, data, read_only: buffer.space == Space::In });
    }
    for view in &kernel.views {
        let axes = m.axes(&view.axes)?;
        let Some(Value::Memory(memory)) = m.lookup(&view.buffer).cloned() else {
            return Err(failed(format!("view `{}` is of `{}`, which is no buffer", view.name, view.buffer)));
        };
        let value = ViewValue { axes, memory, dims: view.dims.clone() };
        m.bind(&view.name, Value::View(Arc::new(value)));
    }
    m.block(&kernel.body)?;
    for (i, (buffer, arg)) in kernel.arguments.iter().zip(args.iter_mut()).enumerate() {
        if buffer.space != Space::In {
            arg.data = m.memory(i)?.data.clone();
        }
    }
    Ok(())
}

/// An error of a run.
fn failed(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("kernel-run", message)
}

/// Something that this interpreter does not do.
fn unsupported(what: impl Into<String>) -> Diagnostic {
    Diagnostic::new("kernel-unsupported", format!("the interpreter of one team does not run {}", what.into()))
}
