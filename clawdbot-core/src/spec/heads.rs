//! Heads of keys and values, and where a layer has them from.

/// Heads of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadShape {
    /// Divides `num_attention_heads`.
    pub(crate) num_key_value_heads: usize,
    /// Elements per head, even.
    pub(crate) head_dim: usize,
}

/// The source of a layer's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum KeySource {
    /// Projections of its own.
    #[default]
    Own,
    /// One projection: the values are the keys before their norm.
    KeysAsValues,
    /// Those of an earlier layer with the same heads and window.
    Layer(usize),
}
