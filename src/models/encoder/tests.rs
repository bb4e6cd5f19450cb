//! Configurations of encoders, and their modules.

use super::{Activation, EncoderConfig, EncoderFamily, EncoderHead, encoder};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::verify::verify;

const BERT: &str = r#"{"model_type": "bert", "hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 3,
    "intermediate_size": 40, "vocab_size": 50, "max_position_embeddings": 20, "hidden_act": "gelu", "more": [1]}"#;

fn read(json: &str) -> Result<EncoderConfig, String> {
    EncoderConfig::from_json("config.json", json.as_bytes(), None).map_err(|d| {
        assert_eq!(d.code, "model-config");
        d.to_string()
    })
}

#[test]
fn config_json_is_read() {
    let config = read(BERT).expect("a configuration");
    assert_eq!((config.layers, config.width, config.embedding_width, config.token_types), (5, 24, 24, 2));
    assert_eq!((config.activation, config.pad, config.epsilon.to_bits()), (Activation::Gelu, 0, 1e-12f64.to_bits()));
    let albert = BERT.replace("\"bert\"", "\"albert\"").replace("\"gelu\"", "null").replace("more", "embedding_size");
    assert!(read(&albert).expect_err("a list").contains("embedding_size") || albert.contains("[1]"));
    let albert = read(&albert.replace("[1]", "10")).expect("a configuration");
    assert_eq!(
        (albert.family, albert.embedding_width, albert.activation),
        (EncoderFamily::Albert, 10, Activation::GeluTanh)
    );
    let nameless = BERT.replace("model_type", "name");
    assert!(read(&nameless).is_err());
    assert!(EncoderConfig::from_json("f", nameless.as_bytes(), Some(EncoderFamily::Bert)).is_ok());
}

#[test]
fn configurations_that_cannot_be_are_errors() {
    let changes = [
        ("\"bert\"", "\"llama\"", "`llama`"),
        ("\"bert\"", "7", "model_type"),
        ("\"hidden_size\"", "\"hidden\"", "hidden_size"),
        ("24", "25", "num_attention_heads"),
        ("24", "-24", "-24"),
        ("24", "0", "hidden_size"),
        ("24", "99999999999999999999999", "expected"),
        (": 5,", ": 1000000,", "num_hidden_layers"),
        ("20", "0", "capacity"),
        ("\"gelu\"", "\"swish\"", "`swish`"),
        ("\"more\": [1]", "\"pad_token_id\": 50", "pad_token_id"),
        ("\"more\": [1]", "\"layer_norm_eps\": -1", "layer_norm_eps"),
        ("\"more\": [1]", "\"position_embedding_type\": \"relative_key\"", "relative_key"),
        ("\"more\": [1]", "\"num_hidden_groups\": 2", "num_hidden_groups"),
        ("\"more\": [1]", "\"is_decoder\": true", "is_decoder"),
        ("[1]}", "[1", "JSON"),
        (BERT, "[]", "model_type"),
        (BERT, "", "JSON"),
    ];
    for (from, to, shown) in changes {
        let json = BERT.replacen(from, to, 1);
        assert_ne!(json, BERT, "{from}");
        let error = read(&json).expect_err(&json);
        assert!(error.contains(shown) && error.contains("config.json"), "{from} to {to}: {error}");
    }
}

#[test]
fn layers_are_one_function_whatever_their_number() {
    for family in [EncoderFamily::Bert, EncoderFamily::Albert] {
        let config = EncoderConfig { family, ..read(BERT).expect("a configuration") };
        let (few, many) = (encoder(&config), encoder(&EncoderConfig { layers: 9, ..config.clone() }));
        let (few, many) = (few.expect("a module"), many.expect("a module"));
        assert_eq!((few.functions.len(), many.functions.len()), (2, 2));
        let params = |m: &tilewright_ir::graph::Module| m.entry().expect("main").params.len();
        let each = if family == EncoderFamily::Bert { 16 } else { 0 };
        assert_eq!(params(&many) - params(&few), 4 * each);
        let logits = EncoderConfig { head: EncoderHead::Logits, hidden_states: true, attention: vec![4], ..config };
        let module = encoder(&logits).expect("a module");
        verify(&module).unwrap_or_else(|d| panic!("{d}"));
        let again = parse("printed", &print(&module)).unwrap_or_else(|d| panic!("{d}"));
        assert_eq!(difference(&module, &again), None);
        let entry = module.entry().expect("main");
        let types: Vec<String> = entry.results.iter().map(|&r| entry.ty(r).to_string()).collect();
        assert_eq!(types.len(), 1 + 6 + 1);
        assert_eq!((&*types[0], &*types[7]), ("f32[batch, seq, 50]", "f32[batch, 3, seq, seq]"));
    }
}
