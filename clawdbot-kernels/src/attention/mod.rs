//! Grouped-query attention over cache pages with an online softmax.
//!
//! ```text
//! s[r][j] = scale * q[r] . k[j]      for the keys j that row r sees; scale = log2(e) / sqrt(head_dim)
//! out[r]  = sum over j of 2^(s[r][j] - m) v[j] / sum over j of 2^(s[r][j] - m)
//! ```
//! Families may have another scale, scores `cap * tanh(score / cap)`, and *sinks*: a score per head that counts in the
//! denominator, but has no value. A row sees its own position and those before it; in an encoder also those after it.
//!
//! A *tile* is some tokens of one sequence times query heads of one KV head, so that a page is read once for all of
//! them. Keys are taken in blocks of one page, at absolute positions, ascending: running maximum, sum and weighted
//! values are rescaled when the maximum grows (Milakov, Gimelshein 2018, <https://arxiv.org/abs/1805.02867>). The pages
//! are divided into *ranges* of `RANGE_PAGES`, at absolute positions too. Each range is computed by itself, and the results
//! are merged in ascending order, so the result is the same whether ranges run in parallel or one after another.
//!
//! Numerics: the sum of weights has 16 lanes (key j in lane j mod 16). The rest depends on the kind of page, see `float`
//! and `int8`. A masked key has weight 0, which changes nothing as long as its value is finite. A row's bits depend on
//! its own query and keys alone, and not on the other rows of the tile: results are independent of batch, chunking and
//! threads.
mod clear;
mod finish;
mod float;
mod int8;
mod run;
#[cfg(test)]
mod tests;
#[cfg(any(test, target_arch = "x86_64"))]
mod tiled;

use std::ops::Range;

pub use clear::{clear_float, clear_int8};
pub use finish::{Finish, FinishArgs, Merge, MergeArgs};
pub use float::{Element, Float};
pub use int8::{Int8, Int8Head, Int8Page};
pub use run::{Attention, KvSequence, Mask, Scores, Workspaces, attend};
#[cfg(target_arch = "x86_64")]
pub(super) use tiled::AttendTiled;

use super::simd::LANES;
use super::vector::{exp2_below, tanh};
use super::{Kernel, KernelSet, Simd, Slot};

/// Tokens of a page, and the block of keys of the online softmax.
pub const PAGE_TOKENS: usize = 64;
/// Dimensions of a key that share a scale, in an int8 page.
pub const KEY_GROUP: usize = 64;
/// Most query rows of a tile.
const MAX_ROWS: usize = 64;
/// Pages of a range.
const RANGE_PAGES: usize = 8;
/// Vectors of a block of keys.
const VECTORS: usize = PAGE_TOKENS / LANES;

/// What scores begin with.
#[derive(Clone, Copy, PartialEq)]
enum Earlier {
    /// 0: these are the first dimensions of a head.
    None,
    /// The scores of earlier dimensions.
    Kept,
}

/// How keys and values are stored.
pub trait KvKind: Sized + Send + Sync + 'static {
    /// One layer of a page, all heads.
    type Page<'a>: Copy + Send + Sync;
    /// One head of one layer of a page, for writing.
    type HeadMut<'a>: Send;

    /// The same page, borrowed for a shorter time.
    fn shorten<'s, 'l: 's>(page: Self::Page<'l>) -> Self::Page<'s>;

    /// Prepares the tile's queries in `work`. `scales` get the factor by which each row's scores become exponents of two.
    fn queries<S: Simd>(s: S, tile: &Tile<'_>, work: &mut Work<'_>, scales: &mut [f32; MAX_ROWS]);

    /// Writes scores of `rows` with the first `keys` keys of a page to `work.scores`, and maybe more that do not count.
    ///
    /// # Panics
    /// When the page is not of the tile's shape.
    fn scores<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Self::Page<'_>,
        rows: Range<usize>,
        keys: usize,
        work: &mut Work<'_>,
    );

    /// Stores the weights `p` of a row. Only those of keys in `visible` count.
    fn weights<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Self::Page<'_>,
        row: usize,
        visible: Range<usize>,
        p: [S::F32; VECTORS],
        work: &mut Work<'_>,
    );

    /// Prepares what [`KvKind::weights`] kept for [`KvKind::values`]: a pass of its own, so that the work on one row
    /// does not wait for that on the row before.
    fn encode<S: Simd>(s: S, rows: Range<usize>, work: &mut Work<'_>);

    /// `out[row] = out[row] * rescale[row] + sum over the first keys of weight * value`.
    fn values<S: Simd>(
        s: S,
        tile: &Tile<'_>,
        page: Self::Page<'_>,
        rows: Range<usize>,
        keys: usize,
        work: &mut Work<'_>,
        out: &mut [f32],
    );

    /// Writes key and value of one token at position `slot` of the page.
    fn write<S: Simd>(s: S, head: &mut Self::HeadMut<'_>, slot: usize, key: &[f32], value: &[f32]);
}

/// The kernels for a kind of pages.
pub struct Slots<'a, K: KvKind> {
    /// Attention to the pages of a range.
    pub attend: &'a Slot<AttendRange<K>>,
    /// Writing keys and values.
    pub write: &'a Slot<WriteKv<K>>,
}

