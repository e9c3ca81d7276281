//! What is not tested on this machine, and why. Files of other crates' tests have it by its path.
#![allow(dead_code, reason = "each of them uses some of it")]

use std::io::Write;

/// Says so; `cargo xtask test` lists all of it in the end.
pub fn skipped(what: &str) {
    println!("skipped: {what}");
    record(what);
}

/// As [`skipped`], where the machine could do it: with `--no-skip`, `cargo xtask test` fails.
pub fn not_installed(what: &str, package: &str) {
    println!("skipped: {what}: {package} is not installed");
    record(&format!("{what}: {package} is not installed\tapt-get install {package}"));
}

/// Appends a line to the file that `cargo xtask test` reads: what, and after a tab the remedy.
fn record(line: &str) {
    if let Some(path) = std::env::var_os("CLAWDBOT_SKIPPED") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
