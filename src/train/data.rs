//! What a model learns: tokens, in an order that follows from a seed and the number of the step alone.

use super::config::{CHARACTERS, DataConfig, TokenType};
use super::validation::ValidationConfig;
use crate::formats::tokenizer::Tokenizer;
use crate::formats::tokenizer_files::TokenizerFiles;
use crate::formats::{map_file, read_text};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_runtime::checksum::Checksum;

/// All tokens of the data.
pub struct Tokens {
    parts: Vec<Part>,
    length: usize,
}

enum Part {
    /// Of a text.
    Known(Vec<u32>),
    /// Little-endian numbers of a mapped file.
    Mapped(Bytes, TokenType),
}

/// Something that a run learns from, and what it is now: a run goes on from a checkpoint with the same only.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Which file, or what else.
    pub name: String,
    /// Of its content.
    pub checksum: String,
}

/// The tokens, and the tokenizer that made them.
pub struct Data {
    /// The tokens.
    pub tokens: Tokens,
    /// Those that the model is tested on, if any.
    pub validation: Option<Tokens>,
    /// The tokenizer; none for tokens of unknown origin.
    pub tokenizer: Option<TokenizerFiles>,
    /// Number of different tokens.
    pub vocabulary: usize,
    /// The files that `tokens` are from, in their order, then the tokenizer.
    pub sources: Vec<Source>,
}

impl Data {
    /// Reads what `config` names. `usual` is the tokenizer of the model that a run starts from.
    ///
    /// Errors: `file`, `text`, `tokenizer`; `train-data` for files that are empty or no tokens.
    pub fn open(config: &DataConfig, usual: Option<&TokenizerFiles>) -> Result<Data, Diagnostic> {
        let named = config.tokenizer.as_deref();
        let (name, files) = match named.filter(|t| t.as_os_str() != CHARACTERS) {
            Some(path) => (path.display().to_string(), Some(TokenizerFiles::open(path)?)),
            None => ("the tokenizer of the model".to_string(), usual.filter(|_| named.is_none()).cloned()),
        };
        let known = files.as_ref().map(|files| files.tokenizer(&name)).transpose()?;
        if !config.tokens.is_empty() {
            let one = |path: &PathBuf| mapped(path, config.token_type);
            let all = |files: &[PathBuf]| Ok(Tokens::of(files.iter().map(one).collect::<Result<_, _>>()?));
            let learned = all(&config.tokens)?;
            let sources = sources(&config.tokens, learned.parts.iter().map(Part::bytes));
            let (tokens, validation) = apart(learned, config, all)?;
            let largest = tokens.largest().max(validation.as_ref().map_or(0, Tokens::largest));
            let vocabulary = known.as_ref().map_or(largest + 1, Tokenizer::vocabulary_size);
            return Ok(Data { tokens, validation, tokenizer: files, vocabulary, sources });
        }
        let texts = read_texts(&config.text)?;
        let mut sources = sources(&config.text, texts.iter().map(String::as_bytes));
        let (tokenizer, files) = match (known, files) {
            (Some(tokenizer), Some(files)) => {
                let checksum = Checksum::of(files.json.as_bytes());
                sources.push(Source { name, checksum });
                (tokenizer, files)
            }
            _ => {
                let files = TokenizerFiles { json: characters(&texts), ..TokenizerFiles::default() };
                (files.tokenizer("the characters of the text")?, files)
            }
        };
        let vocabulary = tokenizer.vocabulary_size();
        let all = |files: &[PathBuf]| encoded(&tokenizer, &read_texts(files)?);
        let (tokens, validation) = apart(encoded(&tokenizer, &texts)?, config, all)?;
        Ok(Data { tokens, validation, tokenizer: Some(files), vocabulary, sources })
    }
}

/// Names and checksums of files with these contents.
fn sources<'a>(files: &[PathBuf], contents: impl Iterator<Item = &'a [u8]>) -> Vec<Source> {
    let one =
        |(path, bytes): (&PathBuf, &[u8])| Source { name: path.display().to_string(), checksum: Checksum::of(bytes) };
    files.iter().zip(contents).map(one).collect()
}

/// What the model learns, and what it is tested on: the end of that, or what `read` makes of other files.
fn apart(
    tokens: Tokens,
    config: &DataConfig,
    read: impl Fn(&[PathBuf]) -> Result<Tokens, Diagnostic>,
) -> Result<(Tokens, Option<Tokens>), Diagnostic> {
    match &config.validation {
        None => Ok((tokens, None)),
        Some(ValidationConfig::Files(files)) => Ok((tokens, Some(read(files)?))),
        Some(ValidationConfig::Part(part)) => {
            let at = ((1.0 - part) * tokens.len() as f64) as usize;
            let (learned, tested) = tokens.split(at)?;
            Ok((learned, Some(tested)))
        }
    }
}

fn read_texts(files: &[PathBuf]) -> Result<Vec<String>, Diagnostic> {
    let one = |path: &PathBuf| match read_text(path)? {
        text if text.is_empty() => Err(in_file(path, "expected text, found an empty file".into())),
        text => Ok(text),
    };
    files.iter().map(one).collect()
}

