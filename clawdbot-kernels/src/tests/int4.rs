//! int4, and codes of six and eight bits used as stored: kernels on every ISA against the definition, the quantizer, packing, and reading back.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::error::Error;

const KINDS: [GroupScales; 7] = [
    GroupScales::Bf16,
    GroupScales::F16,
    GroupScales::F32,
    GroupScales::F16Min,
    GroupScales::F32Min,
    GroupScales::Superblock,
    GroupScales::Superblock16,
];

/// Every kind with codes of four bits, all but the first with codes of eight, and the last two with codes of six.
fn formats() -> impl Iterator<Item = (GroupScales, u8)> {
    let all = [(4, &KINDS[..]), (8, &KINDS[1..]), (6, &KINDS[5..])];
    all.into_iter().flat_map(|(bits, kinds)| kinds.iter().map(move |kind| (*kind, bits)))
}

/// Rows that are codes already.
#[derive(Clone)]
struct Stored {
    group: usize,
    kind: GroupScales,
    /// Of a code.
    bits: u8,
    cols: usize,
    codes: Vec<i8>,
    scales: Vec<StoredScale>,
}

impl Stored {
    fn random(
        noise: &mut Noise,
        rows: usize,
        cols: usize,
        group: usize,
        (kind, bits): (GroupScales, u8),
    ) -> Self {
        // Of eight bits some are -128, and some 127.
        let code = |x: f32| match bits {
            8 => (x * 140.0) as i8,
            6 => (x * 32.0 + 32.0) as i8 & 63,
            _ => (x * 8.0 + 8.0) as i8 & 15,
        };
        let codes = (0..rows * cols).map(|_| code(noise.next())).collect();
        let mut supers = [0; 2];
        let mut scale = |g: usize| match kind {
            GroupScales::Bf16 => StoredScale::One(bf16::from_f32(noise.next()).to_bits()),
            GroupScales::F16 => StoredScale::One(f16::from_f32(noise.next()).to_bits()),
            GroupScales::F32 => StoredScale::Float(noise.next()),
            GroupScales::F16Min => {
                StoredScale::Two([noise.next(), noise.next()].map(|x| f16::from_f32(x).to_bits()))
            }
            GroupScales::F32Min => StoredScale::Floats([noise.next(), noise.next()]),
            GroupScales::Superblock => {
                if g.is_multiple_of(8) {
                    supers = [noise.next(), noise.next()].map(|x| f16::from_f32(x).to_bits());
                }
                StoredScale::Superblock(
                    supers,
                    [noise.next(), noise.next()].map(|x| (x * 32.0 + 32.0) as u8 & 63),
                )
            }
            GroupScales::Superblock16 => {
                if g.is_multiple_of(16) {
                    supers[0] = f16::from_f32(noise.next()).to_bits();
                }
                StoredScale::Superblock16(supers[0], (noise.next() * 140.0) as i8)
            }
        };
        let groups = cols.div_ceil(group);
        let scales = (0..rows).flat_map(|_| (0..groups).map(&mut scale).collect::<Vec<_>>()).collect();
        Stored { group, kind, bits, cols, codes, scales }
    }

    /// Scale, minimum and what codes are lessened by.
    fn scale(&self, row: usize, g: usize) -> (f32, f32, i32) {
        let f = |bits: u16| f16::from_bits(bits).to_f32();
        let zero = [8, 32, 0][usize::from(self.bits) / 2 - 2];
        match (self.kind, self.scales[row * self.cols.div_ceil(self.group) + g]) {
            (GroupScales::Bf16, StoredScale::One(bits)) => (bf16::from_bits(bits).to_f32(), 0.0, zero),
            (_, StoredScale::One(bits)) => (f(bits), 0.0, zero),
            (_, StoredScale::Float(scale)) => (scale, 0.0, zero),
            (_, StoredScale::Two([scale, min])) => (f(scale), f(min), 0),
            (_, StoredScale::Floats([scale, min])) => (scale, min, 0),
            (_, StoredScale::Superblock([d, d_min], [s, m])) => {
                (f(d) * f32::from(s), 0.0 - f(d_min) * f32::from(m), 0)
            }
            (_, StoredScale::Superblock16(d, s)) => (f(d) * f32::from(s), 0.0, zero),
        }
    }

