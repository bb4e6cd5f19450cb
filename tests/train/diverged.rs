//! Runs in f16 whose losses or gradients are no finite numbers.

use super::cli::{done, fails, folder, metrics, run};
use super::folder::{config, weights, write};
use tempfile::TempDir;
use tilewright_ir::array::Array;

/// A GPT of one block whose block adds nothing to the hidden state, as its projections back are zeros. `embedding` makes the rows
/// of the letters a to g.
pub(super) fn gpt(embedding: impl Fn(usize) -> [f32; 16]) -> TempDir {
    let json = r#"{"model_type": "gpt2", "n_layer": 1, "n_embd": 16, "n_head": 2, "n_inner": 16, "vocab_size": 7,
        "n_positions": 16, "layer_norm_epsilon": 1e-30, "tie_word_embeddings": false}"#;
    let mut all = weights(&config(json));
    for (entry, array) in &mut all {
        let count: usize = array.shape().iter().product();
        let values = match entry.role.as_str() {
            "wte" => (0..7).flat_map(&embedding).collect(),
            role if role.ends_with("proj.w") || role.ends_with("out.w") || role == "wpe" => vec![0.0; count],
            role if role.contains("ln") && role.ends_with(".w") => vec![1.0; count],
            role if role.ends_with(".b") => vec![0.0; count],
            _matrix => array.to_f32().unwrap(),
        };
        *array = Array::from_f32(array.shape(), &values).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), json, &all, "");
    folder
}

pub(super) fn config_of(model: &TempDir, more: &str) -> String {
    format!(
        "out = \"out\"\n[model]\nfrom = {:?}\ncontext = 16\n[data]\ntext = [\"letters.txt\"]\n[train]\nsteps = 20\n\
         batch = 4\nprecision = \"f16\"\n[schedule]\npeak = 1e-3\n[save]\nmetrics = 1\n{more}",
        model.path()
    )
}

/// A row of the letter `i` without a pattern.
pub(super) fn row(i: usize) -> [f32; 16] {
    std::array::from_fn(|j| ((7 * i + 3 * j + i * j) % 11) as f32 - 5.0)
}

/// Behind a norm of hidden states of 1e-12 gradients are 1e12 times as large: no scale of the loss makes them fit into f16.
#[test]
fn gradients_that_are_infinite_at_any_scale_end_a_run() {
    let model = gpt(|i| row(i).map(|x| 1e-12 * x));
    let folder = folder(&config_of(&model, "[loss_scale]\nfirst = 1\n"));
    std::fs::write(folder.path().join("letters.txt"), "abcdefgfedcba".repeat(30)).unwrap();
    let said = ["error[diverged]", "the gradients of step 16 are not finite at any loss scale", "bf16"];
    fails(&run(folder.path(), &[]), &said);
    let all = metrics(folder.path());
    // The line of the step that ends the run is not kept.
    assert_eq!(all.len(), 15, "{all:?}");
    assert!(all.iter().all(|m| m["loss"].is_f64() && m["norm"].is_null()), "{all:?}");
    assert_eq!(all[14]["loss_scale"].as_f64(), Some(2f64.powi(-14)));
    // In f32 they are numbers.
    let text = std::fs::read_to_string(folder.path().join("run.toml")).unwrap();
    let text = text.replace("precision = \"f16\"\n", "").replace("[loss_scale]\nfirst = 1\n", "");
    std::fs::write(folder.path().join("run.toml"), text.replace("out = \"out\"", "out = \"other\"")).unwrap();
    done(&run(folder.path(), &["--until", "1"]));
}

/// The norm of an infinite hidden state is no number: a batch with that letter has no loss. It is skipped, and the run goes on.
#[test]
fn a_loss_that_is_no_number_now_and_then_is_skipped() {
    let model = gpt(|i| if i == 6 { [f32::INFINITY; 16] } else { row(i) });
    let folder = folder(&config_of(&model, ""));
    std::fs::write(folder.path().join("letters.txt"), "abcdefedcba".repeat(50) + "g" + &"fab".repeat(80)).unwrap();
    done(&run(folder.path(), &["--until", "12"]));
    done(&run(folder.path(), &[]));
    let all = metrics(folder.path());
    assert_eq!(all.len(), 20);
    let skipped = all.iter().filter(|m| m["loss"].is_null()).count();
    assert!((1..8).contains(&skipped), "{all:?}");
    assert!(all.iter().all(|m| m["loss"].is_null() == m["norm"].is_null()), "{all:?}");
    let scale = all[19]["loss_scale"].as_f64().unwrap();
    assert_eq!(scale * 2f64.powi(all[..19].iter().filter(|m| m["loss"].is_null()).count() as i32), 65536.0);
}

#[test]
fn a_loss_that_is_never_a_number_ends_a_run() {
    let model = gpt(|_| [f32::INFINITY; 16]);
    let folder = folder(&config_of(&model, ""));
    std::fs::write(folder.path().join("letters.txt"), "abcdefgfedcba".repeat(30)).unwrap();
    fails(&run(folder.path(), &[]), &["error[diverged]", "in 10 steps one after the other"]);
}
