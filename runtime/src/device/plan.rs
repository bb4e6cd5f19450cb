//! The launches of programs for given sizes, as one list over numbered buffers: calls are inlined, aliases resolved, grids
//! and sizes evaluated. What runs a program on a device, or on a stand-in for one, has only to follow it.

use crate::executable::{bytes_of, check_sizes};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_codegen::cpu::clif::eval;
use tilewright_codegen::cuda::grids;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::{CallStep, Launch, Program, Step};
use tilewright_ir::types::{Bindings, Type};

/// Number of a buffer.
pub type BufferId = usize;

/// What a buffer has before the first launch.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The input of this number.
    Input(usize),
    /// This constant.
    Constant(Array),
    /// Nothing.
    Work,
}

/// A buffer of a run.
#[derive(Clone, Debug)]
pub struct PlannedBuffer {
    /// Size.
    pub bytes: usize,
    /// Where its first contents come from.
    pub origin: Origin,
    /// The last step that uses it; results are used by nobody, and kept.
    pub last_use: Option<usize>,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedStep {
    /// A launch of kernel `kernel` of program `program`.
    Launch {
        /// Index of the program.
        program: usize,
        /// Index of its kernel.
        kernel: usize,
        /// Buffers in argument order.
        arguments: Vec<BufferId>,
        /// Values of the kernel's symbols, in order.
        symbols: Vec<i64>,
        /// Blocks of the grid; 0 is no launch.
        blocks: u64,
    },
    /// Copies a whole buffer.
    Copy {
        /// Source.
        from: BufferId,
        /// Destination, of the same size.
        to: BufferId,
    },
}

/// A run of a program.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Buffers by number.
    pub buffers: Vec<PlannedBuffer>,
    /// Steps in order.
    pub steps: Vec<PlannedStep>,
    /// Buffers of the results with their types.
    pub results: Vec<(BufferId, Type)>,
}

type Environment = BTreeMap<Arc<str>, BufferId>;

struct Planner<'p> {
    programs: &'p [Program],
    plan: Plan,
}

impl Plan {
    /// The run of `programs[entry]` with values for all its symbols.
    ///
    /// Errors: `symbol`, `dim-overflow`; `device-unsupported` for steps that need the host while they run.
    pub fn new(programs: &[Program], entry: usize, bindings: &Bindings) -> Result<Plan, Diagnostic> {
        let mut planner = Planner { programs, plan: Plan::default() };
        let program = programs.get(entry).ok_or_else(|| Diagnostic::bug("no such program"))?;
        let mut arguments = Vec::new();
        for (i, p) in program.params.iter().enumerate() {
            arguments.push(planner.buffer(&p.buffer.ty, Origin::Input(i), bindings)?);
        }
        let results = planner.run(entry, &arguments, bindings)?;
        for (name, id) in program.results.iter().zip(results) {
            let ty = type_of(program, name)?;
            planner.plan.results.push((id, ty));
        }
        let mut plan = planner.plan;
        for (number, step) in plan.steps.iter().enumerate() {
            let used = match step {
                PlannedStep::Launch { arguments, .. } => arguments.clone(),
                PlannedStep::Copy { from, to } => vec![*from, *to],
            };
            used.into_iter().for_each(|id| plan.buffers[id].last_use = Some(number));
        }
        for (id, _) in &plan.results {
            plan.buffers[*id].last_use = None;
        }
        Ok(plan)
    }
}

fn type_of(program: &Program, name: &str) -> Result<Type, Diagnostic> {
    let found = program.params.iter().map(|p| &p.buffer).chain(&program.work).find(|b| &*b.name == name);
    found.map(|b| b.ty.clone()).ok_or_else(|| Diagnostic::bug(format!("no buffer `{name}` in `{}`", program.name)))
}

