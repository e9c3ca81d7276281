//! Functions for the benches of this repository: no public interface.
#![allow(missing_docs, reason = "for the benches of this repository only")]

mod scaling;

use std::time::{Duration, Instant};

pub use scaling::{MatrixShares, PassSteps, Scaling};

use clawdbot_kernels::attention::Workspaces;
use clawdbot_kernels::threads::{Region, ThreadPool};
use clawdbot_kernels::{
    ComputeFormat, Epilogue, GroupScales, KernelSet, Lhs, PackedMatrix, QuantizedRows, ROTATED_GROUPS,
    RowSource, available, gemm, select,
};

use crate::cache::{KvCache, PageTables};
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::cpu::Cpu;
use crate::forward::cpu::attention::{AttendBuffers, WritePlan, attend};
use crate::forward::ops::LayerRef;
use crate::load::source::{Opened, Source};
use crate::options::KvType;
use crate::runtime::Budget;
use crate::spec::DecoderSpec;

/// Formats of weights: int8 or int4 with groups, bf16 or f32.
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
            Format::Int4(group) => ComputeFormat::Int4 { group, scales: GroupScales::Bf16, rotated: false },
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

/// Rows of generated bf16 weights, converted when read as those of a model file are.
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
    /// `OutOfBudget` if memory runs out.
    pub fn dram_gb_per_s(&self, bytes: usize) -> Result<f64> {
        Ok(self.pool.region(|region| self.kernels.dram_gb_per_s(region, bytes))??)
    }

    /// # Errors
    /// If no thread can be started.
    pub fn int8_gop_per_s(&self) -> Result<f64> {
        Ok(self.pool.region(|region| self.kernels.int8_gop_per_s(region))?)
    }

    /// # Errors
    /// If no thread can be started.
    pub fn f32_gflop_per_s(&self) -> Result<f64> {
        Ok(self.pool.region(|region| self.kernels.f32_gflop_per_s(region))?)
    }

    /// Products with `copies` matrices `[n, k]` in turn: one, or so many that they do not fit into a cache.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out.
    pub fn gemm(&self, format: Format, [n, k]: [usize; 2], copies: usize) -> Result<Gemm<'_>> {
        let (format, pattern) = (format.compute(), Pattern::new(n, k));
        let pack = |region: &Region<'_>| {
            let pack = |_| PackedMatrix::pack(self.kernels, region, format, &[&pattern]);
            (0..copies).map(pack).collect::<clawdbot_kernels::Result<Vec<_>>>()
        };
        let matrices = self.pool.region(pack)??;
        Ok(Gemm { machine: self, format, matrices, n, k, out: Vec::new(), next: 0 })
    }

    /// Bytes of a packed matrix `[n, k]`.
    ///
    /// # Errors
    /// `InvalidArgument` for a matrix that is too large.
    pub fn packed_bytes(&self, format: Format, [n, k]: [usize; 2]) -> Result<u64> {
        Ok(PackedMatrix::packed_bytes(format.compute(), n, k)?)
    }

    /// Seconds of `iterations` steps in which each thread works for `work`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn time_steps(&self, iterations: u64, work: Duration) -> Result<Duration> {
        self.pool.region(|region| {
            time(iterations, || {
                region.parallel(region.threads(), |_| {
                    let start = Instant::now();
                    while start.elapsed() < work {
                        std::hint::spin_loop();
                    }
                });
                Ok(())
            })
        })?
    }

    /// Seconds of `iterations` quantizations of `[m, k]` activations.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out.
    pub fn time_quantize(&self, format: Format, [m, k]: [usize; 2], iterations: u64) -> Result<Duration> {
        let (x, mut rows) = (activations(m * k), QuantizedRows::default());
        self.pool.region(|region| {
            time(iterations, || quantize(self.kernels, region, &mut rows, format.compute(), &x, [m, k]))
        })?
    }

    /// Seconds to pack a matrix `[n, k]` of bf16.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out.
    pub fn time_pack(&self, format: Format, [n, k]: [usize; 2], iterations: u64) -> Result<Duration> {
        let pattern = Pattern::new(n, k);
        self.pool.region(|region| {
            time(iterations, || {
                Ok(PackedMatrix::pack(self.kernels, region, format.compute(), &[&pattern]).map(drop)?)
            })
        })?
    }

    /// Attention of one layer of a shape (see [`Source::SHAPES`]) after `depth` tokens of context.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown shape, `OutOfBudget` if memory runs out.
    pub fn attention(&self, shape: &str, kv: KvType, depth: usize) -> Result<AttentionBench<'_>> {
        let spec = Opened::open(&Source::Shape(shape.to_owned()))?.spec;
        let budget = Budget::new(None);
        let mut cache = KvCache::new(kv, &spec.layer_states(), &budget)?;
        let mut tables = PageTables::default();
        cache.grow(&mut tables, depth + MOST_ROWS)?;
        let mut workspaces = Workspaces::default();
        workspaces.reserve(self.pool.threads(), spec.head_dim)?;
        let mut bench = AttentionBench { machine: self, spec, cache, tables, workspaces, depth };
        // Fill the context.
        for start in (0..depth).step_by(MOST_ROWS) {
            bench.run(start, MOST_ROWS.min(depth - start), 1)?;
        }
        Ok(bench)
    }

    /// Operations (multiplications and additions) of `queries` queries after `depth` tokens in one layer, and the bytes of the
    /// layer's keys and values.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown shape.
    pub fn attention_work(
        &self,
        shape: &str,
        kv: KvType,
        depth: usize,
        queries: usize,
    ) -> Result<(f64, u64)> {
        let spec = Opened::open(&Source::Shape(shape.to_owned()))?.spec;
        let keys: usize = (0..queries).map(|query| depth + query + 1).sum();
        let cache = KvCache::new(kv, &spec.layer_states(), &Budget::new(None))?;
        let bytes = cache.bytes_per_token() * (depth + queries) as u64 / spec.num_hidden_layers as u64;
        Ok((4.0 * (keys * spec.num_attention_heads * spec.head_dim) as f64, bytes))
    }

    /// Seconds of `iterations` calls of a vector kernel on `len` elements, on one thread.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is not in [`VECTORS`].
    pub fn time_vector(&self, name: &str, len: usize, iterations: u64) -> Result<Duration> {
        let (a, b) = (vec![0.7; len], vec![0.3; len]);
        let (mut out, mut bf16) = (vec![0.0; len], vec![0; len]);
        let kernels = self.kernels;
        time(iterations, || {
            match name {
                "rms_norm" => kernels.rms_norm(&a, &b, 1e-5, &mut out),
                "silu_mul" => kernels.silu_mul(&a, &b, &mut out),
                "exp" => kernels.exp(&a, &mut out),
                "to_bf16" => kernels.to_bf16(&a, &mut bf16),
                _ => {
                    return Err(Error::invalid_argument(format!(
                        "expected one of {VECTORS:?}, found {name:?}"
                    )));
                }
            }
            Ok(())
        })
    }
}

