//! Tokens of a text with their places, and errors that point at them.

use super::names;
use crate::diag::{Diagnostic, Place};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest text, in bytes; positions stay within `u32`.
const MAX_BYTES: usize = 1 << 30;
/// Places of one error whose lines are shown.
const MAX_LABELS: usize = 8;

/// Bytes that continue an identifier.
const CONTINUES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < table.len() {
        table[byte] = names::continues(byte as u8 as char);
        byte += 1;
    }
    table
};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters, digits, `_` and `.`, beginning with a letter or `_`.
    Ident,
    /// Digits with an optional fraction and exponent, or `0x` and hex digits; no sign.
    Number,
    /// A string with its quotes.
    Quoted,
    /// Punctuation.
    Mark,
    /// What begins no token: a character, or the quote of a string without an end.
    Stray,
    /// Behind the last token.
    End,
}

/// A token; its text is a slice of the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: TokenKind,
    pub(super) text: &'t str,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Token<'_> {
    /// The token for a message.
    pub(super) fn shown(&self) -> String {
        if self.kind == TokenKind::End {
            return "the end of the text".into();
        }
        let short: String = self.text.chars().take(40).collect();
        if short.len() < self.text.len() { format!("`{short}..`") } else { format!("`{short}`") }
    }

    /// How many characters it has.
    fn characters(&self) -> u32 {
        // Only strings and strays hold others than ASCII.
        let plain = matches!(self.kind, TokenKind::Ident | TokenKind::Number | TokenKind::Mark) || self.text.is_ascii();
        (if plain { self.text.len() } else { self.text.chars().count() }) as u32
    }

    /// Whether this is the mark `text`.
    #[inline]
    pub(super) fn is_mark(&self, text: &str) -> bool {
        // Byte by byte: a call of the system's comparison would take longer.
        self.kind == TokenKind::Mark && self.text.len() == text.len() && self.text.bytes().eq(text.bytes())
    }
}

/// Reads tokens one by one, counting lines and columns as it goes, so that a line of any length costs linear time.
pub(super) struct Lexer<'t> {
    file: Arc<str>,
    text: &'t str,
    at: usize,
    line: u32,
    column: u32,
}

