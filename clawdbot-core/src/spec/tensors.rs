//! The tensors of a model: names as Hugging Face checkpoints have them, and the shapes the spec demands.

use clawdbot_kernels::PackedMatrix;

use super::mixer_names::{MixerNames, Runs};
use super::names::MlpModules;
use super::{DecoderSpec, DenseSpec, ExpertStorage, InputSpec, MoeSpec, NormKind, Scoring};
use crate::weights::RowOrder;

/// A matrix `[n, k]`: `n` outputs, `k` inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatrixName {
    /// Of the stored tensor, or what distinguishes a part of one.
    pub(crate) name: String,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Where it is, unless it is the tensor `name` as it stands.
    pub(crate) part: Option<Box<Part>>,
}

/// A vector `[len]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VectorName {
    /// Of the stored tensor, or what distinguishes a part of one.
    pub(crate) name: String,
    pub(crate) len: usize,
    /// Where it is, unless it is the tensor `name` as it stands; in elements.
    pub(crate) part: Option<Box<Part>>,
    /// Added to the elements as checkpoints store them.
    pub(crate) offset: f32,
    /// Of a small matrix that is computed with in f32 whatever the others are: `[len / k, k]`, row-major.
    pub(crate) k: Option<usize>,
}

/// Rows of a stored tensor, which is seen as a matrix: all its dimensions but the last are one. Row `r` of the part is row
/// `first + r / run * stride + r % run` of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) tensor: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) first: usize,
    pub(crate) run: usize,
    pub(crate) stride: usize,
    pub(crate) storage: PartStorage,
}

/// How a [`Part`] is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartStorage {
    /// Row by row.
    Rows,
    /// Column by column: `k` rows of the tensor from the given one on, of which the part's rows are columns.
    Columns { from: usize },
    /// Row by row, of a vector whose elements `x` stand for `-exp(x)`.
    MinusExp,
    /// Row by row, in MXFP4: `{tensor}_blocks` `[.., k / 32, 16]` and `{tensor}_scales` `[.., k / 32]`.
    Mxfp4,
}

impl Part {
    /// Where its rows are in the tensor.
    pub(crate) fn order(&self) -> RowOrder {
        RowOrder::Runs { first: self.first, run: self.run, stride: self.stride }
    }

    /// Index of row `row` in the tensor.
    pub(crate) fn row(&self, row: usize) -> usize {
        self.order().stored(row)
    }
}

/// A projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinearNames {
    pub(crate) weight: MatrixName,
    /// `[n]`.
    pub(crate) bias: Option<VectorName>,
}

/// The tensors of one layer, in the order of their use. Which norms there are is explained at [`Names`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerNames {
    /// `[hidden_size]`, before attention.
    pub(crate) input_norm: Option<NormNames>,
    pub(crate) mixer: MixerNames,
    /// To the residual stream.
    pub(crate) o: LinearNames,
    /// `[hidden_size]`, behind attention.
    pub(crate) attention_out_norm: Option<NormNames>,
    /// `[hidden_size]`, of the stream behind attention.
    pub(crate) attention_sum_norm: Option<NormNames>,
    /// `[hidden_size]`, before the MLP.
    pub(crate) mlp_norm: Option<NormNames>,
    pub(crate) mlp: MlpNames,
    /// `[hidden_size]`, behind the MLP.
    pub(crate) mlp_out_norm: Option<NormNames>,
    /// `[hidden_size]`, of the stream behind the MLP.
    pub(crate) mlp_sum_norm: Option<NormNames>,
    pub(crate) input: Option<LayerInputNames>,
    /// `[1]`
    pub(crate) scalar: Option<VectorName>,
}

/// The tensors of a norm, `[hidden_size]` each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NormNames {
    pub(crate) gains: VectorName,
    pub(crate) bias: Option<VectorName>,
}

impl NormNames {
    fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        std::iter::once(&self.gains).chain(&self.bias)
    }
}

/// The tensors of a layer behind the pooling, which stay in f32.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseNames {
    /// `[outputs, inputs]`, row-major.
    pub(crate) weight: VectorName,
    /// `[outputs]`
    pub(crate) bias: Option<VectorName>,
    /// `[outputs]`
    pub(crate) norm: Option<NormNames>,
}

impl DenseNames {
    fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        std::iter::once(&self.weight).chain(&self.bias).chain(self.norm.iter().flat_map(NormNames::vectors))
    }
}

