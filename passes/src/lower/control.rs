//! Calls, conditionals and scans: steps that run other programs.

use super::Lower;
use std::collections::BTreeMap;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Module, Role};
use tilewright_ir::infer::control::bind_symbols;
use tilewright_ir::kernel::{Branch, CallStep, CondStep, ScanArgument, ScanResult, ScanStep, Step, expr::Ident};
use tilewright_ir::op::{GraphOp, Name};
use tilewright_ir::types::{Dim, Type};

/// Most functions that may be inside one another, as in the interpreter: bounds the stack of a run.
const MAX_DEPTH: usize = 64;

/// Checks how deep the calls of the entry go. Errors: `call-depth`.
pub(crate) fn depth(module: &Module) -> Result<(), Diagnostic> {
    let mut depths: BTreeMap<Name, usize> = BTreeMap::new();
    for f in module.functions.values() {
        let live = f.live();
        let nodes = f.nodes.iter().zip(&live).filter(|(_, live)| **live);
        let callees = nodes.flat_map(|(n, _)| n.callees()).filter_map(|name| depths.get(name).map(|d| d + 1));
        depths.insert(f.name.clone(), callees.max().unwrap_or(0));
    }
    let Ok(entry) = module.entry() else { return Ok(()) };
    let deepest = depths.get(&entry.name).copied().unwrap_or(0);
    if deepest > MAX_DEPTH {
        let message = format!("expected at most {MAX_DEPTH} calls inside one another, found {deepest}");
        let is_call = |n: &&tilewright_ir::graph::Node| !n.callees().is_empty();
        let places = entry.nodes.iter().filter(is_call).filter_map(|n| n.places.first()).take(1);
        let d = Diagnostic::new("call-depth", message);
        return Err(places.fold(d, |d, p| d.at(p.clone(), format!("the calls of `@{}`", entry.name))));
    }
    Ok(())
}

fn function<'m>(module: &'m Module, name: &str) -> Result<&'m Function, Diagnostic> {
    let unknown = || Diagnostic::new("unknown-function", format!("there is no function `@{name}`"));
    module.functions.get(name).ok_or_else(unknown)
}

fn branch(callee: &Function, types: &[&Type]) -> Result<Branch, Diagnostic> {
    let mut symbols = bind_symbols(callee, types)?;
    // A size that is declared, and that nothing has, is any.
    let used = if callee.symbols.len() > symbols.len() { callee.used_symbols() } else { Vec::new() };
    for s in callee.symbols.iter().filter(|s| !used.contains(&s.name)) {
        symbols.entry(s.name.clone()).or_insert_with(|| Dim::constant(s.near(s.low)));
    }
    let symbols = symbols.into_iter().collect();
    Ok(Branch { function: callee.name.clone(), symbols })
}

fn donates(callee: &Function, param: usize) -> bool {
    callee.params.get(param).is_some_and(|p| p.role == Role::Donated)
}

/// Whether argument `k` of a scan is a carry that the body returns as it is: it never changes, so a step has nothing to
/// hand on to the next.
fn fixed(body: &Function, carries: usize, k: usize) -> bool {
    k < carries && body.results.get(k) == Some(&body.param(k))
}

/// Which memory a node and its operands share.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Operands that the node would overwrite.
    pub(super) overwrites: Vec<usize>,
    /// Results that are the memory of an operand in any case: (result, operand).
    pub(super) shares: Vec<(usize, usize)>,
    /// Whether the first result takes the memory of the operand that is overwritten.
    pub(super) updates: bool,
}

