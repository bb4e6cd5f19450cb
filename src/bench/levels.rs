//! What each level of optimisation makes of a program, and what level 2 makes of it without a group of rules.

use crate::compile::{Options, Target, compile};
use crate::explain::{explain, gap};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::op::Name;
use tilewright_ir::types::Bindings;
use tilewright_runtime::executable::Executable;

/// A program as one level makes it. A function counts as often as calls run it; bodies of scans and branches count once.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Variant {
    /// `0`, `1`, `2`, or `2 without GROUP`.
    pub level: String,
    /// Kernels that are started.
    pub launches: usize,
    /// Bytes read and written by them; none where a kernel does not say.
    pub bytes: Option<i64>,
    /// Seconds that the device's description predicts; none where a kernel has no price.
    pub predicted_s: Option<f64>,
    /// Seconds that no choice among the kernels that level 2 looked at can take less than; none at levels 0 and 1, which have no choice.
    pub bound_s: Option<f64>,
    /// Seconds of the fastest run; none where nothing ran.
    pub min_s: Option<f64>,
    /// Whether it has the kernels of level 2.
    pub same: bool,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Variant { level, launches, .. } = self;
        let ms = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.4} ms", x * 1e3));
        let bytes = self.bytes.map_or("-".into(), |b| format!("{:.2} MB", b as f64 / 1e6));
        let (predicted, measured) = (ms(self.predicted_s), ms(self.min_s));
        let gap = self
            .predicted_s
            .zip(self.bound_s)
            .map_or(String::new(), |(p, b)| format!("  gap {:.1} %", 100.0 * gap(b, p)));
        write!(f, "  {level:<20} {launches:>5} kernels {bytes:>12} {predicted:>14} predicted {measured:>14}{gap}")
    }
}

/// The levels of a program, then level 2 without each group of rules of which one fires there. What has other kernels than level 2
/// runs on `inputs`, if there are any, in turns with the others until each has run for `budget`.
///
/// Errors: those of compiling and running.
pub fn levels(
    module: &Module,
    (inputs, sizes): (Option<&[Array]>, &Bindings),
    options: &Options,
    target: Target,
    budget: Duration,
) -> Result<Vec<Variant>, Diagnostic> {
    let top = Options { opt_level: 2, ..options.clone() };
    let runs = runs(module)?;
    let report = explain(module, &top, target, sizes)?;
    let mut out = Vec::new();
    let mut settings = Vec::new();
    for level in 0..3 {
        out.push(total(&report.functions, &runs, level, level.to_string()));
        settings.push(Options { opt_level: level as u8, ..options.clone() });
    }
    let rules = top.rules.rules()?;
    let fired = |name: &str| report.functions.iter().any(|f| f.used.iter().chain(&f.unused).any(|rule| rule == name));
    let mut groups: Vec<&str> = rules.rules.iter().filter(|r| fired(&r.name)).map(|r| &*r.group).collect();
    groups.dedup();
    for group in groups {
        let rules = top.rules.only(&|rule| &*rule.group != group)?;
        let options = Options { rules, ..top.clone() };
        let report = explain(module, &options, target, sizes)?;
        out.push(total(&report.functions, &runs, 2, format!("2 without {group}")));
        settings.push(options);
    }
    same(&mut out, &settings, module, target)?;
    if let Some(inputs) = inputs {
        let mut code = Vec::new();
        for (at, options) in settings.iter().enumerate().filter(|(at, _)| !out[*at].same) {
            code.push((at, compile(module, options)?));
        }
        for (at, seconds) in measure(&code, inputs, sizes, budget)? {
            out[at].min_s = Some(seconds);
        }
    }
    Ok(out)
}

/// How often a run of the entry runs each function.
fn runs(module: &Module) -> Result<BTreeMap<Name, usize>, Diagnostic> {
    let mut count: BTreeMap<Name, usize> = BTreeMap::from([(module.entry()?.name.clone(), 1)]);
    // Callees stand before their callers.
    for f in module.functions.values().rev() {
        let Some(&mine) = count.get(&f.name) else { continue };
        for node in &f.nodes {
            for callee in node.callees() {
                *count.entry(callee.clone()).or_default() += mine;
            }
        }
    }
    Ok(count)
}

/// The functions of a report at a level, each as often as it runs.
fn total(
    functions: &[crate::explain::FunctionReport],
    runs: &BTreeMap<Name, usize>,
    level: usize,
    name: String,
) -> Variant {
    let bound_s = (level == 2).then_some(0.0);
    let mut out = Variant { level: name, bytes: Some(0), predicted_s: Some(0.0), bound_s, ..Variant::default() };
    for f in functions {
        let count = runs.get(f.name.as_str()).copied().unwrap_or(0);
        let cost = &f.levels[level];
        out.launches += count * cost.launches;
        out.bytes = out.bytes.zip(cost.bytes).map(|(a, b)| a + count as i64 * b);
        out.predicted_s = out.predicted_s.zip(cost.seconds).map(|(a, b)| a + count as f64 * b);
        out.bound_s = out.bound_s.map(|a| a + count as f64 * f.bound);
    }
    out
}

/// Marks what has the kernels of level 2.
fn same(out: &mut [Variant], settings: &[Options], module: &Module, target: Target) -> Result<(), Diagnostic> {
    let mut texts = Vec::new();
    for options in settings {
        let programs = crate::compile::programs(module, options, target)?;
        texts.push(programs.iter().map(tilewright_ir::kernel::text::print_program).collect::<String>());
    }
    for (variant, text) in out.iter_mut().zip(&texts).skip(3) {
        variant.same = *text == texts[2];
    }
    Ok(())
}

/// The least seconds of each, in turns.
fn measure(
    code: &[(usize, Executable)],
    inputs: &[Array],
    sizes: &Bindings,
    budget: Duration,
) -> Result<Vec<(usize, f64)>, Diagnostic> {
    const LEAST: usize = 5;
    const MOST: usize = 2000;
    let mut times = vec![Duration::MAX; code.len()];
    let (mut turns, start) = (0, Instant::now());
    for (_, code) in code {
        code.run(inputs, sizes)?;
    }
    while turns < LEAST || (turns < MOST && start.elapsed() < budget * code.len() as u32) {
        for ((_, code), least) in code.iter().zip(&mut times) {
            let start = Instant::now();
            code.run(inputs, sizes)?;
            *least = start.elapsed().min(*least);
        }
        turns += 1;
    }
    Ok(code.iter().zip(times).map(|((at, _), t)| (*at, t.as_secs_f64())).collect())
}
