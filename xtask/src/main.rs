//! Tasks of the repository, run as `cargo xtask <task>`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod circles;
mod command;
mod compare;
mod install;
mod layers;
mod models;
mod package;
mod sanitize;
mod skip;
mod sources;
mod targets;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK

  check-layers       fails if a module uses one that is above it, or files use each other in a circle
  check-targets      compiles the crates for other systems: AArch64 Linux, Windows, macOS
  generate           writes the generated files: the C header, and what lists options for Python, C and in docs/options.md
  generate --check   fails if a committed file differs from what would be generated
  models             explores the thread pool and the way of events in all orders of their operations (loom)
  package            packs the crates as they are published, and builds what was packed";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["test", ref arguments @ ..] => test::run(&root(), arguments),
        ["bench-compare", ref arguments @ ..] => compare::run(&root(), arguments),
        ["check-layers"] => layers::run(&root()),
        ["check-targets"] => targets::run(&root()),
        ["generate"] => generate(&[]),
        ["generate", "--check"] => generate(&["--check"]),
        ["models"] => models::run(&root()),
        ["package"] => package::run(&root()),
        ["sanitize", ref names @ ..] => sanitize::run(&root(), names).and_then(|skipped| match skipped {
            Some(skip) => Err(skip.to_string()),
            None => Ok(()),
        }),
        _ => Err([USAGE, compare::USAGE, sanitize::USAGE, test::USAGE].join("\n")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the program that writes generated files. (Its own test, part of the step "tests", checks the committed ones.)
fn generate(arguments: &[&str]) -> Result<(), String> {
    command::cargo(&root(), &[&["run", "--quiet", "--package", "xtask-generate", "--"], arguments].concat())
}

/// The workspace's root.
fn root() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    directory.parent().unwrap_or(directory).to_owned()
}
