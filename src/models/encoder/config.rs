//! `config.json` of an encoder.

use super::{Activation, EncoderConfig, EncoderFamily, EncoderHead, config_error};
use serde::Deserialize;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::DType;

/// Largest `config.json`; real ones have some kilobytes.
const MAX_JSON: usize = 1 << 20;

/// The keys that matter here, with the values that the transformers library takes for absent ones.
#[derive(Deserialize)]
struct Json {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    embedding_size: Option<usize>,
    #[serde(default = "two")]
    type_vocab_size: usize,
    hidden_act: Option<String>,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    num_hidden_groups: Option<usize>,
    inner_group_num: Option<usize>,
    tie_word_embeddings: Option<bool>,
    is_decoder: Option<bool>,
}

fn two() -> usize {
    2
}

fn epsilon() -> f64 {
    1e-12
}

impl EncoderConfig {
    /// From the text of a `config.json`, which `file` names in errors. `family` is for files that do not say `model_type`.
    ///
    /// Errors: `model-config` for text that is no such JSON, another architecture, sizes that do not fit together, and
    /// choices that are not implemented.
    pub fn from_json(file: &str, json: &[u8], family: Option<EncoderFamily>) -> Result<EncoderConfig, Diagnostic> {
        parse(json, family).map_err(|d| d.at(Place::Named(file.into()), ""))
    }
}

fn parse(json: &[u8], family: Option<EncoderFamily>) -> Result<EncoderConfig, Diagnostic> {
    if json.len() > MAX_JSON {
        return Err(config_error("config.json", &format!("at most {MAX_JSON} bytes, found {}", json.len())));
    }
    // Asked first: another architecture may lack the keys below, and its name is what the user needs to see.
    let value: serde_json::Value =
        serde_json::from_slice(json).map_err(|e| config_error("config.json", &format!("JSON; {e}")))?;
    let family = read_family(value.get("model_type"), family)?;
    let json: Json = serde_json::from_value(value)
        .map_err(|e| config_error("config.json", &format!("the keys of an encoder; {}", cut(&e.to_string()))))?;
    check_choices(&json)?;
    let (activation, pad) = match family {
        EncoderFamily::Bert => ("gelu", 0),
        EncoderFamily::Albert => ("gelu_new", 0),
    };
    let embedding_width = match family {
        EncoderFamily::Bert => json.hidden_size,
        EncoderFamily::Albert => json.embedding_size.unwrap_or(128),
    };
    let config = EncoderConfig {
        family,
        layers: json.num_hidden_layers,
        width: json.hidden_size,
        embedding_width,
        heads: json.num_attention_heads,
        feed_forward: json.intermediate_size,
        vocabulary: json.vocab_size,
        positions: json.max_position_embeddings,
        token_types: json.type_vocab_size,
        activation: read_activation(json.hidden_act.as_deref().unwrap_or(activation))?,
        epsilon: json.layer_norm_eps,
        pad: json.pad_token_id.unwrap_or(pad),
        float: DType::F32,
        head: EncoderHead::Embedding,
        hidden_states: false,
        attention: Vec::new(),
    };
    config.check()?;
    Ok(config)
}

fn read_family(
    found: Option<&serde_json::Value>,
    otherwise: Option<EncoderFamily>,
) -> Result<EncoderFamily, Diagnostic> {
    match (found.map(|v| v.as_str().unwrap_or_default()), otherwise) {
        (Some("bert"), _) => Ok(EncoderFamily::Bert),
        (Some("albert"), _) => Ok(EncoderFamily::Albert),
        (None, Some(family)) => Ok(family),
        (None, None) => Err(config_error("model_type", "`bert` or `albert`, found none")),
        (Some(other), _) => Err(config_error("model_type", &format!("`bert` or `albert`, found `{}`", cut(other)))),
    }
}

fn read_activation(name: &str) -> Result<Activation, Diagnostic> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        _ => Err(config_error(
            "hidden_act",
            &format!("gelu, gelu_new, gelu_pytorch_tanh or relu, found `{}`", cut(name)),
        )),
    }
}

/// What would silently compute something else.
fn check_choices(json: &Json) -> Result<(), Diagnostic> {
    let positions = json.position_embedding_type.as_deref().unwrap_or("absolute");
    if positions != "absolute" {
        return Err(config_error("position_embedding_type", &format!("`absolute`, found `{}`", cut(positions))));
    }
    for (name, found) in [("num_hidden_groups", json.num_hidden_groups), ("inner_group_num", json.inner_group_num)] {
        if let Some(found) = found.filter(|n| *n != 1) {
            return Err(config_error(name, &format!("1, found {found}")));
        }
    }
    for (name, found, want) in
        [("tie_word_embeddings", json.tie_word_embeddings, true), ("is_decoder", json.is_decoder, false)]
    {
        if let Some(found) = found.filter(|f| *f != want) {
            return Err(config_error(name, &format!("{want}, found {found}")));
        }
    }
    Ok(())
}

/// Text of a file that is quoted in an error.
fn cut(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_default).collect()
}
