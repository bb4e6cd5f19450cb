//! Printing of programs: parameters, work buffers, steps, then the kernels.

use crate::graph::Role;
use crate::kernel::program::{Program, ProgramBuffer, ScanArgument, ScanResult, Step};
use crate::types::{Dim, Symbol};
use std::fmt::Write;

fn buffer(b: &ProgramBuffer) -> String {
    let alias = b.alias_of.as_ref().map(|a| format!(" alias({a})")).unwrap_or_default();
    format!("{}: {}{alias}", b.name, b.ty)
}

fn with(symbols: &[(Symbol, Dim)]) -> String {
    let symbols: Vec<String> = symbols.iter().map(|(s, d)| format!("{s}={d}")).collect();
    if symbols.is_empty() { String::new() } else { format!(" with({})", symbols.join(", ")) }
}

fn scan_argument(a: &ScanArgument) -> String {
    match a {
        ScanArgument::Fixed(name) => format!("fixed {name}"),
        ScanArgument::Carry(name) => format!("carry {name}"),
        ScanArgument::Slice(name) => format!("slice {name}"),
    }
}

fn scan_result(r: &ScanResult) -> String {
    match r {
        ScanResult::Fixed => "fixed".into(),
        ScanResult::Carry(name) => format!("carry {name}"),
        ScanResult::Stack(name) => format!("stack {name}"),
    }
}

/// One step of a program as a line.
pub fn print_step(program: &Program, s: &Step) -> String {
    let mut out = String::new();
    step(&mut out, program, s);
    out
}

fn step(out: &mut String, program: &Program, s: &Step) {
    let _ = match s {
        Step::Launch(l) => {
            let name = program.kernels.get(l.kernel).map_or("?", |k| &*k.name);
            let when = l.when.as_ref().map(|e| format!(" when({e})")).unwrap_or_default();
            writeln!(out, "  launch {name}({}){when}", l.arguments.join(", "))
        }
        Step::Call(c) => {
            let (results, arguments) = (c.results.join(", "), c.arguments.join(", "));
            writeln!(out, "  {results} = call {}({arguments}){}", c.function, with(&c.symbols))
        }
        Step::Cond(c) => {
            let (results, arguments) = (c.results.join(", "), c.arguments.join(", "));
            let (yes, no) = (with(&c.yes.symbols), with(&c.no.symbols));
            let chosen = format!("yes {}{yes} no {}{no}", c.yes.function, c.no.function);
            writeln!(out, "  {results} = cond({}) {chosen} ({arguments})", c.predicate)
        }
        Step::Scan(s) => {
            let results: Vec<String> = s.results.iter().map(scan_result).collect();
            let arguments: Vec<String> = s.arguments.iter().map(scan_argument).collect();
            let (results, arguments) = (results.join(", "), arguments.join(", "));
            let (name, symbols) = (&s.body.function, with(&s.body.symbols));
            writeln!(out, "  {results} = scan({}) {name}({arguments}){symbols}", s.length)
        }
        Step::Pack(p) => {
            let when = p.when.as_ref().map(|e| format!(" when({e})")).unwrap_or_default();
            let batch: Vec<String> = p.batch.iter().map(|(n, s)| format!(" batch({n}, stride={s})")).collect();
            let (batch, offset) =
                (batch.concat(), if p.offset.is(0) { String::new() } else { format!(" + {}", p.offset) });
            let panels = if p.panels == p.dtype { String::new() } else { format!(" to {}", p.panels) };
            let (k, n) = (format!("k({}, stride={})", p.k, p.k_stride), format!("n({}, stride={})", p.n, p.n_stride));
            writeln!(
                out,
                "  pack {} <- {}{offset} dtype({}{panels}){batch} {k} {n} nr({}){when}",
                p.to, p.from, p.dtype, p.nr
            )
        }
    };
}

/// The program for people: its kernels parse with [`super::parse_kernels`], the rest is read only by eyes.
pub fn print_program(program: &Program) -> String {
    let mut out = format!("program {} {{\n", program.name);
    for s in &program.symbols {
        let by = if s.step == 1 { String::new() } else { format!(" by {}", s.step) };
        let _ = writeln!(out, "  sym {} in {}..={}{by}", s.name, s.low, s.high);
    }
    for p in &program.params {
        let role = match p.role {
            Role::Input => "input",
            Role::Weight => "weight",
            Role::Donated => "donated",
        };
        let _ = writeln!(out, "  {role} {}", buffer(&p.buffer));
    }
    for w in &program.work {
        let constant = program.constants.iter().any(|(n, _)| *n == w.name);
        let _ = writeln!(out, "  {} {}", if constant { "constant" } else { "work" }, buffer(w));
    }
    program.steps.iter().for_each(|s| step(&mut out, program, s));
    let _ = writeln!(out, "  return {}", program.results.join(", "));
    out.push_str("}\n");
    for k in &program.kernels {
        let _ = write!(out, "\n{k}");
    }
    out
}
