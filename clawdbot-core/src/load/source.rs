//! Where a model comes from: a directory, a packed file, the built-in one, or random weights in a known shape.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawdbot_kernels::{ComputeFormat, PackedMatrix, RowSource, StoredScale};

use super::adapter::MergedWeights;
use super::build::format;
use super::check::{check_packed, check_tensors};
use super::gguf::GgufWeights;
use super::parts::{self, LastTensor};
use super::quantization::FileWeights;
use super::quantization::{parse_quantization, parse_spec};
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::options::GenerationDefaults;
use crate::options::{Cache, ModelOptions, WeightType};
use crate::spec::DecoderSpec;
use crate::spec::config::ModelConfig;
use crate::spec::embedding::EmbeddingConfig;
use crate::spec::generation;
use crate::spec::tensors::{Joined, LM_HEAD, MatrixName, PartStorage, VectorName};
use crate::tokenizer::{ChatTemplates, SETTINGS_WITHOUT_EFFECT, SpecialTokens, Tokenizer};
use crate::weights::model_files::{MODEL_FILES, ModelFiles, TEMPLATE, TOOL_TEMPLATE};
use crate::weights::{
    DataFile, MAGIC, MatrixFormat, MatrixView, PackedFile, WeightSource, beside_text, quoted,
};

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A Hugging Face model directory (`config.json`, safetensors, `tokenizer.json`), a GGUF file (the first, if it is in
    /// parts), or a packed model file (see [`Runtime::pack`](crate::Runtime::pack)).
    Path(PathBuf),
    /// The story model that is part of the library.
    Builtin,
    /// Random weights in the shape of a published model (see [`Source::SHAPES`]), made in memory: for measuring speed.
    /// There is no tokenizer.
    Shape(String),
}

impl Source {
    /// Names that [`Source::Shape`] knows.
    pub const SHAPES: &'static [&'static str] = &SHAPE_NAMES;
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Source::Path(path.to_owned())
    }
}

/// hidden, layers, heads, KV heads, intermediate, vocabulary, context, head_dim; tied; experts, those of each token, their
/// size
struct Shape(&'static str, &'static str, [usize; 8], bool, [usize; 3]);

const DENSE: [usize; 3] = [0; 3];
const A3B: [usize; 3] = [128, 8, 768];

/// Shapes of published models, from their `config.json`.
const TABLE: [Shape; 10] = [
    Shape("qwen2.5-0.5b", "Qwen2ForCausalLM", [896, 24, 14, 2, 4864, 151_936, 32_768, 64], true, DENSE),
    Shape("qwen2.5-1.5b", "Qwen2ForCausalLM", [1536, 28, 12, 2, 8960, 151_936, 32_768, 128], true, DENSE),
    Shape("qwen3-0.6b", "Qwen3ForCausalLM", [1024, 28, 16, 8, 3072, 151_936, 40_960, 128], true, DENSE),
    Shape("qwen3-1.7b", "Qwen3ForCausalLM", [2048, 28, 16, 8, 6144, 151_936, 40_960, 128], true, DENSE),
    Shape("llama-3.2-1b", "LlamaForCausalLM", [2048, 16, 32, 8, 8192, 128_256, 131_072, 64], true, DENSE),
    Shape("llama-3.2-3b", "LlamaForCausalLM", [3072, 28, 24, 8, 8192, 128_256, 131_072, 128], true, DENSE),
    Shape("llama-3.1-8b", "LlamaForCausalLM", [4096, 32, 32, 8, 14_336, 128_256, 131_072, 128], false, DENSE),
    Shape("mistral-7b", "MistralForCausalLM", [4096, 32, 32, 8, 14_336, 32_768, 32_768, 128], false, DENSE),
    Shape("qwen3-30b-a3b", "Qwen3MoeForCausalLM", [2048, 48, 32, 4, 6144, 151_936, 40_960, 128], false, A3B),
    // The same with fewer layers, for machines that it is too large for.
    Shape(
        "qwen3-30b-a3b-8l",
        "Qwen3MoeForCausalLM",
        [2048, 8, 32, 4, 6144, 151_936, 40_960, 128],
        false,
        A3B,
    ),
];
const SHAPE_NAMES: [&str; TABLE.len()] = {
    let mut names = [""; TABLE.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = TABLE[i].0;
        i += 1;
    }
    names
};

