//! Types of calls, conditionals and scans.

use crate::diag::Diagnostic;
use crate::graph::{Function, Module};
use crate::types::{DType, Dim, Symbol, Type};
use std::borrow::Cow;
use std::collections::BTreeMap;

fn find<'m>(module: &'m Module, name: &str) -> Result<&'m Function, Diagnostic> {
    module.functions.get(name).ok_or_else(|| {
        Diagnostic::new("unknown-function", format!("there is no function `@{name}` before this line"))
            .note("a function must be declared before it is used")
    })
}

/// The caller's size for each symbol of `f`: a parameter dim that is just a symbol binds it, all others must agree.
///
/// Errors: `operand-count`, `shape-mismatch`.
pub fn bind_symbols(f: &Function, args: &[&Type]) -> Result<BTreeMap<Symbol, Dim>, Diagnostic> {
    if f.params.len() != args.len() {
        let (want, found) = (f.params.len(), args.len());
        return Err(Diagnostic::new("operand-count", format!("`@{}` takes {want} operands, found {found}", f.name)));
    }
    let mut map: BTreeMap<Symbol, Dim> = BTreeMap::new();
    for (p, a) in f.params.iter().zip(args) {
        for (want, found) in p.ty.shape.iter().zip(&a.shape) {
            if let Some(s) = f.symbols.iter().find(|s| *want == Dim::symbol(&s.name)) {
                map.entry(s.name.clone()).or_insert_with(|| found.clone());
            }
        }
    }
    for (p, a) in f.params.iter().zip(args) {
        let want = if map.is_empty() { Cow::Borrowed(&p.ty) } else { Cow::Owned(substitute(&p.ty, &map)?) };
        if *want != **a {
            let name = &p.name;
            return Err(Diagnostic::new(
                "shape-mismatch",
                format!("`@{}` needs {want} for `%{name}`, found {a}", f.name),
            ));
        }
    }
    Ok(map)
}

fn substitute(ty: &Type, map: &BTreeMap<Symbol, Dim>) -> Result<Type, Diagnostic> {
    let shape: Option<Vec<Dim>> = ty.shape.iter().map(|d| d.substitute(map)).collect();
    let shape = shape.ok_or_else(|| Diagnostic::new("dim-overflow", "a size does not fit in 64 bits"))?;
    Ok(Type { dtype: ty.dtype, shape })
}

pub(super) fn call(module: &Module, name: &str, args: &[&Type]) -> Result<Vec<Type>, Diagnostic> {
    let f = find(module, name)?;
    let map = bind_symbols(f, args)?;
    // Symbols that no parameter dim binds keep their name: caller and callee share it.
    f.results.iter().map(|&r| substitute(f.ty(r), &map)).collect()
}

pub(super) fn cond(module: &Module, yes: &str, no: &str, args: &[&Type]) -> Result<Vec<Type>, Diagnostic> {
    if *args[0] != Type::scalar(DType::Bool) {
        return Err(Diagnostic::new("dtype-mismatch", format!("`cond` needs a bool[] first, found {}", args[0])));
    }
    let (a, b) = (call(module, yes, &args[1..])?, call(module, no, &args[1..])?);
    if a != b {
        return Err(Diagnostic::new("shape-mismatch", format!("`@{yes}` and `@{no}` return different types")));
    }
    Ok(a)
}

pub(super) fn scan(
    module: &Module,
    body: &str,
    carries: usize,
    length: &Dim,
    args: &[&Type],
) -> Result<Vec<Type>, Diagnostic> {
    if carries > args.len() {
        return Err(Diagnostic::new("operand-count", format!("`scan` carries {carries} of {} operands", args.len())));
    }
    let mut inner: Vec<Type> = args[..carries].iter().map(|&t| t.clone()).collect();
    for t in &args[carries..] {
        if t.shape.first() != Some(length) {
            return Err(Diagnostic::new(
                "shape-mismatch",
                format!("`scan` of {length} steps needs {length} slices, found {t}"),
            ));
        }
        inner.push(Type { dtype: t.dtype, shape: t.shape[1..].to_vec() });
    }
    let results = call(module, body, &inner.iter().collect::<Vec<_>>())?;
    if results.len() < carries || results[..carries] != inner[..carries] {
        return Err(Diagnostic::new(
            "shape-mismatch",
            format!("`@{body}` must first return its {carries} carries, of the same types"),
        ));
    }
    let mut out = results[..carries].to_vec();
    out.extend(results[carries..].iter().map(|t| {
        let shape = std::iter::once(length.clone()).chain(t.shape.iter().cloned()).collect();
        Type { dtype: t.dtype, shape }
    }));
    Ok(out)
}
