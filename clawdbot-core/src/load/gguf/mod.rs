//! Models in GGUF files: the metadata become the small files of a Hugging Face directory, tensors get their names there,
//! and everything else is as for any model.

mod names;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_encoders;
#[cfg(test)]
mod tests_families;

use std::collections::HashSet;

use clawdbot_kernels::{ComputeFormat, RowSource};

use self::names::{Finder, Place};
use super::parts::Columns;
use crate::error::Result;
use crate::spec::DecoderSpec;
use crate::spec::gguf::{self, GgufFamily};
use crate::spec::tensors::{MatrixName, VectorName};
use crate::weights::{GgufMatrix, GgufSource, MatrixSize, RowOrder, TensorType, Value};

/// The weights of a GGUF file.
pub(crate) struct GgufWeights {
    pub(crate) source: GgufSource,
    family: &'static GgufFamily,
    spec: Box<DecoderSpec>,
}

impl GgufWeights {
    /// The tensors of `source`, a file of `family`, for the model `spec`.
    pub(crate) fn new(source: GgufSource, family: &'static GgufFamily, spec: DecoderSpec) -> Self {
        GgufWeights { source, family, spec: Box::new(spec) }
    }

    fn finder(&self) -> Finder<'_> {
        Finder { family: self.family, spec: &self.spec, source: &self.source }
    }

    /// The format in which a matrix's own codes are computed with, unless it is stored as floats.
    ///
    /// # Errors
    /// As [`Finder::matrix`].
    pub(crate) fn compute_format(&self, name: &MatrixName) -> Result<Option<ComputeFormat>> {
        let place = self.finder().matrix(name)?;
        // Blocks lie along rows, so columns have none.
        let tensor = self.source.tensor(&place.tensor).filter(|_| place.columns.is_none());
        Ok(tensor.and_then(|tensor| tensor.kind.compute_format()))
    }

    /// The type in which a matrix is stored.
    ///
    /// # Errors
    /// As [`Finder::matrix`].
    pub(crate) fn stored_type(&self, name: &MatrixName) -> Result<Option<TensorType>> {
        let place = self.finder().matrix(name)?;
        Ok(self.source.tensor(&place.tensor).map(|tensor| tensor.kind))
    }

    /// The rows of a matrix.
    ///
    /// # Errors
    /// As [`GgufSource::matrix`].
    pub(crate) fn matrix(&self, name: &MatrixName) -> Result<Box<dyn RowSource + '_>> {
        let place = self.finder().matrix(name)?;
        let matrix = self.stored(&place, name.n)?;
        matrix.will_need();
        Ok(match place.columns {
            None => Box::new(matrix),
            Some(from) => {
                let size = MatrixSize { n: name.n, k: name.k };
                Box::new(Columns::read(&matrix, place.order, from, size)?)
            }
        })
    }

    fn stored(&self, place: &Place, n: usize) -> Result<GgufMatrix<'_>> {
        let (n, order) = match place.columns {
            None => (n, place.order),
            Some(_) => (place.shape.iter().rev().skip(1).product(), RowOrder::Stored),
        };
        self.source.matrix(&place.tensor, &place.shape, n, order)
    }

    /// A norm's gains, a bias, or a small matrix that stays in f32. What checkpoints store changed, files have as it is
    /// used.
    ///
    /// # Errors
    /// As [`GgufSource::vector`].
    pub(crate) fn vector(&self, name: &VectorName) -> Result<Vec<f32>> {
        if let Some(parameter) = self.activation_parameter(name)? {
            return Ok(vec![parameter]);
        }
        let place = self.finder().vector(name)?;
        self.source.vector(&place.tensor, &place.shape, name.len, place.order)
    }

    /// A parameter of a layer's activation, which files have as metadata: one for each layer, or one for all.
    ///
    /// # Errors
    /// `InvalidModel` if it is missing, or not a number.
    fn activation_parameter(&self, name: &VectorName) -> Result<Option<f32>> {
        let finder = self.finder();
        let parameter = |(layer, rest)| Some((layer, str::strip_prefix(rest, "mlp.act_fn.")?));
        let Some((layer, parameter)) = finder.layer(&name.name).and_then(parameter) else { return Ok(None) };
        let (key, metadata) = (format!("xielu.{parameter}"), self.source.metadata());
        let found = match metadata.get(&key) {
            Some(Value::Array(numbers)) => numbers.scalars().and_then(|numbers| {
                let numbers: Vec<Value> = numbers.collect();
                let all = numbers.len() == self.spec.num_hidden_layers;
                numbers.into_iter().nth(layer.parse().ok()?).filter(|_| all)
            }),
            found => found.cloned(),
        };
        match found {
            Some(Value::Float(number)) => Ok(Some(number as f32)),
            _ => Err(metadata.invalid(&key, "a number, or one for each layer")),
        }
    }

    /// Checks that the file has every tensor of the model, of the right shape. Returns the names of tensors that the model
    /// does not use.
    pub(crate) fn check(&self) -> Result<Vec<String>> {
        let names = self.spec.tensors();
        let mut used = HashSet::new();
        for matrix in names.matrices() {
            let place = self.finder().matrix(matrix)?;
            self.stored(&place, matrix.n)?;
            used.insert(place.tensor);
        }
        for vector in names.vectors() {
            if self.activation_parameter(vector)?.is_some() {
                continue;
            }
            let place = self.finder().vector(vector)?;
            self.source.check_vector(&place.tensor, &place.shape, vector.len, place.order)?;
            used.insert(place.tensor);
        }
        let unused = self.source.names().filter(|name| !used.contains(*name) && !gguf::is_read(name));
        Ok(unused.map(str::to_owned).collect())
    }
}
