//! Gated products that go straight into the quantized rows of the next product: only a part of `act(gate) * up`, some rows by
//! some columns, exists in f32 at a time, in a buffer that stays in the second-level cache.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::gemm::Operands;
use super::gemm_int8::SLICE_BLOCKS;
use super::panels::Panels;
use super::quantize::QuantizedRows;
use super::simd::LANES;
use super::split::{TaskPart, even_parts, rows_of_part};
use super::target::{CHUNK_ROWS, Epilogue, Target};
use super::{KernelSet, PackedMatrix, Result};
use crate::memory::SharedMut;
use crate::threads::Region;

/// Columns that are quantized at a time: whole groups and whole rotated blocks.
const COLUMNS: usize = 128;
/// Panels of gate and up that they come from.
const PANELS: usize = 2 * COLUMNS / LANES;

/// Whether [`gemm_gated`] takes the product of `m` rows and `rhs`, the input of `next`.
pub fn takes_gated(kernels: &KernelSet, m: usize, rhs: &PackedMatrix, next: &PackedMatrix) -> bool {
    let group = |matrix: &PackedMatrix| match matrix.panels {
        Panels::Joined(_) => None,
        _ => matrix.format().activations().map(|format| format.group),
    };
    m > kernels.gemv_rows.of(rhs)
        && next.k() >= COLUMNS
        && group(rhs).is_some_and(|group| group <= 4 * SLICE_BLOCKS)
        && group(next).is_some_and(|group| COLUMNS.is_multiple_of(group))
}

/// The tasks: `parts` parts of `rows` rows, by `columns` parts of [`COLUMNS`] columns.
struct Grid {
    rows: usize,
    parts: usize,
    columns: usize,
}

impl Grid {
    fn new(m: usize, n: usize, threads: usize) -> Self {
        let columns = n.div_ceil(COLUMNS);
        let (least, most) = (m.div_ceil(CHUNK_ROWS), m.div_ceil(CHUNK_ROWS / 2));
        let rows = rows_of_part(m, even_parts(m, least, least..most + 1, columns, threads));
        Grid { rows, parts: m.div_ceil(rows), columns }
    }
}

#[cfg(any(test, feature = "bench-support"))]
impl super::Shares {
    /// Of [`gemm_gated`] with `m` rows and `n` columns of the result, where each thread takes the next task.
    pub fn of_gated(m: usize, n: usize, threads: usize) -> Self {
        let Grid { rows, parts, columns } = Grid::new(m, n, threads);
        let tasks = parts * columns;
        let work =
            |thread| crate::threads::share(tasks as u32, thread, threads as u64).len() * rows * COLUMNS;
        super::Shares { tasks, work: (0..threads as u64).map(work).collect() }
    }
}

/// The operands of [`gemm_gated`].
#[derive(Clone, Copy)]
pub struct GatedProduct<'a> {
    /// `[m, k]`
    pub lhs: &'a QuantizedRows,
    /// Rows.
    pub m: usize,
    /// A gate and an up projection.
    pub rhs: &'a PackedMatrix,
    /// With a gate.
    pub epilogue: Epilogue<'a>,
    /// What the result is multiplied by next.
    pub next: &'a PackedMatrix,
}

/// `to` becomes the quantized form of `activation(gate) * up`, `[m, k of next]`: the same bits as from
/// [`gemm`](super::gemm()) and [`QuantizedRows::quantize`]. `buffer` is scratch: as many threads work as have room in it.
///
/// # Errors
/// `OutOfMemory` without memory.
///
/// # Panics
/// When [`takes_gated`] says no, a shape does not fit, `epilogue` has no gate, or `buffer` has less than
/// `128 * min(m, 128)` elements.
pub fn gemm_gated(
    kernels: &KernelSet,
    region: &Region<'_>,
    product: GatedProduct<'_>,
    buffer: &mut [f32],
    to: &mut QuantizedRows,
) -> Result<()> {
    let GatedProduct { lhs, m, rhs, epilogue, next } = product;
    let n = next.k();
    assert!(
        takes_gated(kernels, m, rhs, next) && PackedMatrix::gated_columns(n) == Some(rhs.n()),
        "{n} gated columns"
    );
    assert!(epilogue.gate.is_some() && epilogue.bias.is_none_or(|bias| bias.len() == rhs.n()));
    assert!(epilogue.added.is_none_or(|added| added.fits(m, rhs.n())), "added: [{m}, {}]", rhs.n());
    let format = next.format().activations().expect("checked above");
    let operands = Operands::new(lhs, m, rhs).expect("checked above");
    let Grid { rows, parts, columns } = Grid::new(m, n, region.threads());
    let each = rows.min(m) * COLUMNS;
    let threads = region.threads().min(buffer.len() / each);
    assert!(threads > 0, "expected a buffer of {each} elements, found {}", buffer.len());
    let writer = to.writer(m, n, format)?;
    let panels = rhs.n().div_ceil(LANES);
    let buffer = SharedMut::new(buffer);
    let next_task = AtomicUsize::new(0);
    let stop = region.stop();
    region.parallel(threads, |worker| {
        // SAFETY: `parallel` calls this once for each `worker`, so the parts do not overlap.
        let staged = unsafe { buffer.slice(worker * each, each) };
        loop {
            let task = next_task.fetch_add(1, Ordering::Relaxed);
            if task >= parts * columns || stop.is_set() {
                break;
            }
            // All rows by the same columns first: they read the same weights.
            let (first_row, first) = (task % parts * rows, task / parts * COLUMNS);
            let (end_row, end) = (m.min(first_row + rows), n.min(first + COLUMNS));
            let out = SharedMut::new(staged);
            let target = Target {
                out: &out,
                n,
                origin_row: first_row,
                origin_column: first,
                first: 0,
                stride: COLUMNS,
                epilogue,
                kernels,
            };
            let panel = first / COLUMNS * PANELS;
            let part = TaskPart { rows: first_row..end_row, panels: panel..panels.min(panel + PANELS) };
            kernels.int8_gemm.call(operands.args(part, target));
            for row in first_row..end_row {
                let x = &staged[(row - first_row) * COLUMNS..][..end - first];
                // SAFETY: `next_task` gives each `task` to one thread, and tasks differ in the rows or in the columns.
                unsafe { writer.write(kernels, row, first, x) };
            }
        }
    });
    Ok(())
}
