//! Settings of the macro, and how it fails.

use tilewright_ir::diag::Diagnostic;
use tilewright_ir::dsl::Graph;
use tilewright_ir::graph::Module;
use tilewright_ir::types::DType::F32;
use tilewright_snapshot::assert_kernel_snapshot;

fn exp() -> Result<Module, Diagnostic> {
    let g = Graph::new("main");
    let x = g.input("x", F32, [64, 256]);
    g.finish(&[&x.exp()])
}

#[test]
fn settings_are_words() {
    let module = exp().unwrap();
    assert_kernel_snapshot!("exp", &module, stages = [Kernel], opt_level = 1, numerics = Exact, isa = Avx2);
    assert_kernel_snapshot!("exp_gpu", module, stages = [Kernel], target = Sm90a);
}

#[test]
#[should_panic(expected = "no snapshot of `broken`:\nerror[")]
fn errors_of_the_graph_are_shown() {
    let g = Graph::new("main");
    let (x, y) = (g.input("x", F32, [2, 3]), g.input("y", F32, [4, 5]));
    assert_kernel_snapshot!("broken", g.finish(&[&x.matmul(&y)]));
}

#[test]
#[should_panic(expected = "error[stage-target]")]
fn errors_of_the_compiler_are_shown() {
    assert_kernel_snapshot!("broken", exp(), stages = [Cuda], target = Cpu);
}
