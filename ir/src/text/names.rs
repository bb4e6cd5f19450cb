//! Names in text: identifiers, quoted strings, and the nearest known name.

use crate::graph::{Function, Value};

/// Whether `c` may begin an identifier.
pub(super) fn starts(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// Whether `c` may continue an identifier.
pub(super) const fn continues(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// Whether `name` can stand without quotes; the sizes of dims must.
pub(crate) fn is_ident(name: &str) -> bool {
    name.starts_with(starts) && name.chars().all(continues)
}

/// `name` as it stands after `@` and `%`.
pub(super) fn shown(name: &str) -> String {
    if is_ident(name) { name.into() } else { quoted(name) }
}

/// `text` in quotes, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The inverse of [`quoted`]; `None` where an escape is wrong.
pub(super) fn unquoted(token: &str) -> Option<String> {
    let mut rest = token.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut out = String::new();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match rest.next()? {
            c @ ('"' | '\\') => out.push(c),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'u' => {
                let (digits, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                rest = after.chars();
            }
            _ => return None,
        }
    }
    Some(out)
}

/// `%name`, `%3` or `%3#1`. Numbers count the nodes after the parameters.
pub fn value(f: &Function, v: Value) -> String {
    let i = v.node.index();
    let mut out = match f.params.get(i) {
        Some(p) => format!("%{}", shown(&p.name)),
        None => format!("%{}", i - f.params.len()),
    };
    if f.nodes.get(i).is_none_or(|n| n.types.len() != 1) {
        out.push_str(&format!("#{}", v.index));
    }
    out
}

/// The candidate with the fewest edits from `name`, if that is less than half of its letters.
pub fn nearest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    if name.len() > 64 {
        return None;
    }
    let best = candidates.map(|c| (edits(name, c), c)).min_by_key(|(n, _)| *n)?;
    (best.0 * 2 <= name.len()).then_some(best.1)
}

/// Levenshtein distance, by rows.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_come_off_as_they_went_on() {
        for s in ["", "a b", "\"\\\n\t\u{7}", "größe", "blocks.3"] {
            assert_eq!(unquoted(&quoted(s)).as_deref(), Some(s));
        }
        assert_eq!(unquoted(r#""\q""#), None);
        assert_eq!(unquoted(r#""\u{110000}""#), None);
        assert_eq!(unquoted("\"\\\""), None);
    }

    #[test]
    fn nearest_counts_edits() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(nearest("transpoze", ["dot", "transpose"].into_iter()), Some("transpose"));
        assert_eq!(nearest("zzzzzz", ["dot", "transpose"].into_iter()), None);
    }
}
