//! What the header of a snapshot says of functions and kernels.

use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::flops;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::kernel::{BinaryOp, Block, Expr, Kernel, Launch, Level, Program, Space, Step, Stmt};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::{Dim, SymbolDecl, Type};
use tilewright_passes::egraph::{Class, Fired};
use tilewright_runtime::plan::Plan;

/// Keys and values.
pub(super) type Facts = Vec<(String, String)>;

fn put(facts: &mut Facts, key: impl Into<String>, value: impl ToString) {
    // A fact is one line, a key ends at its first colon and space.
    let line = |s: String| s.replace(['\n', '\r'], " ");
    let key = line(key.into()).replace(": ", ":");
    let again =
        facts.iter().filter(|(k, _)| k.strip_prefix(&*key).is_some_and(|k| k.is_empty() || k.starts_with(" #")));
    let number = again.count() + 1;
    let key = if number == 1 { key } else { format!("{key} #{number}") };
    facts.push((key, line(value.to_string())));
}

/// A size, and its largest value where that is known: `64*n (at most 4096)`.
fn size(dim: &Dim, symbols: &[SymbolDecl]) -> String {
    match (dim.as_const(), dim.bounds(symbols).1) {
        (Some(n), _) => n.to_string(),
        (None, i64::MAX) => dim.to_string(),
        (None, most) => format!("{dim} (at most {most})"),
    }
}

fn total<'a>(sizes: impl IntoIterator<Item = Option<&'a Dim>>) -> Option<Dim> {
    sizes.into_iter().try_fold(Dim::constant(0), |sum, d| sum.checked_add(d?))
}

/// FLOPs and bytes of the live ops of a function, each alone. What it calls has a section of its own and is counted here by
/// `call NAME`.
pub(super) fn of_graph(f: &Function) -> Facts {
    let live = f.live();
    let nodes = || f.nodes.iter().zip(&live).skip(f.params.len()).filter(|(_, live)| **live).map(|(node, _)| node);
    let costs = nodes().filter(|n| n.callees().is_empty()).map(|node| {
        let args: Vec<&Type> = node.args.iter().map(|&a| f.ty(a)).collect();
        flops::cost(&node.op, &args, &node.types)
    });
    let costs: Vec<Option<flops::Cost>> = costs.collect();
    let mut facts = Facts::new();
    put(&mut facts, "ops", nodes().count());
    cost_facts(
        &mut facts,
        total(costs.iter().map(|c| c.as_ref().map(|c| &c.flops))),
        total(costs.iter().map(|c| c.as_ref().map(|c| &c.bytes))),
        &f.symbols,
    );
    calls(&mut facts, nodes().flat_map(|n| n.callees()).map(|name| &**name));
    facts
}

fn cost_facts(facts: &mut Facts, flops: Option<Dim>, bytes: Option<Dim>, symbols: &[SymbolDecl]) {
    for (key, sum) in [("flops", flops), ("bytes", bytes)] {
        if let Some(sum) = sum {
            put(facts, key, size(&sum, symbols));
        }
    }
}

fn calls<'a>(facts: &mut Facts, names: impl Iterator<Item = &'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts.iter().for_each(|(name, count)| put(facts, format!("call {name}"), count));
}

/// What a program launches. Of launches that exclude each other, because they write the same buffers under conditions, the
/// first counts; the others are alternatives.
pub(super) fn of_program(program: &Program, shared: &[i64]) -> Facts {
    let (counted, alternatives) = counted(program, &program.steps);
    let sum =
        |key: &str| total(counted.iter().map(|k| attribute(k, key)).collect::<Vec<_>>().iter().map(Option::as_ref));
    let mut facts = Facts::new();
    put(&mut facts, "launches", counted.len());
    if alternatives > 0 {
        put(&mut facts, "alternative launches", alternatives);
    }
    cost_facts(&mut facts, sum("flops"), sum("bytes"), &program.symbols);
    if let Some(most) = shared.iter().max() {
        put(&mut facts, "shared memory", format!("{most} bytes at most"));
    }
    let packs = program.steps.iter().filter(|s| matches!(s, Step::Pack(_))).count();
    if packs > 0 {
        put(&mut facts, "packs", packs);
    }
    let callees = program.steps.iter().flat_map(|s| match s {
        Step::Call(c) => vec![&*c.function],
        Step::Cond(c) => vec![&*c.yes.function, &*c.no.function],
        Step::Scan(s) => vec![&*s.body.function],
        Step::Launch(_) | Step::Pack(_) => Vec::new(),
    });
    calls(&mut facts, callees);
    facts
}

