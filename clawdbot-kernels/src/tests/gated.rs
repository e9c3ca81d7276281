//! Products of a gate and an up projection.

use super::gemm::{Case, FORMATS};
use super::*;
use crate::error::Error;

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
                for kernels in &sets(m) {
                    let found = in_region(1 + seed as usize % 3, |region| {
                        let sources = [&gate, &up].map(|case| dense(columns, k, case.weights.clone()));
                        let rhs =
                            PackedMatrix::pack_gated(kernels, region, format, [&sources[0], &sources[1]])
                                .unwrap();
                        let mut quantized = QuantizedRows::default();
                        let lhs = match format.activations() {
                            Some(activations) => {
                                quantized.quantize(kernels, region, &gate.x, m, k, activations).unwrap();
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
    let down = |format, k: usize, kernels: &KernelSet, region: &Region<'_>| {
        PackedMatrix::pack(kernels, region, format, &[&dense(3, k, Noise(k as u64).vec(3 * k))]).unwrap()
    };
    let formats = FORMATS.into_iter().filter(|format| format.activations().is_some());
    for (seed, format) in formats.enumerate() {
        for (m, columns, k) in [(9, 128, 64), (31, 300, 130), (140, 135, 256), (300, 129, 40)] {
            let x = Noise(seed as u64).vec(m * k);
            let gate_up = [1, 2].map(|i| dense(columns, k, Noise(seed as u64 + 10 * i).vec(columns * k)));
            for kernels in &sets(m) {
                in_region(1 + seed % 3, |region| {
                    let rhs = PackedMatrix::pack_gated(kernels, region, format, [&gate_up[0], &gate_up[1]])
                        .unwrap();
                    let next = down(format, columns, kernels, region);
                    assert!(!takes_gated(kernels, 8, &rhs, &next));
                    if !takes_gated(kernels, m, &rhs, &next) {
                        let long = format.activations().unwrap().group > 128;
                        assert!(long || m <= kernels.gemv_rows.of(&rhs), "{format:?}");
                        return;
                    }
                    let activations = format.activations().unwrap();
                    let mut lhs = QuantizedRows::default();
                    let (mut expected, mut found) = (QuantizedRows::default(), QuantizedRows::default());
                    lhs.quantize(kernels, region, &x, m, k, activations).unwrap();
                    let bias = Noise(3).vec(rhs.n());
                    let stride = rhs.n();
                    let added = Noise(4).vec(m * stride);
                    let added = Some(Added { values: &added, stride, first: 0 });
                    let epilogue =
                        Epilogue { bias: Some(&bias), added, residual: false, gate: Some(Activation::Silu) };
                    let mut activated = vec![f32::NAN; m * columns];
                    gemm(kernels, region, Lhs::Int8(&lhs), m, &rhs, &mut activated, epilogue);
                    expected.quantize(kernels, region, &activated, m, columns, activations).unwrap();
                    let mut buffer = vec![f32::NAN; m * columns];
                    let product = GatedProduct { lhs: &lhs, m, rhs: &rhs, epilogue, next: &next };
                    gemm_gated(kernels, region, product, &mut buffer, &mut found).unwrap();
                    let (expected, found) =
                        (expected.rows(m, columns, activations), found.rows(m, columns, activations));
                    let groups = columns.div_ceil(activations.group);
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
