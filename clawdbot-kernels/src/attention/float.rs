//! f32 and bf16 pages.
//!
//! Layout of a head: `K: [PAGE_TOKENS / 16][head_dim][16 tokens]`, then `V: [PAGE_TOKENS][head_dim rounded up to 16]`.
//!
//! Numerics: queries are scaled first. Each score is one FMA chain over the dimensions, from 0; each weighted value one
//! FMA chain over the keys of a page, from the rescaled earlier sum. bf16 is widened exactly.

use std::ops::Range;

use super::PAGE_TOKENS;
use super::{Earlier, KvKind, KvSlots, MAX_ROWS, Slots, Tile, VECTORS, Work, by_rows};
use crate::KernelSet;
use crate::memory::Pod;
use crate::simd::{LANES, Simd};
use crate::unchecked::{array, array_mut, item};

/// Rows from which a page is worth widening to f32 first.
const MANY_ROWS: usize = 16;
/// Dimensions of K, or of V, that are widened at a time: 16 KiB for 64 keys.
const SLICE: usize = 64;

/// A type that keys and values are kept as.
pub trait Element: Pod {
    /// Whether a copy in f32 saves work.
    const NARROW: bool;
    /// Sixteen elements, widened exactly.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F32;
    /// To the nearest representable value, ties to even.
    fn store<S: Simd>(s: S, x: S::F32, out: &mut [Self; LANES]);
    /// The kernels for it.
    fn slots(kernels: &KernelSet) -> Slots<'_, Float<Self>>;
}

impl Element for f32 {
    const NARROW: bool = false;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::F32 {
        s.load(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, x: S::F32, out: &mut [f32; LANES]) {
        s.store(x, out);
    }
    fn slots(kernels: &KernelSet) -> Slots<'_, Float<f32>> {
        Slots { attend: &kernels.attend_f32, write: &kernels.write_f32 }
    }
}

/// bf16 by its bits.
impl Element for u16 {
    const NARROW: bool = true;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u16; LANES]) -> S::F32 {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, x: S::F32, out: &mut [u16; LANES]) {
        s.store_bf16(x, out);
    }
    fn slots(kernels: &KernelSet) -> Slots<'_, Float<u16>> {
        Slots { attend: &kernels.attend_bf16, write: &kernels.write_bf16 }
    }
}

/// Pages of `E`.
pub struct Float<E>(std::marker::PhantomData<E>);

impl<E: Element> KvSlots for Float<E> {
    fn slots(kernels: &KernelSet) -> Slots<'_, Self> {
        E::slots(kernels)
    }
}

impl<E: Element> KvKind for Float<E> {
    type Page<'a> = &'a [E];
    type HeadMut<'a> = &'a mut [E];

