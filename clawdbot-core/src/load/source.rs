//! Where a model comes from: a directory, a packed file, the built-in one, or random weights in a known shape.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawdbot_kernels::{ComputeFormat, PackedMatrix};

use super::check::{check_packed, check_tensors};
use super::quantization::{FileWeights, parse_quantization, parse_spec};
use super::shapes;
use super::text::{Text, no_tokenizer, open_text};
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Cache, GenerationDefaults, ModelOptions, WeightType};
use crate::spec::config::ModelConfig;
use crate::spec::embedding::EmbeddingConfig;
use crate::spec::tensors::LM_HEAD;
use crate::spec::{DecoderSpec, generation};
use crate::weights::model_files::{MODEL_FILES, ModelFiles};
use crate::weights::{DataFile, MAGIC, PackedFile, WeightSource, outside_text, quoted};

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
    pub const SHAPES: &'static [&'static str] = &shapes::NAMES;
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Source::Path(path.to_owned())
    }
}

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
                let config = shapes::config(name)?.to_string().into_bytes();
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
        // int8 may be in any group, the others are always packed in the same way; where codes are used as stored, each matrix has its own.
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
        self.unused.iter().map(String::as_str).partition(|name| outside_text(name))
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

fn builtin_files() -> ModelFiles {
    let files = vec![
        ("config.json", Cow::Borrowed(&builtin!("config.json")[..])),
        ("generation_config.json", Cow::Borrowed(&builtin!("generation_config.json")[..])),
        ("tokenizer.json", Cow::Borrowed(&builtin!("tokenizer.json")[..])),
        ("tokenizer_config.json", Cow::Borrowed(&builtin!("tokenizer_config.json")[..])),
    ];
    ModelFiles::Memory("builtin".to_owned(), files)
}
