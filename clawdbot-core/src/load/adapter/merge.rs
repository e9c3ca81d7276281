//! Adapters that are added to the weights once, when these are read: `W + B A * scale`, in f32, before anything is quantized.

use std::ops::Range;
use std::path::PathBuf;

use clawdbot_kernels::RowSource;
use sha2::{Digest, Sha256};

use super::files::{AdapterFiles, Use, module};
use crate::error::Result;
use crate::spec::tensors::{MatrixName, TensorNames};

/// Adapters that are added to a model's weights.
pub(crate) struct MergedAdapters(Vec<AdapterFiles>);

impl MergedAdapters {
    /// Opens the adapters in `dirs` for the model with the tensors `names`.
    ///
    /// # Errors
    /// As [`AdapterFiles::open`].
    pub(crate) fn open(dirs: &[PathBuf], names: &TensorNames) -> Result<Self> {
        let open = |dir: &PathBuf| AdapterFiles::open(dir, names, Use::Merged);
        dirs.iter().map(open).collect::<Result<_>>().map(MergedAdapters)
    }

    /// Whether one changes a matrix.
    pub(crate) fn change(&self, name: &MatrixName) -> bool {
        module(name).is_some_and(|module| self.0.iter().any(|files| files.pairs.contains_key(module)))
    }

    /// The rows `base` of a matrix with what the adapters add.
    ///
    /// # Errors
    /// As `WeightSource::elements`.
    pub(crate) fn add_to<'a>(
        &self,
        base: Box<dyn RowSource + 'a>,
        name: &MatrixName,
    ) -> Result<Box<dyn RowSource + 'a>> {
        if !self.change(name) {
            return Ok(base);
        }
        let mut deltas = Vec::new();
        for files in &self.0 {
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
        for files in &self.0 {
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
