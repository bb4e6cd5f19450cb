//! Running compiled programs on the CPU.

mod control;
mod pack;
mod profile;
mod run;

pub use profile::{Name, Profile};
pub(crate) use run::check_sizes;

use crate::buffer::{Buffer, Memory};
use crate::plan::{Extent, Layout, Layouts, Plan, plan_programs};
use crate::threads::Pool;
use indexmap::IndexMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tilewright_codegen::cpu::clif::{CpuKernel, CpuModule, compile};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::Program;
use tilewright_ir::types::{Bindings, Dim};

/// A program with its machine code.
struct Compiled {
    program: Program,
    kernels: Vec<CpuKernel>,
}

/// What is asked before a run, with the values of the entry's symbols; its error is that of the run.
pub type RunCheck = Arc<dyn Fn(&Bindings) -> Result<(), Diagnostic> + Send + Sync>;

/// Compiled programs, ready to run. The entry is `main`, or the last program.
pub struct Executable {
    programs: IndexMap<Arc<str>, Compiled>,
    entry: usize,
    /// Owns the machine code that `programs` points into.
    _code: CpuModule,
    pool: Pool,
    /// One scratch area per thread.
    scratch: Vec<Memory>,
    /// Where the buffers of a run lie; locked while one goes on.
    arena: Mutex<Option<Memory>>,
    /// Memory of the last results, by number.
    spare: Mutex<Vec<Option<Arc<Memory>>>>,
    plans: Vec<Plan>,
    layouts: Mutex<Layouts>,
    packed: Mutex<BTreeMap<pack::PackKey, (Buffer, Buffer)>>,
    constants: Vec<Vec<Buffer>>,
    profile: Option<Profile>,
    check: Option<RunCheck>,
}

impl Executable {
    /// Compiles every kernel of `programs` for `isa`.
    ///
    /// Errors: those of the emitter; `empty-module`; `out-of-memory`.
    pub fn compile(programs: Vec<Program>, isa: Isa, threads: usize) -> Result<Executable, Diagnostic> {
        let plans = plan_programs(&programs)?;
        let all: Vec<&tilewright_ir::kernel::Kernel> = programs.iter().flat_map(|p| &p.kernels).collect();
        let (code, compiled) = compile(&all, isa)?;
        let bytes = compiled.iter().map(|k| k.scratch_bytes).max().unwrap_or(0);
        let mut compiled = compiled.into_iter();
        let mut constants = Vec::new();
        let mut named = IndexMap::new();
        for program in programs {
            let kernels: Vec<CpuKernel> = compiled.by_ref().take(program.kernels.len()).collect();
            let of = |(_, a): &(Arc<str>, Array)| Buffer::Shared(a.bytes().clone());
            constants.push(program.constants.iter().map(of).collect());
            named.insert(program.name.clone(), Compiled { program, kernels });
        }
        let last = named.len().checked_sub(1);
        let entry =
            named.get_index_of("main").or(last).ok_or_else(|| Diagnostic::new("empty-module", "no function"))?;
        let pool = Pool::new(threads);
        let scratch = (0..pool.threads()).map(|_| Memory::zeroed(bytes)).collect::<Result<_, _>>()?;
        let (arena, layouts, packed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Executable {
            programs: named,
            entry,
            _code: code,
            pool,
            scratch,
            arena,
            spare: Mutex::default(),
            plans,
            layouts,
            packed,
            constants,
            profile: None,
            check: None,
        })
    }

    /// Asks `check` before every run from now on.
    pub fn check_runs(&mut self, check: RunCheck) {
        self.check = Some(check);
    }

    /// Counts the time of every step from now on.
    pub fn enable_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// The times so far, if they are counted.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Memory plans, in the order of [`Executable::programs`].
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// Bytes of the arena of a run, an expression in the entry's symbols: everything but parameters, results, constants
    /// and the panels of weights.
    pub fn peak_bytes(&self) -> &Extent {
        &self.plans[self.entry].peak
    }

    /// What [`Executable::peak_bytes`] never exceeds for symbols in their ranges; `None` if that is beyond 63 bits.
    pub fn peak_bound(&self) -> Option<i64> {
        self.peak_bytes().bound(&self.program().symbols)
    }

    /// Bytes of the arena for the sizes of a call. Errors: `symbol`, `dim-overflow`.
    pub fn peak_at(&self, bindings: &Bindings) -> Result<usize, Diagnostic> {
        Ok(self.layout(self.entry, bindings)?.peak)
    }

