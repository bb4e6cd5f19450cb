//! Compilers that are broken on purpose, each in one place: bisect names it.

use super::super::inputs::random;
use super::*;
use crate::compile::{Gate, UserRules};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::kernel::text::{parse_kernel, print_kernel};
use tilewright_ir::kernel::{Kernel, Program};
use tilewright_ir::text::parse;

/// A text for another in the text of a kernel or graph.
type Edit = (&'static str, &'static str);

/// Instruction sets.
type Sets = fn(Isa) -> bool;

/// The compiler with one fault.
#[derive(Clone, Copy, Default)]
struct Faulty {
    /// Of the graph that level 2 leaves.
    graph: Option<Edit>,
    /// Of kernels, from a level on.
    kernels: Option<(u8, Edit)>,
    /// Of machine code, for instruction sets.
    code: Option<(Sets, Edit)>,
    /// Of how threads share the work.
    threads: bool,
}

fn edited(kernel: &Kernel, (from, to): Edit) -> Kernel {
    let text = print_kernel(kernel);
    if !text.contains(from) {
        return kernel.clone();
    }
    parse_kernel("edited", &text.replace(from, to)).unwrap_or_else(|d| panic!("{d}"))
}

fn edit_all(programs: &mut [Program], edit: Edit) {
    programs.iter_mut().flat_map(|p| &mut p.kernels).for_each(|k| *k = edited(k, edit));
}

impl Pipeline for Faulty {
    fn optimized(&self, module: &Module, options: &Options) -> Result<Module, Diagnostic> {
        let Some((from, to)) = self.graph else { return Real.optimized(module, options) };
        parse("edited", &print(module).replace(from, to))
    }

    fn lower(&self, module: &Module, options: &Options) -> Result<Vec<Program>, Diagnostic> {
        let options = Options { verify: false, ..options.clone() };
        let mut programs = match self.graph {
            Some(_) if options.opt_level >= 2 => Real.lower(&self.optimized(module, &options)?, &options)?,
            Some(_) | None => Real.lower(module, &options)?,
        };
        if let Some((_, edit)) = self.kernels.filter(|(level, _)| options.opt_level >= *level) {
            edit_all(&mut programs, edit);
        }
        Ok(programs)
    }

    fn run(&self, case: &Case, mut programs: Vec<Program>, options: &Options) -> Result<Vec<Array>, Diagnostic> {
        if let Some((_, edit)) = self.code.filter(|(sets, _)| sets(options.isa)) {
            edit_all(&mut programs, edit);
        }
        let mut results = Real.run(case, programs, options)?;
        if self.threads && options.threads > 1 {
            results.iter_mut().filter(|a| a.len() > 1).try_for_each(|a| {
                let first = a.to_f32().unwrap_or_default()[0];
                *a = Array::from_f32(a.shape(), &vec![first; a.len()])?;
                Ok::<(), Diagnostic>(())
            })?;
        }
        Ok(results)
    }
}

/// Every kind of op that the faults are in, among others that they are not in.
const GRAPH: &str = "func @main(%x: f32[s, 24], %w: f32[24, 40]) -> (f32[s], f32[s, 40]) where s in 1..=64 {
  %0 = mul %x, %x
  %1 = sqrt %0
  %2 = tanh %1
  %3 = exp %2
  %4 = sum %3 axes=[1]
  %5 = dot %3, %w contract=[1]x[0]
  %6 = neg %5
  %7 = reduce_max %6 axes=[1]
  %8 = broadcast %7 shape=[s, 40] dims=[0]
  %9 = sub %6, %8
  %10 = abs %9
  return %4, %10
}
";

fn options() -> Options {
    Options { threads: 2, opt_level: 2, verify: false, ..Options::host().unwrap() }
}

