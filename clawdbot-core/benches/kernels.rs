//! Rates of the kernels, and at the end of all next to the machine's limits, measured in the same run.
//!
//! `cargo bench -p clawdbot-core --features bench-support [-- FILTER]`, where FILTER is a regular expression: `gemm/int8`,
//! `m1/`, `attention`, `quantize`, `pack`, `vector`. `CLAWDBOT_BENCH_THREADS` says on how many threads (default 2),
//! `CLAWDBOT_ISA` with which kernels.
#![allow(clippy::print_stdout, reason = "printing is the purpose")]

use std::cell::RefCell;
use std::time::Duration;

use clawdbot_core::bench_support::{Format, Machine, VECTORS};
use clawdbot_core::{KvType, Result};
use criterion::{Criterion, Throughput};

/// Name, n, k of the layers.
const MATRICES: [(&str, usize, usize); 9] = [
    ("1b-qkv", 3072, 2048),
    ("1b-o", 2048, 2048),
    ("1b-gate+up", 16384, 2048),
    ("1b-down", 2048, 8192),
    ("1b-head", 128_256, 2048),
    ("0.5b-qkv", 1152, 896),
    ("0.5b-o", 896, 896),
    ("0.5b-gate+up", 9728, 896),
    ("0.5b-down", 896, 4864),
];
const FORMATS: [(&str, Format); 6] = [
    ("int8-32", Format::Int8(32)),
    ("int8-64", Format::Int8(64)),
    ("int8-128", Format::Int8(128)),
    ("int4-32", Format::Int4(32)),
    ("bf16", Format::Bf16),
    ("f32", Format::F32),
];
/// Rows of activations: decode, a batch, prefill.
const ROWS: [usize; 3] = [1, 8, 512];
/// Matrices that are used in turn together have so many bytes: more than a cache holds, as in a whole model.
const MATRIX_BYTES: usize = 1 << 30;
const KV_TYPES: [(&str, KvType); 3] = [("f32", KvType::F32), ("bf16", KvType::Bf16), ("int8", KvType::Int8)];
const DEPTHS: [usize; 3] = [512, 2048, 8192];
/// Queries of the attention benches: decode, prefill.
const QUERIES: [usize; 2] = [1, 512];

/// A row of the closing table.
struct Row {
    id: String,
    seconds: f64,
    operations: f64,
    bytes: f64,
    int8: bool,
}

/// Collects what criterion has measured.
struct Bench {
    machine: Machine,
    rows: RefCell<Vec<Row>>,
}