/// A model's files, opened and checked; no weight has been read yet.
pub(crate) struct Opened {
    /// What messages and reports call the model.
    pub(crate) name: String,
    pub(crate) spec: DecoderSpec,
    /// How texts become vectors.
    pub(crate) embedding: EmbeddingConfig,
    pub(crate) defaults: GenerationDefaults,
    pub(crate) weights: Weights,
    /// Type of the weights as the configuration names it.
    pub(crate) dtype: Option<String>,
    /// Names of tensors in the files that the model does not use.
    pub(crate) unused: Vec<String>,
    pub(crate) text: Option<Text>,
    pub(crate) files: ModelFiles,
    /// What there is to say of the files: warnings for the log.
    pub(crate) notes: Vec<String>,
}

/// What turns text into tokens and back.
pub(crate) struct Text {
    pub(crate) tokenizer: Tokenizer,
    /// Those of the model's files may be no templates: that matters to who wants to render a conversation.
    pub(crate) templates: Result<Option<ChatTemplates>>,
    special: SpecialTokens,
    /// Most tokens of a text that is embedded.
    max_tokens: Option<usize>,
    /// What there is to say of its files.
    notes: Vec<String>,
}

pub(crate) fn no_tokenizer() -> Error {
    Error::invalid_tokenizer("this model has no tokenizer: use token ids")
}

/// Where tensors come from.
pub(crate) enum Weights {
    Files(FileWeights),
    Gguf(GgufWeights),
    Packed(Arc<PackedFile>),
    Random,
    /// With adapters that are added as they are read.
    Merged(Box<MergedWeights>),
}

macro_rules! builtin {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/builtin/", $name))
    };
}

impl Opened {
    /// Opens and checks everything that can be checked without reading the weights.
    pub(crate) fn open(source: &Source) -> Result<Self> {
        match source {
            Source::Path(path) => {
                let name = path.display().to_string();
                if path.is_dir() {
                    let files = ModelFiles::Dir(path.clone());
                    return Self::from_files(name, files, |config| {
                        let quantization = parse_quantization(config)?;
                        Ok(Weights::Files(FileWeights {
                            source: WeightSource::open_dir(path)?,
                            quantization,
                        }))
                    });
                }
                if !path.exists() {
                    let message = format!(
                        "{name}: expected a model directory, a GGUF or a packed model file, found nothing there"
                    );
                    return Err(Error::new(ErrorKind::NotFound, message).with("path", name));
                }
                if is_gguf(path)? {
                    return Self::open_gguf(name, path);
                }
                Self::open_packed(name, PackedFile::open(DataFile::open(path)?)?)
            }
            Source::Builtin => {
                let weights = |_: &ModelConfig| {
                    let file = "builtin/model.safetensors";
                    let source = WeightSource::from_static(builtin!("model.safetensors"), file)?;
                    Ok(Weights::Files(source.into()))
                };
                Self::from_files("builtin".to_owned(), builtin_files(), weights)
            }
            Source::Shape(name) => {
                let config = shape_config(name)?.to_string().into_bytes();
                let files = ModelFiles::Memory(name.clone(), vec![("config.json", config.into())]);
                let spec = parse_spec(&ModelConfig::open(&files, "config.json")?)?;
                Ok(Opened {
                    name: name.clone(),
                    spec,
                    embedding: EmbeddingConfig::default(),
                    defaults: GenerationDefaults::default(),
                    weights: Weights::Random,
                    dtype: None,
                    unused: Vec::new(),
                    text: None,
                    notes: Vec::new(),
                    files,
                })
            }
        }
    }

