//! The split of a layer's attention into tiles and ranges, and their order.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    FinishArgs, KvSlots, MAX_ROWS, MergeArgs, RANGE_PAGES, RangeArgs, State, Tile, Work, first_seen,
};
use super::{KEY_GROUP, PAGE_TOKENS};
use crate::KernelSet;
use crate::error::Result;
use crate::memory::AlignedBuf;
use crate::memory::SharedMut;
use crate::simd::LANES;
use crate::threads::Region;

/// Floats of results of a tile that stay in the first-level cache.
const TILE_FLOATS: usize = 4096;
/// Floats for results of ranges that are computed in parallel.
const PART_FLOATS: usize = 1 << 17;
/// Rows of codes that tile registers may read (and ignore) beyond the last.
const SPARE_ROWS: usize = 16;
/// Tiles per thread from which ranges need not be split.
const TILES_PER_THREAD: usize = 4;

/// The rows of one sequence in a batch, at consecutive positions.
pub struct KvSequence<P> {
    /// Its rows in the batch.
    pub rows: Range<usize>,
    /// Index of the first page in `pages`.
    pub first_page: usize,
    /// All pages that the rows may see from `first_page` on.
    pub pages: Vec<P>,
}

/// How products of queries and keys become scores.
#[derive(Debug, Clone, Copy)]
pub struct Scores<'a> {
    /// What the products are divided by.
    pub divisor: f32,
    /// Then `score = cap * tanh(score / cap)`, with a cap above 0.
    pub softcap: Option<f32>,
    /// `[heads]`: a further score in each head's softmax, without a value.
    pub sinks: Option<&'a [f32]>,
}

impl Scores<'static> {
    /// Products divided by `sqrt(head_dim)`, without more.
    #[cfg(test)]
    pub fn plain(head_dim: usize) -> Self {
        Scores { divisor: (head_dim as f32).sqrt(), softcap: None, sinks: None }
    }
}

/// Which positions of its sequence a row sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Its own and those before it.
    Causal,
    /// Its own and those before it in its chunk: chunks begin at the multiples of `window`.
    Chunked,
    /// Those after it, too. The last row of each sequence must be in the batch.
    Bidirectional,
}

/// One layer's attention.
pub struct Attention<'a, P> {
    /// `[rows, heads + 2 kv_heads, head_dim]`: rotated queries first.
    pub qkv: &'a [f32],
    /// The position of each row.
    pub positions: &'a [usize],
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Number of positions a row sees in each direction, its own included.
    pub window: Option<usize>,
    /// The positions that a row sees, as far as `window` allows.
    pub mask: Mask,
    /// Scores before the softmax.
    pub scores: Scores<'a>,
    /// The sequences of the batch: they cover all rows, in order.
    pub sequences: &'a [KvSequence<P>],
}

/// Buffers of [`attend`]: one set per thread, and the results of ranges.
#[derive(Default)]
pub struct Workspaces {
    /// Head dimensions that there is room for.
    head_dims: Vec<usize>,
    per_thread: Vec<Workspace>,
    parts: AlignedBuf<f32>,
}

#[derive(Default)]
struct Workspace {
    floats: AlignedBuf<f32>,
    codes: AlignedBuf<i8>,
    starts: AlignedBuf<i32>,
}

/// Sizes of a [`Workspace`].
struct Sizes {
    rows: usize,
    stride: usize,
}

impl Sizes {
    fn new(head_dim: usize) -> Self {
        let stride = head_dim.next_multiple_of(LANES);
        Sizes { rows: (TILE_FLOATS / stride).clamp(1, MAX_ROWS), stride }
    }

    fn state(&self) -> usize {
        State::len(self.rows, self.stride)
    }

    fn floats(&self) -> usize {
        MAX_ROWS * PAGE_TOKENS + PAGE_TOKENS * PAGE_TOKENS + self.rows * self.stride + 2 * self.state()
    }

    fn codes(&self) -> usize {
        (self.rows + SPARE_ROWS + PAGE_TOKENS) * self.stride + (2 * MAX_ROWS + SPARE_ROWS) * PAGE_TOKENS
    }

    fn starts(&self) -> usize {
        self.rows * self.stride.div_ceil(KEY_GROUP)
    }
}

