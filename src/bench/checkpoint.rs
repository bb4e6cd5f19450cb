//! What checkpointing makes of a large training step: the planned arena, the arena that a run touches, and operations.

use super::Setup;
use super::machine::{peak_rss_kb, reset_peak_rss, rss_kb};
use crate::checkpoint::{Budget, Cost, Point, chosen, curve, svg};
use crate::compile::compile;
use crate::models::{DecoderConfig, DecoderFamily, DecoderNames};
use serde::Serialize;
use std::fmt;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Graph;
use tilewright_ir::graph::Module;
use tilewright_ir::types::{Bindings, DType};
use tilewright_passes::autodiff::Form;

/// Tokens of the step.
pub const TOKENS: usize = 1024;

/// The GPT of the bench.
pub fn config(layers: usize, width: usize, tokens: usize) -> DecoderConfig {
    DecoderConfig {
        family: DecoderFamily::Gpt,
        layers,
        width,
        heads: width / 64,
        kv_heads: width / 64,
        head_size: 64,
        feed_forward: 4 * width,
        vocabulary: 8192,
        context: tokens,
        epsilon: 1e-5,
        rope_base: 10_000.0,
        tied: true,
        names: DecoderNames::Short,
        float: DType::F32,
        lora: None,
        checkpoint: false,
    }
}

/// The mean loss of `batch` sequences of `tokens`; parameters are tokens, targets, and the weights by role, which change with every step,
/// so that nothing of them is kept between runs.
///
/// Errors: those of the model.
pub fn loss(config: &DecoderConfig, batch: usize, tokens: usize) -> Result<Module, Diagnostic> {
    config.check()?;
    let g = Graph::new("main");
    let [ids, targets] = ["ids", "targets"].map(|name| g.input(name, DType::I64, (batch, tokens)));
    let weight =
        |e: crate::models::decoder::Entry| (e.role.clone(), g.input(&e.role, e.weight.ty.dtype, &e.weight.ty.shape));
    let weights = config.entries().into_iter().map(weight).collect();
    g.finish(&[&config.logits(&ids, &weights, None).cross_entropy(&targets)])
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct CheckpointRow {
    /// What was asked for.
    pub budget: String,
    /// How it is met.
    pub how: String,
    /// Bytes of the planned arena.
    pub arena: usize,
    /// Bytes of memory that a run touched, without parameters and results; none where nothing ran.
    pub measured: Option<u64>,
    /// Operations of the forward and backward pass over those of the forward pass.
    pub of_forward: f64,
    /// Operations added to those of the plain way.
    pub added: f64,
    /// Seconds of the second run; none where nothing ran.
    pub seconds: Option<f64>,
}

impl fmt::Display for CheckpointRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
        let measured = self.measured.map_or("-".into(), |b| mb(b as f64));
        let seconds = self.seconds.map_or("-".into(), |s| format!("{s:.2} s"));
        let CheckpointRow { budget, how, of_forward, added, .. } = self;
        let arena = mb(self.arena as f64);
        write!(
            f,
            "{budget:<8} {arena:>11} {measured:>11} {of_forward:>6.3} +{:>5.1} % {seconds:>8}  {how}",
            added * 100.0
        )
    }
}

/// Rows for no checkpointing, sqrt(n), half and a quarter of the plain arena, and the least; `runs` says whether they run, too.
///
/// The curve of all that was costed, as a picture. Errors: those of compiling and running.
pub fn checkpoint(
    setup: &Setup,
    (layers, width): (usize, usize),
    runs: bool,
    progress: &dyn Fn(usize, usize),
    show: &mut dyn FnMut(CheckpointRow) -> Result<(), Diagnostic>,
) -> Result<String, Diagnostic> {
    let config = config(layers, width, TOKENS);
    let module = loss(&config, 1, TOKENS)?;
    let names: Vec<String> = module.entry()?.params[2..].iter().map(|p| p.name.to_string()).collect();
    let wrt: Vec<&str> = names.iter().map(String::as_str).collect();
    let sizes = Bindings::new();
    let forward = Cost::of(&module, &setup.options, &sizes)?;
    let (points, made) = curve(&module, &wrt, Form::ValueAndGradient, &sizes, &setup.options, progress)?;
    let plain = points.first().ok_or_else(|| Diagnostic::bug("a curve without points"))?.cost;
    let wanted = [
        ("none", Budget::None),
        ("sqrt", Budget::Sqrt),
        ("50 %", Budget::Part(0.5)),
        ("25 %", Budget::Part(0.25)),
        ("least", Budget::Least),
    ];
    for (name, budget) in wanted {
        let at = match chosen(&points, budget) {
            Ok(at) => at,
            Err(d) if d.code == "checkpoint-budget" => {
                crate::cli::note(&format!("{name}: {d}\n"));
                continue;
            }
            Err(d) => return Err(d),
        };
        let point: &Point = &points[at];
        let ran = if runs { Some(measured(&made[at].made.module, setup)?) } else { None };
        show(CheckpointRow {
            budget: name.into(),
            how: point.name(),
            arena: point.cost.peak,
            measured: ran.and_then(|(bytes, _)| bytes),
            of_forward: point.cost.flops / forward.flops,
            added: point.cost.flops / plain.flops - 1.0,
            seconds: ran.map(|(_, seconds)| seconds),
        })?;
    }
    Ok(svg(&points, 0))
}

/// Bytes that the first run touches beside parameters and results, where the system tells; seconds of the second.
fn measured(module: &Module, setup: &Setup) -> Result<(Option<u64>, f64), Diagnostic> {
    let code = compile(module, &setup.options)?;
    let sizes = Bindings::new();
    // Zeros take as long as other numbers. No array is made that would leave memory behind for the run.
    let params = 0..module.entry()?.params.len();
    let inputs = params.map(|i| code.zeroed_param(i, &sizes)).collect::<Result<Vec<_>, Diagnostic>>()?;
    reset_peak_rss();
    let before = rss_kb();
    let results = code.run_buffers(&inputs, &sizes)?;
    let given: u64 = results.iter().map(|b| b.len() as u64).sum();
    let touched = before.zip(peak_rss_kb()).map(|(a, b)| (b.saturating_sub(a) * 1024).saturating_sub(given));
    drop(results);
    let start = std::time::Instant::now();
    code.run_buffers(&inputs, &sizes)?;
    Ok((touched, start.elapsed().as_secs_f64()))
}
