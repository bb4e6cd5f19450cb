//! Attention regions, built by hand, on the CPU and on the kernel interpreter, against f64.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use std::collections::BTreeSet;
use tilewright::compile::{Options, compile, lower};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::interp_kernel::{self, Data, Tensor};
use tilewright_ir::kernel::verify::verify;
use tilewright_ir::kernel::{Program, Step};
use tilewright_ir::op::{Literal, ReduceKind, ScalarOp};
use tilewright_ir::types::{Bindings, DType, Dim, SymbolDecl, Type};
use tilewright_passes::Target;
use tilewright_passes::lower::lower_region;
use tilewright_passes::region::{Affine, AxisId, Index, Output, Region, Term, TermId};
use tilewright_runtime::executable::Executable;

/// Axes: 0 groups, 1 queries of a group, 2 rows, 3 values, 4 keys, 5 head.
struct Build {
    region: Region,
}

impl Build {
    fn term(&mut self, term: Term, dtype: DType) -> TermId {
        let of = |a: &Affine| a.terms.iter().map(|t| t.0).collect::<Vec<_>>();
        let free = &self.region.free;
        let set: BTreeSet<AxisId> = match &term {
            Term::Iota(a) => of(a).into_iter().collect(),
            Term::Load { map, .. } => map
                .iter()
                .flat_map(|i| match i {
                    Index::Affine(a) => of(a),
                    Index::Term(_) => panic!("a gather"),
                })
                .collect(),
            Term::Map(_, args) => args.iter().flat_map(|&a| free[a].clone()).collect(),
            Term::Fold { axis, arg, .. } => free[*arg].iter().copied().filter(|a| a != axis).collect(),
            Term::Online { axis, key, weight, mask } => {
                let all = [Some(*key), Some(*weight), *mask];
                all.into_iter().flatten().flat_map(|t| free[t].clone()).filter(|a| a != axis).collect()
            }
            _constant => BTreeSet::new(),
        };
        self.region.terms.push((term, dtype));
        self.region.free.push(set);
        self.region.terms.len() - 1
    }

    fn load(&mut self, input: usize, axes: &[AxisId]) -> TermId {
        let map = axes.iter().map(|&a| Index::Affine(Affine::axis(a))).collect();
        self.term(Term::Load { input, map, open: false }, DType::F32)
    }

    fn map(&mut self, op: ScalarOp, args: &[TermId], dtype: DType) -> TermId {
        self.term(Term::Map(op, args.to_vec()), dtype)
    }

    fn real(&mut self, x: f32) -> TermId {
        self.term(Term::Const(Literal(Array::from_f32(&[], &[x]).unwrap())), DType::F32)
    }
}

#[derive(Clone, Copy)]
struct Shape {
    groups: i64,
    each: i64,
    values: i64,
    head: i64,
    causal: bool,
    cap: bool,
}