impl Workspaces {
    /// Makes room for `threads` threads and heads of `head_dim`.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub fn reserve(&mut self, threads: usize, head_dim: usize) -> Result<()> {
        let sizes = Sizes::new(head_dim);
        if self.per_thread.len() < threads {
            self.per_thread.resize_with(threads, Workspace::default);
        }
        for work in &mut self.per_thread {
            work.floats.reserve(sizes.floats())?;
            work.codes.reserve(sizes.codes())?;
            work.starts.reserve(sizes.starts())?;
        }
        if !self.head_dims.contains(&head_dim) {
            self.head_dims.push(head_dim);
        }
        self.parts.reserve(PART_FLOATS)
    }

    /// Bytes that [`Workspaces::reserve`] takes.
    pub fn bytes(threads: usize, head_dim: usize) -> usize {
        let sizes = Sizes::new(head_dim);
        let each = 4 * (sizes.floats() + sizes.starts()) + sizes.codes();
        each.saturating_mul(threads).saturating_add(4 * PART_FLOATS)
    }
}

impl Workspace {
    /// The buffers of a tile, and two states of `rows` rows.
    fn split(&mut self, sizes: &Sizes, rows: usize) -> (Work<'_>, State<'_>, State<'_>) {
        let (scores, rest) = self.floats.split_at_mut(MAX_ROWS * PAGE_TOKENS);
        let (slice, rest) = rest.split_at_mut(PAGE_TOKENS * PAGE_TOKENS);
        let (queries, rest) = rest.split_at_mut(sizes.rows * sizes.stride);
        let (part, total) = rest.split_at_mut(sizes.state());
        let (query_codes, rest) = self.codes.split_at_mut((sizes.rows + SPARE_ROWS) * sizes.stride);
        let (keys, weight_codes) = rest.split_at_mut(PAGE_TOKENS * sizes.stride);
        let work = Work {
            scores,
            slice,
            queries,
            query_codes,
            keys,
            weight_codes,
            starts: &mut self.starts,
            factors: [0.0; MAX_ROWS],
            rescale: [1.0; MAX_ROWS],
        };
        (work, State::new(part, rows, sizes.stride), State::new(total, rows, sizes.stride))
    }
}

/// A tile and its place in the batch.
struct Place<'a> {
    tile: Tile<'a>,
    sequence: usize,
    /// First row in the batch, first head of all heads.
    row: usize,
    head: usize,
    /// Pages that its rows see.
    pages: Range<usize>,
}

impl Place<'_> {
    /// Indices of the ranges that its rows see.
    fn ranges(&self) -> Range<usize> {
        self.pages.start / RANGE_PAGES..self.pages.end.div_ceil(RANGE_PAGES)
    }
}

/// Attention of all rows: `out` is `[rows, heads, head_dim]`.
///
/// # Panics
/// When a shape does not fit or a page is not there; `workspaces` must have been reserved for the region's threads.
pub fn attend<'p, K: KvSlots>(
    kernels: &KernelSet,
    region: &Region<'_>,
    problem: &Attention<'_, K::Page<'p>>,
    out: &mut [f32],
    workspaces: &mut Workspaces,
) {
    let Attention { head_dim, heads, positions, .. } = *problem;
    let rows = positions.len();
    assert!(head_dim > 0 && workspaces.head_dims.contains(&head_dim), "heads of {head_dim}");
    let elements = rows.checked_mul(heads).and_then(|heads| heads.checked_mul(head_dim));
    assert!(elements == Some(out.len()), "out: [{rows}, {heads}, {head_dim}]");
    let threads = region.threads().min(workspaces.per_thread.len());
    let sizes = Sizes::new(head_dim);
    let mut places = places(problem, sizes.rows);
    // The longest first, so that threads end together.
    places.sort_by_key(|place| std::cmp::Reverse(place.pages.len() * place.tile.rows()));
    let parts: usize = places.iter().map(|place| place.ranges().len()).sum();
    let run = Run::<K> {
        kernels,
        problem,
        sizes,
        out: SharedMut::new(out),
        works: SharedMut::new(&mut workspaces.per_thread),
    };
    if places.len() < TILES_PER_THREAD * threads && parts > places.len() && threads > 1 {
        let mut rest = places.as_slice();
        while let Some(first) = rest.first() {
            // As many tiles as `parts` has room for.
            let state = State::len(first.tile.rows(), run.sizes.stride);
            let state = rest
                .iter()
                .map(|place| State::len(place.tile.rows(), run.sizes.stride))
                .fold(state, usize::max);
            let (mut count, mut slots) = (0, 0);
            for place in rest {
                slots += place.ranges().len() + 1;
                if slots * state > workspaces.parts.len() {
                    break;
                }
                count += 1;
            }
            if count == 0 {
                break;
            }
            let (now, later) = rest.split_at(count);
            run.split(region, threads, now, state, &mut workspaces.parts);
            rest = later;
        }
        run.whole(region, threads, rest);
    } else {
        run.whole(region, threads, &places);
    }
}

