//! Plans of programs made by hand and of random ones.

use super::*;
use crate::plan::text::print_plan;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tilewright_ir::kernel::{
    Branch, Buffer, CallStep, CondStep, Kernel, Launch, Pack, ProgramBuffer, ProgramParam, ScanArgument, ScanResult,
    ScanStep, Space, Step,
};
use tilewright_ir::types::{Bindings, DType};

/// Programs from names: every kernel reads some buffers and writes one.
struct Build(Program);

fn f32s(n: impl Into<Dim>) -> Type {
    Type::new(DType::F32, [n.into()])
}

impl Build {
    fn new(name: &str, params: &[(&str, Type, Role)]) -> Build {
        let params = params.iter().map(|(n, ty, role)| ProgramParam {
            buffer: ProgramBuffer { name: (*n).into(), ty: ty.clone(), alias_of: None },
            role: *role,
        });
        Build(Program {
            name: name.into(),
            symbols: vec![SymbolDecl::new("n", 1, 100)],
            requirements: Vec::new(),
            params: params.collect(),
            results: Vec::new(),
            work: Vec::new(),
            constants: Vec::new(),
            kernels: Vec::new(),
            steps: Vec::new(),
            warnings: Vec::new(),
        })
    }

    fn work(&mut self, name: &str, ty: Type, alias_of: Option<&str>) {
        self.0.work.push(ProgramBuffer { name: name.into(), ty, alias_of: alias_of.map(Into::into) });
    }

    /// A launch that reads `from` and writes `to`.
    fn step(&mut self, from: &[&str], to: &str) {
        let argument = |space| Buffer { space, name: "b".into(), dtype: DType::F32, axes: vec![], attrs: vec![] };
        let mut arguments = vec![argument(Space::In); from.len()];
        arguments.push(argument(Space::Out));
        let kernel = Kernel {
            name: format!("k{}", self.0.kernels.len()).into(),
            target: "cpu".into(),
            attrs: vec![],
            constants: vec![],
            symbols: vec![],
            arguments,
            views: vec![],
            body: vec![],
            places: vec![],
        };
        let arguments = from.iter().chain([&to]).map(|n| (*n).into()).collect();
        self.0.steps.push(Step::Launch(Launch { kernel: self.0.kernels.len(), arguments, when: None }));
        self.0.kernels.push(kernel);
    }

    fn call(&mut self, function: &str, arguments: &[&str], results: &[&str]) {
        self.0.steps.push(Step::Call(CallStep {
            function: function.into(),
            arguments: arguments.iter().map(|n| (*n).into()).collect(),
            results: results.iter().map(|n| (*n).into()).collect(),
            symbols: vec![("n".into(), "n".into())],
        }));
    }

    fn finish(mut self, results: &[&str]) -> Program {
        self.0.results = results.iter().map(|n| (*n).into()).collect();
        self.0
    }
}

fn at(n: i64) -> Bindings {
    Bindings::from([("n".into(), n)])
}

/// Peak of the last program, as text and for n = 10; checks on the way that live slots do not overlap.
fn peak(programs: &[Program]) -> (String, usize) {
    let plans = plan_programs(programs).unwrap();
    let last = plans.len() - 1;
    for n in [1, 2, 10, 33, 100] {
        check(&plans, last, &at(n));
    }
    let peak = Layouts::default().get(&plans, last, &at(10)).unwrap().peak;
    (plans[last].peak.to_string(), peak)
}

