//! The loss over the steps, that on other data, and the utilisation of the machine, as SVG.

use super::metrics::Metrics;
use crate::formats::write_whole;
use std::fmt::Write;
use std::path::Path;
use tilewright_ir::diag::Diagnostic;

const WIDTH: f64 = 720.0;
/// Of the panel of losses, and of that of utilisation below it.
const HEIGHTS: [f64; 2] = [344.0, 84.0];
/// Room for numbers on the left and below.
const LEFT: f64 = 56.0;
const BELOW: f64 = 40.0;
const EDGE: f64 = 16.0;

/// Draws `all` into the file at `path`. Errors: `file`.
pub(super) fn write(path: &Path, all: &[Metrics]) -> Result<(), Diagnostic> {
    let text = draw(all);
    write_whole(path, |out| out.write_all(text.as_bytes()))
}

/// A line of points (step, value) and its colour.
struct Line {
    points: Vec<(f64, f64)>,
    colour: &'static str,
    /// In pixels.
    width: f64,
    /// Whether each point is a dot, too.
    dots: bool,
}

/// Lines over one scale.
struct Panel {
    top: f64,
    bottom: f64,
    lines: Vec<Line>,
}

/// The loss of each line of metrics, and the average of those near it; below it what part of the machine was used.
fn draw(all: &[Metrics]) -> String {
    let of = |value: &dyn Fn(&Metrics) -> Option<f64>| -> Vec<(f64, f64)> {
        all.iter().filter_map(|m| Some((m.step as f64, value(m)?))).filter(|(_, v)| v.is_finite()).collect()
    };
    let (raw, tested) = (of(&|m| Some(m.loss)), of(&|m| m.validation));
    let used = of(&|m| m.mfu.map(|part| 100.0 * part));
    let line = |points, colour, width, dots| Line { points, colour, width, dots };
    let name =
        if tested.is_empty() { "loss, and its moving average" } else { "loss, its moving average, and validation" };
    let losses = vec![
        line(raw.clone(), "#9ec5e8", 1.0, false),
        line(averaged(&raw), "#1f5f99", 2.0, false),
        line(tested, "#d08030", 2.0, true),
    ];
    let bottom = EDGE + HEIGHTS[0];
    let mut panels = vec![(Panel { top: EDGE, bottom, lines: losses }, name)];
    if !used.is_empty() {
        let (top, lines) = (bottom + BELOW, vec![line(averaged(&used), "#5a8f3c", 2.0, false)]);
        panels.push((Panel { top, bottom: top + HEIGHTS[1], lines }, "MFU, %"));
    }
    let last = all.iter().map(|m| m.step).max().unwrap_or(1).max(1) as f64;
    let height = panels.iter().map(|(p, _)| p.bottom).fold(0.0, f64::max) + BELOW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    panels.iter().for_each(|(panel, name)| panel.draw(&mut out, last, name));
    out + "</svg>\n"
}

impl Panel {
    /// Axes, then lines. Writing to a string does not fail.
    fn draw(&self, out: &mut String, last: f64, name: &str) {
        let values = self.lines.iter().flat_map(|line| &line.points).map(|(_, v)| *v);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = if low < high { (low, high) } else { (low.min(0.0), high.max(0.0) + 1.0) };
        let tick = tick((high - low) * 64.0 / (self.bottom - self.top));
        let (low, high) = ((low / tick).floor() * tick, (high / tick).ceil() * tick);
        let x = |step: f64| LEFT + step / last * (WIDTH - LEFT - EDGE);
        let y = |value: f64| self.bottom - (value - low) / (high - low) * (self.bottom - self.top);
        for i in 0..=((high - low) / tick).round() as usize {
            let (value, at) = (low + i as f64 * tick, y(low + i as f64 * tick));
            let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - EDGE);
            let label = format!("{:.*}", digits(tick), value);
            let _ =
                writeln!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, at + 4.0);
        }
        for part in 0..=4 {
            let step = last * f64::from(part) / 4.0;
            let (at, below) = (x(step), self.bottom + 18.0);
            let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{step:.0}</text>");
        }
        let (middle, below) = ((LEFT + WIDTH - EDGE) / 2.0, self.bottom + 34.0);
        let _ = writeln!(out, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">step ({name})</text>");
        for line in self.lines.iter().filter(|line| !line.points.is_empty()) {
            let at = |(step, value): &(f64, f64)| format!("{:.1},{:.1}", x(*step), y(*value));
            let points: Vec<String> = line.points.iter().map(at).collect();
            let (colour, width) = (line.colour, line.width);
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
                points.join(" ")
            );
            for (step, value) in line.points.iter().filter(|_| line.dots) {
                let (at, up) = (x(*step), y(*value));
                let _ = writeln!(out, "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
    }
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

    fn metrics(step: u64, loss: f64) -> Metrics {
        Metrics {
            step,
            loss,
            norm: 1.0,
            rate: 1.0,
            tokens_per_s: 1.0,
            mfu: None,
            validation: None,
            loss_scale: None,
            checkpointing: None,
        }
    }

    fn points(text: &str, line: usize) -> Vec<(f64, f64)> {
        let points = text.split("points=\"").nth(line).unwrap().split('"').next().unwrap();
        points
            .split(' ')
            .map(|p| p.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_plot_has_its_points_and_ticks_inside() {
        let all: Vec<Metrics> = (1..=100).map(|i| metrics(i, 4.0 / i as f64)).collect();
        let text = draw(&all);
        assert!(text.contains(">4</text>") && text.contains(">100</text>"), "{text}");
        let all = points(&text, 1);
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (EDGE..=EDGE + HEIGHTS[0]).contains(y)));
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
        for odd in [vec![], vec![metrics(1, 2.0)], vec![metrics(1, f64::NAN), metrics(2, 1.0)]] {
            assert!(!draw(&odd).contains("NaN") && !draw(&odd).contains("inf"), "{}", draw(&odd));
        }
    }

    #[test]
    fn validation_and_utilisation_have_lines_of_their_own() {
        let all: Vec<Metrics> = (1..=100)
            .map(|i| Metrics {
                validation: (i % 25 == 0).then_some(5.0),
                mfu: Some(0.5 + 0.001 * i as f64),
                ..metrics(i, 4.0 / i as f64)
            })
            .collect();
        let text = draw(&all);
        assert!(text.contains("validation") && text.contains("MFU") && text.matches("<circle").count() == 4, "{text}");
        let (losses, tested, used) = (points(&text, 1), points(&text, 3), points(&text, 4));
        assert_eq!((tested.len(), used.len()), (4, 100));
        // Above all losses, as it is larger; at the same steps.
        assert!(tested[0].1 < losses[0].1 && tested[0].0 == losses[24].0);
        assert!(used.iter().all(|(_, y)| *y > EDGE + HEIGHTS[0]) && used[99].1 < used[0].1);
    }
}
