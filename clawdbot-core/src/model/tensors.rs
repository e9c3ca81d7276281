//! The tensors of a decoder: names as Hugging Face checkpoints have them, and the shapes the spec demands.

use std::collections::HashSet;

use super::build::Segment;
use super::files::MODEL_FILES;
use super::spec::DecoderSpec;
use crate::error::Result;
use crate::kernels::PackedMatrix;
use crate::weights::{Dtype, PackedFile, SCALES_SUFFIX, WeightSource};

/// A matrix `[n, k]`: `n` outputs, `k` inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatrixName {
    pub(crate) name: String,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// A vector `[len]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VectorName {
    pub(crate) name: String,
    pub(crate) len: usize,
}

/// A projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinearNames {
    pub(crate) weight: MatrixName,
    /// `[n]`.
    pub(crate) bias: Option<VectorName>,
}

/// The tensors of one layer, in the order of their use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerNames {
    /// `[hidden_size]`, before attention.
    pub(crate) input_norm: VectorName,
    /// `[heads * head_dim, hidden_size]`.
    pub(crate) q: LinearNames,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub(crate) k: LinearNames,
    /// `[kv_heads * head_dim, hidden_size]`.
    pub(crate) v: LinearNames,
    /// `[head_dim]`.
    pub(crate) q_norm: Option<VectorName>,
    /// `[head_dim]`.
    pub(crate) k_norm: Option<VectorName>,
    /// `[hidden_size, heads * head_dim]`.
    pub(crate) o: LinearNames,
    /// `[hidden_size]`, before the MLP.
    pub(crate) post_attention_norm: VectorName,
    /// `[intermediate_size, hidden_size]`.
    pub(crate) gate: LinearNames,
    /// `[intermediate_size, hidden_size]`.
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
}

/// All tensors of a decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorNames {
    /// `[vocab_size, hidden_size]`.
    pub(crate) embed_tokens: MatrixName,
    pub(crate) layers: Vec<LayerNames>,
    /// `[hidden_size]`, behind the last layer.
    pub(crate) final_norm: VectorName,
    /// `[vocab_size, hidden_size]`; `None` if tied to the embedding.
    pub(crate) lm_head: Option<MatrixName>,
}

const LM_HEAD: &str = "lm_head.weight";

impl DecoderSpec {
    /// Names and shapes of every tensor.
    pub(crate) fn tensors(&self) -> TensorNames {
        let vocabulary =
            |name: &str| MatrixName { name: name.into(), n: self.vocab_size, k: self.hidden_size };
        TensorNames {
            embed_tokens: vocabulary("model.embed_tokens.weight"),
            layers: (0..self.num_hidden_layers).map(|layer| self.layer_tensors(layer)).collect(),
            final_norm: VectorName { name: "model.norm.weight".into(), len: self.hidden_size },
            lm_head: (!self.tie_word_embeddings).then(|| vocabulary(LM_HEAD)),
        }
    }

    fn layer_tensors(&self, layer: usize) -> LayerNames {
        let hidden = self.hidden_size;
        let q = self.num_attention_heads * self.head_dim;
        let kv = self.num_key_value_heads * self.head_dim;
        let prefix = format!("model.layers.{layer}");
        let linear = |module: &str, n: usize, k: usize, bias: bool| LinearNames {
            weight: MatrixName { name: format!("{prefix}.{module}.weight"), n, k },
            bias: bias.then(|| VectorName { name: format!("{prefix}.{module}.bias"), len: n }),
        };
        let norm = |module: &str, len: usize| VectorName { name: format!("{prefix}.{module}.weight"), len };
        let head_norm = |module: &str| self.qk_norm.map(|_| norm(module, self.head_dim));
        LayerNames {
            input_norm: norm("input_layernorm", hidden),
            q: linear("self_attn.q_proj", q, hidden, self.qkv_bias),
            k: linear("self_attn.k_proj", kv, hidden, self.qkv_bias),
            v: linear("self_attn.v_proj", kv, hidden, self.qkv_bias),
            q_norm: head_norm("self_attn.q_norm"),
            k_norm: head_norm("self_attn.k_norm"),
            o: linear("self_attn.o_proj", hidden, q, self.o_bias),
            post_attention_norm: norm("post_attention_layernorm", hidden),
            gate: linear("mlp.gate_proj", self.intermediate_size, hidden, self.mlp_bias),
            up: linear("mlp.up_proj", self.intermediate_size, hidden, self.mlp_bias),
            down: linear("mlp.down_proj", hidden, self.intermediate_size, self.mlp_bias),
        }
    }
}

impl LayerNames {
    fn linears(&self) -> [&LinearNames; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }
}

/// Matrices that are packed as one.
#[derive(Debug, Clone)]
pub(crate) struct Joined<'a> {
    pub(crate) parts: Vec<&'a MatrixName>,
    /// A gate and an up projection, see `PackedMatrix::pack_gated`; otherwise row after row.
    pub(crate) gated: bool,
}

