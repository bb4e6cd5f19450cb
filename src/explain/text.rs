//! A report as text.

use super::{Cost, FunctionReport, Kernel, Report, Step};
use std::fmt::Write;

/// Most operations that are listed for a kernel.
const LISTED: usize = 24;

/// The report; of one kernel of one function if `kernel` says its number.
pub fn text(report: &Report, kernel: Option<(usize, usize)>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "for {}, priced as {}; --numerics {}", report.target, report.device, report.numerics);
    for (i, f) in report.functions.iter().enumerate() {
        if kernel.is_none_or(|k| k.0 == i) {
            function(&mut out, f, kernel.map(|k| k.1));
        }
    }
    out
}

fn function(out: &mut String, f: &FunctionReport, only: Option<usize>) {
    let sizes: Vec<String> = f.sizes.iter().map(|(name, n)| format!("{name} = {n}")).collect();
    let sizes = if sizes.is_empty() { String::new() } else { format!(", for {}", sizes.join(", ")) };
    let _ = writeln!(out, "\nfunc @{}{sizes}", f.name);
    for note in f.beyond.iter().chain(&f.notes) {
        let _ = writeln!(out, "  note: {note}");
    }
    if f.beyond.is_some() {
        return;
    }
    if only.is_none() {
        summary(out, f);
    }
    for (number, k) in f.kernels.iter().enumerate().filter(|(n, _)| only.is_none_or(|o| o == *n)) {
        write_kernel(out, number, k);
    }
    if only.is_none() && !f.barriers.is_empty() {
        out.push_str("\n  operations that no rule changes:\n");
        for b in &f.barriers {
            let names = b.names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            let (operation, why, cost) = (&b.operation, &b.why, words(&b.cost));
            let _ = writeln!(out, "    {operation} as {names}, {why}: {cost}, bound by {}", b.bound_by);
        }
    }
}

fn summary(out: &mut String, f: &FunctionReport) {
    let names = ["level 0, each op alone", "level 1, fixed order", "level 2, chosen"];
    let _ =
        writeln!(out, "  {:<24}{:>9}{:>12}{:>12}{:>12}{:>12}", "", "launches", "FLOPs", "bytes", "predicted", "peak");
    for (level, (name, cost)) in names.iter().zip(&f.levels).enumerate() {
        let peak = f.peak.map_or("-".into(), |p| bytes(p[level]));
        let (flops, moved, time) = (number(cost.flops), cost.bytes.map_or("-".into(), bytes), time(cost.seconds));
        let _ = writeln!(out, "  {name:<24}{:>9}{flops:>12}{moved:>12}{time:>12}{peak:>12}", cost.launches);
    }
    let gap = 100.0 * super::gap(f.bound, f.levels[2].seconds.unwrap_or(0.0));
    let bound = time(Some(f.bound));
    let _ = writeln!(out, "  no choice among the kernels looked at takes less than {bound}: a gap of {gap:.1} %");
    for (what, rules) in [("rules used", &f.used), ("fired, in no kernel", &f.unused)] {
        let list = if rules.is_empty() { "none".to_string() } else { rules.join(", ") };
        let _ = writeln!(out, "  {what}: {list}");
    }
}

fn write_kernel(out: &mut String, number: usize, k: &Kernel) {
    let names = k.names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "\n  kernel {number} {names}: {}", k.template);
    for line in k.terms.lines() {
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "    takes {}, bound by {}", words(&k.cost), k.bound_by);
    let more = k.replaces.len().saturating_sub(LISTED);
    let shown: Vec<&str> = k.replaces.iter().take(LISTED).map(String::as_str).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if shown.is_empty() {
        let _ = writeln!(out, "    does no operation of the graph: what only rules made, for another kernel");
    } else {
        let _ = writeln!(out, "    instead of {}{more}", shown.join(", "));
        for (level, before) in k.before.iter().enumerate() {
            let _ = writeln!(out, "      level {level}: {}{}", words(before), saved(&k.cost, before));
        }
    }
    match &k.second {
        Some(second) => {
            let reads = if second.reads.is_empty() { "nothing".into() } else { second.reads.join(" ") };
            let part = k.cost.seconds.filter(|s| *s > 0.0).map_or(0.0, |s| 100.0 * second.loss / s);
            let more = time(Some(second.loss));
            let _ = writeln!(out, "    second: {} that reads {reads}, {more} more ({part:.0} %)", second.template);
        }
        None => out.push_str("    second: nothing else computes this\n"),
    }
    for chain in &k.chains {
        let value = chain.value.as_ref().map_or(String::new(), |v| format!("{v} "));
        let stored = &chain.stored_as;
        match &chain.steps {
            None if chain.value.is_none() => {
                let _ = writeln!(out, "    {stored}: no value of the graph; in the chains of the kernels that read it");
            }
            None => {
                let _ = writeln!(out, "    {value}({stored}): the rules stopped before they got here again");
            }
            Some(steps) if steps.is_empty() => {
                let _ = writeln!(out, "    {value}({stored}): as the graph has it, no rule");
            }
            Some(steps) => {
                let s = if steps.len() == 1 { "" } else { "s" };
                let _ = writeln!(out, "    {value}({stored}), by {} use{s} of rules:", steps.len());
                steps.iter().enumerate().for_each(|(i, step)| write_step(out, i + 1, step));
            }
        }
    }
}

