//! The CUDA C of whole programs, compiled by the C++ compiler under the host prelude and run launch by launch.

use crate::models::{Case, cases, compare, levels, op_programs};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use tilewright_codegen::cuda::{CudaPrograms, DYNAMIC_SHARED, emit_programs};
use tilewright_ir::array::{Array, Bytes};
use tilewright_runtime::device::plan::{Origin, Plan, PlannedStep};

const PRELUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/codegen/tests/cuda/host/device.hpp");

/// The text of a program in a namespace, with a function `run` that follows its plan on `memory`.
fn program(name: &str, plan: &Plan, emitted: &CudaPrograms) -> String {
    let kernels = &emitted.kernels;
    let text = emitted
        .text
        .replace("extern \"C\" ", "")
        .replace(DYNAMIC_SHARED, "alignas(16) static unsigned char dynamic_shared[256 * 1024];");
    let mut out = format!("namespace {name} {{\n{text}\nstatic void run(Memory memory) {{\n");
    for step in &plan.steps {
        let _ = match step {
            PlannedStep::Copy { from, to } => {
                writeln!(out, "    memcpy(memory[{to}], memory[{from}], {});", plan.buffers[*to].bytes)
            }
            PlannedStep::Launch { program, kernel, arguments, symbols, blocks } => {
                let k = &kernels[*program][*kernel];
                let arguments = arguments.iter().map(|id| format!("Any{{memory[{id}]}}"));
                let all: Vec<String> = arguments.chain(symbols.iter().map(|s| format!("{s}LL"))).collect();
                writeln!(out, "    launch({}, {blocks}, [&] {{ {}({}); }});", k.threads, k.name, all.join(", "))
            }
        };
    }
    out + "}\n}\n"
}

/// The contents of all buffers before the first launch; what nobody has written is NaN in every dtype.
fn contents(plan: &Plan, inputs: &[Array]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for b in &plan.buffers {
        let first: &[u8] = match &b.origin {
            Origin::Input(i) => inputs[*i].bytes(),
            Origin::Constant(a) => a.bytes(),
            Origin::Work => &[],
        };
        bytes.extend_from_slice(first);
        bytes.extend(std::iter::repeat_n(0xff, b.bytes - first.len()));
    }
    bytes
}

fn main_text(runs: &[(String, Case, Plan, Vec<Array>)]) -> String {
    let mut out = String::from("int main(int, char** arguments) {\n    const std::string folder = arguments[1];\n");
    for (name, _, plan, _) in runs {
        let sizes: Vec<String> = plan.buffers.iter().map(|b| b.bytes.to_string()).collect();
        let results: Vec<String> = plan.results.iter().map(|(id, _)| id.to_string()).collect();
        let (sizes, results) = (sizes.join(", "), results.join(", "));
        let _ = writeln!(out, "    follow(folder + \"/{name}\", {{{sizes}}}, {{{results}}}, {name}::run);");
    }
    out + "}\n"
}

const SUPPORT: &str = r#"
#include <string>
typedef const std::vector<char*>& Memory;
struct Any {
    char* p;
    template <class T> operator T*() const { return (T*)p; }
};
"#;

const FOLLOW: &str = r#"
static void follow(std::string name, std::vector<size_t> sizes, std::vector<int> results, void (*run)(Memory)) {
    std::vector<char*> memory;
    FILE* in = fopen((name + ".in").c_str(), "rb");
    for (size_t n : sizes) {
        // A guard behind every buffer.
        memory.push_back((char*)aligned_alloc(64, (n + 127) / 64 * 64));
        if (fread(memory.back(), 1, n, in) != n) exit(2);
        memset(memory.back() + n, 0x5a, 64);
    }
    fclose(in);
    run(memory);
    for (size_t i = 0; i < sizes.size(); ++i)
        for (int j = 0; j < 64; ++j)
            if (memory[i][sizes[i] + j] != 0x5a) printf("%s: buffer %zu was written behind its end\n", name.c_str(), i), exit(1);
    FILE* out = fopen((name + ".out").c_str(), "wb");
    for (int r : results) fwrite(memory[r], 1, sizes[r], out);
    fclose(out);
}
"#;

#[test]
fn the_text_computes_what_the_graph_means() {
    // Level 0 has the same templates, many times.
    let levels = || levels().skip(1);
    follow(cases().into_iter().flat_map(|case| levels().map(move |level| (case.clone(), level))).collect());
}

/// Every third op program, at a level of its own: compiling all takes long.
#[test]
fn op_programs_compute_what_the_graph_means() {
    follow(op_programs().into_iter().step_by(3).zip(levels().cycle()).collect());
}

/// Compiles the texts of all cases at their levels as one program, runs it, and compares.
fn follow(runs: Vec<(Case, u8)>) {
    let version = Command::new("c++").arg("--version").output();
    if version.is_err() {
        println!("SKIPPED: no C++ compiler `c++`");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let prelude = std::fs::read_to_string(Path::new(PRELUDE)).unwrap();
    let mut text = format!("{prelude}{SUPPORT}");
    let mut done = Vec::new();
    for (case, level) in runs {
        let (programs, plan) = case.lowered(level);
        let name = format!("{}_{level}", case.name);
        let emitted = emit_programs(&programs).unwrap_or_else(|d| panic!("{name}: {d}"));
        text += &program(&name, &plan, &emitted);
        let inputs = case.inputs();
        std::fs::write(folder.path().join(format!("{name}.in")), contents(&plan, &inputs)).unwrap();
        done.push((name, case, plan, inputs));
    }
    text += &format!("{FOLLOW}{}", main_text(&done));
    let source = folder.path().join("programs.cpp");
    std::fs::write(&source, text).unwrap();
    let binary = folder.path().join("programs");
    let start = std::time::Instant::now();
    let built = Command::new("c++").args(["-std=c++20", "-O0", "-w", "-o"]).arg(&binary).arg(&source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    println!("compiled in {:.1} s", start.elapsed().as_secs_f64());
    let start = std::time::Instant::now();
    let run = Command::new(&binary).arg(folder.path()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    println!("ran in {:.1} s", start.elapsed().as_secs_f64());
    for (name, case, plan, inputs) in &done {
        let bytes = std::fs::read(folder.path().join(format!("{name}.out"))).unwrap();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        for (id, ty) in &plan.results {
            let (own, after) = rest.split_at(plan.buffers[*id].bytes);
            rest = after;
            let shape = ty.concrete(&case.bindings).unwrap();
            let array = Array::new(ty.dtype, &shape, Bytes::new(own.to_vec())).unwrap();
            found.push(array.to_f64().unwrap());
        }
        compare(name, &found, &case.expected(inputs), 1e-4);
    }
}
