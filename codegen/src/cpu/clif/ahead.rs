//! Fetching ahead: a loop whose turns each read a part of another row leaves the processor's own prefetch, which follows lines
//! that lie side by side, with nothing to follow.

use super::emitter::Emitter;
use super::types::{Binding, Num};
use crate::cpu::ukernel::ahead::{DISTANCE, fetch_row};
use cranelift_codegen::ir::{InstBuilder, types};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Access, IndexDim, Stmt};

/// Fewest turns, in multiples of those that a row is fetched ahead.
const TURNS: i64 = 8;

impl Emitter<'_> {
    /// Fetches what the loads of a loop's body read some turns later. The loop runs from `low` to `high`, `var` is at `at`.
    pub fn fetch_ahead(
        &mut self,
        (var, at, step): (&Ident, Num, i64),
        (low, high): (Num, Num),
        body: &[Stmt],
    ) -> Result<(), Diagnostic> {
        for stmt in body {
            let Stmt::Load { access, .. } = stmt else { continue };
            let Some(bytes) = self.part_of_row(access, var)? else { continue };
            let turns = DISTANCE.div_ceil(bytes) as i64;
            let all = low.constant.zip(high.constant).map(|(low, high)| (high - low) / step);
            if all.is_some_and(|all| all < TURNS * turns) {
                continue;
            }
            let outer = self.scope.len();
            let later = self.b.ins().iadd_imm_s(at.value, turns * step);
            self.bind(var, Binding::Index(Num { value: later, constant: None }));
            let address = self.plan(access)?.base;
            self.scope.truncate(outer);
            self.forget(var);
            let bytes = self.b.ins().iconst(types::I64, bytes as i64);
            self.call(fetch_row as *const () as usize, &[bytes, address], None);
        }
        Ok(())
    }

    /// The bytes of an access that reads a part of the row that `var` is the number of; none for all others.
    fn part_of_row(&mut self, access: &Access, var: &Ident) -> Result<Option<usize>, Diagnostic> {
        let Some([rows @ .., IndexDim::Range { start, size, .. }]) = access.dims.as_deref() else { return Ok(None) };
        let points = |dim: &IndexDim| matches!(dim, IndexDim::Point { at, .. } if !self.depends_on_data(at));
        let of_rows = |dim: &IndexDim| matches!(dim, IndexDim::Point { at, .. } if at.reads(var));
        if start.reads(var) || !rows.iter().all(points) || !rows.iter().any(of_rows) {
            return Ok(None);
        }
        let Binding::Memory(memory) = self.find(&access.buffer)?.clone() else { return Ok(None) };
        let whole = memory.axes.last().and_then(|(_, extent)| extent.constant);
        let size = self.index(size)?.constant.filter(|size| whole != Some(*size));
        let bytes = size.and_then(|size| memory.dtype.bytes(usize::try_from(size).ok()?));
        Ok(bytes.filter(|bytes| memory.argument && !memory.dtype.is_block() && *bytes > 0))
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::clif::clif_text;
    use crate::cpu::ukernel::Isa;

    /// Sums of columns in tiles of `tile`, over `rows` rows of 1024.
    fn fetches(rows: i64, tile: i64) -> bool {
        let text = format!(
            "kernel sums target cpu {{
  in x: f32[k={rows}, n=1024]
  out y: f32[n=1024]
  par t in {} at grid {{
    reg s: f32[n={tile}]
    set s = f32(0)
    for j in 0 .. {rows} {{
      let v = load x[j, t*{tile} +: {tile}]
      set s = s + v
    }}
    store y[t*{tile} +: {tile}] = s
  }}
}}",
            1024 / tile
        );
        let kernel = tilewright_ir::kernel::text::parse_kernel("k.tk", &text).unwrap();
        clif_text(&kernel, Isa::Portable).unwrap().contains("fetch_row")
    }

    #[test]
    fn parts_of_rows_are_fetched_and_whole_rows_are_not() {
        assert!(fetches(512, 256));
        assert!(fetches(512, 64), "32 rows ahead, of 512");
        assert!(!fetches(128, 64), "too few rows to be ahead of");
        assert!(!fetches(512, 1024), "rows lie one behind the other");
    }
}
