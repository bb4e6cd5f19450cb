//! Metadata values: reading, typed access.

use super::super::{in_file, shown};
use super::Gguf;
use super::reader::Reader;
use tilewright_ir::diag::{Diagnostic, Place};

/// Arrays within arrays within arrays, ...: none that we know of goes beyond 1.
const MAX_DEPTH: usize = 8;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Vec<Value>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U8(x) => Some((*x).into()),
            Value::U16(x) => Some((*x).into()),
            Value::U32(x) => Some((*x).into()),
            Value::U64(x) => Some(*x),
            Value::I8(x) => u64::try_from(*x).ok(),
            Value::I16(x) => u64::try_from(*x).ok(),
            Value::I32(x) => u64::try_from(*x).ok(),
            Value::I64(x) => u64::try_from(*x).ok(),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    /// A float of either width.
    pub fn as_f64(&self) -> Option<f64> {
        if let Value::F32(x) = self {
            Some((*x).into())
        } else if let Value::F64(x) = self {
            Some(*x)
        } else {
            None
        }
    }

    /// A string.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(s) = self { Some(s) } else { None }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Value::Array(items) = self { Some(items) } else { None }
    }

    /// Type and value on one line, for errors; long ones are cut.
    pub fn brief(&self) -> String {
        match self {
            Value::U8(x) => format!("u8 {x}"),
            Value::I8(x) => format!("i8 {x}"),
            Value::U16(x) => format!("u16 {x}"),
            Value::I16(x) => format!("i16 {x}"),
            Value::U32(x) => format!("u32 {x}"),
            Value::I32(x) => format!("i32 {x}"),
            Value::F32(x) => format!("f32 {x}"),
            Value::Bool(x) => format!("bool {x}"),
            Value::String(s) => format!("string {}", shown(s)),
            Value::Array(items) => format!("array of {} values", items.len()),
            Value::U64(x) => format!("u64 {x}"),
            Value::I64(x) => format!("i64 {x}"),
            Value::F64(x) => format!("f64 {x}"),
        }
    }
}

/// Type and value of the pair `key`.
pub(super) fn read(reader: &mut Reader, key: &str) -> Result<Value, Diagnostic> {
    let what = format!("the value of {}", shown(key));
    let kind = reader.u32(&what)?;
    reader.spend(1)?;
    read_kind(reader, kind, &what, 0)
}

/// Bytes that a value of type `kind` takes at least; `None` for an unknown type.
fn least_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        8 | 10..=12 => Some(8),
        9 => Some(12),
        _ => None,
    }
}

fn read_kind(reader: &mut Reader, kind: u32, what: &str, depth: usize) -> Result<Value, Diagnostic> {
    Ok(match kind {
        0 => Value::U8(u8::from_le_bytes(reader.array(what)?)),
        1 => Value::I8(i8::from_le_bytes(reader.array(what)?)),
        2 => Value::U16(u16::from_le_bytes(reader.array(what)?)),
        3 => Value::I16(i16::from_le_bytes(reader.array(what)?)),
        4 => Value::U32(u32::from_le_bytes(reader.array(what)?)),
        5 => Value::I32(i32::from_le_bytes(reader.array(what)?)),
        6 => Value::F32(f32::from_le_bytes(reader.array(what)?)),
        7 => match reader.array(what)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [x] => return Err(reader.error(format!("{what} is a bool, expected 0 or 1, found {x}"))),
        },
        8 => Value::String(reader.string(what)?),
        9 => return array(reader, what, depth),
        10 => Value::U64(u64::from_le_bytes(reader.array(what)?)),
        11 => Value::I64(i64::from_le_bytes(reader.array(what)?)),
        12 => Value::F64(f64::from_le_bytes(reader.array(what)?)),
        _ => return Err(reader.error(format!("{what} has the type {kind}, expected a type from 0 to 12"))),
    })
}

fn array(reader: &mut Reader, what: &str, depth: usize) -> Result<Value, Diagnostic> {
    if depth >= MAX_DEPTH {
        return Err(reader.error(format!("{what} nests arrays more than {MAX_DEPTH} deep")));
    }
    let kind = reader.u32(what)?;
    let count = reader.u64(what)?;
    let size = least_size(kind)
        .ok_or_else(|| reader.error(format!("{what} is an array of type {kind}, expected a type from 0 to 12")))?;
    reader.must_hold(count, size, format_args!("items of {what}"))?;
    reader.spend(count)?;
    let mut items = Vec::with_capacity(count as usize);
    for _ in 0..count {
        items.push(read_kind(reader, kind, what, depth + 1)?);
    }
    Ok(Value::Array(items))
}

/// Typed access. Every error has the code `gguf-metadata` and names the key, what was expected and what is there.
impl Gguf {
    /// An integer that is not negative, of any width.
    pub fn u64(&self, key: &str) -> Result<u64, Diagnostic> {
        self.typed(key, "an integer that is not negative", Value::as_u64)
    }

    /// Like [`Gguf::u64`], for sizes and counts.
    pub fn usize(&self, key: &str) -> Result<usize, Diagnostic> {
        self.typed(key, "an integer that is not negative", |v| v.as_u64().and_then(|x| usize::try_from(x).ok()))
    }

    /// A float of either width.
    pub fn f64(&self, key: &str) -> Result<f64, Diagnostic> {
        self.typed(key, "a float", Value::as_f64)
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<bool, Diagnostic> {
        self.typed(key, "a bool", Value::as_bool)
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str, Diagnostic> {
        self.typed(key, "a string", Value::as_str)
    }

    /// An array.
    pub fn array(&self, key: &str) -> Result<&[Value], Diagnostic> {
        self.typed(key, "an array", Value::as_array)
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Vec<&str>, Diagnostic> {
        self.typed(key, "an array of strings", |v| v.as_array()?.iter().map(Value::as_str).collect())
    }

    /// An array of integers that are not negative.
    pub fn u64s(&self, key: &str) -> Result<Vec<u64>, Diagnostic> {
        self.typed(key, "an array of integers that are not negative", |v| {
            v.as_array()?.iter().map(Value::as_u64).collect()
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        get: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Diagnostic> {
        let fail = |found: String| {
            in_file("gguf-metadata", format!("expected {expected}, found {found}"), &self.file)
                .at(Place::Named(shown(key).into()), "the metadata key")
        };
        let value = self.metadata.get(key).ok_or_else(|| fail("no such key".into()))?;
        get(value).ok_or_else(|| fail(value.brief()))
    }
}
