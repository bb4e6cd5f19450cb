//! Accesses: which elements of a buffer a box touches.

use super::exec::Machine;
use super::value::{Axes, Data, Scalar, Tile, Value, ViewValue, count, strides, walk};
use super::{failed, unsupported};
use crate::diag::Diagnostic;
use crate::kernel::expr::{Access, Expr, Ident, IndexDim};
use std::sync::Arc;

/// The elements of an access in row-major order of its axes.
pub(super) struct Region {
    /// The buffer.
    pub memory: usize,
    /// Axes of the tile: those of ranges; points are dropped.
    pub axes: Axes,
    /// Offsets in the buffer; none where masked.
    pub places: Vec<Option<usize>>,
}

/// How one axis of the buffer is walked.
enum Walk {
    /// From here, over the access axis of this number if there is one.
    Line { start: i64, axis: Option<usize>, open: bool, limit: i64 },
    /// At a position that data chose.
    Checked { at: i64 },
    /// Through an index tile whose axes are these numbers.
    Gather { tile: Arc<Tile>, axes: Vec<usize> },
}

/// The number of an axis of the tile: dims of one name are walked together, as a gather by a tile over an axis that is also
/// a range. Errors: two sizes.
fn number_of(name: &Ident, size: usize, axes: &mut Axes) -> Result<usize, Diagnostic> {
    match axes.iter().position(|a| a.0 == *name) {
        Some(i) if axes[i].1 == size => Ok(i),
        Some(i) => Err(failed(format!("axis `{name}` has the sizes {} and {size} in one access", axes[i].1))),
        None => {
            axes.push((name.clone(), size));
            Ok(axes.len() - 1)
        }
    }
}

impl Machine {
    /// Resolves an access. Errors: outside of the buffer without a mask, wrong number of indices, pipes and fields.
    pub(super) fn region(&mut self, access: &Access) -> Result<Region, Diagnostic> {
        self.resolve(access, false)
    }

    /// As [`Machine::region`], of an access that writes: of a pipe's slot, the one that is being filled.
    pub(super) fn region_to(&mut self, access: &Access) -> Result<Region, Diagnostic> {
        self.resolve(access, true)
    }

    fn resolve(&mut self, access: &Access, writes: bool) -> Result<Region, Diagnostic> {
        let pipe = matches!(self.lookup(&access.buffer), Some(Value::Pipe(_)));
        if !pipe && (access.back > 0 || access.field.is_some()) {
            return Err(unsupported(format!("`{access}` (fields of block formats)")));
        }
        let (memory, view) = match self.lookup(&access.buffer).cloned() {
            Some(Value::Pipe(_)) => (self.slot(access, writes)?, None),
            Some(Value::Memory(i)) => (i, None),
            Some(Value::View(v)) => (v.memory, Some(v)),
            Some(Value::Int(_) | Value::Tile(_)) | None => {
                return Err(failed(format!("`{}` is no buffer", access.buffer)));
            }
        };
        let extents = match &view {
            Some(v) => v.axes.clone(),
            None => self.memory(memory)?.axes.clone(),
        };
        let whole = vec![IndexDim::All; extents.len()];
        let dims = access.dims.as_ref().unwrap_or(&whole);
        if dims.len() != extents.len() {
            let (found, want) = (dims.len(), extents.len());
            return Err(failed(format!("`{access}` has {found} indices for {want} axes")));
        }
        let mut axes = Axes::new();
        let mut walks = Vec::new();
        for (dim, (name, extent)) in dims.iter().zip(&extents) {
            walks.push(self.walk_of(dim, name, *extent, &mut axes)?);
        }
        let n = count(&axes)?;
        self.spend(n)?;
        let mut places = Vec::with_capacity(n);
        let mut at = vec![0usize; axes.len()];
        for _ in 0..n {
            places.push(self.place(access, memory, view.as_ref(), &extents, &walks, &at, &axes)?);
            for (i, a) in at.iter_mut().zip(&axes).rev() {
                *i += 1;
                if *i < a.1 {
                    break;
                }
                *i = 0;
            }
        }
        Ok(Region { memory, axes, places })
    }

    fn walk_of(&mut self, dim: &IndexDim, name: &Ident, extent: usize, axes: &mut Axes) -> Result<Walk, Diagnostic> {
        Ok(match dim {
            IndexDim::All => {
                let axis = Some(number_of(name, extent, axes)?);
                Walk::Line { start: 0, axis, open: false, limit: i64::MAX }
            }
            IndexDim::Point { at, open } => {
                Walk::Line { start: self.int(at)?, axis: None, open: *open, limit: i64::MAX }
            }
            IndexDim::Checked { at } => Walk::Checked { at: self.int(at)? },
            IndexDim::Range { start, size, open, upto } => {
                let size = self.size(size)?;
                let limit = upto.as_ref().map_or(Ok(i64::MAX), |u| self.int(u))?;
                let axis = Some(number_of(name, size, axes)?);
                Walk::Line { start: self.int(start)?, axis, open: *open, limit }
            }
            IndexDim::Gather(tile) => {
                let Some(Value::Tile(tile)) = self.lookup(tile).cloned() else {
                    return Err(failed(format!("`{tile}` is no index tile")));
                };
                let mut numbers = Vec::new();
                for a in &tile.axes {
                    numbers.push(number_of(&a.0, a.1, axes)?);
                }
                Walk::Gather { tile, axes: numbers }
            }
        })
    }

