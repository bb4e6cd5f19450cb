//! Tests of the GGUF reader on files written here, and on the model if it is there.

use super::*;

#[path = "../../../tests/support/files.rs"]
mod files;
use files::gguf_bytes;

/// Appends a string as the format has it.
fn string(out: &mut Vec<u8>, s: &str) {
    files::string(out, s.as_bytes());
}

/// A file with the given pairs (key, type, raw value) and tensors (name, dims minor first, type, offset), and data.
fn file(version: u32, pairs: &[(&str, u32, Vec<u8>)], tensors: &[(&str, &[u64], u32, u64)], data: &[u8]) -> Vec<u8> {
    let pairs: Vec<(&[u8], u32, Vec<u8>)> = pairs.iter().map(|(k, t, v)| (k.as_bytes(), *t, v.clone())).collect();
    let mut out = gguf_bytes(version, &pairs, tensors, 0);
    out.extend(data);
    out
}

fn open(bytes: Vec<u8>) -> Result<Gguf, Diagnostic> {
    Gguf::from_bytes("t.gguf", Bytes::new(bytes))
}

fn refused(bytes: Vec<u8>, says: &str) {
    let text = open(bytes).expect_err(says).to_string();
    assert!(text.contains(says) && text.contains("t.gguf"), "expected `{says}` in {text}");
}

