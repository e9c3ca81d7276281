//! Parts of stored tensors as matrices and vectors of their own: [`Part`].

use std::ops::Range;
use std::sync::Arc;

use clawdbot_kernels::{ComputeFormat, RowSource, StoredScale};

use super::mxfp4::Mxfp4Rows;
use super::quantization::FileWeights;
use crate::error::{Error, ErrorKind, Result};
use crate::forward::decoder::zeroed_rows;
use crate::spec::tensors::{MatrixName, Part, PartStorage, VectorName};
use crate::weights::{MatrixFormat, MatrixSize, MatrixView, RowOrder};

/// The rows of the tensor `name` of `shape`, in which all dimensions but the last are one.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(crate) fn whole<'a>(
    files: &'a FileWeights,
    name: &str,
    shape: &[usize],
) -> Result<Box<dyn RowSource + 'a>> {
    if let Some(rows) = files.rows(name, shape)? {
        return Ok(rows);
    }
    let matrix = files.source.matrix(name, shape)?;
    matrix.will_need();
    Ok(Box::new(Stored(matrix)))
}

/// A stored matrix.
struct Stored<'a>(MatrixView<'a>);

impl RowSource for Stored<'_> {
    fn rows(&self) -> usize {
        self.0.n
    }
    fn cols(&self) -> usize {
        self.0.k
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        Ok(self.0.fetch(rows, buffer)?)
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        self.0.read_row(row, stored, out);
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        match &self.0.format {
            MatrixFormat::Int8(scales) => Some(ComputeFormat::Int8 { group: scales.group(), rotated: false }),
            MatrixFormat::Float(_) => None,
        }
    }
    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        let MatrixFormat::Int8(values) = &self.0.format else {
            return Err(Error::internal("the matrix is not stored as int8").into());
        };
        self.0.read_codes(row, stored, codes)?;
        scales.extend(values.row(row).iter().map(|&bits| StoredScale::One(bits)));
        Ok(())
    }
}

/// The tensor that a matrix was a part of: the next one often is a part of the same, and some are read whole when they are
/// opened.
pub(crate) type LastTensor<'a> = Option<(String, Arc<dyn RowSource + 'a>)>;

/// The rows of a matrix that is a part of a stored tensor.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(crate) fn rows<'a>(
    files: &'a FileWeights,
    name: &MatrixName,
    part: &Part,
    last: &mut LastTensor<'a>,
) -> Result<Box<dyn RowSource + 'a>> {
    let mut open = || -> Result<Arc<dyn RowSource + 'a>> {
        match last {
            Some((tensor, rows)) if *tensor == part.tensor => Ok(Arc::clone(rows)),
            _ => {
                *last = None;
                let rows: Arc<dyn RowSource + 'a> = whole(files, &part.tensor, &part.shape)?.into();
                *last = Some((part.tensor.clone(), Arc::clone(&rows)));
                Ok(rows)
            }
        }
    };
    let size = MatrixSize { n: name.n, k: name.k };
    Ok(match part.storage {
        PartStorage::Rows => {
            let tensor = open()?;
            check(part, name.n, tensor.rows())?;
            Box::new(SomeRows { tensor, part: part.clone(), n: name.n })
        }
        PartStorage::Columns { from } => {
            let tensor = open()?;
            check(part, name.n, tensor.cols())?;
            Box::new(Columns::read(&*tensor, part.order(), from, size)?)
        }
        PartStorage::MinusExp => {
            return Err(Error::internal(format!("{}: a matrix of exponentials", name.name)));
        }
        PartStorage::Mxfp4 => Box::new(Mxfp4Rows::new(&files.source, part, size)?),
    })
}

/// The elements of a vector, with its offset.
///
/// # Errors
/// As `WeightSource::vector`.
pub(crate) fn vector(files: &FileWeights, name: &VectorName) -> Result<Vec<f32>> {
    let mut out = match &name.part {
        None => files.source.vector(&name.name, name.len)?,
        Some(part) => {
            let Elements { values: some, first } = elements(files, part, name.len)?;
            let elements = (0..name.len).map(|i| some[part.row(i) - first]);
            match part.storage {
                PartStorage::MinusExp => elements.map(|x| -libm::expf(x)).collect(),
                _ => elements.collect(),
            }
        }
    };
    if name.offset != 0.0 {
        out.iter_mut().for_each(|x| *x += name.offset);
    }
    Ok(out)
}

