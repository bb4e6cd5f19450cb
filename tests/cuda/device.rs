//! The programs on a CUDA device, where there is one; without one, a typed error.

use crate::models::{cases, compare, level_options, levels};
use tilewright::compile::compile_cuda;

#[test]
fn programs_on_a_device_compute_what_the_graph_means() {
    for case in cases() {
        for level in levels() {
            let executable = match compile_cuda(&case.module, &level_options(level)) {
                Ok(executable) => executable,
                Err(d) => {
                    assert!(matches!(d.code, "no-cuda-driver" | "no-device" | "nvrtc-missing"), "{d}");
                    println!("SKIPPED: {}", d.message);
                    return;
                }
            };
            let inputs = case.inputs();
            let found = executable.run(&inputs, &case.bindings).unwrap_or_else(|d| panic!("{}: {d}", case.name));
            let found: Vec<Vec<f64>> = found.iter().map(|a| a.to_f64().unwrap()).collect();
            compare(&format!("{} level {level}", case.name), &found, &case.expected(&inputs), 1e-4);
        }
    }
}
