//! Hostile checkpoints and tokenizers: always an error or a usable result, never a panic, in bounded memory and time.
//!
//! Inputs are made here, by writers that know nothing of the readers; random ones come from a fixed seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

#[path = "support/files.rs"]
mod files;
#[path = "support/random.rs"]
mod random;

use files::{GOOD_TOKENIZER, gguf_bytes, good_gguf, good_safetensors, safetensors_bytes};
use random::Random;
use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tilewright::formats::dequantise::dequantised_values;
use tilewright::formats::tokenizer::Tokenizer;
use tilewright::formats::{Checkpoint, Gguf, Safetensors, checkpoint_from_bytes, map_file, open_checkpoint};
use tilewright_ir::array::Bytes;
use tilewright_ir::diag::Diagnostic;

/// Refuses any single request beyond 128 MiB, which no input of these tests needs (the largest input has 32 MiB): the
/// process then aborts, and the test fails.
struct Bounded;

// SAFETY: hands every call on to the system's allocator, or returns null, which the trait allows.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is handed on.
        if layout.size() > 128 << 20 { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, hence from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Uses all of an open checkpoint; the results do not matter, only that it ends.
fn use_all(checkpoint: &Checkpoint) {
    for name in checkpoint.names() {
        if let Ok(array) = checkpoint.tensor(name) {
            let _ = dequantised_values(&array);
            let _ = array.to_f64();
        }
    }
    if let Some(gguf) = checkpoint.as_gguf() {
        let _ = gguf.strings("tokenizer.ggml.tokens");
        match Tokenizer::from_gguf(gguf) {
            Ok(tokenizer) => use_tokenizer(&tokenizer).iter().for_each(no_panic_behind),
            Err(error) => no_panic_behind(&error),
        }
    }
}

/// A random tokenizer may refuse a text: gives the errors.
fn use_tokenizer(tokenizer: &Tokenizer) -> Vec<Diagnostic> {
    let results = [
        tokenizer.encode("ab<e> 12 xxé").map(drop),
        tokenizer.encode_with_special("ab").map(drop),
        tokenizer.decode(&[0, 1, 2, 3, 4, u32::MAX]).map(drop),
        tokenizer.stream(true).push(2).map(drop),
    ];
    results.into_iter().filter_map(Result::err).collect()
}

/// Not even a panic of the tokenizers crate that was caught.
fn no_panic_behind(error: &Diagnostic) {
    assert!(!error.message.contains("panicked"), "{error}");
}

fn open(bytes: Vec<u8>) -> Result<Checkpoint, Diagnostic> {
    checkpoint_from_bytes("bad.bin", Bytes::new(bytes))
}

/// Opens and uses `bytes`; fails the test with `what` on a panic. Whether they opened.
fn survives(what: &str, bytes: Vec<u8>) -> bool {
    let run = || match open(bytes) {
        Ok(checkpoint) => {
            use_all(&checkpoint);
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("bad.bin"), "{error}");
            assert_ne!(error.code, "bug", "{error}");
            false
        }
    };
    let result = catch_unwind(AssertUnwindSafe(run));
    assert!(result.is_ok(), "{what} panicked");
    result.unwrap_or(false)
}

#[test]
fn good_files_open() {
    let gguf = open(good_gguf()).unwrap();
    assert_eq!(gguf.names(), ["f32", "q4_1", "q4_k", "q6_k", "q8_0"]);
    assert_eq!(Tokenizer::from_gguf(gguf.as_gguf().unwrap()).unwrap().encode("ab<e>").unwrap(), [2, 3]);
    assert_eq!(open(good_safetensors()).unwrap().names(), ["e", "m", "w"]);
    let tokenizer = Tokenizer::from_json("t", &Bytes::new(GOOD_TOKENIZER)).unwrap();
    assert_eq!(tokenizer.encode_with_special("ABx").unwrap(), [3, 2, 0]);
}

#[test]
fn every_truncation_is_an_error() {
    for (format, good) in [("gguf", good_gguf()), ("safetensors", good_safetensors())] {
        for len in 0..good.len() {
            assert!(
                !survives(&format!("{format} cut to {len}"), good[..len].to_vec()),
                "{format} of {len} bytes opened"
            );
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (format, good) in [("gguf", good_gguf()), ("safetensors", good_safetensors())] {
        let mut refused = 0;
        for i in 0..8 * good.len() {
            let mut bytes = good.clone();
            bytes[i / 8] ^= 1 << (i % 8);
            refused += usize::from(!survives(&format!("{format} with bit {i} flipped"), bytes));
        }
        let mut random = Random(7);
        for round in 0..8000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random.below(6) {
                let at = random.below(bytes.len());
                bytes[at] = [0, 0xff, 0x7f, 0x80, random.next() as u8][random.below(5)];
            }
            refused += usize::from(!survives(&format!("{format}, round {round}"), bytes));
        }
        assert!(refused > good.len(), "{format}: only {refused} refused: are the flips seen at all?");
    }
}

#[test]
fn random_bytes_are_errors() {
    let mut random = Random(11);
    for round in 0..2000 {
        let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        if round % 2 == 0 {
            bytes.splice(0..0, *b"GGUF\x03\0\0\0");
        } else if bytes.len() > 8 {
            bytes[8] = b'{';
        }
        assert!(!survives(&format!("random bytes {round}"), bytes), "round {round} opened");
    }
}

#[test]
fn huge_counts_are_refused_before_anything_is_allocated() {
    let count = |kind: u32, n: u64| [kind.to_le_bytes().to_vec(), n.to_le_bytes().to_vec()].concat();
    for n in [u64::MAX, 1 << 63, 1 << 40, 1 << 28, (1 << 61) + 1] {
        for at in [8, 16] {
            let mut bytes = good_gguf();
            bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
            assert!(!survives("a count", bytes));
        }
        for kind in 0..13 {
            assert!(!survives("an array", gguf_bytes(3, &[(b"k", 9, count(kind, n))], &[], 64)));
        }
        assert!(!survives("a string", gguf_bytes(3, &[(b"k", 8, n.to_le_bytes().to_vec())], &[], 64)));
        assert!(!survives("a tensor", gguf_bytes(2, &[], &[("t", &[n, 4], 0, 0)], 64)));
        assert!(!survives("an offset", gguf_bytes(2, &[], &[("t", &[1], 0, n & !31)], 64)));
        let mut bytes = good_safetensors();
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        assert!(!survives("a header length", bytes));
        let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{n},{n}],"data_offsets":[0,{n}]}}}}"#);
        assert!(!survives("a shape", safetensors_bytes(header.as_bytes(), 4)));
    }
    // Many small values in a large array: each takes more memory than file.
    let many = [count(0, 1 << 25), vec![0; 1 << 25]].concat();
    let error = open(gguf_bytes(3, &[(b"k", 9, many)], &[], 0)).unwrap_err();
    assert!(error.message.contains("at most 16777216 metadata values"), "{error}");
}

