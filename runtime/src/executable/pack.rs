//! Packing steps, split over the threads by panels. The panels of a weight are made once and kept with the weight.

use super::Executable;
use super::run::Frame;
use crate::buffer::{Buffer, Memory};
use crate::plan::{Home, StepHomes};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use tilewright_codegen::cpu::pack::{
    pack_halves, pack_pairs, pack_panels_block, pack_panels_f32, pack_panels_f64, packed_bytes, transpose_f32,
};
use tilewright_codegen::cpu::ukernel::transpose::{PAST_CACHES, SIDE};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::Pack;
use tilewright_ir::types::{Bindings, DType, Dim};

/// Address of the source, dtype, dtype of the panels, all sizes of the packing.
pub(super) type PackKey = (usize, DType, DType, Sizes);

/// A packing with its sizes known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sizes {
    offset: usize,
    /// Extents and strides.
    batch: Vec<(usize, usize)>,
    k: usize,
    n: usize,
    k_stride: usize,
    n_stride: usize,
    nr: usize,
}

impl Executable {
    pub(super) fn pack(&self, pack: &Pack, homes: &StepHomes, frame: &mut Frame<'_>) -> Result<(), Diagnostic> {
        let bindings = frame.bindings;
        let &[from, to] = homes.arguments.as_slice() else { return Err(Diagnostic::bug("a packing of what?")) };
        let source = frame.pointer(self, from)?;
        let sizes = Sizes::of(pack, bindings)?;
        let Home::Panels(number) = to else {
            // SAFETY: the source is a matrix of these sizes, and the plan gives the panels memory of their size.
            return unsafe { self.fill(source, frame.pointer(self, to)?, (pack.dtype, pack.panels), &sizes) };
        };
        let slot = |frame: &mut Frame<'_>, panels: *mut u8| {
            let slot = frame.panels.get_mut(number).ok_or_else(|| Diagnostic::bug("panels without a number"))?;
            *slot = panels;
            Ok(())
        };
        let key: PackKey = (source as usize, pack.dtype, pack.panels, sizes);
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, panels)) = packed.get(&key) {
            return slot(frame, panels.pointer());
        }
        // The source is kept beside its panels, so that its address stays its own.
        let owner = frame.given(self, from)?.owner.cloned();
        let owner = owner.ok_or_else(|| Diagnostic::bug("panels of a weight that nobody owns"))?;
        let panels = Memory::zeroed(key.3.bytes(pack.panels).ok_or_else(|| overflow(pack.dtype, &key.3))?)?;
        // SAFETY: the source is a matrix of these sizes, and the fresh memory has the size of its panels.
        unsafe { self.fill(source, panels.pointer(), (pack.dtype, pack.panels), &key.3)? };
        slot(frame, panels.pointer())?;
        packed.insert(key, (owner, Buffer::Owned(Arc::new(panels))));
        Ok(())
    }

    /// Packs `source` into `panels`.
    ///
    /// # Safety
    /// The source has the elements that the sizes reach, the panels have room for all of them and are nobody else's.
    unsafe fn fill(
        &self,
        source: *const u8,
        panels: *mut u8,
        (dtype, packed): (DType, DType),
        sizes: &Sizes,
    ) -> Result<(), Diagnostic> {
        let bytes = sizes.bytes(packed).ok_or_else(|| overflow(dtype, sizes))?;
        let elements = sizes.elements(dtype).ok_or_else(|| overflow(dtype, sizes))?;
        let len = dtype.bytes(elements).ok_or_else(|| overflow(dtype, sizes))?;
        // SAFETY: the caller's promise.
        let from = unsafe { std::slice::from_raw_parts(source, len) };
        let panel = sizes.nr.checked_mul(packed.bytes(sizes.k).unwrap_or(0)).filter(|n| *n > 0);
        let Some(panel) = panel.filter(|_| bytes > 0) else { return Ok(()) };
        let (strips, failed) = (sizes.strips(), AtomicBool::new(false));
        let target = Target(panels);
        let past = bytes >= PAST_CACHES;
        self.pool.run(bytes / panel / sizes.panels() * strips, &|_, range| {
            for item in range {
                let (first, count) = sizes.part(item);
                // SAFETY: the memory has the panels of all matrices, each written in the one range that its strip is in.
                let to = unsafe { std::slice::from_raw_parts_mut(target.get().add(first * panel), count * panel) };
                if sizes.strip((dtype, packed), from, item, to, past).is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
            }
        });
        if failed.load(Ordering::Relaxed) { Err(Diagnostic::bug("a packing outside its matrix")) } else { Ok(()) }
    }
}

impl Sizes {
    fn of(pack: &Pack, bindings: &Bindings) -> Result<Sizes, Diagnostic> {
        let size = |d: &Dim| -> Result<usize, Diagnostic> {
            let v = d.eval(bindings).map_err(|m| Diagnostic::new("symbol", m))?;
            usize::try_from(v).map_err(|_| Diagnostic::new("symbol", format!("the size `{d}` is negative")))
        };
        let batch = pack.batch.iter().map(|(n, s)| Ok((size(n)?, size(s)?))).collect::<Result<_, Diagnostic>>()?;
        let (k, n, k_stride, n_stride) = (size(&pack.k)?, size(&pack.n)?, size(&pack.k_stride)?, size(&pack.n_stride)?);
        Ok(Sizes { offset: size(&pack.offset)?, batch, k, n, k_stride, n_stride, nr: pack.nr })
    }

