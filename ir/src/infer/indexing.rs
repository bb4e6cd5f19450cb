//! Types of indexing ops.

use super::movement::overflow;
use super::{axis_of, one, plain, shapes_differ};
use crate::diag::Diagnostic;
use crate::op::Axis;
use crate::types::{Dim, Type};

fn integer(what: &str, ids: &Type) -> Result<(), Diagnostic> {
    if ids.dtype.is_int() {
        return Ok(());
    }
    Err(Diagnostic::new("dtype-mismatch", format!("`{what}` needs integer indices, found {ids}")))
}

pub(super) fn take(axis: Axis, x: &Type, ids: &Type) -> Result<Vec<Type>, Diagnostic> {
    axis_of(x, axis)?;
    integer("take", ids)?;
    // Whole rows of a block encoding may be taken: the innermost axis stays whole.
    if x.dtype.is_block() && axis + 1 == x.rank() {
        plain("take", x.dtype)?;
    }
    let mut shape = x.shape[..axis].to_vec();
    shape.extend(ids.shape.iter().cloned());
    shape.extend(x.shape[axis + 1..].iter().cloned());
    one(Type { dtype: x.dtype, shape })
}

fn same_but(what: &str, axis: Axis, x: &Type, ids: &Type) -> Result<(), Diagnostic> {
    axis_of(x, axis)?;
    integer(what, ids)?;
    plain(what, x.dtype)?;
    if x.rank() != ids.rank() {
        return Err(shapes_differ(what, x, ids, None));
    }
    match (0..x.rank()).find(|&i| i != axis && x.shape[i] != ids.shape[i]) {
        Some(i) => Err(shapes_differ(what, x, ids, Some((i, i)))),
        None => Ok(()),
    }
}

pub(super) fn take_along(axis: Axis, x: &Type, ids: &Type) -> Result<Vec<Type>, Diagnostic> {
    same_but("take_along", axis, x, ids)?;
    one(Type { dtype: x.dtype, shape: ids.shape.clone() })
}

pub(super) fn scatter_add(axis: Axis, args: &[&Type]) -> Result<Vec<Type>, Diagnostic> {
    let (base, ids, source) = (args[0], args[1], args[2]);
    same_but("scatter_add", axis, base, ids)?;
    if *source != (Type { dtype: base.dtype, shape: ids.shape.clone() }) {
        let want = Type { dtype: base.dtype, shape: ids.shape.clone() };
        return Err(Diagnostic::new("shape-mismatch", format!("`scatter_add` needs a source {want}, found {source}")));
    }
    one(base.clone())
}

pub(super) fn update_slice(x: &Type, update: &Type, start: &[Dim]) -> Result<Vec<Type>, Diagnostic> {
    plain("update_slice", x.dtype)?;
    if x.dtype != update.dtype {
        return Err(Diagnostic::new("dtype-mismatch", format!("`update_slice` of {x} by {update}: the dtypes differ")));
    }
    if x.rank() != update.rank() || start.len() != x.rank() {
        return Err(shapes_differ("update_slice", x, update, None));
    }
    for (i, s) in start.iter().enumerate() {
        let end = s.checked_add(&update.shape[i]).ok_or_else(overflow)?.as_const();
        let outside =
            s.as_const().is_some_and(|v| v < 0) || matches!((end, x.shape[i].as_const()), (Some(e), Some(n)) if e > n);
        if outside {
            return Err(
                shapes_differ("update_slice", x, update, Some((i, i))).note(format!("the update starts at {s}"))
            );
        }
    }
    one(x.clone())
}
