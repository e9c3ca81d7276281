//! Which matrices are packed as one, and which of them adapters can change.

use clawdbot_kernels::PackedMatrix;

use super::DecoderSpec;
use super::tensors::{
    DenseNames, GatedNames, LayerNames, LayerStreamsNames, LinearNames, MatrixName, MlpNames, NormNames,
    PlainNames, TensorNames, VectorName,
};

/// Projections that are packed as one.
pub(crate) struct Projections<'a> {
    pub(crate) parts: Vec<&'a LinearNames>,
    pub(crate) gated: bool,
}

impl<'a> Projections<'a> {
    fn rows(parts: &'a [LinearNames]) -> Self {
        Projections { parts: parts.iter().collect(), gated: false }
    }

    pub(crate) fn joined(&self) -> Joined<'a> {
        Joined { parts: self.parts.iter().map(|part| &part.weight).collect(), gated: self.gated }
    }
}

impl GatedNames {
    fn packed(&self) -> [Projections<'_>; 2] {
        let gate_up = match &self.gate {
            Some(gate) => Projections { parts: vec![gate, &self.up], gated: true },
            None => Projections::rows(std::slice::from_ref(&self.up)),
        };
        [gate_up, Projections::rows(std::slice::from_ref(&self.down))]
    }
}

/// The projections of an MLP whose gate is cut off: the product with gate and up has all of the gate before all of up.
fn sparse(GatedNames { gate, up, down }: &GatedNames) -> [Projections<'_>; 2] {
    let gate_up = Projections { parts: gate.iter().chain([up]).collect(), gated: false };
    [gate_up, Projections::rows(std::slice::from_ref(down))]
}

impl PlainNames {
    fn packed(&self) -> [Projections<'_>; 2] {
        [&self.up, &self.down].map(|part| Projections::rows(std::slice::from_ref(part)))
    }
}

