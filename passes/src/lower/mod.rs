//! Functions to programs: every value that is stored becomes a buffer, its region a kernel and a step.

mod buffers;
mod control;
mod identity;
#[cfg(feature = "ilp")]
mod integer;
mod known;
mod launch;
mod level2;
mod lookups;
mod once;
mod one_hot;
mod options;
mod parts;
mod prepared;
mod rewrite;
mod slices;
#[cfg(test)]
mod tests;
mod wide;

pub(crate) use control::depth;
#[cfg(feature = "ilp")]
pub use integer::integer;
pub use known::{Known, lower_module_knowing};
pub use launch::lower_region;
pub use level2::{Explained, ExplainedKernel, Priced, PricedKernel, Second, priced};
pub use options::Options;

use crate::egraph::{self, Device, Numerics};
use crate::fuse;
use crate::region::{Builder, Source};
use crate::schedule;
use crate::tuned::{Tunable, Tuned};
use buffers::{Buffers, Kept};
use prepared::{prepared, prepared_saying};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tilewright_ir::device::ukernel::included;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops::cost;
use tilewright_ir::graph::{Function, Module, NodeId, Value};
use tilewright_ir::infer::require::requirements;
use tilewright_ir::kernel::{Kernel, KernelAttr, Program, ProgramParam, Step, expr::Ident};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::{Bindings, Dim, Type};

/// What machine programs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Instruction set of the micro-kernels, of [`tilewright_ir::device::ukernel`]; or a GPU: `sm_80`, `sm_89` or `sm_90a`.
    pub isa: &'static str,
}

impl Target {
    /// The description that kernels are priced by: the one that `options` have, or the shipped one.
    ///
    /// Errors: `device-target` for a description whose templates are those of another kind of target.
    pub fn device(&self, options: &Options) -> Result<Arc<Device>, Diagnostic> {
        let shipped = match self.isa {
            "sm_80" => Device::named("a100"),
            "sm_89" => Device::named("l4"),
            "sm_90a" => Device::named("h100"),
            isa => Device::named(&format!("cpu-{isa}")),
        }?;
        let Some(device) = &options.device else { return Ok(Arc::new(shipped)) };
        // Templates are looked for again when kernels are made: the price must know the same ones.
        if device.capabilities != shipped.capabilities {
            let message =
                format!("the description `{}` has not the capabilities of code for {}", device.name, self.isa);
            let expected = format!("expected those of `{}`: {:?}", shipped.name, shipped.capabilities);
            return Err(Diagnostic::new("device-target", message).note(expected));
        }
        Ok(device.clone())
    }

    /// The target with the products that `options` allow: those of bf16 pairs take what is below the least normal f32 for
    /// 0, and add in another order.
    fn allowed(&self, options: &Options) -> Target {
        let reorders = options.opt_level >= 2 && options.numerics >= Numerics::Reassociate;
        match included(self.isa).last() {
            Some(isa) if !reorders => Target { isa },
            Some(_) | None => *self,
        }
    }

    /// Whether kernels are for the blocks of a GPU.
    pub fn is_gpu(&self) -> bool {
        self.isa.starts_with("sm_")
    }
}

/// The kernels that level 2 chooses for each function with their prices, as text: what the stage `regions` shows.
///
/// Errors: those of [`lower_module`].
pub fn regions(module: &Module, options: impl Into<Options>, target: &Target) -> Result<String, Diagnostic> {
    depth(module)?;
    let options = options.into();
    let target = &target.allowed(&options);
    let mut out = String::new();
    for f in module.functions.values() {
        let narrow = prepared(module, f, &options)?;
        let text = level2::text(narrow.as_ref().unwrap_or(f), &options, target)?;
        out += &format!("func @{}: {text}\n", f.name);
    }
    Ok(out)
}

