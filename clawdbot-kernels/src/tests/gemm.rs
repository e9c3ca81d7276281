//! Products of int8 and float weights.

use proptest::prelude::*;

use super::super::simd::Scalar;
use super::*;
use crate::error::Error;

/// A product, with some of the parts of an epilogue.
pub(super) struct Case {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) format: ComputeFormat,
    pub(super) x: Vec<f32>,
    pub(super) weights: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) added: Option<Vec<f32>>,
    pub(super) residual: Option<Vec<f32>>,
}

impl Case {
    pub(super) fn random(seed: u64, m: usize, n: usize, k: usize, format: ComputeFormat) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        Case {
            m,
            n,
            k,
            format,
            x: noise.vec(m * k),
            weights: noise.vec(n * k),
            bias: seed.is_multiple_of(2).then(|| noise.vec(n)),
            residual: seed.is_multiple_of(3).then(|| noise.vec(m * n)),
            added: seed.is_multiple_of(5).then(|| noise.vec(m * n)),
        }
    }

    pub(super) fn run(&self, kernels: &KernelSet, threads: usize) -> Vec<f32> {
        in_region(threads, |region| {
            let source = dense(self.n, self.k, self.weights.clone());
            let rhs = PackedMatrix::pack(kernels, region, self.format, &[&source]).unwrap();
            let mut quantized = QuantizedRows::default();
            let lhs = match self.format {
                ComputeFormat::Int8 { group, rotated } => {
                    quantized
                        .quantize(
                            kernels,
                            region,
                            &self.x,
                            self.m,
                            self.k,
                            ActivationFormat { group, rotated },
                        )
                        .unwrap();
                    Lhs::Int8(&quantized)
                }
                _ => Lhs::F32(&self.x),
            };
            let mut out = self.residual.clone().unwrap_or_else(|| vec![f32::NAN; self.m * self.n]);
            let epilogue = Epilogue {
                bias: self.bias.as_deref(),
                added: self.added.as_deref().map(|values| Added { values, stride: self.n, first: 0 }),
                residual: self.residual.is_some(),
                gate: None,
            };
            gemm(kernels, region, lhs, self.m, &rhs, &mut out, epilogue);
            out
        })
    }

    fn epilogue(&self, row: usize, column: usize, mut sum: f32) -> f32 {
        if let Some(bias) = &self.bias {
            sum += bias[column];
        }
        if let Some(added) = &self.added {
            sum += added[row * self.n + column];
        }
        if let Some(residual) = &self.residual {
            sum += residual[row * self.n + column];
        }
        sum
    }

    /// The definition, element by element.
    fn naive(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for row in self.x.chunks(self.k) {
            for weights in self.weights.chunks(self.k) {
                let sum = match self.format {
                    ComputeFormat::Int8 { group, rotated: false } => naive_int8(row, weights, group),
                    ComputeFormat::Int8 { group, rotated: true } => {
                        naive_int8(&rotated(row), &rotated(weights), group)
                    }
                    ComputeFormat::Int4 { .. }
                    | ComputeFormat::Stored6 { .. }
                    | ComputeFormat::Stored8 { .. } => {
                        unreachable!("see tests_int4")
                    }
                    ComputeFormat::Bf16 => row
                        .iter()
                        .zip(weights)
                        .fold(0.0, |sum, (x, w)| half::bf16::from_f32(*w).to_f32().mul_add(*x, sum)),
                    ComputeFormat::F32 => row.iter().zip(weights).fold(0.0, |sum, (x, w)| w.mul_add(*x, sum)),
                };
                let (row, column) = (out.len() / self.n, out.len() % self.n);
                out.push(self.epilogue(row, column, sum));
            }
        }
        out
    }

    fn check(&self, threads: usize) {
        let (m, n, k) = (self.m, self.n, self.k);
        let expected = bits(&self.naive());
        for kernels in &sets(m) {
            let found = bits(&self.run(kernels, threads));
            let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert!(
                wrong.is_none(),
                "{} {:?} m {m} n {n} k {k}: element {wrong:?}",
                kernels.name,
                self.format
            );
        }
    }
}

/// By the scalar kernel, which `hadamard.rs` tests against the definition.
pub(super) fn rotated(row: &[f32]) -> Vec<f32> {
    let mut row = row.to_vec();
    select(Some("scalar")).unwrap().hadamard(&mut row);
    row
}

