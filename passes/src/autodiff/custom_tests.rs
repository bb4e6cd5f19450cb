//! Functions with rules of their own.

use super::tests::{check, module, results};
use super::{Form, differentiate};
use tilewright_ir::array::Array;
use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Graph;
use tilewright_ir::graph::Module;
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::DType::F64;

/// `@clip` is the identity with gradients between -1 and 1; `@soft` is `ln(1 + e^x)` with the slope of its rule.
const RULES: &str = "
func @clip(%x: f64[n]) -> f64[n] custom_vjp=[@clip.fwd, @clip.bwd] where n in 1..=8 {
  %0 = neg %x
  %1 = neg %0
  return %1
}
func @clip.fwd(%x: f64[n]) -> f64[n] where n in 1..=8 {
  return %x
}
func @clip.bwd(%ct: f64[n]) -> f64[n] where n in 1..=8 {
  %0 = constant f64[] = 1.0
  %1 = constant f64[] = -1.0
  %2 = broadcast %0 shape=[n] dims=[]
  %3 = broadcast %1 shape=[n] dims=[]
  %4 = min %ct, %2
  %5 = max %4, %3
  return %5
}
func @soft(%x: f64[n]) -> f64[n] custom_jvp=@soft.jvp where n in 1..=8 {
  %0 = exp %x
  %1 = log1p %0
  return %1
}
func @soft.jvp(%x: f64[n], %t: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
  %0 = call %x function=@soft
  %1 = exp %x
  %2 = constant f64[] = 1.0
  %3 = broadcast %2 shape=[n] dims=[]
  %4 = add %1, %3
  %5 = div %1, %4
  %6 = mul %t, %5
  return %0, %6
}
";

fn with(main: &str) -> Module {
    // Quoted names, as a dot is no letter.
    let text = format!("{RULES}{main}");
    let quoted = ["clip.fwd", "clip.bwd", "soft.jvp"]
        .iter()
        .fold(text, |t, n| t.replace(&format!("@{n}"), &format!("@\"{n}\"")));
    module(&quoted)
}

fn f64s(x: &[f64]) -> Array {
    Array::from_f64(&[x.len()], x).unwrap()
}

#[test]
fn text_keeps_rules() {
    let m = with("func @main(%x: f64[n]) -> f64[n] stop_gradient where n in 1..=8 {\n  return %x\n}");
    assert_eq!(difference(&m, &parse("again", &print(&m)).unwrap()), None);
    let mut other = m.clone();
    other.functions["soft"].derivative = Default::default();
    assert!(difference(&m, &other).is_some());
    // What is differentiated needs the functions of rules, also where nothing calls them.
    assert!(m.part("clip").unwrap().functions.contains_key("clip.bwd"));
}

#[test]
fn reverse_mode_takes_the_rule_wherever_the_function_is_run() {
    let body = [
        "%0 = call %x function=@clip",
        "%0 = constant bool[] = true\n  %1 = cond %0, %x yes=@clip no=@clip",
        "%0 = scan %x body=@clip carries=1 length=2",
    ];
    for (last, body) in [0, 1, 0].into_iter().zip(body) {
        let m = with(&format!(
            "func @main(%x: f64[n]) -> f64[] where n in 1..=8 {{\n  {body}\n  %5 = mul %{last}, %{last}\n  %6 = sum %5 axes=[0]\n  return %6\n}}"
        ));
        let gradient = differentiate(&m, &["x"], Form::Gradient).unwrap().module;
        let out = results(&gradient, &[f64s(&[0.25, 3.0, -0.75])]);
        assert_eq!(out[0].to_f64().unwrap(), [0.5, 1.0, -1.0], "{}", print(&gradient));
        let forward = differentiate(&m, &["x"], Form::Pushforward).unwrap_err();
        assert_eq!(forward.code, "custom-rule", "{forward}");
    }
    // The entry itself.
    let m = with("").part("clip").unwrap();
    let pull = differentiate(&m, &["x"], Form::Pullback).unwrap().module;
    assert_eq!(results(&pull, &[f64s(&[2.0]), f64s(&[7.0])])[1].to_f64().unwrap(), [1.0]);
}

