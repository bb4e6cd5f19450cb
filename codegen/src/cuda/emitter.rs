//! State of one emission: text, scopes, names, distribution of tiles, barriers.

use super::pipe::Ring;
use super::{invalid, threads, unsupported};
use std::collections::{BTreeMap, BTreeSet};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::expr::{Expr, Ident};
use tilewright_ir::kernel::tree::{Kernel, Stmt, View};
use tilewright_ir::op::ScalarOp;
use tilewright_ir::types::DType;

/// Why an emission ended early.
pub(super) enum Stop {
    /// This tile must live in shared memory.
    Shared(String),
    /// The shared memory must be allocated at launch.
    Dynamic,
    /// The kernel cannot be emitted.
    Failed(Diagnostic),
}

impl From<Diagnostic> for Stop {
    fn from(d: Diagnostic) -> Stop {
        Stop::Failed(d)
    }
}

pub(super) type Emitted<T> = Result<T, Stop>;

/// Named axes with sizes.
pub(super) type Axes = Vec<(Ident, i64)>;

/// A value over axes: rank 0 is a variable that all threads hold.
#[derive(Clone)]
pub(super) struct Tile {
    pub c: String,
    pub axes: Axes,
    pub dtype: DType,
    pub shared: bool,
}

/// A buffer in global or shared memory.
#[derive(Clone)]
pub(super) struct Memory {
    pub c: String,
    pub dtype: DType,
    /// Name, size as C, size where it is constant.
    pub axes: Vec<(Ident, String, Option<i64>)>,
    /// Threads exchange values through it, so that accesses need barriers between them.
    pub exchanged: bool,
    /// In shared memory.
    pub shared: bool,
    pub writable: bool,
    /// `swizzle(b, m, s)`: bits m.. of an offset are xored with the b bits from m + s on.
    pub swizzle: Option<[i64; 3]>,
}

#[derive(Clone)]
pub(super) enum Binding {
    Constant(i64),
    Index(String),
    Tile(Tile),
    Memory(Memory),
    View(View),
}

/// Where an expression is evaluated: an index per axis, and the slot of the registers if the loop runs in the layout of
/// these axes.
pub(super) struct Element {
    pub axes: Axes,
    pub index: Vec<String>,
    pub slot: Option<String>,
}

impl Element {
    pub fn index_of(&self, axis: &str) -> Emitted<String> {
        let at = self.axes.iter().position(|a| &*a.0 == axis);
        let found = at.and_then(|i| self.index.get(i)).cloned();
        found.ok_or_else(|| invalid(format!("axis `{axis}` is not an axis of the statement")).into())
    }
}

/// How the threads of a block share a matrix accumulator.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// Threads in `rows x columns`, the last fastest, each with every so many-th row and column.
    Threads { rows: i64, columns: i64 },
    /// Warps in `high x wide`, the last fastest, each with a block of the results of matrix instructions.
    Warps { high: i64, wide: i64 },
}

/// The layout of tiles with these axes.
#[derive(Clone)]
pub(super) struct Grid {
    pub axes: Axes,
    pub layout: Layout,
}

pub(super) struct Emitter<'a> {
    pub kernel: &'a Kernel,
    pub threads: i64,
    pub out: String,
    indent: usize,
    scopes: Vec<BTreeMap<Ident, Binding>>,
    used: BTreeSet<String>,
    shared: &'a BTreeSet<String>,
    pub grids: Vec<Grid>,
    pub pipes: Vec<Ring>,
    /// Bytes of shared memory so far.
    pub shared_bytes: i64,
    /// Shared memory is allocated at launch.
    pub dynamic: bool,
    /// The next statement writes shared memory, too, and has the barrier.
    pub barrier_follows: bool,
    /// A barrier was passed and no exchanged memory was read since.
    pub fresh: bool,
    pub in_grid: bool,
}

/// Bytes of shared memory that a kernel may declare; more is allocated at launch.
const STATIC_LIMIT: i64 = 48 * 1024;
const SLOT_LIMIT: i64 = 256;