/// The tensors that a layer reads its part of the second embedding by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerInputNames {
    /// `[size, hidden_size]`
    pub(crate) gate: LinearNames,
    /// `[hidden_size, size]`
    pub(crate) projection: LinearNames,
    /// `[hidden_size]`
    pub(crate) norm: VectorName,
}

/// The tensors of the second embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerInputsNames {
    /// `[vocab_size, layers * size]`
    pub(crate) embedding: MatrixName,
    /// `[layers * size, hidden_size]`
    pub(crate) projection: LinearNames,
    /// `[size]`
    pub(crate) norm: VectorName,
}

/// The tensors of a layer's second half.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MlpNames {
    Dense(GatedNames),
    Plain(PlainNames),
    Moe(Box<MoeNames>),
}

/// The tensors of a gated MLP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatedNames {
    /// `[intermediate_size, hidden_size]`
    pub(crate) gate: LinearNames,
    /// `[intermediate_size, hidden_size]`
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
}

/// The tensors of an MLP without a gate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PlainNames {
    /// `[intermediate_size, hidden_size]`
    pub(crate) up: LinearNames,
    /// `[hidden_size, intermediate_size]`.
    pub(crate) down: LinearNames,
}

/// The tensors of an expert layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MoeNames {
    /// `[experts, hidden_size]`, row-major: what chooses stays in f32.
    pub(crate) router: VectorName,
    /// `[experts]`
    pub(crate) router_bias: Option<VectorName>,
    /// `[experts]`
    pub(crate) correction: Option<VectorName>,
    pub(crate) experts: Vec<GatedNames>,
    pub(crate) shared: Option<GatedNames>,
    /// `[1, hidden_size]`
    pub(crate) shared_gate: Option<VectorName>,
    pub(crate) beside: Option<BesideNames>,
}

/// The tensors of an expert layer beside a dense MLP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BesideNames {
    pub(crate) dense: GatedNames,
    /// `[hidden_size]`, of what the dense MLP gives.
    pub(crate) dense_out_norm: VectorName,
    /// `[hidden_size]`, of what experts read.
    pub(crate) expert_norm: VectorName,
    /// `[hidden_size]`, of what they give.
    pub(crate) expert_out_norm: VectorName,
    /// `[hidden_size]`, of what the router reads, times the root of `hidden_size`.
    pub(crate) router_norm: VectorName,
    /// `[experts]`: what their weights are multiplied with.
    pub(crate) expert_scale: VectorName,
}

/// All tensors of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorNames {
    /// `[vocab_size, hidden_size]`.
    pub(crate) embed_tokens: MatrixName,
    /// `[positions, hidden_size]`, row-major.
    pub(crate) positions: Option<VectorName>,
    /// `[token types, hidden_size]`, row-major.
    pub(crate) token_types: Option<VectorName>,
    /// `[hidden_size]`, of their sum.
    pub(crate) embedding_norm: Option<NormNames>,
    pub(crate) layer_inputs: Option<LayerInputsNames>,
    pub(crate) layers: Vec<LayerNames>,
    /// `[hidden_size]`, behind the last layer.
    pub(crate) final_norm: Option<NormNames>,
    /// Behind the pooling.
    pub(crate) chain: Vec<DenseNames>,
    /// `[vocab_size, hidden_size]`; `None` if tied to the embedding.
    pub(crate) lm_head: Option<MatrixName>,
}

pub(crate) const LM_HEAD: &str = "lm_head.weight";

impl DecoderSpec {
    /// Names and shapes of every tensor.
    pub(crate) fn tensors(&self) -> TensorNames {
        let vocabulary = |name: &str| MatrixName {
            name: name.into(),
            n: self.vocab_size,
            k: self.hidden_size,
            part: None,
        };
        let hidden = self.hidden_size;
        let table =
            |module: &str, rows| VectorName::matrix(format!("{module}.weight"), vec![rows, hidden], hidden);
        let InputSpec { positions, token_types, norm } = self.input;
        TensorNames {
            embed_tokens: vocabulary(&self.embedding_tensor()),
            positions: positions.map(|positions| table(self.names.positions, positions.rows)),
            token_types: token_types.map(|rows| table(self.names.token_types, rows)),
            embedding_norm: norm.then(|| self.stream_norm(self.names.embedding_norm, hidden)),
            layer_inputs: self.per_layer_inputs.map(|inputs| {
                let width = inputs.size * self.num_hidden_layers;
                LayerInputsNames {
                    embedding: MatrixName {
                        name: "model.embed_tokens_per_layer.weight".into(),
                        n: inputs.vocab_size,
                        k: width,
                        part: None,
                    },
                    projection: linear("model", "per_layer_model_projection", width, self.hidden_size, false),
                    norm: VectorName::new("model.per_layer_projection_norm.weight".into(), inputs.size, 0.0),
                }
            }),
            layers: (0..self.num_hidden_layers).map(|layer| self.layer_tensors(layer)).collect(),
            final_norm: self.names.final_norm.map(|module| self.stream_norm(module, hidden)),
            chain: self.chain.iter().map(|dense| self.dense_tensors(dense)).collect(),
            lm_head: (!self.tie_word_embeddings && !self.headless).then(|| vocabulary(LM_HEAD)),
        }
    }

