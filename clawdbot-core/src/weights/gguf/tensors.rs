//! The tensors of a GGUF file, or of all parts of a split one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{GgufHeader, GgufMatrix, GgufTensor, Metadata, RowOrder, TensorType};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{DataFile, quoted};

/// Most parts of a model.
const MAX_PARTS: u64 = 10_000;

/// Where the tensors of a model are. Immutable; views borrow from it.
#[derive(Debug)]
pub(crate) struct GgufSource {
    /// Path of the first file, for messages.
    name: String,
    files: Vec<SourceFile>,
    metadata: Metadata,
    /// By name.
    index: BTreeMap<String, Located>,
}

/// One of the files.
#[derive(Debug)]
struct SourceFile {
    data: DataFile,
    header_bytes: usize,
}

/// A tensor and where it is.
#[derive(Debug)]
struct Located {
    /// Index of its file.
    file: usize,
    tensor: GgufTensor,
}

/// A file and its header.
struct OpenPart {
    file: DataFile,
    header: GgufHeader,
}

/// A tensor and its file.
struct TensorInFile<'a> {
    file: &'a DataFile,
    tensor: &'a GgufTensor,
}

impl GgufSource {
    /// Opens the file at `path` and, if it is the first part of a model, all others.
    ///
    /// # Errors
    /// As [`GgufHeader::read`]; `NotFound` for a missing part; `InvalidModel` for parts that do not belong together;
    /// `InvalidArgument` for a part that is not the first.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::with_first(DataFile::open(path)?, path)
    }

    /// As [`open`](Self::open), of the first file opened.
    pub(crate) fn with_first(first: DataFile, path: &Path) -> Result<Self> {
        let name = first.name().to_owned();
        let header = GgufHeader::read(&first)?;
        let count = header.metadata.opt_u64("split.count")?.unwrap_or(0);
        let mut parts = vec![OpenPart { file: first, header }];
        if count > 1 {
            let pattern = Pattern::of(path, count).map_err(|error| error.with("file", name.clone()))?;
            for number in 2..=count {
                let file = DataFile::open(&pattern.part(number))?;
                let header = GgufHeader::read(&file)?;
                parts.push(OpenPart { file, header });
            }
            check_parts(&parts, count)?;
        }
        let metadata = std::mem::take(&mut parts[0].header.metadata);
        let mut index = BTreeMap::new();
        let mut files = Vec::new();
        for (number, OpenPart { file, header }) in parts.into_iter().enumerate() {
            for tensor in header.tensors {
                let name = tensor.name.clone();
                if index.insert(name.clone(), Located { file: number, tensor }).is_some() {
                    let message =
                        format!("{}: tensor {}: it is in another part too", file.name(), quoted(&name));
                    return Err(Error::invalid_model(message).with("file", file.name()));
                }
            }
            files.push(SourceFile { data: file, header_bytes: header.header_bytes });
        }
        Ok(GgufSource { name, files, metadata, index })
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// The files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &DataFile> {
        self.files.iter().map(|file| &file.data)
    }

    /// The header of each file as it is written.
    ///
    /// # Errors
    /// As [`DataFile::read`].
    pub(crate) fn headers(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        self.files.iter().map(|file| file.data.read(0..file.header_bytes))
    }

    /// Size of all tensor data in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.index.values().map(|located| located.tensor.range.len() as u64).sum()
    }

    /// The tensor of that name.
    pub(crate) fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.index.get(name).map(|located| &located.tensor)
    }

    /// The `n` rows that `order` tells of the matrix `name`. Of its `shape`, all dimensions but the last are one.
    ///
    /// # Errors
    /// `InvalidModel` if it is missing or of another shape.
    pub(crate) fn matrix(
        &self,
        name: &str,
        shape: &[usize],
        n: usize,
        order: RowOrder,
    ) -> Result<GgufMatrix<'_>> {
        let TensorInFile { file, tensor } = self.shaped(name, shape)?;
        GgufMatrix::new(file, tensor, n, shape.last().copied().unwrap_or(1), order)
    }

    /// The `len` elements that `order` tells of the tensor `name`, as f32.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix), and `OutOfBudget` if there is no memory for it.
    pub(crate) fn vector(
        &self,
        name: &str,
        shape: &[usize],
        len: usize,
        order: RowOrder,
    ) -> Result<Vec<f32>> {
        let TensorInFile { file, tensor } = self.shaped(name, shape)?;
        let all: usize = shape.iter().product();
        order.check(len, all)?;
        // Of floats the part alone is read: the biases of all experts are one tensor.
        let part = match order {
            RowOrder::Runs { .. } if len > 0 && !tensor.kind.is_blocks() => {
                order.stored(0)..order.stored(len - 1) + 1
            }
            _ => 0..all,
        };
        let bytes = match part.len() == all {
            true => tensor.range.clone(),
            false => {
                let (start, size) = (tensor.range.start, tensor.kind.block_bytes());
                start + part.start * size..start + part.end * size
            }
        };
        let bytes = file.read(bytes)?;
        let mut stored = Vec::new();
        stored.try_reserve_exact(part.len()).map_err(|_| {
            let message = format!("the system has no memory for {} elements of {name}", part.len());
            Error::new(ErrorKind::OutOfBudget, message)
        })?;
        stored.resize(part.len(), 0.0);
        tensor.kind.decode(&bytes, &mut stored);
        Ok(match order {
            RowOrder::Stored => stored,
            _ => (0..len).map(|i| stored[order.stored(i) - part.start]).collect(),
        })
    }

    /// What [`vector`](Self::vector) checks, without reading the data.
    pub(crate) fn check_vector(
        &self,
        name: &str,
        shape: &[usize],
        len: usize,
        order: RowOrder,
    ) -> Result<()> {
        self.shaped(name, shape)?;
        order.check(len, shape.iter().product())
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<TensorInFile<'_>> {
        let Some(Located { file, tensor }) = self.index.get(name) else {
            let message = format!("{}: expected a tensor {}, found none", self.name, quoted(name));
            return Err(Error::invalid_model(message).with("tensor", name));
        };
        let file = &self.files[*file].data;
        // Writers leave out dimensions of one element, or do not.
        let long = |shape: &[usize]| shape.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
        let same_rows = tensor.shape.last() == shape.last() || !tensor.kind.is_blocks();
        if tensor.shape != shape && !(same_rows && long(&tensor.shape) == long(shape)) {
            let (name, found) = (quoted(name), &tensor.shape);
            let message =
                format!("{}: tensor {name}: expected shape {shape:?}, found {found:?}", file.name());
            return Err(Error::invalid_model(message).with("tensor", tensor.name.clone()));
        }
        Ok(TensorInFile { file, tensor })
    }

    /// How many tensors of each type there are.
    pub(crate) fn types(&self) -> BTreeMap<TensorType, usize> {
        let mut types = BTreeMap::new();
        for Located { tensor, .. } in self.index.values() {
            *types.entry(tensor.kind).or_default() += 1;
        }
        types
    }
}

