//! `tilewright ledger`: counts of GPT-2, SmolLM2 and Llama 3 against those done by hand, formulas, predictions, pictures, bad input.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use tilewright::ledger::{Kind, Ledger, Machine, Question, Subject, ledger, roofline};
use tilewright::types::DType;

fn counted(model: &str, question: Question) -> Ledger {
    ledger(&Subject::named(model).unwrap(), &question, &Machine::named("h200").unwrap(), &|_| {}).unwrap()
}

fn products(found: &Ledger) -> [f64; 4] {
    [Kind::AttentionProjections, Kind::AttentionScores, Kind::Mlp, Kind::Head].map(|kind| found.of(kind).products)
}

fn parameters(found: &Ledger) -> [f64; 5] {
    let kinds = [Kind::Embedding, Kind::AttentionProjections, Kind::Mlp, Kind::Norm, Kind::Head];
    kinds.map(|kind| found.of(kind).parameters)
}

/// What a check says was counted.
fn check(found: &Ledger, what: &str) -> (f64, f64) {
    let c = found.checks.iter().find(|c| c.what == what).unwrap();
    (c.textbook, c.counted)
}

/// Width 768, 12 layers, inner size 3072, 50257 tokens, 1024 positions; on 2 x 64 tokens.
#[test]
fn gpt2_by_hand() {
    let found = counted("gpt2", Question { batch: 2, seq: 64, ..Question::default() });
    // Tables; 768 x 2304 and 768 x 768 with biases; 768 x 3072 twice with biases; 25 norms of gain and bias; the head is the table.
    let tables = 50257.0 * 768.0 + 1024.0 * 768.0;
    let attention = 12.0 * (768.0 * 2304.0 + 2304.0 + 768.0 * 768.0 + 768.0);
    let mlp = 12.0 * (2.0 * 768.0 * 3072.0 + 3072.0 + 768.0);
    assert_eq!(parameters(&found), [tables, attention, mlp, 25.0 * 2.0 * 768.0, 0.0]);
    assert_eq!(found.parameters, 124_439_808.0);
    // A multiplication and an addition for each weight and each of 128 tokens; scores and values: 64 x 64 x 64 twice for each of 12
    // heads, of each layer and sequence.
    assert_eq!(
        products(&found),
        [
            2.0 * 128.0 * 12.0 * (768.0 * 2304.0 + 768.0 * 768.0),
            2.0 * 2.0 * (12.0 * 12.0 * 2.0) * 64.0 * 64.0 * 64.0,
            2.0 * 128.0 * 12.0 * 2.0 * 768.0 * 3072.0,
            2.0 * 128.0 * 768.0 * 50257.0,
        ]
    );
    assert_eq!(check(&found, "KV bytes a token"), (73_728.0, 73_728.0));
    assert!(found.passes[0] == found.total.flops && found.passes[1] == 0.0 && found.passes[2] == 0.0);
    // All layers are there, in order, and make the sum.
    let names: Vec<&str> = found.layers.iter().filter(|r| r.kind == Kind::Mlp).map(|r| &*r.layer).collect();
    assert_eq!(names, (0..12).map(|i| format!("h.{i}")).collect::<Vec<_>>());
    assert_eq!(found.layers.iter().map(|r| r.flops).sum::<f64>(), found.total.flops);
    assert_eq!(found.kinds.iter().map(|r| r.flops).sum::<f64>(), found.total.flops);
}

