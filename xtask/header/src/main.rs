//! The C header: `cargo xtask generate [--check]` runs this. A test checks the committed file.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod header;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let check = std::env::args().nth(1).is_some_and(|argument| argument == "--check");
    match generate(check) {
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

/// Writes every generated file, or checks it.
fn generate(check: bool) -> Result<(), String> {
    let name = "include/clawdbot.h";
    let path = root().join(name);
    let wanted = header::generate(&root())?;
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if found == wanted {
        println!("{name}: up to date");
        return Ok(());
    }
    if check {
        return Err(format!(
            "{name} is out of date: run `cargo xtask generate`\n{}",
            difference(&found, &wanted)
        ));
    }
    std::fs::write(&path, wanted).map_err(|error| format!("{name}: {error}"))?;
    println!("{name}: written");
    Ok(())
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
        generate(true).unwrap();
    }
}