fn places<'a, P>(problem: &Attention<'a, P>, most_rows: usize) -> Vec<Place<'a>> {
    let Attention { qkv, positions, heads, kv_heads, head_dim, window, mask, scores, sequences } = *problem;
    let token_stride = (heads + 2 * kv_heads) * head_dim;
    assert_eq!(qkv.len(), positions.len() * token_stride, "qkv: [{}, {token_stride}]", positions.len());
    let group = heads / kv_heads;
    let scale = std::f32::consts::LOG2_E / scores.divisor;
    let softcap = scores.softcap.map_or(0.0, |cap| cap * std::f32::consts::LOG2_E);
    assert!(scores.sinks.is_none_or(|sinks| sinks.len() == heads), "sinks: [{heads}]");
    let tile_heads = group.min(most_rows);
    let tile_tokens = most_rows / tile_heads;
    let chunked = mask == Mask::Chunked;
    let ahead = match mask {
        Mask::Causal | Mask::Chunked => 0,
        Mask::Bidirectional => window.map_or(usize::MAX, |window| window.saturating_sub(1)),
    };
    let mut places = Vec::new();
    let mut expected = 0;
    for (sequence, share) in sequences.iter().enumerate() {
        // Each row in one sequence: that makes the parts of `out` that tiles write disjoint.
        assert!(
            share.rows.start == expected && share.rows.end >= expected,
            "rows of a batch: {:?}",
            share.rows
        );
        expected = share.rows.end;
        let keys = share.rows.clone().next_back().map_or(0, |last| positions[last] + 1);
        for row in share.rows.clone().step_by(tile_tokens) {
            let positions = &positions[row..share.rows.end.min(row + tile_tokens)];
            let (first, last) = (positions[0], positions[positions.len() - 1]);
            assert_eq!(last - first, positions.len() - 1, "positions of a sequence");
            let first_page = window.map_or(0, |window| first_seen(first, window, chunked) / PAGE_TOKENS);
            let pages = first_page..last.saturating_add(ahead).min(keys - 1) / PAGE_TOKENS + 1;
            for head in 0..heads {
                let (kv_head, within) = (head / group, head % group);
                if within % tile_heads != 0 {
                    continue;
                }
                let tile = Tile {
                    queries: &qkv[row * token_stride + head * head_dim..],
                    token_stride,
                    heads: tile_heads.min(group - within),
                    head_dim,
                    kv_head,
                    positions,
                    window,
                    chunked,
                    ahead,
                    keys,
                    scale,
                    softcap,
                    sinks: scores.sinks.map(|sinks| &sinks[head..]),
                };
                places.push(Place { tile, sequence, row, head, pages: pages.clone() });
            }
        }
    }
    assert_eq!(expected, positions.len(), "rows of a batch");
    places
}

/// What all tasks share.
struct Run<'a, 'q, 'p, K: KvSlots> {
    kernels: &'a KernelSet,
    problem: &'a Attention<'q, K::Page<'p>>,
    sizes: Sizes,
    out: SharedMut<'a, f32>,
    works: SharedMut<'a, Workspace>,
}