/// `softmax(cap(q k / 8)) v` with the rows at the end of the keys: rows `s`, keys `p + s`; the result is `[s, g, r, e]`.
fn region(shape: Shape) -> Region {
    let (s, keys) = (Dim::symbol("seq"), Dim::symbol("seq").checked_add(&Dim::symbol("past")).unwrap());
    let dims = [
        Dim::from(shape.groups),
        Dim::from(shape.each),
        s.clone(),
        Dim::from(shape.values),
        keys.clone(),
        Dim::from(shape.head),
    ];
    let axes = dims.iter().enumerate().map(|(i, d)| (format!("d{i}").into(), d.clone())).collect();
    let ty = |axes: &[usize]| Type::new(DType::F32, axes.iter().map(|&a| dims[a].clone()));
    let inputs = vec![("q".into(), ty(&[0, 1, 2, 5])), ("k".into(), ty(&[0, 4, 5])), ("v".into(), ty(&[4, 0, 3]))];
    let symbols = vec![SymbolDecl::new("seq", 1, 400), SymbolDecl::new("past", 0, 400)];
    let (terms, free, outputs, places) = (vec![], vec![], vec![], vec![]);
    let mut b = Build { region: Region { axes, rank: 4, inputs, terms, free, outputs, places, symbols } };
    let (q, k, v) = (b.load(0, &[0, 1, 2, 5]), b.load(1, &[0, 4, 5]), b.load(2, &[4, 0, 3]));
    // Queries that are computed go into the core's cache first.
    let q = if shape.cap { b.map(ScalarOp::Neg {}, &[q], DType::F32) } else { q };
    let product = b.map(ScalarOp::Mul {}, &[q, k], DType::F32);
    let dot = b.term(Term::Fold { kind: ReduceKind::Sum, axis: 5, arg: product }, DType::F32);
    let (scale, one, ten) = (b.real(0.125), b.real(1.0), b.real(10.0));
    let mut key = b.map(ScalarOp::Mul {}, &[dot, scale], DType::F32);
    if shape.cap {
        let small = b.map(ScalarOp::Div {}, &[key, ten], DType::F32);
        let bounded = b.map(ScalarOp::Tanh {}, &[small], DType::F32);
        key = b.map(ScalarOp::Mul {}, &[bounded, ten], DType::F32);
    }
    let mask = shape.causal.then(|| {
        let j = b.term(Term::Iota(Affine::axis(4)), DType::I64);
        let i = b.term(Term::Iota(Affine::axis(2)), DType::I64);
        let past = b.term(Term::Size(Dim::symbol("past")), DType::I64);
        let last = b.map(ScalarOp::Add {}, &[i, past], DType::I64);
        b.map(ScalarOp::Le {}, &[j, last], DType::Bool)
    });
    let values = b.term(Term::Online { axis: 4, key, weight: v, mask }, DType::F32);
    let sum = b.term(Term::Online { axis: 4, key, weight: one, mask }, DType::F32);
    let root = b.map(ScalarOp::Div {}, &[values, sum], DType::F32);
    b.region.outputs = vec![Output { root, axes: vec![2, 0, 1, 3] }, Output { root: sum, axes: vec![0, 1, 2] }];
    b.region
}