impl<'t> Lexer<'t> {
    /// Errors: `text-size`.
    pub(super) fn new(file: &str, text: &'t str) -> Result<Lexer<'t>, Diagnostic> {
        if text.len() > MAX_BYTES {
            let found = text.len();
            return Err(Diagnostic::new("text-size", format!("expected at most {MAX_BYTES} bytes, found {found}")));
        }
        Ok(Lexer { file: file.into(), text, at: 0, line: 1, column: 1 })
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b'\n') => (self.line, self.column) = (self.line + 1, 1),
                Some(b' ' | b'\t' | b'\r') => self.column += 1,
                Some(b'/') if bytes.get(self.at + 1) == Some(&b'/') => {
                    // What follows is a line end, so the column need not be counted.
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Token<'t> {
        self.skip_blanks();
        let bytes = &self.text.as_bytes()[self.at..];
        let (kind, length) = match bytes.first().copied().unwrap_or(0) {
            _ if bytes.is_empty() => (TokenKind::End, 0),
            b'(' | b')' | b'{' | b'}' | b'[' | b']' | b',' | b':' => (TokenKind::Mark, 1),
            b'=' | b'%' | b'@' | b'#' | b'+' | b'*' => (TokenKind::Mark, 1),
            b'-' => (TokenKind::Mark, if bytes.get(1) == Some(&b'>') { 2 } else { 1 }),
            b'.' if bytes.starts_with(b"..=") => (TokenKind::Mark, 3),
            b'0'..=b'9' => (TokenKind::Number, number_length(bytes)),
            b'"' => string_length(bytes).map_or((TokenKind::Stray, 1), |n| (TokenKind::Quoted, n)),
            first if names::starts(first.into()) => {
                let end = bytes.iter().position(|b| !CONTINUES[usize::from(*b)]);
                (TokenKind::Ident, end.unwrap_or(bytes.len()))
            }
            _ => (TokenKind::Stray, self.rest().chars().next().map_or(0, char::len_utf8)),
        };
        let text = &self.text[self.at..self.at + length];
        let token = Token { kind, text, line: self.line, column: self.column };
        self.at += length;
        self.column += token.characters();
        token
    }

    /// The place of a token.
    pub(super) fn place(&self, token: &Token) -> Place {
        let length = token.characters().max(1);
        Place::Text { file: self.file.clone(), line: token.line, column: token.column, length }
    }

    /// An error at a token, with its source line.
    pub(super) fn error(
        &self,
        at: &Token,
        code: &'static str,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Diagnostic {
        self.with_lines(Diagnostic::new(code, message).at(self.place(at), label))
    }

    /// `diag` with the source lines of its first places, so that carets can be drawn.
    pub(super) fn with_lines(&self, mut diag: Diagnostic) -> Diagnostic {
        diag.labels.truncate(MAX_LABELS);
        let mut wanted = BTreeSet::new();
        for (place, _) in &diag.labels {
            if let Place::Text { file, line, .. } = place
                && *file == self.file
            {
                wanted.insert(*line);
            }
        }
        let mut at = 0;
        let mut lines = self.text.split('\n');
        for line in wanted {
            // Lines are numbered from 1; `nth` goes on from the line before.
            if let Some(text) = lines.nth((line - at - 1) as usize) {
                diag.lines.push((self.file.clone(), line, text.trim_end_matches('\r').into()));
            }
            at = line;
        }
        diag
    }
}

/// Length of the number at the start of `b`, which begins with a digit.
fn number_length(b: &[u8]) -> usize {
    let run = |from: usize, test: fn(&u8) -> bool| {
        b.get(from..).map_or(0, |r| r.iter().position(|c| !test(c)).unwrap_or(r.len()))
    };
    if b.starts_with(b"0x") {
        return 2 + run(2, u8::is_ascii_hexdigit);
    }
    let mut n = run(0, u8::is_ascii_digit);
    // `1..=8` is a range: a fraction needs a digit.
    let fraction = if b.get(n) == Some(&b'.') { run(n + 1, u8::is_ascii_digit) } else { 0 };
    if fraction > 0 {
        n += 1 + fraction;
    }
    if matches!(b.get(n), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(b.get(n + 1), Some(b'+' | b'-')));
        let exponent = run(n + 1 + sign, u8::is_ascii_digit);
        if exponent > 0 {
            n += 1 + sign + exponent;
        }
    }
    n
}

/// Length of the string at the start of `b` with both quotes; `None` if it does not end on its line.
fn string_length(b: &[u8]) -> Option<usize> {
    let mut i = 1;
    loop {
        match b.get(i)? {
            b'"' => return Some(i + 1),
            b'\n' => return None,
            // A character behind a backslash is never the end; if it is not ASCII, its later bytes are skipped as well.
            b'\\' if b.get(i + 1) != Some(&b'\n') => i += 2,
            _ => i += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        let mut lexer = Lexer::new("t", source).unwrap();
        let mut out = Vec::new();
        loop {
            let t = lexer.next();
            if t.kind == TokenKind::End {
                return out;
            }
            out.push(t.text.to_string());
        }
    }

    #[test]
    fn tokens() {
        let found = texts("%4#1 1..=8 -1.5e-3 [1]x[0] // no\n \"a \\\" b\" 0xff 2 -> 3e");
        let want = [
            "%",
            "4",
            "#",
            "1",
            "1",
            "..=",
            "8",
            "-",
            "1.5e-3",
            "[",
            "1",
            "]",
            "x",
            "[",
            "0",
            "]",
            "\"a \\\" b\"",
            "0xff",
            "2",
            "->",
            "3",
            "e",
        ];
        assert_eq!(found, want);
        let mut bad = Lexer::new("t", "a\n  é").unwrap();
        bad.next();
        let stray = bad.next();
        assert_eq!((stray.kind, stray.text, stray.line, stray.column), (TokenKind::Stray, "é", 2, 3));
        let e = bad.error(&stray, "syntax", "", "");
        assert!(matches!(e.labels[0].0, Place::Text { line: 2, column: 3, length: 1, .. }));
        assert_eq!(e.lines[0].2, "  é");
    }
}