impl LayerNames {
    /// Projections, grouped by what is packed as one.
    pub(crate) fn packed(&self) -> Vec<Projections<'_>> {
        let mixer = self.mixer.packed().into_iter().chain([std::slice::from_ref(&self.o)]);
        let mut packed: Vec<Projections<'_>> = mixer.map(Projections::rows).collect();
        if let Some(block) = &self.low_rank {
            packed.extend([&block.left, &block.right].map(std::slice::from_ref).map(Projections::rows));
        }
        match &self.mlp {
            MlpNames::Dense(mlp) => packed.extend(mlp.packed()),
            MlpNames::Sparse(mlp) => packed.extend(sparse(mlp)),
            MlpNames::Plain(mlp) => packed.extend(mlp.packed()),
            MlpNames::None => {}
            MlpNames::Moe(moe) => {
                let dense = moe.parallel_mlp.as_ref().map(|parallel_mlp| &parallel_mlp.dense);
                packed
                    .extend(moe.experts.iter().chain(&moe.shared).chain(dense).flat_map(GatedNames::packed));
            }
        }
        if let Some(input) = &self.input {
            packed.extend([&input.gate, &input.projection].map(std::slice::from_ref).map(Projections::rows));
        }
        packed
    }

    /// The projections that adapters may change: those that all tokens use, so not experts.
    pub(crate) fn adaptable(&self) -> Vec<Projections<'_>> {
        let mixer = self.mixer.adaptable().into_iter().chain([std::slice::from_ref(&self.o)]);
        let mut projections: Vec<Projections<'_>> = mixer.map(Projections::rows).collect();
        match &self.mlp {
            MlpNames::Dense(mlp) => projections.extend(mlp.packed()),
            MlpNames::Sparse(mlp) => projections.extend(sparse(mlp)),
            MlpNames::Plain(mlp) => projections.extend(mlp.packed()),
            MlpNames::None => {}
            MlpNames::Moe(moe) => {
                let dense = moe.parallel_mlp.as_ref().map(|parallel_mlp| &parallel_mlp.dense);
                projections.extend(moe.shared.iter().chain(dense).flat_map(GatedNames::packed));
            }
        }
        projections
    }

    /// The matrices of experts that are stored separately.
    fn expert_matrices(&self) -> impl Iterator<Item = &MatrixName> {
        let experts = match &self.mlp {
            MlpNames::Moe(moe) => moe.experts.as_slice(),
            MlpNames::Dense(_) | MlpNames::Sparse(_) | MlpNames::Plain(_) | MlpNames::None => &[],
        };
        let matrices = experts.iter().flat_map(|expert| {
            let GatedNames { gate, up, down } = expert;
            gate.iter().chain([up, down])
        });
        matrices.map(|linear| &linear.weight).filter(|matrix| matrix.part.is_none())
    }

    /// Norms, biases, and other vectors that stay in f32.
    pub(super) fn vectors(&self) -> Vec<&VectorName> {
        let first = self.input_norm.iter().chain(&self.attention_out_norm).chain(&self.attention_sum_norm);
        let norms = first.chain(&self.mlp_norm).chain(&self.mlp_out_norm).chain(&self.mlp_sum_norm);
        let mut vectors: Vec<&VectorName> = norms.flat_map(NormNames::vectors).collect();
        vectors.extend(self.mixer.vectors());
        if let MlpNames::Plain(PlainNames { xielu: Some(xielu), .. }) = &self.mlp {
            vectors.extend(xielu.vectors());
        }
        if let MlpNames::Moe(moe) = &self.mlp {
            vectors.push(&moe.router);
            vectors.extend(moe.router_bias.iter().chain(&moe.correction).chain(&moe.shared_gate));
            if let Some(parallel_mlp) = &moe.parallel_mlp {
                vectors.extend([
                    &parallel_mlp.dense_out_norm,
                    &parallel_mlp.expert_norm,
                    &parallel_mlp.expert_out_norm,
                ]);
                vectors.extend([&parallel_mlp.router_norm, &parallel_mlp.expert_scale]);
            }
        }
        let streams = self.streams.iter().flat_map(LayerStreamsNames::vectors);
        vectors.extend(streams.chain(self.low_rank.iter().map(|block| &block.norm)));
        vectors.extend(self.input.iter().map(|input| &input.norm).chain(&self.scalar));
        let linears = self.packed().into_iter().flat_map(|projections| projections.parts);
        vectors.extend(linears.filter_map(|linear| linear.bias.as_ref()));
        vectors
    }
}

/// Matrices that are packed as one.
#[derive(Debug, Clone)]
pub(crate) struct Joined<'a> {
    pub(crate) parts: Vec<&'a MatrixName>,
    /// Whether it is a gate and an up projection, see `PackedMatrix::pack_gated`; otherwise row after row.
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
            // Overflowing sizes are refused where the matrix is packed or read.
            true => PackedMatrix::gated_columns(self.parts[0].n).unwrap_or(usize::MAX),
            false => self.parts.iter().map(|part| part.n).sum(),
        }
    }

    pub(crate) fn k(&self) -> usize {
        self.parts[0].k
    }

    /// Number of weights in all parts.
    pub(crate) fn weights(&self) -> u64 {
        self.parts.iter().map(|part| part.n as u64 * part.k as u64).sum()
    }
}

impl TensorNames {
    /// Marks what `int4-mixed` keeps in int8: the embedding, the output layer, and the down projections of the first and the
    /// last layer, unless they are experts'.
    pub(super) fn mark_sensitive(&mut self) {
        let last = self.layers.len().saturating_sub(1);
        let layers = self.layers.iter_mut().enumerate().filter(|&(i, _)| i == 0 || i == last);
        let downs = layers.filter_map(|(_, layer)| match &mut layer.mlp {
            MlpNames::Dense(mlp) | MlpNames::Sparse(mlp) => Some(&mut mlp.down.weight),
            MlpNames::Plain(mlp) => Some(&mut mlp.down.weight),
            MlpNames::Moe(_) | MlpNames::None => None,
        });
        let ends = std::iter::once(&mut self.embed_tokens).chain(&mut self.lm_head);
        ends.chain(downs).for_each(|matrix| matrix.sensitive = true);
    }

