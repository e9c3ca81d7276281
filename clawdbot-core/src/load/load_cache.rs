//! Packed files that loading a directory leaves for the next time, if asked to.
//!
//! A file is named after everything that its contents depend on: the source's file names, sizes, times of writing and (Unix)
//! of any change, safetensors headers, small files, the weights at some places, the weight type, and the version of the
//! format. Any of them changed: another file. Nothing is ever removed. What is not noticed: single weights that are
//! overwritten so soon after the file was last changed that the system's clock for files has not moved (some
//! milliseconds), or where a system has no time of change, with the time of writing set back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawdbot_kernels::PackedMatrix;
use sha2::{Digest, Sha256};

use super::check::check_packed;
use super::pack::{Contents, source_sha256, write, write_matrix};
use super::source::Opened;
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::forward::decoder::{Decoder, DecoderLayer};
use crate::forward::layer_inputs::LayerInputs;
use crate::forward::streams::Streams;
use crate::options::{Cache, WeightType};
use crate::runtime::{LogLevel, Runtime};
use crate::weights::{DataFile, FORMAT_VERSION, Overwrite, PackedFile, hex};

/// Where the packed file of a source belongs.
pub(crate) struct CacheEntry(PathBuf);

impl CacheEntry {
    /// The entry of a directory's or GGUF file's model; `None` for other sources, and without `cache`.
    ///
    /// # Errors
    /// `Io` when the system does not say where caches are, or nothing about the source's files.
    pub(crate) fn of(opened: &Opened, cache: &Cache, weights: WeightType) -> Result<Option<Self>> {
        let files: Vec<&DataFile> = match opened.weights.base() {
            Weights::Files(files) => files.source.files().collect(),
            Weights::Gguf(gguf) => gguf.source.files().collect(),
            _ => return Ok(None),
        };
        let dir = match cache {
            Cache::Off => return Ok(None),
            Cache::User => user_dir()?,
            Cache::Dir(dir) => dir.clone(),
        };
        let mut sha256 = Sha256::new();
        opened.fingerprint(&mut sha256)?;
        for file in files {
            // A built-in model has no file, and nothing to gain.
            let Some(version) = file.version()? else { return Ok(None) };
            sha256.update(version);
        }
        sha256.update(format!("{FORMAT_VERSION} {:?}", opened.format(weights)));
        let model = Path::new(&opened.name).file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{model}-{weights}-{}.clawdbot", &hex(&sha256.finalize())[..32]);
        Ok(Some(CacheEntry(dir.join(name))))
    }

    /// Makes `opened` take its weights from the cached file, if there is one. Whether it does.
    ///
    /// # Errors
    /// When there is one that cannot be used.
    pub(crate) fn lookup(&self, opened: &mut Opened, weights: WeightType) -> Result<bool> {
        if !self.0.exists() {
            return Ok(false);
        }
        let file = PackedFile::open(DataFile::open(&self.0)?)?;
        let (expected, found) = (source_sha256(opened)?, &file.info().source_sha256);
        if *found != expected || file.info().weights != weights.name() {
            return Err(Error::invalid_model(format!("{}: of another model", file.name())));
        }
        check_packed(&opened.spec.tensors(), &file, &opened.file_names(), |names| {
            opened.weights.segments(names, weights)
        })?;
        opened.weights = Weights::Packed(Arc::new(file));
        Ok(true)
    }

    /// Writes the weights of `decoder`, which was built from `opened`. `go_on` false cancels.
    ///
    /// # Errors
    /// `Io`; `Cancelled`.
    pub(crate) fn store(
        &self,
        runtime: &Runtime,
        opened: &Opened,
        decoder: &Decoder,
        weights: WeightType,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<u64> {
        if let Some(dir) = self.0.parent() {
            create_dir(dir)?;
        }
        let mut matrices = decoder.matrices();
        let names = opened.spec.tensors();
        let contents = Contents { weights, matrices: names.packed_matrices(), calibrated_tokens: None };
        write(runtime, opened, &contents, &self.0, Overwrite::Replace, |writer, _| {
            if !go_on() {
                return Err(Error::new(ErrorKind::Cancelled, "loading was cancelled"));
            }
            let matrix = matrices.next().ok_or_else(|| Error::internal("fewer matrices than names"))?;
            write_matrix(writer, matrix)
        })
    }

    /// Tells the log that the cache does not work; the load goes on without it.
    pub(crate) fn complain(runtime: &Runtime, opened: &Opened, error: &Error) {
        runtime.log(LogLevel::Warning, || format!("{}: cache: {error}", opened.name));
    }
}

impl Decoder {
    /// The packed matrices, in the order of `TensorNames::packed_matrices`.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &PackedMatrix> {
        let layers = self.layers.iter().flat_map(DecoderLayer::matrices);
        let inputs = self.layer_inputs.iter().flat_map(LayerInputs::matrices);
        let inputs = inputs.chain(self.streams.iter().flat_map(Streams::matrices));
        std::iter::once(&self.embedding).chain(inputs).chain(layers).chain(&self.lm_head)
    }
}

/// The user's directory for caches of this library.
fn user_dir() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".cache"));
    let base =
        if cfg!(windows) { absolute("LOCALAPPDATA") } else { absolute("XDG_CACHE_HOME").or_else(home) };
    let base = base.ok_or_else(|| {
        Error::new(ErrorKind::Io, "expected XDG_CACHE_HOME, HOME or (Windows) LOCALAPPDATA, found none")
    })?;
    Ok(base.join("clawdbot"))
}

/// Makes a directory that other users cannot look into.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| Error::io(dir, error))
}
