//! Adapters that are added to the weights once, when these are read: `W + B A * scale`, in f32, before anything is quantized.

use std::ops::Range;
use std::path::PathBuf;

use clawdbot_kernels::RowSource;
use sha2::{Digest, Sha256};

use super::files::{AdapterFiles, Use, module};
use crate::error::{Error, Result};
use crate::load::parts::LastTensor;
use crate::load::source::Opened;
use crate::load::weights::Weights;
use crate::spec::tensors::MatrixName;

/// Weights with adapters.
pub(crate) struct MergedWeights {
    pub(crate) base: Weights,
    adapters: Vec<AdapterFiles>,
}

impl Opened {
    /// The model with the adapters in `dirs` added to its weights.
    ///
    /// # Errors
    /// As [`AdapterFiles::open`]; `InvalidArgument` for packed models, whose weights are used as they are.
    pub(crate) fn merged(mut self, dirs: &[PathBuf]) -> Result<Self> {
        if dirs.is_empty() {
            return Ok(self);
        }
        if let Weights::Packed(file) = &self.weights {
            let message =
                format!("option merge_adapters: expected a model that is not packed, found {}", file.name());
            return Err(Error::invalid_argument(message).with("option", "merge_adapters"));
        }
        let names = self.spec.tensors();
        let adapters =
            dirs.iter().map(|dir| AdapterFiles::open(dir, &names, Use::Merged)).collect::<Result<_>>()?;
        self.weights = Weights::Merged(Box::new(MergedWeights { base: self.weights, adapters }));
        Ok(self)
    }
}

impl MergedWeights {
    /// Whether an adapter changes a matrix.
    pub(crate) fn changes(&self, name: &MatrixName) -> bool {
        module(name).is_some_and(|module| self.adapters.iter().any(|files| files.pairs.contains_key(module)))
    }

    /// The rows of a matrix.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub(crate) fn matrix<'a>(
        &'a self,
        name: &MatrixName,
        last: &mut LastTensor<'a>,
    ) -> Result<Box<dyn RowSource + 'a>> {
        let base = self.base.matrix(name, last)?;
        if !self.changes(name) {
            return Ok(base);
        }
        let mut deltas = Vec::new();
        for files in &self.adapters {
            let Some(pair) = module(name).and_then(|module| files.pairs.get(module)) else { continue };
            let (a, stored, rank) = (files.a(pair)?, files.b(pair)?, pair.rank);
            let row = |row| name.part.as_ref().map_or(row, |part| part.row(row));
            let b = (0..name.n).flat_map(|i| stored[row(i) * rank..][..rank].iter().copied()).collect();
            deltas.push(Delta { a, b, rank, scale: pair.scale });
        }
        Ok(Box::new(MergedRows { base, deltas }))
    }

    /// Feeds what tells these adapters from others.
    ///
    /// # Errors
    /// As `DataFile::header_bytes`.
    pub(crate) fn fingerprint(&self, sha256: &mut Sha256) -> Result<()> {
        for files in &self.adapters {
            sha256.update((files.config.len() as u64).to_le_bytes());
            sha256.update(&files.config);
            for file in files.source.files() {
                sha256.update((file.len() as u64).to_le_bytes());
                sha256.update(file.header_bytes()?);
                sha256.update(file.version()?.unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// What an adapter adds to a matrix.
struct Delta {
    /// `[rank, k]`
    a: Vec<f32>,
    /// `[n, rank]`
    b: Vec<f32>,
    rank: usize,
    scale: f32,
}

/// Rows of a matrix with what adapters add.
struct MergedRows<'a> {
    base: Box<dyn RowSource + 'a>,
    deltas: Vec<Delta>,
}

impl RowSource for MergedRows<'_> {
    fn rows(&self) -> usize {
        self.base.rows()
    }
    fn cols(&self) -> usize {
        self.base.cols()
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        self.base.fetch(rows, buffer)
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        self.base.read_row(row, stored, out);
        let mut sum = vec![0.0_f32; out.len()];
        for Delta { a, b, rank, scale } in &self.deltas {
            sum.fill(0.0);
            for (weight, a) in b[row * rank..][..*rank].iter().zip(a.chunks_exact(sum.len().max(1))) {
                sum.iter_mut().zip(a).for_each(|(sum, a)| *sum += weight * a);
            }
            out.iter_mut().zip(&sum).for_each(|(out, sum)| *out += sum * scale);
        }
    }
}
