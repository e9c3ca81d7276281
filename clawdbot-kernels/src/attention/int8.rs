//! int8 pages: both products are exact integers inside a page.
//!
//! Layout of a head, in the panels of int8 matrices (16 columns x 4 consecutive k):
//! ```text
//! codes:   K: [PAGE_TOKENS / 16][head_dim / 4][16 tokens][4 dimensions]
//!          V: [head_dim / 16][PAGE_TOKENS / 4][16 dimensions][4 tokens]
//! scales:  K: [head_dim / KEY_GROUP][PAGE_TOKENS]    V: [PAGE_TOKENS]
//! ```
//! all quotients rounded up, the rest zeros.
//!
//! Numerics: whole blocks of [`KEY_GROUP`] dimensions of queries and keys are rotated first (see `hadamard.rs`):
//! products stay the same, but no dimension stands out, as those of keys do in many models. A key has a scale per
//! [`KEY_GROUP`] dimensions, a value one scale, a query one: `amax / 127`, codes `x * (127 / amax)` rounded half to even, as
//! for activations. Then
//! ```text
//! s[j]    = sum over groups of f32(codes of q . codes of k[j]) * scale_k[j]    first a product, then FMAs
//! x[j]    = fma(s[j], scale * scale_q, -m);  p[j] = 2^x[j]
//! w[j]    = p[j] * scale_v[j];  step = max w * (1 / 16383);  code_w[j] = w[j] * (16383 / max w), rounded half to even
//! out     = fma(f32(sum over j of code_w[j] * code_v[j]), step, out * rescale)
//! ```
//! Weights have 14 bits because a page may hold one large weight and 63 small ones that matter together: with 7 bits
//! the small ones would all become 0. They are two codes of 7 bits, whose sums are combined in int32 (which cannot overflow:
//! 64 * 16383 * 127 < 2^27). The sum of weights is that of the weights before they are rounded.

use std::ops::Range;

use super::{Earlier, KvKind, KvSlots, MAX_ROWS, Slots, Tile, VECTORS, Work, by_rows};
use super::{KEY_GROUP, PAGE_TOKENS};
use crate::KernelSet;
use crate::hadamard::hadamard_row;
use crate::quantize::{Factor, amax, to_codes};
use crate::simd::{LANES, Simd};
use crate::unchecked::{array, array_mut, item};

/// Rows from which the keys of a page are worth preparing first.
const MANY_ROWS: usize = 16;
/// Bytes of a k-block.
pub(super) const BLOCK: usize = 4 * LANES;
/// k-blocks of a page of values.
pub(super) const VALUE_BLOCKS: usize = PAGE_TOKENS / 4;
/// Largest code of a weight.
const MAX_WEIGHT: f32 = 16_383.0;

/// int8 codes with f32 scales.
pub struct Int8;

/// One layer of a page, all heads.
#[derive(Clone, Copy)]
pub struct Int8Page<'a> {
    /// Of keys and values.
    pub codes: &'a [i8],
    /// Of keys and values.
    pub scales: &'a [f32],
}

/// One head of one layer of a page.
pub struct Int8Head<'a> {
    /// Of keys and values.
    pub codes: &'a mut [i8],
    /// Of keys and values.
    pub scales: &'a mut [f32],
}

/// The parts of one head of a page.
pub(super) struct HeadParts<'a> {
    pub(super) keys: &'a [i8],
    pub(super) values: &'a [i8],
    pub(super) key_scales: &'a [f32],
    pub(super) value_scales: &'a [f32],
}

impl<'a> Int8Page<'a> {
    /// The tile's head.
    ///
    /// # Panics
    /// When the page is too short.
    #[inline(always)]
    pub(super) fn head(self, tile: &Tile<'_>) -> HeadParts<'a> {
        let keys = VECTORS * tile.head_dim.div_ceil(4) * BLOCK;
        let codes = keys + PAGE_TOKENS * tile.stride();
        let groups = PAGE_TOKENS * tile.head_dim.div_ceil(KEY_GROUP);
        let (keys, values) = self.codes[tile.kv_head * codes..][..codes].split_at(keys);
        let scales = groups + PAGE_TOKENS;
        let (key_scales, value_scales) = self.scales[tile.kv_head * scales..][..scales].split_at(groups);
        HeadParts { keys, values, key_scales, value_scales }
    }
}

impl KvSlots for Int8 {
    fn slots(kernels: &KernelSet) -> Slots<'_, Self> {
        Slots { attend: &kernels.attend_int8, write: &kernels.write_int8 }
    }
}

