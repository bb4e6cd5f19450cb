//! Proofs as uses of rules. A proof is a tree that shares parts: a chain of terms, each made from the one before by a rule
//! at its root, or by proofs for its operands. Written out flat it would repeat what it shares, so each use of a rule is
//! said once, with the terms on both sides.

use super::super::facts::Graph;
use super::super::lang::ENode;
use super::Step;
use egg::{Id, TreeTerm};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// A part of a proof.
type Part = Rc<TreeTerm<ENode>>;

/// Reads one proof. Parts are told apart by their places in memory, which nothing else depends on.
pub(super) struct Reader<'t> {
    terms: &'t mut Graph,
    /// Terms with which parts begin and end.
    ends: [HashMap<*const TreeTerm<ENode>, Id>; 2],
    /// Parts whose operands were read.
    read: HashSet<*const TreeTerm<ENode>>,
    /// Uses that were said.
    said: BTreeSet<(String, Id, Id)>,
    pub steps: Vec<Step>,
}

const FIRST: usize = 0;
const LAST: usize = 1;

impl<'t> Reader<'t> {
    pub fn new(terms: &'t mut Graph) -> Reader<'t> {
        Reader { terms, ends: Default::default(), read: HashSet::new(), said: BTreeSet::new(), steps: Vec::new() }
    }

    /// Reads a proof; gives the terms that it makes equal.
    pub fn read(&mut self, proof: &[Part]) -> Option<(Id, Id)> {
        self.parts(proof)?;
        Some((self.term(proof.first()?, FIRST)?, self.term(proof.last()?, LAST)?))
    }

    fn parts(&mut self, proof: &[Part]) -> Option<()> {
        let mut before: Option<&Part> = None;
        for part in proof {
            let rule = part.forward_rule.or(part.backward_rule);
            if let (Some(rule), Some(before)) = (rule, before) {
                let (before, after) = (self.term(before, LAST)?, self.term(part, FIRST)?);
                // A rewrite is named `rule~variant~dtype`.
                let rule = rule.as_str().split('~').next().unwrap_or_default();
                if before != after && self.said.insert((rule.into(), before, after)) {
                    let (forward, nodes) = (part.forward_rule.is_some(), Vec::new());
                    self.steps.push(Step { rule: rule.into(), forward, before, after, nodes });
                }
            }
            if self.read.insert(Rc::as_ptr(part)) {
                for operand in &part.child_proofs {
                    self.parts(operand)?;
                }
            }
            before = Some(part);
        }
        Some(())
    }

    /// The term with which a part begins or ends.
    fn term(&mut self, part: &Part, end: usize) -> Option<Id> {
        if let Some(id) = self.ends[end].get(&Rc::as_ptr(part)) {
            return Some(*id);
        }
        let operands = part.child_proofs.iter();
        let pick = |proof: &[Part]| if end == FIRST { proof.first().cloned() } else { proof.last().cloned() };
        let children = operands.map(|proof| self.term(&pick(proof)?, end)).collect::<Option<Vec<Id>>>()?;
        let id = self.terms.add(ENode::new(part.node.head.clone(), children));
        self.ends[end].insert(Rc::as_ptr(part), id);
        Some(id)
    }
}
