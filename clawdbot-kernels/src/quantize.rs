//! Symmetric int8 quantization of rows, in groups along k.

use super::hadamard::{ROTATED_BLOCK, hadamard, hadamard_row};
use super::simd::LANES;
use super::{Kernel, KernelSet, Result, RoundedRows, Simd};
use crate::error::Error;
use crate::memory::{AlignedBuf, SharedMut};
use crate::threads::Region;

/// Rows after the last that tiles may read (and ignore).
const SPARE_ROWS: usize = 15;

/// Groups that rotated rows may be quantized in: parts or multiples of a rotated block.
pub const ROTATED_GROUPS: &[usize] = &[16, 32, 64, 128, 256];
/// The largest of them.
const MAX_ROTATED_GROUP: usize = 256;

/// How activations are quantized to int8: symmetrically, with a scale for each group of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ActivationFormat {
    /// Activations along k that share a scale: a multiple of 4; of rotated ones, one of [`ROTATED_GROUPS`].
    pub group: usize,
    /// Whether rows are rotated before they are quantized: see `hadamard.rs`.
    pub rotated: bool,
}

/// Groups of `group` in a row of `k`.
pub(super) fn groups(k: usize, group: usize) -> usize {
    k.div_ceil(group)
}

/// Activations `[m, k]` as int8 with a scale per row and group. Scratch: grows, keeps its memory.
///
/// Per group: `amax = max |x|`, `scale = amax / 127`, `code = x * (127 / amax)` rounded half to even, in -127..=127.
/// Where `127 / amax` is not finite (amax below 3.8e-37), scale and codes are 0. A group with a NaN or an infinity has the
/// scale NaN, so that it shows in every output.
#[derive(Default)]
pub struct QuantizedRows {
    m: usize,
    k: usize,
    format: ActivationFormat,
    /// `[m, stride]`, zeros beyond k.
    codes: AlignedBuf<i8>,
    /// `[m, groups]`.
    scales: AlignedBuf<f32>,
    /// `[m, groups]`: `-128 * sum(codes)`, where the accumulators of [`Simd::FLIPPED`] kernels start.
    starts: AlignedBuf<i32>,
    /// The same rows rounded to bf16, for kernels that take them so.
    pub rounded: RoundedRows,
}

/// Writes [`QuantizedRows`] from several tasks.
pub(super) struct RowWriter<'a> {
    k: usize,
    format: ActivationFormat,
    codes: SharedMut<'a, i8>,
    scales: SharedMut<'a, f32>,
    starts: SharedMut<'a, i32>,
}

impl RowWriter<'_> {
    /// Quantizes `x`, columns `first..` of row `row`: a whole number of groups and rotated blocks, or up to the end.
    ///
    /// # Panics
    /// When `first` is not a multiple of the group, or the row or the columns do not exist.
    ///
    /// # Safety
    /// No other task may write one of these columns of this row.
    pub(super) unsafe fn write(&self, kernels: &KernelSet, row: usize, first: usize, x: &[f32]) {
        let Self { k, format: ActivationFormat { group, rotated }, .. } = *self;
        let (stride, groups) = (QuantizedRows::stride(k), groups(k, group));
        // With whole groups of the row, the parts of two tasks are as disjoint as their columns.
        assert!(first.is_multiple_of(group) && first + x.len() <= k, "columns {first}.. of {k}");
        // What is after the last column is zeros.
        let end = if first + x.len() == k { stride } else { first + x.len() };
        let (group_at, group_count) = (row * groups + first / group, x.len().div_ceil(group));
        // SAFETY: codes of the row's columns, which by the clause above are this task's; those after the last column belong
        // to the task that has the last column.
        let codes = unsafe { self.codes.slice(row * stride + first, end - first) };
        // SAFETY: scales of the groups of these columns, which begin with a group, as asserted.
        let scales = unsafe { self.scales.slice(group_at, group_count) };
        // SAFETY: starts of the groups of these columns, which begin with a group, as asserted.
        let starts = unsafe { self.starts.slice(group_at, group_count) };
        let (codes, rest) = codes.split_at_mut(x.len());
        rest.fill(0);
        kernels.quantize_row.call(QuantizeArgs { x, group, rotated, codes, scales, starts });
    }
}

