//! How products are split into tasks: contiguous panels by contiguous rows. Each row and panel belongs to one task, and the
//! split changes no bits.

use std::ops::Range;

use super::panels::{PackedMatrix, Panels};
use super::quantize::QuantizedRows;
use super::simd::LANES;
use super::target::{CHUNK_ROWS, GEMV_ROWS};
use super::{KernelSet, gemm_int8::SLICE_BLOCKS, gemm_narrow::Width};

/// Bytes of the left-hand side that one task after another of a thread reads: they should stay in the second-level cache.
const CACHED_ROWS_BYTES: usize = 3 << 19;
/// Bytes of weights that a GEMV task reads at least, while there are tasks for all threads.
const GEMV_TASK_BYTES: usize = 32 << 10;
/// Tasks per thread to aim at, so that threads of unequal speed end together.
const TASKS_PER_THREAD: usize = 16;
/// With fewer tasks per thread, it matters whether all threads have equally many.
const FEW_TASKS: usize = 8;

/// The rows and panels of a task.
pub(super) struct TaskPart {
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
}

/// The grid of tasks.
pub(super) struct Split {
    m: usize,
    panels: usize,
    rows_per_task: usize,
    /// Panels that stay together.
    unit: usize,
    panel_parts: usize,
    /// Whether the kernel of many rows multiplies.
    pub(super) many: bool,
}

/// What decides how a product is split.
struct Sizes {
    panel_bytes: usize,
    /// Panels of a tile of the GEMM kernel; none for GEMV.
    tile_panels: Option<usize>,
    /// Bytes of a row of the left-hand side.
    row_bytes: usize,
}

impl Sizes {
    fn of(kernels: &KernelSet, m: usize, rhs: &PackedMatrix) -> Self {
        let (k, many) = (rhs.k(), m > GEMV_ROWS);
        let float = many.then_some(kernels.tile_panels.float);
        // A group longer than a slice takes the slow way.
        let coded = |group: usize| {
            let many = m > kernels.gemv_rows.of(rhs) && group <= 4 * SLICE_BLOCKS;
            many.then_some(kernels.tile_panels.int8)
        };
        let (panel_bytes, tile_panels, row_bytes) = match &rhs.panels {
            Panels::Int8(panels) => {
                (k.div_ceil(4) * 64, coded(panels.coding.group), QuantizedRows::stride(k))
            }
            Panels::Int4(panels) => {
                (k.div_ceil(8) * 64, coded(panels.coding.group), QuantizedRows::stride(k))
            }
            Panels::Int6(panels) => {
                let k_blocks = k.div_ceil(4).next_multiple_of(Width::Six.k_blocks());
                (Width::Six.lines(k_blocks) * 64, coded(panels.coding.group), QuantizedRows::stride(k))
            }
            Panels::Bf16(_) => match &kernels.bf16_dot {
                Some(dot) => (k.div_ceil(2) * 64, many.then_some(dot.tile_panels), 2 * k),
                None => (k.div_ceil(2) * 64, float, 4 * k),
            },
            Panels::F32(_) => (k * 64, float, 4 * k),
            // Multiplied one by one.
            Panels::Joined(_) => (0, None, 0),
        };
        Sizes { panel_bytes, tile_panels, row_bytes }
    }
}

impl Split {
    /// Of the product of `m` rows and `rhs` on `threads` threads. Panels come in units of `unit`: those of a gate and its up
    /// belong to one task.
    pub(super) fn new(
        kernels: &KernelSet,
        threads: usize,
        m: usize,
        rhs: &PackedMatrix,
        unit: usize,
    ) -> Self {
        Self::of(&Sizes::of(kernels, m, rhs), threads, m, rhs.n().div_ceil(LANES), unit)
    }

