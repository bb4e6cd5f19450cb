//! Draws a diagnostic: message, source lines with carets, notes.

use super::{Diagnostic, Place, Severity};
use std::fmt::Write;

/// Text of a diagnostic, several lines, without a final newline.
pub fn render(diag: &Diagnostic) -> String {
    let severity = match diag.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let mut out = format!("{severity}[{}]: {}", diag.code, diag.message);
    for (place, label) in &diag.labels {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n  --> {place}");
        match caret(diag, place) {
            Some(drawn) => {
                let _ = write!(out, "\n{}", format!("{drawn} {label}").trim_end());
            }
            None if !label.is_empty() => {
                let _ = write!(out, ": {label}");
            }
            None => {}
        }
    }
    for note in &diag.notes {
        let _ = write!(out, "\n  note: {note}");
    }
    out
}

fn caret(diag: &Diagnostic, place: &Place) -> Option<String> {
    let Place::Text { file, line, column, length } = place else { return None };
    let (_, _, text) = diag.lines.iter().find(|(f, l, _)| f == file && l == line)?;
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    // Long lines (a constant with many elements) are cut around the caret.
    let start = (*column as usize).saturating_sub(61);
    let shown: String = text.chars().skip(start).take(120).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let indent = " ".repeat((*column as usize).saturating_sub(1 + start));
    let carets = "^".repeat((*length as usize).clamp(1, 120usize.saturating_sub(indent.len()).max(1)));
    Some(format!("   {gutter} |\n   {number} | {shown}\n   {gutter} | {indent}{carets}"))
}
