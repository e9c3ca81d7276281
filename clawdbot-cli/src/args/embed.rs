//! `embed` and `rerank`

use std::path::PathBuf;

use clap::Args;
use clawdbot_core::{EmbedOptions, RerankOptions};

use super::CommonArgs;
use super::flags::Flags;
use super::texts::{self, Given};

/// The model, and a file with what it reads.
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    /// Model: a directory, GGUF or packed file, or a name OWNER/NAME
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: PathBuf,
    /// File with one text a line; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot embed -m DIR \"a text\" \"- another\"
  clawdbot embed -m DIR --input lines.txt --prompt-name query --json

A text is a line of numbers; with --json an object: index, embedding. Texts are computed together.")]
pub(crate) struct EmbedArgs {
    /// Texts; `-` reads one from stdin
    #[arg(value_name = "TEXT", conflicts_with = "input", value_parser = texts::text)]
    pub(crate) texts: Vec<Given>,
    #[command(flatten)]
    pub(crate) options: Flags<EmbedOptions>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot rerank -m DIR --query \"how do ships sail?\" --input passages.txt

The best document comes first: its score, a tab, the document; with --json an object: index, score, document.")]
pub(crate) struct RerankArgs {
    /// The query; `-` reads stdin
    #[arg(long, value_name = "TEXT", value_parser = texts::text, allow_hyphen_values = true)]
    pub(crate) query: Given,
    /// Documents; `-` reads one from stdin
    #[arg(value_name = "DOCUMENT", conflicts_with = "input", value_parser = texts::text)]
    pub(crate) documents: Vec<Given>,
    #[command(flatten)]
    pub(crate) options: Flags<RerankOptions>,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
}
