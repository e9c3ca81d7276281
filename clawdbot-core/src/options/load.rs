//! How to compute and how to load.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::declare::{names, options, whole};
use super::spec::{OptionType, out_of_range};
use super::value::{OptionValue, shown};
use crate::error::{Error, Result};
use crate::suggest::closest;

/// What the weights are kept as and computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum WeightType {
    /// Symmetric 8-bit integers in groups along k, activations quantized in the same way; exact integer sums.
    #[default]
    Int8,
    /// 4-bit integers in groups along k, activations quantized to 8 bits; exact integer sums. Half the memory of int8.
    Int4,
    /// int4, but int8 where 4 bits cost most: the embedding, the output layer, and the down projections of the first and the
    /// last layer (not of experts).
    #[serde(rename = "int4-mixed")]
    Int4Mixed,
    /// bfloat16 weights, float32 activations and sums.
    Bf16,
    /// float32 throughout: the reference.
    F32,
    /// Quantized matrices of GGUF files and directories: their own codes and scales, nothing rounded again, where these fit
    /// (`docs/formats.md`). Others: int8.
    Stored,
}

/// What the KV cache is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum KvType {
    /// float32 with float32 weights, bfloat16 otherwise.
    #[default]
    Auto,
    /// 8-bit integers: a scale per key, head and 64 dimensions, and one per value and head.
    Int8,
    /// bfloat16.
    Bf16,
    /// float32.
    F32,
}

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Driver {
    /// The threads that wait for results. Nothing runs between calls.
    #[default]
    Caller,
    /// A thread of the runtime, for all its models.
    Thread,
}

/// What the weights of a reference are computed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ReferenceType {
    /// float32.
    #[default]
    F32,
    /// bfloat16 weights, float32 activations and sums.
    Bf16,
    /// There is no reference.
    None,
}

/// How tokens are guessed before they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Speculation {
    /// Not at all.
    #[default]
    None,
    /// As what followed when the last tokens occurred before, in the prompt or in the output.
    Ngram,
    /// By the model that `draft_model` names.
    Draft,
    /// By the model's own head for multi-token prediction.
    Mtp,
}

/// Where threads run and weights lie on machines whose memory is in several places (NUMA nodes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Numa {
    /// Where the operating system puts them.
    #[default]
    Off,
    /// Pages of the weights alternate between the nodes; threads run anywhere.
    Interleave,
    /// Threads are spread over the nodes and stay on theirs, and the part of each matrix that a thread reads lies there.
    Local,
}

/// Where packed files of directories that were loaded are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "CacheValue", into = "CacheValue")]
#[non_exhaustive]
pub enum Cache {
    /// Nowhere.
    #[default]
    Off,
    /// `$XDG_CACHE_HOME/clawdbot` or `~/.cache/clawdbot`; on Windows in `%LOCALAPPDATA%`.
    User,
    /// In this directory.
    Dir(PathBuf),
}

/// [`Cache`] in JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum CacheValue {
    Switch(bool),
    Dir(PathBuf),
}

impl TryFrom<CacheValue> for Cache {
    type Error = Error;

    fn try_from(value: CacheValue) -> Result<Self> {
        match value {
            CacheValue::Switch(on) => Ok(on.into()),
            CacheValue::Dir(dir) => Cache::dir(dir),
        }
    }
}

/// Words that stand for true and false elsewhere.
const SWITCHES: &[&str] = &["true", "false", "yes", "no", "on", "off", "none", "null", "0", "1", ""];

impl Cache {
    /// The directory `dir`, unless its name is more likely a switch that was misspelt.
    fn dir(dir: PathBuf) -> Result<Self> {
        let word = dir.to_string_lossy().trim().to_lowercase();
        let alone = !word.contains(['/', '\\']);
        let switch = SWITCHES.contains(&word.as_str()) || closest(&word, ["true", "false"]).is_some();
        match alone && switch {
            true => Err(out_of_range(
                "cache",
                &Self::TYPE.expected(),
                format_args!("{:?}", dir.to_string_lossy()),
            )),
            false => Ok(Cache::Dir(dir)),
        }
    }
}

impl std::str::FromStr for Cache {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "true" => Ok(Cache::User),
            "false" => Ok(Cache::Off),
            dir => Cache::dir(dir.into()),
        }
    }
}

impl From<Cache> for CacheValue {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::Off => CacheValue::Switch(false),
            Cache::User => CacheValue::Switch(true),
            Cache::Dir(dir) => CacheValue::Dir(dir),
        }
    }
}