/// A kind of pages with kernels in every set.
pub trait KvSlots: KvKind {
    /// Its kernels.
    fn slots(kernels: &KernelSet) -> Slots<'_, Self>;
}

/// Some tokens of one sequence, at consecutive positions, and some query heads of one KV head. Row `t * heads + h` is
/// head h of token t.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// From the first row on; heads follow one another, tokens are `token_stride` apart.
    queries: &'a [f32],
    token_stride: usize,
    heads: usize,
    head_dim: usize,
    kv_head: usize,
    /// The position of each token.
    positions: &'a [usize],
    /// Number of last positions a row sees, its own included.
    window: Option<usize>,
    /// Whether it sees only those from the last multiple of `window` on.
    chunked: bool,
    /// Number of positions after its own that a row sees.
    ahead: usize,
    /// Positions of the sequence.
    keys: usize,
    /// Factor of scores, times log2(e).
    scale: f32,
    /// Soft cap of scores, times log2(e); 0 for none.
    softcap: f32,
    /// A score for each of the tile's heads.
    sinks: Option<&'a [f32]>,
}

impl Tile<'_> {
    fn rows(&self) -> usize {
        self.positions.len() * self.heads
    }

    /// Elements from row to row of results: whole vectors.
    fn stride(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// The keys at `start..start + len` that a token sees, relative to `start`.
    #[inline(always)]
    fn visible(&self, token: usize, start: usize, len: usize) -> Range<usize> {
        let end = self.positions[token] + 1;
        let first = self.window.map_or(0, |window| first_seen(end - 1, window, self.chunked));
        let end = end.saturating_add(self.ahead).min(self.keys).saturating_sub(start).min(len);
        first.saturating_sub(start).min(end)..end
    }

    /// The tokens that see some of the keys at `start..start + len`.
    #[inline(always)]
    fn seeing(&self, start: usize, len: usize) -> Range<usize> {
        let mut tokens = 0..self.positions.len();
        while tokens.start < tokens.end && self.visible(tokens.start, start, len).is_empty() {
            tokens.start += 1;
        }
        while tokens.start < tokens.end && self.visible(tokens.end - 1, start, len).is_empty() {
            tokens.end -= 1;
        }
        tokens
    }

    #[inline(always)]
    fn query(&self, row: usize) -> &[f32] {
        &self.queries[row / self.heads * self.token_stride + row % self.heads * self.head_dim..]
            [..self.head_dim]
    }
}

/// The first position that a row at `position` sees through a window, or in its chunk of `window` positions.
#[inline(always)]
fn first_seen(position: usize, window: usize, chunked: bool) -> usize {
    if chunked { position - position % window } else { (position + 1).saturating_sub(window) }
}

/// Buffers of a tile.
pub struct Work<'a> {
    /// `[MAX_ROWS, PAGE_TOKENS]`: scores, or weights.
    scores: &'a mut [f32],
    /// `[PAGE_TOKENS, PAGE_TOKENS]`: some of a page, widened.
    slice: &'a mut [f32],
    /// `[rows, stride]`: scaled queries.
    queries: &'a mut [f32],
    /// `[rows, stride]`: codes of queries.
    query_codes: &'a mut [i8],
    /// `[PAGE_TOKENS, stride]`: keys of a page, prepared.
    keys: &'a mut [i8],
    /// Twice `[MAX_ROWS, PAGE_TOKENS]`: codes of weights, upper and lower half.
    weight_codes: &'a mut [i8],
    /// Per row and group: where sums with query codes start.
    starts: &'a mut [i32],
    /// Per row: the step of its weight codes.
    factors: [f32; MAX_ROWS],
    /// Per row: what its previous results are multiplied with.
    rescale: [f32; MAX_ROWS],
}