/// Width 576, 30 layers, 9 heads of 64 and 3 of keys, inner size 1536, 49152 tokens; on 32 tokens.
#[test]
fn smollm2_by_hand() {
    let found = counted("smollm2-135m", Question { seq: 32, ..Question::default() });
    let attention = 30.0 * (2.0 * 576.0 * 576.0 + 2.0 * 576.0 * 192.0);
    let mlp = 30.0 * 3.0 * 576.0 * 1536.0;
    assert_eq!(parameters(&found), [49152.0 * 576.0, attention, mlp, 61.0 * 576.0, 0.0]);
    assert_eq!(found.parameters, 134_515_008.0);
    let scores = 30.0 * 9.0 * 2.0 * 2.0 * 32.0 * 32.0 * 64.0;
    assert_eq!(products(&found), [64.0 * attention, scores, 64.0 * mlp, 64.0 * 49152.0 * 576.0]);
    assert_eq!(check(&found, "KV bytes a token"), (46_080.0, 46_080.0));
}

/// Width 4096, 32 layers, 32 heads of 128 and 8 of keys, inner size 14336, 128256 tokens; a step of training on 8 tokens.
#[test]
fn llama_3_8b_by_hand() {
    let found = counted("llama-3-8b", Question { seq: 8, train: true, ..Question::default() });
    let attention = 32.0 * (2.0 * 4096.0 * 4096.0 + 2.0 * 4096.0 * 1024.0);
    let (mlp, table) = (32.0 * 3.0 * 4096.0 * 14336.0, 128_256.0 * 4096.0);
    assert_eq!(parameters(&found), [table, attention, mlp, 65.0 * 4096.0, table]);
    assert_eq!(found.parameters, 8_030_261_248.0);
    // Forward, and twice as much on the way back: by inputs and by weights.
    let scores = 32.0 * 32.0 * 2.0 * 2.0 * 8.0 * 8.0 * 128.0;
    assert_eq!(products(&found), [48.0 * attention, 3.0 * scores, 48.0 * mlp, 48.0 * table]);
    assert_eq!(check(&found, "KV bytes a token"), (262_144.0, 262_144.0));
    let memory = found.memory.unwrap();
    assert_eq!(
        [memory.weights, memory.gradients, memory.optimiser],
        [1.0, 1.0, 2.0].map(|n| n * 4.0 * 8_030_261_248.0)
    );
}

/// Of a block that is computed again, the last product is not needed: seven products of its MLP for six, and the model's stay what they
/// were.
#[test]
fn checkpointing_computes_blocks_again_and_holds_less() {
    let question = Question { seq: 256, train: true, ..Question::default() };
    let plain = counted("gpt2", question.clone());
    let again = counted("gpt2", Question { checkpoint: true, ..question });
    assert_eq!(6.0 * again.of(Kind::Mlp).products, 7.0 * plain.of(Kind::Mlp).products);
    assert_eq!(again.of(Kind::Head).products, plain.of(Kind::Head).products);
    assert_eq!(again.model_products, plain.model_products);
    assert_eq!(plain.model_products, plain.total.products);
    let [all, blocks, segments] = &plain.memory.as_ref().unwrap().activations[..] else { panic!("three ways") };
    assert!(all.held.counted > blocks.held.counted && blocks.held.counted > segments.held.counted);
    assert!(all.arena > blocks.arena);
    // Inputs of 12 blocks, and at least the logits.
    assert!(blocks.held.counted > 4.0 * 256.0 * (12.0 * 768.0 + 50257.0));
    assert_eq!(plain.passes.iter().sum::<f64>(), plain.total.flops);
    assert!(plain.passes[1] > 1.9 * plain.passes[0] && plain.passes[1] < 2.2 * plain.passes[0], "{:?}", plain.passes);
}

