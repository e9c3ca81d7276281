//! Models with weights from a `VarBuilder`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::error::from_candle;
use super::floats::{is_float, with_floats};
use crate::api::model::Model;
use crate::error::{Error, ErrorKind, Result};
use crate::load::open::untie;
use crate::load::source::{Description, Opened};
use crate::load::text::open_text;
use crate::load::weights::Weights;
use crate::options::{Cache, ModelOptions};
use crate::runtime::Runtime;
use crate::spec::tensors::LM_HEAD;
use crate::spec::{DecoderSpec, ExpertStorage};
use crate::weights::model_files::{MODEL_FILES, ModelFiles};
use crate::weights::{Dtype, Entry, HandedIn, WeightSource, quoted, stored_names};

/// Number of tensors kept for the next read. Gate and up projections, and q, k and v, are read alternately.
const KEPT: usize = 4;
/// Prefixes of the encoder's tensors in checkpoints of encoders with a head.
const MODULES: [&str; 5] = ["bert.", "distilbert.", "roberta.", "model.", "transformer."];
/// Name of the weights in messages.
const NAME: &str = "VarBuilder";

/// The small files of a model: `config.json` and, where present, `generation_config.json`, `tokenizer.json`,
/// `tokenizer_config.json`, `special_tokens_map.json`, `chat_template.jinja`, and the files of sentence-transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmallFiles {
    /// In a directory; its other files, weights included, are ignored.
    Dir(PathBuf),
    /// Names and contents.
    Memory(Vec<(String, Vec<u8>)>),
}

impl From<&Path> for SmallFiles {
    fn from(path: &Path) -> Self {
        SmallFiles::Dir(path.to_owned())
    }
}

impl SmallFiles {
    fn open(&self) -> Result<(String, ModelFiles)> {
        match self {
            SmallFiles::Dir(dir) if dir.is_dir() => {
                Ok((dir.display().to_string(), ModelFiles::Dir(dir.clone())))
            }
            SmallFiles::Dir(dir) => {
                let name = dir.display().to_string();
                let message = format!("{name}: expected a directory with a config.json");
                Err(Error::new(ErrorKind::NotFound, message).with("path", name))
            }
            SmallFiles::Memory(files) => {
                let mut known: Vec<(&'static str, Cow<'static, [u8]>)> = Vec::new();
                for (name, bytes) in files {
                    let file = MODEL_FILES.iter().find(|file| *file == name).ok_or_else(|| {
                        let message = format!("expected files of {}, found {name:?}", MODEL_FILES.join(", "));
                        Error::invalid_argument(message).with("found", name.as_str())
                    })?;
                    if known.iter().any(|(other, _)| other == file) {
                        return Err(Error::invalid_argument(format!(
                            "expected each file once, found {name} twice"
                        )));
                    }
                    known.push((file, bytes.clone().into()));
                }
                Ok((NAME.to_owned(), ModelFiles::Memory(NAME.to_owned(), known)))
            }
        }
    }
}

impl Runtime {
    /// Loads a model with the configuration in `files` and the weights in `weights`, of its dtype: f32, f16 or bf16 on
    /// the CPU. Weights are requested by the names in checkpoints of the family, one or a few at a time, and packed as
    /// `options` say; none is kept. Without a `tokenizer.json` the model takes and returns token ids only.
    ///
    /// # Errors
    /// As [`Runtime::load`]; `InvalidModel` for tensors that are missing or of another shape, `UnsupportedModel` for a
    /// configuration with quantized weights, `InvalidArgument` for another dtype or device, and for the options `cache`
    /// and `verify`, which need files.
    pub fn load_var_builder(
        &self,
        files: &SmallFiles,
        weights: VarBuilder<'static>,
        options: &ModelOptions,
    ) -> Result<Model> {
        self.pool().check_fork()?;
        options.validate()?;
        if options.cache != Cache::Off {
            let message = "option cache: expected none for weights from a VarBuilder, which have no files";
            return Err(Error::invalid_argument(message).with("option", "cache"));
        }
        let opened = open(files, weights)?.merged(&options.merge_adapters)?;
        self.load_opened(opened, options, |_, _| true)
    }
}