impl<'a> Emitter<'a> {
    pub fn new(kernel: &'a Kernel, shared: &'a BTreeSet<String>, dynamic: bool) -> Result<Emitter<'a>, Diagnostic> {
        if !kernel.target.starts_with("sm_") {
            return Err(unsupported(format!("target `{}`, expected sm_*", kernel.target)));
        }
        Ok(Emitter {
            kernel,
            threads: threads(kernel)?,
            out: String::new(),
            indent: 1,
            scopes: vec![BTreeMap::new()],
            used: super::prelude::RESERVED.iter().map(|s| s.to_string()).collect(),
            shared,
            grids: Vec::new(),
            pipes: Vec::new(),
            shared_bytes: 0,
            dynamic,
            barrier_follows: false,
            // Nothing was read yet.
            fresh: true,
            in_grid: false,
        })
    }

    pub fn line(&mut self, text: impl AsRef<str>) {
        for _ in 0..self.indent {
            self.out.push_str("    ");
        }
        self.out.push_str(text.as_ref());
        self.out.push('\n');
    }

    pub fn open(&mut self, head: impl AsRef<str>) {
        let head = head.as_ref();
        self.line(if head.is_empty() { "{".to_string() } else { format!("{head} {{") });
        self.indent += 1;
    }

    pub fn close(&mut self) {
        self.indent -= 1;
        self.line("}");
    }

    /// A C name, kept where it is free, numbered on collision.
    pub fn c_name(&mut self, name: &str) -> String {
        let clean: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        // `i_` is for indices of axes.
        let clean = if clean.starts_with(|c: char| c.is_ascii_alphabetic()) && !clean.starts_with("i_") {
            clean
        } else {
            format!("v{clean}")
        };
        let mut found = clean.clone();
        let mut n = 2;
        while !self.used.insert(found.clone()) {
            found = format!("{clean}_{n}");
            n += 1;
        }
        found
    }

    pub fn bind(&mut self, name: &Ident, binding: Binding) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.clone(), binding);
        }
    }

    pub fn lookup(&self, name: &str) -> Emitted<Binding> {
        let found = self.scopes.iter().rev().find_map(|s| s.get(name)).cloned();
        found.ok_or_else(|| invalid(format!("`{name}` is not declared")).into())
    }

    pub fn push_scope(&mut self) {
        self.scopes.push(BTreeMap::new());
    }

    pub fn pop_scope(&mut self) {
        self.scopes.pop();
    }

    /// A block of statements in a scope of its own.
    pub fn scoped(&mut self, body: &[Stmt]) -> Emitted<()> {
        self.push_scope();
        let done = self.statements(body);
        self.pop_scope();
        done
    }

    /// Statements in order.
    pub fn statements(&mut self, body: &[Stmt]) -> Emitted<()> {
        for (i, s) in body.iter().enumerate() {
            self.barrier_follows = self.share_barrier(s, body.get(i + 1));
            self.stmt(s)?;
        }
        self.barrier_follows = false;
        Ok(())
    }

    /// Whether two stores to different shared buffers follow each other: readers of both come after the second one.
    fn share_barrier(&self, first: &Stmt, second: Option<&Stmt>) -> bool {
        let shared = |s: &Stmt| match s {
            Stmt::Store { access, add: false, .. } => match self.lookup(&access.buffer) {
                Ok(Binding::Memory(m)) if m.shared => Some(m.c),
                _other => None,
            },
            _other => None,
        };
        match (shared(first), second.and_then(shared)) {
            (Some(a), Some(b)) => a != b,
            (_, _) => false,
        }
    }

    /// A barrier of the block.
    pub fn sync(&mut self) {
        self.line("__syncthreads();");
        self.fresh = true;
        self.pipes.iter_mut().for_each(|p| p.released = false);
    }

    /// Before exchanged memory is written: readers of what was there are done.
    pub fn before_write(&mut self) {
        if !self.fresh {
            self.sync();
        }
    }

    /// The value of an expression in constants.
    pub fn constant(&self, e: &Expr) -> Option<i64> {
        match e {
            Expr::Int(n) => Some(*n),
            Expr::Name(n) => match self.lookup(n) {
                Ok(Binding::Constant(v)) => Some(v),
                Ok(Binding::Index(_) | Binding::Tile(_) | Binding::Memory(_) | Binding::View(_)) | Err(_) => None,
            },
            Expr::Binary(op, a, b) => op.apply(self.constant(a)?, self.constant(b)?),
            Expr::Scalar(op, args) => {
                let [a, b] = args.as_slice() else { return None };
                let (a, b) = (self.constant(a)?, self.constant(b)?);
                match op {
                    ScalarOp::Add {} => a.checked_add(b),
                    ScalarOp::Sub {} => a.checked_sub(b),
                    ScalarOp::Mul {} => a.checked_mul(b),
                    ScalarOp::Div {} => a.checked_div(b),
                    ScalarOp::Min {} => Some(a.min(b)),
                    ScalarOp::Max {} => Some(a.max(b)),
                    _ => None,
                }
            }
            Expr::Real(_) | Expr::Reduce(..) | Expr::Iota(..) | Expr::Order(..) => None,
        }
    }

    /// Number of elements, checked against the limits of a tile.
    pub fn elements(&self, axes: &Axes) -> Emitted<i64> {
        let n = axes.iter().try_fold(1i64, |n, a| if a.1 < 1 { None } else { n.checked_mul(a.1) });
        match n {
            Some(n) if n <= SLOT_LIMIT * self.threads => Ok(n),
            Some(_) | None => {
                let sizes: Vec<String> = axes.iter().map(|a| format!("{}={}", a.0, a.1)).collect();
                let limit = SLOT_LIMIT * self.threads;
                Err(invalid(format!("expected a tile of 1 to {limit} elements, found [{}]", sizes.join(", "))).into())
            }
        }
    }

    /// Declares shared memory and counts it.
    pub fn declare_shared(&mut self, dtype: DType, c: &str, elements: i64) -> Emitted<()> {
        self.declare_shared_at(dtype, c, elements, false)
    }

    /// As [`Emitter::declare_shared`], on request at a multiple of 16 bytes.
    pub fn declare_shared_at(&mut self, dtype: DType, c: &str, elements: i64, aligned: bool) -> Emitted<()> {
        let bytes = i64::try_from(dtype.block().1).unwrap_or(16);
        // Every array starts at a multiple of 16 bytes.
        let start = self.shared_bytes.saturating_add(15) / 16 * 16;
        self.shared_bytes = start.saturating_add(elements.saturating_mul(bytes));
        let limit = super::shared_limit(&self.kernel.target);
        if self.shared_bytes > limit {
            let found = self.shared_bytes;
            let message = format!("expected at most {limit} bytes of shared memory, found {found} at `{c}`");
            return Err(Diagnostic::new("cuda-shared-memory", message).into());
        }
        let ty = super::scalar::stored(dtype)?;
        if self.dynamic {
            self.line(format!("{ty}* const {c} = ({ty}*)(dynamic_shared + {start}); // {elements} elements"));
            return Ok(());
        }
        if self.shared_bytes > STATIC_LIMIT {
            return Err(Stop::Dynamic);
        }
        // What is copied and read by 16 bytes.
        let align = if aligned { "__align__(16) " } else { "" };
        self.line(format!("__shared__ {align}{ty} {c}[{elements}];"));
        Ok(())
    }

    /// Declares a tile where it has to live and binds its name.
    pub fn declare_tile(&mut self, name: &Ident, axes: Axes, dtype: DType, force_shared: bool) -> Emitted<Tile> {
        let elements = self.elements(&axes)?;
        let c = self.c_name(name);
        let shared = !axes.is_empty() && (force_shared || self.shared.contains(&c));
        let ty = super::scalar::computed(dtype)?;
        if shared {
            self.declare_shared(dtype, &c, elements)?;
        } else if axes.is_empty() {
            self.line(format!("{ty} {c};"));
        } else {
            let slots = (elements + self.threads - 1) / self.threads;
            self.line(format!("{ty} {c}[{slots}];"));
        }
        let tile = Tile { c, axes, dtype, shared };
        self.bind(name, Binding::Tile(tile.clone()));
        Ok(tile)
    }

    /// Runs `body` for every element that this thread owns; once where there are no axes.
    pub fn each(&mut self, axes: &Axes, body: impl FnOnce(&mut Self, &Element) -> Emitted<()>) -> Emitted<()> {
        if axes.is_empty() {
            return body(self, &Element { axes: Vec::new(), index: Vec::new(), slot: Some(String::new()) });
        }
        let elements = self.elements(axes)?;
        let index: Vec<String> = axes.iter().map(|a| format!("i_{}", a.0)).collect();
        let at = |slot: &str| Element { axes: axes.clone(), index: index.clone(), slot: Some(slot.to_string()) };
        let grid = self.grids.iter().find(|g| g.axes == *axes).cloned();
        let start = self.out.len();
        self.line("#pragma unroll");
        self.each_slot(axes, elements, &index, grid, &at, body)?;
        // Only register tiles need the whole unrolling; copies between memories would only take registers.
        let loop_text = self.out.split_off(start);
        let partly = !loop_text.contains("[r]");
        self.out.push_str(&if partly { loop_text.replacen("unroll\n", "unroll 4\n", 1) } else { loop_text });
        Ok(())
    }

    fn each_slot(
        &mut self,
        axes: &Axes,
        elements: i64,
        index: &[String],
        grid: Option<Grid>,
        at: &dyn Fn(&str) -> Element,
        body: impl FnOnce(&mut Self, &Element) -> Emitted<()>,
    ) -> Emitted<()> {
        if let Some(g) = grid {
            self.open(format!("for (int r = 0; r < {}; ++r)", elements / self.threads));
            match g.layout {
                Layout::Threads { rows, columns } => {
                    let n = axes[1].1 / columns;
                    self.line(format!("const int {} = tid / {columns} + r / {n} * {rows};", index[0]));
                    self.line(format!("const int {} = tid % {columns} + r % {n} * {columns};", index[1]));
                }
                Layout::Warps { high, wide } => {
                    let (m, n) = (axes[0].1 / high, axes[1].1 / wide);
                    let (row, column) = (format!("warp / {wide} * {m}"), format!("warp % {wide} * {n}"));
                    let (i, j) = (format!("r / {} * 16", n / 2), format!("r / 4 % {} * 8", n / 8));
                    self.line(format!("const int {} = {row} + {i} + r / 2 % 2 * 8 + lane / 4;", index[0]));
                    self.line(format!("const int {} = {column} + {j} + lane % 4 * 2 + r % 2;", index[1]));
                }
            }
            body(self, &at("r"))?;
            self.close();
            return Ok(());
        }
        let slots = (elements + self.threads - 1) / self.threads;
        self.open(format!("for (int r = 0; r < {slots}; ++r)"));
        self.line(format!("const int e = r * {} + tid;", self.threads));
        self.split("e", axes, index);
        let partial = elements % self.threads != 0;
        if partial {
            self.open(format!("if (e < {elements})"));
        }
        body(self, &at("r"))?;
        if partial {
            self.close();
        }
        self.close();
        Ok(())
    }

    /// Declares the indices of the axes of linear element `e`.
    pub fn split(&mut self, e: &str, axes: &Axes, index: &[String]) {
        let mut below = 1i64;
        let mut lines = Vec::new();
        for (i, (axis, c)) in axes.iter().zip(index).enumerate().rev() {
            let shifted = if below == 1 { e.to_string() } else { format!("{e} / {below}") };
            let taken = if i == 0 { shifted } else { format!("{shifted} % {}", axis.1) };
            lines.push(format!("const int {c} = {taken};"));
            below = below.saturating_mul(axis.1);
        }
        for l in lines.iter().rev() {
            self.line(l);
        }
    }
}
