//! Tensor names and shapes of a spec.

use super::mixers::OutputProjection;
use super::names::MlpModules;
use super::tensors::{
    DenseNames, GatedNames, LM_HEAD, LM_HEAD_BIAS, LayerInputNames, LayerInputsNames, LayerNames,
    LinearNames, MatrixName, MlpNames, MoeNames, NormNames, ParallelMlpNames, Part, PartStorage, PlainNames,
    Runs, TensorNames, VectorName, XieluNames, linear,
};
use super::{DecoderSpec, DenseSpec, ExpertStorage, Halves, InputSpec, MoeSpec, NormKind, Scoring};

impl DecoderSpec {
    /// Names and shapes of all tensors.
    pub(crate) fn tensors(&self) -> TensorNames {
        let vocabulary = |name: &str| MatrixName {
            name: name.into(),
            n: self.vocab_size,
            k: self.hidden_size,
            part: None,
            sensitive: false,
        };
        let hidden = self.hidden_size;
        let table =
            |module: &str, rows| VectorName::matrix(format!("{module}.weight"), vec![rows, hidden], hidden);
        let InputSpec { positions, token_types, norm } = self.input;
        let mut names = TensorNames {
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
                        sensitive: false,
                    },
                    projection: linear("model", "per_layer_model_projection", width, self.hidden_size),
                    norm: VectorName::new("model.per_layer_projection_norm.weight".into(), inputs.size, 0.0),
                }
            }),
            streams: self.streams_tensors(),
            layers: (0..self.num_hidden_layers).map(|layer| self.layer_tensors(layer)).collect(),
            final_norm: self.names.final_norm.map(|module| self.stream_norm(module, hidden)),
            dense_head: self.dense_head.iter().map(|dense| self.dense_tensors(dense)).collect(),
            lm_head: (!self.tie_word_embeddings && !self.headless).then(|| vocabulary(LM_HEAD)),
            lm_head_bias: self
                .lm_head_bias
                .then(|| VectorName::new(LM_HEAD_BIAS.to_owned(), self.vocab_size, 0.0)),
        };
        names.mark_sensitive();
        names
    }

    /// Name of the embedding's tensor.
    pub(crate) fn embedding_tensor(&self) -> String {
        format!("{}.weight", self.names.embedding)
    }

    /// Names and shapes of the tensors of layer `layer`.
    pub(super) fn layer_tensors(&self, layer: usize) -> LayerNames {
        let Halves { mixer, mlp } =
            self.layers[layer].halves.unwrap_or(Halves { mixer: layer, mlp: Some(layer) });
        let numbered = |number: usize| format!("{}.{number}", self.names.layers);
        let (prefix, second) = (numbered(mixer), mlp.map(numbered));
        let norm_of = |prefix: &str, module: Option<&str>| {
            module.map(|module| self.stream_norm(&format!("{prefix}.{module}"), self.hidden_size))
        };
        let norm = |module: Option<&str>| norm_of(&prefix, module);
        let norm_of_mlp = |module: Option<&str>| second.as_ref().and_then(|prefix| norm_of(prefix, module));
        LayerNames {
            input_norm: norm(self.names.input_norm.filter(|_| self.layers[layer].input_norm)),
            mixer: self.layers[layer].mixer.description().tensors(self, &prefix, layer),
            o: self.mixer_output(&prefix, layer),
            low_rank: self.low_rank_tensors(&prefix),
            attention_out_norm: norm(self.names.attention_out_norm),
            attention_sum_norm: norm(self.names.attention_sum_norm),
            mlp_norm: norm_of_mlp(self.names.mlp_norm),
            mlp: second.as_ref().map_or(MlpNames::None, |prefix| self.mlp_tensors(prefix, layer)),
            mlp_out_norm: norm_of_mlp(self.names.mlp_out_norm),
            mlp_sum_norm: norm_of_mlp(self.names.mlp_sum_norm),
            streams: self.layer_streams_tensors(&prefix),
            input: self.per_layer_inputs.map(|inputs| LayerInputNames {
                gate: linear(&prefix, "per_layer_input_gate", inputs.size, self.hidden_size),
                projection: linear(&prefix, "per_layer_projection", self.hidden_size, inputs.size),
                norm: self
                    .stream_norm(&format!("{prefix}.post_per_layer_input_norm"), self.hidden_size)
                    .gains,
            }),
            scalar: self.layer_scalars.then(|| VectorName::new(format!("{prefix}.layer_scalar"), 1, 0.0)),
        }
    }

    fn mlp_tensors(&self, prefix: &str, layer: usize) -> MlpNames {
        match self.moe.filter(|_| self.layers[layer].moe) {
            Some(moe) => MlpNames::Moe(Box::new(self.moe_tensors(prefix, layer, &moe))),
            None if !self.mlp_gate => MlpNames::Plain(self.plain_mlp(prefix)),
            None => {
                let size = self.dense_size(layer);
                let names = self.gated(prefix, &self.names.mlp, size, self.mlp_bias);
                match self.layers[layer].cutoff {
                    Some(_) => MlpNames::Sparse(names),
                    None => MlpNames::Dense(names),
                }
            }
        }
    }

    /// Elements of the mixer's output in layer `layer`, before the output projection.
    pub(crate) fn mixed_size(&self, layer: usize) -> usize {
        self.layers[layer].mixer.description().mixed_size(self, layer)
    }

    /// The output projection of the mixer.
    fn mixer_output(&self, prefix: &str, layer: usize) -> LinearNames {
        let OutputProjection { module, bias } = self.layers[layer].mixer.description().output(self);
        self.projection(prefix, module, self.hidden_size, self.mixed_size(layer)).with_bias(bias)
    }

    /// The projection `module` of attention or MLP, `[n, k]`, without a bias.
    pub(super) fn projection(&self, prefix: &str, module: &str, n: usize, k: usize) -> LinearNames {
        let stored = linear(prefix, module, n, k);
        if self.transposed { stored.transposed() } else { stored }
    }

    /// Elements between the projections of the dense MLP of layer `layer`.
    pub(crate) fn dense_size(&self, layer: usize) -> usize {
        self.layers[layer].intermediate_size.unwrap_or(self.intermediate_size)
    }

    /// A norm of the residual stream's kind.
    pub(super) fn stream_norm(&self, module: &str, len: usize) -> NormNames {
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
        let parameter = |name: &str| format!("{prefix}.mlp.act_fn.{name}");
        PlainNames {
            up: self.projection(prefix, up, size, hidden).with_bias(self.mlp_bias),
            down: self.projection(prefix, modules.down, hidden, size).with_bias(self.mlp_bias),
            xielu: self.xielu.then(|| XieluNames {
                alpha_p: VectorName::new(parameter("alpha_p"), 1, 0.0),
                alpha_n: VectorName::new(parameter("alpha_n"), 1, 0.0),
                beta: VectorName::scalar(parameter("beta")),
                eps: VectorName::scalar(parameter("eps")),
            }),
        }
    }

    /// A gated MLP with `size` elements between its projections.
    fn gated(&self, prefix: &str, modules: &MlpModules, size: usize, bias: bool) -> GatedNames {
        let hidden = self.hidden_size;
        let [gate, up] = match *modules.gate_up {
            [joined] => {
                let all = linear(prefix, joined, 2 * size, hidden).with_bias(bias);
                let part =
                    |what, first| Runs { first, run: size, stride: 0, of: 2 * size }.linear(&all, what, size);
                [part("gate", 0), part("up", size)]
            }
            [gate, up, ..] => [gate, up].map(|module| linear(prefix, module, size, hidden).with_bias(bias)),
            [] => [(); 2].map(|()| linear(prefix, "mlp", size, hidden).with_bias(bias)),
        };
        let down = linear(prefix, modules.down, hidden, size).with_bias(bias);
        GatedNames { gate: Some(gate), up, down }
    }

    /// An expert, or the shared one, with `size` elements between its projections.
    fn expert(&self, moe: &MoeSpec, prefix: &str, modules: &MlpModules, size: usize) -> GatedNames {
        if moe.gate {
            return self.gated(prefix, modules, size, moe.expert_bias);
        }
        let up = modules.gate_up.first().copied().unwrap_or("mlp");
        GatedNames {
            gate: None,
            up: linear(prefix, up, size, self.hidden_size).with_bias(moe.expert_bias),
            down: linear(prefix, modules.down, self.hidden_size, size).with_bias(moe.expert_bias),
        }
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
                self.expert(moe, &prefix, &modules.expert, moe.intermediate_size)
            }
            ExpertStorage::JoinedRows
            | ExpertStorage::JoinedColumns
            | ExpertStorage::Joined
            | ExpertStorage::JoinedMxfp4 => self.joined_expert(prefix, moe, expert),
        };
        let shared = moe.shared;
        MoeNames {
            router: matrix(modules.router, experts),
            router_bias: moe.router_bias.then(|| router("bias")),
            correction: (moe.scoring == Scoring::Sigmoid)
                .then(|| VectorName::new(format!("{prefix}.{}", modules.correction), experts, 0.0)),
            experts: (0..experts).map(expert).collect(),
            shared: shared.map(|shared| {
                let moe = MoeSpec { expert_bias: false, ..*moe };
                self.expert(&moe, prefix, &modules.shared, shared.intermediate_size)
            }),
            shared_gate: shared.filter(|shared| shared.gated).map(|_| matrix(modules.shared_gate, 1)),
            parallel_mlp: moe.parallel_mlp.then(|| {
                let norm =
                    |module: &str| self.stream_norm(&format!("{prefix}.{module}"), self.hidden_size).gains;
                let vector = |name: &str, len| VectorName::new(format!("{prefix}.router.{name}"), len, 0.0);
                ParallelMlpNames {
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

    /// Adapts the spec to how experts are `stored`: some checkpoints of a family have all experts in one tensor.
    pub(crate) fn with_experts_as_stored(mut self, stored: impl Fn(&str) -> bool) -> Self {
        let tensor = self.names.moe.joined[0];
        let first = self.layers.iter().position(|layer| layer.moe);
        if let (Some(moe), Some(layer)) = (&mut self.moe, first)
            && moe.storage == ExpertStorage::Separate
            && stored(&format!("{}.{layer}.{tensor}", self.names.layers))
        {
            moe.storage = ExpertStorage::JoinedRows;
        }
        self
    }

    /// An expert in tensors that hold all of them.
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
                LinearNames {
                    weight: MatrixName { name, n, k, part: Some(Box::new(part)), sensitive: false },
                    bias: None,
                }
            };
            return GatedNames {
                gate: Some(rows("gate_proj", gate_up, (size, hidden), (0, 2 * size))),
                up: rows("up_proj", gate_up, (size, hidden), (size, 2 * size)),
                down: rows("down_proj", down, (hidden, size), (0, hidden)),
            };
        }
        // Gate and up interleaved, or one after the other.
        let halves = moe.storage == ExpertStorage::JoinedColumns;
        let linear = |what: &str, tensor: &str, (n, k): (usize, usize), (first, of): (usize, usize)| {
            let outputs = n * of;
            let (first, run, stride) = if halves { (first * n, n, 0) } else { (first, 1, of) };
            let mxfp4 = moe.storage == ExpertStorage::JoinedMxfp4;
            let tensor = format!("{prefix}.{tensor}");
            let part = Part {
                tensor: tensor.clone(),
                shape: if mxfp4 { vec![experts, outputs, k] } else { vec![experts, k, outputs] },
                first: if mxfp4 { expert * outputs + first } else { first },
                run,
                stride,
                storage: if mxfp4 { PartStorage::Mxfp4 } else { PartStorage::Columns { from: expert * k } },
            };
            let bias = Part {
                tensor: format!("{tensor}_bias"),
                shape: vec![experts, outputs],
                first: expert * outputs + first,
                run,
                stride,
                storage: PartStorage::Rows,
            };
            let name = format!("{module}.{expert}.{what}");
            LinearNames {
                weight: MatrixName {
                    name: format!("{name}.weight"),
                    n,
                    k,
                    part: Some(Box::new(part)),
                    sensitive: false,
                },
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
            gate: Some(linear("gate_proj", gate_up, (size, hidden), (0, 2))),
            up: linear("up_proj", gate_up, (size, hidden), (1, 2)),
            down: linear("down_proj", down, (hidden, size), (0, 1)),
        }
    }
}