/// Consecutive elements of a tensor.
#[derive(Default)]
struct Elements {
    values: Vec<f32>,
    /// Number of the first in the tensor.
    first: usize,
}

/// The rows of a part's tensor that its `len` elements are in, dequantized.
fn elements(files: &FileWeights, part: &Part, len: usize) -> Result<Elements> {
    let tensor = whole(files, &part.tensor, &part.shape)?;
    let k = tensor.cols().max(1);
    check(part, len, tensor.rows() * k)?;
    let Some(last) = len.checked_sub(1).map(|last| part.row(last)) else { return Ok(Elements::default()) };
    let rows = part.row(0) / k..last / k + 1;
    let mut some = zeroed_rows(rows.len(), k)?;
    let mut stored = Vec::new();
    for (row, out) in rows.clone().zip(some.chunks_exact_mut(k)) {
        tensor.fetch(row..row + 1, &mut stored)?;
        tensor.read_row(row, &stored, out);
    }
    Ok(Elements { values: some, first: rows.start * k })
}

/// Checks that the part's rows are among the tensor's.
fn check(part: &Part, rows: usize, of: usize) -> Result<()> {
    match rows.checked_sub(1).is_none_or(|last| part.row(last) < of) {
        true => Ok(()),
        false => Err(Error::internal(format!("a part of {} is beyond its {of} rows", part.tensor))),
    }
}

/// Some rows of a stored matrix.
struct SomeRows<'a> {
    tensor: Arc<dyn RowSource + 'a>,
    part: Part,
    n: usize,
}

impl RowSource for SomeRows<'_> {
    fn rows(&self) -> usize {
        self.n
    }
    fn cols(&self) -> usize {
        self.tensor.cols()
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        let row = |row| self.part.row(row);
        // Most often they are neighbours.
        if rows.end - rows.start == 1 + row(rows.end - 1) - row(rows.start) {
            return self.tensor.fetch(row(rows.start)..row(rows.end - 1) + 1, buffer);
        }
        let (mut one, mut all) = (Vec::new(), Vec::new());
        for row in rows.map(row) {
            self.tensor.fetch(row..row + 1, &mut one)?;
            all.extend_from_slice(&one);
        }
        *buffer = all;
        Ok(())
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        self.tensor.read_row(self.part.row(row), stored, out);
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        self.tensor.own_format()
    }
    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        self.tensor.read_codes(self.part.row(row), stored, codes, scales)
    }
}

/// Columns of a stored matrix, in memory.
pub(crate) struct Columns {
    /// `[n, k]`
    values: Vec<f32>,
    n: usize,
    k: usize,
}

impl Columns {
    /// The `n` columns that `order` names, of the `k` rows that begin with row `from`.
    ///
    /// # Errors
    /// As `RowSource::fetch`; `OutOfBudget` without memory; `Internal` for columns and rows that are not there.
    pub(crate) fn read(
        tensor: &dyn RowSource,
        order: RowOrder,
        from: usize,
        MatrixSize { n, k }: MatrixSize,
    ) -> Result<Self> {
        let no_memory = || {
            let message = format!("there is no memory to turn a matrix of {n} x {k}");
            Error::new(ErrorKind::OutOfBudget, message)
        };
        let there = from.checked_add(k).is_some_and(|end| end <= tensor.rows())
            && n.checked_sub(1).is_none_or(|last| order.stored(last) < tensor.cols());
        if !there {
            return Err(Error::internal(format!("{n} columns of {k} rows, which are not there")));
        }
        let mut values = Vec::new();
        let size = n.checked_mul(k).ok_or_else(no_memory)?;
        values.try_reserve_exact(size).map_err(|_| no_memory())?;
        values.resize(size, 0.0);
        let (mut stored, mut row) = (Vec::new(), vec![0.0; tensor.cols()]);
        for i in 0..k {
            tensor.fetch(from + i..from + i + 1, &mut stored)?;
            tensor.read_row(from + i, &stored, &mut row);
            for j in 0..n {
                values[j * k + i] = row[order.stored(j)];
            }
        }
        Ok(Columns { values, n, k })
    }
}

impl RowSource for Columns {
    fn rows(&self) -> usize {
        self.n
    }
    fn cols(&self) -> usize {
        self.k
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.k..][..self.k]);
    }
}

/// A matrix `[n, k]` in memory.
pub(crate) struct InMemory<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) k: usize,
}

impl RowSource for InMemory<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.k
    }
    fn cols(&self) -> usize {
        self.k
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.k..][..self.k]);
    }
}
