//! The files of an adapter: `adapter_config.json` and `adapter_model.safetensors`, as PEFT writes them. Untrusted.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::peft::{AdapterConfig, RankAndScale};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::config::ModelConfig;
use crate::spec::tensors::{MatrixName, Part, PartStorage, TensorNames};
use crate::weights::model_files::ModelFiles;
use crate::weights::{Dtype, MatrixSize, WeightSource, quoted, text_name};

pub(crate) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// In front of the names of modules.
const PREFIX: &str = "base_model.model.";
/// Most ranks of a module.
const MAX_RANK: usize = 1 << 16;

/// An adapter's files, opened and checked against a model; nothing has been read yet.
#[derive(Debug)]
pub(crate) struct AdapterFiles {
    pub(crate) source: WeightSource,
    /// The bytes of the configuration.
    pub(crate) config: Vec<u8>,
    /// By module, such as `model.layers.0.self_attn.q_proj`.
    pub(crate) pairs: BTreeMap<String, Pair>,
}

/// The matrices of a module.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    /// What the module is called in the files.
    stored: String,
    /// Tensors `[rank, k]` and `[n, rank]`.
    a: String,
    b: String,
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    n: usize,
    k: usize,
    /// Whether both are stored as bf16.
    pub(crate) bf16: bool,
}

/// What becomes of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Its products are computed apart from those of the weights.
    Separate,
    /// It is added to the weights as these are read.
    Merged,
}

/// The module that a matrix, or the tensor that it is a part of, belongs to, if its rows are the tensor's.
pub(crate) fn module(name: &MatrixName) -> Option<&str> {
    let tensor = match name.part.as_deref() {
        None => &name.name,
        Some(part) if part.storage == PartStorage::Rows => &part.tensor,
        Some(_) => return None,
    };
    tensor.strip_suffix(".weight")
}

impl AdapterFiles {
    /// Opens the adapter in `dir` and checks it against the projections of a model.
    ///
    /// # Errors
    /// `NotFound`, `Io` if a file is not there or cannot be read; `InvalidModel` for what is malformed, for shapes that do
    /// not fit and for a matrix without its other; `UnsupportedModel` for other kinds of adapters and for modules that
    /// cannot be adapted.
    pub(crate) fn open(dir: &Path, names: &TensorNames, used: Use) -> Result<Self> {
        let files = ModelFiles::Dir(dir.to_owned());
        let json = files.require(CONFIG)?.into_owned();
        let config = ModelConfig::parse(&json, &files.path(CONFIG))?;
        let settings = AdapterConfig::parse(&config)?;
        let source = WeightSource::open_file(dir, WEIGHTS)?;
        let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
        for name in source.names() {
            let refused = |kind, what: &str| {
                let message = format!("{}: tensor {}: {what}", files.path(WEIGHTS), quoted(name));
                Err(Error::new(kind, message).with("tensor", name))
            };
            let Some(module) = name.strip_prefix(PREFIX) else {
                return refused(
                    ErrorKind::UnsupportedModel,
                    &format!("expected a name that begins with {PREFIX}"),
                );
            };
            let (module, is_a) =
                match (module.strip_suffix(".lora_A.weight"), module.strip_suffix(".lora_B.weight")) {
                    (Some(module), _) => (module, true),
                    (_, Some(module)) => (module, false),
                    _ => {
                        return refused(
                            ErrorKind::UnsupportedModel,
                            "expected lora_A.weight or lora_B.weight",
                        );
                    }
                };
            let pair = pairs.entry(text_name(module)).or_default();
            module.clone_into(&mut pair.stored);
            let tensor = if is_a { &mut pair.a } else { &mut pair.b };
            if !tensor.is_empty() {
                return refused(ErrorKind::InvalidModel, "it is there under another name too");
            }
            name.clone_into(tensor);
        }
        if pairs.is_empty() {
            let message = format!("{}: expected tensors, found none", files.path(WEIGHTS));
            return Err(Error::invalid_model(message));
        }
        let sizes = sizes(names, used);
        for (module, pair) in &mut pairs {
            let Some(&MatrixSize { n, k }) = sizes.get(module.as_str()) else {
                let expected = match names.only_merged().any(|matrix| self::module(matrix) == Some(module)) {
                    true => "a projection of all tokens, as experts and the output head can only be merged",
                    false => "a projection of attention or of an MLP that the model has",
                };
                let message =
                    format!("{}: module {}: expected {expected}", files.path(WEIGHTS), quoted(module));
                return Err(Error::unsupported_model(message).with("module", module.as_str()));
            };
            (pair.n, pair.k) = (n, k);
            let RankAndScale { rank, scale } = settings.rank_and_scale(&pair.stored)?;
            (pair.rank, pair.scale) = (rank, scale);
            if pair.rank > MAX_RANK || !pair.scale.is_finite() {
                return Err(Error::invalid_model(format!(
                    "{}: module {}: expected a rank of at most {MAX_RANK} and a finite scale, found {rank} and {scale}",
                    files.path(CONFIG),
                    quoted(module)
                )));
            }
            pair.bf16 = true;
            for (name, suffix, shape) in
                [(&mut pair.a, "A", [pair.rank, k]), (&mut pair.b, "B", [n, pair.rank])]
            {
                if name.is_empty() {
                    *name = format!("{PREFIX}{module}.lora_{suffix}.weight");
                }
                source.check_elements(name, &shape)?;
                pair.bf16 &= source.tensor(name).is_some_and(|tensor| tensor.dtype == Dtype::BF16);
            }
        }
        Ok(AdapterFiles { source, config: json, pairs })
    }

    /// `[rank, k]`
    pub(crate) fn a(&self, pair: &Pair) -> Result<Vec<f32>> {
        self.source.elements(&pair.a, &[pair.rank, pair.k])
    }

    /// `[n, rank]`
    pub(crate) fn b(&self, pair: &Pair) -> Result<Vec<f32>> {
        self.source.elements(&pair.b, &[pair.n, pair.rank])
    }
}

/// Outputs and inputs of every module that can be adapted.
pub(crate) fn sizes(names: &TensorNames, used: Use) -> HashMap<String, MatrixSize> {
    let adaptable = names.adaptable();
    let adapted = adaptable.iter().flat_map(|projections| &projections.parts).map(|part| &part.weight);
    let merged = names.only_merged().filter(|_| used == Use::Merged);
    let mut sizes = HashMap::new();
    for matrix in adapted.chain(merged) {
        let Some(module) = module(matrix) else { continue };
        let all = |part: &Part| part.shape[..part.shape.len() - 1].iter().product();
        let rows = matrix.part.as_deref().map_or(matrix.n, all);
        sizes.insert(module.to_owned(), MatrixSize { n: rows, k: matrix.k });
    }
    sizes
}
