//! The order in which products of few rows read their weights: GEMV, where the time is that of reading.
//!
//! - Up to [`GEMV_ROWS`] rows are multiplied with all lines of a panel before the next panel, or the next two panels.
//! - More rows, where the registers allow it, go in blocks of up to [`GEMV_ROWS`]: all blocks by one or two panels, then by
//!   the next. Nothing is copied. Each block asks for a part of the next panels.
//!
//! The order changes no bits: each element of the product is computed by one tile, groups ascending.

use std::ops::Range;
use std::sync::OnceLock;

use super::Simd;
use super::simd::LANES;
use super::target::{GEMV_ROWS, TileAt};

/// A line of codes.
pub(super) type Line = [u8; 4 * LANES];

/// A task of few rows.
pub(super) trait FewRows<S: Simd> {
    /// How panels are read with up to [`GEMV_ROWS`] rows.
    fn reads(&self) -> Reads;
    /// Whether more rows go by two panels at a time.
    const PAIRS: bool;

    /// The task's rows.
    fn rows(&self) -> Range<usize>;
    /// The task's panels.
    fn panels(&self) -> Range<usize>;
    /// The first line of a panel, which need not exist.
    fn panel(&self, panel: usize) -> *const Line;
    /// Lines of a panel.
    fn lines(&self) -> usize;
    /// `R` rows by `P` panels, `U` lines of each panel in a step.
    fn multiply<const R: usize, const P: usize, const U: usize>(&self, s: S, at: TileAt, ahead: Ahead<P>);
}

/// How panels are read with up to [`GEMV_ROWS`] rows, where there are registers for both.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reads {
    /// One panel after another: a single run of lines.
    OnePanel,
    /// Two panels at a time: half the loads of activations.
    TwoPanels,
}

impl Reads {
    /// What is faster where unpacking takes no time. AMD's cores read one run of lines faster (Zen 4: 1.09 times as fast; a prototype on Zen 5: up to 1.2 times);
    /// Intel's have time for the multiplications of several rows only if they load activations half as often (Sapphire Rapids:
    /// two panels are 1.0 to 1.2 times as fast).
    pub(super) fn of_this_cpu() -> Self {
        static CHOICE: OnceLock<Reads> = OnceLock::new();
        *CHOICE.get_or_init(|| if amd() { Reads::OnePanel } else { Reads::TwoPanels })
    }
}

/// Whether this is an x86 CPU by AMD.
fn amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// How far ahead of its reads a tile asks for lines: of one panel.
const ONE_AHEAD: usize = 128;
/// Of each of two panels.
const TWO_AHEAD: usize = 16;

/// What a tile asks for while it works: with line `l` of its panels, line `l / 2^shift` from `first` on of each of `P` panels.
#[derive(Clone, Copy)]
pub(super) struct Ahead<const P: usize> {
    first: [*const Line; P],
    shift: u32,
    /// From this line on, `jump` lines further: past the panels that the tile itself reads.
    jump_from: usize,
    jump: usize,
}

impl<const P: usize> Ahead<P> {
    /// `distance` lines after those that are being read, in the panels from `panel` on.
    #[inline(always)]
    fn near<S: Simd>(task: &impl FewRows<S>, panel: usize, distance: usize) -> Self {
        let first = std::array::from_fn(|p| task.panel(panel + p).wrapping_add(distance));
        let lines = task.lines();
        Ahead { first, shift: 0, jump_from: lines.saturating_sub(distance), jump: (P - 1) * lines }
    }

    /// Part `part` of `parts` of the panels from `panel` on.
    #[inline(always)]
    fn part<S: Simd>(task: &impl FewRows<S>, panel: usize, part: usize, parts: usize) -> Self {
        let shift = parts.ilog2();
        let line = part * task.lines().div_ceil(1 << shift);
        let first = std::array::from_fn(|p| task.panel(panel + p).wrapping_add(line));
        // `2^shift` parts are the whole of the panels: the others ask for a single line.
        let shift = if part < 1 << shift { shift } else { usize::BITS - 1 };
        Ahead { first, shift, jump_from: usize::MAX, jump: 0 }
    }

    /// For the `U` lines of a step, from `line` on. To be called in ascending order.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd, const U: usize>(&self, s: S, line: usize) {
        // One test for all lines of a step: with a single row, a test for each costs as much as the line's products.
        if self.shift == 0 {
            let at = line + if line >= self.jump_from { self.jump } else { 0 };
            for u in 0..U {
                for first in self.first {
                    s.prefetch(first.wrapping_add(at + u).cast());
                }
            }
            return;
        }
        for line in line..line + U {
            if line & ((1 << self.shift) - 1) == 0 {
                for first in self.first {
                    s.prefetch(first.wrapping_add(line >> self.shift).cast());
                }
            }
        }
    }
}

