//! Results of a model as tensors.

use candle_core::{Device, Tensor};

use super::from_candle;
use crate::api::model::Model;
use crate::api::session::Prompt;
use crate::error::Result;
use crate::options::EmbedOptions;

impl Model {
    /// As [`Model::logits`]: `[tokens, vocab_size]`, f32, on the CPU. Moves the data.
    ///
    /// # Errors
    /// As [`Model::logits`].
    pub fn logits_tensor(&self, tokens: &[u32]) -> Result<Tensor> {
        self.logits_tensor_with(tokens, None)
    }

    /// As [`Model::logits_tensor`], with an adapter.
    ///
    /// # Errors
    /// As [`Model::logits_with`].
    pub fn logits_tensor_with(&self, tokens: &[u32], adapter: Option<&str>) -> Result<Tensor> {
        matrix(self.logits_with(tokens, adapter)?, tokens.len())
    }

    /// As [`Model::hidden_states`]: `[tokens, hidden_size]`, f32, on the CPU. Moves the data.
    ///
    /// # Errors
    /// As [`Model::hidden_states`].
    pub fn hidden_states_tensor(&self, tokens: &[u32]) -> Result<Tensor> {
        self.hidden_states_tensor_with(tokens, None)
    }

    /// As [`Model::hidden_states_tensor`], with an adapter.
    ///
    /// # Errors
    /// As [`Model::hidden_states_with`].
    pub fn hidden_states_tensor_with(&self, tokens: &[u32], adapter: Option<&str>) -> Result<Tensor> {
        matrix(self.hidden_states_with(tokens, adapter)?, tokens.len())
    }

    /// As [`Model::embed`]: `[texts, dimensions]`, f32, on the CPU. Moves the data.
    ///
    /// # Errors
    /// As [`Model::embed`].
    pub fn embed_tensor(&self, texts: Vec<Prompt>, options: &EmbedOptions) -> Result<Tensor> {
        let embeddings = self.embed(texts, options)?;
        let rows = embeddings.rows().len();
        Tensor::from_vec(embeddings.values, (rows, embeddings.dimensions), &Device::Cpu).map_err(from_candle)
    }
}

/// `values` as a matrix of `rows` rows, at least one.
fn matrix(values: Vec<f32>, rows: usize) -> Result<Tensor> {
    let width = values.len() / rows;
    Tensor::from_vec(values, (rows, width), &Device::Cpu).map_err(from_candle)
}
