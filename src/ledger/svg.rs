//! A roofline (Williams, Waterman and Patterson 2009) as a picture: what a machine can do for each intensity, and the kinds of work.

use super::text::short;
use super::{Ledger, Limit, Row};
use std::fmt::Write;

const SIZE: [f64; 2] = [1060.0, 460.0];
/// Room on the left, above, on the right, below.
const MARGIN: [f64; 4] = [84.0, 40.0, 350.0, 56.0];

/// Both axes, in powers of ten.
struct Axes {
    x: [f64; 2],
    y: [f64; 2],
}

impl Axes {
    fn at(&self, intensity: f64, rate: f64) -> [f64; 2] {
        let part = |value: f64, [low, high]: [f64; 2]| ((value.log10() - low) / (high - low)).clamp(0.0, 1.0);
        let [width, height] = [SIZE[0] - MARGIN[0] - MARGIN[2], SIZE[1] - MARGIN[1] - MARGIN[3]];
        [MARGIN[0] + width * part(intensity, self.x), SIZE[1] - MARGIN[3] - height * part(rate, self.y)]
    }
}

/// A point: its name, operations for each byte, operations a second, seconds, what limits it.
struct Point<'a> {
    name: &'a str,
    intensity: f64,
    rate: f64,
    seconds: f64,
    limit: Option<Limit>,
}

fn point<'a>(name: &'a str, row: &Row) -> Option<Point<'a>> {
    let intensity = row.intensity.filter(|i| *i > 0.0)?;
    let rate = row.flops / row.seconds;
    rate.is_finite().then_some(Point { name, intensity, rate, seconds: row.seconds, limit: row.limit })
}

fn colour(limit: Option<Limit>) -> &'static str {
    match limit {
        Some(Limit::Compute) => "#1f5f99",
        Some(Limit::Memory) => "#d08030",
        Some(Limit::Overhead) => "#a03050",
        None => "#888",
    }
}

/// Draws a ledger. The area of a point is its part of the time; what takes less than a thousandth is left out.
pub fn roofline(ledger: &Ledger) -> String {
    let all = ledger.total.seconds.max(f64::MIN_POSITIVE);
    let mut points: Vec<Point<'_>> = ledger.kinds.iter().filter_map(|row| point(row.kind.name(), row)).collect();
    points.retain(|p| p.seconds >= 1e-3 * all);
    points.extend(point("all", &ledger.total));
    let roof = &ledger.roof;
    let span = |values: &[f64]| {
        let logs = || values.iter().map(|v| v.log10());
        let (low, high) = (logs().fold(f64::MAX, f64::min).floor(), logs().fold(f64::MIN, f64::max).ceil());
        if low < high { [low, high] } else { [low, low + 1.0] }
    };
    let xs: Vec<f64> = points.iter().map(|p| p.intensity).chain([roof.ridge() * 3.0, 0.3]).collect();
    let ys: Vec<f64> = points.iter().map(|p| p.rate).chain([roof.flops * 1.5, roof.flops / 50.0]).collect();
    let axes = Axes { x: span(&xs), y: span(&ys) };
    let mut out = String::new();
    frame(&mut out, ledger, &axes);
    roofs(&mut out, ledger, &axes);
    // The largest below the others.
    let mut order: Vec<(usize, &Point<'_>)> = points.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
    for (i, p) in order {
        p.draw(&mut out, i + 1, all, &axes);
    }
    legend(&mut out, &points, all);
    out.push_str("</svg>\n");
    out
}

impl Point<'_> {
    /// Its number stands in it, or above it where it is small. Writing to a String cannot fail.
    fn draw(&self, out: &mut String, number: usize, all: f64, axes: &Axes) {
        let [x, y] = axes.at(self.intensity, self.rate);
        let radius = 4.0 + 14.0 * (self.seconds / all).sqrt();
        let (fill, edge) = if self.name == "all" { ("none", "#000") } else { (colour(self.limit), "#fff") };
        let (inside, whole) = (radius >= 8.0, self.name == "all");
        let up = match (whole, inside) {
            (true, _) => y - radius - 3.0,
            (_, true) => y + 4.0,
            (_, false) => y - radius - 3.0,
        };
        let ink = if inside && !whole { "#fff" } else { "#000" };
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{fill}\" fill-opacity=\"0.8\" stroke=\"{edge}\"/>\n\
             <text x=\"{x:.1}\" y=\"{up:.1}\" text-anchor=\"middle\" fill=\"{ink}\">{number}</text>"
        );
    }
}