#[test]
fn a_forward_rule_serves_both_modes_and_all_orders() {
    let m = with(
        "func @main(%x: f64[n], %y: f64[n]) -> f64[n] where n in 1..=8 {
          %0 = mul %x, %y
          %1 = call %0 function=@soft
          %2 = scan %1 body=@soft carries=1 length=2
          %3 = mul %2, %x
          return %3
        }",
    );
    let (x, y) = (f64s(&[0.5, -0.25, 1.0]), f64s(&[-0.75, 0.3, 0.6]));
    check(&m, &[x.clone(), y.clone()]);
    // The derivative of the derivative.
    let pull = differentiate(&m, &["x"], Form::Pullback).unwrap().module;
    check(&pull, &[x, y, f64s(&[1.0, -0.5, 0.25])]);
    // The rule was used: its product is there, and no reciprocal of `log1p`'s.
    assert!(print(&pull).contains("soft.jvp.bwd"), "{}", print(&pull));
}

#[test]
fn nothing_passes_a_stopped_gradient_and_no_zeros_are_made() {
    let m = module(
        "func @stop(%x: f64[n]) -> f64[n] stop_gradient where n in 1..=8 {
           return %x
         }
         func @main(%x: f64[n]) -> f64[] where n in 1..=8 {
           %0 = exp %x
           %1 = call %0 function=@stop
           %2 = tanh %1
           %3 = mul %2, %x
           %4 = sum %3 axes=[0]
           return %4
         }",
    );
    let gradient = differentiate(&m, &["x"], Form::Gradient).unwrap().module;
    assert_eq!(results(&gradient, &[f64s(&[0.5])])[0].to_f64().unwrap(), [0.5f64.exp().tanh()]);
    let text = print(&gradient);
    assert!(!text.contains("sub") && !text.contains("0.0"), "{text}");
    let push = differentiate(&m, &["x"], Form::Pushforward).unwrap().module;
    let out = results(&push, &[f64s(&[0.5]), f64s(&[2.0])]);
    assert_eq!(out[1].to_f64().unwrap(), [2.0 * 0.5f64.exp().tanh()]);
}

fn error(text: &str) -> Diagnostic {
    parse("t.tw", text).expect_err("a rule that does not fit")
}

#[test]
fn rules_that_change_shapes_are_refused() {
    let plain = "func @f(%x: f64[4]) -> f64[4] {\n  return %x\n}\nfunc @s(%x: f64[4]) -> f64[] {\n  %0 = sum %x axes=[0]\n  return %0\n}\n";
    for (rule, found) in [
        (
            "custom_vjp=[@s, @f]",
            "`@s` in the rule for the derivative of `@g` returns, before residuals, f64[4]; it returns f64[]",
        ),
        ("custom_vjp=[@f, @s]", "`@s` in the rule for the derivative of `@g` returns f64[4]; it returns f64[]"),
        ("custom_jvp=@f", "takes f64[4], f64[4]"),
    ] {
        let d = error(&format!("{plain}func @g(%x: f64[4]) -> f64[4] {rule} {{\n  return %x\n}}"));
        assert_eq!(d.code, "custom-rule", "{d}");
        assert!(d.message.contains(found) && d.to_string().contains("t.tw:8"), "{d}");
    }
    let d = error("func @g(%x: f64[4]) -> f64[4] custom_jvp=@nothing {\n  return %x\n}");
    assert_eq!(d.code, "custom-rule", "{d}");
}

