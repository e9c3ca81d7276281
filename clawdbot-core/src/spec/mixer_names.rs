//! The tensors of token mixers: attention and the others.

use super::tensor_name::{LinearNames, MatrixName, Part, PartStorage, VectorName, linear};
use super::{
    DecoderSpec, DeltaNetSpec, DeltaStorage, HeadShape, KeySource, MambaSpec, MixerKind, MlaSpec,
    ShortConvSpec,
};

/// The tensors of a token mixer, without its output projection.
#[allow(clippy::large_enum_variant, reason = "there are few, and most are of the largest")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MixerNames {
    Attention(AttentionNames),
    Mla(Box<MlaNames>),
    ShortConv(Box<ShortConvNames>),
    DeltaNet(Box<DeltaNetNames>),
    Mamba(Box<MambaNames>),
}

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

/// The tensors of latent attention.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MlaNames {
    /// To `q_lora_rank` (or directly to the queries), and to `kv_lora_rank + qk_rope_head_dim`.
    pub(crate) down: Vec<LinearNames>,
    /// `[q_lora_rank]`
    pub(crate) q_norm: Option<VectorName>,
    /// `[heads * (qk_nope_head_dim + qk_rope_head_dim), q_lora_rank]`; at most one.
    pub(crate) q_up: Vec<LinearNames>,
    /// `[kv_lora_rank]`
    pub(crate) kv_norm: VectorName,
    /// `[kv_lora_rank, qk_nope_head_dim]` for each head.
    pub(crate) key_up: Vec<LinearNames>,
    /// `[v_head_dim, kv_lora_rank]` for each head.
    pub(crate) value_up: Vec<LinearNames>,
}

/// The tensors of a short convolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShortConvNames {
    /// `[3 * hidden_size, hidden_size]`
    pub(crate) input: LinearNames,
    /// `[hidden_size, 1, kernel_size]`
    pub(crate) conv: VectorName,
    /// `[hidden_size]`
    pub(crate) conv_bias: Option<VectorName>,
}

/// The tensors of a gated delta net.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeltaNetNames {
    /// Queries, keys, values, gates: `[2 * keys + 2 * values, hidden_size]` together.
    pub(crate) qkvz: Vec<LinearNames>,
    /// `[value_heads, hidden_size]`: the strengths of corrections.
    pub(crate) beta: VectorName,
    /// `[value_heads, hidden_size]`: the decays.
    pub(crate) decay: VectorName,
    /// `[channels, 1, kernel_size]`
    pub(crate) conv: VectorName,
    /// `[value_heads]`: negative decay rates.
    pub(crate) minus_a: VectorName,
    /// `[value_heads]`
    pub(crate) dt_bias: VectorName,
    /// `[value_head_dim]`
    pub(crate) norm: VectorName,
}

/// The tensors of a Mamba-2 layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MambaNames {
    /// `z`, `x`, `B` and `C`.
    pub(crate) input: LinearNames,
    /// `[heads, hidden_size]`: `dt`.
    pub(crate) steps: VectorName,
    /// `[channels, 1, kernel_size]`
    pub(crate) conv: VectorName,
    /// `[channels]`
    pub(crate) conv_bias: Option<VectorName>,
    /// `[heads]`: negative decay rates.
    pub(crate) minus_a: VectorName,
    /// `[heads]`
    pub(crate) dt_bias: VectorName,
    /// `[heads]`
    pub(crate) skip: VectorName,
    /// `[heads * head_dim]`
    pub(crate) norm: VectorName,
}

impl MixerNames {
    /// Projections, grouped by what is packed as one.
    pub(crate) fn packed(&self) -> Vec<&[LinearNames]> {
        let mut packed: Vec<&[LinearNames]> = Vec::new();
        match self {
            MixerNames::Attention(names) => packed.extend([names.qkv.as_slice(), &names.gate]),
            MixerNames::Mla(names) => {
                packed.extend([names.down.as_slice(), &names.q_up]);
                packed.extend(names.key_up.chunks(1).chain(names.value_up.chunks(1)));
            }
            MixerNames::ShortConv(names) => packed.push(std::slice::from_ref(&names.input)),
            MixerNames::DeltaNet(names) => packed.push(&names.qkvz),
            MixerNames::Mamba(names) => packed.push(std::slice::from_ref(&names.input)),
        }
        packed.retain(|parts| !parts.is_empty());
        packed
    }

