//! From the mean of `x^T x` to the factors of the feedback.
//!
//! `H = U D U^T` is a Cholesky decomposition from the last column to the first, in blocks: the block on the diagonal is
//! decomposed in f64, the part above it is multiplied by its inverse, and what that part explains is subtracted from the
//! blocks before it, a product of f32 each.

use std::ops::Range;

use super::gram::{Triangle, columns};
use super::{BLOCK, GROUP, Gram};
use crate::memory::AlignedBuf;
use crate::packing::RowSource;
use crate::threads::Region;
use crate::{
    ComputeFormat, Epilogue, Error, KernelSet, Lhs, OutColumns, PackedMatrix, Result, gemm, gemm_columns,
};

/// How much the damping grows where a matrix is not positive definite in f32.
const MORE_DAMPING: f32 = 10.0;

/// The factors of the feedback, in the order in which columns are rounded.
pub struct Factors {
    /// The column at each place
    pub(super) order: Vec<usize>,
    /// `[k]`: what a squared rounding error costs, by place
    pub(super) importance: Vec<f32>,
    /// None without feedback
    feedback: Option<Feedback>,
}

/// What the sums of inputs were made into.
struct Feedback {
    /// Unit upper triangular, by place
    factor: Triangle,
    /// What the sums were multiplied by
    scale: f32,
}

/// See [`Factors::solving`].
pub(super) struct Solving {
    /// `[columns, columns]`
    pub(super) own: PackedMatrix,
    /// `[places before, columns]`, negative: what the block's `z` take from `c` before it
    pub(super) before: Option<PackedMatrix>,
}

impl Factors {
    /// Those of `gram`, with `damping` times the mean of the diagonal added to the diagonal; more where that is not enough.
    ///
    /// # Errors
    /// `InvalidArgument` for inputs that no damping helps, `OutOfMemory` without memory.
    pub fn new(kernels: &KernelSet, region: &Region<'_>, gram: &Gram, damping: f32) -> Result<Self> {
        let sums = gram.sums();
        let diagonal: Vec<f32> = (0..sums.k).map(|i| sums.at(i, i)).collect();
        let mean = (diagonal.iter().map(|&x| f64::from(x)).sum::<f64>() / sums.k.max(1) as f64) as f32;
        let scale = if mean > 0.0 { 1.0 / mean } else { 0.0 };
        let order = order(&diagonal);
        let mut damping = damping;
        loop {
            let mut upper = arranged(region, sums, &order, scale, damping)?;
            if decompose(kernels, region, &mut upper)? {
                let importance = normalize(&mut upper);
                let feedback = Feedback { factor: upper, scale };
                return Ok(Factors { order, importance, feedback: Some(feedback) });
            }
            damping = (damping * MORE_DAMPING).max(1e-3);
            if damping.is_nan() || damping >= 1e6 {
                return Err(Error::InvalidArgument("inputs that cannot be decomposed".to_owned()));
            }
        }
    }

    /// Without feedback: rounding to nearest, with the scale that costs least. `importance` is what a squared error of each
    /// column costs.
    pub fn diagonal(importance: Vec<f32>) -> Self {
        Factors { order: (0..importance.len()).collect(), importance, feedback: None }
    }

    /// What the sums of inputs were multiplied by; none without feedback.
    pub(super) fn scale(&self) -> Option<f32> {
        self.feedback.as_ref().map(|feedback| feedback.scale)
    }

    /// Number of columns.
    pub fn k(&self) -> usize {
        self.order.len()
    }

    pub(super) fn blocks(&self) -> usize {
        self.k().div_ceil(BLOCK)
    }

    /// Those within block `b`, as the kernel reads them: `[columns, columns]`, transposed.
    pub(super) fn within(&self, b: usize) -> Vec<f32> {
        let columns = columns(self.k(), b);
        let width = columns.len();
        let mut within = vec![0.0; width * width];
        if let Some(Feedback { factor: Triangle { blocks, .. }, .. }) = &self.feedback {
            for (i, row) in blocks[b][columns.start * width..].chunks_exact(width).enumerate() {
                for j in i + 1..width {
                    within[j * width + i] = row[j];
                }
            }
        }
        within
    }

