//! Matrices of a GGUF file, row by row.

use std::ops::Range;

use clawdbot_kernels::{ComputeFormat, GroupScales, RowSource, StoredScale};

use super::{GgufTensor, TensorType};
use crate::error::{Error, Result};
use crate::weights::file::resize;
use crate::weights::{DataFile, FloatType, quoted};

/// In which order the rows of a matrix, or the elements of a vector, are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// In that of the model.
    Stored,
    /// The two halves of each run of `head` rows are shuffled into pairs: row `i` of the first half, row `i` of the
    /// second, and so on. So are the queries and keys of models whose rotation was made for pairs of neighbours.
    Pairs { head: usize },
    /// They are a part of what is stored: row `r` is row `first + r / run * stride + r % run`. Where
    /// there are several runs, `stride` is at least `run`.
    Runs { first: usize, run: usize, stride: usize },
}

impl RowOrder {
    /// The stored index of `row`.
    pub(crate) fn stored(self, row: usize) -> usize {
        match self {
            RowOrder::Stored => row,
            RowOrder::Pairs { head } => {
                let (start, row) = (row / head * head, row % head);
                start + row % (head / 2) * 2 + row / (head / 2)
            }
            RowOrder::Runs { first, run, stride } => first + row / run * stride + row % run,
        }
    }

