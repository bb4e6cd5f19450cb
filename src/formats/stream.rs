//! Text of ids that arrive one by one.

use super::tokenizer::Tokenizer;
use tilewright_ir::diag::Diagnostic;

/// Ids that may wait for the rest of a character. A character has at most four bytes, so more than four ids wait only
/// where a model writes bytes that are no UTF-8; the limit keeps the work for each id constant there.
const MAX_WAITING: usize = 16;

/// An incremental decoder: pieces of text as soon as they are whole characters.
///
/// The pieces joined are [`Tokenizer::decode_as`] of all ids (except after more than 16 ids in a row that end in broken
/// UTF-8, where a broken place may come out as more or fewer U+FFFD). Text of a few ids depends on the ids before them
/// (some decoders drop a space at the start), so those of the last piece are decoded again each time.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Ids of the last piece, then ids that wait.
    ids: Vec<u32>,
    /// Where the waiting ids start.
    waiting: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> TextStream<'a> {
        TextStream { tokenizer, skip_special, ids: Vec::new(), waiting: 0 }
    }

    /// Takes the next id; gives the text that is whole now, possibly none. Errors: `tokenizer`.
    pub fn push(&mut self, id: u32) -> Result<String, Diagnostic> {
        self.ids.push(id);
        let text = self.waiting_text()?;
        let broken = text.ends_with(char::REPLACEMENT_CHARACTER) && self.ids.len() - self.waiting < MAX_WAITING;
        if text.is_empty() || broken {
            return Ok(String::new());
        }
        self.ids.drain(..self.waiting);
        self.waiting = self.ids.len();
        Ok(text)
    }

    /// The text of ids that still wait, broken characters as U+FFFD. Errors: `tokenizer`.
    pub fn finish(mut self) -> Result<String, Diagnostic> {
        let text = self.waiting_text()?;
        self.ids.clear();
        Ok(text)
    }

    fn waiting_text(&self) -> Result<String, Diagnostic> {
        let before = self.tokenizer.decode_as(&self.ids[..self.waiting], self.skip_special)?;
        let all = self.tokenizer.decode_as(&self.ids, self.skip_special)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_string())
    }
}