impl KvKind for Int8 {
    type Page<'a> = Int8Page<'a>;
    type HeadMut<'a> = Int8Head<'a>;

    fn shorten<'s, 'l: 's>(page: Int8Page<'l>) -> Int8Page<'s> {
        page
    }

    #[inline(always)]
    fn queries<S: Simd>(s: S, tile: &Tile<'_>, work: &mut Work<'_>, scales: &mut [f32; MAX_ROWS]) {
        let groups = tile.head_dim.div_ceil(KEY_GROUP);
        for row in 0..tile.rows() {
            let query = &mut work.queries[row * tile.stride()..][..tile.head_dim];
            query.copy_from_slice(tile.query(row));
            hadamard_row(s, query);
            let codes = &mut work.query_codes[row * tile.stride()..][..tile.stride()];
            let (amax, poison) = amax(s, query);
            let inv = 127.0 / amax;
            if inv.is_finite() {
                scales[row] = amax / 127.0 * tile.scale + poison;
                let parts = query.chunks(KEY_GROUP).zip(codes.chunks_mut(KEY_GROUP));
                for (group, (query, codes)) in parts.enumerate() {
                    let (codes, rest) = codes.split_at_mut(query.len());
                    let sum = to_codes(s, query, Factor::Times(inv), codes);
                    rest.fill(0);
                    work.starts[row * groups + group] = sum.wrapping_mul(-128);
                }
            } else {
                scales[row] = poison;
                codes.fill(0);
                work.starts[row * groups..][..groups].fill(0);
            }
        }
    }

    #[inline(always)]
    fn scores<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Int8Page<'_>,
        rows: Range<usize>,
        _: usize,
        work: &mut Work<'_>,
    ) {
        let HeadParts { keys, key_scales, .. } = page.head(tile);
        let (stride, k_blocks) = (tile.stride(), tile.head_dim.div_ceil(4));
        let groups = tile.head_dim.div_ceil(KEY_GROUP);
        let prepare = S::FLIPPED && rows.len() >= MANY_ROWS;
        if prepare {
            let (from, to) = (keys.as_chunks::<BLOCK>().0, work.keys.as_chunks_mut::<BLOCK>().0);
            for v in 0..VECTORS {
                for block in 0..k_blocks {
                    s.prepare_w8(&from[v * k_blocks + block], &mut to[block * VECTORS + v]);
                }
            }
        }
        for group in 0..groups {
            let block = group * (KEY_GROUP / 4);
            let part = Keys {
                data: if prepare { &work.keys[block * VECTORS * BLOCK..] } else { &keys[block * BLOCK..] },
                block: if prepare { VECTORS * BLOCK } else { BLOCK },
                panel: if prepare { BLOCK } else { k_blocks * BLOCK },
                blocks: (k_blocks - block).min(KEY_GROUP / 4),
                scales: &key_scales.as_chunks::<PAGE_TOKENS>().0[group],
                earlier: if group > 0 { Earlier::Kept } else { Earlier::None },
            };
            by_rows!(S, rows.clone(), |row, R| {
                let queries = Queries {
                    codes: &work.query_codes[row * stride + 4 * block..],
                    stride,
                    starts: &work.starts[row * groups + group..],
                    groups,
                };
                let scores = &mut work.scores[row * PAGE_TOKENS..];
                if prepare {
                    score_rows::<S, R, true>(s, queries, part, scores);
                } else {
                    score_rows::<S, R, false>(s, queries, part, scores);
                }
            });
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Int8Page<'_>,
        row: usize,
        visible: Range<usize>,
        p: [S::F32; VECTORS],
        work: &mut Work<'_>,
    ) {
        let scales = page.head(tile).value_scales.as_chunks::<LANES>().0;
        let row = &mut work.scores.as_chunks_mut::<LANES>().0[row * VECTORS..][..VECTORS];
        for v in 0..VECTORS {
            let mut w = s.mul(p[v], s.load(&scales[v]));
            if visible.len() < PAGE_TOKENS {
                // Scales of keys that are not visible may be anything.
                w = s.select_below(visible.end.saturating_sub(v * LANES), w, s.zero());
                w = s.select_below(visible.start.saturating_sub(v * LANES), s.zero(), w);
            }
            s.store(w, &mut row[v]);
        }
    }

    #[inline(always)]
    fn encode<S: Simd>(s: S, rows: Range<usize>, work: &mut Work<'_>) {
        let (high, low) = work.weight_codes.split_at_mut(MAX_ROWS * PAGE_TOKENS);
        let (high, low) = (high.as_chunks_mut().0, low.as_chunks_mut().0);
        let weights = work.scores.as_chunks::<LANES>().0.as_chunks::<VECTORS>().0;
        assert!(rows.end <= MAX_ROWS && weights.len() >= MAX_ROWS && low.len() >= MAX_ROWS);
        for row in rows {
            let w = &weights[row];
            let w = [s.load(&w[0]), s.load(&w[1]), s.load(&w[2]), s.load(&w[3])];
            let amax = s.reduce_max(s.max(s.max(w[0], w[1]), s.max(w[2], w[3])));
            let inv = MAX_WEIGHT / amax;
            let (inv, factor) = if inv.is_finite() { (inv, amax * (1.0 / MAX_WEIGHT)) } else { (0.0, 0.0) };
            work.factors[row] = factor;
            let inv = s.splat(inv);
            let mut codes = [s.splat_i32(0); VECTORS];
            for v in 0..VECTORS {
                codes[v] = s.round_to_i32(s.mul(w[v], inv));
            }
            s.store_u14(codes, &mut high[row], &mut low[row]);
        }
    }

    #[inline(always)]
    fn values<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Int8Page<'_>,
        rows: Range<usize>,
        keys: usize,
        work: &mut Work<'_>,
        out: &mut [f32],
    ) {
        let values = page.head(tile).values;
        let stride = tile.stride();
        // What the unchecked accesses of the tiles rest on.
        assert!(rows.end <= MAX_ROWS && out.len() >= rows.end * stride && keys <= PAGE_TOKENS);
        assert!(
            values.len() == PAGE_TOKENS * stride && work.weight_codes.len() >= 2 * MAX_ROWS * PAGE_TOKENS
        );
        let blocks = keys.div_ceil(4);
        let panels = stride / LANES;
        let at_once = if S::REGISTERS >= 32 { VECTORS } else { 1 };
        let mut panel = 0;
        while panel < panels {
            let count = if panels - panel >= at_once { at_once } else { 1 };
            by_rows!(S, rows.clone(), |row, R| {
                let place = Place { row, panel, stride };
                if count == VECTORS {
                    // SAFETY: the asserts: `values` has `panels` panels of `blocks <= VALUE_BLOCKS` blocks, and there are
                    // `count` from `panel` on; weights and `out` have the rows.
                    unsafe { value_tile::<S, R, VECTORS>(s, work, values, blocks, place, out) };
                } else {
                    // SAFETY: the asserts: `values` has `panels` panels of `blocks <= VALUE_BLOCKS` blocks, and `panel` is one;
                    // weights and `out` have the rows.
                    unsafe { value_tile::<S, R, 1>(s, work, values, blocks, place, out) };
                }
            });
            panel += count;
        }
    }

    #[inline(always)]
    fn write<S: Simd>(s: S, head: &mut Int8Head<'_>, slot: usize, key: &[f32], value: &[f32]) {
        let d = key.len();
        let k_blocks = d.div_ceil(4);
        let (keys, values) = head.codes.split_at_mut(VECTORS * k_blocks * BLOCK);
        let (key_scales, value_scales) = head.scales.split_at_mut(d.div_ceil(KEY_GROUP) * PAGE_TOKENS);
        let mut poison = 0.0;
        let panel = &mut keys.as_chunks_mut::<BLOCK>().0[slot / LANES * k_blocks..][..k_blocks];
        for (group, x) in key.chunks(KEY_GROUP).enumerate() {
            let (mut rotated, mut codes) = ([0.0; KEY_GROUP], [0; KEY_GROUP]);
            let rotated = &mut rotated[..x.len()];
            rotated.copy_from_slice(x);
            hadamard_row(s, rotated);
            let scale = quantize(s, rotated, &mut codes[..x.len()], &mut poison);
            key_scales[group * PAGE_TOKENS + slot] = scale;
            let blocks = &mut panel[group * (KEY_GROUP / 4)..];
            for (block, codes) in blocks.iter_mut().zip(codes.as_chunks::<4>().0) {
                block[slot % LANES * 4..][..4].copy_from_slice(codes);
            }
        }
        let mut largest = 0.0_f32;
        for x in value.chunks(KEY_GROUP) {
            let (amax, bad) = amax(s, x);
            largest = largest.max(amax);
            poison += bad;
        }
        let inv = 127.0 / largest;
        let (inv, scale) = if inv.is_finite() { (inv, largest / 127.0) } else { (0.0, 0.0) };
        value_scales[slot] = scale;
        // A token that is not finite shows in every score with it.
        key_scales[slot] += poison;
        for (group, x) in value.chunks(KEY_GROUP).enumerate() {
            let mut codes = [0; KEY_GROUP];
            to_codes(s, x, Factor::Times(inv), &mut codes[..x.len()]);
            let panels = values.chunks_exact_mut(VALUE_BLOCKS * BLOCK).skip(group * (KEY_GROUP / LANES));
            for (panel, codes) in panels.zip(codes.as_chunks::<LANES>().0) {
                let block = &mut panel[slot / 4 * BLOCK..][..BLOCK];
                for (quad, code) in block.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
                    quad[slot % 4] = *code;
                }
            }
        }
    }
}

