//! Block formats: codes and scales as they are stored, and their values as f32.
//!
//! Every format is `code * scale` or `code * scale + min` over groups of 16 or 32 weights. Layouts, in bytes:
//! ```text
//! Q8_0    d f16, codes 32                                        code * d
//! Q4_0    d f16, nibbles 16                                      (code - 8) * d
//! Q4_1    d f16, m f16, nibbles 16                               code * d + m
//! Q5_0    d f16, high bits 4, nibbles 16                         (code - 16) * d
//! Q5_1    d f16, m f16, high bits 4, nibbles 16                  code * d + m
//! IQ4_NL  d f16, nibbles 16                                      table[code] * d
//! MXFP4   e u8, nibbles 16                                       table[code] * 2^(e - 128)
//! Q2_K    scales and minima 16 (4 bits each), pairs of bits 64, d, dmin      code * (d s) - dmin m, groups of 16
//! Q3_K    high bits 32, pairs of bits 64, scales 12 (6 bits), d              (code - 4) * (d (s - 32)), groups of 16
//! Q4_K    d, dmin, scales and minima 12 (6 bits), nibbles 128                code * (d s) - dmin m, groups of 32
//! Q5_K    d, dmin, scales and minima 12 (6 bits), high bits 32, nibbles 128  likewise
//! Q6_K    nibbles 128, pairs of high bits 64, scales 16 (i8), d              (code - 32) * (d s), groups of 16
//! IQ4_XS  d, high bits of scales 2, low 4 (6 bits), nibbles 128              table[code] * (d (s - 32)), groups of 32
//! ```
//! The first half of a nibble array's weights are the low nibbles, the second half the high ones. All products but those
//! with a minimum are exact in f32; those with one are rounded once.
//! Source: <https://github.com/ggml-org/ggml>, `ggml-common.h` and `ggml-quants.c`.

use clawdbot_kernels::StoredScale;
use half::f16;

use super::TensorType;

/// Most weights of a block.
const MAX_BLOCK: usize = 256;
/// Most groups of a block.
const MAX_GROUPS: usize = 16;

/// Codes of IQ4_NL and IQ4_XS.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of E2M1, of MXFP4.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// A block format.
pub(super) trait Block {
    /// Weights of a block, bytes of a block, weights of a group.
    const WEIGHTS: usize;
    const BYTES: usize;
    const GROUP: usize;
    /// What is subtracted from a code.
    const ZERO: i8;
    /// The codes and scales of `block`, `[BYTES]`: `[WEIGHTS]` and `[WEIGHTS / GROUP]`.
    fn unpack(block: &[u8], codes: &mut [i8], scales: &mut [StoredScale]);
}

macro_rules! block {
    ($name:ident, $kind:ident, group $group:literal, zero $zero:literal, |$b:ident, $codes:ident, $scales:ident| $body:block) => {
        pub(super) struct $name;
        impl Block for $name {
            const WEIGHTS: usize = TensorType::$kind.block();
            const BYTES: usize = TensorType::$kind.block_bytes();
            const GROUP: usize = $group;
            const ZERO: i8 = $zero;
            #[inline(always)]
            fn unpack($b: &[u8], $codes: &mut [i8], $scales: &mut [StoredScale]) {
                let $b: &[u8; Self::BYTES] = $b.as_array().expect("a whole block");
                let $codes: &mut [i8; Self::WEIGHTS] = $codes.as_mut_array().expect("the codes of a block");
                let $scales: &mut [StoredScale; Self::WEIGHTS / Self::GROUP] =
                    $scales.as_mut_array().expect("the scales of a block");
                $body
            }
        }
    };
}

fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_bits(u16_at(block, at)).to_f32()
}

block!(Q8_0, Q8_0, group 32, zero 0, |b, codes, scales| {
    for (code, byte) in codes.iter_mut().zip(&b[2..]) {
        *code = *byte as i8;
    }
    scales[0] = StoredScale::One(u16_at(b, 0));
});

block!(Q4_0, Q4_0, group 32, zero 8, |b, codes, scales| {
    nibbles(&b[2..], codes, |nibble| nibble as i8);
    scales[0] = StoredScale::One(u16_at(b, 0));
});

block!(Q4_1, Q4_1, group 32, zero 0, |b, codes, scales| {
    nibbles(&b[4..], codes, |nibble| nibble as i8);
    scales[0] = StoredScale::Two([u16_at(b, 0), u16_at(b, 2)]);
});