    /// Those from block `b` to all places after it, packed for a product; none where there is nothing after it, or no
    /// feedback.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub(super) fn after(
        &self,
        kernels: &KernelSet,
        region: &Region<'_>,
        b: usize,
    ) -> Result<Option<PackedMatrix>> {
        let Some(feedback) = self.feedback.as_ref().filter(|_| b + 1 < self.blocks()) else {
            return Ok(None);
        };
        let source = After { triangle: &feedback.factor, from: columns(self.k(), b) };
        PackedMatrix::pack(kernels, region, ComputeFormat::F32, &[&source]).map(Some)
    }

    /// What takes `c` to `z` of `z U^T = c` in block `b`; none without feedback.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub(super) fn solving(
        &self,
        kernels: &KernelSet,
        region: &Region<'_>,
        b: usize,
    ) -> Result<Option<Solving>> {
        let Some(Feedback { factor, .. }) = &self.feedback else { return Ok(None) };
        let columns = columns(self.k(), b);
        let width = columns.len();
        let block = &factor.blocks[b];
        let (above, corner) = block.split_at(columns.start * width);
        let corner: Vec<f64> = corner.iter().map(|&x| f64::from(x)).collect();
        let inverse: Vec<f32> = inverted(&corner, width).iter().map(|&x| x as f32).collect();
        let pack = |source: Dense<'_>| PackedMatrix::pack(kernels, region, ComputeFormat::F32, &[&source]);
        let own = pack(Dense { values: &inverse, k: width, sign: 1.0 })?;
        let before = match above.is_empty() {
            true => None,
            false => Some(pack(Dense { values: above, k: width, sign: -1.0 })?),
        };
        Ok(Some(Solving { own, before }))
    }
}

/// The order in which columns are rounded: groups by the sum of their diagonal, and columns within them by their own, largest
/// first. A last group that is shorter stays the last.
fn order(diagonal: &[f32]) -> Vec<usize> {
    let whole = diagonal.len() / GROUP;
    let sum = |g: usize| diagonal[g * GROUP..][..GROUP].iter().map(|&x| f64::from(x)).sum::<f64>();
    let sums: Vec<f64> = (0..whole).map(sum).collect();
    let mut groups: Vec<usize> = (0..whole).collect();
    groups.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]));
    if whole * GROUP < diagonal.len() {
        groups.push(whole);
    }
    let mut order = Vec::with_capacity(diagonal.len());
    for g in groups {
        let start = order.len();
        order.extend(g * GROUP..((g + 1) * GROUP).min(diagonal.len()));
        order[start..].sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    }
    order
}

/// The elements of `sums` times `scale` by the places of their columns, with `damping` added to the diagonal.
fn arranged(
    region: &Region<'_>,
    sums: &Triangle,
    order: &[usize],
    scale: f32,
    damping: f32,
) -> Result<Triangle> {
    let k = order.len();
    let mut upper = Triangle::zeroed(k)?;
    for (b, block) in upper.blocks.iter_mut().enumerate() {
        let columns = columns(k, b);
        region.parallel_chunks_mut(block, 16 * columns.len(), |part, rows| {
            for (row, values) in rows.chunks_exact_mut(columns.len()).enumerate() {
                let i = part * 16 + row;
                for (value, j) in values.iter_mut().zip(columns.clone()) {
                    *value = sums.at(order[i], order[j]) * scale + if i == j { damping } else { 0.0 };
                }
            }
        });
    }
    Ok(upper)
}

