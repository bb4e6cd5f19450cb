//! The memory of runs: one arena, updates in place through calls, peaks that are known, runs at the same time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/random.rs"]
mod random;

use random::Random;
use tilewright::compile::{Options, compile, lower};
use tilewright::emit::{Stage, emit};
use tilewright::models::{Gpt2Config, LlamaConfig, Outputs, WeightTypes, gpt2, llama};
use tilewright_codegen::cpu::ukernel::Isa;
use tilewright_ir::array::Array;
use tilewright_ir::dsl::RopeLayout;
use tilewright_ir::graph::{Module, Role};
use tilewright_ir::interp::{self, Mode};
use tilewright_ir::text::parse;
use tilewright_ir::types::{Bindings, DType, Type};
use tilewright_runtime::buffer::Buffer;
use tilewright_runtime::executable::Executable;
use tilewright_runtime::plan::Returned;

fn options(opt_level: u8) -> Options {
    Options { opt_level, threads: 2, isa: Isa::best(), ..Options::host().unwrap() }
}

fn models() -> [Module; 2] {
    let outputs = Outputs::default();
    let sizes = Gpt2Config { layers: 3, width: 48, heads: 3, feed_forward: 100, ..Gpt2Config::small(33) };
    let config = LlamaConfig {
        layers: 3,
        width: 64,
        heads: 4,
        kv_heads: 2,
        head_size: 16,
        feed_forward: 96,
        vocabulary: 67,
        rope_base: 10_000.0,
        rope_factors: Vec::new(),
        rope_layout: RopeLayout::Interleaved,
        epsilon: 1e-5,
        tied: false,
        capacity: 33,
        dtypes: WeightTypes::new(),
        outputs,
    };
    [gpt2(&Gpt2Config { vocabulary: 67, context: 33, outputs, ..sizes }).unwrap(), llama(&config).unwrap()]
}

fn random(ty: &Type, bindings: &Bindings, seed: u32) -> Array {
    let shape = ty.concrete(bindings).unwrap();
    let n: usize = shape.iter().product();
    if ty.dtype == DType::I64 {
        return Array::from_i64(&shape, &(0..n as i64).map(|i| i * 31 % 67).collect::<Vec<_>>()).unwrap();
    }
    let mut random = Random(u64::from(seed));
    let next = || random.signed();
    Array::from_f32(&shape, &std::iter::repeat_with(next).take(n).collect::<Vec<_>>()).unwrap()
}

fn sizes(seq: i64, past: i64) -> Bindings {
    Bindings::from([("seq".into(), seq), ("past".into(), past)])
}

fn inputs(module: &Module, bindings: &Bindings) -> Vec<Array> {
    let params = &module.entry().unwrap().params;
    params.iter().zip(1..).map(|(p, seed)| random(&p.ty, bindings, seed)).collect()
}

fn agree(found: &[Array], expected: &[Array]) {
    assert_eq!(found.len(), expected.len());
    for (x, y) in found.iter().zip(expected) {
        let scale = y.to_f64().unwrap().into_iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (a, b) in x.to_f64().unwrap().into_iter().zip(y.to_f64().unwrap()) {
            // A NaN is near to nothing.
            assert!((a - b).abs() <= 2e-5 * scale, "{a} for {b} of {scale}");
        }
    }
}

#[test]
fn caches_are_updated_in_place_through_calls() {
    for module in models() {
        for level in [0, 1, 2] {
            let executable = compile(&module, &options(level)).unwrap();
            for program in executable.programs() {
                assert_eq!(program.warnings, [], "{}", program.name);
            }
            let bindings = sizes(3, 5);
            let program = executable.program();
            let mut buffers = Vec::new();
            for (p, a) in program.params.iter().zip(inputs(&module, &bindings)) {
                let share = p.role != Role::Donated;
                buffers.push(if share { executable.share(&a).unwrap() } else { executable.copy_in(&a).unwrap() });
            }
            let results = executable.run_buffers(&buffers, &bindings).unwrap();
            let donated: Vec<&Buffer> =
                program.params.iter().zip(&buffers).filter(|(p, _)| p.role == Role::Donated).map(|(_, b)| b).collect();
            assert_eq!(results.len(), donated.len() + 1);
            for (result, given) in results[1..].iter().zip(donated) {
                assert_eq!(result.pointer(), given.pointer());
            }
            let plan = executable.plans().last().unwrap();
            assert_eq!(plan.results[0].0, Returned::Written);
        }
    }
}

#[test]
fn one_arena_serves_all_sizes() {
    for module in models() {
        let executable = compile(&module, &options(1)).unwrap();
        for (seq, past) in [(1, 0), (13, 9), (1, 32), (33, 0), (2, 3)] {
            let bindings = sizes(seq, past);
            let inputs = inputs(&module, &bindings);
            let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Meaning).unwrap();
            agree(&executable.run(&inputs, &bindings).unwrap(), &expected);
            let peak = executable.peak_at(&bindings).unwrap() as i64;
            let expression = executable.peak_bytes().eval(&bindings).unwrap();
            assert!(peak > 0 && peak <= expression && expression <= executable.peak_bound().unwrap());
        }
    }
}

