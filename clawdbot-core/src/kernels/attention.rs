//! Grouped-query attention over cache pages with an online softmax, one tile of query rows at a time.
//!
//! ```text
//! s[r][j] = q[r] . k[j]          for the keys j that row r sees (q is scaled beforehand)
//! out[r]  = sum over j of exp(s[r][j]) v[j] / sum over j of exp(s[r][j])
//! ```
//! Keys are taken in blocks of one page, at absolute positions, ascending: running maximum, sum and weighted values
//! are rescaled when the maximum grows (Milakov, Gimelshein 2018, <https://arxiv.org/abs/1805.02867>).
//!
//! Numerics: each score is one FMA chain over the dimensions, each weighted value one FMA chain over the keys. A
//! masked key has weight 0, which changes nothing as long as its value is finite; so a row's bits depend on its own query and keys alone, and not on
//! the other rows of the tile. That makes results independent of batch, chunking and threads.

use super::exp;
use super::simd::{LANES, Simd};
use super::{Kernel, KernelSet};
use crate::cache::PAGE_TOKENS;
use crate::memory::Pod;

/// Most query rows of a tile.
pub(crate) const MAX_ROWS: usize = 64;
/// Query rows whose sums are held in registers at once.
const ROWS: usize = 4;
/// Vectors of a block of keys, and of a slice of value dimensions.
const VECTORS: usize = PAGE_TOKENS / LANES;

/// A type that keys and values are kept as.
pub(crate) trait KvElement: Pod {
    /// To the nearest representable value, ties to even.
    fn from_f32(x: f32) -> Self;
    /// Sixteen elements, widened exactly.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F32;
}

impl KvElement for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F32 {
        s.load(x)
    }
}

/// bf16 by its bits.
impl KvElement for u16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        half::bf16::from_f32(x).to_bits()
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F32 {
        s.load_bf16(x)
    }
}

/// One tile: some tokens of one sequence, all query heads of one KV head.
pub(crate) struct AttentionArgs<'a, E> {
    /// `[rows, head_dim]`, scaled.
    pub(crate) queries: &'a [f32],
    /// Position of each row.
    pub(crate) positions: &'a [usize],
    /// Elements of a head.
    pub(crate) head_dim: usize,
    /// Number of last positions a row sees, its own included.
    pub(crate) window: Option<usize>,
    /// Index of the first page in `pages`: it holds positions from `first_page * PAGE_TOKENS`.
    pub(crate) first_page: usize,
    /// K and V of this head, page by page, up to the last position of the tile. Layout: `cache`.
    pub(crate) pages: &'a [&'a [E]],
    /// `[rows, head_dim]`.
    pub(crate) out: &'a mut [f32],
}

/// See [`KernelSet::attention_f32`] and [`KernelSet::attention_bf16`].
pub(super) struct Attention<E>(std::marker::PhantomData<E>);

impl<E: KvElement> Kernel for Attention<E> {
    type Args<'a> = AttentionArgs<'a, E>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Self::Args<'_>) {
        attention(s, args);
    }
}

impl KernelSet {
    /// Attention of one tile over f32 pages.
    pub(crate) fn attention_f32(&self, args: AttentionArgs<'_, f32>) {
        self.attention_f32.call(args);
    }

    /// Attention of one tile over bf16 pages.
    pub(crate) fn attention_bf16(&self, args: AttentionArgs<'_, u16>) {
        self.attention_bf16.call(args);
    }
}