/// What level 2 leaves of each function, as functions of the Graph IR with notes where kernels begin: what the stage
/// `optimized` shows.
///
/// Errors: those of [`lower_module`].
pub fn optimized(
    module: &Module,
    options: impl Into<Options>,
    target: &Target,
) -> Result<Vec<egraph::export::Exported>, Diagnostic> {
    depth(module)?;
    let options = options.into();
    let target = &target.allowed(&options);
    let each = |f: &Function| {
        let narrow = prepared(module, f, &options)?;
        level2::optimized(module, narrow.as_ref().unwrap_or(f), &options, target)
    };
    module.functions.values().map(each).collect()
}

/// The rules that fire in each function at level 2, in module order. They depend on [`Options::numerics`], not on a target.
///
/// Errors: those of [`lower_module`].
pub fn fired(module: &Module, options: impl Into<Options>) -> Result<Vec<Vec<egraph::Fired>>, Diagnostic> {
    let options = options.into();
    let each = |f: &Function| level2::fired(prepared(module, f, &options)?.as_ref().unwrap_or(f), &options);
    module.functions.values().map(each).collect()
}

/// One program per function, in module order.
///
/// Errors: `call-depth` for too many calls inside one another; broken invariants, with [`Options::verify`] kernels that are
/// not proved to stay inside their buffers among them.
pub fn lower_module(module: &Module, options: impl Into<Options>, target: &Target) -> Result<Vec<Program>, Diagnostic> {
    lowered(module, &options.into(), target, None)
}

fn lowered(
    module: &Module,
    options: &Options,
    target: &Target,
    known: Option<&Known>,
) -> Result<Vec<Program>, Diagnostic> {
    let target = &target.allowed(options);
    depth(module)?;
    let lower = |f: &Function| match prepared(module, f, options)? {
        Some(narrow) => lower_function(module, &narrow, options, target),
        None => lower_function(module, f, options, target),
    };
    let each = |f: &Function| known.map_or_else(|| lower(f), |known| known.program(module, f, || lower(f)));
    let programs: Vec<Program> = module.functions.values().map(each).collect::<Result<_, _>>()?;
    if options.verify {
        programs.iter().try_for_each(proved)?;
    }
    Ok(programs)
}

/// What is free about the kernels of each function, in the order in which they are made; kernels for GPUs leave nothing open.
///
/// Errors: those of [`lower_module`].
pub fn tunables(module: &Module, options: impl Into<Options>, target: &Target) -> Result<Vec<Tunable>, Diagnostic> {
    let options = options.into();
    let target = &target.allowed(&options);
    depth(module)?;
    let mut all = Vec::new();
    for f in module.functions.values() {
        let narrow = prepared(module, f, &options)?;
        all.extend(lower_seen(module, narrow.as_ref().unwrap_or(f), &options, target, Some(Vec::new()))?.1);
    }
    Ok(all)
}

/// Errors: `bug` with what the verifier says of the first kernel that it refuses.
fn proved(program: &Program) -> Result<(), Diagnostic> {
    for kernel in &program.kernels {
        tilewright_ir::kernel::verify::verify(kernel).map_err(|refused| {
            let (name, of) = (&kernel.name, &program.name);
            let mut d = Diagnostic::bug(format!("kernel `{name}` of `{of}` is not proved: {}", refused.message));
            d.labels = refused.labels;
            refused.notes.into_iter().fold(d.note(refused.code), Diagnostic::note)
        })?;
    }
    Ok(())
}

struct Lower<'m> {
    module: &'m Module,
    f: &'m Function,
    target: &'m Target,
    buffers: Buffers,
    stored: Vec<bool>,
    /// Nodes with the operands that they may overwrite, where the order of steps is not that of the nodes.
    in_place: Option<BTreeSet<(NodeId, usize)>>,
    kernels: Vec<Kernel>,
    steps: Vec<Step>,
    warnings: Vec<Diagnostic>,
    /// What the steps were made for, in their order.
    origins: Vec<(Origin, Range<usize>)>,
    /// Schedules that were measured to be best.
    tuned: Option<Arc<Tuned>>,
    /// The regions so far with what is free about them, where somebody asks.
    seen: Option<Vec<Tunable>>,
}

