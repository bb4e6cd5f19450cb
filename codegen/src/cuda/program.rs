//! Whole programs as one CUDA C text: the helpers once, every kernel, and the launch plan as comments.

use super::{CudaKernel, c_word, describe, emit_as, prelude};
use std::fmt::Write;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::kernel::text::print_step;
use tilewright_ir::kernel::{Program, ProgramBuffer, Step};

/// Programs with their CUDA C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaPrograms {
    /// One text that compiles as a whole.
    pub text: String,
    /// The kernels of every program, in the program's order; a kernel of `main` named `dot_3` is the function `main_dot_3`.
    pub kernels: Vec<Vec<CudaKernel>>,
}

/// The CUDA C of programs that were lowered for a GPU.
///
/// # Errors
/// Those of [`super::emit`]; `cuda-unsupported` for steps that only a CPU has.
pub fn emit_programs(programs: &[Program]) -> Result<CudaPrograms, Diagnostic> {
    let mut kernels = Vec::new();
    let (mut plan, mut functions) = (String::new(), String::new());
    for program in programs {
        let name = c_word(&program.name);
        let emitted = program.kernels.iter().map(|k| emit_as(k, &format!("{name}_{}", c_word(&k.name))));
        let emitted = emitted.collect::<Result<Vec<_>, _>>()?;
        plan_of(&mut plan, program, &emitted)?;
        emitted.iter().for_each(|k| functions += &format!("\n{}", k.text));
        kernels.push(emitted);
    }
    let helpers = prelude::helpers(&functions);
    Ok(CudaPrograms { text: format!("{plan}\n{helpers}{functions}"), kernels })
}

fn buffer(b: &ProgramBuffer) -> String {
    let alias = b.alias_of.as_ref().map_or(String::new(), |a| format!(", the memory of {a}"));
    format!("{}: {}{alias}", b.name, b.ty)
}

/// Buffers and steps, one a line.
fn plan_of(out: &mut String, program: &Program, kernels: &[CudaKernel]) -> Result<(), Diagnostic> {
    let start = out.len();
    let _ = writeln!(out, "program {}", program.name);
    for s in &program.symbols {
        let by = if s.step == 1 { String::new() } else { format!(" by {}", s.step) };
        let _ = writeln!(out, "  symbol {} in {}..={}{by}", s.name, s.low, s.high);
    }
    for p in &program.params {
        let _ = writeln!(out, "  {} {}", format!("{:?}", p.role).to_lowercase(), buffer(&p.buffer));
    }
    for w in &program.work {
        let constant = program.constants.iter().any(|(n, _)| *n == w.name);
        let _ = writeln!(out, "  {} {}", if constant { "constant" } else { "work" }, buffer(w));
    }
    for step in &program.steps {
        match step {
            Step::Launch(l) => {
                let (Some(kernel), Some(c)) = (program.kernels.get(l.kernel), kernels.get(l.kernel)) else {
                    return Err(Diagnostic::bug("a launch of no kernel"));
                };
                let mut arguments: Vec<String> = l.arguments.iter().map(ToString::to_string).collect();
                arguments.extend(kernel.symbols.iter().map(|s| s.name.to_string()));
                let when = l.when.as_ref().map_or(String::new(), |e| format!(" where {}", describe::expr(e)));
                let (grid, arguments) = (super::blocks(kernel, " * "), arguments.join(", "));
                let (threads, dynamic) = (c.threads, c.dynamic_bytes);
                let _ = writeln!(out, "  {}<<<{grid}, {threads}, {dynamic}>>>({arguments}){when}", c.name);
            }
            Step::Call(_) | Step::Cond(_) | Step::Scan(_) => out.push_str(&print_step(program, step)),
            Step::Pack(p) => {
                return Err(super::unsupported(format!("panels of `{}`, which are a CPU's", p.from)));
            }
        }
    }
    let _ = writeln!(out, "  return {}", program.results.join(", "));
    // A backslash at the end of a comment would join the next line to it.
    let text = out.split_off(start).replace('\\', " ");
    text.lines().for_each(|l| *out += &format!("// {l}\n"));
    Ok(())
}
