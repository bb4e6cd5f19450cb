//! Mutations: of bits and bytes, of little-endian numbers, and of tokens, which keep most texts near the grammar.

use crate::random::Random;

/// Numbers that break assumptions, as text.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "7",
    "31",
    "32",
    "33",
    "63",
    "64",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "-9223372036854775808",
    "1e308",
    "1e999",
    "-0.0",
    "0.5",
    "1e-320",
    "nan",
    "inf",
];

/// The largest input that mutations make, in bytes.
const LONGEST: usize = 1 << 15;

/// Tokens of the seeds by class, to replace others of the class.
#[derive(Default)]
pub struct Dictionary {
    words: Vec<Vec<u8>>,
    numbers: Vec<Vec<u8>>,
    marks: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Number,
    Space,
    Mark,
}

fn class(byte: u8) -> Class {
    match byte {
        b'0'..=b'9' => Class::Number,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
        b' ' | b'\n' | b'\t' | b'\r' => Class::Space,
        _ => Class::Mark,
    }
}

/// Where tokens start and end; digits inside a word belong to it, a mark is alone.
fn tokens(text: &[u8]) -> Vec<(usize, usize, Class)> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let kind = class(text[start]);
        let mut end = start + 1;
        let goes_on = |b: u8| class(b) == kind || (kind == Class::Word && class(b) == Class::Number);
        while kind != Class::Mark && end < text.len() && goes_on(text[end]) {
            end += 1;
        }
        out.push((start, end, kind));
        start = end;
    }
    out
}

impl Dictionary {
    /// All tokens of `seeds`, and `words` beside them.
    pub fn new(seeds: &[Vec<u8>], words: impl IntoIterator<Item = String>) -> Dictionary {
        let mut d = Dictionary { words: words.into_iter().map(String::into_bytes).collect(), ..Dictionary::default() };
        d.numbers.extend(NUMBERS.iter().map(|n| n.as_bytes().to_vec()));
        for seed in seeds {
            for (start, end, kind) in tokens(seed).into_iter().filter(|t| t.1 - t.0 <= 40) {
                if let Some(list) = d.list(kind) {
                    list.push(seed[start..end].to_vec());
                }
            }
        }
        for list in [&mut d.words, &mut d.numbers, &mut d.marks] {
            list.sort();
            list.dedup();
        }
        d
    }

    fn list(&mut self, kind: Class) -> Option<&mut Vec<Vec<u8>>> {
        match kind {
            Class::Word => Some(&mut self.words),
            Class::Number => Some(&mut self.numbers),
            Class::Mark => Some(&mut self.marks),
            Class::Space => None,
        }
    }

    fn draw(&self, kind: Class, random: &mut Random) -> Vec<u8> {
        let list = match kind {
            Class::Word => &self.words,
            Class::Number => &self.numbers,
            Class::Mark | Class::Space => &self.marks,
        };
        list.get(random.below(list.len())).cloned().unwrap_or_default()
    }
}

/// Changes `input` in one to four places; `other` is another input of the corpus, for splices.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], text: bool, dictionary: &Dictionary, random: &mut Random) {
    for _ in 0..1 + random.below(4) * random.below(2) {
        if text && random.below(8) != 0 {
            of_tokens(input, other, dictionary, random);
        } else {
            of_bytes(input, other, text, random);
        }
    }
    input.truncate(LONGEST);
}

/// A range of at most `most` items of `len`.
fn range(len: usize, most: usize, random: &mut Random) -> (usize, usize) {
    let start = random.below(len + 1);
    (start, (start + random.below(most + 1)).min(len))
}

fn of_bytes(input: &mut Vec<u8>, other: &[u8], text: bool, random: &mut Random) {
    let at = random.below(input.len());
    // Headers are where most decisions are made.
    let at = if random.below(2) == 0 { at % 64 } else { at };
    match random.below(if text { 6 } else { 9 }) {
        0 => input.truncate(at),
        1 => drop(input.drain(input.len().min(at)..input.len().min(at + random.below(64)))),
        2 => {
            let (start, end) = range(other.len(), 256, random);
            let at = at.min(input.len());
            input.splice(at..at, other[start..end].iter().copied());
        }
        3 => {
            let (start, end) = range(input.len(), 256, random);
            let copy = input[start..end].to_vec();
            let at = at.min(input.len());
            input.splice(at..at, copy);
        }
        4 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        5 => {
            if let Some(byte) = input.get_mut(at) {
                let any = random.next() as u8;
                *byte = random.of(&[0, 0xff, 0x7f, 0x80, b'"', b'\\', b'{', any]);
            }
        }
        _ => {
            let width = random.of(&[2, 4, 8]);
            let (power, small) = (1u64 << random.below(64), random.next() & 0xff);
            let value = random.of(&[0, 1, u64::MAX, power, power - 1, power + 1, input.len() as u64, small]);
            if let Some(place) = input.get_mut(at..at + width) {
                place.copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
    }
}

fn of_tokens(input: &mut Vec<u8>, other: &[u8], dictionary: &Dictionary, random: &mut Random) {
    let all = tokens(input);
    if all.is_empty() {
        return input.extend(other);
    }
    let at = random.below(all.len());
    let (start, end, kind) = all[at];
    match random.below(12) {
        0..=4 => {
            // Not a space: there is little to say with them.
            let (start, end, kind) =
                all[at..].iter().copied().find(|t| t.2 != Class::Space).unwrap_or((start, end, kind));
            input.splice(start..end, dictionary.draw(kind, random));
        }
        5 => {
            let (start, end, kind) =
                all[at..].iter().copied().find(|t| t.2 == Class::Number).unwrap_or((start, end, kind));
            input.splice(start..end, dictionary.draw(kind, random));
        }
        6 => {
            let same: Vec<_> = all.iter().filter(|t| t.2 == kind).collect();
            let (from, to, _) = *same[random.below(same.len())];
            let word = input[from..to].to_vec();
            input.splice(start..end, word);
        }
        7 => drop(input.drain(start..all[(at + random.below(6)).min(all.len() - 1)].1)),
        8 => {
            let copy = input[start..all[(at + random.below(24)).min(all.len() - 1)].1].to_vec();
            input.splice(start..start, copy);
        }
        9 => {
            let theirs = tokens(other);
            let (from, to) = range(theirs.len(), 40, random);
            let from = theirs.get(from).map_or(other.len(), |t| t.0);
            let to = theirs.get(to).map_or(other.len(), |t| t.0);
            input.splice(start..start, other[from..to].iter().copied());
        }
        _ => of_lines(input, other, random),
    }
}

/// Moves, repeats, takes over or drops whole lines.
fn of_lines(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let mut lines: Vec<Vec<u8>> = input.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let at = random.below(lines.len());
    match random.below(4) {
        0 => drop(lines.remove(at)),
        1 => {
            let to = random.below(lines.len());
            lines.swap(at, to);
        }
        2 => lines.insert(at, lines[random.below(lines.len())].clone()),
        _ => {
            let theirs: Vec<&[u8]> = other.split_inclusive(|b| *b == b'\n').collect();
            let line = theirs.get(random.below(theirs.len())).map(|l| l.to_vec());
            lines.splice(at..at, line);
        }
    }
    *input = lines.concat();
}