/// What the int8 kernels read of [`QuantizedRows`].
#[derive(Clone, Copy)]
pub(super) struct Int8Rows<'a> {
    pub(super) codes: &'a [i8],
    /// Bytes from row to row.
    pub(super) stride: usize,
    pub(super) scales: &'a [f32],
    pub(super) starts: &'a [i32],
}

impl QuantizedRows {
    /// Quantizes `x`, `[m, k]`.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    ///
    /// # Panics
    /// When `x` is not `m * k` long.
    pub fn quantize(
        &mut self,
        kernels: &KernelSet,
        region: &Region<'_>,
        x: &[f32],
        m: usize,
        k: usize,
        format: ActivationFormat,
    ) -> Result<()> {
        assert_eq!(x.len(), m * k, "x: [{m}, {k}]");
        let writer = self.writer(m, k, format)?;
        if m * k == 0 {
            return Ok(());
        }
        // Rows per task: enough work to be worth a task.
        let rows = (8192 / k).clamp(1, m.div_ceil(region.threads()));
        region.parallel(m.div_ceil(rows), |task| {
            for row in task * rows..((task + 1) * rows).min(m) {
                // SAFETY: each row belongs to one task, and `parallel` calls each task once.
                unsafe { writer.write(kernels, row, 0, &x[row * k..][..k]) };
            }
        });
        Ok(())
    }

    /// Makes room for rows `[m, k]`; the caller then writes all of them.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub(super) fn writer(&mut self, m: usize, k: usize, format: ActivationFormat) -> Result<RowWriter<'_>> {
        let ActivationFormat { group, rotated } = format;
        assert!(!rotated || ROTATED_GROUPS.contains(&group), "rotated rows in groups of {group}");
        let (stride, groups) = (Self::stride(k), groups(k, group));
        let too_many = || Error::out_of_memory(format!("[{m}, {k}] activations do not fit into memory"));
        let rows = m.checked_add(SPARE_ROWS).ok_or_else(too_many)?;
        // Empty until everything is there.
        self.m = 0;
        self.codes.reserve(rows.checked_mul(stride).ok_or_else(too_many)?)?;
        self.scales.reserve(rows.checked_mul(groups).ok_or_else(too_many)?)?;
        self.starts.reserve(rows.checked_mul(groups).ok_or_else(too_many)?)?;
        (self.m, self.k, self.format) = (m, k, format);
        Ok(RowWriter {
            k,
            format,
            codes: SharedMut::new(&mut self.codes),
            scales: SharedMut::new(&mut self.scales),
            starts: SharedMut::new(&mut self.starts),
        })
    }

    /// Bytes that `[m, k]` in groups of `group` take, a group of 1 or more; `None` on overflow.
    pub fn bytes(m: usize, k: usize, group: usize) -> Option<u64> {
        // More than a stride.
        k.checked_add(1024)?;
        let row = Self::stride(k).checked_add(groups(k, group).checked_mul(8)?)?;
        m.checked_add(SPARE_ROWS)?.checked_mul(row).map(|bytes| bytes as u64)
    }

    /// Whether these are `m` rows of `k`, quantized in that format.
    pub fn are(&self, m: usize, k: usize, format: ActivationFormat) -> bool {
        (self.m, self.k, self.format) == (m, k, format)
    }

    /// Drops the rows, but keeps the memory.
    pub fn clear(&mut self) {
        self.m = 0;
    }

    /// Copies `m` rows of `from` as they are: row `i` becomes a copy of the row that `rows` yields `i`th.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    ///
    /// # Panics
    /// When `from` does not have such a row.
    pub fn gather(
        &mut self,
        from: &QuantizedRows,
        m: usize,
        rows: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let QuantizedRows { k, format, .. } = *from;
        let (stride, groups) = (Self::stride(k), groups(k, format.group));
        self.m = 0;
        // No more than `from` has, and there it was possible.
        self.codes.reserve((m + SPARE_ROWS) * stride)?;
        self.scales.reserve((m + SPARE_ROWS) * groups)?;
        self.starts.reserve((m + SPARE_ROWS) * groups)?;
        for (to, row) in rows.take(m).enumerate() {
            assert!(row < from.m, "row {row} of {}", from.m);
            self.codes[to * stride..][..stride].copy_from_slice(&from.codes[row * stride..][..stride]);
            let (to, row) = (to * groups, row * groups);
            self.scales[to..][..groups].copy_from_slice(&from.scales[row..][..groups]);
            self.starts[to..][..groups].copy_from_slice(&from.starts[row..][..groups]);
        }
        (self.m, self.k, self.format) = (m, k, format);
        Ok(())
    }

    /// Bytes from row to row: an odd multiple of 512, so that the same stretch of 512 codes of eight rows falls into
    /// different sets of a cache.
    pub(super) fn stride(k: usize) -> usize {
        (k.div_ceil(512) | 1) * 512
    }

    /// # Panics
    /// When there are fewer than `m` rows, or they are not of `k` in that format.
    pub(super) fn rows(&self, m: usize, k: usize, format: ActivationFormat) -> Int8Rows<'_> {
        assert!(
            self.m >= m && self.k == k && self.format == format,
            "quantized rows: expected [{m}, {k}] by {}, found [{}, {}] by {} (rotated: {}, {})",
            format.group,
            self.m,
            self.k,
            self.format.group,
            format.rotated,
            self.format.rotated
        );
        Int8Rows { codes: &self.codes, stride: Self::stride(k), scales: &self.scales, starts: &self.starts }
    }
}

