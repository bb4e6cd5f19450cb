//! A cover as text: per kernel its template, what it stores, computes and reads, what it takes, and what came second.

use super::super::facts::{Graph, Sort};
use super::super::index::Import;
use super::super::lang::{ENode, Head};
use super::super::words::Words;
use super::{Bound, Cover, Cut, Explanation, Kind};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tilewright_ir::graph::{Function, NodeId};

/// Names of the graph's parts.
struct Names<'a> {
    graph: &'a Graph,
    words: Words<'a>,
    cut: &'a Cut,
    /// Values of the cut that have a line of their own: they are used more than once.
    lines: BTreeMap<Id, usize>,
}

impl Names<'_> {
    /// A value where it is used.
    fn used(&self, class: Id) -> String {
        match (self.lines.get(&class), self.cut.nodes.get(&class)) {
            (Some(line), _) => format!("%{line}"),
            (None, Some(node)) => self.node(node),
            (None, None) => format!("k{class}[{}]", self.words.axes(self.graph[class].data.free)),
        }
    }

    fn node(&self, node: &ENode) -> String {
        let child = |&c: &Id| match (self.graph[c].data.sort, &self.graph[c].data.attr) {
            (Sort::Attr, Some(attr)) => self.words.attr(attr),
            (Sort::Attr | Sort::Value(_), _) => self.used(c),
        };
        let shown: Vec<String> = node.children.iter().map(child).collect();
        match &node.head {
            Head::Attr(attr) => self.words.attr(attr),
            Head::Load => shown.concat(),
            Head::Iota | Head::Extent => format!("({} {})", node.head, shown.first().map_or("", String::as_str)),
            Head::Gather | Head::At | Head::Scalar(_) | Head::Fold(_) => {
                format!("({} {})", node.head, shown.join(" "))
            }
        }
    }
}

/// Values with a line of their own, operands first: outputs, and what is used twice and is no leaf.
fn lines(cut: &Cut) -> Vec<Id> {
    let mut uses: BTreeMap<Id, usize> = BTreeMap::new();
    for child in cut.nodes.values().flat_map(|n| &n.children) {
        *uses.entry(*child).or_default() += 1;
    }
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    let mut stack: Vec<(Id, bool)> = cut.outputs.iter().rev().map(|&o| (o, false)).collect();
    while let Some((class, done)) = stack.pop() {
        let Some(node) = cut.nodes.get(&class) else { continue };
        if done {
            let leaf = matches!(node.head, Head::Attr(_) | Head::Load | Head::Iota | Head::Extent);
            let twice = !leaf && uses.get(&class).copied().unwrap_or(0) > 1;
            if twice || cut.outputs.contains(&class) {
                order.push(class);
            }
        } else if seen.insert(class) {
            stack.push((class, true));
            stack.extend(node.children.iter().rev().map(|&c| (c, false)));
        }
    }
    order
}

fn seconds(value: f64) -> String {
    if value.is_infinite() {
        return "-".into();
    }
    if value >= 1e-3 { format!("{:.2} ms", value * 1e3) } else { format!("{:.2} us", value * 1e6) }
}

