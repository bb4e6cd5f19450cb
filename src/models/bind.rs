//! From checkpoint tensors to the weights of an entry, by name.

use super::{LlamaConfig, rope_tables};
use crate::formats::{Checkpoint, Gguf};
use std::collections::BTreeMap;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Module, Param, Role};
use tilewright_ir::types::{Bindings, Type};

/// The weights of `module`'s entry from a GGUF file: each by its name, the rotary tables computed. Bytes are shared.
///
/// Errors: `checkpoint-tensor`, `checkpoint-dtype`; `weight-mismatch` for another dtype or shape than declared; those of
/// [`LlamaConfig::from_gguf`].
pub fn bind_weights(gguf: &Gguf, module: &Module) -> Result<BTreeMap<String, Array>, Diagnostic> {
    let mut weights = BTreeMap::new();
    let mut tables: Option<(Array, Array)> = None;
    for param in weights_of(module)? {
        let name = param.name.to_string();
        let array = match &*name {
            "rope.cos" | "rope.sin" => {
                let (cos, sin) = match tables.take() {
                    Some(tables) => tables,
                    None => rope_tables(&LlamaConfig::from_gguf(gguf, rows(param)?)?)?,
                };
                let array = if name == "rope.cos" { cos.clone() } else { sin.clone() };
                tables = Some((cos, sin));
                array
            }
            _ => gguf.tensor(&name)?,
        };
        check(param, &array)?;
        weights.insert(name, array);
    }
    Ok(weights)
}

/// The weights of `module`'s entry from any checkpoint; `rename` gives the checkpoint's name of a weight.
///
/// Errors: as for [`bind_weights`].
pub fn bind_checkpoint(
    checkpoint: &Checkpoint,
    module: &Module,
    rename: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, Array>, Diagnostic> {
    let mut weights = BTreeMap::new();
    for param in weights_of(module)? {
        let array = checkpoint.tensor(&rename(&param.name))?;
        check(param, &array)?;
        weights.insert(param.name.to_string(), array);
    }
    Ok(weights)
}

fn weights_of(module: &Module) -> Result<impl Iterator<Item = &Param>, Diagnostic> {
    Ok(module.entry()?.params.iter().filter(|p| p.role == Role::Weight))
}

fn rows(param: &Param) -> Result<usize, Diagnostic> {
    let rows = param.ty.concrete(&Bindings::new()).ok().and_then(|s| s.first().copied());
    rows.ok_or_else(|| Diagnostic::new("weight-mismatch", format!("`{}` needs known sizes: {}", param.name, param.ty)))
}

fn check(param: &Param, array: &Array) -> Result<(), Diagnostic> {
    let found = Type::new(array.dtype(), array.shape().iter().copied());
    if found == param.ty {
        return Ok(());
    }
    let message = format!("weight `{}`: expected {}, found {found}", param.name, param.ty);
    Err(Diagnostic::new("weight-mismatch", message))
}