#[test]
fn runs_at_the_same_time_do_not_disturb_each_other() {
    let [module, _] = models();
    let executable = compile(&module, &options(1)).unwrap();
    let run = |executable: &Executable, seq: i64| {
        let bindings = sizes(seq, 2);
        executable.run(&inputs(&module, &bindings), &bindings).unwrap()
    };
    let alone: Vec<Vec<Array>> = (1..5).map(|seq| run(&executable, seq)).collect();
    std::thread::scope(|scope| {
        for (seq, expected) in (1..5).zip(&alone) {
            let (executable, run) = (&executable, &run);
            scope.spawn(move || (0..20).for_each(|_| assert!(run(executable, seq) == *expected)));
        }
    });
}

const SUM: &str = "func @main(%x: f32[]) -> f32[] where n in 1..=70368744177664 {
  %0 = broadcast %x shape=[n] dims=[] : f32[n]
  %1 = sum %0 axes=[0] : f32[]
  return %1
}
";

#[test]
fn memory_that_there_is_not_is_an_error() {
    let module = parse("sum.tw", SUM).unwrap_or_else(|d| panic!("{d}"));
    let executable = compile(&module, &options(0)).unwrap();
    assert_eq!(executable.peak_bytes().to_string(), "64*floordiv(4*n + 63, 64)");
    assert_eq!(executable.peak_at(&Bindings::from([("n".into(), 17)])).unwrap(), 128);
    let x = [Array::from_f32(&[], &[1.0]).unwrap()];
    let error = executable.run(&x, &Bindings::from([("n".into(), 1 << 46)])).unwrap_err();
    assert_eq!(error.code, "out-of-memory");
    assert!(error.notes[0].contains("the buffers of `main` need 281474976710656 bytes"), "{error}");
    let found = executable.run(&x, &Bindings::from([("n".into(), 1000)])).unwrap();
    assert_eq!(found[0].to_f64().unwrap(), [1000.0]);
}

#[test]
fn what_is_given_away_must_be_ours_and_large_enough() {
    let [module, _] = models();
    let executable = compile(&module, &options(1)).unwrap();
    let bindings = sizes(2, 0);
    let arrays = inputs(&module, &bindings);
    let shared: Vec<Buffer> = arrays.iter().map(|a| executable.share(a).unwrap()).collect();
    let error = |buffers: &[Buffer]| executable.run_buffers(buffers, &bindings).err().unwrap().code;
    assert_eq!(error(&shared), "input-type");
    assert_eq!(error(&shared[1..]), "input-count");
    let owned = |arrays: &[Array]| arrays.iter().map(|a| executable.copy_in(a).unwrap()).collect::<Vec<_>>();
    assert!(executable.run_buffers(&owned(&arrays), &bindings).is_ok());
    let small: Vec<Array> = arrays.iter().map(|_| Array::from_i64(&[1], &[0]).unwrap()).collect();
    assert_eq!(error(&owned(&small)), "input-type");
}

#[test]
fn the_plan_is_a_stage() {
    let [module, _] = models();
    let text = emit(&module, Stage::Plan, &options(1)).unwrap();
    let programs = lower(&module, &options(1)).unwrap();
    assert_eq!(text.matches("plan ").count(), programs.len());
    assert_eq!(text.matches("  peak at most ").count(), programs.len());
    assert!(text.contains("arena(block)") && text.contains("is donated param("), "{text}");
}

/// Results that somebody holds stay what they are; memory that nobody holds any more serves the next run.
#[test]
fn results_are_used_again_once_they_are_dropped() {
    let module = parse("m.tw", "func @main(%x: f32[1000]) -> f32[1000] {\n  %0 = exp %x\n  return %0\n}\n").unwrap();
    let executable = compile(&module, &options(1)).unwrap();
    let run = |x: f32| {
        let input = executable.share(&Array::from_f32(&[1000], &[x; 1000]).unwrap()).unwrap();
        executable.run_buffers(&[input], &Bindings::new()).unwrap().remove(0)
    };
    let value = |b: &Buffer| f32::from_le_bytes(b.bytes(4).unwrap()[..4].try_into().unwrap());
    let (first, second) = (run(0.0), run(1.0));
    assert!(value(&first) == 1.0 && (value(&second) - 1f32.exp()).abs() < 1e-6);
    let kept = second.pointer();
    drop(second);
    let third = run(2.0);
    assert_eq!(third.pointer(), kept);
    assert!(value(&first) == 1.0 && (value(&third) - 2f32.exp()).abs() < 1e-5);
}

#[test]
fn a_value_that_is_returned_under_another_shape_is_not_overwritten() {
    // The reshape comes after the update, and is the memory of what the update would like to write into.
    let text = "func @main(%p: f32[n, 33], %q: f32[1, 1]) -> (f32[n, 33], f32[33, n]) where n in 3..=43 {
        %0 = transpose %p perm=[1, 0]\n %1 = update_slice %0, %q start=[0, 0]\n %2 = reshape %0 shape=[n, 33]\n return %2, %1 }";
    let module = parse("t.tw", text).unwrap();
    let bindings = Bindings::from([("n".into(), 5)]);
    let inputs = inputs(&module, &bindings);
    let expected = interp::run(&module, "main", &inputs, &bindings, Mode::Strict).unwrap();
    for level in [0, 1, 2] {
        agree(&compile(&module, &options(level)).unwrap().run(&inputs, &bindings).unwrap(), &expected);
    }
}
