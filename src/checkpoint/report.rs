//! What budgets of memory cost, as text and as a curve.

use super::{Cost, Curve};
use std::fmt::{self, Write};
use tilewright_passes::autodiff::{Keep, Kept};
use tilewright_passes::checkpoint::{Plan, Segmented};

/// One way to differentiate.
#[derive(Clone, Debug)]
pub struct Point {
    /// How.
    pub plan: Plan,
    /// What it costs as it would run.
    pub cost: Cost,
    /// Bytes that functions of the way forward keep, over all their runs.
    pub kept_bytes: f64,
    /// Operations of theirs that are done again, elementwise ones not counted.
    pub again: f64,
    /// What they keep.
    pub kept: Vec<Kept>,
}

impl Point {
    /// Its name in texts.
    pub fn name(&self) -> String {
        let keep = |keep: Keep| match keep {
            Keep::Costly => "keep what is costly".to_string(),
            Keep::PerByte(price) => format!("a byte is worth {price} operations"),
            Keep::Nothing => "keep nothing".into(),
        };
        let Plan { segments, first, .. } = self.plan;
        let usual = keep(self.plan.keep);
        match (segments, first) {
            (Segmented::No, None) => usual,
            (Segmented::No, Some(mix)) => format!("{usual}; in {} of 4 blocks, {}", mix.quarters, keep(mix.keep)),
            (Segmented::Sqrt, _) => format!("segments, {usual}"),
        }
    }
}

impl Curve {
    /// The fewest operations that any choice of values, by functions as they stand, does again if it keeps no more bytes than `point`: by
    /// Lagrange, for each price the sum of both is least at its point. None where all stands in the entry, which keeps what it has, and where
    /// no prices were tried.
    pub fn least_again(&self, point: &Point) -> Option<f64> {
        let bound = |p: &Point| match p.plan {
            Plan { keep: Keep::PerByte(price), segments: Segmented::No, first: None } => {
                Some(p.again + price * (p.kept_bytes - point.kept_bytes))
            }
            _other => None,
        };
        let counted = point.again > 0.0 || !point.kept.is_empty();
        self.points.iter().filter_map(bound).filter(|_| counted).reduce(f64::max).map(|bound| bound.max(0.0))
    }

    /// The curve as a picture.
    pub fn svg(&self) -> String {
        svg(&self.points, self.chosen)
    }
}

/// Points of which none takes less of both, by memory.
pub(super) fn front(points: &[Point]) -> Vec<usize> {
    let better = |a: &Cost, b: &Cost| a.peak <= b.peak && a.flops <= b.flops && (a.peak, a.flops) != (b.peak, b.flops);
    let all = 0..points.len();
    let mut front: Vec<usize> =
        all.clone().filter(|&i| !all.clone().any(|j| better(&points[j].cost, &points[i].cost))).collect();
    front.sort_by_key(|&i| points[i].cost.peak);
    front
}

