//! The one place where a module meets a device.

use super::Options;
use crate::compile::{self, compile};
use std::fmt;
use std::str::FromStr;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::{Bindings, DType};
use tilewright_ir::work::{Work, sizes};
use tilewright_runtime::device::cuda::CudaExecutable;
use tilewright_runtime::executable::Executable;

/// What runs a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The reference interpreter.
    Interpreter,
    /// Machine code on this machine.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

impl Device {
    /// All devices.
    pub const ALL: &'static [Device] = &[Device::Interpreter, Device::Cpu, Device::Cuda];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Device::Interpreter => "interpreter",
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        }
    }

    /// The dtype that cases are run in where none is asked for.
    pub const fn float(self) -> DType {
        match self {
            Device::Interpreter => DType::F64,
            Device::Cpu | Device::Cuda => DType::F32,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Device {
    type Err = String;
    fn from_str(s: &str) -> Result<Device, String> {
        let names: Vec<&str> = Device::ALL.iter().map(|d| d.name()).collect();
        let found = Device::ALL.iter().copied().find(|d| d.name() == s);
        found.ok_or_else(|| format!("unknown device `{s}`, expected one of {}", names.join(" ")))
    }
}

/// The results of the entry function of `module`; `mode` is how the interpreter rounds.
///
/// Errors: those of the device, `no-cuda-driver` among them.
pub fn execute(module: &Module, inputs: &[Array], options: &Options, mode: Mode) -> Result<Vec<Array>, Diagnostic> {
    if options.device == Device::Interpreter {
        return interpret(module, inputs, &Bindings::new(), mode);
    }
    Runner::new(module, options)?.run(inputs)
}

/// A module made ready for a device, to run again and again.
pub enum Runner<'a> {
    /// The interpreter takes the module as it is: levels choose passes, and there is none before it.
    Interpreter(&'a Module),
    /// Compiled for this machine.
    Cpu(Box<Executable>),
    /// Compiled for a GPU.
    Cuda(Box<CudaExecutable>),
}

impl Runner<'_> {
    /// Compiles `module` if the device needs it. Errors: those of the device, `no-cuda-driver` among them.
    pub fn new<'a>(module: &'a Module, options: &Options) -> Result<Runner<'a>, Diagnostic> {
        Ok(match options.device {
            Device::Interpreter => Runner::Interpreter(module),
            Device::Cpu => Runner::Cpu(Box::new(compile(module, &compiling(options)?)?)),
            Device::Cuda => Runner::Cuda(Box::new(compile::compile_cuda(module, &compiling(options)?)?)),
        })
    }

    /// The results of the entry function, whose inputs say all sizes. Errors: those of the device.
    pub fn run(&self, inputs: &[Array]) -> Result<Vec<Array>, Diagnostic> {
        self.run_with(inputs, &Bindings::new())
    }

    /// The results of the entry function; the interpreter rounds results only. Errors: those of the device.
    pub fn run_with(&self, inputs: &[Array], bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
        match self {
            Runner::Interpreter(module) => interpret(module, inputs, bindings, Mode::Meaning),
            Runner::Cpu(executable) => executable.run(inputs, bindings),
            Runner::Cuda(executable) => executable.run(inputs, bindings),
        }
    }
}

/// Runs the entry on the interpreter, if that ends in time. Errors: `too-much-work`; those of the interpreter.
fn interpret(module: &Module, inputs: &[Array], bindings: &Bindings, mode: Mode) -> Result<Vec<Array>, Diagnostic> {
    let entry = module.entry()?;
    let known = sizes(entry, inputs, bindings);
    Work::of(module, &entry.name, &known)?.check(compile::MAX_WORK_INTERPRETED)?;
    interp::run(module, &entry.name, inputs, &known, mode)
}

/// How to compile on this machine. Errors: `cpu-feature`.
pub(super) fn compiling(options: &Options) -> Result<compile::Options, Diagnostic> {
    let host = compile::Options::host()?;
    let threads = options.threads.unwrap_or(host.threads);
    let (opt_level, numerics, max_work) = (options.opt_level, options.numerics, Some(compile::MAX_WORK));
    let rules = options.rules.clone();
    Ok(compile::Options { opt_level, numerics, threads, max_work, rules, ..host })
}
