//! The command line. Options that the library has are declared once, under the library's names.

mod bench;
mod chat;
mod embed;
mod generate;
pub(crate) mod hints;
mod inspect;
mod load;
mod options;
mod pack;
mod shell;
pub(crate) mod texts;
mod values;

use clap::{Parser, Subcommand};
use clawdbot_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) use bench::BenchArgs;
pub(crate) use chat::{CHAT_COMMANDS, ChatArgs};
pub(crate) use embed::{BatchArgs, EmbedArgs, RerankArgs};
pub(crate) use generate::GenerateArgs;
pub(crate) use inspect::InspectArgs;
pub(crate) use load::{CommonArgs, LoadArgs, OutputArgs, RuntimeArgs};
pub(crate) use options::{LoraArgs, OptionArgs};
pub(crate) use pack::PackArgs;
pub(crate) use shell::{CompletionsArgs, ManArgs};
pub(crate) use texts::Given;

/// What a model may be, where there is one without.
const MODEL: &str =
    "Model: a directory, GGUF or packed file, or a name OWNER/NAME [default: the built-in story model]";

const EXAMPLES: &str = "\
Examples:
  clawdbot generate                                  a story from the built-in model
  clawdbot generate -m DIR \"The sea\"                 continue a text
  clawdbot generate -m DIR - < letter.txt            the text from stdin
  clawdbot chat DIR --system \"Be brief.\"             a conversation
  clawdbot chat Qwen/Qwen3-0.6B                      with a model from Hugging Face
  clawdbot embed -m DIR --input lines.txt            texts to vectors
  clawdbot inspect DIR --weights bf16                what a model is and would cost
  clawdbot pack DIR model.clawdbot                   the whole model in one file that loads at once
  clawdbot bench --shape llama-3.2-1b                how fast this machine is

A model is a directory as Hugging Face publishes it (config.json, *.safetensors, tokenizer.json), a GGUF file (the first
of a split one), or a packed file. Or it is named: OWNER/NAME on Hugging Face, OWNER/NAME:Q4_K_M for a GGUF file there, or
the address of its page; it is downloaded once, into the cache that Hugging Face's own tools use.
--kernels, or the environment variable CLAWDBOT_ISA, forces an instruction-set tier.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// Language models inside your own program, on the CPU you have.
#[derive(Debug, Parser)]
#[command(name = "clawdbot", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a text
    Generate(GenerateArgs),
    /// Talk to a model that has a chat template
    Chat(ChatArgs),
    /// Turn texts into vectors
    Embed(EmbedArgs),
    /// Order documents by how well they answer a query
    Rerank(RerankArgs),
    /// Say what a model is and what it would cost, without reading its weights
    Inspect(InspectArgs),
    /// Write a model to one file, weights as they are computed with
    Pack(PackArgs),
    /// Measure prefill and decode
    Bench(BenchArgs),
    /// Print a script that completes commands and options in a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
}

impl Command {
    pub(crate) fn json(&self) -> bool {
        match self {
            Command::Generate(args) => args.common.output.json,
            Command::Chat(args) => args.common.output.json,
            Command::Embed(args) => args.batch.common.output.json,
            Command::Rerank(args) => args.batch.common.output.json,
            Command::Inspect(args) => args.json,
            Command::Pack(args) => args.output.json,
            Command::Bench(args) => args.common.output.json,
            Command::Completions(_) | Command::Man(_) => false,
        }
    }
}

/// What was given; what was not keeps the library's default.
pub(crate) fn given(args: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(args) {
        Ok(Value::Object(mut object)) => {
            object.retain(|_, value| !value.is_null());
            Ok(object)
        }
        other => {
            Err(Error::new(ErrorKind::Internal, format!("expected options as an object, found {other:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::embed::{EmbedOptionArgs, RerankOptionArgs};
    use super::*;
    use clap::{Args, CommandFactory};
    use clawdbot_core::{EmbedOptions, GenerateOptions, ModelOptions, RerankOptions, RuntimeOptions};

    fn names<T: Args>() -> Vec<String> {
        T::augment_args(clap::Command::new("")).get_arguments().map(|arg| arg.get_id().to_string()).collect()
    }

    #[test]
    fn options_are_those_of_the_library() {
        assert_eq!(names::<OptionArgs>(), GenerateOptions::NAMES);
        // The program has the chat template in a file.
        let names_of_model: Vec<&str> =
            ModelOptions::NAMES.iter().copied().filter(|name| *name != "chat_template").collect();
        assert_eq!(names::<LoadArgs>(), names_of_model);
        assert_eq!(names::<EmbedOptionArgs>(), EmbedOptions::NAMES);
        assert_eq!(names::<RerankOptionArgs>(), RerankOptions::NAMES);
        assert_eq!(names::<RuntimeArgs>(), RuntimeOptions::NAMES);
        Cli::command().debug_assert();
    }

    #[test]
    fn options_reach_the_library() {
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Generate(args) => args.options.options(),
            other => panic!("{other:?}"),
        };
        let options =
            parse("clawdbot generate --top-p 0.9 --logit-bias 7=-1.5 --stop a --stop b --ignore-eos");
        let expected =
            GenerateOptions::default().top_p(0.9).stop(vec!["a".into(), "b".into()]).ignore_eos(true);
        assert_eq!(options.unwrap(), expected.logit_bias([(7, -1.5)]));
        assert_eq!(parse("clawdbot generate").unwrap(), GenerateOptions::default());
        assert_eq!(parse("clawdbot generate --top-p 2").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
