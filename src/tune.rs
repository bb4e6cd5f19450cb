//! Measuring schedules: of every region of a program the choices that the walk holds for the fastest are run on this machine, inside the
//! program. The choices of one round are measured at once, since regions do not depend on each other's, so there are as many rounds
//! as the longest list has choices.

mod rank;

pub use rank::correlation;

use crate::compile::{Options, blocks, compile, lower};
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_codegen::cpu::clif::eval;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::kernel::{Kernel, Program, Step};
use tilewright_ir::types::Bindings;
use tilewright_passes::egraph::Device;
use tilewright_passes::schedule::Choice;
use tilewright_passes::tuned::{Best, Tunable, Tuned};
use tilewright_passes::{Target, tunables, walk};
use tilewright_runtime::executable::{Executable, Name};

/// How often all rounds are gone through, and how often a program runs in each, where the least time counts.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Times that all rounds are gone through.
    pub sweeps: usize,
    /// Runs of a program in a round.
    pub runs: usize,
    /// Choices of a region that are measured, the usual among them; all where none.
    pub most: Option<usize>,
    /// Whether the programs of all rounds are kept, with their weights, so that a sweep compiles nothing but the first.
    pub keep: bool,
}

/// Bytes that are read before each run, so that nothing of the run before is in a core's own caches, as other kernels would leave them.
const OTHERS: usize = 8 << 20;

/// A region that was measured.
#[derive(Clone, Debug)]
pub struct Region {
    /// Its first kernel, as `function.kernel`.
    pub kernel: String,
    /// What it computes.
    pub text: String,
    /// Its choices, the usual first.
    pub choices: Vec<Timed>,
}

/// A choice that was measured.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// Which.
    pub choice: Choice,
    /// Seconds of a launch by the walk; none where it knows no answer.
    pub predicted: Option<f64>,
    /// Seconds of a launch, see `settled` of this module.
    pub seconds: f64,
    /// Whether an earlier choice gives the same kernels.
    again: bool,
}

impl Region {
    /// The fastest choice. One that is less than a hundredth faster than the usual is not worth a line in a file.
    pub fn best(&self) -> Option<Timed> {
        let usual = self.choices.first()?;
        let best = self.choices.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
        Some(if best.seconds < 0.99 * usual.seconds { *best } else { *usual })
    }

    /// Keeps the usual choice and those that the walk holds for the fastest, `most` in all; of choices with the same kernels one.
    fn promising(&mut self, most: Option<usize>) {
        self.choices.retain(|t| !t.again);
        if let Some((_usual, others)) = self.choices.split_first_mut() {
            others
                .sort_by(|a, b| a.predicted.unwrap_or(f64::INFINITY).total_cmp(&b.predicted.unwrap_or(f64::INFINITY)));
        }
        self.choices.truncate(most.unwrap_or(usize::MAX).max(1));
    }

    /// The choice that the walk holds for the fastest.
    pub fn picked(&self) -> Option<Timed> {
        let known = self.choices.iter().filter(|t| t.predicted.is_some());
        known.min_by(|a, b| a.predicted.unwrap_or(0.0).total_cmp(&b.predicted.unwrap_or(0.0))).copied()
    }
}