    fn shorten<'s, 'l: 's>(page: &'l [E]) -> &'s [E] {
        page
    }

    #[inline(always)]
    fn queries<S: Simd>(s: S, tile: &Tile<'_>, work: &mut Work<'_>, _: &mut [f32; MAX_ROWS]) {
        let scale = s.splat(tile.scale);
        for (row, out) in work.queries.chunks_exact_mut(tile.stride()).take(tile.rows()).enumerate() {
            for (x, out) in tile.query(row).chunks(LANES).zip(out.as_chunks_mut::<LANES>().0) {
                s.store(s.mul(s.load_partial(x), scale), out);
            }
        }
    }

    #[inline(always)]
    fn scores<S: Simd>(s: S, tile: &Tile<'_>, page: &[E], rows: Range<usize>, _: usize, work: &mut Work<'_>) {
        let (d, stride) = (tile.head_dim, tile.stride());
        let keys = &head(tile, page)[..PAGE_TOKENS * d];
        let widen = E::NARROW && rows.len() >= MANY_ROWS;
        for dim in (0..d).step_by(SLICE) {
            let dims = SLICE.min(d - dim);
            let earlier = if dim > 0 { Earlier::Kept } else { Earlier::None };
            if widen {
                let panels = keys.as_chunks::<LANES>().0;
                let slice = work.slice.as_chunks_mut::<LANES>().0;
                for v in 0..VECTORS {
                    for i in 0..dims {
                        s.store(E::load(s, &panels[v * d + dim + i]), &mut slice[i * VECTORS + v]);
                    }
                }
                let keys = Keys { data: &*work.slice, dim: PAGE_TOKENS, panel: LANES, dims };
                by_rows!(S, rows.clone(), |row, R| {
                    let queries = Queries { data: &work.queries[row * stride + dim..], stride };
                    score_rows::<S, f32, R>(s, queries, keys, earlier, &mut work.scores[row * PAGE_TOKENS..]);
                });
            } else {
                let keys = Keys { data: &keys[dim * LANES..], dim: LANES, panel: d * LANES, dims };
                by_rows!(S, rows.clone(), |row, R| {
                    let queries = Queries { data: &work.queries[row * stride + dim..], stride };
                    score_rows::<S, E, R>(s, queries, keys, earlier, &mut work.scores[row * PAGE_TOKENS..]);
                });
            }
        }
    }

    #[inline(always)]
    fn weights<S: Simd>(
        s: S,
        _: &Tile<'_>,
        _: &[E],
        row: usize,
        _: Range<usize>,
        p: [S::F32; VECTORS],
        work: &mut Work<'_>,
    ) {
        let row = &mut work.scores.as_chunks_mut::<LANES>().0[row * VECTORS..][..VECTORS];
        for v in 0..VECTORS {
            s.store(p[v], &mut row[v]);
        }
    }

    #[inline(always)]
    fn encode<S: Simd>(_: S, _: Range<usize>, _: &mut Work<'_>) {}

    #[inline(always)]
    fn values<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: &[E],
        rows: Range<usize>,
        keys: usize,
        work: &mut Work<'_>,
        out: &mut [f32],
    ) {
        let stride = tile.stride();
        let values = &head(tile, page)[PAGE_TOKENS * tile.head_dim..];
        assert!(values.len() == PAGE_TOKENS * stride && keys <= PAGE_TOKENS, "{keys} keys of a page");
        let widen = E::NARROW && rows.len() >= MANY_ROWS;
        for dim in (0..stride).step_by(SLICE) {
            let panels = (stride - dim).min(SLICE) / LANES;
            let out = &mut out[dim..];
            if widen {
                let from = values.as_chunks::<LANES>().0;
                let slice = work.slice.as_chunks_mut::<LANES>().0;
                for key in 0..keys {
                    for v in 0..panels {
                        let at = (key * stride + dim) / LANES + v;
                        s.store(E::load(s, &from[at]), &mut slice[key * VECTORS + v]);
                    }
                }
                let values = Values { data: &*work.slice, key: SLICE, keys };
                value_rows(s, work, values, panels, rows.clone(), out, stride);
            } else {
                let values = Values { data: &values[dim..], key: stride, keys };
                value_rows(s, work, values, panels, rows.clone(), out, stride);
            }
        }
    }

    #[inline(always)]
    fn write<S: Simd>(s: S, head: &mut &mut [E], slot: usize, key: &[f32], value: &[f32]) {
        let d = key.len();
        let (keys, values) = head.split_at_mut(PAGE_TOKENS * d);
        let panel = &mut keys.as_chunks_mut::<LANES>().0[slot / LANES * d..][..d];
        let row = &mut values[slot * d.next_multiple_of(LANES)..][..d.next_multiple_of(LANES)];
        // The row of values serves as the place where the key is narrowed.
        let row = row.as_chunks_mut::<LANES>().0;
        for (x, row) in key.chunks(LANES).zip(row.iter_mut()) {
            E::store(s, s.load_partial(x), row);
        }
        for (to, from) in panel.iter_mut().zip(row.as_flattened()) {
            to[slot % LANES] = *from;
        }
        for (x, row) in value.chunks(LANES).zip(row.iter_mut()) {
            E::store(s, s.load_partial(x), row);
        }
    }
}

