//! File formats: checkpoints (safetensors, GGUF), dequantisation, tokenizers, chat templates.
//!
//! Every size, count and offset in a file is hostile until checked; nothing is allocated before it is known to fit the
//! file. [`open_checkpoint`] chooses the loader by the first bytes of the file.

#[cfg(feature = "models")]
pub mod chat;
pub mod dequantise;
pub mod gguf;
pub mod onnx;
pub mod op_program;
#[cfg(feature = "models")]
mod pieces;
pub mod safetensors;
#[cfg(feature = "models")]
pub mod stream;
#[cfg(feature = "models")]
pub mod tokenizer;
#[cfg(feature = "models")]
pub mod tokenizer_files;

mod mapped;
mod whole;

use std::path::Path;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::{Diagnostic, Place};

pub use gguf::Gguf;
pub use mapped::map_file;
pub use safetensors::Safetensors;
pub use whole::{check_writable, write_whole};

/// A file of named tensors.
#[derive(Debug)]
pub enum Checkpoint {
    /// A GGUF file, with metadata that describes the model.
    Gguf(Gguf),
    /// A safetensors file.
    Safetensors(Safetensors),
}

impl Checkpoint {
    /// The tensor `name` as it is stored, without a copy. Errors: `checkpoint-tensor` (absent), `checkpoint-dtype`.
    pub fn tensor(&self, name: &str) -> Result<Array, Diagnostic> {
        match self {
            Checkpoint::Gguf(file) => file.tensor(name),
            Checkpoint::Safetensors(file) => file.tensor(name),
        }
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Checkpoint::Gguf(file) => file.names().collect(),
            Checkpoint::Safetensors(file) => file.names().collect(),
        }
    }

    /// The GGUF file, if it is one.
    pub fn as_gguf(&self) -> Option<&Gguf> {
        match self {
            Checkpoint::Gguf(file) => Some(file),
            Checkpoint::Safetensors(_) => None,
        }
    }
}

/// The text of a file, without a byte order mark.
///
/// Errors: `file` (absent, a directory, unreadable); `text` for other than UTF-8, with the line.
pub fn read_text(path: &Path) -> Result<String, Diagnostic> {
    let bytes = map_file(path)?;
    let text = utf8(&path.display().to_string(), &bytes)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_string())
}

/// `bytes` as text. Errors: `text`, with the name of the file, the line and the column.
pub(crate) fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Diagnostic> {
    std::str::from_utf8(bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        let found = bytes.get(e.valid_up_to()).copied().unwrap_or(0);
        let message = format!("{file} is not UTF-8: line {line}, column {column} has the byte 0x{found:02x}");
        let marked = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let d = Diagnostic::new("text", message);
        if marked { d.note("it begins as UTF-16 does: save it as UTF-8") } else { d }
    })
}

/// Opens a checkpoint by memory map; the first bytes say which format it is.
///
/// Errors: `file` (absent, a directory, unreadable), `checkpoint-format` (neither format), and those of the two loaders.
pub fn open_checkpoint(path: impl AsRef<Path>) -> Result<Checkpoint, Diagnostic> {
    let path = path.as_ref();
    checkpoint_from_bytes(&path.display().to_string(), map_file(path)?)
}

/// Like [`open_checkpoint`], from bytes; `file` names them in errors.
pub fn checkpoint_from_bytes(file: &str, bytes: Bytes) -> Result<Checkpoint, Diagnostic> {
    if bytes.starts_with(gguf::MAGIC) {
        return Gguf::from_bytes(file, bytes).map(Checkpoint::Gguf);
    }
    // A safetensors file has no magic number: eight bytes of header length, then JSON.
    if bytes.get(8) == Some(&b'{') {
        return Safetensors::from_bytes(file, bytes).map(Checkpoint::Safetensors);
    }
    let start: Vec<String> = bytes.iter().take(9).map(|b| format!("{b:02x}")).collect();
    let message = format!(
        "expected a GGUF file (it starts with `GGUF`) or a safetensors file (its ninth byte is `{{`), found {} bytes that start with [{}]",
        bytes.len(),
        start.join(" ")
    );
    Err(in_file("checkpoint-format", message, file))
}

/// A diagnostic about `file` as a whole.
fn in_file(code: &'static str, message: impl Into<String>, file: &str) -> Diagnostic {
    Diagnostic::new(code, message).at(Place::Named(file.into()), "")
}

/// `checkpoint-tensor`: there is no tensor `name`; a note lists close or first names.
fn no_such_tensor<'a>(file: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Diagnostic {
    let all: Vec<&str> = names.collect();
    let tail = name.rsplit('.').next().unwrap_or(name);
    let mut near: Vec<String> = all.iter().filter(|n| n.ends_with(tail)).take(4).map(|n| shown(n)).collect();
    if near.is_empty() {
        near = all.iter().take(4).map(|n| shown(n)).collect();
    }
    let message = format!("no tensor {} among the {} of the file", shown(name), all.len());
    let diag = in_file("checkpoint-tensor", message, file);
    if near.is_empty() { diag } else { diag.note(format!("there are, for example, {}", near.join(", "))) }
}

/// A name out of a file, safe to print: quoted, control characters escaped, cut at 80 characters.
pub(crate) fn shown(name: &str) -> String {
    let mut out = String::from("`");
    let mut rest = name.chars();
    for c in rest.by_ref().take(80) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if rest.next().is_some() {
        out.push_str("...");
    }
    out.push('`');
    out
}

/// The language model that `scripts/fetch-models.sh` fetches, or `None` with a line that says so.
#[cfg(test)]
fn test_model() -> Option<Gguf> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !Path::new(path).exists() {
        println!("SKIPPED: {path} is absent; scripts/fetch-models.sh fetches it");
        return None;
    }
    Some(Gguf::open(path).expect("the model opens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_are_printed_safely() {
        assert_eq!(shown("blk.0.attn_q.weight"), "`blk.0.attn_q.weight`");
        assert_eq!(shown("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
        assert_eq!(shown(&"x".repeat(1000)).len(), 85);
    }

    #[test]
    fn an_unknown_format_shows_its_first_bytes() {
        let error = checkpoint_from_bytes("m.onnx", Bytes::new(vec![8u8, 7, 0x12])).unwrap_err();
        assert_eq!(error.code, "checkpoint-format");
        let text = error.to_string();
        assert!(text.contains("found 3 bytes that start with [08 07 12]") && text.contains("m.onnx"), "{text}");
    }

    #[test]
    fn absent_files_and_directories_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = open_checkpoint(folder.path()).unwrap_err();
        assert_eq!(error.code, "file");
        assert!(error.to_string().contains("directory"), "{error}");
        let error = open_checkpoint(folder.path().join("none.gguf")).unwrap_err();
        assert!(error.code == "file" && error.to_string().contains("none.gguf"), "{error}");
    }
}