impl Work<'_> {
    fn reborrow(&mut self) -> Work<'_> {
        Work {
            scores: self.scores,
            slice: self.slice,
            queries: self.queries,
            query_codes: self.query_codes,
            keys: self.keys,
            weight_codes: self.weight_codes,
            starts: self.starts,
            ..*self
        }
    }
}

/// Results of a tile so far, not divided by the sum of weights yet.
pub struct State<'a> {
    /// `[rows, stride]`
    out: &'a mut [f32],
    /// `[rows, LANES]`
    sums: &'a mut [f32],
    /// `[rows]`
    max: &'a mut [f32],
}

impl<'a> State<'a> {
    /// Floats of the state of `rows` rows.
    fn len(rows: usize, stride: usize) -> usize {
        (rows * (stride + LANES + 1)).next_multiple_of(LANES)
    }

    fn new(data: &'a mut [f32], rows: usize, stride: usize) -> Self {
        let (out, rest) = data.split_at_mut(rows * stride);
        let (sums, rest) = rest.split_at_mut(rows * LANES);
        State { out, sums, max: &mut rest[..rows] }
    }

    fn reborrow(&mut self) -> State<'_> {
        State { out: self.out, sums: self.sums, max: self.max }
    }

    /// No key seen.
    fn clear(&mut self) {
        self.out.fill(0.0);
        self.sums.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
    }
}

/// Arguments of [`AttendRange`].
pub struct RangeArgs<'a, K: KvKind> {
    tile: Tile<'a>,
    /// Pages of one range that the tile may see.
    pages: &'a [K::Page<'a>],
    /// Index of the first one: it holds positions from `first_page * PAGE_TOKENS`.
    first_page: usize,
    work: Work<'a>,
    state: State<'a>,
}

/// One tile with the keys of one range.
pub struct AttendRange<K>(std::marker::PhantomData<K>);
impl<K: KvKind> Kernel for AttendRange<K> {
    type Args<'a> = RangeArgs<'a, K>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: RangeArgs<'_, K>) {
        let RangeArgs { tile, pages, first_page, mut work, mut state } = args;
        let (work, state) = (&mut work, &mut state);
        let (rows, heads) = (tile.rows(), tile.heads);
        assert!(rows <= MAX_ROWS && state.max.len() == rows, "tile of {rows} rows");
        assert!(state.out.len() == rows * tile.stride() && work.scores.len() == MAX_ROWS * PAGE_TOKENS);
        state.clear();
        let mut scales = [1.0; MAX_ROWS];
        K::queries(s, &tile, work, &mut scales);
        let after_cap = [1.0; MAX_ROWS];
        for (index, &page) in pages.iter().enumerate() {
            let start = (first_page + index) * PAGE_TOKENS;
            let tokens = tile.seeing(start, PAGE_TOKENS);
            if tokens.is_empty() {
                continue;
            }
            let rows = tokens.start * heads..tokens.end * heads;
            let keys = tile.visible(tokens.end - 1, start, PAGE_TOKENS).end;
            K::scores(s, &tile, page, rows.clone(), keys, work);
            let mut scales = &scales;
            if tile.softcap > 0.0 {
                cap_scores(s, rows.clone(), tile.softcap, scales, work);
                scales = &after_cap;
            }
            for token in tokens {
                let visible = tile.visible(token, start, PAGE_TOKENS);
                for row in token * heads..(token + 1) * heads {
                    let p = if visible.len() == PAGE_TOKENS {
                        soften::<S, false>(s, row, visible.clone(), scales[row], work, state)
                    } else {
                        soften::<S, true>(s, row, visible.clone(), scales[row], work, state)
                    };
                    K::weights(s, &tile, page, row, visible.clone(), p, work);
                }
            }
            K::encode(s, rows.clone(), work);
            K::values(s, &tile, page, rows, keys, work, state.out);
        }
    }
}

/// `score = cap * tanh(score * scale / cap)`. Scores after the last key have no meaning, before and after.
#[inline(always)]
fn cap_scores<S: Simd>(s: S, rows: Range<usize>, cap: f32, scales: &[f32; MAX_ROWS], work: &mut Work<'_>) {
    let cap_lanes = s.splat(cap);
    for row in rows {
        let factor = s.splat(scales[row] / cap);
        for scores in &mut work.scores.as_chunks_mut::<LANES>().0[row * VECTORS..][..VECTORS] {
            let capped = s.mul(tanh(s, s.mul(s.load(scores), factor)), cap_lanes);
            s.store(capped, scores);
        }
    }
}

