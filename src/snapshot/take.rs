//! Making snapshots. They depend on the module and the settings alone: not on the machine, its threads, or where in its
//! file a line of the model stands.

use super::facts::{self, Facts};
use super::{Kind, Section, Snapshot};
use crate::compile::{
    DEFAULT_BUDGET, DEFAULT_OPT_LEVEL, MAX_OPT_LEVEL, Options, Precision, Target, UserRules, blocks, fired,
    optimized_with_notes, programs,
};
use crate::emit::{Stage, program_text};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::{Launch, Program, Step};
use tilewright_ir::verify::verify;
use tilewright_passes::egraph::{Fired, Numerics};
use tilewright_runtime::plan::plan_programs;

/// What snapshots are made of and how it is compiled. Nothing is asked of the machine.
#[derive(Clone, Debug)]
pub struct Settings {
    stages: Option<Vec<Stage>>,
    target: Option<Target>,
    options: Options,
}

impl Default for Settings {
    /// The stages graph, optimized, kernel and plan for a CPU with AVX-512, and CUDA text for `sm_80`; the default level and
    /// numerics.
    fn default() -> Settings {
        let options = Options {
            opt_level: DEFAULT_OPT_LEVEL,
            numerics: Numerics::default(),
            precision: Precision::default(),
            threads: 1,
            isa: Isa::Avx512,
            verify: true,
            max_work: None,
            rules: UserRules::default(),
            device: None,
            tuned: None,
            budget: DEFAULT_BUDGET,
        };
        Settings { stages: None, target: None, options }
    }
}

impl Settings {
    /// The level and numerics of `options`; nothing of its machine.
    pub fn of(options: &Options) -> Settings {
        Settings::default().opt_level(options.opt_level).numerics(options.numerics)
    }

    /// These stages and no others.
    pub fn stages(mut self, stages: impl Into<Vec<Stage>>) -> Settings {
        self.stages = Some(stages.into());
        self
    }

    /// The level, 0 to 2.
    pub fn opt_level(mut self, level: u8) -> Settings {
        self.options.opt_level = level;
        self
    }

    /// Which rules may fire.
    pub fn numerics(mut self, numerics: Numerics) -> Settings {
        self.options.numerics = numerics;
        self
    }

    /// The target of every stage that is for one; else the CPU, and `sm_80` for CUDA text.
    pub fn target(mut self, target: Target) -> Settings {
        self.target = Some(target);
        self
    }

    /// Instruction set of a CPU's micro-kernels.
    pub fn isa(mut self, isa: Isa) -> Settings {
        self.options.isa = isa;
        self
    }

    /// The rules of level 2.
    pub fn rules(mut self, rules: UserRules) -> Settings {
        self.options.rules = rules;
        self
    }

    fn chosen(&self) -> Vec<Stage> {
        let all = [Stage::Graph, Stage::Optimized, Stage::Kernel, Stage::Cuda, Stage::Plan];
        let shown = |s: &Stage| match s {
            Stage::Optimized => self.options.opt_level == MAX_OPT_LEVEL,
            Stage::Plan => self.target.is_none_or(|t| t.gpu().is_none()),
            Stage::Cuda => self.target.is_none_or(|t| t.gpu().is_some()),
            _always => true,
        };
        self.stages.clone().unwrap_or_else(|| all.into_iter().filter(shown).collect())
    }
}

/// A snapshot of each stage, with the name of the stage.
///
/// Errors: those of the compilation up to that stage; `stage-target`, `opt-level`, and `stage-machine` for machine code, and for
/// Cranelift code that is not portable.
pub fn take(module: &Module, settings: &Settings) -> Result<Vec<(String, Snapshot)>, Diagnostic> {
    if settings.options.opt_level > MAX_OPT_LEVEL {
        let message = format!("expected a level up to {MAX_OPT_LEVEL}, found {}", settings.options.opt_level);
        return Err(Diagnostic::new("opt-level", message));
    }
    verify(module)?;
    let module = &*blocks(module, &settings.options)?;
    let rules = if settings.options.opt_level < MAX_OPT_LEVEL { Vec::new() } else { fired(module, &settings.options)? };
    let mut lowered = Lowered { module, options: &settings.options, done: Vec::new() };
    let one = |stage: Stage| {
        let target = settings.target.unwrap_or(stage.default_target());
        Ok((stage.name().into(), snapshot(&mut lowered, stage, target, &rules)?))
    };
    settings.chosen().into_iter().map(one).collect()
}

/// The programs for each target, lowered once.
struct Lowered<'a> {
    module: &'a Module,
    options: &'a Options,
    done: Vec<(Target, Vec<Program>)>,
}