fn open(files: &SmallFiles, builder: VarBuilder<'static>) -> Result<Opened> {
    let (name, files) = files.open()?;
    let dtype = match builder.dtype() {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        other => {
            let message = format!("{NAME}: expected dtype f32, f16 or bf16, found {}", other.as_str());
            return Err(Error::invalid_argument(message));
        }
    };
    if !builder.device().is_cpu() {
        let found = builder.device().location();
        return Err(Error::invalid_argument(format!("{NAME}: expected tensors on the CPU, found {found:?}")));
    }
    let Description { config, mut spec, quantization, embedding } = Opened::describe(&files)?;
    let mxfp4 = spec.moe.is_some_and(|moe| moe.storage == ExpertStorage::JoinedMxfp4);
    if mxfp4 || quantization.is_some() {
        let message = format!(
            "{}: quantization_config: expected none for weights from a VarBuilder, found quantized weights",
            config.file()
        );
        return Err(Error::unsupported_model(message));
    }
    let text = if files.get("tokenizer.json")?.is_some() { Some(open_text(&files)?) } else { None };
    let names = StoredNames::new(&builder, &spec);
    spec = spec.with_experts_as_stored(|name| names.find(name).is_some());
    // Modules of a sentence-transformers model with weights in folders of their own are looked up there.
    let folder = |dir: &PathBuf, folder: &String| (dir.join(folder), format!("{folder}."));
    let folders: Vec<(PathBuf, String)> = match &files {
        ModelFiles::Dir(dir) => embedding.folders.iter().map(|name| folder(dir, name)).collect(),
        _ => Vec::new(),
    };
    let mut entries = Vec::new();
    let mut tensors = Vec::new();
    let mut end = 0_usize;
    let mut wanted = spec.tensors().stored();
    // With tied embeddings, an output head may be stored as well: compare both if it is.
    let table = spec.embedding_tensor();
    let heads = spec.may_have_own_head() && names.find(LM_HEAD).is_some();
    if heads && let Some(at) = wanted.iter().position(|(name, _)| *name == table) {
        let head = (LM_HEAD.to_owned(), wanted[at].1.clone());
        if names.find(&table).is_some() {
            wanted.push(head);
        } else {
            wanted[at] = head;
        }
    }
    for (name, shape) in wanted {
        if folders.iter().any(|(_, prefix)| name.starts_with(prefix)) {
            continue;
        }
        let stored = names.find(&name).ok_or_else(|| {
            let message = format!("{NAME}: expected a tensor {}, found none", quoted(&name));
            Error::invalid_model(message).with("tensor", name.as_str())
        })?;
        let start = end;
        let size = shape.iter().try_fold(dtype.bitsize() / 8, |size, &n| size.checked_mul(n));
        end = size.and_then(|size| start.checked_add(size)).ok_or_else(|| {
            Error::invalid_model(format!("{NAME}: tensor {} of shape {shape:?} is too large", quoted(&name)))
        })?;
        tensors.push(VarTensor { name: stored, shape: shape.clone(), start, bytes: end - start });
        entries.push(Entry { name, dtype, shape, range: start..end });
    }
    let bytes = VarTensors { builder, tensors, recent: Mutex::default() };
    let mut source = WeightSource::from_program(NAME, entries, Arc::new(bytes))?;
    for (dir, prefix) in &folders {
        source.add_dir(dir, prefix)?;
    }
    let mut weights = source.into();
    untie(&mut spec, &mut weights, &config)?;
    let description = Description { config, spec, quantization, embedding };
    Opened::complete(name, description, Weights::Files(weights), text, files)
}

/// Maps tensor names of checkpoints to those in a `VarBuilder`.
struct StoredNames<'a> {
    builder: &'a VarBuilder<'static>,
    /// Prefix of the names in the builder.
    module: &'static str,
    /// Prefix that the names in the builder lack.
    missing: String,
}

impl<'a> StoredNames<'a> {
    fn new(builder: &'a VarBuilder<'static>, spec: &DecoderSpec) -> Self {
        let embedding = spec.embedding_tensor();
        let mut names = StoredNames { builder, module: "", missing: String::new() };
        if names.find(&embedding).is_some() {
            return names;
        }
        let has = |module: &&&str| builder.contains_tensor(&format!("{module}{embedding}"));
        let shorter = embedding.match_indices('.').map(|(dot, _)| embedding.split_at(dot + 1));
        if let Some(module) = MODULES.iter().find(has) {
            names.module = module;
        } else if let Some((missing, _)) = shorter.into_iter().find(|(_, name)| builder.contains_tensor(name))
        {
            names.missing = missing.to_owned();
        }
        names
    }

