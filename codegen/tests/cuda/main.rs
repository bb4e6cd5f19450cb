//! Kernels written by hand, their CUDA C as snapshots. `runtime/tests/nvrtc.rs` compiles the same files, and with a host
//! prelude they run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod host_run;
mod kernels;

use tilewright_codegen::cuda::{emit, grids, threads};
use tilewright_ir::kernel::expr::Expr;
use tilewright_ir::kernel::text::parse_kernel;
use tilewright_ir::kernel::tree::{Level, PipelineOp, Stmt, SyncScope};

fn snapshot(name: &str, kernel: &tilewright_ir::kernel::tree::Kernel) {
    let text = emit(kernel).unwrap_or_else(|d| d.to_string());
    assert!(text.contains("extern \"C\" __global__"), "{text}");
    assert_eq!(text, emit(kernel).unwrap_or_default());
    insta::with_settings!({ prepend_module_to_snapshot => false }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn swiglu() {
    snapshot("swiglu", &kernels::swiglu());
}

#[test]
fn layer_norm() {
    snapshot("layer_norm", &kernels::layer_norm());
}

#[test]
fn softmax() {
    snapshot("softmax", &kernels::softmax());
}

#[test]
fn beside() {
    snapshot("beside", &kernels::beside());
    assert_eq!(grids(&kernels::beside()).len(), 2);
}

#[test]
fn matmul_bias_gelu() {
    snapshot("matmul_bias_gelu", &kernels::matmul_bias_gelu());
}

#[test]
fn attention_row() {
    snapshot("attention_row", &kernels::attention_row());
}

#[test]
fn gemm_sm80() {
    snapshot("gemm_sm80", &kernels::gemm_sm80());
}

#[test]
fn scalar_table() {
    snapshot("scalar_table", &kernels::scalar_table());
}

#[test]
fn says_what_it_does_not_know() {
    let mut k = kernels::swiglu();
    k.body.push(Stmt::Queue("q".into(), "wgmma".into()));
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-unsupported"));
    let mut k = kernels::swiglu();
    k.body.push(Stmt::Sync(SyncScope::Grid, false));
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-unsupported"));
    let mut k = kernels::swiglu();
    k.target = "cpu".into();
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-unsupported"));
}

#[test]
fn refuses_what_is_wrong() {
    let mut k = kernels::swiglu();
    k.body.push(Stmt::Set { name: "nobody".into(), value: Expr::Int(0) });
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-invalid"));
    let mut k = kernels::swiglu();
    k.body.push(Stmt::Pipeline(PipelineOp::Acquire, "nobody".into()));
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-invalid"));
    let mut k = kernels::layer_norm();
    k.attrs[0].args = vec![Expr::Int(100)];
    assert_eq!(threads(&k).map_err(|d| d.code), Err("cuda-invalid"));
    // The warps of a block are no teams of their own here.
    let mut k = kernels::swiglu();
    let Some(Stmt::Par { body, .. }) = k.body.first_mut() else { panic!("a grid") };
    body.push(Stmt::Par { vars: vec![("w".into(), Expr::Int(4))], level: Level::Warp, body: vec![] });
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-unsupported"));
    // A tile of 2^40 elements.
    let mut k = kernels::softmax();
    k.constants[0].1 = 1 << 40;
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-invalid"));
}

/// 60 KB of shared memory: allocated by the launch; 100 KB: more than an sm_89 has.
#[test]
fn much_shared_memory_is_allocated_at_launch() {
    let mut k = kernels::big_shared();
    snapshot("big_shared", &k);
    let text = emit(&k).unwrap_or_else(|d| d.to_string());
    assert!(text.contains("extern __shared__") && text.contains("shared memory 61440 bytes"), "{text}");
    k.constants[0].1 = 25 * 1024;
    assert!(emit(&k).is_ok(), "an sm_80 has 163 KB");
    k.target = "sm_89".into();
    assert_eq!(emit(&k).map_err(|d| d.code), Err("cuda-shared-memory"));
}

/// Operands in shared memory are read where they are, but for masked ones: what lies behind them is not theirs.
#[test]
fn masked_operands_in_shared_memory_are_staged() {
    let text = "kernel one target sm_80 threads(128) {
        in x: f32[m=64, k=32]; in w: f32[k=32, n=64]; out y: f32[m=64, n=64]
        par z in 1 at grid { shared a: f32[m=64, k=32]; shared b: f32[k=32, n=64]; reg acc: f32[m=64, n=64]
          let p = load x[:, :]; store a[:, :] = p; let q = load w[:, :]; store b[:, :] = q
          mma acc += a[:, :] * b[:, :] via simt_f32 init 1; store y[:, :] = acc } }";
    let emitted = |text: &str| emit(&parse_kernel("one", text).unwrap()).unwrap();
    assert!(!emitted(text).contains("k0 < 32"));
    let masked = emitted(&text.replace("+= a[:, :]", "+= a[:, 8 +? 32]"));
    assert!(masked.contains("k0 < 32") && masked.contains("< 32) ? a["), "{masked}");
}

#[test]
fn grid_is_the_extents_of_the_par() {
    assert_eq!(grids(&kernels::matmul_bias_gelu()).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert_eq!(threads(&kernels::matmul_bias_gelu()), Ok(128));
}
