//! From what the passes explain to the report.

use super::{Barrier, Chain, Cost, FunctionReport, Kernel, Node, Second, Step};
use crate::snapshot::{attribute, counted};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, NodeId, Value};
use tilewright_ir::infer::shown_name;
use tilewright_ir::kernel::Step as ProgramStep;
use tilewright_ir::text::value_name;
use tilewright_ir::types::Bindings;
use tilewright_passes::egraph::cover::Bound;
use tilewright_passes::egraph::explain::Texts;
use tilewright_passes::egraph::{Id, assumptions, explain};
use tilewright_passes::{Explained, ExplainedKernel, Lowered, Origin, PricedKernel};

/// Most values, scopes and places that a step names.
const NAMED: usize = 6;

/// The report of a function, without its memory.
pub(super) fn function(f: &Function, found: &Result<Explained, Diagnostic>) -> Result<FunctionReport, Diagnostic> {
    let mut report = FunctionReport {
        name: f.name.to_string(),
        beyond: None,
        notes: Vec::new(),
        sizes: BTreeMap::new(),
        levels: [Cost::default(); 3],
        bound: 0.0,
        peak: None,
        used: Vec::new(),
        unused: Vec::new(),
        kernels: Vec::new(),
        barriers: Vec::new(),
        graph: Vec::new(),
        chosen: Vec::new(),
    };
    let found = match found {
        Ok(found) => found,
        Err(warning) => {
            report.beyond = Some(warning.message.clone());
            report.graph = graph(f, &[]);
            return Ok(report);
        }
    };
    report.notes = found.notes.iter().map(|n| n.message.clone()).collect();
    report.sizes = found.sizes.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    let sum = |seconds: &mut dyn Iterator<Item = f64>| Some(seconds.sum()).filter(|s: &f64| s.is_finite());
    report.levels = [0, 1, 2].map(|n| cost(&found.levels[n], |_| true, &found.sizes));
    report.levels[0].seconds = sum(&mut found.before[0].values().copied());
    report.levels[1].seconds = sum(&mut found.before[1].values().copied());
    report.levels[2].seconds = sum(&mut found.kernels.iter().map(|k| k.price.seconds));
    report.bound = found.bound;
    report.barriers = found.barriers.iter().filter_map(|(node, k)| barrier(found, *node, k)).collect();
    report.barriers.extend(written(found));
    let always: f64 = report.barriers.iter().filter_map(|b| b.cost.seconds).sum();
    report.levels.iter_mut().for_each(|level| level.seconds = level.seconds.map(|s| s + always));
    report.bound += always;
    report.kernels = found.kernels.iter().enumerate().map(|(n, k)| kernel(found, n, k)).collect();
    let steps = report.kernels.iter().flat_map(|k| &k.chains).filter_map(|c| c.steps.as_ref()).flatten();
    let used: BTreeSet<&str> = steps.filter(|s| s.line.is_some()).map(|s| s.rule.as_str()).collect();
    let fired = || found.fired.iter().map(|f| f.rule.to_string());
    let (own, other) = fired().partition(|name| used.contains(name.as_str()));
    (report.used, report.unused) = (own, other);
    let replaces: Vec<&BTreeSet<NodeId>> = found.kernels.iter().map(|k| &k.reason.replaces).collect();
    report.graph = graph(&found.function, &replaces);
    report.chosen = chosen(found);
    Ok(report)
}

/// What the steps of a program cost that were made for something.
fn cost(lowered: &Lowered, wanted: impl Fn(&Origin) -> bool, sizes: &Bindings) -> Cost {
    let mut out = Cost { launches: 0, flops: Some(0), bytes: Some(0), seconds: None };
    for (_, steps) in lowered.origins.iter().filter(|(origin, _)| wanted(origin)) {
        let steps = lowered.program.steps.get(steps.clone()).unwrap_or_default();
        for kernel in counted(&lowered.program, steps).0 {
            let number = |name: &str| attribute(kernel, name).and_then(|d| d.eval(sizes).ok());
            out.launches += 1;
            out.flops = out.flops.zip(number("flops")).map(|(a, b)| a.saturating_add(b));
            out.bytes = out.bytes.zip(number("bytes")).map(|(a, b)| a.saturating_add(b));
        }
    }
    out
}