impl Planner<'_> {
    fn buffer(&mut self, ty: &Type, origin: Origin, bindings: &Bindings) -> Result<BufferId, Diagnostic> {
        let bytes = bytes_of(ty, bindings)?;
        self.plan.buffers.push(PlannedBuffer { bytes, origin, last_use: None });
        Ok(self.plan.buffers.len() - 1)
    }

    /// Plans a program; gives the buffers of its results.
    fn run(&mut self, index: usize, arguments: &[BufferId], bindings: &Bindings) -> Result<Vec<BufferId>, Diagnostic> {
        let programs = self.programs;
        let program = programs.get(index).ok_or_else(|| Diagnostic::bug("no such program"))?;
        check_sizes(program, bindings)?;
        let names = program.params.iter().map(|p| p.buffer.name.clone());
        let mut env: Environment = names.zip(arguments.iter().copied()).collect();
        for step in &program.steps {
            match step {
                Step::Launch(l) => self.launch(index, program, l, &mut env, bindings)?,
                Step::Call(c) => self.call(program, c, &mut env, bindings)?,
                Step::Cond(_) | Step::Scan(_) | Step::Pack(_) => {
                    let text = tilewright_ir::kernel::text::print_step(program, step);
                    let message = format!("programs on a device have no step `{}`", text.trim());
                    return Err(Diagnostic::new("device-unsupported", message));
                }
            }
        }
        program.results.iter().map(|name| self.named(program, name, &mut env, bindings)).collect()
    }

    /// The buffer of a name, made at its first use.
    fn named(
        &mut self,
        program: &Program,
        name: &Arc<str>,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<BufferId, Diagnostic> {
        if let Some(&id) = env.get(name) {
            return Ok(id);
        }
        let work = program.work.iter().find(|b| b.name == *name);
        let work = work.ok_or_else(|| Diagnostic::bug(format!("no buffer `{name}` in `{}`", program.name)))?;
        let constant = program.constants.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone());
        let id = match (&work.alias_of, constant) {
            (Some(of), _) => self.named(program, of, env, bindings)?,
            (None, Some(array)) => self.buffer(&work.ty, Origin::Constant(array), bindings)?,
            (None, None) => self.buffer(&work.ty, Origin::Work, bindings)?,
        };
        env.insert(name.clone(), id);
        Ok(id)
    }

    fn launch(
        &mut self,
        index: usize,
        program: &Program,
        launch: &Launch,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let symbol = |name: &str| bindings.get(name).copied();
        if let Some(condition) = &launch.when
            && eval(condition, &symbol)? == 0
        {
            return Ok(());
        }
        let kernel = program
            .kernels
            .get(launch.kernel)
            .ok_or_else(|| Diagnostic::bug("a launch of a kernel that is not there"))?;
        let arguments =
            launch.arguments.iter().map(|n| self.named(program, n, env, bindings)).collect::<Result<_, _>>()?;
        let missing = |name: &str| Diagnostic::new("symbol", format!("no value for symbol `{name}`"));
        let values = kernel.symbols.iter().map(|s| symbol(&s.name).ok_or_else(|| missing(&s.name)));
        let symbols = values.collect::<Result<_, _>>()?;
        let large = || Diagnostic::new("dim-overflow", "the grid is too large");
        let mut blocks: u64 = 0;
        for extents in grids(kernel) {
            let mut points: u64 = 1;
            for extent in extents {
                let n = u64::try_from(eval(&extent, &symbol)?).unwrap_or(0);
                points = points.checked_mul(n).ok_or_else(large)?;
            }
            blocks = blocks.checked_add(points).ok_or_else(large)?;
        }
        self.plan.steps.push(PlannedStep::Launch { program: index, kernel: launch.kernel, arguments, symbols, blocks });
        Ok(())
    }

    fn call(
        &mut self,
        program: &Program,
        call: &CallStep,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let found = self.programs.iter().position(|p| p.name == call.function);
        let callee = found.ok_or_else(|| Diagnostic::bug(format!("no program `{}`", call.function)))?;
        let arguments = call.arguments.iter().map(|n| self.named(program, n, env, bindings));
        let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
        // Symbols that no shape tells are the caller's.
        let mut inner = bindings.clone();
        for (symbol, dim) in &call.symbols {
            inner.insert(symbol.clone(), dim.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?);
        }
        let results = self.run(callee, &arguments, &inner)?;
        // A result has memory of its own, or that of a donated argument.
        let params = &self.programs[callee].params;
        let kept = arguments.iter().zip(params).filter(|(_, p)| p.role != Role::Donated);
        let mut taken: Vec<BufferId> = kept.map(|(id, _)| *id).collect();
        for (name, mut id) in call.results.iter().zip(results) {
            let source = &self.plan.buffers[id];
            if taken.contains(&id) || matches!(source.origin, Origin::Constant(_)) {
                let copy = PlannedBuffer { bytes: source.bytes, origin: Origin::Work, last_use: None };
                self.plan.buffers.push(copy);
                let to = self.plan.buffers.len() - 1;
                self.plan.steps.push(PlannedStep::Copy { from: id, to });
                id = to;
            }
            taken.push(id);
            env.insert(name.clone(), id);
        }
        Ok(())
    }
}