/// What steps of a program were made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A node of the function.
    Node(NodeId),
    /// A kernel that level 2 chose, by its number.
    Cut(usize),
    /// A value that is written out as a result.
    Root(Value),
}

/// A program that knows what its steps are for.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The program.
    pub program: Program,
    /// What its steps were made for, in their order.
    pub origins: Vec<(Origin, Range<usize>)>,
}

/// Why each function has the kernels that level 2 chooses; for one beyond a limit of that level, the warning that says so.
/// `likely` are sizes for which kernels are chosen and priced, where they are not the usual ones.
///
/// Errors: those of [`lower_module`]; those of [`egraph::explain::chains`].
pub fn explained(
    module: &Module,
    options: impl Into<Options>,
    target: &Target,
    likely: &Bindings,
) -> Result<Vec<Result<level2::Explained, Diagnostic>>, Diagnostic> {
    depth(module)?;
    let options = options.into();
    let target = &target.allowed(&options);
    let each = |f: &Function| {
        let (narrow, notes) = prepared_saying(module, f, &options)?;
        let mut found = level2::Explained::of(module, narrow.as_ref().unwrap_or(f), &options, target, likely)?;
        if let Ok(explained) = &mut found {
            explained.notes.extend(notes);
        }
        Ok(found)
    };
    module.functions.values().map(each).collect()
}

fn lower_function(module: &Module, f: &Function, options: &Options, target: &Target) -> Result<Program, Diagnostic> {
    Ok(lower_seen(module, f, options, target, None)?.0)
}

/// The program of a function; with `seen`, its regions too.
fn lower_seen(
    module: &Module,
    f: &Function,
    options: &Options,
    target: &Target,
    seen: Option<Vec<Tunable>>,
) -> Result<(Program, Vec<Tunable>), Diagnostic> {
    let empty = || Lower { tuned: options.tuned.clone(), seen: seen.clone(), ..Lower::empty(module, f, target) };
    let mut lower = empty();
    let beyond = if options.opt_level < 2 { None } else { level2::lower(&mut lower, options)? };
    if options.opt_level < 2 || beyond.is_some() {
        lower = empty();
        lower.nodes(options)?;
        lower.warnings.extend(beyond);
    }
    let seen = lower.seen.take().unwrap_or_default();
    Ok((lower.finish()?, seen))
}

impl<'m> Lower<'m> {
    fn empty(module: &'m Module, f: &'m Function, target: &'m Target) -> Lower<'m> {
        let (buffers, stored, kernels, steps) = (Buffers::new(f), Vec::new(), Vec::new(), Vec::new());
        let (warnings, origins) = (Vec::new(), Vec::new());
        let (in_place, tuned, seen) = (None, None, None);
        Lower { module, f, target, buffers, stored, in_place, kernels, steps, warnings, origins, tuned, seen }
    }

    /// The program of what was lowered.
    fn finish(self) -> Result<Program, Diagnostic> {
        let (f, lower) = (self.f, self);
        let results = f.results.iter().map(|&r| lower.buffers.name(r)).collect::<Result<Vec<_>, _>>()?;
        let params = f
            .params
            .iter()
            .enumerate()
            .map(|(i, p)| Ok(ProgramParam { buffer: lower.buffers.param(f, i)?, role: p.role }))
            .collect::<Result<Vec<_>, Diagnostic>>()?;
        let Lower { buffers, mut kernels, steps, warnings, .. } = lower;
        let requirements = requirements(f)?;
        if !requirements.is_empty() {
            let args: Vec<_> = requirements.iter().map(|r| schedule::dim(&r.size)).collect();
            kernels.iter_mut().for_each(|k| k.attrs.push(KernelAttr { name: "require".into(), args: args.clone() }));
        }
        kernels.iter_mut().for_each(schedule::apart);
        let name: Ident = f.name.clone();
        let (work, constants) = (buffers.work, buffers.constants);
        let symbols = f.symbols.clone();
        Ok(Program { name, symbols, requirements, params, results, work, constants, kernels, steps, warnings })
    }
}

impl Lower<'_> {
    fn value(i: usize, index: usize) -> Value {
        Value { node: NodeId(u32::try_from(i).unwrap_or(u32::MAX)), index: u32::try_from(index).unwrap_or(u32::MAX) }
    }