/// Numbers of a layout: no two slots that live at the same time overlap, and expressions are no less than numbers.
/// Gives the peak and the most bytes that are live at a time.
fn check(plans: &[Plan], index: usize, bindings: &Bindings) -> (usize, usize) {
    let mut layouts = Layouts::default();
    let layout = layouts.get(plans, index, bindings).unwrap();
    let plan = &plans[index];
    let sizes: Vec<usize> = plan
        .slots
        .iter()
        .map(|s| match &s.content {
            Content::Buffers(types) => {
                let bytes = |&t: &usize| crate::executable::bytes_of(&plan.sizes[t], bindings).unwrap();
                types.iter().map(bytes).max().unwrap()
            }
            Content::Frame(callees) => {
                let peak = |(c, _): &(usize, _)| layouts.get(plans, *c, bindings).unwrap().peak;
                callees.iter().map(peak).max().unwrap()
            }
        })
        .collect();
    for (i, a) in plan.slots.iter().enumerate() {
        let end = layout.offsets[i] + sizes[i];
        assert!(layout.offsets[i].is_multiple_of(ALIGN) && end <= layout.peak);
        assert!(layout.offsets[i] as i64 <= a.offset.eval(bindings).unwrap());
        for (j, b) in plan.slots.iter().enumerate().skip(i + 1) {
            let together = a.first <= b.last && b.first <= a.last;
            let apart = end <= layout.offsets[j] || layout.offsets[j] + sizes[j] <= layout.offsets[i];
            assert!(!together || apart, "slots {i} and {j} overlap");
        }
    }
    assert!(layout.peak as i64 <= plan.peak.eval(bindings).unwrap());
    let steps = plan.slots.iter().map(|s| s.last + 1).max().unwrap_or(0);
    let live = |step: usize| {
        let here = plan.slots.iter().zip(&sizes).filter(|(s, _)| s.first <= step && step <= s.last);
        here.map(|(_, n)| n.next_multiple_of(ALIGN)).sum()
    };
    (layout.peak, (0..steps).map(live).max().unwrap_or(0))
}

#[test]
fn a_chain_needs_two_buffers() {
    let mut b = Build::new("main", &[("x", f32s(160), Role::Input)]);
    for (i, from) in ["x", "a", "b", "c"].iter().enumerate() {
        let to = ["a", "b", "c", "d"][i];
        b.work(to, f32s(160), None);
        b.step(&[from], to);
    }
    b.work("e", f32s(160), None);
    b.step(&["d"], "e");
    assert_eq!(peak(&[b.finish(&["e"])]), ("1280".into(), 1280));
}

/// A launch of `y = -x` with `from` and `to`.
fn negation(b: &mut Build, from: &str, to: &str) {
    b.step(&[from], to);
    let text = "kernel k target cpu { sym n in 1..=100; in x: f32[i=n]; out y: f32[i=n]
        par t in ceil(n, 8) at grid { let v = load x[t*8 +? 8] pad 0; store y[t*8 +? 8] = -v } }";
    *b.0.kernels.last_mut().unwrap() = tilewright_ir::kernel::text::parse_kernel("k", text).unwrap();
}

#[test]
fn elementwise_chains_stay_in_place() {
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input)]);
    for name in ["a", "b", "c", "d", "e"] {
        b.work(name, f32s("n"), None);
    }
    negation(&mut b, "x", "a"); // not ours to write
    negation(&mut b, "a", "b");
    negation(&mut b, "b", "c");
    negation(&mut b, "b", "d"); // `b` ends here; where it began is `a`'s memory, and `c` is apart
    b.step(&["c", "d"], "e");
    let plan = &plan_programs(&[b.finish(&["e"])]).unwrap()[0];
    let home = |name: &str| plan.homes[&Arc::from(name)];
    assert_eq!(home("a"), home("b"));
    assert_eq!(home("b"), home("d"));
    assert_ne!(home("b"), home("c"));
    assert!(matches!((home("x"), home("e")), (Home::Param(0), Home::Result(0))));
    assert_eq!(plan.slots.len(), 2);
}

#[test]
fn sizes_are_expressions() {
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input)]);
    let n = Dim::symbol("n");
    for (name, ty) in [("a", Type::new(DType::F32, [n.clone(), Dim::constant(16)])), ("b", f32s(160)), ("c", f32s("n"))]
    {
        b.work(name, ty, None);
    }
    b.work("view", f32s(n.checked_mul(&Dim::constant(16)).unwrap()), Some("a"));
    b.step(&["x"], "a");
    b.step(&["view"], "b");
    b.step(&["b"], "c");
    b.work("y", f32s("n"), None);
    b.step(&["c"], "y");
    // a, then b above it, then c where a was.
    assert_eq!(peak(&[b.finish(&["y"])]), ("64*n + 640".into(), 1280));
}

