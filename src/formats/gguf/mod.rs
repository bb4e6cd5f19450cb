//! GGUF files, versions 2 and 3: metadata and tensors of the ggml family of programs.
//!
//! Layout, little-endian: `GGUF`, version u32, tensor count u64, pair count u64; pairs of key, value type, value; for each
//! tensor its name, number of dims, dims (minor first), type, offset; then, aligned, the data.
//!
//! Why a reader of our own: the crates that exist (`gguf`, `gguf-rs`) copy into JSON values, allocate what the file says
//! before knowing that it is there, and check neither overlaps nor bounds of the data; candle's reader brings a tensor
//! library. Here every count is compared with the bytes left before anything is allocated.

mod reader;
mod value;

pub use value::Value;

use super::{in_file, map_file, no_such_tensor, shown};
use reader::Reader;
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_ir::array::{Array, Bytes, element_count};
use tilewright_ir::diag::{Diagnostic, Place};
use tilewright_ir::types::DType;

/// The first four bytes.
pub const MAGIC: &[u8] = b"GGUF";

/// ggml's own limit on dims.
const MAX_RANK: u32 = 4;

/// An open GGUF file.
#[derive(Debug)]
pub struct Gguf {
    /// All key-value pairs.
    pub metadata: BTreeMap<String, Value>,
    /// What errors call the file.
    pub file: String,
    tensors: BTreeMap<String, TensorInfo>,
    bytes: Bytes,
}

/// Where one tensor lies.
#[derive(Clone, Debug)]
struct TensorInfo {
    /// Row-major, major first.
    shape: Vec<usize>,
    /// ggml's number for the element type.
    kind: u32,
    /// From the start of the file.
    start: usize,
}

impl Gguf {
    /// Opens and checks a file by memory map; tensor data is not touched.
    ///
    /// Errors: `file`; `gguf` for a wrong magic number or version, truncation, counts that cannot be, duplicate keys or
    /// tensors, misaligned, overlapping or outlying data.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, Diagnostic> {
        let path = path.as_ref();
        Gguf::from_bytes(&path.display().to_string(), map_file(path)?)
    }

    /// Like [`Gguf::open`], from bytes; `file` names them in errors.
    pub fn from_bytes(file: &str, bytes: Bytes) -> Result<Gguf, Diagnostic> {
        let mut reader = Reader::new(&bytes, file);
        let (tensor_count, pair_count) = header(&mut reader)?;
        let metadata = pairs(&mut reader, pair_count)?;
        let alignment = alignment(&metadata, file)?;
        let mut tensors = tensor_infos(&mut reader, tensor_count)?;
        let data = reader.position().checked_next_multiple_of(alignment);
        let data = data.ok_or_else(|| reader.error("the start of the data overflows"))?;
        place_tensors(&mut tensors, data, alignment, bytes.len(), file)?;
        Ok(Gguf { metadata, file: file.into(), tensors, bytes })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor `name` as stored, sharing the bytes of the file; its shape is major first.
    ///
    /// Errors: `checkpoint-tensor` if absent, `checkpoint-dtype` if its encoding is not one of [`DType`].
    pub fn tensor(&self, name: &str) -> Result<Array, Diagnostic> {
        let info = self.tensors.get(name).ok_or_else(|| no_such_tensor(&self.file, name, self.names()))?;
        let Some(dtype) = dtype_of(info.kind) else {
            let known: Vec<&str> = KINDS.iter().map(|(_, d)| d.name()).collect();
            let message = format!("the tensor has the ggml type {}, which is not supported", kind_name(info.kind));
            return Err(tensor_error("checkpoint-dtype", message, &self.file, name)
                .note(format!("supported: {}", known.join(" "))));
        };
        let bytes = element_count(&info.shape)
            .and_then(|n| dtype.bytes(n))
            .and_then(|len| self.bytes.slice(info.start, len))
            .ok_or_else(|| Diagnostic::bug(format!("bounds of tensor {} were not checked", shown(name))))?;
        Array::new(dtype, &info.shape, bytes)
    }

    /// The shape of `name`, major first, whatever its encoding. Errors: `checkpoint-tensor`.
    pub fn shape(&self, name: &str) -> Result<&[usize], Diagnostic> {
        let info = self.tensors.get(name).ok_or_else(|| no_such_tensor(&self.file, name, self.names()))?;
        Ok(&info.shape)
    }
}

fn tensor_error(code: &'static str, message: impl Into<String>, file: &str, tensor: &str) -> Diagnostic {
    in_file(code, message, file).at(Place::Named(shown(tensor).into()), "the tensor")
}

/// Element types with a [`DType`], by ggml's number.
const KINDS: &[(u32, DType)] = &[
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (8, DType::Q8_0),
    (12, DType::Q4K),
    (14, DType::Q6K),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::Bf16),
];

fn dtype_of(kind: u32) -> Option<DType> {
    KINDS.iter().find(|(k, _)| *k == kind).map(|(_, d)| *d)
}

/// Name of a ggml type, for errors.
fn kind_name(kind: u32) -> String {
    const OTHERS: &[(u32, &str)] = &[
        (6, "q5_0"),
        (7, "q5_1"),
        (9, "q8_1"),
        (10, "q2_K"),
        (11, "q3_K"),
        (13, "q5_K"),
        (15, "q8_K"),
        (16, "iq2_xxs"),
        (17, "iq2_xs"),
        (18, "iq3_xxs"),
        (19, "iq1_s"),
        (20, "iq4_nl"),
        (21, "iq3_s"),
        (22, "iq2_s"),
        (23, "iq4_xs"),
        (29, "iq1_m"),
        (34, "tq1_0"),
        (35, "tq2_0"),
        (39, "mxfp4"),
    ];
    let other = || OTHERS.iter().find(|(k, _)| *k == kind).map(|(_, n)| *n);
    match dtype_of(kind).map(DType::name).or_else(other) {
        Some(name) => format!("{kind} ({name})"),
        None => format!("{kind} (unknown)"),
    }
}

