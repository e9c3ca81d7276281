//! [`PackedMatrix`]: weights in the panel layout that every ISA's kernels read.
//!
//! A matrix of `n` rows (output columns) of `k` weights becomes panels of 16 output columns; n is padded to 16 with
//! zeros. Inside a panel, k-blocks follow one another, and each holds consecutive k of all 16 columns, column after column:
//!
//! ```text
//! int8  K4N16   4 k x 16 columns = 64 bytes    k padded to 4; scales [panel][group][16] bf16 next to it
//! int4  K8N16   8 k x 16 columns = 64 bytes    k padded to 8; scales [panel][line][16] next to it, see `group_scales.rs`
//! int6  K16N16  16 k x 16 columns = 192 bytes  k padded to 16; scales as for int4; see `int6.rs`
//! bf16  K2N16   2 k x 16 columns = 64 bytes    k padded to 2
//! f32   K1N16   1 k x 16 columns = 64 bytes
//! ```
//!
//! int8 groups are runs of `group` weights along k (a multiple of 4; the last may be shorter). A group's scale is
//! `amax / 127` rounded up to bf16, a code is `w / scale` rounded half to even, in -127..=127. Groups whose scale would be
//! subnormal are zeros.

use super::codes::{self, Int4Codes, Int6Codes, Int8Codes};
use super::format::{Coding, ComputeFormat, Sizes};
use super::group_scales::GroupScales;
use super::packing::{PanelOrder, RowSource, Rows};
use super::panels::{CodePanels, PackedMatrix, Panels};
use super::simd::LANES;
use super::{KernelSet, Result};
use crate::error::Error;
use crate::threads::Region;

impl PackedMatrix {
    /// Bytes that a packed `[n, k]` takes.
    ///
    /// # Errors
    /// `OutOfMemory` when the number overflows, `InvalidArgument` for an impossible group.
    pub fn packed_bytes(format: ComputeFormat, n: usize, k: usize) -> Result<u64> {
        let Sizes { data, scales } = Sizes::of(format, n, k)?;
        let element = match format {
            ComputeFormat::Int8 { .. }
            | ComputeFormat::Stored8 { .. }
            | ComputeFormat::Stored6 { .. }
            | ComputeFormat::Int4 { .. } => 1,
            ComputeFormat::Bf16 => 2,
            ComputeFormat::F32 => 4,
        };
        Ok(data as u64 * element + scales as u64 * 2)
    }

    /// Output columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Weights per output column.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The format; of joined matrices, that of the first.
    pub fn format(&self) -> ComputeFormat {
        match self.panels {
            Panels::Int8(CodePanels { coding: Coding { group, scales, rotated }, .. }) => match scales {
                GroupScales::Bf16 => ComputeFormat::Int8 { group, rotated },
                _ => ComputeFormat::Stored8 { group, scales },
            },
            Panels::Int4(CodePanels { coding: Coding { group, scales, rotated }, .. }) => {
                ComputeFormat::Int4 { group, scales, rotated }
            }
            Panels::Int6(CodePanels { coding: Coding { group, scales, .. }, .. }) => {
                ComputeFormat::Stored6 { group, scales }
            }
            Panels::Bf16(_) => ComputeFormat::Bf16,
            Panels::F32(_) => ComputeFormat::F32,
            Panels::Joined(ref parts) => parts[0].format(),
        }
    }

    /// Matrices of the same k, one after the other, each in its format.
    ///
    /// # Panics
    /// When there is none, or they differ in k.
    pub fn joined(mut parts: Vec<PackedMatrix>) -> Self {
        let (n, k) = (parts.iter().map(|part| part.n).sum(), parts[0].k);
        assert!(parts.iter().all(|part| part.k == k), "joined matrices have the same k");
        match parts.len() {
            1 => parts.remove(0),
            _ => PackedMatrix { n, k, panels: Panels::Joined(parts) },
        }
    }

    /// The matrices that were joined, or this one.
    pub fn segments(&self) -> &[PackedMatrix] {
        match &self.panels {
            Panels::Joined(parts) => parts,
            _ => std::slice::from_ref(self),
        }
    }

    /// Columns of the panels of a gate and an up projection of `rows` rows each, packed by [`pack_gated`](Self::pack_gated);
    /// `None` on overflow.
    pub fn gated_columns(rows: usize) -> Option<usize> {
        rows.checked_next_multiple_of(LANES)?.checked_mul(2)
    }

    /// Packs the rows of all `sources`, one after another, in parallel over panels.
    ///
    /// # Errors
    /// `InvalidWeights` when the sources differ in k or (int8) a weight is not finite, `InvalidArgument` for an impossible
    /// group, `OutOfMemory` without memory.
    pub fn pack(
        kernels: &KernelSet,
        region: &Region<'_>,
        format: ComputeFormat,
        sources: &[&dyn RowSource],
    ) -> Result<Self> {
        let n = sources.iter().try_fold(0_usize, |n, source| n.checked_add(source.rows()));
        Self::pack_rows(kernels, region, format, sources, n, PanelOrder::Sources)
    }