    /// As [`open`](Self::open). What is damaged in a packed file may look like anything: where `options` want it to be
    /// compared with its checksum, that says so first.
    pub(crate) fn open_with(
        source: &Source,
        options: &ModelOptions,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Self> {
        Self::open(source).or_else(|error| {
            if let Source::Path(path) = source
                && options.verify
                && let Ok(file) = DataFile::open(path).and_then(PackedFile::open)
            {
                file.verify(progress)?;
            }
            Err(error)
        })
    }

    /// The model in an opened packed file.
    pub(crate) fn open_packed(name: String, file: PackedFile) -> Result<Self> {
        let file = Arc::new(file);
        let files = ModelFiles::Packed(Arc::clone(&file));
        let (config, mut spec, embedding) = Self::describe(&files)?;
        spec.tie_word_embeddings &= !file.has(LM_HEAD);
        let weights = file.info().weights.parse::<WeightType>().map_err(|_| {
            let found = quoted(&file.info().weights);
            Error::unsupported_model(format!(
                "{name}: expected int8, int4, bf16, f32 or stored weights, found {found}"
            ))
        })?;
        // int8 may be in any group, the others are always packed alike; of what is taken over, each matrix has its own.
        let packed = Weights::Packed(Arc::clone(&file));
        let format = packed.format(weights);
        let expected = format.activations().filter(|_| weights != WeightType::Stored);
        let found = file.info().group_size.map(|group| (group, file.info().rotated));
        if found != expected || (found.is_none() && file.info().rotated) {
            let message = format!(
                "{name}: group_size and rotated: expected {expected:?} for {weights}, found {found:?}"
            );
            return Err(Error::unsupported_model(message));
        }
        PackedMatrix::packed_bytes(format, 1, 1)
            .map_err(|error| Error::unsupported_model(format!("{name}: group_size: {error}")))?;
        check_packed(&spec.tensors(), &file, &file_names(&embedding), |names| {
            packed.segments(names, weights)
        })?;
        if !file.info().has_tokenizer {
            return Self::complete(name, &config, (spec, embedding), packed, None, files);
        }
        Self::from_files(name, files, |_| Ok(packed))
    }

    pub(crate) fn from_files(
        name: String,
        files: ModelFiles,
        weights: impl FnOnce(&ModelConfig) -> Result<Weights>,
    ) -> Result<Self> {
        let (config, mut spec, embedding) = Self::describe(&files)?;
        let text = Some(open_text(&files)?);
        let mut weights = weights(&config)?;
        if let Weights::Packed(file) = &weights {
            spec.tie_word_embeddings &= !file.has(LM_HEAD);
        }
        if let Weights::Files(stored) = &mut weights {
            stored.source.rename(&spec.embedding_tensor())?;
            untie(&mut spec, stored, &config)?;
            if let ModelFiles::Dir(dir) = &files {
                for folder in &embedding.folders {
                    stored.source.add_dir(&dir.join(folder), &format!("{folder}."))?;
                }
            }
            spec = spec.with_experts_as_stored(|name| stored.source.tensor(name).is_some());
        }
        Self::complete(name, &config, (spec, embedding), weights, text, files)
    }

    /// What the model is.
    ///
    /// # Errors
    /// `NotFound` without `config.json`; as `parse_spec`.
    pub(crate) fn describe(files: &ModelFiles) -> Result<(ModelConfig, DecoderSpec, EmbeddingConfig)> {
        let config = ModelConfig::open(files, "config.json")?;
        let mut spec = parse_spec(&config)?;
        let embedding = EmbeddingConfig::read(files, &config, spec.hidden_size)?;
        embedding.extend(&mut spec)?;
        spec.check().map_err(|error| error.context(config.file()))?;
        Ok((config, spec, embedding))
    }

    /// Names of the small files that may be part of the model.
    pub(crate) fn file_names(&self) -> Vec<&str> {
        file_names(&self.embedding)
    }

    /// The weight type where it is not decided yet, of sources that are not packed.
    pub(crate) fn weight_type(&self, wanted: Option<WeightType>) -> WeightType {
        match (self.weights.base(), wanted) {
            (Weights::Gguf(_) | Weights::Files(FileWeights { quantization: Some(_), .. }), wanted) => {
                wanted.unwrap_or(WeightType::Stored)
            }
            (_, None | Some(WeightType::Stored)) => WeightType::Int8,
            (_, Some(wanted)) => wanted,
        }
    }

    /// What weights of the type are computed as.
    pub(crate) fn format(&self, weights: WeightType) -> ComputeFormat {
        self.weights.format(weights)
    }

    /// Reads all of a packed file and compares it with its checksum, if `options` want that.
    ///
    /// # Errors
    /// As `PackedFile::verify`; `InvalidArgument` for a source without a checksum.
    pub(crate) fn verify(
        &self,
        options: &ModelOptions,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<bool> {
        match self.weights.base() {
            _ if !options.verify => Ok(false),
            Weights::Packed(file) => file.verify(progress).map(|()| true),
            // What is cached is verified once it is there.
            Weights::Files(_) | Weights::Gguf(_) if options.cache != Cache::Off => Ok(false),
            _ => Err(Error::invalid_argument(format!(
                "option verify: expected a packed model file, which has a checksum, found {}",
                self.name
            ))
            .with("option", "verify")),
        }
    }

    /// The options with the weight type decided. Their chat template takes the place of the model's own.
    ///
    /// # Errors
    /// `InvalidArgument` for another type than that of a packed file; `InvalidTemplate`; `InvalidTokenizer` for a template
    /// without a tokenizer.
    pub(crate) fn resolve(&mut self, options: &ModelOptions) -> Result<ModelOptions> {
        if let Some(source) = &options.chat_template {
            self.text.as_mut().ok_or_else(no_tokenizer)?.set_template(source)?;
        }
        let Weights::Packed(file) = &self.weights else {
            let weights = Some(self.weight_type(options.weights));
            return Ok(ModelOptions { weights, ..options.clone() });
        };
        let packed: WeightType = file.info().weights.parse()?;
        match options.weights {
            Some(wanted) if wanted != packed => Err(Error::invalid_argument(format!(
                "option weights: {} is packed as {packed}, found {wanted}; pack the model again for that",
                self.name
            ))
            .with("option", "weights")),
            _ => Ok(ModelOptions { weights: Some(packed), ..options.clone() }),
        }
    }

    /// The model that [`describe`](Self::describe) found, with its weights and its tokenizer, if all fit together.
    ///
    /// # Errors
    /// `InvalidTokenizer` and `InvalidModel` for what does not; as [`check_tensors`].
    pub(crate) fn complete(
        name: String,
        config: &ModelConfig,
        (spec, mut embedding): (DecoderSpec, EmbeddingConfig),
        weights: Weights,
        mut text: Option<Text>,
        files: ModelFiles,
    ) -> Result<Self> {
        let truncated = text.as_ref().and_then(|text| text.max_tokens);
        embedding.max_tokens = embedding.max_tokens.or(truncated);
        let dtype = config.dtype()?.map(str::to_owned);
        // Those of GGUF files are made here, and what is not needed is left out.
        if !matches!(weights.base(), Weights::Gguf(_)) {
            config.note_unread();
        }
        let mut notes = config.notes();
        let generation = "generation_config.json";
        let defaults = match files.get(generation)? {
            Some(json) => {
                let config = ModelConfig::parse(&json, &files.path(generation))?;
                notes.extend(generation::without_effect(&config));
                let mut defaults = generation::parse(&config)?;
                notes.extend(defaults.keep_below(spec.vocab_size).into_iter().map(|key| {
                    format!("{}: {key}: ids that the vocabulary does not have are left out", config.file())
                }));
                notes.extend(config.notes());
                defaults
            }
            None => GenerationDefaults::default(),
        };
        // A larger vocabulary in the model is padding. Of a larger one in the tokenizer, a prompt must not have what is
        // beyond: tokens for images, of models that are published with and without them.
        let rows = spec.vocab_size;
        if let Some(text) = &mut text {
            text.tokenizer = text.tokenizer.clone().padded_to(rows);
            notes.append(&mut text.notes);
        }
        let outside =
            defaults.eos_token_id.iter().chain(&defaults.bos_token_id).find(|&&id| id as usize >= rows);
        if let Some(id) = outside {
            return Err(Error::invalid_model(format!(
                "{name}: generation_config.json: expected token ids below the vocabulary size {rows}, found {id}"
            )));
        }
        let unused = match &weights {
            Weights::Files(files) => {
                let unused = check_tensors(&spec, files)?;
                files.check_unused_biases(&unused)?;
                notes.extend_from_slice(files.source.notes());
                unused
            }
            _ => Vec::new(),
        };
        Ok(Opened { name, spec, embedding, defaults, weights, dtype, unused, text, files, notes })
    }
}

impl Opened {
    /// What whoever loads the model should know of its files: what is in them and has no effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        if let Some(Text { templates: Err(error), .. }) = &self.text {
            warnings.push(error.to_string());
        }
        let (_, unused) = self.unused_tensors();
        warnings.extend(self.about(&unused, "tensors are not used"));
        warnings
    }