/// Measures the schedules of the regions of `module` on `inputs`; `say` hears how many of how many rounds are done.
///
/// Errors: those of compiling and running.
pub fn tune(
    module: &Module,
    (inputs, bindings): (&[Array], &Bindings),
    options: &Options,
    effort: Effort,
    say: &dyn Fn(usize, usize),
) -> Result<Vec<Region>, Diagnostic> {
    let target = Target { isa: options.isa.name() };
    let usual = Options { tuned: None, ..options.clone() };
    let device = target.device(&usual.lowering())?;
    let mut regions = grouped(tunables(&*blocks(module, &usual)?, usual.lowering(), &target)?);
    let rounds = |regions: &[(Region, _)]| regions.iter().map(|(r, _)| r.choices.len()).max().unwrap_or(0);
    let mut made: BTreeMap<String, Vec<Vec<Kernel>>> = BTreeMap::new();
    for round in 0..rounds(&regions) {
        let options = Options { tuned: Some(Arc::new(chosen(&regions, round))), ..usual.clone() };
        let programs = lower(module, &options)?;
        for (region, kernels) in &mut regions {
            let Some(timed) = region.choices.get_mut(round) else { continue };
            let each = kernels.iter().map(|t| predicted(&programs, t, bindings, (&device, options.threads)));
            timed.predicted = each.sum();
            let mine: Vec<Kernel> = kernels.iter().flat_map(|t| kernels_of(&programs, t)).collect();
            let before = made.entry(region.text.clone()).or_default();
            timed.again = before.contains(&mine);
            before.push(mine);
        }
    }
    regions.iter_mut().for_each(|(region, _)| region.promising(effort.most));
    let rounds = rounds(&regions);
    let others = vec![1; OTHERS / 8];
    let mut kept = BTreeMap::new();
    // Of each region and choice a time a sweep.
    let mut samples: Vec<Vec<Vec<f64>>> = regions.iter().map(|(r, _)| vec![Vec::new(); r.choices.len()]).collect();
    for sweep in 0..effort.sweeps {
        for at in 0..rounds {
            say(sweep * rounds + at, effort.sweeps * rounds);
            // Every other sweep backwards: what changes slowly strikes none more than others.
            let round = if sweep % 2 == 0 { at } else { rounds - 1 - at };
            let code = match kept.remove(&round) {
                Some(code) => code,
                None => ready(module, (inputs, bindings), &usual, chosen(&regions, round))?,
            };
            let times = measure(&code, (inputs, bindings), effort.runs, &others)?;
            for ((_, kernels), samples) in regions.iter().zip(&mut samples) {
                let Some(samples) = samples.get_mut(round) else { continue };
                let mine = |name: &Name| kernels.iter().any(|t| t.function == name.0 && t.makes(&name.1));
                samples.push(times.iter().filter(|(name, _)| mine(name)).map(|(_, seconds)| seconds).sum());
            }
            if effort.keep {
                kept.insert(round, code);
            }
        }
    }
    for ((region, _), samples) in regions.iter_mut().zip(&samples) {
        region.choices.iter_mut().zip(settled(samples)).for_each(|(timed, seconds)| timed.seconds = seconds);
    }
    let regions = regions.into_iter().map(|(region, _)| region);
    // What the sizes of this call never launch has no time.
    Ok(regions.filter(|r| r.choices.len() > 1 && r.choices.iter().all(|t| t.seconds > 0.0)).collect())
}

/// Regions that compute the same are one.
fn grouped(found: Vec<Tunable>) -> Vec<(Region, Vec<Tunable>)> {
    let mut regions: Vec<(Region, Vec<Tunable>)> = Vec::new();
    for tunable in found.into_iter().filter(|t| t.choices.len() > 1) {
        match regions.iter_mut().find(|(r, _)| r.text == tunable.region) {
            Some((_, all)) => all.push(tunable),
            None => {
                let timed = |&choice| Timed { choice, predicted: None, seconds: f64::INFINITY, again: false };
                let choices = tunable.choices.iter().map(timed).collect();
                let kernel = format!("{}.{}", tunable.function, tunable.kernel);
                regions.push((Region { kernel, text: tunable.region.clone(), choices }, vec![tunable]));
            }
        }
    }
    regions
}

/// The kernels of a region.
fn kernels_of(programs: &[Program], tunable: &Tunable) -> Vec<Kernel> {
    let program = programs.iter().filter(|p| p.name == tunable.function);
    program.flat_map(|p| &p.kernels).filter(|k| tunable.makes(&k.name)).cloned().collect()
}

/// The choices of a round.
fn chosen(regions: &[(Region, Vec<Tunable>)], round: usize) -> Tuned {
    let mut tuned = Tuned::default();
    for (region, _) in regions {
        if let Some(timed) = region.choices.get(round) {
            let best = Best { kernel: region.kernel.clone(), choice: timed.choice, seconds: 0.0, usual: 0.0 };
            tuned.regions.insert(region.text.clone(), best);
        }
    }
    tuned
}

