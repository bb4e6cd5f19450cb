//! Steps that run other programs: calls, conditionals, scans.

use super::run::Environment;
use super::{Compiled, Executable, bytes_of};
use crate::buffer::Buffer;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::{CallStep, CondStep, ScanArgument, ScanResult, ScanStep};
use tilewright_ir::types::{Bindings, Dim, Symbol};

/// A program that is about to be run.
struct Callee {
    index: usize,
    bindings: Bindings,
}

impl Executable {
    /// Finds a program and the values of its symbols. Errors: `symbol` if one is out of its range.
    fn callee(&self, name: &str, symbols: &[(Symbol, Dim)], outer: &Bindings) -> Result<Callee, Diagnostic> {
        let index = self.programs.get_index_of(name);
        let index = index.ok_or_else(|| Diagnostic::bug(format!("no program `{name}`")))?;
        let mut bindings = outer.clone();
        for (symbol, dim) in symbols {
            let value = dim.eval(outer).map_err(|m| Diagnostic::new("symbol", m))?;
            bindings.insert(symbol.clone(), value);
        }
        for s in &self.programs[index].program.symbols {
            if let Some(v) = bindings.get(&s.name)
                && !((s.low..=s.high).contains(v) && v % s.step.max(1) == 0)
            {
                let want = format!("`{}` in {}..={} by {}", s.name, s.low, s.high, s.step);
                return Err(Diagnostic::new("symbol", format!("`{name}` needs {want}, found {v}")));
            }
        }
        Ok(Callee { index, bindings })
    }

    /// Bytes of result `k`.
    fn result_bytes(&self, callee: &Callee, k: usize) -> Result<usize, Diagnostic> {
        let program = &self.programs[callee.index].program;
        let name = program.results.get(k).ok_or_else(|| Diagnostic::bug("a result that is not there"))?;
        bytes_of(&self.buffer_type(program, name)?, &callee.bindings)
    }

    fn is_donated(&self, callee: &Callee, param: usize) -> bool {
        self.programs[callee.index].program.params.get(param).is_some_and(|p| p.role == Role::Donated)
    }

    /// `result` itself if the caller alone has its memory, else a copy. Somebody else has it if it is one of `taken`, or
    /// not memory of ours as a whole.
    fn apart(&self, result: Buffer, taken: &[*mut u8], bytes: usize) -> Result<Buffer, Diagnostic> {
        if matches!(result, Buffer::Owned(_)) && !taken.contains(&result.pointer()) {
            return Ok(result);
        }
        let copy = self.allocate(bytes)?;
        copy_bytes(&result, &copy, bytes)?;
        Ok(copy)
    }

    /// `result` in `place` if there is one, else apart.
    fn place(
        &self,
        result: Buffer,
        place: Option<Buffer>,
        taken: &[*mut u8],
        bytes: usize,
    ) -> Result<Buffer, Diagnostic> {
        let Some(place) = place else { return self.apart(result, taken, bytes) };
        copy_bytes(&result, &place, bytes)?;
        Ok(place)
    }

    /// Addresses of arguments that no result may have: all but donated ones.
    fn kept(&self, callee: &Callee, arguments: &[Buffer]) -> Vec<*mut u8> {
        let kept = arguments.iter().enumerate().filter(|(k, _)| !self.is_donated(callee, *k));
        kept.map(|(_, b)| b.pointer()).collect()
    }

    /// Runs `callee` and gives its results their names here.
    fn invoke(
        &self,
        callee: &Callee,
        arguments: &[Buffer],
        names: &[Arc<str>],
        env: &mut Environment,
    ) -> Result<(), Diagnostic> {
        // A name has memory already where it is a result of ours that our own caller wants somewhere.
        let into: Vec<Option<Buffer>> = names.iter().map(|n| env.get(n).cloned()).collect();
        let results = self.run_program(callee.index, arguments, &into, &callee.bindings)?;
        let mut taken = self.kept(callee, arguments);
        for (k, (result, (name, place))) in results.into_iter().zip(names.iter().zip(into)).enumerate() {
            let bytes = self.result_bytes(callee, k)?;
            let result = self.place(result, place, &taken, bytes)?;
            taken.push(result.pointer());
            env.insert(name.clone(), result);
        }
        Ok(())
    }

