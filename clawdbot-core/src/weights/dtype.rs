//! Element types of stored tensors, and the exact conversion of the float ones to f32.

use half::f16;
use half::slice::HalfFloatSliceExt;

macro_rules! dtypes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $bits:literal;)+) => {
        /// Element type as named in safetensors headers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Dtype { $($(#[doc = $doc])+ $variant,)+ }

        impl Dtype {
            /// Every dtype that a file may contain.
            pub(crate) const ALL: &'static [Dtype] = &[$(Dtype::$variant,)+];

            /// Name in the header.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Dtype::$variant => $name,)+ }
            }

            /// Size of one element in bits.
            pub(crate) fn bits(self) -> u64 {
                match self { $(Dtype::$variant => $bits,)+ }
            }
        }
    };
}

dtypes! {
    /// IEEE binary32.
    F32 = "F32", 32;
    /// IEEE binary16.
    F16 = "F16", 16;
    /// The upper half of a binary32.
    BF16 = "BF16", 16;
    /// Signed byte.
    I8 = "I8", 8;
    /// Unsigned byte.
    U8 = "U8", 8;
    /// Byte of truth.
    Bool = "BOOL", 8;
    /// 16-bit signed.
    I16 = "I16", 16;
    /// 16-bit unsigned.
    U16 = "U16", 16;
    /// 32-bit signed.
    I32 = "I32", 32;
    /// 32-bit unsigned.
    U32 = "U32", 32;
    /// 64-bit signed.
    I64 = "I64", 64;
    /// 64-bit unsigned.
    U64 = "U64", 64;
    /// IEEE binary64.
    F64 = "F64", 64;
    /// Two binary32.
    C64 = "C64", 64;
    /// 8-bit float, 4 exponent bits.
    F8E4M3 = "F8_E4M3", 8;
    /// 8-bit float, 5 exponent bits.
    F8E5M2 = "F8_E5M2", 8;
    /// 8-bit power of two.
    F8E8M0 = "F8_E8M0", 8;
    /// 6-bit float, 3 mantissa bits.
    F6E2M3 = "F6_E2M3", 6;
    /// 6-bit float, 2 mantissa bits.
    F6E3M2 = "F6_E3M2", 6;
    /// 4-bit float.
    F4 = "F4", 4;
}

impl Dtype {
    pub(crate) fn from_name(name: &str) -> Option<Dtype> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }

    /// The float type, if elements of it can be read as f32 without rounding.
    pub(crate) fn float(self) -> Option<FloatType> {
        match self {
            Dtype::F32 => Some(FloatType::F32),
            Dtype::F16 => Some(FloatType::F16),
            Dtype::BF16 => Some(FloatType::BF16),
            _ => None,
        }
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
        for &dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::from_name("f32"), None);
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
