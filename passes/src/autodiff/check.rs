//! Whether derivatives are right: against differences of values, and forward mode against reverse mode.

use super::{Form, differentiate};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::{Graph, Tensor};
use tilewright_ir::graph::{Function, Module};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::op::{GraphOp, Literal, ScalarOp};
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_ir::verify::verify;

/// What was found for each parameter.
#[derive(Clone, Debug)]
pub struct GradCheck {
    /// In the order in which they were asked for.
    pub parameters: Vec<ParameterCheck>,
    /// Dtypes of few digits and small range that the program computes in, which was done in f64 here.
    pub narrow: BTreeSet<DType>,
}

/// One derivative in three ways: `ct . dy / dt`, of all float results together along `ct`, where one parameter moves along `t`, both
/// random and of length 1.
#[derive(Clone, Debug)]
pub struct ParameterCheck {
    /// Its name.
    pub name: Arc<str>,
    /// From values on both sides.
    pub differences: f64,
    /// The error that the differences may have themselves, from differences of another step: large where the function has a kink or
    /// a jump nearby.
    pub uncertainty: f64,
    /// By forward mode; none where a custom rule is for reverse mode only.
    pub forward: Option<f64>,
    /// By reverse mode.
    pub reverse: f64,
    /// The largest magnitude of what the sums behind these numbers are made of, below which they cannot be told apart.
    pub size: f64,
}

/// How far numbers of f64 may be apart: both modes compute the same sums in another order.
const MODES: f64 = 1e-9;

/// How far differences may be from a derivative, beside their own uncertainty.
const DIFFERENCES: f64 = 1e-5;

impl ParameterCheck {
    /// What is wrong; none if nothing is.
    pub fn wrong(&self) -> Option<String> {
        // What is infinite is no measure of what is not.
        let size = if self.size.is_finite() { self.size } else { 0.0 };
        let apart = |a: f64, b: f64| a.is_nan() != b.is_nan() || (a != b && (a - b).abs() > MODES * size + 1e-12);
        if let Some(forward) = self.forward.filter(|forward| apart(*forward, self.reverse)) {
            return Some(format!("forward mode gives {forward:.9e}, reverse mode {:.9e}", self.reverse));
        }
        let may = DIFFERENCES * size + 2.0 * self.uncertainty + 1e-9;
        let agrees = (self.differences - self.reverse).abs() <= may;
        // Differences that are not finite say nothing, nor do uncertain ones of what is infinite.
        let says = self.differences.is_finite() && self.uncertainty.is_finite();
        (!agrees && says && (!self.reverse.is_infinite() || self.unchecked().is_none()))
            .then(|| format!("the derivative is {:.9e}, differences give {:.9e}", self.reverse, self.differences))
    }

    /// Why differences say nothing of the derivative; none if they do.
    pub fn unchecked(&self) -> Option<&'static str> {
        let error = 2.0 * self.uncertainty;
        if !(self.differences.is_finite() && error.is_finite()) {
            return Some("differences are not finite");
        }
        let (size, derivative) = if self.reverse.is_infinite() {
            (self.differences.abs(), self.differences.abs())
        } else {
            (self.size, self.reverse.abs())
        };
        let large = error > DIFFERENCES * size + 1e-9 && error >= derivative;
        large.then_some("differences are no more certain than the derivative is large, as near a jump or a kink")
    }
}

impl GradCheck {
    /// Errors: `wrong-gradient` for the first parameter whose derivatives do not agree.
    pub fn verdict(&self) -> Result<(), Diagnostic> {
        match self.parameters.iter().find_map(|p| p.wrong().map(|what| (p, what))) {
            None => Ok(()),
            Some((p, what)) => Err(Diagnostic::new("wrong-gradient", format!("by `%{}`: {what}", p.name))
                .note("a custom rule may be wrong, or the function has a kink, a jump or a stopped gradient here")),
        }
    }
}