fn naive_int8(x: &[f32], weights: &[f32], group: usize) -> f32 {
    let mut sum = 0.0_f32;
    for (x, weights) in x.chunks(group).zip(weights.chunks(group)) {
        let amax = x.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
        let (x_scale, inv) = if amax > 0.0 { (amax / 127.0, 127.0 / amax) } else { (0.0, 0.0) };
        let amax = weights.iter().fold(0.0_f32, |amax, w| amax.max(w.abs()));
        let mut w_scale = half::bf16::from_f32(amax / 127.0);
        if w_scale.to_f32() < amax / 127.0 {
            w_scale = half::bf16::from_bits(w_scale.to_bits() + 1);
        }
        let w_scale = w_scale.to_f32();
        let mut dot = 0_i64;
        for (x, w) in x.iter().zip(weights) {
            let w = if w_scale == 0.0 { 0.0 } else { w / w_scale };
            dot += (x * inv).round_ties_even().clamp(-127.0, 127.0) as i64 * w.round_ties_even() as i64;
        }
        sum = (dot as f32).mul_add(x_scale * w_scale, sum);
    }
    sum
}

pub(super) const FORMATS: [ComputeFormat; 8] = [
    ComputeFormat::Int8 { group: 4, rotated: false },
    ComputeFormat::Int8 { group: 64, rotated: true },
    ComputeFormat::Int8 { group: 128, rotated: true },
    ComputeFormat::Int8 { group: 32, rotated: false },
    ComputeFormat::Int8 { group: 64, rotated: false },
    ComputeFormat::Int8 { group: 128, rotated: false },
    ComputeFormat::Bf16,
    ComputeFormat::F32,
];

#[test]
fn gemm_on_ragged_shapes() {
    let mut seed = 0;
    for m in (1..=9).chain([11, 13, 16, 20, 25, 33]) {
        for (n, k) in
            [(1, 1), (15, 3), (16, 4), (17, 5), (33, 31), (48, 32), (49, 172), (95, 64), (64, 129), (7, 300)]
        {
            for format in FORMATS {
                seed += 1;
                Case::random(seed, m, n, k, format).check(1 + seed as usize % 3);
            }
        }
    }
}

#[test]
fn gemm_over_several_slices_and_chunks() {
    for (seed, (m, n, k)) in [(130, 50, 1100), (257, 20, 520), (40, 100, 2048)].into_iter().enumerate() {
        for format in FORMATS.into_iter().chain([
            ComputeFormat::Int8 { group: 512, rotated: false },
            ComputeFormat::Int8 { group: 1024, rotated: false },
        ]) {
            Case::random(seed as u64, m, n, k, format).check(2);
        }
    }
}

#[test]
fn gemm_is_the_same_for_any_rows_and_threads() {
    for format in FORMATS {
        let whole = Case::random(5, 19, 70, 200, format);
        for kernels in &sets(whole.m) {
            let expected = bits(&whole.run(kernels, 1));
            for threads in [2, 3] {
                assert_eq!(
                    bits(&whole.run(kernels, threads)),
                    expected,
                    "{} {threads} threads",
                    kernels.name
                );
            }
            for row in [0, 7, 18] {
                let single = Case {
                    m: 1,
                    x: whole.x[row * 200..][..200].to_vec(),
                    weights: whole.weights.clone(),
                    bias: whole.bias.clone(),
                    added: whole.added.as_ref().map(|added| added[row * 70..][..70].to_vec()),
                    residual: None,
                    ..whole
                };
                assert_eq!(
                    bits(&single.run(kernels, 2)),
                    expected[row * 70..][..70],
                    "{} row {row}",
                    kernels.name
                );
            }
        }
    }
}

