//! Softmax attention. Its sizes are the model's: heads, norms, window and rotation.

use super::{DescribeMixer, MixerNames, MixerTensors, OutputProjection};
use crate::error::Result;
use crate::spec::tensors::{LinearNames, Runs, VectorName};
use crate::spec::{DecoderSpec, HeadShape, KeySource};

/// Softmax attention with the heads of [`DecoderSpec::heads`] and the settings of `AttentionSpec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attention;

/// The tensors of attention.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttentionNames {
    /// Projections of queries, keys and values: `[heads * head_dim, hidden_size]` and twice `[kv_heads * head_dim,
    /// hidden_size]`; or all in one; or without values, or without keys and values.
    pub(crate) qkv: Vec<LinearNames>,
    /// `[heads * head_dim, hidden_size]`; at most one.
    pub(crate) gate: Vec<LinearNames>,
    /// `[head_dim]`, or `[heads * head_dim]`.
    pub(crate) q_norm: Option<VectorName>,
    /// `[head_dim]`, or `[kv_heads * head_dim]`.
    pub(crate) k_norm: Option<VectorName>,
    /// `[heads]`.
    pub(crate) sinks: Option<VectorName>,
}

impl MixerTensors for AttentionNames {
    fn packed(&self) -> Vec<&[LinearNames]> {
        vec![&self.qkv, &self.gate]
    }

    fn vectors(&self) -> Vec<&VectorName> {
        self.q_norm.iter().chain(&self.k_norm).chain(&self.sinks).collect()
    }
}

impl DescribeMixer for Attention {
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    // The model's own checks cover its heads.
    fn check(&self, _: &DecoderSpec) -> Result<()> {
        Ok(())
    }

    fn tensors(&self, model: &DecoderSpec, prefix: &str, layer: usize) -> MixerNames {
        let (hidden, keys) = (model.hidden_size, model.layers[layer].keys);
        let HeadShape { num_key_value_heads, head_dim } = model.heads(layer);
        let (q, kv) = (model.num_attention_heads * head_dim, num_key_value_heads * head_dim);
        let sizes: &[usize] = if model.names.qkv.len() == 3 { &[q, kv, kv] } else { &[q + 2 * kv] };
        // A family with joined projections has all three.
        let count = match keys {
            KeySource::Own => 3,
            KeySource::KeysAsValues => 2,
            KeySource::Layer(_) => 1,
        };
        let names = model.names.qkv.iter().zip(sizes).take(count);
        let mut qkv: Vec<LinearNames> = names
            .map(|(module, &n)| model.projection(prefix, module, n, hidden).with_bias(model.qkv_bias))
            .collect();
        let mut gate = Vec::new();
        if model.attention.gate {
            // Stored with the queries, head by head.
            let runs = |first| Runs { first, run: head_dim, stride: 2 * head_dim, of: 2 * q };
            gate.push(runs(head_dim).linear(&qkv[0], "gate", q));
            qkv[0] = runs(0).linear(&qkv[0], "query", q);
        }
        let head_norm = |module: &str, whole: usize| {
            model.qk_norm.filter(|norm| norm.gains && model.layers[layer].qk_norm).map(|norm| {
                let len = if norm.whole { whole } else { head_dim };
                VectorName::new(format!("{prefix}.{module}.weight"), len, model.norm.offset())
            })
        };
        let sinks = || VectorName::new(format!("{prefix}.self_attn.sinks"), model.num_attention_heads, 0.0);
        MixerNames::Attention(Box::new(AttentionNames {
            qkv,
            gate,
            q_norm: head_norm(model.names.q_norm, q),
            k_norm: head_norm(model.names.k_norm, kv).filter(|_| !matches!(keys, KeySource::Layer(_))),
            sinks: model.attention.sinks.then(sinks),
        }))
    }

    fn mixed_size(&self, model: &DecoderSpec, layer: usize) -> usize {
        model.num_attention_heads * model.heads(layer).head_dim
    }

    fn output(&self, model: &DecoderSpec) -> OutputProjection {
        OutputProjection { module: model.names.o, bias: model.o_bias }
    }
}
