//! The buffers of a program and which values lie in them.

use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Function, Role, Value};
use tilewright_ir::kernel::{ProgramBuffer, expr::Ident};
use tilewright_ir::op::GraphOp;
use tilewright_ir::types::Type;

/// Buffers and names so far.
pub(super) struct Buffers {
    names: BTreeMap<Value, Ident>,
    /// Buffers that are not parameters, in order.
    pub(super) work: Vec<ProgramBuffer>,
    /// Values of constant buffers.
    pub(super) constants: Vec<(Ident, Array)>,
    /// By buffer that lies in another one's memory: the buffer whose memory that is.
    bases: BTreeMap<Ident, Ident>,
    prefix: String,
}

impl Buffers {
    /// Parameters keep their names; others get a prefix that no parameter starts with.
    pub(super) fn new(f: &Function) -> Buffers {
        let mut prefix = String::from("n");
        while f.params.iter().any(|p| p.name.starts_with(&prefix)) {
            prefix.push('_');
        }
        let names = f.params.iter().enumerate().map(|(i, p)| (f.param(i), p.name.clone())).collect();
        Buffers { names, work: Vec::new(), constants: Vec::new(), bases: BTreeMap::new(), prefix }
    }

    /// The buffer of a value. Errors: a broken invariant if it has none.
    pub(super) fn name(&self, value: Value) -> Result<Ident, Diagnostic> {
        self.names.get(&value).cloned().ok_or_else(|| Diagnostic::bug("a value is read that has no buffer"))
    }

    /// The buffer of parameter `i`.
    pub(super) fn param(&self, f: &Function, i: usize) -> Result<ProgramBuffer, Diagnostic> {
        Ok(ProgramBuffer { name: self.name(f.param(i))?, ty: f.params[i].ty.clone(), alias_of: None })
    }

    /// A new buffer for `value`, or a new name for the memory of an old one.
    pub(super) fn work(&mut self, value: Value, ty: &Type, alias_of: Option<Ident>) {
        let suffix = if value.index == 0 { String::new() } else { format!("_{}", value.index) };
        let name: Ident = format!("{}{}{suffix}", self.prefix, value.node.index()).into();
        self.names.insert(value, name.clone());
        if let Some(whole) = &alias_of {
            self.bases.insert(name.clone(), self.base(whole));
        }
        self.work.push(ProgramBuffer { name, ty: ty.clone(), alias_of });
    }

    /// A buffer of the program's own, such as packed panels.
    pub(super) fn extra(&mut self, suffix: &str, value: Value, ty: Type) -> Ident {
        self.own(format!("{}{}_{suffix}", self.prefix, value.node.index()), ty)
    }

    /// A buffer of the program's own, named after another one.
    pub(super) fn beside(&mut self, owner: &Ident, suffix: &str, ty: Type) -> Ident {
        self.own(format!("{owner}_{suffix}"), ty)
    }

    /// A buffer for a value that the function does not name.
    pub(super) fn class(&mut self, number: usize, ty: Type) -> Ident {
        self.own(format!("{}_class{number}", self.prefix), ty)
    }

    fn own(&mut self, name: String, ty: Type) -> Ident {
        let name = Ident::from(name);
        self.work.push(ProgramBuffer { name: name.clone(), ty, alias_of: None });
        name
    }

    /// A constant's buffer.
    pub(super) fn constant(&mut self, value: Value, array: &Array) -> Result<(), Diagnostic> {
        let ty = Type::new(array.dtype(), array.shape().iter().copied());
        self.work(value, &ty, None);
        let name = self.name(value)?;
        self.constants.push((name, array.clone()));
        Ok(())
    }

    /// The buffer whose memory `name` is.
    fn base(&self, name: &Ident) -> Ident {
        self.bases.get(name).unwrap_or(name).clone()
    }

    /// The donated parameter in whose memory `value` lies.
    pub(super) fn donated(&self, f: &Function, value: Value) -> Option<Ident> {
        let base = self.base(&self.name(value).ok()?);
        f.params.iter().any(|p| p.name == base && p.role == Role::Donated).then_some(base)
    }

    /// Why node `at` may not write into the memory of its operand `x`; none if it may: the memory is donated or ours, no
    /// other operand lies in it, and nothing reads it later.
    pub(super) fn kept(&self, f: &Function, stored: &[bool], x: usize, at: usize) -> Option<Kept> {
        let kept = |why| Some(Kept { why, reader: None });
        let names = f.nodes[at].args.iter().map(|&a| self.name(a)).collect::<Result<Vec<Ident>, Diagnostic>>();
        let Ok(bases) = names.map(|n| n.iter().map(|n| self.base(n)).collect::<Vec<Ident>>()) else {
            return kept("an operand has no memory");
        };
        let base = bases[x].clone();
        let ours = self.work.iter().any(|b| b.name == base) && !self.constants.iter().any(|(n, _)| *n == base);
        if !ours && self.donated(f, f.nodes[at].args[x]).is_none() {
            return kept("it is not ours to change");
        }
        if bases.iter().enumerate().any(|(i, b)| i != x && *b == base) {
            return kept("another operand lies in the same memory");
        }
        // Values that share the memory, or are computed from it where they are read.
        let mut tainted: Vec<bool> = vec![false; f.nodes.len()];
        for (value, n) in &self.names {
            tainted[value.node.index()] |= self.base(n) == base;
        }
        for i in 0..f.nodes.len() {
            let reads = f.nodes[i].args.iter().any(|a| tainted[a.node.index()]);
            let shares = matches!(f.nodes[i].op, GraphOp::Reshape { .. });
            if reads && i > at && stored[i] {
                return Some(Kept { why: "its old value is read later", reader: Some(i) });
            }
            if reads && i != at && (!stored[i] || shares) {
                tainted[i] = true;
            }
        }
        if f.results.iter().any(|r| tainted[r.node.index()]) { kept("its old value is returned") } else { None }
    }
}

/// Why memory may not be overwritten.
pub(super) struct Kept {
    /// The reason, in words.
    pub(super) why: &'static str,
    /// The node that reads it later.
    pub(super) reader: Option<usize>,
}