#[test]
fn deep_and_strange_headers_are_errors() {
    let deep = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(100_000);
    assert!(!survives("deep arrays", gguf_bytes(3, &[(b"k", 9, deep)], &[], 0)));
    assert!(!survives("a key that is no UTF-8", gguf_bytes(3, &[(b"k\xff\xfe", 0, vec![0])], &[], 0)));
    for version in [0, 1, 4, u32::MAX, 3 << 24] {
        assert!(!survives("a version", gguf_bytes(version, &[], &[], 0)));
    }
    for header in [&b"{\"a\xff\":0}"[..], b"{]", b"{} {}", b"[]", b"{\"w\":null}", b"{\"__metadata__\":{\"a\":1}}"] {
        assert!(!survives("a header", safetensors_bytes(header, 0)));
    }
    let nested = [b"{\"w\":".to_vec(), b"[".repeat(200_000)].concat();
    assert!(!survives("a deep header", safetensors_bytes(&nested, 0)));
}

#[test]
fn paths_that_are_no_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    let mut paths = vec![folder.path().to_path_buf(), folder.path().join("none"), empty.join("below"), "".into()];
    if cfg!(unix) {
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if made.is_ok_and(|status| status.success()) {
            paths.push(pipe);
        }
        paths.push("/dev/zero".into());
    }
    for path in &paths {
        for error in [
            open_checkpoint(path).map(drop),
            Gguf::open(path).map(drop),
            Safetensors::open(path).map(drop),
            Tokenizer::open(path).map(drop),
            map_file(path).map(drop),
        ] {
            assert_eq!(error.unwrap_err().code, "file", "{}", path.display());
        }
    }
    assert_eq!(open_checkpoint(&empty).unwrap_err().code, "checkpoint-format");
    assert_eq!(Gguf::open(&empty).unwrap_err().code, "gguf");
    assert_eq!(Safetensors::open(&empty).unwrap_err().code, "safetensors");
    assert_eq!(Tokenizer::open(&empty).unwrap_err().code, "tokenizer");
}

#[test]
fn garbage_tokenizers_are_errors() {
    let json = |text: &[u8]| Tokenizer::from_json("bad.json", &Bytes::new(text.to_vec()));
    let good = GOOD_TOKENIZER.as_bytes();
    for len in 0..good.len() {
        let error = json(&good[..len]).expect_err("a cut tokenizer.json is read");
        assert!(error.code == "tokenizer" && error.to_string().contains("bad.json"));
        no_panic_behind(&error);
    }
    for text in [
        &b"null"[..],
        b"{}",
        b"[1]",
        b"\xff\xfe",
        br#"{"model":{"type":"BPE","vocab":{"a":4294967296},"merges":[]}}"#,
        br#"{"model":{"type":"BPE","vocab":{"a":0},"merges":["a zz"]}}"#,
        br#"{"model":{"type":"Nothing"}}"#,
        br#"{"decoder":{"type":"ByteLevel\ud800"},"model":{"type":"BPE","vocab":{},"merges":[]}}"#,
    ] {
        let error = json(text).expect_err(&String::from_utf8_lossy(text));
        assert_eq!(error.code, "tokenizer");
        no_panic_behind(&error);
    }
    assert_eq!(json(&b"[".repeat(1_000_000)).unwrap_err().code, "tokenizer");
    let nested = [b"{\"normalizer\":".to_vec(), br#"{"type":"Sequence","normalizers":["#.repeat(20_000)].concat();
    assert_eq!(json(&nested).unwrap_err().code, "tokenizer");

    // Here panics of the crate are known (a merge that is longer than every token); they must become errors.
    let mut random = Random(5);
    for round in 0..8000 {
        let mut bytes = good.to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = b"0123456789-{}[],:\"entf"[random.below(22)],
                _ => drop(bytes.remove(at)),
            }
        }
        let run = || match json(&bytes) {
            Ok(tokenizer) => use_tokenizer(&tokenizer).iter().for_each(|error| assert_eq!(error.code, "tokenizer")),
            Err(error) => assert_eq!(error.code, "tokenizer"),
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_ok(), "round {round}: {}", String::from_utf8_lossy(&bytes));
    }
}
