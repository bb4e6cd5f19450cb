//! The CUDA C of random graphs: there is text, or an error that names what GPUs do not have; NVRTC compiles a part of them.

use super::machine::Built;
use tilewright::compile::{Options, lower_gpu};
use tilewright_codegen::cuda::emit_programs;
use tilewright_ir::text::print;
use tilewright_runtime::device::cuda::Nvrtc;

/// The targets take turns.
const TARGETS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];
/// What a graph may need that GPUs do not have here.
const REFUSALS: [&str; 3] = ["cuda-unsupported", "device-unsupported", "cuda-shared-memory"];
/// One of so many texts is compiled.
const SAMPLE: u64 = 12;

/// Compiles texts where NVRTC is installed.
pub struct Device {
    nvrtc: Option<Nvrtc>,
    /// Texts, those compiled, and graphs that were refused.
    pub counts: [std::cell::Cell<usize>; 3],
}

impl Device {
    pub fn new() -> Device {
        let nvrtc = Nvrtc::load().map_err(|d| println!("SKIPPED: compiling CUDA C, {}", d.message)).ok();
        Device { nvrtc, counts: Default::default() }
    }

    /// The text of one graph at one level.
    pub fn check(&self, built: &Built, options: &Options, turn: u64) -> Result<(), String> {
        let isa = TARGETS[(turn % 3) as usize];
        let count = |i: usize| self.counts[i].set(self.counts[i].get() + 1);
        let emitted = lower_gpu(&built.module, options, isa).and_then(|programs| emit_programs(&programs));
        let emitted = match emitted {
            Ok(emitted) => emitted,
            Err(d) if REFUSALS.contains(&d.code) => {
                count(2);
                return Ok(());
            }
            Err(d) => return Err(format!("{isa}: {d}")),
        };
        count(0);
        if let (Some(nvrtc), 0) = (&self.nvrtc, turn % SAMPLE) {
            count(1);
            let done = nvrtc.compile("random", &emitted.text, isa);
            done.map_err(|d| format!("{isa}: {d}\n{}\n{}", print(&built.module), emitted.text))?;
        }
        Ok(())
    }
}