    /// Whether conversations can be rendered.
    pub(crate) fn has_chat_template(&self) -> bool {
        self.text.as_ref().is_some_and(|text| matches!(text.templates, Ok(Some(_))))
    }

    /// Of a model that sees or hears too: how much is left out.
    pub(crate) fn left_out(&self) -> Option<String> {
        let (others, _) = self.unused_tensors();
        self.about(&others, "tensors are not of the text model, which alone is loaded")
    }

    /// Tensors that are not of the text model, and those of it that have no effect.
    fn unused_tensors(&self) -> (Vec<&str>, Vec<&str>) {
        self.unused.iter().map(String::as_str).partition(|name| beside_text(name))
    }

    fn about(&self, tensors: &[&str], what: &str) -> Option<String> {
        let some = tensors.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        (!tensors.is_empty()).then(|| format!("{}: {} {what}: {some} ...", self.name, tensors.len()))
    }
}

/// Where the embedding is to be the output projection too, but the files have a tensor for that: as in transformers, it is
/// used if it is another one, and is the embedding if that is missing.
pub(crate) fn untie(spec: &mut DecoderSpec, files: &mut FileWeights, config: &ModelConfig) -> Result<()> {
    if !spec.may_have_own_head() {
        return Ok(());
    }
    let embedding = spec.embedding_tensor();
    let has = |name: &str| files.source.tensor(name).is_some();
    let quantized = files.is_quantized(LM_HEAD);
    match (has(&embedding), has(LM_HEAD) || quantized) {
        (true, true) if quantized || !files.source.same(&embedding, LM_HEAD)? => {
            spec.tie_word_embeddings = false;
            let what =
                format!("is true, but {LM_HEAD} is not {embedding}: it is used as it is, as in transformers");
            config.note("tie_word_embeddings", &what);
        }
        (false, true) if !quantized => files.source.call(LM_HEAD, &embedding),
        _ => {}
    }
    Ok(())
}

