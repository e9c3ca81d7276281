//! `generate`

use std::path::PathBuf;

use clap::Args;
use clawdbot_core::{Error, ErrorKind, Result};

use super::texts::{self, Given, escaped};
use super::{CommonArgs, LoraArgs, MODEL, OptionArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot generate --temperature 0.8 --seed 7 --max-tokens 100
  clawdbot generate -m DIR \"The sea\" -n 50
  clawdbot generate -m DIR --prompt-file letter.txt --temperature 0 --stop '\\n\\n'
  clawdbot generate -m DIR -p '- one\\n- two\\n-' --escape --stop '\\n'
  echo \"Once upon a time\" | clawdbot generate - --quiet

A prompt is taken as it is: a dash in front does no harm, and only --escape makes anything of backslashes. --stop always
reads \\n, \\r, \\t, \\xNN, \\u{N}, and \\\\ for a backslash. The line end at the end of stdin is dropped, that of a file
is kept; a byte order mark is dropped from both.

The text goes to stdout as it comes, one line of figures to stderr. With --json stdout gets one object instead: text,
token_ids, finish_reason, usage, logprobs, prompt_logprobs, options in force; or {\"error\": {code, kind, message, detail}}.")]
pub(crate) struct GenerateArgs {
    /// Text to continue; `-` reads stdin [default for the built-in model: "Once upon a time"]
    #[arg(value_name = "PROMPT", value_parser = texts::text, conflicts_with_all = ["prompt", "prompt_file"])]
    text: Option<Given>,
    #[arg(short, long, value_name = "MODEL", help = MODEL)]
    pub(crate) model: Option<PathBuf>,
    /// The same as PROMPT
    #[arg(short, long, value_name = "TEXT", value_parser = texts::text, conflicts_with = "prompt_file", allow_hyphen_values = true)]
    prompt: Option<Given>,
    /// File with the text to continue; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Read \n, \r, \t, \xNN, \u{N} and \\ in the prompt of the command line
    #[arg(short, long, conflicts_with = "prompt_file")]
    escape: bool,
    #[command(flatten)]
    pub(crate) options: OptionArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl GenerateArgs {
    /// The prompt of the command line as it stands there.
    pub(crate) fn given(&self) -> Option<&Given> {
        self.text.as_ref().or(self.prompt.as_ref())
    }

    /// The prompt of the command line, if it has one.
    ///
    /// # Errors
    /// `InvalidArgument` for an escape that is none.
    pub(crate) fn prompt(&self) -> Result<Option<Given>> {
        let invalid = |message| Error::new(ErrorKind::InvalidArgument, message).with("option", "prompt");
        match self.given() {
            Some(Given::Text(text)) if self.escape => match escaped(text) {
                Ok(text) => Ok(Some(Given::Text(text))),
                Err(message) => Err(invalid(format!("option prompt: {message}"))),
            },
            given => Ok(given.cloned()),
        }
    }
}