/// Codes and scale of `x`; `poison` becomes NaN when something is not finite.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32], codes: &mut [i8], poison: &mut f32) -> f32 {
    let (amax, bad) = amax(s, x);
    *poison += bad;
    let inv = 127.0 / amax;
    if !inv.is_finite() {
        return 0.0;
    }
    to_codes(s, x, Factor::Times(inv), codes);
    amax / 127.0
}

/// Codes of queries with the starts of their sums, from the first code of a group of the first row on.
#[derive(Clone, Copy)]
struct Queries<'a> {
    codes: &'a [i8],
    /// Codes from row to row.
    stride: usize,
    starts: &'a [i32],
    /// From row to row of `starts`.
    groups: usize,
}

/// One group of the dimensions of a page's keys.
#[derive(Clone, Copy)]
struct Keys<'a> {
    /// From the first k-block of the first panel on.
    data: &'a [i8],
    /// Bytes from k-block to k-block.
    block: usize,
    /// Bytes from panel to panel.
    panel: usize,
    blocks: usize,
    /// Of the group, for each key.
    scales: &'a [f32; PAGE_TOKENS],
    earlier: Earlier,
}

/// `R` rows with all keys of a page, one group of dimensions.
///
/// # Panics
/// When queries or scores do not have the rows, or keys not their blocks.
#[inline(always)]
fn score_rows<S: Simd, const R: usize, const PREPARED: bool>(
    s: S,
    queries: Queries<'_>,
    keys: Keys<'_>,
    scores: &mut [f32],
) {
    // What the unchecked accesses of the tiles rest on.
    let (last_block, last_panel) = ((keys.blocks - 1) * keys.block, (VECTORS - 1) * keys.panel);
    let keys = Keys { data: &keys.data[..last_block + last_panel + BLOCK], ..keys };
    let codes = &queries.codes[..(R - 1) * queries.stride + 4 * keys.blocks];
    let queries = Queries { codes, starts: &queries.starts[..(R - 1) * queries.groups + 1], ..queries };
    let scores = &mut scores[..R * PAGE_TOKENS];
    if S::REGISTERS >= 32 {
        // SAFETY: the slices above have `R` rows, all panels and all blocks.
        unsafe { score_tile::<S, R, VECTORS, PREPARED>(s, queries, keys, scores, 0) };
    } else {
        for v in 0..VECTORS {
            // SAFETY: the slices above have `R` rows, all panels and all blocks; `v` is a panel.
            unsafe { score_tile::<S, R, 1, PREPARED>(s, queries, keys, scores, v) };
        }
    }
}

