//! The programs by which a model that was trained generates.

use super::{DecoderConfig, DecoderFamily};
use crate::models::gpt2::Gpt2Names;
use crate::models::{Gpt2Config, LlamaConfig, Outputs, WeightTypes, gpt2, llama};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::RopeLayout;
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType;

impl DecoderConfig {
    /// As a GPT-2 that generates, with caches of `capacity` tokens.
    pub fn as_gpt2(&self, capacity: usize) -> Gpt2Config {
        Gpt2Config {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            feed_forward: self.feed_forward,
            vocabulary: self.vocabulary,
            context: self.context,
            epsilon: self.epsilon,
            tied: self.tied,
            capacity,
            names: Gpt2Names::HuggingFace,
            dtypes: WeightTypes::new(),
            outputs: Outputs::default(),
        }
    }

    /// As a Llama that generates, with caches of `capacity` tokens.
    pub fn as_llama(&self, capacity: usize) -> LlamaConfig {
        LlamaConfig {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_size: self.head_size,
            feed_forward: self.feed_forward,
            vocabulary: self.vocabulary,
            rope_base: self.rope_base,
            rope_factors: Vec::new(),
            rope_layout: RopeLayout::Half,
            epsilon: self.epsilon,
            tied: self.tied,
            capacity,
            dtypes: WeightTypes::new(),
            outputs: Outputs::default(),
        }
    }

    /// The module that generates, in f32, with weights of another float. Errors: those of [`gpt2()`] and [`llama()`].
    pub fn generating(&self, capacity: usize, weights: DType) -> Result<Module, Diagnostic> {
        match self.family {
            DecoderFamily::Gpt => {
                let dtypes = self.entries().into_iter().map(|e| (e.weight.name, weights)).collect();
                gpt2(&Gpt2Config { dtypes, ..self.as_gpt2(capacity) })
            }
            DecoderFamily::Llama => {
                let config = self.as_llama(capacity);
                let dtypes = config.names().map(|name| (name, weights)).collect();
                llama(&LlamaConfig { dtypes, ..config })
            }
        }
    }
}
