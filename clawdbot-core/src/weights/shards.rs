//! A model's tensors, from one file, from shards with an index, or from the program itself.

use std::collections::{BTreeMap, HashSet, btree_map};
use std::path::Path;
#[cfg(feature = "candle")]
use std::sync::Arc;

use super::file::{DataFile, is_there, resize};
use super::index::{INDEX_FILE, Index, SINGLE_FILE, read_index};
use super::matrix::{Int8Scales, InvalidScale, MatrixFormat, MatrixView, TensorView, shape_text};
use super::missing::{no_tensor, no_weights};
use super::names::text_name;
use super::safetensors::{Header, quoted};
use super::{Dtype, FloatType};
#[cfg(feature = "candle")]
use super::{Entry, HandedIn};
use crate::error::{Error, ErrorKind, Result};

/// Most shards of a model.
const MAX_SHARDS: usize = 10_000;
/// Value of `format` in the metadata of files with int8 tensors.
const INT8_FORMAT: &str = "clawdbot-int8";
/// How a tensor's scales are named: its own name with this after it.
pub(crate) const SCALES_SUFFIX: &str = ".scales";

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;

/// Where the tensors of a model are. Immutable; views borrow from it.
#[derive(Debug)]
pub(crate) struct WeightSource {
    /// Directory or name, for messages.
    name: String,
    files: Vec<WeightFile>,
    /// Tensor name, as a text model alone has it -> where it is.
    index: BTreeMap<String, Place>,
    /// Warnings about the files, for whoever loads the model.
    notes: Vec<String>,
}

/// Where a tensor is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Number of the file.
    file: usize,
    /// Number of the tensor in the header of the file.
    entry: usize,
}

#[derive(Debug)]
struct WeightFile {
    data: DataFile,
    header: Header,
}

impl WeightFile {
    fn new(data: DataFile) -> Result<Self> {
        Ok(WeightFile { header: data.header()?, data })
    }

    fn open(dir: &Path, name: &str) -> Result<Self> {
        Self::new(DataFile::open(&dir.join(name))?)
    }
}

impl WeightSource {
    /// Opens the weights in a model directory: `model.safetensors`, or the shards of
    /// `model.safetensors.index.json`. Where there are both, transformers takes the single file, whatever the index says; so
    /// it is here, unless it lacks tensors that the index names: then it is a leftover, and the shards are taken.
    ///
    /// # Errors
    /// `NotFound` if neither is there, `Io` if a file cannot be read, `InvalidModel` if one is malformed,
    /// `UnsupportedModel` for unknown dtypes.
    pub(crate) fn open_dir(dir: &Path) -> Result<WeightSource> {
        let name = dir.display().to_string();
        let index_path = dir.join(INDEX_FILE);
        match (is_there(&dir.join(SINGLE_FILE)), is_there(&index_path)) {
            (false, false) => Err(no_weights(dir)),
            (false, true) => Self::open_shards(dir, &read_index(&index_path)?),
            (true, false) => Self::new(name, vec![WeightFile::open(dir, SINGLE_FILE)?], None),
            (true, true) => {
                let file = WeightFile::open(dir, SINGLE_FILE)?;
                // A leftover may be the index as well.
                let index = read_index(&index_path).unwrap_or_default();
                let in_file: HashSet<&str> =
                    file.header.tensors.iter().map(|entry| entry.name.as_str()).collect();
                if let Some(lacking) = index.tensors.keys().find(|name| !in_file.contains(name.as_str())) {
                    let lacking = quoted(lacking);
                    let mut shards = Self::open_shards(dir, &index)?;
                    shards.notes.push(format!(
                        "{name}: {SINGLE_FILE} is not used, as it lacks {lacking}, which {INDEX_FILE} names"
                    ));
                    return Ok(shards);
                }
                drop(in_file);
                let mut source = Self::new(name, vec![file], None)?;
                let name = &source.name;
                source.notes.push(format!("{name}: {INDEX_FILE} is not used, as there is {SINGLE_FILE}"));
                Ok(source)
            }
        }
    }