fn find(pipeline: &dyn Pipeline, text: &str, options: &Options) -> Found {
    let module = parse("x.tw", text).unwrap_or_else(|d| panic!("{d}"));
    let entry = module.entry().unwrap();
    let bindings = entry.symbols.iter().map(|s| (s.name.clone(), 6)).collect();
    let inputs = random(&module, 1, &bindings).unwrap();
    let case = Case { module, inputs, bindings };
    let found = bisect(pipeline, &case, options, 2000).unwrap_or_else(|d| panic!("{d}"));
    let found = found.unwrap_or_else(|| panic!("nothing differs"));
    // What is written shows the difference again, and is small.
    let small = &found.small;
    let again = parse("small.tw", &print(&small.module)).unwrap_or_else(|d| panic!("{d}\n{}", print(&small.module)));
    let again = Case { module: again, ..small.clone() };
    assert!(again.by_code(pipeline, options).unwrap().is_some(), "{}", print(&small.module));
    let entry = small.module.entry().unwrap();
    assert!(entry.results.len() == 1 && entry.symbols.is_empty(), "{}", print(&small.module));
    found
}

/// The culprit and the ops that are left.
fn found(pipeline: &dyn Pipeline, text: &str, options: &Options) -> (Culprit, Vec<String>) {
    let found = find(pipeline, text, options);
    (found.culprit, nodes(&found.small.module))
}

fn rules(text: &str) -> Options {
    Options { rules: UserRules::default().with("my.rules", text, Gate::Open).unwrap(), ..options() }
}

fn named(culprit: &Culprit) -> Vec<(&str, &str)> {
    let Culprit::Rules(rules) = culprit else { panic!("{culprit}") };
    assert!(rules.iter().all(|r| r.counterexample.is_some()), "{culprit}");
    rules.iter().map(|r| (r.name.as_str(), r.at.as_str())).collect()
}

#[test]
fn a_right_compiler_has_no_culprit() {
    let module = parse("x.tw", GRAPH).unwrap();
    let bindings = [("s".into(), 6)].into();
    let inputs = random(&module, 1, &bindings).unwrap();
    assert!(bisect(&Real, &Case { module, inputs, bindings }, &options(), 10).unwrap().is_none());
}

#[test]
fn a_wrong_rule_is_named() {
    let (culprit, ops) = found(&Real, GRAPH, &rules("root: exact\n  (sqrt ?a) => (neg ?a)\n"));
    assert_eq!(named(&culprit), [("root", "my.rules:1")]);
    assert_eq!(ops, ["sqrt at x.tw:3:8"]);
    assert!(culprit.to_string().contains("the rule `root` (exact), my.rules:1: in f64, left is "), "{culprit}");
}

#[test]
fn of_two_rules_the_wrong_one_is_named() {
    let two = "right: exact\n  (sub ?a ?b) => (add (neg ?b) ?a)\nwrong: exact\n  (add (neg ?b) ?a) => (add ?b ?a)\n";
    let (culprit, ops) = found(&Real, GRAPH, &rules(two));
    assert_eq!((named(&culprit), ops.len()), (vec![("wrong", "my.rules:3")], 1), "{culprit}");
}

#[test]
fn a_wrong_rule_about_axes_is_named() {
    let text = "moved: reassociates\n  (sum ?j (exp ?a)) => (exp (sum ?j ?a))\n";
    let graph = GRAPH.replace("return %4, %10", "return %4, %7").replace("f32[s, 40]) where", "f32[s]) where");
    // Of rows so long that one exponential, not in a vector, is cheaper than one for each element.
    let graph = graph.replace("dot %3", "dot %2").replace("24", "96");
    let (culprit, ops) = found(&Real, &graph, &rules(text));
    assert_eq!((named(&culprit), ops.len()), (vec![("moved", "my.rules:1")], 2), "{culprit}: {ops:?}");
}

#[test]
fn a_wrong_graph_after_the_optimiser_is_told_from_wrong_kernels() {
    let faulty = Faulty { graph: Some((" = abs ", " = neg ")), ..Faulty::default() };
    // Where the values are not negative the fault does not show.
    let (culprit, ops) = found(&faulty, &GRAPH.replace("sub %6, %8", "add %6, %8"), &options());
    assert_eq!((culprit, ops), (Culprit::Graph, vec!["abs at x.tw:12:9".to_string()]));
}

