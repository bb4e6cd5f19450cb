//! Inputs of `run` and `bisect`: from files, or random ones, and the sizes that go with them.

use super::indices::limits;
use super::progress::stage;
use super::random::Random;
use crate::formats::Safetensors;
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::types::{Bindings, SymbolDecl};
use tilewright_ir::work::sizes;

/// A program and what it runs on, on the command line.
#[derive(clap::Args)]
pub(super) struct InputArgs {
    /// A .tw file, or an op program or an ONNX graph in a .safetensors file
    pub(super) file: PathBuf,
    /// Inputs by parameter name, and nothing else; those of a .safetensors file are in it. If absent, random ones: floats in -1..1, indices
    /// inside their axes, other integers of at most 16
    #[arg(long)]
    pub(super) inputs: Option<PathBuf>,
    /// Value of a symbol, such as seq=16; may be repeated. A symbol that neither this nor an input says is 4, or what its
    /// range has next to that
    #[arg(long = "set", value_name = "SYMBOL=VALUE")]
    pub(super) set: Vec<String>,
    /// Seed of random inputs
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
}

/// How many names an error lists.
const LISTED: usize = 8;

/// The inputs in files: those of a program in a .safetensors file, else those that the user names; none if neither.
///
/// Errors: `inputs` for tensors that no parameter takes; those of the readers.
pub(super) fn given(args: &InputArgs, entry: &Function) -> Result<Option<Vec<Array>>, Diagnostic> {
    if args.file.extension().is_some_and(|e| e == "safetensors") {
        if args.inputs.is_some() {
            let message = format!("the inputs of {} are in it, expected no --inputs", args.file.display());
            return Err(Diagnostic::new("inputs", message));
        }
        return super::program_inputs(&Safetensors::open(&args.file)?).map(Some);
    }
    let Some(path) = &args.inputs else { return Ok(None) };
    let file = Safetensors::open(path)?;
    let tensors = entry.params.iter().map(|p| file.tensor(&p.name)).collect::<Result<Vec<Array>, _>>()?;
    let others: Vec<&str> = file.names().filter(|name| entry.params.iter().all(|p| &*p.name != *name)).collect();
    if others.is_empty() {
        return Ok(Some(tensors));
    }
    let message = format!("{} has tensors that no parameter takes: {}", path.display(), listed(&others));
    let parameters: Vec<&str> = entry.params.iter().map(|p| &*p.name).collect();
    let parameters = if parameters.is_empty() { "no parameters".into() } else { listed(&parameters) };
    Err(Diagnostic::new("inputs", message).note(format!("`@{}` takes {parameters}", entry.name)))
}

/// `a`, `b`, and how many more.
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(LISTED).map(|n| crate::formats::shown(n)).collect();
    let more = names.len().saturating_sub(LISTED);
    format!("{}{}", shown.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() })
}

/// What `--set` says of declared symbols. Errors: `symbol` for what is no size of one of them.
fn set(texts: &[String], declared: &[SymbolDecl]) -> Result<Bindings, Diagnostic> {
    let mut bindings = Bindings::new();
    for text in texts {
        let usage = || Diagnostic::new("symbol", format!("expected SYMBOL=VALUE, found `{text}`"));
        let (name, value) = text.split_once('=').ok_or_else(usage)?;
        let mut decls = declared.iter().filter(|s| &*s.name == name).peekable();
        let symbol = decls.peek().map(|d| d.name.clone());
        let symbol = symbol.ok_or_else(|| Diagnostic::new("symbol", format!("the graph has no symbol `{name}`")))?;
        let value: i64 = value.parse().map_err(|d: ParseIntError| match d.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                Diagnostic::new("symbol", format!("`{text}` is beyond 64 bits"))
            }
            _other => usage(),
        })?;
        if let Some(decl) = decls.find(|d| !(d.low..=d.high).contains(&value) || value % d.step.max(1) != 0) {
            let by = if decl.step > 1 { format!(" by {}", decl.step) } else { String::new() };
            let want = format!("`{name}` must be in {}..={}{by}, found {value}", decl.low, decl.high);
            return Err(Diagnostic::new("symbol", want));
        }
        if bindings.insert(symbol, value).is_some() {
            return Err(Diagnostic::new("symbol", format!("`{name}` is set twice")));
        }
    }
    Ok(bindings)
}

/// Values of symbols of any function that the user chose. Errors: `symbol`.
pub(super) fn chosen(texts: &[String], module: &Module) -> Result<Bindings, Diagnostic> {
    let declared: Vec<SymbolDecl> = module.functions.values().flat_map(|f| f.symbols.iter().cloned()).collect();
    set(texts, &declared)
}

/// Values of the symbols of a function: those that the user chose for any function, and small ones for others.
///
/// Errors: `symbol`.
pub(super) fn sizes_of(texts: &[String], module: &Module, f: &Function) -> Result<Bindings, Diagnostic> {
    let mut bindings = chosen(texts, module)?;
    bindings.retain(|name, _| f.symbols.iter().any(|s| s.name == *name));
    small(&mut bindings, f);
    Ok(bindings)
}

/// A small size inside the range for each symbol that has none.
fn small(bindings: &mut Bindings, f: &Function) {
    for s in &f.symbols {
        bindings.entry(s.name.clone()).or_insert_with(|| s.near(4));
    }
}

/// Values of the symbols: those that the user chose, those that given inputs say, and small ones for others.
pub(super) fn symbols(args: &InputArgs, entry: &Function, given: Option<&[Array]>) -> Result<Bindings, Diagnostic> {
    let mut bindings = sizes(entry, given.unwrap_or_default(), &set(&args.set, &entry.symbols)?);
    small(&mut bindings, entry);
    Ok(bindings)
}

/// Random inputs for the entry of `module`, the same for the same seed.
///
/// Errors: those of [`random_for`].
pub(super) fn random(module: &Module, seed: u64, bindings: &Bindings) -> Result<Vec<Array>, Diagnostic> {
    random_for(module, module.entry()?, seed, bindings)
}

/// Random inputs for a function of `module`, the same for the same seed.
///
/// Errors: `array-size` and `out-of-memory` for sizes beyond memory; `symbol`.
pub(super) fn random_for(
    module: &Module,
    entry: &Function,
    seed: u64,
    bindings: &Bindings,
) -> Result<Vec<Array>, Diagnostic> {
    stage("drawing inputs");
    let mut random = Random::new(seed);
    let limits = limits(module, entry, bindings);
    let each = entry.params.iter().zip(limits).map(|(p, limit)| {
        let shape = p.ty.concrete(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
        random.array(&p.ty, &shape, limit).map_err(|d| d.note(format!("for the parameter `{}`", p.name)))
    });
    each.collect()
}
