//! Text of Graph IR: what is printed parses to the same module, and no text makes the parser panic.

// Helpers of tests may fail like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use tilewright_ir::array::{Array, Bytes};
use tilewright_ir::diag::Place;
use tilewright_ir::dsl::{Attention, Graph, nn};
use tilewright_ir::graph::{Function, Module, NodeId, Param, Role, Value};
use tilewright_ir::infer::shown_name;
use tilewright_ir::op::{DotDims, GraphKind, GraphOp, Literal, ReduceKind, ScalarKind, ScalarOp};
use tilewright_ir::text::{difference, parse, print};
use tilewright_ir::types::{DType, Dim, SymbolDecl, Type};
use tilewright_ir::verify::verify;

const SAMPLE: &str = r#"func @"two words"(%x: f32[n], %acc: f32[]) -> (f32[], f32[n]) where n in 0..=64 {
  %0 = sum %x axes=[0] : f32[]
  %1 = add %acc, %0 : f32[]
  return %1, %x
}

func @main(%x: f32[batch, 768], weight %blocks.3.w: f32[768, 16] @"blocks.3", donated %"0": f16[batch, 16]) -> (f16[batch, 16], f32[]) where batch in 8..=4096 by 8, n in 0..=64 {
  %0 = dot %x, %blocks.3.w batch=[]x[] contract=[1]x[0] : f32[batch, 16] @"blocks.3"
  %1 = cast %0 to=f16 : f16[batch, 16] @"blocks.3"
  %2 = add %1, %"0" : f16[batch, 16]
  %3 = constant f32[2, 3] = [1.0, -inf, inf, nan, -0.0, 1e-45] : f32[2, 3]
  %4 = constant f32[] = 0x7fc00001 : f32[]
  %5 = constant q8_0[32] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021" : q8_0[32]
  %6 = iota axis=1 shape=[2, floordiv(batch + 3, 4)*batch - 1] dtype=i32
  %7 = pad %3, %4 amounts=[(0, batch), (1, 2)] : f32[batch + 2, 6]
  %8 = slice %7 start=[0, 1] limit=[2, 5] stride=[1, 2] : f32[2, 2]
  %9 = reshape %8 shape=[4] : f32[4]
  %10 = call %9, %4 function=@"two words" : (f32[], f32[4])
  %11 = add %10#0, %4 : f32[]
  return %2, %11
}
"#;

#[test]
fn sample_prints_as_it_is() {
    let module = parse("sample", SAMPLE).unwrap_or_else(|e| panic!("{e}"));
    // The only line that is not in normal form.
    let dim = "batch*floordiv(batch + 3, 4) - 1]";
    let line = format!("{dim} dtype=i32 : i32[2, {dim}");
    assert_eq!(print(&module), SAMPLE.replace("floordiv(batch + 3, 4)*batch - 1] dtype=i32", &line));
    let main = &module.functions["main"];
    assert_eq!(main.params[1].role, Role::Weight);
    assert_eq!([0, 1, 2, 3, 5].map(|i| &*main.nodes[i].scope), ["", "blocks.3", "", "blocks.3", ""]);
    assert_eq!(main.nodes[1].places, [Place::Text { file: "sample".into(), line: 7, column: 41, length: 10 }]);
    assert_eq!(main.nodes[5].op, GraphOp::Map { op: ScalarOp::Add {} });
    assert_eq!(main.nodes[3].places, [Place::Text { file: "sample".into(), line: 8, column: 8, length: 3 }]);
    let GraphOp::Constant { value } = &main.nodes[6].op else { panic!("{:?}", main.nodes[6]) };
    let bits: Vec<u32> = value.0.bytes().as_chunks().0.iter().map(|c| u32::from_le_bytes(*c)).collect();
    assert_eq!(bits, [0x3f800000, 0xff800000, 0x7f800000, 0x7fc00000, 0x80000000, 1]);
}

