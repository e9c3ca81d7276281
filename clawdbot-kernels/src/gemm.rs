//! Matrix products `out[m, n] = lhs[m, k] * rhs[n, k]^T`: checks, and the split into tasks.
//!
//! Two kernels per format. *GEMV* is for few rows, where the time is that of reading the weights: it streams panel
//! after panel. *GEMM* is for many: it copies a slice of some panels, all 16 x panels columns by a stretch of k, into the
//! first-level cache and multiplies it with row tile after row tile.

use std::ops::Range;

use super::bf16_dot::{Bf16Args, RoundedRows};
use super::codes::Coding;
use super::gemm_float::FloatArgs;
use super::gemm_int4::{Int4Args, Int4Panels};
use super::gemm_int8::{Int8Args, SLICE_BLOCKS};
use super::int4::GroupScales;
use super::matrix::Panels;
use super::quantize::{Int8Rows, QuantizedRows, groups};
use super::simd::LANES;
use super::{Activation, Kernel, KernelSet, PackedMatrix, Simd};
use crate::memory::SharedMut;
use crate::threads::Region;

/// Rows up to which the GEMV kernels are used, and rows of their largest tile.
pub(super) const GEMV_ROWS: usize = 8;
/// Rows whose sums a GEMM kernel keeps at a time: 24 KiB for three panels.
pub(super) const CHUNK_ROWS: usize = 128;
/// Bytes of the left-hand side that one task after another of a thread reads: they should stay in the second-level cache.
const CACHED_ROWS_BYTES: usize = 3 << 19;
/// Bytes of weights that a GEMV task reads at least.
const GEMV_TASK_BYTES: usize = 32 << 10;
/// Tasks per thread to aim at, so that threads of unequal speed end together.
const TASKS_PER_THREAD: usize = 16;

/// The left-hand side of [`gemm`].
#[derive(Clone, Copy)]
pub enum Lhs<'a> {
    /// `[m, k]`, for bf16 and f32 weights.
    F32(&'a [f32]),
    /// For bf16 weights, where [`KernelSet::rounds`] says so.
    Bf16(&'a RoundedRows),
    /// For int8 and int4 weights of the same group, both rotated or neither.
    Int8(&'a QuantizedRows),
}

/// Further terms of the sums: rows with a stride of their own.
#[derive(Clone, Copy)]
pub struct Added<'a> {
    /// `[m, stride]`
    pub values: &'a [f32],
    /// Elements from row to row.
    pub stride: usize,
    /// The column that belongs to the first column of the product (of gated products, to the first of their panels).
    pub first: usize,
}

impl Added<'_> {
    /// Whether there are numbers for all sums of a product `[m, n]`.
    pub(super) fn fits(&self, m: usize, n: usize) -> bool {
        self.first.checked_add(n).is_some_and(|end| end <= self.stride)
            && m.checked_mul(self.stride) == Some(self.values.len())
    }
}

/// What is added to finished sums, or applied to them.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[n]`, added first.
    pub bias: Option<&'a [f32]>,
    /// Added second.
    pub added: Option<Added<'a>>,
    /// Whether the previous contents of `out` are added last.
    pub residual: bool,
    /// For a matrix of [`PackedMatrix::pack_gated`]: `out` is `activation(gate) * up` of the sums, after bias and terms, without a
    /// residual.
    pub gate: Option<Activation>,
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
    gemm_columns(kernels, region, lhs, m, rhs, (out, 0..columns, columns), epilogue);
}

