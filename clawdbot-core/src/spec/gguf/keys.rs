//! The metadata keys of an architecture.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::weights::{GgufSource, Metadata, RowOrder};

/// A `config.json`.
pub(crate) type Config = Map<String, Value>;

pub(crate) const FEED_FORWARD: &str = "feed_forward_length";
/// Size of experts.
pub(crate) const EXPERT_SIZE: &str = "expert_feed_forward_length";
/// How the router scores experts.
pub(crate) const GATING: &str = "expert_gating_func";
/// Layers for multi-token prediction after the others; they are not read.
pub(crate) const PREDICTING_LAYERS: &str = "nextn_predict_layers";
/// Size of the shared expert.
pub(crate) const SHARED_SIZE: &str = "expert_shared_feed_forward_length";
pub(crate) const WINDOW: &str = "attention.sliding_window";
pub(crate) const PATTERN: &str = "attention.sliding_window_pattern";
/// Base of the rotation in layers with a window.
pub(crate) const LOCAL_THETA: &str = "rope.freq_base_swa";
/// Layers without keys and values of their own.
pub(crate) const SHARED_KEYS: &str = "attention.shared_kv_layers";
/// Elements of a second embedding for each layer.
pub(crate) const LAYER_INPUT: &str = "embedding_length_per_layer_input";
/// Tensor of a cross-encoder's last layer.
pub(crate) const CLASSIFIER: &str = "cls.output";

/// Adds the `fields` of an object to `config`.
pub(crate) fn extend(config: &mut Map<String, Value>, fields: Value) {
    if let Value::Object(fields) = fields {
        config.extend(fields);
    }
}

/// The keys of an architecture, and the tensors of the file.
pub(crate) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) source: &'a GgufSource,
    /// Name of the architecture, with which its keys begin.
    pub(super) name: &'a str,
}

impl Keys<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// Whether the architecture has this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Whether there is a tensor with this name.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.source.tensor(tensor).is_some()
    }

    /// Whether there is a tensor whose name ends with `suffix`.
    pub(crate) fn some(&self, suffix: &str) -> bool {
        self.source.names().any(|name| name.ends_with(suffix))
    }

    /// Shape of a tensor, outermost dimension first; empty if it is missing.
    pub(crate) fn shape(&self, tensor: &str) -> &[usize] {
        self.source.tensor(tensor).map_or(&[], |tensor| &tensor.shape)
    }

    /// All elements of a tensor, as JSON.
    pub(super) fn elements(&self, name: &str) -> Result<Value> {
        let shape = self.source.tensor(name).map_or(&[][..], |tensor| &tensor.shape);
        let count = shape.iter().product();
        Ok(self.source.vector(name, shape, count, RowOrder::Stored)?.into())
    }

    pub(crate) fn invalid(&self, key: &str, expected: &str) -> Error {
        self.metadata.invalid(&self.key(key), expected)
    }

    pub(crate) fn unsupported(&self, key: &str, expected: &str) -> Error {
        self.metadata.unsupported(&self.key(key), expected)
    }

    pub(crate) fn opt_u64(&self, key: &str) -> Result<Option<u64>> {
        self.metadata.opt_u64(&self.key(key))
    }

    pub(crate) fn u64(&self, key: &str) -> Result<u64> {
        self.metadata.u64(&self.key(key))
    }

    pub(crate) fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.opt_f64(&self.key(key))
    }

    pub(crate) fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.opt_bool(&self.key(key))
    }

    pub(crate) fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.metadata.opt_str(&self.key(key))
    }

    /// A number for each layer, which may be infinite.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let number = |value: crate::weights::Value| match value {
            crate::weights::Value::Float(number) if !number.is_nan() => Some(number),
            _ => None,
        };
        let layers = self.u64("block_count")?;
        let numbers = match self.metadata.get(&self.key(key)) {
            None => return Ok(None),
            Some(crate::weights::Value::Array(array)) => {
                array.scalars().and_then(|values| values.map(number).collect::<Option<Vec<f64>>>())
            }
            Some(_) => None,
        };
        let numbers = numbers.filter(|numbers| numbers.len() as u64 == layers);
        numbers.map(Some).ok_or_else(|| self.invalid(key, "a number for each layer"))
    }

    /// An integer or boolean for all layers, or one for each.
    pub(crate) fn per_layer(&self, key: &str) -> Result<Option<Vec<u64>>> {
        let expected = "an integer >= 0, or one for each layer";
        let number = |value: crate::weights::Value| match value {
            crate::weights::Value::Bool(value) => Some(u64::from(value)),
            value => value.unsigned(),
        };
        let numbers = match self.metadata.get(&self.key(key)) {
            None => return Ok(None),
            Some(crate::weights::Value::Array(array)) => {
                array.scalars().and_then(|values| values.map(number).collect::<Option<Vec<u64>>>())
            }
            Some(value) => number(value.clone()).map(|number| vec![number]),
        };
        let layers = self.u64("block_count")?;
        let fits = |numbers: &Vec<u64>| numbers.len() == 1 || numbers.len() as u64 == layers;
        numbers.filter(fits).map(Some).ok_or_else(|| self.invalid(key, expected))
    }
}
