//! Measures the numbers of a device description on this machine: each is what compiled kernels reach, not what the
//! processor could do. The least time of a few runs counts, so that others disturb it little.

use super::{Prepared, Setup, digits};
use crate::compile::{Options, Precision};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Attention, Graph, Tensor};
use tilewright_ir::types::DType;
use tilewright_passes::egraph::cover::{Capabilities, Positive};
use tilewright_passes::egraph::{Device, Numerics};

/// A description of a CPU, in the order in which the shipped ones have it. Units are those of [`Device`].
#[derive(Debug, Serialize)]
pub struct Calibration {
    name: String,
    source: String,
    cores: usize,
    matrix: BTreeMap<String, f64>,
    vector: BTreeMap<String, f64>,
    scalar: f64,
    attention_share: f64,
    special: f64,
    memory: f64,
    cache: f64,
    cache_bytes: f64,
    own_cache_bytes: f64,
    partial_row: f64,
    panel_change: f64,
    launch: f64,
    tile: [f64; 2],
    capabilities: Capabilities,
}

/// How long each measurement is repeated.
const BUDGET: Duration = Duration::from_millis(200);
/// Elements of operands that stay in the caches of a core.
const CACHED: usize = 1 << 14;

/// Measures this machine with `threads` threads.
///
/// Errors: `cpu-feature`; those of the compiler; `unknown-device` where an instruction set has no description.
pub fn calibrate(threads: usize) -> Result<Calibration, Diagnostic> {
    let host = Options { threads, numerics: Numerics::Reassociate, precision: Precision::Highest, ..Options::host()? };
    let isa = host.isa.name();
    let shipped = Device::named(&format!("cpu-{isa}"))?;
    let cores = threads as f64;
    let mut matrix = BTreeMap::new();
    for dtype in
        [DType::F32, DType::F64, DType::Bf16, DType::F16, DType::Q4_0, DType::Q4_1, DType::Q8_0, DType::Q4K, DType::Q6K]
    {
        if shipped.matrix.has(dtype) {
            matrix.insert(dtype.to_string(), product(dtype, &host)?);
        }
    }
    let rate = chain(DType::F32, &host)?;
    let mut vector = BTreeMap::from([("f32".to_string(), rate)]);
    for dtype in [DType::F64, DType::Bf16, DType::F16] {
        vector.insert(dtype.to_string(), chain(dtype, &host)?);
    }
    let units = matrix.get("f32").copied().unwrap_or(1.0);
    let special = elementary(&host)? * rate / cores;
    let (memory, cache) = (stream(32 << 20, &host)?, stream(512 << 10, &host)?);
    Ok(Calibration {
        name: shipped.name,
        source: format!("measured by `tilewright calibrate`, {threads} threads"),
        cores: threads,
        matrix: matrix.into_iter().map(|(dtype, x)| (dtype, digits(x, 3))).collect(),
        vector: vector.into_iter().map(|(dtype, x)| (dtype, digits(x, 3))).collect(),
        // Nothing that can be measured here alone is such a loop: products are copied for micro-kernels.
        scalar: digits(shipped.scalar.0 / shipped.cores.0 * cores, 3),
        attention_share: digits(attention_share(rate, units, special, &host)?, 2),
        special: digits(special, 2),
        memory: digits(memory, 3),
        cache: digits(cache.max(memory), 3),
        cache_bytes: caches().last().copied().unwrap_or(shipped.cache_bytes.0),
        // The last one is shared.
        own_cache_bytes: caches().iter().nth_back(1).copied().unwrap_or(shipped.own_cache_bytes.0),
        // Chosen by the times of many schedules, not measured.
        partial_row: shipped.partial_row.0,
        panel_change: shipped.panel_change.0,
        launch: digits(launch(&host)?, 2),
        tile: [shipped.tile.0.0, shipped.tile.1.0],
        capabilities: shipped.capabilities,
    })
}

/// Seconds of the fastest run of what `build` makes of inputs of these types; results must not be constants.
fn seconds(
    options: &Options,
    inputs: &[(DType, &[usize], bool)],
    build: impl Fn(&[Tensor]) -> Tensor,
) -> Result<f64, Diagnostic> {
    let g = Graph::new("main");
    let operand = |(i, (dtype, shape, weight)): (usize, &(DType, &[usize], bool))| {
        let (name, shape) = (format!("x{i}"), shape.to_vec());
        if *weight { g.weight(&name, *dtype, shape) } else { g.input(&name, *dtype, shape) }
    };
    let operands: Vec<Tensor> = inputs.iter().enumerate().map(operand).collect();
    let module = g.finish(&[&build(&operands)])?;
    let data = inputs.iter().map(|(dtype, shape, _)| numbers(*dtype, shape)).collect::<Result<Vec<_>, _>>()?;
    let setup = Setup { options: options.clone(), profile: false };
    Ok(Prepared::new(&module, &data, &setup)?.measure(BUDGET)?.least)
}