/// The tile's head of a page.
#[inline(always)]
fn head<'a, E>(tile: &Tile<'_>, page: &'a [E]) -> &'a [E] {
    let elements = PAGE_TOKENS * (tile.head_dim + tile.stride());
    &page[tile.kv_head * elements..][..elements]
}

/// Scaled queries, from the first dimension of a slice of the first row on.
#[derive(Clone, Copy)]
struct Queries<'a> {
    data: &'a [f32],
    /// Elements from row to row.
    stride: usize,
}

/// `dims` dimensions of keys: element `dim * i + panel * v` of `data` is dimension i of the first key of panel v.
#[derive(Clone, Copy)]
struct Keys<'a, E> {
    data: &'a [E],
    dim: usize,
    panel: usize,
    dims: usize,
}

/// `R` rows with all keys of a page.
///
/// # Panics
/// When queries or scores do not have the rows, or keys not their dimensions.
#[inline(always)]
fn score_rows<S: Simd, E: Element, const R: usize>(
    s: S,
    queries: Queries<'_>,
    keys: Keys<'_, E>,
    earlier: Earlier,
    scores: &mut [f32],
) {
    // What the unchecked accesses of the tiles rest on.
    let (last_dim, last_panel) = ((keys.dims - 1) * keys.dim, (VECTORS - 1) * keys.panel);
    let keys = Keys { data: &keys.data[..last_dim + last_panel + LANES], ..keys };
    let queries = Queries { data: &queries.data[..(R - 1) * queries.stride + keys.dims], ..queries };
    let scores = &mut scores[..R * PAGE_TOKENS];
    if S::REGISTERS >= 32 {
        // SAFETY: the slices above have `R` rows, all panels and all dimensions.
        unsafe { score_tile::<S, E, R, VECTORS>(s, queries, keys, earlier, scores, 0) };
    } else {
        for v in 0..VECTORS {
            // SAFETY: the slices above have `R` rows, all panels and all dimensions; `v` is a panel.
            unsafe { score_tile::<S, E, R, 1>(s, queries, keys, earlier, scores, v) };
        }
    }
}

/// `R` rows with the keys of `P` panels from `panel` on.
///
/// # Safety
/// `queries` must have `(R - 1) * stride + dims` elements, `scores` `R * PAGE_TOKENS`, `keys` dimension `dims - 1` of its last
/// panel; `panel + P` must not exceed [`VECTORS`].
#[inline(always)]
unsafe fn score_tile<S: Simd, E: Element, const R: usize, const P: usize>(
    s: S,
    queries: Queries<'_>,
    keys: Keys<'_, E>,
    earlier: Earlier,
    scores: &mut [f32],
    panel: usize,
) {
    let mut sums = [[s.zero(); P]; R];
    if earlier == Earlier::Kept {
        for r in 0..R {
            for p in 0..P {
                // SAFETY: the clauses on `scores` and `panel`: 16 scores of panel `panel + p` of row `r`.
                sums[r][p] = s.load(unsafe { array(scores, r * PAGE_TOKENS + (panel + p) * LANES) });
            }
        }
    }
    for i in 0..keys.dims {
        let mut k = [s.zero(); P];
        for p in 0..P {
            // SAFETY: the clauses on `keys` and `panel`: dimension `i < dims` of panel `panel + p`.
            k[p] = E::load(s, unsafe { array(keys.data, i * keys.dim + (panel + p) * keys.panel) });
        }
        for r in 0..R {
            // SAFETY: the clause on `queries`: `r < R` and `i < dims`.
            let q = s.splat(unsafe { item(queries.data, r * queries.stride + i) });
            for p in 0..P {
                sums[r][p] = s.fma(q, k[p], sums[r][p]);
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            // SAFETY: the clauses on `scores` and `panel`: 16 scores of panel `panel + p` of row `r`.
            s.store(sums[r][p], unsafe { array_mut(scores, r * PAGE_TOKENS + (panel + p) * LANES) });
        }
    }
}

/// Values of the first `keys` keys, `key` elements apart.
#[derive(Clone, Copy)]
struct Values<'a, E> {
    data: &'a [E],
    key: usize,
    keys: usize,
}