#[inline(always)]
fn attention<S: Simd, E: KvElement>(s: S, args: AttentionArgs<'_, E>) {
    let AttentionArgs { queries, positions, head_dim, window, first_page, pages, out } = args;
    let rows = positions.len();
    assert!(rows <= MAX_ROWS && head_dim > 0, "tile of {rows} rows");
    assert!(queries.len() == rows * head_dim && out.len() == rows * head_dim, "tile shape");
    let value_stride = head_dim.next_multiple_of(LANES);
    let mut max = [f32::NEG_INFINITY; MAX_ROWS];
    let mut sum = [0.0_f32; MAX_ROWS];
    out.fill(0.0);
    for (index, page) in pages.iter().enumerate() {
        let block = (first_page + index) * PAGE_TOKENS;
        let (keys, values) = page.split_at(PAGE_TOKENS * head_dim);
        assert!(values.len() >= PAGE_TOKENS * value_stride, "page shape");
        let mut first = 0;
        while first < rows {
            let count = (rows - first).min(ROWS);
            let part = first..first + count;
            let mut tile = Rows {
                queries: &queries[first * head_dim..][..count * head_dim],
                positions: &positions[part.clone()],
                max: &mut max[part.clone()],
                sum: &mut sum[part],
                out: &mut out[first * head_dim..][..count * head_dim],
            };
            let context = Block { start: block, keys, values, head_dim, value_stride, window };
            match count {
                1 => rows_by_block::<S, E, 1>(s, &mut tile, &context),
                2 => rows_by_block::<S, E, 2>(s, &mut tile, &context),
                3 => rows_by_block::<S, E, 3>(s, &mut tile, &context),
                _ => rows_by_block::<S, E, ROWS>(s, &mut tile, &context),
            }
            first += count;
        }
    }
    for (row, &sum) in out.chunks_exact_mut(head_dim).zip(&sum) {
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

struct Rows<'a> {
    queries: &'a [f32],
    positions: &'a [usize],
    max: &'a mut [f32],
    sum: &'a mut [f32],
    out: &'a mut [f32],
}

struct Block<'a, E> {
    start: usize,
    keys: &'a [E],
    values: &'a [E],
    head_dim: usize,
    value_stride: usize,
    window: Option<usize>,
}

impl<E> Block<'_, E> {
    /// The range of keys of this block that a query at `position` sees.
    #[inline(always)]
    fn visible(&self, position: usize) -> (usize, usize) {
        let end = (position + 1).saturating_sub(self.start).min(PAGE_TOKENS);
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        (first.saturating_sub(self.start).min(end), end)
    }
}

#[inline(always)]
fn rows_by_block<S: Simd, E: KvElement, const R: usize>(s: S, rows: &mut Rows<'_>, block: &Block<'_, E>) {
    let mut ranges = [(0, 0); R];
    let mut last = 0;
    for (range, &position) in ranges.iter_mut().zip(rows.positions) {
        *range = block.visible(position);
        last = last.max(range.1);
    }
    if ranges.iter().all(|range| range.0 == range.1) {
        return;
    }
    let scores = scores::<S, E, R>(s, rows.queries, block);
    let mut weights = [[0.0_f32; PAGE_TOKENS]; R];
    let mut rescale = [1.0_f32; R];
    for r in 0..R {
        let (begin, end) = ranges[r];
        if begin == end {
            continue;
        }
        let hidden = s.splat(f32::NEG_INFINITY);
        let mut masked = scores[r];
        for (v, score) in masked.iter_mut().enumerate() {
            let lanes = |bound: usize| bound.saturating_sub(v * LANES).min(LANES);
            *score = s.select_below(lanes(end), *score, hidden);
            *score = s.select_below(lanes(begin), hidden, *score);
        }
        let block_max = s.reduce_max(s.max(s.max(masked[0], masked[1]), s.max(masked[2], masked[3])));
        let max = if rows.max[r] > block_max { rows.max[r] } else { block_max };
        let mut lanes = [0.0; LANES];
        s.store(exp(s, s.splat(rows.max[r] - max)), &mut lanes);
        rescale[r] = lanes[0];
        let max_lanes = s.splat(max);
        let p = masked.map(|score| exp(s, s.sub(score, max_lanes)));
        for (v, &p) in p.iter().enumerate() {
            s.store(p, vector_mut(&mut weights[r], v * LANES));
        }
        let block_sum = s.reduce_add(s.add(s.add(p[0], p[1]), s.add(p[2], p[3])));
        rows.sum[r] = rows.sum[r] * rescale[r] + block_sum;
        rows.max[r] = max;
    }
    // Whole slices of 64 dimensions first, then what is left, a vector at a time.
    let mut dim = 0;
    while dim + VECTORS * LANES <= block.head_dim {
        add_values::<S, E, R, VECTORS>(s, &weights, &rescale, last, dim, rows.out, block);
        dim += VECTORS * LANES;
    }
    while dim < block.head_dim {
        add_values::<S, E, R, 1>(s, &weights, &rescale, last, dim, rows.out, block);
        dim += LANES;
    }
}

