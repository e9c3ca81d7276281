//! Element types of stored tensors, and the exact conversion of the float ones to f32.

use std::fmt;

pub(crate) use ::safetensors::Dtype;
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::de::{Deserialize, IntoDeserializer};

/// The dtype that headers call `name`; if there is none, the names that there are.
pub(super) fn dtype_named(name: &str) -> Result<Dtype, &'static [&'static str]> {
    Dtype::deserialize(name.into_deserializer()).map_err(|UnknownName(known)| known)
}

/// What the crate says of a name that it does not know: those that it knows.
#[derive(Debug)]
struct UnknownName(&'static [&'static str]);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected one of {}", self.0.join(", "))
    }
}

impl std::error::Error for UnknownName {}

impl serde::de::Error for UnknownName {
    fn custom<T: fmt::Display>(_: T) -> Self {
        UnknownName(&[])
    }
    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        UnknownName(known)
    }
}

/// A float type that weights may be stored in. All convert to f32 exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatType {
    F32,
    F16,
    BF16,
}

impl FloatType {
    /// That of `dtype`, if its elements can be read as f32 without rounding.
    pub(crate) fn of(dtype: Dtype) -> Option<FloatType> {
        match dtype {
            Dtype::F32 => Some(FloatType::F32),
            Dtype::F16 => Some(FloatType::F16),
            Dtype::BF16 => Some(FloatType::BF16),
            _ => None,
        }
    }

    /// Size of one element in bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }

    /// Converts little-endian elements, at any alignment, to f32.
    ///
    /// # Panics
    /// If `data` is not `out.len()` elements long.
    pub(crate) fn decode(self, data: &[u8], out: &mut [f32]) {
        assert_eq!(data.len(), out.len() * self.bytes(), "length of the data");
        match self {
            FloatType::F32 => {
                for (x, bytes) in out.iter_mut().zip(data.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            FloatType::BF16 => {
                for (x, bytes) in out.iter_mut().zip(data.as_chunks::<2>().0) {
                    *x = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                }
            }
            FloatType::F16 => {
                // By way of an aligned buffer, because `half` converts slices with the CPU's instructions.
                const CHUNK: usize = 256;
                let mut buffer = [f16::ZERO; CHUNK];
                for (out, data) in out.chunks_mut(CHUNK).zip(data.chunks(CHUNK * 2)) {
                    for (x, bytes) in buffer.iter_mut().zip(data.as_chunks::<2>().0) {
                        *x = f16::from_le_bytes(*bytes);
                    }
                    buffer[..out.len()].convert_to_f32_slice(out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let known = dtype_named("f32").unwrap_err();
        assert!(known.len() >= 22, "{known:?}");
        for name in known {
            assert_eq!(dtype_named(name).unwrap().to_string(), *name);
        }
    }

    #[test]
    fn every_16_bit_pattern_is_exact_and_alignment_does_not_matter() {
        let mut bytes = vec![0_u8];
        bytes.extend((0..=u16::MAX).flat_map(u16::to_le_bytes));
        let mut out = vec![f32::NAN; 1 << 16];
        FloatType::F16.decode(&bytes[1..], &mut out);
        for (bits, &x) in (0..=u16::MAX).zip(&out) {
            let expected = f16::from_bits(bits).to_f64();
            assert!(f64::from(x) == expected || (x.is_nan() && expected.is_nan()), "{bits:#x}");
        }
        FloatType::BF16.decode(&bytes[1..], &mut out);
        for (bits, &x) in (0..=u16::MAX).zip(&out) {
            assert_eq!(x.to_bits(), u32::from(bits) << 16);
        }
    }

    #[test]
    fn f32_is_little_endian() {
        let mut out = [0.0; 2];
        FloatType::F32.decode(&[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc1], &mut out);
        assert_eq!(out, [1.0, -10.0]);
    }
}
