//! Writes packed model files. A file appears under its name when it is complete, or not at all.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ::safetensors::tensor::TensorInfo;
use clawdbot_kernels::PanelPart;
use clawdbot_kernels::memory::{ALIGNMENT, bytes_of};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::new_file::{Readers, Temporary, no_file};
use super::packed::{FILES_PREFIX, PADDING_PREFIX, PackedFile, TABLES, dtype_of, hex};
use super::packed_info::PackedInfo;
use super::pieces::Pieces;
use super::safetensors::PREFIX_BYTES;
use super::{DataFile, Dtype, MAGIC};
use crate::error::{Error, ErrorKind, Result};

/// The data begins at a multiple of this: a page, or several.
const DATA_ALIGNMENT: usize = 4096;

/// The tensors of a file, in the order in which they will be written.
#[derive(Debug, Default)]
pub(crate) struct PackedLayout {
    tensors: Vec<Tensor>,
    end: usize,
    paddings: usize,
}

/// A tensor that will be written.
#[derive(Debug)]
struct Tensor {
    name: String,
    info: TensorInfo,
}

impl Tensor {
    /// Bytes of its data.
    fn bytes(&self) -> usize {
        let (begin, end) = self.info.data_offsets;
        end - begin
    }
}

impl PackedLayout {
    /// A small file of the model.
    pub(crate) fn file(&mut self, name: &str, len: usize) -> Result<()> {
        self.add(format!("{FILES_PREFIX}{name}"), Dtype::U8, &[len], 1)
    }

    /// The tokenizer's tables.
    pub(crate) fn tables(&mut self, len: usize) -> Result<()> {
        self.add(TABLES.to_owned(), Dtype::U8, &[len], ALIGNMENT)
    }

    /// An array of matrix `name`.
    pub(crate) fn part(&mut self, name: &str, part: &PanelPart) -> Result<()> {
        self.add(format!("{name}{}", part.suffix), dtype_of(part.element), &part.shape, ALIGNMENT)
    }

    /// A norm or a bias.
    pub(crate) fn vector(&mut self, name: &str, len: usize) -> Result<()> {
        self.add(name.to_owned(), Dtype::F32, &[len], size_of::<f32>())
    }

    fn add(&mut self, name: String, dtype: Dtype, shape: &[usize], alignment: usize) -> Result<()> {
        let padding = self.end.next_multiple_of(alignment) - self.end;
        if padding > 0 {
            let name = format!("{PADDING_PREFIX}{}", self.paddings);
            self.paddings += 1;
            self.push(name, Dtype::U8, &[padding], padding)?;
        }
        let too_large = || Error::new(ErrorKind::OutOfBudget, format!("the size of tensor {name} overflows"));
        let elements = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        let bytes = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() / 8));
        let bytes = bytes.ok_or_else(too_large)?;
        self.push(name, dtype, shape, bytes)
    }

    /// A tensor of so many bytes, which follows the one before it.
    pub(super) fn push(&mut self, name: String, dtype: Dtype, shape: &[usize], bytes: usize) -> Result<()> {
        let too_large = || Error::new(ErrorKind::OutOfBudget, "the size of the packed file overflows");
        let end = self.end.checked_add(bytes).ok_or_else(too_large)?;
        let info = TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (self.end, end) };
        self.tensors.push(Tensor { name, info });
        self.end = end;
        Ok(())
    }

    /// The length of the header, and the header, padded so that the data after it is aligned.
    fn header(&self, info: &PackedInfo) -> Result<Vec<u8>> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!(info.to_metadata()));
        for Tensor { name, info } in &self.tensors {
            if header.insert(name.clone(), json!(info)).is_some() {
                return Err(Error::internal(format!("two tensors are called {name}")));
            }
        }
        let mut json = Value::Object(header).to_string().into_bytes();
        json.resize((PREFIX_BYTES + json.len()).next_multiple_of(DATA_ALIGNMENT) - PREFIX_BYTES, b' ');
        Ok([&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())
    }

    /// Bytes of the file.
    fn file_len(&self, info: &PackedInfo) -> Result<u64> {
        Ok(self.header(info)?.len() as u64 + self.end as u64)
    }
}

/// A file that is being written, under another name next to its own. Dropping it without `finish` removes it.
pub(crate) struct PackedWriter {
    file: Pieces<File>,
    temporary: Temporary,
    target: PathBuf,
    overwrite: Overwrite,
    layout: PackedLayout,
    info: PackedInfo,
    sha256: Sha256,
    /// The next tensor.
    next: usize,
}

/// What happens to a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// It is an error.
    Refuse,
    /// It is replaced.
    Replace,
}

