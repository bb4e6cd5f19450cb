//! Tests of the safetensors reader and writer; the crate's own reader is the independent one.

use super::*;

fn raw(header: &str, data: &[u8]) -> Result<Safetensors, Diagnostic> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    Safetensors::from_bytes("t.safetensors", Bytes::new(bytes))
}

fn message(header: &str, data: &[u8]) -> String {
    raw(header, data).expect_err(header).to_string()
}

#[test]
fn every_plain_dtype_survives_writing_and_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    let arrays: Vec<(String, Array)> = DType::ALL
        .iter()
        .filter(|d| !d.is_block())
        .map(|d| {
            let bytes: Vec<u8> =
                (0..6 * d.block().1).map(|i| if *d == DType::Bool { i as u8 % 2 } else { i as u8 }).collect();
            (format!("x.{d}"), Array::new(*d, &[2, 3], Bytes::new(bytes)).unwrap())
        })
        .collect();
    let named: Vec<(&str, &Array)> = arrays.iter().map(|(n, a)| (n.as_str(), a)).collect();
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string()), ("b".into(), "\"é\n".into())]);
    write(&path, &named, &metadata).unwrap();

    let ours = Safetensors::open(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(ours.metadata, metadata);
    assert_eq!(ours.names().count(), 13);
    for (name, array) in &arrays {
        let read = ours.tensor(name).unwrap();
        assert_eq!((read.dtype(), read.shape(), &read.bytes()[..]), (array.dtype(), &[2, 3][..], &array.bytes()[..]));
        assert_eq!(theirs.tensor(name).unwrap().data(), &array.bytes()[..], "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing but the file is left behind");
}

#[test]
fn what_the_crate_writes_is_read() {
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![2, 1], &data).unwrap();
    let bytes = safetensors::serialize([("w", view)], None).unwrap();
    let file = Safetensors::from_bytes("t", Bytes::new(bytes)).unwrap();
    let w = file.tensor("w").unwrap();
    assert_eq!((w.shape(), w.to_f64().unwrap()), (&[2, 1][..], vec![1.5, -2.0]));
}

#[test]
fn errors_name_file_and_tensor() {
    let info = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"U8","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |shape: &str, start, end| format!(r#"{{"wq":{}}}"#, info(shape, start, end));
    for (header, data, says) in [
        (one("[4]", 0, 4), 3, "its bytes 0..4 lie outside the 3 bytes of data"),
        (one("[4]", 0, 3), 3, "U8[4] does not take its 3 bytes"),
        (one("[4]", 3, 1), 4, "its bytes 3..1 lie outside"),
        (one("[4]", 0, u64::MAX), 4, "lie outside"),
        (one("[4294967296,4294967296]", 0, 4), 4, "does not take its 4 bytes"),
        (one("[3]", 1, 4), 4, "leaves a gap before it"),
        (format!(r#"{{"a":{},"wq":{}}}"#, info("[3]", 0, 3), info("[3]", 1, 4)), 4, "overlaps another tensor"),
        (format!(r#"{{"wq":{0},"wq":{0}}}"#, info("[3]", 0, 3)), 3, "`wq` occurs twice"),
        (r#"{"wq":{"dtype":"F31","shape":[],"data_offsets":[0,0]}}"#.into(), 0, "`wq` has unknown variant `F31`"),
    ] {
        let text = message(&header, &vec![0; data]);
        assert!(text.contains(says) && text.contains("`wq`") && text.contains("t.safetensors"), "{text}");
    }
    assert!(message(&one("[4]", 0, 4), &[0; 5]).contains("take 4 bytes, but 5 bytes"));
    assert!(message("{", &[]).contains("the header is wrong"));
}

#[test]
fn sizes_whose_sum_overflows_are_refused() {
    // Eight tensors that together take 2^64 - 8 bytes: the end of the file, in wrapping arithmetic.
    let step = (1u64 << 61) - 1;
    let infos: Vec<String> = (0..8)
        .map(|i| {
            format!(r#""t{i}":{{"dtype":"U8","shape":[{step}],"data_offsets":[{},{}]}}"#, i * step, (i + 1) * step)
        })
        .collect();
    assert!(message(&format!("{{{}}}", infos.join(",")), &[]).contains("lie outside the 0 bytes"));
}

#[test]
fn strange_dtypes_and_bools_are_refused_when_asked_for() {
    let header = r#"{"f8":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]},"mask":{"dtype":"BOOL","shape":[2],"data_offsets":[1,3]}}"#;
    let file = raw(header, &[0, 1, 7]).unwrap();
    for (name, says) in
        [("f8", "F8_E4M3 is not supported"), ("mask", "element 1 is 7"), ("ff8", "no tensor `ff8` among the 2")]
    {
        let text = file.tensor(name).unwrap_err().to_string();
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn writing_refuses_what_cannot_be_written_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let block = Array::new(DType::Q8_0, &[32], Bytes::new(vec![0; 34])).unwrap();
    let plain = Array::from_f32(&[1], &[1.0]).unwrap();
    for tensors in [vec![("q", &block)], vec![("a", &plain), ("a", &plain)], vec![("__metadata__", &plain)]] {
        assert_eq!(write(&path, &tensors, &BTreeMap::new()).unwrap_err().code, "safetensors");
    }
    assert_eq!(write(folder.path(), &[("a", &plain)], &BTreeMap::new()).unwrap_err().code, "file");
    assert_eq!(write(folder.path().join("no/x"), &[("a", &plain)], &BTreeMap::new()).unwrap_err().code, "file");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
