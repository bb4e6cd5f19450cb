//! What no result needs is not asked of the functions that are run: operands and results that only a loop or a branch passes on.
//!
//! before: `%1, %2 = scan %a, %b body=@f carries=2`, of which `%1` is read, and `@f` makes its first carry of the first
//! after:  `%1 = scan %a body=@f.part carries=1`
//! keeps: values bit for bit, types, places.    cost: O(nodes) for each function and set of results.
//!
//! Functions with a rule for their derivative are left as they are, as the rule has their operands.

use crate::build::{Build, add, fresh};
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Node, NodeId, Param, Value};
use tilewright_ir::op::{GraphOp, Name};
use tilewright_ir::types::{Dim, Symbol};

/// A function, and which of its results are read.
type Ask = (Name, Vec<bool>);

/// What an operand is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    /// A result is made of its value.
    Value,
    /// That, or a size that something has is known by its shape.
    Anything,
}

/// Functions that were looked at.
#[derive(Debug, Default)]
pub struct Prune {
    reads: BTreeMap<(Ask, For), Vec<bool>>,
    made: BTreeMap<Ask, Name>,
}

impl Prune {
    /// A function like `name` that takes only the operands of which its results are made, and which these are.
    ///
    /// Errors: those of type inference.
    pub fn function(&mut self, module: &mut Module, name: &Name) -> Result<(Name, Vec<bool>), Diagnostic> {
        let asked = vec![true; known(module, name)?.results.len()];
        let reads = self.reads(module, name, &asked, For::Anything)?;
        Ok((self.part(module, name, &asked, &reads)?, reads))
    }

    /// The operands of `name` of whose values its results are made.
    ///
    /// Errors: those of type inference.
    pub fn values(&mut self, module: &Module, name: &Name) -> Result<Vec<bool>, Diagnostic> {
        self.reads(module, name, &vec![true; known(module, name)?.results.len()], For::Value)
    }

    /// `f`, which asks the functions that it runs for what its results need only.
    ///
    /// Errors: those of type inference.
    pub fn inside(&mut self, module: &mut Module, f: &Function) -> Result<Function, Diagnostic> {
        self.copied(module, f, &f.name, (&vec![true; f.results.len()], &vec![true; f.params.len()]))
    }

    /// Two functions of the same operands that take only those of which the results of one are made, and which these are.
    ///
    /// Errors: those of type inference.
    pub fn branches(&mut self, module: &mut Module, names: [&Name; 2]) -> Result<([Name; 2], Vec<bool>), Diagnostic> {
        let asked = vec![true; known(module, names[0])?.results.len()];
        let reads = self.either(module, names, &asked, For::Anything)?;
        let [yes, no] = names;
        Ok(([self.part(module, yes, &asked, &reads)?, self.part(module, no, &asked, &reads)?], reads))
    }

    /// Which operands of `name` the results `asked` are made of.
    fn reads(&mut self, module: &Module, name: &Name, asked: &[bool], what: For) -> Result<Vec<bool>, Diagnostic> {
        let ask = ((name.clone(), asked.to_vec()), what);
        if let Some(reads) = self.reads.get(&ask) {
            return Ok(reads.clone());
        }
        let f = known(module, name)?;
        let needed = self.needed(module, f, asked, what)?;
        let reads: Vec<bool> = needed[..f.params.len()].iter().map(|own| own[0]).collect();
        self.reads.insert(ask, reads.clone());
        Ok(reads)
    }

    fn either(
        &mut self,
        module: &Module,
        names: [&Name; 2],
        asked: &[bool],
        what: For,
    ) -> Result<Vec<bool>, Diagnostic> {
        let (a, b) = (self.reads(module, names[0], asked, what)?, self.reads(module, names[1], asked, what)?);
        Ok(a.into_iter().zip(b).map(|(a, b)| a || b).collect())
    }

