//! Uses of rules as text: of each side as much as the rule's pattern says, with values of the graph under their names.

use super::super::facts::{Graph, Sort};
use super::super::lang::{Attr, ENode, Head};
use super::super::rules::{Rule, RuleSet};
use super::super::term::Term;
use super::super::words::Words;
use super::{Chains, Step};
use egg::Id;
use std::collections::BTreeMap;
use std::sync::Arc;
use tilewright_ir::graph::{Function, Value};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::text::value_name;

/// How deep terms without a name are written.
const DEPTH: usize = 3;

/// Writes the terms of chains.
#[derive(Clone, Copy)]
pub struct Texts<'a> {
    function: &'a Function,
    terms: &'a Graph,
    values: &'a BTreeMap<Id, Value>,
    rules: &'a RuleSet,
}

/// Which parts of a term a pattern says.
type Pattern<'p> = Option<&'p Term>;

impl<'a> Texts<'a> {
    /// For the chains of a function, made by `rules`.
    pub fn new(function: &'a Function, chains: &'a Chains, rules: &'a RuleSet) -> Texts<'a> {
        Texts { function, terms: &chains.terms, values: &chains.values, rules }
    }

    /// The rule of a step; none for one that is built in.
    pub fn rule(&self, step: &Step) -> Option<&'a Rule> {
        self.rules.rules.iter().find(|r| r.name == step.rule)
    }

    /// What a step replaces, and what by.
    pub fn step(&self, step: &Step) -> [String; 2] {
        let rule = self.rule(step);
        let left = rule.and_then(|r| r.left.variants()).unwrap_or_default();
        let (matched, made) = if step.forward { (step.before, step.after) } else { (step.after, step.before) };
        let left = left.iter().find(|p| self.fits(p, matched, &mut BTreeMap::new()));
        let right = rule.map(|r| &r.right);
        let texts = [self.open(matched, left, 0), self.open(made, right, 0)];
        if step.forward {
            texts
        } else {
            let [left, right] = texts;
            [right, left]
        }
    }

    /// Whether a term is an instance of a pattern.
    fn fits(&self, pattern: &Term, id: Id, bound: &mut BTreeMap<Arc<str>, Id>) -> bool {
        let node = self.terms.id_to_node(id);
        match pattern {
            Term::Variable(name) => *bound.entry(name.clone()).or_insert(id) == id,
            Term::Number(value) => matches!(&node.head, Head::Attr(Attr::Const(n)) if n.value() == *value),
            Term::Own(x) => {
                let cast = matches!(node.head, Head::Scalar(ScalarOp::Cast { .. }));
                cast && node.children.first().is_some_and(|&c| self.fits(x, c, bound))
            }
            Term::Apply(head, args) => {
                node.head == *head && args.iter().zip(&node.children).all(|(a, &c)| self.fits(a, c, bound))
            }
        }
    }

    /// A term whose head is written, whatever its name.
    fn open(&self, id: Id, pattern: Pattern<'_>, depth: usize) -> String {
        let node = self.terms.id_to_node(id);
        let args: &[Term] = match pattern {
            Some(Term::Apply(_, args)) => args,
            Some(Term::Own(x)) => std::slice::from_ref(&**x),
            Some(Term::Variable(_)) => return self.closed(id, depth),
            Some(Term::Number(_)) | None => &[],
        };
        let part = |(i, &c): (usize, &Id)| match args.get(i) {
            Some(pattern) => self.open(c, Some(pattern), depth),
            None => self.closed(c, depth + 1),
        };
        self.node(node, node.children.iter().enumerate().map(part).collect())
    }

    /// A term by its name, if it has one.
    fn closed(&self, id: Id, depth: usize) -> String {
        let facts = &self.terms[id].data;
        if let (Sort::Attr, Some(attr)) = (facts.sort, &facts.attr) {
            return Words(self.terms).attr(attr);
        }
        let node = self.terms.id_to_node(id);
        match self.values.get(&id) {
            Some(value) => {
                let axes = Words(self.terms).axes(facts.free);
                let axes = if axes.is_empty() { axes } else { format!("[{axes}]") };
                format!("{}{axes}", value_name(self.function, *value))
            }
            None if depth >= DEPTH && !node.children.is_empty() && node.head != Head::Load => "..".into(),
            None => self.node(node, node.children.iter().map(|&c| self.closed(c, depth + 1)).collect()),
        }
    }

    fn node(&self, node: &ENode, parts: Vec<String>) -> String {
        match &node.head {
            Head::Attr(attr) => Words(self.terms).attr(attr),
            Head::Load => parts.concat(),
            // The dtype of a position is that of its use.
            Head::Iota | Head::Extent => format!("({} {})", node.head, parts.first().map_or("", String::as_str)),
            Head::Gather | Head::At | Head::Scalar(_) | Head::Fold(_) => {
                format!("({} {})", node.head, parts.join(" "))
            }
        }
    }
}
