//! What limits many threads, as far as a machine with few cores can say: how work is divided, how many steps there are, and
//! what a step costs.
//!
//! `cargo bench -p clawdbot-core --features bench-support --bench scaling -- [SHAPE...]`. The split, the steps and their tasks
//! are those of the library for that number of threads; one thread runs them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::time::Duration;

use clawdbot_core::bench_support::{Machine, MatrixShares, Scaling};

const SHAPES: [&str; 3] = ["qwen2.5-0.5b", "llama-3.2-1b", "llama-3.1-8b"];
const THREADS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const PROMPT: usize = 512;
/// Of a thread in a step.
const WORK: Duration = Duration::from_micros(5);
/// Context of a decoded token.
const DEPTH: usize = 512;

/// The time of all matrices relative to what it would be with equal shares.
fn overall(matrices: &[MatrixShares]) -> f64 {
    let bytes = |matrix: &MatrixShares| matrix.bytes as f64 * matrix.count as f64;
    let all: f64 = matrices.iter().map(bytes).sum();
    matrices.iter().map(|matrix| bytes(matrix) * matrix.imbalance).sum::<f64>() / all
}

fn table(scaling: &mut Scaling, rows: usize, depth: usize) {
    let names: Vec<&str> = scaling.matrices(1, rows).iter().map(|matrix| matrix.name).collect();
    println!("| threads | steps | one thread | of it serial | {} | all |", names.join(" | "));
    println!("|--:|--:|--:|--:|{}--:|", "--:|".repeat(names.len()));
    for threads in THREADS {
        let pass = scaling.pass(threads, rows, depth).unwrap();
        let matrices = scaling.matrices(threads, rows);
        let cells: Vec<String> = matrices
            .iter()
            .map(|matrix| format!("{:.2} ({:.1})", matrix.imbalance, matrix.tasks as f64 / threads as f64))
            .collect();
        // One thread does everything alone.
        let serial = if threads > 1 { format!("{:.2} ms", pass.serial) } else { "-".to_owned() };
        let (steps, all, cells) = (pass.steps, overall(&matrices), cells.join(" | "));
        println!("| {threads} | {steps} | {:.1} ms | {serial} | {cells} | {all:.2} |", pass.milliseconds);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let shapes: Vec<&str> =
        if args.is_empty() { SHAPES.to_vec() } else { args.iter().map(String::as_str).collect() };
    println!("What a step takes longer than the work of its threads, {} µs each:", WORK.as_micros());
    for threads in [1, 2] {
        let machine = Machine::new(threads).unwrap();
        let times = (0..200).map(|_| machine.time_steps(100, WORK).unwrap().as_secs_f64() / 100.0);
        let mut times: Vec<f64> = times.map(|time| (time - WORK.as_secs_f64()) * 1e9).collect();
        times.sort_by(f64::total_cmp);
        println!("- {threads} threads: {:.0} ns at the least, median {:.0} ns", times[0], times[100]);
    }
    println!("\nThe largest share of a thread relative to the mean, and in brackets tasks per thread:");
    for shape in shapes {
        let mut scaling = Scaling::new(shape).unwrap();
        println!("\n{shape}, one token after {DEPTH}:\n");
        table(&mut scaling, 1, DEPTH);
        println!("\n{shape}, {PROMPT} tokens of a prompt:\n");
        table(&mut scaling, PROMPT, 0);
    }
}