block!(Q5_0, Q5_0, group 32, zero 0, |b, codes, scales| {
    nibbles(&b[6..], codes, |nibble| nibble as i8 - 16);
    fifth_bits(&b[2..6], codes);
    scales[0] = StoredScale::One(u16_at(b, 0));
});

block!(Q5_1, Q5_1, group 32, zero 0, |b, codes, scales| {
    nibbles(&b[8..], codes, |nibble| nibble as i8);
    fifth_bits(&b[4..8], codes);
    scales[0] = StoredScale::Two([u16_at(b, 0), u16_at(b, 2)]);
});

block!(Iq4Nl, Iq4Nl, group 32, zero 0, |b, codes, scales| {
    nibbles(&b[2..], codes, |nibble| IQ4[usize::from(nibble)]);
    scales[0] = StoredScale::One(u16_at(b, 0));
});

block!(Mxfp4, Mxfp4, group 32, zero 0, |b, codes, scales| {
    nibbles(&b[1..], codes, |nibble| E2M1[usize::from(nibble)]);
    // 2^(e - 128) as bf16; below 2^-126 it is subnormal.
    scales[0] = StoredScale::One(match b[0] {
        0 => 0x20,
        1 => 0x40,
        e => u16::from(e - 1) << 7,
    });
});

block!(Q2K, Q2K, group 16, zero 0, |b, codes, scales| {
    for half in 0..2 {
        for pair in 0..4 {
            for i in 0..32 {
                codes[128 * half + 32 * pair + i] = (b[16 + 32 * half + i] >> (2 * pair) & 3) as i8;
            }
        }
    }
    let (d, d_min) = (f16_at(b, 80), f16_at(b, 82));
    for (scale, byte) in scales.iter_mut().zip(&b[..16]) {
        *scale = StoredScale::Floats([d * f32::from(byte & 15), 0.0 - d_min * f32::from(byte >> 4)]);
    }
});

// Codes of four bits have 8 subtracted, not 4.
block!(Q3K, Q3K, group 16, zero 8, |b, codes, scales| {
    for half in 0..2 {
        for pair in 0..4 {
            for i in 0..32 {
                let low = b[32 + 32 * half + i] >> (2 * pair) & 3;
                let high = b[i] >> (4 * half + pair) & 1;
                codes[128 * half + 32 * pair + i] = (low | high << 2) as i8 + 4;
            }
        }
    }
    let d = u16_at(b, 108);
    for (i, scale) in scales.iter_mut().enumerate() {
        // Four low bits in the first eight bytes, two high bits in the last four.
        let low = b[96 + i % 8] >> (i / 8 * 4) & 15;
        let high = b[104 + i % 4] >> (i / 4 * 2) & 3;
        *scale = StoredScale::Superblock16(d, (low | high << 4) as i8 - 32);
    }
});

block!(Q4K, Q4K, group 32, zero 0, |b, codes, scales| {
    for pair in 0..4 {
        nibbles(&b[16 + 32 * pair..][..32], &mut codes[64 * pair..][..64], |nibble| nibble as i8);
    }
    super_scales(b, scales);
});

block!(Q5K, Q5K, group 32, zero 0, |b, codes, scales| {
    for pair in 0..4 {
        nibbles(&b[48 + 32 * pair..][..32], &mut codes[64 * pair..][..64], |nibble| nibble as i8);
    }
    for group in 0..8 {
        for i in 0..32 {
            codes[32 * group + i] |= ((b[16 + i] >> group & 1) << 4) as i8;
        }
    }
    super_scales(b, scales);
});

block!(Q6K, Q6K, group 16, zero 32, |b, codes, scales| {
    for half in 0..2 {
        for quarter in 0..4 {
            for i in 0..32 {
                let low = b[64 * half + 32 * (quarter % 2) + i] >> (quarter / 2 * 4) & 15;
                let high = b[128 + 32 * half + i] >> (2 * quarter) & 3;
                codes[128 * half + 32 * quarter + i] = (low | high << 4) as i8;
            }
        }
    }
    let d = u16_at(b, 208);
    for (scale, byte) in scales.iter_mut().zip(&b[192..208]) {
        *scale = StoredScale::Superblock16(d, *byte as i8);
    }
});

