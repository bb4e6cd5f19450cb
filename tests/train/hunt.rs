//! `--nan-hunt`: the node that made a NaN or an infinity, at the step where it did.

use super::cli::{CONFIG, done, fails, folder, model, run};
use super::diverged::{config_of, gpt, row};

/// Without clipping, so that one step goes as far as its rate says.
fn huge(peak: &str, optimiser: &str) -> String {
    let config = CONFIG.replace("peak = 0.02\nwarmup = 3", &format!("peak = {peak}"));
    config
        .replace("dropout = 0.1\naverage = 0.5", "clip = 0.0")
        .replace("[schedule]", &format!("{optimiser}[schedule]"))
}

#[test]
fn a_rate_that_is_too_large_is_found_in_the_step_that_overflows() {
    let folder = folder(&huge("1e37", "[optimiser]\nname = \"sgd\"\n"));
    // Without the hunt no node is named.
    fails(&run(folder.path(), &[]), &["error[diverged]: the ", " of step"]);
    std::fs::remove_dir_all(folder.path().join("out")).unwrap();
    let output = run(folder.path(), &["--nan-hunt"]);
    fails(&output, &["error[not-finite]: `", "the first at [", "note: operand 0: f32[", "note: the run ends as "]);
    let said = String::from_utf8(output.stderr).unwrap();
    // The line of a model or of an optimiser.
    assert!(said.contains("--> src/") && said.contains(".rs:"), "{said}");
    assert_eq!(said.matches("before the step").count(), 0, "{said}");
}

/// A sum of 16 times 3e38 is infinite.
#[test]
fn the_node_is_one_of_the_way_forward_where_the_loss_is_no_number() {
    let model = gpt(|_| [3e38; 16]);
    let config = config_of(&model, "").replace("precision = \"f16\"\n", "");
    let folder = folder(&config);
    std::fs::write(folder.path().join("letters.txt"), "abcdefgfedcba".repeat(30)).unwrap();
    let ended = ["error[not-finite]: `sum` in `@", "makes infinity in", "the run ends as the loss of step 1 is"];
    fails(&run(folder.path(), &["--nan-hunt"]), &ended);
}

#[test]
fn steps_that_a_scaled_loss_skips_are_no_faults() {
    // Gradients are infinite at every scale until the run ends, which names no node but the one of the last step.
    let model = gpt(|i| row(i).map(|x| 1e-12 * x));
    let folder = folder(&config_of(&model, "[loss_scale]\nfirst = 1\n"));
    std::fs::write(folder.path().join("letters.txt"), "abcdefgfedcba".repeat(30)).unwrap();
    done(&run(folder.path(), &["--nan-hunt", "--until", "8"]));
    let said = ["error[not-finite]: `", ".bwd`", "f16", "the gradients of step 16 are not finite at any loss scale"];
    fails(&run(folder.path(), &["--nan-hunt"]), &said);
}

#[test]
fn a_run_that_finds_nothing_has_the_bits_of_one_that_does_not_look() {
    let (plain, hunting) = (folder(CONFIG), folder(CONFIG));
    done(&run(plain.path(), &[]));
    done(&run(hunting.path(), &["--nan-hunt"]));
    assert!(model(plain.path()) == model(hunting.path()), "the models differ");
}

/// Weights that are no numbers before the first step are the fault of no node.
#[test]
fn weights_that_begin_as_no_numbers_are_named() {
    let model = gpt(|i| if i == 1 { [f32::NAN; 16] } else { row(i) });
    let folder = folder(&config_of(&model, "").replace("precision = \"f16\"\n", ""));
    std::fs::write(folder.path().join("letters.txt"), "abcdefgfedcba".repeat(30)).unwrap();
    let said = ["error[not-finite]: `", "of the weights that the run begins with", "found NaN at [1, 0], and 16 of"];
    fails(&run(folder.path(), &["--nan-hunt"]), &said);
}

/// A checkpoint knows its step.
#[test]
fn a_checkpoint_under_the_name_of_another_step_is_refused() {
    let folder = folder(CONFIG);
    done(&run(folder.path(), &["--until", "2"]));
    let all = folder.path().join("out/checkpoints");
    std::fs::rename(all.join("step-0000000002.safetensors"), all.join("step-0000000004.safetensors")).unwrap();
    fails(&run(folder.path(), &[]), &["error[checkpoint]", "it was written after step 2, and its name says 4"]);
}
