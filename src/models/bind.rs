//! From checkpoint tensors to the weights of an entry, by name.

use super::{LlamaConfig, rope_tables};
use crate::formats::{Checkpoint, Gguf, dequantise::dequantise};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::{Module, Param, Role};
use tilewright_ir::types::{Bindings, DType, Dim, Type};

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

/// The weights of `module`'s entry from a checkpoint that has them all and no others, f16 and bf16 converted to the float
/// that is declared. `rename` gives the checkpoint's name of a weight; names that `spare` accepts may be there unused.
///
/// Errors: `weight-mismatch`, which lists what is missing, too much, or of another shape or dtype; those of reading.
pub fn bind_checkpoint(
    checkpoint: &Checkpoint,
    module: &Module,
    rename: impl Fn(&str) -> String,
    spare: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Array>, Diagnostic> {
    let there: BTreeSet<&str> = checkpoint.names().into_iter().collect();
    let (mut weights, mut named, mut problems) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for param in weights_of(module)? {
        let name = rename(&param.name);
        named.insert(name.clone());
        if !there.contains(&*name) {
            problems.push(format!("`{name}` is missing, expected {}", param.ty));
            continue;
        }
        let array = checkpoint.tensor(&name)?;
        let found = Type::new(array.dtype(), array.shape().iter().copied());
        match converted(&array, param) {
            Some(array) => _ = weights.insert(param.name.to_string(), array?),
            None => {
                let reversed: Vec<Dim> = found.shape.iter().rev().cloned().collect();
                let hint = if reversed == param.ty.shape && reversed != found.shape { " (transposed)" } else { "" };
                problems.push(format!("`{name}` expected {}, found {found}{hint}", param.ty));
            }
        }
    }
    for name in there.iter().filter(|name| !named.contains(**name) && !spare(name)) {
        let array = checkpoint.tensor(name)?;
        let found = Type::new(array.dtype(), array.shape().iter().copied());
        problems.push(format!("`{}` of {found} has no place in the model", name.escape_debug()));
    }
    let Some(first) = problems.first() else { return Ok(weights) };
    let message = format!("weight {first}");
    let mut error = Diagnostic::new("weight-mismatch", message);
    for problem in problems.iter().take(MAX_PROBLEMS).skip(1) {
        error = error.note(format!("weight {problem}"));
    }
    if problems.len() > MAX_PROBLEMS {
        error = error.note(format!("and {} more weights", problems.len() - MAX_PROBLEMS));
    }
    Err(error)
}

/// Mismatches that one error lists.
const MAX_PROBLEMS: usize = 8;

/// `array` as what `param` declares; `None` if it has another shape or a dtype that cannot be converted without loss.
fn converted(array: &Array, param: &Param) -> Option<Result<Array, Diagnostic>> {
    let same_shape = param.ty.shape.len() == array.shape().len()
        && param.ty.shape.iter().zip(array.shape()).all(|(dim, size)| *dim == Dim::from(*size));
    let narrow = matches!(array.dtype(), DType::F16 | DType::Bf16);
    match (array.dtype(), param.ty.dtype) {
        _ if !same_shape => None,
        (found, declared) if found == declared => Some(Ok(array.clone())),
        (_, DType::F32) if narrow => Some(dequantise(array)),
        (found, DType::F64) if narrow || found == DType::F32 => Some(Array::from_f64(array.shape(), &array.to_f64()?)),
        _ => None,
    }
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
