//! What is generated: `cargo xtask generate [--check]` runs this. A test checks the committed files.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod header;
mod python;
mod tables;
mod words;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mode = match std::env::args().nth(1).as_deref() {
        Some("--check") => Mode::Check,
        _ => Mode::Write,
    };
    match generate(mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file, and what makes its text; of files that are generated in part, out of what there is.
struct File {
    name: &'static str,
    text: fn(&str) -> Result<String, String>,
}

const FILES: &[File] = &[
    File { name: "include/clawdbot.h", text: |_| header::generate(&root()) },
    File { name: "docs/options.md", text: |_| tables::markdown() },
    File { name: "python/clawdbot/options.py", text: |_| python::typed_dicts() },
    File { name: "python/clawdbot/_clawdbot.pyi", text: python::with_lists },
    File { name: "clawdbot-py/src/model.rs", text: python::with_lists },
    File { name: "clawdbot-py/src/runtime.rs", text: python::with_lists },
];

/// What to do with files that are not as they would be generated.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Write,
    Check,
}

/// Writes every generated file, or checks all of them.
fn generate(mode: Mode) -> Result<(), String> {
    let mut stale = Vec::new();
    for File { name, text } in FILES {
        let path = root().join(name);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let wanted = text(&found).map_err(|error| format!("{name}: {error}"))?;
        if found == wanted {
            println!("{name}: up to date");
        } else if mode == Mode::Check {
            stale.push(format!("{name}, {}", difference(&found, &wanted)));
        } else {
            std::fs::write(&path, wanted).map_err(|error| format!("{name}: {error}"))?;
            println!("{name}: written");
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => Err(format!("out of date, run `cargo xtask generate`:\n{}", stale.join("\n"))),
    }
}

/// The first line in which two texts differ.
fn difference(found: &str, wanted: &str) -> String {
    let (mut found, mut wanted) = (found.lines(), wanted.lines());
    let mut line = 1;
    loop {
        match (found.next(), wanted.next()) {
            (None, None) => return "the files differ in their line ends".to_owned(),
            (a, b) if a == b => line += 1,
            (a, b) => {
                let (a, b) = (a.unwrap_or("(end of file)"), b.unwrap_or("(end of file)"));
                return format!("first difference in line {line}:\n- {a}\n+ {b}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        assert!(difference("a\nb", "a\nc").contains("line 2:\n- b\n+ c"));
        assert!(difference("a", "a\nc").contains("+ c"));
    }

    #[test]
    fn committed_files_are_up_to_date() {
        generate(Mode::Check).unwrap();
    }
}