    /// Offset of the element at the tile index `at`.
    #[allow(clippy::too_many_arguments)] // the resolved access, passed once per element
    fn place(
        &mut self,
        access: &Access,
        memory: usize,
        view: Option<&Arc<ViewValue>>,
        extents: &Axes,
        walks: &[Walk],
        at: &[usize],
        axes: &Axes,
    ) -> Result<Option<usize>, Diagnostic> {
        let mut index = Vec::with_capacity(walks.len());
        for (walk, (name, extent)) in walks.iter().zip(extents) {
            let (i, open, limit) = match walk {
                Walk::Line { start, axis, open, limit } => {
                    let step = axis.map_or(0, |a| at[a] as i64);
                    (start.checked_add(step).ok_or_else(|| failed("an index overflows"))?, *open, *limit)
                }
                Walk::Checked { at } => {
                    if usize::try_from(*at).is_ok_and(|u| u < *extent) {
                        (*at, false, i64::MAX)
                    } else {
                        let message = format!("`{access}` reaches {at}, expected 0..{extent}");
                        return Err(Diagnostic::new("index-out-of-range", message));
                    }
                }
                Walk::Gather { tile, axes: numbers } => {
                    let offset = numbers.iter().fold(0, |o, &n| o * axes[n].1 + at[n]);
                    match tile.get(offset)? {
                        Scalar::Int(i) => (i, false, i64::MAX),
                        s => return Err(failed(format!("indices of `{access}` are {}", s.kind()))),
                    }
                }
            };
            match usize::try_from(i) {
                Ok(u) if u < *extent && i < limit => index.push(u),
                Ok(u) if i >= limit || (open && u >= *extent) => return Ok(None),
                Ok(_) | Err(_) => {
                    let message = format!("`{access}` reaches {i} on axis `{name}` of size {extent}");
                    return Err(failed(message));
                }
            }
        }
        let index = match view {
            None => index,
            Some(v) => match self.through(v, &index)? {
                Some(i) => i,
                None => return Ok(None),
            },
        };
        let sizes = &self.memory(memory)?.axes;
        Ok(Some(index.iter().zip(sizes).fold(0, |o, (i, a)| o * a.1 + i)))
    }

    /// The buffer's index of a view's index; none outside of an open dim.
    fn through(&mut self, view: &ViewValue, index: &[usize]) -> Result<Option<Vec<usize>>, Diagnostic> {
        let sizes: Vec<usize> = self.memory(view.memory)?.axes.iter().map(|a| a.1).collect();
        if sizes.len() != view.dims.len() {
            return Err(failed(format!("a view has {} indices for {} axes", view.dims.len(), sizes.len())));
        }
        let mark = self.mark();
        for ((name, _), i) in view.axes.iter().zip(index) {
            self.bind(name, Value::Int(*i as i64));
        }
        let mut out = Some(Vec::with_capacity(sizes.len()));
        for ((e, open), size) in view.dims.iter().zip(sizes) {
            let i = self.int(e)?;
            match usize::try_from(i).ok().filter(|u| *u < size) {
                Some(u) => {
                    if let Some(o) = &mut out {
                        o.push(u);
                    }
                }
                None if *open => out = None,
                None => return Err(failed(format!("the view index `{e}` is {i} on an axis of size {size}"))),
            }
        }
        self.release(mark);
        Ok(out)
    }

    /// The tile of a region; masked elements read `pad`, or poison without one.
    pub(super) fn load(&mut self, region: &Region, pad: Option<&Expr>) -> Result<Tile, Diagnostic> {
        let pad = match pad {
            Some(e) => {
                let tile = self.eval(e)?;
                if !tile.axes.is_empty() {
                    return Err(failed(format!("the pad `{e}` is a tile, not one value")));
                }
                Some(tile.get(0)?)
            }
            None => None,
        };
        let data = &self.memory(region.memory)?.data;
        let pad = pad.map_or(Ok(data.poison()), |p| data.convert(p))?;
        let mut items = Vec::with_capacity(region.places.len());
        for place in &region.places {
            items.push(match place {
                Some(i) => data.get(*i).ok_or_else(|| Diagnostic::bug("a place outside its buffer"))?,
                None => pad,
            });
        }
        let data = if items.is_empty() { data.poisoned_empty() } else { Data::collect(items)? };
        Ok(Tile { axes: region.axes.clone(), data })
    }

    /// Writes `tile`, broadcast by name, to a region; masked places are skipped.
    pub(super) fn store(&mut self, region: &Region, tile: &Tile, what: &str) -> Result<(), Diagnostic> {
        for (name, size) in &tile.axes {
            match region.axes.iter().find(|a| a.0 == *name) {
                Some(a) if a.1 == *size => {}
                Some(a) => {
                    return Err(failed(format!("{what}: axis `{name}` has size {} there, {size} in the value", a.1)));
                }
                None => return Err(failed(format!("{what}: the value has an axis `{name}` that the place lacks"))),
            }
        }
        self.spend(region.places.len())?;
        let memory = self.memory_mut(region.memory)?;
        if memory.read_only {
            return Err(failed(format!("{what}: the buffer is read-only")));
        }
        let mut places = region.places.iter();
        walk(&region.axes, [strides(&tile.axes, &region.axes)], |[from]| {
            if let Some(Some(to)) = places.next() {
                memory.data.set(*to, tile.get(from)?)?;
            }
            Ok(())
        })
    }
}

impl Data {
    fn poisoned_empty(&self) -> Data {
        match self {
            Data::Float(_) => Data::Float(Vec::new()),
            Data::Int(_) => Data::Int(Vec::new()),
            Data::Bool(_) => Data::Bool(Vec::new()),
        }
    }
}