    fn open_shards(dir: &Path, index: &Index) -> Result<WeightSource> {
        let index_name = dir.join(INDEX_FILE).display().to_string();
        let found = index.shards.len();
        if found == 0 || found > MAX_SHARDS {
            let message = format!("{index_name}: expected between 1 and {MAX_SHARDS} shards, found {found}");
            return Err(Error::invalid_model(message));
        }
        let files: Result<Vec<WeightFile>> =
            index.shards.iter().map(|shard| WeightFile::open(dir, shard)).collect();
        let files = files.map_err(|error| error.context(&index_name))?;
        Self::new(dir.display().to_string(), files, Some(index)).map_err(|error| error.context(&index_name))
    }

    /// Opens the file `name` in a directory.
    ///
    /// # Errors
    /// As [`WeightSource::open_dir`].
    pub(crate) fn open_file(dir: &Path, name: &str) -> Result<WeightSource> {
        Self::new(dir.display().to_string(), vec![WeightFile::open(dir, name)?], None)
    }

    /// The weights in `bytes`, a safetensors file that is part of the program.
    ///
    /// # Errors
    /// As [`WeightSource::open_dir`].
    pub(crate) fn from_static(bytes: &'static [u8], name: &str) -> Result<WeightSource> {
        Self::from_file(DataFile::from_memory(bytes, name))
    }

    /// The weights in a safetensors file.
    ///
    /// # Errors
    /// As [`WeightSource::open_dir`].
    pub(crate) fn from_file(file: DataFile) -> Result<WeightSource> {
        let name = file.name().to_owned();
        Self::new(name, vec![WeightFile::new(file)?], None)
    }

    /// Tensors that the program hands in: `tensors`, one after another, are the bytes of `bytes`.
    ///
    /// # Errors
    /// As [`WeightSource::open_dir`].
    #[cfg(feature = "candle")]
    pub(crate) fn from_program(name: &str, tensors: Vec<Entry>, bytes: Arc<dyn HandedIn>) -> Result<Self> {
        let len = tensors.last().map_or(0, |tensor| tensor.range.end);
        let header = Header { tensors, metadata: BTreeMap::new() };
        let file = WeightFile { data: DataFile::from_program(bytes, len, name), header };
        Self::new(name.to_owned(), vec![file], None)
    }

    /// `assigned`: what the index says, whose shards `files` are. It chooses where several files have a tensor; beyond that,
    /// as in transformers, it counts what the files have.
    fn new(name: String, files: Vec<WeightFile>, assigned: Option<&Index>) -> Result<Self> {
        let mut source = WeightSource { name, files, index: BTreeMap::new(), notes: Vec::new() };
        let expected = |name: &str| assigned.and_then(|assigned| assigned.tensors.get(name)).copied();
        // First those that are where they should be: the same ones elsewhere are leftovers.
        let mut elsewhere = Vec::new();
        for (file, WeightFile { header, .. }) in source.files.iter().enumerate() {
            for (entry, tensor) in header.tensors.iter().enumerate() {
                let place = Place { file, entry };
                if expected(&tensor.name).is_some_and(|expected| expected != file) {
                    elsewhere.push(place);
                } else if let Some(other) = source.index.insert(text_name(&tensor.name), place) {
                    return Err(source.twice(&tensor.name, other.file, file));
                }
            }
        }
        let mut moved: BTreeMap<&str, usize> = BTreeMap::new();
        for place in elsewhere {
            let tensor = source.files[place.file].header.tensors[place.entry].name.as_str();
            if let Some(&other) = moved.get(tensor) {
                return Err(source.twice(tensor, other, place.file));
            }
            if let btree_map::Entry::Vacant(vacant) = source.index.entry(text_name(tensor)) {
                vacant.insert(place);
                moved.insert(tensor, place.file);
            }
        }
        if let Some((tensor, &file)) = moved.first_key_value() {
            let (count, tensor, file) = (moved.len(), quoted(tensor), source.files[file].data.name());
            let what = "tensors are in another shard than the index says";
            source.notes.push(format!("{}: {count} {what}: {tensor} in {file} ...", source.name));
        }
        let names = assigned.into_iter().flat_map(|assigned| assigned.tensors.keys());
        let absent: Vec<&str> =
            names.map(String::as_str).filter(|name| !source.index.contains_key(&text_name(name))).collect();
        if let [first, ..] = absent.as_slice() {
            let (count, first) = (absent.len(), quoted(first));
            source.notes.push(format!(
                "{}: the index names {count} tensors that no shard has: {first} ...",
                source.name
            ));
        }
        Ok(source)
    }