    /// All packed matrices in order of use: matrices with the same input are packed as one.
    pub(crate) fn packed_matrices(&self) -> Vec<Joined<'_>> {
        let mut packed = vec![Joined::rows([&self.embed_tokens])];
        if let Some(inputs) = &self.layer_inputs {
            packed
                .extend([&inputs.embedding, &inputs.projection.weight].map(|matrix| Joined::rows([matrix])));
        }
        if let Some(streams) = &self.streams {
            let all = streams.spread.iter().chain(&streams.merge);
            packed.extend(all.map(|linear| Joined::rows([&linear.weight])));
        }
        for layer in &self.layers {
            packed.extend(layer.packed().iter().map(Projections::joined));
        }
        packed.extend(self.lm_head.iter().map(|head| Joined::rows([head])));
        packed
    }

    /// The output layer of a model that generates, which may be the embedding.
    pub(crate) fn head(&self) -> &MatrixName {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// The packed matrices that a token does not use: experts that it does not select.
    pub(crate) fn idle_experts(&self, spec: &DecoderSpec) -> Vec<Joined<'_>> {
        let chosen = spec.moe.map_or(0, |moe| moe.num_experts_per_tok);
        let idle = |layer| match layer {
            &LayerNames { mlp: MlpNames::Moe(ref moe), .. } => {
                let experts = moe.experts.iter().skip(chosen).flat_map(GatedNames::packed);
                experts.map(|projections| projections.joined()).collect()
            }
            _ => Vec::new(),
        };
        self.layers.iter().flat_map(idle).collect()
    }

    /// The projections that adapters may change, grouped by what is computed as one.
    pub(crate) fn adaptable(&self) -> Vec<Projections<'_>> {
        self.layers.iter().flat_map(LayerNames::adaptable).collect()
    }

    /// Matrices that adapters may change only while they are loaded, in addition to [`adaptable`](Self::adaptable).
    pub(crate) fn only_merged(&self) -> impl Iterator<Item = &MatrixName> {
        self.layers.iter().flat_map(LayerNames::expert_matrices).chain(&self.lm_head)
    }

    /// Every matrix.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &MatrixName> {
        self.packed_matrices().into_iter().flat_map(|joined| joined.parts)
    }

    /// All stored tensors with their shapes, once each, with tensors that are read alternately next to each other.
    /// Without experts in MXFP4, which are stored as two tensors.
    #[cfg(feature = "candle")]
    pub(crate) fn stored(&self) -> Vec<(String, Vec<usize>)> {
        let matrices = self.matrices().map(|matrix| match &matrix.part {
            Some(part) => (part.tensor.clone(), part.shape.clone()),
            None => (matrix.name.clone(), vec![matrix.n, matrix.k]),
        });
        let vectors = self.vectors().map(|vector| match &vector.part {
            Some(part) => (part.tensor.clone(), part.shape.clone()),
            None => (vector.name.clone(), vec![vector.len]),
        });
        let mut seen = std::collections::HashSet::new();
        matrices.chain(vectors).filter(|(name, _)| seen.insert(name.clone())).collect()
    }

    /// All norms and biases, and the small matrices that stay in f32.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        let tables = self.positions.iter().chain(&self.token_types);
        let first = tables.chain(self.embedding_norm.iter().flat_map(NormNames::vectors));
        let last = self.final_norm.iter().flat_map(NormNames::vectors);
        let last = last.chain(self.dense_head.iter().flat_map(DenseNames::vectors)).chain(&self.lm_head_bias);
        let inputs = self.layer_inputs.iter().map(|inputs| &inputs.norm);
        first.chain(self.layers.iter().flat_map(LayerNames::vectors)).chain(inputs).chain(last)
    }
}
