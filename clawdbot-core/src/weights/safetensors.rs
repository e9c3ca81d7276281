//! Reader of the safetensors header. The file is untrusted: nothing is believed that was not checked against its length.
//!
//! Layout: `u64` header length (little-endian) | JSON header | tensor data.
//! The header maps names to `{dtype, shape, data_offsets: [begin, end]}` (bytes from the start of the tensor data),
//! and `__metadata__` to strings. The ranges must tile the data without hole or overlap.
//! Source: <https://huggingface.co/docs/safetensors/index#format>. Tensor data need not be aligned.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::dtype::{Dtype, dtype_named};
use crate::error::{Error, Result};

/// Longest header in bytes, as in the reference implementation.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most dimensions of a tensor, and so the longest list in a header.
pub(crate) const MAX_RANK: usize = 16;
/// Most keys of a JSON object: tensors of a file or an index, strings of the metadata.
pub(super) const MAX_KEYS: usize = 1 << 20;
/// Bytes of the length field in front of the header.
pub(crate) const PREFIX_BYTES: usize = 8;
/// Key of the free-form strings.
const METADATA: &str = "__metadata__";

/// A checked header: every range lies in the file and has the size that its shape and dtype say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    /// In the order of their data.
    pub(crate) tensors: Vec<Entry>,
    /// `__metadata__`; empty if absent.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// Outermost dimension first, in elements; empty for a scalar.
    pub(crate) shape: Vec<usize>,
    /// Bytes of the file, counted from its start.
    pub(crate) range: Range<usize>,
}

impl Header {
    /// Reads and checks the header of a file of `file_len` bytes, called `file` in messages. `start` is its beginning: all
    /// of the header, or, where the header claims to be longer than the file or than any is, at least its length.
    ///
    /// # Errors
    /// `InvalidModel` naming file, tensor, expected and found; `UnsupportedModel` for an unknown dtype.
    pub(crate) fn parse(start: &[u8], file_len: usize, file: &str) -> Result<Header> {
        Self::read(start, file_len).map_err(|error| error.context(file).with("file", file))
    }

    fn read(start: &[u8], file_len: usize) -> Result<Header> {
        let Some((prefix, rest)) = start.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(Error::invalid_model(format!(
                "expected at least {PREFIX_BYTES} bytes, the length of the safetensors header; found {file_len}"
            )));
        };
        let length = u64::from_le_bytes(*prefix);
        if length > MAX_HEADER_BYTES {
            return Err(Error::invalid_model(format!(
                "expected a header of at most {MAX_HEADER_BYTES} bytes, found a length of {length}; \
                 is this a safetensors file?"
            )));
        }
        // Fits: checked against `MAX_HEADER_BYTES` above.
        let Some(json) = rest.get(..length as usize) else {
            return Err(Error::invalid_model(format!(
                "the header claims {length} bytes, found {} after the length; the file is truncated",
                file_len - PREFIX_BYTES
            )));
        };
        let data_start = PREFIX_BYTES + json.len();
        let mut header = parse_json(json, data_start, file_len - data_start)?;
        header.tensors.sort_by_key(|entry| (entry.range.start, entry.range.end));
        header.check_tiling(data_start, file_len)?;
        Ok(header)
    }

    /// The ranges, sorted, must cover the data exactly.
    fn check_tiling(&self, data_start: usize, file_end: usize) -> Result<()> {
        let mut end = data_start;
        for entry in &self.tensors {
            if entry.range.start != end {
                let what =
                    if entry.range.start < end { "overlaps the tensor before it" } else { "leaves a hole" };
                return Err(Error::invalid_model(format!(
                    "tensor {} {what}: expected its data to begin at byte {}, found {}",
                    quoted(&entry.name),
                    end - data_start,
                    entry.range.start - data_start
                )));
            }
            end = entry.range.end;
        }
        if end != file_end {
            return Err(Error::invalid_model(format!(
                "expected {} bytes of tensor data, found {}: {} bytes belong to no tensor",
                end - data_start,
                file_end - data_start,
                file_end - end
            )));
        }
        Ok(())
    }
}

impl Entry {
    /// Checks one tensor's fields against the `data_len` bytes of data, which begin at byte `data_start` of the file.
    fn new(name: String, fields: Object<Field>, data_start: usize, data_len: usize) -> Result<Self> {
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        for (key, field) in fields.0 {
            match (key.as_str(), field) {
                ("dtype", Field::Text(text)) => dtype = Some(text),
                ("shape", Field::Numbers(numbers)) => shape = Some(numbers),
                ("data_offsets", Field::Numbers(numbers)) => offsets = Some(numbers),
                ("dtype" | "shape" | "data_offsets", field) => {
                    let expected = if key == "dtype" { "a string" } else { "a list of integers" };
                    let message = format!("{key}: expected {expected}, found {}", field.kind());
                    return Err(Error::invalid_model(message));
                }
                _ => {
                    return Err(Error::invalid_model(format!(
                        "expected the fields dtype, shape and data_offsets, found {}",
                        quoted(&key)
                    )));
                }
            }
        }
        let missing = |field: &str| Error::invalid_model(format!("the field {field} is missing"));
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let offsets = offsets.ok_or_else(|| missing("data_offsets"))?;

        let dtype = dtype_named(&dtype).map_err(|known| {
            let (known, found) = (known.join(", "), quoted(&dtype));
            Error::unsupported_model(format!("dtype: expected one of {known}, found {found}"))
        })?;
        let (shape, size) = checked_size(&shape, dtype)?;
        let [begin, end] = offsets.as_slice() else {
            return Err(Error::invalid_model(format!(
                "data_offsets: expected two integers, found {}",
                offsets.len()
            )));
        };
        if begin > end {
            return Err(Error::invalid_model(format!("data_offsets: begin {begin} comes after end {end}")));
        }
        if *end > data_len as u64 {
            return Err(Error::invalid_model(format!(
                "data_offsets: expected an end within the {data_len} bytes of data, found {end}; \
                 the file may be truncated"
            )));
        }
        if end - begin != size {
            return Err(Error::invalid_model(format!(
                "data_offsets: expected {size} bytes for {dtype} {shape:?}, found {}",
                end - begin
            )));
        }
        // Both fit: they are at most the length of the data, which lies in the file after `data_start`.
        let range = data_start + *begin as usize..data_start + *end as usize;
        Ok(Entry { name, dtype, shape, range })
    }
}