impl<'a> Joined<'a> {
    pub(crate) fn rows(parts: impl IntoIterator<Item = &'a MatrixName>) -> Self {
        Joined { parts: parts.into_iter().collect(), gated: false }
    }

    pub(crate) fn gated(gate: &'a MatrixName, up: &'a MatrixName) -> Self {
        Joined { parts: vec![gate, up], gated: true }
    }

    /// Its name in a packed file.
    pub(crate) fn name(&self) -> String {
        let names: Vec<&str> = self.parts.iter().map(|part| part.name.as_str()).collect();
        names.join(if self.gated { "*" } else { "+" })
    }

    /// Columns of the packed matrix.
    pub(crate) fn n(&self) -> usize {
        match self.gated {
            // Sizes that overflow are refused where the matrix is packed or read.
            true => PackedMatrix::gated_columns(self.parts[0].n).unwrap_or(usize::MAX),
            false => self.parts.iter().map(|part| part.n).sum(),
        }
    }

    pub(crate) fn k(&self) -> usize {
        self.parts[0].k
    }

    /// Weights in all parts.
    pub(crate) fn weights(&self) -> u64 {
        self.parts.iter().map(|part| part.n as u64 * part.k as u64).sum()
    }
}

impl TensorNames {
    /// Every matrix as it is packed, in the order of use: those that read the same input are one.
    pub(crate) fn packed_matrices(&self) -> Vec<Joined<'_>> {
        let mut packed = vec![Joined::rows([&self.embed_tokens])];
        for layer in &self.layers {
            packed.push(Joined::rows([&layer.q.weight, &layer.k.weight, &layer.v.weight]));
            packed.push(Joined::rows([&layer.o.weight]));
            packed.push(Joined::gated(&layer.gate.weight, &layer.up.weight));
            packed.push(Joined::rows([&layer.down.weight]));
        }
        packed.extend(self.lm_head.iter().map(|head| Joined::rows([head])));
        packed
    }

    /// Every matrix.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &MatrixName> {
        let layers = self.layers.iter().flat_map(|layer| layer.linears().map(|linear| &linear.weight));
        std::iter::once(&self.embed_tokens).chain(layers).chain(&self.lm_head)
    }

    /// Every norm and bias.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        let layers = self.layers.iter().flat_map(|layer| {
            let norms = [&layer.input_norm, &layer.post_attention_norm];
            let biases = layer.linears().into_iter().filter_map(|linear| linear.bias.as_ref());
            norms.into_iter().chain(&layer.q_norm).chain(&layer.k_norm).chain(biases)
        });
        layers.chain([&self.final_norm])
    }
}

/// Checks that `file` has every tensor of `spec` packed as `segments` says of matrices that read the same input, and no
/// other.
///
/// # Errors
/// As `PackedFile::check`, and `OutOfBudget` for sizes that overflow.
pub(crate) fn check_packed<'a>(
    names: &'a TensorNames,
    file: &PackedFile,
    segments: impl Fn(&Joined<'a>) -> Result<Vec<Segment<'a>>>,
) -> Result<()> {
    let mut matrices = Vec::new();
    for group in names.packed_matrices() {
        for Segment { names, format } in segments(&group)? {
            matrices.push((names.name(), PackedMatrix::parts(format, names.n(), names.k())?));
        }
    }
    let vectors: Vec<(&str, usize)> =
        names.vectors().map(|vector| (vector.name.as_str(), vector.len)).collect();
    file.check(&matrices, &vectors, &MODEL_FILES)
}

/// Checks that `weights` has every tensor of `spec`, of the right shape and of a usable dtype, before anything is
/// allocated for them. Returns the names of tensors that the model does not use.
///
/// # Errors
/// As `WeightSource::matrix`.
pub(crate) fn check_tensors(spec: &DecoderSpec, weights: &WeightSource) -> Result<Vec<String>> {
    let names = spec.tensors();
    let mut used: HashSet<String> = HashSet::new();
    for matrix in names.matrices() {
        let view = weights.matrix(&matrix.name, matrix.n, matrix.k)?;
        used.insert(matrix.name.clone());
        if view.dtype() == Dtype::I8 {
            used.insert(format!("{}{SCALES_SUFFIX}", matrix.name));
        }
    }
    for vector in names.vectors() {
        weights.check_vector(&vector.name, vector.len)?;
        used.insert(vector.name.clone());
    }
    let harmless = |name: &str| {
        // Frequencies follow from the configuration; a copy of the tied embedding is what it is tied to.
        let tied = spec.tie_word_embeddings && name.strip_suffix(SCALES_SUFFIX).unwrap_or(name) == LM_HEAD;
        tied || name.ends_with(".rotary_emb.inv_freq")
    };
    Ok(weights.names().filter(|name| !used.contains(*name) && !harmless(name)).map(str::to_owned).collect())
}