    /// The stored name of the tensor `name`: as in a checkpoint of the text model or of a larger one, with or without
    /// the prefix of a module. Norms may be called `gamma` and `beta`.
    fn find(&self, name: &str) -> Option<String> {
        let mut names = stored_names(name);
        let StoredNames { builder, module, missing } = self;
        if !module.is_empty() {
            names.push(format!("{module}{name}"));
        }
        if !missing.is_empty() {
            names.extend(name.strip_prefix(missing).map(str::to_owned));
        }
        for (norm, old) in [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")] {
            for index in 0..names.len() {
                names.extend(names[index].strip_suffix(norm).map(|name| format!("{name}{old}")));
            }
        }
        names.into_iter().find(|name| builder.contains_tensor(name))
    }
}

/// A tensor of a `VarBuilder`, and its byte range among all tensors laid end to end.
struct VarTensor {
    name: String,
    shape: Vec<usize>,
    start: usize,
    bytes: usize,
}

/// The tensors of a `VarBuilder` as bytes. A tensor is fetched at its first read, and dropped when it was read
/// completely or others have been read since.
struct VarTensors {
    builder: VarBuilder<'static>,
    /// In order of their bytes.
    tensors: Vec<VarTensor>,
    /// The most recent last.
    recent: Mutex<VecDeque<Recent>>,
}

struct Recent {
    index: usize,
    tensor: Tensor,
    /// Bytes left to read, if none is read twice.
    left: usize,
}

impl fmt::Debug for VarTensors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VarTensors").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

impl VarTensors {
    /// Tensor `index`, for a read of `bytes` bytes.
    fn tensor(&self, index: usize, bytes: usize) -> Result<Tensor> {
        // Locked while the tensor is fetched: other threads want the same one.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent.iter().position(|recent| recent.index == index);
        let mut this = match found.and_then(|at| recent.remove(at)) {
            Some(this) => this,
            None => {
                let wanted = &self.tensors[index];
                let tensor = self.fetch(wanted)?;
                Recent { index, tensor, left: wanted.bytes }
            }
        };
        let tensor = this.tensor.clone();
        this.left = this.left.saturating_sub(bytes);
        if this.left > 0 {
            recent.push_back(this);
        }
        if recent.len() > KEPT {
            recent.pop_front();
        }
        Ok(tensor)
    }

    fn fetch(&self, wanted: &VarTensor) -> Result<Tensor> {
        let VarTensor { name, shape, .. } = wanted;
        let error = |kind, message: String| {
            let full = match self.builder.prefix() {
                prefix if prefix.is_empty() => name.clone(),
                prefix => format!("{prefix}.{name}"),
            };
            Error::new(kind, format!("{NAME}: tensor {}: {message}", quoted(&full))).with("tensor", full)
        };
        let tensor = self.builder.get(shape.as_slice(), name).map_err(|refused| {
            let refused = from_candle(refused);
            let kind = match refused.kind() {
                kind @ (ErrorKind::Io | ErrorKind::NotFound | ErrorKind::OutOfBudget) => kind,
                _ => ErrorKind::InvalidModel,
            };
            error(kind, format!("expected shape {shape:?}: {}", refused.message()))
        })?;
        // A custom backend may return anything.
        let (dims, dtype) = (tensor.dims(), tensor.dtype());
        if dims != shape || dtype != self.builder.dtype() || !is_float(dtype) || !tensor.device().is_cpu() {
            let (expected, found) = (self.builder.dtype().as_str(), dtype.as_str());
            let device = tensor.device().location();
            return Err(error(
                ErrorKind::InvalidModel,
                format!("expected {expected} {shape:?} on the CPU, found {found} {dims:?} on {device:?}"),
            ));
        }
        tensor.contiguous().map_err(from_candle)
    }
}

impl HandedIn for VarTensors {
    fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let index = self.tensors.partition_point(|tensor| tensor.start <= offset);
        let none = || Error::internal(format!("no tensor has byte {offset}"));
        let index = index.checked_sub(1).ok_or_else(none)?;
        let tensor = self.tensor(index, out.len())?;
        let start = offset - self.tensors[index].start;
        with_floats(&tensor, |floats| floats.bytes(start..start.saturating_add(out.len()), out))
    }
}
