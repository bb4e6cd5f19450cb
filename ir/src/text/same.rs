//! Structural equality of modules: all but the places.

use crate::graph::{Function, Module};

/// Where two modules differ in anything but places; `None` if they are equal.
pub fn difference(a: &Module, b: &Module) -> Option<String> {
    if !a.functions.keys().eq(b.functions.keys()) {
        return Some("the names of the functions differ".into());
    }
    let found = a.functions.values().zip(b.functions.values()).find_map(|(f, g)| in_function(f, g).map(|d| (f, d)));
    found.map(|(f, d)| format!("in `@{}`: {d}", f.name))
}

fn in_function(f: &Function, g: &Function) -> Option<String> {
    if f.name != g.name || f.symbols != g.symbols || f.params != g.params {
        return Some("names, symbols or parameters differ".into());
    }
    if f.derivative != g.derivative {
        return Some(format!("the derivative is {:?} or {:?}", f.derivative, g.derivative));
    }
    if f.results != g.results || f.nodes.len() != g.nodes.len() {
        return Some("results or counts of nodes differ".into());
    }
    let differs = f
        .nodes
        .iter()
        .zip(&g.nodes)
        .position(|(m, n)| m.op != n.op || m.args != n.args || m.types != n.types || m.scope != n.scope);
    differs.map(|i| format!("node {i} is {:?} or {:?}", f.nodes[i], g.nodes[i]))
}
