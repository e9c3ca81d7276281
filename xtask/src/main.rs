//! Tasks of the repository, run as `cargo xtask <task>`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod compare;
mod layers;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [STEP ...] | generate [--check] | check-layers | check-targets | bench-compare REV

  test               runs everything: format, layers, lints, tests, fuzz, aarch64, documentation, dependencies, python
  test STEP ...      runs these steps
  test --quick       format, layers and the tests next to the code: for every day
  generate           writes the generated files: the C header, and what lists options for Python, C and in docs/options.md
  generate --check   fails if a committed file differs from what would be generated
  check-layers       fails if a module uses one that is above it
  check-targets      compiles the core for other systems: AArch64 Linux, Windows, macOS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["test", ref steps @ ..] => test::run(&root(), steps),
        ["generate"] => test::generate(&root(), &[]),
        ["generate", "--check"] => test::generate(&root(), &["--check"]),
        ["check-layers"] => layers::run(&root()),
        ["check-targets"] => test::check_targets(&root()),
        ["bench-compare", ref arguments @ ..] => compare::run(&root(), arguments),
        _ => Err(format!("{USAGE}\n{}", compare::USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
