//! Llama in GGUF files, as it is trained: weights in f32, by the names and in the order of Hugging Face.

use super::{DecoderConfig, DecoderFamily, DecoderNames, Entry};
use crate::formats::{Gguf, dequantise::dequantise};
use crate::models::{LlamaConfig, config_error};
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::types::{DType, Type};

/// What the weights are called in GGUF files, by role in a block and outside.
pub(crate) const LLAMA_BLOCK: [(&str, &str); 9] = [
    ("ln1.w", "attn_norm"),
    ("q.w", "attn_q"),
    ("k.w", "attn_k"),
    ("v.w", "attn_v"),
    ("proj.w", "attn_output"),
    ("ln2.w", "ffn_norm"),
    ("gate.w", "ffn_gate"),
    ("up.w", "ffn_up"),
    ("down.w", "ffn_down"),
];
const LLAMA_REST: [(&str, &str); 3] = [("wte", "token_embd"), ("lnf.w", "output_norm"), ("head.w", "output")];

impl Entry {
    /// Its name in a GGUF file of a Llama. Errors: `bug` for a role that a Llama has not.
    pub(crate) fn gguf_name(&self) -> Result<String, Diagnostic> {
        let found =
            |table: &[(&str, &'static str)], role: &str| table.iter().find(|(r, _)| *r == role).map(|(_, n)| *n);
        let name = match self.role.strip_prefix("h.").and_then(|rest| rest.split_once('.')) {
            Some((layer, role)) => found(&LLAMA_BLOCK, role).map(|n| format!("blk.{layer}.{n}.weight")),
            None => found(&LLAMA_REST, &self.role).map(|n| format!("{n}.weight")),
        };
        name.ok_or_else(|| Diagnostic::bug(format!("`{}` has no name in a GGUF file", self.role)))
    }
}

impl DecoderConfig {
    /// The model of a GGUF file, without its weights.
    ///
    /// Errors: those of [`LlamaConfig::from_gguf`]; `model-config` for scaled frequencies.
    pub fn of_gguf(gguf: &Gguf) -> Result<DecoderConfig, Diagnostic> {
        let llama = LlamaConfig::from_gguf(gguf, 1)?;
        if !llama.rope_factors.is_empty() {
            return Err(config_error("rope_freqs.weight", "no factors of frequencies"));
        }
        let config = DecoderConfig {
            family: DecoderFamily::Llama,
            layers: llama.layers,
            width: llama.width,
            heads: llama.heads,
            kv_heads: llama.kv_heads,
            head_size: llama.head_size,
            feed_forward: llama.feed_forward,
            vocabulary: llama.vocabulary,
            context: gguf.usize("llama.context_length").unwrap_or(2048),
            epsilon: llama.epsilon,
            rope_base: llama.rope_base,
            tied: llama.tied,
            names: DecoderNames::HuggingFace,
            float: DType::F32,
            lora: None,
            checkpoint: false,
        };
        config.check()?;
        Ok(config)
    }

    /// The model of a GGUF file, and its weights in the order of [`DecoderConfig::entries`], dequantised.
    ///
    /// Errors: those of [`DecoderConfig::of_gguf`]; `weight-mismatch`.
    pub fn from_gguf(gguf: &Gguf) -> Result<(DecoderConfig, Vec<Array>), Diagnostic> {
        let config = DecoderConfig::of_gguf(gguf)?;
        let one = |e: &Entry| {
            let name = e.gguf_name()?;
            let array = dequantise(&gguf.tensor(&name)?)?;
            let found = Type::new(array.dtype(), array.shape().iter().copied());
            if found != e.weight.ty {
                let message = format!("weight `{name}`: expected {}, found {found}", e.weight.ty);
                return Err(Diagnostic::new("weight-mismatch", message));
            }
            let turns = e.role.ends_with(".q.w") || e.role.ends_with(".k.w");
            if turns { halves(&array, config.head_size) } else { Ok(array) }
        };
        let weights = config.entries().iter().map(one).collect::<Result<_, _>>()?;
        Ok((config, weights))
    }
}

/// Rows of a matrix of queries or keys whose pairs of a head are neighbours, so that they are half a head apart.
fn halves(matrix: &Array, head_size: usize) -> Result<Array, Diagnostic> {
    let rows = matrix.shape().first().copied().unwrap_or(1).max(1);
    let (size, half) = (matrix.bytes().len() / rows, head_size / 2);
    let from = |row: usize| {
        let (head, at) = (row / head_size, row % head_size);
        head * head_size + 2 * (at % half) + at / half
    };
    let bytes: Vec<u8> = (0..rows).flat_map(|row| &matrix.bytes()[from(row) * size..][..size]).copied().collect();
    Array::new(matrix.dtype(), matrix.shape(), Bytes::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_halves() {
        let rows: Vec<f32> = (0..8).flat_map(|row| [row as f32, -(row as f32)]).collect();
        let turned = halves(&Array::from_f32(&[8, 2], &rows).unwrap(), 4).unwrap().to_f32().unwrap();
        let first: Vec<f32> = turned.iter().step_by(2).copied().collect();
        assert_eq!(first, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    }
}
