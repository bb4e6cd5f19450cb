//! Tokenizers: text to ids and back, from a `tokenizer.json` or from the metadata of a GGUF file.
//!
//! The `tokenizers` crate does the work. GGUF files carry the vocabulary and the merges, but name the rule that cuts text
//! into words by a key only (`tokenizer.ggml.pre`); `pre_tokenizer` has the rules we know.

use super::stream::TextStream;
use super::{Gguf, in_file, map_file, shown};
use std::cell::Cell;
use std::path::Path;
use std::sync::Once;
use tilewright_ir::array::Bytes;
use tilewright_ir::diag::{Diagnostic, Place};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PostProcessor, PreTokenizerWrapper, SplitDelimiterBehavior, TruncationDirection};

/// Largest `tokenizer.json`: the largest real ones have some 35 MB.
const MAX_JSON: usize = 256 << 20;

/// A tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    file: String,
    /// Put before and after a text by [`Tokenizer::encode_with_special`], beside what a post-processor adds.
    before: Option<u32>,
    after: Option<u32>,
    begin: Option<u32>,
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Errors: `file`, `tokenizer`.
    pub fn open(path: impl AsRef<Path>) -> Result<Tokenizer, Diagnostic> {
        let path = path.as_ref();
        Tokenizer::from_json(&path.display().to_string(), &map_file(path)?)
    }

    /// Reads the text of a `tokenizer.json`; `file` names it in errors. Truncation and padding that the file asks for are
    /// left out: lengths are the caller's affair. Errors: `tokenizer`.
    pub fn from_json(file: &str, json: &Bytes) -> Result<Tokenizer, Diagnostic> {
        if json.len() > MAX_JSON {
            let message = format!("expected at most {MAX_JSON} bytes of tokenizer.json, found {}", json.len());
            return Err(in_file("tokenizer", message, file));
        }
        check_json(json).map_err(|message| in_file("tokenizer", message, file))?;
        let read = guarded(file, || tokenizers::Tokenizer::from_bytes(&json[..]))?;
        let mut inner =
            read.map_err(|e| in_file("tokenizer", format!("not a tokenizer.json: {}", cut(&e.to_string())), file))?;
        inner.with_padding(None);
        let truncation = inner.with_truncation(None).map(|_| ());
        truncation.map_err(|e| in_file("tokenizer", e.to_string(), file))?;
        Ok(Tokenizer { inner, file: file.into(), before: None, after: None, begin: None, ends: Vec::new() })
    }

    /// Builds the tokenizer that the metadata of `gguf` describes: byte-level BPE (`tokenizer.ggml.model` is `gpt2`).
    ///
    /// Errors: `gguf-metadata` for absent or ill-typed keys; `tokenizer` for another model, an unknown rule for words, a
    /// token that occurs twice, a merge of unknown tokens.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, Diagnostic> {
        let model = gguf.str("tokenizer.ggml.model")?;
        if model != "gpt2" {
            let message = format!("expected the tokenizer model `gpt2` (byte-level BPE), found {}", shown(model));
            return Err(key_error(gguf, "tokenizer.ggml.model", message));
        }
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        let rule =
            if gguf.metadata.contains_key("tokenizer.ggml.pre") { gguf.str("tokenizer.ggml.pre")? } else { "gpt-2" };
        let Some((pre_tokenizer, whole_words)) = pre_tokenizer(rule)? else {
            let message = format!("expected one of {}, found {}", RULES.join(" "), shown(rule));
            return Err(key_error(gguf, "tokenizer.ggml.pre", message));
        };
        let vocabulary = vocabulary(gguf, &tokens)?;
        let merges = merges(gguf, &vocabulary)?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .ignore_merges(whole_words)
            .build()
            .map_err(|e| key_error(gguf, "tokenizer.ggml.merges", cut(&e.to_string())))?;
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(pre_tokenizer));
        inner.with_decoder(Some(ByteLevel::default()));
        add_tokens(&mut inner, gguf, &tokens)?;

        let id = |key: &str| -> Result<Option<u32>, Diagnostic> {
            if !gguf.metadata.contains_key(key) {
                return Ok(None);
            }
            let id = gguf.usize(key)?;
            let known = id < tokens.len();
            let id = u32::try_from(id).ok().filter(|_| known);
            id.map(Some).ok_or_else(|| key_error(gguf, key, format!("expected an id below {}", tokens.len())))
        };
        let flag = |key: &str| if gguf.metadata.contains_key(key) { gguf.bool(key) } else { Ok(false) };
        let (begin, end) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let (add_begin, add_end) = (flag("tokenizer.ggml.add_bos_token")?, flag("tokenizer.ggml.add_eos_token")?);
        let (before, after) = (begin.filter(|_| add_begin), end.filter(|_| add_end));
        Ok(Tokenizer { inner, file: gguf.file.clone(), before, after, begin, ends: end.into_iter().collect() })
    }

    /// The text of a `tokenizer.json` that makes the same ids. Errors: `tokenizer`.
    pub fn to_json(&self) -> Result<String, Diagnostic> {
        let text = guarded(&self.file, || self.inner.to_string(false))?;
        text.map_err(|e| in_file("tokenizer", format!("the tokenizer cannot be written: {e}"), &self.file))
    }

    /// Ids of `text`, nothing added; special tokens written in the text (`<|im_end|>`) become their ids.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        self.encode_as(text, false)
    }

    /// Like [`Tokenizer::encode`], with what the model wants around every text: `[CLS]` and `[SEP]` of BERT, the first
    /// token of Llama.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let ids = self.encode_as(text, true)?;
        Ok(self.before.into_iter().chain(ids).chain(self.after).collect())
    }

    /// Like [`Tokenizer::encode_with_special`], with the end of the text left out where there would be more than `limit`
    /// ids: what the model wants around a text stays. Also gives the number of ids without a limit.
    ///
    /// Errors: `tokenizer`, for a limit with no room for any of the text, too.
    pub fn encode_at_most(&self, text: &str, limit: usize) -> Result<(Vec<u32>, usize), Diagnostic> {
        let fail = |message: String| in_file("tokenizer", message, &self.file);
        let own = usize::from(self.before.is_some()) + usize::from(self.after.is_some());
        let encode = || {
            let mut encoding = self.inner.encode_fast(text, false)?;
            let added = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(false)) + own;
            let whole = encoding.len() + added;
            let room = limit.saturating_sub(added);
            if whole > limit && room > 0 {
                encoding.truncate(room, 0, TruncationDirection::Right);
            }
            let encoding = self.inner.post_process(encoding, None, true)?;
            Ok((encoding.get_ids().to_vec(), whole))
        };
        let encoded: Result<_, tokenizers::Error> = guarded(&self.file, encode)?;
        let (ids, whole) = encoded.map_err(|e| fail(format!("the text cannot be encoded: {e}")))?;
        let ids: Vec<u32> = self.before.into_iter().chain(ids).chain(self.after).collect();
        if ids.len() > limit {
            return Err(fail(format!("expected a limit with room for text beside special tokens, found {limit}")));
        }
        Ok((ids, whole))
    }

    fn encode_as(&self, text: &str, special: bool) -> Result<Vec<u32>, Diagnostic> {
        let encoding = guarded(&self.file, || self.inner.encode_fast(text, special))?;
        let encoding =
            encoding.map_err(|e| in_file("tokenizer", format!("the text cannot be encoded: {e}"), &self.file))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`, special tokens included. Bytes that are no UTF-8 become U+FFFD; unknown ids are left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Diagnostic> {
        self.decode_as(ids, false)
    }

    /// Like [`Tokenizer::decode`]; leaves out special tokens if `skip_special`.
    pub fn decode_as(&self, ids: &[u32], skip_special: bool) -> Result<String, Diagnostic> {
        guarded(&self.file, || self.inner.decode(ids, skip_special))?
            .map_err(|e| in_file("tokenizer", format!("the ids cannot be decoded: {e}"), &self.file))
    }

    /// Decodes ids one by one, as they are generated.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// Number of ids.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of a token as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token of an id as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token that starts a text (GGUF only).
    pub fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// The tokens that end a text or a turn: of a GGUF file the one that it names, else those of [`Tokenizer::ending`].
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The tokenizer with these tokens that end a text or a turn; a `tokenizer.json` does not say which.
    pub fn ending(self, ends: Vec<u32>) -> Tokenizer {
        Tokenizer { ends, ..self }
    }

    /// Like [`Tokenizer::encode`], each id with the byte of `text` that it begins at.
    pub(super) fn encode_placed(&self, text: &str) -> Result<Vec<(usize, u32)>, Diagnostic> {
        let encoding = guarded(&self.file, || self.inner.encode(text, false))?;
        let encoding =
            encoding.map_err(|e| in_file("tokenizer", format!("the text cannot be encoded: {e}"), &self.file))?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| *start);
        Ok(starts.zip(encoding.get_ids().iter().copied()).collect())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "<tokenizer of {}, {} tokens>", self.file, self.vocabulary_size())
    }
}

fn key_error(gguf: &Gguf, key: &str, message: impl Into<String>) -> Diagnostic {
    in_file("tokenizer", message, &gguf.file).at(Place::Named(shown(key).into()), "the metadata key")
}

/// Messages of the crate may quote whole files.
fn cut(message: &str) -> String {
    let quoted = shown(message);
    quoted.trim_matches('`').to_string()
}

