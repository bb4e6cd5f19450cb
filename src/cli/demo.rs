//! `tilewright` without a command: a small transformer from the DSL through every stage.

use super::compare::{Rounding, check, verdict, worse};
use super::random::Random;
use crate::compile::{MAX_OPT_LEVEL, Options, compile, lower, lower_gpu};
use crate::models::{Gpt2Config, Outputs, gpt2};
use std::time::{Duration, Instant};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::interp;
use tilewright_ir::kernel::{Program, Step};
use tilewright_ir::types::{Bindings, DType};

/// Prints a line.
macro_rules! say {
    ($($text:tt)*) => { super::print(&(format!($($text)*) + "\n"))? };
}

/// Tokens of the demonstration.
const TOKENS: usize = 16;

pub(super) fn run() -> Result<(), Diagnostic> {
    let config = small();
    say!(
        "A GPT-2 of {} layers, {} wide, from the DSL; sizes `seq` and `past` are symbols.\n",
        config.layers,
        config.width
    );
    let module = gpt2(&config)?;
    say!("--- graph (`tilewright compile FILE --emit graph`)\n");
    super::print(&tilewright_ir::text::print(&module))?;
    let options = Options::host()?;
    savings(&module, &options)?;
    let start = Instant::now();
    let executable = compile(&module, &options)?;
    let compiled = start.elapsed();
    if let Some(kernel) = first_kernel(executable.programs()) {
        say!("--- one kernel of the block (`--emit kernel`)\n\n{}", tilewright_ir::kernel::text::print_kernel(kernel));
    }
    let for_gpu = lower_gpu(&module, &options, "sm_80")?;
    if let Some(kernel) = first_kernel(for_gpu.iter()) {
        say!("--- the same kernel for a GPU (`--emit cuda`)\n\n{}", tilewright_codegen::cuda::emit(kernel)?);
    }
    let bindings = Bindings::from([("seq".into(), TOKENS as i64), ("past".into(), 0)]);
    let inputs = inputs(&module, &bindings)?;
    let start = Instant::now();
    let outputs = executable.run(&inputs, &bindings)?;
    let first = start.elapsed();
    let start = Instant::now();
    executable.run(&inputs, &bindings)?;
    let again = start.elapsed();
    let start = Instant::now();
    let entry = module.entry()?;
    let interpret = |mode, inputs: &[Array]| interp::run(&module, &entry.name, inputs, &bindings, mode);
    let differences = check(&module, &outputs, Some(Rounding::F64), &inputs, interpret)?;
    let interpreted = start.elapsed();
    let error = differences.iter().map(|d| d.error).fold(0.0, worse);
    say!("--- run\n\nlogits {:?}, caches {} tensors", outputs[0].shape(), outputs.len() - 1);
    say!("largest difference from the interpreter, relative to 1 + |x|: {error:.2e}");
    let [compiled, first, again, interpreted] = [compiled, first, again, interpreted].map(milliseconds);
    say!("compiled in {compiled}, first run {first} (packs the weights), next run {again}, interpreter {interpreted}");
    verdict(&differences, &outputs)
}

fn milliseconds(d: Duration) -> String {
    format!("{:.2} ms", d.as_secs_f64() * 1e3)
}

fn small() -> Gpt2Config {
    Gpt2Config {
        layers: 2,
        width: 64,
        heads: 4,
        feed_forward: 256,
        vocabulary: 128,
        context: 64,
        outputs: Outputs { all_logits: true, hidden_states: false, loss: false },
        ..Gpt2Config::small(64)
    }
}

/// What fusion changes: kernels and bytes of intermediate values, level by level.
fn savings(module: &Module, options: &Options) -> Result<(), Diagnostic> {
    say!("\n--- what fusion saves in the block\n");
    say!("opt-level  kernels  intermediate values");
    for opt_level in 0..=MAX_OPT_LEVEL {
        let programs = lower(module, &Options { opt_level, ..options.clone() })?;
        let Some(block) = programs.iter().find(|p| &*p.name == "block") else { continue };
        let launches = block.steps.iter().filter(|s| matches!(s, Step::Launch(_))).count();
        let stored = block.work.iter().filter(|b| b.alias_of.is_none()).count();
        say!("{opt_level:>9}  {launches:>7}  {stored:>19}");
    }
    say!("");
    Ok(())
}

fn first_kernel<'a>(programs: impl Iterator<Item = &'a Program>) -> Option<&'a tilewright_ir::kernel::Kernel> {
    let block = programs.into_iter().find(|p| &*p.name == "block")?;
    // The first kernel of the block is its first norm.
    block.kernels.first()
}

fn inputs(module: &Module, bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
    let mut random = Random::new(42);
    let mut out = Vec::new();
    for p in &module.entry()?.params {
        let shape = p.ty.concrete(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
        out.push(if p.ty.dtype == DType::I64 {
            let ids: Vec<i64> = (0..shape.iter().product::<usize>()).map(|i| (i * 37 % 128) as i64).collect();
            Array::from_i64(&shape, &ids)?
        } else {
            random.array(&p.ty, &shape, None)?
        });
    }
    Ok(out)
}
