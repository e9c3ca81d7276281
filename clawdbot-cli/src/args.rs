//! The command line. Options that the library has are declared once, under the library's names.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use clawdbot_core::{
    Cache, EmbedOptions, Error, ErrorKind, GenerateOptions, KvType, Model, ModelOptions, PackOptions,
    Pooling, RerankOptions, Result, Runtime, RuntimeOptions, Source, WeightType,
};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::hub::HubArgs;

const EXAMPLES: &str = "\
Examples:
  clawdbot generate                                  a story from the built-in model
  clawdbot generate --model DIR --prompt \"The sea\"   continue a text
  clawdbot generate --model DIR --prompt - < text    the prompt from stdin
  clawdbot chat --model DIR --system \"Be brief.\"     a conversation
  clawdbot embed --model DIR --input lines.txt       texts to vectors
  clawdbot chat --model Qwen/Qwen3-0.6B              one from Hugging Face
  clawdbot inspect DIR --weights bf16                what a model is and would cost
  clawdbot pack DIR model.clawdbot                   the whole model in one file that loads at once
  clawdbot bench --shape llama-3.2-1b                how fast this machine is

A model is a directory as Hugging Face publishes it (config.json, *.safetensors, tokenizer.json), a GGUF file (the first
of a split one) or a packed file; or the name OWNER/NAME of one on Hugging Face, which is downloaded once.
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
}

impl Command {
    pub(crate) fn json(&self) -> bool {
        match self {
            Command::Generate(args) => args.output.json,
            Command::Chat(args) => args.output.json,
            Command::Embed(args) => args.output.json,
            Command::Rerank(args) => args.output.json,
            Command::Inspect(args) => args.json,
            Command::Pack(args) => args.output.json,
            Command::Bench(args) => args.output.json,
        }
    }
}

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

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot embed --model DIR \"a text\" \"another\"
  clawdbot embed --model DIR --input lines.txt --prompt-name query --json

