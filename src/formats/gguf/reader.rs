//! A cursor over the bytes of a GGUF file that never reads past the end.

use super::super::{in_file, shown};
use std::fmt::Display;
use tilewright_ir::diag::Diagnostic;

/// Reads little-endian values in order.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    file: &'a str,
    /// Values that may still be read: bounds the memory of arrays of small values, each of which takes 32 bytes here.
    values_left: u64,
}

/// Metadata values of one file. The largest vocabularies have 2^18 tokens, merges, scores and types.
const MAX_VALUES: u64 = 1 << 24;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], file: &'a str) -> Reader<'a> {
        Reader { bytes, position: 0, file, values_left: MAX_VALUES }
    }

    pub(super) fn file(&self) -> &'a str {
        self.file
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// An error at the current byte.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        let message = message.into();
        in_file("gguf", format!("{message} (at byte {})", self.position), self.file)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Errors unless `count` things of at least `size` bytes each can still follow.
    pub(super) fn must_hold(&self, count: u64, size: u64, what: impl Display) -> Result<(), Diagnostic> {
        let left = self.left() as u64;
        if count.checked_mul(size).is_some_and(|n| n <= left) {
            return Ok(());
        }
        Err(self.error(format!("the file announces {count} {what}, but only {left} bytes are left")))
    }

    /// Counts `count` metadata values against the limit of a file.
    pub(super) fn spend(&mut self, count: u64) -> Result<(), Diagnostic> {
        self.values_left = self
            .values_left
            .checked_sub(count)
            .ok_or_else(|| self.error(format!("expected at most {MAX_VALUES} metadata values")))?;
        Ok(())
    }

    /// The next `count` bytes, which hold `what`.
    pub(super) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Diagnostic> {
        if count > self.left() {
            let left = self.left();
            return Err(self.error(format!("the file ends within {what}: needs {count} bytes, {left} are left")));
        }
        let taken = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Diagnostic> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Diagnostic> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Diagnostic> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A length and that many bytes of UTF-8.
    pub(super) fn string(&mut self, what: &str) -> Result<String, Diagnostic> {
        let len = self.u64(what)?;
        self.must_hold(len, 1, format_args!("bytes of {what}"))?;
        let bytes = self.take(len as usize, what)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
            let lossy: String = String::from_utf8_lossy(&bytes[..bytes.len().min(320)]).into_owned();
            self.error(format!("{what} is not UTF-8: {}", shown(&lossy)))
        })
    }
}
