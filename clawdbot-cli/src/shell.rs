//! `clawdbot completions` and `clawdbot man`: what is known of the command line, for shells and for readers.

use std::fs;

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clawdbot_core::{Error, ErrorKind};

use crate::Outcome;
use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::output::{Failure, print};

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Outcome, Failure> {
    let shell: Shell =
        args.shell.parse().map_err(|message: String| Error::new(ErrorKind::Internal, message))?;
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "clawdbot", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}

pub(crate) fn man(args: &ManArgs) -> Result<Outcome, Failure> {
    let failed = |error| Error::new(ErrorKind::Io, format!("{}: {error}", args.dir.display()));
    fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.dir).map_err(failed)?;
    Ok(Outcome::Done)
}
