//! The formulas that papers and courses have for transformers, beside what was counted. `docs/book/ledger.md` derives them.

use super::kind::Kind;
use crate::models::{DecoderConfig, DecoderFamily};
use serde::Serialize;

/// A formula, and what it is a formula of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What it counts.
    pub what: String,
    /// How, with d: width, q: all query heads, k: all heads of keys, f: inner size, L: layers, V: tokens of the vocabulary, P: positions,
    /// s: tokens of a sequence, D: all tokens.
    pub formula: String,
    /// Whose it is.
    pub source: &'static str,
    /// What the formula says.
    pub textbook: f64,
    /// What was counted.
    pub counted: f64,
    /// Percent that were counted above it.
    pub percent: f64,
}

impl Check {
    /// Puts a formula beside a count.
    pub fn new(what: &str, formula: &str, source: &'static str, textbook: f64, counted: f64) -> Check {
        let percent = if textbook == counted { 0.0 } else { 100.0 * (counted / textbook - 1.0) };
        Check { what: what.into(), formula: formula.into(), source, textbook, counted, percent }
    }
}

/// Sizes of a model, as formulas have them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    family: DecoderFamily,
    tied: bool,
    d: f64,
    q: f64,
    k: f64,
    f: f64,
    layers: f64,
    heads: f64,
    vocabulary: f64,
    positions: f64,
    seq: f64,
    /// All tokens that are computed.
    tokens: f64,
}

const PALM: &str = "Chowdhery et al. 2022, appendix B";
const KAPLAN: &str = "Kaplan et al. 2020, table 1";
const CHINCHILLA: &str = "Hoffmann et al. 2022, appendix F";
const MEMORY: &str = "Korthikanti et al. 2022, section 4";
const SHAPES: &str = "shapes of the weights";

impl Sizes {
    /// Of a model on a batch of sequences.
    pub fn new(config: &DecoderConfig, batch: usize, seq: usize) -> Sizes {
        let n = |n: usize| n as f64;
        Sizes {
            family: config.family,
            tied: config.tied,
            d: n(config.width),
            q: n(config.heads * config.head_size),
            k: n(config.kv_heads * config.head_size),
            f: n(config.feed_forward),
            layers: n(config.layers),
            heads: n(config.heads),
            vocabulary: n(config.vocabulary),
            positions: n(config.context),
            seq: n(seq),
            tokens: n(batch) * n(seq),
        }
    }

    /// Of the last token of a sequence, the others of which are in caches.
    pub fn decoding(self) -> Sizes {
        Sizes { tokens: 1.0, ..self }
    }

    /// Elements of the matrices of a feed-forward network, over the width times its inner size.
    fn matrices(&self) -> f64 {
        match self.family {
            DecoderFamily::Gpt => 2.0,
            DecoderFamily::Llama => 3.0,
        }
    }

    /// Elements of the matrices of all blocks: N of Kaplan et al.
    pub fn blocks(&self) -> f64 {
        self.layers * (2.0 * self.d * (self.q + self.k) + self.matrices() * self.d * self.f)
    }

    /// All parameters.
    pub fn parameters(&self) -> f64 {
        let Sizes { d, q, k, f, layers, vocabulary, .. } = *self;
        let tables = vocabulary * d * if self.tied { 1.0 } else { 2.0 };
        match self.family {
            // Two norms and one more at the end, each with gain and bias; biases of all matrices.
            DecoderFamily::Gpt => {
                tables + self.positions * d + self.blocks() + layers * (4.0 * d + q + 2.0 * k + d + f + d) + 2.0 * d
            }
            DecoderFamily::Llama => tables + self.blocks() + layers * 2.0 * d + d,
        }
    }

