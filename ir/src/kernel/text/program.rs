//! Printing of programs: parameters, work buffers, steps, then the kernels.

use crate::graph::Role;
use crate::kernel::program::{Program, ProgramBuffer, Step};
use std::fmt::Write;

fn buffer(b: &ProgramBuffer) -> String {
    let alias = b.alias_of.as_ref().map(|a| format!(" alias({a})")).unwrap_or_default();
    format!("{}: {}{alias}", b.name, b.ty)
}

fn step(out: &mut String, program: &Program, s: &Step) {
    let _ = match s {
        Step::Launch(l) => {
            let name = program.kernels.get(l.kernel).map_or("?", |k| &*k.name);
            let when = l.when.as_ref().map(|e| format!(" when({e})")).unwrap_or_default();
            writeln!(out, "  launch {name}({}){when}", l.arguments.join(", "))
        }
        Step::Call(c) => {
            let symbols: Vec<String> = c.symbols.iter().map(|(s, d)| format!("{s}={d}")).collect();
            let symbols = if symbols.is_empty() { String::new() } else { format!(" with({})", symbols.join(", ")) };
            let (results, arguments) = (c.results.join(", "), c.arguments.join(", "));
            writeln!(out, "  {results} = call {}({arguments}){symbols}", c.function)
        }
        Step::Pack(p) => writeln!(
            out,
            "  pack {} <- {} dtype({}) k({}, stride={}) n({}, stride={}) nr({})",
            p.to, p.from, p.dtype, p.k, p.k_stride, p.n, p.n_stride, p.nr
        ),
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
