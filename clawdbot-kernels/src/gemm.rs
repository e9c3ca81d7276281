//! Matrix products `out[m, n] = lhs[m, k] * rhs[n, k]^T`: checks, and the kernel of each format.
//!
//! Two kernels per format. *GEMV* is for few rows, where the time is that of reading the weights: it streams panel
//! after panel. *GEMM* is for many: it multiplies a slice of some panels, all 16 x panels columns by a stretch of k, which
//! stays in the first-level cache, with row tile after row tile.

use std::ops::Range;

use super::bf16_dot::{Bf16Args, RoundedRows};
use super::format::Coding;
use super::gemm_float::FloatArgs;
use super::gemm_int8::Int8Args;
use super::gemm_narrow::{NarrowArgs, NarrowPanels, Width};
use super::group_scales::GroupScales;
use super::panels::Panels;
use super::quantize::{ActivationFormat, Int8Rows, QuantizedRows, groups};
use super::simd::LANES;
use super::split::{Split, TaskPart};
use super::target::{Epilogue, Target};
use super::{KernelSet, PackedMatrix};
use crate::memory::SharedMut;
use crate::threads::Region;

/// The left-hand side of [`gemm`].
#[derive(Clone, Copy)]
pub enum Lhs<'a> {
    /// `[m, k]`, for bf16 and f32 weights.
    F32(&'a [f32]),
    /// For bf16 weights, where [`KernelSet::rounds`] says so.
    Bf16(&'a RoundedRows),
    /// For weights of codes in the same group, both rotated or neither.
    Int8(&'a QuantizedRows),
}

/// `out = lhs * rhs^T`, then the epilogue. `out` is `[m, n]`, of gated products `[m, rows of gate and up]`. Every element
/// has the same bits whatever m, the number of threads and the ISA (bf16: among the sets without `bf16_dot`).
///
/// # Panics
/// When a shape does not fit, or the left-hand side is not of the kind that the format of `rhs` wants.
pub fn gemm(
    kernels: &KernelSet,
    region: &Region<'_>,
    lhs: Lhs<'_>,
    m: usize,
    rhs: &PackedMatrix,
    out: &mut [f32],
    epilogue: Epilogue<'_>,
) {
    let columns = if epilogue.gate.is_some() && m > 0 { out.len() / m } else { rhs.n() };
    let out = OutColumns { out, columns: 0..columns, stride: columns };
    gemm_columns(kernels, region, lhs, m, rhs, out, epilogue);
}

/// Where a product goes: some columns of rows that may have more.
pub struct OutColumns<'a> {
    /// `[m, stride]`
    pub out: &'a mut [f32],
    /// The columns of the product.
    pub columns: Range<usize>,
    /// Elements from row to row.
    pub stride: usize,
}

/// As [`gemm`], to some columns of the rows of `out`.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_columns(
    kernels: &KernelSet,
    region: &Region<'_>,
    lhs: Lhs<'_>,
    m: usize,
    rhs: &PackedMatrix,
    out: OutColumns<'_>,
    epilogue: Epilogue<'_>,
) {
    let OutColumns { out, columns, stride } = out;
    let (n, k) = (rhs.n(), rhs.k());
    if epilogue.gate.is_some() {
        let fits = PackedMatrix::gated_columns(columns.len()) == Some(n) && !epilogue.residual;
        assert!(fits, "{} of {n} gated columns", columns.len());
    } else {
        assert_eq!(columns.len(), n, "columns of the product");
    }
    assert!(
        columns.end <= stride && m.checked_mul(stride) == Some(out.len()),
        "out: columns {columns:?} of [{m}, {stride}]"
    );
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == n), "bias: [{n}]");
    assert!(epilogue.added.is_none_or(|added| added.fits(m, n)), "added: [{m}, {n}]");
    let out = SharedMut::new(out);
    let (n, first) = (columns.len(), columns.start);
    let target = Target { out: &out, n, origin_row: 0, origin_column: 0, first, stride, epilogue, kernels };
    let panels = rhs.n().div_ceil(LANES);
    // The panels of a gate and its up belong to one task.
    let unit = if epilogue.gate.is_some() { 2 } else { 1 };
    let split = Split::new(kernels, region.threads(), m, rhs, unit);
    let many = split.many;
    match (&rhs.panels, lhs) {
        (Panels::Int8(_) | Panels::Int6(_) | Panels::Int4(_), Lhs::Int8(rows)) => {
            let operands = Operands::new(rows, m, rhs).expect("panels of codes");
            region.parallel(split.tasks(), |task| {
                let args = operands.args(split.task(task), target);
                match (many, args.narrow) {
                    (true, _) => kernels.int8_gemm.call(args),
                    (false, None) => kernels.int8_gemv.call(args),
                    (false, Some(rhs)) => {
                        let Int8Args { lhs, k_blocks, group, rows, panels, target, .. } = args;
                        let args = NarrowArgs { lhs, rhs, k_blocks, group, rows, panels, target };
                        kernels.narrow_gemv.call(args);
                    }
                }
            });
        }
        (Panels::Bf16(data), Lhs::Bf16(rows)) => {
            let dot = kernels.bf16_dot.as_ref().expect("rows are rounded for kernels that want them so");
            let (lhs, k_blocks) = (rows.rows(m, k), k.div_ceil(2));
            let data = data.as_chunks().0;
            assert!(data.len() == panels * k_blocks);
            region.parallel(split.tasks(), |task| {
                let TaskPart { rows, panels } = split.task(task);
                (dot.product)(Bf16Args { lhs, data, k_blocks, rows, panels, target });
            });
        }
        (Panels::Bf16(data), Lhs::F32(x)) => {
            assert!(kernels.bf16_dot.is_none(), "kernels {} multiply rounded rows", kernels.name);
            assert!(m.checked_mul(k) == Some(x.len()), "left-hand side: [{m}, {k}]");
            assert!(data.len() == panels * LANES * k.next_multiple_of(2));
            let slot = if many { &kernels.bf16_gemm } else { &kernels.bf16_gemv };
            region.parallel(split.tasks(), |task| {
                let TaskPart { rows, panels } = split.task(task);
                slot.call(FloatArgs { x, data, k, rows, panels, target });
            });
        }
        (Panels::F32(data), Lhs::F32(x)) => {
            assert!(m.checked_mul(k) == Some(x.len()), "left-hand side: [{m}, {k}]");
            assert!(data.len() == panels * LANES * k);
            let slot = if many { &kernels.f32_gemm } else { &kernels.f32_gemv };
            region.parallel(split.tasks(), |task| {
                let TaskPart { rows, panels } = split.task(task);
                slot.call(FloatArgs { x, data, k, rows, panels, target });
            });
        }
        (_, lhs) => {
            let kind = match lhs {
                Lhs::F32(_) => "f32",
                Lhs::Bf16(_) => "bf16",
                Lhs::Int8(_) => "int8",
            };
            panic!("a matrix of {:?} cannot be multiplied by rows of {kind}", rhs.format());
        }
    }
}

