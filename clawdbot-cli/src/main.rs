//! `clawdbot` on the command line: generate, chat, embed, rerank, inspect, pack, bench, evaluate, serve; completions and manual pages.
//!
//! Text and JSON go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage, 130
//! interrupted.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod chat;
mod embed;
mod evaluate;
mod generate;
mod hub;
mod input;
mod inspect;
mod interrupt;
mod load;
mod output;
mod pack;
mod progress;
mod report;
mod serve;
mod shell;
mod stdin;
#[cfg(feature = "tls")]
mod tls;

use std::ffi::OsString;
use std::process::ExitCode;

use args::{Cli, Command, hints, texts};
use clap::{CommandFactory, Parser};
use output::{ErrorForm, Failure, INTERRUPTED, Outcome};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let given = texts::prepare(args.clone(), &mut Cli::command());
    let parsed = given.and_then(Cli::try_parse_from).map_err(|error| hints::with_hint(error, &args));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && hints::wants_json(&args) => {
            return Failure::Library(hints::as_library_error(&error)).report(ErrorForm::Json);
        }
        Err(error) => error.exit(),
    };
    let json = cli.command.json();
    let outcome = interrupt::install().map_err(Failure::from).and_then(|()| match &cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Rerank(args) => embed::rerank(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Key(args) => serve::key(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
    });
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(failure) => failure.report(json.into()),
    }
}
