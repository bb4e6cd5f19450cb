//! Programs of level 2 run on the kernel interpreter and agree with the reference interpreter, with the covers that are
//! chosen and with covers by whim, so that every kind of term and every template is met.

mod trivial;

use super::super::launch::Template;
use super::super::{Lower, Target, lower_module};
use super::*;
use crate::egraph::testing::sample;
use crate::egraph::{Limits, Numerics};
use tilewright_ir::array::Array;
use tilewright_ir::dsl::{Attention, Graph as Dsl, RopeLayout, Tensor, concat};
use tilewright_ir::interp::{Mode, run};
use tilewright_ir::interp_kernel::{self, Data, Tensor as Memory};
use tilewright_ir::kernel::{Expr, Program, Space, Step, text::print_kernel, verify};
use tilewright_ir::types::{Bindings, DType};

const F: DType = DType::F32;

/// The program of one function with the cover of a seed; the chosen cover without one.
fn program(module: &Module, seed: Option<u64>) -> Program {
    let target = Target { isa: "avx512" };
    let Some(seed) = seed else { return lower_module(module, 2, &target).unwrap().pop().unwrap() };
    let f = module.entry().unwrap();
    let import = egraph::import(f).unwrap();
    let rules = egraph::shipped().unwrap();
    let grown = egraph::saturate(import.graph.clone(), &rules, Numerics::Reassociate, Limits::default()).unwrap();
    let free = free_roots(f, &import, &grown.graph);
    let mut seen = BTreeSet::new();
    let roots = import.roots.iter().map(|r| grown.graph.find(r.class));
    let computed: Vec<Id> = roots.filter(|c| !free.contains(c) && seen.insert(*c)).collect();
    let cuts = trivial::cover(&grown.graph, &computed, seed);
    let mut lower = Lower::empty(module, f, &target);
    emit(&mut lower, &import, &grown.graph, &cuts).unwrap();
    lower.finish().unwrap()
}

fn base(program: &Program, name: &str) -> String {
    let mut at = name.to_string();
    while let Some(next) = program.work.iter().find(|b| *b.name == *at).and_then(|b| b.alias_of.clone()) {
        at = next.to_string();
    }
    at
}

