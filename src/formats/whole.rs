//! Files that are written whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};
use tilewright_ir::diag::{Diagnostic, Place};

/// Writes the file at `path` with `write`: to a temporary name in the same folder, then renamed, so that no half-written
/// file is ever seen under the name. Links are followed; what is no file of bytes, such as a pipe or `/dev/null`, is
/// written to as it is.
///
/// Errors: `file`, with the path.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), Diagnostic> {
    let cannot = |e| failed(path, format!("cannot write the file: {e}"));
    let Some(temporary) = temporary(path)? else {
        let fill = || {
            let mut out = std::io::BufWriter::new(std::fs::OpenOptions::new().write(true).open(path)?);
            write(&mut out)?;
            out.flush()
        };
        return fill().map_err(cannot);
    };
    let fill = || {
        let mut out = std::io::BufWriter::new(std::fs::File::create(&temporary)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()
    };
    fill().and_then(|()| std::fs::rename(&temporary, followed(path))).map_err(|e| {
        // The first error is the one to tell; the file may not even exist.
        let _ = std::fs::remove_file(&temporary);
        cannot(e)
    })
}

/// Whether [`write_whole`] could begin: asked before the work whose results are written.
///
/// Errors: `file`, with the path.
pub fn check_writable(path: &Path) -> Result<(), Diagnostic> {
    let Some(temporary) = temporary(path)? else { return Ok(()) };
    let tried = std::fs::File::create(&temporary).and_then(|_| std::fs::remove_file(&temporary));
    tried.map_err(|e| failed(path, format!("cannot write the file: {e}")))
}

fn failed(path: &Path, message: String) -> Diagnostic {
    Diagnostic::new("file", message).at(Place::Named(path.display().to_string().into()), "")
}

fn followed(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_new| path.to_path_buf())
}

/// The name beside `path` that is written first; none for what is no file of bytes, where renaming would put a file in
/// the place of the device.
fn temporary(path: &Path) -> Result<Option<PathBuf>, Diagnostic> {
    let Some(last) = path.file_name() else {
        return Err(failed(path, "expected the path of a file to write, found no file name".into()));
    };
    if path.is_dir() {
        return Err(failed(path, "expected a file to write, found a directory".into()));
    }
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return Ok(None);
    }
    let mut name = last.to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    Ok(Some(followed(path).with_file_name(name)))
}
