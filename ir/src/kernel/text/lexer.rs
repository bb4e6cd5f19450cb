//! Tokens of kernel text, with lines and columns for diagnostics.

use crate::diag::{Diagnostic, Place};
use std::sync::Arc;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or keyword.
    Name(String),
    /// An integer without sign.
    Int(u64),
    /// A number with point or exponent.
    Real(f64),
    /// Punctuation.
    Sign(&'static str),
    /// End of the text.
    End,
}

impl Token {
    /// As shown in messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Name(s) => format!("`{s}`"),
            Token::Int(n) => format!("`{n}`"),
            Token::Real(x) => format!("`{x:?}`"),
            Token::Sign(s) => format!("`{s}`"),
            Token::End => "the end of the text".into(),
        }
    }
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// The token.
    pub token: Token,
    /// A newline or `;` stands before it.
    pub fresh: bool,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Length in characters.
    pub length: u32,
}

/// A text with its name.
pub(super) struct Source<'a> {
    /// Name of the file.
    pub file: Arc<str>,
    /// The text.
    pub text: &'a str,
}

impl Source<'_> {
    /// A diagnostic with a caret at `line`, `column`.
    pub(super) fn error(&self, message: String, line: u32, column: u32, length: u32) -> Diagnostic {
        let place = Place::Text { file: self.file.clone(), line, column, length: length.max(1) };
        let mut d = Diagnostic::new("kernel-syntax", message).at(place, "here");
        if let Some(text) = self.text.lines().nth(line.saturating_sub(1) as usize) {
            d.lines.push((self.file.clone(), line, text.to_string()));
        }
        d
    }
}

/// Longest first, so that the first match is the longest.
const SIGNS: &[&str] = &[
    "..=", "+:", "+?", "<-", "+=", "..", "==", "!=", "<=", ">=", ">>", "<<", "{", "}", "[", "]", "(", ")", ",", "=",
    "+", "-", "*", "/", "%", "<", ">", ":", "&", "|", "^", "!", "?", "@", ".",
];

fn number_length(rest: &[u8]) -> (usize, bool) {
    let digits = |from: usize| rest.iter().skip(from).take_while(|c| c.is_ascii_digit()).count();
    let mut n = digits(0);
    let mut real = false;
    if rest.get(n) == Some(&b'.') && rest.get(n + 1).is_some_and(u8::is_ascii_digit) {
        real = true;
        n += 1 + digits(n + 1);
    }
    if matches!(rest.get(n), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(n + 1), Some(b'-' | b'+')));
        let d = digits(n + 1 + sign);
        if d > 0 {
            real = true;
            n += 1 + sign + d;
        }
    }
    (n, real)
}

/// Cuts the text into tokens. Errors: `kernel-syntax` for other characters and numbers that do not fit.
pub(super) fn lex(source: &Source) -> Result<Vec<Spot>, Diagnostic> {
    let mut spots = Vec::new();
    let mut line = 0u32;
    for text in source.text.lines() {
        line = line.saturating_add(1);
        let mut fresh = true;
        let mut at = 0usize;
        // characters up to `at`, counted once
        let (mut counted, mut column) = (0usize, 1u32);
        while let Some(c) = text[at..].chars().next() {
            let rest = &text[at..];
            let passed = u32::try_from(text[counted..at].chars().count()).unwrap_or(u32::MAX);
            column = column.saturating_add(passed);
            counted = at;
            if c.is_whitespace() {
                at += c.len_utf8();
                continue;
            }
            if rest.starts_with("//") {
                break;
            }
            if c == ';' {
                fresh = true;
                at += 1;
                continue;
            }
            let (token, length) = if c.is_ascii_alphabetic() || c == '_' {
                let n = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                (Token::Name(rest[..n].to_string()), n)
            } else if c.is_ascii_digit() {
                let (n, real) = number_length(rest.as_bytes());
                let bad = || source.error(format!("the number `{}` does not fit", &rest[..n]), line, column, n as u32);
                let token = if real {
                    Token::Real(rest[..n].parse().map_err(|_| bad())?)
                } else {
                    Token::Int(rest[..n].parse().map_err(|_| bad())?)
                };
                (token, n)
            } else if let Some(s) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
                (Token::Sign(s), s.len())
            } else {
                return Err(source.error(format!("unexpected character `{}`", c.escape_debug()), line, column, 1));
            };
            spots.push(Spot { token, fresh, line, column, length: length as u32 });
            fresh = false;
            at += length;
        }
    }
    let last = source.text.lines().last().map_or(0, |l| l.chars().count());
    spots.push(Spot { token: Token::End, fresh: true, line: line.max(1), column: last as u32 + 1, length: 1 });
    Ok(spots)
}
