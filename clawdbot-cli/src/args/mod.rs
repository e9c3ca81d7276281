//! The command line. Flags of the library's options come from its table (`flags.rs`).

mod bench;
mod chat;
mod embed;
mod evaluate;
mod flags;
mod generate;
pub(crate) mod hints;
mod inspect;
mod load;
mod options;
mod pack;
mod serve;
mod shell;
pub(crate) mod texts;
#[cfg(feature = "tls")]
mod tls;
mod values;

use clap::{Parser, Subcommand};

pub(crate) use bench::BenchArgs;
pub(crate) use chat::{CHAT_COMMANDS, ChatArgs};
pub(crate) use embed::{BatchArgs, EmbedArgs, RerankArgs};
pub(crate) use evaluate::EvaluateArgs;
pub(crate) use generate::GenerateArgs;
pub(crate) use inspect::InspectArgs;
pub(crate) use load::{CommonArgs, HubArgs, LoadArgs, OutputArgs, RuntimeArgs};
pub(crate) use options::{LoraArgs, OptionArgs};
pub(crate) use pack::{PackArgs, Packing};
pub(crate) use serve::{KeyArgs, ServeArgs};
pub(crate) use shell::{CompletionsArgs, ManArgs};
pub(crate) use texts::Given;

/// What a model may be, where there is one without.
const MODEL: &str = "Model: a directory, GGUF or packed file, a name OWNER/NAME, or builtin [default: builtin, a tiny story model]";

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
  clawdbot evaluate DIR --weights int4               how good a model is with a weight type
  clawdbot serve DIR                                 a server for OpenAI's clients, on http://127.0.0.1:8080

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
    /// Measure how good a model is with a weight type
    Evaluate(EvaluateArgs),
    /// Serve a model over HTTP: OpenAI's interface, and the library's own
    Serve(ServeArgs),
    /// Make an API key for a server
    Key(KeyArgs),
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
            Command::Evaluate(args) => args.output.json,
            Command::Serve(_) | Command::Key(_) | Command::Completions(_) | Command::Man(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clawdbot_core::{ErrorKind, GenerateOptions, ModelOptions};

    #[test]
    fn the_command_line_is_consistent() {
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

    #[test]
    fn the_swap_space_may_have_its_directory() {
        let parse = |line: &str| {
            Cli::try_parse_from(line.split(' ')).map(|cli| match cli.command {
                Command::Serve(args) => (args.runtime.options().unwrap(), args.load.options().unwrap()),
                other => panic!("{other:?}"),
            })
        };
        let line = "clawdbot serve --model-path m --precision bf16 --batch-size 4 --swap-space 1MiB:/tmp/x";
        let (runtime, model) = parse(line).unwrap();
        assert_eq!(runtime.swap_space, 1 << 20);
        assert_eq!(runtime.swap_directory, Some("/tmp/x".into()));
        assert_eq!((model.weights, model.max_batch), (Some(clawdbot_core::WeightType::Bf16), 4));
        assert!(parse("clawdbot serve --swap-space 1K:/tmp --swap-directory /tmp").is_err());
        assert!(parse("clawdbot serve --swap-space :/tmp").is_err());
    }

    #[test]
    fn values_of_every_type_reach_the_library() {
        let line = "clawdbot generate --suppress-tokens 1 --suppress-tokens 2 --bad-words-ids 3,4 --logit-bias 5=1 \
                    --logit-bias 6=-0.5 --add-special-tokens false --seed 18446744073709551615 --memory-budget 1.5KiB \
                    --cache dir --kv int8 --merge-adapters a --verify";
        let Command::Generate(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("expected `generate`");
        };
        let expected = GenerateOptions::default()
            .suppress_tokens(vec![1, 2])
            .bad_words_ids(vec![vec![3, 4]])
            .logit_bias([(5, 1.0), (6, -0.5)])
            .add_special_tokens(false)
            .seed(u64::MAX);
        assert_eq!(args.options.options().unwrap(), expected);
        assert_eq!(args.common.runtime.options().unwrap().memory_budget, Some(1536));
        let expected = ModelOptions::default()
            .cache(std::path::PathBuf::from("dir"))
            .kv(clawdbot_core::KvType::Int8)
            .merge_adapters(["a".into()])
            .verify(true);
        assert_eq!(args.common.load.options().unwrap(), expected);
    }
}