/// Arguments of [`QuantizeRow`].
pub(super) struct QuantizeArgs<'a> {
    x: &'a [f32],
    group: usize,
    rotated: bool,
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    starts: &'a mut [i32],
}

/// One row of activations.
pub(super) struct QuantizeRow;
impl Kernel for QuantizeRow {
    type Args<'a> = QuantizeArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: QuantizeArgs<'_>) {
        if args.group == ROTATED_BLOCK {
            return quantize_in_blocks::<S, 1>(s, args);
        }
        if args.group == 2 * ROTATED_BLOCK {
            return quantize_in_blocks::<S, 2>(s, args);
        }
        let QuantizeArgs { x, group, rotated, codes, scales, starts } = args;
        if rotated {
            // As many elements at a time as hold whole groups and whole blocks.
            let strip = group.max(ROTATED_BLOCK);
            let mut results = scales.iter_mut().zip(starts);
            for (x, codes) in x.chunks(strip).zip(codes.chunks_mut(strip)) {
                quantize_strip(s, x, group, codes, &mut results);
            }
        } else {
            let groups = x.chunks(group).zip(codes.chunks_mut(group));
            for ((x, codes), (scale, start)) in groups.zip(scales.iter_mut().zip(starts)) {
                (*scale, *start) = quantize_group(s, x, codes);
            }
        }
    }
}

/// A row in groups of `B` blocks, each group in registers; a last shorter group through memory.
#[inline(always)]
fn quantize_in_blocks<S: Simd, const B: usize>(s: S, args: QuantizeArgs<'_>) {
    let QuantizeArgs { x, group, rotated, codes, scales, starts } = args;
    let mut results = scales.iter_mut().zip(starts);
    for (x, codes) in x.chunks(group).zip(codes.chunks_mut(group)) {
        let (blocks, rest) = x.as_chunks::<ROTATED_BLOCK>();
        match blocks.as_array::<B>() {
            Some(blocks) if rest.is_empty() => {
                let result = quantize_blocks(s, blocks, rotated, codes);
                results.next().into_iter().for_each(|(scale, start)| (*scale, *start) = result);
            }
            _ if rotated => quantize_strip(s, x, group, codes, &mut results),
            _ => {
                let result = quantize_group(s, x, codes);
                results.next().into_iter().for_each(|(scale, start)| (*scale, *start) = result);
            }
        }
    }
}

