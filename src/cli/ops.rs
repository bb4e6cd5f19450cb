//! `tilewright ops`: the op tables.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::op::{GraphKind, OpInfo, ScalarKind};

/// Arguments of `ops`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let mut out = String::new();
    for kind in GraphKind::ALL {
        out += &line("graph", kind.info(), args.json);
    }
    for kind in ScalarKind::ALL {
        out += &line("scalar", kind.info(), args.json);
    }
    super::print(&out)
}

fn line(table: &str, info: &OpInfo, json: bool) -> String {
    let (name, family, doc) = (info.name, format!("{:?}", info.family).to_lowercase(), info.doc.trim());
    if json {
        let row = serde_json::json!({ "table": table, "name": name, "family": family, "doc": doc });
        format!("{row}\n")
    } else {
        format!("{table:<7} {name:<13} {family:<15} {doc}\n")
    }
}