fn encoded(tokenizer: &Tokenizer, texts: &[String]) -> Result<Tokens, Diagnostic> {
    let parts = texts.iter().map(|text| tokenizer.encode_long(text).map(Part::Known));
    Ok(Tokens::of(parts.collect::<Result<_, _>>()?))
}

fn in_file(path: &Path, message: String) -> Diagnostic {
    Diagnostic::new("train-data", message).at(Place::Named(path.display().to_string().into()), "")
}

fn mapped(path: &Path, ty: TokenType) -> Result<Part, Diagnostic> {
    let (bytes, size) = (map_file(path)?, ty.bytes());
    if bytes.is_empty() || !bytes.len().is_multiple_of(size) {
        let (found, name) = (bytes.len(), ty.name());
        let message =
            format!("expected tokens of {size} bytes each, as data.token_type {name} has, found {found} bytes");
        return Err(in_file(path, message));
    }
    Ok(Part::Mapped(bytes, ty))
}

/// A `tokenizer.json` whose tokens are the characters of `texts`, in their order. Of other characters it says that it has none.
fn characters(texts: &[String]) -> String {
    let all: BTreeSet<char> = texts.iter().flat_map(|t| t.chars()).collect();
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        all.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "post_processor": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "[\\s\\S]" }, "behavior": "Isolated", "invert": false },
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<no such character>" },
    })
    .to_string()
}

impl Tokens {
    fn of(parts: Vec<Part>) -> Tokens {
        let length = parts.iter().map(Part::len).sum();
        Tokens { parts, length }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first `at`, and the rest. Errors: `bug` for fewer.
    fn split(self, at: usize) -> Result<(Tokens, Tokens), Diagnostic> {
        let few = || Diagnostic::bug("tokens that are split behind their end");
        let (mut first, mut rest, mut left) = (Vec::new(), Vec::new(), at);
        for part in self.parts {
            let here = left.min(part.len());
            left -= here;
            match part {
                Part::Known(mut ids) => {
                    rest.push(Part::Known(ids.split_off(here)));
                    first.push(Part::Known(ids));
                }
                Part::Mapped(bytes, ty) => {
                    let at = ty.bytes() * here;
                    first.push(Part::Mapped(bytes.slice(0, at).ok_or_else(few)?, ty));
                    rest.push(Part::Mapped(bytes.slice(at, bytes.len() - at).ok_or_else(few)?, ty));
                }
            }
        }
        if left == 0 { Ok((Tokens::of(first), Tokens::of(rest))) } else { Err(few()) }
    }

    /// Errors: `train-data` for tokens outside of a vocabulary.
    pub(super) fn check(&self, vocabulary: usize) -> Result<(), Diagnostic> {
        let largest = self.largest();
        if largest < vocabulary {
            return Ok(());
        }
        let message = format!("expected tokens below the vocabulary {vocabulary}, found {largest}");
        Err(Diagnostic::new("train-data", message))
    }

    /// Inputs and targets i64 of the windows of `context` tokens that begin at `starts`, in the shape `shape`.
    ///
    /// Errors: `array-size` where the shape has another number of tokens.
    pub(super) fn windows(
        &self,
        starts: impl Iterator<Item = usize>,
        context: usize,
        shape: &[usize],
    ) -> Result<[Array; 2], Diagnostic> {
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for start in starts {
            self.copy(start, context, &mut inputs);
            self.copy(start + 1, context, &mut targets);
        }
        Ok([Array::from_i64(shape, &inputs)?, Array::from_i64(shape, &targets)?])
    }

    fn largest(&self) -> usize {
        self.parts.iter().map(|p| (0..p.len()).map(|i| p.at(i)).max().unwrap_or(0)).max().unwrap_or(0) as usize
    }

    fn copy(&self, from: usize, count: usize, out: &mut Vec<i64>) {
        let (mut skip, mut rest) = (from, count);
        for part in &self.parts {
            let here = part.len().saturating_sub(skip).min(rest);
            out.extend((skip..skip + here).map(|i| i64::from(part.at(i))));
            rest -= here;
            skip = skip.saturating_sub(part.len());
            if rest == 0 {
                break;
            }
        }
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Known(ids) => ids.len(),
            Part::Mapped(bytes, ty) => bytes.len() / ty.bytes(),
        }
    }

    /// Those of a mapped file.
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Known(_) => &[],
            Part::Mapped(bytes, _) => bytes,
        }
    }

    fn at(&self, i: usize) -> u32 {
        match self {
            Part::Known(ids) => ids[i],
            Part::Mapped(bytes, TokenType::U16) => u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).into(),
            Part::Mapped(bytes, TokenType::U32) => {
                let at = 4 * i;
                u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            }
        }
    }
}

/// Batches of sequences. An epoch goes once through all windows of a context, in an order of its own, and windows of different
/// epochs begin at different tokens.
pub struct Batches {
    tokens: Tokens,
    seed: u64,
    /// Sequences of a batch, and tokens of each.
    shape: [usize; 2],
    windows: u64,
}