A text is a line of numbers; with --json an object: index, embedding. Texts are computed together.")]
pub(crate) struct EmbedArgs {
    /// Model directory or packed file, or OWNER/NAME
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// Texts
    #[arg(value_name = "TEXT", conflicts_with = "input")]
    pub(crate) texts: Vec<String>,
    /// File with one text a line; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: EmbedOptionArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// [`EmbedOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Embedding (defaults come from the model's own files)")]
pub(crate) struct EmbedOptionArgs {
    /// How states of tokens become one: cls, mean, max, last, weighted_mean or mean_sqrt_len
    #[arg(long, value_name = "KIND")]
    pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1
    #[arg(long, value_name = "true|false")]
    normalize: Option<bool>,
    /// Name of the model's prompt to put before each text
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    /// Text to put before each text
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Keep N first elements of each vector
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
  clawdbot rerank --model DIR --query \"how do ships sail?\" --input passages.txt

The best document comes first: its score, a tab, the document; with --json an object: index, score, document.")]
pub(crate) struct RerankArgs {
    /// Model directory or packed file, or OWNER/NAME
    #[arg(long, value_name = "PATH")]
    pub(crate) model: PathBuf,
    /// What is looked for
    #[arg(long, value_name = "TEXT")]
    pub(crate) query: String,
    /// Documents
    #[arg(value_name = "DOCUMENT", conflicts_with = "input")]
    pub(crate) documents: Vec<String>,
    /// File with one document a line; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) options: RerankOptionArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// [`RerankOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Reranking")]
pub(crate) struct RerankOptionArgs {
    /// Whether scores are probabilities instead of logits [default: as the model's files say, or true]
    #[arg(long, value_name = "true|false")]
    sigmoid: Option<bool>,
    /// What the query asks for, of models that are told (Qwen3-Reranker)
    #[arg(long, value_name = "TEXT")]
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

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model directory, GGUF or packed file, or OWNER/NAME [default: the built-in story model]
    #[arg(value_name = "PATH", conflicts_with = "shape")]
    pub(crate) model: Option<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    pub(crate) shape: Option<String>,
    /// One JSON object, sizes in bytes
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot pack DIR model.clawdbot
  clawdbot pack DIR model.clawdbot --weights bf16 --overwrite
  clawdbot pack --shape llama-3.2-1b model.clawdbot
  clawdbot chat --model model.clawdbot

The file holds everything: weights, tokenizer, chat template, configuration. It is mapped, not read: it loads in
milliseconds, and processes that use it share its memory. It appears when it is complete. clawdbot inspect FILE --verify
compares it with its checksum.")]
pub(crate) struct PackArgs {
    /// Model directory or OWNER/NAME, and the file to write; with --shape, the file alone
    #[arg(value_name = "DIR FILE", required = true, num_args = 1..=2)]
    paths: Vec<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    shape: Option<String>,
    #[command(flatten)]
    pub(crate) options: PackOptionArgs,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl PackArgs {
    /// What is packed (model, shape), and the file to write.
    ///
    /// # Errors
    /// `InvalidArgument` for a directory and a shape, or neither.
    pub(crate) fn source_and_target(&self) -> Result<(Option<&PathBuf>, Option<&String>, &PathBuf)> {
        match (self.paths.as_slice(), &self.shape) {
            ([model, target], None) => Ok((Some(model), None, target)),
            ([target], Some(shape)) => Ok((None, Some(shape), target)),
            (paths, _) => {
                let message =
                    format!("expected DIR and FILE, or --shape and FILE, found {} paths", paths.len());
                Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "shape"))
            }
        }
    }
}

/// [`PackOptions`].
#[derive(Debug, Args, Serialize)]
pub(crate) struct PackOptionArgs {
    /// What the weights will be computed with: int8, int4, bf16, f32 or stored (a quantized model's own codes)
    /// [default: stored for quantized models, int8 for others]
    #[arg(long, value_name = "TYPE")]
    weights: Option<WeightType>,
    /// Directory of a LoRA adapter that is added to the weights before these are quantized; may be repeated
    #[arg(long, value_name = "DIR")]
    merge_adapters: Vec<PathBuf>,
    /// Replace the file if there is one
    #[arg(long)]
    overwrite: bool,
}

impl PackOptionArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<PackOptions> {
        PackOptions::from_json(&given(self)?)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  clawdbot bench --shape qwen2.5-0.5b --weights bf16 --repeat 5
  clawdbot bench --model DIR --depth 4096 --batch 8 --json

Every repeat takes fresh sequences of random token ids. Prefill: all prompts, until the last first token. Decode: after
DEPTH tokens of context, tokens per second of all sequences together. Medians are reported, and in JSON every sample.
The memory traffic of decode that is compared with the machine's is that of the weights alone.")]
pub(crate) struct BenchArgs {
    /// Model directory, GGUF or packed file, or OWNER/NAME [default: the built-in story model]
    #[arg(long, value_name = "PATH", conflicts_with = "shape")]
    pub(crate) model: Option<PathBuf>,
    /// Random weights in the shape of a published model
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Source::SHAPES))]
    pub(crate) shape: Option<String>,
    /// Tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) prompt: u32,
    /// Tokens to decode
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) generate: u32,
    /// Tokens of context before decoding is measured
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) depth: u32,
    /// Sequences at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    /// How often to measure
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Do not measure what the machine could do at most
    #[arg(long)]
    pub(crate) no_limits: bool,
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// The result alone, nothing on stderr but errors
    #[arg(long)]
    pub(crate) quiet: bool,
    /// JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// [`GenerateOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Generation (defaults come from the model's generation_config.json)")]