/// Names of the kernels that were made for something.
fn names(lowered: &Lowered, wanted: Origin) -> Vec<String> {
    let steps = lowered.origins.iter().filter(|(origin, _)| *origin == wanted);
    let steps = steps.flat_map(|(_, range)| lowered.program.steps.get(range.clone()).unwrap_or_default());
    let mut names: Vec<String> = Vec::new();
    for step in steps {
        if let ProgramStep::Launch(launch) = step
            && let Some(kernel) = lowered.program.kernels.get(launch.kernel)
            && !names.iter().any(|n| *n == *kernel.name)
        {
            names.push(kernel.name.to_string());
        }
    }
    names
}

/// The kernels of a node without terms; none where nothing is started for it.
fn barrier(found: &Explained, node: NodeId, priced: &PricedKernel) -> Option<Barrier> {
    let program = &found.levels[2];
    let mut cost = cost(program, |o| *o == Origin::Node(node), &found.sizes);
    cost.seconds = Some(priced.price.seconds);
    let names = names(program, Origin::Node(node));
    let operation = operation(&found.function, node);
    let why = found.import.barriers.get(&node).cloned().unwrap_or_default();
    (cost.launches > 0).then(|| Barrier { operation, why, names, bound_by: bound_by(priced.price.bound), cost })
}

/// Values that are written out as they are for what reads them from memory.
fn written(found: &Explained) -> Vec<Barrier> {
    let program = &found.levels[2];
    let roots: BTreeSet<Value> =
        program.origins.iter().filter_map(|(o, _)| if let Origin::Root(v) = o { Some(*v) } else { None }).collect();
    let one = |value: Value| {
        let cost = cost(program, |o| *o == Origin::Root(value), &found.sizes);
        let operation = operation(&found.function, value.node);
        let why = "written out as a tensor of its own".to_string();
        let names = names(program, Origin::Root(value));
        (cost.launches > 0).then_some(Barrier { operation, why, names, bound_by: bound_by(Bound::Memory), cost })
    };
    roots.into_iter().filter_map(one).collect()
}

fn bound_by(bound: Bound) -> &'static str {
    match bound {
        Bound::Matrix => "products",
        Bound::Vector => "elementwise work",
        Bound::Memory => "memory",
        Bound::Launch => "launch",
    }
}

fn kernel(found: &Explained, number: usize, k: &ExplainedKernel) -> Kernel {
    let program = &found.levels[2];
    let mut here = cost(program, |o| *o == Origin::Cut(number), &found.sizes);
    here.seconds = Some(k.price.seconds);
    let before = [0, 1].map(|level| {
        let mine = |o: &Origin| matches!(o, Origin::Node(node) if k.reason.replaces.contains(node));
        let mut cost = cost(&found.levels[level], mine, &found.sizes);
        let seconds = found.before[level].iter().filter(|(node, _)| k.reason.replaces.contains(*node));
        cost.seconds = Some(seconds.map(|(_, s)| s).sum()).filter(|s: &f64| s.is_finite());
        cost
    });
    let named = |classes: &[Id]| classes.iter().map(|class| format!("k{class}")).collect();
    let work = |node: &&NodeId| found.before[0].contains_key(*node);
    Kernel {
        names: names(program, Origin::Cut(number)),
        template: k.template.clone(),
        terms: k.terms.clone(),
        bound_by: bound_by(k.price.bound),
        cost: here,
        before,
        replaces: k.reason.replaces.iter().filter(work).map(|node| operation(&found.function, *node)).collect(),
        chains: chains(found, k),
        reads: named(&k.reads),
        second: k.second.as_ref().map(|s| Second {
            template: s.template.clone(),
            reads: named(&s.reads),
            loss: s.loss,
        }),
    }
}

/// `mul %3`.
fn operation(f: &Function, node: NodeId) -> String {
    let value = Value { node, index: 0 };
    format!("{} {}", shown_name(&f.node(value).op), value_name(f, value))
}