#[test]
fn tensors_and_values_of_every_kind_are_read() {
    let mut nested = Vec::new();
    nested.extend(9u32.to_le_bytes());
    nested.extend(2u64.to_le_bytes());
    for items in [&[1u16, 2][..], &[3][..]] {
        nested.extend(2u32.to_le_bytes());
        nested.extend((items.len() as u64).to_le_bytes());
        items.iter().for_each(|x| nested.extend(x.to_le_bytes()));
    }
    let mut text = Vec::new();
    string(&mut text, "é");
    let pairs = [
        ("u8", 0, vec![200]),
        ("i8", 1, vec![0xff]),
        ("u16", 2, 500u16.to_le_bytes().to_vec()),
        ("i16", 3, (-500i16).to_le_bytes().to_vec()),
        ("u32", 4, 70_000u32.to_le_bytes().to_vec()),
        ("i32", 5, (-1i32).to_le_bytes().to_vec()),
        ("f32", 6, 1.5f32.to_le_bytes().to_vec()),
        ("bool", 7, vec![1]),
        ("string", 8, text),
        ("nested", 9, nested),
        ("u64", 10, u64::MAX.to_le_bytes().to_vec()),
        ("i64", 11, i64::MIN.to_le_bytes().to_vec()),
        ("f64", 12, 0.1f64.to_le_bytes().to_vec()),
    ];
    let data: Vec<u8> = (0..=5u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    for version in [2, 3] {
        let gguf = open(file(version, &pairs, &[("w", &[3, 2], 0, 0)], &data)).unwrap();
        let w = gguf.tensor("w").unwrap();
        assert_eq!((w.shape(), w.to_f64().unwrap()), (&[2, 3][..], vec![0., 1., 2., 3., 4., 5.]));
        assert_eq!(gguf.u64("u8").unwrap(), 200);
        assert_eq!(gguf.usize("u16").unwrap(), 500);
        assert_eq!(gguf.u64("u64").unwrap(), u64::MAX);
        assert_eq!(gguf.metadata["i8"], Value::I8(-1));
        assert_eq!(gguf.metadata["i16"], Value::I16(-500));
        assert_eq!(gguf.metadata["i64"], Value::I64(i64::MIN));
        assert_eq!((gguf.f64("f32").unwrap(), gguf.f64("f64").unwrap()), (1.5, 0.1));
        assert_eq!((gguf.bool("bool").unwrap(), gguf.str("string").unwrap()), (true, "é"));
        let rows = [Value::Array(vec![Value::U16(1), Value::U16(2)]), Value::Array(vec![Value::U16(3)])];
        assert_eq!(gguf.array("nested").unwrap(), rows);
        let error = gguf.u64("i32").unwrap_err().to_string();
        assert!(error.contains("expected an integer that is not negative, found i32 -1") && error.contains("`i32`"));
        assert!(
            gguf.strings("absent").unwrap_err().message.contains("expected an array of strings, found no such key")
        );
    }
}

#[test]
fn wrong_headers_are_refused() {
    refused(b"GGML............".to_vec(), "starts with `GGUF`");
    refused(file(1, &[], &[], &[]), "expected GGUF version 2 or 3, found 1");
    refused(file(3u32.swap_bytes(), &[], &[], &[]), "big-endian");
    let mut counts = file(3, &[], &[], &[]);
    counts[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(counts, "announces 18446744073709551615 tensors");
    refused(b"GGUF\x03\0\0\0".to_vec(), "the file ends within the number of tensors");
}

#[test]
fn wrong_values_are_refused() {
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    refused(
        file(3, &[("k", 9, array(10, 1 << 60))], &[], &[]),
        "announces 1152921504606846976 items of the value of `k`",
    );
    refused(file(3, &[("k", 9, array(13, 0))], &[], &[]), "an array of type 13");
    refused(file(3, &[("k", 13, vec![])], &[], &[]), "`k` has the type 13");
    refused(file(3, &[("k", 7, vec![2])], &[], &[]), "expected 0 or 1, found 2");
    refused(file(3, &[("k", 0, vec![2]), ("k", 0, vec![2])], &[], &[]), "`k` occurs twice");
    refused(file(3, &[("k", 9, array(9, 1).repeat(9))], &[], &[]), "more than 8 deep");
    let bad = [&3u64.to_le_bytes()[..], b"a\xffb"].concat();
    refused(file(3, &[("k", 8, bad)], &[], &[]), "is not UTF-8");
    for alignment in [0u32, 24, 1 << 30] {
        let pair = ("general.alignment", 4, alignment.to_le_bytes().to_vec());
        refused(file(3, &[pair], &[], &[]), "must be a power of two");
    }
}

#[test]
fn wrong_tensors_are_refused_by_name() {
    let one = |dims: &[u64], kind, offset| file(3, &[], &[("w", dims, kind, offset)], &[0; 64]);
    refused(one(&[1; 5], 0, 0), "at most 4 dims, found 5");
    refused(one(&[u64::MAX], 0, 0), "larger than any memory");
    refused(one(&[1 << 40, 1 << 40], 0, 0), "overflows");
    refused(one(&[17], 0, 0), "its 68 bytes at offset 0 of the data lie outside");
    refused(one(&[1], 0, 1 << 63), "lie outside");
    refused(one(&[1], 0, 4), "not a multiple of the alignment 32");
    refused(one(&[16, 2], 8, 0), "does not fill whole blocks");
    let two = |a: &str, b: &str, offset| file(3, &[], &[(a, &[16], 0, 0), (b, &[4], 0, offset)], &[0; 96]);
    refused(two("w", "v", 32), "overlap those of");
    refused(two("w", "w", 64), "occurs twice");
    assert!(open(two("w", "v", 64)).is_ok());
}

#[test]
fn an_unsupported_type_is_an_error_of_its_tensor_only() {
    let gguf = open(file(3, &[], &[("odd", &[256], 19, 0), ("fine", &[2], 24, 32)], &[1; 64])).unwrap();
    assert_eq!(gguf.tensor("fine").unwrap().to_f64().unwrap(), [1.0, 1.0]);
    let error = gguf.tensor("odd").unwrap_err();
    assert_eq!(error.code, "checkpoint-dtype");
    assert!(error.to_string().contains("`odd`") && error.message.contains("19 (iq1_s)"), "{error}");
    assert_eq!(gguf.shape("odd").unwrap(), [256]);
    assert_eq!(gguf.tensor("none").unwrap_err().code, "checkpoint-tensor");
}
