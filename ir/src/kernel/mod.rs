//! Kernel IR: one tile-level IR for CPU and GPU. Statements are executed by teams; tiles are immutable and have named
//! axes; buffers live in memory spaces. Names are kept as written: the text is the IR.

pub mod expr;
pub mod program;
pub mod text;
pub mod tree;
pub mod verify;
mod visit;

pub use expr::{Access, BinaryOp, Expr, IndexDim, TileReduce};
pub use program::{
    Branch, CallStep, CondStep, Launch, Pack, Program, ProgramBuffer, ProgramParam, ScanArgument, ScanResult, ScanStep,
    Step,
};
pub use tree::{
    Block, Buffer, BufferAttr, Kernel, KernelAttr, Level, LoadMods, Pipe, PipelineOp, Role, Space, Stmt, SyncScope,
    View,
};