/// Checks magic number and version; gives the counts of tensors and pairs.
fn header(reader: &mut Reader) -> Result<(u64, u64), Diagnostic> {
    if reader.take(4, "the magic number")? != MAGIC {
        return Err(reader.error("expected a GGUF file, which starts with `GGUF`"));
    }
    let version = reader.u32("the version")?;
    if version != 2 && version != 3 {
        let swapped = if version.swap_bytes() <= 3 { " (a big-endian file)" } else { "" };
        return Err(reader.error(format!("expected GGUF version 2 or 3, found {version}{swapped}")));
    }
    let tensors = reader.u64("the number of tensors")?;
    let pairs = reader.u64("the number of metadata pairs")?;
    // The least that each takes: a length, a rank, a type and an offset; a length, a type and one byte.
    reader.must_hold(tensors, 24, "tensors")?;
    reader.must_hold(pairs, 13, "metadata pairs")?;
    Ok((tensors, pairs))
}

fn pairs(reader: &mut Reader, count: u64) -> Result<BTreeMap<String, Value>, Diagnostic> {
    let mut metadata = BTreeMap::new();
    for i in 0..count {
        let key = reader.string(&format!("the key of metadata pair {i}"))?;
        let value = value::read(reader, &key)?;
        if metadata.contains_key(&key) {
            return Err(reader.error(format!("the metadata key {} occurs twice", shown(&key))));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// `general.alignment`, 32 if absent.
fn alignment(metadata: &BTreeMap<String, Value>, file: &str) -> Result<usize, Diagnostic> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(32) };
    value.as_u64().filter(|a| a.is_power_of_two() && *a <= 1 << 20).map(|a| a as usize).ok_or_else(|| {
        let found = value.brief();
        in_file("gguf", format!("`general.alignment` must be a power of two up to 2^20, found {found}"), file)
    })
}

/// Reads names, shapes, types; `start` is still relative to the data.
fn tensor_infos(reader: &mut Reader, count: u64) -> Result<BTreeMap<String, TensorInfo>, Diagnostic> {
    let mut tensors = BTreeMap::new();
    for i in 0..count {
        let name = reader.string(&format!("the name of tensor {i}"))?;
        let rank = reader.u32("the number of dims of a tensor")?;
        let fail = |message: String| tensor_error("gguf", message, reader.file(), &name);
        if rank > MAX_RANK {
            return Err(fail(format!("expected at most {MAX_RANK} dims, found {rank}")));
        }
        let mut shape = Vec::with_capacity(rank as usize);
        for _ in 0..rank {
            let dim = reader.u64("a dim of a tensor")?;
            let fail = |message: String| tensor_error("gguf", message, reader.file(), &name);
            let dim = usize::try_from(dim).ok().filter(|d| *d <= isize::MAX as usize);
            shape.push(dim.ok_or_else(|| fail("a dim is larger than any memory".into()))?);
        }
        shape.reverse();
        let kind = reader.u32("the type of a tensor")?;
        let offset = reader.u64("the offset of a tensor")?;
        let fail = |message: String| tensor_error("gguf", message, reader.file(), &name);
        let start = usize::try_from(offset).map_err(|_| fail("the offset is larger than any memory".into()))?;
        if tensors.contains_key(&name) {
            return Err(fail("the tensor occurs twice".into()));
        }
        tensors.insert(name, TensorInfo { shape, kind, start });
    }
    Ok(tensors)
}

/// Makes offsets absolute, and checks alignment, bounds and overlaps. Tensors of unsupported types have no known size:
/// only their start is checked.
fn place_tensors(
    tensors: &mut BTreeMap<String, TensorInfo>,
    data: usize,
    alignment: usize,
    file_len: usize,
    file: &str,
) -> Result<(), Diagnostic> {
    let mut ranges = Vec::with_capacity(tensors.len());
    for (name, info) in tensors.iter_mut() {
        let fail = |message: String| tensor_error("gguf", message, file, name);
        if info.start % alignment != 0 {
            return Err(fail(format!("the offset {} is not a multiple of the alignment {alignment}", info.start)));
        }
        let elements = element_count(&info.shape);
        let elements = elements.ok_or_else(|| fail(format!("the number of elements of {:?} overflows", info.shape)))?;
        let size = match dtype_of(info.kind) {
            None => 0,
            Some(dtype) => {
                let whole = info.shape.last().is_none_or(|d| d % dtype.block().0 == 0);
                dtype.bytes(elements).filter(|_| whole).ok_or_else(|| {
                    fail(format!("{dtype}{:?} does not fill whole blocks, or its size overflows", info.shape))
                })?
            }
        };
        let start = data.checked_add(info.start);
        let end = start.and_then(|s| s.checked_add(size)).filter(|e| *e <= file_len);
        let (Some(start), Some(end)) = (start, end) else {
            let offset = info.start;
            let message =
                format!("its {size} bytes at offset {offset} of the data lie outside the file of {file_len} bytes");
            return Err(fail(message));
        };
        info.start = start;
        ranges.push((start, end, name.as_str()));
    }
    ranges.sort_unstable();
    // A tensor without elements takes no bytes and overlaps nothing.
    let mut before: Option<(usize, &str)> = None;
    for (start, end, name) in ranges.into_iter().filter(|(start, end, _)| start < end) {
        if let Some((_, other)) = before.filter(|(reached, _)| start < *reached) {
            return Err(tensor_error("gguf", format!("its bytes overlap those of {}", shown(other)), file, name));
        }
        before = Some((end, name));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
