//! Random graphs: what machine code and kernels compute is what the interpreter says.
//!
//! Each graph runs on the interpreter, as machine code at every level, and at level 2 by every value of `--numerics`, on the instruction
//! sets of this machine with one and two threads in turn, and kernel by kernel on the kernel interpreter. For GPUs there is text, or a
//! typed refusal. Exact values must be equal, others within a bound
//! that is derived for the graph ([`bound`]). `TILEWRIGHT_CASES` sets how many graphs, `TILEWRIGHT_SEED` another start,
//! `TILEWRIGHT_TRACE` a file that gets each graph before it runs.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod back;
mod bound;
mod budget;
mod checkpoint;
mod compose;
mod data;
mod device;
mod drawn;
mod elementwise;
mod fold;
mod grad;
mod machine;
mod mixed;
#[path = "../support/program.rs"]
mod program;
#[path = "../support/random.rs"]
mod random;
mod rows;
mod shape;
mod vmap;

use machine::{Built, Case, build, cases};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tilewright::compile::{Options, compile, lower};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::interp_kernel::Data;
use tilewright_ir::kernel::text::print_program;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{Bindings, DType};
use tilewright_ir::verify::verify;
use tilewright_passes::egraph::Numerics;

/// The levels that are compared.
const LEVELS: [u8; 3] = [0, 1, 2];

/// Graphs of a run without `TILEWRIGHT_CASES`.
const CASES: u32 = 80;