fn chains(found: &Explained, k: &ExplainedKernel) -> Vec<Chain> {
    let f = &found.function;
    let texts = Texts::new(f, &found.chains, &found.rules);
    let one = |s: &explain::Step| {
        let rule = texts.rule(s);
        let class = rule.map_or_else(
            || "exact".into(),
            |r| {
                let assumed: Vec<String> = assumptions(&r.class).iter().map(ToString::to_string).collect();
                let assumed = if assumed.is_empty() { String::new() } else { format!("({})", assumed.join(", ")) };
                format!("{}{assumed}", r.class)
            },
        );
        let [before, after] = texts.step(s);
        let nodes = || s.nodes.iter().filter(|n| n.index() >= f.params.len());
        let each = |of: &dyn Fn(NodeId) -> Vec<String>| -> Vec<String> {
            let mut seen = Vec::new();
            for text in nodes().flat_map(|n| of(*n)).filter(|t| !t.is_empty()) {
                if !seen.contains(&text) && seen.len() < NAMED {
                    seen.push(text);
                }
            }
            seen
        };
        let node = |n: NodeId| f.node(Value { node: n, index: 0 });
        Step {
            rule: s.rule.to_string(),
            class,
            line: rule.map(|r| format!("{}:{}", r.line.file, r.line.number)),
            forward: s.forward,
            before,
            after,
            values: each(&|n| vec![operation(f, n)]),
            scopes: each(&|n| vec![node(n).scope.to_string()]),
            places: each(&|n| node(n).places.iter().map(ToString::to_string).collect()),
        }
    };
    let stored = k.reason.stored.iter().map(|s| Chain {
        value: s.value.map(|v| value_name(f, v)),
        stored_as: format!("k{}", s.class),
        steps: s.chain.as_ref().map(|c| c.steps.iter().map(one).collect()),
    });
    stored.collect()
}

/// The live nodes of a function.
fn graph(f: &Function, replaces: &[&BTreeSet<NodeId>]) -> Vec<Node> {
    let mut numbers: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for ((id, node), live) in (0u32..).map(NodeId).zip(&f.nodes).zip(f.live()) {
        if !live {
            continue;
        }
        let name = value_name(f, Value { node: id, index: 0 });
        let is_param = id.index() < f.params.len();
        let label = if is_param { name.clone() } else { format!("{} {name}", shown_name(&node.op)) };
        let types: Vec<String> = node.types.iter().map(ToString::to_string).collect();
        let mut detail = vec![types.join(", ")];
        detail.extend(Some(node.scope.to_string()).filter(|s| !s.is_empty()));
        detail.extend(node.places.iter().take(NAMED).map(ToString::to_string));
        let operands: BTreeSet<usize> = node.args.iter().filter_map(|a| numbers.get(&a.node).copied()).collect();
        let kernels = (0..replaces.len()).filter(|k| replaces[*k].contains(&id)).collect();
        numbers.insert(id, out.len());
        out.push(Node { label, detail, operands: operands.into_iter().collect(), kernels });
    }
    out
}

/// The terms of the kernels, operands first.
fn chosen(found: &Explained) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::new();
    let mut stored: BTreeMap<Id, usize> = BTreeMap::new();
    for (number, k) in found.kernels.iter().enumerate() {
        let values: BTreeMap<_, _> = k.drawn.iter().map(|d| (d.class, d)).collect();
        let mut here: BTreeMap<Id, usize> = BTreeMap::new();
        let mut stack: Vec<(Id, bool)> = k.reason.stored.iter().map(|s| (s.class, false)).collect();
        while let Some((class, done)) = stack.pop() {
            let Some(d) = values.get(&class).filter(|_| !here.contains_key(&class)) else { continue };
            if !done {
                stack.push((class, true));
                stack.extend(d.operands.iter().filter(|o| !here.contains_key(o)).map(|&o| (o, false)));
                continue;
            }
            let operands = d.operands.iter().filter_map(|o| here.get(o).or_else(|| stored.get(o)).copied()).collect();
            let dtype = d.dtype.map_or(String::new(), |t| t.to_string());
            let mut detail = vec![format!("{dtype}[{}]", d.axes)];
            if let Some(s) = k.reason.stored.iter().find(|s| s.class == class) {
                let value = s.value.map_or(String::new(), |v| format!(", {}", value_name(&found.function, v)));
                detail.push(format!("stored as k{class}{value}"));
            }
            here.insert(class, out.len());
            out.push(Node { label: d.label.clone(), detail, operands, kernels: vec![number] });
        }
        stored.extend(k.reason.stored.iter().filter_map(|s| Some((s.class, *here.get(&s.class)?))));
    }
    out
}
