//! Structure of programs.

use super::{Target, lower_module};
use tilewright_ir::array::Array;
use tilewright_ir::graph::{Function, Module, Param, Role, Value};
use tilewright_ir::kernel::{Expr, Program, Step};
use tilewright_ir::op::{DotDims, GraphOp, Literal, ReduceKind, ScalarOp};
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};

pub(super) struct Graph {
    pub(super) f: Function,
}

impl Graph {
    pub(super) fn new(params: &[(&str, Type, Role)]) -> Graph {
        let params = params.iter().map(|(n, t, r)| Param { name: (*n).into(), ty: t.clone(), role: *r }).collect();
        let symbols = vec![SymbolDecl::new("rows", 1, 4096)];
        Graph { f: Function::new("main", symbols, params) }
    }

    pub(super) fn op(&mut self, op: GraphOp, args: &[Value]) -> Value {
        let node = self.f.push(&Module::default(), op, args, None, &"".into()).unwrap();
        Value { node, index: 0 }
    }

    pub(super) fn map(&mut self, op: ScalarOp, args: &[Value]) -> Value {
        self.op(GraphOp::Map { op }, args)
    }

    pub(super) fn scalar(&mut self, x: f32, like: Value) -> Value {
        let c = self.op(GraphOp::Constant { value: Literal(Array::from_f32(&[], &[x]).unwrap()) }, &[]);
        self.spread(c, like, vec![])
    }

    pub(super) fn spread(&mut self, x: Value, like: Value, dims: Vec<usize>) -> Value {
        let shape = self.f.ty(like).shape.clone();
        self.op(GraphOp::Broadcast { shape, dims }, &[x])
    }

    pub(super) fn program(mut self, results: &[Value], level: u8) -> Program {
        self.f.results = results.to_vec();
        let mut module = Module::default();
        module.functions.insert("main".into(), self.f);
        lower_module(&module, level, &Target { isa: "avx512" }).unwrap().remove(0)
    }
}

pub(super) fn rows(n: i64) -> Type {
    Type::new(DType::F32, [Dim::symbol("rows"), Dim::constant(n)])
}

fn softmax(level: u8) -> Program {
    let mut g = Graph::new(&[("x", rows(1000), Role::Input)]);
    let x = g.f.param(0);
    let max = g.op(GraphOp::Reduce { kind: ReduceKind::Max, axes: vec![1] }, &[x]);
    let max = g.spread(max, x, vec![0]);
    let shifted = g.map(ScalarOp::Sub {}, &[x, max]);
    let e = g.map(ScalarOp::Exp {}, &[shifted]);
    let sum = g.op(GraphOp::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[e]);
    let sum = g.spread(sum, x, vec![0]);
    let y = g.map(ScalarOp::Div {}, &[e, sum]);
    g.program(&[y], level)
}

#[test]
fn softmax_is_one_kernel() {
    let p = softmax(1);
    assert_eq!((p.kernels.len(), p.steps.len()), (1, 1));
    assert_eq!(softmax(0).kernels.len(), 7);
}

#[test]
fn layer_norm_is_one_kernel() {
    let vector = Type::new(DType::F32, [768i64]);
    let mut g = Graph::new(&[("x", rows(768), Role::Input), ("g", vector, Role::Weight)]);
    let (x, gain) = (g.f.param(0), g.f.param(1));
    let n = g.scalar(1.0 / 768.0, x);
    let scaled = g.map(ScalarOp::Mul {}, &[x, n]);
    let mean = g.op(GraphOp::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[scaled]);
    let mean = g.spread(mean, x, vec![0]);
    let d = g.map(ScalarOp::Sub {}, &[x, mean]);
    let square = g.map(ScalarOp::Mul {}, &[d, d]);
    let var = g.op(GraphOp::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, &[square]);
    let eps = g.scalar(1e-5, var);
    let var = g.map(ScalarOp::Add {}, &[var, eps]);
    let r = g.map(ScalarOp::Rsqrt {}, &[var]);
    let r = g.spread(r, x, vec![0]);
    let y = g.map(ScalarOp::Mul {}, &[d, r]);
    let gain = g.spread(gain, x, vec![1]);
    let y = g.map(ScalarOp::Mul {}, &[y, gain]);
    let p = g.program(&[y], 1);
    assert_eq!(p.kernels.len(), 1);
}

#[test]
fn an_update_of_a_donated_buffer_happens_in_place() {
    let update = Type::new(DType::F32, [2i64, 300]);
    let build = |role| {
        let mut g = Graph::new(&[("x", Type::new(DType::F32, [9i64, 300]), role), ("u", update.clone(), Role::Input)]);
        let (x, u) = (g.f.param(0), g.f.param(1));
        let y = g.op(GraphOp::UpdateSlice { start: vec![Dim::constant(3), Dim::constant(0)] }, &[x, u]);
        g.program(&[y], 1)
    };
    let p = build(Role::Donated);
    assert_eq!((p.kernels.len(), p.work[0].alias_of.as_deref()), (1, Some("x")));
    let p = build(Role::Input);
    assert_eq!((p.kernels.len(), p.work[0].alias_of.clone()), (2, None));
}