/// `rows` with `panels` times 16 dimensions of values. `out`: from the first of these dimensions of the first row on.
///
/// # Panics
/// When `values` does not have the panels, or `out` or the weights of `work` do not have the rows.
#[inline(always)]
fn value_rows<S: Simd, E: Element>(
    s: S,
    work: &Work<'_>,
    values: Values<'_, E>,
    panels: usize,
    rows: Range<usize>,
    out: &mut [f32],
    stride: usize,
) {
    // What the unchecked accesses of the tiles rest on.
    let width = panels * LANES;
    assert!(
        values.keys <= PAGE_TOKENS && panels <= VECTORS && rows.end <= MAX_ROWS,
        "{rows:?} of {panels} panels"
    );
    let last_key = values.keys.saturating_sub(1) * values.key;
    let values = Values { data: &values.data[..last_key + width], ..values };
    let weights = &work.scores[..rows.end * PAGE_TOKENS];
    let out = &mut out[..rows.end.saturating_sub(1) * stride + width];
    if S::REGISTERS >= 32 && panels == VECTORS {
        by_rows!(S, rows, |row, R| {
            let weights = Weights { weights, rescale: &work.rescale, row };
            // SAFETY: the slices above have all rows and all panels; there are `VECTORS`.
            unsafe { value_tile::<S, E, R, VECTORS>(s, weights, values, 0, out, stride) };
        });
        return;
    }
    for p in 0..panels {
        by_rows!(S, rows.clone(), |row, R| {
            let weights = Weights { weights, rescale: &work.rescale, row };
            // SAFETY: the slices above have all rows and all panels; `p` is one.
            unsafe { value_tile::<S, E, R, 1>(s, weights, values, p, out, stride) };
        });
    }
}

/// What values of rows from `row` on are multiplied with.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// `[rows, PAGE_TOKENS]`
    weights: &'a [f32],
    /// Per row: what its previous results are multiplied with.
    rescale: &'a [f32; MAX_ROWS],
    row: usize,
}

/// `R` rows with `P` panels of values from `panel` on.
///
/// # Safety
/// `values` must have the panels of all its keys, `weights` and `out` `R` rows from its row on; `keys` must not exceed
/// [`PAGE_TOKENS`], nor the rows [`MAX_ROWS`].
#[inline(always)]
unsafe fn value_tile<S: Simd, E: Element, const R: usize, const P: usize>(
    s: S,
    Weights { weights, rescale, row }: Weights<'_>,
    values: Values<'_, E>,
    panel: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut sums = [[s.zero(); P]; R];
    for r in 0..R {
        // SAFETY: the clause on rows: `row + r` is below `MAX_ROWS`.
        let rescale = s.splat(unsafe { item(rescale, row + r) });
        for p in 0..P {
            // SAFETY: the clause on `out`: 16 dimensions of panel `panel + p` of row `row + r`.
            let old = s.load(unsafe { array(out, (row + r) * stride + (panel + p) * LANES) });
            sums[r][p] = s.mul(old, rescale);
        }
    }
    for key in 0..values.keys {
        let mut v = [s.zero(); P];
        for p in 0..P {
            // SAFETY: the clause on `values`: panel `panel + p` of key `key < keys`.
            v[p] = E::load(s, unsafe { array(values.data, key * values.key + (panel + p) * LANES) });
        }
        for r in 0..R {
            // SAFETY: the clause on `weights`: row `row + r`, and `key < keys <= PAGE_TOKENS`.
            let weight = s.splat(unsafe { item(weights, (row + r) * PAGE_TOKENS + key) });
            for p in 0..P {
                sums[r][p] = s.fma(weight, v[p], sums[r][p]);
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            // SAFETY: the clause on `out`: 16 dimensions of panel `panel + p` of row `row + r`.
            s.store(sums[r][p], unsafe { array_mut(out, (row + r) * stride + (panel + p) * LANES) });
        }
    }
}