/// A line for each parameter.
impl fmt::Display for GradCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.parameters {
            let forward = p.forward.map_or_else(|| "none (rule for reverse mode only)".into(), |x| format!("{x:.9e}"));
            let said = match (p.wrong(), p.unchecked()) {
                (Some(_), _) => "DIFFER".to_string(),
                (None, Some(why)) => format!("not checked, {why}"),
                (None, None) => "agree".to_string(),
            };
            writeln!(
                f,
                "{}: differences {:.9e} (within {:.1e}), forward {forward}, reverse {:.9e}: {said}",
                p.name, p.differences, p.uncertainty, p.reverse
            )?;
        }
        for dtype in &self.narrow {
            writeln!(
                f,
                "not checked: what {dtype} rounds and what is too large for it, as all of this is computed in f64"
            )?;
        }
        Ok(())
    }
}

/// Checks the derivatives of a closure over the DSL at `inputs`, which are what it gets; floats are what it is differentiated
/// by. Everything is computed in f64 by the interpreter.
///
/// Errors: those of the DSL, of [`differentiate`] and of the interpreter. Whether they agree says [`GradCheck::verdict`].
#[track_caller]
pub fn check_grads(f: impl Fn(&[Tensor]) -> Vec<Tensor>, inputs: &[Array]) -> Result<GradCheck, Diagnostic> {
    let g = Graph::new("main");
    let input = |(i, x): (usize, &Array)| {
        let shape: Vec<_> = x.shape().iter().map(|&n| tilewright_ir::types::Dim::from(n)).collect();
        g.input(&format!("x{i}"), x.dtype(), shape)
    };
    let tensors: Vec<Tensor> = inputs.iter().enumerate().map(input).collect();
    let results = f(&tensors);
    let module = g.finish(&results.iter().collect::<Vec<_>>())?;
    let floats: Vec<String> =
        (0..inputs.len()).filter(|&i| inputs[i].dtype().is_float()).map(|i| format!("x{i}")).collect();
    let floats: Vec<&str> = floats.iter().map(String::as_str).collect();
    check_module(&module, &floats, inputs, &Bindings::new())
}

/// Checks the derivatives of the entry of `module` by the parameters `wrt` at `inputs`, one for each parameter. Everything is
/// computed in f64 by the interpreter.
///
/// Errors: those of [`differentiate`] and of the interpreter. Whether they agree says [`GradCheck::verdict`].
pub fn check_module(
    module: &Module,
    wrt: &[&str],
    inputs: &[Array],
    bindings: &Bindings,
) -> Result<GradCheck, Diagnostic> {
    let narrow = narrow(module);
    let module = widened(module)?;
    let inputs = inputs.iter().map(wide).collect::<Result<Vec<Array>, Diagnostic>>()?;
    let entry = module.entry()?;
    let at = |inputs: &[Array], module: &Module| run(module, &entry.name, inputs, bindings, Mode::Meaning);
    let values = at(&inputs, &module)?;
    let cts = random(&values.iter().filter(|y| y.dtype().is_float()).collect::<Vec<_>>(), 1)?;
    let pull = differentiate(&module, wrt, Form::Pullback)?.module;
    let gradients = at(&[&inputs[..], &cts].concat(), &pull)?.split_off(values.len());
    let mut parameters = Vec::new();
    for (name, gradient) in wrt.iter().zip(gradients) {
        let Some(i) = entry.params.iter().position(|p| *p.name == **name) else { continue };
        let tangent = random(&[&inputs[i]], 2 + i as u64)?.remove(0);
        let value = |step: f64| {
            let mut moved = inputs.clone();
            moved[i] = along(&inputs[i], &tangent, step)?;
            let values = at(&moved, &module)?;
            Ok::<f64, Diagnostic>(inner(values.iter().filter(|y| y.dtype().is_float()), &cts).0)
        };
        let slope = |step: f64| Ok::<f64, Diagnostic>((value(step)? - value(-step)?) / (2.0 * step));
        let scale = numbers(&inputs[i]).iter().fold(1.0f64, |a, x| a.max(x.abs()));
        let (differences, other) = (slope(1e-5 * scale)?, slope(2e-5 * scale)?);
        let forward = match differentiate(&module, &[name], Form::Pushforward) {
            Ok(push) => {
                let all = at(&[&inputs[..], std::slice::from_ref(&tangent)].concat(), &push.module)?;
                Some(inner(all[values.len()..].iter(), &cts).0)
            }
            Err(d) if d.code == "custom-rule" => None,
            Err(d) => return Err(d),
        };
        let (reverse, size) = inner([gradient].iter(), std::slice::from_ref(&tangent));
        let uncertainty = (differences - other).abs();
        parameters.push(ParameterCheck { name: (*name).into(), differences, uncertainty, forward, reverse, size });
    }
    Ok(GradCheck { parameters, narrow })
}