/// The kernels that steps of a program launch, and how many launches are alternatives of others.
pub(crate) fn counted<'a>(program: &'a Program, steps: &'a [Step]) -> (Vec<&'a Kernel>, usize) {
    let (mut counted, mut alternatives) = (Vec::new(), 0);
    let mut written: BTreeSet<Vec<&str>> = BTreeSet::new();
    for step in steps {
        let Step::Launch(launch) = step else { continue };
        let Some(kernel) = program.kernels.get(launch.kernel) else { continue };
        if launch.when.is_some() && !written.insert(outputs(kernel, launch)) {
            alternatives += 1;
        } else {
            counted.push(kernel);
        }
    }
    (counted, alternatives)
}

fn outputs<'a>(kernel: &Kernel, launch: &'a Launch) -> Vec<&'a str> {
    let named = kernel.arguments.iter().zip(&launch.arguments);
    named.filter(|(b, _)| matches!(b.space, Space::Out | Space::InOut)).map(|(_, name)| &**name).collect()
}

/// An attribute of a kernel that is a size.
pub(crate) fn attribute(kernel: &Kernel, name: &str) -> Option<Dim> {
    dim(kernel.attrs.iter().find(|a| &*a.name == name)?.args.first()?)
}

/// An expression over symbols, as a polynomial.
fn dim(e: &Expr) -> Option<Dim> {
    match e {
        Expr::Int(n) => Some(Dim::constant(*n)),
        Expr::Name(name) => Some(Dim::symbol(name)),
        Expr::Scalar(op, args) => {
            let (a, b) = (dim(args.first()?)?, dim(args.get(1)?)?);
            match op {
                ScalarOp::Add {} => a.checked_add(&b),
                ScalarOp::Sub {} => a.checked_sub(&b),
                ScalarOp::Mul {} => a.checked_mul(&b),
                _other => None,
            }
        }
        Expr::Binary(op, a, b) => {
            let n = dim(b)?.as_const().filter(|n| *n > 0)?;
            let a = dim(a)?;
            Some(match op {
                BinaryOp::Ceil => a.ceil_div(n),
                BinaryOp::Floor => a.floor_div(n),
                BinaryOp::Mod => a.modulo(n),
            })
        }
        Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => None,
    }
}

/// The peak of a memory plan.
pub(super) fn of_plan(facts: &mut Facts, plan: &Plan) {
    let most = plan.peak.bound(&plan.symbols).map_or(String::new(), |b| format!(" (at most {b})"));
    put(facts, "peak memory", format!("{}{most}", plan.peak));
}

/// The rules that fired.
pub(super) fn of_rules(facts: &mut Facts, fired: &[Fired]) {
    for Fired { rule, class, times } in fired {
        let class = match class {
            Class::Approx(words) => format!("{class}, {words}"),
            Class::Exact | Class::Rounding | Class::Reassociates | Class::Domain(_) => class.to_string(),
        };
        let s = if *times == 1 { "" } else { "s" };
        put(facts, format!("rule {rule}"), format!("{class}, {times} time{s}"));
    }
}