fn file_names(embedding: &EmbeddingConfig) -> Vec<&str> {
    MODEL_FILES.into_iter().chain(embedding.files.iter().map(String::as_str)).collect()
}

/// Whether the file at `path` is a GGUF file.
fn is_gguf(path: &Path) -> Result<bool> {
    let file = DataFile::open(path)?;
    Ok(file.len() >= MAGIC.len() && file.read(0..MAGIC.len())? == MAGIC)
}

/// The configuration of a shape.
fn shape_config(name: &str) -> Result<serde_json::Value> {
    let Some(Shape(_, architecture, sizes, tied, experts)) = TABLE.iter().find(|shape| shape.0 == name)
    else {
        let message = format!("expected a shape, one of {}; found {name:?}", SHAPE_NAMES.join(", "));
        return Err(Error::invalid_argument(message).with("found", name));
    };
    let [hidden, layers, heads, kv_heads, intermediate, vocab, context, head_dim] = sizes;
    Ok(serde_json::json!({
        "architectures": [architecture], "hidden_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": intermediate,
        "vocab_size": vocab, "max_position_embeddings": context, "head_dim": head_dim,
        "tie_word_embeddings": tied, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "num_experts": experts[0], "num_experts_per_tok": experts[1], "moe_intermediate_size": experts[2],
        "norm_topk_prob": true,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    }))
}

fn builtin_files() -> ModelFiles {
    let files = vec![
        ("config.json", Cow::Borrowed(&builtin!("config.json")[..])),
        ("generation_config.json", Cow::Borrowed(&builtin!("generation_config.json")[..])),
        ("tokenizer.json", Cow::Borrowed(&builtin!("tokenizer.json")[..])),
        ("tokenizer_config.json", Cow::Borrowed(&builtin!("tokenizer_config.json")[..])),
    ];
    ModelFiles::Memory("builtin".to_owned(), files)
}

