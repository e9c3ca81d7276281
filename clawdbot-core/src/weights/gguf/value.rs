//! Metadata: keys with typed values, and arrays of them.

use std::collections::BTreeMap;

use super::cursor::{Cursor, not_utf8};
use crate::error::{Error, Result};
use crate::weights::quoted;

/// Longest key, as the format has it.
pub(super) const MAX_KEY_BYTES: usize = (1 << 16) - 1;
/// Longest string: no chat template or license comes near.
const MAX_STRING_BYTES: usize = 64 << 20;
/// Arrays in arrays in arrays: deeper nesting means nothing to anybody.
const MAX_DEPTH: usize = 4;
/// Arrays that are elements of arrays, in one value.
const MAX_NESTED: usize = 1 << 16;

macro_rules! value_types {
    ($($variant:ident = $id:literal, $name:literal, $bytes:literal;)+) => {
        /// Type of a value.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ValueType { $($variant,)+ }

        impl ValueType {
            fn from_id(id: u32) -> Result<Self> {
                match id {
                    $($id => Ok(ValueType::$variant),)+
                    _ => Err(Error::invalid_model(format!("expected a value type from 0 to 12, found {id}"))),
                }
            }
            fn name(self) -> &'static str {
                match self { $(ValueType::$variant => $name,)+ }
            }
            /// Fewest bytes of a value: the length of strings, type and length of arrays.
            fn bytes(self) -> usize {
                match self { $(ValueType::$variant => $bytes,)+ }
            }
        }
    };
}

value_types! {
    U8 = 0, "u8", 1;
    I8 = 1, "i8", 1;
    U16 = 2, "u16", 2;
    I16 = 3, "i16", 2;
    U32 = 4, "u32", 4;
    I32 = 5, "i32", 4;
    F32 = 6, "f32", 4;
    Bool = 7, "bool", 1;
    String = 8, "string", 8;
    Array = 9, "array", 12;
    U64 = 10, "u64", 8;
    I64 = 11, "i64", 8;
    F64 = 12, "f64", 8;
}

/// A value. Integers and floats are widened, which loses nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// Elements of one type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    element: ValueType,
    len: usize,
    /// The elements as they are in the file; strings are UTF-8 and bools 0 or 1. Empty of arrays.
    bytes: Vec<u8>,
    /// Of arrays, the elements.
    arrays: Vec<Array>,
}

impl Value {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        let kind = ValueType::from_id(cursor.u32()?)?;
        match kind {
            ValueType::String => cursor.string(MAX_STRING_BYTES).map(Value::String),
            ValueType::Array => Array::read(cursor, 1, &mut 0).map(Value::Array),
            _ => {
                let mut bytes = [0; 8];
                for byte in &mut bytes[..kind.bytes()] {
                    [*byte] = cursor.array()?;
                }
                scalar(kind, &bytes)
            }
        }
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Unsigned(number) => number.to_string(),
            Value::Signed(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::String(text) => quoted(text),
            Value::Array(array) => format!("an array of {} x {}", array.len, array.element.name()),
        }
    }

    /// An integer that is not negative.
    pub(crate) fn unsigned(&self) -> Option<u64> {
        match *self {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }
}

/// A value of fixed size in the first of `bytes`.
fn scalar(kind: ValueType, bytes: &[u8; 8]) -> Result<Value> {
    let [a, b, c, d, ..] = *bytes;
    Ok(match kind {
        ValueType::U8 => Value::Unsigned(a.into()),
        ValueType::I8 => Value::Signed((a as i8).into()),
        ValueType::U16 => Value::Unsigned(u16::from_le_bytes([a, b]).into()),
        ValueType::I16 => Value::Signed(i16::from_le_bytes([a, b]).into()),
        ValueType::U32 => Value::Unsigned(u32::from_le_bytes([a, b, c, d]).into()),
        ValueType::I32 => Value::Signed(i32::from_le_bytes([a, b, c, d]).into()),
        ValueType::F32 => Value::Float(f32::from_le_bytes([a, b, c, d]).into()),
        ValueType::U64 => Value::Unsigned(u64::from_le_bytes(*bytes)),
        ValueType::I64 => Value::Signed(i64::from_le_bytes(*bytes)),
        ValueType::F64 => Value::Float(f64::from_le_bytes(*bytes)),
        ValueType::Bool if a < 2 => Value::Bool(a == 1),
        ValueType::Bool => {
            return Err(Error::invalid_model(format!("expected a bool, 0 or 1, found {a}")));
        }
        ValueType::String | ValueType::Array => {
            return Err(Error::internal("strings and arrays have no fixed size"));
        }
    })
}