/// Replaces `upper`, the upper triangle of a symmetric `A`, by `V` of `A = V V^T`; false if `A` is not positive definite.
fn decompose(kernels: &KernelSet, region: &Region<'_>, upper: &mut Triangle) -> Result<bool> {
    let k = upper.k;
    for b in (0..upper.blocks.len()).rev() {
        let own = columns(k, b);
        let (before, rest) = upper.blocks.split_at_mut(b);
        let (above, corner) = rest[0].split_at_mut(own.start * own.len());
        let Some(inverse) = decompose_corner(corner, own.len()) else { return Ok(false) };
        if above.is_empty() {
            continue;
        }
        let source = Dense { values: &inverse, k: own.len(), sign: 1.0 };
        let packed = PackedMatrix::pack(kernels, region, ComputeFormat::F32, &[&source])?;
        let mut solved = AlignedBuf::<f32>::zeroed(above.len())?;
        gemm(kernels, region, Lhs::F32(above), own.start, &packed, &mut solved, Epilogue::default());
        above.copy_from_slice(&solved);
        for (other, block) in before.iter_mut().enumerate() {
            let to = columns(k, other);
            let (rows, width) = (to.end, to.len());
            let part = &above[to.start * own.len()..to.end * own.len()];
            let source = Dense { values: part, k: own.len(), sign: -1.0 };
            let packed = PackedMatrix::pack(kernels, region, ComputeFormat::F32, &[&source])?;
            let out = OutColumns { out: &mut *block, columns: 0..width, stride: width };
            let epilogue = Epilogue { residual: true, ..Epilogue::default() };
            let lhs = Lhs::F32(&above[..rows * own.len()]);
            gemm_columns(kernels, region, lhs, rows, &packed, out, epilogue);
        }
    }
    Ok(true)
}

/// As [`decompose`], of a block on the diagonal; returns the inverse of `V`, which is upper triangular too.
fn decompose_corner(corner: &mut [f32], width: usize) -> Option<Vec<f32>> {
    let mut v: Vec<f64> = corner.iter().map(|&x| f64::from(x)).collect();
    for c in (0..width).rev() {
        let explained: f64 = (c + 1..width).map(|m| v[c * width + m] * v[c * width + m]).sum();
        let square = v[c * width + c] - explained;
        // Below this, f32 has no digits left of what it was subtracted from.
        let least = f64::from(f32::EPSILON) * v[c * width + c].max(1e-30);
        if square.is_nan() || square <= least {
            return None;
        }
        let root = square.sqrt();
        v[c * width + c] = root;
        for r in 0..c {
            let explained: f64 = (c + 1..width).map(|m| v[r * width + m] * v[c * width + m]).sum();
            v[r * width + c] = (v[r * width + c] - explained) / root;
        }
    }
    let inverse = inverted(&v, width);
    for (i, (to, &from)) in corner.iter_mut().zip(&v).enumerate() {
        *to = if i % width >= i / width { from as f32 } else { 0.0 };
    }
    Some(inverse.iter().map(|&x| x as f32).collect())
}

/// The inverse of an upper triangular matrix.
fn inverted(v: &[f64], width: usize) -> Vec<f64> {
    let mut inverse = vec![0.0_f64; width * width];
    for c in 0..width {
        inverse[c * width + c] = 1.0 / v[c * width + c];
        for r in (0..c).rev() {
            let sum: f64 = (r + 1..=c).map(|m| v[r * width + m] * inverse[m * width + c]).sum();
            inverse[r * width + c] = -sum / v[r * width + r];
        }
    }
    inverse
}

/// Divides each column by its element on the diagonal; returns the squares of these.
fn normalize(upper: &mut Triangle) -> Vec<f32> {
    let k = upper.k;
    let mut squares = Vec::with_capacity(k);
    for (b, block) in upper.blocks.iter_mut().enumerate() {
        let columns = columns(k, b);
        let width = columns.len();
        let corner = &block[columns.start * width..];
        let roots: Vec<f32> = (0..width).map(|c| corner[c * width + c]).collect();
        for row in block.chunks_exact_mut(width) {
            row.iter_mut().zip(&roots).for_each(|(x, root)| *x /= root);
        }
        squares.extend(roots.iter().map(|root| root * root));
    }
    squares
}