const SETTINGS: &str = "tokenizer_config.json";

/// The tokenizer and the chat template.
///
/// # Errors
/// `NotFound`, `InvalidTokenizer`.
pub(crate) fn open_text(files: &ModelFiles) -> Result<Text> {
    let file = files.path("tokenizer.json");
    let tokenizer =
        Tokenizer::from_bytes(&files.require("tokenizer.json")?).map_err(|error| error.context(&file))?;
    let mut notes: Vec<String> = tokenizer.notes().iter().map(|note| format!("{file}: {note}")).collect();
    let object = |file: &str| -> Result<Option<serde_json::Value>> {
        files.get(file)?.map(|bytes| json_object(&bytes, &files.path(file))).transpose()
    };
    let settings = object(SETTINGS)?.unwrap_or_else(|| serde_json::json!({}));
    const SPLIT: &str = "split_special_tokens";
    if settings.get(SPLIT).is_some_and(|split| *split != false) {
        let file = files.path(SETTINGS);
        let message = format!("{file}: {SPLIT}: expected false, as special tokens in a text are tokens here");
        return Err(Error::new(ErrorKind::UnsupportedModel, message).with("file", file).with("key", SPLIT));
    }
    let mut special = SpecialTokens::parse(&settings)?;
    if let Some(map) = object("special_tokens_map.json")? {
        special = special.or(SpecialTokens::parse(&map)?);
    }
    let file = files.path(SETTINGS);
    let without = tokenizer.settings_without_effect(&settings, &special);
    notes.extend(without.into_iter().map(|note| format!("{file}: {note}")));
    let mut named = Vec::new();
    for (name, file) in [("default", TEMPLATE), ("tool_use", TOOL_TEMPLATE)] {
        named.extend(files.get(file)?.map(|bytes| (name, file, bytes)));
    }
    let templates = own_templates(files, &named, settings.get("chat_template"), &special).map_err(|error| {
        error.context("the model cannot chat without the option chat_template, as its own template is wrong")
    });
    // Tokenizers that know no limit have a huge number there.
    let max_tokens = settings.get("model_max_length").and_then(serde_json::Value::as_u64);
    let max_tokens = max_tokens.and_then(|most| usize::try_from(most).ok()).filter(|&most| most > 0);
    Ok(Text { tokenizer, templates, special, max_tokens, notes })
}

impl Text {
    /// Puts a chat template in the place of the model's own.
    ///
    /// # Errors
    /// `InvalidTemplate`.
    pub(crate) fn set_template(&mut self, source: &str) -> Result<()> {
        let templates = templates(Some(&source.into()), &self.special).map_err(|error| {
            let rest = error.message().strip_prefix("chat template");
            let message = rest.map(|rest| format!("option chat_template{rest}"));
            let error = match message {
                Some(message) => error.with_message(message),
                None => error.context("option chat_template"),
            };
            error.with("option", "chat_template")
        })?;
        self.templates = Ok(templates);
        Ok(())
    }
}

