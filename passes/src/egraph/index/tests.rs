//! Tests of the import and of what rules find in imported graphs.

use super::super::*;
use super::*;
use tilewright_ir::dsl::{Attention, Graph as Dsl, Tensor};
use tilewright_ir::types::DType;

fn built(dsl: &Dsl, results: &[&Tensor]) -> Function {
    dsl.finish(results).unwrap().entry().unwrap().clone()
}

fn has(graph: &Graph, class: Id, fold: Fold) -> bool {
    let (mut seen, mut stack) = (std::collections::BTreeSet::new(), vec![graph.find(class)]);
    while let Some(id) = stack.pop() {
        if seen.insert(id) {
            for node in &graph[id].nodes {
                if node.head == Head::Fold(fold) {
                    return true;
                }
                stack.extend(node.children.iter().map(|c| graph.find(*c)));
            }
        }
    }
    false
}

fn grown(import: &Import, rules: &RuleSet) -> Saturation {
    saturate(import.graph.clone(), rules, Numerics::Reassociate, Limits::default()).unwrap()
}

fn attention() -> Function {
    let g = Dsl::new("main");
    let s = g.symbol("s", 1..=4096);
    let (x, w) = (g.input("x", DType::F32, [2.into(), s.clone(), 24.into()]), g.weight("w", DType::F32, [24, 72]));
    let qkv = x.matmul(&w);
    let head = |i: i64| {
        let part = qkv.slice(2, 24 * i, 24 * (i + 1));
        part.reshape([2.into(), s.clone(), 4.into(), 6.into()]).permute(&[0, 2, 1, 3])
    };
    let (q, k, v) = (head(0), head(1), head(2));
    let out = q.attention(&k, &v, Attention { causal: true, ..Attention::default() });
    built(&g, &[&out.permute(&[0, 2, 1, 3]).reshape([2.into(), s.clone(), 24.into()])])
}

#[test]
fn causal_attention_becomes_one_pass() {
    let f = attention();
    let import = import(&f).unwrap();
    assert_eq!(import.barriers, BTreeMap::new());
    let rules = shipped().unwrap();
    let s = grown(&import, &rules);
    assert_eq!(s.stop, Stop::Saturated);
    assert!(s.iterations < 10, "{}", s.iterations);
    let root = import.roots[0].class;
    assert!(has(&s.graph, root, Fold::EsumIf));
    assert!(!has(&grown(&import, &rules.without_group("online")).graph, root, Fold::EsumIf));
}

#[test]
fn layer_norm_becomes_m2() {
    for symbolic in [false, true] {
        let g = Dsl::new("main");
        let c = if symbolic { g.symbol("c", 1..=4096) } else { 12.into() };
        let x = g.input("x", DType::F32, [5.into(), c.clone()]);
        let (w, b) = (g.weight("w", DType::F32, [c.clone()]), g.weight("b", DType::F32, [c]));
        let f = built(&g, &[&x.layer_norm(Some(&w), Some(&b), 1e-5)]);
        let import = import(&f).unwrap();
        assert_eq!(import.barriers, BTreeMap::new());
        let rules = shipped().unwrap();
        let root = import.roots[0].class;
        assert!(has(&grown(&import, &rules).graph, root, Fold::M2), "symbolic {symbolic}");
        assert!(!has(&grown(&import, &rules.without_group("variance")).graph, root, Fold::M2));
    }
}

#[test]
fn views_make_no_terms() {
    let g = Dsl::new("main");
    let x = g.input("x", DType::F32, [4, 6]);
    let y = x.reshape([4, 2, 3]).permute(&[2, 0, 1]).reshape([3, 8]).exp();
    let import = import(&built(&g, &[&y])).unwrap();
    assert_eq!((import.copies, import.barriers.len(), import.roots[0].axes.len()), (0, 0, 3));
    assert_eq!(import.stored[0].atoms, [4.into(), 2.into(), 3.into()]);
}

#[test]
fn what_does_not_factor_is_a_barrier() {
    let g = Dsl::new("main");
    let x = g.input("x", DType::F32, [6, 10]);
    let import = import(&built(&g, &[&x.exp().reshape([4, 15]).exp()])).unwrap();
    assert_eq!(import.barriers.len(), 1);
    assert_eq!((import.roots.len(), import.stored.len()), (2, 2));
}