/// Which of f16 and bf16 it computes in.
fn narrow(module: &Module) -> BTreeSet<DType> {
    let types = module.functions.values().flat_map(|f| f.nodes.iter().flat_map(|n| n.types.iter()));
    types.map(|ty| ty.dtype).filter(|dtype| matches!(dtype, DType::F16 | DType::Bf16)).collect()
}

/// The module with f64 for each float dtype, and the numbers of blocks in f64.
fn widened(module: &Module) -> Result<Module, Diagnostic> {
    let ty = |ty: &Type| Type { dtype: widened_dtype(ty.dtype), shape: ty.shape.clone() };
    let mut out = Module::default();
    for f in module.functions.values() {
        let mut f: Function = f.clone();
        f.params.iter_mut().for_each(|p| p.ty = ty(&p.ty));
        for node in &mut f.nodes {
            node.types.iter_mut().for_each(|t| *t = ty(t));
            match &mut node.op {
                GraphOp::Constant { value } => *value = Literal(wide(&value.0)?),
                GraphOp::Iota { dtype, .. } => *dtype = widened_dtype(*dtype),
                GraphOp::Map { op: ScalarOp::Cast { to } } => *to = widened_dtype(*to),
                _other => {}
            }
        }
        out.functions.insert(f.name.clone(), f);
    }
    verify(&out).map_err(|d| Diagnostic::bug(format!("the module in f64 is none: {}", d.message)))?;
    Ok(out)
}

fn widened_dtype(dtype: DType) -> DType {
    if dtype.is_float() { DType::F64 } else { dtype }
}

fn wide(x: &Array) -> Result<Array, Diagnostic> {
    if x.dtype().is_float() { Array::from_f64(x.shape(), &numbers(x)) } else { Ok(x.clone()) }
}

fn numbers(x: &Array) -> Vec<f64> {
    x.to_f64().unwrap_or_default()
}

fn along(x: &Array, tangent: &Array, step: f64) -> Result<Array, Diagnostic> {
    let moved: Vec<f64> = numbers(x).iter().zip(numbers(tangent)).map(|(x, t)| x + step * t).collect();
    Array::from_f64(x.shape(), &moved)
}

/// The inner product, and the sum of its parts' magnitudes.
fn inner<'a>(a: impl Iterator<Item = &'a Array>, b: &[Array]) -> (f64, f64) {
    let parts =
        a.zip(b).flat_map(|(a, b)| numbers(a).into_iter().zip(numbers(b)).map(|(a, b)| a * b).collect::<Vec<_>>());
    parts.fold((0.0, 0.0), |(sum, size), part| (sum + part, size + part.abs()))
}