    /// What stays in f32, apart from biases of projections.
    pub(crate) fn vectors(&self) -> Vec<&VectorName> {
        match self {
            MixerNames::Attention(names) => {
                names.q_norm.iter().chain(&names.k_norm).chain(&names.sinks).collect()
            }
            MixerNames::Mla(names) => names.q_norm.iter().chain([&names.kv_norm]).collect(),
            MixerNames::ShortConv(names) => std::iter::once(&names.conv).chain(&names.conv_bias).collect(),
            MixerNames::DeltaNet(names) => {
                vec![&names.beta, &names.decay, &names.conv, &names.minus_a, &names.dt_bias, &names.norm]
            }
            MixerNames::Mamba(names) => {
                let vectors = [&names.steps, &names.conv].into_iter().chain(&names.conv_bias);
                vectors.chain([&names.minus_a, &names.dt_bias, &names.skip, &names.norm]).collect()
            }
        }
    }
}

impl DecoderSpec {
    /// The tensors of the mixer of layer `layer`.
    pub(crate) fn mixer_tensors(&self, prefix: &str, layer: usize) -> MixerNames {
        if let (MixerKind::Mamba, Some(mamba)) = (self.layers[layer].mixer, self.mamba) {
            return MixerNames::Mamba(Box::new(self.mamba_tensors(prefix, mamba)));
        }
        match (self.layers[layer].mixer, self.mla, self.short_conv, self.delta_net) {
            (MixerKind::ShortConv, _, Some(conv), _) => {
                MixerNames::ShortConv(Box::new(self.short_conv_tensors(prefix, conv)))
            }
            (MixerKind::DeltaNet, _, _, Some(delta)) => {
                MixerNames::DeltaNet(Box::new(self.delta_net_tensors(prefix, delta)))
            }
            (_, Some(mla), ..) => MixerNames::Mla(Box::new(self.mla_tensors(prefix, mla))),
            _ => MixerNames::Attention(self.attention_tensors(prefix, layer)),
        }
    }

    /// Elements of the mixer's output in layer `layer`, before the output projection.
    pub(crate) fn mixed_size(&self, layer: usize) -> usize {
        match (self.layers[layer].mixer, self.mla) {
            (MixerKind::ShortConv, _) => self.hidden_size,
            (MixerKind::DeltaNet, _) => {
                self.delta_net.map_or(0, |delta| delta.num_value_heads * delta.value_head_dim)
            }
            (MixerKind::Mamba, _) => self.mamba.map_or(0, |mamba| mamba.inner()),
            (MixerKind::Attention, Some(mla)) => self.num_attention_heads * mla.v_head_dim,
            (MixerKind::Attention, None) => self.num_attention_heads * self.heads(layer).head_dim,
        }
    }

    /// The output projection.
    pub(crate) fn mixer_out(&self, prefix: &str, layer: usize) -> LinearNames {
        let (module, bias) = match self.layers[layer].mixer {
            MixerKind::Attention => (self.names.o, self.o_bias),
            MixerKind::ShortConv => ("conv.out_proj", self.short_conv.is_some_and(|conv| conv.bias)),
            MixerKind::DeltaNet => ("linear_attn.out_proj", false),
            MixerKind::Mamba => ("mamba.out_proj", false),
        };
        linear(prefix, module, self.hidden_size, self.mixed_size(layer), bias)
    }

    fn attention_tensors(&self, prefix: &str, layer: usize) -> AttentionNames {
        let (hidden, keys) = (self.hidden_size, self.layers[layer].keys);
        let HeadShape { num_key_value_heads, head_dim } = self.heads(layer);
        let (q, kv) = (self.num_attention_heads * head_dim, num_key_value_heads * head_dim);
        let sizes: &[usize] = if self.names.qkv.len() == 3 { &[q, kv, kv] } else { &[q + 2 * kv] };
        // A family with joined projections has all three.
        let count = match keys {
            KeySource::Own => 3,
            KeySource::KeysAsValues => 2,
            KeySource::Layer(_) => 1,
        };
        let names = self.names.qkv.iter().zip(sizes).take(count);
        let mut qkv: Vec<LinearNames> =
            names.map(|(module, &n)| linear(prefix, module, n, hidden, self.qkv_bias)).collect();
        let mut gate = Vec::new();
        if self.attention.gate {
            // Stored with the queries, head by head.
            let runs = |first| Runs { first, run: head_dim, stride: 2 * head_dim, of: 2 * q };
            gate.push(runs(head_dim).linear(&qkv[0], "gate", q));
            qkv[0] = runs(0).linear(&qkv[0], "query", q);
        }
        let head_norm = |module: &str, whole: usize| {
            self.qk_norm.map(|norm| {
                let len = if norm.whole { whole } else { head_dim };
                VectorName::new(format!("{prefix}.{module}.weight"), len, self.norm.offset())
            })
        };
        let sinks = || VectorName::new(format!("{prefix}.self_attn.sinks"), self.num_attention_heads, 0.0);
        AttentionNames {
            qkv,
            gate,
            q_norm: head_norm(self.names.q_norm, q),
            k_norm: head_norm(self.names.k_norm, kv).filter(|_| !matches!(keys, KeySource::Layer(_))),
            sinks: self.attention.sinks.then(sinks),
        }
    }

