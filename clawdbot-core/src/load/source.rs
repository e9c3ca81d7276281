//! Where a model comes from: a directory, a packed file, the built-in one, or random weights in a known shape.

use std::path::{Path, PathBuf};

use clawdbot_kernels::ComputeFormat;

use super::check::check_tensors;
use super::quantization::{FileWeights, Quantization};
use super::shapes;
use super::text::{Text, no_tokenizer};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::options::{Cache, GenerationDefaults, ModelOptions, WeightType};
use crate::spec::config::ModelConfig;
use crate::spec::embedding::EmbeddingConfig;
use crate::spec::{DecoderSpec, generation};
use crate::weights::model_files::{MODEL_FILES, ModelFiles};
use crate::weights::outside_text;

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

/// What the small files say a model is.
pub(crate) struct Description {
    pub(crate) config: ModelConfig,
    pub(crate) spec: DecoderSpec,
    /// How its matrices are quantized; `None` if they are not, or in a way that belongs to the architecture.
    pub(crate) quantization: Option<Quantization>,
    /// How texts become vectors.
    pub(crate) embedding: EmbeddingConfig,
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
    /// Warnings about the files, for the log.
    pub(crate) notes: Vec<String>,
}

impl Opened {
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
        description: Description,
        weights: Weights,
        mut text: Option<Text>,
        files: ModelFiles,
    ) -> Result<Self> {
        let Description { config, spec, mut embedding, .. } = description;
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

/// What a tensor belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TensorOf {
    /// The text model, which is loaded.
    TextModel,
    /// A tower for images or sounds, say.
    OtherPart,
}

impl Opened {
    /// Warnings about the files: what is in them and has no effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        if let Some(Text { templates: Err(error), .. }) = &self.text {
            warnings.push(error.to_string());
        }
        warnings.extend(self.about(&self.unused_tensors(TensorOf::TextModel), "tensors are not used"));
        warnings
    }

    /// Whether conversations can be rendered.
    pub(crate) fn has_chat_template(&self) -> bool {
        self.text.as_ref().is_some_and(|text| matches!(text.templates, Ok(Some(_))))
    }

    /// For a model with more than text: how much is left out.
    pub(crate) fn left_out(&self) -> Option<String> {
        let others = self.unused_tensors(TensorOf::OtherPart);
        self.about(&others, "tensors are not of the text model, which alone is loaded")
    }

    /// The names of unused tensors of one kind.
    fn unused_tensors(&self, kind: TensorOf) -> Vec<&str> {
        let is_kind = |name: &&str| outside_text(name) == (kind == TensorOf::OtherPart);
        self.unused.iter().map(String::as_str).filter(is_kind).collect()
    }

    fn about(&self, tensors: &[&str], what: &str) -> Option<String> {
        let some = tensors.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        (!tensors.is_empty()).then(|| format!("{}: {} {what}: {some} ...", self.name, tensors.len()))
    }
}

pub(super) fn file_names(embedding: &EmbeddingConfig) -> Vec<&str> {
    MODEL_FILES.into_iter().chain(embedding.files.iter().map(String::as_str)).collect()
}