/// Bytes are at least those of weights and results, time is at least the roofline's, more bandwidth makes it shorter.
#[test]
fn predictions_are_between_what_must_be_and_what_is_summed() {
    let question = Question { seq: 32, ..Question::default() };
    let found = counted("smollm2-135m", question.clone());
    assert!(found.total.bytes > 4.0 * (found.parameters + 32.0 * 49152.0));
    assert!(found.prediction.seconds >= found.prediction.roofline);
    assert!(found.kinds.iter().filter(|r| r.kernels > 0.0).all(|r| r.limit.is_some() && r.seconds > 0.0));
    // The slowest kernel is the head's, or runs once for each layer; together they take less than all.
    let slow = &found.slowest;
    assert!(slow.iter().all(|k| k.times == 30.0 || (k.times == 1.0 && k.function == "main")), "{slow:?}");
    assert!(slow.windows(2).all(|k| k[0].times * k[0].seconds >= k[1].times * k[1].seconds) && slow.len() == 5);
    assert!(slow.iter().map(|k| k.times * k.seconds).sum::<f64>() < found.prediction.seconds);
    let rows = |rows: &[tilewright::ledger::Row]| rows.iter().map(|r| r.seconds).sum::<f64>();
    for sum in [rows(&found.kinds), rows(&found.layers)] {
        assert!((sum / found.prediction.seconds - 1.0).abs() < 1e-9, "{sum}");
    }
    // Every kernel of a decoder works for a part of it, and those of products for the part whose products they are: norms, which the
    // rules move into and behind them, take little time of theirs. Queries, keys and values are one launch.
    assert_eq!(found.of(Kind::Other).kernels, 0.0);
    assert!(found.of(Kind::Norm).seconds < 0.25 * found.of(Kind::AttentionProjections).seconds, "{:?}", found.kinds);
    let model = Subject::named("smollm2-135m").unwrap();
    let slow = ledger(&model, &question, &Machine::named("cpu-avx2").unwrap(), &|_| {}).unwrap();
    assert!(slow.prediction.seconds > 20.0 * found.prediction.seconds);
    assert_eq!(slow.total.flops, found.total.flops);
    let half = ledger(&model, &Question { dtype: DType::Bf16, ..question }, &Machine::named("h200").unwrap(), &|_| {});
    assert!(half.unwrap().roof.flops > 10.0 * found.roof.flops);
}

/// A step in halves takes no longer than one in f32: kernels of attention's way back were once chosen that take a thousand times as long.
#[test]
fn steps_in_halves_take_no_longer() {
    for model in ["smollm2-135m", "gpt2"] {
        let seconds =
            |dtype| counted(model, Question { seq: 512, train: true, dtype, ..Question::default() }).prediction.seconds;
        let (halves, full) = (seconds(DType::Bf16), seconds(DType::F32));
        assert!(halves < full, "{model}: {halves} {full}");
    }
}

/// Products in halves, all else in f32: the model's operations stay, the roof is that of halves, less is held.
#[test]
fn mixed_precision_is_counted_as_it_runs() {
    let question = Question { seq: 64, train: true, ..Question::default() };
    let full = counted("gpt2", question.clone());
    let mixed = counted("gpt2", Question { precision: Some(DType::Bf16), ..question });
    assert_eq!((mixed.model_products, mixed.total.products), (full.model_products, full.total.products));
    assert!(mixed.roof.flops > 10.0 * full.roof.flops);
    assert_eq!((&*mixed.dtype, &*mixed.precision), ("f32", "bf16"));
    let [full, mixed] = [full, mixed].map(|f| f.memory.unwrap());
    assert_eq!(full.weights, mixed.weights);
    let held = |m: &tilewright::ledger::Memory| m.activations.iter().map(|a| a.held.counted).collect::<Vec<_>>();
    assert!(held(&mixed)[0] < 0.9 * held(&full)[0] && held(&mixed).len() == 3, "{:?} {:?}", held(&mixed), held(&full));
}

#[test]
fn the_picture_has_each_kind_under_the_roof() {
    let found = counted("gpt2", Question { seq: 32, ..Question::default() });
    let picture = roofline(&found);
    for name in ["embedding", "attention scores", "MLP", "head", "all", "bound by overhead"] {
        assert!(picture.contains(&format!(">{name}</text>")), "{name}");
    }
    assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    // A row above the roof would be faster than the machine, or have the operations of others' kernels.
    let step = counted("smollm2-135m", Question { seq: 256, train: true, ..Question::default() });
    for row in found.kinds.iter().chain(&step.kinds).filter(|r| r.seconds > 0.0 && r.flops > 0.0) {
        let rate = row.flops / row.seconds;
        assert!(rate <= 1.001 * found.roof.at(row.intensity.unwrap()), "{row:?}");
    }
}