/// The times of choices of which each has a sample a sweep: the median of a sample over the lower quartile of its sweep, times the least such
/// quartile. A machine that others use has fast and slow seconds, which strike a sweep as a whole; what a choice takes beside the
/// others of its sweep is the same in both.
fn settled(samples: &[Vec<f64>]) -> Vec<f64> {
    let sweeps = samples.iter().map(Vec::len).min().unwrap_or(0);
    let levels: Vec<f64> =
        (0..sweeps).map(|sweep| quantile(samples.iter().map(|s| s[sweep]).collect(), 0.25)).collect();
    let least = levels.iter().copied().fold(f64::INFINITY, f64::min);
    let shares = |s: &Vec<f64>| quantile(s.iter().zip(&levels).map(|(t, level)| t / level).collect(), 0.5);
    samples.iter().map(|s| least * shares(s)).collect()
}

/// The number that a share of others is below; infinite of none.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = share * values.len().saturating_sub(1) as f64;
    values.get(at.round() as usize).copied().unwrap_or(f64::INFINITY)
}

/// A program with the choices of a round, its weights packed.
fn ready(
    module: &Module,
    (inputs, bindings): (&[Array], &Bindings),
    usual: &Options,
    chosen: Tuned,
) -> Result<Executable, Diagnostic> {
    let mut executable = compile(module, &Options { tuned: Some(Arc::new(chosen)), ..usual.clone() })?;
    executable.run(inputs, bindings)?;
    executable.enable_profile();
    Ok(executable)
}

/// Least seconds of a launch or a packing by program and name.
fn measure(
    executable: &Executable,
    (inputs, bindings): (&[Array], &Bindings),
    runs: usize,
    others: &[u64],
) -> Result<BTreeMap<Name, f64>, Diagnostic> {
    let mut least: BTreeMap<Name, f64> = BTreeMap::new();
    for _ in 0..runs {
        std::hint::black_box(std::hint::black_box(others).iter().sum::<u64>());
        executable.run(inputs, bindings)?;
        let profile = executable.profile().ok_or_else(|| Diagnostic::bug("a profile that was asked for"))?;
        for (name, count, time) in profile.rows() {
            let slot = least.entry(name).or_insert(f64::INFINITY);
            *slot = slot.min(time.as_secs_f64() / count.max(1) as f64);
        }
        profile.clear();
    }
    Ok(least)
}

/// Seconds of the launches of a kernel by the walk.
fn predicted(
    programs: &[Program],
    tunable: &Tunable,
    bindings: &Bindings,
    (device, threads): (&Device, usize),
) -> Option<f64> {
    let program = programs.iter().find(|p| p.name == tunable.function)?;
    let size = |name: &str| bindings.get(name).copied();
    let mut seconds = 0.0;
    for step in &program.steps {
        let Step::Launch(launch) = step else { continue };
        let kernel = program.kernels.get(launch.kernel)?;
        if tunable.makes(&kernel.name)
            && launch.when.as_ref().is_none_or(|when| eval(when, &size).is_ok_and(|v| v != 0))
        {
            seconds += walk::predict(kernel, bindings, device, threads)?;
        }
    }
    Some(seconds)
}

/// What is better than the usual, as a file has it.
pub fn tuned(regions: &[Region], options: &Options) -> Tuned {
    let mut tuned = Tuned { isa: options.isa.name().into(), threads: options.threads, regions: BTreeMap::new() };
    for region in regions {
        if let (Some(usual), Some(best)) = (region.choices.first(), region.best())
            && best.choice != usual.choice
        {
            let row = Best {
                kernel: region.kernel.clone(),
                choice: best.choice,
                seconds: best.seconds,
                usual: usual.seconds,
            };
            tuned.regions.insert(region.text.clone(), row);
        }
    }
    tuned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_sweeps_strike_all() {
        // Twice as slow while others run; the last choice alone is disturbed once more.
        let samples = [vec![1.0, 2.0, 2.0, 1.0, 1.0], vec![1.1, 2.2, 2.2, 1.1, 1.1], vec![1.2, 2.4, 2.4, 9.0, 1.2]];
        let times = settled(&samples);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(times[1] / times[0], 1.1) && near(times[2] / times[0], 1.2), "{times:?}");
        assert!(near(times[0], 1.0), "{times:?}");
        assert_eq!(settled(&[Vec::new()]), [f64::INFINITY]);
    }
}