#[test]
fn types_may_be_left_out_and_lines_joined() {
    let short =
        "func @f(%x:f32[n*2-1])where n in 1..=4{%y=neg %x // why\n%z=iota dtype=i32 axis=0 shape=[n]return%y,%z}";
    let module = parse("t", short).unwrap_or_else(|e| panic!("{e}"));
    let want = "func @f(%x: f32[2*n - 1]) -> (f32[2*n - 1], i32[n]) where n in 1..=4 {\n  %0 = neg %x : f32[2*n - 1]\n  \
                %1 = iota axis=0 shape=[n] dtype=i32 : i32[n]\n  return %0, %1\n}\n";
    assert_eq!(print(&module), want);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn dim(&mut self) -> Dim {
        let base = self.of(&[Dim::from("a"), Dim::from("b_2"), Dim::from(3), Dim::from(1), Dim::from(0)]);
        let other = self.of(&[Dim::from("a"), Dim::from("Z"), Dim::from(-2), Dim::from(32)]);
        match self.below(6) {
            0 => base.checked_add(&other).unwrap(),
            1 => base.checked_mul(&other).unwrap(),
            2 => base.checked_sub(&other).unwrap().floor_div(4),
            3 => base.checked_add(&other).unwrap().modulo(5).checked_mul(&base).unwrap(),
            _ => base,
        }
    }

    fn shape(&mut self) -> Vec<Dim> {
        (0..self.below(4)).map(|_| self.dim()).collect()
    }

    fn plain(&mut self) -> DType {
        self.of(&DType::ALL[..13])
    }

    fn literal(&mut self) -> Literal {
        let dtype = self.of(DType::ALL);
        let mut shape: Vec<usize> = (0..self.below(3)).map(|_| self.below(4)).collect();
        if dtype.is_block() {
            shape.push(dtype.block().0);
        }
        let size = dtype.bytes(shape.iter().product()).unwrap();
        let bytes: Vec<u8> = (0..size).map(|_| self.next() as u8).collect();
        Literal(Array::new(dtype, &shape, Bytes::new(bytes)).unwrap())
    }
}

/// A random op of this kind, mostly fitting operands of type `x`.
fn op(r: &mut Random, kind: GraphKind, x: &Type, functions: &[String]) -> GraphOp {
    let rank = x.rank().max(1);
    let axis = r.below(rank);
    let callee = |r: &mut Random| Arc::from(r.of(functions).as_str());
    match kind {
        GraphKind::Parameter => GraphOp::Parameter { index: 0 },
        GraphKind::Constant => GraphOp::Constant { value: r.literal() },
        GraphKind::Iota => GraphOp::Iota { axis, shape: r.shape(), dtype: r.plain() },
        GraphKind::Size => GraphOp::Size { dim: r.dim() },
        GraphKind::Map => {
            let kind = r.of(ScalarKind::ALL);
            let cast = ScalarOp::Cast { to: r.plain() };
            GraphOp::Map { op: ScalarOp::from_parts(kind, &[]).unwrap_or(cast) }
        }
        GraphKind::Reduce => GraphOp::Reduce { kind: r.of(ReduceKind::ALL), axes: vec![axis] },
        GraphKind::Argmax => GraphOp::Argmax { axis },
        GraphKind::Argmin => GraphOp::Argmin { axis },
        GraphKind::Cumsum => GraphOp::Cumsum { axis },
        GraphKind::Dot => {
            let (b, c): (Vec<usize>, Vec<usize>) = if rank > 1 { (vec![0], vec![1]) } else { (vec![], vec![0]) };
            GraphOp::Dot { dims: DotDims { batch: (b.clone(), b), contract: (c.clone(), c) } }
        }
        GraphKind::Broadcast => {
            let shape = std::iter::once(r.dim()).chain(x.shape.iter().cloned()).collect();
            GraphOp::Broadcast { shape, dims: (1..=x.rank()).collect() }
        }
        GraphKind::Reshape => GraphOp::Reshape { shape: x.elements().into_iter().collect() },
        GraphKind::Transpose => GraphOp::Transpose { perm: (0..x.rank()).rev().collect() },
        GraphKind::Slice => {
            let stride = (0..x.rank()).map(|_| 1 + r.below(3) as i64).collect();
            GraphOp::Slice { start: vec![0.into(); x.rank()], limit: x.shape.clone(), stride }
        }
        GraphKind::Pad => GraphOp::Pad { amounts: x.shape.iter().map(|d| (d.clone(), r.below(9).into())).collect() },
        GraphKind::Concat => GraphOp::Concat { axis },
        GraphKind::Flip => GraphOp::Flip { axes: (0..x.rank()).collect() },
        GraphKind::Take => GraphOp::Take { axis },
        GraphKind::TakeAlong => GraphOp::TakeAlong { axis },
        GraphKind::ScatterAdd => GraphOp::ScatterAdd { axis },
        GraphKind::UpdateSlice => GraphOp::UpdateSlice { start: vec![0.into(); x.rank()] },
        GraphKind::Call => GraphOp::Call { function: callee(r) },
        GraphKind::Cond => {
            let name: Arc<str> = callee(r);
            GraphOp::Cond { yes: name.clone(), no: name }
        }
        GraphKind::Scan => {
            let length = x.shape.first().cloned().unwrap_or(4.into());
            GraphOp::Scan { body: callee(r), carries: r.below(2), length }
        }
    }
}

