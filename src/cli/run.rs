//! `tilewright run`: run a graph on random or given inputs.

use crate::compile::{Options, compile};
use crate::formats::op_program::OpProgram;
use std::path::PathBuf;
use std::time::Instant;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::{Bindings, DType};

/// Arguments of `run`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A .tw file, or an op program (.safetensors)
    file: PathBuf,
    /// Inputs by parameter name; those of an op program are in the file. Random where absent
    #[arg(long)]
    inputs: Option<PathBuf>,
    /// Value of a symbol, such as seq=16; may be repeated
    #[arg(long = "set", value_name = "SYMBOL=VALUE")]
    set: Vec<String>,
    /// Where to run
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// 0: each primitive alone; 1: fusion in a fixed order
    #[arg(long, default_value_t = crate::compile::DEFAULT_OPT_LEVEL, value_parser = clap::value_parser!(u8).range(0..=i64::from(crate::compile::MAX_OPT_LEVEL)))]
    opt_level: u8,
    /// Threads; all cores if absent
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Seed of random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compare with the interpreter
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Device {
    Interpreter,
    Cpu,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.file)?;
    tilewright_ir::verify::verify(&module)?;
    let entry = module.entry()?;
    let bindings = symbols(entry, &args.set)?;
    let inputs = if args.file.extension().is_some_and(|e| e == "safetensors") {
        let file = crate::formats::Safetensors::open(&args.file)?;
        OpProgram::from_file(&file, DType::F32)?.read_inputs(&file)?
    } else {
        inputs(entry, args, &bindings)?
    };
    let mut options = Options { opt_level: args.opt_level, ..Options::host()? };
    options.threads = args.threads.map_or(options.threads, usize::from);
    let interpreted = |module: &Module| interp::run(module, &entry.name, &inputs, &bindings, Mode::Meaning);
    let outputs = match args.device {
        Device::Interpreter => interpreted(&module)?,
        Device::Cpu => {
            let start = Instant::now();
            let executable = compile(&module, &options)?;
            let compiled = start.elapsed();
            let start = Instant::now();
            let outputs = executable.run(&inputs, &bindings)?;
            println!("compiled in {:.1} ms, ran in {:.3} ms", ms(compiled), ms(start.elapsed()));
            outputs
        }
    };
    for (i, out) in outputs.iter().enumerate() {
        println!("result {i}: {}{:?} {}", out.dtype(), out.shape(), summary(out));
    }
    if args.check {
        let worst = largest_error(&outputs, &interpreted(&module)?);
        println!("largest difference from the interpreter, relative to 1 + |x|: {worst:.3e}");
        if worst > 1e-4 || worst.is_nan() {
            return Err(Diagnostic::new("check", format!("the result differs from the interpreter by {worst:.3e}")));
        }
    }
    Ok(())
}

fn ms(d: std::time::Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// The first elements, for the eye.
fn summary(a: &Array) -> String {
    let values = a.to_f64().unwrap_or_default();
    let shown: Vec<String> = values.iter().take(6).map(|x| format!("{x:.6}")).collect();
    format!("[{}{}]", shown.join(", "), if values.len() > 6 { ", ..." } else { "" })
}

/// Largest |a - b| / (1 + |b|); NaN equals NaN, and equal infinities are equal.
pub(super) fn largest_error(a: &[Array], b: &[Array]) -> f64 {
    let mut worst = 0.0f64;
    for (x, y) in a.iter().zip(b) {
        for (x, y) in x.to_f64().unwrap_or_default().into_iter().zip(y.to_f64().unwrap_or_default()) {
            if x == y || (x.is_nan() && y.is_nan()) {
                continue;
            }
            let error = (x - y).abs() / (1.0 + y.abs());
            worst = if error.is_nan() { f64::NAN } else { worst.max(error) };
        }
    }
    worst
}

fn symbols(entry: &Function, set: &[String]) -> Result<Bindings, Diagnostic> {
    let mut bindings = Bindings::new();
    for text in set {
        let usage = || Diagnostic::new("symbol", format!("expected SYMBOL=VALUE, found `{text}`"));
        let (name, value) = text.split_once('=').ok_or_else(usage)?;
        let decl = entry.symbols.iter().find(|s| &*s.name == name);
        let decl = decl.ok_or_else(|| Diagnostic::new("symbol", format!("the graph has no symbol `{name}`")))?;
        let value: i64 = value.parse().map_err(|_| usage())?;
        if !(decl.low..=decl.high).contains(&value) || value % decl.step.max(1) != 0 {
            let want = format!("`{name}` must be in {}..={} by {}, found {value}", decl.low, decl.high, decl.step);
            return Err(Diagnostic::new("symbol", want));
        }
        bindings.insert(decl.name.clone(), value);
    }
    for s in &entry.symbols {
        // A small size inside the range, unless the user chose one.
        let step = s.step.max(1);
        let small = (4.max(s.low).min(s.high) / step * step).max(s.low);
        bindings.entry(s.name.clone()).or_insert(small);
    }
    Ok(bindings)
}

fn inputs(entry: &Function, args: &Args, bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
    let file = args.inputs.as_deref().map(crate::formats::safetensors::Safetensors::open).transpose()?;
    let mut random = Random(args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    entry
        .params
        .iter()
        .map(|p| match &file {
            Some(f) => f.tensor(&p.name),
            None => {
                let shape = p.ty.concrete(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
                random.array(&p.ty, &shape)
            }
        })
        .collect()
}

/// A small xorshift generator: inputs depend on the seed alone.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Floats in -1..1, integers in 0..2, bools. Errors: `array-size` for sizes beyond memory, block encodings.
    pub fn array(&mut self, ty: &tilewright_ir::types::Type, shape: &[usize]) -> Result<Array, Diagnostic> {
        let count = tilewright_ir::array::element_count(shape).filter(|&n| n <= 1 << 30);
        let count = count.ok_or_else(|| Diagnostic::new("array-size", format!("{ty} is too large for random data")))?;
        let floats: Vec<f64> = (0..count).map(|_| (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect();
        match ty.dtype {
            DType::F64 => Array::from_f64(shape, &floats),
            DType::F32 => Array::from_f32(shape, &floats.iter().map(|&x| x as f32).collect::<Vec<_>>()),
            DType::I64 => Array::from_i64(shape, &floats.iter().map(|&x| i64::from(x > 0.0)).collect::<Vec<_>>()),
            DType::Bool => Array::from_bool(shape, &floats.iter().map(|&x| x > 0.0).collect::<Vec<_>>()),
            other => Err(Diagnostic::new("input-type", format!("no random data for {other}; give --inputs"))),
        }
    }
}
