//! The way back from the e-graph: without rules, the graph that comes back is equal in strict mode; with them, and with the
//! terms that were chosen, it agrees like machine code does. Both are read back from their text.

use super::machine::Built;
use super::{Run, compare};
use std::collections::BTreeMap;
use tilewright::compile::{Options, Target, optimized};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::verify::verify;
use tilewright_passes::egraph::export::{Piece, export};
use tilewright_passes::egraph::{ENode, Numerics, import};

pub fn check(built: &Built, special: bool, runs: &[Run<'_>]) -> Result<(), String> {
    let module = &built.module;
    let mut plain = Module::default();
    for (name, f) in &module.functions {
        plain.functions.insert(name.clone(), unruled(module, f)?);
    }
    same_text(&plain)?;
    let numerics = if special { Numerics::Exact } else { Numerics::default() };
    let options =
        Options { opt_level: 2, numerics, threads: 1, isa: Isa::best(), ..Options::host().map_err(|d| d.to_string())? };
    let chosen = optimized(module, &options, Target::Cpu).map_err(|d| d.to_string())?;
    same_text(&chosen)?;
    for case in runs {
        let Run { bindings, inputs, .. } = case;
        let run = |module: &Module, mode| {
            interp::run(module, "main", inputs, bindings, mode).map_err(|d| format!("{d}\n{}", print(module)))
        };
        for (i, (x, y)) in run(&plain, Mode::Strict)?.iter().zip(run(module, Mode::Strict)?).enumerate() {
            let (x, y) = (x.to_f64().ok_or("a block encoding")?, y.to_f64().ok_or("a block encoding")?);
            let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
            if x.len() != y.len() || !x.iter().zip(&y).all(same) {
                return Err(format!("without rules: result {i}: {x:?} instead of {y:?}\n{}", print(&plain)));
            }
        }
        for (i, x) in run(&chosen, Mode::Meaning)?.iter().enumerate() {
            let values = x.to_f64().ok_or("a block encoding")?;
            compare(i, &values, case, built, special).map_err(|e| format!("{e}\n{}", print(&chosen)))?;
        }
    }
    Ok(())
}

fn same_text(module: &Module) -> Result<(), String> {
    let text = print(module);
    verify(module).map_err(|d| format!("{d}\n{text}"))?;
    let again = parse("back", &text).map_err(|d| format!("{d}\n{text}"))?;
    difference(module, &again).map_or(Ok(()), |found| Err(format!("another graph comes back from its text: {found}")))
}

/// A function through the e-graph without a rule: a piece for each value that must be stored.
fn unruled(module: &Module, f: &Function) -> Result<Function, String> {
    let import = import(f).map_err(|d| d.to_string())?;
    let graph = &import.graph;
    let mut outputs = Vec::new();
    for root in &import.roots {
        let class = graph.find(root.class);
        // What is in memory already is no kernel's.
        let stored =
            import.stored.iter().any(|s| import.classes.get(&s.value).is_some_and(|c| graph.find(*c) == class));
        if !stored && !outputs.contains(&[class]) {
            outputs.push([class]);
        }
    }
    let below = |root| {
        let (mut nodes, mut open) = (BTreeMap::new(), vec![root]);
        while let Some(class) = open.pop() {
            let node = &graph[class].nodes[0];
            let node = ENode::new(node.head.clone(), node.children.iter().map(|&c| graph.find(c)).collect());
            open.extend(node.children.iter().filter(|c| !nodes.contains_key(*c)));
            nodes.insert(class, node);
        }
        nodes
    };
    let nodes: Vec<_> = outputs.iter().map(|o| below(o[0])).collect();
    let pieces: Vec<Piece<'_>> =
        outputs.iter().zip(&nodes).map(|(o, nodes)| Piece { outputs: o, nodes, what: "all".into() }).collect();
    Ok(export(module, f, &import, graph, &pieces).map_err(|d| d.to_string())?.function)
}
