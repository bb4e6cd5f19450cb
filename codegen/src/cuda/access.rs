//! Addresses of buffer elements: dims of an access, views, masks.

use super::emitter::{Axes, Binding, Element, Emitted, Emitter, Memory, Stop};
use super::value::bare;
use super::{invalid, scalar, unsupported};
use tilewright_ir::kernel::expr::{Access, Expr, Ident, IndexDim};
use tilewright_ir::kernel::tree::View;
use tilewright_ir::types::DType;

/// One element of a buffer.
pub(super) struct Address {
    /// `buffer[offset]`; of a block encoding `decoder(buffer, offset)`, which can only be read.
    pub place: String,
    /// Where it lies inside, if that is not certain.
    pub mask: Option<String>,
    pub memory: Memory,
}

impl Address {
    /// The value, or `pad` where masked.
    pub fn read(self, pad: Option<String>) -> String {
        let zero = if self.memory.dtype == DType::Bool { "false" } else { "0" };
        let value = scalar::read(self.memory.dtype, self.place);
        match self.mask {
            None => value,
            Some(m) => format!("{m} ? {value} : {}", pad.unwrap_or_else(|| zero.to_string())),
        }
    }
}

/// Axes that an access indexes: name, size as C, constant size.
type Surface = Vec<(Ident, String, Option<i64>)>;

