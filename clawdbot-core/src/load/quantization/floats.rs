//! Matrices of 8-bit and 4-bit floats.
//!
//! E4M3 (<https://arxiv.org/abs/2209.05433>): sign, 4 exponent bits (bias 7), 3 mantissa bits; no infinities, and all bits
//! but the sign set is NaN. E2M1 and E8M0: OCP Microscaling Formats, version 1.0; see `mxfp4.rs`.

use std::ops::Range;

use clawdbot_kernels::{ComputeFormat, GroupScales, RowSource, StoredScale};

use super::scales::{Block, ScaleTensor, Scales, one_float};
use crate::error::{Error, ErrorKind, Result};
use crate::weights::{Dtype, MatrixSize, TensorView, WeightSource, resize};

/// Twice the values of E2M1.
const TWICE_E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The value of a float with 4 exponent bits and 3 mantissa bits.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (byte >> 3 & 15, byte & 7);
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        // Subnormal: multiples of 2^-9.
        (0, _) => f32::from(mantissa) / 512.0,
        _ => f32::from_bits((u32::from(exponent) + 120) << 23 | u32::from(mantissa) << 20),
    };
    if byte & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The tensors of a matrix of E4M3.
#[derive(Debug)]
pub(super) struct Fp8Tensor<'a> {
    n: usize,
    k: usize,
    codes: TensorView<'a>,
    scales: ScaleTensor<'a>,
}

impl<'a> Fp8Tensor<'a> {
    /// The tensors of `module`, with a scale per `block`; without one, per tensor or per output, as there are.
    ///
    /// # Errors
    /// `InvalidModel` for missing tensors and other shapes, `UnsupportedModel` for other types.
    pub(super) fn open(
        files: &'a WeightSource,
        module: &str,
        size: MatrixSize,
        block: Option<Block>,
    ) -> Result<Self> {
        let MatrixSize { n, k } = size;
        let codes = files.typed(&format!("{module}.weight"), &[n, k], &[Dtype::F8_E4M3])?;
        let inverse = format!("{module}.weight_scale_inv");
        let name = if files.tensor(&inverse).is_some() { inverse } else { format!("{module}.weight_scale") };
        let found = files.tensor(&name).map_or(1, |found| found.shape.iter().product());
        let block = block.unwrap_or(if found > 1 { Block::CHANNEL } else { Block::TENSOR });
        let scales = ScaleTensor::open(files, &name, size, block)?;
        Ok(Fp8Tensor { n, k, codes, scales })
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> Vec<&'a str> {
        vec![self.codes.name, self.scales.tensor.name]
    }

    pub(super) fn format_name(&self) -> String {
        format!("FP8/{}", self.scales.block.name())
    }

    /// Reads the scales.
    ///
    /// # Errors
    /// As `ScaleTensor::read`.
    pub(super) fn read(self) -> Result<Fp8Matrix<'a>> {
        let scales = self.scales.read()?;
        self.codes.file.will_need(self.codes.range.clone());
        let mut values = [0.0; 256];
        for (byte, value) in (0..=u8::MAX).zip(&mut values) {
            *value = e4m3(byte);
        }
        Ok(Fp8Matrix { tensor: self, scales, values })
    }
}

/// The rows of a matrix of E4M3.
#[derive(Debug)]
pub(super) struct Fp8Matrix<'a> {
    tensor: Fp8Tensor<'a>,
    scales: Scales,
    /// What codes stand for.
    values: [f32; 256],
}

impl RowSource for Fp8Matrix<'_> {
    fn rows(&self) -> usize {
        self.tensor.n
    }
    fn cols(&self) -> usize {
        self.tensor.k
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        let Fp8Tensor { n, k, ref codes, .. } = self.tensor;
        assert!(rows.start <= rows.end && rows.end <= n, "rows {rows:?} of {n}");
        resize(buffer, rows.len() * k)?;
        Ok(codes.file.read_at(codes.range.start + rows.start * k, buffer)?)
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        let columns = self.tensor.scales.block.columns.unwrap_or(usize::MAX).min(out.len().max(1));
        for (group, (out, codes)) in out.chunks_mut(columns).zip(stored.chunks(columns)).enumerate() {
            let scale = self.scales.value(row, group);
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = self.values[usize::from(code)] * scale;
            }
        }
    }
}

/// Which scales a matrix of E2M1 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fp4Kind {
    /// E8M0 per 32 weights.
    Mx,
    /// E4M3 per 16 weights, divided by an f32 of the whole tensor.
    Nv,
}

impl Fp4Kind {
    /// Weights that share a scale.
    fn group(self) -> usize {
        match self {
            Fp4Kind::Mx => 32,
            Fp4Kind::Nv => 16,
        }
    }
}

/// The tensors of a matrix of E2M1.
#[derive(Debug)]
pub(super) struct Fp4Tensor<'a> {
    n: usize,
    k: usize,
    kind: Fp4Kind,
    codes: TensorView<'a>,
    scales: TensorView<'a>,
    /// What scales are divided by.
    global: Option<TensorView<'a>>,
}