pub(crate) struct OptionArgs {
    /// Name of the LoRA adapter to use, one of those of --lora [default: the one there is]
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Most tokens to generate [default: until the model stops or the context is full]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_tokens: Option<u32>,
    /// 0 takes the most likely token; more is more random
    #[arg(long, value_name = "T", value_parser = finite, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Sample from the K most likely tokens; 0 is off
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Sample from the fewest tokens whose probabilities add up to P; 1 is off
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Sample from tokens at least P times as likely as the most likely one; 0 is off
    #[arg(long, value_name = "P", value_parser = finite, allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make tokens that occurred less likely, by a factor; 1 is off
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract from the logits of tokens in the output
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract from the logits of tokens in the output, for each occurrence
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Add BIAS to the logit of token ID; may be repeated
    #[arg(long, value_name = "ID=BIAS", value_parser = bias)]
    #[serde(serialize_with = "as_map")]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of the sampler [default: a random one, reported with --json]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Text that ends the generation and is not part of it; may be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Token that ends the generation; may be repeated
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    stop_token_ids: Vec<u32>,
    /// Take the model's end-of-sequence tokens as ordinary ones
    #[arg(long)]
    ignore_eos: bool,
    /// Report the log-probability of each token and of the N most likely ones (with --json)
    #[arg(long, value_name = "N", requires = "json", allow_negative_numbers = true)]
    logprobs: Option<u32>,
    /// Whether the prompt gets the tokenizer's special tokens, such as BOS
    /// [default: true for generate; false for chat, whose template brings them]
    #[arg(long, value_name = "true|false")]
    add_special_tokens: Option<bool>,
    /// Whether special tokens are left out of the text [default: true]
    #[arg(long, value_name = "true|false")]
    skip_special_tokens: Option<bool>,
}

/// LoRA adapters to load beside the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Adapters")]
pub(crate) struct LoraArgs {
    /// Directory of a LoRA adapter as PEFT writes it, applied beside the weights; its name is that of the directory unless
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

/// [`ModelOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Model")]
pub(crate) struct LoadArgs {
    /// What the weights are computed with: int8, int4, bf16, f32 or stored (a quantized model's own codes)
    /// [default: as packed, stored for quantized models, int8 for others]
    #[arg(long, value_name = "TYPE")]
    weights: Option<WeightType>,
    /// What the KV cache is kept as: auto, int8, bf16 or f32 [default: auto]
    #[arg(long, value_name = "TYPE")]
    kv: Option<KvType>,
    /// Most tokens of a sequence [default: what the model was trained for]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_context: Option<u32>,
    /// Most tokens of a forward pass [default: 512]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    prefill_chunk: Option<u32>,
    /// Most sequences of a forward pass [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_batch: Option<u32>,
    /// Directory of a LoRA adapter that is added to the weights before these are quantized; may be repeated
    #[arg(long, value_name = "DIR")]
    merge_adapters: Vec<PathBuf>,
    /// Whether a packed file is mapped; otherwise it is read, and may be changed meanwhile [default: true]
    #[arg(long, value_name = "true|false")]
    mmap: Option<bool>,
    /// Read all of a packed file first and compare it with its checksum
    #[arg(long)]
    verify: bool,
    /// Whether loading a directory leaves a packed file behind and uses it the next time: in the user's directory for
    /// caches, or in DIR [default: false]
    #[arg(long, value_name = "true|false|DIR", value_parser = cache)]
    cache: Option<Cache>,
}

/// [`RuntimeOptions`].
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Runtime")]
pub(crate) struct RuntimeArgs {
    /// Threads to compute on [default: the least of CPU quota, affinity and physical cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<u32>,
    /// Most memory for weights, KV cache and buffers: K, M, G, T are powers of 1000, KiB, MiB, GiB, TiB of 1024
    #[arg(long, value_name = "BYTES", value_parser = byte_size, allow_negative_numbers = true)]
    memory_budget: Option<u64>,
    /// Instruction-set tier; those with bf16 in their name round activations to bf16 where weights are bf16 [default: what CLAWDBOT_ISA says, or else the best of this CPU]
    #[arg(long, value_name = "TIER", value_parser = PossibleValuesParser::new(tiers()))]
    kernels: Option<String>,
}

/// The names of tiers; those that failed their self-test too, for the runtime says why.
fn tiers() -> Vec<&'static str> {
    let refused = Runtime::refused_kernels().into_iter().map(|refused| refused.name);
    Runtime::available_kernels().into_iter().chain(Runtime::named_kernels()).chain(refused).collect()
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

impl OptionArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<GenerateOptions> {
        GenerateOptions::from_json(&given(self)?)
    }

