//! Runs the emitted text on the host against loops in double: values, masks, barriers. Skipped without a C++20 compiler.

use crate::kernels;
use std::path::Path;
use std::process::Command;
use tilewright_codegen::cuda::{DYNAMIC_SHARED, emit};
use tilewright_ir::kernel::tree::Kernel;

/// All kernels in one text, each in a namespace of its own so that their helpers do not meet.
fn kernels_text() -> String {
    let all: [fn() -> Kernel; 8] = [
        kernels::swiglu,
        kernels::layer_norm,
        kernels::softmax,
        kernels::beside,
        kernels::matmul_bias_gelu,
        kernels::attention_row,
        kernels::casts,
        kernels::gemm_sm80,
    ];
    let mut text = String::new();
    for kernel in all {
        let kernel = kernel();
        let body = emit(&kernel).unwrap_or_else(|d| d.to_string());
        text += &format!("namespace of_{0} {{\n{body}}}\nusing of_{0}::{0};\n", kernel.name);
    }
    let own = "alignas(16) static unsigned char dynamic_shared[128 * 1024];";
    text.replace(DYNAMIC_SHARED, own) + "using of_swiglu::bf16_to_f32;\nusing of_swiglu::f32_to_bf16;\n"
}

#[test]
fn computes_what_loops_compute() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/host");
    let folder = std::env::temp_dir().join(format!("tilewright-host-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kernels.cu"), kernels_text()).unwrap();
    for file in ["device.hpp", "checks.cpp"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let program = folder.join("checks");
    let arguments = ["-std=c++20", "-O1", "-w", "-o"];
    let built = Command::new("c++").args(arguments).arg(&program).arg(folder.join("checks.cpp")).output();
    match built {
        Err(e) => println!("SKIPPED: no C++ compiler: {e}"),
        Ok(out) => {
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let run = Command::new(&program).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
