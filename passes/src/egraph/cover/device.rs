//! What a device does per second, read from text files: the numbers of the roofline and the templates there are.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::DType;

/// A number above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Positive(pub f64);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Positive, D::Error> {
        let value = f64::deserialize(from)?;
        if value.is_finite() && value > 0.0 {
            Ok(Positive(value))
        } else {
            Err(D::Error::custom(format!("expected a number above 0, found {value}")))
        }
    }
}

/// Operations per second by dtype; f32 must be there and stands for absent ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates(BTreeMap<DType, f64>);

impl Rates {
    /// The rate for a dtype.
    pub fn of(&self, dtype: DType) -> f64 {
        self.0.get(&dtype).or_else(|| self.0.get(&DType::F32)).copied().unwrap_or(1.0)
    }

    /// Whether the dtype has a rate of its own.
    pub fn has(&self, dtype: DType) -> bool {
        self.0.contains_key(&dtype)
    }
}

impl<'de> Deserialize<'de> for Rates {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Rates, D::Error> {
        let named = BTreeMap::<String, Positive>::deserialize(from)?;
        let parse = |(name, rate): (String, Positive)| Ok((name.parse().map_err(D::Error::custom)?, rate.0));
        let rates: BTreeMap<DType, f64> = named.into_iter().map(parse).collect::<Result<_, D::Error>>()?;
        if rates.contains_key(&DType::F32) {
            Ok(Rates(rates))
        } else {
            Err(D::Error::custom("expected a rate of `f32`"))
        }
    }
}

/// Which kernels the back end has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// A computed left operand of a matrix product is made inside the product's kernel.
    pub prologue: bool,
    /// Matrix products with axes that both operands and the result have.
    pub batched: bool,
    /// Matrix products read operands at fixed positions and with steps along axes.
    pub views: bool,
    /// Matrix products over an axis of symbolic size.
    pub symbolic_depth: bool,
    /// Matrix products with one left operand that one kernel computes.
    pub products: usize,
    /// Attention in one kernel.
    pub attention: bool,
    /// Computed queries are made inside attention.
    pub query: bool,
    /// Most values that one kernel stores.
    pub most_outputs: usize,
    /// Rows that several passes need are stored beside the kernel where that pays; else rows of known, moderate length stay
    /// in registers.
    pub held_rows: bool,
}

/// A device. Rates are those of all cores together.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Where the numbers are from.
    pub source: String,
    /// Independent cores: CPU cores, streaming multiprocessors.
    pub cores: Positive,
    /// FLOP/s of micro-kernels or matrix units, by dtype of the right operand.
    pub matrix: Rates,
    /// FLOP/s of vectorised elementwise code.
    pub vector: Rates,
    /// FLOP/s of a product in a plain loop, of f32.
    pub scalar: Positive,
    /// Share of the matrix rate that attention reaches with heads of 64.
    pub attention_share: Positive,
    /// Cost of a transcendental function in elementwise operations.
    pub special: Positive,
    /// Bytes per second from memory.
    pub memory: Positive,
    /// Bytes per second from the cache that all cores share.
    pub cache: Positive,
    /// Bytes of that cache.
    pub cache_bytes: Positive,
    /// Bytes of the largest cache that a core has of its own; a million where a description does not say.
    #[serde(default = "own_cache")]
    pub own_cache_bytes: Positive,
    /// Seconds of a part of a row that a product writes, as its lines are fetched before they are. Hidden where a core looks far ahead.
    #[serde(default = "partial_row")]
    pub partial_row: Positive,
    /// Seconds until a panel of a weight streams, where a product comes to it from another one in the middle of its fold.
    #[serde(default = "panel_change")]
    pub panel_change: Positive,
    /// Seconds to start a kernel.
    pub launch: Positive,
    /// Rows and columns of a matrix product that one core computes at a time.
    pub tile: (Positive, Positive),
    /// Templates.
    pub capabilities: Capabilities,
}

/// What processors for servers had at least since 2017.
fn own_cache() -> Positive {
    Positive(1e6)
}

/// Products take 18 to 38 ns more for each row of 32 columns that they write than for rows of 128, statements and what overlaps included, on Sapphire
/// Rapids.
fn partial_row() -> Positive {
    Positive(10e-9)
}

/// Products of 1 row whose panels are read by 64 steps take 100 ns a change more on Sapphire Rapids.
fn panel_change() -> Positive {
    Positive(100e-9)
}

/// Shipped descriptions, by name.
const SHIPPED: &[(&str, &str)] = &[
    ("cpu-amx_bf16", include_str!("../../../devices/cpu-amx_bf16.json")),
    ("cpu-avx512_bf16", include_str!("../../../devices/cpu-avx512_bf16.json")),
    ("cpu-avx512", include_str!("../../../devices/cpu-avx512.json")),
    ("cpu-avx2", include_str!("../../../devices/cpu-avx2.json")),
    ("cpu-portable", include_str!("../../../devices/cpu-portable.json")),
    ("laptop-avx2", include_str!("../../../devices/laptop-avx2.json")),
    ("h100", include_str!("../../../devices/h100.json")),
    ("h200", include_str!("../../../devices/h200.json")),
    ("a100", include_str!("../../../devices/a100.json")),
    ("l4", include_str!("../../../devices/l4.json")),
    ("b200", include_str!("../../../devices/b200.json")),
];

impl Device {
    /// Names of the shipped descriptions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|row| row.0)
    }

    /// A shipped description. Errors: `unknown-device`.
    pub fn named(name: &str) -> Result<Device, Diagnostic> {
        match SHIPPED.iter().find(|row| row.0 == name) {
            Some((name, text)) => Device::parse(&format!("{name}.json"), text),
            None => {
                let names: Vec<&str> = Device::names().collect();
                let message = format!("no device is called `{}`", name.escape_default());
                Err(Diagnostic::new("unknown-device", message).note(format!("there are {}", names.join(", "))))
            }
        }
    }

    /// A description in JSON. Errors: `device-syntax`, with the place.
    pub fn parse(file: &str, text: &str) -> Result<Device, Diagnostic> {
        serde_json::from_str(text).map_err(|error| json_error("device-syntax", file, text, &error))
    }
}

/// What is wrong with a file of JSON, and where.
pub(crate) fn json_error(code: &'static str, file: &str, text: &str, error: &serde_json::Error) -> Diagnostic {
    let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
    let column = u32::try_from(error.column()).unwrap_or(u32::MAX).max(1);
    let full = error.to_string();
    // The place is said by the label.
    let message = full.rsplit_once(" at line ").map_or(full.as_str(), |parts| parts.0);
    let shown = text.lines().nth(line as usize - 1).unwrap_or("").to_string();
    let place = Place::Text { file: file.into(), line, column, length: 1 };
    let mut diagnostic = Diagnostic::new(code, message).at(place, "here");
    diagnostic.lines.push((file.into(), line, shown));
    diagnostic
}