/// As [`gemm`], to columns `columns` of `out`, which is `[m, stride]`.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_columns(
    kernels: &KernelSet,
    region: &Region<'_>,
    lhs: Lhs<'_>,
    m: usize,
    rhs: &PackedMatrix,
    (out, columns, stride): (&mut [f32], Range<usize>, usize),
    epilogue: Epilogue<'_>,
) {
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
    let target = Target { out: &out, n, origin: (0, 0), first, stride, epilogue, kernels };
    let panels = rhs.n().div_ceil(LANES);
    // The panels of a gate and its up belong to one task.
    let unit = if epilogue.gate.is_some() { 2 } else { 1 };
    let many = m > GEMV_ROWS;
    match (&rhs.panels, lhs) {
        (Panels::Int8(_) | Panels::Int4(_), Lhs::Int8(rows)) => {
            let operands = Operands::new(rows, m, rhs).expect("int8 or int4 panels");
            // A group longer than a slice takes the slow way.
            let many = many && operands.group <= 4 * SLICE_BLOCKS;
            let tile_panels = many.then_some(kernels.tile_panels.int8);
            let split = Split::new(
                region,
                m,
                (panels, unit),
                operands.panel_bytes(),
                tile_panels,
                operands.lhs.stride,
            );
            region.parallel(split.tasks(), |task| {
                let args = operands.args(split.task(task), target);
                match (many, args.int4) {
                    (true, _) => kernels.int8_gemm.call(args),
                    (false, None) => kernels.int8_gemv.call(args),
                    (false, Some(rhs)) => {
                        let Int8Args { lhs, k_blocks, group, rows, panels, target, .. } = args;
                        let lines = k_blocks / 2;
                        kernels.int4_gemv.call(Int4Args { lhs, rhs, lines, group, rows, panels, target });
                    }
                }
            });
        }
        (Panels::Bf16(data), Lhs::Bf16(rows)) => {
            let dot = kernels.bf16_dot.as_ref().expect("rows are rounded for kernels that want them so");
            let (lhs, k_blocks) = (rows.rows(m, k), k.div_ceil(2));
            let data = data.as_chunks().0;
            assert!(data.len() == panels * k_blocks);
            let split = Split::new(
                region,
                m,
                (panels, unit),
                k_blocks * 64,
                many.then_some(dot.tile_panels),
                2 * lhs.stride,
            );
            region.parallel(split.tasks(), |task| {
                let (rows, panels) = split.task(task);
                (dot.product)(Bf16Args { lhs, data, k_blocks, rows, panels, target });
            });
        }
        (Panels::Bf16(data), Lhs::F32(x)) => {
            assert!(kernels.bf16_dot.is_none(), "kernels {} multiply rounded rows", kernels.name);
            assert!(m.checked_mul(k) == Some(x.len()), "left-hand side: [{m}, {k}]");
            assert!(data.len() == panels * LANES * k.next_multiple_of(2));
            let slot = if many { &kernels.bf16_gemm } else { &kernels.bf16_gemv };
            let split = Split::new(
                region,
                m,
                (panels, unit),
                k * 32,
                many.then_some(kernels.tile_panels.float),
                4 * k,
            );
            region.parallel(split.tasks(), |task| {
                let (rows, panels) = split.task(task);
                slot.call(FloatArgs { x, data, k, rows, panels, target });
            });
        }
        (Panels::F32(data), Lhs::F32(x)) => {
            assert!(m.checked_mul(k) == Some(x.len()), "left-hand side: [{m}, {k}]");
            assert!(data.len() == panels * LANES * k);
            let slot = if many { &kernels.f32_gemm } else { &kernels.f32_gemv };
            let split = Split::new(
                region,
                m,
                (panels, unit),
                k * 64,
                many.then_some(kernels.tile_panels.float),
                4 * k,
            );
            region.parallel(split.tasks(), |task| {
                let (rows, panels) = split.task(task);
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
    int4: Option<Int4Panels<'a>>,
    k_blocks: usize,
    group: usize,
}

impl<'a> Operands<'a> {
    /// None where `rhs` is neither int8 nor int4.
    ///
    /// # Panics
    /// When the rows are not `m` rows of what `rhs` wants.
    pub(super) fn new(rows: &'a QuantizedRows, m: usize, rhs: &'a PackedMatrix) -> Option<Self> {
        let (panels, k) = (rhs.n().div_ceil(LANES), rhs.k());
        match &rhs.panels {
            Panels::Int8(rhs) => {
                let Coding { group, scales: kind, rotated } = rhs.coding;
                let (k_blocks, lines) = (k.div_ceil(4), kind.lines(groups(k, group)));
                let lhs = rows.rows(m, k, group, rotated);
                let (codes, scales) = (rhs.blocks(), rhs.scale_lines());
                assert!(codes.len() == panels * k_blocks && scales.len() == panels * lines);
                Some(Operands { lhs, codes, scales, kind, int4: None, k_blocks, group })
            }
            Panels::Int4(rhs) => {
                let Coding { group, scales: kind, rotated } = rhs.coding;
                let (lines, scale_lines) = (k.div_ceil(8), kind.lines(groups(k, group)));
                let lhs = rows.rows(m, k, group, rotated);
                let rhs = Int4Panels { codes: rhs.blocks(), scales: rhs.scale_lines(), kind };
                assert!(rhs.codes.len() == panels * lines && rhs.scales.len() == panels * scale_lines);
                let (codes, scales, k_blocks) = (&[][..], &[][..], 2 * lines);
                Some(Operands { lhs, codes, scales, kind, int4: Some(rhs), k_blocks, group })
            }
            _ => None,
        }
    }

    fn panel_bytes(&self) -> usize {
        if self.int4.is_some() { self.k_blocks / 2 * 64 } else { self.k_blocks * 64 }
    }

    /// Arguments of the kernel of many rows. For the invariant of [`Int8Args`], tasks that run at the same time must not have
    /// a row and a panel in common.
    pub(super) fn args(
        &self,
        (rows, panels): (Range<usize>, Range<usize>),
        target: Target<'a>,
    ) -> Int8Args<'a> {
        let Operands { lhs, codes, scales, kind, int4, k_blocks, group } = *self;
        Int8Args { lhs, codes, scales, kind, int4, k_blocks, group, rows, panels, target }
    }
}

/// The grid of tasks: contiguous panels by contiguous rows. Each row and panel belongs to one task.
struct Split {
    m: usize,
    panels: usize,
    rows_per_task: usize,
    panels_per_task: usize,
}

impl Split {
    /// `unit`: panels that stay together. `tile_panels`: of the GEMM kernel; none for GEMV. `row_bytes`: of the left-hand
    /// side.
    fn new(
        region: &Region<'_>,
        m: usize,
        (panels, unit): (usize, usize),
        panel_bytes: usize,
        tile_panels: Option<usize>,
        row_bytes: usize,
    ) -> Self {
        let wanted = region.threads() * TASKS_PER_THREAD;
        match tile_panels {
            None => {
                let at_least = GEMV_TASK_BYTES.div_ceil(panel_bytes.max(1));
                let panels_per_task = panels.div_ceil(wanted).max(at_least).max(1).next_multiple_of(unit);
                Split { m, panels, rows_per_task: m.max(1), panels_per_task }
            }
            // One column of tiles per task, and all rows, unless that makes too few tasks or rows do not stay in the cache.
            Some(tile_panels) => {
                let tile_panels =
                    if tile_panels.is_multiple_of(unit) { tile_panels } else { tile_panels * unit };
                let parts = wanted.div_ceil(panels.div_ceil(tile_panels).max(1));
                let parts = parts.max((m * row_bytes).div_ceil(CACHED_ROWS_BYTES));
                let parts = parts.clamp(1, m.div_ceil(CHUNK_ROWS / 2));
                Split {
                    m,
                    panels,
                    rows_per_task: m.div_ceil(parts).next_multiple_of(8),
                    panels_per_task: tile_panels,
                }
            }
        }
    }

    fn tasks(&self) -> usize {
        self.m.div_ceil(self.rows_per_task) * self.panels.div_ceil(self.panels_per_task)
    }

    /// Rows and panels of a task. Neighbouring tasks share rows.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let panel_parts = self.panels.div_ceil(self.panels_per_task);
        let row = task / panel_parts * self.rows_per_task;
        let panel = task % panel_parts * self.panels_per_task;
        (row..(row + self.rows_per_task).min(self.m), panel..(panel + self.panels_per_task).min(self.panels))
    }
}

/// Where sums go.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) out: &'a SharedMut<'a, f32>,
    /// Columns of the whole product, after its gate.
    pub(super) n: usize,
    /// Row and column of the product that the first row of `out` and its column `first` are.
    pub(super) origin: (usize, usize),
    /// Column of `out` that the column of `origin` goes to.
    pub(super) first: usize,
    /// Columns of `out`.
    pub(super) stride: usize,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) kernels: &'a KernelSet,
}