/// Refuses what makes the `tokenizers` crate panic: text that is no JSON (its decoders parse theirs again, and unwrap), and
/// templates of post-processors that use a special token without defining it (it indexes a map by the name).
fn check_json(json: &[u8]) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Part {
        post_processor: Option<serde_json::Value>,
        /// Parsed for the sake of its errors: what is skipped is not checked for broken escapes.
        #[serde(rename = "decoder")]
        _decoder: Option<serde_json::Value>,
    }
    let json = std::str::from_utf8(json).map_err(|e| format!("not a tokenizer.json: {e}"))?;
    let part: Part =
        serde_json::from_str(json).map_err(|e| format!("not a tokenizer.json: {}", cut(&e.to_string())))?;
    // The parser bounds the depth.
    let mut open: Vec<&serde_json::Value> = part.post_processor.iter().collect();
    while let Some(processor) = open.pop() {
        open.extend(processor["processors"].as_array().into_iter().flatten());
        for piece in ["single", "pair"].iter().filter_map(|key| processor[key].as_array()).flatten() {
            let used = piece["SpecialToken"]["id"].as_str();
            if let Some(name) = used.filter(|name| processor["special_tokens"].get(*name).is_none()) {
                return Err(format!(
                    "the post-processor uses the special token {} but does not define it",
                    shown(name)
                ));
            }
        }
    }
    Ok(())
}