    fn mla_tensors(&self, prefix: &str, mla: MlaSpec) -> MlaNames {
        let (hidden, heads, rank) = (self.hidden_size, self.num_attention_heads, mla.kv_lora_rank);
        let queries = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim);
        let norm =
            |module: &str, len| VectorName::new(format!("{prefix}.self_attn.{module}.weight"), len, 0.0);
        let q_down = match mla.q_lora_rank {
            Some(rank) => linear(prefix, "self_attn.q_a_proj", rank, hidden, self.qkv_bias),
            None => linear(prefix, "self_attn.q_proj", queries, hidden, false),
        };
        let kv = rank + mla.qk_rope_head_dim;
        let of_head = mla.qk_nope_head_dim + mla.v_head_dim;
        let up = |head: usize, what: &str, (n, k): (usize, usize), first: usize, storage: PartStorage| {
            let tensor = format!("{prefix}.self_attn.kv_b_proj.weight");
            let (shape, run, stride) = (vec![heads * of_head, rank], usize::MAX, 0);
            let part = Part { tensor: tensor.clone(), shape, first, run, stride, storage };
            let name = format!("{tensor}.{head}.{what}");
            LinearNames { weight: MatrixName { name, n, k, part: Some(Box::new(part)) }, bias: None }
        };
        let key_up = |head: usize| {
            let storage = PartStorage::Columns { from: head * of_head };
            up(head, "keys", (rank, mla.qk_nope_head_dim), 0, storage)
        };
        let value_up = |head: usize| {
            let first = head * of_head + mla.qk_nope_head_dim;
            up(head, "values", (mla.v_head_dim, rank), first, PartStorage::Rows)
        };
        MlaNames {
            down: vec![q_down, linear(prefix, "self_attn.kv_a_proj_with_mqa", kv, hidden, self.qkv_bias)],
            q_norm: mla.q_lora_rank.map(|rank| norm("q_a_layernorm", rank)),
            q_up: mla
                .q_lora_rank
                .map(|rank| linear(prefix, "self_attn.q_b_proj", queries, rank, false))
                .into_iter()
                .collect(),
            kv_norm: norm("kv_a_layernorm", rank),
            key_up: (0..heads).map(key_up).collect(),
            value_up: (0..heads).map(value_up).collect(),
        }
    }

    fn mamba_tensors(&self, prefix: &str, mamba: MambaSpec) -> MambaNames {
        let (hidden, heads, inner) = (self.hidden_size, mamba.num_heads, mamba.inner());
        let channels = mamba.recurrence().channels();
        let (wide, all) = (inner + channels, inner + channels + heads);
        let joined = linear(prefix, "mamba.in_proj", all, hidden, false);
        let tensor = joined.weight.name.clone();
        let steps = Part {
            tensor: tensor.clone(),
            shape: vec![all, hidden],
            first: wide * hidden,
            run: usize::MAX,
            stride: 0,
            storage: PartStorage::Rows,
        };
        let vector = |name: &str, len| VectorName::new(format!("{prefix}.mamba.{name}"), len, 0.0);
        let conv = format!("{prefix}.mamba.conv1d.weight");
        MambaNames {
            input: Runs { first: 0, run: wide, stride: 0, of: all }.linear(&joined, "input", wide),
            steps: VectorName {
                name: format!("{tensor}.steps"),
                len: heads * hidden,
                part: Some(Box::new(steps)),
                offset: 0.0,
                k: Some(hidden),
            },
            conv: VectorName { k: None, ..VectorName::matrix(conv, vec![channels, 1, mamba.kernel_size], 1) },
            conv_bias: mamba.conv_bias.then(|| vector("conv1d.bias", channels)),
            minus_a: rates(&format!("{prefix}.mamba"), heads),
            dt_bias: vector("dt_bias", heads),
            skip: vector("D", heads),
            norm: vector("norm.weight", inner),
        }
    }

    fn short_conv_tensors(&self, prefix: &str, conv: ShortConvSpec) -> ShortConvNames {
        let hidden = self.hidden_size;
        let shape = vec![hidden, 1, conv.kernel_size];
        ShortConvNames {
            input: linear(prefix, "conv.in_proj", 3 * hidden, hidden, conv.bias),
            conv: VectorName {
                k: None,
                ..VectorName::matrix(format!("{prefix}.conv.conv.weight"), shape, 1)
            },
            conv_bias: conv.bias.then(|| VectorName::new(format!("{prefix}.conv.conv.bias"), hidden, 0.0)),
        }
    }

    fn delta_net_tensors(&self, prefix: &str, delta: DeltaNetSpec) -> DeltaNetNames {
        let heads = delta.num_value_heads;
        let (keys, values) = (delta.num_key_heads * delta.key_head_dim, heads * delta.value_head_dim);
        let (qkvz, [beta, decay]) = match delta.storage {
            DeltaStorage::Grouped => self.grouped_projections(prefix, delta),
            DeltaStorage::Apart => {
                let of = |module: &str, n| linear(prefix, module, n, self.hidden_size, false);
                let small = |module: &str| {
                    let name = format!("{prefix}.linear_attn.{module}.weight");
                    VectorName::matrix(name, vec![heads, self.hidden_size], self.hidden_size)
                };
                let qkv = of("linear_attn.in_proj_qkv", 2 * keys + values);
                let gates = [small("in_proj_b"), small("in_proj_a")];
                (vec![qkv, of("linear_attn.in_proj_z", values)], gates)
            }
        };
        let vector = |name: &str, len| VectorName::new(format!("{prefix}.linear_attn.{name}"), len, 0.0);
        let conv = format!("{prefix}.linear_attn.conv1d.weight");
        let shape = vec![2 * keys + values, 1, delta.kernel_size];
        DeltaNetNames {
            qkvz,
            beta,
            decay,
            conv: VectorName { k: None, ..VectorName::matrix(conv, shape, 1) },
            minus_a: rates(&format!("{prefix}.linear_attn"), heads),
            dt_bias: vector("dt_bias", heads),
            norm: vector("norm.weight", delta.value_head_dim),
        }
    }

    /// Queries, keys, values and gates, and the small projections, of [`DeltaStorage::Grouped`].
    fn grouped_projections(&self, prefix: &str, delta: DeltaNetSpec) -> (Vec<LinearNames>, [VectorName; 2]) {
        let DeltaNetSpec { num_key_heads: groups, num_value_heads: heads, key_head_dim: k, .. } = delta;
        let (hidden, per_group) = (self.hidden_size, heads / groups);
        let v = per_group * delta.value_head_dim;
        // For each group: queries, keys, values, gates.
        let stride = 2 * k + 2 * v;
        let all = linear(prefix, "linear_attn.in_proj_qkvz", groups * stride, hidden, false);
        let part = |what: &str, first: usize, run: usize| {
            Runs { first, run, stride, of: groups * stride }.linear(&all, what, groups * run)
        };
        // Likewise corrections and decays; in elements.
        let gate = |what: &str, first: usize| VectorName {
            name: format!("{prefix}.linear_attn.in_proj_ba.weight.{what}"),
            len: heads * hidden,
            part: Some(Box::new(Part {
                tensor: format!("{prefix}.linear_attn.in_proj_ba.weight"),
                shape: vec![2 * heads, hidden],
                first: first * hidden,
                run: per_group * hidden,
                stride: 2 * per_group * hidden,
                storage: PartStorage::Rows,
            })),
            offset: 0.0,
            k: Some(hidden),
        };
        let qkvz =
            vec![part("query", 0, k), part("key", k, k), part("value", 2 * k, v), part("gate", 2 * k + v, v)];
        (qkvz, [gate("beta", 0), gate("decay", per_group)])
    }
}

