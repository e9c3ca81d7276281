//! bf16 products with numerics of their own: every set that this CPU has, and the same loops over models of the
//! instructions, against the definitions, bit for bit.

use proptest::prelude::*;

use super::*;
use crate::bf16_dot::{self, Bf16Dot, bfdot_model, tdpbf16_model, vdpbf16_model};
use crate::gemm_bf16::{Dot, PairDot};
use crate::gemm_bf16_amx::{self, Tiled};
use crate::simd::{LANES, Scalar};

/// Sixteen lanes of `bfdot` or of `vdpbf16ps` in plain Rust.
struct PairModel<const ARM: bool>;
impl<const ARM: bool> PairDot for PairModel<ARM> {
    type Sum = [f32; LANES];
    type Weights = [u16; 2 * LANES];
    type Pair = [u16; 2];
    unsafe fn load(sums: &[f32; LANES]) -> Self::Sum {
        *sums
    }
    unsafe fn store(sums: Self::Sum, out: &mut [f32; LANES]) {
        *out = sums;
    }
    unsafe fn weights(block: &[u16; 2 * LANES]) -> Self::Weights {
        *block
    }
    unsafe fn pair(pair: &[u16; 2]) -> Self::Pair {
        *pair
    }
    unsafe fn dot(mut sums: Self::Sum, weights: Self::Weights, pair: Self::Pair) -> Self::Sum {
        for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
            let step = if ARM { bf16_dot::bfdot } else { bf16_dot::vdpbf16 };
            *sum = step(*sum, pair, *weights);
        }
        sums
    }
}

static VDPBF16: KernelSet = KernelSet {
    name: "model of vdpbf16ps",
    bf16_dot: Some(Bf16Dot {
        product: |args| Dot::<PairModel<false>, 8, 3>::run(Scalar, args),
        tile_panels: 3,
        model: vdpbf16_model,
    }),
    ..isa::scalar::SET
};
static BFDOT: KernelSet = KernelSet {
    name: "model of bfdot",
    bf16_dot: Some(Bf16Dot {
        product: |args| Dot::<PairModel<true>, 4, 1>::run(Scalar, args),
        tile_panels: 1,
        model: bfdot_model,
    }),
    ..isa::scalar::SET
};
static TDPBF16: KernelSet = KernelSet {
    name: "model of tdpbf16ps",
    bf16_dot: Some(Bf16Dot {
        product: |args| Tiled::<gemm_bf16_amx::Model>::run(Scalar, args),
        tile_panels: gemm_bf16_amx::PANELS,
        model: tdpbf16_model,
    }),
    ..isa::scalar::SET
};

fn sets() -> Vec<&'static KernelSet> {
    let detected = dispatch::named().into_iter().map(|name| select(Some(name)).unwrap());
    // Under emulation, models of other CPUs' instructions would take most of the time.
    let models: &[&'static KernelSet] =
        if cfg!(target_arch = "aarch64") { &[&BFDOT] } else { &[&VDPBF16, &BFDOT, &TDPBF16] };
    models.iter().copied().chain(detected).collect()
}

/// `[m, k]` times `[n, k]`, with a bias and a residual.
struct Case {
    shape: [usize; 3],
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn new(seed: u64, [m, n, k]: [usize; 3], mut value: impl FnMut(&mut Noise) -> f32) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        let mut values = |len: usize| (0..len).map(|_| value(&mut noise)).collect::<Vec<_>>();
        let (x, weights) = (values(m * k), values(n * k));
        Case { shape: [m, n, k], x, weights, bias: noise.vec(n), residual: noise.vec(m * n) }
    }

    fn run(&self, kernels: &KernelSet, threads: usize) -> Vec<f32> {
        let [m, n, k] = self.shape;
        in_region(threads, |region| {
            let source = dense(n, k, self.weights.clone());
            let rhs = PackedMatrix::pack(kernels, region, ComputeFormat::Bf16, &[&source]).unwrap();
            assert!(kernels.rounds(rhs.format()));
            let mut rows = RoundedRows::default();
            rows.round(kernels, region, &self.x, m, k).unwrap();
            let mut out = self.residual.clone();
            let epilogue = Epilogue { bias: Some(&self.bias), residual: true, ..Epilogue::default() };
            gemm(kernels, region, Lhs::Bf16(&rows), m, &rhs, &mut out, epilogue);
            out
        })
    }

    fn definition(&self, model: fn(&[u16], &[u16]) -> f32) -> Vec<f32> {
        let [_, n, k] = self.shape;
        let round = |values: &[f32]| -> Vec<u16> {
            values.iter().map(|x| half::bf16::from_f32(*x).to_bits()).collect()
        };
        let (x, weights) = (round(&self.x), round(&self.weights));
        let mut out = Vec::new();
        for x in x.chunks(k) {
            for (column, w) in weights.chunks(k).enumerate() {
                out.push(model(x, w) + self.bias[column] + self.residual[out.len()]);
            }
        }
        assert_eq!(out.len() % n, 0);
        out
    }

    fn check(&self, threads: usize) {
        for kernels in sets() {
            let expected = bits(&self.definition(kernels.bf16_dot.as_ref().unwrap().model));
            let found = bits(&self.run(kernels, threads));
            let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert!(wrong.is_none(), "{} {:?}: element {wrong:?}", kernels.name, self.shape);
        }
    }
}