    fn of(sizes: &Sizes, threads: usize, m: usize, panels: usize, unit: usize) -> Self {
        let wanted = threads * TASKS_PER_THREAD;
        let Some(tile) = sizes.tile_panels else {
            let unit = gemv_unit(panels, unit, threads);
            let units = panels.div_ceil(unit);
            let at_least = GEMV_TASK_BYTES.div_ceil((unit * sizes.panel_bytes).max(1));
            let parts = if unit == 1 { threads } else { (units / at_least).clamp(1, wanted) };
            // As many for each thread; where that many are too small, small ones.
            let parts = if parts < threads { units.min(threads) } else { parts / threads * threads };
            let panel_parts = parts.min(units);
            return Split { m, panels, rows_per_task: m.max(1), unit, panel_parts, many: false };
        };
        // One column of tiles per task, and all rows, unless that makes too few tasks or rows do not stay in the cache.
        let unit = if tile.is_multiple_of(unit) { tile } else { tile * unit };
        let panel_parts = panels.div_ceil(unit);
        let most = m.div_ceil(CHUNK_ROWS / 2);
        let least = (m * sizes.row_bytes).div_ceil(CACHED_ROWS_BYTES).clamp(1, most);
        let parts = wanted.div_ceil(panel_parts.max(1)).clamp(least, most);
        let parts = even_parts(m, parts, least..most + 1, panel_parts, threads);
        Split { m, panels, rows_per_task: rows_of_part(m, parts), unit, panel_parts, many: true }
    }

    pub(super) fn tasks(&self) -> usize {
        self.m.div_ceil(self.rows_per_task) * self.panel_parts
    }

    /// The part of a task. Neighbouring tasks share rows.
    pub(super) fn task(&self, task: usize) -> TaskPart {
        let row = task / self.panel_parts * self.rows_per_task;
        let (part, units) = (task % self.panel_parts, self.panels.div_ceil(self.unit));
        let border = |part: usize| (units * part / self.panel_parts * self.unit).min(self.panels);
        TaskPart { rows: row..(row + self.rows_per_task).min(self.m), panels: border(part)..border(part + 1) }
    }
}

/// Panels that a GEMV task takes together: two, which may be read at the same time, unless each thread has few, and would have
/// fewer if they were taken one by one. Then one in a thread's share is read alone.
fn gemv_unit(panels: usize, unit: usize, threads: usize) -> usize {
    let pairs = panels.div_ceil(2);
    let few = pairs < FEW_TASKS * threads && panels.div_ceil(threads) < 2 * pairs.div_ceil(threads);
    if few { unit } else { 2 }
}

/// Rows of each of `parts` parts but the last.
pub(super) fn rows_of_part(m: usize, parts: usize) -> usize {
    m.div_ceil(parts).next_multiple_of(8)
}

/// `parts` parts of `m` rows, or, where that makes few tasks for `threads` threads, the number among `allowed` with which
/// the thread that has most rows has fewest.
pub(super) fn even_parts(
    m: usize,
    parts: usize,
    allowed: Range<usize>,
    panel_parts: usize,
    threads: usize,
) -> usize {
    if parts * panel_parts >= FEW_TASKS * threads {
        return parts;
    }
    let most_rows = |parts: usize| {
        let rows = rows_of_part(m, parts);
        (m.div_ceil(rows) * panel_parts).div_ceil(threads) * rows
    };
    // The first of the best: fewer parts are read more often.
    allowed.min_by_key(|&parts| most_rows(parts)).unwrap_or(parts)
}

/// What the threads of a product have to do.
#[cfg(any(test, feature = "bench-support"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Tasks.
    pub tasks: usize,
    /// For each thread: elements of the product, rows by columns, in multiples of what a vector holds. With few rows, that is
    /// the share of the weights that it reads.
    pub work: Vec<usize>,
}

#[cfg(any(test, feature = "bench-support"))]
impl Shares {
    /// Of the product of `m` rows and `rhs`, a gate and an up projection if it is `gated`.
    pub fn of(kernels: &KernelSet, threads: usize, m: usize, rhs: &PackedMatrix, gated: bool) -> Self {
        Self::of_split(&Split::new(kernels, threads, m, rhs, 1 + usize::from(gated)), threads)
    }

    fn of_split(split: &Split, threads: usize) -> Self {
        let tasks = split.tasks();
        let work = |thread| {
            let share = crate::threads::share(tasks as u32, thread, threads as u64);
            let parts = share.map(|task| split.task(task as usize));
            parts.map(|TaskPart { rows, panels }| rows.len() * panels.len() * LANES).sum()
        };
        Shares { tasks, work: (0..threads as u64).map(work).collect() }
    }

