//! Every slot x every available ISA x ragged shapes against the scalar set, bit for bit; and the scalar set against
//! naive models that share no code with it.

mod bf16;
mod gated;
mod gemm;
mod int4;
mod packing;
mod vector;

use super::*;
use crate::threads::{Region, ThreadPool};

/// Reproducible numbers in -1..1.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

pub(super) struct Dense {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl RowSource for Dense {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.cols..][..self.cols]);
    }
}

pub(super) fn dense(rows: usize, cols: usize, data: Vec<f32>) -> Dense {
    assert_eq!(data.len(), rows * cols);
    Dense { rows, cols, data }
}

pub(super) fn in_region<R>(threads: usize, f: impl FnOnce(&Region<'_>) -> R) -> R {
    ThreadPool::new(threads).region(f).unwrap()
}

/// All sets, as they are. For more rows than every set takes with GEMV, also with GEMMs for fewer, and with GEMV for all rows.
pub(super) fn sets(m: usize) -> Vec<KernelSet> {
    let mut sets = Vec::new();
    for set in available() {
        let rows = |rows| GemvRows { int8: rows, int4: rows };
        sets.push(*set);
        if m > 8 {
            sets.push(KernelSet { gemv_rows: rows(usize::MAX), ..*set });
        }
        if m > 8 && set.gemv_rows.int8 > 8 {
            sets.push(KernelSet { gemv_rows: rows(8), ..*set });
        }
    }
    sets
}

pub(super) fn bits(x: &[f32]) -> Vec<u32> {
    // Which NaN is not specified.
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}
