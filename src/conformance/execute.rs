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

/// The results of the entry function of `module`.
///
/// Errors: those of the device, `no-cuda-driver` among them.
pub fn execute(module: &Module, inputs: &[Array], options: &Options) -> Result<Vec<Array>, Diagnostic> {
    match options.device {
        // The interpreter takes the module as it is: levels choose passes, and there is none before it.
        Device::Interpreter => {
            let entry = module.entry()?.name.clone();
            interp::run(module, &entry, inputs, &Bindings::new(), Mode::Meaning)
        }
        Device::Cpu => {
            let host = compile::Options::host()?;
            let threads = options.threads.unwrap_or(host.threads);
            let host = compile::Options { opt_level: options.opt_level, numerics: options.numerics, threads, ..host };
            compile(module, &host)?.run(inputs, &Bindings::new())
        }
        Device::Cuda => compile::compile_cuda(module, options.opt_level)?.run(inputs, &Bindings::new()),
    }
}