/// Appends one random node if inference accepts it.
fn grow(r: &mut Random, module: &Module, f: &mut Function, scope: &Arc<str>) {
    let results = |i: usize| (0..f.nodes[i].types.len()).map(move |k| (i, k));
    let value = |(i, k)| Value { node: NodeId(i as u32), index: k as u32 };
    let values: Vec<Value> = (0..f.nodes.len()).flat_map(results).map(value).collect();
    let first = if values.is_empty() { None } else { Some(r.of(&values)) };
    let x = first.map_or(Type::scalar(DType::F32), |v| f.ty(v).clone());
    let functions: Vec<String> = module.functions.keys().map(|k| k.to_string()).collect();
    let kind = r.of(GraphKind::ALL);
    let op = op(r, kind, &x, &functions);
    let info = if let GraphOp::Map { op } = &op { op.info() } else { op.info() };
    let calls = matches!(kind, GraphKind::Call | GraphKind::Cond | GraphKind::Scan);
    let count = (0..5).find(|n| info.arity.accepts(*n)).unwrap() + if calls { r.below(2) } else { 0 };
    let mut args: Vec<Value> = first.into_iter().take(count).collect();
    while args.len() < count {
        let Some(first) = first else { return };
        // The same operand again fits most binary ops.
        args.push(if r.below(2) == 0 { first } else { r.of(&values) });
    }
    let _ = f.push(module, op, &args, None, scope);
}

fn function(r: &mut Random, module: &Module, name: &str) -> Function {
    let names = ["x", "y.weight", "0", "q\"", "größe\n", "return"];
    let decl = |name: &str, low, high, step, likely| SymbolDecl { name: name.into(), low, high, step, likely };
    let step = 1 + r.below(4) as i64;
    let likely = (r.below(2) == 0).then_some(3 * step);
    let symbols = vec![decl("a", 0, 64, step, likely), decl("b_2", 3, 3, 1, None), decl("Z", 0, i64::MAX, 1, likely)];
    let shapes = [r.shape(), vec![r.dim(), r.dim()], vec![]];
    let mut params = Vec::new();
    for n in &names[..r.below(names.len() + 1)] {
        let dtype = r.of(&[DType::F32, DType::Bf16, DType::I64, DType::Bool]);
        params.push(Param {
            name: (*n).into(),
            ty: Type { dtype, shape: r.of(&shapes) },
            role: r.of(&[Role::Input, Role::Weight]),
        });
    }
    let mut f = Function::new(name, symbols, params);
    let scopes: Vec<Arc<str>> = ["", "", "blocks.3.attn", "a \"b\"\\ é"].map(Arc::from).to_vec();
    f.nodes.iter_mut().for_each(|n| n.scope = r.of(&scopes));
    for _ in 0..150 {
        let scope = r.of(&scopes);
        grow(r, module, &mut f, &scope);
    }
    for (i, n) in f.nodes.iter().enumerate() {
        if !n.types.is_empty() && r.below(10) == 0 {
            f.results.push(Value { node: NodeId(i as u32), index: r.below(n.types.len()) as u32 });
        }
    }
    let given: Vec<Type> = f.results.iter().map(|v| f.ty(*v).clone()).collect();
    for p in f.params.iter_mut().filter(|p| given.contains(&p.ty)) {
        p.role = Role::Donated;
    }
    f
}