impl Batches {
    /// Errors: `train-data` for data shorter than two sequences, and tokens outside of the vocabulary.
    pub fn new(tokens: Tokens, seed: u64, shape: [usize; 2], vocabulary: usize) -> Result<Batches, Diagnostic> {
        let context = shape[1];
        // The last window has a target behind it, and the first begins up to a context late.
        let windows = (tokens.len().saturating_sub(1) / context.max(1)).saturating_sub(1);
        if windows == 0 {
            let message =
                format!("expected {} tokens for sequences of {context}, found {}", 2 * context + 1, tokens.len());
            return Err(Diagnostic::new("train-data", message));
        }
        tokens.check(vocabulary)?;
        Ok(Batches { tokens, seed, shape, windows: windows as u64 })
    }

    /// Inputs and targets i64 of the step after `step` ones, in the shape `shape`.
    ///
    /// Errors: `array-size` where the shape has another number of tokens.
    pub fn batch(&self, step: u64, shape: &[usize]) -> Result<[Array; 2], Diagnostic> {
        let [batch, context] = self.shape;
        let start = |i: u64| {
            let number = step * batch as u64 + i;
            let (epoch, place) = (number / self.windows, number % self.windows);
            let offset = (mix(self.seed ^ mix(epoch)) % context as u64) as usize;
            permuted(place, self.windows, mix(self.seed).wrapping_add(epoch)) as usize * context + offset
        };
        self.tokens.windows((0..batch as u64).map(start), context, shape)
    }
}

/// The finaliser of SplitMix64 (Steele et al., Fast splittable pseudorandom number generators, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Where `place` of 0..count goes in the permutation `key`: a Feistel network over the next power of four, walked until it is
/// inside. So an order of any length takes no memory, and a run that goes on needs the number of its step only.
fn permuted(place: u64, count: u64, key: u64) -> u64 {
    let bits = (64 - (count.max(2) - 1).leading_zeros()).div_ceil(2);
    let mask = (1u64 << bits) - 1;
    let mut x = place;
    loop {
        let (mut left, mut right) = (x >> bits, x & mask);
        for round in 0..4 {
            (left, right) = (right, left ^ (mix(right ^ mix(key.wrapping_add(round))) & mask));
        }
        x = (left << bits) | right;
        if x < count {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_each_place_once_and_differs() {
        for count in [1, 2, 3, 5, 16, 17, 1000] {
            let order = |key: u64| (0..count).map(|p| permuted(p, count, key)).collect::<Vec<u64>>();
            let mut sorted = order(7);
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..count), "{count}");
            assert!(count < 5 || order(7) != order(8), "{count}");
        }
    }

    #[test]
    fn targets_follow_inputs_across_parts() {
        let parts = vec![
            Part::Known((0..40).collect()),
            Part::Mapped(Bytes::new((40u16..60).flat_map(u16::to_le_bytes).collect::<Vec<u8>>()), TokenType::U16),
            Part::Mapped(Bytes::new((60u32..91).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()), TokenType::U32),
        ];
        let batches = Batches::new(Tokens::of(parts), 3, [2, 8], 91).unwrap();
        let mut seen = BTreeSet::new();
        for step in 0..5 {
            let [x, y] = batches.batch(step, &[2, 8]).unwrap().map(|a| a.to_f64().unwrap());
            assert!(x.iter().zip(&y).all(|(x, y)| x + 1.0 == *y), "{x:?} {y:?}");
            assert!(x.chunks(8).all(|row| row.windows(2).all(|w| w[0] + 1.0 == w[1])));
            seen.insert(x[0] as u64);
            seen.insert(x[8] as u64);
        }
        assert_eq!(seen.len(), 10, "windows of an epoch differ");
    }

    #[test]
    fn the_end_of_the_data_is_split_off_inside_of_parts() {
        let mapped = |range: std::ops::Range<u16>| {
            Part::Mapped(Bytes::new(range.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()), TokenType::U16)
        };
        let wide = |range: std::ops::Range<u32>| {
            Part::Mapped(Bytes::new(range.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()), TokenType::U32)
        };
        for at in [0, 5, 10, 17, 30] {
            let all = Tokens::of(vec![Part::Known((0..10).collect()), mapped(10..20), wide(20..30)]);
            let (first, rest) = all.split(at).unwrap();
            assert_eq!((first.len(), rest.len()), (at, 30 - at));
            let (mut one, mut two) = (Vec::new(), Vec::new());
            first.copy(0, at, &mut one);
            rest.copy(0, 30 - at, &mut two);
            assert!(one.into_iter().chain(two).eq(0..30), "{at}");
        }
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let tokens = |n: u32| Tokens::of(vec![Part::Known((0..n).collect())]);
        assert_eq!(Batches::new(tokens(16), 0, [1, 8], 100).err().unwrap().code, "train-data");
        assert!(Batches::new(tokens(17), 0, [1, 8], 100).is_ok());
        assert_eq!(Batches::new(tokens(17), 0, [1, 8], 16).err().unwrap().code, "train-data");
    }
}