impl From<bool> for Cache {
    fn from(on: bool) -> Self {
        if on { Cache::User } else { Cache::Off }
    }
}

impl From<PathBuf> for Cache {
    fn from(dir: PathBuf) -> Self {
        Cache::Dir(dir)
    }
}

impl OptionValue for Cache {
    const TYPE: OptionType = OptionType::SwitchOrDir;
}

names!(WeightType: Int8 = "int8", Int4 = "int4", Int4Mixed = "int4-mixed", Bf16 = "bf16", F32 = "f32", Stored = "stored");
names!(ReferenceType: F32 = "f32", Bf16 = "bf16", None = "none");
names!(Numa: Off = "off", Interleave = "interleave", Local = "local");
names!(Speculation: None = "none", Ngram = "ngram", Draft = "draft", Mtp = "mtp");
names!(Driver: Caller = "caller", Thread = "thread");
names!(KvType: Auto = "auto", Int8 = "int8", Bf16 = "bf16", F32 = "f32");

options! {
    /// How a runtime computes.
    pub struct RuntimeOptions for "a runtime", checked by swapping {
        /// Number of threads that compute.
        threads: Option<u32> [whole(1, 1024)] = None, "the smallest of CPU quota, affinity and physical cores";
        /// Who computes: `caller`, the threads that wait for results, so that nothing runs between calls; or `thread`, one of the
        /// runtime's own, so that requests advance while nobody waits for them.
        driver: Driver = Driver::Caller, "caller";
        /// On machines with several memory nodes (Linux): `interleave` spreads weights over them, `local` keeps weights next to the
        /// threads that read them (`docs/performance.md`). Changes no result.
        numa: Numa = Numa::Off, "off";
        /// Most bytes that the models of a runtime may use together: weights, KV cache, scratch memory, and all else that grows
        /// with requests.
        memory_budget: Option<u64> [OptionType::Bytes] = None, "no limit for weights; for what grows with requests, a share of the machine's memory (`docs/memory.md`)";
        /// Most bytes of a file for keys, values and states that memory has no room for: they are read back in place of being
        /// computed again, where that is faster. It has no name, and goes with the runtime.
        swap_space: u64 [OptionType::Bytes] = 0, "0, no such file";
        /// Directory of that file.
        swap_directory: Option<PathBuf> = None, "the system's directory for temporary files";
        /// Instruction-set tier. Tiers with `bf16` in their name round activations to bf16 where weights are bf16; all others give
        /// equal bits.
        kernels: Option<String> [OptionType::Name] = None, "what `CLAWDBOT_ISA` says, or the best for this CPU";
    }
}

options! {
    /// How to load a model.
    pub struct ModelOptions for "loading a model", checked by template_and_draft {
        /// Type that weights are computed with; `stored` keeps a quantized model's own codes.
        weights: Option<WeightType> = None, "as a packed file holds them; `stored` for quantized models; int8 for others";
        /// Type of the KV cache; `auto` is f32 with f32 weights and bf16 otherwise.
        kv: KvType = KvType::Auto, "auto";
        /// Maximum number of tokens in a sequence.
        max_context: Option<u32> [whole(1, u32::MAX)] = None, "what the model was trained for";
        /// Maximum number of tokens in a forward pass; longer prompts take several. Changes speed and memory, not results.
        prefill_chunk: u32 [whole(1, 65_536)] = 512;
        /// Maximum number of sequences in a forward pass; others wait their turn. Changes speed and memory, not results.
        max_batch: u32 [whole(1, 4096)] = 64;
        /// Milliseconds between tokens that decoding sequences should have: prompts get as many tokens of a pass as that allows,
        /// at least 16. Changes speed, not results.
        target_inter_token_ms: Option<u32> [whole(1, 3_600_000)] = None, "no target; prompts get `prefill_chunk`";
        /// Most requests that wait to begin; further ones are refused with `Overloaded`, which says when to try again.
        max_queue: Option<u32> [whole(1, u32::MAX)] = None, "no limit";
        /// With `driver` thread: the model's share of the thread's time, relative to those of other models of the runtime that have
        /// work at the same time. Changes speed, not results.
        share: u32 [whole(1, 1000)] = 1;
        /// Keep keys, values and states of requests that have ended, for prompts that begin as theirs did. Changes speed and
        /// memory, not results. Not for encoders.
        prefix_cache: Option<bool> = None, "true with `driver` thread, else false";
        /// Most bytes that are kept so. They are given up where requests need memory.
        prefix_cache_bytes: Option<u64> = None, "half of what requests may take";
        /// Directory for a file of what is kept so: written when the model is closed, read when it is loaded again.
        prefix_cache_dir: Option<PathBuf> = None, "what is kept goes with the model";
        /// How tokens are guessed before they are computed: `ngram`, as what followed the last tokens before; `draft`, by the
        /// `draft_model`; `mtp`, by the model's own head. Changes speed, not results.
        speculation: Speculation = Speculation::None, "none";
        /// A smaller model with the same tokens, loaded to guess them: a directory, GGUF or packed file.
        draft_model: Option<PathBuf> = None, "none";
        /// Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are quantized.
        merge_adapters: Vec<PathBuf> = Vec::new(), "none";
        /// Text of a Jinja chat template to use instead of the model's own. It sees the model's special tokens.
        chat_template: Option<String> = None, "the model's";
        /// Map a packed file, so that processes share its memory, instead of reading it. A mapped file must not be changed or
        /// shortened.
        mmap: Option<bool> = None, "true; with `numa`, false";
        /// Read all of a packed file first and compare it with its checksum.
        verify: bool = false;
        /// Write a packed file when a directory is loaded, and use it the next time: true in the user's cache directory, or in
        /// the directory given here. Changes no result.
        cache: Cache = Cache::Off, "false";
    }
}