    /// The largest share relative to the mean.
    pub fn imbalance(&self) -> f64 {
        let (most, all) = (self.work.iter().max().copied().unwrap_or(0), self.work.iter().sum::<usize>());
        (most * self.work.len()) as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gemv(panel_bytes: usize, panels: usize, threads: usize) -> Split {
        gemv_of(panel_bytes, panels, 1, threads)
    }

    fn gemv_of(panel_bytes: usize, panels: usize, unit: usize, threads: usize) -> Split {
        Split::of(&Sizes { panel_bytes, tile_panels: None, row_bytes: 1024 }, threads, 1, panels, unit)
    }

    fn gemm(tile: usize, row_bytes: usize, m: usize, panels: usize, unit: usize, threads: usize) -> Split {
        Split::of(&Sizes { panel_bytes: 1, tile_panels: Some(tile), row_bytes }, threads, m, panels, unit)
    }

    /// Every row and panel belongs to one task.
    fn check(split: &Split) {
        let mut seen = vec![0_u8; split.m * split.panels];
        for task in 0..split.tasks() {
            let TaskPart { rows, panels } = split.task(task);
            assert!(!rows.is_empty() || split.m == 0);
            for row in rows {
                for panel in panels.clone() {
                    seen[row * split.panels + panel] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&count| count == 1));
    }

    #[test]
    fn every_part_is_one_tasks() {
        for threads in [1, 2, 3, 7, 64, 1024] {
            for panels in [0, 1, 2, 3, 55, 56, 57, 608] {
                check(&gemv(14_336, panels, threads));
                for (tile, unit) in [(3, 1), (3, 2), (2, 2)] {
                    for m in [9, 17, 512, 1000] {
                        check(&gemm(tile, 1536, m, panels, unit, threads));
                    }
                }
            }
        }
    }

    #[test]
    fn gate_and_up_stay_together() {
        for split in [gemv_of(4096, 60, 2, 7), gemv_of(77_824, 60, 2, 16), gemm(3, 512, 100, 60, 2, 7)] {
            let tasks = (0..split.tasks()).map(|task| split.task(task).panels);
            assert!(tasks.into_iter().all(|panels| panels.start % 2 == 0 && panels.len() % 2 == 0));
        }
    }

    #[test]
    fn few_threads_have_large_tasks() {
        // The matrices of a layer of Qwen2.5-0.5B on two threads.
        for (panel_bytes, panels, tasks) in
            [(14_336, 72, 18), (14_336, 56, 14), (14_336, 608, 32), (77_824, 56, 28)]
        {
            assert_eq!(gemv(panel_bytes, panels, 2).tasks(), tasks, "{panels} panels of {panel_bytes}");
        }
        assert_eq!(gemm(3, 1536, 512, 56, 1, 2).tasks(), 2 * 19);
    }

    #[test]
    fn threads_have_equal_shares() {
        for threads in 1..=64 {
            for (panel_bytes, panels) in
                [(14_336, 72), (14_336, 56), (77_824, 56), (32_768, 192), (65_536, 1792)]
            {
                let split = gemv(panel_bytes, panels, threads);
                let shares = Shares::of_split(&split, threads);
                let most = shares.work.iter().max().unwrap() / LANES;
                let equal = panels.div_ceil(threads);
                let many = panels / 2 >= FEW_TASKS * threads;
                assert!(
                    most <= if many { equal + 2 } else { equal },
                    "{threads} threads, {panels} panels: {shares:?}"
                );
            }
            // Prefill.
            for (m, panels, unit) in [(512, 56, 1), (512, 72, 1), (512, 128, 1), (512, 608, 2), (4096, 56, 1)]
            {
                let shares = Shares::of_split(&gemm(3, 1536, m, panels, unit, threads), threads);
                assert!(
                    shares.imbalance() < 1.34,
                    "{threads} threads, {panels} panels: {}",
                    shares.imbalance()
                );
            }
        }
    }
}
