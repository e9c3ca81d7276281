//! What the minima of groups contribute to products of many rows: `sum += low`, where `low` is a chain over ascending groups,
//! `low = fma(f32(sum of code_x) * scale_x[g], min_w[g], low)`, from 0.0.
//!
//! It is a product of its own, rows x groups by groups x columns. Minima of some groups are widened once for many rows. Rows
//! go in blocks whose chains stay in registers.

use super::group_scales::GroupScales;
use super::scale_lines::{ScaleLines, for_scales, row_total};
use super::simd::LANES;
use super::{Kernel, Simd};

/// A line of scales: 16 columns of u16.
type Line = [u16; LANES];

/// Groups whose minima are widened at a time: 12 KiB for three panels.
const GROUPS: usize = 64;
/// Rows whose chains are kept meanwhile, 12 KiB as well.
const ROWS: usize = 64;

/// Adds what the minima contribute to finished sums.
pub(super) struct AddMinima;

/// Of rows of activations: a scale and a start for each group.
#[derive(Clone, Copy)]
pub(super) struct RowScales<'a> {
    pub(super) scales: &'a [f32],
    pub(super) starts: &'a [i32],
}

/// Arguments of [`AddMinima`].
///
/// Invariant, established by [`new`](Self::new): what it asserts, and what its `# Safety` asks for.
pub(super) struct MinimaArgs<'a> {
    kind: GroupScales,
    lines: &'a [Line],
    scales: &'a [f32],
    starts: &'a [i32],
    groups: usize,
    sums: &'a mut [[f32; LANES]],
    stride: usize,
    panels: usize,
}

impl<'a> MinimaArgs<'a> {
    /// `lines`: from the first panel on. `lhs`: from the first row of `sums` on. The first `panels` of `P` panels of `sums`
    /// count. Adds nothing where the kind has no minima.
    ///
    /// # Panics
    /// When there are not lines of `groups` groups for each panel, and `groups` scales and starts for each row.
    ///
    /// # Safety
    /// `lines` must be 32-byte aligned.
    #[inline(always)]
    pub(super) unsafe fn new<const P: usize>(
        kind: GroupScales,
        lines: &'a [Line],
        lhs: RowScales<'a>,
        groups: usize,
        sums: &'a mut [[[f32; LANES]; P]],
        panels: usize,
    ) -> Self {
        let RowScales { scales, starts } = lhs;
        let needed = sums.len() * groups;
        assert!(panels <= P && lines.len() >= panels * kind.lines(groups), "lines of {panels} panels");
        assert!(scales.len() >= needed && starts.len() >= needed, "scales of {} rows", sums.len());
        MinimaArgs { kind, lines, scales, starts, groups, sums: sums.as_flattened_mut(), stride: P, panels }
    }
}

impl Kernel for AddMinima {
    type Args<'a> = MinimaArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, mut args: MinimaArgs<'_>) {
        for_scales!(args.kind, K => if K::MIN {
            let mut panel = 0;
            while panel < args.panels {
                panel += match args.panels - panel {
                    left if S::REGISTERS >= 32 && left >= 3 => add_panels::<S, K, 8, 3>(s, &mut args, panel),
                    left if S::REGISTERS >= 32 && left == 2 => add_panels::<S, K, 8, 2>(s, &mut args, panel),
                    _ if S::REGISTERS >= 32 => add_panels::<S, K, 8, 1>(s, &mut args, panel),
                    _ => add_panels::<S, K, 4, 1>(s, &mut args, panel),
                };
            }
        });
    }
}

/// What stays in the first-level cache.
#[repr(align(64))]
struct Stage<const R: usize, const P: usize> {
    minima: [[[f32; LANES]; P]; GROUPS],
    /// `f32(sum of code_x) * scale_x` of a block of rows.
    totals: [[f32; GROUPS]; R],
    chains: [[[f32; LANES]; P]; ROWS],
}

/// All rows, `R` at a time, by `P` panels from `panel` on; returns `P`.
#[inline(always)]
fn add_panels<S: Simd, K: ScaleLines, const R: usize, const P: usize>(
    s: S,
    args: &mut MinimaArgs<'_>,
    panel: usize,
) -> usize {
    const { assert!(ROWS.is_multiple_of(R)) };
    let MinimaArgs { kind, lines, groups, stride, .. } = *args;
    let panel_lines = kind.lines(groups);
    let lines = &lines[panel * panel_lines..][..P * panel_lines];
    let mut stage = Stage::<R, P> {
        minima: [[[0.0; LANES]; P]; GROUPS],
        totals: [[0.0; GROUPS]; R],
        chains: [[[0.0; LANES]; P]; ROWS],
    };
    let rows = args.sums.len() / stride;
    for first_row in (0..rows).step_by(ROWS) {
        let end_row = rows.min(first_row + ROWS);
        for first in (0..groups).step_by(GROUPS) {
            let count = GROUPS.min(groups - first);
            for (g, minima) in stage.minima[..count].iter_mut().enumerate() {
                for p in 0..P {
                    // SAFETY: `MinimaArgs::new` asserted lines of `groups` groups for each panel, and asks for their alignment.
                    let (_, min) = unsafe { K::load(s, &lines[p * panel_lines..], first + g) };
                    s.store(min, &mut minima[p]);
                }
            }
            let blocks = (first_row..end_row).step_by(R);
            for (row, chains) in blocks.zip(stage.chains.chunks_exact_mut(R)) {
                // Beyond the last row, what the block before left: computed and dropped.
                for (row, totals) in (row..end_row).zip(&mut stage.totals) {
                    let at = row * groups + first;
                    let scales = args.scales[at..][..count].iter().zip(&args.starts[at..][..count]);
                    for (total, (scale, start)) in totals.iter_mut().zip(scales) {
                        *total = row_total(*scale, *start);
                    }
                }
                let mut lows = [[s.zero(); P]; R];
                if first > 0 {
                    for r in 0..R {
                        for p in 0..P {
                            lows[r][p] = s.load(&chains[r][p]);
                        }
                    }
                }
                for (g, minima) in stage.minima[..count].iter().enumerate() {
                    let mut min = [s.zero(); P];
                    for p in 0..P {
                        min[p] = s.load(&minima[p]);
                    }
                    for r in 0..R {
                        let total = s.splat(stage.totals[r][g]);
                        for p in 0..P {
                            lows[r][p] = s.fma(total, min[p], lows[r][p]);
                        }
                    }
                }
                for r in 0..R {
                    for p in 0..P {
                        s.store(lows[r][p], &mut chains[r][p]);
                    }
                }
            }
        }
        let sums = args.sums[first_row * stride..end_row * stride].chunks_exact_mut(stride);
        // Without a group there is no chain.
        let chains = stage.chains.iter().take(if groups == 0 { 0 } else { ROWS });
        for (sums, chains) in sums.zip(chains) {
            for (sum, chain) in sums[panel..][..P].iter_mut().zip(chains) {
                s.store(s.add(s.load(sum), s.load(chain)), sum);
            }
        }
    }
    P
}