/// Fewer bytes of swap space than these, a block of the file, would hold nothing.
const LEAST_SWAP: u64 = 64 << 10;

/// A directory for a file that there will not be, or a file in which there is room for nothing.
fn swapping(options: &RuntimeOptions) -> Result<()> {
    match &options.swap_directory {
        Some(dir) if options.swap_space == 0 => {
            let expected = "nothing without swap_space";
            Err(out_of_range("swap_directory", expected, format_args!("{:?}", dir.to_string_lossy())))
        }
        _ if (1..LEAST_SWAP).contains(&options.swap_space) => {
            let expected = format!("0, or at least {LEAST_SWAP} bytes");
            Err(out_of_range("swap_space", &expected, options.swap_space))
        }
        _ => Ok(()),
    }
}

/// Whether a chat template could print a message. The name of a file, or of a format, could not.
fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// A chat template is text, and what guesses tokens is given.
fn template_and_draft(options: &ModelOptions) -> Result<()> {
    if options.speculation == Speculation::Draft && options.draft_model.is_none() {
        return Err(out_of_range("draft_model", "the path of a model, with speculation draft", "nothing"));
    }
    template(options)
}

/// A chat template is text, where one could expect the name of a file.
fn template(options: &ModelOptions) -> Result<()> {
    match options.chat_template.as_ref().filter(|text| !is_template(text)) {
        Some(text) => {
            let expected = "the text of a Jinja template, which has {{ ... }} or {% ... %} \
                            (of a file: what is in it, not its name)";
            Err(out_of_range("chat_template", expected, shown(&text.as_str().into())))
        }
        None => Ok(()),
    }
}

impl ModelOptions {
    /// The weight type, once it is decided.
    pub(crate) fn weight_type(&self) -> WeightType {
        self.weights.unwrap_or_default()
    }

    /// The KV type with `Auto` decided.
    pub(crate) fn kv_type(&self) -> KvType {
        match (self.kv, self.weight_type()) {
            (KvType::Auto, WeightType::F32) => KvType::F32,
            (KvType::Auto, _) => KvType::Bf16,
            (kv, _) => kv,
        }
    }
}

options! {
    /// How to pack a model.
    pub struct PackOptions for "packing" {
        /// Type that the weights will be computed with; `stored` keeps a quantized model's own codes.
        weights: Option<WeightType> = None, "`stored` for quantized models, int8 for others";
        /// Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are quantized.
        merge_adapters: Vec<PathBuf> = Vec::new(), "none";
        /// Choose int4 codes for least error on texts like the one in this UTF-8 file, not by rounding to nearest; `builtin` is
        /// a text that comes with the library. 65,536 tokens are used.
        calibrate: Option<PathBuf> = None, "rounding to nearest";
        /// Replace a file that is already there.
        overwrite: bool = false;
    }
}