impl Array {
    /// `depth`: arrays around its elements, itself included. `nested` counts the arrays inside of one value.
    fn read(cursor: &mut Cursor<'_>, depth: usize, nested: &mut usize) -> Result<Self> {
        let element = ValueType::from_id(cursor.u32()?)?;
        let len = cursor.u64()?;
        let len =
            cursor.check_count(len, element.bytes(), &format!("elements of type {}", element.name()))?;
        let mut array = Array { element, len, bytes: Vec::new(), arrays: Vec::new() };
        match element {
            ValueType::Array => {
                if depth == MAX_DEPTH {
                    let message = format!("expected arrays nested at most {MAX_DEPTH} deep, found more");
                    return Err(Error::invalid_model(message));
                }
                for _ in 0..len {
                    *nested += 1;
                    if *nested > MAX_NESTED {
                        let message = format!("expected at most {MAX_NESTED} arrays in an array, found more");
                        return Err(Error::invalid_model(message));
                    }
                    array.arrays.push(Array::read(cursor, depth + 1, nested)?);
                }
            }
            ValueType::String => {
                for _ in 0..len {
                    let len = cursor.string_len(MAX_STRING_BYTES)?;
                    array.bytes.extend_from_slice(&(len as u64).to_le_bytes());
                    let start = array.bytes.len();
                    cursor.append(len, &mut array.bytes)?;
                    std::str::from_utf8(&array.bytes[start..]).map_err(not_utf8)?;
                }
            }
            // No overflow: as many bytes remain.
            _ => cursor.append(len * element.bytes(), &mut array.bytes)?,
        }
        if element == ValueType::Bool
            && let Some(other) = array.bytes.iter().find(|&&byte| byte > 1)
        {
            return Err(Error::invalid_model(format!("expected bools, 0 or 1, found {other}")));
        }
        Ok(array)
    }

    /// Elements.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The strings, if that is what it has.
    pub(crate) fn strings(&self) -> Option<impl Iterator<Item = &str>> {
        let mut rest = self.bytes.as_slice();
        (self.element == ValueType::String).then(|| {
            std::iter::from_fn(move || {
                let (len, tail) = rest.split_first_chunk::<8>()?;
                // Lengths and UTF-8 were checked when it was read.
                let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*len) as usize)?;
                rest = tail;
                std::str::from_utf8(text).ok()
            })
        })
    }

    /// The numbers or bools, one after another; `None` of strings and arrays.
    pub(crate) fn scalars(&self) -> Option<impl Iterator<Item = Value>> {
        let size = self.element.bytes();
        let fixed = !matches!(self.element, ValueType::String | ValueType::Array);
        fixed.then(|| {
            self.bytes.chunks_exact(size).filter_map(move |chunk| {
                let mut bytes = [0; 8];
                bytes[..size].copy_from_slice(chunk);
                scalar(self.element, &bytes).ok()
            })
        })
    }
}

/// All pairs of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Metadata {
    /// Path, for messages.
    pub(super) file: String,
    pub(super) map: BTreeMap<String, Value>,
}

impl Metadata {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// The keys, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// Path of the file, for messages.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// `InvalidModel` naming the file, `key`, what was expected and what is there.
    pub(crate) fn invalid(&self, key: &str, expected: &str) -> Error {
        self.describe(Error::invalid_model, key, expected)
    }

    /// As [`invalid`](Self::invalid), of kind `UnsupportedModel`.
    pub(crate) fn unsupported(&self, key: &str, expected: &str) -> Error {
        self.describe(Error::unsupported_model, key, expected)
    }

    fn describe(&self, kind: fn(String) -> Error, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), Value::describe);
        kind(format!("{}: {}: expected {expected}, found {found}", self.file, quoted(key)))
            .with("file", self.file.clone())
            .with("key", key)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => take(value).map(Some).ok_or_else(|| self.invalid(key, expected)),
        }
    }

    /// An integer that is not negative, of any width.
    pub(crate) fn opt_u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an integer >= 0", Value::unsigned)
    }

    /// As [`opt_u64`](Self::opt_u64), of a key that must be there.
    pub(crate) fn u64(&self, key: &str) -> Result<u64> {
        self.opt_u64(key)?.ok_or_else(|| self.invalid(key, "an integer >= 0"))
    }

    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |value| match *value {
            Value::Float(number) if number.is_finite() => Some(number),
            _ => None,
        })
    }

    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "a bool", |value| match *value {
            Value::Bool(value) => Some(value),
            _ => None,
        })
    }

    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// As [`opt_str`](Self::opt_str), of a key that must be there.
    pub(crate) fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| self.invalid(key, "a string"))
    }

    pub(crate) fn opt_array(&self, key: &str) -> Result<Option<&Array>> {
        self.typed(key, "an array", |value| match value {
            Value::Array(array) => Some(array),
            _ => None,
        })
    }
}