    /// Packs a gate and an up projection for a product with [`Epilogue::gate`](super::Epilogue::gate): panels of 16 columns
    /// of the one and of the other in turn, the last of both padded with zeros. `n` is
    /// [`gated_columns`](Self::gated_columns).
    ///
    /// # Errors
    /// As [`pack`](Self::pack), and `InvalidWeights` when they differ in rows.
    pub fn pack_gated(
        kernels: &KernelSet,
        region: &Region<'_>,
        format: ComputeFormat,
        [gate, up]: [&dyn RowSource; 2],
    ) -> Result<Self> {
        if gate.rows() != up.rows() {
            return Err(Error::invalid_weights(format!(
                "gate and up projections must have equally many rows: found {} and {}",
                gate.rows(),
                up.rows()
            )));
        }
        let n = Self::gated_columns(gate.rows());
        Self::pack_rows(kernels, region, format, &[gate, up], n, PanelOrder::Gated)
    }

    fn pack_rows(
        kernels: &KernelSet,
        region: &Region<'_>,
        format: ComputeFormat,
        sources: &[&dyn RowSource],
        n: Option<usize>,
        order: PanelOrder,
    ) -> Result<Self> {
        let k = sources.first().map_or(0, |source| source.cols());
        if let Some(other) = sources.iter().find(|source| source.cols() != k) {
            return Err(Error::invalid_weights(format!(
                "matrices packed together must have rows of one length: expected {k}, found {}",
                other.cols()
            )));
        }
        let n = n.ok_or_else(|| Error::out_of_memory("the number of rows overflows"))?;
        let sizes = Sizes::of(format, n, k)?;
        let rows = Rows { sources, n, k, order };
        let panels = match format {
            ComputeFormat::Int8 { .. } | ComputeFormat::Stored8 { .. } => {
                rows.pack_codes::<Int8Codes>(kernels, region, format, &sizes)?
            }
            ComputeFormat::Stored6 { .. } => rows.pack_codes::<Int6Codes>(kernels, region, format, &sizes)?,
            ComputeFormat::Int4 { .. } => rows.pack_codes::<Int4Codes>(kernels, region, format, &sizes)?,
            ComputeFormat::Bf16 => {
                let mut data = region.zeroed(sizes.data)?;
                rows.pack_float::<u16, 2>(region, &mut data, |row, out| kernels.to_bf16(row, out))?;
                Panels::Bf16(data.into())
            }
            ComputeFormat::F32 => {
                let mut data = region.zeroed(sizes.data)?;
                rows.pack_float::<f32, 1>(region, &mut data, |row, out| out.copy_from_slice(row))?;
                Panels::F32(data.into())
            }
        };
        Ok(PackedMatrix { n, k, panels })
    }

    /// Writes row `row` (an output column) to `out`, `[k]`, dequantized.
    ///
    /// # Panics
    /// When `row` is not below n or `out` is not k long.
    pub fn read_row(&self, kernels: &KernelSet, row: usize, out: &mut [f32]) {
        assert!(
            row < self.n && out.len() == self.k,
            "row {row} of {}, {} of {} weights",
            self.n,
            out.len(),
            self.k
        );
        let (panel, column) = (row / LANES, row % LANES);
        match &self.panels {
            Panels::Int8(panels) => {
                codes::read_row::<Int8Codes>(panels, row, out);
                if panels.coding.rotated {
                    kernels.hadamard(out);
                }
            }
            Panels::Int6(panels) => codes::read_row::<Int6Codes>(panels, row, out),
            Panels::Int4(panels) => {
                codes::read_row::<Int4Codes>(panels, row, out);
                if panels.coding.rotated {
                    kernels.hadamard(out);
                }
            }
            Panels::Bf16(data) => {
                let blocks = &data.as_chunks::<32>().0[panel * self.k.div_ceil(2)..];
                for (out, block) in out.chunks_mut(2).zip(blocks) {
                    for (out, &weight) in out.iter_mut().zip(&block[2 * column..]) {
                        *out = widen(weight);
                    }
                }
            }
            Panels::Joined(parts) => {
                let mut row = row;
                for part in parts {
                    if row < part.n {
                        return part.read_row(kernels, row, out);
                    }
                    row -= part.n;
                }
            }
            Panels::F32(data) => {
                let blocks = &data.as_chunks::<LANES>().0[panel * self.k..];
                for (out, block) in out.iter_mut().zip(blocks) {
                    *out = block[column];
                }
            }
        }
    }
}

fn widen(bf16: u16) -> f32 {
    f32::from_bits(u32::from(bf16) << 16)
}