fn kind(names: &Names<'_>, kind: &Kind) -> String {
    let list = |axes: &[u8]| axes.iter().map(|&a| names.words.axis(a)).collect::<Vec<_>>().join(" ");
    let name = kind.name();
    match kind {
        Kind::Copy | Kind::Pointwise | Kind::Row | Kind::Generic => name.into(),
        Kind::Contraction(products) => {
            let one =
                |p: &super::Product| format!("({}) x ({}) over ({})", list(&p.rows), list(&p.columns), list(&p.depth));
            format!("{name} {}", products.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Kind::Attention { key, .. } => format!("{name} over keys of depth ({})", list(&key.depth)),
    }
}

/// Classes whose chosen node only a rule made, not the import.
pub fn rewritten(cut: &Cut, graph: &Graph, import: &Import) -> BTreeSet<Id> {
    let canonical = |node: &ENode| -> Vec<Id> { node.children.iter().map(|&c| graph.find(c)).collect() };
    let imported: BTreeSet<(&Head, Vec<Id>)> =
        import.graph.classes().flat_map(|c| &c.nodes).map(|n| (&n.head, canonical(n))).collect();
    cut.nodes.iter().filter(|(_, n)| !imported.contains(&(&n.head, n.children.to_vec()))).map(|n| *n.0).collect()
}

/// Nodes of the function whose value a cut computes or reads from memory.
pub fn origins(cut: &Cut, graph: &Graph, import: &Import) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::new();
    for (class, nodes) in &import.origins {
        if cut.nodes.contains_key(&graph.find(*class)) {
            found.extend(nodes.iter().copied());
        }
    }
    found
}

fn origin_text(cut: &Cut, graph: &Graph, function: &Function, import: &Import) -> String {
    let shown = origins(cut, graph, import).into_iter().filter_map(|id| {
        let node = function.nodes.get(id.index())?;
        (id.index() >= function.params.len()).then(|| format!("{}@{}", node.op.info().name, id.0))
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The terms of a cut, a line for each value that is stored or used twice.
pub fn terms(graph: &Graph, cut: &Cut) -> String {
    let mut out = String::new();
    print_cut(&mut out, graph, cut);
    out
}

/// The template of a cut with its axes.
pub fn template(graph: &Graph, cut: &Cut) -> String {
    kind(&Names { graph, words: Words(graph), cut, lines: BTreeMap::new() }, &cut.kind)
}

/// Writes the terms of a cut.
fn print_cut(out: &mut String, graph: &Graph, cut: &Cut) {
    let order = lines(cut);
    let lines: BTreeMap<Id, usize> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
    let mut names = Names { graph, words: Words(graph), cut, lines };
    for (number, class) in order.iter().enumerate() {
        let Some(node) = cut.nodes.get(class) else { continue };
        names.lines.remove(class);
        let text = names.node(node);
        names.lines.insert(*class, number);
        let stored = if cut.outputs.contains(class) { format!(" -> k{class}") } else { String::new() };
        let axes = names.words.axes(graph[*class].data.free);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  %{number}[{axes}] = {text}{stored}");
    }
}

/// The cover as text: the answer to which kernels there are and why.
pub fn print_cover(
    cover: &Cover,
    explanation: &Explanation,
    graph: &Graph,
    function: &Function,
    import: &Import,
) -> String {
    let mut out = String::new();
    let gap = if cover.price > 0.0 { 100.0 * (1.0 - explanation.bound / cover.price) } else { 0.0 };
    let c = cover.counts;
    let _ = writeln!(
        out,
        "{} kernels, {}; no choice among these cuts takes less than {} (gap {gap:.1} %)",
        cover.cuts.len(),
        seconds(cover.price),
        seconds(explanation.bound)
    );
    let _ = writeln!(
        out,
        "{} bodies, {} dropped, {} priced from memory; {} covers compared, {} sets searched",
        c.enumerated, c.pruned, c.remembered, c.evaluations, c.states
    );
    for (number, (cut, other)) in cover.cuts.iter().zip(&explanation.alternatives).enumerate() {
        let names = Names { graph, words: Words(graph), cut, lines: BTreeMap::new() };
        let p = cut.price;
        let bound = match p.bound {
            Bound::Matrix => "products",
            Bound::Vector => "elementwise work",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
        };
        let _ = writeln!(out, "\nkernel {number}: {}", kind(&names, &cut.kind));
        print_cut(&mut out, graph, cut);
        let _ = writeln!(
            out,
            "  {} ({bound}): products {}, elementwise {}, memory {}, launch {}; {:.0} FLOPs in products, {:.0} bytes",
            seconds(p.seconds),
            seconds(p.matrix),
            seconds(p.vector),
            seconds(p.memory),
            seconds(p.launch),
            p.flops,
            p.bytes
        );
        let _ = writeln!(out, "  from {}", origin_text(cut, graph, function, import));
        let made = rewritten(cut, graph, import);
        let made: BTreeSet<String> = made.iter().filter_map(|c| cut.nodes.get(c)).map(|n| n.head.to_string()).collect();
        if !made.is_empty() {
            let _ = writeln!(out, "  made by rules: {}", made.into_iter().collect::<Vec<_>>().join(" "));
        }
        match &other.cut {
            Some(second) => {
                let names = Names { graph, words: Words(graph), cut: second, lines: BTreeMap::new() };
                let reads: Vec<String> = second.inputs.iter().map(|i| format!("k{i}")).collect();
                let reads = if reads.is_empty() { "nothing".to_string() } else { reads.join(" ") };
                let kind = kind(&names, &second.kind);
                let _ = writeln!(out, "  next: {kind} that reads {reads}, {} more", seconds(other.loss));
            }
            None => out.push_str("  next: nothing else computes this\n"),
        }
    }
    out
}