    fn format(&self) -> ComputeFormat {
        let (group, scales) = (self.group, self.kind);
        match self.bits {
            8 => ComputeFormat::Stored8 { group, scales },
            6 => ComputeFormat::Stored6 { group, scales },
            _ => ComputeFormat::Int4 { group, scales, rotated: false },
        }
    }

    fn pack(&self, kernels: &KernelSet) -> PackedMatrix {
        in_region(2, |region| PackedMatrix::pack(kernels, region, self.format(), &[self]).unwrap())
    }

    /// The definition, element by element.
    fn product(&self, x: &[f32], bias: &[f32], residual: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        for x in x.chunks(self.cols) {
            for row in 0..self.rows() {
                let codes = &self.codes[row * self.cols..][..self.cols];
                let (mut sum, mut low) = (0.0_f32, 0.0_f32);
                for (g, (x, codes)) in x.chunks(self.group).zip(codes.chunks(self.group)).enumerate() {
                    let (scale, min, zero) = self.scale(row, g);
                    let amax = x.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
                    let quantized: Vec<i32> =
                        x.iter().map(|x| (x * (127.0 / amax)).round_ties_even() as i32).collect();
                    let dot: i32 = quantized.iter().zip(codes).map(|(x, c)| x * (i32::from(*c) - zero)).sum();
                    let total: i32 = quantized.iter().sum();
                    sum = (dot as f32).mul_add(amax / 127.0 * scale, sum);
                    low = (total as f32 * (amax / 127.0)).mul_add(min, low);
                }
                let sum = if self.kind.minimum() { sum + low } else { sum };
                out.push(sum + bias[row] + residual[out.len()]);
            }
        }
        out
    }
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
            let (scale, min, zero) = self.scale(row, at / self.group);
            let code = (i32::from(self.codes[row * self.cols + at]) - zero) as f32;
            *out = if self.kind.minimum() { code.mul_add(scale, min) } else { code * scale };
        }
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        Some(self.format())
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
        scales.extend(&self.scales[row * groups..][..groups]);
        Ok(())
    }
}

fn multiply(
    kernels: &KernelSet,
    threads: usize,
    rhs: &PackedMatrix,
    x: &[f32],
    (bias, residual): (&[f32], &[f32]),
) -> Vec<f32> {
    in_region(threads, |region| {
        let m = x.len() / rhs.k();
        let mut quantized = QuantizedRows::default();
        let format = rhs.format().activations().unwrap();
        quantized.quantize(kernels, region, x, m, rhs.k(), format).unwrap();
        let mut out = residual.to_vec();
        let epilogue = Epilogue { bias: Some(bias), residual: true, ..Epilogue::default() };
        gemm(kernels, region, Lhs::Int8(&quantized), m, rhs, &mut out, epilogue);
        out
    })
}

fn check(seed: u64, [m, n, k]: [usize; 3], group: usize, kind: (GroupScales, u8)) {
    let group = if kind.1 == 6 { group.next_multiple_of(16) } else { group };
    let mut noise = Noise(seed);
    let stored = Stored::random(&mut noise, n, k, group, kind);
    let (x, bias, residual) = (noise.vec(m * k), noise.vec(n), noise.vec(m * n));
    let expected = bits(&stored.product(&x, &bias, &residual));
    for kernels in &sets(m) {
        let rhs = stored.pack(kernels);
        for threads in [1, 3] {
            let found = bits(&multiply(kernels, threads, &rhs, &x, (&bias, &residual)));
            let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(
                wrong.is_none(),
                "{} x {threads}, {kind:?} by {group}, m {m} n {n} k {k}: element {wrong:?}",
                kernels.name
            );
        }
    }
}

