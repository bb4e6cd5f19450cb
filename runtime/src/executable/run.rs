//! Steps in order, on the memory of the plan: launches over the pool, packing, calls.

use super::{Compiled, Executable, bytes_of};
use crate::buffer::{Buffer, Memory};
use crate::plan::{Home, Layout, Plan, Returned, StepHomes};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tilewright_codegen::cpu::clif::{CpuKernel, Outside, eval};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::{Kernel, Launch, Program, Step};
use tilewright_ir::types::{Bindings, Symbol};

/// Memory of a parameter, given by the caller.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) pointer: *mut u8,
    /// Who keeps it alive, if it is (a part of) an input or a constant.
    pub(super) owner: Option<&'a Buffer>,
}

/// A program that runs.
pub(super) struct Frame<'a> {
    pub(super) index: usize,
    pub(super) bindings: &'a Bindings,
    pub(super) params: &'a [Given<'a>],
    /// Where results are wanted; null where nobody wants one.
    pub(super) results: &'a [*mut u8],
    /// First byte of its arena, which has at least `layout.peak` bytes.
    arena: *mut u8,
    layout: Arc<Layout>,
    /// Panels that have been packed so far.
    pub(super) panels: Vec<*mut u8>,
}

impl Frame<'_> {
    /// The first byte of what lies at `home`.
    pub(super) fn pointer(&self, executable: &Executable, home: Home) -> Result<*mut u8, Diagnostic> {
        let found = match home {
            Home::Param(i) => self.params.get(i).map(|p| p.pointer),
            Home::Result(k) => self.results.get(k).copied(),
            Home::Constant(i) => executable.constants[self.index].get(i).map(Buffer::pointer),
            Home::Panels(i) => self.panels.get(i).copied(),
            // Inside of the arena: the layout ends every slot before `peak`.
            Home::Slot(s) => self.layout.offsets.get(s).map(|&offset| self.arena.wrapping_add(offset)),
        };
        found.filter(|p| !p.is_null()).ok_or_else(|| Diagnostic::bug(format!("no memory for {home:?}")))
    }

    /// Memory at `home` for a callee.
    pub(super) fn given<'b>(&'b self, executable: &'b Executable, home: Home) -> Result<Given<'b>, Diagnostic> {
        let owner = match home {
            Home::Param(i) => self.params.get(i).and_then(|p| p.owner),
            Home::Constant(i) => executable.constants[self.index].get(i),
            Home::Result(_) | Home::Panels(_) | Home::Slot(_) => None,
        };
        Ok(Given { pointer: self.pointer(executable, home)?, owner })
    }
}

impl Executable {
    /// Runs the entry on buffers in parameter order; donated ones may come back as results. Results that do not are
    /// memory that nobody else holds; it is used again once the caller has dropped it. Runs on several threads wait for each other.
    ///
    /// Dtypes and shapes are not checked here, only that no buffer is too small: use [`Executable::run`] for input from
    /// outside.
    ///
    /// Errors: `input-count`, `input-type`, `symbol`, `index-out-of-range`, `dim-overflow`, `out-of-memory`; those of
    /// [`Executable::check_runs`].
    pub fn run_buffers(&self, inputs: &[Buffer], bindings: &Bindings) -> Result<Vec<Buffer>, Diagnostic> {
        let plan = &self.plans[self.entry];
        check_sizes(self.program(), bindings)?;
        check_buffers(self.program(), inputs, bindings)?;
        self.check.as_ref().map_or(Ok(()), |check| check(bindings))?;
        let layout = self.layout(self.entry, bindings)?;
        let mut results = Vec::with_capacity(plan.results.len());
        for (i, (returned, ty)) in plan.results.iter().enumerate() {
            results.push(match returned {
                Returned::Param(i) => inputs[*i].clone(),
                Returned::Written | Returned::Copied(_) => {
                    Buffer::Owned(self.result_memory(i, bytes_of(ty, bindings)?)?)
                }
            });
        }
        let given: Vec<Given<'_>> = inputs.iter().map(|b| Given { pointer: b.pointer(), owner: Some(b) }).collect();
        let wanted: Vec<*mut u8> = results.iter().map(Buffer::pointer).collect();
        // Held to the end: the arena and the scratch of the threads serve one run at a time.
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.reserve(&mut arena, layout.peak, bindings)?;
        self.run_program(self.entry, &given, &wanted, start, bindings)?;
        Ok(results)
    }