/// Bodies that fit a call, a cond and a scan, then three random functions.
fn module(r: &mut Random) -> Module {
    let mut m = parse(
        "helpers",
        "func @unit() { return }
         func @half() { %0 = constant f32[] = 0.5 return %0, %0 }
         func @first(%x: f32[s]) where s in 0..=9 { return %x }
         func @same(%x: f32[]) { return %x }
         func @truth(%x: bool[s]) where s in 0..=9 { return %x, %x }",
    )
    .unwrap_or_else(|e| panic!("{e}"));
    for name in ["f", "g h", "main"] {
        let f = function(r, &m, name);
        m.functions.insert(name.into(), f);
    }
    m
}

#[test]
fn random_modules_survive_text() {
    let mut r = Random(20);
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut nodes = 0;
    for case in 0..200 {
        let m = module(&mut r);
        verify(&m).unwrap_or_else(|e| panic!("case {case}: {e}\n{}", print(&m)));
        let text = print(&m);
        let back = parse("t", &text).unwrap_or_else(|e| panic!("case {case}: {e}"));
        assert_eq!(difference(&m, &back), None, "case {case}");
        assert_eq!(print(&back), text, "case {case}");
        for n in m.functions.values().flat_map(|f| &f.nodes) {
            seen.insert(shown_name(&n.op));
            nodes += 1;
        }
    }
    let all = GraphKind::ALL.iter().filter(|k| !matches!(k, GraphKind::Map | GraphKind::Reduce));
    let all = all.map(|k| k.info().name).chain(ScalarKind::ALL.iter().map(|k| k.info().name));
    let missing: Vec<&str> =
        all.chain(ReduceKind::ALL.iter().map(|k| k.name())).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "{nodes} nodes without {missing:?}");
}

#[test]
fn difference_sees_a_changed_node() {
    let a = parse("t", SAMPLE).unwrap();
    let changes =
        [("add %acc, %0", "sub %acc, %0"), ("by 8", "by 4"), ("@\"blocks.3\"", "@\"c\""), ("1e-45", "2.8e-45")];
    for (from, to) in changes {
        let b = parse("t", &SAMPLE.replace(from, to)).unwrap();
        assert!(difference(&a, &b).is_some(), "{from} to {to}");
    }
    assert_eq!(difference(&a, &a), None);
}

/// The error of a text: code, line, column.
fn fails(text: &str) -> (&'static str, u32, u32) {
    let e = parse("t", text).expect_err(text);
    match e.labels.first() {
        Some((Place::Text { line, column, .. }, _)) => {
            assert!(e.to_string().contains('^'), "{e}");
            (e.code, *line, *column)
        }
        _ => (e.code, 0, 0),
    }
}