/// Turns a row's scores into weights, and updates its maximum, its sum and the factor of its earlier results.
#[inline(always)]
fn soften<S: Simd, const MASKED: bool>(
    s: S,
    row: usize,
    visible: Range<usize>,
    scale: f32,
    work: &mut Work<'_>,
    state: &mut State<'_>,
) -> [S::F32; VECTORS] {
    let hidden = s.splat(f32::NEG_INFINITY);
    let scores = &work.scores.as_chunks::<LANES>().0[row * VECTORS..][..VECTORS];
    let mut x = [s.zero(); VECTORS];
    for v in 0..VECTORS {
        x[v] = s.load(&scores[v]);
        if MASKED {
            x[v] = s.select_below(visible.end.saturating_sub(v * LANES), x[v], hidden);
            x[v] = s.select_below(visible.start.saturating_sub(v * LANES), hidden, x[v]);
        }
    }
    let top = s.max(s.max(x[0], x[1]), s.max(x[2], x[3]));
    let lanes_scale = s.splat(scale);
    let mut max = s.splat(state.max[row]);
    let mut rescale = 1.0;
    if s.any_above(s.mul(top, lanes_scale), max) {
        // Scaled afterwards: a scale of 0 makes a NaN of what is hidden.
        let higher = s.reduce_max(top) * scale;
        let mut lanes = [0.0; LANES];
        s.store(exp2_below(s, s.sub(max, s.splat(higher))), &mut lanes);
        rescale = lanes[0];
        max = s.splat(higher);
        state.max[row] = higher;
    }
    let below = s.sub(s.zero(), max);
    for v in 0..VECTORS {
        x[v] = s.fma(x[v], lanes_scale, below);
        if MASKED {
            x[v] = s.select_below(visible.end.saturating_sub(v * LANES), x[v], hidden);
            x[v] = s.select_below(visible.start.saturating_sub(v * LANES), hidden, x[v]);
        }
        x[v] = exp2_below(s, x[v]);
    }
    let sums = &mut state.sums.as_chunks_mut::<LANES>().0[row];
    let sum = s.add(s.add(x[0], x[1]), s.add(x[2], x[3]));
    s.store(s.fma(s.load(sums), s.splat(rescale), sum), sums);
    work.rescale[row] = rescale;
    x
}

pub(super) type AttendF32 = AttendRange<Float<f32>>;
pub(super) type AttendBf16 = AttendRange<Float<u16>>;
pub(super) type AttendInt8 = AttendRange<Int8>;
pub(super) type WriteF32 = WriteKv<Float<f32>>;
pub(super) type WriteBf16 = WriteKv<Float<u16>>;
pub(super) type WriteInt8 = WriteKv<Int8>;

/// Keys and values of consecutive tokens into one head of a page.
pub struct WriteKv<K>(std::marker::PhantomData<K>);

/// Arguments of [`WriteKv`].
pub struct WriteArgs<'a, K: KvKind> {
    /// Where they go: one head of one layer of a page.
    pub head: K::HeadMut<'a>,
    /// Position of the first token within the page.
    pub slot: usize,
    /// How many tokens.
    pub tokens: usize,
    /// Elements of a key and of a value.
    pub head_dim: usize,
    /// From the first token's key on.
    pub keys: &'a [f32],
    /// From the first token's value on.
    pub values: &'a [f32],
    /// From token to token of both.
    pub stride: usize,
}

impl<K: KvKind> Kernel for WriteKv<K> {
    type Args<'a> = WriteArgs<'a, K>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: WriteArgs<'_, K>) {
        let WriteArgs { mut head, slot, tokens, head_dim, keys, values, stride } = args;
        assert!(slot + tokens <= PAGE_TOKENS, "{tokens} tokens from {slot}");
        for token in 0..tokens {
            let (key, value) = (&keys[token * stride..][..head_dim], &values[token * stride..][..head_dim]);
            K::write(s, &mut head, slot + token, key, value);
        }
    }
}

/// Runs `$body` for `$R` rows from `$row` on, as many at a time as the registers allow, until all `$rows` are done.
macro_rules! by_rows {
    ($S:ident, $rows:expr, |$row:ident, $R:ident| $body:expr) => {{
        let rows: std::ops::Range<usize> = $rows;
        let mut $row = rows.start;
        while $row < rows.end {
            let left = rows.end - $row;
            if $S::REGISTERS >= 32 && left >= 6 {
                const $R: usize = 6;
                $body;
                $row += 6;
            } else if left >= 4 {
                const $R: usize = 4;
                $body;
                $row += 4;
            } else if left >= 2 {
                const $R: usize = 2;
                $body;
                $row += 2;
            } else {
                const $R: usize = 1;
                $body;
                $row += 1;
            }
        }
    }};
}
use by_rows;
