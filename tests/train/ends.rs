//! Where texts end and how conversations go: what the files of a folder say of it, and what a run makes of them.

use super::cli::{CONFIG, done, folder as run_folder, run};
use super::folder::{config, llama, tilewright, weights, write};
use std::path::Path;

/// What is written after `prompt`.
#[track_caller]
fn answer(folder: &Path, prompt: &str, more: &[&str]) -> String {
    let path = folder.to_str().unwrap();
    // Drawn, so that the letters differ; the same seed draws the same.
    let drawn = ["--temperature", "3", "--seed", "1", "--max-tokens", "6", "--opt-level", "1"];
    let args = [&["generate", "--model", path, "--prompt", prompt], &drawn[..]].concat();
    let (ok, text, said) = tilewright(&[&args[..], more].concat());
    assert!(ok, "{said}");
    text.trim_end_matches('\n').to_string()
}

#[test]
fn generation_stops_where_the_files_say() {
    let folder = tempfile::tempdir().unwrap();
    let json = llama(true);
    write(folder.path(), &json, &weights(&config(&json)), "");
    let whole = answer(folder.path(), "cab", &[]);
    assert_eq!(whole.len(), 6);
    // A letter that is written, but not at first.
    let end = whole.chars().find(|c| !whole.starts_with(*c)).unwrap_or_else(|| panic!("one letter only: {whole}"));
    let (cut, id) = (whole.split(end).next().unwrap(), end as u32 - 'a' as u32);
    let file = |name: &str| folder.path().join(name);
    for (name, text) in [
        ("config.json", json.replace("\"llama\"", &format!("\"llama\", \"eos_token_id\": {id}"))),
        ("config.json", json.replace("\"llama\"", &format!("\"llama\", \"eos_token_id\": [99, {id}]"))),
        ("generation_config.json", format!("{{\"eos_token_id\": {id}}}")),
        ("tokenizer_config.json", format!("{{\"eos_token\": \"{end}\"}}")),
    ] {
        std::fs::write(file(name), text).unwrap();
        assert_eq!(answer(folder.path(), "cab", &[]), cut, "{name}");
        std::fs::remove_file(file(name)).unwrap();
        std::fs::write(file("config.json"), &json).unwrap();
    }
    std::fs::write(file("generation_config.json"), "{\"eos_token_id\": \"a\"}").unwrap();
    let (ok, _, said) = tilewright(&["generate", "--model", folder.path().to_str().unwrap(), "--prompt", "c"]);
    assert!(!ok && said.contains("eos_token_id: expected a token or several"), "{said}");
}

#[test]
fn a_template_is_applied_unless_the_prompt_is_raw() {
    let folder = tempfile::tempdir().unwrap();
    let json = llama(false);
    write(folder.path(), &json, &weights(&config(&json)), "");
    let plain = answer(folder.path(), "cabf", &[]);
    let template = "{{ messages[0].content }}{% if add_generation_prompt %}f{% endif %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    assert_eq!(answer(folder.path(), "cab", &[]), plain);
    assert_eq!(answer(folder.path(), "cabf", &["--raw"]), plain);
}

/// A model that starts from another keeps its template and where its texts end.
#[test]
fn a_run_hands_them_on() {
    let first = run_folder(&CONFIG.replace("steps = 12", "steps = 2").replace("warmup = 3", "warmup = 2"));
    done(&run(first.path(), &[]));
    let from = first.path().join("out");
    let said = r#"{"eos_token": {"content": "e"}, "bos_token": "i", "chat_template": "{{ bos_token }}{{ messages[0].content }}"}"#;
    std::fs::write(from.join("tokenizer_config.json"), said).unwrap();
    let rest = CONFIG.split_once("[data]").unwrap().1;
    let second = run_folder(&format!("out = \"out\"\n[model]\nfrom = {from:?}\ncontext = 16\n[data]{rest}"));
    done(&run(second.path(), &["--until", "1"]));
    done(&run(second.path(), &["--export", "1"]));
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(second.path().join("out").join(name)).unwrap()).unwrap()
    };
    let (config, tokens) = (read("config.json"), read("tokenizer_config.json"));
    let id = &read("tokenizer.json")["model"]["vocab"]["e"];
    assert!(id.is_u64() && config["eos_token_id"] == *id, "{config}");
    assert_eq!((&tokens["eos_token"], &tokens["bos_token"]), (&"e".into(), &"i".into()));
    assert_eq!(tokens["chat_template"], "{{ bos_token }}{{ messages[0].content }}");
    assert!(!answer(&second.path().join("out"), "n the", &[]).contains('e'));
}
