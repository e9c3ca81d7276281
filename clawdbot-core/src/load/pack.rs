//! A model to one packed file.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use clawdbot_kernels::PackedMatrix;
use sha2::{Digest, Sha256};

use super::build::Builder;
use super::calibration::{self, Calibrated, Wanted};
use super::formats::weights_in;
use super::source::{Opened, Source};
use super::weights::Weights;
use crate::cancel::Progress;
use crate::error::{Error, Result};
use crate::options::{PackOptions, WeightType};
use crate::runtime::{LogLevel, Runtime};
use crate::spec::packing::Joined;
use crate::tokenizer::{NoTables, Tokenizer};
use crate::weights::{DataFile, Overwrite, PackedFile, PackedInfo, PackedLayout, PackedWriter, hex};

impl Runtime {
    /// Writes the model `source` to the packed file `target`: weights in the form in which they are computed with,
    /// tokenizer, chat template and configuration. Loading such a file maps it and takes milliseconds; its pages are
    /// shared by all processes that use it. The file appears when it is complete. Returns its size in bytes.
    ///
    /// # Errors
    /// As [`Runtime::load`] for the source; `InvalidArgument` if it is packed already, or if `target` exists and may not
    /// be overwritten; `Io` when the file cannot be written.
    pub fn pack(&self, source: &Source, target: impl AsRef<Path>, options: &PackOptions) -> Result<u64> {
        self.pack_with_progress(source, target, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Runtime::pack`], and calls `progress` with the weights that are done, and all of them, now and then; a break cancels.
    /// While weights are calibrated, it is called with the stage too.
    ///
    /// # Errors
    /// As [`Runtime::pack`]; `Cancelled`.
    pub fn pack_with_progress(
        &self,
        source: &Source,
        target: impl AsRef<Path>,
        options: &PackOptions,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<u64> {
        self.pool().check_fork()?;
        let opened = Opened::open(source)?.merged(&options.merge_adapters)?;
        check_apart(source, options, target.as_ref())?;
        let mut progress = progress;
        self.pack_opened(&opened, target.as_ref(), options, &mut |now| progress(now).is_continue())
    }

    /// Packs what is opened.
    ///
    /// # Errors
    /// As [`Runtime::pack_with_progress`].
    fn pack_opened(
        &self,
        opened: &Opened,
        target: &Path,
        options: &PackOptions,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<u64> {
        if let Weights::Packed(file) = &opened.weights {
            return Err(Error::invalid_argument(format!("{}: already packed", file.name())));
        }
        let weight_type = opened.weight_type(options.weights);
        let names = opened.spec.tensors();
        let overwrite = if options.overwrite { Overwrite::Replace } else { Overwrite::Refuse };
        if let Some(path) = &options.calibrate {
            check_calibrated(weight_type, options.weights)?;
            let text = calibration::read(opened, path, Wanted::CALIBRATION)?;
            let contents = Contents {
                weights: weight_type,
                matrices: calibration::order(&names),
                calibrated_tokens: Some(text.tokens.len() as u64),
            };
            self.prove_kernels();
            let mut calibrated = Calibrated::new(self, opened, &names, weight_type, text, progress)?;
            return write(self, opened, &contents, target, overwrite, |writer, parts| {
                write_matrix(writer, calibrated.matrix(parts)?)
            });
        }
        // One matrix (or several that read the same input) is in memory at a time.
        let mut largest = 0;
        for parts in names.packed_matrices() {
            let mut bytes = 0;
            for segment in opened.weights.segments(&parts, weight_type)? {
                bytes += PackedMatrix::packed_bytes(segment.format, segment.names.n(), segment.names.k())?;
            }
            largest = largest.max(bytes);
        }
        let _reservation = self.budget().reserve(largest, "the largest matrix, packed,")?;
        let mut builder = Builder {
            kernels: self.kernel_set(),
            pool: self.pool(),
            weights: &opened.weights,
            last: None,
            mapped: None,
            weight_type,
            progress: &mut |done, total| progress(Progress { done, total, stage: None }),
            done: 0,
            total: weights_in(&opened.spec),
            ready: Default::default(),
            vectors: Default::default(),
        };
        let matrices = names.packed_matrices();
        let contents = Contents { weights: weight_type, matrices, calibrated_tokens: None };
        write(self, opened, &contents, target, overwrite, |writer, parts| {
            write_matrix(writer, &builder.matrices(parts)?)
        })
    }
}

/// # Errors
/// `InvalidArgument` when `target` is one of the files that the model is made from. A packed file next to them may be replaced.
fn check_apart(source: &Source, options: &PackOptions, target: &Path) -> Result<()> {
    let Ok(found) = target.canonicalize() else { return Ok(()) };
    let model = match source {
        Source::Path(path) => Some((path.as_path(), "those of the model")),
        _ => None,
    };
    let adapters = options.merge_adapters.iter().map(|path| (path.as_path(), "those of an adapter"));
    let text = options.calibrate.iter().map(|path| (path.as_path(), "the text of the option calibrate"));
    for (path, what) in model.into_iter().chain(adapters).chain(text) {
        let own = path.canonicalize().is_ok_and(|path| found.starts_with(path));
        if own && found.is_file() && DataFile::open(&found).and_then(PackedFile::open).is_err() {
            let name = target.display();
            let message = format!("{name}: expected another file than {what}");
            return Err(Error::invalid_argument(message).with("path", name.to_string()));
        }
    }
    Ok(())
}

/// Writes the arrays of a matrix.
pub(crate) fn write_matrix(writer: &mut PackedWriter, matrix: &PackedMatrix) -> Result<()> {
    matrix.part_bytes().into_iter().try_for_each(|bytes| writer.write(bytes))
}

/// # Errors
/// `InvalidArgument` for weights that are not rounded to int4.
fn check_calibrated(weights: WeightType, wanted: Option<WeightType>) -> Result<()> {
    match weights {
        WeightType::Int4 | WeightType::Int4Mixed => Ok(()),
        other => {
            let other = wanted.unwrap_or(other);
            let message = format!("option calibrate: expected weights int4 or int4-mixed, found {other}");
            Err(Error::invalid_argument(message).with("option", "calibrate"))
        }
    }
}

/// What a packed file holds.
pub(crate) struct Contents<'a> {
    pub(crate) weights: WeightType,
    /// In the order in which they are written
    pub(crate) matrices: Vec<Joined<'a>>,
    /// Tokens of the text that its weights were calibrated on
    pub(crate) calibrated_tokens: Option<u64>,
}

/// Writes a packed file, whose matrices `matrix` is asked to write one after another. Returns its size.
pub(crate) fn write(
    runtime: &Runtime,
    opened: &Opened,
    contents: &Contents<'_>,
    target: &Path,
    overwrite: Overwrite,
    mut matrix: impl FnMut(&mut PackedWriter, &Joined<'_>) -> Result<()>,
) -> Result<u64> {
    let Contents { weights, ref matrices, calibrated_tokens } = *contents;
    let format = opened.format(weights);
    let stored = weights == WeightType::Stored;
    let names = opened.spec.tensors();
    let mut layout = PackedLayout::default();
    let mut files = Vec::new();
    let mut tables = None;
    for name in opened.file_names() {
        if let Some(bytes) = opened.files.get(name)? {
            layout.file(name, bytes.len())?;
            if name == "tokenizer.json" && opened.text.is_some() {
                tables = match Tokenizer::tables(&bytes)? {
                    Ok(tables) => Some(tables),
                    Err(NoTables(reason)) => {
                        runtime.log(LogLevel::Warning, || no_tables(&opened.files.path(name), &reason));
                        None
                    }
                };
            }
            files.push(bytes);
        }
    }
    if let Some(tables) = tables {
        layout.tables(tables.len())?;
        files.push(tables.into());
    }
    let mut formats = BTreeMap::new();
    for parts in matrices {
        for segment in opened.weights.segments(parts, weights)? {
            let (names, format) = (segment.names, segment.format);
            for part in PackedMatrix::parts(format, names.n(), names.k())? {
                layout.part(&names.name(), &part)?;
            }
            if stored {
                formats.insert(names.name(), format.name());
            }
        }
    }
    for vector in names.vectors() {
        layout.vector(&vector.name, vector.len)?;
    }
    let info = PackedInfo {
        weights: weights.name().to_owned(),
        group_size: format.activations().map(|format| format.group).filter(|_| !stored),
        rotated: format.activations().is_some_and(|format| format.rotated) && !stored,
        formats,
        calibrated_tokens,
        source: opened.name.clone(),
        source_sha256: source_sha256(opened)?,
        stored_bytes: opened.weights.stored_bytes(),
        has_tokenizer: opened.text.is_some(),
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        data_sha256: String::new(),
    };
    let mut writer = PackedWriter::create(target, overwrite, layout, info)?;
    for bytes in files {
        writer.write(&bytes)?;
    }
    for parts in matrices {
        matrix(&mut writer, parts)?;
    }
    for vector in names.vectors() {
        writer.write_floats(&opened.weights.vector(vector)?)?;
    }
    writer.finish()
}

fn no_tables(file: &str, reason: &str) -> String {
    format!("{file}: packed without tables of the tokenizer, so opening takes longer: {reason}")
}

/// What `PackedInfo` says about the source.
pub(crate) fn source_sha256(opened: &Opened) -> Result<String> {
    let mut sha256 = Sha256::new();
    opened.fingerprint(&mut sha256)?;
    Ok(hex(&sha256.finalize()))
}

impl Opened {
    /// Feeds what tells this model from another: names, sizes and safetensors headers of its weight files, and its small
    /// files as a whole. Not the weights themselves: that would take as long as packing them.
    pub(crate) fn fingerprint(&self, sha256: &mut Sha256) -> Result<()> {
        let mut field = |bytes: &[u8]| {
            sha256.update((bytes.len() as u64).to_le_bytes());
            sha256.update(bytes);
        };
        for name in self.file_names() {
            if let Some(bytes) = self.files.get(name)? {
                field(name.as_bytes());
                field(&bytes);
            }
        }
        match self.weights.base() {
            Weights::Files(files) => {
                for file in files.source.files() {
                    field(file.file_name().as_bytes());
                    field(&(file.len() as u64).to_le_bytes());
                    field(&file.header_bytes()?);
                }
            }
            Weights::Gguf(gguf) => {
                for (file, header) in gguf.source.files().zip(gguf.source.headers()) {
                    field(file.file_name().as_bytes());
                    field(&(file.len() as u64).to_le_bytes());
                    field(&header?);
                }
            }
            Weights::Packed(file) => field(file.info().data_sha256.as_bytes()),
            Weights::Random | Weights::Merged { .. } => field(b"random weights"),
        }
        match &self.weights {
            Weights::Merged { adapters, .. } => adapters.fingerprint(sha256),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::TempDir;

    /// As of models whose prompts are token ids.
    #[test]
    fn what_is_generated_by_default_is_kept_without_a_tokenizer() {
        let runtime = Runtime::new(&Default::default()).unwrap();
        let mut opened = Opened::open(&Source::Builtin).unwrap();
        let expected = opened.defaults.clone();
        assert!(!expected.eos_token_id.is_empty());
        opened.text = None;
        let dir = TempDir::new();
        let target = dir.path().join("model.cbot");
        runtime.pack_opened(&opened, &target, &PackOptions::default(), &mut |_| true).unwrap();
        let packed = Opened::open(&Source::Path(target)).unwrap();
        assert!(packed.text.is_none());
        assert_eq!(packed.defaults, expected);
    }
}
