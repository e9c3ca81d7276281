//! f32 and bf16 pages.
//!
//! Layout of a head: `K: [PAGE_TOKENS / 16][head_dim][16 tokens]`, then `V: [PAGE_TOKENS][head_dim rounded up to 16]`.
//!
//! Numerics: queries are scaled first. Each score is one FMA chain over the dimensions, from 0; each weighted value one
//! FMA chain over the keys of a page, from the rescaled earlier sum. bf16 is widened exactly.

use std::ops::Range;

use super::PAGE_TOKENS;
use super::{KvKind, KvSlots, MAX_ROWS, Slots, Tile, VECTORS, Work, by_rows};
use crate::KernelSet;
use crate::memory::Pod;
use crate::simd::{LANES, Simd};

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
        (&kernels.attend_f32, &kernels.write_f32)
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
        (&kernels.attend_bf16, &kernels.write_bf16)
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
        assert!(rows.end <= MAX_ROWS && work.scores.len() >= MAX_ROWS * PAGE_TOKENS);
        assert!(work.queries.len() >= rows.end * stride && work.slice.len() >= SLICE * PAGE_TOKENS);
        let widen = E::NARROW && rows.len() >= MANY_ROWS;
        for dim in (0..d).step_by(SLICE) {
            let dims = SLICE.min(d - dim);
            let (queries, scores) = (work.queries.as_ptr(), work.scores.as_mut_ptr());
            if widen {
                let panels = keys.as_chunks::<LANES>().0;
                let slice = work.slice.as_chunks_mut::<LANES>().0;
                for v in 0..VECTORS {
                    for i in 0..dims {
                        s.store(E::load(s, &panels[v * d + dim + i]), &mut slice[i * VECTORS + v]);
                    }
                }
                let keys = Keys { at: work.slice.as_ptr(), dim: PAGE_TOKENS, panel: LANES };
                // SAFETY: the asserts: the slice holds `dims` dimensions of the page, queries and scores hold the rows.
                by_rows!(S, rows.clone(), |row, R| unsafe {
                    score_rows::<S, f32, R>(
                        s,
                        queries.add(row * stride + dim),
                        stride,
                        keys,
                        dims,
                        dim > 0,
                        scores.add(row * PAGE_TOKENS),
                    );
                });
            } else {
                // SAFETY: `dim < d`, and `keys` has `PAGE_TOKENS * d` elements.
                let at = unsafe { keys.as_ptr().add(dim * LANES) };
                let keys = Keys { at, dim: LANES, panel: d * LANES };
                // SAFETY: as above, with the page itself.
                by_rows!(S, rows.clone(), |row, R| unsafe {
                    score_rows::<S, E, R>(
                        s,
                        queries.add(row * stride + dim),
                        stride,
                        keys,
                        dims,
                        dim > 0,
                        scores.add(row * PAGE_TOKENS),
                    );
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
        assert!(values.len() == PAGE_TOKENS * stride && keys <= PAGE_TOKENS && rows.end <= MAX_ROWS);
        assert!(out.len() >= rows.end * stride && work.scores.len() >= MAX_ROWS * PAGE_TOKENS);
        let widen = E::NARROW && rows.len() >= MANY_ROWS;
        for dim in (0..stride).step_by(SLICE) {
            let panels = (stride - dim).min(SLICE) / LANES;
            let out = out[dim..].as_mut_ptr();
            if widen {
                let from = values.as_chunks::<LANES>().0;
                let slice = work.slice.as_chunks_mut::<LANES>().0;
                for key in 0..keys {
                    for v in 0..panels {
                        let at = (key * stride + dim) / LANES + v;
                        s.store(E::load(s, &from[at]), &mut slice[key * VECTORS + v]);
                    }
                }
                let values = Values { at: work.slice.as_ptr(), key: SLICE, keys };
                // SAFETY: the asserts: the slice holds `keys` keys and `panels` panels, out and weights the rows.
                unsafe { value_rows(s, work, values, panels, rows.clone(), out, stride) };
            } else {
                let values = Values { at: values[dim..].as_ptr(), key: stride, keys };
                // SAFETY: as above, with the page itself.
                unsafe { value_rows(s, work, values, panels, rows.clone(), out, stride) };
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

/// Keys: element `dim * i + panel * v` from `at` is dimension i of the first key of panel v.
#[derive(Clone, Copy)]
struct Keys<E> {
    at: *const E,
    dim: usize,
    panel: usize,
}

/// `R` rows with all keys of a page, `dims` dimensions.
///
/// # Safety
/// There must be `R` rows of `dims` queries, `stride` apart, and of `PAGE_TOKENS` scores, and `dims` dimensions of keys.
#[inline(always)]
unsafe fn score_rows<S: Simd, E: Element, const R: usize>(
    s: S,
    queries: *const f32,
    stride: usize,
    keys: Keys<E>,
    dims: usize,
    go_on: bool,
    scores: *mut f32,
) {
    // SAFETY: the caller's promises; panel v begins `panel * v` elements on.
    unsafe {
        if S::REGISTERS >= 32 {
            score_tile::<S, E, R, VECTORS>(s, queries, stride, keys, dims, go_on, scores);
        } else {
            for v in 0..VECTORS {
                let keys = Keys { at: keys.at.add(v * keys.panel), ..keys };
                score_tile::<S, E, R, 1>(s, queries, stride, keys, dims, go_on, scores.add(v * LANES));
            }
        }
    }
}

/// # Safety
/// As for [`score_rows`], with `P` panels.
#[inline(always)]
unsafe fn score_tile<S: Simd, E: Element, const R: usize, const P: usize>(
    s: S,
    queries: *const f32,
    stride: usize,
    keys: Keys<E>,
    dims: usize,
    go_on: bool,
    scores: *mut f32,
) {
    // SAFETY: the caller's promises bound every access.
    unsafe {
        let mut sums = [[s.zero(); P]; R];
        if go_on {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = s.load(&*scores.add(r * PAGE_TOKENS + p * LANES).cast());
                }
            }
        }
        for i in 0..dims {
            let mut k = [s.zero(); P];
            for p in 0..P {
                k[p] = E::load(s, &*keys.at.add(i * keys.dim + p * keys.panel).cast());
            }
            for r in 0..R {
                let q = s.splat(*queries.add(r * stride + i));
                for p in 0..P {
                    sums[r][p] = s.fma(q, k[p], sums[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                s.store(sums[r][p], &mut *scores.add(r * PAGE_TOKENS + p * LANES).cast());
            }
        }
    }
}

/// Values of the first `keys` keys, `key` elements apart.
#[derive(Clone, Copy)]
struct Values<E> {
    at: *const E,
    key: usize,
    keys: usize,
}

/// `rows` with `panels` times 16 dimensions of values.
///
/// # Safety
/// There must be as many values; `out`, whose rows are `stride` apart, and `work.scores` must have the rows.
#[inline(always)]
unsafe fn value_rows<S: Simd, E: Element>(
    s: S,
    work: &Work<'_>,
    values: Values<E>,
    panels: usize,
    rows: Range<usize>,
    out: *mut f32,
    stride: usize,
) {
    let weights = work.scores.as_ptr();
    // SAFETY: the caller's promises; panel p begins 16 elements of `values` and `out` after the one before.
    unsafe {
        if S::REGISTERS >= 32 && panels == VECTORS {
            by_rows!(S, rows, |row, R| {
                let (weights, out) = (weights.add(row * PAGE_TOKENS), out.add(row * stride));
                value_tile::<S, E, R, VECTORS>(s, weights, &work.rescale[row..], values, out, stride);
            });
            return;
        }
        for p in 0..panels {
            let values = Values { at: values.at.add(p * LANES), ..values };
            by_rows!(S, rows.clone(), |row, R| {
                let (weights, out) = (weights.add(row * PAGE_TOKENS), out.add(row * stride + p * LANES));
                value_tile::<S, E, R, 1>(s, weights, &work.rescale[row..], values, out, stride);
            });
        }
    }
}

/// # Safety
/// As for [`value_rows`], with `R` rows and `P` panels.
#[inline(always)]
unsafe fn value_tile<S: Simd, E: Element, const R: usize, const P: usize>(
    s: S,
    weights: *const f32,
    rescale: &[f32],
    values: Values<E>,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's promises bound every access.
    unsafe {
        let mut sums = [[s.zero(); P]; R];
        for r in 0..R {
            let rescale = s.splat(rescale[r]);
            for p in 0..P {
                sums[r][p] = s.mul(s.load(&*out.add(r * stride + p * LANES).cast()), rescale);
            }
        }
        for key in 0..values.keys {
            let mut v = [s.zero(); P];
            for p in 0..P {
                v[p] = E::load(s, &*values.at.add(key * values.key + p * LANES).cast());
            }
            for r in 0..R {
                let weight = s.splat(*weights.add(r * PAGE_TOKENS + key));
                for p in 0..P {
                    sums[r][p] = s.fma(weight, v[p], sums[r][p]);
                }
            }
        }
        for r in 0..R {
            for p in 0..P {
                s.store(sums[r][p], &mut *out.add(r * stride + p * LANES).cast());
            }
        }
    }
}