fn block(in_place: bool) -> Program {
    let mut b = Build::new("block", &[("x", f32s("n"), Role::Input), ("cache", f32s(64), Role::Donated)]);
    for name in ["t", "u", "y"] {
        b.work(name, f32s(32), None);
    }
    b.work("next", f32s(64), in_place.then_some("cache"));
    b.step(&["x"], "t");
    b.step(&["t"], "next");
    b.step(&["next", "t"], "u");
    b.step(&["u"], "y");
    b.finish(&["y", "next"])
}

/// Two calls in a row that hand on a cache.
fn two_calls() -> Program {
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input), ("cache", f32s(64), Role::Donated)]);
    for name in ["y0", "y1"] {
        b.work(name, f32s(32), None);
    }
    for name in ["c0", "c1"] {
        b.work(name, f32s(64), None);
    }
    b.call("block", &["x", "cache"], &["y0", "c0"]);
    b.call("block", &["y0", "c0"], &["y1", "c1"]);
    b.finish(&["y1", "c1"])
}

#[test]
fn a_donated_buffer_stays_where_it_is_through_calls() {
    let programs = [block(true), two_calls()];
    let plans = plan_programs(&programs).unwrap();
    assert_eq!(plans[1].results[1].0, Returned::Param(1));
    assert_eq!(plans[1].results[0].0, Returned::Written);
    assert_eq!(plans[1].homes["c0"], Home::Param(1));
    // y0, and above it t and u of a callee.
    assert_eq!(peak(&programs), ("384".into(), 384));
    // Without the update in place, the first call's cache needs memory, and the second's is a result.
    let programs = [block(false), two_calls()];
    assert_eq!(peak(&programs), ("640".into(), 640));
}

#[test]
fn results_that_are_not_the_programs_own_are_copied() {
    let mut b = Build::new("main", &[("x", f32s(4), Role::Input), ("d", f32s(4), Role::Donated)]);
    b.work("y", f32s(4), None);
    b.step(&["x"], "y");
    let plans = plan_programs(&[b.finish(&["x", "y", "y", "d", "d"])]).unwrap();
    let found: Vec<&Returned> = plans[0].results.iter().map(|(r, _)| r).collect();
    let copied = |home| Returned::Copied(home);
    let expected = [
        copied(Home::Param(0)),
        Returned::Written,
        copied(Home::Result(1)),
        Returned::Param(1),
        copied(Home::Param(1)),
    ];
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    assert_eq!((plans[0].slots.len(), &plans[0].taken[..]), (0, &[false, true][..]));
}

#[test]
fn what_is_not_ours_is_not_written() {
    let mut b = Build::new("main", &[("x", f32s(4), Role::Input), ("y", f32s(4), Role::Input)]);
    b.step(&["x"], "y");
    assert_eq!(plan_programs(&[b.finish(&["x"])]).unwrap_err().code, "bug");
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input), ("c", f32s(64), Role::Input)]);
    b.work("y", f32s(32), None);
    b.work("z", f32s(64), None);
    b.call("block", &["x", "c"], &["y", "z"]);
    assert_eq!(plan_programs(&[block(true), b.finish(&["y"])]).unwrap_err().code, "bug");
}

fn packing(name: &str) -> Program {
    let mut b = Build::new(name, &[("x", f32s("n"), Role::Input), ("w", f32s(64), Role::Weight)]);
    b.work("panels", f32s(64), None);
    b.work("y", f32s(32), None);
    let (k, n) = (Dim::constant(8), Dim::constant(8));
    let (k_stride, n_stride) = (Dim::constant(8), Dim::constant(1));
    let (from, to) = ("w".into(), "panels".into());
    let (dtype, offset, batch) = (DType::F32, Dim::constant(0), Vec::new());
    b.0.steps.push(Step::Pack(Pack {
        from,
        to,
        dtype,
        panels: dtype,
        offset,
        batch,
        k,
        n,
        k_stride,
        n_stride,
        nr: 8,
        when: None,
    }));
    b.step(&["x", "panels"], "y");
    b.finish(&["y"])
}

