//! `clawdbot` on the command line: generate, chat, embed, rerank, inspect, pack, bench.
//!
//! Text and JSON go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod chat;
mod embed;
mod generate;
mod hub;
mod inspect;
mod interrupt;
mod output;
mod pack;
mod progress;
mod report;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use output::Failure;

/// What a command comes to when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Something failed and was reported already.
    Failed,
    /// Ctrl-C; what there was is printed.
    Interrupted,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.command.json();
    let outcome = interrupt::install().map_err(Failure::from).and_then(|()| match &cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Rerank(args) => embed::rerank(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Bench(args) => bench::run(args),
    });
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(failure) => failure.report(json),
    }
}
