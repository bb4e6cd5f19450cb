//! What the weights of a decoder are called, and how large they are.

use super::DecoderFamily;

/// Whose names and layout the weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderNames {
    /// `h.0.qkv.w`, matrices `[in, out]`: those of the reference data.
    Short,
    /// Hugging Face: `h.0.attn.c_attn.weight`, `[in, out]`; `model.layers.0.self_attn.q_proj.weight`, `[out, in]`.
    HuggingFace,
}

/// A size of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Width,
    /// All query heads.
    Queries,
    /// All heads of keys.
    Keys,
    /// Queries, keys and values of a GPT.
    All,
    Inner,
    Vocabulary,
    Context,
}

/// A weight: a vector of size `from`, or a matrix from `from` to `to`.
pub(super) struct Row {
    pub(super) role: &'static str,
    pub(super) theirs: &'static str,
    pub(super) from: Size,
    pub(super) to: Option<Size>,
    /// A table of rows of the hidden state, or the output matrix.
    pub(super) table: bool,
    /// A projection back to the hidden state.
    pub(super) residual: bool,
    /// Before the blocks.
    pub(super) first: bool,
}

const fn row(role: &'static str, theirs: &'static str, from: Size, to: Option<Size>) -> Row {
    Row { role, theirs, from, to, table: false, residual: false, first: false }
}

const fn residual(role: &'static str, theirs: &'static str, from: Size) -> Row {
    Row { residual: true, ..row(role, theirs, from, Some(Size::Width)) }
}

const fn table(role: &'static str, theirs: &'static str, rows: Size) -> Row {
    Row { table: true, first: true, ..row(role, theirs, Size::Width, Some(rows)) }
}

pub(super) const GPT_BLOCK: &[Row] = &[
    row("ln1.w", "ln_1.weight", Size::Width, None),
    row("ln1.b", "ln_1.bias", Size::Width, None),
    row("qkv.w", "attn.c_attn.weight", Size::Width, Some(Size::All)),
    row("qkv.b", "attn.c_attn.bias", Size::All, None),
    residual("proj.w", "attn.c_proj.weight", Size::Width),
    row("proj.b", "attn.c_proj.bias", Size::Width, None),
    row("ln2.w", "ln_2.weight", Size::Width, None),
    row("ln2.b", "ln_2.bias", Size::Width, None),
    row("fc.w", "mlp.c_fc.weight", Size::Width, Some(Size::Inner)),
    row("fc.b", "mlp.c_fc.bias", Size::Inner, None),
    residual("out.w", "mlp.c_proj.weight", Size::Inner),
    row("out.b", "mlp.c_proj.bias", Size::Width, None),
];

pub(super) const GPT_REST: &[Row] = &[
    table("wte", "wte.weight", Size::Vocabulary),
    table("wpe", "wpe.weight", Size::Context),
    row("lnf.w", "ln_f.weight", Size::Width, None),
    row("lnf.b", "ln_f.bias", Size::Width, None),
    Row { first: false, ..table("head.w", "lm_head.weight", Size::Vocabulary) },
];

pub(super) const LLAMA_BLOCK: &[Row] = &[
    row("ln1.w", "input_layernorm.weight", Size::Width, None),
    row("q.w", "self_attn.q_proj.weight", Size::Width, Some(Size::Queries)),
    row("k.w", "self_attn.k_proj.weight", Size::Width, Some(Size::Keys)),
    row("v.w", "self_attn.v_proj.weight", Size::Width, Some(Size::Keys)),
    residual("proj.w", "self_attn.o_proj.weight", Size::Queries),
    row("ln2.w", "post_attention_layernorm.weight", Size::Width, None),
    row("gate.w", "mlp.gate_proj.weight", Size::Width, Some(Size::Inner)),
    row("up.w", "mlp.up_proj.weight", Size::Width, Some(Size::Inner)),
    residual("down.w", "mlp.down_proj.weight", Size::Inner),
];

pub(super) const LLAMA_REST: &[Row] = &[
    table("wte", "model.embed_tokens.weight", Size::Vocabulary),
    row("lnf.w", "model.norm.weight", Size::Width, None),
    Row { first: false, ..table("head.w", "lm_head.weight", Size::Vocabulary) },
];

impl DecoderNames {
    /// The name of a weight outside of the blocks.
    pub(super) fn of(self, row: &Row) -> &'static str {
        match self {
            DecoderNames::Short => row.role,
            DecoderNames::HuggingFace => row.theirs,
        }
    }

    /// The name of a weight of block number `layer`.
    pub(super) fn in_block(self, family: DecoderFamily, layer: usize, row: &Row) -> String {
        match (self, family) {
            (DecoderNames::HuggingFace, DecoderFamily::Llama) => format!("model.layers.{layer}.{}", row.theirs),
            (DecoderNames::HuggingFace, DecoderFamily::Gpt) => format!("h.{layer}.{}", row.theirs),
            (DecoderNames::Short, _) => format!("h.{layer}.{}", row.role),
        }
    }
}