    fn layout(&self, index: usize, bindings: &Bindings) -> Result<Arc<Layout>, Diagnostic> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner).get(&self.plans, index, bindings)
    }

    /// The entry program.
    pub fn program(&self) -> &Program {
        &self.programs[self.entry].program
    }

    /// All programs in order.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.values().map(|c| &c.program)
    }

    /// Runs the entry on arrays: dtypes and shapes are checked, symbols that appear alone in a shape are bound by it,
    /// `bindings` gives the others. Donated inputs are copied here; use [`Executable::run_buffers`] to give them away.
    ///
    /// Errors: `input-count`, `input-type`, `symbol`, `out-of-memory`; those of [`Executable::check_runs`].
    pub fn run(&self, inputs: &[Array], bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
        let bindings = self.bind(inputs, bindings)?;
        let mut buffers = Vec::new();
        for (p, a) in self.program().params.iter().zip(inputs) {
            buffers.push(if p.role == Role::Donated { self.copy_in(a)? } else { self.share(a)? });
        }
        let outs = self.run_buffers(&buffers, &bindings)?;
        let types = self.plans[self.entry].results.iter().map(|(_, ty)| ty);
        outs.iter()
            .zip(types)
            .map(|(b, ty)| {
                let shape = ty.concrete(&bindings).map_err(|m| Diagnostic::new("symbol", m))?;
                let bytes = b.bytes(bytes_of(ty, &bindings)?);
                // Nobody else holds this memory: results are new, and what was donated was copied in above.
                Array::new(ty.dtype, &shape, bytes.ok_or_else(|| Diagnostic::bug("a result has no bytes"))?)
            })
            .collect()
    }

    /// A copy of `a` in writable, aligned memory. Errors: `out-of-memory`.
    pub fn copy_in(&self, a: &Array) -> Result<Buffer, Diagnostic> {
        let memory = Memory::zeroed(a.bytes().len())?;
        // SAFETY: the new memory has at least as many bytes and is not shared yet.
        unsafe { std::ptr::copy_nonoverlapping(a.bytes().as_ptr(), memory.pointer(), a.bytes().len()) };
        Ok(Buffer::Owned(Arc::new(memory)))
    }

    /// `a` without a copy where its bytes are aligned for its dtype, else a copy. Errors: `out-of-memory`.
    pub fn share(&self, a: &Array) -> Result<Buffer, Diagnostic> {
        let align = if a.dtype().is_block() { 1 } else { a.dtype().block().1 };
        if (a.bytes().as_ptr() as usize).is_multiple_of(align) && !a.is_empty() {
            return Ok(Buffer::Shared(a.bytes().clone()));
        }
        self.copy_in(a)
    }

    /// Zeroed memory for parameter `index` under `bindings`. Errors: `symbol`, `out-of-memory`.
    pub fn zeroed_param(&self, index: usize, bindings: &Bindings) -> Result<Buffer, Diagnostic> {
        let p = self.program().params.get(index).ok_or_else(|| Diagnostic::new("input-count", "no such parameter"))?;
        Ok(Buffer::Owned(Arc::new(Memory::zeroed(bytes_of(&p.buffer.ty, bindings)?)?)))
    }

    fn bind(&self, inputs: &[Array], given: &Bindings) -> Result<Bindings, Diagnostic> {
        check_inputs(self.program(), inputs, given)
    }
}

fn wrong_input(name: &str, ty: &tilewright_ir::types::Type, a: &Array) -> Diagnostic {
    let found = format!("{}{:?}", a.dtype(), a.shape());
    Diagnostic::new("input-type", format!("input `{name}` must be {ty}, found {found}"))
}

/// Bytes of a tensor under `bindings`. Errors: `symbol`, `dim-overflow`.
pub(crate) fn bytes_of(ty: &tilewright_ir::types::Type, bindings: &Bindings) -> Result<usize, Diagnostic> {
    let shape = ty.concrete(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
    tilewright_ir::array::element_count(&shape)
        .and_then(|n| ty.dtype.bytes(n))
        .ok_or_else(|| Diagnostic::new("dim-overflow", format!("{ty} does not fit in memory")))
}

/// The values of all symbols for inputs of `program`: those given, and those that the shapes tell.
///
/// Errors: `input-count`, `input-type`, `symbol`.
pub(crate) fn check_inputs(program: &Program, inputs: &[Array], given: &Bindings) -> Result<Bindings, Diagnostic> {
    if program.params.len() != inputs.len() {
        let (want, found) = (program.params.len(), inputs.len());
        return Err(Diagnostic::new("input-count", format!("`{}` takes {want} inputs, found {found}", program.name)));
    }
    let mut bindings = given.clone();
    for (p, a) in program.params.iter().zip(inputs) {
        let fits = p.buffer.ty.dtype == a.dtype() && p.buffer.ty.rank() == a.shape().len();
        if !fits {
            return Err(wrong_input(&p.buffer.name, &p.buffer.ty, a));
        }
        for (d, &n) in p.buffer.ty.shape.iter().zip(a.shape()) {
            if let Some(s) = program.symbols.iter().find(|s| *d == Dim::symbol(&s.name)) {
                bindings.entry(s.name.clone()).or_insert(n as i64);
            }
        }
    }
    for (p, a) in program.params.iter().zip(inputs) {
        let shape = p.buffer.ty.concrete(&bindings).map_err(|m| Diagnostic::new("symbol", m))?;
        if shape != a.shape() {
            let mut used = Vec::new();
            p.buffer.ty.shape.iter().for_each(|d| d.collect_symbols(&mut used));
            // Which of them disagree is not known: a size may be the user's, or another input's.
            let known: BTreeSet<String> =
                used.iter().filter_map(|s| Some(format!("{s} = {}", bindings.get(s)?))).collect();
            let known: Vec<String> = known.into_iter().collect();
            let wrong = wrong_input(&p.buffer.name, &p.buffer.ty, a);
            let given = format!("with {}, from what was set or from inputs before it", known.join(", "));
            return Err(if known.is_empty() { wrong } else { wrong.note(given) });
        }
    }
    run::check_sizes(program, &bindings)?;
    Ok(bindings)
}
