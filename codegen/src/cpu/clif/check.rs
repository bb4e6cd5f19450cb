//! Checks of indices that data chooses: one unsigned comparison, and an early return that is never taken in good runs.
//!
//! A call that meets an index outside writes which check failed, and the index, to its status, and returns. Items are
//! computed in order, so the first failure of a launch is that of the first thread that has one, whatever their number.

use super::emitter::{Emitter, FLAGS};
use super::grid::with_constants;
use super::types::{Binding, Num};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use tilewright_ir::kernel::expr::Ident;
use tilewright_ir::kernel::{Expr, Kernel};

/// A check of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Number of the argument that is indexed; none for a buffer of the body.
    pub argument: Option<usize>,
    /// The indices are `0..extent`, over the symbols.
    pub extent: Expr,
    /// The buffer or view and its axis, until the argument is looked up.
    access: (Ident, Ident),
}

/// An index outside of its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Number of the check in [`super::CpuKernel::checks`].
    pub check: usize,
    /// The index.
    pub index: i64,
}

/// What generated code writes; `check` counts from 1, 0 is none.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Status {
    check: i64,
    index: i64,
}

impl Status {
    pub(super) fn result(self) -> Result<(), Outside> {
        match usize::try_from(self.check).ok().and_then(|check| check.checked_sub(1)) {
            Some(check) => Err(Outside { check, index: self.index }),
            None => Ok(()),
        }
    }
}

impl Check {
    /// The check in terms of the kernel's arguments.
    pub(super) fn over_symbols(mut self, kernel: &Kernel) -> Check {
        let (mut name, axis) = self.access.clone();
        let mut size = None;
        // Views are of arguments; the axis is that of the outermost.
        for view in kernel.views.iter().rev() {
            if view.name == name {
                size = size.or_else(|| view.axes.iter().find(|(a, _)| *a == axis).map(|(_, e)| e.clone()));
                name = view.buffer.clone();
            }
        }
        self.argument = kernel.arguments.iter().position(|b| b.name == name);
        if let (Some(at), None) = (self.argument, &size) {
            size = kernel.arguments[at].axes.iter().find(|(a, _)| *a == axis).map(|(_, e)| e.clone());
        }
        if let Some(size) = size {
            self.extent = with_constants(&size, kernel);
        }
        self
    }
}

impl Emitter<'_> {
    /// The number of a check of `axis` of `buffer`.
    pub fn name_check(&mut self, buffer: &Ident, axis: &Ident) -> usize {
        let access = (buffer.clone(), axis.clone());
        if let Some(at) = self.checks.iter().position(|check| check.access == access) {
            return at;
        }
        self.checks.push(Check { argument: None, extent: Expr::Name(axis.clone()), access });
        self.checks.len() - 1
    }

    /// Leaves the kernel unless `0 <= at < extent`; once for each position and extent.
    pub fn check(&mut self, at: Value, (buffer, axis, extent): (&Ident, &Ident, Num)) {
        let same = |e: &Num| e.value == extent.value || (e.constant.is_some() && e.constant == extent.constant);
        if self.known.iter().any(|(known, e)| *known == at && same(e)) {
            return;
        }
        let number = self.name_check(buffer, axis);
        self.guard(at, extent.value, number);
        self.known.push((at, extent));
    }

    /// Leaves the kernel with check `number` unless `0 <= at < extent`.
    pub fn guard(&mut self, at: Value, extent: Value, number: usize) {
        let (failed, after) = (self.b.create_block(), self.b.create_block());
        // Extents are not negative, so negative indices are above them as unsigned numbers.
        let inside = self.b.ins().icmp(IntCC::UnsignedLessThan, at, extent);
        self.b.ins().brif(inside, after, &[], failed, &[]);
        self.b.seal_block(failed);
        self.b.seal_block(after);
        self.b.set_cold_block(failed);
        self.b.switch_to_block(failed);
        let number = self.b.ins().iconst(types::I64, number as i64 + 1);
        self.b.ins().store(FLAGS, number, self.status, 0);
        self.b.ins().store(FLAGS, at, self.status, 8);
        self.b.ins().return_(&[]);
        self.b.switch_to_block(after);
    }

    /// Whether an index is computed from what was loaded.
    pub fn depends_on_data(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Name(name) => matches!(self.find(name), Ok(Binding::Tile(_) | Binding::Register(..))),
            Expr::Scalar(_, args) => args.iter().any(|arg| self.depends_on_data(arg)),
            Expr::Binary(_, a, b) => self.depends_on_data(a) || self.depends_on_data(b),
            Expr::Int(_) | Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => false,
        }
    }
}
