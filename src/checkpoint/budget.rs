//! What is wanted of the memory, as texts name it.

use std::fmt;
use std::str::FromStr;

/// What is wanted of the memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Nothing: all that is costly is kept.
    None,
    /// About sqrt(n) segments of a chain of n blocks.
    Sqrt,
    /// As little as can be had.
    Least,
    /// At most this many bytes of arena, and the fewest operations that it allows.
    Bytes(u64),
    /// Like [`Budget::Bytes`], in parts of the arena without checkpointing, above 0 and at most 1.
    Part(f64),
}

/// Words for budgets.
const WORDS: [(&str, Budget); 4] =
    [("none", Budget::None), ("sqrt", Budget::Sqrt), ("min", Budget::Least), ("minimum", Budget::Least)];

/// Units by what their names begin with, in bytes; a `B` may follow.
const UNITS: [(&str, f64); 8] = [
    ("", 1.0),
    ("k", 1e3),
    ("K", 1e3),
    ("Ki", (1u64 << 10) as f64),
    ("M", 1e6),
    ("Mi", (1u64 << 20) as f64),
    ("G", 1e9),
    ("Gi", (1u64 << 30) as f64),
];

impl Budget {
    /// The most bytes, where `plain` are those of the arena without checkpointing; none where none are said.
    pub fn bytes(self, plain: usize) -> Option<u64> {
        match self {
            Budget::None | Budget::Sqrt | Budget::Least => None,
            Budget::Bytes(bytes) => Some(bytes),
            Budget::Part(part) => Some((part * plain as f64) as u64),
        }
    }
}

/// `none`, `sqrt`, `min` (or `minimum`), bytes such as `500000000`, `100k`, `500M`, `512MiB` or `1.5 GB`, or a part such as `25 %`.
impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        if let Some((_, budget)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*budget);
        }
        let wrong = || {
            let alike =
                |word: &str| word.chars().zip(text.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
            let nearest =
                WORDS.iter().map(|(word, _)| *word).max_by_key(|word| alike(word)).filter(|word| alike(word) > 1);
            let meant = nearest.map_or(String::new(), |word| format!("; the nearest is `{word}`"));
            format!(
                "`{text}` is no budget, expected `none`, `sqrt`, `min`, bytes such as 100k, 500M or 1.5 GB (k, M, G; Ki, Mi, Gi; with B or without), or a part such as 25 %{meant}"
            )
        };
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = (&text[..end], text[end..].trim());
        let number = digits.parse::<f64>().map_err(|_| wrong())?;
        if unit == "%" {
            let part = Budget::Part(number / 100.0);
            return if number > 0.0 && number <= 100.0 { Ok(part) } else { Err(wrong()) };
        }
        let unit = unit.strip_suffix('B').unwrap_or(unit);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let bytes = (number * scale).round();
        // Whole numbers beyond are not exact any more.
        if (1.0..=9e15).contains(&bytes) { Ok(Budget::Bytes(bytes as u64)) } else { Err(wrong()) }
    }
}

/// As it is read.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::None => f.write_str("none"),
            Budget::Sqrt => f.write_str("sqrt"),
            Budget::Least => f.write_str("min"),
            Budget::Bytes(bytes) => write!(f, "{bytes} B"),
            Budget::Part(part) => write!(f, "{} %", 100.0 * part),
        }
    }
}