fn number(e: &Expr, bindings: &Bindings) -> i64 {
    let pair = |x: &Expr, y: &Expr| (number(x, bindings), number(y, bindings));
    match e {
        Expr::Int(n) => *n,
        Expr::Name(n) => bindings[n],
        Expr::Scalar(op, x) => {
            let (a, b) = pair(&x[0], &x[1]);
            match op.info().name {
                "add" => a + b,
                "sub" => a - b,
                "mul" => a * b,
                "eq" => i64::from(a == b),
                "ge" => i64::from(a >= b),
                "lt" => i64::from(a < b),
                "le" => i64::from(a <= b),
                "and" => i64::from(a != 0 && b != 0),
                other => panic!("{other}"),
            }
        }
        Expr::Binary(_, x, y) => {
            let (a, b) = pair(x, y);
            (a + b - 1) / b
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a program of launches and packs.
fn execute(program: &Program, inputs: &[Array], bindings: &Bindings) -> Vec<Vec<f64>> {
    let mut data: BTreeMap<String, Data> = BTreeMap::new();
    let given = program.params.iter().map(|p| &p.buffer.name).zip(inputs);
    for (name, array) in given.chain(program.constants.iter().map(|(n, a)| (n, a))) {
        data.insert(name.to_string(), Memory::from_array(array).unwrap().data);
    }
    for step in &program.steps {
        match step {
            Step::Pack(p) => {
                if p.when.as_ref().is_some_and(|e| number(e, bindings) == 0) {
                    continue;
                }
                let Data::Float(from) = data[&base(program, &p.from)].clone() else { panic!("packs no floats") };
                let at = |d: &Dim| usize::try_from(d.eval(bindings).unwrap()).unwrap();
                let (k, n, ks, ns) = (at(&p.k), at(&p.n), at(&p.k_stride), at(&p.n_stride));
                let mut starts = vec![at(&p.offset)];
                for (count, stride) in &p.batch {
                    let (count, stride) = (at(count), at(stride));
                    starts = starts.iter().flat_map(|s| (0..count).map(move |i| s + i * stride)).collect();
                }
                let each = n.div_ceil(p.nr) * k * p.nr;
                let mut to = vec![0.0; starts.len() * each];
                for (matrix, start) in starts.iter().enumerate() {
                    for (row, column) in (0..k).flat_map(|r| (0..n).map(move |c| (r, c))) {
                        let place = (column / p.nr * k + row) * p.nr + column % p.nr;
                        to[matrix * each + place] = from[start + row * ks + column * ns];
                    }
                }
                data.insert(p.to.to_string(), Data::Float(to));
            }
            Step::Launch(launch) => {
                if launch.when.as_ref().is_some_and(|e| number(e, bindings) == 0) {
                    continue;
                }
                let kernel = &program.kernels[launch.kernel];
                verify::verify(kernel).unwrap_or_else(|d| panic!("{d}\n{}", print_kernel(kernel)));
                let mut tensors = Vec::new();
                for (name, buffer) in launch.arguments.iter().zip(&kernel.arguments) {
                    let shape: Vec<usize> = buffer.axes.iter().map(|(_, e)| number(e, bindings) as usize).collect();
                    let count = shape.iter().product();
                    let fresh = || match buffer.dtype {
                        DType::Bool => Data::Bool(vec![false; count]),
                        d if d.is_float() => Data::Float(vec![f64::NAN; count]),
                        _integer => Data::Int(vec![0; count]),
                    };
                    let data = data.get(&base(program, name)).cloned().unwrap_or_else(fresh);
                    tensors.push(Memory { shape, data });
                }
                let ran = interp_kernel::run(kernel, &mut tensors, bindings);
                ran.unwrap_or_else(|d| panic!("{d}\n{}", print_kernel(kernel)));
                for ((name, tensor), buffer) in launch.arguments.iter().zip(tensors).zip(&kernel.arguments) {
                    if buffer.space != Space::In {
                        data.insert(base(program, name), tensor.data);
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let values = |name: &Ident| match &data[&base(program, name)] {
        Data::Float(v) => v.clone(),
        Data::Int(v) => v.iter().map(|&x| x as f64).collect(),
        Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
    };
    program.results.iter().map(values).collect()
}

/// Compares all covers of a program with the interpreter; gives the program that is chosen.
fn check(g: &Dsl, results: &[&Tensor], bindings: &[(&str, i64)]) -> Program {
    let module = g.finish(results).unwrap();
    let f = module.entry().unwrap();
    let bindings: Bindings = bindings.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    let inputs: Vec<Array> = f.params.iter().enumerate().map(|(k, p)| sample(k, &p.ty, &bindings)).collect();
    let want = run(&module, &f.name, &inputs, &bindings, Mode::Meaning).unwrap();
    for seed in [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(8)] {
        let program = program(&module, seed);
        for (found, want) in execute(&program, &inputs, &bindings).iter().zip(&want) {
            let want = want.to_f64().unwrap();
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()) || (a.is_nan() && b.is_nan());
            let bad = found.iter().zip(&want).position(|p| !close(p));
            let text = || program.kernels.iter().map(print_kernel).collect::<Vec<_>>().join("\n");
            assert!(
                found.len() == want.len() && bad.is_none(),
                "cover {seed:?}: {bad:?}: {found:?}\n{want:?}\n{}",
                text()
            );
        }
    }
    program(&module, None)
}

#[test]
fn softmax_norms_and_losses() {
    let g = Dsl::new("main");
    let (x, w) = (g.input("x", F, [3, 300]), g.weight("w", F, [300]));
    check(&g, &[&x.softmax(-1), &x.layer_norm(Some(&w), Some(&w), 1e-5), &x.softmax(0)], &[]);
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=64);
    let x = g.input("x", F, [2.into(), s]);
    check(&g, &[&x.softmax(-1), &x.var(&[-1], 1), &x.layer_norm(None, None, 1e-5)], &[("s", 7)]);
    let g = Dsl::new("main");
    let (x, w, table) = (g.input("x", F, [3, 4]), g.weight("w", F, [4]), g.weight("table", F, [5, 4]));
    let ids = g.input("ids", DType::I64, [3]);
    let rms = table.take(&ids, 0).rms_norm(&w, 1e-5).matmul(&table.transpose(0, 1));
    check(&g, &[&rms, &rms.cross_entropy(&ids), &x.max(&[0])], &[]);
}

/// Quotients of row sums grow without end under the rules; they are stopped, which is said, and nothing else changes.
#[test]
fn rules_that_do_not_end_are_stopped() {
    let build = || {
        let g = Dsl::new("main");
        let mut x = g.input("x", F, [3, 5]).exp();
        for _ in 0..6 {
            x = &x / x.sum(&[1]).unsqueeze(1);
        }
        check(&g, &[&x], &[])
    };
    let said = |p: &Program| p.warnings.iter().map(|w| (w.code, w.message.clone())).collect::<Vec<_>>();
    let text = |p: &Program| p.kernels.iter().map(print_kernel).collect::<Vec<_>>();
    let (program, again) = (build(), build());
    let found = said(&program);
    assert!(matches!(&found[..], [("level-limit", why)] if why.contains("rules stop")), "{found:?}");
    assert_eq!((text(&again), said(&again)), (text(&program), found));
}

#[test]
fn views_meet_in_kernels() {
    let programs: &[fn(&Tensor) -> Tensor] = &[
        |x| x.reshape([4, 2, 3]).permute(&[2, 0, 1]).reshape([3, 8]).exp(),
        |x| x.slice(1, 2, 4) + x.slice(1, 1, 3),
        |x| x.slice_by(1, 1, 6, 2).exp(),
        |x| x.pad(0, 1, 2, 0.5).pad(1, 2, 0, -1.0).flip(&[0, 1]),
        |x| concat(&[x, &x.slice(1, 0, 1), &x.flip(&[1])], 1).unwrap(),
        |x| x.transpose(0, 1),
        |x| x.reshape([24]),
        |x| x.exp().reshape([2, 12]),
        |x| x.max(&[0]) + x.min(&[0]) * x.prod(&[0]),
        |x| x.matmul(&x.transpose(0, 1)).exp().matmul(x),
        |x| x.cumsum(1) * x.exp(),
        |x| x.exp().reshape([3, 8]).cumsum(0).sum(&[0]),
    ];
    for program in programs {
        let g = Dsl::new("main");
        let x = g.input("x", F, [4, 6]);
        check(&g, &[&program(&x)], &[]);
    }
    let g = Dsl::new("main");
    let x = g.input("x", F, [4, 6]);
    let all: Vec<Tensor> = programs.iter().map(|p| p(&x)).collect();
    check(&g, &all.iter().collect::<Vec<_>>(), &[]);
    // One value in two orders, as an input, and as a result that is an input.
    let g = Dsl::new("main");
    let x = g.input("x", F, [4, 6]);
    let y = x.exp();
    check(&g, &[&y, &y.transpose(0, 1), &y.reshape([24]), &x, &y.sum(&[0])], &[]);
}

#[test]
fn attention_in_one_kernel() {
    for (queries, causal) in [(5, true), (3, true), (5, false)] {
        let g = Dsl::new("main");
        let (q, k, v) =
            (g.input("q", F, [1, 4, queries, 2]), g.input("k", F, [1, 2, 5, 2]), g.input("v", F, [1, 2, 5, 2]));
        let out = q.attention(&k, &v, Attention { causal, ..Attention::default() });
        check(&g, &[&out], &[]);
    }
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=512);
    let (x, w) = (g.input("x", F, [1.into(), s.clone(), 4.into()]), g.weight("w", F, [4, 12]));
    let qkv = x.matmul(&w);
    let head = |i: i64| {
        qkv.slice(2, 4 * i, 4 * (i + 1)).reshape([1.into(), s.clone(), 2.into(), 2.into()]).permute(&[0, 2, 1, 3])
    };
    let out = head(0).attention(&head(1), &head(2), Attention { causal: true, ..Attention::default() });
    let out = out.permute(&[0, 2, 1, 3]).reshape([1.into(), s.clone(), 4.into()]) + &x;
    check(&g, &[&out], &[("s", 9)]);
    let g = Dsl::new("main");
    let (x, angle) = (g.input("x", F, [2, 3, 4]), g.input("angle", F, [3, 2]));
    check(&g, &[&x.rope(&angle.cos(), &angle.sin(), RopeLayout::Half)], &[]);
    let g = Dsl::new("main");
    let (x, angle) = (g.input("x", F, [2, 3, 4]), g.input("angle", F, [3, 2]));
    check(&g, &[&x.rope(&angle.cos(), &angle.sin(), RopeLayout::Interleaved)], &[]);
}

#[test]
fn projections_are_products_of_matrices() {
    let g = Dsl::new("main");
    let (b, s) = (g.symbol("b", 1..=8), g.symbol("s", 1..=64));
    let (x, w) = (g.input("x", F, [b.clone(), s.clone(), 8.into()]), g.weight("w", F, [8, 24]));
    let (wo, bias) = (g.weight("wo", F, [8, 8]), g.weight("bias", F, [24]));
    let qkv = x.matmul(&w) + &bias;
    let head = |i: i64| {
        qkv.slice(2, 8 * i, 8 * (i + 1)).reshape([b.clone(), s.clone(), 2.into(), 4.into()]).permute(&[0, 2, 1, 3])
    };
    let out = head(0).attention(&head(1), &head(2), Attention { causal: true, ..Attention::default() });
    let out = out.permute(&[0, 2, 1, 3]).reshape([b.clone(), s.clone(), 8.into()]);
    let p = check(&g, &[&(out.matmul(&wo) + &x)], &[("b", 2), ("s", 5)]);
    // Both weights, and for many rows keys and values, which are parts of one buffer with the queries.
    assert_eq!(p.steps.iter().filter(|s| matches!(s, Step::Pack(_))).count(), 4);
}

/// What must be stored before a barrier is known once, however often barriers read one value.
#[test]
fn barriers_that_read_a_value_twice() {
    let mut text = String::from("func @main(%x: f32[3], %i: i64[3]) -> f32[3] {\n  %0 = exp %x : f32[3]\n");
    for k in 0..64 {
        text += &format!("  %{} = scatter_add %{k}, %i, %{k} axis=0 : f32[3]\n", k + 1);
    }
    text += "  return %64\n}\n";
    let module = tilewright_ir::text::parse("graph", &text).unwrap();
    assert_eq!(program(&module, None).steps.len(), 65);
}

/// Asserts that every cut gets the template whose price it has, and gives the kinds.
fn templates(module: &Module) -> Vec<&'static str> {
    let target = Target { isa: "avx512" };
    let options = Options { verify: true, ..2.into() };
    let f = module.entry().unwrap();
    let Choice { import, graph, cover, .. } = choose(f, &options, &target, &Bindings::new(), false).unwrap().unwrap();
    let kinds: Vec<cover::Kind> = cover.cuts.iter().map(|c| c.kind.clone()).collect();
    let cuts = cover.cuts.into_iter().map(|c| Cut { outputs: c.outputs, nodes: c.nodes, inputs: c.inputs });
    let cuts: Vec<Cut> = cuts.collect();
    let mut plan = Plan::new(f, &import, &graph, &cuts).unwrap();
    plan.sources().unwrap();
    let lower = Lower::empty(module, f, &target);
    let class = |id: Id| Ok(format!("class{id}").into());
    let template = |(i, kind): (usize, &cover::Kind)| {
        let outputs = plan.outputs(i);
        let part = cut::Part { outputs: &outputs, nodes: &cuts[i].nodes, inputs: &cuts[i].inputs };
        let memory = plan.memory(&part, &|v| Ok(f.node(v).op.info().name.into()), &class).unwrap();
        let region = coalesce(cut::region(&graph, &memory, &part).unwrap());
        let found = match lower.template(&region) {
            Template::Attention(..) => "attention",
            Template::Contraction(..) | Template::Relaid(..) => "contraction",
            Template::Loops => "loops",
        };
        let priced = match kind {
            cover::Kind::Attention { .. } => "attention",
            cover::Kind::Contraction(_) => "contraction",
            cover::Kind::Copy | cover::Kind::Pointwise | cover::Kind::Row | cover::Kind::Generic => "loops",
        };
        assert_eq!(found, priced, "kernel {i}, a {kind:?}");
        priced
    };
    kinds.iter().enumerate().map(template).collect()
}

#[test]
fn kernels_are_what_their_prices_are_for() {
    let g = Dsl::new("main");
    let x = g.input("x", F, [1, 128, 768]);
    let weight = |name: &str, a: i64, b: i64| g.weight(name, F, [a, b]);
    // Queries, keys and values are parts of one product.
    let all = x.layer_norm(None, None, 1e-5).matmul(&weight("qkv", 768, 2304));
    let part = |i: i64| all.slice(-1, i * 768, (i + 1) * 768).rearrange("b s (h d) -> b h s d", &[("h", 12)]);
    let causal = Attention { causal: true, ..Attention::default() };
    let out = part(0).attention(&part(1), &part(2), causal).rearrange("b h s d -> b s (h d)", &[]);
    let y = out.matmul(&weight("out", 768, 768)).gelu_tanh() + x;
    let found = templates(&g.finish(&[&y]).unwrap());
    assert!(found.contains(&"attention"), "{found:?}");
    // A product of a matrix with its own transpose.
    let g = Dsl::new("main");
    let x = g.input("x", F, [64, 96]);
    assert_eq!(templates(&g.finish(&[&x.matmul(&x.transpose(0, 1)).exp()]).unwrap()), ["contraction"]);
}