/// The cost and the schedule of a kernel; `shared` is the shared memory of a block in bytes.
pub(super) fn of_kernel(kernel: &Kernel, launches: &[&Launch], shared: Option<i64>) -> Facts {
    let mut facts = Facts::new();
    cost_facts(&mut facts, attribute(kernel, "flops"), attribute(kernel, "bytes"), &kernel.symbols);
    if let Some(bytes) = shared {
        put(&mut facts, "shared memory", format!("{bytes} bytes"));
    }
    match launches {
        [one] => {
            if let Some(when) = &one.when {
                put(&mut facts, "when", when);
            }
        }
        many => put(&mut facts, "launches", many.len()),
    }
    for attr in kernel.attrs.iter().filter(|a| !matches!(&*a.name, "flops" | "bytes" | "require")) {
        let args: Vec<String> = attr.args.iter().map(Expr::to_string).collect();
        put(&mut facts, &*attr.name, if args.is_empty() { "yes".to_string() } else { args.join(", ") });
    }
    let mut found = Schedule::default();
    found.block(&kernel.body);
    facts.extend(found.pars);
    let nest = loops(&kernel.body);
    if !nest.is_empty() {
        put(&mut facts, "loops", nest);
    }
    if !found.products.is_empty() {
        let each = found.products.iter().map(|(row, n)| if *n == 1 { row.clone() } else { format!("{row} x{n}") });
        put(&mut facts, "mma", each.collect::<Vec<_>>().join(", "));
    }
    facts.extend(found.buffers);
    facts
}

/// Grids, products and buffers of a kernel.
#[derive(Default)]
struct Schedule {
    pars: Facts,
    products: BTreeMap<String, usize>,
    buffers: Facts,
}

impl Schedule {
    fn block(&mut self, block: &Block) {
        for stmt in block {
            match stmt {
                Stmt::Par { vars, level, .. } => {
                    let key = match level {
                        Level::Grid => "grid",
                        Level::Cluster => "cluster",
                        Level::Warp => "warps",
                    };
                    let vars: Vec<String> = vars.iter().map(|(v, extent)| format!("{v} in {extent}")).collect();
                    put(&mut self.pars, key, vars.join(", "));
                }
                Stmt::Buffer(b) => {
                    // `space name: type`
                    let (text, space) = (b.to_string(), b.space.to_string());
                    let ty = text.split_once(": ").map_or("", |(_, ty)| ty).to_string();
                    put(&mut self.buffers, format!("buffer {}", b.name), format!("{space} {ty}"));
                }
                Stmt::Pipe(p) => {
                    put(&mut self.buffers, format!("pipe {}", p.name), format!("{} stages via {}", p.stages, p.via));
                }
                Stmt::Mma { via, .. } => *self.products.entry(via.to_string()).or_default() += 1,
                _no_part_of_the_schedule => {}
            }
            stmt.blocks().into_iter().for_each(|inside| self.block(inside));
        }
    }
}

/// Loops inside loops: `i in 0 .. 4 { j in 0 .. n }; k in 0 .. 2`.
fn loops(block: &Block) -> String {
    let mut found = Vec::new();
    for stmt in block {
        let inside: Vec<String> = stmt.blocks().into_iter().map(loops).filter(|s| !s.is_empty()).collect();
        let inside = inside.join("; ");
        if let Stmt::For { var, low, high, step, .. } = stmt {
            let step = step.as_ref().map_or(String::new(), |s| format!(" step {s}"));
            let inside = if inside.is_empty() { String::new() } else { format!(" {{ {inside} }}") };
            found.push(format!("{var} in {low} .. {high}{step}{inside}"));
        } else if !inside.is_empty() {
            found.push(inside);
        }
    }
    found.join("; ")
}

/// Bytes of shared memory of each kernel of each program. Errors: those of the emitter.
pub(super) fn shared(programs: &[Program]) -> Result<Vec<Vec<i64>>, Diagnostic> {
    let emitted = tilewright_codegen::cuda::emit_programs(programs)?;
    Ok(emitted.kernels.iter().map(|kernels| kernels.iter().map(|k| k.shared_bytes).collect()).collect())
}

/// The functions of a module that is a stage.
pub(super) fn of_module(module: &Module) -> Vec<(String, Facts)> {
    module.functions.values().map(|f| (f.name.to_string(), of_graph(f))).collect()
}
