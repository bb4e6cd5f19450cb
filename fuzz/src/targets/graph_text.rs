//! `.tw` text: what is accepted is verified, printed, parsed again, and interpreted if it is small.

use super::{Outcome, Target, accepted, refused};
use crate::{interpret, seeds};
use std::collections::BTreeSet;
use tilewright_ir::graph::Module;
use tilewright_ir::op::{GraphKind, GraphOp, ReduceKind, ScalarKind};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType;
use tilewright_ir::verify::verify;

/// See the module.
pub struct GraphText;

/// Names of ops and dtypes.
pub fn words() -> Vec<String> {
    let graph = GraphKind::ALL.iter().map(|k| k.info().name.to_string());
    let scalar = ScalarKind::ALL.iter().map(|k| k.info().name.to_string());
    let reduce = ReduceKind::ALL.iter().map(|k| k.name().to_string());
    graph.chain(scalar).chain(reduce).chain(DType::ALL.iter().map(ToString::to_string)).collect()
}

/// Ops and dtypes of a module.
pub fn signature(module: &Module) -> String {
    let name = |op: &GraphOp| match op {
        GraphOp::Map { op } => op.info().name,
        op => op.info().name,
    };
    let nodes = module.functions.values().flat_map(|f| &f.nodes);
    let ops: BTreeSet<String> = nodes
        .map(|n| format!("{}:{}", name(&n.op), n.types.first().map(|t| t.dtype.to_string()).unwrap_or_default()))
        .collect();
    ops.into_iter().collect::<Vec<_>>().join(" ")
}

impl Target for GraphText {
    fn name(&self) -> &'static str {
        "tw"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        seeds::graph_texts()
    }

    fn words(&self) -> Vec<String> {
        words()
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let text = String::from_utf8_lossy(input);
        let module = match parse("fuzz.tw", &text) {
            Ok(module) => module,
            Err(error) => return refused(&error),
        };
        verify(&module).map_err(|d| format!("the parser gives what the verifier refuses: {d}"))?;
        let printed = print(&module);
        let again = parse("printed.tw", &printed).map_err(|d| format!("what is printed is refused: {d}"))?;
        if let Some(found) = difference(&module, &again) {
            return Err(format!("another module comes back from its text: {found}"));
        }
        if print(&again) != printed {
            return Err("the text of the text differs".into());
        }
        let ran = interpret::small(&module)?;
        Ok(accepted(format!("{} {ran}", signature(&module))))
    }
}