/// How the parts of a split model are named: `{stem}-00001-of-00003.gguf`.
struct Pattern {
    dir: PathBuf,
    stem: String,
    count: u64,
}

impl Pattern {
    /// From the path of the first of `count` parts.
    fn of(path: &Path, count: u64) -> Result<Self> {
        let shown = path.display();
        if count > MAX_PARTS {
            let message = format!("{shown}: split.count: expected at most {MAX_PARTS}, found {count}");
            return Err(Error::invalid_model(message));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let tail = format!("-of-{count:05}.gguf");
        let Some((stem, number)) = name.strip_suffix(&tail).and_then(|rest| rest.rsplit_once('-')) else {
            let message =
                format!("{shown}: expected a file name that ends in -00001{tail}, as it has {count} parts");
            return Err(Error::invalid_model(message));
        };
        let pattern =
            Pattern { dir: path.parent().unwrap_or(Path::new("")).to_owned(), stem: stem.to_owned(), count };
        if number != "00001" {
            let first = pattern.part(1);
            let message = format!("{shown}: expected the first part of the model, {}", first.display());
            return Err(Error::invalid_argument(message).with("path", shown.to_string()));
        }
        Ok(pattern)
    }

    fn part(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count))
    }
}

/// Checks that each part says which one it is, and that together they have as many tensors as the first one says.
fn check_parts(parts: &[OpenPart], count: u64) -> Result<()> {
    for (number, OpenPart { header, .. }) in parts.iter().enumerate() {
        for (key, expected) in [("split.no", number as u64), ("split.count", count)] {
            if header.metadata.u64(key)? != expected {
                return Err(header.metadata.invalid(key, &expected.to_string()));
            }
        }
    }
    let metadata = &parts[0].header.metadata;
    let found: usize = parts.iter().map(|part| part.header.tensors.len()).sum();
    match metadata.opt_u64("split.tensors.count")? {
        Some(expected) if expected != found as u64 => {
            let expected = format!("{found}, the tensors of all parts");
            Err(metadata.invalid("split.tensors.count", &expected))
        }
        _ => Ok(()),
    }
}