/// The templates of the files `named` (name, file, content), or else those that are configured.
fn own_templates(
    files: &ModelFiles,
    named: &[(&str, &str, Cow<'static, [u8]>)],
    configured: Option<&serde_json::Value>,
    special: &SpecialTokens,
) -> Result<Option<ChatTemplates>> {
    let Some((_, first, _)) = named.first() else {
        return templates(configured, special).map_err(|error| error.context(files.path(SETTINGS)));
    };
    let mut list = Vec::new();
    for (name, file, bytes) in named {
        let source = std::str::from_utf8(bytes).map_err(|error| {
            let path = files.path(file);
            Error::new(ErrorKind::InvalidUtf8, format!("{path}: expected UTF-8: {error}"))
        })?;
        list.push(serde_json::json!({"name": name, "template": source}));
    }
    // As in transformers, such files stand in place of what the configuration has, all of it.
    templates(Some(&list.into()), special).map_err(|error| error.context(files.path(first)))
}

fn templates(template: Option<&serde_json::Value>, special: &SpecialTokens) -> Result<Option<ChatTemplates>> {
    template.map_or(Ok(None), |template| ChatTemplates::from_config(template, special))
}

/// What is read of `tokenizer_config.json` and `special_tokens_map.json`.
fn is_read(key: &str) -> bool {
    const KEYS: [&str; 3] = ["chat_template", "model_max_length", "split_special_tokens"];
    key.ends_with("_token") || KEYS.contains(&key) || SETTINGS_WITHOUT_EFFECT.contains(&key)
}

fn json_object(bytes: &[u8], file: &str) -> Result<serde_json::Value> {
    let object = json::object(bytes, is_read);
    let object = object
        .map_err(|message| Error::invalid_tokenizer(format!("{file}: {message}")).with("file", file))?;
    Ok(object.into())
}

impl Weights {
    /// Where they come from, whatever is added to them.
    pub(crate) fn base(&self) -> &Weights {
        match self {
            Weights::Merged(merged) => &merged.base,
            weights => weights,
        }
    }

    /// In which format a matrix's own codes are computed with; `None` of floats, and where they are converted.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub(crate) fn own_format(&self, name: &MatrixName) -> Result<Option<ComputeFormat>> {
        match self {
            Weights::Gguf(gguf) => gguf.compute_format(name),
            Weights::Files(files) => files.compute_format(name),
            Weights::Merged(merged) if !merged.changes(name) => merged.base.own_format(name),
            Weights::Packed(_) | Weights::Random | Weights::Merged(_) => Ok(None),
        }
    }

    /// The name of the format in which a packed file has matrices as their source did.
    pub(crate) fn packed_format(&self, names: &Joined<'_>) -> Option<&str> {
        match self.base() {
            Weights::Packed(file) => file.info().formats.get(&names.name()).map(String::as_str),
            _ => None,
        }
    }

    /// The name of the format in which a matrix is stored, of sources with several.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    pub(crate) fn stored_format(&self, name: &MatrixName) -> Result<Option<String>> {
        match self.base() {
            Weights::Gguf(gguf) => Ok(gguf.stored_type(name)?.map(|kind| kind.name().to_owned())),
            Weights::Files(files) if files.quantization.is_some() => files.stored_format(name).map(Some),
            _ => Ok(None),
        }
    }

    /// What weights of the type are computed as, where they are not taken over as [`segments`](Self::segments) says. What
    /// is stored as int8 in safetensors or packed is taken over as it is.
    pub(crate) fn format(&self, weights: WeightType) -> ComputeFormat {
        let stored = match self.base() {
            Weights::Files(files) => files.source.stored_int8_group().map(|group| (group, false)),
            Weights::Packed(file) => file.info().group_size.map(|group| (group, file.info().rotated)),
            _ => None,
        };
        match stored {
            Some((group, rotated)) if weights == WeightType::Int8 => ComputeFormat::Int8 { group, rotated },
            _ => format(weights),
        }
    }

    /// The rows of a matrix; `last` is none, or of the one before.
    pub(crate) fn matrix<'a>(
        &'a self,
        name: &MatrixName,
        last: &mut LastTensor<'a>,
    ) -> Result<Box<dyn RowSource + 'a>> {
        Ok(match self {
            Weights::Files(files) => match &name.part {
                Some(part) => parts::rows(files, name, part, last)?,
                None => {
                    *last = None;
                    parts::whole(files, &name.name, &[name.n, name.k])?
                }
            },
            Weights::Gguf(gguf) => gguf.matrix(name)?,
            Weights::Packed(file) => {
                return Err(Error::invalid_argument(format!("{}: already packed", file.name())));
            }
            Weights::Merged(merged) => merged.matrix(name, last)?,
            Weights::Random => Box::new(RandomRows { seed: seed(&name.name), rows: name.n, cols: name.k }),
        })
    }

    /// A norm's gains, a bias, or a small matrix that stays in f32.
    pub(crate) fn vector(&self, name: &VectorName) -> Result<Vec<f32>> {
        match self {
            Weights::Files(files) => parts::vector(files, name),
            Weights::Gguf(gguf) => gguf.vector(name),
            Weights::Packed(file) => file.vector(&name.name, name.len),
            Weights::Random if name.name.ends_with("bias") => Ok(vec![0.0; name.len]),
            Weights::Random if is_rate(name) => Ok(vec![-1.0; name.len]),
            // A matrix: what it chooses should not always be the same.
            Weights::Random if name.part.is_some() => {
                let mut row = vec![0.0; name.len];
                RandomRows { seed: seed(&name.name), rows: 1, cols: name.len }.read_row(0, &[], &mut row);
                Ok(row)
            }
            Weights::Random => Ok(vec![1.0; name.len]),
            Weights::Merged(merged) => merged.base.vector(name),
        }
    }

    /// Bytes of all tensors as stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            Weights::Files(files) => files.source.total_bytes(),
            Weights::Gguf(gguf) => gguf.source.total_bytes(),
            Weights::Packed(file) => file.len() as u64,
            Weights::Random => 0,
            Weights::Merged(merged) => merged.base.stored_bytes(),
        }
    }
}

