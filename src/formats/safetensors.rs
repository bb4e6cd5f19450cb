//! Safetensors files: eight bytes of header length, a JSON header with shapes and offsets, then the data.
//!
//! Types come from the `safetensors` crate. Its reader is not used: it adds offsets unchecked (the sum of hostile sizes
//! overflows), lets the later of two tensors of one name win, and does not say which tensor is wrong; its writer orders
//! the metadata of a file by hash, so that two runs write different bytes.

use super::{in_file, map_file, no_such_tensor, shown, write_whole};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::DType;

/// The limit of the format's own implementation.
const MAX_HEADER: u64 = 100_000_000;

/// Key of the strings that belong to the file as a whole.
const METADATA: &str = "__metadata__";

/// An open safetensors file.
#[derive(Debug)]
pub struct Safetensors {
    /// The file's `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// What errors call the file.
    pub file: String,
    tensors: BTreeMap<String, TensorInfo>,
    data: Bytes,
}

impl Safetensors {
    /// Opens and checks a file by memory map; tensor data is not touched.
    ///
    /// Errors: `file`; `safetensors` for truncation, a header that is no such JSON, names that occur twice, sizes that do
    /// not fit shapes, data that overlaps, lies outside or leaves bytes of the file unused.
    pub fn open(path: impl AsRef<Path>) -> Result<Safetensors, Diagnostic> {
        let path = path.as_ref();
        Safetensors::from_bytes(&path.display().to_string(), map_file(path)?)
    }

    /// Like [`Safetensors::open`], from bytes; `file` names them in errors.
    pub fn from_bytes(file: &str, bytes: Bytes) -> Result<Safetensors, Diagnostic> {
        let fail = |message: String| in_file("safetensors", message, file);
        let Some((start, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(fail(format!("expected at least 8 bytes, found {}", bytes.len())));
        };
        let len = u64::from_le_bytes(*start);
        let limit = MAX_HEADER.min(rest.len() as u64);
        if len > limit {
            return Err(fail(format!("the header announces {len} bytes, at most {limit} are possible")));
        }
        let len = len as usize;
        let text = std::str::from_utf8(&rest[..len]).map_err(|e| fail(format!("the header is not UTF-8: {e}")))?;
        let header: Header = serde_json::from_str(text).map_err(|e| fail(format!("the header is wrong: {e}")))?;
        let data = bytes.slice(8 + len, rest.len() - len);
        let data = data.ok_or_else(|| Diagnostic::bug("the bounds of the safetensors data were not checked"))?;
        check_layout(&header.tensors, data.len(), file)?;
        Ok(Safetensors { metadata: header.metadata, file: file.into(), tensors: header.tensors, data })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor `name`, sharing the bytes of the file.
    ///
    /// Errors: `checkpoint-tensor` if absent; `checkpoint-dtype` if its dtype is not one of [`DType`], or if a bool is
    /// neither 0 nor 1 (bools are read for this check).
    pub fn tensor(&self, name: &str) -> Result<Array, Diagnostic> {
        let info = self.tensors.get(name).ok_or_else(|| no_such_tensor(&self.file, name, self.names()))?;
        let fail = |message: String| tensor_error("checkpoint-dtype", message, &self.file, name);
        let dtype = dtype_of(info.dtype).ok_or_else(|| fail(format!("the dtype {} is not supported", info.dtype)))?;
        let (start, end) = info.data_offsets;
        let bytes = self.data.slice(start, end - start);
        let bytes = bytes.ok_or_else(|| Diagnostic::bug(format!("bounds of {} were not checked", shown(name))))?;
        if dtype == DType::Bool
            && let Some(i) = bytes.iter().position(|b| *b > 1)
        {
            return Err(fail(format!("expected bools of 0 or 1, element {i} is {}", bytes[i])));
        }
        Array::new(dtype, &info.shape, bytes)
    }
}

fn tensor_error(code: &'static str, message: impl Into<String>, file: &str, tensor: &str) -> Diagnostic {
    in_file(code, message, file).at(Place::Named(shown(tensor).into()), "the tensor")
}

/// Sizes agree with shapes, and the tensors lie one after the other and fill the data.
fn check_layout(tensors: &BTreeMap<String, TensorInfo>, data_len: usize, file: &str) -> Result<(), Diagnostic> {
    let mut ranges: Vec<(usize, usize, &str)> = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let fail = |message: String| tensor_error("safetensors", message, file, name);
        if start > end || end > data_len {
            return Err(fail(format!("its bytes {start}..{end} lie outside the {data_len} bytes of data")));
        }
        let bits = element_count(&info.shape).and_then(|n| n.checked_mul(info.dtype.bitsize()));
        if bits != (end - start).checked_mul(8) {
            let found = end - start;
            return Err(fail(format!("{}{:?} does not take its {found} bytes", info.dtype, info.shape)));
        }
        ranges.push((start, end, name));
    }
    ranges.sort_unstable();
    let mut reached = 0;
    for (start, end, name) in ranges {
        if start != reached {
            let what = if start < reached { "overlaps another tensor" } else { "leaves a gap before it" };
            let message = format!("expected its data to start at {reached}, found {start}: it {what}");
            return Err(tensor_error("safetensors", message, file, name));
        }
        reached = end;
    }
    if reached != data_len {
        let message = format!("the tensors take {reached} bytes, but {data_len} bytes of data follow the header");
        return Err(in_file("safetensors", message, file));
    }
    Ok(())
}

/// Our name for a dtype of the format, if we have one.
fn dtype_of(dtype: Dtype) -> Option<DType> {
    PLAIN.iter().find(|(theirs, _)| *theirs == dtype).map(|(_, ours)| *ours)
}

const PLAIN: &[(Dtype, DType)] = &[
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::I16, DType::I16),
    (Dtype::U16, DType::U16),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::Bf16),
    (Dtype::I32, DType::I32),
    (Dtype::U32, DType::U32),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::I64, DType::I64),
    (Dtype::U64, DType::U64),
];

