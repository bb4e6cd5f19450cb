//! Steps in order: launches over the pool, calls, packing.

use super::pack::root_of;
use super::{Compiled, Executable, bytes_of};
use crate::buffer::{Buffer, Memory};
use crate::threads::share;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use tilewright_codegen::cpu::clif::{CpuKernel, eval};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Kernel, Launch, Step};
use tilewright_ir::types::{Bindings, Symbol};

/// Buffers of the program that runs, by name.
pub(super) type Environment = BTreeMap<Arc<str>, Buffer>;

impl Executable {
    /// Runs the entry on buffers in parameter order; donated ones may come back as results.
    ///
    /// Sizes are not checked again here: use [`Executable::run`] for input from outside.
    ///
    /// Errors: `input-count`, `symbol`, `out-of-memory`.
    pub fn run_buffers(&self, inputs: &[Buffer], bindings: &Bindings) -> Result<Vec<Buffer>, Diagnostic> {
        self.run_program(self.entry, inputs, &[], bindings)
    }

    /// Runs a program. A result is written into its place of `into` where there is one and the result has memory of its
    /// own; the caller sees by the pointer whether it was.
    pub(super) fn run_program(
        &self,
        index: usize,
        inputs: &[Buffer],
        into: &[Option<Buffer>],
        bindings: &Bindings,
    ) -> Result<Vec<Buffer>, Diagnostic> {
        let compiled = &self.programs[index];
        let program = &compiled.program;
        if inputs.len() != program.params.len() {
            return Err(Diagnostic::new("input-count", format!("`{}` got {} inputs", program.name, inputs.len())));
        }
        let names = program.params.iter().map(|p| p.buffer.name.clone());
        let mut env: Environment = names.zip(inputs.iter().cloned()).collect();
        env.extend(self.constants[index].iter().map(|(n, b)| (n.clone(), b.clone())));
        for (name, place) in program.results.iter().zip(into) {
            let name = root_of(compiled, name);
            if let Some(place) = place
                && program.work.iter().any(|b| b.name == name)
            {
                env.entry(name).or_insert_with(|| place.clone());
            }
        }
        let last = last_uses(compiled);
        let mut dead: Vec<Buffer> = Vec::new();
        for (number, step) in program.steps.iter().enumerate() {
            match step {
                Step::Launch(launch) => self.launch(compiled, launch, &mut env, bindings)?,
                Step::Pack(pack) => self.pack(compiled, pack, &mut env, bindings)?,
                Step::Call(call) => self.call(compiled, call, &mut env, bindings)?,
                Step::Cond(cond) => self.cond(compiled, cond, &mut env, bindings)?,
                Step::Scan(scan) => self.scan(compiled, scan, &mut env, bindings)?,
            }
            for name in last.get(&number).into_iter().flatten() {
                dead.extend(env.remove(name));
            }
            self.recycle(&mut dead);
        }
        let results: Result<Vec<Buffer>, Diagnostic> =
            program.results.iter().map(|n| self.buffer(compiled, n, &mut env, bindings)).collect();
        dead.extend(std::mem::take(&mut env).into_values());
        let results = results?;
        self.recycle(&mut dead);
        Ok(results)
    }

