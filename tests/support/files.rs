//! Small checkpoints and a tokenizer, made by writers that know nothing of the readers.

// Each test crate takes what it needs.
#![allow(dead_code)]

/// Appends a string as GGUF has it.
pub fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

fn strings(items: &[&str]) -> Vec<u8> {
    let mut out = 8u32.to_le_bytes().to_vec();
    out.extend((items.len() as u64).to_le_bytes());
    items.iter().for_each(|s| string(&mut out, s.as_bytes()));
    out
}

/// A GGUF file of metadata (key, type, value), tensors (name, dims, type, offset) and so many bytes of data.
pub fn gguf_bytes(
    version: u32,
    pairs: &[(&[u8], u32, Vec<u8>)],
    tensors: &[(&str, &[u64], u32, u64)],
    data: usize,
) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(version.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, kind, value) in pairs {
        string(&mut out, key);
        out.extend(kind.to_le_bytes());
        out.extend(value);
    }
    for (name, dims, kind, offset) in tensors {
        string(&mut out, name.as_bytes());
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend((0..data).map(|i| i as u8));
    out
}

/// A file with a tokenizer, nested arrays and a tensor of every supported block encoding; its last byte is data.
pub fn good_gguf() -> Vec<u8> {
    let mut model = Vec::new();
    string(&mut model, b"gpt2");
    let types: Vec<u8> =
        [5u32.to_le_bytes().to_vec(), 5u64.to_le_bytes().to_vec(), [1i32, 1, 1, 3, 4].map(i32::to_le_bytes).concat()]
            .concat();
    let inner = [4u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec(), vec![1, 0, 0, 0]].concat();
    let nested = [9u32.to_le_bytes().to_vec(), 2u64.to_le_bytes().to_vec(), inner.repeat(2)].concat();
    let pairs: Vec<(&[u8], u32, Vec<u8>)> = vec![
        (b"tokenizer.ggml.model", 8, model),
        (b"tokenizer.ggml.tokens", 9, strings(&["a", "b", "ab", "<e>", "<u>"])),
        (b"tokenizer.ggml.merges", 9, strings(&["a b"])),
        (b"tokenizer.ggml.token_type", 9, types),
        (b"tokenizer.ggml.eos_token_id", 4, vec![3, 0, 0, 0]),
        (b"nested", 9, nested),
        (b"flag", 7, vec![1]),
    ];
    let tensors: &[(&str, &[u64], u32, u64)] = &[
        ("f32", &[4, 2], 0, 0),
        ("q8_0", &[32], 8, 32),
        ("q4_1", &[32, 2], 3, 96),
        ("q4_k", &[256], 12, 160),
        ("q6_k", &[256], 14, 320),
    ];
    gguf_bytes(3, &pairs, tensors, 320 + 210)
}

/// A safetensors file with this header and so many bytes of data.
pub fn safetensors_bytes(header: &[u8], data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend((0..data).map(|i| (i % 2) as u8));
    out
}

/// Three tensors, one of them empty, and metadata.
pub fn good_safetensors() -> Vec<u8> {
    let header = br#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"m":{"dtype":"BOOL","shape":[4],"data_offsets":[24,28]},"e":{"dtype":"BF16","shape":[0,7],"data_offsets":[28,28]}}"#;
    safetensors_bytes(header, 28)
}

/// A tokenizer.json with a part of every kind.
pub const GOOD_TOKENIZER: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":2},"padding":null,
"added_tokens":[{"id":3,"content":"<e>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"},{"type":"Replace","pattern":{"Regex":"x+"},"content":"a"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<e>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<e>":{"id":"<e>","ids":[3],"tokens":["<e>"]}}},
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#;
