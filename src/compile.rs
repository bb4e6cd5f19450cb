//! From a module to something that runs: the stages in order.

use std::borrow::Cow;
use std::collections::BTreeMap;
#[cfg(feature = "cuda")]
use std::path::PathBuf;
use std::sync::Arc;
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, NodeId};
use tilewright_ir::kernel::Program;
use tilewright_ir::op::Name;
use tilewright_ir::text::{print_noted, value_name};
use tilewright_ir::types::Bindings;
use tilewright_ir::verify::{Verified, verify};
pub use tilewright_ir::work::Work;
#[cfg(feature = "ilp")]
pub use tilewright_passes::egraph::cover::Integer;
use tilewright_passes::egraph::export::Note;
pub use tilewright_passes::egraph::{DEFAULT_BUDGET, Gate, UserRules};
use tilewright_passes::egraph::{Device, Fired, Numerics};
use tilewright_passes::tuned::Tuned;
use tilewright_passes::{Explained, Known, LowerOptions, lower_module, lower_module_knowing};
#[cfg(feature = "cuda")]
use tilewright_runtime::device::cuda::{Cuda, CudaExecutable, Nvrtc};
use tilewright_runtime::executable::{Executable, RunCheck};

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// 0: each primitive is a kernel of its own; 1: fusion in a fixed order; 2: kernels chosen by price.
    pub opt_level: u8,
    /// What level 2 may change about rounding.
    pub numerics: Numerics,
    /// How products may be computed.
    pub precision: Precision,
    /// Threads of the CPU pool. They never change a result.
    pub threads: usize,
    /// Instruction set of the micro-kernels.
    pub isa: Isa,
    /// Whether every kernel is proved to stay inside its buffers; one that is not is an error.
    pub verify: bool,
    /// The most operations of a run, as [`Work`] counts them for its sizes; more is `too-much-work`. None allows any.
    pub max_work: Option<u64>,
    /// The rules of level 2: the shipped ones and those of the user.
    pub rules: UserRules,
    /// What level 2 prices kernels by, such as what `tilewright calibrate` wrote; the shipped description of the target if absent.
    pub device: Option<Arc<Device>>,
    /// Schedules that `tilewright tune` measured to be best.
    pub tuned: Option<Arc<Tuned>>,
    /// How much work level 2 may do to choose the kernels of a function, in covers compared and sets of values searched; never
    /// time. More never gives kernels that are dearer by its prices.
    pub budget: usize,
}

/// The most operations of a run that the commands allow where nobody says another number: an hour, more or less.
pub const MAX_WORK: u64 = 10_000_000_000_000;

/// The same for the interpreter.
pub const MAX_WORK_INTERPRETED: u64 = 100_000_000_000;

impl Options {
    /// The default level, the best instruction set of this machine unless `TILEWRIGHT_CPU` names one, all cores. Kernels
    /// are verified in debug builds. Runs may compute any amount: a program that takes graphs from strangers sets `max_work`.
    ///
    /// Errors: `cpu-feature` if `TILEWRIGHT_CPU` is unknown or not available here.
    pub fn host() -> Result<Options, Diagnostic> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (opt_level, numerics, precision) = (DEFAULT_OPT_LEVEL, Numerics::default(), Precision::default());
        let (isa, verify) = (host_isa()?, cfg!(debug_assertions));
        Ok(Options {
            opt_level,
            numerics,
            precision,
            threads,
            isa,
            verify,
            max_work: None,
            rules: UserRules::default(),
            device: None,
            tuned: None,
            budget: DEFAULT_BUDGET,
        })
    }
}

/// How products may be computed. Cheaper ones are to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// In the dtype of their operands, sums of halves in f32
    #[default]
    Highest,
}

/// The highest level.
pub const MAX_OPT_LEVEL: u8 = 2;

impl Options {
    pub(crate) fn lowering(&self) -> LowerOptions {
        LowerOptions {
            opt_level: self.opt_level,
            numerics: self.numerics,
            verify: self.verify,
            rules: self.rules.clone(),
            device: self.device.clone(),
            tuned: self.tuned.clone(),
            budget: self.budget,
        }
    }
}

/// The level that is used unless the user names one.
pub const DEFAULT_OPT_LEVEL: u8 = 2;

fn host_isa() -> Result<Isa, Diagnostic> {
    let Ok(name) = std::env::var("TILEWRIGHT_CPU") else { return Ok(Isa::best()) };
    let unknown = || {
        let message = format!("TILEWRIGHT_CPU is `{name}`, expected amx_bf16, avx512_bf16, avx512, avx2 or portable");
        Diagnostic::new("cpu-feature", message)
    };
    let isa = Isa::ALL.iter().copied().find(|isa| isa.name() == name).ok_or_else(unknown)?;
    if isa.available() { Ok(isa) } else { Err(Diagnostic::new("cpu-feature", format!("this machine has no {name}"))) }
}

