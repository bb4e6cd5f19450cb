//! Folders of encoders with missing and wrong parts, texts that do not fit.

use crate::harness::{Place, safetensors};
use std::os::unix::ffi::OsStrExt;

const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 6, "vocab_size": 6, "max_position_embeddings": 8}"#;

const TOKENIZER: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[C]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[C]": {"id": "[C]", "ids": [2], "tokens": ["[C]"]}}},
    "model": {"type": "WordLevel", "unk_token": "[U]", "vocab": {"[P]": 0, "[U]": 1, "[C]": 2, "a": 3, "b": 4, "c": 5}}}"#;

type Tensor = (&'static str, &'static [usize]);

const TENSORS: &[Tensor] = &[
    ("embeddings.word_embeddings.weight", &[6, 4]),
    ("embeddings.position_embeddings.weight", &[8, 4]),
    ("embeddings.token_type_embeddings.weight", &[2, 4]),
    ("embeddings.LayerNorm.weight", &[4]),
    ("embeddings.LayerNorm.bias", &[4]),
    ("encoder.layer.0.attention.self.query.weight", &[4, 4]),
    ("encoder.layer.0.attention.self.query.bias", &[4]),
    ("encoder.layer.0.attention.self.key.weight", &[4, 4]),
    ("encoder.layer.0.attention.self.key.bias", &[4]),
    ("encoder.layer.0.attention.self.value.weight", &[4, 4]),
    ("encoder.layer.0.attention.self.value.bias", &[4]),
    ("encoder.layer.0.attention.output.dense.weight", &[4, 4]),
    ("encoder.layer.0.attention.output.dense.bias", &[4]),
    ("encoder.layer.0.attention.output.LayerNorm.weight", &[4]),
    ("encoder.layer.0.attention.output.LayerNorm.bias", &[4]),
    ("encoder.layer.0.intermediate.dense.weight", &[6, 4]),
    ("encoder.layer.0.intermediate.dense.bias", &[6]),
    ("encoder.layer.0.output.dense.weight", &[4, 6]),
    ("encoder.layer.0.output.dense.bias", &[4]),
    ("encoder.layer.0.output.LayerNorm.weight", &[4]),
    ("encoder.layer.0.output.LayerNorm.bias", &[4]),
    // Not used by an embedding.
    ("pooler.dense.weight", &[4, 4]),
    ("embeddings.position_ids", &[1, 8]),
];

/// Ones as weights, in f32 or f16; `prefix` before all names.
fn weights(tensors: &[Tensor], dtype: &str, prefix: &str) -> Vec<u8> {
    let one: &[u8] = if dtype == "F16" { &[0, 60] } else { &[0, 0, 128, 63] };
    let named: Vec<(String, &[usize])> = tensors.iter().map(|(n, s)| (format!("{prefix}{n}"), *s)).collect();
    let data = |shape: &[usize]| one.repeat(shape.iter().product());
    safetensors(&named.iter().map(|(n, s)| (n.as_str(), dtype, *s, data(s))).collect::<Vec<_>>())
}

/// A place with a model in the folder `m`.
fn model() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("m")).unwrap();
    place.write("m/config.json", CONFIG);
    place.write("m/tokenizer.json", TOKENIZER);
    place.write("m/model.safetensors", weights(TENSORS, "F32", ""));
    place
}

const EMBED: &[&str] = &["embed", "--model", "m", "a b", "c"];

#[test]
fn a_folder_with_all_its_parts_runs() {
    let place = model();
    for level in ["0", "1", "2"] {
        let out = place.runs(&[EMBED, &["--opt-level", level]].concat());
        assert_eq!(out.lines().map(|l| l.split(' ').count()).collect::<Vec<_>>(), [4, 4]);
    }
    let json = place.runs(&[EMBED, &["--json", "--max-length", "2", "--batch-size", "1", "--threads", "1"]].concat());
    for part in ["\"embeddings\":[[", "\"tokens\":[2,2]", "\"truncated\":[true,false]"] {
        assert!(json.contains(part), "{part}: {json}");
    }
    // Empty texts have the tokens that the model wants around every text; names with a prefix, and f16.
    place.runs(&["embed", "--model", "m", ""]);
    for dtype in ["F32", "F16"] {
        place.write("m/model.safetensors", weights(TENSORS, dtype, "bert."));
        assert_eq!(place.runs(EMBED).lines().count(), 2);
    }
}

