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
    for kind in GraphKind::ALL {
        show("graph", kind.info(), args.json);
    }
    for kind in ScalarKind::ALL {
        show("scalar", kind.info(), args.json);
    }
    Ok(())
}

fn show(table: &str, info: &OpInfo, json: bool) {
    let (name, family, doc) = (info.name, format!("{:?}", info.family).to_lowercase(), info.doc.trim());
    if json {
        let row = serde_json::json!({ "table": table, "name": name, "family": family, "doc": doc });
        println!("{row}");
    } else {
        println!("{table:<7} {name:<13} {family:<15} {doc}");
    }
}
