//! Plans for people: sizes first, then a line per buffer and per step.

use super::{Content, Extent, Home, Plan, Returned, bytes_of};
use std::fmt::Write;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::{Program, Step};

fn home(home: Home) -> String {
    match home {
        Home::Param(i) => format!("param({i})"),
        Home::Result(k) => format!("result({k})"),
        Home::Constant(i) => format!("constant({i})"),
        Home::Panels(i) => format!("panels({i})"),
        Home::Slot(s) => format!("slot({s})"),
    }
}

fn bound(extent: &Extent, plan: &Plan) -> String {
    extent.bound(&plan.symbols).map_or("beyond 2^63".into(), |b| b.to_string())
}

/// The plan of `program`; `names` are those of all programs. Errors: `dim-overflow`.
pub fn print_plan(program: &Program, plan: &Plan, names: &[&str]) -> Result<String, Diagnostic> {
    let mut out = format!("plan {} {{\n", program.name);
    for s in &plan.symbols {
        let by = if s.step == 1 { String::new() } else { format!(" by {}", s.step) };
        let _ = writeln!(out, "  sym {} in {}..={}{by}", s.name, s.low, s.high);
    }
    let _ = writeln!(out, "  peak {} bytes", plan.peak);
    let _ = writeln!(out, "  peak at most {} bytes", bound(&plan.peak, plan));
    for b in program.params.iter().map(|p| &p.buffer).chain(&program.work) {
        let place = plan.homes.get(&b.name).map_or("unused".into(), |h| home(*h));
        let alias = b.alias_of.as_ref().map(|a| format!(" alias({a})")).unwrap_or_default();
        let _ = writeln!(out, "  buffer {}: {} bytes({}) in {place}{alias}", b.name, b.ty, bytes_of(&b.ty)?);
    }
    for (i, slot) in plan.slots.iter().enumerate() {
        let what = match &slot.content {
            Content::Buffers(_) => String::new(),
            Content::Frame(callees) => {
                let all: Vec<&str> = callees.iter().map(|(c, _)| *names.get(*c).unwrap_or(&"?")).collect();
                format!(" arena({})", all.join(", "))
            }
        };
        let (bytes, offset, first, last) = (&slot.bytes, &slot.offset, slot.first, slot.last);
        let _ = writeln!(out, "  slot {i}: at {offset} bytes({bytes}) steps {first}..={last}{what}");
    }
    for (number, step) in program.steps.iter().enumerate() {
        let line = step_line(program, plan, step);
        let _ = writeln!(out, "  step {number}: {line}");
    }
    for ((returned, _), name) in plan.results.iter().zip(&program.results) {
        let how = match returned {
            Returned::Written => "written in place".into(),
            Returned::Param(i) => format!("is donated param({i})"),
            Returned::Copied(from) => format!("copied from {}", home(*from)),
        };
        let _ = writeln!(out, "  return {name}: {how}");
    }
    for warning in &program.warnings {
        let _ = writeln!(out, "  warning {}: {}", warning.code, warning.message);
    }
    out.push_str("}\n");
    Ok(out)
}

fn step_line(program: &Program, plan: &Plan, step: &Step) -> String {
    match step {
        Step::Launch(l) => {
            let name = program.kernels.get(l.kernel).map_or("?", |k| &*k.name);
            let when = l.when.as_ref().map(|e| format!(" when({e})")).unwrap_or_default();
            format!("launch {name}({}){when}", l.arguments.join(", "))
        }
        Step::Call(c) => format!("{} = call {}({})", c.results.join(", "), c.function, c.arguments.join(", ")),
        Step::Cond(c) => {
            let (yes, no) = (&c.yes.function, &c.no.function);
            format!("{} = cond {}, {yes}, {no}({})", c.results.join(", "), c.predicate, c.arguments.join(", "))
        }
        Step::Scan(s) => {
            let arguments: Vec<&str> = s.arguments.iter().map(|a| &**a.name()).collect();
            let results: Vec<&str> = s.results.iter().map(|r| r.name().map_or("_", |n| &**n)).collect();
            format!("{} = scan {} {}({})", results.join(", "), s.length, s.body.function, arguments.join(", "))
        }
        Step::Pack(p) => {
            let kept = matches!(plan.homes.get(&p.to), Some(Home::Panels(_)));
            format!("pack {} <- {}{}", p.to, p.from, if kept { " once" } else { "" })
        }
    }
}
