//! Models in GGUF files: the metadata become the small files of a Hugging Face directory, tensors get their names there,
//! and everything else is as for any model.

mod config;
mod names;
#[cfg(test)]
mod tests;

use std::path::Path;

use self::config::Family;
use self::names::stored_name;
use super::config::{GenerationDefaults, ModelConfig};
use super::embedding::EmbeddingConfig;
use super::files::ModelFiles;
use super::registry::parse_spec;
use super::source::{Opened, Weights};
use super::spec::DecoderSpec;
use super::tensors::{MatrixName, VectorName};
use crate::error::Result;
use crate::kernels::{ComputeFormat, RowSource};
use crate::tokenizer::tokenizer_files;
use crate::weights::{GgufSource, RowOrder, TensorType};

/// The weights of a GGUF file.
pub(crate) struct GgufWeights {
    pub(crate) source: GgufSource,
    family: &'static Family,
    /// Elements of a head.
    head_dim: usize,
}

impl Opened {
    /// Opens the GGUF file at `path`.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub(super) fn open_gguf(name: String, path: &Path) -> Result<Self> {
        let source = GgufSource::open(path)?;
        let tokenizer = tokenizer_files(source.metadata())?;
        let (family, config) = config::config_json(&source)?;
        let mut files = vec![("config.json", config.into())];
        if let Some(tokenizer) = tokenizer {
            files.push(("generation_config.json", config::generation_json(&tokenizer).into()));
            files.push(("tokenizer.json", tokenizer.tokenizer.into()));
            files.push(("tokenizer_config.json", tokenizer.config.into()));
        }
        let has_tokenizer = files.len() > 1;
        let files = ModelFiles::Memory(name.clone(), files);
        let spec = parse_spec(&ModelConfig::open(&files, "config.json")?)?;
        let unused = check_tensors(&spec, family, &source)?;
        let weights = Weights::Gguf(GgufWeights { head_dim: spec.head_dim, source, family });
        let mut opened = match has_tokenizer {
            true => Self::from_files(name, files, || Ok(weights))?,
            false => {
                let (defaults, text, unused) = (GenerationDefaults::default(), None, Vec::new());
                let embedding = EmbeddingConfig::default();
                Opened { name, spec, embedding, defaults, weights, dtype: None, unused, text, files }
            }
        };
        if let Weights::Gguf(GgufWeights { source, .. }) = &opened.weights {
            opened.dtype = Some(types(source));
        }
        opened.unused = unused;
        Ok(opened)
    }
}

/// The types of tensors and how many there are of each, most first.
fn types(source: &GgufSource) -> String {
    let mut types: Vec<_> = source.types().into_iter().collect();
    types.sort_by_key(|&(kind, count)| (std::cmp::Reverse(count), kind));
    let types: Vec<String> = types.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
    types.join(", ")
}

impl GgufWeights {
    /// The format in which a matrix's own codes are computed with, unless it is stored as floats.
    ///
    /// # Errors
    /// As [`stored_name`].
    pub(crate) fn compute_format(&self, name: &MatrixName) -> Result<Option<ComputeFormat>> {
        let tensor = self.source.tensor(&stored_name(&name.name)?);
        Ok(tensor.and_then(|tensor| tensor.kind.compute_format()))
    }

    /// The type in which a matrix is stored.
    ///
    /// # Errors
    /// As [`stored_name`].
    pub(crate) fn stored_type(&self, name: &MatrixName) -> Result<Option<TensorType>> {
        Ok(self.source.tensor(&stored_name(&name.name)?).map(|tensor| tensor.kind))
    }

    /// The rows of a matrix.
    ///
    /// # Errors
    /// As [`GgufSource::matrix`].
    pub(crate) fn matrix(&self, name: &MatrixName) -> Result<Box<dyn RowSource + '_>> {
        let order = self.family.order(&name.name, self.head_dim);
        let matrix = self.source.matrix(&stored_name(&name.name)?, name.n, name.k, order)?;
        matrix.will_need();
        Ok(Box::new(matrix))
    }

    /// A norm's gains or a bias.
    ///
    /// # Errors
    /// As [`GgufSource::vector`].
    pub(crate) fn vector(&self, name: &VectorName) -> Result<Vec<f32>> {
        let order = self.family.order(&name.name, self.head_dim);
        self.source.vector(&stored_name(&name.name)?, name.len, order)
    }
}

/// Checks that `source` has every tensor of `spec`, of the right shape. Returns the names of tensors that the model does
/// not use.
fn check_tensors(spec: &DecoderSpec, family: &Family, source: &GgufSource) -> Result<Vec<String>> {
    let names = spec.tensors();
    let mut used = std::collections::HashSet::new();
    for matrix in names.matrices() {
        let name = stored_name(&matrix.name)?;
        source.matrix(&name, matrix.n, matrix.k, family.order(&matrix.name, spec.head_dim))?;
        used.insert(name);
    }
    for vector in names.vectors() {
        let name = stored_name(&vector.name)?;
        source.check_vector(&name, vector.len)?;
        used.insert(name);
    }
    let unused = source.names().filter(|name| !used.contains(*name) && *name != config::ROPE_FACTORS);
    Ok(unused.map(str::to_owned).collect())
}

impl Family {
    /// In which order the rows of a tensor are stored.
    fn order(&self, name: &str, head: usize) -> RowOrder {
        let rotated = name.contains(".self_attn.q_proj.") || name.contains(".self_attn.k_proj.");
        if self.pairs && rotated { RowOrder::Pairs { head } } else { RowOrder::Stored }
    }
}