block!(Iq4Xs, Iq4Xs, group 32, zero 0, |b, codes, scales| {
    let d = f16_at(b, 0);
    for (group, scale) in scales.iter_mut().enumerate() {
        nibbles(&b[8 + 16 * group..][..16], &mut codes[32 * group..][..32], |nibble| IQ4[usize::from(nibble)]);
        let low = b[4 + group / 2] >> (group % 2 * 4) & 15;
        let high = u16_at(b, 2) >> (2 * group) & 3;
        *scale = StoredScale::Float(d * f32::from((low | (high as u8) << 4) as i8 - 32));
    }
});

/// Low nibbles to the first half of `codes`, high ones to the second.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [i8], code: impl Fn(u8) -> i8) {
    let (low, high) = codes.split_at_mut(bytes.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (code(byte & 15), code(byte >> 4));
    }
}

/// Adds 16 to the codes whose bit is set.
#[inline(always)]
fn fifth_bits(bits: &[u8], codes: &mut [i8]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code += ((bits[i / 8] >> (i % 8) & 1) << 4) as i8;
    }
}

/// The scales of Q4_K and Q5_K: `d`, `dmin`, then eight scales and eight minima of 6 bits. The first four of each have a
/// byte each. Their upper two bits belong to the last four, whose lower four bits share the last four bytes.
#[inline(always)]
fn super_scales(block: &[u8], scales: &mut [StoredScale; 8]) {
    let d = [u16_at(block, 0), u16_at(block, 2)];
    let packed = &block[4..16];
    for (i, scale) in scales.iter_mut().enumerate() {
        let s = match i {
            0..4 => [packed[i] & 63, packed[i + 4] & 63],
            _ => {
                let low = packed[i + 4];
                [low & 15 | packed[i - 4] >> 6 << 4, low >> 4 | packed[i] >> 6 << 4]
            }
        };
        *scale = StoredScale::Superblock(d, s);
    }
}

/// `$body` with `$b` as the [`Block`] of `$kind`; `$float` for types that are no blocks.
macro_rules! for_block {
    ($kind:expr, $b:ident => $body:expr, _ => $float:expr) => {
        match $kind {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => $float,
            TensorType::Q8_0 => {
                type $b = Q8_0;
                $body
            }
            TensorType::Q4_0 => {
                type $b = Q4_0;
                $body
            }
            TensorType::Q4_1 => {
                type $b = Q4_1;
                $body
            }
            TensorType::Q5_0 => {
                type $b = Q5_0;
                $body
            }
            TensorType::Q5_1 => {
                type $b = Q5_1;
                $body
            }
            TensorType::Q2K => {
                type $b = Q2K;
                $body
            }
            TensorType::Q3K => {
                type $b = Q3K;
                $body
            }
            TensorType::Q4K => {
                type $b = Q4K;
                $body
            }
            TensorType::Q5K => {
                type $b = Q5K;
                $body
            }
            TensorType::Q6K => {
                type $b = Q6K;
                $body
            }
            TensorType::Iq4Nl => {
                type $b = Iq4Nl;
                $body
            }
            TensorType::Iq4Xs => {
                type $b = Iq4Xs;
                $body
            }
            TensorType::Mxfp4 => {
                type $b = Mxfp4;
                $body
            }
        }
    };
}

impl TensorType {
    /// Values of whole blocks, at any alignment.
    ///
    /// # Panics
    /// If `data` is not as long as `out` says, or `out` is no multiple of the block.
    pub(crate) fn decode(self, data: &[u8], out: &mut [f32]) {
        assert!(
            out.len().is_multiple_of(self.block())
                && data.len() == out.len() / self.block() * self.block_bytes(),
            "{} bytes for {} weights of {}",
            data.len(),
            out.len(),
            self.name()
        );
        for_block!(self, B => decode::<B>(self, data, out), _ => self.float().expect("no blocks").decode(data, out));
    }

    /// Codes and scales of whole blocks: `[weights]` and, after what `scales` has, one per group.
    ///
    /// # Panics
    /// As [`decode`](Self::decode), and for types that are no blocks.
    pub(crate) fn codes(self, data: &[u8], codes: &mut [i8], scales: &mut Vec<StoredScale>) {
        for_block!(self, B => unpack::<B>(data, codes, scales), _ => panic!("{} has no codes", self.name()));
    }
}

