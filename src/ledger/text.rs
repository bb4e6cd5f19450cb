//! A ledger as text.

use super::{Ledger, Memory, Row, Scaling};
use std::fmt;

/// Three digits and a prefix: `1.24 G`; what is below a thousandth in powers of ten.
pub(super) fn short(x: f64) -> String {
    const PREFIXES: [&str; 9] = ["", " k", " M", " G", " T", " P", " E", " Z", " Y"];
    if !x.is_finite() || x == 0.0 {
        return if x == 0.0 { "0".into() } else { x.to_string() };
    }
    let size = x.abs();
    if size < 0.01 {
        return format!("{x:.2e}");
    }
    let power = ((size.log10() / 3.0).floor().max(0.0) as usize).min(PREFIXES.len() - 1);
    let mut scaled = x / 1e3f64.powi(power as i32);
    let mut power = power;
    // 999.7 is 1.00 of the next.
    if scaled.abs() >= 999.5 && power + 1 < PREFIXES.len() {
        scaled /= 1e3;
        power += 1;
    }
    let digits = match scaled.abs() {
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        _ => 2,
    };
    // Counts of things are whole below a thousand.
    if power == 0 && x.fract() == 0.0 { format!("{x:.0}") } else { format!("{scaled:.digits$}{}", PREFIXES[power]) }
}

/// `12.3 ms`.
fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 172_800.0 => format!("{} days", short(s / 86_400.0)),
        s if s >= 100.0 => format!("{} s", short(s)),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{} ms", short(s * 1e3)),
        s => format!("{} us", short(s * 1e6)),
    }
}

/// `124,439,808`.
fn whole(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn head(f: &mut fmt::Formatter<'_>, first: &str) -> fmt::Result {
    let [parameters, operations, products, share, bytes] = ["parameters", "FLOP", "products", "share", "bytes"];
    let [intensity, kernels, time, limit] = ["FLOP/byte", "kernels", "time", "bound by"];
    writeln!(
        f,
        "{first:<22} {parameters:>13} {operations:>8} {products:>8} {share:>6} {bytes:>8} {intensity:>9} {kernels:>7} {time:>8}  {limit}"
    )
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, r: &Row, all: f64) -> fmt::Result {
    let share = if all > 0.0 { format!("{:.1} %", 100.0 * r.flops / all) } else { "-".into() };
    let intensity = r.intensity.map_or("-".into(), short);
    let time = if r.seconds > 0.0 { time(r.seconds) } else { "-".into() };
    let limit = r.limit.map_or("-", super::Limit::name);
    let [flops, products, bytes, kernels] = [r.flops, r.products, r.bytes, r.kernels].map(short);
    let parameters = whole(r.parameters);
    writeln!(
        f,
        "{name:<22} {parameters:>13} {flops:>8} {products:>8} {share:>6} {bytes:>8} {intensity:>9} {kernels:>7} {time:>8}  {limit}"
    )
}

/// Rows of layers that are alike, as one: names of the first and last, how many, their rows.
fn alike(layers: &[Row]) -> Vec<(String, usize, &[Row])> {
    let mut groups: Vec<&[Row]> = layers.chunk_by(|a, b| a.layer == b.layer).collect();
    groups.retain(|rows| !rows[0].layer.is_empty());
    let same = |a: &[Row], b: &[Row]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Row { layer: b.layer.clone(), ..a.clone() } == *b)
    };
    let mut out: Vec<(String, usize, &[Row])> = Vec::new();
    for group in groups {
        match out.last_mut().filter(|(_, _, rows)| same(rows, group)) {
            Some((name, times, rows)) => {
                *times += 1;
                *name = format!("{} .. {}", rows[0].layer, group[0].layer);
            }
            None => out.push((group[0].layer.clone(), 1, group)),
        }
    }
    out
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}; {} parameters", self.model, self.sizes, whole(self.parameters))?;
        let what = self.what();
        let of = match (self.batch, self.seq) {
            (Some(_), Some(seq)) if self.decode => format!(" after {} others", seq - 1),
            (Some(batch), Some(seq)) => format!(" of {batch} x {seq} tokens"),
            _program => String::new(),
        };
        let products = if self.precision == self.dtype { "" } else { &format!(", products in {},", self.precision) };
        writeln!(f, "{what}{of} in {}{products} on {}\n", self.dtype, self.roof.machine)?;
        head(f, "kind")?;
        for r in &self.kinds {
            row(f, r.kind.name(), r, self.total.flops)?;
        }
        row(f, "all", &self.total, self.total.flops)?;
        for (name, times, rows) in alike(&self.layers) {
            writeln!(f)?;
            head(f, &if times > 1 { format!("each of {name}") } else { name })?;
            for r in rows {
                row(f, r.kind.name(), r, self.total.flops)?;
            }
        }
        self.passes(f)?;
        if !self.slowest.is_empty() {
            writeln!(
                f,
                "\n{:<34} {:>6} {:>8} {:>7}  {:<9} template",
                "slowest kernels", "times", "each", "share", "bound by"
            )?;
        }
        for k in &self.slowest {
            let scope = if k.scope.is_empty() { String::new() } else { format!(" {}", k.scope) };
            let name = format!("@{}{scope}", k.function);
            let share = format!("{:.1} %", 100.0 * k.times * k.seconds / self.total.seconds.max(f64::MIN_POSITIVE));
            let limit = k.limit.map_or("-", super::Limit::name);
            let (times, each) = (short(k.times), time(k.seconds));
            writeln!(f, "{name:<34} {times:>6} {each:>8} {share:>7}  {limit:<9} {}", k.template)?;
        }
        if !self.checks.is_empty() {
            writeln!(f, "\n{:<22} {:>9} {:>9} {:>8}  formula", "beside formulas", "textbook", "counted", "above")?;
        }
        for c in &self.checks {
            check(f, c)?;
        }
        if let Some(memory) = &self.memory {
            memory.write(f)?;
        }
        if let Some(scaling) = &self.scaling {
            scaling.write(f)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl Ledger {
    /// What is counted.
    pub(super) fn what(&self) -> &'static str {
        match (self.train, self.decode) {
            (true, _) => "a step of training",
            (_, true) => "one token more",
            (_, false) => "the way forward",
        }
    }

    fn passes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.train {
            let [forward, back, optimiser] = self.passes;
            let times = if forward > 0.0 { (forward + back) / forward } else { 0.0 };
            writeln!(
                f,
                "\nforward {} FLOP, back {}, optimiser {}; forward and back are {times:.2} times forward",
                short(forward),
                short(back),
                short(optimiser)
            )?;
        } else {
            writeln!(f)?;
        }
        let (p, roof) = (&self.prediction, &self.roof);
        let rate = p.tokens_per_s.map_or(String::new(), |r| format!(", {} tokens/s", short(r)));
        let limit = p.limit.map_or("nothing", super::Limit::name);
        writeln!(
            f,
            "predicted {}{rate}, MFU {:.1} %, bound by {limit}; the roofline allows {}",
            time(p.seconds),
            100.0 * p.mfu,
            time(p.roofline)
        )?;
        let [flops, bytes, ridge] = [roof.flops, roof.bytes, roof.ridge()].map(short);
        writeln!(f, "{}: {flops}FLOP/s of products, {bytes}B/s, ridge at {ridge} FLOP/byte", roof.machine)
    }
}

