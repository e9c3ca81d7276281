//! What the benches measure, as plain functions: no public interface.
#![allow(missing_docs, reason = "for the benches of this repository only")]
#![allow(unsafe_code, reason = "the clock of a thread's CPU time")]

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::kernels::{
    ComputeFormat, Epilogue, Int4Scales, KernelSet, Lhs, PackedMatrix, QuantizedRows, ROTATED_GROUPS,
    RowSource, available, gemm, select,
};
use crate::threads::{Region, ThreadPool};

/// int8 or int4 by group, bf16 or f32.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    Int8(usize),
    Int4(usize),
    Bf16,
    F32,
}

impl Format {
    fn compute(self) -> ComputeFormat {
        match self {
            Format::Int8(group) => ComputeFormat::Int8 { group, rotated: ROTATED_GROUPS.contains(&group) },
            Format::Int4(group) => ComputeFormat::Int4 { group, scales: Int4Scales::Bf16, rotated: false },
            Format::Bf16 => ComputeFormat::Bf16,
            Format::F32 => ComputeFormat::F32,
        }
    }
}

/// A thread pool and the kernels to measure.
pub struct Machine {
    pool: ThreadPool,
    kernels: &'static KernelSet,
}

/// Times of one shape.
pub struct GemmTimes {
    /// Seconds per product, activations quantized already.
    pub gemm: f64,
    /// Seconds per quantization of the activations.
    pub quantize: f64,
    /// Seconds to pack one matrix.
    pub pack: f64,
    /// Bytes of one packed matrix.
    pub bytes: u64,
}

/// Rows of bf16, widened when read as from a model file.
struct Pattern {
    rows: usize,
    cols: usize,
    bf16: Vec<u16>,
}

impl Pattern {
    fn new(rows: usize, cols: usize) -> Self {
        let value = |at: usize| half::bf16::from_f32((at * 17 % 251) as f32 / 125.0 - 1.0).to_bits();
        Pattern { rows, cols, bf16: (0..cols + 251).map(value).collect() }
    }
}

impl RowSource for Pattern {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        for (out, bf16) in out.iter_mut().zip(&self.bf16[row * 31 % 251..]) {
            *out = f32::from_bits(u32::from(*bf16) << 16);
        }
    }
}

impl Machine {
    /// # Errors
    /// `InvalidArgument` for an unknown `CLAWDBOT_ISA`.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Machine { pool: ThreadPool::new(threads), kernels: select(None)? })
    }

    pub fn isa_names() -> Vec<&'static str> {
        available().iter().map(|set| set.name).collect()
    }

    pub fn kernel_names(&self) -> [&'static str; 3] {
        [self.kernels.name, self.kernels.int8_gemm_name, self.kernels.float_gemm_name]
    }

    /// # Errors
    /// `OutOfBudget` without memory.
    pub fn dram_gb_per_s(&self, bytes: usize) -> Result<f64> {
        self.pool.region(|region| self.kernels.dram_gb_per_s(region, bytes))?
    }

    /// # Errors
    /// When no thread can be started.
    pub fn int8_gop_per_s(&self) -> Result<f64> {
        self.pool.region(|region| self.kernels.int8_gop_per_s(region))
    }

    /// # Errors
    /// When no thread can be started.
    pub fn f32_gflop_per_s(&self) -> Result<f64> {
        self.pool.region(|region| self.kernels.f32_gflop_per_s(region))
    }

    /// Products of `m` rows with `copies` matrices `[n, k]` in turn, for at least `seconds`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub fn gemm(
        &self,
        format: Format,
        m: usize,
        n: usize,
        k: usize,
        copies: usize,
        seconds: f64,
    ) -> Result<GemmTimes> {
        self.pool.region(|region| self.gemm_in(region, format.compute(), [m, n, k], copies, seconds))?
    }

    fn gemm_in(
        &self,
        region: &Region<'_>,
        format: ComputeFormat,
        [m, n, k]: [usize; 3],
        copies: usize,
        seconds: f64,
    ) -> Result<GemmTimes> {
        let kernels = self.kernels;
        let pattern = Pattern::new(n, k);
        let watch = Stopwatch::start(region.threads());
        let mut matrices = Vec::with_capacity(copies);
        for _ in 0..copies {
            matrices.push(PackedMatrix::pack(kernels, region, format, &[&pattern])?);
        }
        let pack = watch.seconds() / copies as f64;
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
        let mut out = vec![0.0; m * n];
        let mut quantized = QuantizedRows::default();
        let mut quantize = 0.0;
        if let Some((group, rotated)) = format.activations() {
            quantize = repeat(region.threads(), seconds / 10.0, |_| {
                quantized.quantize(kernels, region, &x, m, k, group, rotated)
            })?;
        }
        let gemm = repeat(region.threads(), seconds, |round| {
            let lhs = match format.activations() {
                Some(_) => Lhs::Int8(&quantized),
                None => Lhs::F32(&x),
            };
            gemm(kernels, region, lhs, m, &matrices[round % copies], &mut out, Epilogue::default());
            Ok(())
        })?;
        Ok(GemmTimes { gemm, quantize, pack, bytes: PackedMatrix::packed_bytes(format, n, k)? })
    }

    /// Seconds per call of a vector kernel on `len` elements, on one thread: `rms_norm`, `silu_mul`, `exp`, `to_bf16`.
    pub fn vector(&self, len: usize) -> [(&'static str, f64); 4] {
        let (a, b) = (vec![0.7; len], vec![0.3; len]);
        let (mut out, mut bf16) = (vec![0.0; len], vec![0; len]);
        let time = |f: &mut dyn FnMut()| {
            let timed = repeat(1, 0.05, |_| {
                f();
                Ok(())
            });
            timed.unwrap_or(f64::NAN)
        };
        [
            ("rms_norm", time(&mut || self.kernels.rms_norm(&a, &b, 1e-5, &mut out))),
            ("silu_mul", time(&mut || self.kernels.silu_mul(&a, &b, &mut out))),
            ("exp", time(&mut || self.kernels.exp(&a, &mut out))),
            ("to_bf16", time(&mut || self.kernels.to_bf16(&a, &mut bf16))),
        ]
    }
}

/// Seconds that the work of `threads` threads takes: for one thread the CPU time, where the system tells it, which other
/// work on the machine disturbs least.
struct Stopwatch {
    wall: Instant,
    cpu: Option<Duration>,
}

impl Stopwatch {
    fn start(threads: usize) -> Self {
        Stopwatch { wall: Instant::now(), cpu: if threads == 1 { thread_cpu_time() } else { None } }
    }

    fn seconds(&self) -> f64 {
        let cpu = self.cpu.and_then(|start| thread_cpu_time().map(|now| now.saturating_sub(start)));
        cpu.unwrap_or_else(|| self.wall.elapsed()).as_secs_f64()
    }
}

#[cfg(target_os = "linux")]
fn thread_cpu_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0;
    (!failed).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(not(target_os = "linux"))]
fn thread_cpu_time() -> Option<Duration> {
    None
}

/// Seconds per call: the best of the calls that fit into `seconds`, at least 5. Whatever else runs on the machine only
/// slows down.
fn repeat(threads: usize, seconds: f64, mut f: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    f(0)?;
    let mut best = f64::MAX;
    let mut count = 0;
    let all = Instant::now();
    while count < 5 || all.elapsed().as_secs_f64() < seconds {
        let watch = Stopwatch::start(threads);
        f(count + 1)?;
        best = best.min(watch.seconds());
        count += 1;
    }
    Ok(best)
}
