//! What every module must satisfy; run after parsing and after every pass.

use crate::diag::{Diagnostic, Place};
use crate::flops::type_bytes;
use crate::graph::{Derivative, Function, Module, Node, Role, Value};
use crate::infer::{infer, shown_name};
use crate::op::{GraphOp, Name};
use crate::text::{is_ident, print_node};
use crate::types::{Dim, Symbol, SymbolDecl, Type};
use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::ops::Deref;

/// A module, or a reference to one, that [`verify`] accepts: nobody behind has to look again.
#[derive(Clone, Copy, Debug)]
pub struct Verified<M>(M);

impl<M: Borrow<Module>> Verified<M> {
    /// Verifies a module.
    ///
    /// Errors: those of [`verify`].
    pub fn new(module: M) -> Result<Verified<M>, Diagnostic> {
        verify(module.borrow())?;
        Ok(Verified(module))
    }

    /// The same for a module whose nodes were all made by [`Function::push`], which has inferred their types.
    pub(crate) fn pushed(module: M) -> Result<Verified<M>, Diagnostic> {
        functions(module.borrow(), false)?;
        Ok(Verified(module))
    }

    /// A reference to the module.
    pub fn by_ref(&self) -> Verified<&Module> {
        Verified(self.0.borrow())
    }

    /// The module, to be changed.
    pub fn into_inner(self) -> M {
        self.0
    }
}

impl<M: Borrow<Module>> Deref for Verified<M> {
    type Target = Module;

    fn deref(&self) -> &Module {
        self.0.borrow()
    }
}

/// Checks a module: names are unique; parameter i is node i; operands precede users and exist; types are those that
/// inference gives; symbols are declared with sensible ranges; calls go to earlier functions (so there is no
/// recursion); a donated parameter has a plain dtype and a result of its type that may take its memory; rules for derivatives
/// fit their functions.
///
/// Errors: `custom-rule`, `bad-module`, `duplicate-name`, `bad-symbol`, `unknown-symbol`, `unknown-value`, `type-mismatch`,
/// `unknown-function`, `bad-donation`, and those of [`infer`], labelled with the places of the node.
pub fn verify(module: &Module) -> Result<(), Diagnostic> {
    functions(module, true)
}

fn functions(module: &Module, infers: bool) -> Result<(), Diagnostic> {
    // Functions before the one at hand: inference looks calls up here, and finds only verified ones.
    let mut earlier: BTreeSet<&str> = BTreeSet::new();
    for (key, f) in &module.functions {
        if *key != f.name {
            return Err(Diagnostic::new("bad-module", format!("function `@{}` is filed under `@{key}`", f.name)));
        }
        function(module, f, &earlier, infers).map_err(|d| in_function(d, f))?;
        earlier.insert(key);
    }
    module.functions.values().try_for_each(|f| derivative(module, f).map_err(|d| in_function(d, f)))
}

/// The functions of a rule for a derivative fit: they stand anywhere in the module, as nothing runs them from here.
pub(crate) fn derivative(module: &Module, f: &Function) -> Result<(), Diagnostic> {
    if f.derivative.functions().is_empty() {
        return Ok(());
    }
    let params: Vec<&Type> = f.params.iter().map(|p| &p.ty).collect();
    let results: Vec<&Type> = f.results.iter().map(|&r| f.ty(r)).collect();
    let floats =
        |types: &[&Type]| types.iter().filter(|t| t.dtype.is_float()).map(|t| (*t).clone()).collect::<Vec<_>>();
    let (moving, moved) = (floats(&params), floats(&results));
    let call = |name: &Name, args: &[&Type]| {
        infer(module, &GraphOp::Call { function: name.clone() }, args)
            .map_err(|d| rule(f, name, "takes", args, &d.message))
    };
    match &f.derivative {
        Derivative::OfOps | Derivative::Zero | Derivative::Checkpoint => Ok(()),
        Derivative::Reverse { forward, backward } => {
            let given = call(forward, &params)?;
            if given.len() < results.len() || given.iter().zip(&results).any(|(a, b)| a != *b) {
                let expected: Vec<&Type> = results.clone();
                return Err(rule(
                    f,
                    forward,
                    "returns, before residuals,",
                    &expected,
                    &format!("it returns {}", list(&given)),
                ));
            }
            let args: Vec<&Type> = given[results.len()..].iter().chain(&moved).collect();
            returns(f, backward, &call(backward, &args)?, &moving)
        }
        Derivative::Forward { tangent } => {
            let args: Vec<&Type> = params.iter().copied().chain(&moving).collect();
            let expected: Vec<Type> = results.iter().map(|t| (*t).clone()).chain(moved).collect();
            returns(f, tangent, &call(tangent, &args)?, &expected)
        }
    }
}