    /// Name of the embedding's tensor.
    pub(crate) fn embedding_tensor(&self) -> String {
        format!("{}.weight", self.names.embedding)
    }

    fn layer_tensors(&self, layer: usize) -> LayerNames {
        let prefix = format!("{}.{layer}", self.names.layers);
        let norm = |module: Option<&str>| {
            module.map(|module| self.stream_norm(&format!("{prefix}.{module}"), self.hidden_size))
        };
        LayerNames {
            input_norm: norm(self.names.input_norm.filter(|_| self.layers[layer].input_norm)),
            mixer: self.mixer_tensors(&prefix, layer),
            o: self.mixer_out(&prefix, layer),
            attention_out_norm: norm(self.names.attention_out_norm),
            attention_sum_norm: norm(self.names.attention_sum_norm),
            mlp_norm: norm(self.names.mlp_norm),
            mlp: match self.moe.filter(|_| self.layers[layer].moe) {
                Some(moe) => MlpNames::Moe(Box::new(self.moe_tensors(&prefix, layer, &moe))),
                None if !self.mlp_gate => MlpNames::Plain(self.plain_mlp(&prefix)),
                None => {
                    let size = self.dense_size(layer);
                    MlpNames::Dense(self.gated(&prefix, &self.names.mlp, size, self.mlp_bias))
                }
            },
            mlp_out_norm: norm(self.names.mlp_out_norm),
            mlp_sum_norm: norm(self.names.mlp_sum_norm),
            input: self.per_layer_inputs.map(|inputs| LayerInputNames {
                gate: linear(&prefix, "per_layer_input_gate", inputs.size, self.hidden_size, false),
                projection: linear(&prefix, "per_layer_projection", self.hidden_size, inputs.size, false),
                norm: self
                    .stream_norm(&format!("{prefix}.post_per_layer_input_norm"), self.hidden_size)
                    .gains,
            }),
            scalar: self.layer_scalars.then(|| VectorName::new(format!("{prefix}.layer_scalar"), 1, 0.0)),
        }
    }

    /// Elements between the projections of layer `layer`'s dense MLP.
    pub(crate) fn dense_size(&self, layer: usize) -> usize {
        self.layers[layer].intermediate_size.unwrap_or(self.intermediate_size)
    }

    /// A norm of the kind of the residual stream's.
    fn stream_norm(&self, module: &str, len: usize) -> NormNames {
        let bias = self.norm == NormKind::Layer { bias: true };
        NormNames {
            gains: VectorName::new(format!("{module}.weight"), len, self.norm.offset()),
            bias: bias.then(|| VectorName::new(format!("{module}.bias"), len, 0.0)),
        }
    }

    fn dense_tensors(&self, dense: &DenseSpec) -> DenseNames {
        let DenseSpec { module, inputs, outputs, bias, norm, .. } = dense;
        DenseNames {
            weight: VectorName::matrix(format!("{module}.weight"), vec![*outputs, *inputs], *inputs),
            bias: bias.then(|| VectorName::new(format!("{module}.bias"), *outputs, 0.0)),
            norm: norm.map(|module| self.stream_norm(module, *outputs)),
        }
    }

    fn plain_mlp(&self, prefix: &str) -> PlainNames {
        let (hidden, size) = (self.hidden_size, self.intermediate_size);
        let modules = &self.names.mlp;
        let up = modules.gate_up.first().copied().unwrap_or("mlp");
        PlainNames {
            up: linear(prefix, up, size, hidden, self.mlp_bias),
            down: linear(prefix, modules.down, hidden, size, self.mlp_bias),
        }
    }