impl<K: KvSlots> Run<'_, '_, '_, K> {
    /// Calls `f(task, buffers)` for each task, on at most `threads` threads.
    fn tasks(
        &self,
        region: &Region<'_>,
        threads: usize,
        tasks: usize,
        f: impl Fn(usize, &mut Workspace) + Sync,
    ) {
        let next = AtomicUsize::new(0);
        let stop = region.stop();
        region.parallel(threads.min(tasks), |worker| {
            // SAFETY: `parallel` calls this once for each `worker`, and each has a workspace of its own.
            let work = &mut unsafe { self.works.slice(worker, 1) }[0];
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks || stop.is_set() {
                    break;
                }
                f(task, work);
            }
        });
    }

    /// Tiles in parallel, the ranges of each one after another.
    fn whole(&self, region: &Region<'_>, threads: usize, places: &[Place<'_>]) {
        self.tasks(region, threads, places.len(), |task, work| {
            let place = &places[task];
            let (mut work, mut part, mut total) = work.split(&self.sizes, place.tile.rows());
            total.clear();
            for range in place.ranges() {
                self.range(place, range, &mut work, &mut part);
                self.merge(place, range, &part, &mut total);
            }
            self.finish(place, &total);
        });
    }

    /// Tiles and their ranges in parallel. `parts` has room for `state` floats per range, and as many again per tile.
    fn split(
        &self,
        region: &Region<'_>,
        threads: usize,
        places: &[Place<'_>],
        state: usize,
        parts: &mut [f32],
    ) {
        let mut tasks = Vec::new();
        let mut firsts = Vec::with_capacity(places.len());
        for (index, place) in places.iter().enumerate() {
            firsts.push(tasks.len());
            tasks.extend(place.ranges().map(|range| (index, range)));
        }
        let count = tasks.len();
        assert!(parts.len() >= (count + places.len()) * state, "room for {count} ranges");
        let (parts, totals) = parts.split_at_mut(count * state);
        let (parts, totals) = (SharedMut::new(parts), SharedMut::new(totals));
        let stride = self.sizes.stride;
        self.tasks(region, threads, count, |task, work| {
            let (index, range) = tasks[task];
            let place = &places[index];
            let rows = place.tile.rows();
            // SAFETY: `tasks` gives each `task` to one thread, and each has a part of its own.
            let mut part = State::new(unsafe { parts.slice(task * state, state) }, rows, stride);
            let (mut work, _, _) = work.split(&self.sizes, rows);
            self.range(place, range, &mut work, &mut part);
        });
        region.parallel(places.len(), |index| {
            let place = &places[index];
            let rows = place.tile.rows();
            // SAFETY: `parallel` calls this once for each `index`, and each has a total of its own.
            let mut total = State::new(unsafe { totals.slice(index * state, state) }, rows, stride);
            total.clear();
            for (offset, range) in place.ranges().enumerate() {
                // SAFETY: the part of a range of this tile, which no other task uses: all that wrote parts have returned.
                let part = unsafe { parts.slice((firsts[index] + offset) * state, state) };
                self.merge(place, range, &State::new(part, rows, stride), &mut total);
            }
            self.finish(place, &total);
        });
    }

    fn range(&self, place: &Place<'_>, range: usize, work: &mut Work<'_>, state: &mut State<'_>) {
        let pages =
            place.pages.start.max(range * RANGE_PAGES)..place.pages.end.min((range + 1) * RANGE_PAGES);
        let sequence = &self.problem.sequences[place.sequence];
        let first_page = pages.start;
        let pages = &sequence.pages[pages.start - sequence.first_page..pages.end - sequence.first_page];
        let mut few = [K::shorten(pages[0]); RANGE_PAGES];
        for (few, &page) in few.iter_mut().zip(pages) {
            *few = K::shorten(page);
        }
        let pages = &few[..pages.len()];
        let (work, state) = (work.reborrow(), state.reborrow());
        let args = RangeArgs { tile: place.tile, pages, first_page, work, state };
        K::slots(self.kernels).attend.call(args);
    }

    fn merge(&self, place: &Place<'_>, range: usize, part: &State<'_>, total: &mut State<'_>) {
        const KEYS: usize = RANGE_PAGES * PAGE_TOKENS;
        let keys = range * KEYS..(range + 1) * KEYS;
        self.kernels.merge_attention.call(MergeArgs {
            tile: place.tile,
            keys,
            part,
            total: total.reborrow(),
        });
    }

    fn finish(&self, place: &Place<'_>, state: &State<'_>) {
        let Attention { heads, head_dim, .. } = *self.problem;
        let out_stride = heads * head_dim;
        let start = place.row * out_stride + place.head * head_dim;
        let args = FinishArgs { tile: place.tile, state, out: &self.out, start, out_stride };
        self.kernels.finish_attention.call(args);
    }
}