    /// Lowers every node that a fixed order of fusion stores.
    fn nodes(&mut self, options: &Options) -> Result<(), Diagnostic> {
        self.stored = fuse::stored(self.f, options.opt_level, options.numerics == Numerics::Exact)?;
        let live = self.f.live();
        for (i, &needed) in live.iter().enumerate() {
            if needed && self.stored[i] {
                let origin = Origin::Node(Lower::value(i, 0).node);
                self.made(origin, |lower| lower.node(i))?;
            }
        }
        Ok(())
    }

    /// Does `work`, whose steps are made for `origin`.
    fn made(
        &mut self,
        origin: Origin,
        work: impl FnOnce(&mut Self) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let first = self.steps.len();
        work(self)?;
        self.origins.push((origin, first..self.steps.len()));
        Ok(())
    }

    /// The steps of a stored node.
    fn node(&mut self, i: usize) -> Result<(), Diagnostic> {
        let (f, first) = (self.f, self.kernels.len());
        self.steps_of(i)?;
        let node = &f.nodes[i];
        let args: Vec<&Type> = node.args.iter().map(|&a| f.ty(a)).collect();
        schedule::with_cost(&mut self.kernels[first..], cost(&node.op, &args, &node.types).as_ref());
        Ok(())
    }

    fn steps_of(&mut self, i: usize) -> Result<(), Diagnostic> {
        let f = self.f;
        let node = &f.nodes[i];
        let out = Lower::value(i, 0);
        let kernel_name = format!("{}_{i}", node.op.info().name);
        match &node.op {
            GraphOp::Parameter { .. } => Ok(()),
            GraphOp::Constant { value } => self.buffers.constant(out, &value.0),
            GraphOp::Reshape { .. } => match self.buffers.name(node.args[0]) {
                Ok(from) => {
                    self.buffers.work(out, &node.types[0], Some(from));
                    Ok(())
                }
                Err(_inlined) => self.region(i, &kernel_name),
            },
            GraphOp::Call { function } => self.call(i, function),
            GraphOp::Cond { yes, no } => self.cond(i, yes, no),
            GraphOp::Scan { body, carries, length } => self.scan(i, body, *carries, length),
            GraphOp::Cumsum { axis } => {
                let cumsum = if self.target.is_gpu() { schedule::gpu::cumsum } else { schedule::cumsum };
                let kernel = cumsum(&kernel_name, &f.symbols, &node.types[0], *axis, &node.places);
                self.launch(kernel, &node.args, out)
            }
            GraphOp::ScatterAdd { axis } => {
                let types = [f.ty(node.args[0]), f.ty(node.args[1]), f.ty(node.args[2])];
                let kernel = schedule::scatter_add(&kernel_name, &f.symbols, types, *axis, &node.places);
                self.launch(kernel, &node.args, out)
            }
            GraphOp::UpdateSlice { start } => self.update(i, start, &kernel_name),
            GraphOp::Iota { .. }
            | GraphOp::Size { .. }
            | GraphOp::Map { .. }
            | GraphOp::Reduce { .. }
            | GraphOp::Argmax { .. }
            | GraphOp::Argmin { .. }
            | GraphOp::Dot { .. }
            | GraphOp::Broadcast { .. }
            | GraphOp::Transpose { .. }
            | GraphOp::Slice { .. }
            | GraphOp::Pad { .. }
            | GraphOp::Concat { .. }
            | GraphOp::Flip { .. }
            | GraphOp::Take { .. }
            | GraphOp::TakeAlong { .. } => self.region(i, &kernel_name),
        }
    }

