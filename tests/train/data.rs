//! Data of the command: files that were edited between runs, tokens of four bytes, the models of checkpoints.

use super::cli::{CONFIG, TEXT, checkpoints, done, fails, folder, generates, model, run};
use std::path::Path;

#[test]
fn a_text_that_was_edited_does_not_go_on() {
    let folder = folder(CONFIG);
    let text = folder.path().join("text.txt");
    let before = std::fs::read_to_string(&text).unwrap();
    done(&run(folder.path(), &["--until", "4"]));
    // Of the same length and characters, near the end.
    let edited = format!("{}dei\n", &before[..before.len() - 4]);
    assert!(edited.len() == before.len() && edited != before);
    std::fs::write(&text, &edited).unwrap();
    let said = ["text.txt` is not what it was when the checkpoint was written", "put it back"];
    fails(&run(folder.path(), &[]), &said);
    std::fs::write(&text, before).unwrap();
    done(&run(folder.path(), &[]));
}

#[test]
fn weights_beside_adapters_are_of_the_data() {
    let base = folder(&CONFIG.replace("steps = 12", "steps = 2").replace("warmup = 3", "warmup = 2"));
    done(&run(base.path(), &[]));
    let from = format!("[model]\nfrom = {:?}\ncontext = 16\n[lora]\nrank = 2\n", base.path().join("out"));
    let rest = CONFIG.split_once("[data]").unwrap().1;
    let adapters = folder(&format!("out = \"out\"\n{from}[data]{rest}"));
    done(&run(adapters.path(), &["--until", "1"]));
    std::fs::remove_dir_all(base.path().join("out")).unwrap();
    std::fs::write(base.path().join("run.toml"), CONFIG.replace("steps = 12", "steps = 3")).unwrap();
    done(&run(base.path(), &[]));
    fails(&run(adapters.path(), &[]), &["error[checkpoint]", "out` is not what it was"]);
}

#[test]
fn tokens_of_two_and_of_four_bytes_are_the_same() {
    let config = |more: &str| CONFIG.replace("text = [\"text.txt\"]", &format!("tokens = [\"a.bin\"]{more}"));
    let tokens: Vec<u16> = (0..2000u16).map(|i| i % 41 * (i % 41) % 17).collect();
    let (narrow, wide) = (folder(&config("")), folder(&config("\ntoken_type = \"u32\"\nvalidation = 0.1")));
    let kept = &tokens[..1800];
    std::fs::write(narrow.path().join("a.bin"), kept.iter().flat_map(|t| t.to_le_bytes()).collect::<Vec<u8>>())
        .unwrap();
    let bytes: Vec<u8> = tokens.iter().flat_map(|t| u32::from(*t).to_le_bytes()).collect();
    std::fs::write(wide.path().join("a.bin"), &bytes).unwrap();
    done(&run(narrow.path(), &[]));
    done(&run(wide.path(), &[]));
    assert!(model(narrow.path()) == model(wide.path()), "the models differ");
    std::fs::remove_dir_all(wide.path().join("out")).unwrap();
    std::fs::write(wide.path().join("a.bin"), &bytes[..1002]).unwrap();
    fails(&run(wide.path(), &[]), &["expected tokens of 4 bytes each, as data.token_type u32 has, found 1002 bytes"]);
    std::fs::write(wide.path().join("run.toml"), config("\ntoken_type = \"u64\"")).unwrap();
    fails(&run(wide.path(), &[]), &["unknown variant `u64`", "the nearest known one is"]);
}

#[test]
fn models_of_checkpoints_are_written() {
    let config = CONFIG.replace("keep", "# keep") + "keep = 10\n";
    let (whole, short) = (folder(&config), folder(&config));
    done(&run(whole.path(), &[]));
    let last = model(whole.path());
    done(&run(whole.path(), &["--export", "3"]));
    let third = model(whole.path());
    assert!(third != last, "another step has another model");
    generates(whole.path(), "in the");
    done(&run(whole.path(), &["--export", "last"]));
    assert!(model(whole.path()) == last, "the last one is that of the end");
    done(&run(short.path(), &["--until", "3"]));
    done(&run(short.path(), &["--export", "last"]));
    assert!(model(short.path()) == third);
    fails(&run(short.path(), &["--export", "5"]), &["expected a checkpoint after step 5, found none", "checkpoints"]);
    // While a run has the folder.
    let lock = std::fs::File::options().write(true).open(short.path().join("out/checkpoints/lock")).unwrap();
    lock.try_lock().unwrap();
    fails(&run(short.path(), &[]), &["run-locked"]);
    done(&run(short.path(), &["--export", "3"]));
}

#[test]
fn first_weights_are_a_checkpoint() {
    let (first, whole) = (folder(CONFIG), folder(CONFIG));
    done(&run(first.path(), &["--until", "0"]));
    let names = |folder: &Path| {
        let paths = checkpoints(folder).into_iter();
        paths.map(|p| p.file_name().unwrap().to_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(first.path()), ["step-0000000000.safetensors"]);
    done(&run(first.path(), &[]));
    // Behind the first step it says nothing new.
    done(&run(first.path(), &["--until", "0"]));
    done(&run(whole.path(), &[]));
    assert!(model(first.path()) == model(whole.path()) && names(first.path()) == names(whole.path()));
}

#[test]
fn a_gpt_with_an_output_matrix_of_its_own_generates() {
    let folder = folder(&CONFIG.replace("heads = 2", "heads = 2\ntied = false"));
    done(&run(folder.path(), &["--until", "2"]));
    done(&run(folder.path(), &["--export", "last"]));
    let file = tilewright::formats::Safetensors::open(folder.path().join("out/model.safetensors")).unwrap();
    assert!(file.names().any(|n| n == "lm_head.weight") && TEXT.len() > 16);
    generates(folder.path(), "in the");
}