/// Verifies a module and lowers each function to a program of kernels.
///
/// Errors: those of the verifier and of the lowering.
pub fn lower(module: &Module, options: &Options) -> Result<Vec<Program>, Diagnostic> {
    programs(module, options, Target::Cpu)
}

/// [`lower`] for one of several modules that have functions in common, which are lowered once; `known` begins empty, and is for the same
/// options.
///
/// Errors: those of [`lower`].
pub fn lower_knowing(module: &Module, options: &Options, known: &Known) -> Result<Vec<Program>, Diagnostic> {
    verify(module)?;
    let target = lowered_for(options, Target::Cpu);
    lower_module_knowing(&*blocks(module, options)?, options.lowering(), &target, known)
}

/// The module as it is lowered: from level 2 on, blocks that repeat in a large function are functions.
///
/// Errors: bugs.
pub fn blocks<'m>(module: &'m Module, options: &Options) -> Result<Cow<'m, Module>, Diagnostic> {
    if options.opt_level < 2 { Ok(Cow::Borrowed(module)) } else { tilewright_passes::outlined(module) }
}

/// The module, verified, and the target, where level 2 has something to show.
fn chosen(module: &Module, options: &Options, target: Target) -> Result<tilewright_passes::Target, Diagnostic> {
    if options.opt_level < 2 {
        let message = format!("kernels are chosen at level 2, found level {}", options.opt_level);
        return Err(Diagnostic::new("stage-level", message));
    }
    verify(module)?;
    Ok(lowered_for(options, target))
}

/// The kernels that level 2 chooses with their prices and what else was possible, as text.
///
/// Errors: `stage-level` at lower levels, which choose nothing; those of the verifier and of the lowering.
pub fn regions(module: &Module, options: &Options, target: Target) -> Result<String, Diagnostic> {
    let target = chosen(module, options, target)?;
    tilewright_passes::regions(&*blocks(module, options)?, options.lowering(), &target)
}

/// Why each function has the kernels that level 2 chooses, in module order; for one beyond a limit of that level, the
/// warning that says so. `likely` are sizes for which kernels are chosen and priced, where they are not the usual ones.
///
/// Errors: those of [`regions`].
pub fn explained(
    module: &Module,
    options: &Options,
    target: Target,
    likely: &Bindings,
) -> Result<Vec<Result<Explained, Diagnostic>>, Diagnostic> {
    tilewright_passes::explained(module, options.lowering(), &chosen(module, options, target)?, likely)
}

/// What an integer program of at most `nodes` nodes says of the kernels of each function, in module order; for one beyond a limit
/// of level 2, the warning that says so.
///
/// Errors: those of [`regions`]; `ilp-solver`.
#[cfg(feature = "ilp")]
pub fn integer(
    module: &Module,
    options: &Options,
    target: Target,
    likely: &Bindings,
    nodes: u64,
) -> Result<Vec<Result<Integer, Diagnostic>>, Diagnostic> {
    tilewright_passes::integer(module, options.lowering(), &chosen(module, options, target)?, likely, nodes)
}

/// The module that level 2 leaves, verified. Its functions have the parameters and results of the given ones.
///
/// Errors: those of [`regions`].
pub fn optimized(module: &Module, options: &Options, target: Target) -> Result<Module, Diagnostic> {
    Ok(optimized_with_notes(module, options, target)?.0)
}

/// [`optimized`], and its text, in which comments say where kernels begin.
///
/// Errors: those of [`regions`].
pub fn optimized_with_notes(
    module: &Module,
    options: &Options,
    target: Target,
) -> Result<(Module, String), Diagnostic> {
    let target = chosen(module, options, target)?;
    let all = tilewright_passes::optimized(&*blocks(module, options)?, options.lowering(), &target)?;
    let mut out = Module::default();
    let mut notes: BTreeMap<(Name, NodeId), Vec<Note>> = BTreeMap::new();
    for exported in all {
        for note in exported.notes {
            notes.entry((exported.function.name.clone(), note.at)).or_default().push(note);
        }
        out.functions.insert(exported.function.name.clone(), exported.function);
    }
    verify(&out).map_err(|d| Diagnostic::bug(format!("the optimised module is no module: {}", d.message)))?;
    let lines = |f: &Function, id: NodeId| {
        let line = |note: &Note| {
            let stores: Vec<String> = note.stores.iter().map(|v| value_name(f, *v)).collect();
            let stores = if stores.is_empty() { String::new() } else { format!(", stores {}", stores.join(", ")) };
            format!("{}{stores}", note.text)
        };
        notes.get(&(f.name.clone(), id)).into_iter().flatten().map(line).collect()
    };
    let text = print_noted(&out, &lines);
    Ok((out, text))
}

