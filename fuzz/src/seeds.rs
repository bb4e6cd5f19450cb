//! Real inputs: the files of `tests/`, the shipped rules, kernels that the cases become, and small files made here.

use crate::files::GOOD_TOKENIZER;
use std::path::{Path, PathBuf};
use tilewright::compile::{Options, Target, lower, lower_gpu};
use tilewright::formats::Safetensors;
use tilewright_ir::kernel::text::print_kernel;
use tilewright_ir::text::parse;

/// Longer files mutate slowly, and in places that matter little.
const LONGEST: usize = 6000;

/// Files below `folder` of the repository that end in `end`, in order of their paths.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    let mut found = Vec::new();
    while let Some(path) = todo.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => todo.extend(entries.flatten().map(|e| e.path())),
            Err(_a_file) if path.to_string_lossy().ends_with(end) => found.push(path),
            Err(_a_file) => {}
        }
    }
    found.sort();
    found
}

fn texts(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let read = |p: PathBuf| std::fs::read(p).ok().filter(|b| b.len() <= LONGEST);
    files(folder, end).into_iter().filter_map(read).collect()
}

/// The `.tw` files of the tests, good and bad.
pub fn graph_texts() -> Vec<Vec<u8>> {
    [texts("tests/cases", ".tw"), texts("tests/data/programs", ".tw")].concat()
}

/// Kernels that the cases become, for CPUs and GPUs. Debug builds take one case of eight: lowering is slow there.
pub fn kernel_texts() -> Vec<Vec<u8>> {
    let every = if cfg!(debug_assertions) { 8 } else { 1 };
    let mut out: Vec<Vec<u8>> = Vec::new();
    for text in graph_texts().into_iter().step_by(every) {
        let Ok(module) = parse("seed", &String::from_utf8_lossy(&text)) else { continue };
        let Ok(host) = Options::host() else { continue };
        for opt_level in [1, 2] {
            let options = Options { opt_level, verify: false, ..host.clone() };
            let gpu = Target::Sm90a.gpu().map(|isa| lower_gpu(&module, &options, isa));
            for program in [Some(lower(&module, &options)), gpu].into_iter().flatten().flatten().flatten() {
                out.extend(program.kernels.iter().map(print_kernel).map(String::into_bytes));
            }
        }
    }
    out.retain(|text| text.len() <= LONGEST);
    out.sort();
    out.dedup();
    out
}

/// The programs of the op files.
pub fn op_programs() -> Vec<Vec<u8>> {
    let program = |p: PathBuf| Some(Safetensors::open(p).ok()?.metadata.get("program")?.clone().into_bytes());
    files("tests/data/ops", ".safetensors").into_iter().filter_map(program).collect()
}

/// The shipped rule files, and each of their rules alone.
pub fn rules() -> Vec<Vec<u8>> {
    let whole: Vec<String> = files("passes/src/egraph/rules", ".rules")
        .into_iter()
        .filter_map(|p| std::fs::read_to_string(p).ok())
        .collect();
    let mut out = Vec::new();
    for text in &whole {
        // A rule starts at the margin.
        for line in text.lines().filter(|l| !l.trim_start().starts_with('#') && !l.trim().is_empty()) {
            match out.last_mut() {
                Some(last) if line.starts_with(' ') => *last = format!("{last}{line}\n"),
                _ => out.push(format!("{line}\n")),
            }
        }
    }
    out.extend(whole);
    out.into_iter().map(String::into_bytes).collect()
}

/// Tokenizers of each model that the `tokenizers` crate has.
pub fn tokenizers() -> Vec<Vec<u8>> {
    let with = |parts: &str| format!(r#"{{"version":"1.0","added_tokens":[],{parts}}}"#).into_bytes();
    vec![
        GOOD_TOKENIZER.as_bytes().to_vec(),
        with(
            r###""normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","sep":["b",1],"cls":["a",0]},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"a":0,"b":1,"##b":2,"[UNK]":3}}"###,
        ),
        with(
            r#""normalizer":{"type":"NFKC"},"pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true},"post_processor":null,"decoder":{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["a",-1.5],["b",-2.0],["ab",-2.5]],"byte_fallback":false}"#,
        ),
        with(
            r#""truncation":null,"padding":{"strategy":"BatchLongest","direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"a"},"normalizer":null,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+|a(?=b)"},"behavior":"Isolated","invert":false},"post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"a"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"WordLevel","vocab":{"a":0,"b":1,"<unk>":2},"unk_token":"<unk>"}"#,
        ),
    ]
}
