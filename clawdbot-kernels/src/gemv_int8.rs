//! int8 x int8 -> int32 inside a group, f32 across groups; products of few rows.

use std::ops::Range;

use super::few_rows::{self, Ahead, FewRows, Line, Reads};
use super::gemm_int8::Int8Args;
use super::group_scales::GroupScales;
use super::quantize::Int8Rows;
use super::scale_lines::{ScaleLines, for_scales, row_total};
use super::target::TileAt;
use super::unchecked::{array, item};
use super::{Kernel, Simd};

/// Few rows.
pub(super) struct Gemv;
impl Kernel for Gemv {
    type Args<'a> = Int8Args<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: Int8Args<'_>) {
        match args.kind {
            GroupScales::Bf16 => few_rows::multiply(s, &Task::<false>(&args)),
            _ => few_rows::multiply(s, &Task::<true>(&args)),
        }
    }
}

/// `STORED`: scales are not bf16.
struct Task<'a, const STORED: bool>(&'a Int8Args<'a>);

impl<S: Simd, const STORED: bool> FewRows<S> for Task<'_, STORED> {
    const PAIRS: bool = true;
    #[inline(always)]
    fn reads(&self) -> Reads {
        Reads::of_this_cpu()
    }
    #[inline(always)]
    fn rows(&self) -> Range<usize> {
        self.0.rows.clone()
    }
    #[inline(always)]
    fn panels(&self) -> Range<usize> {
        self.0.panels.clone()
    }
    #[inline(always)]
    fn panel(&self, panel: usize) -> *const Line {
        self.0.codes.as_ptr().wrapping_add(panel * self.0.k_blocks).cast()
    }
    #[inline(always)]
    fn lines(&self) -> usize {
        self.0.k_blocks
    }
    #[inline(always)]
    fn multiply<const R: usize, const P: usize, const U: usize>(&self, s: S, at: TileAt, ahead: Ahead<P>) {
        multiply::<S, STORED, R, P, U>(s, self.0, at, ahead);
    }
}

/// `R` rows by `P` panels, in `U` independent int32 sums (their order does not matter).
#[inline(always)]
fn multiply<S: Simd, const STORED: bool, const R: usize, const P: usize, const U: usize>(
    s: S,
    args: &Int8Args<'_>,
    at: TileAt,
    ahead: Ahead<P>,
) {
    let TileAt { row, panel } = at;
    args.check_tile(row..row + R, panel..panel + P);
    let (k_blocks, group_blocks, groups) = (args.k_blocks, args.group_blocks(), args.groups());
    let scale_lines = if STORED { args.kind.lines(groups) } else { groups };
    // What the unchecked accesses below rest on: slices of exactly these rows and panels.
    let Int8Rows { codes, stride, scales, starts } = args.lhs;
    assert!(stride >= 4 * k_blocks, "rows of {stride} codes");
    let codes = &codes[row * stride..][..R * stride];
    let scales = &scales[row * groups..][..R * groups];
    let starts = &starts[row * groups..][..R * groups];
    let weights = &args.codes[panel * k_blocks..][..P * k_blocks];
    let mut weight_scales = [&args.scales[panel * scale_lines..][..P * scale_lines]; P];
    for p in 1..P {
        weight_scales[p] = &weight_scales[0][p * scale_lines..];
    }
    let mut sums = [[s.zero(); P]; R];
    let mut lows = [[s.zero(); P]; R];
    for g in 0..groups {
        let (mut block, end) = (g * group_blocks, k_blocks.min((g + 1) * group_blocks));
        let mut dots = [[[s.splat_i32(0); U]; P]; R];
        if S::FLIPPED {
            for r in 0..R {
                for p in 0..P {
                    // SAFETY: `r < R` and `g < groups`; `starts` was sliced to `R * groups`.
                    dots[r][p][0] = s.splat_i32(unsafe { item(starts, r * groups + g) });
                }
            }
        }
        while block + U <= end {
            ahead.prefetch::<S, U>(s, block);
            for u in 0..U {
                let at = block + u;
                for p in 0..P {
                    // SAFETY: `p < P` and `at < end <= k_blocks`; `weights` was sliced to `P * k_blocks`.
                    let w = s.load_w8(unsafe { weights.get_unchecked(p * k_blocks + at) });
                    for r in 0..R {
                        // SAFETY: `r < R` and `4 * at + 4 <= stride`, as asserted; `codes` was sliced to `R * stride`.
                        let a = s.splat_a4(unsafe { array(codes, r * stride + 4 * at) });
                        dots[r][p][u] = s.dot4(dots[r][p][u], w, a);
                    }
                }
            }
            block += U;
        }
        while block < end {
            for p in 0..P {
                // SAFETY: `p < P` and `block < end <= k_blocks`; `weights` was sliced to `P * k_blocks`.
                let w = s.load_w8(unsafe { weights.get_unchecked(p * k_blocks + block) });
                for r in 0..R {
                    // SAFETY: `r < R` and `4 * block + 4 <= stride`, as asserted; `codes` was sliced to `R * stride`.
                    let a = s.splat_a4(unsafe { array(codes, r * stride + 4 * block) });
                    dots[r][p][0] = s.dot4(dots[r][p][0], w, a);
                }
            }
            block += 1;
        }
        for p in 0..P {
            let lines = weight_scales[p];
            let (weight_scale, min) = if STORED {
                // The same branch for every group: a kernel for each kind would save little.
                for_scales!(args.kind, K => {
                    // SAFETY: `g < groups`; `lines` was sliced to the lines of `groups` groups, of a `Panel` and so aligned.
                    unsafe { K::load(s, lines, g) }
                })
            } else {
                s.prefetch(lines.as_ptr().wrapping_add(P * scale_lines + g).cast());
                // SAFETY: `g < groups`; `lines` was sliced to one line for each group.
                (s.load_bf16(unsafe { lines.get_unchecked(g) }), s.zero())
            };
            for r in 0..R {
                let mut dot = dots[r][p][0];
                for u in 1..U {
                    dot = s.add_i32(dot, dots[r][p][u]);
                }
                // SAFETY: `r < R` and `g < groups`; `scales` was sliced to `R * groups`.
                let scale = unsafe { item(scales, r * groups + g) };
                sums[r][p] = s.fma(s.i32_to_f32(dot), s.mul(s.splat(scale), weight_scale), sums[r][p]);
                if STORED && args.kind.minimum() {
                    // SAFETY: `r < R` and `g < groups`; `starts` was sliced to `R * groups`.
                    let total = row_total(scale, unsafe { item(starts, r * groups + g) });
                    lows[r][p] = s.fma(s.splat(total), min, lows[r][p]);
                }
            }
        }
    }
    if STORED && args.kind.minimum() {
        for r in 0..R {
            for p in 0..P {
                sums[r][p] = s.add(sums[r][p], lows[r][p]);
            }
        }
    }
    // SAFETY: `check_tile` asserted that rows and panels are the task's, and by the invariant of `Int8Args` no other's.
    unsafe { args.target.finish_tile(s, at, sums) };
}