    /// Which results of each node of `f` the results `asked` are made of, parameters that bind sizes among them.
    fn needed(
        &mut self,
        module: &Module,
        f: &Function,
        asked: &[bool],
        what: For,
    ) -> Result<Vec<Vec<bool>>, Diagnostic> {
        let mut needed: Vec<Vec<bool>> = f.nodes.iter().map(|n| vec![false; n.types.len()]).collect();
        let need = |needed: &mut Vec<Vec<bool>>, v: Value| needed[v.node.index()][v.index as usize] = true;
        f.results.iter().zip(asked).filter(|(_, asked)| **asked).for_each(|(r, _)| need(&mut needed, *r));
        for i in (f.params.len()..f.nodes.len()).rev() {
            if !needed[i].contains(&true) {
                continue;
            }
            let (reads, _) = self.operands(module, &f.nodes[i], &needed[i], what)?;
            f.nodes[i].args.iter().zip(reads).filter(|(_, read)| *read).for_each(|(a, _)| need(&mut needed, *a));
        }
        if what == For::Value {
            return Ok(needed);
        }
        // What binds one size may have others.
        while let Some(first) = sizes(f, &needed).iter().find_map(|symbol| unbound(f, &needed, symbol)) {
            needed[first][0] = true;
        }
        Ok(needed)
    }

    /// Which operands of a node its results `asked` are made of, and which results it then has.
    fn operands(
        &mut self,
        module: &Module,
        node: &Node,
        asked: &[bool],
        what: For,
    ) -> Result<(Vec<bool>, Vec<bool>), Diagnostic> {
        let all = (vec![true; node.args.len()], vec![true; asked.len()]);
        if node.callees().iter().any(|f| module.functions.get(*f).is_some_and(|f| f.derivative.is_rule())) {
            return Ok(all);
        }
        match &node.op {
            GraphOp::Call { function } => Ok((self.reads(module, function, asked, what)?, asked.to_vec())),
            GraphOp::Cond { yes, no } => {
                let reads = self.either(module, [yes, no], asked, what)?;
                Ok(([true].into_iter().chain(reads).collect(), asked.to_vec()))
            }
            GraphOp::Scan { body, carries, .. } => {
                // A carry is needed if a step needs it for one that is.
                let mut asked = asked.to_vec();
                loop {
                    let mut reads = self.reads(module, body, &asked, what)?;
                    let more: Vec<usize> = (0..*carries).filter(|&i| reads[i] && !asked[i]).collect();
                    if more.is_empty() {
                        reads[..*carries].copy_from_slice(&asked[..*carries]);
                        return Ok((reads, asked));
                    }
                    more.into_iter().for_each(|i| asked[i] = true);
                }
            }
            _runs_none => Ok(all),
        }
    }

    /// `name` with the operands `takes`, and with the results `asked`.
    fn part(&mut self, module: &mut Module, name: &Name, asked: &[bool], takes: &[bool]) -> Result<Name, Diagnostic> {
        let ask = (name.clone(), [takes, asked].concat());
        if let Some(made) = self.made.get(&ask) {
            return Ok(made.clone());
        }
        let f = known(module, name)?.clone();
        if f.derivative.is_rule() {
            return Ok(name.clone());
        }
        let wanted = fresh(module, &format!("{name}.part"));
        let mut out = self.copied(module, &f, &wanted, (asked, takes))?;
        // Nothing says any more what others are.
        let used = out.used_symbols();
        out.symbols.retain(|s| used.contains(&s.name));
        let made = if out.same_ops(&f) { name.clone() } else { wanted };
        if made != *name {
            add(module, out);
        }
        self.made.insert(ask, made.clone());
        Ok(made)
    }

