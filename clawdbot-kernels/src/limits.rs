//! Measured limits of this machine, which the rates of kernels are compared with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::simd::LANES;
use super::{Kernel, KernelSet, Result, Simd};
use crate::memory::AlignedBuf;
use crate::threads::Region;

/// How long each measurement repeats its work at least.
const DURATION: Duration = Duration::from_millis(300);
/// Memory that is read at a time.
const READ_BYTES: usize = 16 << 20;
/// Rounds of the arithmetic loops between two readings of the clock.
const ROUNDS: usize = 1 << 16;

/// Sums a buffer.
pub(super) struct Read;
impl Kernel for Read {
    type Args<'a> = &'a [i32];
    type Output = i32;
    #[inline(always)]
    fn run<S: Simd>(s: S, data: &[i32]) -> i32 {
        const WAYS: usize = 4;
        let mut sums = [s.splat_i32(0); WAYS];
        for lines in data.as_chunks::<LANES>().0.as_chunks::<WAYS>().0 {
            for way in 0..WAYS {
                s.prefetch(lines[way].as_ptr().wrapping_add(24 * LANES).cast());
                sums[way] = s.add_i32(sums[way], s.load_i32(&lines[way]));
            }
        }
        let mut sum = s.splat_i32(0);
        for way in sums {
            sum = s.add_i32(sum, way);
        }
        s.reduce_add_i32(sum)
    }
}

/// Weights and activations of a tile in registers and the first-level cache.
pub(super) struct Operands {
    w: [[i8; 4 * LANES]; 3],
    a: [[i8; 16]; 8],
    x: [[f32; LANES]; 2],
}

/// [`ROUNDS`] of 24 dot products of 4 x 16: a tile without anything around it.
pub(super) struct Dots;
impl Kernel for Dots {
    type Args<'a> = &'a Operands;
    type Output = i32;
    #[inline(always)]
    fn run<S: Simd>(s: S, operands: &Operands) -> i32 {
        // As many sums as the registers hold.
        if S::REGISTERS >= 16 {
            dots::<S, 8, 3>(s, operands, ROUNDS)
        } else {
            dots::<S, 6, 1>(s, operands, 4 * ROUNDS)
        }
    }
}

#[inline(always)]
fn dots<S: Simd, const R: usize, const P: usize>(s: S, operands: &Operands, rounds: usize) -> i32 {
    let mut sums = [[s.splat_i32(0); P]; R];
    for _ in 0..rounds {
        // Loaded again in every round: otherwise parts of the product would be computed only once.
        let operands = black_box(operands);
        let mut w = [s.load_prepared(&operands.w[0]); P];
        for p in 1..P {
            w[p] = s.load_prepared(&operands.w[p]);
        }
        for r in 0..R {
            for p in 0..P {
                sums[r][p] = s.dot4_of::<0>(sums[r][p], w[p], &operands.a[r]);
            }
        }
    }
    let mut sum = s.splat_i32(0);
    for row in sums {
        for one in row {
            sum = s.add_i32(sum, one);
        }
    }
    s.reduce_add_i32(sum)
}

/// [`ROUNDS`] of 12 FMA of 16 lanes.
pub(super) struct Fmas;
impl Kernel for Fmas {
    type Args<'a> = &'a Operands;
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(s: S, operands: &Operands) -> f32 {
        // As many chains as the registers hold.
        if S::REGISTERS >= 16 {
            fmas::<S, 12>(s, operands, ROUNDS)
        } else {
            fmas::<S, 6>(s, operands, 2 * ROUNDS)
        }
    }
}

#[inline(always)]
fn fmas<S: Simd, const CHAINS: usize>(s: S, operands: &Operands, rounds: usize) -> f32 {
    let mut sums = [s.zero(); CHAINS];
    let (factor, term) = (s.splat(operands.x[0][0]), s.load(&operands.x[1]));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = s.fma(*sum, factor, term);
        }
    }
    let mut sum = s.zero();
    for one in sums {
        sum = s.add(sum, one);
    }
    s.reduce_add(sum)
}

impl KernelSet {
    /// Sequential reads of `bytes` of memory on all threads, in 10^9 bytes per second, on average: what a shared machine
    /// sustains, not the best moment. For more bytes than the last cache holds, this is the bandwidth of the memory.
    ///
    /// # Errors
    /// `OutOfMemory` without memory.
    pub fn dram_gb_per_s(&self, region: &Region<'_>, bytes: usize) -> Result<f64> {
        let mut data = AlignedBuf::<i32>::zeroed(bytes.max(2 * READ_BYTES) / 4)?;
        // Each repetition reads some megabytes, others than the one before.
        let parts = region.threads() * 8;
        let part = (READ_BYTES / 4 / parts).next_multiple_of(4 * LANES);
        region.parallel_chunks_mut(&mut data, parts * part, |_, part| part.fill(1));
        let turns = (data.len() / (parts * part)).max(1);
        let start = Instant::now();
        let mut rounds = 0;
        while rounds == 0 || start.elapsed() < DURATION {
            let turn = &data[rounds % turns * parts * part..];
            region.parallel(parts, |index| {
                black_box(self.read.call(&turn[index * part..(index + 1) * part]));
            });
            rounds += 1;
        }
        Ok((rounds * parts * part * 4) as f64 / start.elapsed().as_secs_f64() / 1e9)
    }

    /// int8 multiply-adds of this set's dot product from registers, all threads, in 10^9 operations (a multiply-add is
    /// two) per second.
    pub fn int8_gop_per_s(&self, region: &Region<'_>) -> f64 {
        let operands = Operands { w: [[3; 4 * LANES]; 3], a: [[5; 16]; 8], x: [[0.5; LANES]; 2] };
        let tasks = region.threads() * 4;
        let rate = repeat(|| {
            region.parallel(tasks, |_| {
                black_box(self.dots.call(black_box(&operands)));
            });
        });
        rate * (tasks * ROUNDS * 24 * 4 * LANES * 2) as f64 / 1e9
    }

    /// f32 fused multiply-adds from registers, all threads, in 10^9 operations (a multiply-add is two) per second.
    pub fn f32_gflop_per_s(&self, region: &Region<'_>) -> f64 {
        let operands = Operands { w: [[3; 4 * LANES]; 3], a: [[5; 16]; 8], x: [[0.5; LANES]; 2] };
        let tasks = region.threads() * 4;
        let rate = repeat(|| {
            region.parallel(tasks, |_| {
                black_box(self.fmas.call(black_box(&operands)));
            });
        });
        rate * (tasks * ROUNDS * 12 * LANES * 2) as f64 / 1e9
    }
}

/// Repetitions per second at the speed of the fastest one: other load on the machine only slows them down.
fn repeat(f: impl Fn()) -> f64 {
    let all = Instant::now();
    let mut best = f64::MAX;
    while best == f64::MAX || all.elapsed() < DURATION {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    1.0 / best
}
