//! Modules to text.

use super::{literal, names};
use crate::graph::{Derivative, Function, Module, Node, NodeId, Role, Value};
use crate::infer::shown_name;
use crate::op::{Attr, GraphOp};
use crate::types::Type;
use std::fmt::{Display, Write};

/// The text of a module, which [`super::parse`] reads back.
///
/// Any module can be printed, also one that does not verify; only the text of one that does will parse.
pub fn print(module: &Module) -> String {
    print_noted(module, &|_, _| Vec::new())
}

/// [`print()`] with comment lines before nodes: those that `notes` has for a node, without the slashes.
pub fn print_noted(module: &Module, notes: &dyn Fn(&Function, NodeId) -> Vec<String>) -> String {
    let mut out = String::new();
    for (i, f) in module.functions.values().enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        function(&mut out, f, notes);
    }
    out
}

/// Writing to a String cannot fail.
fn put(out: &mut String, what: impl Display) {
    let _ = write!(out, "{what}");
}

fn list<T>(out: &mut String, items: &[T], item: impl Fn(&mut String, &T)) {
    for (i, x) in items.iter().enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        item(out, x);
    }
}

fn function(out: &mut String, f: &Function, notes: &dyn Fn(&Function, NodeId) -> Vec<String>) {
    put(out, format_args!("func @{}(", names::shown(&f.name)));
    let params: Vec<_> = f.params.iter().enumerate().collect();
    list(out, &params, |out, (i, p)| {
        out.push_str(match p.role {
            Role::Input => "",
            Role::Weight => "weight ",
            Role::Donated => "donated ",
        });
        put(out, format_args!("%{}: {}", names::shown(&p.name), p.ty));
        scope(out, f.nodes.get(*i).map_or("", |n| &n.scope));
    });
    out.push_str(") -> ");
    let known = |r: &Value| f.nodes.get(r.node.index()).and_then(|n| n.types.get(r.index as usize));
    types(out, &f.results.iter().filter_map(known).collect::<Vec<_>>());
    derivative(out, &f.derivative);
    out.push_str(if f.symbols.is_empty() { "" } else { " where " });
    list(out, &f.symbols, |out, s| {
        put(out, format_args!("{} in {}..={}", s.name, s.low, s.high));
        if s.step != 1 {
            put(out, format_args!(" by {}", s.step));
        }
        if let Some(n) = s.likely {
            put(out, format_args!(" likely {n}"));
        }
    });
    out.push_str(" {\n");
    for ((i, n), id) in f.nodes.iter().enumerate().zip((0u32..).map(NodeId)).skip(f.params.len()) {
        for line in notes(f, id).iter().flat_map(|note| note.lines()) {
            put(out, format_args!("  // {line}\n"));
        }
        put(out, format_args!("  %{} = ", i - f.params.len()));
        node(out, f, n);
        out.push('\n');
    }
    out.push_str("  return");
    out.push_str(if f.results.is_empty() { "" } else { " " });
    list(out, &f.results, |out, r| out.push_str(&names::value(f, *r)));
    out.push_str("\n}\n");
}

fn derivative(out: &mut String, derivative: &Derivative) {
    match derivative {
        Derivative::OfOps => {}
        Derivative::Zero => out.push_str(" stop_gradient"),
        Derivative::Checkpoint => out.push_str(" checkpoint"),
        Derivative::Reverse { forward, backward } => {
            put(out, format_args!(" custom_vjp=[@{}, @{}]", names::shown(forward), names::shown(backward)));
        }
        Derivative::Forward { tangent } => put(out, format_args!(" custom_jvp=@{}", names::shown(tangent))),
    }
}

/// One type as it is; none or several in parentheses.
fn types(out: &mut String, all: &[&Type]) {
    if let [one] = all {
        return put(out, one);
    }
    out.push('(');
    list(out, all, |out, t| put(out, t));
    out.push(')');
}

fn scope(out: &mut String, scope: &str) {
    if !scope.is_empty() {
        put(out, format_args!(" @{}", names::quoted(scope)));
    }
}

/// The attributes of an op that its name in text does not tell, with their names.
fn shown_attrs(op: &GraphOp) -> Vec<(&'static str, Attr)> {
    let named = |info: &'static crate::op::OpInfo, attrs: Vec<Attr>| {
        info.attrs.iter().map(|(name, _)| *name).zip(attrs).collect::<Vec<_>>()
    };
    if let GraphOp::Map { op } = op {
        return named(op.info(), op.attrs());
    }
    let mut all = named(op.info(), op.attrs());
    all.retain(|(_, a)| !matches!(a, Attr::ReduceKind(_)));
    all
}

fn node(out: &mut String, f: &Function, n: &Node) {
    out.push_str(shown_name(&n.op));
    out.push_str(if n.args.is_empty() { "" } else { " " });
    list(out, &n.args, |out, a| out.push_str(&names::value(f, *a)));
    for (name, value) in shown_attrs(&n.op) {
        out.push(' ');
        attr(out, name, &value);
    }
    out.push_str(" : ");
    types(out, &n.types.iter().collect::<Vec<_>>());
    scope(out, &n.scope);
}

fn bracketed<T: Display>(out: &mut String, items: &[T]) {
    out.push('[');
    list(out, items, |out, x| put(out, x));
    out.push(']');
}

/// `name=value`; a constant is `type = elements`, and the axes of a dot are two attributes.
fn attr(out: &mut String, name: &str, value: &Attr) {
    if !matches!(value, Attr::Literal(_) | Attr::DotDims(_)) {
        put(out, format_args!("{name}="));
    }
    match value {
        Attr::Axis(a) => put(out, a),
        Attr::Axes(a) => bracketed(out, a),
        Attr::Dim(d) => put(out, d),
        Attr::Dims(d) => bracketed(out, d),
        Attr::Strides(s) => bracketed(out, s),
        Attr::DType(d) => put(out, d),
        Attr::Name(n) => put(out, format_args!("@{}", names::shown(n))),
        Attr::PadAmounts(p) => {
            let pairs: Vec<String> = p.iter().map(|(low, high)| format!("({low}, {high})")).collect();
            bracketed(out, &pairs);
        }
        Attr::ReduceKind(k) => put(out, k.name()),
        Attr::ScalarOp(s) => put(out, s.info().name),
        Attr::Literal(l) => {
            put(out, Type::new(l.0.dtype(), l.0.shape().iter().copied()));
            out.push_str(" = ");
            literal::print(out, &l.0);
        }
        Attr::DotDims(d) => {
            for (name, (left, right)) in [("batch=", &d.batch), (" contract=", &d.contract)] {
                out.push_str(name);
                bracketed(out, left);
                out.push('x');
                bracketed(out, right);
            }
        }
    }
}

/// `%3 = add %x, %1 : f32[4]`: one node, for messages and reports. Empty if there is no such node.
pub fn print_node(f: &Function, id: NodeId) -> String {
    let Some(n) = f.nodes.get(id.index()) else { return String::new() };
    let mut out = format!("{} = ", names::value(f, Value { node: id, index: 0 }).replace("#0", ""));
    node(&mut out, f, n);
    out
}