#[test]
fn gemm_with_extreme_values() {
    let k = 160;
    let full: fn(usize) -> f32 = |i| if i % 2 == 0 { 127.0 } else { -127.0 };
    let same: fn(usize) -> f32 = |_| 127.0;
    let zero: fn(usize) -> f32 = |_| 0.0;
    let mixed: fn(usize) -> f32 = |i| [0.0, -0.0, 1e-40, -1e-44, 1e-37, 1.0, 1e30, -1e30][i / 32 % 8];
    let huge: fn(usize) -> f32 = |i| if i == 3 { 3e38 } else { 1e36 };
    let fills = [full, same, zero, mixed, huge];
    for x in fills {
        for weights in fills {
            for m in [1, 3, 12] {
                for format in [
                    ComputeFormat::Int8 { group: 32, rotated: false },
                    ComputeFormat::Int8 { group: 128, rotated: false },
                    ComputeFormat::F32,
                ] {
                    let case = Case {
                        x: (0..m * k).map(|i| x(i % k)).collect(),
                        weights: (0..18 * k).map(|i| weights(i % k)).collect(),
                        ..Case::random(1, m, 18, k, format)
                    };
                    let expected = bits(&case.run(available().last().unwrap(), 1));
                    for kernels in available() {
                        assert_eq!(bits(&case.run(kernels, 2)), expected, "{}", kernels.name);
                    }
                }
            }
        }
    }
    // All codes at the ends: the largest sums there are.
    let case = Case {
        bias: None,
        residual: None,
        ..Case::random(1, 12, 16, k, ComputeFormat::Int8 { group: 128, rotated: false })
    };
    let case = Case { x: vec![127.0; 12 * k], weights: vec![127.0; 16 * k], ..case };
    for kernels in available() {
        assert!(case.run(kernels, 1).iter().all(|&x| x == 127.0 * 127.0 * 160.0), "{}", kernels.name);
    }
}

#[test]
fn non_finite_activations_show_and_weights_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 17, 99] {
            for kernels in available() {
                let mut case = Case::random(4, 2, 20, 100, ComputeFormat::Int8 { group: 32, rotated: false });
                case.x[100 + at] = bad;
                let out = case.run(kernels, 1);
                assert!(out[..20].iter().all(|x| x.is_finite()), "{}", kernels.name);
                assert!(out[20..].iter().all(|x| x.is_nan()), "{}", kernels.name);
                case.weights[at] = bad;
                let source = dense(20, 100, case.weights);
                let error = in_region(2, |region| {
                    PackedMatrix::pack(kernels, region, case.format, &[&source]).map(|_| ()).unwrap_err()
                });
                assert!(matches!(error, Error::InvalidWeights { .. }));
            }
        }
    }
}

#[test]
fn gemm_of_nothing() {
    let bias = [1.5; 20];
    for kernels in &sets(12) {
        for format in
            [ComputeFormat::Int8 { group: 32, rotated: false }, ComputeFormat::Bf16, ComputeFormat::F32]
        {
            for (m, n, k) in [(0, 20, 8), (3, 0, 8), (3, 20, 0), (12, 20, 0), (0, 0, 0)] {
                let bias = Some(bias[..n].to_vec());
                let case = Case { bias, residual: None, ..Case::random(1, m, n, k, format) };
                let out = case.run(kernels, 2);
                assert_eq!(out, vec![1.5; m * n], "{} {format:?} m {m} n {n} k {k}", kernels.name);
            }
        }
    }
}

/// The scalar set with the tile kernel over the model of the tiles.
static TILES: KernelSet = KernelSet {
    name: "tiles",
    int8_gemm: Slot(|args| gemm_amx::Tiled::<tiles::Model>::run(Scalar, args)),
    tile_panels: TilePanels { int8: gemm_amx::PANELS, float: 1 },
    ..isa::scalar::SET
};

#[test]
fn tiles_on_ragged_shapes() {
    let mut seed = 0;
    for m in [9, 15, 16, 17, 25, 31, 32, 33, 48, 70] {
        for (n, k) in [(1, 1), (16, 64), (33, 63), (48, 65), (40, 128), (49, 172), (17, 520), (64, 641)] {
            for group in [32, 64, 128, 256] {
                seed += 1;
                let case = Case::random(seed, m, n, k, ComputeFormat::Int8 { group, rotated: false });
                assert_eq!(
                    bits(&case.run(&TILES, 1)),
                    bits(&case.naive()),
                    "m {m} n {n} k {k} group {group}"
                );
            }
        }
    }
    for (seed, (m, n, k)) in [(300, 20, 1100), (130, 50, 2048)].into_iter().enumerate() {
        for group in [32, 64, 128] {
            let case = Case::random(seed as u64, m, n, k, ComputeFormat::Int8 { group, rotated: false });
            assert_eq!(bits(&case.run(&TILES, 2)), bits(&case.naive()), "m {m} n {n} k {k} group {group}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn gemm_on_any_shape(
        seed: u64, m in 1..70_usize, n in 1..120_usize, k in 1..300_usize, format in 0..FORMATS.len(), threads in 1..4_usize,
    ) {
        Case::random(seed >> 1, m, n, k, FORMATS[format]).check(threads);
    }
}