    /// A gated MLP of `size` elements.
    fn gated(&self, prefix: &str, modules: &MlpModules, size: usize, bias: bool) -> GatedNames {
        let hidden = self.hidden_size;
        let [gate, up] = match *modules.gate_up {
            [joined] => {
                let all = linear(prefix, joined, 2 * size, hidden, bias);
                let part =
                    |what, first| Runs { first, run: size, stride: 0, of: 2 * size }.linear(&all, what, size);
                [part("gate", 0), part("up", size)]
            }
            [gate, up, ..] => [gate, up].map(|module| linear(prefix, module, size, hidden, bias)),
            [] => [(); 2].map(|()| linear(prefix, "mlp", size, hidden, bias)),
        };
        GatedNames { gate, up, down: linear(prefix, modules.down, hidden, size, bias) }
    }

    fn moe_tensors(&self, prefix: &str, layer: usize, moe: &MoeSpec) -> MoeNames {
        let (hidden, modules, experts) = (self.hidden_size, &self.names.moe, moe.num_experts);
        let matrix = |module: &str, n: usize| {
            VectorName::matrix(format!("{prefix}.{module}.weight"), vec![n, hidden], hidden)
        };
        let router =
            |suffix: &str| VectorName::new(format!("{prefix}.{}.{suffix}", modules.router), experts, 0.0);
        let expert = |expert: usize| match moe.storage {
            ExpertStorage::Separate => {
                let prefix = format!("{prefix}.{}.{expert}", modules.experts);
                self.gated(&prefix, &modules.expert, moe.intermediate_size, moe.expert_bias)
            }
            ExpertStorage::JoinedRows | ExpertStorage::Joined | ExpertStorage::JoinedMxfp4 => {
                self.joined_expert(prefix, moe, expert)
            }
        };
        let shared = moe.shared;
        MoeNames {
            router: matrix(modules.router, experts),
            router_bias: moe.router_bias.then(|| router("bias")),
            correction: (moe.scoring == Scoring::Sigmoid).then(|| router("e_score_correction_bias")),
            experts: (0..experts).map(expert).collect(),
            shared: shared.map(|shared| self.gated(prefix, &modules.shared, shared.intermediate_size, false)),
            shared_gate: shared.filter(|shared| shared.gated).map(|_| matrix(modules.shared_gate, 1)),
            beside: moe.beside_dense.then(|| {
                let norm =
                    |module: &str| self.stream_norm(&format!("{prefix}.{module}"), self.hidden_size).gains;
                let vector = |name: &str, len| VectorName::new(format!("{prefix}.router.{name}"), len, 0.0);
                BesideNames {
                    dense: self.gated(prefix, &self.names.mlp, self.dense_size(layer), self.mlp_bias),
                    dense_out_norm: norm("post_feedforward_layernorm_1"),
                    expert_norm: norm("pre_feedforward_layernorm_2"),
                    expert_out_norm: norm("post_feedforward_layernorm_2"),
                    router_norm: vector("scale", hidden),
                    expert_scale: vector("per_expert_scale", experts),
                }
            }),
        }
    }

    /// The same decoder with experts as `stored` has them: some checkpoints of a family have all in one tensor.
    pub(crate) fn with_experts_as_stored(mut self, stored: impl Fn(&str) -> bool) -> Self {
        let tensor = self.names.moe.joined[0];
        let first = self.layers.iter().position(|layer| layer.moe);
        if let (Some(moe), Some(layer)) = (&mut self.moe, first)
            && moe.storage == ExpertStorage::Separate
            && stored(&format!("model.layers.{layer}.{tensor}"))
        {
            moe.storage = ExpertStorage::JoinedRows;
        }
        self
    }