/// The JSON header; unlike a plain map it refuses a name that occurs twice.
#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<'de> serde::Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            let twice = if name == METADATA {
                header.metadata = map.next_value()?;
                std::mem::replace(&mut has_metadata, true)
            } else {
                let info = map.next_value().map_err(|e| A::Error::custom(format!("{} has {e}", shown(&name))))?;
                header.tensors.insert(name.clone(), info).is_some()
            };
            if twice {
                return Err(A::Error::custom(format!("{} occurs twice", shown(&name))));
            }
        }
        Ok(header)
    }
}

/// Writes `tensors` and `metadata` to `path`: to a temporary name in the same folder, then renamed, so that no half-written
/// file is ever seen under the name. The same input gives the same bytes.
///
/// Errors: `file`; `safetensors` for a block encoding, which the format has no name for, a name that occurs twice, and the
/// tensor name `__metadata__`.
pub fn write(
    path: impl AsRef<Path>,
    tensors: &[(&str, &Array)],
    metadata: &BTreeMap<String, String>,
) -> Result<(), Diagnostic> {
    let path = path.as_ref();
    let (header, order) = layout(tensors, metadata, &path.display().to_string())?;
    write_whole(path, |out| write_parts(out, &header, &order))
}

/// The bytes of the file that [`write()`] writes. Errors: `safetensors`, as there.
pub fn to_bytes(tensors: &[(&str, &Array)], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>, Diagnostic> {
    let (header, order) = layout(tensors, metadata, "safetensors")?;
    let mut out = Vec::new();
    write_parts(&mut out, &header, &order)
        .map_err(|e| Diagnostic::bug(format!("bytes cannot be written to memory: {e}")))?;
    Ok(out)
}

fn write_parts(out: &mut dyn Write, header: &str, order: &[&Array]) -> std::io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    order.iter().try_for_each(|array| out.write_all(array.bytes()))
}

/// The padded header, and the arrays in the order of their data: wide dtypes first, so that all are aligned.
fn layout<'a>(
    tensors: &[(&str, &'a Array)],
    metadata: &BTreeMap<String, String>,
    file: &str,
) -> Result<(String, Vec<&'a Array>), Diagnostic> {
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(name, array)| (std::cmp::Reverse(array.dtype().block().1), *name));
    let mut infos: BTreeMap<&str, TensorInfo> = BTreeMap::new();
    let mut end = 0;
    for (name, array) in &sorted {
        let fail = |message: String| tensor_error("safetensors", message, file, name);
        let dtype = PLAIN.iter().find(|(_, ours)| *ours == array.dtype()).map(|(theirs, _)| *theirs);
        let dtype = dtype.ok_or_else(|| fail(format!("the format has no dtype for {}", array.dtype())))?;
        let start = end;
        end += array.bytes().len();
        let info = TensorInfo { dtype, shape: array.shape().to_vec(), data_offsets: (start, end) };
        if *name == METADATA || infos.insert(name, info).is_some() {
            return Err(fail("the tensor's name is reserved or occurs twice".into()));
        }
    }
    let json = |e: serde_json::Error| Diagnostic::bug(format!("the safetensors header cannot be written: {e}"));
    let mut header = String::from("{");
    if !metadata.is_empty() {
        header += &format!("\"{METADATA}\":{}", serde_json::to_string(metadata).map_err(json)?);
    }
    for (name, info) in &infos {
        let comma = if header.len() > 1 { "," } else { "" };
        let (name, info) = (serde_json::to_string(name).map_err(json)?, serde_json::to_string(info).map_err(json)?);
        header += &format!("{comma}{name}:{info}");
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    Ok((header, sorted.into_iter().map(|(_, array)| array).collect()))
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