fn returns(f: &Function, name: &str, found: &[Type], expected: &[Type]) -> Result<(), Diagnostic> {
    if found == expected {
        return Ok(());
    }
    let expected: Vec<&Type> = expected.iter().collect();
    Err(rule(f, name, "returns", &expected, &format!("it returns {}", list(found))))
}

/// The error of a rule that does not fit its function.
fn rule(f: &Function, name: &str, does: &str, expected: &[&Type], found: &str) -> Diagnostic {
    let types: Vec<Type> = expected.iter().map(|t| (*t).clone()).collect();
    let message = format!("`@{name}` in the rule for the derivative of `@{}` {does} {}; {found}", f.name, list(&types));
    let places = f.nodes.iter().flat_map(|n| n.places.first()).take(1);
    places.fold(Diagnostic::new("custom-rule", message), |d, p| d.at(p.clone(), "the function begins here"))
}

fn list(types: &[Type]) -> String {
    let shown: Vec<String> = types.iter().map(Type::to_string).collect();
    if shown.is_empty() { "nothing".into() } else { shown.join(", ") }
}

/// An error without any place gets the function's name as its place.
fn in_function(d: Diagnostic, f: &Function) -> Diagnostic {
    if d.labels.is_empty() { d.at(Place::Named(format!("@{}", f.name).into()), "") } else { d }
}

/// Checks the declaration of a symbol: an identifier, 0 <= low <= high, step >= 1, some multiple of it in the range, where a likely
/// value is one of these.
pub(crate) fn symbol(s: &SymbolDecl) -> Result<(), Diagnostic> {
    let SymbolDecl { name, low, high, step, likely } = s;
    let bad = |what: &str| {
        Err(Diagnostic::new("bad-symbol", format!("the size `{name}` in {low}..={high} by {step}: expected {what}")))
    };
    if !is_ident(name) || matches!(&**name, "floordiv" | "mod") {
        return bad("a name of letters, digits and `_`, other than `floordiv` and `mod`");
    }
    if *low < 0 || low > high {
        return bad("0 <= low <= high");
    }
    if *step < 1 {
        return bad("a step of at least 1");
    }
    // The largest multiple in the range, if any; nothing overflows, for both are positive.
    if high / step * step < *low {
        return bad("a multiple of the step in the range");
    }
    match likely {
        Some(n) if !(low..=high).contains(&n) || n % step != 0 => bad(&format!("a likely value among these, not {n}")),
        _possible => Ok(()),
    }
}