/// Both sides of a product of quantized rows.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    lhs: Int8Rows<'a>,
    codes: &'a [[i8; 4 * LANES]],
    scales: &'a [[u16; LANES]],
    kind: GroupScales,
    narrow: Option<NarrowPanels<'a>>,
    k_blocks: usize,
    group: usize,
}

impl<'a> Operands<'a> {
    /// None where `rhs` has no codes.
    ///
    /// # Panics
    /// When the rows are not `m` rows of what `rhs` wants.
    pub(super) fn new(rows: &'a QuantizedRows, m: usize, rhs: &'a PackedMatrix) -> Option<Self> {
        let (panels, k) = (rhs.n().div_ceil(LANES), rhs.k());
        match &rhs.panels {
            Panels::Int8(rhs) => {
                let Coding { group, scales: kind, rotated } = rhs.coding;
                let (k_blocks, lines) = (k.div_ceil(4), kind.lines(groups(k, group)));
                let lhs = rows.rows(m, k, ActivationFormat { group, rotated });
                let (codes, scales) = (rhs.blocks(), rhs.scale_lines());
                assert!(codes.len() == panels * k_blocks && scales.len() == panels * lines);
                Some(Operands { lhs, codes, scales, kind, narrow: None, k_blocks, group })
            }
            Panels::Int4(codes) | Panels::Int6(codes) => {
                let width = if matches!(rhs.panels, Panels::Int4(_)) { Width::Four } else { Width::Six };
                let Coding { group, scales: kind, rotated } = codes.coding;
                let k_blocks = k.div_ceil(4).next_multiple_of(width.k_blocks());
                let scale_lines = kind.lines(groups(k, group));
                let lhs = rows.rows(m, k, ActivationFormat { group, rotated });
                let rhs = NarrowPanels { codes: codes.blocks(), scales: codes.scale_lines(), kind, width };
                assert!(
                    rhs.codes.len() == panels * width.lines(k_blocks)
                        && rhs.scales.len() == panels * scale_lines
                );
                let (codes, scales) = (&[][..], &[][..]);
                Some(Operands { lhs, codes, scales, kind, narrow: Some(rhs), k_blocks, group })
            }
            _ => None,
        }
    }

    /// Arguments of the kernel of many rows. For the invariant of [`Int8Args`], tasks that run at the same time must not have
    /// a row and a panel in common.
    pub(super) fn args(&self, part: TaskPart, target: Target<'a>) -> Int8Args<'a> {
        let TaskPart { rows, panels } = part;
        let Operands { lhs, codes, scales, kind, narrow, k_blocks, group } = *self;
        Int8Args { lhs, codes, scales, kind, narrow, k_blocks, group, rows, panels, target }
    }
}
