//! Files that are written whole or not at all.

use std::io::Write;
use std::path::Path;
use tilewright_ir::diag::{Diagnostic, Place};

/// Writes the file at `path` with `write`: to a temporary name in the same folder, then renamed, so that no half-written
/// file is ever seen under the name. Links are followed; what is no file of bytes, such as a pipe or `/dev/null`, is
/// written to as it is.
///
/// Errors: `file`, with the path.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Diagnostic> {
    let name = path.display().to_string();
    let failed = |message: String| Diagnostic::new("file", message).at(Place::Named(name.as_str().into()), "");
    let Some(last) = path.file_name() else {
        return Err(failed("expected the path of a file to write, found no file name".into()));
    };
    if path.is_dir() {
        return Err(failed("expected a file to write, found a directory".into()));
    }
    let cannot = |e| failed(format!("cannot write the file: {e}"));
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        // Renaming would put a file in the place of the device.
        let fill = || {
            let mut out = std::io::BufWriter::new(std::fs::OpenOptions::new().write(true).open(path)?);
            write(&mut out)?;
            out.flush()
        };
        return fill().map_err(cannot);
    }
    let path = &path.canonicalize().unwrap_or_else(|_new| path.to_path_buf());
    let mut temporary = last.to_os_string();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let fill = || {
        let mut out = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()
    };
    fill().and_then(|()| std::fs::rename(&temporary, path)).map_err(|e| {
        // The first error is the one to tell; the file may not even exist.
        let _ = std::fs::remove_file(&temporary);
        cannot(e)
    })
}