fn function(module: &Module, f: &Function, earlier: &BTreeSet<&str>, infers: bool) -> Result<(), Diagnostic> {
    let mut known = BTreeSet::new();
    for s in &f.symbols {
        symbol(s)?;
        if !known.insert(&*s.name) {
            return Err(Diagnostic::new("duplicate-name", format!("the size `{}` is declared twice", s.name)));
        }
    }
    let mut names = HashSet::new();
    for (i, p) in f.params.iter().enumerate() {
        if !names.insert(&*p.name) {
            return Err(Diagnostic::new("duplicate-name", format!("parameter `%{}` is declared twice", p.name)));
        }
        let fits = f.nodes.get(i).is_some_and(|n| {
            n.op == GraphOp::Parameter { index: i } && n.args.is_empty() && n.types == std::slice::from_ref(&p.ty)
        });
        if !fits {
            let message = format!("node {i} is not the parameter `%{}`: {}", p.name, p.ty);
            return Err(Diagnostic::new("bad-module", message));
        }
        declared(p.ty.shape.iter(), &known)?;
        countable(&p.ty)?;
    }
    for i in f.params.len()..f.nodes.len() {
        node(f, i, &known, earlier).map_err(|d| at_node(d, f, i))?;
        if infers {
            inferred(module, f, i).map_err(|d| at_node(d, f, i))?;
        }
        sized(&f.nodes[i].types, &known).map_err(|d| at_node(d, f, i))?;
    }
    for &r in &f.results {
        value(f, f.nodes.len(), r)?;
    }
    donations(f)
}

fn at_node(d: Diagnostic, f: &Function, i: usize) -> Diagnostic {
    let shown = print_node(f, crate::graph::NodeId(i as u32));
    // A constant's text may be long.
    let short: String = shown.chars().take(200).collect();
    let mut labels: Vec<_> = f.nodes[i].places.iter().map(|p| (p.clone(), "in this node".to_string())).collect();
    labels.extend(d.labels.iter().cloned());
    Diagnostic { labels, ..d }.note(format!("in `@{}`: {short}", f.name))
}

fn value(f: &Function, before: usize, v: Value) -> Result<&Type, Diagnostic> {
    let node: Option<&Node> = if v.node.index() < before { f.nodes.get(v.node.index()) } else { None };
    node.and_then(|n| n.types.get(v.index as usize)).ok_or_else(|| {
        let (n, i) = (v.node.0, v.index);
        Diagnostic::new("unknown-value", format!("expected a value of the {before} nodes before, found node {n} #{i}"))
    })
}

fn declared<'d>(dims: impl Iterator<Item = &'d Dim>, known: &BTreeSet<&str>) -> Result<(), Diagnostic> {
    let mut used = Vec::new();
    for d in dims.filter(|d| d.as_const().is_none()) {
        d.collect_symbols(&mut used);
    }
    all_known(&used, known)
}

fn all_known(used: &[Symbol], known: &BTreeSet<&str>) -> Result<(), Diagnostic> {
    match used.iter().find(|s| !known.contains(&***s)) {
        Some(s) => Err(Diagnostic::new("unknown-symbol", format!("the size `{s}` is not declared"))),
        None => Ok(()),
    }
}

fn node(f: &Function, i: usize, known: &BTreeSet<&str>, earlier: &BTreeSet<&str>) -> Result<(), Diagnostic> {
    let n = &f.nodes[i];
    n.args.iter().try_for_each(|&a| value(f, i, a).map(drop))?;
    if let Some(name) = n.callees().into_iter().find(|name| !earlier.contains(&***name)) {
        let message = format!("there is no function `@{name}` before `@{}`", f.name);
        return Err(Diagnostic::new("unknown-function", message).note("functions may not call themselves"));
    }
    let mut used = Vec::new();
    n.op.collect_symbols(&mut used);
    all_known(&used, known)
}

/// Sizes of results are declared, and their bytes fit.
fn sized(types: &[Type], known: &BTreeSet<&str>) -> Result<(), Diagnostic> {
    types.iter().try_for_each(countable)?;
    declared(types.iter().flat_map(|t| &t.shape), known)
}

/// The types of a node, whose operands exist, are those that inference gives.
fn inferred(module: &Module, f: &Function, i: usize) -> Result<(), Diagnostic> {
    let n = &f.nodes[i];
    let args: Vec<&Type> = n.args.iter().map(|&a| f.ty(a)).collect();
    let types = infer(module, &n.op, &args)?;
    if types == n.types {
        return Ok(());
    }
    let show = |all: &[Type]| all.iter().map(|t| t.to_string()).collect::<Vec<String>>().join(", ");
    let (name, want, found) = (shown_name(&n.op), show(&types), show(&n.types));
    Err(Diagnostic::new("type-mismatch", format!("`{name}` gives {want}, the node says {found}")))
}

