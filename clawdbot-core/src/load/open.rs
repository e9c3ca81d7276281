//! Opening models: everything that can be checked without reading the weights is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clawdbot_kernels::PackedMatrix;

use super::adapter::MergedAdapters;
use super::check::check_packed;
use super::gguf::GgufWeights;
use super::mtp;
use super::quantization::{FileWeights, parse_quantization, parse_spec};
use super::shapes;
use super::source::{Description, Opened, Source, file_names};
use super::text::open_text;
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{GenerationDefaults, ModelOptions, WeightType};
use crate::spec::config::ModelConfig;
use crate::spec::embedding::EmbeddingConfig;
use crate::spec::tensors::LM_HEAD;
use crate::spec::{DecoderSpec, gguf, registry};
use crate::tokenizer::tokenizer_files;
use crate::weights::model_files::ModelFiles;
use crate::weights::{DataFile, GgufSource, MAGIC, PackedFile, WeightSource, quoted};

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
                    return Self::from_files(name, files, || WeightSource::open_dir(path));
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
                let file = "builtin/model.safetensors";
                let open = || WeightSource::from_static(builtin!("model.safetensors"), file);
                Self::from_files("builtin".to_owned(), builtin_files(), open)
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
        let mut description = Self::describe(&files)?;
        description.spec.tie_word_embeddings &= !file.has(LM_HEAD);
        let weights = file.info().weights.parse::<WeightType>().map_err(|_| {
            let found = quoted(&file.info().weights);
            Error::unsupported_model(format!(
                "{name}: expected int8, int4, int4-mixed, bf16, f32 or stored weights, found {found}"
            ))
        })?;
        // int8 may be in any group, the others are always packed in the same way; where codes are used as stored, each matrix has its own.
        let packed = Weights::Packed(Arc::clone(&file));
        let format = packed.format(weights);
        let of_weights = format.activations().filter(|_| weights != WeightType::Stored);
        let expected = of_weights.map(|format| (format.group, format.rotated));
        let found = file.info().group_size.map(|group| (group, file.info().rotated));
        if found != expected || (found.is_none() && file.info().rotated) {
            let message = format!(
                "{name}: group_size and rotated: expected {expected:?} for {weights}, found {found:?}"
            );
            return Err(Error::unsupported_model(message));
        }
        PackedMatrix::packed_bytes(format, 1, 1)
            .map_err(|error| Error::unsupported_model(format!("{name}: group_size: {error}")))?;
        let Description { spec, embedding, .. } = &description;
        check_packed(&spec.tensors(), &file, &file_names(embedding), |names| {
            packed.segments(names, weights)
        })?;
        let text = if file.info().has_tokenizer { Some(open_text(&files)?) } else { None };
        Self::complete(name, description, packed, text, files)
    }

    /// The model in `files`, whose tensors `open` finds.
    fn from_files(
        name: String,
        files: ModelFiles,
        open: impl FnOnce() -> Result<WeightSource>,
    ) -> Result<Self> {
        let mut description = Self::describe(&files)?;
        let text = Some(open_text(&files)?);
        let mut stored = FileWeights { source: open()?, quantization: description.quantization.take() };
        let Description { config, spec, embedding, .. } = &mut description;
        stored.source.rename(&spec.embedding_tensor())?;
        untie(spec, &mut stored, config)?;
        mtp::name_as_others(&mut stored, spec)?;
        if let ModelFiles::Dir(dir) = &files {
            for folder in &embedding.folders {
                stored.source.add_dir(&dir.join(folder), &format!("{folder}."))?;
            }
        }
        description.spec =
            description.spec.with_experts_as_stored(|name| stored.source.tensor(name).is_some());
        Self::complete(name, description, Weights::Files(stored), text, files)
    }

    /// What the model is.
    ///
    /// # Errors
    /// `NotFound` without `config.json`; as `parse_spec`.
    pub(crate) fn describe(files: &ModelFiles) -> Result<Description> {
        let config = ModelConfig::open(files, "config.json")?;
        // Weights in a quantization that is not known would be misread, so that is looked at first.
        let quantization = parse_quantization(&config)?;
        let mut spec = registry::parse_spec(&config)?;
        let embedding = EmbeddingConfig::read(files, &config, spec.hidden_size)?;
        embedding.extend(&mut spec)?;
        spec.check().map_err(|error| error.context(config.file()))?;
        Ok(Description { config, spec, quantization, embedding })
    }

    /// Opens the GGUF file at `path`.
    ///
    /// # Errors
    /// As [`Opened::open`].
    fn open_gguf(name: String, path: &Path) -> Result<Self> {
        Self::of_gguf(name, GgufSource::open(path)?)
    }

    /// The model in an opened file.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub(crate) fn of_gguf(name: String, source: GgufSource) -> Result<Self> {
        let tokenizer = tokenizer_files(source.metadata())?;
        let (family, files) = gguf::config_json(&source)?;
        let mut files: Vec<_> = files.into_iter().map(|(name, json)| (name, json.into())).collect();
        let has_tokenizer = tokenizer.is_some();
        let mut notes = Vec::new();
        if let Some(tokenizer) = tokenizer {
            notes.clone_from(&tokenizer.notes);
            files.push(("generation_config.json", gguf::generation_json(&tokenizer).into()));
            files.push(("tokenizer.json", tokenizer.tokenizer.into()));
            files.push(("tokenizer_config.json", tokenizer.config.into()));
        }
        let files = ModelFiles::Memory(name.clone(), files);
        let description = Self::describe(&files)?;
        let gguf = GgufWeights::new(source, family, description.spec.clone());
        let unused = gguf.check()?;
        let text = if has_tokenizer { Some(open_text(&files)?) } else { None };
        let mut opened = Self::complete(name, description, Weights::Gguf(gguf), text, files)?;
        if let Weights::Gguf(gguf) = &opened.weights {
            opened.dtype = Some(type_counts(&gguf.source));
        }
        opened.unused = unused;
        opened.notes.extend(notes);
        Ok(opened)
    }

    /// The model with the adapters in `dirs` added to its weights.
    ///
    /// # Errors
    /// As [`MergedAdapters::open`]; `InvalidArgument` for packed models, whose weights are used as they are.
    pub(crate) fn merged(mut self, dirs: &[PathBuf]) -> Result<Self> {
        if dirs.is_empty() {
            return Ok(self);
        }
        if let Weights::Packed(file) = &self.weights {
            let message =
                format!("option merge_adapters: expected a model that is not packed, found {}", file.name());
            return Err(Error::invalid_argument(message).with("option", "merge_adapters"));
        }
        let adapters = MergedAdapters::open(dirs, &self.spec.tensors())?;
        self.weights = Weights::Merged { base: Box::new(self.weights), adapters };
        Ok(self)
    }
}

/// The types of tensors, and how many there are of each, most first.
fn type_counts(source: &GgufSource) -> String {
    let mut types: Vec<_> = source.types().into_iter().collect();
    types.sort_by_key(|&(kind, count)| (std::cmp::Reverse(count), kind));
    let types: Vec<String> = types.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
    types.join(", ")
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
