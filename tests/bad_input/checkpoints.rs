//! Truncated, corrupted and hostile GGUF and safetensors files.

use crate::harness::Place;
use crate::random::Random;

fn string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

enum Meta {
    Text(&'static str),
    Int(u64),
    Real(f64),
    Texts(Vec<String>),
    Kinds(usize),
}

fn gguf(pairs: &[(&str, Meta)], tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        string(&mut out, key);
        match value {
            Meta::Text(s) => {
                out.extend(8u32.to_le_bytes());
                string(&mut out, s);
            }
            Meta::Int(n) => {
                out.extend(10u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Meta::Real(x) => {
                out.extend(12u32.to_le_bytes());
                out.extend(x.to_le_bytes());
            }
            Meta::Texts(all) => {
                out.extend([9u32.to_le_bytes(), 8u32.to_le_bytes()].concat());
                out.extend((all.len() as u64).to_le_bytes());
                all.iter().for_each(|s| string(&mut out, s));
            }
            Meta::Kinds(n) => {
                out.extend([9u32.to_le_bytes(), 5u32.to_le_bytes()].concat());
                out.extend((*n as u64).to_le_bytes());
                (0..*n).for_each(|_| out.extend(1i32.to_le_bytes()));
            }
        }
    }
    let mut offset = 0u64;
    for (name, dims) in tensors {
        string(&mut out, name);
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend([0u32.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()].concat());
        offset += (dims.iter().product::<u64>() * 4).next_multiple_of(32);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    let end = out.len() + usize::try_from(offset).unwrap();
    out.resize(end, 0);
    out
}

const TENSORS: &[(&str, &[u64])] = &[
    ("token_embd.weight", &[8, 6]),
    ("output_norm.weight", &[8]),
    ("blk.0.attn_norm.weight", &[8]),
    ("blk.0.attn_q.weight", &[8, 8]),
    ("blk.0.attn_k.weight", &[8, 8]),
    ("blk.0.attn_v.weight", &[8, 8]),
    ("blk.0.attn_output.weight", &[8, 8]),
    ("blk.0.ffn_norm.weight", &[8]),
    ("blk.0.ffn_gate.weight", &[8, 16]),
    ("blk.0.ffn_up.weight", &[8, 16]),
    ("blk.0.ffn_down.weight", &[16, 8]),
];

/// A llama of one block, with `changed` metadata in place of the good.
fn llama(changed: &[(&'static str, Meta)], tensors: &[(&str, &[u64])]) -> Vec<u8> {
    let tokens = ["a", "b", "ab", "c", "<e>", "<u>"].map(String::from).to_vec();
    let mut pairs = vec![
        ("general.architecture", Meta::Text("llama")),
        ("llama.embedding_length", Meta::Int(8)),
        ("llama.attention.head_count", Meta::Int(2)),
        ("llama.attention.head_count_kv", Meta::Int(2)),
        ("llama.block_count", Meta::Int(1)),
        ("llama.context_length", Meta::Int(32)),
        ("llama.feed_forward_length", Meta::Int(16)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::Real(1e-5)),
        ("tokenizer.ggml.model", Meta::Text("gpt2")),
        ("tokenizer.ggml.tokens", Meta::Texts(tokens)),
        ("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into()])),
        ("tokenizer.ggml.token_type", Meta::Kinds(6)),
        ("tokenizer.ggml.eos_token_id", Meta::Int(4)),
    ];
    for (key, value) in changed {
        let value = match value {
            Meta::Text(s) => Meta::Text(s),
            Meta::Int(n) => Meta::Int(*n),
            Meta::Real(x) => Meta::Real(*x),
            Meta::Texts(all) => Meta::Texts(all.clone()),
            Meta::Kinds(n) => Meta::Kinds(*n),
        };
        pairs.retain(|p| p.0 != *key);
        pairs.push((key, value));
    }
    gguf(&pairs, tensors)
}

fn generate(place: &Place, bytes: &[u8], shown: &[&str]) {
    place.write("bad.gguf", bytes);
    place.refused(&["generate", "--model", "bad.gguf", "--prompt", "ab", "--raw", "--max-tokens", "4"], shown);
}

#[test]
fn a_good_file_generates_and_every_cut_of_it_is_an_error() {
    let place = Place::new();
    let good = llama(&[], TENSORS);
    place.write("good.gguf", &good);
    place.runs(&["generate", "--model", "good.gguf", "--prompt", "ab", "--raw", "--max-tokens", "4", "--greedy"]);
    let mut ends: Vec<usize> = (0..good.len()).step_by(good.len() / 60).collect();
    ends.extend([1, 3, 4, 7, 8, 23, 24, good.len() - 1]);
    for end in ends {
        generate(&place, &good[..end], &["bad.gguf"]);
    }
}

#[test]
fn hostile_metadata_is_an_error() {
    let place = Place::new();
    let keys = [
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.block_count",
        "llama.feed_forward_length",
        "llama.attention.key_length",
        "llama.rope.dimension_count",
    ];
    for key in keys {
        for n in [0, 3, 1 << 31, 1 << 40, 1 << 63, u64::MAX] {
            generate(&place, &llama(&[(key, Meta::Int(n))], TENSORS), &["bad.gguf"]);
        }
        generate(&place, &llama(&[(key, Meta::Text("eight"))], TENSORS), &["bad.gguf"]);
    }
    let changes: Vec<(&'static str, Meta)> = vec![
        ("general.architecture", Meta::Text("abacus")),
        ("general.architecture", Meta::Int(1)),
        ("llama.context_length", Meta::Int(0)),
        ("llama.attention.layer_norm_rms_epsilon", Meta::Text("small")),
        ("llama.rope.scaling.type", Meta::Text("yarn")),
        ("tokenizer.ggml.model", Meta::Text("poem")),
        ("tokenizer.ggml.tokens", Meta::Int(5)),
        ("tokenizer.ggml.token_type", Meta::Text("x")),
        ("tokenizer.ggml.merges", Meta::Texts(vec!["a".into(), "b c d".into(), "zz q".into()])),
        ("tokenizer.chat_template", Meta::Int(1)),
    ];
    for change in changes {
        let what = change.0;
        place.write("bad.gguf", llama(&[change], TENSORS));
        let args = ["generate", "--model", "bad.gguf", "--prompt", "ab", "--max-tokens", "4"];
        let ended = place.run(&args);
        // What is not needed may be wrong.
        if ended.code != Some(0) {
            ended.is_refused(&[&args[..], &[what]].concat(), &["bad.gguf"]);
        }
    }
    // More tokens in the vocabulary than rows in the embedding, and none.
    for count in [0usize, 7, 1000] {
        let tokens = (0..count).map(|i| format!("t{i}")).collect();
        let changes =
            [("tokenizer.ggml.tokens", Meta::Texts(tokens)), ("tokenizer.ggml.token_type", Meta::Kinds(count))];
        place.write("bad.gguf", llama(&changes, TENSORS));
        let ended = place.run(&["generate", "--model", "bad.gguf", "--prompt", "t6", "--raw", "--max-tokens", "2"]);
        if ended.code != Some(0) {
            ended.is_refused(&["vocabulary"], &["bad.gguf"]);
        }
    }
}

#[test]
fn tensors_that_are_missing_or_of_wrong_shape_are_errors() {
    let place = Place::new();
    for at in 0..TENSORS.len() {
        let mut tensors = TENSORS.to_vec();
        let (name, dims) = tensors.remove(at);
        generate(&place, &llama(&[], &tensors), &["bad.gguf"]);
        let half: Vec<u64> = dims.iter().map(|d| d / 2).collect();
        tensors.push((name, &half));
        // A smaller table is a smaller vocabulary.
        if name != "token_embd.weight" {
            generate(&place, &llama(&[], &tensors), &["bad.gguf"]);
        }
    }
}

#[test]
fn corrupted_bytes_never_crash() {
    let place = Place::new();
    let good = llama(&[], TENSORS);
    let mut random = Random(1);
    // The head, where everything is decided, is hit most.
    let head = good.len() - TENSORS.iter().map(|t| t.1.iter().product::<u64>() as usize * 4).sum::<usize>();
    for _ in 0..120 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(head);
            let byte = random.below(256) as u8;
            bytes[at] = [0, 0xff, 0x7f, 0x80, byte][random.below(5)];
        }
        place.write("bad.gguf", bytes);
        let args = ["generate", "--model", "bad.gguf", "--prompt", "ab", "--raw", "--max-tokens", "2"];
        let ended = place.run(&args);
        if ended.code != Some(0) {
            ended.is_refused(&args, &[]);
        }
    }
}

#[test]
fn safetensors_headers_that_lie_are_errors() {
    let place = Place::new();
    let file = |header: &str, data: usize| {
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.resize(out.len() + data, 0);
        out
    };
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"x\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    place.write("g.tw", "func @main(%x: f32[2]) -> f32[2] { %0 = neg %x\n return %0 }");
    let bad = [
        file("", 0),
        file("{", 0),
        file("[]", 0),
        file(&entry("F32", "[2]", "[0,8]"), 7),
        file(&entry("F32", "[2]", "[0,9]"), 9),
        file(&entry("F32", "[2]", "[8,0]"), 8),
        file(&entry("F99", "[2]", "[0,8]"), 8),
        file(&entry("F32", "[18446744073709551615,18446744073709551615]", "[0,8]"), 8),
        file(&entry("F32", "[-2]", "[0,8]"), 8),
        file(&entry("F32", "[2]", "[0,18446744073709551615]"), 8),
        file(&("{\"x\":".to_owned() + &"[".repeat(200_000)), 0),
        u64::MAX.to_le_bytes().to_vec(),
        [u64::from(u32::MAX).to_le_bytes().to_vec(), b"{}".to_vec()].concat(),
    ];
    for bytes in bad {
        place.write("bad.safetensors", bytes);
        place.refused(&["run", "g.tw", "--inputs", "bad.safetensors"], &["bad.safetensors"]);
        place.refused(&["run", "bad.safetensors"], &["bad.safetensors"]);
        place.refused(&["generate", "--model", "bad.safetensors", "--prompt", "x"], &["bad.safetensors"]);
    }
}