/// The bytes of a value are counted in 64 bits, however large its symbols are declared.
fn countable(ty: &Type) -> Result<(), Diagnostic> {
    let fits = type_bytes(ty).is_some();
    if fits { Ok(()) } else { Err(Diagnostic::new("dim-overflow", format!("the bytes of {ty} do not fit in 64 bits"))) }
}

/// Memory that is given away must be of use: some result has the same type.
fn donations(f: &Function) -> Result<(), Diagnostic> {
    let results: BTreeSet<&Type> = f.results.iter().map(|&r| f.ty(r)).collect();
    for p in f.params.iter().filter(|p| p.role == Role::Donated) {
        if p.ty.dtype.is_block() {
            let message = format!("`%{}`: {} is donated, but no result can be a block encoding", p.name, p.ty);
            return Err(Diagnostic::new("bad-donation", message));
        }
        if !results.contains(&p.ty) {
            let message = format!("`%{}` is donated, but no result is {}", p.name, p.ty);
            return Err(Diagnostic::new("bad-donation", message).note("a result can only reuse memory of its own type"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{NodeId, Param};
    use crate::op::ScalarOp;
    use crate::types::DType;

    fn function() -> Function {
        let ty = Type::new(DType::F32, ["n"]);
        let param = Param { name: "x".into(), ty, role: Role::Donated };
        let mut f = Function::new("f", vec![SymbolDecl::new("n", 1, 8)], vec![param]);
        let op = GraphOp::Map { op: ScalarOp::Neg {} };
        let id = f.push(&Module::default(), op, &[f.param(0)], None, &"".into()).unwrap();
        f.results.push(Value { node: id, index: 0 });
        f
    }

    fn code(change: impl Fn(&mut Function)) -> Option<&'static str> {
        let mut f = function();
        change(&mut f);
        let mut m = Module::default();
        m.functions.insert("f".into(), f);
        verify(&m).err().map(|d| d.code)
    }

    #[test]
    fn each_rule_is_checked() {
        let value = |node, index| Value { node: NodeId(node), index };
        assert_eq!(code(|_| {}), None);
        assert_eq!(code(|f| f.name = "g".into()), Some("bad-module"));
        assert_eq!(code(|f| f.nodes[1].args[0] = value(1, 0)), Some("unknown-value"));
        assert_eq!(code(|f| f.nodes[1].args[0] = value(0, 1)), Some("unknown-value"));
        assert_eq!(code(|f| f.results[0] = value(2, 0)), Some("unknown-value"));
        assert_eq!(code(|f| f.nodes[1].types[0].dtype = DType::F64), Some("type-mismatch"));
        assert_eq!(code(|f| f.nodes[1].args.clear()), Some("operand-count"));
        assert_eq!(code(|f| f.nodes[0].types.clear()), Some("bad-module"));
        assert_eq!(code(|f| f.nodes[1].op = GraphOp::Size { dim: "m".into() }), Some("unknown-symbol"));
        assert_eq!(code(|f| f.nodes[1].op = GraphOp::Call { function: "f".into() }), Some("unknown-function"));
        assert_eq!(code(|f| f.params.push(f.params[0].clone())), Some("duplicate-name"));
        assert_eq!(code(|f| f.symbols.push(f.symbols[0].clone())), Some("duplicate-name"));
        assert_eq!(code(|f| f.symbols.clear()), Some("unknown-symbol"));
        assert_eq!(code(|f| f.symbols[0].low = 9), Some("bad-symbol"));
        assert_eq!(code(|f| f.symbols[0].step = 0), Some("bad-symbol"));
        assert_eq!(code(|f| f.symbols[0].step = 9), Some("bad-symbol"));
        assert_eq!(code(|f| f.symbols[0].name = "mod".into()), Some("bad-symbol"));
        assert_eq!(code(|f| f.results.clear()), Some("bad-donation"));
    }
}
