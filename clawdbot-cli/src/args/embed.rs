//! `embed` and `rerank`

use std::path::PathBuf;

use clap::Args;
use clawdbot_core::{EmbedOptions, Pooling, RerankOptions, Result};
use serde::Serialize;

use super::texts::{self, Given};
use super::values::{named, whole};
use super::{CommonArgs, given};

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
    pub(crate) options: EmbedOptionArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
}

/// [`EmbedOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Embedding (defaults come from the model's own files)")]
pub(crate) struct EmbedOptionArgs {
    /// How the states of a text's tokens become its one vector
    #[arg(long, value_name = "KIND", value_parser = named::<Pooling>(Pooling::ALL.map(Pooling::name)))]
    pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1
    #[arg(long, value_name = "true|false")]
    normalize: Option<bool>,
    /// Name of the model's prompt to put before each text
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    /// Text to put before each text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Keep the first N elements of each vector
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    dimensions: Option<u32>,
    /// Cut texts that are too long instead of refusing them
    #[arg(long)]
    truncate: bool,
    /// Whether texts get the tokenizer's special tokens [default: true]
    #[arg(long, value_name = "true|false")]
    add_special_tokens: Option<bool>,
}

impl EmbedOptionArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<EmbedOptions> {
        EmbedOptions::from_json(&given(self)?)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot rerank -m DIR --query \"how do ships sail?\" --input passages.txt

The best document comes first: its score, a tab, the document; with --json an object: index, score, document.")]
pub(crate) struct RerankArgs {
    /// What is looked for; `-` reads stdin
    #[arg(long, value_name = "TEXT", value_parser = texts::text, allow_hyphen_values = true)]
    pub(crate) query: Given,
    /// Documents; `-` reads one from stdin
    #[arg(value_name = "DOCUMENT", conflicts_with = "input", value_parser = texts::text)]
    pub(crate) documents: Vec<Given>,
    #[command(flatten)]
    pub(crate) options: RerankOptionArgs,
    #[command(flatten)]
    pub(crate) batch: BatchArgs,
}

/// [`RerankOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Reranking")]
pub(crate) struct RerankOptionArgs {
    /// Whether scores are probabilities instead of logits [default: as the model's files say, or true]
    #[arg(long, value_name = "true|false")]
    sigmoid: Option<bool>,
    /// What makes a document an answer to the query, for models that take it in words (Qwen3-Reranker)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    instruction: Option<String>,
    /// Cut texts that are too long instead of refusing them
    #[arg(long)]
    truncate: bool,
}

impl RerankOptionArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<RerankOptions> {
        RerankOptions::from_json(&given(self)?)
    }
}