/// Rows of a joined projection, in runs at regular distances.
pub(crate) struct Runs {
    pub(crate) first: usize,
    pub(crate) run: usize,
    pub(crate) stride: usize,
    /// Rows in all.
    pub(crate) of: usize,
}

impl Runs {
    /// `n` rows of `all`, under its name with the suffix `what`.
    pub(crate) fn linear(&self, all: &LinearNames, what: &str, n: usize) -> LinearNames {
        let Runs { first, run, stride, of } = *self;
        let part = |tensor: &str, shape: Vec<usize>| {
            let (tensor, storage) = (tensor.to_owned(), PartStorage::Rows);
            Some(Box::new(Part { tensor, shape, first, run, stride, storage }))
        };
        let (weight, k) = (&all.weight.name, all.weight.k);
        LinearNames {
            weight: MatrixName { name: format!("{weight}.{what}"), n, k, part: part(weight, vec![of, k]) },
            bias: all.bias.as_ref().map(|bias| VectorName {
                name: format!("{}.{what}", bias.name),
                len: n,
                part: part(&bias.name, vec![of]),
                offset: 0.0,
                k: None,
            }),
        }
    }
}

/// `-exp(A_log)`: the negative rates at which the states of the heads of `module` decay.
fn rates(module: &str, heads: usize) -> VectorName {
    VectorName {
        name: format!("{module}.A_log.rate"),
        len: heads,
        part: Some(Box::new(Part {
            tensor: format!("{module}.A_log"),
            shape: vec![heads],
            first: 0,
            run: usize::MAX,
            stride: 0,
            storage: PartStorage::MinusExp,
        })),
        offset: 0.0,
        k: None,
    }
}
