//! Files as shared bytes by memory map.

use super::in_file;
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use tilewright_ir::array::Bytes;
use tilewright_ir::diag::Diagnostic;

/// The bytes of the file at `path`, memory-mapped: pages are read when they are touched.
///
/// Whoever shortens the file while it is mapped breaks the program that uses it (the system sends SIGBUS); our own
/// writers never do, they write a new file and rename it. Errors: `file` if it is absent, a directory or unreadable.
pub fn map_file(path: &Path) -> Result<Bytes, Diagnostic> {
    let name = path.display().to_string();
    let failed = |e: std::io::Error| in_file("file", format!("cannot open the file: {e}"), &name);
    // Asked before opening: to open a pipe waits for a writer.
    let facts = std::fs::metadata(path).map_err(failed)?;
    if facts.is_dir() {
        return Err(in_file("file", "expected a file, found a directory", &name));
    }
    if !facts.is_file() {
        return Err(in_file("file", "expected a plain file, found a device, pipe or socket", &name));
    }
    if facts.len() == 0 {
        // Some systems refuse to map nothing.
        return Ok(Bytes::new(Vec::new()));
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only and private to this process, and nothing here writes to or shortens a mapped file;
    // another process that does so is outside what can be checked (see above).
    let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::new(map))
}
