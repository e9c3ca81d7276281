//! `chat`

use std::path::PathBuf;

use clap::Args;
use clawdbot_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};

use super::values::variable;
use super::{CommonArgs, LoraArgs, MODEL, OptionArgs};

/// What /help says.
macro_rules! commands {
    () => {
        "\
Every line is a message. A line that ends with \\ goes on in the next one, and \"\"\" begins a message that goes on to the next
\"\"\". On a terminal lines can be edited, and earlier ones come back with the arrow keys. Lines that begin with / are commands:

  /help          say this
  /reset         forget the conversation, but for the system message
  /system TEXT   replace the system message; without TEXT remove it
  /save FILE     write the conversation to FILE, as a JSON list of messages
  /quit          leave, as the end of input does

Ctrl-C stops an answer; at the prompt it leaves."
    };
}

/// What /help says.
pub(crate) const CHAT_COMMANDS: &str = commands!();

#[derive(Debug, Args)]
#[command(after_help = concat!("\
Examples:
  clawdbot chat DIR --system \"Be brief.\"
  clawdbot chat DIR --template-variable enable_thinking=false
  clawdbot chat DIR --temperature 0.7 --history history.txt
  printf 'Hello\\n/save talk.json\\n' | clawdbot chat --quiet

", commands!(), "
With --json every answer, or error, is one object on a line.
A message that cannot be answered is taken back; the exit code is 1 if there was one."))]
pub(crate) struct ChatArgs {
    #[arg(value_name = "MODEL", conflicts_with = "model", help = MODEL)]
    named: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// System message at the head of the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    /// File with a chat template (Jinja) to use instead of the model's own
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Variable for the chat template, such as enable_thinking=false: JSON, or else a text; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    template_variable: Vec<(String, Value)>,
    /// File that keeps the lines typed on a terminal, for the arrow keys of the next time [default: they are not kept]
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: OptionArgs,
    #[command(flatten)]
    pub(crate) lora: LoraArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl ChatArgs {
    /// The model, if one is given.
    pub(crate) fn model(&self) -> Option<&PathBuf> {
        self.named.as_ref().or(self.model.as_ref())
    }

    /// The variables for the template.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is given twice.
    pub(crate) fn variables(&self) -> Result<Map<String, Value>> {
        let mut variables = Map::new();
        for (name, value) in &self.template_variable {
            if variables.insert(name.clone(), value.clone()).is_some() {
                let message = format!("option template_variable: expected {name} once, found it twice");
                return Err(
                    Error::new(ErrorKind::InvalidArgument, message).with("option", "template_variable")
                );
            }
        }
        Ok(variables)
    }
}