/// Any finite bf16, most of them such that products overflow or underflow.
fn any_exponent(noise: &mut Noise) -> f32 {
    let bits = (noise.next().to_bits() & 0xff0) << 20 | (noise.next().to_bits() & 0xff) << 12;
    let x = f32::from_bits(bits & 0xffff_0000);
    if x.is_finite() { x } else { 1.0 }
}

#[test]
fn products_are_the_definition_on_ragged_shapes() {
    let mut seed = 0;
    for m in (1..=9).chain([12, 13, 16, 17, 32, 33, 70]) {
        for (n, k) in [(1, 1), (16, 2), (33, 31), (49, 64), (100, 129)] {
            seed += 1;
            Case::new(seed, [m, n, k], Noise::next).check(1 + seed as usize % 3);
        }
    }
}

#[test]
fn products_are_the_definition_over_several_slices_and_chunks() {
    for (seed, shape) in [[1, 130, 700], [8, 70, 1030], [20, 40, 600], [135, 50, 530]].into_iter().enumerate()
    {
        Case::new(seed as u64, shape, Noise::next).check(2);
    }
}

#[test]
fn products_of_extreme_values() {
    for (seed, m) in [1, 3, 12, 33].into_iter().enumerate() {
        // Sums near the smallest normal number, and everything else.
        Case::new(seed as u64, [m, 40, 66], |noise| noise.next() * 1.5e-19).check(2);
        Case::new(seed as u64, [m, 40, 66], any_exponent).check(2);
        Case::new(seed as u64, [m, 20, 4], any_exponent).check(2);
    }
}

#[test]
fn products_of_nothing() {
    for [m, n, k] in [[0, 20, 8], [3, 0, 8], [3, 20, 0], [40, 20, 0]] {
        let case = Case::new(1, [m, n, k], Noise::next);
        let expected: Vec<f32> =
            case.residual.iter().enumerate().map(|(at, x)| 0.0 + case.bias[at % n.max(1)] + x).collect();
        for kernels in sets() {
            assert_eq!(case.run(kernels, 2), expected, "{} {:?}", kernels.name, case.shape);
        }
    }
}

#[test]
fn non_finite_values_show_in_their_row_and_column_alone() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut case = Case::new(3, [18, 33, 40], |noise| noise.next() + 2.0);
        case.x[17 * 40 + 39] = bad;
        for kernels in sets() {
            let out = case.run(kernels, 1);
            assert!(out[..17 * 33].iter().all(|x| x.is_finite()), "{}", kernels.name);
            assert!(out[17 * 33..].iter().all(|x| !x.is_finite()), "{}", kernels.name);
        }
        let mut case = Case::new(3, [18, 33, 40], |noise| noise.next() + 2.0);
        case.weights[16 * 40] = bad;
        for kernels in sets() {
            for (at, x) in case.run(kernels, 1).iter().enumerate() {
                assert_eq!(x.is_finite(), at % 33 != 16, "{}", kernels.name);
            }
        }
    }
}

#[test]
fn the_definitions_add_as_documented() {
    let one = 0x3f80;
    let (tiny, minus_one) = (half::bf16::from_f32(2.0_f32.powi(-24)).to_bits(), 0xbf80);
    // Half of the last place of 1 is lost at once, or not: to even, in either chain; to odd.
    let (x, w) = ([one, tiny, minus_one, 0], [one; 4]);
    // (1 + tiny) is a tie, to even 1; the second of the pair comes first, and (tiny + 1) is the same.
    assert_eq!(vdpbf16_model(&x, &w), 0.0);
    // Chains: 1 - 1 = 0 and tiny.
    assert_eq!(tdpbf16_model(&x, &w), 2.0_f32.powi(-24));
    // 1 + tiny is to odd the next number above 1.
    assert_eq!(bfdot_model(&x, &w), 2.0_f32.powi(-23));
    // Subnormal inputs are zeros.
    for model in [vdpbf16_model, tdpbf16_model, bfdot_model] {
        assert_eq!(model(&[0x0040, one], &[0x7f00, one]), 1.0);
        // An odd k has no second product.
        assert_eq!(model(&[one, one, one], &[one; 3]), 3.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn products_are_the_definition_on_any_shape(
        seed: u64, m in 1..70_usize, n in 1..100_usize, k in 1..200_usize, threads in 1..4_usize,
    ) {
        Case::new(seed >> 1, [m, n, k], Noise::next).check(threads);
    }

    /// Sums that f64 holds exactly, rounded to odd by cutting off bits and marking what was cut off.
    #[test]
    fn sums_are_rounded_to_odd(a in -(1_i64 << 40)..1_i64 << 40, b in -(1_i64 << 40)..1_i64 << 40, shift in 0..20_i32) {
        let (a, b) = (a as f32, b as f32 / (shift as f32).exp2());
        let exact = f64::from(a) + f64::from(b);
        let cut = exact.to_bits() & ((1 << 29) - 1);
        let expected = f64::from_bits(exact.to_bits() - cut) as f32;
        let expected = if cut == 0 { expected } else { f32::from_bits(expected.to_bits() | 1) };
        prop_assert_eq!(bf16_dot::add_to_odd(a, b).to_bits(), expected.to_bits(), "{} + {}", a, b);
    }
}