    fn twice(&self, tensor: &str, one: usize, other: usize) -> Error {
        let file = |number: usize| self.files[number].data.name();
        let (tensor, one, other) = (quoted(tensor), file(one), file(other));
        Error::invalid_model(format!(
            "tensor {tensor} is in both {one} and {other}, and the index names neither"
        ))
    }

    /// Warnings about the files, for whoever loads the model.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Renames the tensor `name`, and its scales, to `new`.
    pub(crate) fn call(&mut self, name: &str, new: &str) {
        for suffix in ["", SCALES_SUFFIX] {
            if let Some(place) = self.index.remove(&format!("{name}{suffix}")) {
                self.index.insert(format!("{new}{suffix}"), place);
            }
        }
    }

    /// Whether two tensors, scales included, are the same to the bit. They are read piece by piece.
    ///
    /// # Errors
    /// As [`DataFile::read_at`].
    pub(crate) fn same(&self, one: &str, other: &str) -> Result<bool> {
        for suffix in ["", SCALES_SUFFIX] {
            let tensor = |name: &str| self.tensor(&format!("{name}{suffix}"));
            let (one, other) = match (tensor(one), tensor(other)) {
                (None, None) => continue,
                (Some(one), Some(other)) if one.dtype == other.dtype && one.shape == other.shape => {
                    (one, other)
                }
                _ => return Ok(false),
            };
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for start in (0..one.range.len()).step_by(PIECE) {
                let len = PIECE.min(one.range.len() - start);
                for (tensor, piece) in [(&one, &mut a), (&other, &mut b)] {
                    resize(piece, len)?;
                    piece.truncate(len);
                    tensor.file.read_at(tensor.range.start + start, piece)?;
                }
                if a != b {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Renames the tensors so that the embedding is called `embedding`: names in the files may have the name of another
    /// module in front, or lack some of it; norms may have a `gamma` and a `beta`.
    ///
    /// # Errors
    /// `InvalidModel` where two tensors would have the same name.
    pub(crate) fn rename(&mut self, embedding: &str) -> Result<()> {
        let ends = |name: &&str| name.strip_suffix(embedding).is_some_and(|rest| rest.ends_with('.'));
        let (mut strip, mut add) = (String::new(), String::new());
        if !self.index.contains_key(embedding) {
            let longer: Vec<&str> = self.names().filter(ends).collect();
            let shorter = |name: &&str| embedding.strip_suffix(*name).is_some_and(|rest| rest.ends_with('.'));
            match (longer.as_slice(), self.names().find(shorter)) {
                ([one], _) => strip = one.strip_suffix(embedding).unwrap_or_default().to_owned(),
                (_, Some(name)) => add = embedding.strip_suffix(name).unwrap_or_default().to_owned(),
                _ => {}
            }
        }
        let rename = |name: &str| {
            let name = name.strip_prefix(&strip).unwrap_or(name);
            let name = match (name.strip_suffix("LayerNorm.gamma"), name.strip_suffix("LayerNorm.beta")) {
                (Some(module), _) => format!("{module}LayerNorm.weight"),
                (_, Some(module)) => format!("{module}LayerNorm.bias"),
                _ => name.to_owned(),
            };
            format!("{add}{name}")
        };
        let before = self.index.len();
        self.index = self.index.iter().map(|(name, &place)| (rename(name), place)).collect();
        match self.index.len() == before {
            true => Ok(()),
            false => Err(Error::invalid_model(format!(
                "{}: expected tensors of one model, found some with and without {}",
                self.name,
                quoted(&strip)
            ))),
        }
    }

    /// Renames the tensors for which `rename` has another name.
    ///
    /// # Errors
    /// `InvalidModel` where two tensors would have the same name.
    pub(crate) fn rename_some(&mut self, rename: impl Fn(&str) -> Option<String>) -> Result<()> {
        let before = self.index.len();
        let old = std::mem::take(&mut self.index).into_iter();
        self.index = old.map(|(name, place)| (rename(&name).unwrap_or(name), place)).collect();
        match self.index.len() == before {
            true => Ok(()),
            false => {
                let message =
                    format!("{}: expected tensors with different names, found one twice", self.name);
                Err(Error::invalid_model(message))
            }
        }
    }

    /// Adds the tensors of `model.safetensors` in `dir`, with `prefix` before their names.
    ///
    /// # Errors
    /// As [`WeightSource::open_dir`].
    pub(crate) fn add_dir(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        let file = WeightFile::open(dir, SINGLE_FILE)?;
        for (entry, tensor) in file.header.tensors.iter().enumerate() {
            let name = format!("{prefix}{}", tensor.name);
            if self.index.insert(name, Place { file: self.files.len(), entry }).is_some() {
                let name = quoted(&tensor.name);
                return Err(Error::invalid_model(format!("{}: {name} is there twice", file.data.name())));
            }
        }
        self.files.push(file);
        Ok(())
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// The files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.files.iter().map(|file| &file.data)
    }

    /// Size of all tensor data in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        let entries = self.index.values().map(|place| &self.files[place.file].header.tensors[place.entry]);
        entries.map(|entry| entry.range.len() as u64).sum()
    }

    /// The tensor of that name, of whatever dtype.
    pub(crate) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (key, &Place { file, entry }) = self.index.get_key_value(name)?;
        let file = &self.files[file];
        let entry = &file.header.tensors[entry];
        Some(TensorView {
            file: &file.data,
            name: key,
            dtype: entry.dtype,
            shape: &entry.shape,
            range: entry.range.clone(),
        })
    }

    /// The tensor `name` of `shape` as the matrix in which all its dimensions but the last are one: f32, f16, bf16, or
    /// int8 codes with scales.
    ///
    /// # Errors
    /// `InvalidModel` if it is missing, of another shape, or has unusable scales; `UnsupportedModel` if its dtype
    /// cannot be used for weights.
    pub(crate) fn matrix(&self, name: &str, shape: &[usize]) -> Result<MatrixView<'_>> {
        let tensor = self.shaped(name, shape)?;
        // No overflow: the tensor has that shape.
        let (k, n) = match shape.split_last() {
            Some((&k, rows)) => (k, rows.iter().product()),
            None => (1, 1),
        };
        let format = match (FloatType::of(tensor.dtype), tensor.dtype) {
            (Some(dtype), _) => MatrixFormat::Float(dtype),
            (None, Dtype::I8) => MatrixFormat::Int8(self.int8(&tensor, n, k)?),
            _ => return Err(unusable_dtype(&tensor, "F32, F16, BF16 or I8 with scales")),
        };
        Ok(MatrixView { n, k, tensor, format })
    }

    /// The vector `name` of `len` elements, converted to f32.
    ///
    /// # Errors
    /// As [`WeightSource::matrix`], and `OutOfBudget` if there is no memory for it.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.elements(name, &[len])
    }

