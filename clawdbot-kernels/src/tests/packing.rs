//! Packing, sizes, and reading back.

use proptest::prelude::*;

use super::gemm::{FORMATS, rotated};
use super::*;
use crate::error::Error;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn packing_round_trips(seed: u64, n in 1..70_usize, k in 1..300_usize, format in 0..FORMATS.len(), split in 0..70_usize) {
        let format = FORMATS[format];
        let weights = Noise(seed).vec(n * k);
        let split = split.min(n);
        let first = dense(split, k, weights[..split * k].to_vec());
        let second = dense(n - split, k, weights[split * k..].to_vec());
        for kernels in available() {
            let packed = in_region(2, |region| PackedMatrix::pack(kernels, region, format, &[&first, &second]).unwrap());
            prop_assert_eq!((packed.n(), packed.k(), packed.format()), (n, k, format));
            let mut row = vec![f32::NAN; k];
            for (index, weights) in weights.chunks(k).enumerate() {
                packed.read_row(kernels, index, &mut row);
                for (at, (found, expected)) in row.iter().zip(weights).enumerate() {
                    let bound = match format {
                        ComputeFormat::F32 => 0.0,
                        ComputeFormat::Int4 { .. }
                    | ComputeFormat::Stored6 { .. }
                    | ComputeFormat::Stored8 { .. } => {
                            unreachable!("see tests_int4")
                        }
                        ComputeFormat::Bf16 => expected.abs() / 256.0,
                        ComputeFormat::Int8 { rotated: true, .. } => {
                            let amax = self::rotated(weights).iter().fold(0.0_f32, |a, w| a.max(w.abs()));
                            // Half a step for each of 64 rotated elements: as a vector, eight halves long.
                            8.0 * amax / 127.0 * 0.5 * 1.01
                        }
                        ComputeFormat::Int8 { group, rotated: false } => {
                            let first = at / group * group;
                            let amax = weights[first..(first + group).min(k)].iter().fold(0.0_f32, |a, w| a.max(w.abs()));
                            // Half a step; the step is up to 1/128 too large.
                            amax / 127.0 * 0.5 * 1.009
                        }
                    };
                    prop_assert!((found - expected).abs() <= bound, "{} {:?}: {} {}", kernels.name, format, found, expected);
                }
            }
        }
    }
}

/// Rows that are int8 already.
struct Stored {
    codes: Vec<i8>,
    scales: Vec<u16>,
    group: usize,
    cols: usize,
}

impl RowSource for Stored {
    fn rows(&self) -> usize {
        self.codes.len() / self.cols
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        for (at, out) in out.iter_mut().enumerate() {
            let scale = self.scales[row * self.cols.div_ceil(self.group) + at / self.group];
            *out = f32::from(self.codes[row * self.cols + at]) * half::bf16::from_bits(scale).to_f32();
        }
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        Some(ComputeFormat::Int8 { group: self.group, rotated: false })
    }
    fn read_codes(
        &self,
        row: usize,
        _: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> Result<()> {
        let groups = self.cols.div_ceil(self.group);
        codes.copy_from_slice(&self.codes[row * self.cols..][..self.cols]);
        scales.extend(self.scales[row * groups..][..groups].iter().map(|&bits| StoredScale::One(bits)));
        Ok(())
    }
}

#[test]
fn int8_rows_are_taken_over() {
    let (cols, group) = (72, 32);
    // No code is extreme, so quantizing again would choose other scales.
    let codes: Vec<i8> = (0..20 * cols).map(|i| (i % 101) as i8 - 50).collect();
    let scales = (0..20 * 3).map(|i| half::bf16::from_f32(0.01 * (i + 1) as f32).to_bits()).collect();
    let stored = Stored { codes, scales, group, cols };
    let kernels = select(None).unwrap();
    in_region(2, |region| {
        let same =
            PackedMatrix::pack(kernels, region, ComputeFormat::Int8 { group, rotated: false }, &[&stored])
                .unwrap();
        let other = PackedMatrix::pack(
            kernels,
            region,
            ComputeFormat::Int8 { group: 64, rotated: false },
            &[&stored],
        )
        .unwrap();
        let (mut expected, mut found) = (vec![0.0; cols], vec![f32::NAN; cols]);
        for row in 0..20 {
            stored.read_row(row, &[], &mut expected);
            same.read_row(kernels, row, &mut found);
            assert_eq!(bits(&found), bits(&expected));
            other.read_row(kernels, row, &mut found);
            assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 0.16));
        }
    });
}

#[test]
fn packed_bytes_are_checked() {
    let int8 = ComputeFormat::Int8 { group: 32, rotated: false };
    assert_eq!(PackedMatrix::packed_bytes(int8, 17, 33).unwrap(), 32 * 36 + 32 * 2 * 2);
    assert_eq!(PackedMatrix::packed_bytes(ComputeFormat::Bf16, 16, 3).unwrap(), 16 * 4 * 2);
    assert_eq!(PackedMatrix::packed_bytes(ComputeFormat::F32, 1, 3).unwrap(), 16 * 3 * 4);
    for (n, k) in [(usize::MAX, 2), (1 << 40, 1 << 30), (2, usize::MAX)] {
        assert!(matches!(PackedMatrix::packed_bytes(int8, n, k).unwrap_err(), Error::OutOfMemory { .. }));
    }
    for group in [0, 2, 33, 1 << 20] {
        let error =
            PackedMatrix::packed_bytes(ComputeFormat::Int8 { group, rotated: false }, 16, 16).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)));
    }
}
