//! `generate` and `chat`

use std::path::PathBuf;

use clap::Args;

use super::{LoadArgs, LoraArgs, OptionArgs, OutputArgs, RuntimeArgs};
use crate::hub::HubArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot generate --seed 7 --max-tokens 100
  clawdbot generate --model DIR --prompt-file letter.txt --temperature 0 --stop \"\\n\\n\"
  echo \"Once upon a time\" | clawdbot generate --prompt - --quiet

The text goes to stdout as it comes, one line of figures to stderr. With --json stdout gets one object instead: text,
token_ids, finish_reason, usage, options in force; or {\"error\": {code, kind, message, detail}}.")]
pub(crate) struct GenerateArgs {
    /// Model directory, GGUF or packed file, or OWNER/NAME [default: the built-in story model]
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    /// Text to continue; `-` reads stdin [default for the built-in model: "Once upon a time"]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    pub(crate) prompt: Option<String>,
    /// File with the text to continue; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: OptionArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every line is a message. /reset forgets the conversation, /exit or the end of input leaves, /help lists the commands.
Ctrl-C stops an answer; at the prompt it leaves. With --json every answer, or error, is one object on a line.
A message that cannot be answered is taken back; the exit code is 1 if there was one.")]
pub(crate) struct ChatArgs {
    /// Model directory, GGUF or packed file, or OWNER/NAME [default: the built-in story model]
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
    /// System message at the head of the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) options: OptionArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
