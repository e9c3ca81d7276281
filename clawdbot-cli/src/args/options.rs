//! Options of generation, and adapters.

use std::path::PathBuf;

use clap::Args;
use clawdbot_core::{Error, ErrorKind, GenerateOptions, Model, Result};
use serde::Serialize;

use super::given;
use super::texts::escaped;
use super::values::{Ids, as_map, bias, finite, ids, lora, whole};

/// [`GenerateOptions`].
#[derive(Debug, Args, Serialize)]
#[command(
    next_help_heading = "Generation (what is not given is as the model's generation_config.json says, or else as said here)"
)]
pub(crate) struct OptionArgs {
    /// Name of the LoRA adapter to use, one of those of --lora [default: the one there is, if there is one]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Maximum number of tokens to generate [default: until the model stops or the context is full]
    #[arg(short = 'n', long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    max_tokens: Option<u32>,
    /// 0 takes the most likely token; more is more random [default: 1 for models that say do_sample, 0 for others]
    #[arg(long, value_name = "T", value_parser = finite, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Sample from the K most likely tokens; 0 is off [default: 50 for models that say do_sample, 0 for others]
    #[arg(long, value_name = "K", value_parser = whole::<u32>, allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Sample from the fewest tokens whose probabilities add up to P; 1 is off [default: 1]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Sample from tokens at least P times as likely as the most likely one; 0 is off [default: 0]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Sample from tokens whose surprise is nearest to what is expected, up to a probability of P; 1 is off [default: 1]
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// Make tokens of prompt and output less likely, by a factor; 1 is off [default: 1]
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract from the logits of tokens that are in the output; 0 is off [default: 0]
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract from the logits of tokens in the output, once for each time they are there; 0 is off [default: 0]
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Token that is never generated, instead of those that the model names; may be repeated
    #[arg(long, value_name = "ID", value_parser = whole::<u32>, allow_negative_numbers = true)]
    suppress_tokens: Option<Vec<u32>>,
    /// Token that is not generated first, instead of those that the model names; may be repeated
    #[arg(long, value_name = "ID", value_parser = whole::<u32>, allow_negative_numbers = true)]
    begin_suppress_tokens: Option<Vec<u32>>,
    /// Sequence of tokens that is never generated, instead of those that the model names; may be repeated
    #[arg(long, value_name = "ID,ID...", value_parser = ids)]
    bad_words_ids: Option<Vec<Ids>>,
    /// No N tokens come twice in this order, those of the prompt included; 0 is off [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    no_repeat_ngram_size: Option<u32>,
    /// Tokens that end the generation, of the model and of --stop-token-ids, do not come before there are N others [default: 0]
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    min_tokens: Option<u32>,
    /// Add BIAS to the logit of token ID; may be repeated
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    #[serde(serialize_with = "as_map")]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of the sampler [default: a random one, reported with --json]
    #[arg(long, value_name = "S", value_parser = whole::<u64>, allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Text that ends the generation and is not part of it, instead of those that the model names, with \n, \r, \t, \xNN, \u{N} and \\ as escapes; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = escaped, allow_hyphen_values = true)]
    stop: Option<Vec<String>>,
    /// Token that ends the generation, besides the model's own end-of-sequence tokens; may be repeated
    #[arg(long, value_name = "ID", value_parser = whole::<u32>, allow_negative_numbers = true)]
    stop_token_ids: Vec<u32>,
    /// Take the model's end-of-sequence tokens as ordinary ones: --stop, --stop-token-ids and --max-tokens still end it
    #[arg(long)]
    ignore_eos: bool,
    /// Report the log-probability of each token and of the N most likely ones (with --json)
    #[arg(long, value_name = "N", requires = "json", value_parser = whole::<u32>, allow_negative_numbers = true)]
    logprobs: Option<u32>,
    /// Whether the prompt gets the tokenizer's special tokens, such as BOS
    /// [default: true for generate; false for chat, whose template brings them]
    #[arg(long, value_name = "true|false")]
    add_special_tokens: Option<bool>,
    /// Whether special tokens are left out of the text [default: true]
    #[arg(long, value_name = "true|false")]
    skip_special_tokens: Option<bool>,
}

impl OptionArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<GenerateOptions> {
        GenerateOptions::from_json(&given(self)?)
    }
}

/// LoRA adapters to load with the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Adapters")]
pub(crate) struct LoraArgs {
    /// Directory of a LoRA adapter as PEFT writes it, applied next to the weights; its name is that of the directory unless
    /// given; may be repeated, and --adapter says which is used
    #[arg(long, value_name = "[NAME=]DIR", value_parser = lora)]
    lora: Vec<(String, PathBuf)>,
}

impl LoraArgs {
    /// Loads them, and lets `options` use the one that there is unless they name one.
    ///
    /// # Errors
    /// As `Model::load_adapter`; `InvalidArgument` where it is not said which is used.
    pub(crate) fn load(&self, model: &Model, mut options: GenerateOptions) -> Result<GenerateOptions> {
        for (name, dir) in &self.lora {
            model.load_adapter(name, dir)?;
        }
        if options.adapter.is_none() {
            options.adapter = match self.lora.as_slice() {
                [] => None,
                [(name, _)] => Some(name.clone()),
                several => {
                    let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                    let message = format!("expected --adapter with one of {}", names.join(", "));
                    return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "adapter"));
                }
            };
        }
        Ok(options)
    }
}