impl Lowered<'_> {
    fn programs(&mut self, target: Target) -> Result<Vec<Program>, Diagnostic> {
        if let Some((_, programs)) = self.done.iter().find(|(t, _)| *t == target) {
            return Ok(programs.clone());
        }
        let mut made = programs(self.module, self.options, target)?;
        // Lines of the model move without a change of a kernel, and paths are a machine's.
        made.iter_mut().flat_map(|p| &mut p.kernels).for_each(|k| k.places.clear());
        self.done.push((target, made.clone()));
        Ok(made)
    }
}

fn snapshot(
    lowered: &mut Lowered<'_>,
    stage: Stage,
    target: Target,
    rules: &[Vec<Fired>],
) -> Result<Snapshot, Diagnostic> {
    stage.check_target(target)?;
    // Cranelift code calls micro-kernels, which a machine must have.
    if stage == Stage::Asm || stage == Stage::Clif && lowered.options.isa != Isa::Portable {
        let message = format!("the stage `{}` is not the same on every machine", stage.name());
        let wanted =
            if stage == Stage::Clif { "it is for the instruction set `portable`" } else { "expected another stage" };
        return Err(Diagnostic::new("stage-machine", message).note(wanted));
    }
    let (module, options) = (lowered.module, lowered.options);
    let mut sections =
        vec![Section { kind: Kind::Settings, name: String::new(), facts: settings(stage, target, options) }];
    let mut kernels = Vec::new();
    let (functions, body) = match stage {
        Stage::Graph => (facts::of_module(module), tilewright_ir::text::print(module)),
        Stage::Optimized => {
            let (optimized, text) = optimized_with_notes(module, options, target)?;
            let mut functions = facts::of_module(&optimized);
            // What the kernels of these functions are launched with.
            let programs = lowered.programs(target)?;
            let shared = if target.gpu().is_some() { facts::shared(&programs)? } else { Vec::new() };
            for (i, ((_, found), program)) in functions.iter_mut().zip(&programs).enumerate() {
                let launched = facts::of_program(program, shared.get(i).map_or(&[], Vec::as_slice));
                found.extend(launched.into_iter().filter(|(key, _)| key == "launches" || key == "shared memory"));
            }
            (functions, text)
        }
        Stage::Regions => (facts::of_module(module), crate::compile::regions(module, options, target)?),
        Stage::Kernel | Stage::Clif | Stage::Asm | Stage::Cuda | Stage::Plan => {
            let programs = lowered.programs(target)?;
            let shared = if target.gpu().is_some() { facts::shared(&programs)? } else { Vec::new() };
            let plans = if stage == Stage::Plan { plan_programs(&programs)? } else { Vec::new() };
            let mut functions = Vec::new();
            for (i, program) in programs.iter().enumerate() {
                let shared: &[i64] = shared.get(i).map_or(&[], Vec::as_slice);
                let mut found = facts::of_program(program, shared);
                plans.get(i).into_iter().for_each(|plan| facts::of_plan(&mut found, plan));
                functions.push((program.name.to_string(), found));
                if stage != Stage::Plan {
                    kernels.extend(kernel_sections(program, shared));
                }
            }
            (functions, program_text(stage, &programs, options)?)
        }
    };
    for (i, (name, mut facts)) in functions.into_iter().enumerate() {
        if stage != Stage::Graph {
            rules.get(i).into_iter().for_each(|fired| facts::of_rules(&mut facts, fired));
        }
        sections.push(Section { kind: Kind::Function, name, facts });
    }
    sections.extend(kernels);
    Ok(Snapshot { sections, body })
}

fn settings(stage: Stage, target: Target, options: &Options) -> Facts {
    let fact = |key: &str, value: String| (key.to_string(), value);
    let mut facts = vec![fact("stage", stage.name().into())];
    if stage != Stage::Graph {
        let isa = if target.gpu().is_some() { String::new() } else { format!(", {}", options.isa.name()) };
        facts.push(fact("target", format!("{}{isa}", target.name())));
        facts.push(fact("level", options.opt_level.to_string()));
        facts.push(fact("numerics", options.numerics.to_string()));
    }
    facts
}

fn kernel_sections(program: &Program, shared: &[i64]) -> Vec<Section> {
    let each = program.kernels.iter().enumerate().map(|(i, kernel)| {
        let launches = program.steps.iter().filter_map(|s| match s {
            Step::Launch(launch) if launch.kernel == i => Some(launch),
            _other => None,
        });
        let launches: Vec<&Launch> = launches.collect();
        let facts = facts::of_kernel(kernel, &launches, shared.get(i).copied());
        Section { kind: Kind::Kernel, name: format!("{}.{}", program.name, kernel.name), facts }
    });
    each.collect()
}