/// `R` rows with the keys of `P` panels from `panel` on.
///
/// # Safety
/// `queries` must have `(R - 1) * stride + 4 * blocks` codes and `(R - 1) * groups + 1` starts, `scores` `R * PAGE_TOKENS`
/// elements, `keys` block `blocks - 1` of its last panel; `panel + P` must not exceed [`VECTORS`].
#[inline(always)]
unsafe fn score_tile<S: Simd, const R: usize, const P: usize, const PREPARED: bool>(
    s: S,
    queries: Queries<'_>,
    keys: Keys<'_>,
    scores: &mut [f32],
    panel: usize,
) {
    let mut dots = [[s.splat_i32(0); P]; R];
    if S::FLIPPED {
        for r in 0..R {
            // SAFETY: the clause on `queries`: `r < R`.
            dots[r] = [s.splat_i32(unsafe { item(queries.starts, r * queries.groups) }); P];
        }
    }
    for block in 0..keys.blocks {
        let first = block * keys.block + panel * keys.panel;
        // SAFETY: the clauses on `keys` and `panel`: block `block < blocks` of panel `panel`.
        let at = unsafe { array(keys.data, first) };
        let mut w = [if PREPARED { s.load_prepared(at) } else { s.load_w8(at) }; P];
        for p in 1..P {
            // SAFETY: the clauses on `keys` and `panel`: block `block < blocks` of panel `panel + p`.
            let at = unsafe { array(keys.data, first + p * keys.panel) };
            w[p] = if PREPARED { s.load_prepared(at) } else { s.load_w8(at) };
        }
        for r in 0..R {
            // SAFETY: the clause on `queries`: `r < R` and `block < blocks`.
            let a = s.splat_a4(unsafe { array(queries.codes, r * queries.stride + 4 * block) });
            for p in 0..P {
                dots[r][p] = s.dot4(dots[r][p], w[p], a);
            }
        }
    }
    for p in 0..P {
        // SAFETY: the clause on `panel`: 16 scales of panel `panel + p` of `VECTORS`.
        let scale = s.load(unsafe { array(keys.scales, (panel + p) * LANES) });
        for r in 0..R {
            // SAFETY: the clauses on `scores` and `panel`: 16 scores of panel `panel + p` of row `r`.
            let score = unsafe { array_mut(scores, r * PAGE_TOKENS + (panel + p) * LANES) };
            let dot = s.i32_to_f32(dots[r][p]);
            let sum = match keys.earlier {
                Earlier::Kept => s.fma(dot, scale, s.load(score)),
                Earlier::None => s.mul(dot, scale),
            };
            s.store(sum, score);
        }
    }
}