#[test]
fn errors_point_at_the_place() {
    let body = |line: &str| format!("func @f(%x: f32[n, 2], %y: f32[3]) where n in 1..=4 {{\n  {line}\n  return\n}}\n");
    for (line, want) in [
        ("%0 = transpos %x perm=[1, 0]", ("unknown-op", 2, 8)),
        ("%0 = add %x, %z", ("unknown-value", 2, 17)),
        ("%0 = add %x, %y", ("shape-mismatch", 2, 8)),
        ("%0 = neg %x : f32[n, 3]", ("type-mismatch", 2, 15)),
        ("%0 = sum %x axis=[0]", ("bad-attribute", 2, 15)),
        ("%0 = sum %x", ("missing-attribute", 2, 8)),
        ("%0 = sum %x axes=[0] axes=[0]", ("bad-attribute", 2, 24)),
        ("%0 = reshape %x shape=[m]", ("unknown-symbol", 2, 26)),
        ("%0 = reshape %x shape=[9223372036854775808]", ("dim-overflow", 2, 26)),
        ("%0 = reshape %x shape=[9223372036854775807*2]", ("dim-overflow", 2, 46)),
        ("%0 = reshape %x shape=[1.5, 0x4]", ("syntax", 2, 26)),
        ("%0 = reshape %x shape=[2*0x4]", ("syntax", 2, 28)),
        ("%0 = reshape %x shape=[floordiv(n, 0)]", ("bad-attribute", 2, 38)),
        ("%0 = argmax %x axis=99999999999999999999", ("bad-attribute", 2, 23)),
        ("%0 = constant f32[99999999999] = [1.0]", ("array-size", 2, 36)),
        ("%0 = constant f32[9999999999, 9999999999] = []", ("bad-attribute", 2, 17)),
        ("%0 = constant i8[1] = [128]", ("bad-element", 2, 26)),
        ("%0 = constant f32[n] = [1.0]", ("bad-attribute", 2, 17)),
        ("%0 = constant q8_0[32] = \"0\"", ("syntax", 2, 28)),
        ("%0 = constant f33[1] = [1.0]", ("unknown-dtype", 2, 17)),
        ("%x = neg %x", ("duplicate-name", 2, 4)),
        ("%0 = call function=@f", ("unknown-function", 2, 8)),
        ("%0 = parameter index=0", ("unknown-op", 2, 8)),
        ("%0 = neg %x#1", ("unknown-value", 2, 13)),
        ("%0 = neg %x @\"open", ("syntax", 2, 16)),
        ("é", ("syntax", 2, 3)),
    ] {
        assert_eq!(fails(&body(line)), want, "{line}");
    }
    assert_eq!(fails("func @f(%x: f32[n]) {return}"), ("unknown-symbol", 1, 17));
    assert_eq!(fails("func @f(donated %x: f32[2]) {return}").0, "bad-donation");
    assert_eq!(fails("func @f() where n in 3..=2 {return}"), ("bad-symbol", 1, 17));
    assert_eq!(fails("func @f() -> f32[] {return}"), ("type-mismatch", 1, 11));
    assert_eq!(fails("func @f() {return} func @f() {return}"), ("duplicate-name", 1, 20));
    // Numbers need no order, but each is defined once.
    let defines = |lines: &str| format!("func @f(%x: f32[]) -> f32[] {{\n{lines}\nreturn %0\n}}");
    assert!(parse("t", &defines("%2 = neg %x\n%0 = neg %2\n%1 = neg %0")).is_ok());
    assert_eq!(fails(&defines("%0 = neg %x\n%0 = neg %x")), ("duplicate-name", 3, 2));
    assert_eq!(fails(&defines("%1 = neg %x\n%0 = neg %1\n%1 = neg %x")), ("duplicate-name", 4, 2));
    let deep = body(&format!("%0 = reshape %x shape=[{}n", "(".repeat(100_000)));
    assert_eq!(fails(&deep).0, "nesting");
    // Products of sums, divisions of them, and products again would grow without bound.
    let wide = (0..20).fold("n".to_string(), |d, _| format!("(n + 1)*(n + floordiv({d}, 2) + 1)"));
    assert_eq!(fails(&body(&format!("%0 = reshape %x shape=[{wide}]"))).0, "dim-overflow");
}

#[test]
fn sizes_cannot_grow_through_calls() {
    // Each function squares the size of the one before: 2^40 factors, were there no limit.
    let mut text =
        String::from("func @f0(%x: f32[n]) where n in 1..=4 { %0 = iota axis=0 shape=[n*n + n] dtype=f32 return %0 }");
    for i in 1..40 {
        let body = format!("%0 = call %x function=@f{} %1 = call %0 function=@f{}", i - 1, i - 1);
        text.push_str(&format!("func @f{i}(%x: f32[n]) where n in 1..=4 {{ {body} return %1 }}"));
    }
    assert_eq!(fails(&text).0, "dim-overflow");
}