/// Rotates up to [`MAX_ROTATED_GROUP`] elements (whole blocks; the elements after them stay) and quantizes them in groups.
#[inline(always)]
fn quantize_strip<'r, S: Simd>(
    s: S,
    x: &[f32],
    group: usize,
    codes: &mut [i8],
    results: &mut impl Iterator<Item = (&'r mut f32, &'r mut i32)>,
) {
    let mut buffer = [0.0; MAX_ROTATED_GROUP];
    let strip = &mut buffer[..x.len()];
    strip.copy_from_slice(x);
    hadamard_row(s, strip);
    for ((x, codes), (scale, start)) in strip.chunks(group).zip(codes.chunks_mut(group)).zip(results) {
        (*scale, *start) = quantize_group(s, x, codes);
    }
}

/// Codes of one group of activations; its scale and `-128 * sum(codes)`.
#[inline(always)]
fn quantize_group<S: Simd>(s: S, x: &[f32], codes: &mut [i8]) -> (f32, i32) {
    let (amax, poison) = amax(s, x);
    let inv = 127.0 / amax;
    if inv.is_finite() {
        let sum = to_codes(s, x, Factor::Times(inv), codes);
        (amax / 127.0 + poison, sum.wrapping_mul(-128))
    } else {
        codes.fill(0);
        (poison, 0)
    }
}

/// As [`quantize_group`] for a group of whole blocks, rotated or not, which stays in registers.
#[inline(always)]
fn quantize_blocks<S: Simd, const B: usize>(
    s: S,
    x: &[[f32; ROTATED_BLOCK]; B],
    rotated: bool,
    codes: &mut [i8],
) -> (f32, i32) {
    let mut blocks = [[s.zero(); ROTATED_BLOCK / LANES]; B];
    let (mut max, mut poison) = (s.zero(), s.zero());
    for b in 0..B {
        let x = x[b].as_chunks::<LANES>().0;
        blocks[b] = [s.load(&x[0]), s.load(&x[1]), s.load(&x[2]), s.load(&x[3])];
        if rotated {
            blocks[b] = hadamard(s, blocks[b]);
        }
        for v in blocks[b] {
            max = s.max(max, s.abs(v));
            poison = s.fma(v, s.zero(), poison);
        }
    }
    let (amax, poison) = (s.reduce_max(max), s.reduce_add(poison));
    let inv = 127.0 / amax;
    if !inv.is_finite() {
        codes.fill(0);
        return (poison, 0);
    }
    let mut sum = s.splat_i32(0);
    let codes = codes.as_chunks_mut::<LANES>().0;
    for b in 0..B {
        for (v, codes) in blocks[b].into_iter().zip(&mut codes[b * ROTATED_BLOCK / LANES..]) {
            let v = code(s, v, Factor::Times(inv));
            sum = s.add_i32(sum, v);
            s.store_i8(v, codes);
        }
    }
    (amax / 127.0 + poison, s.reduce_add_i32(sum).wrapping_mul(-128))
}

/// One row of weights to quantize.
pub(super) struct WeightRow<'a> {
    /// `[k]`
    pub(super) x: &'a [f32],
    pub(super) group: usize,
    /// `[k]`
    pub(super) codes: &'a mut [i8],
    /// For each group, bits of bf16.
    pub(super) scales: &'a mut [u16],
}

/// One row of weights: codes and bf16 scales; whether all weights are finite.
pub(super) struct QuantizeWeights;
impl Kernel for QuantizeWeights {
    type Args<'a> = WeightRow<'a>;
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(s: S, WeightRow { x, group, codes, scales }: WeightRow<'_>) -> bool {
        let mut finite = true;
        for ((x, codes), scale) in x.chunks(group).zip(codes.chunks_mut(group)).zip(scales) {
            let (amax, poison) = amax(s, x);
            finite &= poison == 0.0;
            // Up to the next bf16: no code beyond 127.
            let rounded = (amax / 127.0).to_bits().wrapping_add(0xffff) & 0xffff_0000;
            let divisor = f32::from_bits(rounded);
            if poison == 0.0 && divisor >= f32::MIN_POSITIVE {
                *scale = (rounded >> 16) as u16;
                to_codes(s, x, Factor::Over(divisor), codes);
            } else {
                *scale = 0;
                codes.fill(0);
            }
        }
        finite
    }
}

