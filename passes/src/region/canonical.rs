//! A region as a line of text that depends on what it computes alone: not on the names of its axes and inputs, nor on where the model
//! stands. What was measured for a region is found again by it.

use super::{Affine, AxisId, Index, Region, Term, TermId};
use std::fmt::Write;

impl Region {
    /// `a0=n a1=768 | x0 f32[n, 768] | t0 x0[a0, a1] f32; t1 neg(t0) f32 | t1[a0, a1]`: axes, inputs, terms, outputs.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        for (i, (_, size)) in self.axes.iter().enumerate() {
            let _ = write!(out, "a{i}={size} ");
        }
        for (i, (_, ty)) in self.inputs.iter().enumerate() {
            let _ = write!(out, "| x{i} {ty} ");
        }
        for (i, (term, dtype)) in self.terms.iter().enumerate() {
            let _ = write!(out, "{} t{i} {} {dtype}", if i == 0 { "|" } else { ";" }, written(term));
        }
        for output in &self.outputs {
            let _ = write!(out, " | t{}[{}]", output.root, axes(&output.axes));
        }
        out
    }
}

fn axes(all: &[AxisId]) -> String {
    let names: Vec<String> = all.iter().map(|a| format!("a{a}")).collect();
    names.join(", ")
}

fn affine(a: &Affine) -> String {
    let mut parts: Vec<String> =
        a.terms.iter().map(|(axis, c)| if *c == 1 { format!("a{axis}") } else { format!("{c}*a{axis}") }).collect();
    if !a.base.is(0) || parts.is_empty() {
        parts.push(a.base.to_string());
    }
    parts.join(" + ")
}

fn written(term: &Term) -> String {
    let terms = |all: &[TermId]| all.iter().map(|t| format!("t{t}")).collect::<Vec<_>>().join(", ");
    match term {
        Term::Const(value) => format!("{value:?}"),
        Term::Iota(at) => format!("iota({})", affine(at)),
        Term::Size(size) => format!("size({size})"),
        Term::Load { input, map, open } => {
            let index = |i: &Index| match i {
                Index::Affine(a) => affine(a),
                Index::Term(t) => format!("t{t}"),
            };
            let map: Vec<String> = map.iter().map(index).collect();
            format!("x{input}[{}]{}", map.join(", "), if *open { "?" } else { "" })
        }
        // Attributes, such as what a cast is to, are the dtype of the term or in the name.
        Term::Map(op, args) => format!("{}({})", op.info().name, terms(args)),
        Term::Fold { kind, axis, arg } => format!("{kind:?} a{axis} (t{arg})").to_lowercase(),
        Term::ArgFold { largest, axis, arg } => {
            format!("{} a{axis} (t{arg})", if *largest { "argmax" } else { "argmin" })
        }
        Term::Online { axis, key, weight, mask } => {
            let mask = mask.map_or_else(String::new, |m| format!(", t{m}"));
            format!("online a{axis} (t{key}, t{weight}{mask})")
        }
        Term::Moment { axis, arg } => format!("moment a{axis} (t{arg})"),
        Term::Product => "product".into(),
    }
}
