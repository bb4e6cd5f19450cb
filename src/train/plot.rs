//! The loss over the steps, as SVG.

use super::metrics::Metrics;
use crate::formats::write_whole;
use std::fmt::Write;
use std::path::Path;
use tilewright_ir::diag::Diagnostic;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room for numbers on the left and below.
const LEFT: f64 = 56.0;
const BELOW: f64 = 40.0;
const EDGE: f64 = 16.0;

/// Draws `all` into the file at `path`. Errors: `file`.
pub(super) fn write(path: &Path, all: &[Metrics]) -> Result<(), Diagnostic> {
    let text = draw(all);
    write_whole(path, |out| out.write_all(text.as_bytes()))
}

/// The loss of each line, and the average of those near it.
fn draw(all: &[Metrics]) -> String {
    let last = all.iter().map(|m| m.step).max().unwrap_or(1).max(1) as f64;
    let finite = all.iter().map(|m| m.loss).filter(|l| l.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), l| (a.min(l), b.max(l)));
    let (low, high) = if low < high { (low, high) } else { (low.min(0.0), high.max(0.0) + 1.0) };
    let tick = tick((high - low) / 5.0);
    let (low, high) = ((low / tick).floor() * tick, (high / tick).ceil() * tick);
    let x = |step: f64| LEFT + step / last * (WIDTH - LEFT - EDGE);
    let y = |loss: f64| HEIGHT - BELOW - (loss - low) / (high - low) * (HEIGHT - BELOW - EDGE);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    // Writing to a string does not fail.
    let mut add = |line: String| _ = writeln!(out, "{line}");
    for i in 0..=((high - low) / tick).round() as usize {
        let (value, at) = (low + i as f64 * tick, y(low + i as f64 * tick));
        add(format!("<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - EDGE));
        let label = format!("{:.*}", digits(tick), value);
        add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, at + 4.0));
    }
    for part in 0..=4 {
        let step = last * f64::from(part) / 4.0;
        let at = x(step);
        add(format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>", HEIGHT - BELOW + 18.0));
    }
    let (middle, bottom) = ((LEFT + WIDTH - EDGE) / 2.0, HEIGHT - 6.0);
    add(format!(
        "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">step (loss, and its moving average)</text>"
    ));
    let line = |values: &[(f64, f64)]| {
        let points = values.iter().filter(|(_, l)| l.is_finite()).map(|(s, l)| format!("{:.1},{:.1}", x(*s), y(*l)));
        points.collect::<Vec<_>>().join(" ")
    };
    let raw: Vec<(f64, f64)> = all.iter().map(|m| (m.step as f64, m.loss)).collect();
    add(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#9ec5e8\"/>", line(&raw)));
    let smooth = averaged(&raw);
    add(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#1f5f99\" stroke-width=\"2\"/>", line(&smooth)));
    out + "</svg>\n"
}

/// Each value as the mean of those up to a fiftieth of all before and after it.
fn averaged(raw: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = raw.len() / 50;
    let near = |i: usize| &raw[i.saturating_sub(reach)..(i + reach + 1).min(raw.len())];
    (0..raw.len()).map(|i| (raw[i].0, near(i).iter().map(|(_, l)| l).sum::<f64>() / near(i).len() as f64)).collect()
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn tick(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|t| *t >= least * 0.999).unwrap_or(power)
}

/// Digits after the point that show multiples of `tick`.
fn digits(tick: f64) -> usize {
    (-tick.log10().floor()).clamp(0.0, 12.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_points_and_ticks_inside() {
        let metrics = |step, loss| Metrics { step, loss, norm: 1.0, rate: 1.0, tokens_per_s: 1.0, loss_scale: None };
        let all: Vec<Metrics> = (1..=100).map(|i| metrics(i, 4.0 / i as f64)).collect();
        let text = draw(&all);
        assert!(text.contains(">4</text>") && text.contains(">100</text>"), "{text}");
        let points = text.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let all: Vec<(f64, f64)> = points
            .split(' ')
            .map(|p| p.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (EDGE..=HEIGHT - BELOW).contains(y)));
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
        for odd in [vec![], vec![metrics(1, 2.0)], vec![metrics(1, f64::NAN), metrics(2, 1.0)]] {
            assert!(!draw(&odd).contains("NaN") && !draw(&odd).contains("inf"), "{}", draw(&odd));
        }
    }
}
