//! Writing to stdout and stderr, and how a command ended: outcomes, failures, exit codes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clawdbot_core::{Error, ErrorKind};
use serde_json::{Value, json};

use crate::args::Cli;

/// Exit code after Ctrl-C: 128 + SIGINT, as in shells.
pub(crate) const INTERRUPTED: u8 = 130;

/// Result of a command that returned no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Something failed and was already reported.
    Failed,
    /// Ctrl-C; partial output was printed.
    Interrupted,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library.
    Library(Error),
    /// Stdout cannot be written.
    Stdout(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Library(error)
    }
}

impl Failure {
    /// Reports it to the user, and returns the exit code.
    pub(crate) fn report(self, form: ErrorForm) -> ExitCode {
        match self {
            // The reader has closed the pipe, as in `clawdbot ...
            //
            // head`.
            Failure::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Failure::Stdout(error) => {
                note(format_args!("error: stdout: {error}"));
                ExitCode::FAILURE
            }
            Failure::Library(error) => {
                tell(&error, form);
                match error.kind() {
                    ErrorKind::Cancelled => ExitCode::from(INTERRUPTED),
                    ErrorKind::UnknownOption => ExitCode::from(2),
                    // An invalid option, as opposed to content of a model or a conversation.
                    ErrorKind::InvalidArgument if error.detail().contains_key("option") => ExitCode::from(2),
                    _ => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// How errors are reported.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ErrorForm {
    /// Text on stderr.
    Text,
    /// An object on stdout.
    Json,
}

/// From the flag `--json`.
impl From<bool> for ErrorForm {
    fn from(json: bool) -> Self {
        if json { ErrorForm::Json } else { ErrorForm::Text }
    }
}

/// Reports an error.
pub(crate) fn tell(error: &Error, form: ErrorForm) {
    match form {
        ErrorForm::Json => {
            // If stdout is closed too, only the exit code remains.
            let _ = print_line(&error_json(error));
        }
        ErrorForm::Text => note(format_args!("error: {}", in_own_terms(error.message()))),
    }
}

/// A message of the library with options as on the command line: `option max_tokens` becomes `--max-tokens`, `truncate`
/// becomes `--truncate`. Numbers of system errors are dropped.
pub(crate) fn in_own_terms(message: &str) -> String {
    let mut text = message.to_owned();
    while let Some((start, length)) =
        text.find(" (os error ").and_then(|at| Some((at, text[at..].find(')')? + 1)))
    {
        text.replace_range(start..start + length, "");
    }
    let mut command = Cli::command();
    command.build();
    let options = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let names: BTreeSet<&str> = options.filter_map(clap::Arg::get_long).collect();
    for name in names {
        let id = name.replace('-', "_");
        for (before, after) in [("the option ", ""), ("option ", ""), ("`", "`")] {
            let written = format!("{before}{id}{after}");
            let mut from = 0;
            while let Some(at) = text[from..].find(&written).map(|at| at + from) {
                let end = at + written.len();
                let whole = !text[..at].ends_with(|c: char| c.is_alphanumeric())
                    && !text[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
                from = end;
                if whole {
                    text.replace_range(at..end, &format!("{after}--{name}{after}"));
                    from = at;
                }
            }
        }
    }
    text
}

/// `{"error": {"code", "kind", "message", "detail"}}`
fn error_json(error: &Error) -> Value {
    json!({"error": {
        "code": error.code(),
        "kind": error.kind().name(),
        "message": error.message(),
        "detail": error.detail(),
    }})
}

/// Writes to stdout and flushes.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

/// Writes a line to stdout and flushes.
pub(crate) fn print_line(line: &impl Display) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

/// Prints a warning on stderr, over a status line if there is one.
pub(crate) fn warn(message: &str) {
    let erase = if io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
    note(format_args!("{erase}warning: {message}"));
}

/// Writes a line to stderr; ignores a closed stderr.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