fn tilewright(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tilewright")).arg("ledger").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn bad_input_is_said_with_what_would_be_right() {
    for (args, words) in [
        (&["gpt22"][..], &["unknown-model", "the nearest is `gpt2`", "llama-3-8b"][..]),
        (&["gpt2", "--machine", "h20"], &["unknown-device", "the nearest is `h200`"]),
        (&["gpt2", "--seq", "1025"], &["sequence-length", "1 to 1024", "found 1025"]),
        (&["gpt2", "--seq", "0"], &["sequence-length", "found 0"]),
        (&["gpt2", "--batch", "0"], &["batch", "at least 1"]),
        (&["gpt2", "--budget", "-3"], &["budget", "above 0"]),
        (&["--budget", "nan"], &["budget", "above 0"]),
        (&[], &["usage", "a model, or --budget"]),
        (&["gpt2", "--dtype", "i32"], &["expected f32, bf16, f16 or f64"]),
        (&["gpt2", "--checkpoint"], &["--train"]),
        (&["gpt2", "--decode", "--batch", "2"], &["batch", "found 2"]),
        (&["gpt2", "--decode", "--train"], &["cannot be used with"]),
        (&["gpt2", "--batch", "9000000000000000"], &["error"]),
    ] {
        let (ok, _, said) = tilewright(args);
        assert!(!ok && words.iter().all(|w| said.contains(w)) && !said.contains("panicked"), "{args:?}: {said}");
    }
}

/// Folders and programs, as JSON.
#[test]
fn models_are_also_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 64}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let json = |args: &[&str]| -> serde_json::Value {
        let (ok, text, said) = tilewright(args);
        assert!(ok, "{said}");
        serde_json::from_str(&text).unwrap()
    };
    let found = json(&[folder.path().to_str().unwrap(), "--json", "--train", "--budget", "1e12"]);
    assert_eq!((found["seq"].as_u64(), found["batch"].as_u64()), (Some(64), Some(1)));
    // Two tables, two blocks of 32 x 32 twice, 32 x 16 twice, 32 x 64 three times and two norms, a norm.
    assert_eq!(found["parameters"].as_f64(), Some(6400.0 + 2.0 * (3072.0 + 6144.0 + 64.0) + 32.0));
    let step = found["model_products"].as_f64().unwrap();
    let tokens = found["scaling"]["model"]["tokens"].as_f64().unwrap();
    assert!((tokens - 1e12 / step * 64.0).abs() < 1e-6 * tokens);

    let file = folder.path().join("p.tw");
    let program = "func @main(%x: f32[n, 8], weight %w: f32[8, 4]) -> f32[] where n in 1..=64 {\n  %0 = dot %x, %w \
                   contract=[1]x[0] @\"h.0.mlp.up\"\n  %1 = sum %0 axes=[0, 1] @\"loss\"\n  return %1\n}\n";
    std::fs::write(&file, program).unwrap();
    let found = json(&[file.to_str().unwrap(), "--json", "--set", "n=10"]);
    assert_eq!(found["total"]["products"].as_f64(), Some(640.0));
    assert_eq!(found["layers"][1]["layer"].as_str(), Some("h.0"));
    assert_eq!(found["layers"][1]["parameters"].as_f64(), Some(32.0));
    // By the weight alone.
    let found = json(&[file.to_str().unwrap(), "--json", "--set", "n=10", "--train"]);
    assert_eq!(found["kinds"][0]["products"].as_f64(), Some(1280.0));
}

