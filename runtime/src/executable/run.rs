//! Steps in order: launches over the pool, calls, packing.

use super::pack::root_of;
use super::{Compiled, Executable, bytes_of};
use crate::buffer::{Buffer, Memory};
use crate::threads::share;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tilewright_codegen::cpu::clif::{CpuKernel, Outside, eval};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Kernel, Launch, Program, Step};
use tilewright_ir::types::{Bindings, Symbol};

/// Buffers of the program that runs, by name.
pub(super) type Environment = BTreeMap<Arc<str>, Buffer>;

impl Executable {
    /// Runs the entry on buffers in parameter order; donated ones may come back as results.
    ///
    /// Dtypes and shapes are not checked here, only that no buffer is too small: use [`Executable::run`] for input from
    /// outside.
    ///
    /// Errors: `input-count`, `input-type`, `symbol`, `index-out-of-range`, `out-of-memory`.
    pub fn run_buffers(&self, inputs: &[Buffer], bindings: &Bindings) -> Result<Vec<Buffer>, Diagnostic> {
        for (p, buffer) in self.program().params.iter().zip(inputs) {
            let (need, found) = (bytes_of(&p.buffer.ty, bindings)?, buffer.len());
            if found < need {
                let message =
                    format!("input `{}` needs {need} bytes for {}, found {found}", p.buffer.name, p.buffer.ty);
                return Err(Diagnostic::new("input-type", message));
            }
        }
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
        check_sizes(program, bindings)?;
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
            let start = self.profile.as_ref().map(|_| Instant::now());
            match step {
                Step::Launch(launch) => self.launch(compiled, launch, &mut env, bindings)?,
                Step::Pack(pack) => self.pack(compiled, pack, &mut env, bindings)?,
                Step::Call(call) => self.call(compiled, call, &mut env, bindings)?,
                Step::Cond(cond) => self.cond(compiled, cond, &mut env, bindings)?,
                Step::Scan(scan) => self.scan(compiled, scan, &mut env, bindings)?,
            }
            if let (Some(profile), Some(start)) = (&self.profile, start) {
                match step {
                    Step::Launch(launch) => profile.add(&program.kernels[launch.kernel].name, start),
                    Step::Pack(pack) => profile.add(&pack.to, start),
                    Step::Call(_) | Step::Cond(_) | Step::Scan(_) => {}
                }
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
        for fact in kernel.attrs.iter().filter(|a| &*a.name == "require").flat_map(|a| &a.args) {
            if eval(fact, &symbol)? < 0 {
                return Err(Diagnostic::new("symbol", format!("kernel `{}` requires `{fact}` >= 0", kernel.name)));
            }
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
        self.run_items(code, &buffers, &symbols, items).map_err(|outside| {
            let check = code.checks.get(outside.check);
            let argument = check.and_then(|c| launch.arguments.get(c.argument?));
            let name = argument.map_or("a buffer", |name| name);
            let extent = check.and_then(|c| eval(&c.extent, &symbol).ok()).unwrap_or(0);
            let message = format!("expected indices in 0..{extent} for `{name}`, found {}", outside.index);
            let d = Diagnostic::new("index-out-of-range", message).note(format!("in kernel `{}`", kernel.name));
            kernel.places.first().map_or_else(|| d.clone(), |p| d.clone().at(p.clone(), "indexed here"))
        })
    }

    /// Runs all items. Errors: the first index outside; which one does not depend on the number of threads.
    fn run_items(&self, code: &CpuKernel, buffers: &[Buffer], symbols: &[i64], items: usize) -> Result<(), Outside> {
        // Threads have ranges in ascending order, so the first failure is that of the lowest thread that has one.
        let failed: Mutex<Option<(usize, Outside)>> = Mutex::new(None);
        let args = Arguments(buffers.iter().map(Buffer::pointer).collect());
        let args = &args;
        self.pool.run(&|thread, threads| {
            let range = share(items, thread, threads);
            if range.is_empty() {
                return;
            }
            // SAFETY: the arguments are live buffers of the sizes that the kernel declares; each grid item writes only
            // its own elements, and each thread has its own scratch.
            let result = unsafe {
                code.call(args.get(), symbols, self.scratch[thread].pointer(), range.start as i64, range.end as i64)
            };
            if let Err(outside) = result {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.is_none_or(|(first, _)| thread < first) {
                    *failed = Some((thread, outside));
                }
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, outside)) => Err(outside),
            None => Ok(()),
        }
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

/// Whether a call with these sizes means something: all symbols have values in their ranges, and the requirements hold.
///
/// Errors: `symbol`.
pub(crate) fn check_sizes(program: &Program, bindings: &Bindings) -> Result<(), Diagnostic> {
    for s in &program.symbols {
        match bindings.get(&s.name) {
            Some(v) if (s.low..=s.high).contains(v) && v % s.step.max(1) == 0 => {}
            Some(v) => {
                let (name, low, high, step) = (&s.name, s.low, s.high, s.step);
                let want = format!("`{name}` must be in {low}..={high} by {step}, found {v}");
                return Err(Diagnostic::new("symbol", want).note(format!("in `@{}`", program.name)));
            }
            None => return Err(Diagnostic::new("symbol", format!("no value for symbol `{}`", s.name))),
        }
    }
    for r in &program.requirements {
        let value = r.size.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
        if value < 0 {
            let mut used = Vec::new();
            r.size.collect_symbols(&mut used);
            let values = used.iter().filter_map(|s| Some(format!("{s} = {}", bindings.get(s)?)));
            let message = format!("{} is `{}`, which must not be negative, found {value}", r.what, r.size);
            let d = Diagnostic::new("symbol", message).note(values.collect::<Vec<_>>().join(", "));
            return Err(r.place.iter().fold(d, |d, p| d.at(p.clone(), "here")));
        }
    }
    Ok(())
}