/// `$count` rows, at most eight, by `$p` panels: the lines of a step are `$u1` for one row, `$u2` for two or three, ...
macro_rules! tile {
    ($s:expr, $task:expr, $at:expr, $ahead:expr, $count:expr, $p:literal, [$u1:literal, $u2:literal, $u4:literal, $u8:literal]) => {
        match $count {
            1 => $task.multiply::<1, $p, $u1>($s, $at, $ahead),
            2 => $task.multiply::<2, $p, $u2>($s, $at, $ahead),
            3 => $task.multiply::<3, $p, $u2>($s, $at, $ahead),
            4 => $task.multiply::<4, $p, $u4>($s, $at, $ahead),
            5 => $task.multiply::<5, $p, $u8>($s, $at, $ahead),
            6 => $task.multiply::<6, $p, $u8>($s, $at, $ahead),
            7 => $task.multiply::<7, $p, $u8>($s, $at, $ahead),
            _ => $task.multiply::<8, $p, $u8>($s, $at, $ahead),
        }
    };
}

/// The whole task.
#[inline(always)]
pub(super) fn multiply<S: Simd, T: FewRows<S>>(s: S, task: &T) {
    let (rows, mut panels) = (task.rows(), task.panels());
    if const { S::REGISTERS < 32 } {
        return few_registers(s, task);
    }
    let one_block = rows.len() <= GEMV_ROWS;
    let pairs = if one_block { task.reads() == Reads::TwoPanels } else { T::PAIRS };
    while pairs && panels.len() >= 2 {
        let panel = panels.start;
        panels.start += 2;
        for RowBlock { row, count, at, of } in RowBlocks::new(rows.clone()) {
            let ahead = match one_block {
                true => Ahead::near(task, panel, TWO_AHEAD),
                false => Ahead::part(task, panel + 2, at, of),
            };
            // More lines in one step keep more reads of memory in flight.
            tile!(s, task, TileAt { row, panel }, ahead, count, 2, [8, 2, 1, 1]);
        }
    }
    for panel in panels {
        for RowBlock { row, count, at, of } in RowBlocks::new(rows.clone()) {
            let ahead = match one_block {
                true => Ahead::near(task, panel, ONE_AHEAD),
                false => Ahead::part(task, panel + 1, at, of),
            };
            tile!(s, task, TileAt { row, panel }, ahead, count, 1, [8, 4, 2, 2]);
        }
    }
}

/// Rows that are multiplied together.
struct RowBlock {
    row: usize,
    count: usize,
    /// Its number, among `of`.
    at: usize,
    of: usize,
}

/// Rows in blocks of nearly equal size.
struct RowBlocks {
    rows: Range<usize>,
    at: usize,
    of: usize,
}

impl RowBlocks {
    #[inline(always)]
    fn new(rows: Range<usize>) -> Self {
        RowBlocks { of: rows.len().div_ceil(GEMV_ROWS), at: 0, rows }
    }
}

impl Iterator for RowBlocks {
    type Item = RowBlock;
    #[inline(always)]
    fn next(&mut self) -> Option<RowBlock> {
        let RowBlocks { ref mut rows, ref mut at, of } = *self;
        let (row, block) = (rows.start, *at);
        let left = of.checked_sub(block).filter(|left| *left > 0)?;
        let count = rows.len().div_ceil(left);
        rows.start += count;
        *at += 1;
        Some(RowBlock { row, count, at: block, of })
    }
}

/// One panel by up to four rows; the second time, the panel comes from a cache.
#[inline(always)]
fn few_registers<S: Simd>(s: S, task: &impl FewRows<S>) {
    for panel in task.panels() {
        let ahead = Ahead::near(task, panel, TWO_AHEAD);
        let mut rows = task.rows();
        while !rows.is_empty() {
            let at = TileAt { row: rows.start, panel };
            rows.start += match rows.len() {
                1 => {
                    task.multiply::<1, 1, 4>(s, at, ahead);
                    1
                }
                2 | 3 => {
                    task.multiply::<2, 1, 2>(s, at, ahead);
                    2
                }
                _ => {
                    task.multiply::<4, 1, 1>(s, at, ahead);
                    4
                }
            };
        }
    }
}