#[test]
fn products_are_the_definition_on_ragged_shapes() {
    let mut seed = 0;
    for m in [1, 2, 3, 4, 5, 7, 8, 9, 20, 33] {
        for (n, k) in [(1, 1), (15, 7), (17, 9), (33, 31), (49, 172), (95, 64), (20, 300), (7, 601)] {
            for kind in formats() {
                for group in [8, 32, 64] {
                    seed += 1;
                    check(seed, [m, n, k], group, kind);
                }
            }
        }
    }
}

#[test]
fn products_over_several_slices_and_chunks() {
    for (seed, (m, n, k)) in [(130, 50, 1100), (257, 20, 520), (70, 100, 2080)].into_iter().enumerate() {
        for kind in formats() {
            // The last is longer than a slice, which takes the kernel of few rows.
            for group in [32, 128, 512, 1024] {
                check(seed as u64, [m, n, k], group, kind);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn products_on_any_shape(
        seed: u64, m in 1..40_usize, n in 1..100_usize, k in 1..300_usize, kind in 0..15_usize, group in 1..9_usize,
    ) {
        check(seed, [m, n, k], 8 * group, formats().nth(kind).unwrap());
    }

    #[test]
    fn stored_rows_are_taken_over(
        seed: u64, n in 1..40_usize, k in 1..300_usize, kind in 0..15_usize, group in 1..9_usize, split in 0..40_usize,
    ) {
        let format = formats().nth(kind).unwrap();
        let group = if format.1 == 6 { 16 * group } else { 8 * group };
        let stored = Stored::random(&mut Noise(seed), n, k, group, format);
        let groups = k.div_ceil(group);
        let (mut first, mut second) = (stored.clone(), stored.clone());
        let split = split.min(n);
        (first.codes, second.codes) = (stored.codes[..split * k].to_vec(), stored.codes[split * k..].to_vec());
        second.scales = stored.scales[split * groups..].to_vec();
        let kernels = select(None).unwrap();
        let pack = |region: &crate::threads::Region<'_>| {
            PackedMatrix::pack(kernels, region, stored.format(), &[&first, &second]).unwrap()
        };
        let packed = in_region(2, |region| pack(region));
        prop_assert_eq!((packed.n(), packed.k(), packed.format()), (n, k, stored.format()));
        let (mut expected, mut found) = (vec![0.0; k], vec![f32::NAN; k]);
        for row in 0..n {
            stored.read_row(row, &[], &mut expected);
            packed.read_row(kernels, row, &mut found);
            prop_assert_eq!(bits(&found), bits(&expected));
        }
    }

    #[test]
    fn quantized_weights_are_near(seed: u64, n in 1..40_usize, k in 1..300_usize, group in 1..9_usize, exponent in -30..30_i32) {
        let group = 8 * group;
        let mut weights = Noise(seed).vec(n * k);
        weights.iter_mut().for_each(|w| *w *= 2.0_f32.powi(exponent));
        let format = ComputeFormat::Int4 { group, scales: GroupScales::Bf16, rotated: false };
        let source: Dense = dense(n, k, weights.clone());
        let rows = |kernels: &KernelSet| {
            let packed = in_region(2, |region| PackedMatrix::pack(kernels, region, format, &[&source]).unwrap());
            let mut rows = vec![f32::NAN; n * k];
            rows.chunks_mut(k).enumerate().for_each(|(row, out)| packed.read_row(kernels, row, out));
            rows
        };
        let found = rows(available().last().unwrap());
        for kernels in available() {
            prop_assert_eq!(bits(&rows(kernels)), bits(&found), "{}", kernels.name);
        }
        // No worse than the symmetric scale `amax / 7`, whose bf16 may be off by 1/256.
        for (w, q) in weights.chunks(k).zip(found.chunks(k)) {
            for (w, q) in w.chunks(group).zip(q.chunks(group)) {
                let amax = w.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
                let scale = bf16::from_f32(amax / 7.0).to_f32();
                let error = |q: &mut dyn Iterator<Item = f32>| {
                    w.iter().zip(q).map(|(w, q)| f64::from(w - q).powi(2)).sum::<f64>()
                };
                let plain = error(&mut w.iter().map(|w| (w / scale).round_ties_even().clamp(-8.0, 7.0) * scale));
                let best = error(&mut q.iter().copied());
                prop_assert!(best <= plain * 1.001, "{best} {plain}");
            }
        }
    }
}

#[test]
fn extreme_weights_are_quantized() {
    let format = ComputeFormat::Int4 { group: 16, scales: GroupScales::Bf16, rotated: false };
    let groups = [0.0, 1e-44, 1e-37, 1e-30, 1.0, 1e30, 3.4e38, f32::MAX];
    let weights: Vec<f32> =
        groups.iter().flat_map(|&w| (0..16).map(move |i| if i % 3 == 0 { -w } else { w })).collect();
    let source = dense(1, weights.len(), weights.clone());
    for kernels in available() {
        let packed = in_region(1, |region| PackedMatrix::pack(kernels, region, format, &[&source]).unwrap());
        let mut row = vec![f32::NAN; weights.len()];
        packed.read_row(kernels, 0, &mut row);
        for (w, q) in weights.iter().zip(&row) {
            // Where the scale would be no normal number, all is zero.
            let expected = if w.abs() < 1e-36 { 0.0 } else { *w };
            assert!((q - expected).abs() <= expected.abs() * 0.01, "{}: {w} became {q}", kernels.name);
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = weights.clone();
            weights[37] = bad;
            let source = dense(1, weights.len(), weights);
            let error = in_region(1, |region| {
                PackedMatrix::pack(kernels, region, format, &[&source]).map(|_| ()).unwrap_err()
            });
            assert!(matches!(error, Error::InvalidWeights { .. }));
        }
    }
}

#[test]
fn stored_rows_are_checked() {
    let kernels = select(None).unwrap();
    let good = Stored::random(&mut Noise(5), 20, 64, 32, (GroupScales::F16, 4));
    let pack = |stored: &Stored| {
        let format = good.format();
        in_region(2, |region| PackedMatrix::pack(kernels, region, format, &[stored]).map(|_| ()))
    };
    pack(&good).unwrap();
    for code in [-1, 16] {
        let mut bad = good.clone();
        bad.codes[100] = code;
        assert!(matches!(pack(&bad).unwrap_err(), Error::InvalidWeights { .. }));
    }
    let other = Stored { scales: vec![StoredScale::Floats([1.0; 2]); 40], ..good.clone() };
    assert!(matches!(pack(&other).unwrap_err(), Error::Internal(_)));
    let good8 = Stored::random(&mut Noise(5), 20, 64, 32, (GroupScales::F16, 8));
    let pack8 = |stored: &Stored| {
        let format = good8.format();
        in_region(2, |region| PackedMatrix::pack(kernels, region, format, &[stored]).map(|_| ()))
    };
    pack8(&good8).unwrap();
    let mut lowest = good8.clone();
    lowest.codes[100] = -128;
    pack8(&lowest).unwrap();
    assert!(matches!(pack8(&good).unwrap_err(), Error::Internal(_)));
    let good6 = Stored::random(&mut Noise(5), 20, 64, 32, (GroupScales::Superblock16, 6));
    let pack6 = |stored: &Stored| {
        let format = good6.format();
        in_region(2, |region| PackedMatrix::pack(kernels, region, format, &[stored]).map(|_| ()))
    };
    pack6(&good6).unwrap();
    for code in [-1, 64] {
        let mut bad = good6.clone();
        bad.codes[100] = code;
        assert!(matches!(pack6(&bad).unwrap_err(), Error::InvalidWeights { .. }));
    }
    // Floats are quantized with bf16 scales only.
    let floats = dense(4, 64, vec![1.0; 256]);
    let result = in_region(2, |region| PackedMatrix::pack(kernels, region, good.format(), &[&floats]));
    assert!(matches!(result.map(|_| ()).unwrap_err(), Error::Internal(_)));
}

#[test]
fn packed_bytes_are_those_of_the_layout() {
    let bytes = |kind, n, k| {
        PackedMatrix::packed_bytes(ComputeFormat::Int4 { group: 32, scales: kind, rotated: false }, n, k)
    };
    // 32 columns, 40 k; two groups.
    let expected = [2, 2, 4, 4, 8, 4, 2].map(|lines| 32 * 40 / 2 + lines * 32 * 2);
    for (kind, expected) in KINDS.into_iter().zip(expected) {
        assert_eq!(bytes(kind, 17, 33).unwrap(), expected, "{kind:?}");
        for (n, k) in [(usize::MAX, 2), (1 << 40, 1 << 30), (2, usize::MAX)] {
            assert!(matches!(bytes(kind, n, k).unwrap_err(), Error::OutOfMemory { .. }));
        }
    }
    let six = |group, scales| PackedMatrix::packed_bytes(ComputeFormat::Stored6 { group, scales }, 17, 33);
    // 32 columns, 48 k; three groups.
    assert_eq!(six(16, GroupScales::Superblock16).unwrap(), 32 * 48 * 6 / 8 + 3 * 32 * 2);
    for (group, scales) in
        [(0, GroupScales::Superblock), (24, GroupScales::Superblock), (16, GroupScales::F32)]
    {
        assert!(matches!(six(group, scales), Err(Error::InvalidArgument(_))), "{group} {scales:?}");
    }
    for group in [0, 4, 12, 1 << 20] {
        let format = ComputeFormat::Int4 { group, scales: GroupScales::Bf16, rotated: false };
        assert!(matches!(PackedMatrix::packed_bytes(format, 16, 16), Err(Error::InvalidArgument(_))));
    }
}

#[test]
fn joined_matrices_give_the_columns_of_each() {
    let mut noise = Noise(3);
    let (k, ns) = (96, [20, 7, 33]);
    let sources: Vec<Stored> = [(GroupScales::Superblock, 4), (GroupScales::F32, 8), (GroupScales::F16, 8)]
        .into_iter()
        .zip(ns)
        .map(|(kind, n)| Stored::random(&mut noise, n, k, 16, kind))
        .collect();
    let kernels = select(None).unwrap();
    let joined = PackedMatrix::joined(sources.iter().map(|source| source.pack(kernels)).collect());
    assert_eq!((joined.n(), joined.k(), joined.segments().len()), (60, k, 3));
    let mut row = vec![0.0; k];
    let mut expected = vec![0.0; k];
    joined.read_row(kernels, 25, &mut row);
    sources[1].read_row(5, &[], &mut expected);
    assert_eq!(bits(&row), bits(&expected));
    let m = 11;
    let x = noise.vec(m * k);
    let mut out = vec![f32::NAN; m * 60];
    let mut first = 0;
    for (part, source) in joined.segments().iter().zip(&sources) {
        in_region(2, |region| {
            let mut quantized = QuantizedRows::default();
            let format = part.format().activations().unwrap();
            quantized.quantize(kernels, region, &x, m, k, format).unwrap();
            let out = OutColumns { out: &mut out, columns: first..first + part.n(), stride: 60 };
            gemm_columns(kernels, region, Lhs::Int8(&quantized), m, part, out, Epilogue::default());
        });
        let zeros = vec![0.0; m * part.n()];
        let expected = source.product(&x, &zeros, &zeros);
        for (out, expected) in out.chunks(60).zip(expected.chunks(part.n())) {
            assert_eq!(bits(&out[first..first + part.n()]), bits(expected));
        }
        first += part.n();
    }
}
