//! `tokenizer.json` files: what is accepted encodes and decodes some texts.

use super::{Outcome, Target, accepted, refused};
use crate::seeds;
use tilewright::formats::tokenizer::Tokenizer;
use tilewright_ir::array::Bytes;

/// See the module.
pub struct TokenizerJson;

/// Encodes and decodes; a strange tokenizer may refuse that. Gives the errors.
pub fn use_tokenizer(tokenizer: &Tokenizer) -> Result<String, String> {
    let mut stream = tokenizer.stream(true);
    let results = [
        tokenizer.encode("ab<e> 12 xxé\u{1f600}\n  A").map(drop),
        tokenizer.encode_with_special("ab").map(drop),
        tokenizer.encode_at_most("a b a b a b", 3).map(drop),
        tokenizer.decode(&[0, 1, 2, 3, 4, 200, u32::MAX]).map(drop),
        tokenizer.decode_as(&[3, 2, 0, 3], true).map(drop),
        stream.push(2).map(drop),
        stream.push(200).map(drop),
        stream.push(3).map(drop),
    ];
    let mut signature = String::new();
    for error in results.into_iter().filter_map(Result::err) {
        signature += &refused(&error)?.signature;
    }
    let _ = (tokenizer.vocabulary_size(), tokenizer.token_id("ab"), tokenizer.token(1));
    Ok(signature)
}

impl Target for TokenizerJson {
    fn name(&self) -> &'static str {
        "tokenizer"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        seeds::tokenizers()
    }

    fn words(&self) -> Vec<String> {
        [
            "BPE",
            "WordPiece",
            "WordLevel",
            "Unigram",
            "ByteLevel",
            "Metaspace",
            "BertNormalizer",
            "BertPreTokenizer",
            "Whitespace",
            "WhitespaceSplit",
            "Punctuation",
            "Split",
            "Digits",
            "Sequence",
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Lowercase",
            "Strip",
            "StripAccents",
            "Prepend",
            "Replace",
            "Fuse",
            "ByteFallback",
            "CTC",
            "CharDelimiterSplit",
            "TemplateProcessing",
            "BertProcessing",
            "RobertaProcessing",
            "Precompiled",
            "UnicodeScripts",
            "FixedLength",
            "Isolated",
            "Removed",
            "MergedWithPrevious",
            "MergedWithNext",
            "Contiguous",
            "null",
            "true",
            "false",
            "prepend_scheme",
            "always",
            "first",
            "never",
            "BPEDecoder",
            "Nmt",
        ]
        .map(String::from)
        .to_vec()
    }

    fn run(&self, input: &[u8]) -> Result<Outcome, String> {
        let tokenizer = match Tokenizer::from_json("fuzz.json", &Bytes::new(input.to_vec())) {
            Ok(tokenizer) => tokenizer,
            Err(error) => return refused(&error),
        };
        let used = use_tokenizer(&tokenizer)?;
        Ok(accepted(format!("{used} {}", shape(input))))
    }
}

/// The names of types that occur.
fn shape(input: &[u8]) -> String {
    fn types(json: &serde_json::Value, out: &mut String) {
        if let Some(name) = json["type"].as_str() {
            out.push_str(name);
        }
        let parts: Vec<&serde_json::Value> = match json {
            serde_json::Value::Object(map) => map.values().collect(),
            serde_json::Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        parts.into_iter().for_each(|part| types(part, out));
    }
    let mut out = String::new();
    if let Ok(json) = serde_json::from_slice(input) {
        types(&json, &mut out);
    }
    out
}