    /// Memory for result `index`: that of an earlier run if nobody holds it any more, since fresh pages cost as much as
    /// a short kernel does.
    fn result_memory(&self, index: usize, bytes: usize) -> Result<Arc<Memory>, Diagnostic> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() <= index {
            spare.resize(index + 1, None);
        }
        if let Some(mut memory) = spare[index].take()
            && Arc::get_mut(&mut memory).is_some()
            && (bytes..=bytes.saturating_mul(2)).contains(&memory.len())
        {
            spare[index] = Some(memory.clone());
            return Ok(memory);
        }
        let memory = Arc::new(Memory::zeroed(bytes)?);
        spare[index] = Some(memory.clone());
        Ok(memory)
    }

    /// The arena's first byte, after it has grown to `peak` bytes if it was smaller.
    fn reserve(&self, arena: &mut Option<Memory>, peak: usize, bindings: &Bindings) -> Result<*mut u8, Diagnostic> {
        let old = arena.as_ref().map_or(0, Memory::len);
        if old < peak || arena.is_none() {
            // A decoder needs a little more with every token: growing by half keeps most pages between runs.
            let most = self.peak_bound().and_then(|b| usize::try_from(b).ok()).unwrap_or(usize::MAX);
            let wanted = peak.max((old + old / 2).min(most));
            *arena = None;
            let memory = Memory::zeroed(wanted).or_else(|_| Memory::zeroed(peak)).map_err(|d| {
                let sizes: Vec<String> = bindings.iter().map(|(s, v)| format!("{s} = {v}")).collect();
                let what =
                    format!("the buffers of `{}` need {peak} bytes at {}", self.program().name, sizes.join(", "));
                d.note(what).note(format!("that is {}", self.peak_bytes()))
            })?;
            *arena = Some(memory);
        }
        arena.as_ref().map(Memory::pointer).ok_or_else(|| Diagnostic::bug("no arena"))
    }

    /// Runs a program with its arena at `arena`, which has room for its layout.
    pub(super) fn run_program(
        &self,
        index: usize,
        params: &[Given<'_>],
        results: &[*mut u8],
        arena: *mut u8,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let (compiled, plan) = (&self.programs[index], &self.plans[index]);
        let layout = self.layout(index, bindings)?;
        let panels = vec![std::ptr::null_mut(); plan.panels];
        let mut frame = Frame { index, bindings, params, results, arena, layout, panels };
        for (step, homes) in compiled.program.steps.iter().zip(&plan.steps) {
            if !takes_place(step, bindings)? {
                continue;
            }
            let start = self.profile.as_ref().map(|_| Instant::now());
            match step {
                Step::Launch(launch) => self.launch(compiled, launch, homes, &frame)?,
                Step::Pack(pack) => self.pack(pack, homes, &mut frame)?,
                Step::Call(call) => self.call(call, homes, &frame)?,
                Step::Cond(cond) => self.cond(cond, homes, &frame)?,
                Step::Scan(scan) => self.scan(scan, homes, &frame)?,
            }
            if let (Some(profile), Some(start)) = (&self.profile, start) {
                let name = &compiled.program.name;
                match step {
                    Step::Launch(launch) => profile.add(name, &compiled.program.kernels[launch.kernel].name, start),
                    Step::Pack(pack) => profile.add(name, &pack.to, start),
                    Step::Call(_) | Step::Cond(_) | Step::Scan(_) => {}
                }
            }
        }
        self.hand_over(plan, &frame)
    }

    /// Copies results that are not where they are wanted.
    fn hand_over(&self, plan: &Plan, frame: &Frame<'_>) -> Result<(), Diagnostic> {
        for ((returned, ty), &to) in plan.results.iter().zip(frame.results) {
            let from = match returned {
                Returned::Written => continue,
                Returned::Param(i) => Home::Param(*i),
                Returned::Copied(home) => *home,
            };
            let from = frame.pointer(self, from)?;
            if !to.is_null() && to != from {
                // SAFETY: both have room for a tensor of this type, and `to` is the result's alone.
                unsafe { std::ptr::copy(from, to, bytes_of(ty, frame.bindings)?) };
            }
        }
        Ok(())
    }

    fn launch(
        &self,
        compiled: &Compiled,
        launch: &Launch,
        homes: &StepHomes,
        frame: &Frame<'_>,
    ) -> Result<(), Diagnostic> {
        let bindings = frame.bindings;
        let code = &compiled.kernels[launch.kernel];
        let kernel = &compiled.program.kernels[launch.kernel];
        let symbol = |name: &str| bindings.get(name).copied();
        for fact in kernel.attrs.iter().filter(|a| &*a.name == "require").flat_map(|a| &a.args) {
            if eval(fact, &symbol)? < 0 {
                return Err(Diagnostic::new("symbol", format!("kernel `{}` requires `{fact}` >= 0", kernel.name)));
            }
        }
        let pointers = homes.arguments.iter().map(|&h| frame.pointer(self, h)).collect::<Result<_, _>>()?;
        let symbols = symbol_values(kernel, bindings)?;
        let mut items: usize = 1;
        for extent in &code.grid {
            let n = eval(extent, &symbol)?;
            let n = usize::try_from(n).map_err(|_| {
                let message =
                    format!("kernel `{}` has `{extent}` items along an axis of its grid, that is {n}", kernel.name);
                Diagnostic::new("grid-size", message)
            })?;
            items = items.checked_mul(n).ok_or_else(|| Diagnostic::new("dim-overflow", "the grid is too large"))?;
        }
        self.run_items(code, &Arguments(pointers), &symbols, items).map_err(|outside| {
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
    fn run_items(&self, code: &CpuKernel, args: &Arguments, symbols: &[i64], items: usize) -> Result<(), Outside> {
        // Ranges end at their first failure, and all are computed, so the lowest one that fails has the first of all.
        let failed: Mutex<Option<(usize, Outside)>> = Mutex::new(None);
        self.pool.run(items, &|thread, range| {
            // SAFETY: the arguments are live memory of the sizes that the kernel declares; each grid item writes only
            // its own elements, and a thread number, whose scratch this is, is in one call at a time.
            let result = unsafe {
                code.call(args.get(), symbols, self.scratch[thread].pointer(), range.start as i64, range.end as i64)
            };
            if let Err(outside) = result {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.is_none_or(|(first, _)| range.start < first) {
                    *failed = Some((range.start, outside));
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

/// Whether a call with these sizes means something: all symbols have values in their ranges, and the requirements hold.
///
/// Errors: `symbol`.
pub(crate) fn check_sizes(program: &Program, bindings: &Bindings) -> Result<(), Diagnostic> {
    for s in &program.symbols {
        match bindings.get(&s.name) {
            Some(v) if (s.low..=s.high).contains(v) && v % s.step.max(1) == 0 => {}
            Some(v) => {
                let (name, low, high, step) = (&s.name, s.low, s.high, s.step);
                let by = if step > 1 { format!(" by {step}") } else { String::new() };
                let want = format!("`{name}` must be in {low}..={high}{by}, found {v}");
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
            let values: Vec<String> = used.iter().filter_map(|s| Some(format!("{s} = {}", bindings.get(s)?))).collect();
            return Err(r.broken(value).note(values.join(", ")));
        }
    }
    Ok(())
}

/// Whether the buffers have the bytes that parameters need, and may be written where they are donated.
fn check_buffers(program: &Program, inputs: &[Buffer], bindings: &Bindings) -> Result<(), Diagnostic> {
    if inputs.len() != program.params.len() {
        return Err(Diagnostic::new("input-count", format!("`{}` got {} inputs", program.name, inputs.len())));
    }
    for (p, buffer) in program.params.iter().zip(inputs) {
        let (name, ty) = (&p.buffer.name, &p.buffer.ty);
        let (need, found) = (bytes_of(ty, bindings)?, buffer.len());
        if found < need {
            let message = format!("input `{name}` needs {need} bytes for {ty}, found {found}");
            return Err(Diagnostic::new("input-type", message));
        }
        if p.role == Role::Donated && !matches!(buffer, Buffer::Owned(_)) {
            let message = format!("input `{name}` is donated: it must be memory that may be written");
            return Err(Diagnostic::new("input-type", message));
        }
    }
    Ok(())
}

/// Whether a step is one of the calls with these sizes.
fn takes_place(step: &Step, bindings: &Bindings) -> Result<bool, Diagnostic> {
    let when = match step {
        Step::Launch(launch) => &launch.when,
        Step::Pack(pack) => &pack.when,
        Step::Call(_) | Step::Cond(_) | Step::Scan(_) => return Ok(true),
    };
    let Some(condition) = when else { return Ok(true) };
    Ok(eval(condition, &|name: &str| bindings.get(name).copied())? != 0)
}