options! {
    /// How to evaluate a model: what is evaluated, on which text, and what it is compared with.
    pub struct EvaluateOptions for "evaluating" {
        /// Type of the weights that are evaluated; `stored` keeps a quantized model's own codes.
        weights: Option<WeightType> = None, "as a packed file holds them; `stored` for quantized models; int8 for others";
        /// Type of the KV cache that is evaluated; `auto` is f32 with f32 weights and bf16 otherwise.
        kv: KvType = KvType::Auto, "auto";
        /// Directories of LoRA adapters, as PEFT writes them, to add to the weights before these are quantized; to those of the
        /// reference too, unless it is another model.
        merge_adapters: Vec<PathBuf> = Vec::new(), "none";
        /// UTF-8 file with the text; `builtin` is a text that comes with the library, which calibration uses too.
        text: Option<PathBuf> = None, "builtin";
        /// Maximum number of sequences, of 512 tokens or of the whole context if that is shorter. They are taken from all over the
        /// text.
        sequences: u32 [whole(1, 4096)] = 8;
        /// Type of the weights that the model is compared with; `none` gives the perplexity alone.
        reference: ReferenceType = ReferenceType::F32, "f32";
        /// Model to compare with: a directory, GGUF or packed file with the same tokens and sizes.
        reference_model: Option<PathBuf> = None, "the same model; of a packed or quantized one, its own weights, dequantized";
        /// Store the report in the packed file that is evaluated, where `clawdbot inspect` and plans show it.
        store: bool = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use serde_json::json;

    #[test]
    fn names_and_json_agree() {
        for weights in WeightType::ALL {
            assert_eq!(weights.name().parse::<WeightType>().unwrap(), weights);
            assert_eq!(json!(weights), json!(weights.name()));
        }
        for kv in [KvType::Auto, KvType::Int8, KvType::Bf16, KvType::F32] {
            assert_eq!(json!(kv), json!(kv.name()));
        }
        for numa in Numa::ALL {
            let options = RuntimeOptions::default().numa(numa);
            assert_eq!(
                (&options.to_json()["numa"], numa.name().parse().unwrap()),
                (&json!(numa.name()), numa)
            );
            assert_eq!(RuntimeOptions::from_json(&options.to_json()).unwrap().numa, numa);
        }
    }

    #[test]
    fn caches_are_switches_or_directories() {
        for (cache, value) in
            [(Cache::Off, json!(false)), (Cache::User, json!(true)), (Cache::Dir("/x".into()), json!("/x"))]
        {
            let options = ModelOptions::default().cache(cache.clone());
            assert_eq!(options.to_json()["cache"], value);
            assert_eq!(ModelOptions::from_json(&options.to_json()).unwrap().cache, cache);
        }
    }

    #[test]
    fn a_misspelt_switch_is_no_directory() {
        for word in ["true", "True", "FALSE", "tru", "flase", "false ", "yes", "off", "0", ""] {
            let error = ModelOptions::from_json(json!({"cache": word}).as_object().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{word}");
            let expected = "option cache: expected true, false or a directory ('./true' for a directory of that name), found";
            assert_eq!(error.message(), format!("{expected} {word:?}"));
            if !["true", "false"].contains(&word) {
                assert_eq!(word.parse::<Cache>().unwrap_err().message(), error.message());
            }
        }
        assert_eq!("true".parse::<Cache>().unwrap(), Cache::User);
        assert_eq!("false".parse::<Cache>().unwrap(), Cache::Off);
        for dir in ["./true", "cache", "models", "x/false", "/tru", "..", "~"] {
            assert_eq!(dir.parse::<Cache>().unwrap(), Cache::Dir(dir.into()));
        }
    }

    #[test]
    fn bad_values_are_errors() {
        for bad in [
            json!({"weights": "int9"}),
            json!({"max_context": 0}),
            json!({"max_batch": 0}),
            json!({"cache": 1}),
            json!({"mmap": "yes"}),
            json!({"prefill_chunk": -3}),
            json!({"chat_template": "bad.j2"}),
            json!({"chat_template": ""}),
        ] {
            let error = ModelOptions::from_json(bad.as_object().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        let name = json!({"chat_template": "dir/template.jinja"});
        let error = ModelOptions::from_json(name.as_object().unwrap()).unwrap_err();
        assert!(error.message().contains("found \"dir/template.jinja\""), "{error}");
        let error = RuntimeOptions::from_json(json!({"threads": 0}).as_object().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let error = RuntimeOptions::from_json(json!({"numa": true}).as_object().unwrap()).unwrap_err();
        assert_eq!(error.message(), "option numa: expected one of off, interleave, local, found true");
        let error = RuntimeOptions::from_json(json!({"thread": 1}).as_object().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownOption);
    }
}
