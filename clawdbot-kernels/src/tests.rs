//! Every slot x every available ISA x ragged shapes against the scalar set, bit for bit; and the scalar set against
//! naive models that share no code with it.

use proptest::prelude::*;

use super::simd::Scalar;
use super::*;
use crate::error::Error;
use crate::threads::{Region, ThreadPool};

/// Reproducible numbers in -1..1.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

pub(super) struct Dense {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl RowSource for Dense {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.cols..][..self.cols]);
    }
}

pub(super) fn dense(rows: usize, cols: usize, data: Vec<f32>) -> Dense {
    assert_eq!(data.len(), rows * cols);
    Dense { rows, cols, data }
}

pub(super) fn in_region<R>(threads: usize, f: impl FnOnce(&Region<'_>) -> R) -> R {
    ThreadPool::new(threads).region(f).unwrap()
}

pub(super) fn bits(x: &[f32]) -> Vec<u32> {
    // Which NaN is not specified.
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    format: ComputeFormat,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    added: Option<Vec<f32>>,
    residual: Option<Vec<f32>>,
}

impl Case {
    fn random(seed: u64, m: usize, n: usize, k: usize, format: ComputeFormat) -> Self {
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

    fn run(&self, kernels: &KernelSet, threads: usize) -> Vec<f32> {
        in_region(threads, |region| {
            let source = dense(self.n, self.k, self.weights.clone());
            let rhs = PackedMatrix::pack(kernels, region, self.format, &[&source]).unwrap();
            let mut quantized = QuantizedRows::default();
            let lhs = match self.format {
                ComputeFormat::Int8 { group, rotated } => {
                    quantized.quantize(kernels, region, &self.x, self.m, self.k, group, rotated).unwrap();
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
                    ComputeFormat::Int4 { .. } | ComputeFormat::Stored8 { .. } => {
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
        for kernels in available() {
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
fn rotated(row: &[f32]) -> Vec<f32> {
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

const FORMATS: [ComputeFormat; 8] = [
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
    for m in (1..=13).chain([16, 17, 20]) {
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

/// A gated product against the two products it is made of.
#[test]
fn gated_gemm() {
    let scalar = select(Some("scalar")).unwrap();
    let mut seed = 0;
    for m in [1, 2, 5, 8, 9, 31, 140] {
        for (columns, k) in [(1, 3), (16, 64), (20, 129), (31, 64), (48, 300), (97, 128)] {
            for format in FORMATS {
                seed += 1;
                let gate = Case { residual: None, ..Case::random(2 * seed, m, columns, k, format) };
                let up = Case {
                    residual: None,
                    x: gate.x.clone(),
                    ..Case::random(2 * seed + 2, m, columns, k, format)
                };
                let mut expected = vec![0.0; m * columns];
                scalar.silu_mul(&gate.run(scalar, 1), &up.run(scalar, 1), &mut expected);
                let mut bias = vec![0.0; PackedMatrix::gated_columns(columns).unwrap()];
                for (from, first) in [(&gate.bias, 0), (&up.bias, 16)] {
                    for (i, &value) in from.iter().flatten().enumerate() {
                        bias[i / 16 * 32 + first + i % 16] = value;
                    }
                }
                // What is added to neither is -0.0, which changes no bit.
                let stride = bias.len();
                let mut added = vec![-0.0; m * stride];
                for (from, first) in [(&gate.added, 0), (&up.added, 16)] {
                    for (i, &value) in from.iter().flatten().enumerate() {
                        let (row, column) = (i / columns, i % columns);
                        added[row * stride + column / 16 * 32 + first + column % 16] = value;
                    }
                }
                for kernels in available() {
                    let found = in_region(1 + seed as usize % 3, |region| {
                        let sources = [&gate, &up].map(|case| dense(columns, k, case.weights.clone()));
                        let rhs =
                            PackedMatrix::pack_gated(kernels, region, format, [&sources[0], &sources[1]])
                                .unwrap();
                        let mut quantized = QuantizedRows::default();
                        let lhs = match format.activations() {
                            Some((group, rotated)) => {
                                quantized.quantize(kernels, region, &gate.x, m, k, group, rotated).unwrap();
                                Lhs::Int8(&quantized)
                            }
                            None => Lhs::F32(&gate.x),
                        };
                        let mut out = vec![f32::NAN; m * columns];
                        let epilogue = Epilogue {
                            bias: Some(&bias),
                            added: Some(Added { values: &added, stride, first: 0 }),
                            residual: false,
                            gate: Some(Activation::Silu),
                        };
                        gemm(kernels, region, lhs, m, &rhs, &mut out, epilogue);
                        out
                    });
                    assert_eq!(
                        bits(&found),
                        bits(&expected),
                        "{} {format:?} m {m} columns {columns} k {k}",
                        kernels.name
                    );
                }
            }
        }
    }
}

/// What [`gemm_gated`] gives is what a gated product and [`QuantizedRows::quantize`] give, on ragged shapes.
#[test]
fn gated_products_quantized_on_the_way() {
    let down = |format, k: usize, kernels, region: &Region<'_>| {
        PackedMatrix::pack(kernels, region, format, &[&dense(3, k, Noise(k as u64).vec(3 * k))]).unwrap()
    };
    let formats = FORMATS.into_iter().filter(|format| format.activations().is_some());
    for (seed, format) in formats.enumerate() {
        for (m, columns, k) in [(9, 128, 64), (31, 300, 130), (140, 135, 256), (300, 129, 40)] {
            let x = Noise(seed as u64).vec(m * k);
            let gate_up = [1, 2].map(|i| dense(columns, k, Noise(seed as u64 + 10 * i).vec(columns * k)));
            for kernels in available() {
                in_region(1 + seed % 3, |region| {
                    let rhs = PackedMatrix::pack_gated(kernels, region, format, [&gate_up[0], &gate_up[1]])
                        .unwrap();
                    let next = down(format, columns, kernels, region);
                    assert!(!takes_gated(8, &rhs, &next));
                    if !takes_gated(m, &rhs, &next) {
                        assert!(format.activations().unwrap().0 > 128, "{format:?}");
                        return;
                    }
                    let (group, rotated) = format.activations().unwrap();
                    let mut lhs = QuantizedRows::default();
                    let (mut expected, mut found) = (QuantizedRows::default(), QuantizedRows::default());
                    lhs.quantize(kernels, region, &x, m, k, group, rotated).unwrap();
                    let bias = Noise(3).vec(rhs.n());
                    let stride = rhs.n();
                    let added = Noise(4).vec(m * stride);
                    let added = Some(Added { values: &added, stride, first: 0 });
                    let epilogue =
                        Epilogue { bias: Some(&bias), added, residual: false, gate: Some(Activation::Silu) };
                    let mut activated = vec![f32::NAN; m * columns];
                    gemm(kernels, region, Lhs::Int8(&lhs), m, &rhs, &mut activated, epilogue);
                    expected.quantize(kernels, region, &activated, m, columns, group, rotated).unwrap();
                    let mut buffer = vec![f32::NAN; m * columns];
                    gemm_gated(kernels, region, &lhs, m, &rhs, epilogue, &next, &mut buffer, &mut found)
                        .unwrap();
                    let (expected, found) =
                        (expected.rows(m, columns, group, rotated), found.rows(m, columns, group, rotated));
                    let groups = columns.div_ceil(group);
                    let what = format!("{} {format:?} {m} {columns} {k}", kernels.name);
                    assert!(
                        expected.codes[..m * expected.stride] == found.codes[..m * found.stride],
                        "{what}"
                    );
                    assert_eq!(
                        bits(&expected.scales[..m * groups]),
                        bits(&found.scales[..m * groups]),
                        "{what}"
                    );
                    assert_eq!(expected.starts[..m * groups], found.starts[..m * groups], "{what}");
                });
            }
        }
    }
}

#[test]
fn gated_projections_are_alike() {
    let kernels = select(Some("scalar")).unwrap();
    let pack = |gate: [usize; 2], up: [usize; 2]| {
        let source = |[rows, cols]: [usize; 2]| dense(rows, cols, vec![0.0; rows * cols]);
        in_region(1, |region| {
            PackedMatrix::pack_gated(kernels, region, ComputeFormat::F32, [&source(gate), &source(up)])
                .map(|packed| packed.n())
        })
    };
    assert_eq!(pack([20, 8], [20, 8]).unwrap(), 64);
    assert!(matches!(pack([20, 8], [19, 8]).unwrap_err(), Error::InvalidWeights { .. }));
    assert!(matches!(pack([20, 8], [20, 9]).unwrap_err(), Error::InvalidWeights { .. }));
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
        for kernels in available() {
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
    for kernels in available() {
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
    tile_panels: (gemm_amx::PANELS, 1),
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
                        ComputeFormat::Int4 { .. } | ComputeFormat::Stored8 { .. } => {
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

#[test]
fn vector_kernels_agree_on_every_length() {
    let special = [
        0.0,
        -0.0,
        1e-42,
        -1e-42,
        88.0,
        -88.0,
        104.5,
        -104.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        3e38,
    ];
    let sets = available();
    let scalar = sets.last().unwrap();
    for len in (1..70).chain([896, 2048]) {
        let mut noise = Noise(len as u64);
        let a: Vec<f32> = noise.vec(len).iter().map(|x| x * 20.0).collect();
        let mut b = noise.vec(len);
        for (b, special) in b.iter_mut().step_by(3).zip(special) {
            *b = special;
        }
        for set in &sets {
            let run = |f: &dyn Fn(&KernelSet, &mut [f32])| {
                let (mut expected, mut found) = (vec![f32::NAN; len], vec![f32::NAN; len]);
                f(scalar, &mut expected);
                f(set, &mut found);
                assert_eq!(bits(&found), bits(&expected), "{} length {len}", set.name);
                found
            };
            let normed = run(&|set, out| set.rms_norm(&a, &a, 1e-5, out));
            let mean = a.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / len as f64;
            for (found, x) in normed.iter().zip(&a) {
                let expected = f64::from(*x) * f64::from(*x) / (mean + 1e-5).sqrt();
                assert!((f64::from(*found) - expected).abs() <= expected.abs() * 1e-6);
            }
            run(&|set, out| set.silu_mul(&a, &b, out));
            run(&|set, out| set.silu_mul(&b, &a, out));
            run(&|set, out| set.exp(&b, out));
            let (mut expected, mut found) = (vec![7_u16; len], vec![9_u16; len]);
            scalar.to_bf16(&b, &mut expected);
            set.to_bf16(&b, &mut found);
            for ((&expected, &found), &x) in expected.iter().zip(&found).zip(&b) {
                let (expected, found) = (half::bf16::from_bits(expected), half::bf16::from_bits(found));
                let reference = half::bf16::from_f32(x);
                assert!(
                    found == expected && found == reference
                        || x.is_nan() && found.is_nan() && expected.is_nan()
                );
            }
        }
    }
}

/// Distance in units of the last place of f32 at `expected`.
fn ulps(found: f32, expected: f64) -> f64 {
    let unit = f64::from(expected as f32).abs().log2().floor().max(-126.0) - 23.0;
    (f64::from(found) - expected).abs() / unit.exp2()
}

#[test]
fn exp_and_silu_are_accurate() {
    // Every 1021st f32 of the range in which neither result is trivial, both signs.
    let inputs: Vec<f32> =
        (0..110_f32.to_bits()).step_by(1021).map(f32::from_bits).flat_map(|x| [x, -x]).collect();
    let (mut exp, mut silu) = (vec![f32::NAN; inputs.len()], vec![f32::NAN; inputs.len()]);
    let ones = vec![1.0; inputs.len()];
    for kernels in available() {
        kernels.exp(&inputs, &mut exp);
        kernels.silu_mul(&inputs, &ones, &mut silu);
        let (mut worst_exp, mut worst_silu) = (0.0_f64, 0.0_f64);
        for ((&x, &exp), &silu) in inputs.iter().zip(&exp).zip(&silu) {
            let expected = f64::from(x).exp();
            if expected >= f64::from(f32::MAX) * (1.0 + 1e-7) {
                assert_eq!(exp, f32::INFINITY, "exp({x})");
            } else {
                worst_exp = worst_exp.max(ulps(exp, expected));
            }
            // Below, exp(-x) overflows and silu is -0 instead of a number under 1e-36.
            if x > -88.0 {
                let expected = f64::from(x) / (1.0 + (-f64::from(x)).exp());
                worst_silu = worst_silu.max(ulps(silu, expected));
            } else {
                assert!(silu <= 0.0 && silu > -1e-35, "silu({x}) = {silu}");
            }
        }
        assert!(worst_exp <= 2.0, "{}: exp is off by {worst_exp} ULP", kernels.name);
        assert!(worst_silu <= 4.0, "{}: silu is off by {worst_silu} ULP", kernels.name);
    }
}

#[test]
fn exp_at_the_ends() {
    let inputs = [0.0, -0.0, f32::NEG_INFINITY, f32::MIN, -104.0, f32::INFINITY, f32::MAX, 89.0];
    let expected = [1.0, 1.0, 0.0, 0.0, 0.0, f32::INFINITY, f32::INFINITY, f32::INFINITY];
    for kernels in available() {
        let mut out = [f32::NAN; 8];
        kernels.exp(&inputs, &mut out);
        assert_eq!(out, expected, "{}", kernels.name);
        kernels.exp(&[f32::NAN; 8], &mut out);
        assert!(out.iter().all(|x| x.is_nan()), "{}", kernels.name);
    }
}