/// `@f` with a rule whose tangent is `rule`, of `%x` and `%t`; its last value is `%9`.
fn ruled(rule: &str) -> Module {
    module(&format!(
        "func @stop(%t: f64[2]) -> f64[2] stop_gradient {{\n  return %t\n}}
         func @round(%t: f64[2]) -> f64[2] {{\n  %0 = round %t\n  return %0\n}}
         func @twice(%t: f64[2]) -> f64[2] {{\n  %0 = add %t, %t\n  return %0\n}}
         func @more(%t: f64[2], %x: f64[2]) -> f64[2] {{\n  %0 = add %t, %x\n  return %0\n}}
         func @less(%t: f64[2], %x: f64[2]) -> f64[2] {{\n  %0 = mul %t, %x\n  return %0\n}}
         func @minus(%t: f64[2], %x: f64[2]) -> f64[2] {{\n  %0 = sub %t, %x\n  return %0\n}}
         func @zero(%t: f64[2], %x: f64[2]) -> f64[2] {{
           %0 = constant f64[] = 0.0\n  %1 = broadcast %0 shape=[2] dims=[]\n  return %1\n}}
         func @both(%x: f64[2], %t: f64[2], %w: f64[2]) -> (f64[2], f64[2]) {{
           %0 = mul %x, %w\n  %1 = mul %t, %w\n  %2 = mul %x, %t\n  %3 = add %1, %2\n  return %0, %3\n}}
         func @square(%x: f64[2], %t: f64[2]) -> (f64[2], f64[2]) {{
           %0 = mul %x, %x\n  %1 = mul %x, %t\n  %2 = add %1, %1\n  return %0, %2\n}}
         func @loop(%x: f64[2], %t: f64[2]) -> (f64[2], f64[2]) {{
           %0 = scan %x, %t body=@square carries=2 length=3\n  return %0#0, %0#1\n}}
         func @pair(%x: f64[2], %t: f64[2]) -> (f64[2], f64[2]) {{\n  return %x, %t\n}}
         func @f(%x: f64[2]) -> f64[2] custom_jvp=@t {{\n  return %x\n}}
         func @t(%x: f64[2], %t: f64[2]) -> (f64[2], f64[2]) {{
           %90 = constant f64[] = 0.0
           %91 = broadcast %90 shape=[2] dims=[]
           %92 = gt %x, %91
           %93 = constant bool[] = true
           {rule}
           return %x, %9
         }}
         func @main(%x: f64[2]) -> f64[2] {{\n  %0 = call %x function=@f\n  return %0\n}}"
    ))
}

#[test]
fn a_rule_that_is_not_linear_is_refused() {
    for (rule, why) in [
        // The square of the tangent, and the function itself on the tangent.
        ("%9 = mul %t, %t", "its derivative takes a tangent"),
        ("%9 = call %t function=@f", "by its custom rule needs itself"),
        ("%9 = abs %t", "its derivative takes a tangent"),
        ("%9 = max %t, %91", "its derivative takes a tangent"),
        // A term without the tangent, the rule's only one or beside others, and in functions that are run.
        ("%9 = add %t, %x", "where its tangents are zeros"),
        ("%9 = sub %x, %t", "where its tangents are zeros"),
        ("%9 = exp %x", "where its tangents are zeros"),
        ("%9 = select %92, %t, %x", "where its tangents are zeros"),
        ("%1 = add %t, %x\n  %9 = mul %1, %x", "where its tangents are zeros"),
        ("%9 = call %t, %x function=@more", "where its tangents are zeros"),
        (
            "%8 = scan %t, %x body=@square carries=2 length=3\n  %9 = reshape %8#1 shape=[2]",
            "where its tangents are zeros",
        ),
        ("%8 = scan %x, %t body=@square carries=2 length=3\n  %9 = mul %8#1, %t", "its derivative takes a tangent"),
        ("%8 = cond %93, %t, %x yes=@loop no=@pair\n  %9 = reshape %8#1 shape=[2]", "where its tangents are zeros"),
        ("%9 = cond %93, %t, %x yes=@less no=@more", "where its tangents are zeros"),
        (
            "%1 = reshape %x shape=[1, 2]\n  %9 = scan %t, %1 body=@more carries=1 length=1",
            "where its tangents are zeros",
        ),
        ("%1 = exp %x\n  %2 = add %t, %1\n  %3 = sin %x\n  %9 = sub %2, %3", "where its tangents are zeros"),
        ("%1 = add %t, %x\n  %2 = exp %x\n  %9 = call %1, %2 function=@minus", "where its tangents are zeros"),
        (
            "%1 = reshape %91 shape=[1, 2]\n  %9 = scan %x, %1 body=@more carries=1 length=1",
            "where its tangents are zeros",
        ),
        // What jumps, or stops a derivative, is flat elsewhere, or has the slope of what is linear.
        ("%9 = floor %t", "a tangent goes through `floor`"),
        ("%9 = sign %t", "a tangent goes through `sign`"),
        ("%1 = round %t\n  %9 = sub %t, %1", "a tangent goes through `round`"),
        ("%9 = call %t function=@round", "a tangent goes through `round`"),
        ("%1 = exp %x\n  %9 = rem %t, %1", "a tangent goes through `rem`"),
        ("%1 = gt %t, %91\n  %9 = select %1, %x, %91", "a tangent goes through `gt`"),
        ("%1 = cast %t to=i64\n  %9 = cast %1 to=f64", "a tangent goes through `cast`"),
        ("%9 = call %t function=@stop", "a tangent goes through `call`"),
    ] {
        let m = ruled(rule);
        let d = differentiate(&m, &["x"], Form::Pullback).expect_err(rule);
        assert!(d.code == "custom-rule" && d.message.contains(why), "{rule}: {d}");
        assert!(why.contains("its") && !why.contains("zeros") || !d.labels.is_empty(), "{rule}: {d}");
        // Forward mode takes the rule as it is, unless it runs itself.
        if !rule.contains("@f") {
            differentiate(&m, &["x"], Form::Pushforward).unwrap_or_else(|d| panic!("{rule}: {d}"));
        }
    }
}

#[test]
fn a_rule_that_is_linear_is_transposed() {
    for (rule, slopes) in [
        ("%9 = mul %t, %x", [0.5, -3.0]),
        ("%9 = select %92, %t, %91", [1.0, 0.0]),
        ("%9 = add %t, %91", [1.0, 1.0]),
        ("%1 = neg %t\n  %9 = div %1, %x", [-2.0, 1.0 / 3.0]),
        ("%9 = call %t function=@twice", [2.0, 2.0]),
        ("%1 = reshape %x shape=[1, 2]\n  %9 = scan %t, %1 body=@less carries=1 length=1", [0.5, -3.0]),
        // Terms that are taken out again, in a function that is run and made twice among them.
        ("%1 = exp %x\n  %2 = add %t, %1\n  %3 = exp %x\n  %9 = sub %2, %3", [1.0, 1.0]),
        ("%1 = call %t, %x function=@more\n  %9 = sub %1, %x", [1.0, 1.0]),
        ("%1 = add %t, %x\n  %2 = call %1, %x function=@minus\n  %9 = mul %2, %x", [0.5, -3.0]),
        // Branches, and loops that carry a value and its tangent.
        ("%9 = cond %93, %t, %x yes=@less no=@zero", [0.5, -3.0]),
        (
            "%1 = reshape %x shape=[1, 2]\n  %8 = scan %x, %t, %1 body=@both carries=2 length=1\n  %9 = reshape %8#1 shape=[2]",
            [1.0, -6.0],
        ),
        (
            "%8 = scan %x, %t body=@square carries=2 length=3\n  %9 = reshape %8#1 shape=[2]",
            [8.0 * 0.5f64.powi(7), 8.0 * (-3.0f64).powi(7)],
        ),
        (
            "%8 = cond %93, %x, %t yes=@loop no=@pair\n  %9 = reshape %8#1 shape=[2]",
            [8.0 * 0.5f64.powi(7), 8.0 * (-3.0f64).powi(7)],
        ),
        // What nothing is made of may be anything.
        ("%1 = floor %t\n  %9 = sub %t, %91", [1.0, 1.0]),
        ("%9 = mul %x, %91", [0.0, 0.0]),
    ] {
        let pull = differentiate(&ruled(rule), &["x"], Form::Pullback).unwrap_or_else(|d| panic!("{rule}: {d}")).module;
        let out = results(&pull, &[f64s(&[0.5, -3.0]), f64s(&[1.0, 1.0])]);
        assert_eq!(out[1].to_f64().unwrap(), slopes, "{rule}");
    }
}

/// `@power` is the eighth power where its condition holds, else its operand, by loops whose sizes only operands know.
const LOOPS: &str = "
func @square(%x: f64[n]) -> f64[n] where n in 1..=8 {
  %0 = mul %x, %x
  return %0
}
func @eighth(%x: f64[n]) -> f64[n] where n in 1..=8 {
  %0 = scan %x body=@square carries=1 length=3
  return %0
}
func @same(%x: f64[n]) -> f64[n] where n in 1..=8 {
  return %x
}
func @power(%p: bool[], %x: f64[n]) -> f64[n] custom_jvp=@tangent where n in 1..=8 {
  %0 = cond %p, %x yes=@eighth no=@same
  return %0
}
func @step(%x: f64[n], %t: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
  %0 = mul %x, %x
  %1 = mul %x, %t
  %2 = add %1, %1
  return %0, %2
}
func @steps(%x: f64[n], %t: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
  %0 = scan %x, %t body=@step carries=2 length=3
  return %0#0, %0#1
}
func @both(%x: f64[n], %t: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
  return %x, %t
}
func @tangent(%p: bool[], %x: f64[n], %t: f64[n]) -> (f64[n], f64[n]) where n in 1..=8 {
  %0 = cond %p, %x, %t yes=@steps no=@both
  return %0#0, %0#1
}
func @main(%p: bool[], %x: f64[n]) -> f64[n] where n in 1..=8 {
  %0 = call %p, %x function=@power
  %1 = mul %0, %x
  return %1
}
";

#[test]
fn a_rule_through_branches_and_loops_serves_both_modes_and_all_orders() {
    let x = f64s(&[0.75, -0.5, 1.25]);
    for p in [true, false] {
        let p = Array::from_bool(&[], &[p]).unwrap();
        check(&module(LOOPS), &[p.clone(), x.clone()]);
        let pull = differentiate(&module(LOOPS), &["x"], Form::Pullback).unwrap().module;
        check(&pull, &[p, x.clone(), f64s(&[1.0, -0.5, 0.25])]);
        // What goes back takes no tangents.
        let back = pull.functions.values().find(|f| f.name.starts_with("tangent.bwd")).unwrap();
        assert!(back.params.iter().all(|p| &*p.name != "t"), "{}", print(&pull));
    }
}

#[test]
fn a_tangent_may_be_all_that_names_a_size() {
    let m = module(
        "func @mean(%t: f64[n]) -> f64[] where n in 1..=8 {
           %0 = sum %t axes=[0]
           %1 = size dim=n
           %2 = cast %1 to=f64
           %3 = div %0, %2
           return %3
         }
         func @count(%i: i64[], %t: f64[n]) -> i64[] where n in 1..=8 {
           return %i
         }
         func @rule(%x: f64[n], %dx: f64[n]) -> (f64[], f64[]) where n in 1..=8 {
           %0 = call %x function=@mean
           %1 = call %dx function=@mean
           %2 = constant i64[] = 1
           %3 = call %2, %dx function=@count
           %4 = cast %3 to=f64
           %5 = mul %1, %4
           return %0, %5
         }
         func @f(%x: f64[n]) -> f64[] custom_jvp=@rule where n in 1..=8 {
           %0 = call %x function=@mean
           return %0
         }
         func @main(%x: f64[n]) -> f64[] where n in 1..=8 {
           %0 = call %x function=@f
           %1 = mul %0, %0
           return %1
         }",
    );
    check(&m, &[f64s(&[0.75, -0.5, 1.25])]);
}

#[test]
fn the_dsl_declares_rules() {
    let g = Graph::new("main");
    for name in ["id", "id.fwd"] {
        g.function(name, |g| [g.input("x", F64, [2])]);
    }
    g.function("id.bwd", |g| [g.input("ct", F64, [2]) * 3.0]);
    g.function("one", |g| [g.input("ct", F64, [1])]);
    g.custom_vjp("id", "id.fwd", "id.bwd");
    let x = g.input("x", F64, [2]);
    let loss = |x: &tilewright_ir::dsl::Tensor| {
        let [y] = g.call("id", &[x]);
        (&y * y.stop_gradient()).sum(&[0])
    };
    let module = g.finish(&[&super::grad(loss)(&x)]).unwrap();
    assert_eq!(results(&module, &[f64s(&[2.0, 5.0])])[0].to_f64().unwrap(), [6.0, 15.0]);
    let g = Graph::new("main");
    g.function("id", |g| [g.input("x", F64, [2])]);
    g.function("one", |g| [g.input("ct", F64, [1])]);
    g.custom_jvp("id", "one");
    let d = g.finish(&[]).unwrap_err();
    assert!(d.code == "custom-rule" && d.to_string().contains("custom_tests.rs"), "{d}");
}
