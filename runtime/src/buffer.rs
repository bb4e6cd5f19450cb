//! Memory of tensors: aligned, reused between runs, or borrowed from a mapped file.

use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use tilewright_ir::array::Bytes;
use tilewright_ir::diag::Diagnostic;

/// Alignment of every buffer that we allocate, in bytes: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// From this size on memory comes in pages of its own, large ones where the system has them.
const LARGE: usize = 4 << 20;

/// Aligned memory of a fixed size.
pub struct Memory {
    start: NonNull<u8>,
    len: usize,
    /// Whose it is: pages of their own, which know how to free themselves, or the heap's.
    pages: Option<MmapMut>,
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
        if bytes >= LARGE {
            let mut pages = MmapMut::map_anon(bytes).map_err(|_| refuse())?;
            // Weights are read once a token: with pages of 4 KiB each is looked up in the tables anew. That there are none is no error.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            let start = NonNull::new(pages.as_mut_ptr()).ok_or_else(refuse)?;
            return Ok(Memory { start, len: bytes, pages: Some(pages) });
        }
        let layout = layout(bytes).ok_or_else(refuse)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refuse)?;
        Ok(Memory { start, len: layout.size(), pages: None })
    }

    /// First byte.
    pub fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was asked for; there is always at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// How the heap has so many bytes; at least one, as there is no allocation of none.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), ALIGN).ok()
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let (None, Some(layout)) = (&self.pages, layout(self.len)) {
            // SAFETY: allocated in `zeroed` with this layout, freed once.
            unsafe { dealloc(self.start.as_ptr(), layout) }
        }
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the allocation is `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
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