/// Names of the vector kernels.
pub const VECTORS: [&str; 4] = ["rms_norm", "silu_mul", "exp", "to_bf16"];

/// Rows of the largest batch of [`AttentionBench`].
const MOST_ROWS: usize = 512;

/// Packed matrices.
pub struct Gemm<'a> {
    machine: &'a Machine,
    format: ComputeFormat,
    matrices: Vec<PackedMatrix>,
    n: usize,
    k: usize,
    out: Vec<f32>,
    next: usize,
}

impl Gemm<'_> {
    /// Seconds of `iterations` products with `m` rows that are quantized already.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out.
    pub fn time(&mut self, m: usize, iterations: u64) -> Result<Duration> {
        let (x, mut rows) = (activations(m * self.k), QuantizedRows::default());
        self.out.resize(m * self.n, 0.0);
        let kernels = self.machine.kernels;
        self.machine.pool.region(|region| {
            quantize(kernels, region, &mut rows, self.format, &x, [m, self.k])?;
            time(iterations, || {
                let lhs = match self.format.activations() {
                    Some(_) => Lhs::Int8(&rows),
                    None if kernels.rounds(self.format) => Lhs::Bf16(&rows.rounded),
                    None => Lhs::F32(&x),
                };
                let matrix = &self.matrices[self.next];
                self.next = (self.next + 1) % self.matrices.len();
                gemm(kernels, region, lhs, m, matrix, &mut self.out, Epilogue::default());
                Ok(())
            })
        })?
    }
}

/// A KV cache with some context, and the first layer of a model.
pub struct AttentionBench<'a> {
    machine: &'a Machine,
    spec: DecoderSpec,
    cache: KvCache,
    tables: PageTables,
    workspaces: Workspaces,
    depth: usize,
}

impl AttentionBench<'_> {
    /// Seconds of `iterations` times writing `rows` rows after the context and attending to it.
    ///
    /// # Errors
    /// `OutOfBudget` if memory runs out.
    pub fn time(&mut self, rows: usize, iterations: u64) -> Result<Duration> {
        self.run(self.depth, rows, iterations)
    }

    fn run(&mut self, start: usize, rows: usize, iterations: u64) -> Result<Duration> {
        let (spec, machine) = (&self.spec, self.machine);
        let heads = spec.num_attention_heads;
        let qkv = activations(rows * (heads + 2 * spec.num_key_value_heads) * spec.head_dim);
        let mut out = vec![0.0; rows * heads * spec.head_dim];
        let mut batch = Batch::new();
        batch.push(&vec![0; rows], start, 0, &self.tables);
        let plan = WritePlan::new(&self.cache, &batch)?;
        machine.pool.region(|region| {
            let cpu = Cpu { kernels: machine.kernels, region, adapters: None, watcher: None };
            time(iterations, || {
                let buffers = AttendBuffers { qkv: &qkv, out: &mut out, workspaces: &mut self.workspaces };
                let layer = LayerRef { spec, layer: 0 };
                attend(&cpu, layer, None, &mut self.cache, &batch, &plan, buffers)
            })
        })?
    }
}

/// Numbers between -1 and 1.
fn activations(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 1009) as f32 / 500.0 - 1.0).collect()
}

/// Quantizes or rounds, as products with weights of `format` need it.
fn quantize(
    kernels: &'static KernelSet,
    region: &Region<'_>,
    rows: &mut QuantizedRows,
    format: ComputeFormat,
    x: &[f32],
    [m, k]: [usize; 2],
) -> Result<()> {
    match format.activations() {
        Some(activations) => rows.quantize(kernels, region, x, m, k, activations)?,
        None if kernels.rounds(format) => rows.rounded.round(kernels, region, x, m, k)?,
        None => {}
    }
    Ok(())
}

fn time(iterations: u64, mut f: impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..iterations {
        f()?;
    }
    Ok(start.elapsed())
}
