//! A report as one page that needs nothing else: the graph as it was given and the kernels' terms side by side, coloured
//! by kernel, and what there is to say of each kernel. Without scripts it is still all there.

use super::layout::{Size, layout};
use super::text::{bytes, number, saved, time, words};
use super::{Chain, FunctionReport, Kernel, Node, Report, Step};
use std::fmt::Write;

/// Width of a character of a label, and of the smaller second line.
const LETTER: [f64; 2] = [6.7, 5.8];
/// Longest line in a box.
const LONGEST: usize = 44;

/// The page; `title` is the name of what was explained.
pub fn page(report: &Report, title: &str) -> String {
    let mut out = String::new();
    let title = escaped(title);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}: kernels and why</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<header><h1>{title}</h1>\n<p class=\"faint\">for {}, priced as {}, \
         <code>--numerics {}</code>. A colour is a kernel: on the left the operations of the graph whose work it does, in the \
         middle the terms that it computes. Point or click.</p></header>",
        include_str!("page.css"),
        escaped(&report.target),
        escaped(&report.device),
        escaped(&report.numerics),
    );
    report.functions.iter().for_each(|f| section(&mut out, f));
    let _ = writeln!(out, "<script>\n{}</script>\n</body>\n</html>", include_str!("page.js"));
    out
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The colour of a kernel: hues far apart for neighbours.
fn colour(kernel: usize) -> String {
    let hue = (kernel as f64 * 137.508 + 210.0) % 360.0;
    format!("hsl({hue:.0} 72% {}%)", if kernel.is_multiple_of(2) { 84 } else { 76 })
}

fn section(out: &mut String, f: &FunctionReport) {
    let sizes: Vec<String> = f.sizes.iter().map(|(name, n)| format!("{name} = {n}")).collect();
    let _ = writeln!(
        out,
        "<section>\n<h2>@{} <span class=\"faint\">{}</span></h2>",
        escaped(&f.name),
        escaped(&sizes.join(", "))
    );
    for note in f.beyond.iter().chain(&f.notes) {
        let _ = writeln!(out, "<p class=\"rules\">Note: {}</p>", escaped(note));
    }
    if f.beyond.is_none() {
        summary(out, f);
    }
    out.push_str("<div class=\"panes\">\n");
    picture(out, "as given", &f.graph);
    picture(out, "as chosen", &f.chosen);
    out.push_str("<div class=\"pane tells\">\n");
    f.kernels.iter().enumerate().for_each(|(n, k)| kernel(out, n, k));
    out.push_str("</div>\n</div>\n</section>\n");
}

fn summary(out: &mut String, f: &FunctionReport) {
    out.push_str(
        "<table>\n<tr><th></th><th>launches</th><th>FLOPs</th><th>bytes</th><th>predicted</th><th>peak</th></tr>\n",
    );
    let names = ["level 0, each operation alone", "level 1, fused in a fixed order", "level 2, chosen"];
    for (level, (name, c)) in names.iter().zip(&f.levels).enumerate() {
        let (moved, peak) = (c.bytes.map_or("-".into(), bytes), f.peak.map_or("-".into(), |p| bytes(p[level])));
        let (flops, took) = (number(c.flops), time(c.seconds));
        let cells = [c.launches.to_string(), flops, moved, took, peak].map(|cell| format!("<td>{cell}</td>")).concat();
        let _ = writeln!(out, "<tr><td>{name}</td>{cells}</tr>");
    }
    let gap = 100.0 * super::gap(f.bound, f.levels[2].seconds.unwrap_or(0.0));
    let list = |rules: &[String]| if rules.is_empty() { "none".into() } else { escaped(&rules.join(", ")) };
    let _ = writeln!(
        out,
        "</table>\n<p class=\"rules\">No choice among the kernels looked at takes less than {}: a gap of {gap:.1} %. Rules \
         used: {}. <span class=\"faint\">Fired, in no kernel: {}.</span></p>",
        time(Some(f.bound)),
        list(&f.used),
        list(&f.unused)
    );
    if !f.barriers.is_empty() {
        out.push_str("<p class=\"rules\">Operations that no rule changes:</p>\n<ul class=\"rules\">\n");
        for b in &f.barriers {
            let (operation, names, why) = (escaped(&b.operation), escaped(&b.names.join(", ")), escaped(&b.why));
            let cost = words(&b.cost);
            let _ =
                writeln!(out, "<li>{operation} as <code>{names}</code>, {why}: {cost}, bound by {}</li>", b.bound_by);
        }
        out.push_str("</ul>\n");
    }
}

fn kernel(out: &mut String, n: usize, k: &Kernel) {
    let _ = writeln!(
        out,
        "<div class=\"kernel\" data-kernel=\"{n}\" style=\"border-color: {}\">\n<h3>kernel {n} <code>{}</code></h3>\n<p>{}</p>\n\
         <pre>{}</pre>\n<p>{}, bound by {}</p>",
        colour(n),
        escaped(&k.names.join(", ")),
        escaped(&k.template),
        escaped(k.terms.trim_end()),
        words(&k.cost),
        k.bound_by
    );
    if k.replaces.is_empty() {
        out.push_str("<p class=\"faint\">What only rules made, for another kernel.</p>\n");
    } else {
        for (level, before) in k.before.iter().enumerate() {
            let _ = writeln!(out, "<p class=\"faint\">level {level}: {}{}</p>", words(before), saved(&k.cost, before));
        }
    }
    let second = k.second.as_ref().map_or("nothing else computes this".into(), |s| {
        let reads = if s.reads.is_empty() { "nothing".into() } else { s.reads.join(" ") };
        format!("{} that reads {reads}, {} more", escaped(&s.template), time(Some(s.loss)))
    });
    let _ = writeln!(out, "<p>Second: {second}</p>");
    k.chains.iter().for_each(|c| chain(out, c));
    out.push_str("</div>\n");
}