/// Directions of length 1, of the shapes of `like`, the same for the same seed.
fn random(like: &[&Array], seed: u64) -> Result<Vec<Array>, Diagnostic> {
    let mut state = seed;
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let drawn: Vec<Vec<f64>> = like.iter().map(|x| (0..x.len()).map(|_| next()).collect()).collect();
    let length = drawn.iter().flatten().map(|x: &f64| x * x).sum::<f64>().sqrt();
    let unit = |v: &Vec<f64>| v.iter().map(|x| x / length.max(f64::MIN_POSITIVE)).collect::<Vec<f64>>();
    like.iter().zip(&drawn).map(|(x, v)| Array::from_f64(x.shape(), &unit(v))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_ir::text::parse;

    fn inputs(seed: u64) -> Vec<Array> {
        let like = [Array::from_f64(&[3, 4], &[0.0; 12]).unwrap(), Array::from_f64(&[4], &[0.0; 4]).unwrap()];
        random(&like.iter().collect::<Vec<_>>(), seed).unwrap()
    }

    #[test]
    fn right_derivatives_agree() {
        let found = check_grads(|x| vec![(&x[0] * &x[1]).softmax(-1), x[1].exp().sum(&[0])], &inputs(1)).unwrap();
        assert!(found.verdict().is_ok(), "{found}");
        assert!(found.parameters.iter().all(|p| p.reverse.abs() > 1e-3 && p.uncertainty < 1e-7), "{found}");
    }

    const RULES: &str = "
        func @double(%x: f32[4]) -> f32[4] RULE {\n  %0 = add %x, %x\n  return %0\n}
        func @same(%x: f32[4]) -> f32[4] {\n  %0 = add %x, %x\n  return %0\n}
        func @third(%ct: f32[4]) -> f32[4] {\n  %0 = add %ct, %ct\n  %1 = add %0, %ct\n  return %1\n}
        func @rule(%x: f32[4], %t: f32[4]) -> (f32[4], f32[4]) {\n  return %x, %t\n}
        func @main(%x: f32[4], %y: f32[4]) -> f32[] {
          %0 = call %x function=@double
          %1 = mul %0, %y
          %2 = sum %1 axes=[0]
          return %2
        }";

    #[test]
    fn an_infinite_derivative_of_a_finite_slope_is_wrong() {
        let infinite = "%0 = sub %x, %x\n  %1 = div %t, %0\n  return %x, %1";
        let text = RULES.replace("RULE", "custom_jvp=@rule").replace("return %x, %t", infinite);
        let module = parse("t.tw", &text).unwrap_or_else(|d| panic!("{d}"));
        let x = Array::from_f32(&[4], &[0.5, -0.25, 1.0, 0.75]).unwrap();
        let found = check_module(&module, &["x"], &[x.clone(), x], &Bindings::new()).unwrap();
        assert_eq!(found.verdict().map_err(|d| d.code), Err("wrong-gradient"), "{found}");
    }

    #[test]
    fn wrong_rules_are_found_and_the_parameter_is_named() {
        let x = Array::from_f32(&[4], &[0.5, -0.25, 1.0, 0.75]).unwrap();
        let check = |rule: &str| {
            let module = parse("t.tw", &RULES.replace("RULE", rule)).unwrap_or_else(|d| panic!("{d}"));
            check_module(&module, &["x", "y"], &[x.clone(), x.clone()], &Bindings::new()).unwrap()
        };
        assert!(check("").verdict().is_ok());
        for rule in ["custom_vjp=[@same, @third]", "custom_jvp=@rule", "stop_gradient"] {
            let found = check(rule);
            let d = found.verdict().unwrap_err();
            assert!(d.code == "wrong-gradient" && d.message.contains("by `%x`: the derivative is"), "{d}\n{found}");
            assert_eq!(found.parameters[0].forward.is_none(), rule.starts_with("custom_vjp"));
            assert!(found.parameters[1].wrong().is_none() && found.to_string().contains("DIFFER"), "{found}");
        }
    }

    #[test]
    fn a_jump_is_uncertain_and_no_mistake() {
        let at = [Array::from_f64(&[2], &[1.0, 0.3]).unwrap()];
        let found = check_grads(|x| vec![x[0].floor() * &x[0]], &at).unwrap();
        assert!(found.verdict().is_ok() && found.parameters[0].uncertainty > 1.0, "{found}");
        assert!(found.to_string().contains(": not checked, differences are no more certain"), "{found}");
    }

    #[test]
    fn what_is_not_checked_is_said() {
        let at = [Array::from_f64(&[2], &[-1.0, 0.3]).unwrap()];
        let found = check_grads(|x| vec![x[0].sqrt()], &at).unwrap();
        let said = found.to_string();
        assert!(found.verdict().is_ok() && said.contains(": not checked, differences are not finite"), "{said}");
        assert!(!said.contains("agree") && found.narrow.is_empty(), "{said}");
        // In f64 nothing is rounded: 300 squared is too large for f16.
        let at = [Array::from_f64(&[2], &[300.0, 0.3]).unwrap()];
        let square = |x: &[Tensor]| {
            let y = x[0].cast(DType::F16);
            vec![(&y * &y).cast(DType::F32)]
        };
        let said = check_grads(square, &at).unwrap().to_string();
        assert!(said.contains(": agree\nnot checked: what f16 rounds and what is too large for it"), "{said}");
    }
}
