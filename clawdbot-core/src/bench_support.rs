//! What the benches measure, as plain functions: no public interface.
#![allow(missing_docs, reason = "for the benches of this repository only")]

use std::time::Instant;

use crate::error::Result;
use crate::kernels::{
    ComputeFormat, Epilogue, KernelSet, Lhs, PackedMatrix, QuantizedRows, RowSource, available, gemm, select,
};
use crate::threads::{Region, ThreadPool};

/// int8 by group, bf16 or f32.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    Int8(usize),
    Bf16,
    F32,
}

impl Format {
    fn compute(self) -> ComputeFormat {
        match self {
            Format::Int8(group) => ComputeFormat::Int8 { group },
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

struct Pattern {
    rows: usize,
    cols: usize,
}

impl RowSource for Pattern {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, out: &mut [f32]) {
        for (at, out) in out.iter_mut().enumerate() {
            *out = ((row * 31 + at * 17) % 251) as f32 / 125.0 - 1.0;
        }
    }
}

impl Machine {
    /// # Errors
    /// `InvalidArgument` for an unknown `CLAWDBOT_ISA`.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Machine { pool: ThreadPool::new(threads), kernels: select()? })
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
        let start = Instant::now();
        let mut matrices = Vec::with_capacity(copies);
        for _ in 0..copies {
            matrices.push(PackedMatrix::pack(kernels, region, format, &[&Pattern { rows: n, cols: k }])?);
        }
        let pack = start.elapsed().as_secs_f64() / copies as f64;
        let x: Vec<f32> = (0..m * k).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect();
        let mut out = vec![0.0; m * n];
        let mut quantized = QuantizedRows::default();
        let mut quantize = 0.0;
        if let ComputeFormat::Int8 { group } = format {
            quantize = repeat(seconds / 10.0, |_| quantized.quantize(kernels, region, &x, m, k, group))?;
        }
        let gemm = repeat(seconds, |round| {
            let lhs = match format {
                ComputeFormat::Int8 { .. } => Lhs::Int8(&quantized),
                _ => Lhs::F32(&x),
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
        let mut time = |f: &mut dyn FnMut()| {
            let timed = repeat(0.05, |_| {
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

/// Seconds per call: the median of the calls that fit into `seconds`, at least 3.
fn repeat(seconds: f64, mut f: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    f(0)?;
    let mut times = Vec::new();
    let all = Instant::now();
    while times.len() < 3 || all.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        f(times.len() + 1)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