fn check(f: &mut fmt::Formatter<'_>, c: &super::Check) -> fmt::Result {
    let [textbook, counted] = [c.textbook, c.counted].map(short);
    let percent = if c.percent.abs() < 0.005 { "0 %".into() } else { format!("{:+.2} %", c.percent) };
    writeln!(f, "{:<22} {textbook:>9} {counted:>9} {percent:>8}  {} ({})", c.what, c.formula, c.source)
}

impl Memory {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [weights, gradients, optimiser] = [self.weights, self.gradients, self.optimiser].map(short);
        writeln!(f, "\nmemory: weights {weights}B, gradients {gradients}B, moments {optimiser}B")?;
        writeln!(f, "{:<22} {:>9} {:>9} {:>8} {:>9}  formula", "activations", "textbook", "counted", "above", "arena")?;
        for a in &self.activations {
            let c = &a.held;
            let [textbook, counted, arena] = [c.textbook, c.counted, a.arena as f64].map(short);
            writeln!(
                f,
                "{:<22} {textbook:>9} {counted:>9} {:>+6.1} % {arena:>9}  {} ({})",
                c.what, c.percent, c.formula, c.source
            )?;
        }
        Ok(())
    }
}

impl Scaling {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\na budget of {:.3e} FLOP, {:.3e} PF-days", self.flops, self.pf_days)?;
        writeln!(f, "{:<24} {:>10} {:>9} {:>10} {:>7}  source", "law", "parameters", "tokens", "tokens/par", "loss")?;
        for o in &self.optima {
            let loss = o.loss.map_or("-".into(), |l| format!("{l:.3}"));
            let [n, d, each] = [o.parameters, o.tokens, o.tokens / o.parameters].map(short);
            writeln!(f, "{:<24} {n:>10} {d:>9} {each:>10} {loss:>7}  {}", o.law, o.source)?;
        }
        let Some(s) = &self.model else { return Ok(()) };
        let took = s.seconds.map_or(String::new(), |s| format!(", {} as predicted", time(s)));
        writeln!(
            f,
            "of this model: {} tokens, {} for each parameter, {} steps{took}; loss {:.3} by Kaplan et al., {:.3} by Hoffmann et al.",
            short(s.tokens),
            short(s.tokens_per_parameter),
            short(s.steps.round()),
            s.loss_kaplan,
            s.loss_chinchilla
        )
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (12.0, "12"),
            (12.34, "12.3"),
            (999.7, "1.00 k"),
            (1234.0, "1.23 k"),
            (124_439_808.0, "124 M"),
            (5.76e23, "576 Z"),
            (0.5, "0.50"),
            (1e-5, "1.00e-5"),
        ];
        for (x, text) in cases {
            assert_eq!(short(x), text);
        }
        assert_eq!((whole(124_439_808.0).as_str(), whole(12.0).as_str()), ("124,439,808", "12"));
        assert_eq!((time(0.0123).as_str(), time(3e-6).as_str(), time(1e7).as_str()), ("12.3 ms", "3 us", "116 days"));
    }
}