    fn buffers<'n>(
        &self,
        compiled: &Compiled,
        names: impl Iterator<Item = &'n Arc<str>>,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<Vec<Buffer>, Diagnostic> {
        names.map(|n| self.buffer(compiled, n, env, bindings)).collect()
    }

    pub(super) fn call(
        &self,
        compiled: &Compiled,
        step: &CallStep,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let arguments = self.buffers(compiled, step.arguments.iter(), env, bindings)?;
        let callee = self.callee(&step.function, &step.symbols, bindings)?;
        self.invoke(&callee, &arguments, &step.results, env)
    }

    pub(super) fn cond(
        &self,
        compiled: &Compiled,
        step: &CondStep,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let predicate = self.buffer(compiled, &step.predicate, env, bindings)?;
        let holds = predicate.bytes(1).and_then(|b| b.first().copied());
        let holds = holds.ok_or_else(|| Diagnostic::bug("a condition without a byte"))? != 0;
        let chosen = if holds { &step.yes } else { &step.no };
        let arguments = self.buffers(compiled, step.arguments.iter(), env, bindings)?;
        let callee = self.callee(&chosen.function, &chosen.symbols, bindings)?;
        self.invoke(&callee, &arguments, &step.results, env)
    }

    pub(super) fn scan(
        &self,
        compiled: &Compiled,
        step: &ScanStep,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let length = step.length.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
        let callee = self.callee(&step.body.function, &step.body.symbols, bindings)?;
        let program = &self.programs[callee.index].program;
        let first = self.buffers(compiled, step.arguments.iter().map(ScanArgument::name), env, bindings)?;
        let mut stacks = Vec::new();
        for result in &step.results {
            stacks.push(match result {
                ScanResult::Stack(name) => Some(self.buffer(compiled, name, env, bindings)?),
                ScanResult::Carry(_) | ScanResult::Fixed => None,
            });
        }
        let argument_bytes =
            program.params.iter().map(|p| bytes_of(&p.buffer.ty, &callee.bindings)).collect::<Result<_, _>>()?;
        let result_bytes =
            (0..step.results.len()).map(|k| self.result_bytes(&callee, k)).collect::<Result<Vec<usize>, _>>()?;
        let mut kept = self.kept(&callee, &first);
        let fixed = step.arguments.iter().zip(&first).filter(|(a, _)| matches!(a, ScanArgument::Fixed(_)));
        kept.extend(fixed.map(|(_, b)| b.pointer()));
        let around = Loop { step, callee, first, stacks, argument_bytes, result_bytes, kept };
        let mut state = around.first.clone();
        for i in 0..usize::try_from(length).unwrap_or(0) {
            self.scan_step(&around, i, &mut state)?;
        }
        let mut taken = around.kept.clone();
        for (k, result) in step.results.iter().enumerate() {
            if let ScanResult::Carry(name) = result {
                let last = self.place(state[k].clone(), env.get(name).cloned(), &taken, around.result_bytes[k])?;
                taken.push(last.pointer());
                env.insert(name.clone(), last);
            }
        }
        self.recycle(&mut state);
        Ok(())
    }

    /// Step `i` of a scan: `state` holds the fixed arguments and carries, and gets the next carries.
    fn scan_step(&self, around: &Loop<'_>, i: usize, state: &mut [Buffer]) -> Result<(), Diagnostic> {
        let slice = |whole: &Buffer, bytes: usize| {
            let part = i.checked_mul(bytes).and_then(|start| whole.part(start, bytes));
            part.ok_or_else(|| Diagnostic::bug("a slice of a scan lies outside its buffer"))
        };
        for (k, argument) in around.step.arguments.iter().enumerate() {
            if let ScanArgument::Slice(_) = argument {
                state[k] = slice(&around.first[k], around.argument_bytes[k])?;
            }
        }
        let mut into = Vec::with_capacity(around.stacks.len());
        for (stack, &bytes) in around.stacks.iter().zip(&around.result_bytes) {
            into.push(stack.as_ref().map(|s| slice(s, bytes)).transpose()?);
        }
        let callee = &around.callee;
        let mut results = self.run_program(callee.index, state, &into, &callee.bindings)?;
        let mut taken = around.kept.clone();
        let is_carry = |k: usize| matches!(around.step.results.get(k), Some(ScanResult::Carry(_)));
        for (k, (result, place)) in results.iter().zip(into).enumerate() {
            if let Some(place) = place {
                copy_bytes(result, &place, around.result_bytes[k])?;
            } else if is_carry(k) && !self.is_donated(callee, k) {
                taken.push(result.pointer());
            }
        }
        for (k, result) in results.drain(..).enumerate().filter(|(k, _)| is_carry(*k)) {
            let next = if self.is_donated(callee, k) {
                // The next step may write into it, so nobody else may read it then.
                self.apart(result, &taken, around.result_bytes[k])?
            } else {
                result
            };
            taken.push(next.pointer());
            let mut dead = vec![std::mem::replace(&mut state[k], next)];
            self.recycle(&mut dead);
        }
        Ok(())
    }
}

/// What stays the same in the steps of a scan.
struct Loop<'s> {
    step: &'s ScanStep,
    callee: Callee,
    /// The arguments of the first step; of slices, the whole.
    first: Vec<Buffer>,
    /// Where results are stacked.
    stacks: Vec<Option<Buffer>>,
    /// Bytes of each argument of a step.
    argument_bytes: Vec<usize>,
    /// Bytes of each result of a step.
    result_bytes: Vec<usize>,
    /// Addresses of arguments that only the caller and the program may read.
    kept: Vec<*mut u8>,
}

/// Copies a result to its place, unless it was written there.
fn copy_bytes(from: &Buffer, to: &Buffer, bytes: usize) -> Result<(), Diagnostic> {
    if from.pointer() == to.pointer() {
        return Ok(());
    }
    let outside = || Diagnostic::bug("a result is larger than its buffer");
    let source = from.bytes(bytes).ok_or_else(outside)?;
    to.part(0, bytes).filter(|b| !matches!(b, Buffer::Shared(_))).ok_or_else(outside)?;
    // SAFETY: both have `bytes` bytes, and `to` is ours to write: nobody reads or writes it at the moment.
    unsafe { std::ptr::copy(source.as_ptr(), to.pointer(), bytes) };
    Ok(())
}