impl Target<'_> {
    /// Adds bias and residual, or applies the gate, and writes the sums to `out`: the first `panels` panels of each row of
    /// `sums`. `row` and `panel` are the first ones.
    ///
    /// # Panics
    /// When `out` has no place for them.
    ///
    /// # Safety
    /// No other task may have one of the rows and one of the panels.
    #[inline(always)]
    pub(super) unsafe fn finish<const P: usize>(
        &self,
        (row, panel): (usize, usize),
        panels: usize,
        sums: &[[[f32; LANES]; P]],
    ) {
        self.kernels.finish.call(FinishArgs {
            target: *self,
            row,
            panel,
            panels,
            sums: sums.as_flattened(),
            sums_stride: P,
        });
    }

    /// As [`finish`](Self::finish), with sums in registers.
    ///
    /// # Safety
    /// As [`finish`](Self::finish), for `R` rows from `row` and `P` panels from `panel`.
    #[inline(always)]
    pub(super) unsafe fn finish_tile<S: Simd, const R: usize, const P: usize>(
        &self,
        s: S,
        (row, panel): (usize, usize),
        sums: [[S::F32; P]; R],
    ) {
        let mut stored = [[[0.0; LANES]; P]; R];
        for r in 0..R {
            for p in 0..P {
                s.store(sums[r][p], &mut stored[r][p]);
            }
        }
        // SAFETY: the clause above is that of `finish`, for the same rows and panels.
        unsafe { self.finish((row, panel), P, &stored) };
    }
}