    /// The memory of `name`, allocated at its first use.
    pub(super) fn buffer(
        &self,
        compiled: &Compiled,
        name: &Arc<str>,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<Buffer, Diagnostic> {
        if let Some(b) = env.get(name) {
            return Ok(b.clone());
        }
        let work = compiled.program.work.iter().find(|b| b.name == *name);
        let work = work.ok_or_else(|| Diagnostic::bug(format!("no buffer `{name}` in `{}`", compiled.program.name)))?;
        let buffer = match &work.alias_of {
            Some(of) => self.buffer(compiled, of, env, bindings)?,
            None => self.allocate(bytes_of(&work.ty, bindings)?)?,
        };
        env.insert(name.clone(), buffer.clone());
        Ok(buffer)
    }

    pub(super) fn allocate(&self, bytes: usize) -> Result<Buffer, Diagnostic> {
        let bytes = bytes.max(1).next_multiple_of(64);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = free.get_mut(&bytes).and_then(Vec::pop) {
            return Ok(Buffer::Owned(memory));
        }
        Ok(Buffer::Owned(Arc::new(Memory::zeroed(bytes)?)))
    }

    /// Keeps memory that nobody else holds for the next allocation of its size.
    pub(super) fn recycle(&self, dead: &mut Vec<Buffer>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        for buffer in dead.drain(..) {
            if let Buffer::Owned(memory) = buffer
                && Arc::strong_count(&memory) == 1
            {
                free.entry(memory.len()).or_default().push(memory);
            }
        }
    }

    fn launch(
        &self,
        compiled: &Compiled,
        launch: &Launch,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let code = &compiled.kernels[launch.kernel];
        let kernel = &compiled.program.kernels[launch.kernel];
        let symbol = |name: &str| bindings.get(name).copied();
        if let Some(condition) = &launch.when
            && eval(condition, &symbol)? == 0
        {
            return Ok(());
        }
        let buffers: Result<Vec<Buffer>, Diagnostic> =
            launch.arguments.iter().map(|n| self.buffer(compiled, n, env, bindings)).collect();
        let buffers = buffers?;
        let symbols = symbol_values(kernel, bindings)?;
        let mut items: usize = 1;
        for extent in &code.grid {
            let n = usize::try_from(eval(extent, &symbol)?).unwrap_or(0);
            items = items.checked_mul(n).ok_or_else(|| Diagnostic::new("dim-overflow", "the grid is too large"))?;
        }
        self.run_items(code, &buffers, &symbols, items);
        Ok(())
    }

    fn run_items(&self, code: &CpuKernel, buffers: &[Buffer], symbols: &[i64], items: usize) {
        let args = Arguments(buffers.iter().map(Buffer::pointer).collect());
        let args = &args;
        self.pool.run(&|thread, threads| {
            let range = share(items, thread, threads);
            if range.is_empty() {
                return;
            }
            // SAFETY: the arguments are live buffers of the sizes that the kernel declares; each grid item writes only
            // its own elements, and each thread has its own scratch.
            unsafe {
                code.call(args.get(), symbols, self.scratch[thread].pointer(), range.start as i64, range.end as i64);
            }
        });
    }
}

/// Pointers of a launch, shared by the threads.
struct Arguments(Vec<*mut u8>);

impl Arguments {
    fn get(&self) -> &[*mut u8] {
        &self.0
    }
}

// SAFETY: only generated code dereferences the pointers, under the contract in `run_items`.
unsafe impl Sync for Arguments {}

fn symbol_values(kernel: &Kernel, bindings: &Bindings) -> Result<Vec<i64>, Diagnostic> {
    let value = |name: &Symbol| {
        let v = bindings.get(name).copied();
        v.ok_or_else(|| Diagnostic::new("symbol", format!("no value for symbol `{name}`")))
    };
    kernel.symbols.iter().map(|s| value(&s.name)).collect()
}

/// Names whose last use is each step: their memory can serve others from then on.
fn last_uses(compiled: &Compiled) -> BTreeMap<usize, Vec<Arc<str>>> {
    let mut last: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for (number, step) in compiled.program.steps.iter().enumerate() {
        for name in step.names() {
            // An alias keeps what it aliases.
            let mut name = name.clone();
            loop {
                last.insert(name.clone(), number);
                let work = compiled.program.work.iter().find(|b| b.name == name);
                match work.and_then(|b| b.alias_of.clone()) {
                    Some(of) => name = of,
                    None => break,
                }
            }
        }
    }
    let mut by_step: BTreeMap<usize, Vec<Arc<str>>> = BTreeMap::new();
    for (name, number) in last {
        let kept = compiled.program.results.contains(&name) || aliased_by_result(compiled, &name);
        if !kept {
            by_step.entry(number).or_default().push(name);
        }
    }
    by_step
}

fn aliased_by_result(compiled: &Compiled, name: &Arc<str>) -> bool {
    compiled.program.results.iter().any(|r| {
        let mut at = r.clone();
        while let Some(of) = compiled.program.work.iter().find(|b| b.name == at).and_then(|b| b.alias_of.clone()) {
            if of == *name {
                return true;
            }
            at = of;
        }
        false
    })
}