    /// Operations of the products of a way forward, by kind.
    fn products(&self) -> [(Kind, f64, &'static str); 4] {
        let Sizes { d, q, k, f, layers, seq, vocabulary, .. } = *self;
        let tokens = self.tokens;
        let mlp = match self.family {
            DecoderFamily::Gpt => "4 d f L D",
            DecoderFamily::Llama => "6 d f L D",
        };
        [
            (Kind::AttentionProjections, 4.0 * d * (q + k) * layers * tokens, "4 d (q + k) L D"),
            (Kind::AttentionScores, 4.0 * seq * q * layers * tokens, "4 s q L D"),
            (Kind::Mlp, 2.0 * self.matrices() * d * f * layers * tokens, mlp),
            (Kind::Head, 2.0 * d * vocabulary * tokens, "2 d V D"),
        ]
    }

    /// Formulas of parameters and operations. `counted` are parameters, and operations of products by kind; with `train` of a step with
    /// its gradients, of which the ways back take twice the way forward.
    pub fn checks(&self, parameters: f64, counted: &dyn Fn(Kind) -> f64, train: bool) -> Vec<Check> {
        let (passes, prefix) = if train { (3.0, "3 x ") } else { (1.0, "") };
        let formula = match (self.family, self.tied) {
            (DecoderFamily::Gpt, true) => "V d + P d + L (2 d (q + k) + 2 d f + 6 d + q + 2 k + f) + 2 d",
            (DecoderFamily::Gpt, false) => "2 V d + P d + L (2 d (q + k) + 2 d f + 6 d + q + 2 k + f) + 2 d",
            (DecoderFamily::Llama, true) => "V d + L (2 d (q + k) + 3 d f + 2 d) + d",
            (DecoderFamily::Llama, false) => "2 V d + L (2 d (q + k) + 3 d f + 2 d) + d",
        };
        let mut out = vec![Check::new("parameters", formula, SHAPES, self.parameters(), parameters)];
        let mut total = 0.0;
        for (kind, operations, formula) in self.products() {
            let (textbook, found) = (passes * operations, counted(kind));
            total += found;
            out.push(Check::new(kind.name(), &format!("{prefix}{formula}"), PALM, textbook, found));
        }
        let tokens = self.tokens;
        let n = |n: f64| 2.0 * passes * n * tokens;
        let attention = 2.0 * passes * self.layers * self.seq * self.q * tokens;
        let multiplying = self.blocks() + self.vocabulary * self.d;
        let [two, four] = if train { ["6", "12"] } else { ["2", "4"] };
        let mut whole = |what: &str, formula: String, source, value: f64| {
            out.push(Check::new(what, &formula, source, value, total));
        };
        whole("all products", format!("{two} N D, N: all parameters"), KAPLAN, n(self.parameters()));
        let formula = format!("{two} N D + {four} L s q D, N: matrices and head");
        whole("all products", formula, PALM, n(multiplying) + 2.0 * attention);
        let formula = format!("{two} N D + {two} L s q D, N: matrices of blocks");
        whole("all products", formula, KAPLAN, n(self.blocks()) + attention);
        let lookups = n(self.vocabulary * self.d);
        let softmax = passes * 3.0 * self.heads * self.seq * self.layers * tokens;
        let formula = format!("{prefix}(2 (2 V d) + 4 d (q + k) L + 4 s q L + 3 s heads L + MLP) D");
        whole("all products", formula, CHINCHILLA, lookups + softmax + n(multiplying) + 2.0 * attention);
        out
    }

    /// Bytes of keys and values that a token leaves in the caches.
    pub fn cache(&self, element: f64, counted: f64) -> Check {
        let source = "Shazeer 2019; Ainslie et al. 2023";
        Check::new("KV bytes a token", "2 L k bytes", source, 2.0 * self.layers * self.k * element, counted)
    }

    /// Bytes that a token more reads: all that multiplies once, and the caches of the others. `bytes` are those of weights and of caches.
    pub fn decoded_bytes(&self, bytes: [f64; 2], counted: f64) -> Check {
        let multiplying = self.blocks() + self.vocabulary * self.d;
        let textbook = bytes[0] * multiplying + bytes[1] * 2.0 * self.layers * self.k * self.seq;
        Check::new(
            "bytes a token",
            "N bytes + 2 L k s bytes, N: matrices and head",
            "Pope et al. 2022",
            textbook,
            counted,
        )
    }

    /// Elements that a block keeps for its way back. Korthikanti et al. count bytes of halves and what is dropped; without dropout
    /// their 34 s b h + 5 a s^2 b are 16 s b h + a s^2 b elements, here with heads of keys and inner sizes of any number.
    fn kept(&self) -> f64 {
        let inner = match self.family {
            // Before and after the activation.
            DecoderFamily::Gpt => 2.0 * self.f,
            // The gate before its activation, the other half, their product.
            DecoderFamily::Llama => 3.0 * self.f,
        };
        // Inputs of the norms and of what follows them; queries, keys, values, attended; scores after the softmax.
        let attention = 2.0 * self.q + 2.0 * self.k + self.heads * self.seq;
        self.tokens * (4.0 * self.d + attention + inner)
    }

    /// Bytes of activations that are kept without checkpointing, with one block after the other computed again, with sqrt(n) segments.
    pub fn activations(&self, element: f64, counted: [f64; 3]) -> [Check; 3] {
        let (whole, input) = (self.kept() * element, self.tokens * self.d * element);
        // Inputs of the last norm and of the head, logits.
        let end = self.tokens * (2.0 * self.d + self.vocabulary) * element;
        let segments = self.layers.sqrt().ceil();
        let [none, blocks, root] = counted;
        let formula = match self.family {
            DecoderFamily::Gpt => "(L (4 d + 2 q + 2 k + s heads + 2 f) + 2 d + V) D bytes",
            DecoderFamily::Llama => "(L (4 d + 2 q + 2 k + s heads + 3 f) + 2 d + V) D bytes",
        };
        let each = "(L d + 2 d + V) D bytes";
        let some = "(sqrt(L) d + 2 d + V) D bytes";
        [
            Check::new("all kept", formula, MEMORY, self.layers * whole + end, none),
            Check::new("inputs of blocks kept", each, MEMORY, self.layers * input + end, blocks),
            Check::new("of sqrt(L) segments", some, "Chen et al. 2016", segments * input + end, root),
        ]
    }
}