#[test]
fn an_error_is_drawn() {
    let e = parse("model.tw", "func @f(%x: f32[2]) {\n  %0 = cummsum %x axis=0\n  return %0\n}\n").unwrap_err();
    let want = "error[unknown-op]: there is no op `cummsum`\n  --> model.tw:2:8\n     |\n   2 |   %0 = cummsum %x axis=0\n     \
                |        ^^^^^^^\n  note: did you mean `cumsum`?";
    assert_eq!(e.to_string(), want);
}

#[test]
fn hostile_text_is_refused_without_panic() {
    let mut r = Random(7);
    // Every prefix but the empty one, the first function, and the whole is broken.
    let whole = SAMPLE.find("func @main").unwrap();
    for end in (1..SAMPLE.trim_end().len()).filter(|i| !(whole - 2..=whole).contains(i)) {
        assert!(parse("t", &SAMPLE[..end]).is_err(), "{end}");
    }
    let pieces =
        ["(", ")", "[", "]", "%", "9999999999999999999", "-", "é", "\u{0}", "\"", "0x", "1e999", "n", "@", "#4"];
    for _ in 0..3000 {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        for _ in 0..1 + r.below(4) {
            let (at, piece) = (r.below(bytes.len()), r.of(&pieces));
            let end = (at + r.below(8)).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        if let Ok(m) = parse("t", &String::from_utf8_lossy(&bytes)) {
            let text = print(&m);
            assert_eq!(print(&parse("t", &text).unwrap_or_else(|e| panic!("{e}"))), text);
        }
        let noise: Vec<u8> = (0..r.below(60)).map(|_| r.next() as u8).collect();
        let _ = parse("t", &String::from_utf8_lossy(&noise));
    }
}

#[test]
fn long_lines_and_chains_take_linear_time() {
    let mut text = String::from("func @f(%x: f32[4]) -> f32[4] { %0 = neg %x ");
    for i in 1..100_000 {
        text.push_str(&format!("%{i} = add %{}, %x : f32[4] @\"é\" ", i - 1));
    }
    text.push_str("return %99999 }");
    let start = std::time::Instant::now();
    let m = parse("t", &text).unwrap_or_else(|e| panic!("{e}"));
    let parsed = start.elapsed();
    assert_eq!(m.functions["f"].nodes.len(), 100_001);
    let printed = print(&m);
    eprintln!("{} bytes: parsed in {parsed:?}, parsed and printed in {:?}", text.len(), start.elapsed());
    assert!(printed.ends_with("return %99999\n}\n"));
    // A quadratic step would take minutes; a busy machine does not make 20 seconds of less than one.
    assert!(parsed.as_secs() < 20, "{parsed:?}");
}

#[test]
fn a_model_from_the_dsl_survives_text() {
    let g = Graph::new("main");
    let (s, p) = (g.symbol("seq", 1..=64), g.symbol("past", 0..=64));
    let all = s.checked_add(&p).unwrap();
    let q = g.input("q", DType::F32, (2, 9, &s, 64));
    let (k, v) = (g.input("k", DType::F32, (2, 3, &all, 64)), g.input("v", DType::F32, (2, 3, &all, 32)));
    let out = q.attention(&k, &v, Attention { causal: true, ..Attention::default() });
    let up = g.scope("mlp", || nn::Linear::new(&g, "up", DType::Q4_1, 32, 64, true).forward(&out));
    let m = g.finish(&[&up]).unwrap_or_else(|e| panic!("{e}"));
    verify(&m).unwrap_or_else(|e| panic!("{e}"));
    let text = print(&m);
    assert!(text.contains("weight %mlp.up.weight: q4_1[64, 32]") && text.contains("@\"mlp\""), "{text}");
    let back = parse("t", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(difference(&m, &back), None);
}