impl Lower<'_> {
    /// Which memory node `i` shares.
    pub(super) fn sharing(&self, i: usize) -> Result<Sharing, Diagnostic> {
        let node = &self.f.nodes[i];
        let given = |callees: &[&Function], first: usize| -> Vec<usize> {
            (first..node.args.len()).filter(|&k| callees.iter().any(|c| donates(c, k - first))).collect()
        };
        let overwrites = |overwrites| Sharing { overwrites, ..Sharing::default() };
        Ok(match &node.op {
            GraphOp::UpdateSlice { .. } => Sharing { updates: true, ..overwrites(vec![0]) },
            GraphOp::Reshape { .. } => Sharing { shares: vec![(0, 0)], ..Sharing::default() },
            GraphOp::Call { function: name } => overwrites(given(&[function(self.module, name)?], 0)),
            GraphOp::Cond { yes, no } => {
                overwrites(given(&[function(self.module, yes)?, function(self.module, no)?], 1))
            }
            GraphOp::Scan { body, carries, .. } => {
                let body = function(self.module, body)?;
                let fixed = |k: &usize| fixed(body, *carries, *k);
                let given = given(&[body], 0).into_iter().filter(|k| !fixed(k)).collect();
                let shares = (0..node.types.len()).filter(fixed).map(|k| (k, k)).collect();
                Sharing { shares, ..overwrites(given) }
            }
            GraphOp::Parameter { .. }
            | GraphOp::Constant { .. }
            | GraphOp::Iota { .. }
            | GraphOp::Size { .. }
            | GraphOp::Map { .. }
            | GraphOp::Reduce { .. }
            | GraphOp::Argmax { .. }
            | GraphOp::Argmin { .. }
            | GraphOp::Cumsum { .. }
            | GraphOp::Dot { .. }
            | GraphOp::Broadcast { .. }
            | GraphOp::Transpose { .. }
            | GraphOp::Slice { .. }
            | GraphOp::Pad { .. }
            | GraphOp::Concat { .. }
            | GraphOp::Flip { .. }
            | GraphOp::Take { .. }
            | GraphOp::TakeAlong { .. }
            | GraphOp::ScatterAdd { .. } => Sharing::default(),
        })
    }

    /// The buffer that a callee gets for operand `arg` of node `i`. What it may overwrite is a copy, unless nobody needs
    /// the operand's memory any more.
    fn argument(&mut self, i: usize, arg: usize, donated: bool) -> Result<Ident, Diagnostic> {
        let x = self.f.nodes[i].args[arg];
        let name = self.buffers.name(x)?;
        if !donated || self.may_overwrite(i, arg) {
            return Ok(name);
        }
        let to = self.buffers.extra(&format!("given{arg}"), Lower::value(i, 0), self.f.ty(x).clone());
        self.copy(x, to.clone(), &format!("given_{i}_{arg}"))?;
        Ok(to)
    }

    /// A buffer for result `k` of node `i`.
    fn result(&mut self, i: usize, k: usize, alias_of: Option<Ident>) -> Result<Ident, Diagnostic> {
        let value = Lower::value(i, k);
        self.buffers.work(value, self.f.ty(value), alias_of);
        self.buffers.name(value)
    }

    pub(super) fn call(&mut self, i: usize, name: &str) -> Result<(), Diagnostic> {
        let (f, callee) = (self.f, function(self.module, name)?);
        let node = &f.nodes[i];
        let types: Vec<&Type> = node.args.iter().map(|&a| f.ty(a)).collect();
        let Branch { function, symbols } = branch(callee, &types)?;
        let arguments =
            (0..node.args.len()).map(|k| self.argument(i, k, donates(callee, k))).collect::<Result<_, _>>()?;
        let results = (0..node.types.len()).map(|k| self.result(i, k, None)).collect::<Result<_, _>>()?;
        self.steps.push(Step::Call(CallStep { function, arguments, results, symbols }));
        Ok(())
    }

    pub(super) fn cond(&mut self, i: usize, yes: &str, no: &str) -> Result<(), Diagnostic> {
        let (f, yes, no) = (self.f, function(self.module, yes)?, function(self.module, no)?);
        let node = &f.nodes[i];
        let (predicate, operands) =
            node.args.split_first().ok_or_else(|| Diagnostic::bug("a `cond` without a condition"))?;
        let types: Vec<&Type> = operands.iter().map(|&a| f.ty(a)).collect();
        let arguments = (0..operands.len())
            .map(|k| self.argument(i, k + 1, donates(yes, k) || donates(no, k)))
            .collect::<Result<_, _>>()?;
        let predicate = self.buffers.name(*predicate)?;
        let results = (0..node.types.len()).map(|k| self.result(i, k, None)).collect::<Result<_, _>>()?;
        let (yes, no) = (branch(yes, &types)?, branch(no, &types)?);
        self.steps.push(Step::Cond(CondStep { predicate, yes, no, arguments, results }));
        Ok(())
    }

    pub(super) fn scan(&mut self, i: usize, body: &str, carries: usize, length: &Dim) -> Result<(), Diagnostic> {
        let (f, body) = (self.f, function(self.module, body)?);
        let node = &f.nodes[i];
        let mut types: Vec<Type> = node.args.iter().map(|&a| f.ty(a).clone()).collect();
        for ty in types.iter_mut().skip(carries) {
            ty.shape.remove(0);
        }
        let fixed = |k: usize| fixed(body, carries, k);
        let mut arguments = Vec::new();
        for k in 0..node.args.len() {
            let name = self.argument(i, k, donates(body, k) && !fixed(k))?;
            arguments.push(match k {
                k if fixed(k) => ScanArgument::Fixed(name),
                k if k < carries => ScanArgument::Carry(name),
                _slice => ScanArgument::Slice(name),
            });
        }
        let mut results = Vec::new();
        for k in 0..node.types.len() {
            let alias_of = if fixed(k) { Some(self.buffers.name(node.args[k])?) } else { None };
            let name = self.result(i, k, alias_of)?;
            results.push(match k {
                k if fixed(k) => ScanResult::Fixed,
                k if k < carries => ScanResult::Carry(name),
                _slice => ScanResult::Stack(name),
            });
        }
        let body = branch(body, &types.iter().collect::<Vec<_>>())?;
        self.steps.push(Step::Scan(ScanStep { body, length: length.clone(), arguments, results }));
        Ok(())
    }
}