/// One token more: every matrix multiplies one row, and the scores are those of one query. It reads at least all of the weights that
/// multiply, and the caches.
#[test]
fn one_token_more_by_hand() {
    let question = Question { seq: 100, decode: true, ..Question::default() };
    let found = counted("smollm2-135m", question.clone());
    let attention = 30.0 * (2.0 * 576.0 * 576.0 + 2.0 * 576.0 * 192.0);
    let mlp = 30.0 * 3.0 * 576.0 * 1536.0;
    let scores = 30.0 * 9.0 * 2.0 * 2.0 * 100.0 * 64.0;
    assert_eq!(products(&found), [2.0 * attention, scores, 2.0 * mlp, 2.0 * 49152.0 * 576.0]);
    assert_eq!(found.parameters, 134_515_008.0);
    let (least, read) = check(&found, "bytes a token");
    assert_eq!(least, 4.0 * (attention + mlp + 49152.0 * 576.0) + 4.0 * 2.0 * 30.0 * 192.0 * 100.0);
    assert!(read >= least && read < 1.5 * least, "{read} {least}");
    let longer = counted("smollm2-135m", Question { seq: 1000, ..question.clone() });
    assert_eq!(longer.of(Kind::AttentionScores).products, 10.0 * scores);
    assert!(longer.of(Kind::AttentionScores).bytes > found.of(Kind::AttentionScores).bytes);
    let gpt = counted("gpt2", question);
    assert_eq!((gpt.parameters, gpt.of(Kind::Head).products), (124_439_808.0, 2.0 * 768.0 * 50257.0));
}

/// Scopes come from names of weights where nodes have none: a BERT by the command, options of models refused.
#[test]
fn encoders_and_their_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 64, "vocab_size": 50, "max_position_embeddings": 16}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let path = folder.path().to_str().unwrap();
    let (ok, text, said) = tilewright(&[path, "--json", "--batch", "2", "--seq", "8"]);
    assert!(ok, "{said}");
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of = |kind: &str| {
        found["kinds"].as_array().unwrap().iter().find(|r| r["kind"] == kind).unwrap()["products"].as_f64()
    };
    // Four matrices of 32 x 32, two of 32 x 64, for 16 tokens; scores of 8 x 8 x 8 for 4 heads and 2 texts, twice.
    assert_eq!(of("attention_projections"), Some(2.0 * 2.0 * 16.0 * 4.0 * 32.0 * 32.0));
    assert_eq!(of("mlp"), Some(2.0 * 2.0 * 16.0 * 2.0 * 32.0 * 64.0));
    assert_eq!(of("attention_scores"), Some(2.0 * 2.0 * 2.0 * 2.0 * 4.0 * 8.0 * 8.0 * 8.0));
    for (args, words) in [
        (&["--decode"][..], &["usage", "--decode"][..]),
        (&["--dtype", "bf16"], &["usage", "--dtype"]),
        (&["--seq", "17"], &["symbol", "1..=16", "17"]),
        (&["--train"], &["not-scalar"]),
    ] {
        let (ok, _, said) = tilewright(&[&[path], args].concat());
        assert!(!ok && words.iter().all(|w| said.contains(w)), "{args:?}: {said}");
    }
}

/// Each shipped machine has a target.
#[test]
fn machines_have_targets() {
    use tilewright::compile::Target;
    for (name, target) in
        [("h200", Target::Sm90a), ("a100", Target::Sm80), ("l4", Target::Sm89), ("cpu-avx2", Target::Cpu)]
    {
        assert_eq!(Machine::named(name).unwrap().target, target, "{name}");
    }
    for name in tilewright::passes::egraph::Device::names() {
        let machine = Machine::named(name).unwrap();
        let cpu = ["avx", "amx", "portable"].iter().any(|isa| name.contains(isa));
        assert_eq!(machine.target == Target::Cpu, cpu, "{name}");
        assert!(machine.target != Target::Cpu || name.ends_with(machine.options.isa.name()), "{name}");
    }
}
