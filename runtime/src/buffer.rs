//! Memory of tensors: aligned, reused between runs, or borrowed from a mapped file.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use tilewright_ir::array::Bytes;
use tilewright_ir::diag::Diagnostic;

/// Alignment of every buffer that we allocate, in bytes: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// Aligned memory of a fixed size.
pub struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `Memory` owns its allocation; who may write when is decided by the executor, which runs one program at a time
// on it and gives every output element to one thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` bytes of zeros. Errors: `out-of-memory`.
    pub fn zeroed(bytes: usize) -> Result<Memory, Diagnostic> {
        let refuse = || Diagnostic::new("out-of-memory", format!("cannot allocate {bytes} bytes"));
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).map_err(|_| refuse())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refuse)?;
        Ok(Memory { start, layout })
    }

    /// First byte.
    pub fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Whether nothing was asked for; there is always at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout, freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the allocation is `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

/// The bytes of one tensor at run time.
#[derive(Clone)]
pub enum Buffer {
    /// Our own memory; may be written.
    Owned(Arc<Memory>),
    /// Read-only bytes of somebody else.
    Shared(Bytes),
}

impl Buffer {
    /// First byte. Only `Owned` buffers may be written through it.
    pub fn pointer(&self) -> *mut u8 {
        match self {
            Buffer::Owned(m) => m.pointer(),
            Buffer::Shared(b) => b.as_ptr().cast_mut(),
        }
    }

    /// Bytes that may be read, and written where it is `Owned`.
    pub fn len(&self) -> usize {
        match self {
            Buffer::Owned(m) => m.len(),
            Buffer::Shared(b) => b.len(),
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, as a shared range.
    pub fn bytes(&self, len: usize) -> Option<Bytes> {
        match self {
            Buffer::Owned(m) => Bytes::new(SharedMemory(m.clone())).slice(0, len),
            Buffer::Shared(b) => b.slice(0, len),
        }
    }
}

struct SharedMemory(Arc<Memory>);

impl AsRef<[u8]> for SharedMemory {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}