    /// `f` as `name`, with the operands `takes` and the results `asked`.
    fn copied(
        &mut self,
        module: &mut Module,
        f: &Function,
        name: &Name,
        (asked, takes): (&[bool], &[bool]),
    ) -> Result<Function, Diagnostic> {
        let needed = self.needed(module, f, asked, For::Anything)?;
        let taken: Vec<usize> = (0..takes.len()).filter(|&i| takes[i]).collect();
        let params: Vec<Param> = taken.iter().map(|&i| f.params[i].clone()).collect();
        let mut out = Function { derivative: f.derivative.clone(), ..Function::new(name, f.symbols.clone(), params) };
        let mut moved: BTreeMap<Value, Value> = BTreeMap::new();
        for (at, &i) in taken.iter().enumerate() {
            out.nodes[at] = Node { op: GraphOp::Parameter { index: at }, ..f.nodes[i].clone() };
            moved.insert(f.param(i), out.param(at));
        }
        for i in (f.params.len()..f.nodes.len()).filter(|&i| needed[i].contains(&true)) {
            let (reads, has) = self.operands(module, &f.nodes[i], &needed[i], For::Anything)?;
            let op = self.op(module, &f.nodes[i].op, &reads, &has)?;
            let args = picked(&f.nodes[i].args, &reads).map(|a| moved.get(a).copied()).collect::<Option<Vec<Value>>>();
            let args = args.ok_or_else(|| Diagnostic::bug("an operand that was pruned"))?;
            let mut b = Build::new(module, &mut out);
            b.stand_for(&f.nodes[i]);
            let mut made = b.push_all(op, &args)?.into_iter();
            for index in (0..has.len()).filter(|&index| has[index]) {
                moved.extend(made.next().map(|v| (Value { node: NodeId(i as u32), index: index as u32 }, v)));
            }
        }
        out.results = picked(&f.results, asked).filter_map(|r| moved.get(r).copied()).collect();
        Ok(out)
    }

    /// The op with the operands `reads` and the results `has`.
    fn op(&mut self, module: &mut Module, op: &GraphOp, reads: &[bool], has: &[bool]) -> Result<GraphOp, Diagnostic> {
        Ok(match op {
            GraphOp::Call { function } => GraphOp::Call { function: self.part(module, function, has, reads)? },
            GraphOp::Cond { yes, no } => {
                let reads = &reads[1..];
                GraphOp::Cond { yes: self.part(module, yes, has, reads)?, no: self.part(module, no, has, reads)? }
            }
            GraphOp::Scan { body, carries, length } => {
                let left = has[..*carries].iter().filter(|has| **has).count();
                let body = self.part(module, body, has, reads)?;
                GraphOp::Scan { body, carries: left, length: length.clone() }
            }
            runs_none => runs_none.clone(),
        })
    }
}

fn known<'m>(module: &'m Module, name: &Name) -> Result<&'m Function, Diagnostic> {
    module.functions.get(name).ok_or_else(|| Diagnostic::bug("a call of no function"))
}

/// Those of `values` whose place says so.
fn picked<'v, T>(values: &'v [T], which: &'v [bool]) -> impl Iterator<Item = &'v T> {
    values.iter().zip(which).filter(|(_, which)| **which).map(|(value, _)| value)
}

/// The first parameter that binds `symbol`, if none that is needed does.
fn unbound(f: &Function, needed: &[Vec<bool>], symbol: &Symbol) -> Option<usize> {
    let dim = Dim::symbol(symbol);
    let mut binding = (0..f.params.len()).filter(|&i| f.params[i].ty.shape.contains(&dim));
    let first = binding.next()?;
    let bound = needed[first][0] || binding.any(|i| needed[i][0]);
    (!bound).then_some(first)
}

/// Symbols of nodes that are needed.
fn sizes(f: &Function, needed: &[Vec<bool>]) -> Vec<Symbol> {
    let mut used = Vec::new();
    let nodes = f.nodes.iter().zip(needed).filter(|(_, needed)| needed.contains(&true));
    nodes.for_each(|(node, _)| node.collect_symbols(&mut used));
    used
}
