//! `completions` and `man`

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

/// Shells that a script can be written for.
pub(crate) const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot completions bash > clawdbot.bash
  source <(clawdbot completions bash)

To have them in every shell, write the script to where the shell looks for it:
  bash   ~/.local/share/bash-completion/completions/clawdbot
  zsh    _clawdbot in a directory of $fpath
  fish   ~/.config/fish/completions/clawdbot.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = PossibleValuesParser::new(SHELLS))]
    pub(crate) shell: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot man man1
  man -l man1/clawdbot-generate.1")]
pub(crate) struct ManArgs {
    /// Directory to write to, which is made if it is not there: clawdbot.1, and a page for every command
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
