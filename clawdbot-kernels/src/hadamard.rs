//! Rotation of blocks along k before they are quantized.
//!
//! Every whole block of 64 elements is multiplied by the orthonormal Walsh-Hadamard matrix `H / 8`, on both sides of a
//! product. That does not change the product (`H H^T = 64`), but spreads an outlier over its whole block, so the largest
//! element, which determines a group's step, becomes much smaller (Ashkboos et al. 2024, QuaRot,
//! <https://arxiv.org/abs/2404.00456>). `docs/numerics.md` measures the effect. Elements after the last whole block of a row
//! are not rotated.

use super::simd::{LANES, Simd};
use super::{Kernel, KernelSet};

/// Elements that are rotated together.
pub(crate) const ROTATED_BLOCK: usize = 4 * LANES;

/// One block: steps over vectors first, then within them, strides descending; the factor 1/8 last.
#[inline(always)]
pub(super) fn hadamard<S: Simd>(s: S, v: [S::F32; 4]) -> [S::F32; 4] {
    let [a, b, c, d] = v;
    let (a, c) = (s.add(a, c), s.sub(a, c));
    let (b, d) = (s.add(b, d), s.sub(b, d));
    let mut out = [s.add(a, b), s.sub(a, b), s.add(c, d), s.sub(c, d)];
    for v in &mut out {
        *v = s.butterfly::<8>(*v);
        *v = s.butterfly::<4>(*v);
        *v = s.butterfly::<2>(*v);
        *v = s.butterfly::<1>(*v);
        *v = s.mul(*v, s.splat(0.125));
    }
    out
}

/// See [`KernelSet::hadamard`].
pub(super) struct Hadamard;
impl Kernel for Hadamard {
    type Args<'a> = &'a mut [f32];
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, row: &mut [f32]) {
        hadamard_row(s, row);
    }
}

/// The whole blocks of a row, in place.
#[inline(always)]
pub(super) fn hadamard_row<S: Simd>(s: S, row: &mut [f32]) {
    for block in row.as_chunks_mut::<LANES>().0.as_chunks_mut::<4>().0 {
        let [a, b, c, d] =
            hadamard(s, [s.load(&block[0]), s.load(&block[1]), s.load(&block[2]), s.load(&block[3])]);
        s.store(a, &mut block[0]);
        s.store(b, &mut block[1]);
        s.store(c, &mut block[2]);
        s.store(d, &mut block[3]);
    }
}

impl KernelSet {
    /// Rotates the whole blocks of a row, in place. Twice gives the row again, up to rounding.
    pub fn hadamard(&self, row: &mut [f32]) {
        self.hadamard.call(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;

    fn row(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 100.0 - 5.0).collect()
    }

    #[test]
    fn is_the_walsh_hadamard_transform() {
        let x = row(ROTATED_BLOCK);
        for set in available() {
            let mut rotated = x.clone();
            set.hadamard(&mut rotated);
            for (i, &found) in rotated.iter().enumerate() {
                let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                let expected: f64 =
                    x.iter().enumerate().map(|(j, &x)| sign(j) * f64::from(x)).sum::<f64>() / 8.0;
                assert!((f64::from(found) - expected).abs() < 1e-5, "{} {i}: {found} {expected}", set.name);
            }
        }
    }

    #[test]
    fn is_the_same_on_all_and_its_own_inverse() {
        let x = row(3 * ROTATED_BLOCK + 17);
        let mut expected: Option<Vec<u32>> = None;
        for set in available() {
            let mut found = x.clone();
            set.hadamard(&mut found);
            assert_eq!(found[3 * ROTATED_BLOCK..], x[3 * ROTATED_BLOCK..], "the rest stays");
            let bits: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
            assert_eq!(*expected.get_or_insert_with(|| bits.clone()), bits, "{}", set.name);
            set.hadamard(&mut found);
            assert!(found.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-5), "{}", set.name);
        }
    }
}