    /// Checks `rows` of `all` stored ones.
    ///
    /// # Errors
    /// `InvalidModel` for rows that are not whole heads of even size, `Internal` for a part that is not there.
    pub(super) fn check(self, rows: usize, all: usize) -> Result<()> {
        match self {
            RowOrder::Stored | RowOrder::Pairs { .. } if rows != all => {
                Err(Error::internal(format!("{rows} rows of {all}, all of them")))
            }
            RowOrder::Runs { run, .. } if rows > 0 && (run == 0 || self.stored(rows - 1) >= all) => {
                Err(Error::internal(format!("{rows} rows of {all}, {self:?}")))
            }
            RowOrder::Pairs { head } if head == 0 || head % 2 != 0 || !rows.is_multiple_of(head) => {
                Err(Error::invalid_model(format!(
                    "expected rows for whole heads of an even size, found {rows} for {head}"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// A matrix `[n, k]`, row-major: `n` outputs, `k` inputs.
#[derive(Debug)]
pub(crate) struct GgufMatrix<'a> {
    file: &'a DataFile,
    tensor: &'a GgufTensor,
    n: usize,
    k: usize,
    /// Bytes of a row.
    row: usize,
    order: RowOrder,
}

impl<'a> GgufMatrix<'a> {
    /// `tensor` is `[.., k]`, which its range was checked for; `n` rows of it.
    pub(super) fn new(
        file: &'a DataFile,
        tensor: &'a GgufTensor,
        n: usize,
        k: usize,
        order: RowOrder,
    ) -> Result<Self> {
        let all = tensor.shape.iter().product::<usize>() / k.max(1);
        order
            .check(n, all)
            .map_err(|error| error.context(format!("{}: tensor {}", file.name(), quoted(&tensor.name))))?;
        let row = k / tensor.kind.block() * tensor.kind.block_bytes();
        Ok(GgufMatrix { file, tensor, n, k, row, order })
    }

    /// Tells the system that the matrix will be read soon.
    pub(crate) fn will_need(&self) {
        let Some(last) = self.n.checked_sub(1) else { return };
        let at = |row| self.tensor.range.start + self.order.stored(row) * self.row;
        self.file.will_need(at(0)..at(last) + self.row);
    }
}

impl RowSource for GgufMatrix<'_> {
    fn rows(&self) -> usize {
        self.n
    }

    fn cols(&self) -> usize {
        self.k
    }

    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        assert!(rows.start <= rows.end && rows.end <= self.n, "rows {rows:?} of {}", self.n);
        // No overflow: the range of the tensor holds `n` rows.
        resize(buffer, rows.len() * self.row)?;
        let start = |row: usize| self.tensor.range.start + row * self.row;
        let Some(last) = rows.end.checked_sub(1).filter(|&last| last >= rows.start) else { return Ok(()) };
        let first = self.order.stored(rows.start);
        match self.order {
            RowOrder::Stored => self.file.read_at(start(rows.start), buffer)?,
            // Side by side, as they mostly are: runs ascend.
            RowOrder::Runs { .. } if self.order.stored(last) - first == last - rows.start => {
                self.file.read_at(start(first), buffer)?;
            }
            RowOrder::Pairs { .. } | RowOrder::Runs { .. } => {
                let rows = rows.zip(buffer.chunks_exact_mut(self.row.max(1)));
                rows.into_iter()
                    .try_for_each(|(row, out)| self.file.read_at(start(self.order.stored(row)), out))?;
            }
        }
        Ok(())
    }

    fn read_row(&self, _: usize, stored: &[u8], out: &mut [f32]) {
        self.tensor.kind.decode(stored, out);
    }

    fn own_format(&self) -> Option<ComputeFormat> {
        self.tensor.kind.compute_format()
    }

    fn read_codes(
        &self,
        _: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        self.tensor.kind.codes(stored, codes, scales);
        Ok(())
    }
}

impl TensorType {
    /// The format in which its own codes and scales are computed with, unless they are floats.
    pub(crate) fn compute_format(self) -> Option<ComputeFormat> {
        let int4 = |group, scales| Some(ComputeFormat::Int4 { group, scales, rotated: false });
        let int6 = |group, scales| Some(ComputeFormat::Stored6 { group, scales });
        let int8 = |group, scales| Some(ComputeFormat::Stored8 { group, scales });
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => None,
            TensorType::Q4_0 => int4(32, GroupScales::F16),
            TensorType::Q4_1 => int4(32, GroupScales::F16Min),
            TensorType::Q4K => int4(32, GroupScales::Superblock),
            TensorType::Q8_0 | TensorType::Q5_0 | TensorType::Iq4Nl => int8(32, GroupScales::F16),
            TensorType::Q5_1 => int8(32, GroupScales::F16Min),
            TensorType::Q5K => int6(32, GroupScales::Superblock),
            TensorType::Q6K => int6(16, GroupScales::Superblock16),
            TensorType::Q3K => int4(16, GroupScales::Superblock16),
            TensorType::Q2K => int4(16, GroupScales::F32Min),
            TensorType::Iq4Xs => int8(32, GroupScales::F32),
            // Powers of two are exact in bf16.
            TensorType::Mxfp4 => Some(ComputeFormat::Int8 { group: 32, rotated: false }),
        }
    }

    /// The float type of elements that are no blocks.
    pub(super) fn float(self) -> Option<FloatType> {
        match self {
            TensorType::F32 => Some(FloatType::F32),
            TensorType::F16 => Some(FloatType::F16),
            TensorType::Bf16 => Some(FloatType::BF16),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::gguf::GgufHeader;
    use clawdbot_kernels::threads::ThreadPool;
    use clawdbot_kernels::{PackedMatrix, select};

    /// Made by `make.py` next to it.
    const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/gguf/types.gguf");

    #[test]
    fn packed_codes_are_the_values_bit_for_bit() {
        let file = DataFile::from_memory(GOLDEN, "types.gguf");
        let header = GgufHeader::read(&file).unwrap();
        let (kernels, pool) = (select(None).unwrap(), ThreadPool::new(2));
        let mut seen = 0;
        for tensor in &header.tensors {
            let Some(format) = tensor.kind.compute_format() else { continue };
            let matrix = GgufMatrix::new(&file, tensor, 3, 512, RowOrder::Stored).unwrap();
            let packed = pool
                .region(|region| PackedMatrix::pack(kernels, region, format, &[&matrix]))
                .unwrap()
                .unwrap();
            assert_eq!(packed.format(), format);
            let (mut stored, mut expected, mut found) = (Vec::new(), vec![0.0; 512], vec![f32::NAN; 512]);
            for row in 0..3 {
                matrix.fetch(row..row + 1, &mut stored).unwrap();
                matrix.read_row(row, &stored, &mut expected);
                packed.read_row(kernels, row, &mut found);
                assert_eq!(found, expected, "{} row {row}", tensor.name);
            }
            seen += 1;
        }
        assert_eq!(seen, TensorType::ALL.len() - 3);
    }

    #[test]
    fn pairs_are_put_apart() {
        let order = RowOrder::Pairs { head: 6 };
        let stored: Vec<usize> = (0..12).map(|row| order.stored(row)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        order.check(12, 12).unwrap();
        assert!(order.check(10, 10).is_err() && RowOrder::Pairs { head: 3 }.check(12, 12).is_err());
        assert!(RowOrder::Pairs { head: 0 }.check(0, 0).is_err() && order.check(6, 12).is_err());
    }

    #[test]
    fn runs_are_parts_of_what_is_stored() {
        let order = RowOrder::Runs { first: 1, run: 2, stride: 5 };
        let stored: Vec<usize> = (0..6).map(|row| order.stored(row)).collect();
        assert_eq!(stored, [1, 2, 6, 7, 11, 12]);
        order.check(6, 13).unwrap();
        order.check(0, 0).unwrap();
        assert!(
            order.check(6, 12).is_err()
                && RowOrder::Runs { first: 0, run: 0, stride: 0 }.check(1, 1).is_err()
        );
        let file = DataFile::from_memory(GOLDEN, "types.gguf");
        let header = GgufHeader::read(&file).unwrap();
        let tensor = header.tensors.iter().find(|tensor| tensor.kind == TensorType::F32).unwrap();
        let part = |first, run, n| {
            let order = RowOrder::Runs { first, run, stride: 2 };
            let matrix = GgufMatrix::new(&file, tensor, n, 512, order).unwrap();
            let mut stored = Vec::new();
            matrix.fetch(0..n, &mut stored).unwrap();
            stored
        };
        let all = file.read(tensor.range.clone()).unwrap();
        assert_eq!(part(1, usize::MAX, 2), all[2048..]);
        assert_eq!(part(0, 1, 2), [&all[..2048], &all[4096..]].concat());
    }
}