    /// Bytes of all panels.
    fn bytes(&self, dtype: DType) -> Option<usize> {
        let one = packed_bytes(dtype, self.k, self.n, self.nr)?;
        self.batch.iter().try_fold(one, |all, (n, _)| all.checked_mul(*n))
    }

    /// Elements of the source up to the last that is read.
    fn elements(&self, dtype: DType) -> Option<usize> {
        if self.k == 0 || self.n == 0 || self.batch.iter().any(|(n, _)| *n == 0) {
            return Some(0);
        }
        if dtype.is_block() {
            let plain = self.batch.is_empty() && self.offset == 0;
            return self.k.checked_mul(self.n).filter(|_| plain);
        }
        let axes = self.batch.iter().copied().chain([(self.k, self.k_stride), (self.n, self.n_stride)]);
        let mut last = self.offset;
        for (n, stride) in axes {
            last = last.checked_add((n - 1).checked_mul(stride)?)?;
        }
        last.checked_add(1)
    }

    /// Panels of a matrix.
    fn panels(&self) -> usize {
        self.n.div_ceil(self.nr)
    }

    /// Panels that are written together: those that share lines of the source where each is one column.
    fn together(&self) -> usize {
        if self.nr == 1 { SIDE } else { 1 }
    }

    /// Strips of a matrix.
    fn strips(&self) -> usize {
        self.panels().div_ceil(self.together())
    }

    /// The first panel of strip `item`, and how many it has.
    fn part(&self, item: usize) -> (usize, usize) {
        let (matrix, strip) = (item / self.strips(), item % self.strips());
        let first = strip * self.together();
        (matrix * self.panels() + first, self.together().min(self.panels() - first))
    }

    /// Writes strip `item`: panels of one matrix; `past` the caches where that can be done.
    fn strip(
        &self,
        (dtype, packed): (DType, DType),
        from: &[u8],
        item: usize,
        to: &mut [u8],
        past: bool,
    ) -> Result<(), Diagnostic> {
        let (first, count) = self.part(item);
        let (mut matrix, first) = (first / self.panels(), first % self.panels() * self.nr);
        let columns = (count * self.nr).min(self.n - first);
        if dtype.is_block() {
            let row = dtype.bytes(self.k).unwrap_or(0);
            let rows = from.get(first * row..(first + columns) * row).unwrap_or(&[]);
            return pack_panels_block(dtype, rows, self.k, columns, self.nr, to);
        }
        let mut at = self.offset + first * self.n_stride;
        for (n, stride) in self.batch.iter().rev() {
            at += matrix % n * stride;
            matrix /= n;
        }
        let (k_stride, n_stride) = (self.k_stride, self.n_stride);
        match dtype {
            DType::F16 | DType::Bf16 => {
                let from = floats(from).get(at..).unwrap_or(&[]);
                if packed == DType::F32 {
                    pack_halves(dtype, from, (self.k, columns), (k_stride, n_stride), self.nr, floats_mut(to))
                } else {
                    pack_pairs(from, (self.k, columns), (k_stride, n_stride), self.nr, floats_mut(to))
                }
            }
            DType::F64 => {
                let from = floats(from).get(at..).unwrap_or(&[]);
                pack_panels_f64(from, self.k, columns, k_stride, n_stride, self.nr, floats_mut(to))
            }
            _ if self.nr == 1 && n_stride == 1 => {
                let from = floats(from).get(at..).unwrap_or(&[]);
                transpose_f32(from, (self.k, columns), k_stride, floats_mut(to), past)
            }
            _ => {
                let from = floats(from).get(at..).unwrap_or(&[]);
                pack_panels_f32(from, self.k, columns, k_stride, n_stride, self.nr, floats_mut(to))
            }
        }
    }
}

fn overflow(dtype: DType, sizes: &Sizes) -> Diagnostic {
    let (k, n) = (sizes.k, sizes.n);
    Diagnostic::new("dim-overflow", format!("a {k} x {n} matrix of {dtype} does not fit in memory"))
}

/// Where the threads write.
struct Target(*mut u8);

impl Target {
    fn get(&self) -> *mut u8 {
        self.0
    }
}

// SAFETY: each thread writes strips of its own, see `Executable::fill`.
unsafe impl Sync for Target {}

/// Plain numbers over bytes. `T` is f32, f64 or the bits of a half here: any bits are a value.
fn floats<T: Copy>(bytes: &[u8]) -> &[T] {
    // SAFETY: `align_to` gives only the aligned middle; buffers are aligned for their dtype, so that is everything, and
    // any bit pattern is a valid `T`.
    unsafe { bytes.align_to::<T>().1 }
}

fn floats_mut<T: Copy>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: as above; strips start at multiples of an element in memory aligned to 64 bytes.
    unsafe { bytes.align_to_mut::<T>().1 }
}