fn reference(shape: Shape, s: usize, p: usize, inputs: &[Array]) -> Vec<f64> {
    let [q, k, v] = [0, 1, 2].map(|i| inputs[i].to_f64().unwrap());
    let [groups, each, width, head] = [shape.groups, shape.each, shape.values, shape.head].map(|n| n as usize);
    let t = s + p;
    let mut out = vec![0.0; s * groups * each * width];
    for (g, r, i) in (0..groups).flat_map(|g| (0..each).flat_map(move |r| (0..s).map(move |i| (g, r, i)))) {
        let seen = if shape.causal { p + i + 1 } else { t };
        let score = |j: usize| {
            let (q, k) = (&q[((g * each + r) * s + i) * head..][..head], &k[(g * t + j) * head..][..head]);
            let x = q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * 0.125;
            if shape.cap { (-x / 10.0).tanh() * 10.0 } else { x }
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (e, out) in out[((i * groups + g) * each + r) * width..][..width].iter_mut().enumerate() {
            *out = weights.iter().enumerate().map(|(j, w)| w * v[(j * groups + g) * width + e]).sum::<f64>() / sum;
        }
    }
    out
}

fn inputs(region: &Region, bindings: &Bindings) -> Vec<Array> {
    let mut random = Random(11);
    let mut next = || random.signed() * 3.0;
    let make = |(_, ty): &(_, Type)| {
        let shape = ty.concrete(bindings).unwrap();
        let n = shape.iter().product();
        Array::from_f32(&shape, &std::iter::repeat_with(&mut next).take(n).collect::<Vec<_>>()).unwrap()
    };
    region.inputs.iter().map(make).collect()
}

/// The program on the kernel interpreter.
fn interpret(program: &Program, inputs: &[Array], bindings: &Bindings) -> Vec<f64> {
    let size = |d: &Dim| usize::try_from(d.eval(bindings).unwrap()).unwrap();
    let skipped = |when: &Option<tilewright_ir::kernel::Expr>| {
        let holds = |e| tilewright_codegen::cpu::clif::eval(e, &|name| bindings.get(name).copied()).unwrap() != 0;
        when.as_ref().is_some_and(|e| !holds(e))
    };
    let mut data: std::collections::BTreeMap<String, Vec<f64>> = std::collections::BTreeMap::new();
    for (p, a) in program.params.iter().zip(inputs) {
        data.insert(p.buffer.name.to_string(), a.to_f64().unwrap());
    }
    for step in &program.steps {
        match step {
            Step::Pack(pack) if !skipped(&pack.when) => {
                let (k, n) = (size(&pack.k), size(&pack.n));
                let mut starts = vec![size(&pack.offset)];
                for (count, stride) in &pack.batch {
                    let (count, stride) = (size(count), size(stride));
                    starts = starts.iter().flat_map(|s| (0..count).map(move |i| s + i * stride)).collect();
                }
                let from = &data[&*pack.from];
                let mut to = Vec::new();
                for start in starts {
                    for (panel, p, c) in (0..n.div_ceil(pack.nr))
                        .flat_map(|panel| (0..k).flat_map(move |p| (0..pack.nr).map(move |c| (panel, p, c))))
                    {
                        let column = panel * pack.nr + c;
                        let at = start + p * size(&pack.k_stride) + column * size(&pack.n_stride);
                        to.push(if column < n { from[at] } else { 0.0 });
                    }
                }
                data.insert(pack.to.to_string(), to);
            }
            Step::Launch(launch) if !skipped(&launch.when) => {
                let kernel = &program.kernels[launch.kernel];
                let eval = |e| tilewright_codegen::cpu::clif::eval(e, &|name| bindings.get(name).copied()).unwrap();
                let tensors = launch.arguments.iter().zip(&kernel.arguments).map(|(name, b)| {
                    let shape: Vec<usize> = b.axes.iter().map(|(_, e)| usize::try_from(eval(e)).unwrap()).collect();
                    let n = shape.iter().product();
                    let values = data.get(&**name).cloned().unwrap_or_else(|| vec![f64::NAN; n]);
                    Tensor { shape, data: Data::Float(values) }
                });
                let mut tensors: Vec<Tensor> = tensors.collect();
                interp_kernel::run(kernel, &mut tensors, bindings).unwrap_or_else(|d| panic!("{d}\n{kernel}"));
                for (name, tensor) in launch.arguments.iter().zip(tensors) {
                    let Data::Float(values) = tensor.data else { panic!("no floats") };
                    data.insert(name.to_string(), values);
                }
            }
            _skipped => {}
        }
    }
    data[&*program.results[0]].clone()
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max);
    assert!(worst < 2e-5, "{what}: {worst}");
    assert!(found.iter().all(|x| x.is_finite()), "{what}");
}

fn check(shape: Shape, sizes: &[(i64, i64)]) {
    let region = region(shape);
    for isa in Isa::ALL.iter().copied().filter(|isa| isa.available()) {
        let program = lower_region(&region, &Target { isa: isa.name() }).unwrap();
        assert_eq!(program.kernels.len(), 2, "one kernel for many rows, one for few");
        for kernel in &program.kernels {
            let report = verify(kernel).unwrap_or_else(|d| panic!("{d}\n{kernel}"));
            assert!(report.complete(), "{kernel}");
        }
        let executables = [1, 2].map(|threads| Executable::compile(vec![program.clone()], isa, threads).unwrap());
        for &(s, p) in sizes {
            let bindings = Bindings::from([("seq".into(), s), ("past".into(), p)]);
            let inputs = inputs(&region, &bindings);
            let expected = reference(shape, s as usize, p as usize, &inputs);
            let [one, two] = [0, 1].map(|i| executables[i].run(&inputs, &bindings).unwrap());
            assert!(one == two, "{isa:?}, {s} rows after {p}: the number of threads changes bits");
            close(&one[0].to_f64().unwrap(), &expected, &format!("{isa:?}, {s} rows after {p}"));
            if s * (s + p) <= 800 {
                close(&interpret(&program, &inputs, &bindings), &expected, &format!("interpreted {s} after {p}"));
            }
        }
    }
}

const SIZES: &[(i64, i64)] =
    &[(1, 0), (1, 1), (1, 300), (3, 128), (15, 1), (16, 0), (17, 30), (70, 0), (61, 200), (300, 3)];

#[test]
fn grouped_causal_attention() {
    check(Shape { groups: 2, each: 3, values: 64, head: 16, causal: true, cap: false }, SIZES);
}