    /// An expert of tensors that hold all.
    fn joined_expert(&self, prefix: &str, moe: &MoeSpec, expert: usize) -> GatedNames {
        let (hidden, size, experts) = (self.hidden_size, moe.intermediate_size, moe.num_experts);
        let module = format!("{prefix}.{}", self.names.moe.experts);
        let [gate_up, down] = self.names.moe.joined;
        if moe.storage == ExpertStorage::JoinedRows {
            let rows = |what: &str, tensor: &str, (n, k): (usize, usize), (first, of): (usize, usize)| {
                let tensor = format!("{prefix}.{tensor}");
                let first = expert * of + first;
                let (shape, run) = (vec![experts, of, k], usize::MAX);
                let part = Part { tensor, shape, first, run, stride: 0, storage: PartStorage::Rows };
                let name = format!("{module}.{expert}.{what}.weight");
                LinearNames { weight: MatrixName { name, n, k, part: Some(Box::new(part)) }, bias: None }
            };
            return GatedNames {
                gate: rows("gate_proj", gate_up, (size, hidden), (0, 2 * size)),
                up: rows("up_proj", gate_up, (size, hidden), (size, 2 * size)),
                down: rows("down_proj", down, (hidden, size), (0, hidden)),
            };
        }
        // Gate and up in turn.
        let linear = |what: &str, tensor: &str, (n, k): (usize, usize), (first, stride): (usize, usize)| {
            let outputs = n * stride;
            let mxfp4 = moe.storage == ExpertStorage::JoinedMxfp4;
            let tensor = format!("{prefix}.{tensor}");
            let part = Part {
                tensor: tensor.clone(),
                shape: if mxfp4 { vec![experts, outputs, k] } else { vec![experts, k, outputs] },
                first: if mxfp4 { expert * outputs + first } else { first },
                run: 1,
                stride,
                storage: if mxfp4 { PartStorage::Mxfp4 } else { PartStorage::Columns { from: expert * k } },
            };
            let bias = Part {
                tensor: format!("{tensor}_bias"),
                shape: vec![experts, outputs],
                first: expert * outputs + first,
                run: 1,
                stride,
                storage: PartStorage::Rows,
            };
            let name = format!("{module}.{expert}.{what}");
            LinearNames {
                weight: MatrixName { name: format!("{name}.weight"), n, k, part: Some(Box::new(part)) },
                bias: moe.expert_bias.then(|| VectorName {
                    name: format!("{name}.bias"),
                    len: n,
                    part: Some(Box::new(bias)),
                    offset: 0.0,
                    k: None,
                }),
            }
        };
        GatedNames {
            gate: linear("gate_proj", gate_up, (size, hidden), (0, 2)),
            up: linear("up_proj", gate_up, (size, hidden), (1, 2)),
            down: linear("down_proj", down, (hidden, size), (0, 1)),
        }
    }
}

impl VectorName {
    pub(crate) fn new(name: String, len: usize, offset: f32) -> Self {
        VectorName { name, len, part: None, offset, k: None }
    }

    /// All of a tensor of `shape`, as a matrix of rows of `k`.
    pub(crate) fn matrix(name: String, shape: Vec<usize>, k: usize) -> Self {
        let len = shape.iter().product();
        let part = Some(Box::new(Part::whole(name.clone(), shape)));
        VectorName { name, len, part, offset: 0.0, k: Some(k) }
    }

    /// Elements in memory: a small matrix is packed in panels of 16 rows.
    pub(crate) fn padded_len(&self) -> usize {
        self.k.map_or(self.len, |k| (self.len / k.max(1)).next_multiple_of(16) * k)
    }
}

impl Part {
    /// All of a tensor.
    fn whole(tensor: String, shape: Vec<usize>) -> Self {
        Part { tensor, shape, first: 0, run: usize::MAX, stride: 0, storage: PartStorage::Rows }
    }
}

pub(crate) fn linear(prefix: &str, module: &str, n: usize, k: usize, bias: bool) -> LinearNames {
    let name = format!("{prefix}.{module}");
    LinearNames {
        weight: MatrixName { name: format!("{name}.weight"), n, k, part: None },
        bias: bias.then(|| VectorName::new(format!("{name}.bias"), n, 0.0)),
    }
}

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
        let gate_up = Projections { parts: vec![&self.gate, &self.up], gated: true };
        [gate_up, Projections::rows(std::slice::from_ref(&self.down))]
    }
}

impl PlainNames {
    fn packed(&self) -> [Projections<'_>; 2] {
        [&self.up, &self.down].map(|part| Projections::rows(std::slice::from_ref(part)))
    }
}