/// A table of the points on the right.
fn legend(out: &mut String, points: &[Point<'_>], all: f64) {
    let left = SIZE[0] - MARGIN[2] + 20.0;
    let columns = [("end", 12.0), ("start", 20.0), ("end", 204.0), ("end", 258.0), ("end", 318.0)];
    let mut row = |up: f64, cells: [String; 5]| {
        for ((anchor, at), cell) in columns.iter().zip(cells) {
            let _ = writeln!(out, "<text x=\"{}\" y=\"{up}\" text-anchor=\"{anchor}\">{cell}</text>", left + at);
        }
    };
    row(MARGIN[1] + 10.0, ["", "", "FLOP/byte", "FLOP/s", "time"].map(String::from));
    for (i, p) in points.iter().enumerate() {
        let share = format!("{:.1} %", 100.0 * p.seconds / all);
        let cells = [(i + 1).to_string(), p.name.to_string(), short(p.intensity), short(p.rate), share];
        row(MARGIN[1] + 32.0 + 20.0 * i as f64, cells);
    }
}

/// Grid, axes, title, legend. Writing to a String cannot fail.
fn frame(out: &mut String, ledger: &Ledger, axes: &Axes) {
    let [width, height] = SIZE;
    let (left, top, right, bottom) = (MARGIN[0], MARGIN[1], width - MARGIN[2], height - MARGIN[3]);
    let what = ledger.what();
    let name = crate::explain::escaped(&ledger.model);
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\">{name}: {what} in {} on {}</text>",
        ledger.dtype, ledger.roof.machine
    );
    for power in axes.x[0] as i32..=axes.x[1] as i32 {
        let [x, _] = axes.at(10f64.powi(power), 1.0);
        let label = short(10f64.powi(power));
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {bottom}V{top}\" stroke=\"#ddd\"/>\n<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for power in axes.y[0] as i32..=axes.y[1] as i32 {
        let [_, y] = axes.at(1.0, 10f64.powi(power));
        let label = short(10f64.powi(power));
        let _ = writeln!(
            out,
            "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>\n<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">FLOP/byte</text>\n<text transform=\"translate(18 {}) rotate(-90)\" \
         text-anchor=\"middle\">FLOP/s</text>",
        f64::midpoint(left, right),
        height - 14.0,
        f64::midpoint(top, bottom)
    );
    for (i, limit) in [Limit::Compute, Limit::Memory, Limit::Overhead].into_iter().enumerate() {
        let y = bottom - 12.0 - 18.0 * i as f64;
        let _ = writeln!(
            out,
            "<circle cx=\"{}\" cy=\"{y}\" r=\"5\" fill=\"{}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">bound by {}</text>",
            right - 10.0,
            colour(Some(limit)),
            right - 20.0,
            y + 4.0,
            limit.name()
        );
    }
}

/// Memory and products; elementwise code dashed.
fn roofs(out: &mut String, ledger: &Ledger, axes: &Axes) {
    let roof = &ledger.roof;
    let [low, high] = axes.x.map(|p| 10f64.powf(p));
    // From where memory is on the picture.
    let from = low.max(10f64.powf(axes.y[0]) / roof.bytes);
    let corner = |i: f64, rate: f64| axes.at(i, rate).map(|v| format!("{v:.1}")).join(" ");
    let _ = writeln!(
        out,
        "<path d=\"M{}L{}L{}\" stroke=\"#333\" stroke-width=\"2\" fill=\"none\"/>",
        corner(from, roof.bytes * from),
        corner(roof.ridge(), roof.flops),
        corner(high, roof.flops)
    );
    let turn = roof.vector / roof.bytes;
    let _ = writeln!(
        out,
        "<path d=\"M{}L{}\" stroke=\"#333\" stroke-dasharray=\"5 4\" fill=\"none\"/>",
        corner(turn.max(low), roof.vector),
        corner(high, roof.vector)
    );
    let label = |i: f64, rate: f64, text: String| {
        let [x, y] = axes.at(i, rate);
        format!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n", y - 6.0)
    };
    // Left of the ridge, where nothing can be.
    out.push_str(&label(roof.ridge(), roof.flops, format!("products, {}FLOP/s", short(roof.flops))));
    if roof.vector < 0.9 * roof.flops {
        out.push_str(&label(high, roof.vector, format!("elementwise, {}FLOP/s", short(roof.vector))));
    }
    let mid = (from * roof.ridge()).sqrt();
    out.push_str(&label(mid, roof.at(mid), format!("memory, {}B/s", short(roof.bytes))));
}