fn unpack<B: Block>(data: &[u8], codes: &mut [i8], scales: &mut Vec<StoredScale>) {
    assert!(codes.len().is_multiple_of(B::WEIGHTS) && data.len() == codes.len() / B::WEIGHTS * B::BYTES);
    let mut block_scales = [StoredScale::One(0); MAX_GROUPS];
    let block_scales = &mut block_scales[..B::WEIGHTS / B::GROUP];
    for (block, codes) in data.chunks_exact(B::BYTES).zip(codes.chunks_exact_mut(B::WEIGHTS)) {
        B::unpack(block, codes, block_scales);
        scales.extend_from_slice(block_scales);
    }
}

fn decode<B: Block>(kind: TensorType, data: &[u8], out: &mut [f32]) {
    let (mut codes, mut scales) = ([0; MAX_BLOCK], [StoredScale::One(0); MAX_GROUPS]);
    let (codes, scales) = (&mut codes[..B::WEIGHTS], &mut scales[..B::WEIGHTS / B::GROUP]);
    for (block, out) in data.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::WEIGHTS)) {
        B::unpack(block, codes, scales);
        let groups = codes.chunks_exact(B::GROUP).zip(&*scales);
        for (out, (codes, scale)) in out.chunks_exact_mut(B::GROUP).zip(groups) {
            let (scale, min) = value(kind, *scale);
            for (x, code) in out.iter_mut().zip(codes) {
                *x = f32::from(*code - B::ZERO) * scale + min;
            }
        }
    }
}

/// Scale and minimum.
fn value(kind: TensorType, scale: StoredScale) -> (f32, f32) {
    let float = |bits: u16| f16::from_bits(bits).to_f32();
    match scale {
        StoredScale::One(bits) if kind == TensorType::Mxfp4 => (f32::from_bits(u32::from(bits) << 16), 0.0),
        StoredScale::One(bits) => (float(bits), 0.0),
        StoredScale::Float(scale) => (scale, 0.0),
        StoredScale::Two([scale, min]) => (float(scale), float(min)),
        StoredScale::Floats([scale, min]) => (scale, min),
        StoredScale::Superblock([d, d_min], [s, m]) => {
            (float(d) * f32::from(s), 0.0 - float(d_min) * f32::from(m))
        }
        StoredScale::Superblock16(d, s) => (float(d) * f32::from(s), 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::DataFile;
    use crate::weights::gguf::GgufHeader;

    /// Made by `make.py` next to it.
    const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/gguf/types.gguf");

    #[test]
    fn every_format_is_what_others_make_of_it() {
        let header = GgufHeader::read(&DataFile::from_memory(GOLDEN, "types.gguf")).unwrap();
        let tensor = |name: &str| header.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        for &kind in TensorType::ALL.iter().filter(|&&kind| kind != TensorType::F32) {
            let stored = tensor(kind.name());
            assert_eq!((stored.kind, stored.shape.as_slice()), (kind, &[3, 512][..]));
            let mut found = vec![f32::NAN; 3 * 512];
            kind.decode(&GOLDEN[stored.range.clone()], &mut found);
            let expected = tensor(&format!("{}.expected", kind.name()));
            assert_eq!(expected.kind, TensorType::F32);
            let expected = &GOLDEN[expected.range.clone()];
            for (i, (found, expected)) in found.iter().zip(expected.as_chunks::<4>().0).enumerate() {
                let expected = f32::from_le_bytes(*expected);
                assert_eq!(*found, expected, "{}: weight {i}", kind.name());
            }
        }
    }

    #[test]
    fn codes_and_scales_give_the_values() {
        let header = GgufHeader::read(&DataFile::from_memory(GOLDEN, "types.gguf")).unwrap();
        for tensor in header.tensors.iter().filter(|tensor| tensor.kind.float().is_none()) {
            let data = &GOLDEN[tensor.range.clone()];
            let (mut codes, mut scales, mut values) = (vec![0; 1536], vec![], vec![0.0; 1536]);
            tensor.kind.codes(data, &mut codes, &mut scales);
            tensor.kind.decode(data, &mut values);
            let group = codes.len() / scales.len();
            let zero = match tensor.kind {
                TensorType::Q4_0 | TensorType::Q3K => 8,
                TensorType::Q6K => 32,
                _ => 0,
            };
            for (i, (code, expected)) in codes.iter().zip(&values).enumerate() {
                let (scale, min) = value(tensor.kind, scales[i / group]);
                assert_eq!(f32::from(code - zero) * scale + min, *expected, "{}: weight {i}", tensor.name);
            }
        }
    }
}
