//! A check at first use of kernels that not every machine of the project's tests can run: a wrong product is found before
//! a model computes with it.

use super::{
    ComputeFormat, Epilogue, KernelSet, Lhs, PackedMatrix, QuantizedRows, Result, RowSource, gemm, isa,
};
use crate::threads::ThreadPool;

/// Rows, output columns, k, group: tiles that are full and not, one slice of k and several. A few milliseconds in all.
const SHAPES: [(usize, usize, usize, usize); 7] = [
    (1, 17, 130, 64),
    (7, 33, 200, 64),
    (9, 16, 64, 64),
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

/// Compares the int8 products of `set` with those of the scalar kernels, bit for bit; the first difference, if any.
///
/// # Errors
/// `OutOfBudget` without memory.
pub(super) fn difference(set: &KernelSet) -> Result<Option<String>> {
    ThreadPool::new(1).region(|region| {
        for (m, n, k, group) in SHAPES {
            let scalar = &isa::scalar::KERNELS;
            let weights = Weights { rows: n, cols: k };
            let rhs = PackedMatrix::pack(scalar, region, ComputeFormat::Int8 { group, rotated: false }, &[&weights])?;
            let x: Vec<f32> = (0..m * k).map(|at| value(at + 1_000_003)).collect();
            let mut rows = QuantizedRows::default();
            rows.quantize(scalar, region, &x, m, k, group, false)?;
            let product = |kernels| {
                let mut out = vec![0.0; m * n];
                gemm(kernels, region, Lhs::Int8(&rows), m, &rhs, &mut out, Epilogue::default());
                out
            };
            let (expected, found): (Vec<f32>, Vec<f32>) = (product(scalar), product(set));
            let differs = |(expected, found): (&f32, &f32)| expected.to_bits() != found.to_bits();
            if let Some(at) = expected.iter().zip(&found).position(differs) {
                return Ok(Some(format!(
                    "int8 product of m {m}, n {n}, k {k}, group {group}: element {at}: expected {:?}, found {:?}",
                    expected[at], found[at]
                )));
            }
        }
        Ok(None)
    })?
}

#[cfg(test)]
mod tests {
    use super::super::{Slot, available};
    use super::*;

    #[test]
    fn right_kernels_pass_and_wrong_ones_do_not() {
        for set in available() {
            assert_eq!(difference(set).unwrap(), None, "{}", set.name);
        }
        /// Leaves a column out.
        static WRONG: KernelSet = KernelSet {
            name: "wrong",
            int8_wide: Slot(|mut args| {
                args.panels.end -= 1;
                isa::scalar::KERNELS.int8_wide.call(args);
            }),
            ..isa::scalar::SET
        };
        let found = difference(&WRONG).unwrap().unwrap();
        assert!(found.contains("m 9, n 16, k 64") && found.contains("found 0.0"), "{found}");
    }
}
