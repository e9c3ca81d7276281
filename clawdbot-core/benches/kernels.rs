//! Rates of the kernels beside the machine's limits, measured in the same run.
//!
//! `cargo bench --features bench-support --bench kernels -- [threads] [filter: limits prefill batch tiles decode pack vector, and formats: int8 int4 bf16 f32]`
#![allow(clippy::print_stdout, reason = "printing is the purpose")]

use clawdbot_core::Result;
use clawdbot_core::bench_support::{Format, Machine};

/// Name, n, k of the layers.
const LLAMA_1B: &[(&str, usize, usize)] = &[
    ("1B qkv", 3072, 2048),
    ("1B o", 2048, 2048),
    ("1B gate+up", 16384, 2048),
    ("1B up", 8192, 2048),
    ("1B down", 2048, 8192),
];
const QWEN_05B: &[(&str, usize, usize)] =
    &[("0.5B qkv", 1152, 896), ("0.5B o", 896, 896), ("0.5B gate+up", 9728, 896), ("0.5B down", 896, 4864)];

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let threads = args.first().and_then(|arg| arg.parse().ok());
    if threads.is_some() {
        args.remove(0);
    }
    let named = |format: Format| match format {
        Format::Int8(_) => "int8",
        Format::Int4(_) => "int4",
        Format::Bf16 => "bf16",
        Format::F32 => "f32",
    };
    let (only, args): (Vec<String>, Vec<String>) =
        args.into_iter().partition(|arg| ["int8", "int4", "bf16", "f32"].contains(&arg.as_str()));
    let wanted = |part: &str| args.is_empty() || args.iter().any(|arg| arg == part);
    let machine = Machine::new(threads.unwrap_or(2))?;
    println!("kernels {:?} of {:?}", machine.kernel_names(), Machine::isa_names());
    let dram = machine.dram_gb_per_s(2 << 30)?;
    let int8 = machine.int8_gop_per_s()?;
    let f32 = machine.f32_gflop_per_s()?;
    println!("limits: DRAM {dram:.2} GB/s, int8 {int8:.0} GOP/s, f32 {f32:.0} GFLOP/s");
    let shapes = || LLAMA_1B.iter().chain(QWEN_05B);
    let mut formats = vec![
        Format::Int8(32),
        Format::Int8(64),
        Format::Int8(128),
        Format::Int4(32),
        Format::Bf16,
        Format::F32,
    ];
    formats.retain(|&format| only.is_empty() || only.iter().any(|name| name == named(format)));
    let rows = |m: usize| {
        formats.iter().try_for_each(|&format| {
            for &(name, n, k) in shapes() {
                let times = machine.gemm(format, m, n, k, 1, 0.3)?;
                let rate = 2.0 * (m * n * k) as f64 / times.gemm / 1e9;
                let roof = if matches!(format, Format::Int8(_) | Format::Int4(_)) { int8 } else { f32 };
                println!(
                    "m {m:4} {format:?} {name:12} {rate:7.0} GOP/s {:5.1} % of peak (quantize +{:.1} %)",
                    rate / roof * 100.0,
                    times.quantize / times.gemm * 100.0
                );
            }
            Result::<()>::Ok(())
        })
    };
    if wanted("tiles") {
        // Short enough to be left alone by other work on the machine now and then.
        for (k, group) in [(2048, 32), (2048, 64), (2048, 128), (2048, 256), (8192, 32)] {
            let times = machine.gemm(Format::Int8(group), 128, 480, k, 1, 0.5)?;
            let rate = 2.0 * (128 * 480 * k) as f64 / times.gemm / 1e9;
            println!("m 128 n 480 k {k} group {group}: {rate:.0} GOP/s {:.1} % of peak", rate / int8 * 100.0);
        }
        for format in [Format::Bf16, Format::F32] {
            let times = machine.gemm(format, 128, 192, 2048, 1, 0.5)?;
            let rate = 2.0 * (128 * 192 * 2048) as f64 / times.gemm / 1e9;
            println!("m 128 n 192 k 2048 {format:?}: {rate:.0} GFLOP/s {:.1} % of peak", rate / f32 * 100.0);
        }
    }
    if wanted("prefill") {
        rows(512, &formats)?;
    }
    if args.iter().any(|arg| arg == "prefill-int8") {
        rows(512, &[Format::Int8(64)])?;
    }
    if wanted("batch") {
        for m in [8, 16, 32, 64] {
            for &(name, n, k) in shapes() {
                let copies = (2 << 30) / (n * k) + 1;
                let times = machine.gemm(Format::Int8(32), m, n, k, copies, 0.5)?;
                let rate = times.bytes as f64 / times.gemm / 1e9;
                let share = 2.0 * (m * n * k) as f64 / times.gemm / 1e9 / int8;
                println!(
                    "m {m:3} {name:12} {rate:6.2} GB/s {:5.1} % of DRAM, {:5.1} % of peak",
                    rate / dram * 100.0,
                    share * 100.0
                );
            }
        }
    }
    if wanted("decode") {
        for &format in &formats {
            for &(name, n, k) in shapes() {
                let copies = (3 << 30)
                    / (n * k * if matches!(format, Format::Int8(_) | Format::Int4(_)) { 1 } else { 3 })
                    + 1;
                let times = machine.gemm(format, 1, n, k, copies, 0.5)?;
                let rate = times.bytes as f64 / times.gemm / 1e9;
                println!(
                    "m 1 {format:?} {name:12} {rate:6.2} GB/s {:5.1} % of DRAM (quantize +{:.1} %)",
                    rate / dram * 100.0,
                    times.quantize / times.gemm * 100.0
                );
            }
        }
    }
    if wanted("pack") {
        for &format in &formats {
            let times = machine.gemm(format, 1, 8192, 2048, 4, 0.01)?;
            println!("pack {format:?}: {:.2} GB of bf16 per s", (8192 * 2048 * 2) as f64 / times.pack / 1e9);
        }
    }
    if wanted("vector") {
        for len in [2048, 8192] {
            for (name, seconds) in machine.vector(len) {
                println!("{name} {len}: {:.2} elements per ns", len as f64 / seconds / 1e9);
            }
        }
    }
    Ok(())
}