#[test]
fn weights_that_do_not_fit_are_named_with_both_shapes() {
    let place = model();
    let with = |at: usize, tensor: Option<Tensor>| {
        let mut tensors = TENSORS.to_vec();
        match tensor {
            Some(tensor) => tensors[at] = tensor,
            None => _ = tensors.remove(at),
        }
        weights(&tensors, "F32", "")
    };
    let extra = [TENSORS, &[("encoder.layer.1.output.dense.weight", &[4, 6][..])]].concat();
    const DOWN: &str = "encoder.layer.0.output.dense.weight";
    const WORDS: &str = "embeddings.word_embeddings.weight";
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (with(17, None), &[DOWN, "missing", "f32[4, 6]"]),
        (with(17, Some((DOWN, &[6, 4]))), &[DOWN, "f32[4, 6]", "f32[6, 4]", "transposed"]),
        (with(17, Some((DOWN, &[4, 7]))), &[DOWN, "f32[4, 6]", "f32[4, 7]"]),
        (with(0, Some((WORDS, &[24]))), &[WORDS, "f32[6, 4]", "f32[24]"]),
        (with(0, Some((WORDS, &[7, 4]))), &[WORDS, "f32[6, 4]", "f32[7, 4]"]),
        (with(2, Some(("embeddings.token_type_embeddings.weight", &[0, 4]))), &["token_type", "f32[0, 4]"]),
        (with(17, Some(("encoder.layer.0.output.weight", &[4, 6]))), &[DOWN, "encoder.layer.0.output.weight"]),
        (weights(&extra, "F32", ""), &["encoder.layer.1.output.dense.weight", "f32[4, 6]", "no place"]),
        (weights(TENSORS, "I32", ""), &["i32[6, 4]", "f32[6, 4]", "more weights"]),
        (weights(TENSORS, "F32", "bert.bert."), &["missing"]),
        (weights(&[], "F32", ""), &["missing"]),
        (b"GGUF".to_vec(), &["model.safetensors"]),
        (Vec::new(), &["model.safetensors"]),
    ];
    for (bytes, shown) in cases {
        place.write("m/model.safetensors", bytes);
        place.refused(EMBED, &[&["model.safetensors"], shown].concat());
    }
}

#[test]
fn configurations_and_tokenizers_that_do_not_fit() {
    let place = model();
    for (from, to, shown) in [
        ("bert", "gpt2", "`gpt2`"),
        ("\"model_type\"", "\"type\"", "model_type"),
        (": 1,", ": 2,", "encoder.layer.1"),
        (": 1,", ": 1000000000000,", "num_hidden_layers"),
        ("\"hidden_size\": 4", "\"hidden_size\": 1073741824", "weight"),
        ("\"vocab_size\": 6", "\"vocab_size\": 5", "has 6 tokens"),
        ("\"vocab_size\": 6", "\"vocab_size\": 30522", "30522"),
        ("8}", "9}", "f32[9, 4]"),
        (CONFIG, "[1, 2]", "config.json"),
        (CONFIG, "", "config.json"),
        (CONFIG, &"[".repeat(100_000), "config.json"),
    ] {
        place.write("m/config.json", CONFIG.replacen(from, to, 1));
        place.refused(EMBED, &[shown]);
    }
    place.write("m/config.json", CONFIG);
    for tokenizer in ["", "{}", "[]", &TOKENIZER.replace("WordLevel", "Word"), &"[".repeat(100_000)] {
        place.write("m/tokenizer.json", tokenizer);
        place.refused(EMBED, &["error[tokenizer]", "tokenizer.json"]);
    }
    // Ids beyond the number of tokens.
    place.write("m/tokenizer.json", TOKENIZER.replace("\"c\": 5", "\"c\": 4000000000"));
    place.refused(EMBED, &["4000000000"]);
    place.write("m/tokenizer.json", TOKENIZER);
    std::fs::create_dir(place.path("m/1_Pooling")).unwrap();
    for (json, shown) in [(r#"{"pooling_mode_cls_token": true}"#, "pooling_mode_cls_token"), ("7", "JSON")] {
        place.write("m/1_Pooling/config.json", json);
        place.refused(EMBED, &[shown]);
    }
    place.write("m/1_Pooling/config.json", r#"{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": false}"#);
    place.write("m/sentence_bert_config.json", r#"{"max_seq_length": 2}"#);
    assert!(place.run(EMBED).stderr.contains("cut to 2"));
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::remove_file(place.path("m").join(name)).unwrap();
        place.refused(EMBED, &["error[file]", name]);
        std::fs::create_dir(place.path("m").join(name)).unwrap();
        place.refused(EMBED, &["error[file]", name, "directory"]);
        std::fs::remove_dir(place.path("m").join(name)).unwrap();
        place.write(&format!("m/{name}"), if name == "config.json" { CONFIG } else { TOKENIZER });
    }
}

#[test]
fn texts_that_do_not_fit() {
    let place = model();
    place.refused(&["embed", "--model", "m"], &["error[no-text]"]);
    place.refused(&[EMBED, &["--max-length", "9"]].concat(), &["error[text-length]", "8 positions"]);
    place.refused(&[EMBED, &["--max-length", "1"]].concat(), &["error[tokenizer]", "found 1"]);
    let long = "a ".repeat(50_000);
    let ended = place.run(&["embed", "--model", "m", &long]);
    assert!(ended.code == Some(0) && ended.stderr.contains("50001 tokens, cut to 8"), "{}", ended.stderr);
    place.write("m/tokenizer.json", TOKENIZER.replace(r#"{"SpecialToken": {"id": "[C]", "type_id": 0}},"#, ""));
    place.refused(&["embed", "--model", "m", "a", ""], &["error[token]", "text 1 has no tokens"]);
    // Bytes that are no UTF-8 can only be given past the harness.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tilewright"));
    let ended = command.args(["embed", "--model", "m"]).arg(std::ffi::OsStr::from_bytes(b"a\xff")).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("UTF-8"));
    place.write("lines.txt", b"a\n\nb\xff\n");
    let lines = std::fs::File::open(place.path("lines.txt")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tilewright"));
    let ended = command.args(["embed", "--model", "m"]).current_dir(place.path("")).stdin(lines).output().unwrap();
    let shown = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{shown}");
    assert!(shown.contains("error[text]: standard input is not UTF-8: line 3, column 2 has the byte 0xff"), "{shown}");
}
