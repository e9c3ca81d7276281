//! Panels of weights in memory: see `matrix.rs`.

use super::format::Coding;
use super::simd::LANES;
use crate::memory::{Panel, Pod};

/// Codes and their scales, in panels.
pub(super) struct CodePanels<T: Pod> {
    /// `[panel][k-block][64]`
    pub(super) codes: Panel<T>,
    /// `[panel][line of scales][16]`
    pub(super) scales: Panel<u16>,
    pub(super) coding: Coding,
}

impl<T: Pod> CodePanels<T> {
    /// All k-blocks, 64 bytes each.
    pub(super) fn blocks(&self) -> &[[T; 4 * LANES]] {
        const { assert!(size_of::<T>() == 1) };
        self.codes.as_chunks().0
    }

    /// All lines of scales.
    pub(super) fn scale_lines(&self) -> &[[u16; LANES]] {
        self.scales.as_chunks().0
    }
}

/// Panels of one format.
pub(super) enum Panels {
    Int8(CodePanels<i8>),
    Int4(CodePanels<u8>),
    Int6(CodePanels<u8>),
    Bf16(Panel<u16>),
    F32(Panel<f32>),
    /// Matrices of the same k in formats of their own, one after the other.
    Joined(Vec<PackedMatrix>),
}

/// Weights `[n, k]` in panels.
pub struct PackedMatrix {
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) panels: Panels,
}

/// 16 rows, one after another, to k-blocks of `KB` consecutive elements of each row.
pub(super) fn interleave<T: Pod, const KB: usize>(rows: &[T], panel: &mut [T]) {
    let blocks = rows.len() / LANES / KB;
    let (rows, panel) = (rows.as_chunks::<KB>().0, panel.as_chunks_mut::<KB>().0);
    // Strips of k short enough for the panel's lines to stay in the first-level cache while all rows are written to them.
    const STRIP: usize = 128;
    for strip in (0..blocks).step_by(STRIP) {
        for column in 0..LANES {
            let row = &rows[column * blocks..][..blocks];
            for block in strip..(strip + STRIP).min(blocks) {
                panel[block * LANES + column] = row[block];
            }
        }
    }
}
