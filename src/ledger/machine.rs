//! The machine that a ledger predicts: a description, and the target whose templates it has.

use crate::compile::{Options, Target};
use std::sync::Arc;
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::text::nearest;
use tilewright_passes::egraph::Device;

/// What kernels are made and priced for.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its rates.
    pub device: Arc<Device>,
    /// What code would be made for.
    pub target: Target,
    /// How it is compiled.
    pub options: Options,
}

impl Machine {
    /// This machine, as the shipped description of its instruction set has it. Errors: `cpu-feature`.
    pub fn host() -> Result<Machine, Diagnostic> {
        let options = Options::host()?;
        let target = tilewright_passes::Target { isa: options.isa.name() };
        let device = target.device(&options.lowering())?;
        Ok(Machine { device, target: Target::Cpu, options })
    }

    /// A shipped description. Errors: `unknown-device`, with the nearest name.
    pub fn named(name: &str) -> Result<Machine, Diagnostic> {
        let device = Device::named(name).map_err(|d| match nearest(name, Device::names()) {
            Some(near) => d.note(format!("the nearest is `{near}`")),
            None => d,
        })?;
        Machine::of(device)
    }

    /// A description: for the target whose shipped description has its name, else for one whose capabilities it has.
    ///
    /// Errors: `device-target` where there is none; `cpu-feature`.
    pub fn of(device: Device) -> Result<Machine, Diagnostic> {
        let host = Options::host()?;
        let cpu = |isa: Isa| (Target::Cpu, Options { isa, ..host.clone() });
        let gpu = |target: Target| (target, host.clone());
        // Of names none of which begins another before it.
        let cpus = Isa::ALL.iter().copied().filter(|isa| device.name.ends_with(isa.name())).chain([host.isa]);
        let gpus = [Target::Sm90a, Target::Sm89, Target::Sm80].map(gpu);
        let all: Vec<(Target, Options)> = cpus.map(cpu).chain(gpus).collect();
        let shipped = |(target, options): &(Target, Options)| {
            let isa = target.gpu().unwrap_or(options.isa.name());
            tilewright_passes::Target { isa }.device(&Options { device: None, ..options.clone() }.lowering())
        };
        let mut fitting = None;
        for one in all {
            let shipped = shipped(&one)?;
            if shipped.name == device.name || (fitting.is_none() && shipped.capabilities == device.capabilities) {
                let found = shipped.name == device.name;
                fitting = Some(one);
                if found {
                    break;
                }
            }
        }
        let (target, options) = fitting.ok_or_else(|| {
            let message = format!("the description `{}` has the capabilities of no target", device.name);
            Diagnostic::new("device-target", message)
        })?;
        let device = Arc::new(device);
        Ok(Machine { options: Options { device: Some(device.clone()), ..options }, device, target })
    }

    /// The target of passes.
    pub(super) fn isa(&self) -> tilewright_passes::Target {
        tilewright_passes::Target { isa: self.target.gpu().unwrap_or(self.options.isa.name()) }
    }
}