/// Rows of floats, times a sign.
struct Dense<'a> {
    values: &'a [f32],
    k: usize,
    sign: f32,
}

impl RowSource for Dense<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.k
    }
    fn cols(&self) -> usize {
        self.k
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        let values = &self.values[row * self.k..][..self.k];
        out.iter_mut().zip(values).for_each(|(out, x)| *out = self.sign * x);
    }
}

/// A row for each place after the places `from`, with the factors from these.
struct After<'a> {
    triangle: &'a Triangle,
    from: Range<usize>,
}

impl RowSource for After<'_> {
    fn rows(&self) -> usize {
        self.triangle.k - self.from.end
    }
    fn cols(&self) -> usize {
        self.from.len()
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        let place = self.from.end + row;
        let b = place / BLOCK;
        let columns = columns(self.triangle.k, b);
        let values = &self.triangle.blocks[b][self.from.start * columns.len() + place - columns.start..];
        out.iter_mut().zip(values.iter().step_by(columns.len())).for_each(|(out, &x)| *out = x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::select;
    use crate::threads::ThreadPool;

    #[test]
    fn the_factors_are_those_of_the_matrix() {
        let (k, tokens) = (300, 512);
        // Some numbers, and in each column something that all have in common.
        let own = |i: usize| (i * i % 7919) as f32 / 7919.0 - 0.5;
        let x: Vec<f32> = (0..tokens * k).map(|i| own(i) + own(i / k)).collect();
        let kernels = select(None).unwrap();
        let pool = ThreadPool::new(2);
        pool.region(|region| {
            let mut gram = Gram::new(k).unwrap();
            gram.add(kernels, region, &x).unwrap();
            let exact = |i: usize, j: usize| -> f64 {
                (0..tokens).map(|t| f64::from(x[t * k + i]) * f64::from(x[t * k + j])).sum()
            };
            let sums = gram.sums();
            for (i, j) in [(0, 0), (0, 1), (17, 130), (130, 17), (299, 299), (128, 256)] {
                let norm = (exact(i, i) * exact(j, j)).sqrt();
                assert!((f64::from(sums.at(i, j)) - exact(i, j)).abs() < 0.01 * norm, "{i}, {j}");
            }
            let factors = Factors::new(kernels, region, &gram, 0.01).unwrap();
            let factor = &factors.feedback.as_ref().unwrap().factor;
            let mean = (0..k).map(|i| f64::from(sums.at(i, i))).sum::<f64>() / k as f64;
            let upper = |i: usize, j: usize| if i > j { 0.0 } else { f64::from(factor.at(i, j)) };
            for (i, j) in [(0, 0), (0, 7), (3, 140), (130, 131), (120, 290), (299, 299)] {
                let product: f64 =
                    (0..k).map(|m| upper(i, m) * f64::from(factors.importance[m]) * upper(j, m)).sum();
                let damping = if i == j { 0.01 } else { 0.0 };
                let wanted = f64::from(sums.at(factors.order[i], factors.order[j])) / mean + damping;
                assert!((product - wanted).abs() < 1e-4, "{i}, {j}: {product} {wanted}");
            }
        })
        .unwrap();
    }

    #[test]
    fn inputs_of_few_directions_are_damped() {
        let kernels = select(None).unwrap();
        ThreadPool::new(1)
            .region(|region| {
                for x in [vec![0.0; 40 * 3], vec![1.0; 40 * 3]] {
                    let mut gram = Gram::new(40).unwrap();
                    gram.add(kernels, region, &x).unwrap();
                    let factors = Factors::new(kernels, region, &gram, 0.0).unwrap();
                    assert!(factors.importance.iter().all(|x| x.is_finite() && *x > 0.0));
                }
                let mut gram = Gram::new(40).unwrap();
                assert!(gram.add(kernels, region, &[f32::NAN; 40]).is_err());
            })
            .unwrap();
    }
}