impl Bench {
    /// Measures `time(iterations)` and keeps the best time per iteration: whatever else runs only slows down.
    fn measure(
        &self,
        criterion: &mut Criterion,
        (id, throughput): (&str, Throughput),
        row: impl Fn(f64) -> Option<Row>,
        mut time: impl FnMut(u64) -> Result<Duration>,
    ) {
        let (group, name) = id.split_once('/').unwrap_or(("", id));
        let mut best = f64::INFINITY;
        let mut group = criterion.benchmark_group(group);
        group.throughput(throughput);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let elapsed = time(iterations).expect("a bench has the memory and the threads it wants");
                best = best.min(elapsed.as_secs_f64() / iterations as f64);
                elapsed
            });
        });
        group.finish();
        // Infinite where the filter left it out.
        if best.is_finite() {
            self.rows.borrow_mut().extend(row(best));
        }
    }

    fn gemm(&self, criterion: &mut Criterion) {
        for (format_name, format) in FORMATS {
            for (name, n, k) in MATRICES {
                let int8 = matches!(format, Format::Int8(_) | Format::Int4(_));
                let copies = (MATRIX_BYTES / (n * k * if int8 { 1 } else { 2 })).max(1);
                // Packed by the first bench that is not left out.
                let mut packed = None;
                for m in ROWS {
                    let id = format!("gemm/{format_name}/m{m}/{name}");
                    let operations = 2.0 * (m * n * k) as f64;
                    let bytes = self.machine.packed_bytes(format, [n, k]).unwrap_or(0);
                    let row = |seconds| {
                        Some(Row { id: id.clone(), seconds, operations, bytes: bytes as f64, int8 })
                    };
                    let throughput = match m {
                        1 => Throughput::Bytes(bytes),
                        _ => Throughput::Elements((m * n * k) as u64),
                    };
                    self.measure(criterion, (&id, throughput), row, |iterations| {
                        let gemm = match packed.take() {
                            Some(gemm) => gemm,
                            None => self.machine.gemm(format, [n, k], copies)?,
                        };
                        packed.insert(gemm).time(m, iterations)
                    });
                }
            }
        }
    }

    fn attention(&self, criterion: &mut Criterion) {
        for shape in ["llama-3.2-1b", "qwen2.5-0.5b"] {
            for (kv_name, kv) in KV_TYPES {
                for depth in DEPTHS {
                    let mut made = None;
                    for queries in QUERIES {
                        let id = format!("attention/{shape}/kv-{kv_name}/depth{depth}/m{queries}");
                        let keys = (0..queries).map(|query| depth + query + 1).sum::<usize>();
                        let (operations, bytes) =
                            self.machine.attention_work(shape, kv, depth, queries).unwrap_or((0.0, 0));
                        let row = |seconds| {
                            Some(Row {
                                id: id.clone(),
                                seconds,
                                operations,
                                bytes: bytes as f64,
                                int8: kv == KvType::Int8,
                            })
                        };
                        self.measure(
                            criterion,
                            (&id, Throughput::Elements(keys as u64)),
                            row,
                            |iterations| {
                                let bench = match made.take() {
                                    Some(bench) => bench,
                                    None => self.machine.attention(shape, kv, depth)?,
                                };
                                made.insert(bench).time(queries, iterations)
                            },
                        );
                    }
                }
            }
        }
    }

    fn others(&self, criterion: &mut Criterion) {
        for (name, format) in FORMATS {
            if matches!(format, Format::Int8(_) | Format::Int4(_)) {
                for (m, k) in [(1, 2048), (512, 2048), (512, 8192)] {
                    let id = format!("quantize/{name}/m{m}-k{k}");
                    let throughput = Throughput::Elements((m * k) as u64);
                    let time = |iterations| self.machine.time_quantize(format, [m, k], iterations);
                    self.measure(criterion, (&id, throughput), |_| None, time);
                }
            }
            let id = format!("pack/{name}/8192x2048");
            let time = |iterations| self.machine.time_pack(format, [8192, 2048], iterations);
            self.measure(criterion, (&id, Throughput::Elements(8192 * 2048)), |_| None, time);
        }
        for name in VECTORS {
            for len in [2048, 8192] {
                let id = format!("vector/{name}/{len}");
                let time = |iterations| self.machine.time_vector(name, len, iterations);
                self.measure(criterion, (&id, Throughput::Elements(len as u64)), |_| None, time);
            }
        }
    }

    /// Products next to what the machine could do at most.
    fn table(&self) -> Result<()> {
        let rows = self.rows.borrow();
        if rows.is_empty() {
            return Ok(());
        }
        let dram = self.machine.dram_gb_per_s(2 << 30)?;
        let (int8, f32) = (self.machine.int8_gop_per_s()?, self.machine.f32_gflop_per_s()?);
        println!("kernels {:?} of {:?}", self.machine.kernel_names(), Machine::isa_names());
        println!("limits: memory {dram:.1} GB/s, int8 {int8:.0} GOP/s, f32 {f32:.0} GFLOP/s");
        println!("{:<44}{:>12}{:>10}{:>9}{:>9}{:>9}", "", "us", "GOP/s", "of peak", "GB/s", "of DRAM");
        for Row { id, seconds, operations, bytes, int8: is_int8 } in rows.iter() {
            let (gop, gb) = (operations / seconds / 1e9, bytes / seconds / 1e9);
            let peak = if *is_int8 { int8 } else { f32 };
            println!(
                "{id:<44}{:>12.1}{gop:>10.1}{:>8.1}%{gb:>9.2}{:>8.1}%",
                seconds * 1e6,
                gop / peak * 100.0,
                gb / dram * 100.0
            );
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let threads =
        std::env::var("CLAWDBOT_BENCH_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let bench = Bench { machine: Machine::new(threads)?, rows: RefCell::default() };
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    bench.gemm(&mut criterion);
    bench.attention(&mut criterion);
    bench.others(&mut criterion);
    criterion.final_summary();
    bench.table()
}