/// What code is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Target {
    /// This machine's processor
    #[default]
    Cpu,
    /// NVIDIA GPUs of compute capability 8.0 and later
    #[cfg_attr(feature = "cli", value(name = "sm_80"))]
    Sm80,
    /// Compute capability 8.9
    #[cfg_attr(feature = "cli", value(name = "sm_89"))]
    Sm89,
    /// Compute capability 9.0, with its own instructions
    #[cfg_attr(feature = "cli", value(name = "sm_90a"))]
    Sm90a,
}

impl Target {
    /// Its name on the command line and in cases.
    pub fn name(self) -> &'static str {
        self.gpu().unwrap_or("cpu")
    }

    /// The name of a GPU's target; none for the CPU.
    pub fn gpu(self) -> Option<&'static str> {
        match self {
            Target::Cpu => None,
            Target::Sm80 => Some("sm_80"),
            Target::Sm89 => Some("sm_89"),
            Target::Sm90a => Some("sm_90a"),
        }
    }
}

/// Verifies a module and lowers each function to a program of kernels for a GPU's target `sm_*`. Of the options, level and
/// numerics count.
///
/// Errors: those of the verifier and of the lowering.
pub fn lower_gpu(module: &Module, options: &Options, isa: &'static str) -> Result<Vec<Program>, Diagnostic> {
    verify(module)?;
    lower_module(&*blocks(module, options)?, options.lowering(), &tilewright_passes::Target { isa })
}

/// [`lower`] or [`lower_gpu`], as the target is.
pub(crate) fn programs(module: &Module, options: &Options, target: Target) -> Result<Vec<Program>, Diagnostic> {
    verified_programs(Verified::new(module)?, options, target)
}

/// [`programs`] of what was verified before.
pub(crate) fn verified_programs(
    module: Verified<&Module>,
    options: &Options,
    target: Target,
) -> Result<Vec<Program>, Diagnostic> {
    lower_module(&*blocks(&module, options)?, options.lowering(), &lowered_for(options, target))
}

/// What the lowering makes kernels for: a GPU's target, or the instruction set of the options.
fn lowered_for(options: &Options, target: Target) -> tilewright_passes::Target {
    tilewright_passes::Target { isa: target.gpu().unwrap_or(options.isa.name()) }
}

/// The rewrite rules that fire in each function at level 2, in module order.
///
/// Errors: those of [`lower`].
pub fn fired(module: &Module, options: &Options) -> Result<Vec<Vec<Fired>>, Diagnostic> {
    verify(module)?;
    tilewright_passes::fired(&*blocks(module, options)?, options.lowering())
}

/// Compiles a module for the first CUDA device. Cubins are kept in `TILEWRIGHT_CACHE`, else in `~/.cache/tilewright`.
///
/// Errors: `no-cuda-driver`, `no-device`, `nvrtc-missing`; those of the lowering, the emitter and the compiler.
#[cfg(feature = "cuda")]
pub fn compile_cuda(module: &Module, options: &Options) -> Result<CudaExecutable, Diagnostic> {
    let cuda = Cuda::open(0)?;
    let isa = match cuda.target()?.as_str() {
        "sm_80" => "sm_80",
        "sm_90a" => "sm_90a",
        // The limits that all later devices keep.
        _other => "sm_89",
    };
    let cache = std::env::var_os("TILEWRIGHT_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tilewright")));
    let nvrtc = Nvrtc::load()?;
    let nvrtc = match cache {
        Some(folder) => nvrtc.with_cache(&folder),
        None => nvrtc,
    };
    let mut executable = CudaExecutable::compile(lower_gpu(module, options, isa)?, cuda, &nvrtc)?;
    options.max_work.into_iter().for_each(|limit| executable.check_runs(work_check(module, limit)));
    Ok(executable)
}

/// Refuses runs of the entry of `module` that take more than `limit` operations.
fn work_check(module: &Module, limit: u64) -> RunCheck {
    let module = module.clone();
    Arc::new(move |sizes| Work::of(&module, &module.entry()?.name, sizes)?.check(limit))
}

/// Compiles a module for the CPU.
///
/// Errors: those of [`lower`] and of the emitter.
pub fn compile(module: &Module, options: &Options) -> Result<Executable, Diagnostic> {
    executable(module, lower(module, options)?, options)
}

/// The second half of [`compile`], from what [`lower`] gives for `module`.
pub(crate) fn executable(module: &Module, programs: Vec<Program>, options: &Options) -> Result<Executable, Diagnostic> {
    let mut executable = Executable::compile(programs, options.isa, options.threads)?;
    options.max_work.into_iter().for_each(|limit| executable.check_runs(work_check(module, limit)));
    Ok(executable)
}
