//! Panels of stored codes of six bits: layout.
//!
//! ```text
//! K16N16  16 k x 16 columns = 192 bytes    k padded to 16
//! ```
//! A k-block is three lines: two of int4 panels (`int4.rs`), with the low four bits of k 0 to 7 and 8 to 15, and one with the
//! upper two bits: byte `4 * column + i` has, from its lowest bits on, those of k `i`, `4 + i`, `8 + i` and `12 + i`.
//! A code is 0..=63; 32 is subtracted where four bits would have 8 subtracted. Groups are multiples of 16.

use super::Result;
use super::group_scales::GroupScales;
use super::int4;
use super::simd::LANES;
use crate::error::Error;

/// k of a k-block.
pub(super) const BLOCK: usize = 16;
/// Lines of a k-block.
pub(super) const LINES: usize = 3;

/// What is subtracted from a code before it is multiplied.
pub(super) const fn zero(scales: GroupScales) -> i8 {
    4 * scales.zero()
}

/// Checks the codes of a stored row.
///
/// # Errors
/// `InvalidWeights` for codes that six bits do not hold.
pub(super) fn check_codes(row: usize, codes: &[i8]) -> Result<()> {
    match codes.iter().find(|code| !(0..64).contains(*code)) {
        None => Ok(()),
        Some(code) => {
            let message = format!("row {row}: expected int6 codes in 0..=63, found {code}");
            Err(Error::invalid_row(row, message))
        }
    }
}

/// 16 rows of codes, each whole k-blocks, to a panel.
pub(super) fn interleave(rows: &[i8], panel: &mut [u8]) {
    let blocks = rows.len() / LANES / BLOCK;
    for (at, block) in panel.as_chunks_mut::<{ LINES * 4 * LANES }>().0.iter_mut().enumerate() {
        let mut low = [0; BLOCK * LANES];
        let (lines, upper) = block.split_at_mut(2 * 4 * LANES);
        for column in 0..LANES {
            let codes = &rows[(column * blocks + at) * BLOCK..][..BLOCK];
            for (low, code) in low[column * BLOCK..].iter_mut().zip(codes) {
                *low = code & 15;
            }
            for i in 0..4 {
                let bits = |quarter: usize| ((codes[4 * quarter + i] as u8) >> 4) << (2 * quarter);
                upper[4 * column + i] = bits(0) | bits(1) | bits(2) | bits(3);
            }
        }
        int4::interleave(&low, lines);
    }
}

/// Code `i` of a column of a k-block.
pub(super) fn code(block: &[[u8; 4 * LANES]], column: usize, i: usize) -> i8 {
    let (at, quarter) = (4 * column + i % 4, i / 4);
    let low = block[quarter / 2][at] >> (quarter % 2 * 4) & 15;
    (low | (block[2][at] >> (2 * quarter) & 3) << 4) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_three_lines() {
        let code = |column: usize, k: usize| ((7 * column + 5 * k) % 64) as i8;
        // Two blocks.
        let rows: Vec<i8> = (0..LANES).flat_map(|column| (0..32).map(move |k| code(column, k))).collect();
        let mut panel = vec![0xff; 2 * LINES * 4 * LANES];
        interleave(&rows, &mut panel);
        let lines = panel.as_chunks().0;
        for (column, k) in (0..LANES).flat_map(|column| (0..32).map(move |k| (column, k))) {
            let block = &lines[k / BLOCK * LINES..][..LINES];
            assert_eq!(super::code(block, column, k % BLOCK), code(column, k), "column {column} k {k}");
        }
        let at = 4 * 9 + 2;
        assert_eq!([2, 6, 10, 14].map(|k| code(9, k)), [9, 29, 49, 5]);
        assert_eq!([lines[0][at], lines[1][at], lines[2][at]], [0xd9, 0x51, 0b00_11_01_00]);
    }
}