/// `max |x|`, and 0.0 if all of `x` is finite, NaN otherwise.
#[inline(always)]
pub(super) fn amax<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    let (mut amax, mut poison) = (s.zero(), s.zero());
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        let v = s.load(chunk);
        amax = s.max(amax, s.abs(v));
        poison = s.fma(v, s.zero(), poison);
    }
    if !tail.is_empty() {
        let v = s.load_partial(tail);
        amax = s.max(amax, s.abs(v));
        poison = s.fma(v, s.zero(), poison);
    }
    (s.reduce_max(amax), s.reduce_add(poison))
}

#[derive(Clone, Copy)]
pub(super) enum Factor {
    Times(f32),
    Over(f32),
}

/// The codes of one group and their sum.
#[inline(always)]
pub(super) fn to_codes<S: Simd>(s: S, x: &[f32], factor: Factor, codes: &mut [i8]) -> i32 {
    let mut sum = s.splat_i32(0);
    let (chunks, tail) = x.as_chunks::<LANES>();
    let (code_chunks, code_tail) = codes.as_chunks_mut::<LANES>();
    for (chunk, codes) in chunks.iter().zip(code_chunks) {
        let v = code(s, s.load(chunk), factor);
        sum = s.add_i32(sum, v);
        s.store_i8(v, codes);
    }
    if !tail.is_empty() {
        let v = code(s, s.load_partial(tail), factor);
        sum = s.add_i32(sum, v);
        let mut lanes = [0; LANES];
        s.store_i8(v, &mut lanes);
        code_tail.copy_from_slice(&lanes[..tail.len()]);
    }
    s.reduce_add_i32(sum)
}

#[inline(always)]
fn code<S: Simd>(s: S, x: S::F32, factor: Factor) -> S::I32 {
    let scaled = match factor {
        Factor::Times(inv) => s.mul(x, s.splat(inv)),
        Factor::Over(scale) => s.div(x, s.splat(scale)),
    };
    // With this order of operands a NaN becomes -127 on every ISA.
    s.round_to_i32(s.min(s.max(scaled, s.splat(-127.0)), s.splat(127.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;
    use crate::threads::Stop;

    #[test]
    fn gathered_rows_are_those_of_the_rows_alone() {
        let (m, k, group) = (7, 200, 64);
        let (format, plain) =
            (ActivationFormat { group, rotated: true }, ActivationFormat { group, rotated: false });
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919 + 13) % 1009) as f32 / 100.0 - 5.0).collect();
        let (set, region) = (available()[0], Region::alone(Stop::NEVER));
        let mut all = QuantizedRows::default();
        all.quantize(set, &region, &x, m, k, format).unwrap();
        assert!(all.are(m, k, format) && !all.are(m, k, plain));
        let (taken, mut some) = ([5, 0, 6], QuantizedRows::default());
        some.gather(&all, taken.len(), taken.into_iter()).unwrap();
        let rows: Vec<f32> = taken.iter().flat_map(|row| &x[row * k..][..k]).copied().collect();
        let mut alone = QuantizedRows::default();
        alone.quantize(set, &region, &rows, taken.len(), k, format).unwrap();
        let (some, alone) = (some.rows(3, k, format), alone.rows(3, k, format));
        assert_eq!(some.codes[..3 * some.stride], alone.codes[..3 * alone.stride]);
        let groups = 3 * groups(k, group);
        assert_eq!(
            (&some.scales[..groups], &some.starts[..groups]),
            (&alone.scales[..groups], &alone.starts[..groups])
        );
        all.clear();
        assert!(!all.are(m, k, format));
    }
}