#[test]
fn wrong_kernels_are_named_with_their_levels() {
    let cases: [(u8, Edit, &str, &[u8]); 3] = [
        (0, ("tanh(", "sin("), "tanh at x.tw:4:8", &[0, 1, 2]),
        (1, ("exp(", "exp2("), "exp at x.tw:5:8", &[1, 2]),
        (2, ("sqrt(", "abs("), "sqrt at x.tw:3:8", &[2]),
    ];
    for (level, edit, op, want) in cases {
        let faulty = Faulty { kernels: Some((level, edit)), ..Faulty::default() };
        let (culprit, ops) = found(&faulty, GRAPH, &options());
        let Culprit::Kernels { levels, kernels } = &culprit else { panic!("{culprit}") };
        assert_eq!((&levels[..], ops), (want, vec![op.to_string()]), "{culprit}");
        assert!(kernels.len() == 1 && kernels[0].contains("@main"), "{culprit}");
    }
}

#[test]
fn a_wrong_fold_is_named() {
    let faulty = Faulty { kernels: Some((0, ("max_of(", "min_of("))), ..Faulty::default() };
    let (culprit, ops) = found(&faulty, GRAPH, &Options { opt_level: 1, ..options() });
    assert!(matches!(culprit, Culprit::Kernels { .. }) && ops == ["reduce_max at x.tw:9:8"], "{culprit}: {ops:?}");
}

#[test]
fn wrong_machine_code_is_told_from_wrong_kernels() {
    let faulty = Faulty { code: Some((|_| true, ("sqrt(", "abs("))), ..Faulty::default() };
    let (culprit, ops) = found(&faulty, GRAPH, &options());
    let Culprit::Code { wrong, right, kernels } = &culprit else { panic!("{culprit}") };
    assert!(wrong.contains(&"portable") && right.is_empty() && kernels.len() == 1, "{culprit}");
    assert_eq!(ops, ["sqrt at x.tw:3:8"]);
}

#[test]
fn wrong_code_of_one_instruction_set_is_named_with_its_micro_kernel() {
    let text = "func @main(%x: f32[32, 24], %w: f32[24, 40]) -> f32[32, 40] {
  %0 = exp %x\n  %1 = dot %0, %w contract=[1]x[0]\n  return %1\n}\n";
    // What the product left is read with the other sign.
    let faulty = Faulty { code: Some((|isa| isa == Isa::best(), ("= c1", "= -c1"))), ..Faulty::default() };
    let options = Options { opt_level: 1, ..options() };
    let (culprit, ops) = found(&faulty, text, &options);
    let Culprit::Code { wrong, kernels, .. } = &culprit else { panic!("{culprit}") };
    assert_eq!((&wrong[..], ops), (&[Isa::best().name()][..], vec!["dot at x.tw:3:8".to_string()]), "{culprit}");
    assert!(kernels.len() == 1 && kernels[0].contains(" (calls ") && kernels[0].contains("_f32"), "{culprit}");
}

#[test]
fn threads_are_named() {
    let (culprit, _) = found(&Faulty { threads: true, ..Faulty::default() }, GRAPH, &options());
    assert_eq!(culprit, Culprit::Threads);
}

#[test]
fn a_fault_in_a_called_function_is_found_there() {
    let text = "func @layer(%x: f32[5]) -> f32[5] {\n  %0 = exp %x\n  %1 = tanh %0\n  return %1\n}
func @main(%x: f32[5]) -> f32[5] {\n  %0 = call %x function=@layer\n  %1 = call %0 function=@layer\n  return %1\n}\n";
    let faulty = Faulty { kernels: Some((0, ("tanh(", "sin("))), ..Faulty::default() };
    let found = find(&faulty, text, &options());
    assert_eq!(&*found.small.module.entry().unwrap().name, "layer");
    assert_eq!(nodes(&found.small.module), ["tanh at x.tw:3:8"]);
    assert_eq!(found.small.inputs[0].shape(), [1], "sizes are small");
}
