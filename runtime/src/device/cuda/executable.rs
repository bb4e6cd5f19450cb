//! Whole programs on a device: one cubin for all kernels, then the steps of a [`Plan`] in order.

use super::launch::{Argument, Cuda, LoadedKernel};
use super::nvrtc::Nvrtc;
use crate::device::plan::{BufferId, Origin, Plan, PlannedStep};
use crate::executable::{RunCheck, check_inputs};
use cudarc::driver::CudaSlice;
use std::time::{Duration, Instant};
use tilewright_codegen::cuda::emit_programs;
use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::Program;
use tilewright_ir::types::Bindings;

/// Programs that were lowered for a GPU, loaded on one. The entry is `main`, or the last program.
pub struct CudaExecutable {
    cuda: Cuda,
    programs: Vec<Program>,
    entry: usize,
    kernels: Vec<Vec<LoadedKernel>>,
    check: Option<RunCheck>,
}

impl CudaExecutable {
    /// Compiles the programs for the device and loads them.
    ///
    /// # Errors
    /// Those of the emitter, the compiler and the driver; `empty-module`.
    pub fn compile(programs: Vec<Program>, cuda: Cuda, nvrtc: &Nvrtc) -> Result<CudaExecutable, Diagnostic> {
        let main = programs.iter().position(|p| &*p.name == "main").or(programs.len().checked_sub(1));
        let entry = main.ok_or_else(|| Diagnostic::new("empty-module", "no function"))?;
        let emitted = emit_programs(&programs)?;
        let compiled = nvrtc.compile("programs", &emitted.text, &cuda.target()?)?;
        let mut loaded = cuda.load(&compiled.cubin, emitted.kernels.iter().flatten())?.into_iter();
        let kernels = emitted.kernels.iter().map(|k| loaded.by_ref().take(k.len()).collect()).collect();
        Ok(CudaExecutable { cuda, programs, entry, kernels, check: None })
    }

    /// Asks `check` before every run from now on.
    pub fn check_runs(&mut self, check: RunCheck) {
        self.check = Some(check);
    }

    /// The entry program.
    pub fn program(&self) -> &Program {
        &self.programs[self.entry]
    }

    /// Runs the entry on arrays: dtypes and shapes are checked, symbols that appear alone in a shape are bound by it,
    /// `bindings` gives the others. Inputs are copied to the device, results back.
    ///
    /// # Errors
    /// `input-count`, `input-type`, `symbol`, `device-unsupported`; `cuda-failed` for what the driver reports, an index
    /// outside of its tensor among it; those of [`CudaExecutable::check_runs`].
    pub fn run(&self, inputs: &[Array], bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
        Ok(self.run_timed(inputs, bindings)?.0)
    }

    /// As [`CudaExecutable::run`], with the time from the first launch to the end of the last one: copies of inputs and
    /// results are not in it, allocations are.
    ///
    /// # Errors
    /// As [`CudaExecutable::run`].
    pub fn run_timed(&self, inputs: &[Array], bindings: &Bindings) -> Result<(Vec<Array>, Duration), Diagnostic> {
        let bindings = check_inputs(self.program(), inputs, bindings)?;
        self.check.as_ref().map_or(Ok(()), |check| check(&bindings))?;
        let plan = Plan::new(&self.programs, self.entry, &bindings)?;
        let mut memory: Vec<Option<CudaSlice<u8>>> = vec![None; plan.buffers.len()];
        for (id, buffer) in plan.buffers.iter().enumerate() {
            if !matches!(buffer.origin, Origin::Work) {
                self.ensure(&plan, inputs, id, &mut memory)?;
            }
        }
        self.cuda.synchronize()?;
        let start = Instant::now();
        for (number, step) in plan.steps.iter().enumerate() {
            let used = match step {
                PlannedStep::Copy { from, to } => {
                    self.ensure(&plan, inputs, *from, &mut memory)?;
                    let copy = self.cuda.duplicate(here(&memory, *from)?)?;
                    memory[*to] = Some(copy);
                    vec![*from, *to]
                }
                PlannedStep::Launch { program, kernel, arguments, symbols, blocks } => {
                    for &id in arguments {
                        self.ensure(&plan, inputs, id, &mut memory)?;
                    }
                    let mut values = Vec::with_capacity(arguments.len() + symbols.len());
                    for &id in arguments {
                        values.push(Argument::Buffer(here(&memory, id)?));
                    }
                    values.extend(symbols.iter().map(|&n| Argument::Symbol(n)));
                    let kernel = self.kernels.get(*program).and_then(|k| k.get(*kernel));
                    let kernel = kernel.ok_or_else(|| Diagnostic::bug("a launch of a kernel that is not loaded"))?;
                    // SAFETY: the plan has the kernel's arguments in order, buffers have the sizes that the program
                    // declares for these symbols, and nobody else has them.
                    unsafe { self.cuda.launch(kernel, *blocks, &values)? };
                    arguments.clone()
                }
            };
            // Memory goes back in the order of the stream.
            for id in used {
                if plan.buffers[id].last_use == Some(number) {
                    memory[id] = None;
                }
            }
        }
        self.cuda.synchronize()?;
        let time = start.elapsed();
        let mut results = Vec::with_capacity(plan.results.len());
        for (id, ty) in &plan.results {
            self.ensure(&plan, inputs, *id, &mut memory)?;
            let shape = ty.concrete(&bindings).map_err(|m| Diagnostic::new("symbol", m))?;
            let bytes = element_count(&shape).and_then(|n| ty.dtype.bytes(n));
            let bytes = bytes.ok_or_else(|| Diagnostic::new("dim-overflow", format!("{ty} does not fit in memory")))?;
            let mut found = self.cuda.download(here(&memory, *id)?)?;
            found.truncate(bytes);
            results.push(Array::new(ty.dtype, &shape, Bytes::new(found))?);
        }
        Ok((results, time))
    }

    /// Gives a buffer its memory and first contents, if it has none yet.
    fn ensure(
        &self,
        plan: &Plan,
        inputs: &[Array],
        id: BufferId,
        memory: &mut [Option<CudaSlice<u8>>],
    ) -> Result<(), Diagnostic> {
        if memory[id].is_some() {
            return Ok(());
        }
        let planned = &plan.buffers[id];
        let contents = match &planned.origin {
            Origin::Input(i) => inputs.get(*i).map(Array::bytes),
            Origin::Constant(array) => Some(array.bytes()),
            Origin::Work => None,
        };
        memory[id] = Some(match contents {
            Some(bytes) if !bytes.is_empty() => self.cuda.upload(bytes)?,
            // The driver has no buffers of no bytes.
            Some(_) | None => self.cuda.zeros(planned.bytes.max(1))?,
        });
        Ok(())
    }
}

fn here(memory: &[Option<CudaSlice<u8>>], id: BufferId) -> Result<&CudaSlice<u8>, Diagnostic> {
    memory.get(id).and_then(Option::as_ref).ok_or_else(|| Diagnostic::bug("a buffer without memory"))
}
