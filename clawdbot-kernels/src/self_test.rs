//! A check, before their first use, of kernels that not every machine of the project's tests can run: a wrong product is found
//! before a model computes with it.

use super::bf16_dot::Bf16Dot;
use super::isa::scalar;
use super::{
    ActivationFormat, ComputeFormat, Epilogue, KernelSet, Lhs, PackedMatrix, QuantizedRows, Result,
    RoundedRows, RowSource, gemm,
};
use crate::threads::{Region, ThreadPool};

/// Rows, output columns, k, group: tiles that are full and not, one slice of k and several. A few milliseconds in all.
const SHAPES: [(usize, usize, usize, usize); 7] = [
    (1, 17, 130, 64),
    (7, 33, 200, 64),
    (17, 16, 64, 64),
    (17, 48, 129, 64),
    (39, 50, 704, 64),
    (20, 20, 160, 32),
    (33, 33, 300, 128),
];

/// Reproducible weights in -1..1.
struct Weights {
    rows: usize,
    cols: usize,
}

fn value(at: usize) -> f32 {
    (at.wrapping_mul(0x9e37_79b9) >> 7 & 0xffff) as f32 / 32768.0 - 1.0
}

impl RowSource for Weights {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _stored: &[u8], out: &mut [f32]) {
        for (at, out) in out.iter_mut().enumerate() {
            *out = value(row * self.cols + at);
        }
    }
}

/// Compares the int8 products of `set` with those of the scalar kernels, and bf16 products with numerics of their own with
/// their definition, bit for bit; the first difference, if any.
///
/// # Errors
/// `OutOfMemory` without memory.
pub(super) fn difference(set: &KernelSet) -> Result<Option<String>> {
    ThreadPool::new(1).region(|region| {
        for (m, n, k, group) in SHAPES {
            let scalar = &scalar::KERNELS;
            let weights = Weights { rows: n, cols: k };
            let rhs = PackedMatrix::pack(
                scalar,
                region,
                ComputeFormat::Int8 { group, rotated: false },
                &[&weights],
            )?;
            let x: Vec<f32> = (0..m * k).map(|at| value(at + 1_000_003)).collect();
            let mut rows = QuantizedRows::default();
            rows.quantize(scalar, region, &x, m, k, ActivationFormat { group, rotated: false })?;
            let product = |kernels| {
                let mut out = vec![0.0; m * n];
                gemm(kernels, region, Lhs::Int8(&rows), m, &rhs, &mut out, Epilogue::default());
                out
            };
            let shape = || format!("int8 product of m {m}, n {n}, k {k}, group {group}");
            if let Some(difference) = first_difference(shape, &product(scalar), &product(set)) {
                return Ok(Some(difference));
            }
        }
        match &set.bf16_dot {
            Some(dot) => bf16_difference(set, dot, region),
            None => Ok(None),
        }
    })?
}

fn first_difference(what: impl Fn() -> String, expected: &[f32], found: &[f32]) -> Option<String> {
    let differs = |(expected, found): (&f32, &f32)| expected.to_bits() != found.to_bits();
    let at = expected.iter().zip(found).position(differs)?;
    Some(format!("{}: element {at}: expected {:?}, found {:?}", what(), expected[at], found[at]))
}

/// Compares bf16 products of `set` with the definition of its instruction.
fn bf16_difference(set: &KernelSet, dot: &Bf16Dot, region: &Region<'_>) -> Result<Option<String>> {
    let to_bf16 = |x: f32| half::bf16::from_f32(x).to_bits();
    for (m, n, k, _) in SHAPES {
        let weights = Weights { rows: n, cols: k };
        let rhs = PackedMatrix::pack(&scalar::KERNELS, region, ComputeFormat::Bf16, &[&weights])?;
        // Of very different size, so that sums are rounded in every way.
        let size = |at: usize| 2.0_f32.powi(at as i32 * 5 % 31 - 15);
        let x: Vec<f32> = (0..m * k).map(|at| value(at + 1_000_003) * size(at)).collect();
        let mut rows = RoundedRows::default();
        rows.round(set, region, &x, m, k)?;
        let mut found = vec![0.0; m * n];
        gemm(set, region, Lhs::Bf16(&rows), m, &rhs, &mut found, Epilogue::default());
        let x: Vec<u16> = x.into_iter().map(to_bf16).collect();
        let weights: Vec<u16> = (0..n * k).map(|at| to_bf16(value(at))).collect();
        let sums = |x: &[u16]| weights.chunks(k).map(|w| (dot.model)(x, w)).collect::<Vec<_>>();
        let expected: Vec<f32> = x.chunks(k).flat_map(sums).collect();
        let shape = || format!("bf16 product of m {m}, n {n}, k {k}");
        if let Some(difference) = first_difference(shape, &expected, &found) {
            return Ok(Some(difference));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::bf16_dot::vdpbf16_model;
    use super::super::gemm_bf16_amx::{Model, PANELS, Tiled};
    use super::super::simd::Scalar;
    use super::super::{Kernel, Slot, available};
    use super::*;

    #[test]
    fn right_kernels_pass_and_wrong_ones_do_not() {
        for set in available() {
            assert_eq!(difference(set).unwrap(), None, "{}", set.name);
        }
        /// Leaves a column out.
        static WRONG: KernelSet = KernelSet {
            name: "wrong",
            int8_gemm: Slot(|mut args| {
                args.panels.end -= 1;
                scalar::KERNELS.int8_gemm.call(args);
            }),
            ..scalar::SET
        };
        let found = difference(&WRONG).unwrap().unwrap();
        assert!(found.contains("m 17, n 16, k 64") && found.contains("found 0.0"), "{found}");
        /// Chains of FMA in another order.
        static WRONG_BF16: KernelSet = KernelSet {
            name: "wrong",
            bf16_dot: Some(Bf16Dot {
                product: |args| Tiled::<Model>::run(Scalar, args),
                tile_panels: PANELS,
                model: vdpbf16_model,
            }),
            ..scalar::SET
        };
        let found = difference(&WRONG_BF16).unwrap().unwrap();
        assert!(found.contains("bf16 product of m 1, n 17, k 130"), "{found}");
    }
}