impl<'a> Fp4Tensor<'a> {
    /// The tensors of `module`.
    ///
    /// # Errors
    /// `InvalidModel` for missing tensors and other shapes, `UnsupportedModel` for other types.
    pub(super) fn open(
        files: &'a WeightSource,
        module: &str,
        MatrixSize { n, k }: MatrixSize,
        kind: Fp4Kind,
    ) -> Result<Self> {
        if !k.is_multiple_of(kind.group()) {
            let message =
                format!("{module}: expected rows of a multiple of {} 4-bit floats, found {k}", kind.group());
            return Err(Error::unsupported_model(message).with("module", module));
        }
        let codes = files.typed(&format!("{module}.weight_packed"), &[n, k / 2], &[Dtype::U8])?;
        let name = format!("{module}.weight_scale");
        let dtypes: &[Dtype] = match kind {
            Fp4Kind::Mx => &[Dtype::U8, Dtype::F8_E8M0],
            Fp4Kind::Nv => &[Dtype::F8_E4M3],
        };
        let scales = files.typed(&name, &[n, k / kind.group()], dtypes)?;
        let global =
            (kind == Fp4Kind::Nv).then(|| one_float(files, &format!("{module}.weight_global_scale")));
        Ok(Fp4Tensor { n, k, kind, codes, scales, global: global.transpose()? })
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> Vec<&'a str> {
        let global = self.global.as_ref().map(|tensor| tensor.name);
        [self.codes.name, self.scales.name].into_iter().chain(global).collect()
    }

    pub(super) fn format_name(&self) -> &'static str {
        match self.kind {
            Fp4Kind::Mx => "MXFP4",
            Fp4Kind::Nv => "NVFP4",
        }
    }

    /// The format in which the codes are computed with: as int8, twice the values with half the scales.
    pub(super) fn compute_format(&self) -> ComputeFormat {
        let group = self.kind.group();
        match self.kind {
            // Powers of two are exact in bf16.
            Fp4Kind::Mx => ComputeFormat::Int8 { group, rotated: false },
            Fp4Kind::Nv => ComputeFormat::Stored8 { group, scales: GroupScales::F32 },
        }
    }

    /// Reads the scales.
    ///
    /// # Errors
    /// As `TensorView::read`; `InvalidModel` for scales that are not finite.
    pub(super) fn read(self) -> Result<Fp4Matrix<'a>> {
        let scales = self.scales.read()?;
        let mut global = 1.0;
        if let Some(tensor) = &self.global {
            let bytes = tensor.read()?;
            global = bytes.first_chunk().map_or(0.0, |bytes| f32::from_le_bytes(*bytes));
            if !(global.is_finite() && global != 0.0) {
                let message = format!("expected a finite number other than 0, found {global}");
                return Err(tensor.error(ErrorKind::InvalidModel, message));
            }
        }
        let mut halves = [0.0; 256];
        for (byte, half) in (0..=u8::MAX).zip(&mut halves) {
            *half = match self.kind {
                Fp4Kind::Mx => half_power(byte),
                Fp4Kind::Nv => e4m3(byte) / global * 0.5,
            };
        }
        if let Some(byte) = scales.iter().find(|&&byte| !halves[usize::from(byte)].is_finite()) {
            let message = format!("expected finite scales, found the byte {byte}");
            return Err(self.scales.error(ErrorKind::InvalidModel, message));
        }
        self.codes.file.will_need(self.codes.range.clone());
        Ok(Fp4Matrix { tensor: self, scales, halves })
    }
}

/// `2^(byte - 128)`; 255 stands for NaN.
fn half_power(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 21),
        1 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(byte - 1) << 23),
    }
}

/// The rows of a matrix of E2M1.
#[derive(Debug)]
pub(super) struct Fp4Matrix<'a> {
    tensor: Fp4Tensor<'a>,
    /// `[n, k / group]`
    scales: Vec<u8>,
    /// Half of what scales stand for.
    halves: [f32; 256],
}

impl Fp4Matrix<'_> {
    /// Half the scales of a row.
    fn halves(&self, row: usize) -> impl Iterator<Item = f32> {
        let groups = self.tensor.k / self.tensor.kind.group();
        self.scales[row * groups..][..groups].iter().map(|&byte| self.halves[usize::from(byte)])
    }

    fn codes(stored: &[u8], codes: &mut [i8]) {
        for (pair, &byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(stored) {
            *pair = [byte & 15, byte >> 4].map(|code| TWICE_E2M1[usize::from(code)]);
        }
    }
}

impl RowSource for Fp4Matrix<'_> {
    fn rows(&self) -> usize {
        self.tensor.n
    }
    fn cols(&self) -> usize {
        self.tensor.k
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        let Fp4Tensor { n, k, ref codes, .. } = self.tensor;
        assert!(rows.start <= rows.end && rows.end <= n, "rows {rows:?} of {n}");
        resize(buffer, rows.len() * (k / 2))?;
        Ok(codes.file.read_at(codes.range.start + rows.start * (k / 2), buffer)?)
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        let mut codes = vec![0; out.len()];
        Self::codes(stored, &mut codes);
        let group = self.tensor.kind.group();
        for ((out, codes), half) in out.chunks_mut(group).zip(codes.chunks(group)).zip(self.halves(row)) {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = f32::from(code) * half;
            }
        }
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        Some(self.tensor.compute_format())
    }
    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        Self::codes(stored, codes);
        scales.extend(self.halves(row).map(|half| match self.tensor.kind {
            Fp4Kind::Mx => StoredScale::One((half.to_bits() >> 16) as u16),
            Fp4Kind::Nv => StoredScale::Float(half),
        }));
        Ok(())
    }
}