/// Numbers of ordinary size, near 1/2; of block encodings any.
fn numbers(dtype: DType, shape: &[usize]) -> Result<Array, Diagnostic> {
    let count: usize = shape.iter().product();
    let value = |i: usize| 0.5 + (i % 13) as f32 / 64.0;
    let bytes: Vec<u8> = match dtype {
        DType::F64 => (0..count).flat_map(|i| f64::from(value(i)).to_le_bytes()).collect(),
        DType::Bf16 => (0..count).flat_map(|i| half::bf16::from_f32(value(i)).to_le_bytes()).collect(),
        DType::F16 => (0..count).flat_map(|i| half::f16::from_f32(value(i)).to_le_bytes()).collect(),
        DType::F32 => (0..count).flat_map(|i| value(i).to_le_bytes()).collect(),
        // Scales and quants alike: 0x1111 is a small f16.
        _ => vec![0x11; dtype.bytes(count).unwrap_or(0)],
    };
    Array::new(dtype, shape, Bytes::new(bytes))
}

/// FLOP/s of a product with a weight.
fn product(dtype: DType, options: &Options) -> Result<f64, Diagnostic> {
    let (m, k, n) = (504, 1024, 1024);
    let rows = if dtype.is_block() { DType::F32 } else { dtype };
    let inputs: [(DType, &[usize], bool); 2] = [(rows, &[m, k], false), (dtype, &[n, k], true)];
    Ok(2.0 * (m * k * n) as f64 / seconds(options, &inputs, |x| x[0].linear(&x[1]))?)
}

/// Operations a second of elementwise code: what a longer chain takes more than a short one.
fn chain(dtype: DType, options: &Options) -> Result<f64, Diagnostic> {
    let shape = [options.threads * 4, CACHED];
    let inputs: [(DType, &[usize], bool); 2] = [(dtype, &shape, false), (dtype, &shape, false)];
    // Without rules: they would shorten it.
    let options = Options { opt_level: 1, ..options.clone() };
    let of = |length: usize| {
        seconds(&options, &inputs, |x| {
            (0..length).fold(&x[0] + &x[1], |y, i| if i % 2 == 0 { y * &x[1] } else { y + &x[0] })
        })
    };
    let (short, long) = (4, 36);
    Ok(((long - short) * shape[0] * shape[1]) as f64 / (of(long)? - of(short)?).max(1e-9))
}

/// Seconds of an elementary function of one element, on one core: the mean of two.
fn elementary(options: &Options) -> Result<f64, Diagnostic> {
    let shape = [options.threads * 4, CACHED];
    let inputs: [(DType, &[usize], bool); 2] = [(DType::F32, &shape, false), (DType::F32, &shape, false)];
    let of = |f: fn(Tensor) -> Tensor| seconds(options, &inputs, |x| f(&x[0] * &x[1]) * &x[1]);
    let none = of(|x| x)?;
    let more = (of(|x| x.exp())? - none + of(|x| x.tanh())? - none) / 2.0;
    Ok(more.max(1e-9) * options.threads as f64 / (shape[0] * shape[1]) as f64)
}

/// What part of the rate of products attention reaches, beside its exponentials: as [`Device`] counts them.
fn attention_share(vector: f64, matrix: f64, special: f64, options: &Options) -> Result<f64, Diagnostic> {
    let (heads, tokens, size) = (4 * options.threads, 512, 64);
    let shape = [1, heads, tokens, size];
    let inputs: [(DType, &[usize], bool); 3] = [(DType::F32, &shape, false); 3];
    // Whatever is chosen in the end, this measures attention.
    let mut device = Device::named(&format!("cpu-{}", options.isa.name()))?;
    device.attention_share = Positive(1.0);
    let options = Options { device: Some(Arc::new(device)), ..options.clone() };
    let time = seconds(&options, &inputs, |x| x[0].attention(&x[1], &x[2], Attention::default()))?;
    let cells = (heads * tokens * tokens) as f64;
    let products = time - cells * (4.0 + special) / vector;
    Ok((4.0 * cells * size as f64 / matrix / products.max(time / 10.0)).clamp(0.05, 1.0))
}

/// Bytes a second of a sum of two tensors, which have `elements` f32 each.
fn stream(elements: usize, options: &Options) -> Result<f64, Diagnostic> {
    let shape = [elements / 1024, 1024];
    let inputs: [(DType, &[usize], bool); 2] = [(DType::F32, &shape, false); 2];
    Ok(12.0 * elements as f64 / seconds(options, &inputs, |x| &x[0] + &x[1])?)
}

/// Seconds from a launch to the next, where all threads take part: what is left of the time of a kernel for no elements.
fn launch(options: &Options) -> Result<f64, Diagnostic> {
    // A kernel for each op.
    let options = Options { opt_level: 0, ..options.clone() };
    let each = |elements: usize| {
        let inputs: [(DType, &[usize], bool); 1] = [(DType::F32, &[elements], false)];
        let of = |count: usize| seconds(&options, &inputs, |x| (0..count).fold(&x[0] + &x[0], |y, _| y * &x[0]));
        let (few, many) = (8, 72);
        Ok((of(many)? - of(few)?) / (many - few) as f64)
    };
    let (once, twice) = (each(4 * CACHED)?, each(8 * CACHED)?);
    Ok((2.0 * once - twice).max(each(16)?).max(1e-8))
}

/// Bytes of the caches of a core, ascending; none where the system does not say.
fn caches() -> Vec<f64> {
    let Ok(levels) = std::fs::read_dir("/sys/devices/system/cpu/cpu0/cache") else { return Vec::new() };
    let size = |path: std::path::PathBuf| -> Option<f64> {
        let text = std::fs::read_to_string(path.join("size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<f64>().ok().map(|k| k * 1024.0)
    };
    let mut all: Vec<f64> = levels.filter_map(|entry| size(entry.ok()?.path())).collect();
    all.sort_by(f64::total_cmp);
    all
}