/// The shape in `usize`, and the size of the tensor in bytes.
fn checked_size(shape: &[u64], dtype: Dtype) -> Result<(Vec<usize>, u64)> {
    let overflow = || Error::invalid_model(format!("shape: the size of {dtype} {shape:?} overflows"));
    // A zero does not excuse absurd other dimensions: the product without it must fit as well.
    let mut product = 1_u64;
    for &dim in shape {
        product = product.checked_mul(dim.max(1)).ok_or_else(overflow)?;
    }
    let bits = product.checked_mul(dtype.bitsize() as u64).ok_or_else(overflow)?;
    let bits = if shape.contains(&0) { 0 } else { bits };
    if bits % 8 != 0 {
        let message = format!("shape: {dtype} {shape:?} does not fill whole bytes");
        return Err(Error::invalid_model(message));
    }
    let dims: Option<Vec<usize>> = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    Ok((dims.ok_or_else(overflow)?, bits / 8))
}

fn metadata(fields: Object<Field>) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (key, field) in fields.0 {
        let Field::Text(text) = field else {
            let message = format!("{METADATA}: expected a string for {}, found a list", quoted(&key));
            return Err(Error::invalid_model(message));
        };
        map.insert(key, text);
    }
    Ok(map)
}

fn parse_json(json: &[u8], data_start: usize, data_len: usize) -> Result<Header> {
    let text = std::str::from_utf8(json).map_err(|error| {
        Error::invalid_model(format!("the header is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    if !text.starts_with('{') {
        let found = text.chars().next().map_or_else(|| "nothing".to_owned(), |c| format!("{c:?}"));
        return Err(Error::invalid_model(format!("the header must begin with '{{', found {found}")));
    }
    let mut failure = None;
    let visitor = HeaderVisitor { data_start, data_len, failure: &mut failure };
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = json.deserialize_map(visitor).and_then(|header| json.end().map(|()| header));
    parsed.map_err(|error| {
        failure.unwrap_or_else(|| Error::invalid_model(format!("the header is malformed: {error}")))
    })
}

/// Checks each tensor as soon as it is parsed, so that a hostile header is not first turned into many small objects.
struct HeaderVisitor<'a> {
    data_start: usize,
    data_len: usize,
    /// Why visiting ended early, if not for the JSON's sake.
    failure: &'a mut Option<Error>,
}

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let mut header = Header { tensors: Vec::new(), metadata: BTreeMap::new() };
        let mut described = false;
        while let Some(name) = map.next_key::<String>()? {
            if header.tensors.len() == MAX_KEYS {
                return Err(A::Error::custom(format_args!(
                    "expected at most {MAX_KEYS} tensors, found more"
                )));
            }
            if name == METADATA && std::mem::replace(&mut described, true) {
                return Err(twice(METADATA));
            }
            let fields = map.next_value::<Object<Field>>()?;
            let added = if name == METADATA {
                metadata(fields).map(|metadata| header.metadata = metadata)
            } else {
                let what = format!("tensor {}", quoted(&name));
                let entry = Entry::new(name, fields, self.data_start, self.data_len);
                entry.map(|entry| header.tensors.push(entry)).map_err(|error| error.context(what))
            };
            if let Err(error) = added {
                *self.failure = Some(error);
                return Err(A::Error::custom("see `failure`"));
            }
        }
        // Sorted rather than kept in a set, which would hold every name a second time.
        let mut names: Vec<&str> = header.tensors.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(twice(pair[0])),
            None => Ok(header),
        }
    }
}

/// Refuses a key that is in `keys` already, and more keys than a file may have.
fn check_key<E: serde::de::Error>(keys: &mut HashSet<String>, key: &str) -> std::result::Result<(), E> {
    if keys.len() == MAX_KEYS {
        return Err(E::custom(format_args!("expected at most {MAX_KEYS} keys, found more")));
    }
    if !keys.insert(key.to_owned()) {
        return Err(twice(key));
    }
    Ok(())
}

fn twice<E: serde::de::Error>(key: &str) -> E {
    E::custom(format_args!("the key {} occurs twice", quoted(key)))
}

/// A name in quotes, escaped, and cut where it is too long for a message.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// A JSON object in file order whose keys are unique (serde_json would keep the last of several).
struct Object<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Object<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Object<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Object<V>, A::Error> {
                let mut entries = Vec::new();
                let mut keys = HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    check_key(&mut keys, &key)?;
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// What an inner object of the header may hold.
enum Field {
    Text(String),
    Numbers(Vec<u64>),
}

impl Field {
    fn kind(&self) -> &'static str {
        match self {
            Field::Text(_) => "a string",
            Field::Numbers(_) => "a list",
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of non-negative integers")
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Field, E> {
                Ok(Field::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Field, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element::<u64>()? {
                    if numbers.len() == MAX_RANK {
                        return Err(A::Error::custom(format_args!("more than {MAX_RANK} numbers in a list")));
                    }
                    numbers.push(number);
                }
                Ok(Field::Numbers(numbers))
            }
        }
        deserializer.deserialize_any(FieldVisitor)
    }
}