impl Emitter<'_> {
    /// The bits that the `swizzle(b, m, s)` of a buffer exchanges.
    pub fn swizzle(&self, b: &tilewright_ir::kernel::tree::Buffer) -> Emitted<Option<[i64; 3]>> {
        let Some(attr) = b.attrs.iter().find(|a| &*a.name == "swizzle") else { return Ok(None) };
        match attr.args.as_slice() {
            [Expr::Int(b @ 0..=8), Expr::Int(m @ 0..=8), Expr::Int(s @ 1..=8)] if b <= s => Ok(Some([*b, *m, *s])),
            _ => Err(invalid(format!("expected `swizzle(b, m, s)` with b <= s of `{}`", b.name)).into()),
        }
    }

    /// The buffer of a name; a tile becomes one by living in shared memory.
    fn memory(&self, name: &str) -> Emitted<Memory> {
        match self.lookup(name)? {
            Binding::Memory(m) => Ok(m),
            Binding::Tile(t) if t.shared => {
                let axes = t.axes.iter().map(|a| (a.0.clone(), a.1.to_string(), Some(a.1))).collect();
                Ok(Memory {
                    c: t.c,
                    dtype: t.dtype,
                    axes,
                    exchanged: true,
                    shared: true,
                    writable: true,
                    swizzle: None,
                })
            }
            Binding::Tile(t) if t.axes.is_empty() => Err(invalid(format!("`{name}` is a scalar, not a buffer")).into()),
            Binding::Tile(t) => Err(Stop::Shared(t.c)),
            Binding::View(_) | Binding::Index(_) | Binding::Constant(_) => {
                Err(invalid(format!("`{name}` is not a buffer")).into())
            }
        }
    }

    fn surface(&mut self, a: &Access) -> Emitted<(Memory, Option<View>, Surface)> {
        if a.back != 0 {
            return Err(unsupported(format!("earlier slots of `{}`", a.buffer)).into());
        }
        let name = a.field.as_ref().map_or_else(|| a.buffer.clone(), |f| format!("{}.{f}", a.buffer).into());
        let view = match self.lookup(&name)? {
            Binding::View(v) => Some(v),
            Binding::Memory(_) | Binding::Tile(_) | Binding::Index(_) | Binding::Constant(_) => None,
        };
        let memory = self.memory(view.as_ref().map_or(&name, |v| &v.buffer))?;
        let surface = match &view {
            None => memory.axes.clone(),
            Some(v) => {
                let sized = v.axes.iter().map(|(n, s)| Ok((n.clone(), self.index(s)?, self.constant(s))));
                sized.collect::<Emitted<Surface>>()?
            }
        };
        if a.dims.as_ref().is_some_and(|d| d.len() != surface.len()) {
            return Err(invalid(format!("expected {} dims of `{}`", surface.len(), a.buffer)).into());
        }
        Ok((memory, view, surface))
    }

    /// Dtype of the buffer and axes of the tile that an access names.
    pub fn access_type(&mut self, access: &Access) -> Emitted<(DType, Axes)> {
        let (memory, _, surface) = self.surface(access)?;
        let mut axes = Axes::new();
        // Dims of one name are walked together.
        let add = |axis: (Ident, i64), axes: &mut Axes| match axes.iter().find(|a| a.0 == axis.0) {
            Some(a) if a.1 == axis.1 => Ok(()),
            Some(a) => {
                Err(invalid(format!("axis `{}` of `{}` has the sizes {} and {}", a.0, access.buffer, a.1, axis.1)))
            }
            None => {
                axes.push(axis);
                Ok(())
            }
        };
        for (i, (name, _, size)) in surface.iter().enumerate() {
            let constant = |n: Option<i64>| {
                n.ok_or_else(|| invalid(format!("expected a constant size of axis `{name}` of `{}`", access.buffer)))
            };
            match access.dims.as_ref().and_then(|d| d.get(i)).unwrap_or(&IndexDim::All) {
                IndexDim::All => add((name.clone(), constant(*size)?), &mut axes)?,
                IndexDim::Range { size, .. } => add((name.clone(), constant(self.constant(size))?), &mut axes)?,
                IndexDim::Point { .. } | IndexDim::Checked { .. } => {}
                IndexDim::Gather(t) => {
                    for axis in self.axes(&Expr::Name(t.clone()))? {
                        add(axis, &mut axes)?;
                    }
                }
            }
        }
        Ok((memory.dtype, axes))
    }

    /// The element of an access at an element of its tile.
    pub fn address(&mut self, a: &Access, at: &Element) -> Emitted<Address> {
        let (memory, view, surface) = self.surface(a)?;
        let mut masks = Vec::new();
        let mut index = Vec::new();
        for (i, (name, size, _)) in surface.iter().enumerate() {
            let dim = a.dims.as_ref().and_then(|d| d.get(i)).cloned().unwrap_or(IndexDim::All);
            index.push(self.dim(&dim, name, size, at, &mut masks)?);
        }
        if let Some(v) = view {
            index = self.through(&v, &memory, &index, &mut masks)?;
        }
        if memory.exchanged {
            self.fresh = false;
        }
        let mut offset = String::new();
        // Indices of tiles are int; offsets into global memory may not fit.
        if let Some(first) = index.first_mut().filter(|i| !memory.shared && memory.axes.len() > 1 && is_narrow(i)) {
            *first = format!("(long long){}", grouped(first));
        }
        for (i, (_, size, _)) in index.iter().zip(&memory.axes) {
            offset = if offset.is_empty() { i.clone() } else { format!("{} * {size} + {i}", grouped(&offset)) };
        }
        let offset = if offset.is_empty() { "0".to_string() } else { offset };
        let offset = match memory.swizzle {
            Some([b, m, s]) => format!("swizzled<{b}, {m}, {s}>({})", bare(&offset)),
            None => offset,
        };
        let place = match memory.dtype {
            d if d.is_block() => format!("{d}_at({}, {})", memory.c, bare(&offset)),
            _plain => format!("{}[{}]", memory.c, bare(&offset)),
        };
        let mask = if masks.is_empty() { None } else { Some(format!("({})", masks.join(" && "))) };
        Ok(Address { place, mask, memory })
    }

    fn dim(
        &mut self,
        dim: &IndexDim,
        name: &Ident,
        size: &str,
        at: &Element,
        masks: &mut Vec<String>,
    ) -> Emitted<String> {
        match dim {
            IndexDim::All => at.index_of(name),
            IndexDim::Point { at: point, open } => {
                let i = self.index(point)?;
                if *open {
                    masks.push(format!("{} < {size}", grouped(bare(&i))));
                }
                Ok(i)
            }
            IndexDim::Checked { at: point } => {
                let i = self.index(point)?;
                Ok(format!("index_checked({}, {})", bare(&i), bare(size)))
            }
            IndexDim::Range { start, open, upto, .. } => {
                let (start, i) = (self.index(start)?, at.index_of(name)?);
                let i = if start == "0" { i } else { format!("({} + {i})", bare_sum(&start)) };
                if *open {
                    masks.push(format!("{} < {size}", bare(&i)));
                }
                if let Some(limit) = upto {
                    let limit = self.index(limit)?;
                    masks.push(format!("{} < {limit}", bare(&i)));
                }
                Ok(i)
            }
            IndexDim::Gather(t) => {
                let e = Expr::Name(t.clone());
                let d = self.dtype(&e)?.filter(|d| d.is_int());
                let d = d.ok_or_else(|| invalid(format!("expected the integer tile `{t}` to gather by")))?;
                let i = self.value(&e, d, at)?;
                Ok(format!("index_checked({}, {})", bare(&i), bare(size)))
            }
        }
    }

    /// Indices of the buffer from those of the view.
    fn through(&mut self, v: &View, m: &Memory, index: &[String], masks: &mut Vec<String>) -> Emitted<Vec<String>> {
        if v.dims.len() != m.axes.len() {
            return Err(invalid(format!("expected {} dims of view `{}`", m.axes.len(), v.name)).into());
        }
        self.push_scope();
        for ((axis, _), c) in v.axes.iter().zip(index) {
            self.bind(axis, Binding::Index(c.clone()));
        }
        let mut out = Vec::new();
        for ((e, open), (_, size, _)) in v.dims.iter().zip(&m.axes) {
            let i = self.index(e)?;
            if *open {
                masks.push(format!("0 <= {i} && {i} < {size}"));
            }
            out.push(i);
        }
        self.pop_scope();
        Ok(out)
    }
}

/// In parentheses unless it is one operand already.
fn grouped(text: &str) -> String {
    let text_word = text.strip_prefix("(long long)").unwrap_or(text);
    let simple = text_word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if simple || bare(text) != text { text.to_string() } else { format!("({text})") }
}

/// Whether an index is of tile indices and numbers alone, so that C computes it in int.
fn is_narrow(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| !w.is_empty());
    text.contains("i_") && words.all(|w| w.starts_with("i_") || w.starts_with(|c: char| c.is_ascii_digit()))
}

/// A sum inside a sum needs no parentheses.
fn bare_sum(text: &str) -> &str {
    let inner = bare(text);
    if inner.contains(['?', '&', '|', '<', '>', '=']) { text } else { inner }
}
