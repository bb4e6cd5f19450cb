//! Tests of tokenizers: a small one made here, and the model's against recorded ids.

use super::*;
use crate::formats::gguf::Value;
use std::collections::BTreeMap;

fn texts(items: &[&str]) -> Value {
    Value::Array(items.iter().map(|s| Value::String(s.to_string())).collect())
}

/// Metadata of a byte-level BPE of 256 bytes, two merges and two added tokens.
fn small(pre: &str) -> Gguf {
    let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    bytes.sort_unstable();
    let mut tokens: Vec<String> = bytes.iter().map(char::to_string).collect();
    tokens.extend(["ab", "abc", "<|end|>", "<think>"].map(String::from));
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut types = vec![Value::I32(1); 258];
    types.extend([Value::I32(3), Value::I32(4)]);
    let metadata = BTreeMap::from([
        ("tokenizer.ggml.model".to_string(), Value::String("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Value::String(pre.into())),
        ("tokenizer.ggml.tokens".into(), texts(&tokens)),
        ("tokenizer.ggml.token_type".into(), Value::Array(types)),
        ("tokenizer.ggml.merges".into(), texts(&["a b", "ab c"])),
        ("tokenizer.ggml.eos_token_id".into(), Value::U32(258)),
        ("tokenizer.ggml.add_eos_token".into(), Value::Bool(true)),
    ]);
    let mut gguf =
        Gguf::from_bytes("small.gguf", Bytes::new(b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec())).unwrap();
    gguf.metadata = metadata;
    gguf
}

#[test]
fn merges_and_added_tokens_work_for_every_rule() {
    for rule in RULES {
        let tokenizer = Tokenizer::from_gguf(&small(rule)).unwrap();
        let text = "abcab<|end|>é 日本\n<think>12345";
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids[..3], [257, 256, 258], "{rule}");
        assert!(ids.contains(&259), "{rule}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{rule}");
        assert_eq!(tokenizer.decode_as(&ids, true).unwrap(), text.replace("<|end|>", ""), "{rule}");
        assert_eq!(tokenizer.encode_with_special("ab").unwrap(), [256, 258]);
        assert_eq!((tokenizer.ends(), tokenizer.begin(), tokenizer.vocabulary_size()), (&[258][..], None, 260));
    }
}

/// What the rules say of one text, by hand: gpt-2 takes digits together, smollm singly, llama-bpe in threes.
#[test]
fn rules_cut_digits_differently() {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};
    let cut = |rule: &str| -> Vec<String> {
        let mut text = PreTokenizedString::from("12345'S x");
        pre_tokenizer(rule).unwrap().unwrap().0.pre_tokenize(&mut text).unwrap();
        let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, _, _)| piece.to_string()).collect()
    };
    assert_eq!(cut("gpt-2"), ["12345", "'", "S", "Ġx"]);
    assert_eq!(cut("smollm"), ["1", "2", "3", "4", "5", "'", "S", "Ġx"]);
    assert_eq!(cut("llama-bpe"), ["123", "45", "'S", "Ġx"]);
    assert_eq!(cut("qwen2"), ["1", "2", "3", "4", "5", "'S", "Ġx"]);
}

#[test]
fn strange_metadata_is_refused_by_key() {
    let cases: [(&str, Value, &str); 9] = [
        ("tokenizer.ggml.model", Value::String("llama".into()), "found `llama`"),
        ("tokenizer.ggml.pre", Value::String("gpt-9".into()), "found `gpt-9`"),
        ("tokenizer.ggml.tokens", texts(&["a", "a"]), "`a` has the ids 0 and 1"),
        ("tokenizer.ggml.merges", texts(&["ab"]), "expected two tokens with a space between"),
        ("tokenizer.ggml.merges", texts(&["a zz"]), "needs the token `zz`"),
        ("tokenizer.ggml.merges", texts(&["<think> <think>"]), "needs the token `<think><think>`"),
        ("tokenizer.ggml.token_type", Value::Array(vec![Value::I32(1)]), "each of 260 tokens, found 1"),
        ("tokenizer.ggml.eos_token_id", Value::U32(260), "an id below 260"),
        ("tokenizer.ggml.tokens", Value::U8(1), "found u8 1"),
    ];
    for (key, value, says) in cases {
        let mut gguf = small("gpt-2");
        gguf.metadata.insert(key.into(), value);
        let text = Tokenizer::from_gguf(&gguf).unwrap_err().to_string();
        assert!(text.contains(says) && text.contains(key) && text.contains("small.gguf"), "{text}");
    }
}

#[test]
fn streams_give_whole_characters_and_the_same_text() {
    let tokenizer = Tokenizer::from_gguf(&small("gpt-2")).unwrap();
    let ids = tokenizer.encode("aé日😀<|end|>b").unwrap();
    let mut stream = tokenizer.stream(false);
    let pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", "é", "", "", "日", "", "", "", "😀", "<|end|>", "b"]);
    assert_eq!(stream.finish().unwrap(), "");

    // Cut within a character, then bytes that never become one.
    let mut stream = tokenizer.stream(true);
    let text: String = ids[..5].iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(text + &stream.finish().unwrap(), "aé\u{fffd}");
    let broken = vec![ids[3]; 100];
    let mut stream = tokenizer.stream(true);
    let text: String = broken.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(text + &stream.finish().unwrap(), tokenizer.decode(&broken).unwrap());
}

/// `(text, ids)` as the reference tokenizer gave them.
fn recorded() -> Vec<(String, Vec<u32>)> {
    let data: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/formats/smollm2.json")).unwrap();
    let cases = data["tokenizer"].as_array().unwrap().iter();
    cases.map(|c| (c["text"].as_str().unwrap().into(), serde_json::from_value(c["ids"].clone()).unwrap())).collect()
}

fn check_recorded(tokenizer: &Tokenizer) {
    let cases = recorded();
    assert_eq!(cases.len(), 24);
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        let mut stream = tokenizer.stream(false);
        let streamed: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        assert_eq!(streamed + &stream.finish().unwrap(), text);
    }
}

#[test]
fn the_model_gives_the_recorded_ids() {
    let Some(gguf) = crate::formats::test_model() else { return };
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    check_recorded(&tokenizer);
    assert_eq!((tokenizer.begin(), tokenizer.ends(), tokenizer.vocabulary_size()), (Some(1), &[2][..], 49152));
    assert_eq!(tokenizer.encode_with_special("a").unwrap(), [81]);
}

#[test]
fn the_reference_json_gives_the_recorded_ids() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/reference/data/smollm2/smollm2_tokenizer.json");
    if !Path::new(path).exists() {
        println!("SKIPPED: {path} is absent");
        return;
    }
    check_recorded(&Tokenizer::open(path).unwrap());
}

#[test]
fn the_sentence_model_adds_its_markers_and_neither_pads_nor_cuts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/minilm/tokenizer.json");
    if !Path::new(path).exists() {
        println!("SKIPPED: {path} is absent; scripts/fetch-models.sh fetches it");
        return;
    }
    let tokenizer = Tokenizer::open(path).unwrap();
    let ids = tokenizer.encode_with_special("Hello world").unwrap();
    assert_eq!(ids, [101, 7592, 2088, 102]);
    assert_eq!(tokenizer.encode("Hello world").unwrap(), [7592, 2088]);
    assert_eq!(tokenizer.encode(&"hello ".repeat(600)).unwrap().len(), 600);
    let mut stream = tokenizer.stream(true);
    let text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(text, tokenizer.decode_as(&ids, true).unwrap());
}