impl LayerNames {
    /// Projections, those that are packed as one together.
    fn packed(&self) -> Vec<Projections<'_>> {
        let mixer = self.mixer.packed().into_iter().chain([std::slice::from_ref(&self.o)]);
        let mut packed: Vec<Projections<'_>> = mixer.map(Projections::rows).collect();
        match &self.mlp {
            MlpNames::Dense(mlp) => packed.extend(mlp.packed()),
            MlpNames::Plain(mlp) => packed.extend(mlp.packed()),
            MlpNames::Moe(moe) => {
                let dense = moe.beside.as_ref().map(|beside| &beside.dense);
                packed
                    .extend(moe.experts.iter().chain(&moe.shared).chain(dense).flat_map(GatedNames::packed));
            }
        }
        if let Some(input) = &self.input {
            packed.extend([&input.gate, &input.projection].map(std::slice::from_ref).map(Projections::rows));
        }
        packed
    }

    /// The projections that adapters may change: those of all tokens, experts' not, but for what latent attention is computed
    /// through.
    fn adaptable(&self) -> Vec<Projections<'_>> {
        let mixer = match &self.mixer {
            MixerNames::Mla(names) => vec![names.down.as_slice(), &names.q_up],
            // Some rows of Mamba's projection are computed apart.
            MixerNames::Mamba(_) => Vec::new(),
            mixer => mixer.packed(),
        };
        let mixer =
            mixer.into_iter().chain([std::slice::from_ref(&self.o)]).filter(|parts| !parts.is_empty());
        let mut projections: Vec<Projections<'_>> = mixer.map(Projections::rows).collect();
        match &self.mlp {
            MlpNames::Dense(mlp) => projections.extend(mlp.packed()),
            MlpNames::Plain(mlp) => projections.extend(mlp.packed()),
            MlpNames::Moe(moe) => {
                let dense = moe.beside.as_ref().map(|beside| &beside.dense);
                projections.extend(moe.shared.iter().chain(dense).flat_map(GatedNames::packed));
            }
        }
        projections
    }

    /// The matrices of experts that are stored one by one.
    fn expert_matrices(&self) -> impl Iterator<Item = &MatrixName> {
        let experts = match &self.mlp {
            MlpNames::Moe(moe) => moe.experts.as_slice(),
            MlpNames::Dense(_) | MlpNames::Plain(_) => &[],
        };
        let matrices = experts.iter().flat_map(|expert| [&expert.gate, &expert.up, &expert.down]);
        matrices.map(|linear| &linear.weight).filter(|matrix| matrix.part.is_none())
    }

    /// Norms, biases, and what else stays in f32.
    fn vectors(&self) -> Vec<&VectorName> {
        let first = self.input_norm.iter().chain(&self.attention_out_norm).chain(&self.attention_sum_norm);
        let norms = first.chain(&self.mlp_norm).chain(&self.mlp_out_norm).chain(&self.mlp_sum_norm);
        let mut vectors: Vec<&VectorName> = norms.flat_map(NormNames::vectors).collect();
        vectors.extend(self.mixer.vectors());
        if let MlpNames::Moe(moe) = &self.mlp {
            vectors.push(&moe.router);
            vectors.extend(moe.router_bias.iter().chain(&moe.correction).chain(&moe.shared_gate));
            if let Some(beside) = &moe.beside {
                vectors.extend([&beside.dense_out_norm, &beside.expert_norm, &beside.expert_out_norm]);
                vectors.extend([&beside.router_norm, &beside.expert_scale]);
            }
        }
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
        if let Some(inputs) = &self.layer_inputs {
            packed
                .extend([&inputs.embedding, &inputs.projection.weight].map(|matrix| Joined::rows([matrix])));
        }
        for layer in &self.layers {
            packed.extend(layer.packed().iter().map(Projections::joined));
        }
        packed.extend(self.lm_head.iter().map(|head| Joined::rows([head])));
        packed
    }

    /// The packed matrices that a token does not use: those of experts it does not choose.
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

    /// The projections that adapters may change, those that are computed as one together.
    pub(crate) fn adaptable(&self) -> Vec<Projections<'_>> {
        self.layers.iter().flat_map(LayerNames::adaptable).collect()
    }

    /// Matrices that adapters may change as they are read, besides those of [`adaptable`](Self::adaptable).
    pub(crate) fn only_merged(&self) -> impl Iterator<Item = &MatrixName> {
        self.layers.iter().flat_map(LayerNames::expert_matrices).chain(&self.lm_head)
    }

    /// Every matrix.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &MatrixName> {
        self.packed_matrices().into_iter().flat_map(|joined| joined.parts)
    }

    /// Every stored tensor with its shape, once each, those that are read in turn side by side. Experts in MXFP4 are not among
    /// them: they are stored as two.
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

    /// Every norm and bias, and the small matrices that stay in f32.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        let tables = self.positions.iter().chain(&self.token_types);
        let first = tables.chain(self.embedding_norm.iter().flat_map(NormNames::vectors));
        let last = self.final_norm.iter().flat_map(NormNames::vectors);
        let last = last.chain(self.chain.iter().flat_map(DenseNames::vectors));
        let inputs = self.layer_inputs.iter().map(|inputs| &inputs.norm);
        first.chain(self.layers.iter().flat_map(LayerNames::vectors)).chain(inputs).chain(last)
    }
}
