//! Tokens of a text with their places, and errors that point at them.

use super::names;
use crate::diag::{Diagnostic, Place};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest text, in bytes; positions stay within `u32`.
const MAX_BYTES: usize = 1 << 30;
/// Places of one error whose lines are shown.
const MAX_LABELS: usize = 8;

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
        let count = if self.text.is_ascii() { self.text.len() } else { self.text.chars().count() };
        count as u32
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
        loop {
            match &self.text.as_bytes()[self.at..] {
                [b'\n', ..] => (self.line, self.column) = (self.line + 1, 1),
                [b' ' | b'\t' | b'\r', ..] => self.column += 1,
                [b'/', b'/', ..] => {
                    // What follows is a line end, so the column need not be counted.
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    /// The next token. Errors: `syntax`.
    pub(super) fn next(&mut self) -> Result<Token<'t>, Diagnostic> {
        self.skip_blanks();
        let rest = self.rest();
        let bytes = rest.as_bytes();
        let (kind, length) = match bytes {
            [] => (TokenKind::End, 0),
            [b, ..] if names::starts((*b).into()) => {
                let end = bytes.iter().position(|b| !names::continues((*b).into()));
                (TokenKind::Ident, end.unwrap_or(bytes.len()))
            }
            [b'0'..=b'9', ..] => (TokenKind::Number, number_length(bytes)),
            [b'"', ..] => match string_length(bytes) {
                Some(n) => (TokenKind::Quoted, n),
                None => return Err(self.stray(1, "this string has no closing quote on its line")),
            },
            [b'-', b'>', ..] => (TokenKind::Mark, 2),
            [b'.', b'.', b'=', ..] => (TokenKind::Mark, 3),
            [b'(' | b')' | b'{' | b'}' | b'[' | b']' | b',' | b':', ..] => (TokenKind::Mark, 1),
            [b'=' | b'%' | b'@' | b'#' | b'+' | b'-' | b'*', ..] => (TokenKind::Mark, 1),
            _ => {
                let length = rest.chars().next().map_or(0, char::len_utf8);
                return Err(self.stray(length, "this character begins no token"));
            }
        };
        let token = Token { kind, text: &rest[..length], line: self.line, column: self.column };
        self.at += length;
        self.column += token.characters();
        Ok(token)
    }

    fn stray(&self, bytes: usize, message: &str) -> Diagnostic {
        let text = &self.rest()[..bytes];
        let token = Token { kind: TokenKind::Mark, text, line: self.line, column: self.column };
        self.error(&token, "syntax", message, "")
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
            let t = lexer.next().unwrap();
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
        bad.next().unwrap();
        let e = bad.next().unwrap_err();
        assert!(matches!(e.labels[0].0, Place::Text { line: 2, column: 3, length: 1, .. }));
        assert_eq!(e.lines[0].2, "  é");
    }
}