#[test]
fn random_graphs_mean_the_same_everywhere() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    let cases_wanted = number("TILEWRIGHT_CASES").map_or(CASES, |n| n as u32);
    let mut seed = [7u8; 32];
    seed[..8].copy_from_slice(&number("TILEWRIGHT_SEED").unwrap_or(1).to_le_bytes());
    let config = Config {
        cases: cases_wanted,
        failure_persistence: None,
        max_shrink_iters: 2000,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let (mut nodes, mut exact, mut results) = (0usize, 0usize, 0usize);
    // Graphs in which a node that is no parameter has the dtype.
    let mut dtypes: BTreeMap<DType, usize> = DType::ALL.iter().map(|d| (*d, 0)).collect();
    let counts = std::cell::RefCell::new((&mut nodes, &mut exact, &mut results, &mut dtypes));
    // For a graph that takes long or crashes: the last one lies there.
    let trace = std::env::var_os("TILEWRIGHT_TRACE");
    let shrinking = std::cell::Cell::new(false);
    let device = device::Device::new();
    let outcome = runner.run(&cases(), |case| {
        let built = build(&case).map_err(TestCaseError::fail)?;
        if let Some(path) = &trace {
            std::fs::write(path, print(&built.module)).unwrap();
        }
        if let Err(reason) = check(&built, &case, &device) {
            if !shrinking.replace(true) {
                // Shrinking may take a minute, or end in another failure.
                println!("{}{:?}\n{reason}\n\nshrinking", print(&built.module), built.bindings);
            }
            return Err(TestCaseError::fail(reason));
        }
        let mut counts = counts.borrow_mut();
        *counts.0 += built.module.functions.values().map(|f| f.nodes.len()).sum::<usize>();
        *counts.1 += built.bounds.iter().filter(|b| b.is_exact()).count();
        *counts.2 += built.bounds.len();
        for dtype in computed(&built.module) {
            *counts.3.entry(dtype).or_default() += 1;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, case)) => {
            let text = build(&case).map_or_else(|e| e, |b| format!("{}{:?}", print(&b.module), b.bindings));
            panic!("{case:?}\n{text}\n{reason}");
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let [texts, compiled, refused] = device.counts.map(std::cell::Cell::into_inner);
    println!("{texts} texts for GPUs, {compiled} compiled, {refused} refused");
    assert!(refused < texts, "hardly any graph is for a GPU");
    println!("{cases_wanted} graphs of {nodes} nodes, {exact} of {results} results exact, with {dtypes:?}");
    // A generator whose steps never fit, or whose bounds are always loose, would test nothing.
    assert!(nodes > 10 * cases_wanted as usize && 3 * exact > results);
    // Block encodings are operands only. A run of few graphs may lack a dtype.
    let rare: Vec<_> = dtypes.iter().filter(|(d, n)| !d.is_block() && 200 * **n < cases_wanted as usize).collect();
    assert!(rare.is_empty() || cases_wanted < 1000, "hardly computed: {rare:?}");
}

/// The dtypes of what a module computes.
fn computed(module: &Module) -> BTreeSet<DType> {
    let nodes = module.functions.values().flat_map(|f| f.nodes.iter().skip(f.params.len()));
    nodes.flat_map(|n| &n.types).map(|t| t.dtype).collect()
}

/// All comparisons of one graph.
fn check(built: &Built, case: &Case, device: &device::Device) -> Result<(), String> {
    let module = &built.module;
    verify(module).map_err(|d| d.to_string())?;
    let text = print(module);
    let again = parse("graph", &text).map_err(|d| d.to_string())?;
    if let Some(found) = difference(module, &again) {
        return Err(format!("another graph comes back from its text: {found}"));
    }
    let entry = module.entry().map_err(|d| d.to_string())?;
    let mut random = Random(case.seed);
    let mut runs = Vec::new();
    for bindings in &built.bindings {
        let fill =
            |(p, f): (&tilewright_ir::graph::Param, &data::Fill)| f.array(&p.ty, bindings, &mut random, case.special);
        let inputs = entry.params.iter().zip(&built.fills).map(fill).collect::<Result<Vec<Array>, _>>()?;
        let want = interp::run(module, "main", &inputs, bindings, Mode::Meaning).map_err(|d| d.to_string())?;
        for (i, (x, b)) in want.iter().zip(&built.bounds).enumerate() {
            let values = x.to_f64().ok_or("a block encoding")?;
            let largest = values.into_iter().filter(|x| x.is_finite()).fold(0.0f64, |m, x| m.max(x.abs()));
            // The largest may round up to the next number of its dtype.
            let most = b.magnitude * (1.0001 + if x.dtype().is_float() { bound::epsilon(x.dtype()) } else { 0.0 });
            if !case.special && largest > most {
                return Err(format!("the generator is wrong: result {i} has {largest}, not below {}", b.magnitude));
            }
        }
        let unsure = if case.special { unsure(module, &inputs, bindings, &want)? } else { Vec::new() };
        runs.push(Run { bindings, inputs, want, unsure });
    }
    back::check(built, case.special, &runs).map_err(|e| format!("back from the e-graph: {e}"))?;
    let isas: Vec<Isa> = Isa::ALL.iter().rev().copied().filter(|i| i.available()).collect();
    for (i, (opt_level, numerics)) in ways(case.special).enumerate() {
        // All instruction sets take turns, since each has its own kernels.
        let turn = case.seed.wrapping_add(i as u64);
        let isa = isas[turn as usize % isas.len()];
        let options = Options { opt_level, numerics, threads: 1, ..Options::host().unwrap() };
        let options = Options { isa, verify: true, ..options };
        let named = |what: &str, e: String| format!("{what}, level {opt_level}, {numerics}, {isa:?}: {e}");
        kernels(built, &options, &runs).map_err(|e| named("kernels", e))?;
        machine_code(built, &options, &runs, turn.is_multiple_of(3)).map_err(|e| named("cpu", e))?;
        device.check(built, &options, turn).map_err(|e| named("CUDA C", e))?;
    }
    Ok(())
}

/// Levels, and what rules may change at each. Those with a domain may make another NaN or infinity of one.
fn ways(special: bool) -> impl Iterator<Item = (u8, Numerics)> {
    let all = [Numerics::Exact, Numerics::Rounding, Numerics::Reassociate, Numerics::Approx];
    LEVELS.into_iter().flat_map(move |level| {
        let numerics = match (level, special) {
            (0 | 1, false) => &all[2..3],
            (_, true) => &all[..1],
            (_, false) => &all[..],
        };
        numerics.iter().map(move |n| (level, *n)).collect::<Vec<_>>()
    })
}

/// Sizes, inputs, and what the interpreter says.
struct Run<'r> {
    bindings: &'r Bindings,
    inputs: Vec<Array>,
    want: Vec<Array>,
    /// For each result, the elements that [`unsure`] names; nothing if none.
    unsure: Vec<Vec<bool>>,
}

/// Which elements become finite, infinite or NaN when floats among the inputs move by a last bit: a difference that is 0 but for
/// rounding, times an infinity.
fn unsure(module: &Module, inputs: &[Array], bindings: &Bindings, want: &[Array]) -> Result<Vec<Vec<bool>>, String> {
    let kind = |x: f64| if x.is_nan() { 2 } else { i32::from(x == f64::INFINITY) - i32::from(x == f64::NEG_INFINITY) };
    let floats = |x: &Array| x.to_f64().filter(|_| x.dtype().is_float());
    let mut out: Vec<Vec<bool>> = want.iter().map(|x| vec![false; floats(x).map_or(0, |x| x.len())]).collect();
    // A difference of a few numbers may stay 0 in one of them.
    for seed in 1..=6 {
        let mut random = Random(seed);
        let moved: Vec<Array> = inputs.iter().map(|x| data::moved(x, &mut random)).collect::<Result<_, _>>()?;
        // Integers that floats became may be no indices any more.
        let Ok(found) = interp::run(module, "main", &moved, bindings, Mode::Meaning) else { continue };
        for ((out, x), y) in out.iter_mut().zip(&found).zip(want) {
            let (Some(x), Some(y)) = (floats(x), floats(y)) else { continue };
            out.iter_mut().zip(x.iter().zip(&y)).for_each(|(out, (x, y))| *out |= kind(*x) != kind(*y));
        }
    }
    Ok(out)
}

/// On one thread, and if `twice` on two, which must not show.
fn machine_code(built: &Built, options: &Options, runs: &[Run<'_>], twice: bool) -> Result<(), String> {
    let on = |threads| compile(&built.module, &Options { threads, ..options.clone() }).map_err(|d| d.to_string());
    let (one, two) = (on(1)?, twice.then(|| on(2)).transpose()?);
    // Twice, since buffers are used again.
    for run in runs.iter().chain(runs) {
        let Run { bindings, inputs, want, .. } = run;
        let found = one.run(inputs, bindings).map_err(|d| d.to_string())?;
        if let Some(two) = &two {
            let threads = two.run(inputs, bindings).map_err(|d| d.to_string())?;
            if found.iter().zip(&threads).any(|(a, b)| a.bytes()[..] != b.bytes()[..]) {
                return Err("two threads change the result".into());
            }
        }
        for (i, (x, y)) in found.iter().zip(want).enumerate() {
            if x.dtype() != y.dtype() || x.shape() != y.shape() {
                return Err(format!("result {i} is {}{:?}", x.dtype(), x.shape()));
            }
            let same = !y.dtype().is_float() && x.bytes()[..] == y.bytes()[..];
            let values = x.to_f64().ok_or("a block encoding")?;
            if !same {
                compare(i, &values, run, built, exact(options))?;
            }
        }
    }
    Ok(())
}

fn kernels(built: &Built, options: &Options, runs: &[Run<'_>]) -> Result<(), String> {
    let programs = lower(&built.module, options).map_err(|d| d.to_string())?;
    for program in &programs {
        program.kernels.iter().try_for_each(program::check)?;
    }
    if built.wraps {
        return Ok(());
    }
    for run in runs {
        let Run { bindings, inputs, .. } = run;
        let found = tilewright::programs::run(&programs, "main", inputs, bindings).map_err(|d| d.to_string())?;
        for (i, x) in found.iter().enumerate() {
            let values: Vec<f64> = match &x.data {
                Data::Float(v) => v.clone(),
                Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
                Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
            };
            compare(i, &values, run, built, exact(options)).map_err(|e| {
                let text = programs.iter().fold(String::new(), |mut out, p| {
                    let _ = write!(out, "{}", print_program(p));
                    out
                });
                format!("{e}\n{text}")
            })?;
        }
    }
    Ok(())
}

/// Whether no rule may reorder anything.
fn exact(options: &Options) -> bool {
    options.opt_level < 2 || options.numerics == Numerics::Exact
}

/// Numbers must be equal, both NaN, or as near as the bound says.
fn compare(result: usize, found: &[f64], run: &Run<'_>, built: &Built, exact: bool) -> Result<(), String> {
    let bound = &built.bounds[result];
    let want = run.want[result].to_f64().ok_or("a block encoding")?;
    if found.len() != want.len() {
        return Err(format!("result {result} has {} elements instead of {}", found.len(), want.len()));
    }
    // Rules that reorder may make a NaN of an infinity, or the other way round.
    let free = built.infinite && !exact;
    let loose = |a: f64, b: f64| free && !a.is_finite() && !b.is_finite();
    let near = |a: f64, b: f64| loose(a, b) || a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= bound.error;
    let unsure = |i: usize| run.unsure.get(result).and_then(|of| of.get(i)) == Some(&true);
    let wrong: Vec<usize> = (0..want.len()).filter(|&i| !near(found[i], want[i]) && !unsure(i)).collect();
    let Some(&first) = wrong.first() else { return Ok(()) };
    let (a, b) = (found[first], want[first]);
    let many = format!("{} of {} elements", wrong.len(), want.len());
    Err(format!("result {result}: {a} instead of {b} at {first}, {many} are wrong, allowed is {:e}", bound.error))
}
