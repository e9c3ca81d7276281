//! Norms, activations, exponentials, conversions.

use super::super::simd::{LANES, Scalar};
use super::super::vector::exp2_below;
use super::*;

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

#[test]
fn exp2_is_accurate() {
    struct Exp2;
    impl Kernel for Exp2 {
        type Args<'a> = (&'a [f32; LANES], &'a mut [f32; LANES]);
        type Output = ();
        fn run<S: Simd>(s: S, (x, out): Self::Args<'_>) {
            s.store(exp2_below(s, s.load(x)), out);
        }
    }
    let mut out = [f32::NAN; LANES];
    for i in 0..200_000 {
        let x = -126.0 * i as f32 / 200_000.0;
        Exp2::run(Scalar, (&[x; LANES], &mut out));
        let expected = f64::from(x).exp2();
        assert!((f64::from(out[0]) - expected).abs() <= 6e-7 * expected, "2^{x} = {}", out[0]);
    }
    let inputs = [0.0, -0.0, -1.0, -126.6, -1e30, f32::NEG_INFINITY];
    for (x, expected) in inputs.into_iter().zip([1.0, 1.0, 0.5, 0.0, 0.0, 0.0]) {
        Exp2::run(Scalar, (&[x; LANES], &mut out));
        assert_eq!(out[0], expected, "2^{x}");
    }
    Exp2::run(Scalar, (&[f32::NAN; LANES], &mut out));
    assert!(out[0].is_nan());
}
