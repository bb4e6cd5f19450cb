//! `mma` by the matrix instructions of warps: fragments come from shared memory by `ldmatrix`, results stay in registers.
//!
//! A warp has a block of the accumulator, in pieces of 16 rows and 8 columns; of piece (i, j) a lane holds the slots
//! `(i * pieces in a row + j) * 4 ..`: columns 2 * (lane % 4) and the next, of the rows lane / 4 and lane / 4 + 8.

use super::emitter::{Axes, Element, Emitted, Emitter, Layout, Tile};
use super::{invalid, unsupported};
use tilewright_ir::device::mma::MmaShape;
use tilewright_ir::kernel::expr::{Access, Expr, Ident};
use tilewright_ir::kernel::tree::{Buffer, BufferAttr};
use tilewright_ir::kernel::verify::LAYOUT;

/// Where the lanes of a warp read the rows of the four 8 x 8 matrices of `ldmatrix`, along the side of the result and along
/// the sum, as C of `lane`.
struct Lanes {
    own: &'static str,
    sum: &'static str,
}

/// Matrices of a left factor: rows 0.. and 8.. of the first half of the sum, then of the second.
const LEFT: [Lanes; 2] = [
    Lanes { own: "lane % 16", sum: "lane / 16 * 8" },
    // Rows in memory go along the sum.
    Lanes { own: "lane / 8 % 2 * 8", sum: "lane % 8 + lane / 16 * 8" },
];
/// Matrices of a right factor: both halves of the sum for columns 0.., then for columns 8..
const RIGHT: [Lanes; 2] = [
    Lanes { own: "lane % 8 + lane / 16 * 8", sum: "lane / 8 % 2 * 8" },
    Lanes { own: "lane / 16 * 8", sum: "lane % 16" },
];

impl Emitter<'_> {
    /// The layout of an accumulator that says `layout(mma16816, high, wide)`.
    pub fn warps(&self, b: &Buffer, attr: &BufferAttr, axes: &Axes) -> Emitted<Layout> {
        let [Expr::Name(name), Expr::Int(high @ 1..=32), Expr::Int(wide @ 1..=32)] = attr.args.as_slice() else {
            return Err(invalid(format!("expected `layout({LAYOUT}, rows, columns)` of `{}`", b.name)).into());
        };
        let fits = high * wide * 32 == self.threads && axes[0].1 % (high * 16) == 0 && axes[1].1 % (wide * 16) == 0;
        if **name != *LAYOUT || !fits {
            let size = format!("{}x{}", axes[0].1, axes[1].1);
            let message = format!("{size} in pieces of 16 does not divide among {high}x{wide} warps of `{}`", b.name);
            return Err(invalid(message).into());
        }
        Ok(Layout::Warps { high: *high, wide: *wide })
    }

    /// One product of whole matrices in shared memory.
    pub fn product_of_warps(
        &mut self,
        acc: &Tile,
        (high, wide): (i64, i64),
        row: &MmaShape,
        a: &Access,
        b: &Access,
    ) -> Emitted<()> {
        let (m, n) = (acc.axes[0].clone(), acc.axes[1].clone());
        let ((a_dtype, a_axes), (b_dtype, b_axes)) = (self.access_type(a)?, self.access_type(b)?);
        // The first factor may be the one with the columns.
        let (a, a_axes, b, b_axes) = if a_axes.contains(&m) { (a, a_axes, b, b_axes) } else { (b, b_axes, a, a_axes) };
        let k = a_axes.iter().find(|x| **x != m && x.0 != n.0).cloned();
        let both = |axes: &Axes, own: &(Ident, i64), k: &(Ident, i64)| {
            axes.len() == 2 && axes.contains(own) && axes.contains(k) && k.1 % row.k == 0
        };
        let Some(k) = k.filter(|k| both(&a_axes, &m, k) && both(&b_axes, &n, k)) else {
            return Err(unsupported(format!("a product via {} that is not [m, k] by [k, n]", row.name)).into());
        };
        if a_dtype != row.dtype || b_dtype != row.dtype || a.is_masked() || b.is_masked() {
            return Err(unsupported(format!("factors via {} other than whole ones in {}", row.name, row.dtype)).into());
        }
        let (rows, columns) = (m.1 / high, n.1 / wide);
        let (down, across) = (rows / row.m, columns / row.n);
        let a_place = self.fragment(a, &a_axes, &k, &format!("warp / {wide} * {rows} + i * 16"), &LEFT)?;
        let b_place = self.fragment(b, &b_axes, &k, &format!("warp % {wide} * {columns} + j * 16"), &RIGHT)?;
        self.line("#pragma unroll");
        self.open(format!("for (int kk = 0; kk < {}; kk += {})", k.1, row.k));
        self.line(format!("unsigned int a_part[{down}][4], b_part[{}][4];", across / 2));
        self.line("#pragma unroll");
        self.line(format!("for (int i = 0; i < {down}; ++i) {}(a_part[i], &{});", a_place.0, a_place.1));
        self.line("#pragma unroll");
        self.line(format!("for (int j = 0; j < {}; ++j) {}(b_part[j], &{});", across / 2, b_place.0, b_place.1));
        self.line("#pragma unroll");
        self.open(format!("for (int i = 0; i < {down}; ++i)"));
        self.line("#pragma unroll");
        self.line(format!(
            "for (int j = 0; j < {across}; ++j) {}({} + (i * {across} + j) * 4, a_part[i], b_part[j / 2] + j % 2 * 2);",
            row.name, acc.c
        ));
        self.close();
        self.close();
        self.fresh = false;
        Ok(())
    }

    /// The instruction and the element that a lane names for a fragment that starts at `start` along its own side.
    fn fragment(
        &mut self,
        a: &Access,
        axes: &Axes,
        k: &(Ident, i64),
        start: &str,
        lanes: &[Lanes; 2],
    ) -> Emitted<(&'static str, String)> {
        let across = axes[0] == *k;
        let (load, lanes) = if across { ("ldmatrix_x4_trans", &lanes[1]) } else { ("ldmatrix_x4", &lanes[0]) };
        let index = |x: &(Ident, i64)| {
            if x == k { format!("(kk + {})", lanes.sum) } else { format!("({start} + {})", lanes.own) }
        };
        let at = Element { axes: axes.clone(), index: axes.iter().map(index).collect(), slot: None };
        let address = self.address(a, &at)?;
        if !address.memory.shared {
            return Err(unsupported(format!("fragments of `{}`, which is not in shared memory", a.buffer)).into());
        }
        Ok((load, address.place))
    }
}
