//! How well the cost walk predicts times: the regions on which it is judged, each timed alone with all of its schedules, twice.

use super::numpy::NumpyRandom;
use crate::compile::Options;
use crate::tune::{Effort, Region, Timed, correlation, quantile, tune};
use serde::Serialize;
use std::fmt;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::types::{Bindings, DType};

/// A name, the shapes of an input and of weights, the function.
type Case = (&'static str, &'static [&'static [i64]], fn(&[Tensor]) -> Tensor);

const EPSILON: f64 = 1e-5;

/// f32: products from one row to 1,024, and what else transformers do with rows.
const CASES: [Case; 24] = [
    ("product 1 x 768 x 3072", &[&[1, 768], &[768, 3072]], |x| x[0].matmul(&x[1])),
    ("product 8 x 768 x 768", &[&[8, 768], &[768, 768]], |x| x[0].matmul(&x[1])),
    ("product 16 x 576 x 1536", &[&[16, 576], &[576, 1536]], |x| x[0].matmul(&x[1])),
    ("product 64 x 64 x 4096", &[&[64, 64], &[64, 4096]], |x| x[0].matmul(&x[1])),
    ("product 128 x 768 x 3072", &[&[128, 768], &[768, 3072]], |x| x[0].matmul(&x[1])),
    ("product 128 x 3072 x 768", &[&[128, 3072], &[3072, 768]], |x| x[0].matmul(&x[1])),
    ("product 512 x 768 x 768", &[&[512, 768], &[768, 768]], |x| x[0].matmul(&x[1])),
    ("product 1024 x 256 x 256", &[&[1024, 256], &[256, 256]], |x| x[0].matmul(&x[1])),
    ("bias, gelu of product 128 x 384 x 1536", &[&[128, 384], &[384, 1536], &[1536]], |x| {
        (x[0].matmul(&x[1]) + &x[2]).gelu_tanh()
    }),
    ("log softmax 512 x 2000", &[&[512, 2000]], |x| x[0].log_softmax(-1)),
    ("bias, addition 512 x 768", &[&[512, 768], &[768], &[512, 768]], |x| &x[0] + &x[1] + &x[2]),
    ("tanh 64 x 4096", &[&[64, 4096]], |x| x[0].tanh()),
    ("maximum of columns 1024 x 512", &[&[1024, 512]], |x| x[0].max(&[0])),
    ("softmax 1024 x 1024", &[&[1024, 1024]], |x| x[0].softmax(-1)),
    ("softmax 4096 x 128", &[&[4096, 128]], |x| x[0].softmax(-1)),
    ("layer norm 2048 x 768", &[&[2048, 768], &[768], &[768]], |x| x[0].layer_norm(Some(&x[1]), Some(&x[2]), EPSILON)),
    ("RMS norm 512 x 576", &[&[512, 576], &[576]], |x| x[0].rms_norm(&x[1], EPSILON)),
    ("sum, RMS norm 1024 x 768", &[&[1024, 768], &[1024, 768], &[768]], |x| (&x[0] + &x[1]).rms_norm(&x[2], EPSILON)),
    ("bias, gelu 1024 x 3072", &[&[1024, 3072], &[3072]], |x| (&x[0] + &x[1]).gelu_tanh()),
    ("SwiGLU 512 x 1536", &[&[512, 1536], &[512, 1536]], |x| x[0].silu() * &x[1]),
    ("sum of columns 512 x 1024", &[&[512, 1024]], |x| x[0].sum(&[0])),
    ("sum of columns 2048 x 768", &[&[2048, 768]], |x| x[0].sum(&[0])),
    ("squares of columns 2048 x 256", &[&[2048, 256]], |x| (&x[0] * &x[0]).sum(&[0])),
    ("transposition 1024 x 1024", &[&[1024, 1024]], |x| x[0].transpose(0, 1) * 2.0),
];

/// A region with two series of times.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// What it computes.
    pub name: String,
    /// Its schedules, the usual first.
    pub schedules: Vec<Schedule>,
    /// Times that differ by less, as a share of the lesser, cannot be told apart: nine in ten times of one series are as near to that of the
    /// other, once all of a series that is slower are divided by how much.
    pub noise: f64,
    /// Spearman's rank correlation of the two series: what noise leaves to be had. `told` in both: with ties of what noise hides.
    pub ceiling: Option<f64>,
    #[allow(missing_docs)]
    pub ceiling_told: Option<f64>,
    /// That of predictions and the lesser times.
    pub rank: Option<f64>,
    #[allow(missing_docs)]
    pub rank_told: Option<f64>,
    /// Goodman and Kruskal's gamma over pairs beyond noise.
    pub gamma: Option<f64>,
    /// Time of the schedule predicted to be the fastest, and of the usual, over the least.
    pub picked: f64,
    #[allow(missing_docs)]
    pub usual: f64,
}

/// A schedule with its times in seconds.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Schedule {
    pub choice: String,
    pub predicted: f64,
    pub first: f64,
    pub second: f64,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged { name, schedules, noise, picked, usual, .. } = self;
        let show = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.2}"));
        let least = schedules.iter().map(|s| s.first.min(s.second)).fold(f64::INFINITY, f64::min) * 1e6;
        write!(f, "{name:<40} {:>3} {least:>9.1} us {:>5.1} %", schedules.len(), noise * 100.0)?;
        for x in [self.ceiling, self.rank, self.ceiling_told, self.rank_told, self.gamma] {
            write!(f, " {:>6}", show(x))?;
        }
        write!(f, " {picked:>6.2} {usual:>6.2}")
    }
}

