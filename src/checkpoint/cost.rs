//! What a program costs once its kernels are chosen: its arena, and what its kernels compute, move and take.

use crate::compile::{Options, lower_knowing};
use crate::snapshot::{attribute, counted};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::{Branch, Program, Step};
use tilewright_ir::types::{Bindings, DType, Dim, Symbol};
use tilewright_passes::Known;
use tilewright_passes::egraph::Device;
use tilewright_runtime::plan::{Layouts, plan_programs};

/// The cost of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes of the planned arena: all but parameters, results and the panels of weights.
    pub peak: usize,
    /// Operations of the kernels: a multiplication with an addition is 2.
    pub flops: f64,
    /// Bytes that kernels read and write.
    pub bytes: f64,
    /// Seconds: of each kernel the longer of computing at the device's rate of products and of moving bytes from and to memory.
    pub seconds: f64,
}

impl Cost {
    /// Lowers the module and plans its memory; nothing runs.
    ///
    /// Errors: those of the compiler; `symbol` for sizes that are missing.
    pub fn of(module: &Module, options: &Options, sizes: &Bindings) -> Result<Cost, Diagnostic> {
        Cost::knowing(module, options, sizes, &Known::default())
    }

    /// [`Cost::of`] for one of several modules that have functions in common, which are lowered once; `known` is for the same options.
    pub(super) fn knowing(
        module: &Module,
        options: &Options,
        sizes: &Bindings,
        known: &Known,
    ) -> Result<Cost, Diagnostic> {
        let programs = lower_knowing(module, options, known)?;
        let target = tilewright_passes::Target { isa: options.isa.name() };
        let device = target.device(&options.lowering())?;
        let entry = &module.entry()?.name;
        let peak = arena(&programs, entry, sizes)?;
        let by_name = programs.iter().map(|p| (&*p.name, p)).collect();
        let mut walk = Walk { by_name, device, known: BTreeMap::new() };
        Ok(Cost { peak, ..walk.program(entry, sizes)? })
    }
}

/// Bytes of the planned arena of the program `entry`. Errors: those of the planner; `symbol` for sizes that are missing.
pub(crate) fn arena(programs: &[Program], entry: &str, sizes: &Bindings) -> Result<usize, Diagnostic> {
    let at = programs.iter().position(|p| *p.name == *entry);
    let at = at.ok_or_else(|| Diagnostic::bug("an entry without a program"))?;
    Ok(Layouts::default().get(&plan_programs(programs)?, at, sizes)?.peak)
}

type Sizes = Vec<(Symbol, i64)>;

struct Walk<'a> {
    by_name: BTreeMap<&'a str, &'a Program>,
    device: Arc<Device>,
    known: BTreeMap<(String, Sizes), Cost>,
}

impl Walk<'_> {
    /// The cost of a run of the program, all that it calls with it; its arena is left out. Calls are at most 64 deep.
    fn program(&mut self, name: &str, sizes: &Bindings) -> Result<Cost, Diagnostic> {
        let key = (name.to_string(), sizes.iter().map(|(s, n)| (s.clone(), *n)).collect());
        if let Some(known) = self.known.get(&key) {
            return Ok(*known);
        }
        let program = *self.by_name.get(name).ok_or_else(|| Diagnostic::bug("a call of no program"))?;
        let mut out = Cost::default();
        for kernel in counted(program, &program.steps).0 {
            let number = |name| attribute(kernel, name).and_then(|d| d.eval(sizes).ok()).unwrap_or(0) as f64;
            let (flops, bytes) = (number("flops"), number("bytes"));
            let seconds = (flops / self.device.matrix.of(DType::F32)).max(bytes / self.device.memory.0);
            out = out.and(&Cost { flops, bytes, seconds: seconds + self.device.launch.0, peak: 0 }, 1.0);
        }
        for step in &program.steps {
            match step {
                Step::Call(call) => {
                    let inner = bound(&call.symbols, sizes)?;
                    out = out.and(&self.program(&call.function, &inner)?, 1.0);
                }
                Step::Scan(scan) => {
                    let length = scan.length.eval(sizes).map_err(|m| Diagnostic::new("symbol", m))?;
                    out = out.and(&self.branch(&scan.body, sizes)?, length as f64);
                }
                // The one that computes more.
                Step::Cond(cond) => {
                    let (yes, no) = (self.branch(&cond.yes, sizes)?, self.branch(&cond.no, sizes)?);
                    out = out.and(if yes.flops > no.flops { &yes } else { &no }, 1.0);
                }
                Step::Launch(_) | Step::Pack(_) => {}
            }
        }
        self.known.insert(key, out);
        Ok(out)
    }

    fn branch(&mut self, branch: &Branch, sizes: &Bindings) -> Result<Cost, Diagnostic> {
        self.program(&branch.function, &bound(&branch.symbols, sizes)?)
    }
}

impl Cost {
    /// The cost of both, the other `times`.
    fn and(&self, other: &Cost, times: f64) -> Cost {
        Cost {
            peak: self.peak,
            flops: self.flops + times * other.flops,
            bytes: self.bytes + times * other.bytes,
            seconds: self.seconds + times * other.seconds,
        }
    }
}

/// Values of the symbols of a callee. Those that no shape tells are the caller's.
fn bound(symbols: &[(Symbol, Dim)], sizes: &Bindings) -> Result<Bindings, Diagnostic> {
    let mut inner = sizes.clone();
    for (symbol, dim) in symbols {
        inner.insert(symbol.clone(), dim.eval(sizes).map_err(|m| Diagnostic::new("symbol", m))?);
    }
    Ok(inner)
}