    fn region(&mut self, i: usize, kernel_name: &str) -> Result<(), Diagnostic> {
        let out = Lower::value(i, 0);
        let buffers = &self.buffers;
        let source = |v: Value| match buffers.name(v) {
            Ok(name) => Source::Buffer(name),
            Err(_) => Source::Inline,
        };
        let region = Builder::region(self.f, &source, out)?;
        self.buffers.work(out, &self.f.nodes[i].types[0], None);
        let name = self.buffers.name(out)?;
        self.launch_region(&region, kernel_name, vec![name])
    }

    /// Whether node `i` may write into the memory of its operand `operand`; a warning if that is donated and it may not.
    fn may_overwrite(&mut self, i: usize, operand: usize) -> bool {
        let f = self.f;
        let kept = match &self.in_place {
            Some(known) if known.contains(&(Lower::value(i, 0).node, operand)) => return true,
            Some(_) => Kept { why: "its old value is needed elsewhere", reader: None },
            None => match self.buffers.kept(f, &self.stored, operand, i) {
                None => return true,
                Some(kept) => kept,
            },
        };
        if let Some(param) = self.buffers.donated(f, f.nodes[i].args[operand]) {
            let message = format!("`{param}` is donated to `{}`, but must be copied: {}", f.name, kept.why);
            let warning = Diagnostic::warning("donated-copy", message);
            let warning = f.nodes[i].places.iter().fold(warning, |d, p| d.at(p.clone(), "copied for this"));
            let reader = kept.reader.map_or(&[][..], |n| &f.nodes[n].places);
            self.warnings.push(reader.iter().fold(warning, |d, p| d.at(p.clone(), "still read here")));
        }
        false
    }

    fn push(&mut self, kernel: Kernel, arguments: Vec<Ident>) {
        let kernel = if self.target.is_gpu() { schedule::gpu::for_team(kernel, self.target.isa) } else { kernel };
        self.push_when(kernel, arguments, None);
    }

    /// Launches `kernel` on `args`, then `out` in a buffer of its own.
    fn launch(&mut self, kernel: Kernel, args: &[Value], out: Value) -> Result<(), Diagnostic> {
        let mut arguments = args.iter().map(|&a| self.buffers.name(a)).collect::<Result<Vec<_>, _>>()?;
        self.buffers.work(out, self.f.ty(out), None);
        arguments.push(self.buffers.name(out)?);
        self.push(kernel, arguments);
        Ok(())
    }

    fn update(&mut self, i: usize, start: &[Dim], kernel_name: &str) -> Result<(), Diagnostic> {
        let f = self.f;
        let node = &f.nodes[i];
        let out = Lower::value(i, 0);
        let (x, update) = (node.args[0], node.args[1]);
        let kernel =
            schedule::update_slice(kernel_name, &f.symbols, &node.types[0], f.ty(update), start, &node.places)?;
        if self.may_overwrite(i, 0) {
            let from = self.buffers.name(x)?;
            self.buffers.work(out, &node.types[0], Some(from));
        } else {
            self.buffers.work(out, &node.types[0], None);
            let to = self.buffers.name(out)?;
            self.copy(x, to, &format!("{kernel_name}_copy"))?;
        }
        let arguments = vec![self.buffers.name(update)?, self.buffers.name(out)?];
        self.push(kernel, arguments);
        Ok(())
    }

    /// Copies `x` into the buffer `to` of its type.
    fn copy(&mut self, x: Value, to: Ident, kernel_name: &str) -> Result<(), Diagnostic> {
        let name = self.buffers.name(x)?;
        let source = |v: Value| if v == x { Source::Buffer(name.clone()) } else { Source::Inline };
        let region = Builder::copy(self.f, &source, x)?;
        self.launch_region(&region, kernel_name, vec![to])
    }
}
