//! Whether files have the tensors that a model needs, asked before any is read.

use std::collections::HashSet;

use clawdbot_kernels::PackedMatrix;

use super::formats::Segment;
use super::mxfp4;
use super::quantization::FileWeights;
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::packing::Joined;
use crate::spec::tensors::{LM_HEAD, MatrixName, PartStorage, TensorNames, VectorName};
use crate::weights::{Dtype, ExpectedMatrix, ExpectedVector, PackedFile, SCALES_SUFFIX};

/// Checks that `file` has every tensor of `spec` packed as `segments` says of matrices that read the same input, and besides
/// them no other than the small files `files`.
///
/// # Errors
/// As `PackedFile::check`, and `OutOfBudget` for sizes that overflow.
pub(crate) fn check_packed<'a>(
    names: &'a TensorNames,
    file: &PackedFile,
    files: &[&str],
    segments: impl Fn(&Joined<'a>) -> Result<Vec<Segment<'a>>>,
) -> Result<()> {
    let mut matrices = Vec::new();
    for group in names.packed_matrices() {
        for Segment { names, format } in segments(&group)? {
            let parts = PackedMatrix::parts(format, names.n(), names.k())?;
            matrices.push(ExpectedMatrix { name: names.name(), parts });
        }
    }
    let vectors: Vec<_> =
        names.vectors().map(|vector| ExpectedVector { name: &vector.name, len: vector.len }).collect();
    file.check(&matrices, &vectors, files)
}

/// Checks that `weights` has every tensor of `spec`, of the right shape and of a usable dtype, before anything is
/// allocated for them. Returns the names of tensors that the model does not use.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(crate) fn check_tensors(spec: &DecoderSpec, files: &FileWeights) -> Result<Vec<String>> {
    let names = spec.tensors();
    let used = used_tensors(names.matrices(), names.vectors(), files)?;
    let harmless = |name: &str| {
        // Frequencies follow from the configuration; a copy of the tied embedding is what it is tied to.
        let tied = spec.tie_word_embeddings && name.strip_suffix(SCALES_SUFFIX).unwrap_or(name) == LM_HEAD;
        // An encoder's head for its training, and its numbers of positions.
        let idle = spec.bidirectional && (name.starts_with("pooler.") || name == "embeddings.position_ids");
        // Causal masks of old files of GPT-2.
        let mask = spec.transposed && (name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
        tied || idle || mask || name.ends_with(".rotary_emb.inv_freq")
    };
    let names = files.source.names();
    Ok(names.filter(|name| !used.contains(*name) && !harmless(name)).map(str::to_owned).collect())
}

/// Checks tensors, as [`check_tensors`]. Returns the names of those in the files that they are made of.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(crate) fn used_tensors<'a>(
    matrices: impl Iterator<Item = &'a MatrixName>,
    vectors: impl Iterator<Item = &'a VectorName>,
    files: &FileWeights,
) -> Result<HashSet<String>> {
    let weights = &files.source;
    let mut used: HashSet<String> = HashSet::new();
    for matrix in matrices {
        if let Some(part) = matrix.part.as_ref().filter(|part| part.storage == PartStorage::Mxfp4) {
            used.extend(mxfp4::check(part, weights)?);
            continue;
        }
        let (name, shape) = match &matrix.part {
            Some(part) => (&part.tensor, part.shape.as_slice()),
            None => (&matrix.name, &[matrix.n, matrix.k][..]),
        };
        if used.contains(name) {
            continue;
        }
        if files.check(name, shape, &mut used)? {
            used.insert(name.clone());
            continue;
        }
        let view = weights.matrix(name, shape)?;
        used.insert(name.clone());
        if view.dtype() == Dtype::I8 {
            used.insert(format!("{name}{SCALES_SUFFIX}"));
        }
    }
    for vector in vectors {
        let (name, shape) = match &vector.part {
            Some(part) => (&part.tensor, part.shape.as_slice()),
            None => (&vector.name, &[vector.len][..]),
        };
        if !files.check(name, shape, &mut used)? {
            weights.check_elements(name, shape)?;
        }
        used.insert(name.clone());
    }
    Ok(used)
}