/// Where results go: rows from `row` on, `stride` apart, panels from `panel` on.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    panel: usize,
    stride: usize,
}

/// `R` rows with `P` panels of values: `out = out * rescale + `.
///
/// # Safety
/// `values` must have `P` panels from the place's on, of [`VALUE_BLOCKS`] blocks, which `blocks` must not exceed;
/// `work.weight_codes` must have both halves of [`MAX_ROWS`] rows, which the place's `R` rows must not exceed; `out` must have
/// these rows of `stride` elements, which the panels must not exceed.
#[inline(always)]
unsafe fn value_tile<S: Simd, const R: usize, const P: usize>(
    s: S,
    work: &Work<'_>,
    values: &[i8],
    blocks: usize,
    Place { row, panel, stride }: Place,
    out: &mut [f32],
) {
    let mut dots = [[s.splat_i32(0); P]; R];
    for half in 0..2 {
        let weights = (half * MAX_ROWS + row) * PAGE_TOKENS;
        for block in 0..blocks {
            let first = (panel * VALUE_BLOCKS + block) * BLOCK;
            // SAFETY: the clause on `values`: block `block < blocks` of panel `panel`.
            let mut w = [s.load_signed_w8(unsafe { array(values, first) }); P];
            for p in 1..P {
                // SAFETY: the clause on `values`: block `block < blocks` of panel `panel + p`.
                w[p] = s.load_signed_w8(unsafe { array(values, first + p * VALUE_BLOCKS * BLOCK) });
            }
            for r in 0..R {
                // SAFETY: the clause on `work`: codes `4 * block..` of row `row + r` of a half, of `4 * VALUE_BLOCKS`.
                let a = unsafe { array(work.weight_codes, weights + r * PAGE_TOKENS + 4 * block) };
                let a = s.splat_a4(a);
                for p in 0..P {
                    dots[r][p] = s.dot4_positive(dots[r][p], w[p], a);
                }
            }
        }
        if half == 0 {
            for r in 0..R {
                for p in 0..P {
                    dots[r][p] = s.times_128_i32(dots[r][p]);
                }
            }
        }
    }
    for r in 0..R {
        // SAFETY: the clause on rows: `row + r` is below `MAX_ROWS`.
        let factor = s.splat(unsafe { item(&work.factors, row + r) });
        // SAFETY: the clause on rows: `row + r` is below `MAX_ROWS`.
        let rescale = s.splat(unsafe { item(&work.rescale, row + r) });
        for p in 0..P {
            // SAFETY: the clause on `out`: 16 elements of panel `panel + p` of row `row + r`.
            let out = unsafe { array_mut(out, (row + r) * stride + (panel + p) * LANES) };
            s.store(s.fma(s.i32_to_f32(dots[r][p]), factor, s.mul(s.load(out), rescale)), out);
        }
    }
}