thread_local! {
    /// Whether this thread runs code whose panics are caught and become errors.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of the `tokenizers` crate, which indexes and unwraps in places that a strange file can reach: a panic there
/// becomes an error here. So that the user sees that error alone, a panic hook is put before the present one (once, at the
/// first use) that says nothing for these panics and leaves all others to it.
fn guarded<T>(file: &str, work: impl FnOnce() -> T) -> Result<T, Diagnostic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    QUIET.set(before);
    result.map_err(|_| in_file("tokenizer", "the tokenizers crate panicked on this tokenizer", file))
}

fn vocabulary(gguf: &Gguf, tokens: &[&str]) -> Result<Vocab, Diagnostic> {
    let mut vocabulary = Vocab::with_capacity(tokens.len());
    for (id, token) in (0u32..).zip(tokens) {
        if let Some(first) = vocabulary.insert(token.to_string(), id) {
            let message = format!("the token {} has the ids {first} and {id}", shown(token));
            return Err(key_error(gguf, "tokenizer.ggml.tokens", message));
        }
    }
    Ok(vocabulary)
}

/// Pairs `left right`, best first. The crate's builder trusts that both and what they join to are tokens.
fn merges(gguf: &Gguf, vocabulary: &Vocab) -> Result<Merges, Diagnostic> {
    let fail = |message: String| key_error(gguf, "tokenizer.ggml.merges", message);
    let pair = |line: &&str| {
        let parts = line.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let Some((left, right)) = parts else {
            return Err(fail(format!("expected two tokens with a space between, found {}", shown(line))));
        };
        let joined = format!("{left}{right}");
        if let Some(token) = [left, right, &joined].into_iter().find(|token| !vocabulary.contains_key(*token)) {
            return Err(fail(format!(
                "the merge {} needs the token {}, which is not there",
                shown(line),
                shown(token)
            )));
        }
        Ok((left.to_string(), right.to_string()))
    };
    gguf.strings("tokenizer.ggml.merges")?.iter().map(pair).collect()
}