#[test]
fn narrow_values_are_packed() {
    check(Shape { groups: 3, each: 1, values: 20, head: 33, causal: true, cap: false }, SIZES);
}

#[test]
fn every_key_is_seen_without_a_mask() {
    check(Shape { groups: 1, each: 2, values: 32, head: 8, causal: false, cap: true }, SIZES);
}

/// Scores of a cache's slice, hidden after each row's own position, with every size known or a symbol.
const CACHED: &str = "func @main(%q: f32[6, seq, 32], %k: f32[2, 90, 32], %v: f32[2, 90, 32]) -> f32[seq, 192] where seq in 1..=90, past in 0..=89 {
  %0 = slice %k start=[0, 0, 0] limit=[2, past + seq, 32] stride=[1, 1, 1]
  %1 = slice %v start=[0, 0, 0] limit=[2, past + seq, 32] stride=[1, 1, 1]
  %2 = reshape %q shape=[2, 3, seq, 32]
  %3 = dot %2, %0 batch=[0]x[0] contract=[3]x[2]
  %4 = constant f32[] = 0.125
  %5 = broadcast %4 shape=[2, 3, seq, past + seq] dims=[]
  %6 = mul %3, %5
  %7 = iota axis=0 shape=[seq, past + seq] dtype=i64
  %8 = iota axis=1 shape=[seq, past + seq] dtype=i64
  %9 = size dim=past
  %10 = broadcast %9 shape=[seq, past + seq] dims=[]
  %11 = add %7, %10
  %12 = le %8, %11
  %13 = broadcast %12 shape=[2, 3, seq, past + seq] dims=[2, 3]
  %14 = constant f32[] = -inf
  %15 = broadcast %14 shape=[2, 3, seq, past + seq] dims=[]
  %16 = select %13, %6, %15
  %17 = reduce_max %16 axes=[3]
  %18 = broadcast %17 shape=[2, 3, seq, past + seq] dims=[0, 1, 2]
  %19 = sub %16, %18
  %20 = exp %19
  %21 = sum %20 axes=[3]
  %22 = broadcast %21 shape=[2, 3, seq, past + seq] dims=[0, 1, 2]
  %23 = div %20, %22
  %24 = dot %23, %1 batch=[0]x[0] contract=[3]x[1]
  %25 = reshape %24 shape=[6, seq, 32]
  %26 = transpose %25 perm=[1, 0, 2]
  %27 = reshape %26 shape=[seq, 192]
  return %27 }";

#[test]
fn the_e_graph_finds_attention() {
    let module = tilewright_ir::text::parse("cached.tw", CACHED).unwrap_or_else(|d| panic!("{d}"));
    let options = Options { opt_level: 2, ..Options::host().unwrap() };
    let programs = lower(&module, &options).unwrap();
    let text = tilewright_ir::kernel::text::print_program(&programs[0]);
    // One kernel for many rows and one for few, neither with scores in memory; tiles after the last visible key are left out.
    assert!(text.contains("scores") && text.contains("when(") && !text.contains("past + seq, past + seq"), "{text}");
    assert!(text.contains("for jt in 0 .. ceil(min(past + seq,"), "{text}");
    let executable = compile(&module, &options).unwrap();
    for (seq, past) in [(1, 0), (1, 60), (5, 3), (16, 0), (40, 50), (90, 0)] {
        let bindings = Bindings::from([("seq".into(), seq), ("past".into(), past)]);
        let params = &module.entry().unwrap().params;
        let shapes: Vec<Vec<usize>> = params.iter().map(|p| p.ty.concrete(&bindings).unwrap()).collect();
        let make = |shape: &Vec<usize>| {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|i| ((i * 7919 + shape[1] * 31) % 1000) as f32 / 250.0 - 2.0).collect();
            Array::from_f32(shape, &values).unwrap()
        };
        let inputs: Vec<Array> = shapes.iter().map(make).collect();
        let expected =
            tilewright_ir::interp::run(&module, "main", &inputs, &bindings, tilewright_ir::interp::Mode::Meaning);
        let found = executable.run(&inputs, &bindings).unwrap();
        let expected = expected.unwrap()[0].to_f64().unwrap();
        close(&found[0].to_f64().unwrap(), &expected, &format!("{seq} rows after {past}"));
    }
}