impl PackedWriter {
    /// Begins the file `target`. The checksum in `info` is filled in.
    ///
    /// # Errors
    /// `InvalidArgument` if there is a file already that may not be overwritten; `Io`.
    pub(crate) fn create(
        target: &Path,
        overwrite: Overwrite,
        layout: PackedLayout,
        info: PackedInfo,
    ) -> Result<Self> {
        check_target(target, overwrite)?;
        // The length of the header does not depend on the checksum's digits.
        let info = PackedInfo { data_sha256: "0".repeat(64), ..info };
        let header = layout.header(&info)?;
        let (temporary, file) = Temporary::create(target, Readers::AsUsual)?;
        let mut file = Pieces::new(file)?;
        file.write_all(&header).map_err(|error| Error::io(target, error))?;
        let (target, sha256) = (target.to_owned(), Sha256::new());
        Ok(PackedWriter { file, temporary, target, overwrite, layout, info, sha256, next: 0 })
    }

    /// Writes the next tensor of the layout.
    ///
    /// # Errors
    /// `Io`; `Internal` if `bytes` is not as long as the layout says.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.skip_padding()?;
        self.append(bytes)
    }

    /// Writes a norm or a bias.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn write_floats(&mut self, values: &[f32]) -> Result<()> {
        self.write(bytes_of(values))
    }

    fn skip_padding(&mut self) -> Result<()> {
        match self.layout.tensors.get(self.next) {
            Some(tensor) if tensor.name.starts_with(PADDING_PREFIX) && tensor.name != TABLES => {
                let bytes = tensor.bytes();
                self.append(&[0; ALIGNMENT][..bytes])
            }
            _ => Ok(()),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.expect(bytes.len())?;
        self.feed(bytes)
    }

    /// Begins the next tensor, of `len` bytes, which [`feed`](Self::feed) then gets.
    pub(super) fn expect(&mut self, len: usize) -> Result<()> {
        match self.layout.tensors.get(self.next) {
            Some(tensor) if tensor.bytes() == len => {}
            other => {
                let message = format!("the next tensor is {other:?}, found {len} bytes");
                return Err(Error::internal(message));
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Writes some bytes of a tensor.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.file.write_all(bytes).map_err(|error| Error::io(&self.target, error))
    }

    /// Writes the last tensor, which may be called padding.
    pub(super) fn write_last(&mut self, bytes: &[u8]) -> Result<()> {
        self.append(bytes)
    }

    /// Who may do what with the file.
    pub(super) fn set_permissions(&self, permissions: std::fs::Permissions) -> Result<()> {
        self.temporary.set_permissions(permissions).map_err(|error| Error::io(&self.target, error))
    }

    /// Completes the file and gives it its name. Returns its size in bytes.
    ///
    /// # Errors
    /// `Io`; `InvalidArgument` if there is a file of that name by now; `Internal` if tensors are missing.
    pub(crate) fn finish(mut self) -> Result<u64> {
        if let Some(Tensor { name, .. }) = self.layout.tensors.get(self.next) {
            return Err(Error::internal(format!("tensor {name} was not written")));
        }
        self.info.data_sha256 = hex(&std::mem::take(&mut self.sha256).finalize());
        let header = self.layout.header(&self.info)?;
        let io = |error: std::io::Error| Error::io(&self.target, error);
        let file = self.file.end().map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(&header).map_err(io)?;
        self.temporary.finish(file, &self.target, |target| check_target(target, self.overwrite))?;
        self.layout.file_len(&self.info)
    }
}

fn check_target(target: &Path, overwrite: Overwrite) -> Result<()> {
    let name = target.display().to_string();
    match std::fs::symlink_metadata(target) {
        Ok(metadata) if !metadata.is_file() => Err(no_file(target, metadata.file_type())),
        Ok(_) if overwrite == Overwrite::Refuse => {
            let message =
                format!("{name}: expected no file of that name, found one; the option overwrite replaces it");
            Err(Error::invalid_argument(message).with("path", name))
        }
        Ok(_) if holds_other_weights(target) => {
            let message =
                format!("{name}: expected a packed model file to replace, found weights of another kind");
            Err(Error::invalid_argument(message).with("path", name))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(target, error)),
        _ => Ok(()),
    }
}

/// Whether a file has weights that no packing made: those are somebody's only copy.
fn holds_other_weights(target: &Path) -> bool {
    let Ok(file) = DataFile::open(target) else { return false };
    let start = file.read(0..file.len().min(9)).unwrap_or_default();
    let safetensors = matches!(start.as_slice(), [.., 0, 0, 0, 0, b'{']);
    let packed =
        |file| !PackedFile::open(file).is_err_and(|error| error.kind() == ErrorKind::InvalidArgument);
    start.starts_with(MAGIC) || safetensors && !packed(file)
}

#[cfg(test)]
mod tests {
    use super::super::testing::TempDir;
    use super::*;

    fn info() -> PackedInfo {
        PackedInfo {
            formats: std::collections::BTreeMap::new(),
            weights: "f32".into(),
            group_size: None,
            rotated: false,
            source: "test".into(),
            source_sha256: "0".repeat(64),
            stored_bytes: 7,
            calibrated_tokens: None,
            has_tokenizer: false,
            written_by: "0".into(),
            data_sha256: String::new(),
        }
    }

    fn layout() -> PackedLayout {
        let mut layout = PackedLayout::default();
        layout.file("config.json", 3).unwrap();
        layout.vector("v", 2).unwrap();
        layout
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_stays() {
        let dir = TempDir::new();
        let (file, link, socket) =
            (dir.path().join("file"), dir.path().join("link"), dir.path().join("socket"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (target, found) in
            [(dir.path(), "a directory"), (&link, "a symbolic link"), (&socket, "a device")]
        {
            for overwrite in [Overwrite::Refuse, Overwrite::Replace] {
                let error = PackedWriter::create(target, overwrite, layout(), info()).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert!(error.message().contains(&format!("found {found}")), "{error}");
            }
        }
        assert_eq!((names(&dir).len(), std::fs::read_to_string(&link).unwrap()), (3, "text".to_owned()));
    }

    fn names(dir: &TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let dir = TempDir::new();
        let target = dir.path().join("m");
        let create = |overwrite| PackedWriter::create(&target, overwrite, layout(), info());
        let mut writer = create(Overwrite::Refuse).unwrap();
        writer.write(b"{ }").unwrap();
        assert!(!target.exists());
        assert_eq!(names(&dir).len(), 1, "a temporary file");
        drop(writer);
        assert!(names(&dir).is_empty(), "and nothing is left of it");

        let mut writer = create(Overwrite::Refuse).unwrap();
        writer.write(b"{ }").unwrap();
        writer.write_floats(&[1.5, -2.0]).unwrap();
        let len = writer.finish().unwrap();
        assert_eq!(names(&dir), ["m"]);
        let file = super::super::PackedFile::open(super::super::DataFile::open(&target).unwrap()).unwrap();
        assert_eq!((file.len() as u64, file.info().stored_bytes), (len, 7));
        assert_eq!(file.model_file("config.json", 10).unwrap().unwrap(), b"{ }");
        assert_eq!(file.vector("v", 2).unwrap(), [1.5, -2.0]);
        file.verify(&mut |_, _| true).unwrap();
        // It is a safetensors file for others too.
        let bytes = std::fs::read(&target).unwrap();
        let read = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let vector = read.tensor("v").unwrap();
        assert_eq!(
            (vector.dtype(), vector.shape(), vector.data()),
            (Dtype::F32, &[2][..], bytes_of(&[1.5_f32, -2.0]))
        );

        assert_eq!(create(Overwrite::Refuse).err().unwrap().kind(), ErrorKind::InvalidArgument);
        let mut writer = create(Overwrite::Replace).unwrap();
        writer.write(b"{x}").unwrap();
        writer.write_floats(&[1.5, -2.0]).unwrap();
        writer.finish().unwrap();
        assert_eq!(names(&dir), ["m"]);
        assert!(std::fs::read(&target).unwrap().windows(3).any(|bytes| bytes == b"{x}"));
    }

    #[test]
    fn what_is_not_as_planned_is_an_error() {
        let dir = TempDir::new();
        let target = dir.path().join("m");
        let mut writer = PackedWriter::create(&target, Overwrite::Refuse, layout(), info()).unwrap();
        assert_eq!(writer.write(b"{").unwrap_err().kind(), ErrorKind::Internal);
        writer.write(b"{ }").unwrap();
        assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::Internal);
        // Somebody else's file of that name came meanwhile.
        let mut writer = PackedWriter::create(&target, Overwrite::Refuse, layout(), info()).unwrap();
        writer.write(b"{ }").unwrap();
        writer.write_floats(&[1.5, -2.0]).unwrap();
        dir.write("m", "other");
        assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!((names(&dir), std::fs::read(&target).unwrap()), (vec!["m".to_owned()], b"other".to_vec()));
        let nowhere = dir.path().join("none").join("m");
        let error = PackedWriter::create(&nowhere, Overwrite::Refuse, layout(), info()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = PackedWriter::create(dir.path(), Overwrite::Replace, layout(), info()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
