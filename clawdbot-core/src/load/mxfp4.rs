//! MXFP4 as gpt-oss checkpoints store experts: blocks of 32 four-bit floats with a power of two each.
//!
//! OCP Microscaling Formats, version 1.0: an element is E2M1 (sign, 2 exponent bits, 1 mantissa bit), a scale E8M0, which
//! is `2^(byte - 127)`. A byte holds element 2j in its low half and 2j + 1 in its high half. Every value is exact in bf16.

use std::ops::Range;

use clawdbot_kernels::RowSource;

use crate::error::{Error, Result};
use crate::spec::tensors::Part;
use crate::weights::{Dtype, MatrixSize, TensorView, WeightSource};

/// Elements of a block.
const BLOCK: usize = 32;
/// Bytes of a block's elements.
const BYTES: usize = BLOCK / 2;
/// What codes stand for.
const VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The two tensors of a part.
fn tensors<'a>(part: &Part, weights: &'a WeightSource) -> Result<[TensorView<'a>; 2]> {
    let Some((&k, outer)) = part.shape.split_last() else {
        return Err(Error::internal("an MXFP4 tensor without dimensions"));
    };
    if !k.is_multiple_of(BLOCK) {
        return Err(Error::unsupported_model(format!(
            "{}: MXFP4: expected rows of a multiple of {BLOCK}, found {k}",
            part.tensor
        )));
    }
    let scales = [outer, &[k / BLOCK]].concat();
    let blocks = [scales.as_slice(), &[BYTES]].concat();
    Ok([
        weights.typed(&format!("{}_blocks", part.tensor), &blocks, &[Dtype::U8])?,
        weights.typed(&format!("{}_scales", part.tensor), &scales, &[Dtype::U8])?,
    ])
}

/// Checks that the tensors of a part are there. Returns their names.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(crate) fn check(part: &Part, weights: &WeightSource) -> Result<[String; 2]> {
    Ok(tensors(part, weights)?.map(|tensor| tensor.name.to_owned()))
}

/// Rows of a tensor in MXFP4.
pub(crate) struct Mxfp4Rows<'a> {
    blocks: TensorView<'a>,
    scales: TensorView<'a>,
    part: Part,
    n: usize,
    k: usize,
}

impl<'a> Mxfp4Rows<'a> {
    /// # Errors
    /// As [`check`].
    pub(crate) fn new(
        weights: &'a WeightSource,
        part: &Part,
        MatrixSize { n, k }: MatrixSize,
    ) -> Result<Self> {
        let [blocks, scales] = tensors(part, weights)?;
        Ok(Mxfp4Rows { blocks, scales, part: part.clone(), n, k })
    }
}

impl RowSource for Mxfp4Rows<'_> {
    fn rows(&self) -> usize {
        self.n
    }
    fn cols(&self) -> usize {
        self.k
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        // Of each row: its blocks, then their scales.
        let (blocks, scales) = (self.k / 2, self.k / BLOCK);
        buffer.clear();
        for row in rows {
            let row = self.part.row(row);
            for (tensor, bytes) in [(&self.blocks, blocks), (&self.scales, scales)] {
                let start = buffer.len();
                buffer.resize(start + bytes, 0);
                tensor.file.read_at(tensor.range.start + row * bytes, &mut buffer[start..])?;
            }
        }
        Ok(())
    }
    fn read_row(&self, _: usize, stored: &[u8], out: &mut [f32]) {
        let (blocks, scales) = stored.split_at(self.k / 2);
        for ((out, block), &scale) in out.chunks_mut(BLOCK).zip(blocks.chunks(BYTES)).zip(scales) {
            let scale = power_of_two(scale);
            for (pair, byte) in out.chunks_mut(2).zip(block) {
                pair[0] = VALUES[usize::from(byte & 15)] * scale;
                pair[1] = VALUES[usize::from(byte >> 4)] * scale;
            }
        }
    }
}

/// `2^(byte - 127)`; 255 stands for NaN.
fn power_of_two(byte: u8) -> f32 {
    match byte {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(byte) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::spec::tensors::PartStorage;
    use crate::weights::testing::safetensors;

    fn part(shape: &[usize]) -> Part {
        let (first, run, stride) = (3, 1, 2);
        Part {
            tensor: "e".to_owned(),
            shape: shape.to_vec(),
            first,
            run,
            stride,
            storage: PartStorage::Mxfp4,
        }
    }

    #[test]
    fn rows_are_picked_and_decoded() {
        // Two experts of three rows of two blocks; byte i of all blocks is i.
        let blocks: Vec<u8> = (0..2 * 3 * 2 * 16_u8).collect();
        let scales: Vec<u8> = (0..12).map(|i| 120 + i).collect();
        let tensors =
            [("e_blocks", "U8", &[2, 3, 2, 16][..], blocks), ("e_scales", "U8", &[2, 3, 2], scales)];
        let source = WeightSource::from_static(safetensors("{}", &tensors).leak(), "test").unwrap();
        let part = part(&[2, 3, 64]);
        assert_eq!(check(&part, &source).unwrap(), ["e_blocks", "e_scales"]);
        let rows = Mxfp4Rows::new(&source, &part, MatrixSize { n: 2, k: 64 }).unwrap();
        let (mut stored, mut out) = (Vec::new(), [0.0; 64]);
        rows.fetch(0..2, &mut stored).unwrap();
        // Row 1 of the part is row 5 of all: bytes from 160, scales 130 and 131.
        rows.read_row(1, &stored[34..], &mut out);
        assert_eq!(out[..4], [VALUES[0] * 8.0, VALUES[10] * 8.0, VALUES[1] * 8.0, VALUES[10] * 8.0]);
        assert_eq!(out[62..], [VALUES[15] * 16.0, VALUES[11] * 16.0]);
        let missing = Part { tensor: "f".to_owned(), ..part };
        assert_eq!(check(&missing, &source).unwrap_err().kind(), ErrorKind::InvalidModel);
        let odd = Part { shape: vec![2, 3, 48], ..missing };
        assert_eq!(check(&odd, &source).unwrap_err().kind(), ErrorKind::UnsupportedModel);
    }

    #[test]
    fn scales_are_powers_of_two() {
        assert_eq!(
            (power_of_two(127), power_of_two(1), power_of_two(254)),
            (1.0, 2.0_f32.powi(-126), 2.0_f32.powi(127))
        );
        assert_eq!(power_of_two(0), 2.0_f32.powi(-127));
        assert!(power_of_two(255).is_nan());
    }
}
