//! Draws a diagnostic: message, source lines with carets, notes.

use super::{Diagnostic, Place, Severity};
use std::fmt::Write;

/// Text of a diagnostic, several lines, without a final newline.
pub fn render(diag: &Diagnostic) -> String {
    let severity = match diag.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let mut out = format!("{severity}[{}]: {}", diag.code, safe(&diag.message));
    for (place, label) in &diag.labels {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n  --> {}", safe(&place.to_string()));
        match caret(diag, place) {
            Some(drawn) => {
                let _ = write!(out, "\n{}", format!("{drawn} {}", safe(label)).trim_end());
            }
            None if !label.is_empty() => {
                let _ = write!(out, ": {}", safe(label));
            }
            None => {}
        }
    }
    for note in &diag.notes {
        let _ = write!(out, "\n  note: {}", safe(note));
    }
    out
}

/// Whether a terminal would do something else than draw it: control characters, and those that turn the direction of text.
fn commands(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, in which names of files and texts may stand, with such characters escaped. Lines and tabs are ours.
fn safe(text: &str) -> String {
    let each = |c: char| if commands(c) && c != '\n' && c != '\t' { c.escape_default().to_string() } else { c.into() };
    text.chars().map(each).collect()
}

/// A character of a source line as one column.
fn one_wide(c: char) -> char {
    match c {
        '\t' => ' ',
        // Pictures of the control characters.
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        c if commands(c) => '\u{fffd}',
        c => c,
    }
}

fn caret(diag: &Diagnostic, place: &Place) -> Option<String> {
    let Place::Text { file, line, column, length } = place else { return None };
    let (_, _, text) = diag.lines.iter().find(|(f, l, _)| f == file && l == line)?;
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    // Long lines (a constant with many elements) are cut around the caret.
    let start = (*column as usize).saturating_sub(61);
    let shown: String = text.chars().skip(start).take(120).map(one_wide).collect();
    let indent = " ".repeat((*column as usize).saturating_sub(1 + start));
    let carets = "^".repeat((*length as usize).clamp(1, 120usize.saturating_sub(indent.len()).max(1)));
    Some(format!("   {gutter} |\n   {number} | {shown}\n   {gutter} | {indent}{carets}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_no_commands_from_names_and_sources() {
        let file: std::sync::Arc<str> = "a\x1b[2J.tw".into();
        let place = Place::Text { file: file.clone(), line: 1, column: 4, length: 1 };
        let mut d =
            Diagnostic::new("syntax", "found `\0\x1b[31m\u{202e}`, line\ntwo").at(place, "\x07here").note("\r\x7f");
        d.lines.push((file, 1, "x\t\x1b\u{9b}y".into()));
        let text = render(&d);
        assert!(!text.chars().any(|c| commands(c) && c != '\n'), "{text:?}");
        assert!(text.contains("found `\\u{0}\\u{1b}[31m\\u{202e}`, line\ntwo"), "{text}");
        assert!(text.contains("\n   1 | x \u{241b}\u{fffd}y\n     |    ^ \\u{7}here"), "{text}");
        assert!(text.contains("note: \\r\\u{7f}"), "{text}");
    }
}
