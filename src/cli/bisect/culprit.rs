//! Which stage computes a case wrongly.

use super::case::{Case, Pipeline};
use crate::compile::{Options, fired};
use std::collections::BTreeSet;
use std::fmt;
use tilewright_codegen::cpu::clif::eval;
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::device::ukernel::UKERNELS;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::text::print_kernel;
use tilewright_ir::kernel::{Launch, Program, Step};
use tilewright_passes::egraph::{Rule, check_thoroughly};

/// A wrong stage.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Culprit {
    /// Results differ with more threads than one.
    Threads,
    /// Rules without any of which the result is right: the ones that the check of rules finds wrong if there are any.
    Rules(Vec<WrongRule>),
    /// What level 2 leaves without any rule is another graph.
    Graph,
    /// The kernels mean something else, at these levels.
    Kernels { levels: Vec<u8>, kernels: Vec<String> },
    /// The kernels are right, their machine code for the first instruction sets is not, for the others it is.
    Code { wrong: Vec<&'static str>, right: Vec<&'static str>, kernels: Vec<String> },
}

/// A rule that makes a result wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrongRule {
    pub name: String,
    pub class: String,
    /// File and line.
    pub at: String,
    /// What the check of rules says.
    pub counterexample: Option<String>,
}

impl Culprit {
    /// A word for reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Culprit::Threads => "threads",
            Culprit::Rules(_) => "rule",
            Culprit::Graph => "graph",
            Culprit::Kernels { .. } => "kernels",
            Culprit::Code { .. } => "code",
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Culprit::Threads => f.write_str("how threads share the work: one thread computes it right"),
            Culprit::Rules(rules) => {
                let one = |r: &WrongRule| {
                    let found = r.counterexample.as_ref().map_or(String::new(), |c| format!(": {c}"));
                    format!("the rule `{}` ({}), {}{found}", r.name, r.class, r.at)
                };
                f.write_str(&rules.iter().map(one).collect::<Vec<_>>().join("; together with "))
            }
            Culprit::Graph => f.write_str(
                "the import into the e-graph, or the choice from it: without any rule it leaves another graph",
            ),
            Culprit::Kernels { levels, kernels } => {
                let stage = match levels.first() {
                    Some(0) => "the lowering of one op, at every level",
                    Some(1) => "fusion or schedule from level 1 on, level 0 is right",
                    _level_2 => "the schedule of a kernel that level 2 chooses, lower levels are right",
                };
                write!(f, "{stage}: the Kernel IR of {}", kernels.join(", "))
            }
            Culprit::Code { wrong, right, kernels } => {
                write!(f, "machine code for {}", wrong.join(", "))?;
                if !right.is_empty() {
                    write!(f, ", and not that for {}", right.join(", "))?;
                }
                write!(f, ": the Kernel IR of {} is right", kernels.join(", "))
            }
        }
    }
}

/// The stage that computes a case wrongly.
///
/// Errors: those of the stages.
pub(super) fn find(pipeline: &dyn Pipeline, case: &Case, options: &Options) -> Result<Culprit, Diagnostic> {
    let one = Options { threads: 1, ..options.clone() };
    if options.threads > 1 && case.by_code(pipeline, &one)?.is_none() {
        return Ok(Culprit::Threads);
    }
    let kernels = |options: &Options| match case.by_kernels(pipeline, options) {
        // An access outside a buffer, say.
        Err(d) if d.code == "kernel-run" => Ok(true),
        other => other,
    };
    if !kernels(&one)? {
        let available = Isa::ALL.iter().copied().filter(|isa| isa.available());
        let (mut wrong, mut right) = (Vec::new(), Vec::new());
        for isa in available {
            let found = case.by_code(pipeline, &Options { isa, ..one.clone() })?;
            if found.is_some() { wrong.push(isa.name()) } else { right.push(isa.name()) }
        }
        return Ok(Culprit::Code { wrong, right, kernels: names(pipeline, case, &one)? });
    }
    if one.opt_level >= 2 {
        let none = with_rules(&one, &BTreeSet::new())?;
        if !kernels(&none)? {
            return rules(case, &one, &kernels).map(Culprit::Rules);
        }
        if case.by_graph(pipeline, &none)? {
            return Ok(Culprit::Graph);
        }
    }
    let mut levels = Vec::new();
    for opt_level in 0..=one.opt_level {
        if kernels(&Options { opt_level, ..one.clone() })? {
            levels.push(opt_level);
        }
    }
    Ok(Culprit::Kernels { levels, kernels: names(pipeline, case, &one)? })
}

fn with_rules(options: &Options, kept: &BTreeSet<String>) -> Result<Options, Diagnostic> {
    let rules = options.rules.only(&|rule| kept.contains(&*rule.name))?;
    Ok(Options { rules, ..options.clone() })
}

/// The fewest rules that make the kernels wrong; of these the ones that are wrong for themselves, if any is.
fn rules(
    case: &Case,
    options: &Options,
    wrong: &dyn Fn(&Options) -> Result<bool, Diagnostic>,
) -> Result<Vec<WrongRule>, Diagnostic> {
    let all = options.rules.rules()?.rules;
    let fired: BTreeSet<String> =
        fired(&case.module, options)?.into_iter().flatten().map(|f| f.rule.to_string()).collect();
    let mut kept = fired;
    if !wrong(&with_rules(options, &kept)?)? {
        kept = all.iter().map(|r| r.name.to_string()).collect();
    }
    for name in kept.clone() {
        let mut fewer = kept.clone();
        fewer.remove(&name);
        if wrong(&with_rules(options, &fewer)?)? {
            kept = fewer;
        }
    }
    let found = |rule: &Rule| WrongRule {
        name: rule.name.to_string(),
        class: rule.class.to_string(),
        at: format!("{}:{}", rule.line.file, rule.line.number),
        counterexample: check_thoroughly(rule).err().map(|c| c.reason),
    };
    let found: Vec<WrongRule> = all.iter().filter(|r| kept.contains(&*r.name)).map(found).collect();
    let refuted: Vec<WrongRule> = found.iter().filter(|r| r.counterexample.is_some()).cloned().collect();
    Ok(if refuted.is_empty() { found } else { refuted })
}

/// The kernels that run for the sizes of a case, with the micro-kernels that they call.
fn names(pipeline: &dyn Pipeline, case: &Case, options: &Options) -> Result<Vec<String>, Diagnostic> {
    let programs = pipeline.lower(&case.module, options)?;
    let size = |name: &str| case.bindings.get(name).copied();
    let runs = |launch: &Launch| launch.when.as_ref().is_none_or(|when| eval(when, &size).is_ok_and(|v| v != 0));
    let launches = |p: &Program| -> BTreeSet<usize> {
        let all = p.steps.iter().filter_map(|s| if let Step::Launch(launch) = s { Some(launch) } else { None });
        all.filter(|launch| runs(launch)).map(|launch| launch.kernel).collect()
    };
    let each = programs.iter().flat_map(|p| {
        let launched = launches(p);
        let kernels = p.kernels.iter().enumerate().filter(move |(i, _)| launched.contains(i));
        kernels.map(|(_, kernel)| (&p.name, kernel))
    });
    let each = each.map(|(program, kernel)| {
        let text = print_kernel(kernel);
        let called: Vec<&str> = UKERNELS.iter().map(|row| row.name).filter(|name| text.contains(name)).collect();
        let called = if called.is_empty() { String::new() } else { format!(" (calls {})", called.join(", ")) };
        format!("`{}` of @{program}{called}", kernel.name)
    });
    Ok(each.collect())
}
