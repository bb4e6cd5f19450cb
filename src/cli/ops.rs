//! `tilewright ops`: the op tables.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::{Arity, GraphKind, OpInfo, ReduceKind, ScalarKind};

/// Arguments of `ops`.
#[derive(clap::Args)]
#[command(after_help = "A line has the table, the name, the number of operands (1+: one or more), the family, the\n\
    meaning, and the attributes with their types. The op `reduce` is written by the name of its kind,\n\
    `map` by that of its scalar op.")]
pub(super) struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let mut out = String::new();
    for kind in GraphKind::ALL {
        out += &line("graph", kind.info(), kind.info().attrs, args.json);
    }
    for kind in ReduceKind::ALL {
        // What is left of the row of `reduce` where the name says the kind.
        let info = GraphKind::Reduce.info();
        let attrs: Vec<_> = info.attrs.iter().copied().filter(|(_, ty)| *ty != "ReduceKind").collect();
        out += &line("reduce", &OpInfo { name: kind.name(), doc: kind.doc(), ..*info }, &attrs, args.json);
    }
    for kind in ScalarKind::ALL {
        out += &line("scalar", kind.info(), kind.info().attrs, args.json);
    }
    super::print(&out)
}

fn line(table: &str, info: &OpInfo, attrs: &[(&str, &str)], json: bool) -> String {
    let (name, family, doc) = (info.name, format!("{:?}", info.family).to_lowercase(), info.doc.trim());
    let operands = match info.arity {
        Arity::Exactly(n) => n.to_string(),
        Arity::AtLeast(n) => format!("{n}+"),
    };
    if json {
        let attrs: Vec<_> = attrs.iter().map(|(name, ty)| serde_json::json!({ "name": name, "type": ty })).collect();
        let row = serde_json::json!({
            "table": table, "name": name, "operands": operands, "family": family, "attributes": attrs, "doc": doc,
        });
        format!("{row}\n")
    } else {
        let attrs: Vec<String> = attrs.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
        let attrs = if attrs.is_empty() { String::new() } else { format!(" ({})", attrs.join(", ")) };
        format!("{table:<7} {name:<13} {operands:<2} {family:<15} {doc}{attrs}\n")
    }
}
