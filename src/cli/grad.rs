//! `tilewright grad`: the derivative of a program, as a program.

use super::compile::Shown;
use super::inputs::{self, InputArgs};
use super::progress::stage;
use crate::compile::{MAX_WORK_INTERPRETED, Work};
use crate::emit::Stage;
use clap::ValueEnum;
use std::sync::Arc;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::graph::Module;
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::types::Bindings;
use tilewright_ir::verify::Verified;
use tilewright_passes::autodiff::{self, Differentiated, check_module, differentiate};
use tilewright_passes::vmap::{hessian_of, hvp_of, jacobian};

/// What the program computes.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Form {
    /// The gradients of the first result, a scalar
    Gradient,
    /// All results, then the gradients of the first, a scalar
    ValueAndGradient,
    /// Takes cotangents of the float results, too; gives the results, then the cotangents of the parameters (vjp)
    Pullback,
    /// Takes tangents of the parameters, too; gives the results, then the tangents of the float results (jvp)
    Pushforward,
    /// The derivatives of each float result by each parameter: of the result's shape, then the parameter's
    Jacobian,
    /// The second derivatives of the first result, a scalar, by each pair of parameters
    Hessian,
    /// Takes tangents of the parameters, too; gives the Hessian of the first result, a scalar, times these
    Hvp,
}

impl Form {
    /// The form of one derivative. Errors: `bad-form` for those that are made of several.
    pub(super) fn one(self) -> Result<autodiff::Form, Diagnostic> {
        match self {
            Form::Gradient => Ok(autodiff::Form::Gradient),
            Form::ValueAndGradient => Ok(autodiff::Form::ValueAndGradient),
            Form::Pullback => Ok(autodiff::Form::Pullback),
            Form::Pushforward => Ok(autodiff::Form::Pushforward),
            Form::Jacobian | Form::Hessian | Form::Hvp => Err(Diagnostic::new(
                "bad-form",
                "expected gradient, value-and-gradient, pullback or pushforward, found one of whole matrices",
            )),
        }
    }

    /// The program. Errors: those of the transforms.
    fn of(self, module: &Module, wrt: &[&str]) -> Result<Differentiated, Diagnostic> {
        let whole = |module| Differentiated { module, unrelated: Vec::new(), kept: Vec::new() };
        match self {
            Form::Jacobian => jacobian(module, wrt).map(whole),
            Form::Hessian => hessian_of(module, wrt).map(whole),
            Form::Hvp => hvp_of(module, wrt),
            Form::Gradient | Form::ValueAndGradient | Form::Pullback | Form::Pushforward => {
                differentiate(module, wrt, self.one()?)
            }
        }
    }
}

/// Arguments of `grad`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Parameters to differentiate by, such as w,b; all floats if absent
    #[arg(long, value_delimiter = ',')]
    wrt: Vec<String>,
    /// What the program computes
    #[arg(long, value_enum, default_value_t = Form::Gradient)]
    form: Form,
    /// What to show: `graph` is a .tw file, which `run`, `compile` and `grad` take
    #[arg(long, value_enum, default_value_t = Stage::Graph)]
    emit: Stage,
    /// The function; if absent `main`, else the last
    #[arg(long)]
    function: Option<String>,
    /// Compare forward mode, reverse mode and differences of values at random or given inputs, all in f64, along a random
    /// direction of each parameter; what that does not check is said, such as what f16 rounds
    #[arg(long)]
    check: bool,
    /// Run the derivative in the interpreter up to the first node that makes a NaN of operands without one, or an infinity of
    /// finite operands, and name the line of the program that it is the derivative of; see `run --nan-hunt`
    #[arg(long, conflicts_with = "check")]
    nan_hunt: bool,
    #[command(flatten)]
    shown: Shown,
}

pub(super) fn run(args: &Args) -> Result<(), Diagnostic> {
    let module = super::load_module(&args.input.file, args.function.as_deref())?;
    let wrt = if args.wrt.is_empty() { floats(&module)? } else { args.wrt.clone() };
    let wrt: Vec<&str> = wrt.iter().map(String::as_str).collect();
    if args.check {
        return check(&module, &wrt, &args.input);
    }
    args.shown.check()?;
    stage("differentiating");
    let made = args.form.of(&module, &wrt).map_err(|d| match d.code {
        "not-scalar" => d.note("`--form pullback` takes a cotangent for each result"),
        _ => d,
    })?;
    unrelated(&made.unrelated);
    if args.nan_hunt {
        let (inputs, bindings) = chosen(&made.module, &args.input)?;
        return super::run::hunt(&made.module, &inputs, &bindings, Mode::Strict);
    }
    args.shown.show(Verified::new(&made.module)?, args.emit)
}

/// The warning that some parameters do not matter.
pub(super) fn unrelated(names: &[Arc<str>]) {
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(|name| format!("`%{name}`")).collect();
        super::note(&format!("warning[unrelated]: no result depends on {}: zeros\n", names.join(", ")));
    }
}

/// `--check`. Errors: `wrong-gradient` where they differ; `unchecked-gradient` where nothing could be compared.
fn check(module: &Module, wrt: &[&str], args: &InputArgs) -> Result<(), Diagnostic> {
    let (inputs, bindings) = chosen(module, args)?;
    stage("interpreting");
    let found = check_module(module, wrt, &inputs, &bindings)?;
    super::print(&found.to_string())?;
    found.verdict()?;
    if found.parameters.iter().all(|p| p.unchecked().is_some()) {
        let error = Diagnostic::new("unchecked-gradient", "differences say nothing of any derivative at these inputs");
        return Err(error.note("give inputs where the function is finite and smooth"));
    }
    Ok(())
}

/// Inputs and sizes for the interpreter. Errors: those of inputs; `too-much-work`.
fn chosen(module: &Module, args: &InputArgs) -> Result<(Vec<Array>, Bindings), Diagnostic> {
    let entry = module.entry()?;
    let given = inputs::given(args, entry)?;
    let bindings = inputs::symbols(args, entry, given.as_deref())?;
    let work = Work::of(module, &entry.name, &bindings)?;
    interp::fits(&work)?;
    work.check(MAX_WORK_INTERPRETED)?;
    let inputs = given.map_or_else(|| inputs::random(module, args.seed, &bindings), Ok)?;
    Ok((inputs, bindings))
}

/// The float parameters of the entry. Errors: `no-gradient` if there are none.
pub(super) fn floats(module: &Module) -> Result<Vec<String>, Diagnostic> {
    let f = module.entry()?;
    let names: Vec<String> = f.params.iter().filter(|p| p.ty.dtype.is_float()).map(|p| p.name.to_string()).collect();
    if names.is_empty() {
        let message = format!("no parameter of `@{}` is a float, and only floats have gradients", f.name);
        return Err(Diagnostic::new("no-gradient", message));
    }
    Ok(names)
}
