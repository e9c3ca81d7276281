//! Scales of quantized matrices, in memory.

use crate::error::{Error, ErrorKind, Result};
use crate::weights::{Dtype, FloatType, MatrixSize, TensorView, WeightSource};

/// Weights that share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Outputs; more than there are: all.
    pub(super) rows: usize,
    /// Inputs; none: all.
    pub(super) columns: Option<usize>,
}

impl Block {
    /// All weights.
    pub(super) const TENSOR: Block = Block { rows: usize::MAX, columns: None };
    /// Those of an output.
    pub(super) const CHANNEL: Block = Block { rows: 1, columns: None };

    /// Blocks along the outputs and along the inputs of `[n, k]`.
    pub(super) fn counts(self, MatrixSize { n, k }: MatrixSize) -> [usize; 2] {
        [n.div_ceil(self.rows), self.columns.map_or(1, |columns| k.div_ceil(columns))]
    }

    /// `128x128`, `channel`, `tensor` or the number of inputs.
    pub(super) fn name(self) -> String {
        match (self.rows, self.columns) {
            (1, None) => "channel".to_owned(),
            (_, None) => "tensor".to_owned(),
            (1, Some(columns)) => columns.to_string(),
            (rows, Some(columns)) => format!("{rows}x{columns}"),
        }
    }

    /// The shapes that scales of so many blocks are written in: dimensions of one block at the end may be missing.
    fn shapes([rows, columns]: [usize; 2]) -> Vec<Vec<usize>> {
        let mut shapes = vec![vec![rows, columns]];
        if columns == 1 {
            shapes.push(vec![rows]);
        }
        if rows == 1 && columns == 1 {
            shapes.push(Vec::new());
        }
        shapes
    }
}

/// The tensor of scales of blocks.
#[derive(Debug)]
pub(super) struct ScaleTensor<'a> {
    pub(super) tensor: TensorView<'a>,
    pub(super) dtype: FloatType,
    pub(super) block: Block,
    /// Outputs of the matrix.
    n: usize,
    /// Blocks along the inputs.
    pub(super) groups: usize,
    /// Whether they are `[groups, n]` instead of `[blocks of n, groups]`.
    by_group: bool,
}

impl<'a> ScaleTensor<'a> {
    /// The scales `name` of a matrix `size`, one per `block`.
    ///
    /// # Errors
    /// As `WeightSource::matrix`.
    pub(super) fn open(files: &'a WeightSource, name: &str, size: MatrixSize, block: Block) -> Result<Self> {
        let counts = block.counts(size);
        let shapes = Block::shapes(counts);
        let shape = files.tensor(name).and_then(|found| {
            let same = |shape: &&Vec<usize>| shape.as_slice() == found.shape;
            shapes.iter().find(same).cloned()
        });
        let (tensor, dtype) = files.float_tensor(name, &shape.unwrap_or_else(|| shapes[0].clone()))?;
        Ok(ScaleTensor { tensor, dtype, block, n: size.n, groups: counts[1], by_group: false })
    }

    /// The scales `name`, `[groups, n]`, of groups of `group` inputs.
    ///
    /// # Errors
    /// As `WeightSource::matrix`.
    pub(super) fn open_by_group(
        files: &'a WeightSource,
        name: &str,
        size: MatrixSize,
        group: Option<usize>,
    ) -> Result<Self> {
        let block = Block { rows: 1, columns: group };
        let [_, groups] = block.counts(size);
        let (tensor, dtype) = files.float_tensor(name, &[groups, size.n])?;
        Ok(ScaleTensor { tensor, dtype, block, n: size.n, groups, by_group: true })
    }

    /// Reads them.
    ///
    /// # Errors
    /// As `TensorView::read`; `InvalidModel` for a scale that is not finite.
    pub(super) fn read(&self) -> Result<Scales> {
        let bytes = self.tensor.read()?;
        let scales = Scales {
            bytes,
            dtype: self.dtype,
            rows: self.block.rows,
            groups: self.groups,
            n: self.by_group.then_some(self.n),
        };
        let count = scales.bytes.len() / self.dtype.bytes();
        match (0..count).find(|&index| !scales.at(index).is_finite()) {
            None => Ok(scales),
            Some(index) => {
                let message = format!("expected finite scales, found {} at {index}", scales.at(index));
                Err(self.tensor.error(ErrorKind::InvalidModel, message))
            }
        }
    }
}

/// Scales that were read.
#[derive(Debug)]
pub(super) struct Scales {
    bytes: Vec<u8>,
    pub(super) dtype: FloatType,
    /// Rows that share one.
    rows: usize,
    groups: usize,
    /// Of scales `[groups, n]`.
    n: Option<usize>,
}

impl Scales {
    fn index(&self, row: usize, group: usize) -> usize {
        match self.n {
            Some(n) => group * n + row,
            None => row / self.rows * self.groups + group,
        }
    }

    fn at(&self, index: usize) -> f32 {
        let mut out = [0.0];
        let width = self.dtype.bytes();
        self.dtype.decode(&self.bytes[index * width..][..width], &mut out);
        out[0]
    }

    /// The scale of a group of a row, exactly.
    pub(super) fn value(&self, row: usize, group: usize) -> f32 {
        self.at(self.index(row, group))
    }

    /// Its bits, of types of 16.
    ///
    /// # Errors
    /// `Internal` for f32.
    pub(super) fn bits(&self, row: usize, group: usize) -> Result<u16> {
        let at = 2 * self.index(row, group);
        match (self.dtype, self.bytes.get(at..at + 2)) {
            (FloatType::F16 | FloatType::BF16, Some(&[low, high])) => Ok(u16::from_le_bytes([low, high])),
            _ => Err(Error::internal("scales of f32 have no 16 bits")),
        }
    }
}

/// The one element of the tensor `name`, which is of dtype F32.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(super) fn one_float<'a>(files: &'a WeightSource, name: &str) -> Result<TensorView<'a>> {
    let shape = files.tensor(name).map_or(1, |found| found.shape.len());
    files.typed(name, &[1][..shape.min(1)], &[Dtype::F32])
}
