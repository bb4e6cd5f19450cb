//! Packing steps. The panels of a weight are made once and kept with the weight.

use super::run::Environment;
use super::{Compiled, Executable};
use crate::buffer::{Buffer, Memory};
use std::sync::{Arc, PoisonError};
use tilewright_codegen::cpu::pack::{pack_panels_block, pack_panels_f32, pack_panels_f64, packed_bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Role;
use tilewright_ir::kernel::Pack;
use tilewright_ir::types::{Bindings, DType, Dim};

/// Address of the source, dtype, k, n, strides, columns of a panel.
pub(super) type PackKey = (usize, DType, [usize; 5]);

impl Executable {
    pub(super) fn pack(
        &self,
        compiled: &Compiled,
        pack: &Pack,
        env: &mut Environment,
        bindings: &Bindings,
    ) -> Result<(), Diagnostic> {
        let source = self.buffer(compiled, &pack.from, env, bindings)?;
        let size = |d: &Dim| -> Result<usize, Diagnostic> {
            let v = d.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
            usize::try_from(v).map_err(|_| Diagnostic::new("symbol", format!("the size `{d}` is negative")))
        };
        let sizes = [size(&pack.k)?, size(&pack.n)?, size(&pack.k_stride)?, size(&pack.n_stride)?, pack.nr];
        let root = root_of(compiled, &pack.from);
        let is_weight = compiled.program.params.iter().any(|p| p.buffer.name == root && p.role == Role::Weight)
            || compiled.program.constants.iter().any(|(n, _)| *n == root);
        let key: PackKey = (source.pointer() as usize, pack.dtype, sizes);
        if is_weight {
            let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, panels)) = packed.get(&key) {
                env.insert(pack.to.clone(), panels.clone());
                return Ok(());
            }
        }
        let panels = panels(&source, pack.dtype, sizes)?;
        if is_weight {
            // The source is kept beside its panels, so that its address stays its own.
            let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
            packed.insert(key, (source, panels.clone()));
        }
        env.insert(pack.to.clone(), panels);
        Ok(())
    }
}

/// The buffer whose memory `name` is.
pub(super) fn root_of(compiled: &Compiled, name: &Arc<str>) -> Arc<str> {
    let mut at = name.clone();
    while let Some(of) = compiled.program.work.iter().find(|b| b.name == at).and_then(|b| b.alias_of.clone()) {
        at = of;
    }
    at
}

fn panels(source: &Buffer, dtype: DType, [k, n, k_stride, n_stride, nr]: [usize; 5]) -> Result<Buffer, Diagnostic> {
    let overflow = || Diagnostic::new("dim-overflow", format!("a {k} x {n} matrix of {dtype} does not fit in memory"));
    let bytes = packed_bytes(dtype, k, n, nr).ok_or_else(overflow)?;
    let memory = Memory::zeroed(bytes)?;
    let spread = |m: usize, s: usize| m.saturating_sub(1).checked_mul(s);
    let elements = match (k, n) {
        (0, _) | (_, 0) => 0,
        _ if dtype.is_block() => k.checked_mul(n).ok_or_else(overflow)?,
        _ => spread(k, k_stride).zip(spread(n, n_stride)).map(|(a, b)| a + b + 1).ok_or_else(overflow)?,
    };
    let len = dtype.bytes(elements).ok_or_else(overflow)?;
    let from = source.bytes(len).ok_or_else(|| Diagnostic::bug("a packed matrix is larger than its buffer"))?;
    match dtype {
        DType::F32 => pack_panels_f32(floats(&from), k, n, k_stride, n_stride, nr, floats_mut(&memory, bytes / 4)),
        DType::F64 => pack_panels_f64(floats(&from), k, n, k_stride, n_stride, nr, floats_mut(&memory, bytes / 8)),
        _ => pack_panels_block(dtype, &from, k, n, nr, floats_mut(&memory, bytes)),
    }?;
    Ok(Buffer::Owned(Arc::new(memory)))
}

/// Plain numbers over bytes. `T` is f32, f64 or u8 here: any bits are a value.
fn floats<T: Copy>(bytes: &[u8]) -> &[T] {
    // SAFETY: `align_to` gives only the aligned middle; buffers are aligned for their dtype, so that is everything, and
    // any bit pattern is a valid `T`.
    unsafe { bytes.align_to::<T>().1 }
}

#[allow(clippy::mut_from_ref)]
fn floats_mut<T: Copy>(memory: &Memory, len: usize) -> &mut [T] {
    // SAFETY: fresh memory of at least `len` elements, aligned to 64 bytes, that nobody else holds yet.
    unsafe { std::slice::from_raw_parts_mut(memory.pointer().cast::<T>(), len) }
}