#[test]
fn transposed_sum_needs_a_copy() {
    let g = Dsl::new("main");
    let x = g.input("x", DType::F32, [5, 5]);
    let import = import(&built(&g, &[&(&x + x.transpose(0, 1))])).unwrap();
    assert_eq!((import.copies, import.barriers.len(), import.graph.analysis.axes.len()), (1, 0, 2));
}

/// Pre-norm blocks as in GPT-2, all in one function.
fn blocks(count: usize) -> Function {
    let g = Dsl::new("main");
    let (b, s) = (g.symbol("b", 1..=64), g.symbol("s", 1..=1024));
    let shape = |last: &[i64]| [vec![b.clone(), s.clone()], last.iter().map(|&n| n.into()).collect()].concat();
    let weight = |name: String, shape: &[i64]| g.weight(&name, DType::F32, shape.to_vec());
    let mut x = g.input("x", DType::F32, shape(&[24]));
    for i in 0..count {
        let norm = |x: &Tensor, n: &str| {
            let (w, c) = (weight(format!("{n}{i}.w"), &[24]), weight(format!("{n}{i}.b"), &[24]));
            x.layer_norm(Some(&w), Some(&c), 1e-5)
        };
        let qkv = norm(&x, "ln").matmul(&weight(format!("qkv{i}"), &[24, 72])) + weight(format!("qb{i}"), &[72]);
        let head = |j: i64| qkv.slice(2, 24 * j, 24 * (j + 1)).reshape(shape(&[4, 6])).permute(&[0, 2, 1, 3]);
        let options = Attention { causal: true, ..Attention::default() };
        let out = head(0).attention(&head(1), &head(2), options).permute(&[0, 2, 1, 3]).reshape(shape(&[24]));
        x = x + out.matmul(&weight(format!("wo{i}"), &[24, 24]));
        let wide = norm(&x, "lm").matmul(&weight(format!("up{i}"), &[24, 96])).gelu_tanh();
        x = &x + wide.matmul(&weight(format!("down{i}"), &[96, 24]));
    }
    built(&g, &[&x])
}

#[test]
fn growth_is_linear_in_layers() {
    let rules = shipped().unwrap();
    let mut sizes = Vec::new();
    for count in [1, 2, 4] {
        let f = blocks(count);
        let import = import(&f).unwrap();
        let s = grown(&import, &rules);
        assert_eq!(s.stop, Stop::Saturated);
        assert_eq!(import.barriers.len(), 0);
        sizes.push(s.graph.total_size());
    }
    assert!(sizes[2] < 5 * sizes[0], "{sizes:?}");
}

/// A choice between a value and itself is that value, whatever chooses: two of them would make a third.
#[test]
fn needless_choices_end() {
    let texts = [
        "func @main(%p: bool[3], %x: f32[3]) -> f32[3] {\n %0 = select %p, %x, %x : f32[3]\n %1 = ge %x, %x : bool[3]\n \
         %2 = select %1, %0, %0 : f32[3]\n return %2\n}",
        "func @main(%x: f32[0]) -> f32[0] {\n %0 = exp %x : f32[0]\n %1 = concat %0, %0 axis=0 : f32[0]\n return %1\n}",
        "func @main(%x: f32[3]) -> bool[3] {\n %0 = ge %x, %x : bool[3]\n %1 = select %0, %0, %0 : bool[3]\n return %1\n}",
    ];
    for text in texts {
        let module = tilewright_ir::text::parse("graph", text).unwrap();
        let import = import(module.entry().unwrap()).unwrap();
        let s = saturate(import.graph, &shipped().unwrap(), Numerics::Reassociate, Limits::default()).unwrap();
        assert_eq!(s.stop, Stop::Saturated, "{text}");
        assert!(s.graph.total_size() < 60, "{} nodes: {text}", s.graph.total_size());
    }
}

/// The other name of an axis that is made of two is made of two as well, also where sizes of 0 do not tell.
#[test]
fn names_of_empty_axes_agree() {
    for n in [0, 3] {
        let text = format!(
            "func @main(%x: f32[{n}]) -> f32[{m}, {m}] {{\n %0 = concat %x, %x axis=0 : f32[{m}]\n \
             %1 = dot %0, %0 batch=[]x[] contract=[]x[] : f32[{m}, {m}]\n return %1\n}}",
            m = 2 * n
        );
        let module = tilewright_ir::text::parse("graph", &text).unwrap();
        assert_eq!(import(module.entry().unwrap()).unwrap().barriers.len(), 0, "{text}");
    }
}