#[test]
fn a_donated_buffer_that_is_copied_is_a_warning() {
    let ty = Type::new(DType::F32, [9i64, 300]);
    let update = Type::new(DType::F32, [2i64, 300]);
    let build = |reads: bool| {
        let mut g = Graph::new(&[("x", ty.clone(), Role::Donated), ("u", update.clone(), Role::Input)]);
        let (x, u) = (g.f.param(0), g.f.param(1));
        let y = g.op(GraphOp::UpdateSlice { start: vec![Dim::constant(3), Dim::constant(0)] }, &[x, u]);
        let results = if reads { vec![y, g.map(ScalarOp::Neg {}, &[x])] } else { vec![y] };
        g.program(&results, 1).warnings
    };
    assert_eq!(build(false), []);
    let warnings = build(true);
    let found: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let expected = "warning[donated-copy]: `x` is donated to `main`, but must be copied: its old value is read later";
    assert_eq!(found, [expected]);
}

fn linear(weight: DType, level: u8) -> Program {
    let w = Type::new(weight, [3072i64, 768]);
    let bias = Type::new(DType::F32, [3072i64]);
    let mut g = Graph::new(&[("x", rows(768), Role::Input), ("w", w, Role::Weight), ("b", bias, Role::Weight)]);
    let (x, mut w, b) = (g.f.param(0), g.f.param(1), g.f.param(2));
    if weight.is_block() {
        w = g.map(ScalarOp::Cast { to: DType::F32 }, &[w]);
    }
    let dims = DotDims { batch: (vec![], vec![]), contract: (vec![1], vec![1]) };
    let y = g.op(GraphOp::Dot { dims }, &[x, w]);
    let b = g.spread(b, y, vec![1]);
    let y = g.map(ScalarOp::Add {}, &[y, b]);
    let half = g.scalar(0.5, y);
    let z = g.map(ScalarOp::Mul {}, &[y, half]);
    let e = g.map(ScalarOp::Erf {}, &[y]);
    let y = g.map(ScalarOp::Mul {}, &[z, e]);
    g.program(&[y], level)
}

#[test]
fn dot_bias_gelu_is_a_pack_and_a_kernel() {
    for dtype in [DType::F32, DType::Q4_1] {
        let p = linear(dtype, 1);
        assert_eq!((p.kernels.len(), p.steps.len()), (1, 2));
        let Step::Pack(pack) = &p.steps[0] else { panic!("{:?}", p.steps) };
        assert_eq!((&*pack.from, pack.dtype, pack.nr), ("w", dtype, 32));
    }
    assert_eq!(linear(DType::F32, 0).kernels.len(), 7);
}

/// Bools have no sum: one that runs combines them as a reduction does.
#[test]
fn running_sums_of_bools_are_kernels_everywhere() {
    for isa in ["avx512", "sm_80"] {
        let text = "func @main(%x: bool[3, 5]) -> bool[3, 5] {\n  %0 = cumsum %x axis=1 : bool[3, 5]\n  return %0\n}\n";
        let module = tilewright_ir::text::parse("graph", text).unwrap();
        for program in lower_module(&module, 1, &Target { isa }).unwrap() {
            for kernel in &program.kernels {
                tilewright_ir::kernel::verify::verify(kernel).unwrap();
            }
        }
    }
}

/// Outside of what is padded lies outside of what it is joined from, too, be it one part only. Lowering proves kernels.
#[test]
fn one_joined_part_stays_inside_a_pad() {
    for level in [0, 1, 2] {
        let mut g = Graph::new(&[("x", Type::new(DType::F32, [3i64, 1]), Role::Input)]);
        let joined = g.op(GraphOp::Concat { axis: 1 }, &[g.f.param(0)]);
        let fill = g.op(GraphOp::Constant { value: Literal(Array::from_f32(&[], &[0.5]).unwrap()) }, &[]);
        let none = (Dim::constant(0), Dim::constant(0));
        let amounts = vec![none, (Dim::constant(0), Dim::constant(4))];
        let padded = g.op(GraphOp::Pad { amounts }, &[joined, fill]);
        let program = g.program(&[padded], level);
        assert!(program.kernels.iter().all(|k| tilewright_ir::kernel::verify::verify(k).is_ok()), "level {level}");
    }
}

#[test]
fn a_kernel_that_is_not_proved_is_an_error_that_names_it() {
    let mut program = softmax(1);
    super::proved(&program).unwrap();
    let kernel = &mut program.kernels[0];
    kernel.arguments.iter_mut().flat_map(|b| &mut b.axes).for_each(|axis| axis.1 = Expr::Int(1));
    let name = kernel.name.to_string();
    let refused = super::proved(&program).unwrap_err();
    assert!(refused.code == "bug" && refused.message.contains(&name), "{refused}");
    assert!(refused.notes.iter().any(|n| n == "kernel-bounds"), "{refused}");
}

/// The way back of attention folds queries and, in each group of heads, a head that is alone: that is a product of matrices, too.
#[test]
fn axes_of_size_one_do_not_hide_a_product() {
    let (p, ct) = (Type::new(DType::F32, [8i64, 1, 64, 64]), Type::new(DType::F32, [8i64, 1, 64, 32]));
    let mut g = Graph::new(&[("p", p, Role::Input), ("ct", ct, Role::Input)]);
    let dims = DotDims { batch: (vec![0], vec![0]), contract: (vec![1, 2], vec![1, 2]) };
    let y = g.op(GraphOp::Dot { dims }, &[g.f.param(0), g.f.param(1)]);
    let program = g.program(&[y], 1);
    let text = tilewright_ir::kernel::text::print_program(&program);
    assert!(text.contains("mma acc"), "{text}");
}