/// Points as a picture: megabytes of arena to the right, operations upwards; `chosen` has a ring.
pub fn svg(points: &[Point], chosen: usize) -> String {
    const SIZE: [f64; 2] = [720.0, 440.0];
    const MARGIN: [f64; 2] = [80.0, 60.0];
    let costs = || points.iter().map(|p| &p.cost);
    let most = [costs().map(|c| c.peak as f64).fold(1.0, f64::max) * 1.05, {
        costs().map(|c| c.flops).fold(1.0, f64::max) * 1.05
    }];
    let (low, high) = (costs().map(|c| c.flops).fold(f64::MAX, f64::min) * 0.95, most[1]);
    let x = |peak: usize| MARGIN[0] + (SIZE[0] - MARGIN[0] - 20.0) * peak as f64 / most[0];
    let y = |flops: f64| SIZE[1] - MARGIN[1] - (SIZE[1] - MARGIN[1] - 40.0) * (flops - low) / (high - low).max(1.0);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{}\" y=\"24\" font-size=\"15\">Memory \
         against operations</text>",
        SIZE[0], SIZE[1], SIZE[0], SIZE[1], MARGIN[0]
    );
    for i in 0..=5 {
        let part = f64::from(i) / 5.0;
        let (peak, flops) = ((most[0] * part) as usize, low + (high - low) * part);
        let (at, up) = (x(peak), y(flops));
        let bottom = SIZE[1] - MARGIN[1];
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {bottom}V40M{} {up:.1}H{}\" stroke=\"#ddd\" fill=\"none\"/>\n<text x=\"{at:.1}\" y=\"{}\" \
             text-anchor=\"middle\">{}</text>\n<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            MARGIN[0],
            SIZE[0] - 20.0,
            bottom + 18.0,
            digits(peak as f64 / 1e6),
            MARGIN[0] - 6.0,
            up + 4.0,
            digits(flops / 1e9),
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">planned arena, MB</text>\n<text transform=\"translate(18 {}) rotate(-90)\" \
         text-anchor=\"middle\">operations, GFLOP</text>",
        f64::midpoint(MARGIN[0], SIZE[0]),
        SIZE[1] - 16.0,
        SIZE[1] / 2.0
    );
    let corner = |i: &usize| format!("{:.1} {:.1}", x(points[*i].cost.peak), y(points[*i].cost.flops));
    let path: Vec<String> = front(points).iter().map(corner).collect();
    let _ = writeln!(out, "<path d=\"M{}\" stroke=\"#4878a8\" stroke-width=\"1.5\" fill=\"none\"/>", path.join("L"));
    for (i, p) in points.iter().enumerate() {
        let colour = if p.plan.segments == Segmented::Sqrt { "#d08030" } else { "#4878a8" };
        let (radius, ring) = if i == chosen { (6.0, "#000") } else { (4.0, "none") };
        let title =
            format!("{}: {} MB, {} GFLOP", p.name(), digits(p.cost.peak as f64 / 1e6), digits(p.cost.flops / 1e9));
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{colour}\" stroke=\"{ring}\"><title>{title}</title></circle>",
            x(p.cost.peak),
            y(p.cost.flops)
        );
    }
    for (i, (colour, label)) in [("#4878a8", "without segments"), ("#d08030", "sqrt(n) segments")].iter().enumerate() {
        let up = 52.0 + 18.0 * i as f64;
        let _ = writeln!(
            out,
            "<circle cx=\"{}\" cy=\"{up}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{label}</text>",
            SIZE[0] - 150.0,
            SIZE[0] - 140.0,
            up + 4.0
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Three digits.
fn digits(x: f64) -> String {
    if x >= 100.0 {
        format!("{x:.0}")
    } else if x >= 10.0 {
        format!("{x:.1}")
    } else {
        format!("{x:.2}")
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:>10} {:>10} {:>8} {:>9}", "arena", "GFLOP", "of plain", "kept")?;
        let plain = self.points.first().map_or(1.0, |p| p.cost.flops.max(1.0));
        for (i, p) in self.points.iter().enumerate() {
            let mark = if i == self.chosen { '>' } else { ' ' };
            let [peak, kept] = [p.cost.peak as f64, p.kept_bytes].map(|b| format!("{} MB", digits(b / 1e6)));
            let share = p.cost.flops / plain;
            writeln!(f, "{mark} {peak:>10} {:>10} {share:>8.3} {kept:>9}  {}", digits(p.cost.flops / 1e9), p.name())?;
        }
        let Some(p) = self.points.get(self.chosen) else { return Ok(()) };
        if let Some(bound) = self.least_again(p) {
            let [again, bound] = [p.again, bound].map(|ops| digits(ops / 1e9));
            writeln!(
                f,
                "products and folds done again: {again} GFLOP, at least {bound} for whoever keeps no more of these functions"
            )?;
        }
        for kept in &p.kept {
            writeln!(f, "@{} keeps", kept.forward)?;
            for value in &kept.values {
                let place = value.place.as_ref().map_or(String::new(), |p| format!("  {p}"));
                let scope = if value.scope.is_empty() { String::new() } else { format!("  {}", value.scope) };
                writeln!(f, "  {} {}{scope}{place}", value.op, value.ty)?;
            }
        }
        Ok(())
    }
}