/// `q . k` of `R` rows with the 64 keys of a block.
#[inline(always)]
fn scores<S: Simd, E: KvElement, const R: usize>(
    s: S,
    queries: &[f32],
    block: &Block<'_, E>,
) -> [[S::F32; VECTORS]; R] {
    let d = block.head_dim;
    let panels: [&[[E; LANES]]; VECTORS] =
        std::array::from_fn(|v| &block.keys[v * d * LANES..][..d * LANES].as_chunks::<LANES>().0[..d]);
    let rows: [&[f32]; R] = std::array::from_fn(|r| &queries[r * d..][..d]);
    let mut acc = [[s.zero(); VECTORS]; R];
    for i in 0..d {
        let keys: [S::F32; VECTORS] = std::array::from_fn(|v| E::load(s, &panels[v][i]));
        for r in 0..R {
            let q = s.splat(rows[r][i]);
            for v in 0..VECTORS {
                acc[r][v] = s.fma(q, keys[v], acc[r][v]);
            }
        }
    }
    acc
}

/// `out[r][dim..] = out[r][dim..] * rescale[r] + sum over keys below last of weight * value`, `V` vectors wide.
#[inline(always)]
fn add_values<S: Simd, E: KvElement, const R: usize, const V: usize>(
    s: S,
    weights: &[[f32; PAGE_TOKENS]; R],
    rescale: &[f32; R],
    last: usize,
    dim: usize,
    out: &mut [f32],
    block: &Block<'_, E>,
) {
    let width = (block.head_dim - dim).min(V * LANES);
    let mut acc = [[s.zero(); V]; R];
    for r in 0..R {
        let row = &out[r * block.head_dim + dim..][..width];
        for v in 0..V {
            let old = s.load_partial(&row[v * LANES..width.min((v + 1) * LANES)]);
            acc[r][v] = s.mul(old, s.splat(rescale[r]));
        }
    }
    #[expect(clippy::needless_range_loop, reason = "the key is a row of values and a column of weights")]
    for key in 0..last {
        let row = &block.values[key * block.value_stride + dim..][..V * LANES];
        let values: [S::F32; V] = std::array::from_fn(|v| E::load(s, &row.as_chunks::<LANES>().0[v]));
        for r in 0..R {
            let p = s.splat(weights[r][key]);
            for v in 0..V {
                acc[r][v] = s.fma(p, values[v], acc[r][v]);
            }
        }
    }
    for r in 0..R {
        let row = &mut out[r * block.head_dim + dim..][..width];
        for v in 0..V {
            s.store_partial(acc[r][v], &mut row[v * LANES..width.min((v + 1) * LANES)]);
        }
    }
}

#[inline(always)]
fn vector_mut(x: &mut [f32], start: usize) -> &mut [f32; LANES] {
    &mut x[start..].as_chunks_mut::<LANES>().0[0]
}

/// Writes the key and value of one token into its page. `slot`: position within the page.
pub(crate) fn write_kv<E: KvElement>(page: &mut [E], slot: usize, key: &[f32], value: &[f32]) {
    let head_dim = key.len();
    let (keys, values) = page.split_at_mut(PAGE_TOKENS * head_dim);
    let column = (slot / LANES) * head_dim * LANES + slot % LANES;
    for (i, &x) in key.iter().enumerate() {
        keys[column + i * LANES] = E::from_f32(x);
    }
    let row = &mut values[slot * head_dim.next_multiple_of(LANES)..][..head_dim];
    row.iter_mut().zip(value).for_each(|(to, &x)| *to = E::from_f32(x));
}
