//! `tilewright vmap`: its output is a file that runs, and that can be differentiated and batched again; closures of many examples
//! compile.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use tilewright::array::Array;
use tilewright::autodiff::grad;
use tilewright::compile::{Options, compile};
use tilewright::dsl::{Graph, Tensor};
use tilewright::passes::vmap::{hessian, vmap};
use tilewright::types::{Bindings, DType};

const MODEL: &str = "func @step(%h: f32[k], %x: f32[k]) -> (f32[k], f32[k]) where k in 1..=64 {
  %0 = mul %h, %x
  %1 = tanh %0
  return %1, %0
}
func @yes(%x: f32[k]) -> f32[k] where k in 1..=64 {
  %0 = exp %x
  return %0
}
func @no(%x: f32[k]) -> f32[k] where k in 1..=64 {
  %0 = neg %x
  return %0
}
func @main(%p: bool[], %x: f32[6], weight %w: f32[6, 6], %s: f32[3, 6]) -> f32[] {
  %0 = dot %w, %x contract=[1]x[0]
  %1 = scan %0, %s body=@step carries=1 length=3
  %2 = cond %p, %1#0 yes=@yes no=@no
  %3 = sum %2 axes=[0]
  return %3
}
";

fn tilewright(folder: &Path, args: &[&str]) -> (Option<String>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).args(args).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success().then(|| text(out.stdout)), text(out.stderr))
}

#[test]
fn programs_of_many_examples_are_files_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(at.join("model.tw"), MODEL).unwrap();
    let ok = |args: &[&str]| tilewright(at, args).0.unwrap_or_else(|| panic!("{args:?}: {}", tilewright(at, args).1));
    ok(&["vmap", "model.tw", "--in-axes", "x,s=1", "-o", "b.tw"]);
    ok(&["vmap", "model.tw", "--in-axes", "p,x", "--count", "5", "-o", "p.tw"]);
    ok(&["vmap", "b.tw", "--in-axes", "w=2", "--count", "3", "-o", "bb.tw"]);
    ok(&["grad", "model.tw", "--wrt", "w", "-o", "g.tw"]);
    ok(&["vmap", "g.tw", "--in-axes", "x", "--count", "n=1..=9", "-o", "each.tw"]);
    for file in ["b.tw", "p.tw", "bb.tw", "each.tw"] {
        for level in ["1", "2"] {
            ok(&["run", file, "--check", "--opt-level", level]);
        }
    }
    assert!(ok(&["compile", "each.tw", "--emit", "graph"]).contains("f32[n, 6, 6]"));
}

#[test]
fn questions_without_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.tw"), MODEL).unwrap();
    let said = |args: &[&str]| {
        let (out, said) = tilewright(folder.path(), &[&["vmap", "model.tw"], args].concat());
        assert!(out.is_none(), "{args:?}");
        said
    };
    assert!(said(&["--in-axes", "q"]).contains("error[unknown-parameter]"));
    assert!(said(&["--in-axes", "x=2"]).contains("`%x`: f32[6] can get an axis at 0 to 1, found 2"));
    assert!(said(&["--in-axes", "x=a"]).contains("error[bad-argument]"));
    assert!(said(&["--in-axes", "x", "--count", "k=1..=4"]).contains("error[duplicate-name]"));
    assert!(said(&["--in-axes", "x", "--count", "n=4..=1"]).contains("error[bad-argument]"));
}

#[test]
fn closures_of_many_examples_compile() {
    let g = Graph::new("main");
    let x = g.input("x", DType::F32, [5, 4]);
    let models = g.weight("w", DType::F32, [3, 4]);
    let loss = |w: &Tensor, x: &Tensor| (w * x).sum(&[0]).tanh();
    // The gradient of each example's loss by each model of an ensemble.
    let each = vmap(|w: &Tensor| vmap(|x: &Tensor| grad(|w: &Tensor| loss(w, x))(w))(&x))(&models);
    let curve = vmap(|x: &Tensor| hessian(|x: &Tensor| (x.sin() * x).sum(&[0]))(x))(&x);
    let module = g.finish(&[&each, &curve]).unwrap();
    let code = compile(&module, &Options::host().unwrap()).unwrap();
    let numbers = |n: usize| (0..n).map(|i| ((i * 37 + 11) % 19) as f32 / 10.0 - 0.9).collect::<Vec<f32>>();
    let inputs = [Array::from_f32(&[5, 4], &numbers(20)).unwrap(), Array::from_f32(&[3, 4], &numbers(12)).unwrap()];
    let out = code.run(&inputs, &Bindings::new()).unwrap();
    let (x, w) = (numbers(20), numbers(12));
    let (each, curve) = (out[0].to_f32().unwrap(), out[1].to_f32().unwrap());
    assert_eq!((out[0].shape(), out[1].shape()), (&[3, 5, 4][..], &[5, 4, 4][..]));
    for (m, e, i) in (0..60).map(|at| (at / 20, at / 4 % 5, at % 4)) {
        let y: f32 = (0..4).map(|k| w[4 * m + k] * x[4 * e + k]).sum();
        let want = (1.0 - y.tanh().powi(2)) * x[4 * e + i];
        assert!((each[20 * m + 4 * e + i] - want).abs() < 1e-5);
    }
    for (e, i, j) in (0..80).map(|at| (at / 16, at / 4 % 4, at % 4)) {
        let v = x[4 * e + i];
        let want = if i == j { 2.0 * v.cos() - v * v.sin() } else { 0.0 };
        assert!((curve[16 * e + 4 * i + j] - want).abs() < 1e-5);
    }
}