/// The head of a table of [`Judged`].
pub const SCHEDULES_HEAD: &str = "region                                     n     fastest   noise ceiling  rank  ceiling, rank with ties  gamma picked usual";

/// Times all schedules of each region in two series of `sweeps` runs, and hands each over as it comes.
///
/// Errors: those of the compiler and of `show`.
pub fn schedules(
    options: &Options,
    sweeps: usize,
    mut show: impl FnMut(Judged) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    for (name, shapes, function) in CASES {
        let g = Graph::new("main");
        let operand = |(i, shape): (usize, &&[i64])| match i {
            0 => g.input("x", DType::F32, shape.to_vec()),
            _weight => g.weight(&format!("w{i}"), DType::F32, shape.to_vec()),
        };
        let operands: Vec<Tensor> = shapes.iter().enumerate().map(operand).collect();
        let module = g.finish(&[&function(&operands)])?;
        let mut random = NumpyRandom::new(0);
        let mut input = |shape: &&[i64]| {
            let shape: Vec<usize> = shape.iter().map(|&n| n.unsigned_abs() as usize).collect();
            Array::from_f32(&shape, &random.normal(shape.iter().product()))
        };
        let inputs: Vec<Array> = shapes.iter().map(&mut input).collect::<Result<_, _>>()?;
        let effort = Effort { sweeps, runs: 1, most: None, keep: true };
        let series = || tune(&module, (&inputs, &Bindings::new()), options, effort, &|_, _| {});
        for (first, second) in series()?.into_iter().zip(series()?) {
            show(judged(name, &first, &second))?;
        }
    }
    Ok(())
}

fn judged(name: &str, first: &Region, second: &Region) -> Judged {
    // Both have the same choices in the same order: the usual, then by predicted times.
    let pairs = first.choices.iter().zip(&second.choices);
    let schedule = |(a, b): (&Timed, &Timed)| {
        let predicted = a.predicted?;
        Some(Schedule { choice: a.choice.to_string(), predicted, first: a.seconds, second: b.seconds })
    };
    let schedules: Vec<Schedule> = pairs.filter_map(schedule).collect();
    let all = |of: fn(&Schedule) -> f64| schedules.iter().map(of).collect::<Vec<f64>>();
    let (a, b) = (all(|s| s.first), all(|s| s.second));
    let times = all(|s| (s.first * s.second).sqrt());
    let predicted = all(|s| s.predicted);
    let slower = quantile(all(|s| (s.second / s.first).ln()), 0.5);
    let apart = schedules.iter().map(|s| ((s.second / s.first).ln() - slower).abs()).collect();
    let noise = quantile(apart, 0.9).exp_m1();
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let pick = predicted.iter().zip(&times).min_by(|a, b| a.0.total_cmp(b.0)).map_or(f64::NAN, |p| *p.1);
    let mut both = first.clone();
    both.choices.iter_mut().zip(&times).for_each(|(t, &seconds)| t.seconds = seconds);
    Judged {
        name: name.into(),
        noise,
        ceiling: correlation(&a, &b, 0.0),
        ceiling_told: correlation(&a, &b, noise),
        rank: both.correlation(0.0),
        rank_told: both.correlation(noise),
        gamma: both.concordance(noise),
        picked: pick / least,
        usual: times.first().map_or(f64::NAN, |t| t / least),
        schedules,
    }
}