fn chain(out: &mut String, c: &Chain) {
    let name = c.value.as_ref().map_or(c.stored_as.clone(), |v| format!("{v} ({})", c.stored_as));
    let name = escaped(&name);
    match &c.steps {
        None if c.value.is_none() => {
            let _ = writeln!(
                out,
                "<p>{name} is no value of the graph; it is in the chains of the kernels that read it.</p>"
            );
        }
        None => {
            let _ = writeln!(out, "<p>{name}: the rules stopped before they got here again.</p>");
        }
        Some(steps) if steps.is_empty() => {
            let _ = writeln!(out, "<p>{name} is as the graph has it.</p>");
        }
        Some(steps) => {
            let _ = writeln!(out, "<p>{name} by rules:</p>\n<ol>");
            steps.iter().for_each(|s| step(out, s));
            out.push_str("</ol>\n");
        }
    }
}

fn step(out: &mut String, s: &Step) {
    let about: Vec<&str> = s.values.iter().chain(&s.scopes).chain(&s.places).map(String::as_str).collect();
    let _ = writeln!(
        out,
        "<li><b>{}</b> <span class=\"faint\">{}, {}{}</span>\n<pre>{}\n  =&gt; {}</pre>\n<span class=\"faint\">{}</span></li>",
        escaped(&s.rule),
        escaped(&s.class),
        escaped(s.line.as_deref().unwrap_or("built in")),
        if s.forward { "" } else { ", from right to left" },
        escaped(&s.before),
        escaped(&s.after),
        escaped(&about.join(", "))
    );
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.into();
    }
    text.chars().take(LONGEST - 2).collect::<String>() + ".."
}

/// A graph, drawn.
fn picture(out: &mut String, title: &str, nodes: &[Node]) {
    let lines = |n: &Node| [shortened(&n.label), n.detail.first().map_or(String::new(), |d| shortened(d))];
    let size = |n: &Node| {
        let wide = lines(n).iter().zip(LETTER).map(|(l, w)| l.chars().count() as f64 * w).fold(20.0, f64::max);
        Size { width: wide + 14.0, height: 34.0 }
    };
    let sizes: Vec<Size> = nodes.iter().map(size).collect();
    let edges: Vec<(usize, usize)> =
        nodes.iter().enumerate().flat_map(|(b, n)| n.operands.iter().map(move |&a| (a, b))).collect();
    let made = layout(&sizes, &edges);
    let (width, height) = (made.width + 8.0, made.height + 8.0);
    let _ = writeln!(
        out,
        "<div class=\"pane\"><div class=\"title faint\">{title}: {} nodes</div>\n<svg width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"-4 -4 {width:.0} {height:.0}\" xmlns=\"http://www.w3.org/2000/svg\">",
        nodes.len()
    );
    for (points, &(a, b)) in made.edges.iter().zip(&edges) {
        let _ = writeln!(out, "<path d=\"{}\"/>", curve(points, sizes[a].height / 2.0, sizes[b].height / 2.0));
    }
    for ((node, size), (x, y)) in nodes.iter().zip(&sizes).zip(&made.boxes) {
        let kernels: Vec<String> = node.kernels.iter().map(usize::to_string).collect();
        let fill = node.kernels.first().map_or("#eceef1".into(), |k| colour(*k));
        let [first, second] = lines(node).map(|l| escaped(&l));
        let told = std::iter::once(&node.label).chain(&node.detail).map(|l| escaped(l)).collect::<Vec<_>>().join("\n");
        let _ = writeln!(
            out,
            "<g data-kernels=\"{}\"><title>{told}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"4\" \
             fill=\"{fill}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{first}</text><text class=\"second\" \
             x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second}</text></g>",
            kernels.join(" "),
            x - size.width / 2.0,
            y - size.height / 2.0,
            size.width,
            size.height,
            y - 2.5,
            y + 10.5
        );
    }
    out.push_str("</svg></div>\n");
}

/// A line from the bottom of a box to the top of another, upright at its points.
fn curve(points: &[(f64, f64)], above: f64, below: f64) -> String {
    let mut out = String::new();
    let last = points.len().saturating_sub(1);
    let mut from: Option<(f64, f64)> = None;
    for (i, &(x, y)) in points.iter().enumerate() {
        let y = y + if i == 0 {
            above
        } else if i == last {
            -below
        } else {
            0.0
        };
        let _ = match from {
            None => write!(out, "M{x:.1} {y:.1}"),
            Some((a, b)) => {
                let middle = (b + y) / 2.0;
                write!(out, " C{a:.1} {middle:.1} {x:.1} {middle:.1} {x:.1} {y:.1}")
            }
        };
        from = Some((x, y));
    }
    out
}