#[test]
fn panels_last_only_if_their_source_does() {
    assert_eq!(plan_programs(&[packing("main")]).unwrap()[0].homes["panels"], Home::Panels(0));
    // A callee whose weight is computed in one of its calls.
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input), ("w", f32s(64), Role::Weight)]);
    for (name, n) in [("v", 64), ("y", 32), ("z", 32)] {
        b.work(name, f32s(n), None);
    }
    b.step(&["w"], "v");
    b.call("linear", &["x", "w"], &["y"]);
    b.call("linear", &["y", "v"], &["z"]);
    let plans = plan_programs(&[packing("linear"), b.finish(&["z"])]).unwrap();
    assert_eq!((plans[0].homes["panels"], plans[0].panels), (Home::Slot(0), 0));
}

#[test]
fn branches_share_an_arena_and_scans_take_turns() {
    let branch = |name: &str, inner: i64| {
        let mut b = Build::new(name, &[("x", f32s(16), Role::Input)]);
        b.work("t", f32s(inner), None);
        b.work("y", f32s(16), None);
        b.step(&["x"], "t");
        b.step(&["t"], "y");
        b.finish(&["y"])
    };
    let mut b = Build::new("main", &[("x", f32s(16), Role::Input), ("p", f32s(1), Role::Input)]);
    b.work("a", f32s(16), None);
    b.work("b", f32s(16), None);
    let to = |function: &str| Branch { function: function.into(), symbols: vec![("n".into(), "n".into())] };
    let (predicate, arguments, results) = ("p".into(), vec!["x".into()], vec!["a".into()]);
    b.0.steps.push(Step::Cond(CondStep { predicate, yes: to("small"), no: to("large"), arguments, results }));
    let (arguments, results) = (vec![ScanArgument::Carry("a".into())], vec![ScanResult::Carry("b".into())]);
    b.0.steps.push(Step::Scan(ScanStep { body: to("small"), length: "n".into(), arguments, results }));
    let programs = [branch("small", 16), branch("large", 160), b.finish(&["b"])];
    // The larger branch beside a; then a, the arena of the body and the second memory of the carry.
    assert_eq!(peak(&programs), ("704".into(), 704));
    let plans = plan_programs(&programs).unwrap();
    assert!(plans[2].steps[1].spares[0].is_some());
}

#[test]
fn a_plan_can_be_read() {
    let programs = [block(true), two_calls()];
    let plans = plan_programs(&programs).unwrap();
    let text = print_plan(&programs[1], &plans[1], &["block", "main"]).unwrap();
    let expected = "plan main {
  sym n in 1..=100
  peak 384 bytes
  peak at most 384 bytes
  buffer x: f32[n] bytes(4*n) in param(0)
  buffer cache: f32[64] bytes(256) in param(1)
  buffer y0: f32[32] bytes(128) in slot(0)
  buffer y1: f32[32] bytes(128) in result(0)
  buffer c0: f32[64] bytes(256) in param(1)
  buffer c1: f32[64] bytes(256) in param(1)
  slot 0: at 0 bytes(128) steps 0..=1
  slot 1: at 128 bytes(256) steps 0..=0 arena(block)
  slot 2: at 128 bytes(256) steps 1..=1 arena(block)
  step 0: y0, c0 = call block(x, cache)
  step 1: y1, c1 = call block(y0, c0)
  return y1: written in place
  return c1: is donated param(1)
}
";
    assert_eq!(text, expected);
}