    /// Whether a rendered conversation gets special tokens of the tokenizer: only when asked for.
    pub(crate) fn chat_special_tokens(&self) -> bool {
        self.add_special_tokens.unwrap_or(false)
    }
}

impl LoadArgs {
    /// The library's options, checked.
    pub(crate) fn options(&self) -> Result<ModelOptions> {
        ModelOptions::from_json(&given(self)?)
    }
}

impl RuntimeArgs {
    /// A runtime with these options.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        Runtime::new(&RuntimeOptions::from_json(&given(self)?)?)
    }
}

fn cache(text: &str) -> Result<Cache, String> {
    Ok(match text {
        "" => return Err("expected true, false or a directory".to_owned()),
        "true" => Cache::User,
        "false" => Cache::Off,
        dir => Cache::Dir(dir.into()),
    })
}

/// JSON has no infinities, so they must not get that far.
fn finite(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() { Ok(number) } else { Err("expected a finite number".to_owned()) }
}

/// A name and a directory, whose own name is taken where there is none.
fn lora(text: &str) -> Result<(String, PathBuf), String> {
    let (name, dir) = match text.split_once('=') {
        Some((name, dir)) => (name.to_owned(), PathBuf::from(dir)),
        None => {
            let dir = PathBuf::from(text);
            let name = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            (name, dir)
        }
    };
    match name.is_empty() || dir.as_os_str().is_empty() {
        true => Err("expected DIR or NAME=DIR".to_owned()),
        false => Ok((name, dir)),
    }
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("expected ID=BIAS, such as 50=-2.5")?;
    Ok((id.parse().map_err(|_| format!("expected a token id, found {id:?}"))?, finite(bias)?))
}

fn as_map<S: Serializer>(pairs: &[(u32, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (id, bias) in pairs {
        map.serialize_entry(id, bias)?;
    }
    map.end()
}

/// A number of bytes, with or without a unit.
fn byte_size(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a number of bytes such as 500000000, 500M or 1.5GiB, found {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(expected()),
    };
    if let Ok(number) = digits.parse::<u64>() {
        return number.checked_mul(unit).ok_or_else(expected);
    }
    // Decimals alone: no exponents, no words such as "inf".
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(expected());
    }
    let number: f64 = digits.parse().map_err(|_| expected())?;
    let bytes = number * unit as f64;
    if (0.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn names<T: Args>() -> Vec<String> {
        T::augment_args(clap::Command::new("")).get_arguments().map(|arg| arg.get_id().to_string()).collect()
    }

    #[test]
    fn options_are_those_of_the_library() {
        assert_eq!(names::<OptionArgs>(), GenerateOptions::NAMES);
        assert_eq!(names::<LoadArgs>(), ModelOptions::NAMES);
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
        let expected = GenerateOptions::default().top_p(0.9).stop(["a".into(), "b".into()]).ignore_eos(true);
        assert_eq!(options.unwrap(), expected.logit_bias([(7, -1.5)]));
        assert_eq!(parse("clawdbot generate").unwrap(), GenerateOptions::default());
        assert_eq!(parse("clawdbot generate --top-p 2").unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("3b", 3),
            ("2K", 2000),
            ("2KiB", 2048),
            ("1.5GiB", 3 << 29),
            ("4gb", 4_000_000_000),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(byte_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "1X", "1 G", "nanG", "infinity", "99999999999T", "1e30", "1e3"] {
            assert!(byte_size(bad).is_err(), "{bad}");
        }
    }
}