    /// All elements of `name`, a tensor of `shape`, converted to f32.
    ///
    /// # Errors
    /// As [`WeightSource::vector`].
    pub(crate) fn elements(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (tensor, dtype) = self.float_tensor(name, shape)?;
        let len = shape.iter().product();
        let mut out = Vec::new();
        // `len` elements are in the file, so this is no more than twice the file.
        out.try_reserve_exact(len).map_err(|_| {
            Error::new(
                ErrorKind::OutOfBudget,
                format!("the system has no memory for {len} elements of {name}"),
            )
        })?;
        out.resize(len, 0.0);
        dtype.decode(&tensor.read()?, &mut out);
        Ok(out)
    }

    /// What [`WeightSource::elements`] checks, without reading the data.
    pub(crate) fn check_elements(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.float_tensor(name, shape).map(|_| ())
    }

    /// The tensor `name` of `shape`, of one of `dtypes`.
    ///
    /// # Errors
    /// As [`WeightSource::matrix`].
    pub(crate) fn typed(&self, name: &str, shape: &[usize], dtypes: &[Dtype]) -> Result<TensorView<'_>> {
        let tensor = self.shaped(name, shape)?;
        if dtypes.contains(&tensor.dtype) {
            Ok(tensor)
        } else {
            Err(unusable_dtype(&tensor, &dtypes[0].to_string()))
        }
    }

    /// The tensor `name` of `shape`, of a dtype whose elements are read as f32.
    ///
    /// # Errors
    /// As [`WeightSource::matrix`].
    pub(crate) fn float_tensor(&self, name: &str, shape: &[usize]) -> Result<(TensorView<'_>, FloatType)> {
        let tensor = self.shaped(name, shape)?;
        let dtype = FloatType::of(tensor.dtype).ok_or_else(|| unusable_dtype(&tensor, "F32, F16 or BF16"))?;
        Ok((tensor, dtype))
    }

    /// The tensor `name` of `shape`, of whatever dtype.
    ///
    /// # Errors
    /// `InvalidModel` if it is missing or of another shape.
    pub(crate) fn shaped(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let tensor = self.tensor(name).ok_or_else(|| no_tensor(&self.name, name, self.names()))?;
        if tensor.shape != shape {
            return Err(tensor.error(
                ErrorKind::InvalidModel,
                format!("expected shape {}, found {}", shape_text(shape), shape_text(tensor.shape)),
            ));
        }
        Ok(tensor)
    }

    /// The group of weights that are stored as int8 codes with scales.
    pub(crate) fn stored_int8_group(&self) -> Option<usize> {
        let group = |file: &WeightFile| {
            let metadata = &file.header.metadata;
            // Reading the matrices refuses a group that is no number.
            let int8 = metadata.get("format").is_some_and(|format| format == INT8_FORMAT);
            int8.then(|| metadata.get("group_size")?.parse().ok()).flatten()
        };
        self.files.iter().find_map(group)
    }

    fn int8(&self, codes: &TensorView<'_>, n: usize, k: usize) -> Result<Int8Scales> {
        let metadata = &self.files[self.index[codes.name].file].header.metadata;
        let format = metadata.get("format").map(String::as_str);
        if format != Some(INT8_FORMAT) {
            let found = format.map_or_else(|| "none".to_owned(), quoted);
            return Err(codes.error(
                ErrorKind::UnsupportedModel,
                format!("I8 weights need the metadata format={INT8_FORMAT}, found {found}"),
            ));
        }
        let found = metadata.get("group_size").map_or("", String::as_str);
        let group = found.parse::<usize>().ok().filter(|&group| group > 0).ok_or_else(|| {
            let message =
                format!("metadata group_size: expected a positive integer, found {}", quoted(found));
            codes.error(ErrorKind::InvalidModel, message)
        })?;
        let groups = k.div_ceil(group);
        let scales = self.shaped(&format!("{}{SCALES_SUFFIX}", codes.name), &[n, groups])?;
        if scales.dtype != Dtype::BF16 {
            return Err(unusable_dtype(&scales, "BF16, as scales are"));
        }
        let values = Int8Scales::new(&scales.read()?, k, group);
        if let Some(InvalidScale { row, group, value }) = values.invalid() {
            let message = format!("expected finite scales >= 0, found {value} at row {row}, group {group}");
            return Err(scales.error(ErrorKind::InvalidModel, message));
        }
        Ok(values)
    }
}

fn unusable_dtype(tensor: &TensorView<'_>, expected: &str) -> Error {
    let message = format!("expected dtype {expected}, found {}", tensor.dtype);
    tensor.error(ErrorKind::UnsupportedModel, message)
}