#[test]
fn sizes_that_overflow_are_refused() {
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input)]);
    b.work("a", Type::new(DType::F64, [Dim::constant(1 << 40), Dim::constant(1 << 40)]), None);
    b.step(&["x"], "a");
    assert_eq!(plan_programs(&[b.finish(&["x"])]).unwrap_err().code, "dim-overflow");
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input)]);
    let huge = |k| Type::new(DType::U8, [Dim::symbol("n"), Dim::constant(1i64 << k)]);
    b.work("a", huge(61), None);
    b.work("b", huge(61), None);
    b.step(&["x"], "a");
    b.step(&["a"], "b");
    b.step(&["b"], "a");
    let plans = plan_programs(&[b.finish(&["x"])]).unwrap();
    assert_eq!(plans[0].peak.bound(&plans[0].symbols), None);
    assert_eq!(Layouts::default().get(&plans, 0, &at(1)).unwrap().peak, 1 << 62);
    assert_eq!(Layouts::default().get(&plans, 0, &at(90)).unwrap_err().code, "dim-overflow");
}

/// 10^5 steps: buffers that die at once between buffers that live long.
#[test]
fn long_programs_take_n_log_n() {
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input)]);
    let steps = 100_000;
    let name = |i: usize| format!("b{i}");
    for i in 0..steps {
        let ty = if i % 3 == 0 { f32s("n") } else { f32s((i % 7 + 1) as i64 * 16) };
        b.work(&name(i), ty, None);
        match i {
            0 => b.step(&["x"], &name(0)),
            _ if i >= steps / 2 && i % 2 == 0 => b.step(&[&name(i - 1), &name(steps - 1 - i)], &name(i)),
            _ => b.step(&[&name(i - 1)], &name(i)),
        }
    }
    let programs = [b.finish(&[])];
    let plans = plan_programs(&programs).unwrap();
    let edges: usize = plans[0].slots.iter().map(|s| s.above.len()).sum();
    assert!(plans[0].slots.len() == steps && edges <= 3 * steps);
    assert!(Layouts::default().get(&plans, 0, &at(100)).unwrap().peak > 0);
}

/// A random program: each step reads up to three earlier buffers and writes a new one, of a random size.
fn random(steps: &[(Vec<u16>, u8, u16)]) -> Program {
    let mut b = Build::new("main", &[("x", f32s("n"), Role::Input)]);
    let mut names: Vec<String> = vec!["x".into()];
    for (i, (reads, kind, size)) in steps.iter().enumerate() {
        let n = Dim::symbol("n");
        let k = Dim::constant(i64::from(*size) + 1);
        let ty = match kind % 4 {
            0 => f32s(k),
            1 => Type::new(DType::F32, [n, k]),
            2 => Type::new(DType::F32, [n.clone(), n, Dim::constant(i64::from(*size % 4) + 1)]),
            // Falls with n.
            _ => f32s(Dim::constant(120).checked_sub(&n).unwrap()),
        };
        let name = format!("b{i}");
        // Mostly recent ones, so that buffers die.
        let near = |r: &u16| names[names.len() - 1 - usize::from(*r) % names.len().min(6)].as_str();
        b.work(&name, ty, None);
        b.step(&reads.iter().map(near).collect::<Vec<_>>(), &name);
        names.push(name);
    }
    let last = names.pop().unwrap_or_default();
    b.finish(&[&last])
}

/// Fragmentation costs at most this factor over the most bytes that are live at a time, for known sizes.
const FACTOR: f64 = 1.5;

#[test]
fn live_buffers_of_random_programs_do_not_overlap() {
    let step = || (prop::collection::vec(any::<u16>(), 1..4), any::<u8>(), 0u16..300);
    let programs = (prop::collection::vec(step(), 1..60), prop::collection::vec(1i64..=100, 4), any::<bool>());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner =
        TestRunner::new_with_rng(Config { cases: 256, failure_persistence: None, ..Config::default() }, rng);
    let result = runner.run(&programs, |(mut steps, values, known)| {
        if known {
            steps.iter_mut().for_each(|s| s.1 = 0);
        }
        let plans = plan_programs(&[random(&steps)]).unwrap();
        for n in values {
            let (peak, live) = check(&plans, 0, &at(n));
            prop_assert!(!known || peak as f64 <= FACTOR * live as f64, "{peak} bytes for {live}");
        }
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
}
