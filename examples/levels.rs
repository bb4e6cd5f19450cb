//! What the levels make of GPT-2: kernels and bytes of a block, times of compiling and of running.
//!
//! `cargo run --release --example levels -- 128` for prompts of 128 tokens; a second argument prints the kernels of its
//! level.

use std::time::Instant;
use tilewright::compile::{MAX_OPT_LEVEL, Options, compile, lower};
use tilewright::models::{Gpt2Config, gpt2};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Program, Step, text::print_program};
use tilewright_ir::types::{Bindings, DType};

fn main() -> Result<(), Diagnostic> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<i64>().unwrap_or(128));
    let tokens = args.next().unwrap_or(128);
    let shown = args.next();
    let config = Gpt2Config { layers: 1, vocabulary: 512, ..Gpt2Config::small(1024) };
    let module = gpt2(&config)?;
    let layers = |layers| gpt2(&Gpt2Config { layers, ..Gpt2Config::small(1024) });
    let (twelve, many) = (layers(12)?, layers(48)?);
    let bindings: Bindings = [("seq".into(), tokens), ("past".into(), 0)].into_iter().collect();
    println!("level  kernels  packs  bytes between kernels  compile 12; 48 layers  run of a block, 1 thread");
    for opt_level in 0..=MAX_OPT_LEVEL {
        let options = Options { opt_level, threads: 1, ..Options::host()? };
        let programs = lower(&module, &options)?;
        let Some(block) = programs.iter().find(|p| &*p.name == "block") else { continue };
        if shown == Some(opt_level.into()) {
            println!("{}", print_program(block));
        }
        let count = |launch: bool| block.steps.iter().filter(|s| matches!(s, Step::Launch(_)) == launch).count();
        let compile_time = |module| -> Result<f64, Diagnostic> {
            let start = Instant::now();
            drop(compile(module, &options)?);
            Ok(start.elapsed().as_secs_f64() * 1e3)
        };
        let (twelve, many) = (compile_time(&twelve)?, compile_time(&many)?);
        let run = time(&module, &options, &bindings)?;
        let (kernels, packs, bytes) = (count(true), count(false), bytes(block, &bindings));
        println!("{opt_level:>5}  {kernels:>7}  {packs:>5}  {bytes:>21}  {twelve:>9.1}; {many:>6.1} ms  {run:>24.1?}");
    }
    Ok(())
}

/// Bytes of buffers that are neither parameters nor constants nor packed weights.
fn bytes(block: &Program, bindings: &Bindings) -> i64 {
    let own = block.work.iter().filter(|b| {
        let packed = block.steps.iter().any(|s| matches!(s, Step::Pack(p) if p.to == b.name));
        b.alias_of.is_none() && !packed && !block.constants.iter().any(|c| c.0 == b.name)
    });
    let size = |ty: &tilewright_ir::types::Type| {
        ty.shape.iter().map(|d| d.eval(bindings).unwrap_or(0)).product::<i64>() * ty.dtype.block().1 as i64
    };
    own.map(|b| size(&b.ty)).sum()
}

/// The best of several runs.
fn time(
    module: &tilewright_ir::graph::Module,
    options: &Options,
    bindings: &Bindings,
) -> Result<std::time::Duration, Diagnostic> {
    let executable = compile(module, options)?;
    let mut inputs = Vec::new();
    for (k, p) in module.entry()?.params.iter().enumerate() {
        let shape: Vec<usize> =
            p.ty.shape.iter().map(|d| d.eval(bindings).map_or(0, |n| usize::try_from(n).unwrap_or(0))).collect();
        let n: usize = shape.iter().product();
        let value = |i: usize| (((i * 37 + k * 11) % 101) as f32 - 50.0) / 500.0;
        inputs.push(if p.ty.dtype == DType::I64 {
            Array::from_i64(&shape, &(0..n).map(|i| (i % 500) as i64).collect::<Vec<_>>())?
        } else {
            Array::from_f32(&shape, &(0..n).map(value).collect::<Vec<_>>())?
        });
    }
    let mut best = std::time::Duration::MAX;
    for _ in 0..6 {
        let start = Instant::now();
        executable.run(&inputs, bindings)?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}