fn write_step(out: &mut String, number: usize, s: &Step) {
    let line = s.line.as_deref().unwrap_or("built in");
    let back = if s.forward { "" } else { ", from right to left" };
    let about: Vec<&str> = s.values.iter().chain(&s.scopes).chain(&s.places).map(String::as_str).collect();
    let about = if about.is_empty() { String::new() } else { format!("  [{}]", about.join(", ")) };
    let _ = writeln!(out, "    {number:>3}. {} ({}, {line}{back}){about}", s.rule, s.class);
    let _ = writeln!(out, "            {}\n         => {}", s.before, s.after);
}

/// A cost in words.
pub(super) fn words(c: &Cost) -> String {
    let s = if c.launches == 1 { "" } else { "es" };
    let flops = c.flops.map_or(String::new(), |n| format!(", {} FLOPs", number(Some(n))));
    let moved = c.bytes.map_or(String::new(), |n| format!(", {}", bytes(n)));
    format!("{} launch{s}{flops}{moved}, {}", c.launches, time(c.seconds))
}

/// What a kernel saves and what it costs more, in words.
pub(super) fn saved(here: &Cost, before: &Cost) -> String {
    let (mut less, mut more) = (Vec::new(), Vec::new());
    let mut put = |difference: i64, text: &dyn Fn(i64) -> String| match difference {
        0 => {}
        n if n > 0 => less.push(text(n)),
        n => more.push(text(n.saturating_neg())),
    };
    let launches = |n: i64| format!("{n} launch{}", if n == 1 { "" } else { "es" });
    put(before.launches as i64 - here.launches as i64, &launches);
    let of = |a: Option<i64>, b: Option<i64>| a.zip(b).map_or(0, |(a, b)| b.saturating_sub(a));
    put(of(here.flops, before.flops), &|n| format!("{} FLOPs", number(Some(n))));
    put(of(here.bytes, before.bytes), &bytes);
    if let (Some(a), Some(b)) = (here.seconds, before.seconds) {
        // In units of what is shown.
        put(((b - a) * 1e8).round() as i64, &|n| {
            let part = if b > 0.0 { format!(" ({:.0} %)", 100.0 * (1.0 - a / b).abs()) } else { String::new() };
            format!("{}{part}", time(Some(n as f64 * 1e-8)))
        });
    }
    let one = |what: &str, parts: &[String]| match parts {
        [] => String::new(),
        parts => format!("; {what} {}", parts.join(", ")),
    };
    if less.is_empty() && more.is_empty() { "; the same".into() } else { one("saves", &less) + &one("costs", &more) }
}

/// A number with a prefix.
pub(super) fn number(n: Option<i64>) -> String {
    let Some(n) = n else { return "-".into() };
    let size = n.unsigned_abs() as f64;
    let sign = if n < 0 { "-" } else { "" };
    for (unit, name) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if size >= unit {
            let unit = if name == "k" { 1e3 } else { unit };
            return format!("{sign}{:.1}{name}", size / unit);
        }
    }
    n.to_string()
}

/// Bytes with a unit.
pub(crate) fn bytes(n: i64) -> String {
    let size = n.unsigned_abs() as f64;
    let sign = if n < 0 { "-" } else { "" };
    for (unit, name) in [(1e9, "GB"), (1e6, "MB"), (1e3, "KB")] {
        if size >= unit {
            return format!("{sign}{:.1} {name}", size / unit);
        }
    }
    format!("{n} B")
}

/// Seconds with a unit.
pub(super) fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        Some(s) if s.abs() >= 1.0 => format!("{s:.2} s"),
        Some(s) if s.abs() >= 1e-3 => format!("{:.2} ms", s * 1e3),
        Some(s) => format!("{:.2} us", s * 1e6 + 0.0),
    }
}
