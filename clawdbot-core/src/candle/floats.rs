//! Elements of candle's float tensors.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Layout, Storage, Tensor};
use clawdbot_kernels::RowSource;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::error::from_candle;
use crate::error::{Error, Result};

/// Elements of a tensor on the CPU, row-major.
#[derive(Clone, Copy)]
pub(super) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    BF16(&'a [bf16]),
}

/// Whether tensors of this dtype can be read.
pub(super) fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Refuses tensors on other devices and of other dtypes.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check(tensor: &Tensor) -> Result<()> {
    if !tensor.device().is_cpu() {
        let found = tensor.device().location();
        return Err(Error::invalid_argument(format!("expected a tensor on the CPU, found {found:?}")));
    }
    match tensor.dtype() {
        dtype if is_float(dtype) => Ok(()),
        dtype => Err(Error::invalid_argument(format!(
            "expected a tensor of dtype f32, f16 or bf16, found {}",
            dtype.as_str()
        ))),
    }
}

/// Calls `f` with the elements of a tensor that passes [`check`].
///
/// # Errors
/// As [`check`]; those of `f`.
pub(super) fn with_floats<R>(tensor: &Tensor, f: impl FnOnce(Floats<'_>) -> Result<R>) -> Result<R> {
    check(tensor)?;
    let tensor = tensor.contiguous().map_err(from_candle)?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(Floats::new(storage, layout)?),
        _ => Err(Error::internal("expected the storage of a CPU tensor, found that of another device")),
    }
}

impl<'a> Floats<'a> {
    /// # Errors
    /// `InvalidArgument` for other dtypes; `Internal` for a tensor that is not contiguous.
    pub(super) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| Error::internal("expected a contiguous tensor, found strides"))?;
        let floats = match storage {
            CpuStorage::F32(all) => all.get(start..end).map(Floats::F32),
            CpuStorage::F16(all) => all.get(start..end).map(Floats::F16),
            CpuStorage::BF16(all) => all.get(start..end).map(Floats::BF16),
            _ => return Err(Error::invalid_argument("expected a tensor of dtype f32, f16 or bf16")),
        };
        floats.ok_or_else(|| Error::internal("expected all elements of a tensor in its storage, found fewer"))
    }

    pub(super) fn len(self) -> usize {
        match self {
            Floats::F32(all) => all.len(),
            Floats::F16(all) => all.len(),
            Floats::BF16(all) => all.len(),
        }
    }

    /// Bytes of an element.
    fn size(self) -> usize {
        if matches!(self, Floats::F32(_)) { 4 } else { 2 }
    }

    /// Copies elements from `first` on, converted exactly.
    ///
    /// # Panics
    /// If there are fewer than `out.len()`.
    pub(super) fn read(self, first: usize, out: &mut [f32]) {
        let range = first..first + out.len();
        match self {
            Floats::F32(all) => out.copy_from_slice(&all[range]),
            Floats::F16(all) => all[range].convert_to_f32_slice(out),
            Floats::BF16(all) => all[range].convert_to_f32_slice(out),
        }
    }

    /// Copies the bytes `range` of the elements, little-endian.
    ///
    /// # Errors
    /// `Internal` for a range outside, or not of whole elements.
    pub(super) fn bytes(self, range: Range<usize>, out: &mut [u8]) -> Result<()> {
        let size = self.size();
        let whole =
            range.start.is_multiple_of(size) && range.len() == out.len() && out.len().is_multiple_of(size);
        if !whole || range.end > self.len() * size {
            let message = format!("bytes {range:?} of {} elements of {size} bytes", self.len());
            return Err(Error::internal(message));
        }
        let elements = range.start / size..range.end / size;
        match self {
            Floats::F32(all) => {
                for (bytes, x) in out.as_chunks_mut().0.iter_mut().zip(&all[elements]) {
                    *bytes = x.to_le_bytes();
                }
            }
            Floats::F16(all) => {
                for (bytes, x) in out.as_chunks_mut().0.iter_mut().zip(&all[elements]) {
                    *bytes = x.to_le_bytes();
                }
            }
            Floats::BF16(all) => {
                for (bytes, x) in out.as_chunks_mut().0.iter_mut().zip(&all[elements]) {
                    *bytes = x.to_le_bytes();
                }
            }
        }
        Ok(())
    }
}

/// A matrix `[n, k]`.
pub(super) struct FloatRows<'a> {
    pub(super) values: Floats<'a>,
    pub(super) k: usize,
}

impl RowSource for FloatRows<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.k
    }
    fn cols(&self) -> usize {
        self.k
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        self.values.read(row * self.k, out);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn elements_follow_the_view() {
        let all = Tensor::arange(0_f32, 24.0, &Device::Cpu).unwrap().reshape((4, 6)).unwrap();
        let views = [
            (all.narrow(0, 1, 2).unwrap(), vec![6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0]),
            (all.t().unwrap(), vec![0.0, 6.0, 12.0, 18.0, 1.0, 7.0, 13.0]),
            (all.narrow(1, 4, 2).unwrap(), vec![4.0, 5.0, 10.0, 11.0, 16.0, 17.0, 22.0]),
        ];
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for (view, expected) in &views {
                let view = view.to_dtype(dtype).unwrap();
                let (read, bytes) = with_floats(&view, |floats| {
                    let mut read = vec![0.0; 7];
                    floats.read(0, &mut read);
                    let mut bytes = vec![0; 7 * floats.size()];
                    floats.bytes(0..bytes.len(), &mut bytes)?;
                    Ok((read, bytes))
                })
                .unwrap();
                assert_eq!(read, *expected);
                let third = match dtype {
                    DType::F32 => f32::from_le_bytes(bytes[8..12].try_into().unwrap()),
                    DType::F16 => f16::from_le_bytes([bytes[4], bytes[5]]).to_f32(),
                    _ => bf16::from_le_bytes([bytes[4], bytes[5]]).to_f32(),
                };
                assert_eq!(third, expected[2]);
            }
        }
    }

    #[test]
    fn other_dtypes_and_ranges_outside_are_errors() {
        let ints = Tensor::arange(0_u32, 4, &Device::Cpu).unwrap();
        let error = with_floats(&ints, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("found u32"), "{error}");
        let floats = Floats::F32(&[1.0, 2.0]);
        for (range, len) in [(0..12, 12), (1..5, 4), (0..4, 8), (0..3, 3)] {
            assert_eq!(floats.bytes(range, &mut vec![0; len]).unwrap_err().kind(), ErrorKind::Internal);
        }
    }
}