/// Registers control tokens (type 3) as special ones, user-defined tokens (type 4) as plain ones: both are found in text
/// before it is cut into words.
fn add_tokens(inner: &mut tokenizers::Tokenizer, gguf: &Gguf, tokens: &[&str]) -> Result<(), Diagnostic> {
    let key = "tokenizer.ggml.token_type";
    if !gguf.metadata.contains_key(key) {
        return Ok(());
    }
    let types = gguf.u64s(key)?;
    if types.len() != tokens.len() {
        let message = format!("expected a type for each of {} tokens, found {}", tokens.len(), types.len());
        return Err(key_error(gguf, key, message));
    }
    let of_type = |wanted: u64, special: bool| -> Vec<AddedToken> {
        let matching = tokens.iter().zip(&types).filter(|(token, kind)| **kind == wanted && !token.is_empty());
        matching.map(|(token, _)| AddedToken::from(*token, special).normalized(false)).collect()
    };
    let failed = |e: tokenizers::Error| key_error(gguf, key, cut(&e.to_string()));
    inner.add_special_tokens(of_type(3, true)).map_err(failed)?;
    inner.add_tokens(of_type(4, false)).map_err(failed)?;
    Ok(())
}

/// Rules for words that `pre_tokenizer` knows, by their names in GGUF files.
const RULES: &[&str] = &["gpt-2", "smollm", "starcoder", "refact", "llama-bpe", "llama3", "llama-v3", "qwen2"];

/// Words of Llama 3 and Qwen 2: contractions in any case, letters with one sign before, digits (`{D}` at a time), signs
/// with the line ends after them, line ends, space.
const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{D}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pre-tokenizer of the rule, and whether a word that is a token is taken whole, whatever the merges say. `None` for an
/// unknown rule.
fn pre_tokenizer(rule: &str) -> Result<Option<(PreTokenizerWrapper, bool)>, Diagnostic> {
    let gpt2 = ByteLevel::new(false, true, true);
    let words = |digits: &str| -> Result<PreTokenizerWrapper, Diagnostic> {
        let pattern = SplitPattern::Regex(WORDS.replace("{D}", digits));
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| Diagnostic::bug(format!("the pattern for words is wrong: {e}")))?;
        Ok(Sequence::new(vec![split.into(), ByteLevel::new(false, true, false).into()]).into())
    };
    Ok(match rule {
        "gpt-2" => Some((gpt2.into(), false)),
        "smollm" | "starcoder" | "refact" => {
            Some((Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into(), false))
        }
        "llama-bpe" | "llama3" | "llama-v3" => Some((words("{1,3}")?, true)),
        "qwen2" => Some((words("")?, false)),
        _ => None,
    })
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
