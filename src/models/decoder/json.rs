//! `config.json` of Hugging Face: GPT-2 and Llama, read and written.

use super::{DecoderConfig, DecoderFamily, DecoderNames};
use crate::models::config_error;
use serde_json::{Value, json};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::DType;

impl DecoderConfig {
    /// From the text of a `config.json`; `file` names it in errors.
    ///
    /// Errors: `model-config` for another model, keys that are missing, choices that the model has not.
    pub fn from_json(file: &str, text: &str) -> Result<DecoderConfig, Diagnostic> {
        let read = || {
            let value: Value =
                serde_json::from_str(text).map_err(|e| config_error("config.json", &format!("JSON: {e}")))?;
            match value["model_type"].as_str() {
                Some("gpt2") => gpt(&value),
                Some("llama") => llama(&value),
                other => Err(config_error("model_type", &format!("gpt2 or llama, found {other:?}"))),
            }
        };
        let config = read().and_then(|config| config.check().map(|()| config));
        config.map_err(|d| d.at(Place::Named(file.into()), ""))
    }

    /// The text of a `config.json`, with the tokens that end a text.
    pub fn to_json(&self, ends: &[u32]) -> String {
        let mut value = match self.family {
            DecoderFamily::Gpt => json!({
                "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": self.layers, "n_embd": self.width,
                "n_head": self.heads, "n_inner": self.feed_forward, "vocab_size": self.vocabulary, "n_positions": self.context,
                "layer_norm_epsilon": self.epsilon, "activation_function": "gelu_new", "tie_word_embeddings": self.tied,
            }),
            DecoderFamily::Llama => json!({
                "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": self.layers,
                "hidden_size": self.width, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
                "head_dim": self.head_size, "intermediate_size": self.feed_forward, "vocab_size": self.vocabulary,
                "max_position_embeddings": self.context, "rms_norm_eps": self.epsilon, "rope_theta": self.rope_base,
                "hidden_act": "silu", "tie_word_embeddings": self.tied,
            }),
        };
        match ends {
            [] => {}
            [end] => value["eos_token_id"] = json!(end),
            several => value["eos_token_id"] = json!(several),
        }
        format!("{value:#}\n")
    }
}

fn size(value: &Value, key: &str) -> Result<usize, Diagnostic> {
    let found = value[key].as_u64().and_then(|n| usize::try_from(n).ok());
    found.ok_or_else(|| config_error(key, &format!("a size, found {}", value[key])))
}

fn size_or(value: &Value, key: &str, other: usize) -> Result<usize, Diagnostic> {
    if value[key].is_null() { Ok(other) } else { size(value, key) }
}

fn number_or(value: &Value, key: &str, other: f64) -> Result<f64, Diagnostic> {
    if value[key].is_null() {
        return Ok(other);
    }
    value[key].as_f64().ok_or_else(|| config_error(key, &format!("a number, found {}", value[key])))
}

/// Refuses a choice other than `expected`, where there is one.
fn only(value: &Value, key: &str, expected: &Value) -> Result<(), Diagnostic> {
    if value[key].is_null() || value[key] == *expected {
        return Ok(());
    }
    Err(config_error(key, &format!("{expected}, found {}", value[key])))
}

fn gpt(value: &Value) -> Result<DecoderConfig, Diagnostic> {
    only(value, "activation_function", &json!("gelu_new"))?;
    only(value, "scale_attn_by_inverse_layer_idx", &json!(false))?;
    let (width, heads) = (size(value, "n_embd")?, size(value, "n_head")?);
    Ok(DecoderConfig {
        family: DecoderFamily::Gpt,
        layers: size(value, "n_layer")?,
        width,
        heads,
        kv_heads: heads,
        head_size: width.checked_div(heads).unwrap_or(0),
        feed_forward: size_or(value, "n_inner", width.saturating_mul(4))?,
        vocabulary: size(value, "vocab_size")?,
        context: size(value, "n_positions")?,
        epsilon: number_or(value, "layer_norm_epsilon", 1e-5)?,
        rope_base: 10_000.0,
        tied: value["tie_word_embeddings"].as_bool().unwrap_or(true),
        names: DecoderNames::HuggingFace,
        float: DType::F32,
        lora: None,
        checkpoint: false,
    })
}

fn llama(value: &Value) -> Result<DecoderConfig, Diagnostic> {
    only(value, "hidden_act", &json!("silu"))?;
    only(value, "rope_scaling", &Value::Null)?;
    only(value, "attention_bias", &json!(false))?;
    only(value, "mlp_bias", &json!(false))?;
    let (width, heads) = (size(value, "hidden_size")?, size(value, "num_attention_heads")?);
    Ok(DecoderConfig {
        family: DecoderFamily::Llama,
        layers: size(value, "num_hidden_layers")?,
        width,
        heads,
        kv_heads: size_or(value, "num_key_value_heads", heads)?,
        head_size: size_or(value, "head_dim", width.checked_div(heads).unwrap_or(0))?,
        feed_forward: size(value, "intermediate_size")?,
        vocabulary: size(value, "vocab_size")?,
        context: size(value, "max_position_embeddings")?,
        epsilon: number_or(value, "rms_norm_eps", 1e-6)?,
        rope_base: number_or(value, "rope_theta", 10_000.0)?,
        tied: value["tie_word_embeddings"].as_bool().unwrap_or(false),
        names: DecoderNames::HuggingFace,
        float: DType::F32,
        lora: None,
        checkpoint: false,
    })
}