/// The epilogue of all products. A kernel of its own, because otherwise every tile of every format would have a copy of it.
pub(super) struct Finish;

/// Arguments of [`Finish`].
///
/// Invariant, established by [`Target::finish`], which alone makes them: no other task has one of the rows and one of the
/// panels.
pub(super) struct FinishArgs<'a> {
    target: Target<'a>,
    row: usize,
    panel: usize,
    panels: usize,
    /// `[rows][sums_stride]`
    sums: &'a [[f32; LANES]],
    sums_stride: usize,
}

impl Kernel for Finish {
    type Args<'a> = FinishArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: FinishArgs<'_>) {
        let Target { out, n, origin, first, stride, epilogue, .. } = args.target;
        let Epilogue { bias, added, residual, gate } = epilogue;
        for (row, sums) in (args.row..).zip(args.sums.chunks_exact(args.sums_stride)) {
            for (panel, sum) in (args.panel..).zip(&sums[..args.panels]) {
                // Of a gated product, the gate's panel comes before up's.
                let column = if gate.is_some() { panel / 2 } else { panel } * LANES;
                assert!(column < n, "panel {panel} of {n} columns");
                let count = LANES.min(n - column);
                let start = (row - origin.0) * stride + first + column - origin.1;
                // SAFETY: the invariant of `FinishArgs`: no other task has this row and panel, and a gate and its up, which
                // share a place in `out`, belong to one task and come one after the other.
                let out = unsafe { out.slice(start, count) };
                let mut sum = s.load(sum);
                if let Some(bias) = bias {
                    sum = s.add(sum, s.load_partial(&bias[panel * LANES..][..count]));
                }
                if let Some(Added { values, stride, first }) = added {
                    let start = row * stride + first + panel * LANES;
                    sum = s.add(sum, s.load_partial(&values[start..start + count]));
                }
                if residual {
                    sum = s.add(sum, s.load_partial(out));
                }
                // The sum of the gate is where the product goes.
                if let Some(activation) = gate
                    && panel % 2 == 1
                {
                    sum = activation.gated(s, s.load_partial(out), sum);
                }
                s.store_partial(sum, out);
            }
        }
    }
}

/// `rows` in chunks of at most [`CHUNK_ROWS`], of nearly equal size, multiples of `mr` except for the last.
#[inline(always)]
pub(super) fn row_chunk(rows: usize, mr: usize) -> usize {
    let chunks = rows.div_ceil(CHUNK_ROWS / mr * mr).max(1);
    rows.div_ceil(chunks).next_multiple_of(mr)
}