/// Whether a vector has the negative rates at which a state decays.
fn is_rate(name: &VectorName) -> bool {
    name.part.as_ref().is_some_and(|part| part.storage == PartStorage::MinusExp)
}

/// A stored matrix.
pub(crate) struct Stored<'a>(pub(crate) MatrixView<'a>);

impl RowSource for Stored<'_> {
    fn rows(&self) -> usize {
        self.0.n
    }
    fn cols(&self) -> usize {
        self.0.k
    }
    fn fetch(&self, rows: Range<usize>, buffer: &mut Vec<u8>) -> clawdbot_kernels::Result<()> {
        Ok(self.0.fetch(rows, buffer)?)
    }
    fn read_row(&self, row: usize, stored: &[u8], out: &mut [f32]) {
        self.0.read_row(row, stored, out);
    }
    fn own_format(&self) -> Option<ComputeFormat> {
        match &self.0.format {
            MatrixFormat::Int8(scales) => Some(ComputeFormat::Int8 { group: scales.group(), rotated: false }),
            MatrixFormat::Float(_) => None,
        }
    }
    fn read_codes(
        &self,
        row: usize,
        stored: &[u8],
        codes: &mut [i8],
        scales: &mut Vec<StoredScale>,
    ) -> clawdbot_kernels::Result<()> {
        let MatrixFormat::Int8(values) = &self.0.format else {
            return Err(Error::internal("the matrix is not stored as int8").into());
        };
        self.0.read_codes(row, stored, codes)?;
        scales.extend(values.row(row).iter().map(|&bits| StoredScale::One(bits)));
        Ok(())
    }
}

/// Nearly normal weights of standard deviation 0.02, a function of name and position.
struct RandomRows {
    seed: u64,
    rows: usize,
    cols: usize,
}

/// FNV-1a.
fn seed(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl RowSource for RandomRows {
    fn rows(&self) -> usize {
        self.rows
    }
    fn cols(&self) -> usize {
        self.cols
    }
    fn read_row(&self, row: usize, _: &[u8], out: &mut [f32]) {
        // Sixteen xorshift generators side by side (Marsaglia, "Xorshift RNGs", 2003), which compilers turn into vectors.
        const LANES: usize = 16;
        let mut state = [0_u32; LANES];
        for (lane, state) in state.iter_mut().enumerate() {
            // SplitMix64 keeps neighbouring rows and lanes apart. Zero is the one state that has no successor.
            let mut x =
                self.seed.wrapping_add(((row * LANES + lane + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *state = ((x >> 32) as u32).max(1);
        }
        let mut next = |values: &mut [f32; LANES]| {
            for (state, value) in state.iter_mut().zip(values) {
                *state ^= *state << 13;
                *state ^= *state >> 17;
                *state ^= *state << 5;
                // The sum of four uniform bytes: mean 510, variance 4 * (256^2 - 1) / 12.
                let bits = *state;
                let sum = (bits & 0xff) + ((bits >> 8) & 0xff) + ((bits >> 16) & 0xff) + (bits >> 24);
                *value = (sum as i32 - 510) as f32 * (0.02 / 147.8);
            }
        };
        let (chunks, tail) = out.as_chunks_mut::<LANES>();
        chunks.iter_mut().for_each(&mut next);
        let mut last = [0.0; LANES];
        next(&mut last);
        tail.copy_from_slice(&last[..tail.len()]);
    }
}
