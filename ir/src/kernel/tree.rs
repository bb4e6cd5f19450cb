//! Statements, declarations and kernels.

use super::expr::{Access, Expr, Ident};
use crate::diag::Place;
use crate::types::{DType, SymbolDecl};

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Read-only argument.
    In,
    /// Written argument.
    Out,
    /// Read and written argument.
    InOut,
    /// Workspace between launches.
    Work,
    /// Shared memory of a block.
    Shared,
    /// One core's scratch in L1/L2.
    Cache,
    /// Registers of the team.
    Reg,
}

/// A fact or layout of a buffer: `align(64)`, `packed(w)`, `values(0, 50257)`, `pad_row(8)`.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferAttr {
    /// Name.
    pub name: Ident,
    /// Arguments.
    pub args: Vec<Expr>,
}

/// `space name: dtype[axis=size, ...] attrs`. Memory order is the order of the axes, the last is contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// Space.
    pub space: Space,
    /// Name.
    pub name: Ident,
    /// Element type.
    pub dtype: DType,
    /// Named axes with sizes in constants and symbols.
    pub axes: Vec<(Ident, Expr)>,
    /// Facts and layout.
    pub attrs: Vec<BufferAttr>,
}

/// `view name[axis=size, ...] = buffer[index, ...]`: renames, slices, transposes, merges.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Name.
    pub name: Ident,
    /// Axes of the view; they are the variables of `dims`.
    pub axes: Vec<(Ident, Expr)>,
    /// The buffer.
    pub buffer: Ident,
    /// One index expression per axis of the buffer; `true` (`?`): may leave the buffer on either side, reads the pad.
    pub dims: Vec<(Expr, bool)>,
}

/// A ring of slots between teams.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipe {
    /// Name.
    pub name: Ident,
    /// Slots.
    pub stages: u32,
    /// Mechanism: `tma`, `cp_async`, `sync`, `named`.
    pub via: Ident,
    /// Producing team.
    pub from: Ident,
    /// Consuming team.
    pub to: Ident,
    /// `over(cluster)`, `one`, `ring`, `credit(i)`.
    pub attrs: Vec<BufferAttr>,
    /// Buffers of a slot.
    pub buffers: Vec<Buffer>,
}

/// What a `par` distributes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// CUDA blocks; CPU items split statically over cores.
    Grid,
    /// Blocks of a cluster.
    Cluster,
    /// Warps of a block.
    Warp,
}

/// Who meets at a `sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SyncScope {
    /// The team.
    Team,
    /// The block.
    Block,
    /// The cluster.
    Cluster,
    /// The grid; needs `resident`.
    Grid,
    /// The launch before (programmatic dependent launch).
    Prior,
}

/// Modifiers of loads, stores and copies.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LoadMods {
    /// What masked elements read.
    pub pad: Option<Expr>,
    /// Pipe or queue.
    pub on: Option<Ident>,
    /// To the same slot of all blocks of the cluster.
    pub multicast: bool,
    /// `stream`, `keep`, `prefetch`.
    pub hint: Option<Ident>,
}

/// A range of warps with a body of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// Name.
    pub name: Ident,
    /// Instance variable and count.
    pub instances: Option<(Ident, u32)>,
    /// First warp.
    pub first: u32,
    /// Past the last warp.
    pub end: u32,
    /// Registers a lane.
    pub registers: Option<u32>,
    /// Body.
    pub body: Block,
}

/// Statements in order.
pub type Block = Vec<Stmt>;

/// A statement, executed by a team as one.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// A buffer of the enclosing block.
    Buffer(Buffer),
    /// A pipe.
    Pipe(Pipe),
    /// `queue name via mechanism`.
    Queue(Ident, Ident),
    /// `par v in n, ... at level { }`.
    Par {
        /// Variables with extents.
        vars: Vec<(Ident, Expr)>,
        /// Level.
        level: Level,
        /// Body.
        body: Block,
    },
    /// `for v in low .. high step s unroll { }`, sequential.
    For {
        /// Variable.
        var: Ident,
        /// First value.
        low: Expr,
        /// Bound.
        high: Expr,
        /// Step, positive.
        step: Option<Expr>,
        /// Unrolled.
        unroll: bool,
        /// Body.
        body: Block,
    },
    /// Uniform choice.
    If {
        /// Condition over indices.
        condition: Expr,
        /// Then.
        yes: Block,
        /// Else; may be empty.
        no: Block,
    },
    /// Parallel teams, joined at the end.
    Roles(Vec<Role>),
    /// `let name = load access mods`.
    Load {
        /// Name of the tile.
        name: Ident,
        /// Source.
        access: Access,
        /// Modifiers.
        mods: LoadMods,
    },
    /// `let names = expr`; more than one name for `order`.
    Let {
        /// Names.
        names: Vec<Ident>,
        /// Value.
        value: Expr,
    },
    /// `set name = expr`: replaces a `reg` buffer.
    Set {
        /// The `reg` buffer.
        name: Ident,
        /// Value.
        value: Expr,
    },
    /// `store access = expr`, or `add access += expr`.
    Store {
        /// Destination.
        access: Access,
        /// Modifiers.
        mods: LoadMods,
        /// Value.
        value: Expr,
        /// Read-modify-write by the only owner.
        add: bool,
    },
    /// `copy dst <- src mods`: buffer to buffer, axes by name, layout may change.
    Copy {
        /// Destination.
        to: Access,
        /// Source.
        from: Access,
        /// Modifiers.
        mods: LoadMods,
    },
    /// `mma c += a * b, ... via ROW init e on q`. A fold ends where either operand is masked.
    Mma {
        /// Accumulator.
        to: Access,
        /// Products, in order.
        terms: Vec<(Access, Access)>,
        /// Row of the table of products.
        via: Ident,
        /// Starts from 0 where this holds.
        init: Option<Expr>,
        /// Queue.
        on: Option<Ident>,
    },
    /// `acquire commit wait release` of a pipe or queue.
    Pipeline(PipelineOp, Ident),
    /// `skip pipe n`.
    Skip(Ident, Expr),
    /// `await queue n`.
    Await(Ident, u32),
    /// `sync scope (async)`.
    Sync(SyncScope, bool),
    /// `turn_wait access == e`.
    TurnWait(Access, Expr),
    /// `turn_next access`.
    TurnNext(Access),
}

/// The four verbs of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PipelineOp {
    /// Take a free slot.
    Acquire,
    /// Hand it over.
    Commit,
    /// Get the next full slot.
    Wait,
    /// Free the oldest.
    Release,
}

/// `threads(128)`, `simd(16)`, `cluster(2)`, `resident`, `unordered`, `pdl`; `require(e)`: `e >= 0`, tested at launch.
pub type KernelAttr = BufferAttr;

/// A kernel: constants, symbols, argument buffers in call order, views, body.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Name.
    pub name: Ident,
    /// `cpu`, `sm_80`, ...
    pub target: Ident,
    /// Attributes.
    pub attrs: Vec<KernelAttr>,
    /// Named constants.
    pub constants: Vec<(Ident, i64)>,
    /// Sizes known at launch.
    pub symbols: Vec<SymbolDecl>,
    /// `in`, `out`, `inout` and `work` buffers, in argument order.
    pub arguments: Vec<Buffer>,
    /// Views of arguments.
    pub views: Vec<View>,
    /// Body; most often scratch buffers and one `par .. at grid`. On GPUs several of these are parts of one launch that run side by
    /// side, so none may touch what another one writes.
    pub body: Block,
    /// Graph nodes and lines that it computes, for comments; not part of the text's meaning.
    pub places: Vec<Place>,
}
