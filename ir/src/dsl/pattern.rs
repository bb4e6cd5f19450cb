//! Tokens of einsum and einops patterns, and errors that point into them.

use crate::diag::{Diagnostic, Place};
use std::sync::Arc;

/// A word, `...`, or one of the signs `( ) , ->`, with the byte where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub text: &'a str,
    pub at: usize,
}

/// An error that draws `pattern` with a caret under `length` characters from byte `at`.
#[track_caller]
pub(super) fn pattern_error(pattern: &str, at: usize, length: usize, message: impl Into<String>) -> Diagnostic {
    let file: Arc<str> = "<pattern>".into();
    let column = pattern.get(..at).map_or(0, |before| before.chars().count()) as u32 + 1;
    let place = Place::Text { file: file.clone(), line: 1, column, length: length.max(1) as u32 };
    let mut error = Diagnostic::new("bad-pattern", message).at(place, "");
    error.lines.push((file, 1, pattern.to_string()));
    error
}

/// Splits a pattern; names are ASCII letters, digits and `_`.
#[track_caller]
pub(super) fn tokens(pattern: &str) -> Result<Vec<Token<'_>>, Diagnostic> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(rest) = pattern.get(at..).filter(|r| !r.is_empty()) {
        let Some(first) = rest.chars().next() else { break };
        let length = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else if rest.starts_with("...") {
            3
        } else if rest.starts_with("->") {
            2
        } else if matches!(first, '(' | ')' | ',') {
            1
        } else {
            return Err(pattern_error(pattern, at, 1, format!("unexpected `{}`", first.escape_default())));
        };
        out.push(Token { text: &rest[..length], at });
        at += length;
    }
    Ok(out)
}

/// The tokens before and after the only `->`; the second is `None` without one.
#[track_caller]
pub(super) fn sides<'a, 't>(
    pattern: &str,
    tokens: &'t [Token<'a>],
) -> Result<(&'t [Token<'a>], Option<&'t [Token<'a>]>), Diagnostic> {
    let mut arrows = tokens.iter().enumerate().filter(|(_, t)| t.text == "->");
    let Some((first, _)) = arrows.next() else { return Ok((tokens, None)) };
    if let Some((_, second)) = arrows.next() {
        return Err(pattern_error(pattern, second.at, 2, "a second `->`"));
    }
    Ok((&tokens[..first], Some(&tokens[first + 1..])))
}
