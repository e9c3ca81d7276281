//! Stored tensors to packed weights.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use clawdbot_kernels::memory::{SharedBytes, bytes_of};
use clawdbot_kernels::simd::LANES;
use clawdbot_kernels::threads::ThreadPool;
use clawdbot_kernels::{ComputeFormat, KernelSet, PackedMatrix, RowSource};
use sha2::{Digest, Sha256};

use super::formats::{Segment, weights_in};
use super::parts::{InMemory, LastTensor};
use super::weights::Weights;
use crate::error::{Error, ErrorKind, Result};
use crate::forward::blocks::{LowRank, Mlp, PlainMlp, SparseMlp};
use crate::forward::decoder::{Decoder, DecoderLayer};
use crate::forward::dense::Dense;
use crate::forward::layer_inputs::{LayerInput, LayerInputs};
use crate::forward::linear::{GatedMlp, InputTables, Linear};
use crate::forward::mixers::{Mixer, ReadWeights};
use crate::forward::moe::{MoeWeights, ParallelMlpWeights};
use crate::forward::mtp::MtpHead;
use crate::forward::ops::LayerRef;
use crate::forward::streams::{LayerStreams, Streams};
use crate::options::WeightType;
use crate::spec::mtp::{MtpNames, MtpSpec};
use crate::spec::packing::Joined;
use crate::spec::tensors::{
    DenseNames, GatedNames, LayerInputsNames, LayerNames, LayerStreamsNames, LinearNames, LowRankNames,
    MlpNames, MoeNames, NormNames, ParallelMlpNames, PlainNames, StreamsNames, TensorNames, VectorName,
    XieluNames,
};
use crate::spec::{Activation, DecoderSpec};

/// What makes logits of the residual stream.
pub(crate) struct OwnHead {
    /// `[hidden_size]`
    pub(crate) norm: Option<Vec<f32>>,
    /// hidden_size -> vocab_size; may be the embedding.
    pub(crate) weight: PackedMatrix,
    /// `[vocab_size]`
    pub(crate) bias: Option<Vec<f32>>,
}

/// Packs weights.
pub(crate) struct Builder<'a> {
    pub(crate) kernels: &'static KernelSet,
    pub(crate) pool: &'a ThreadPool,
    pub(crate) weights: &'a Weights,
    pub(crate) last: LastTensor<'a>,
    /// The bytes of a packed file; without them it is read.
    pub(crate) mapped: Option<Arc<dyn SharedBytes>>,
    pub(crate) weight_type: WeightType,
    /// Called with weights packed and weights in all; false cancels.
    pub(crate) progress: &'a mut dyn FnMut(u64, u64) -> bool,
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// Matrices that are packed already, by name
    pub(crate) ready: BTreeMap<String, PackedMatrix>,
    /// Of all vectors that were read, in their order, with their names
    pub(crate) vectors: RefCell<Sha256>,
}

impl Builder<'_> {
    /// The decoder with all its weights.
    ///
    /// # Errors
    /// As the weight files give them; `Cancelled` when `progress` says so.
    pub(crate) fn build(&mut self, spec: DecoderSpec) -> Result<Decoder> {
        let names: TensorNames = spec.tensors();
        self.total = weights_in(&spec);
        let mut decoder = self.ends(spec)?;
        decoder.layer_inputs =
            names.layer_inputs.as_ref().map(|names| self.layer_inputs(names)).transpose()?;
        decoder.streams = names.streams.as_ref().map(|names| self.streams(names)).transpose()?;
        for (layer, names) in names.layers.iter().enumerate() {
            let layer = self.layer(&decoder.spec, layer, names)?;
            decoder.layers.push(layer);
        }
        decoder.lm_head =
            names.lm_head.as_ref().map(|head| self.matrices(&Joined::rows([head]))).transpose()?;
        decoder.lm_head_bias = self.optional(names.lm_head_bias.as_ref())?;
        decoder.dense_head = names.dense_head.iter().map(|dense| self.dense(dense)).collect::<Result<_>>()?;
        Ok(decoder)
    }

    /// A decoder without layers and head: how tokens get in, and the last norm.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(crate) fn ends(&mut self, spec: DecoderSpec) -> Result<Decoder> {
        let names: TensorNames = spec.tensors();
        Ok(Decoder {
            embedding: self.matrices(&Joined::rows([&names.embed_tokens]))?,
            input: InputTables {
                positions: self.optional(names.positions.as_ref())?,
                token_types: self.optional(names.token_types.as_ref())?,
                norm: self.norm(names.embedding_norm.as_ref())?,
            },
            layer_inputs: None,
            streams: None,
            layers: Vec::with_capacity(names.layers.len()),
            norm: self.norm(names.final_norm.as_ref())?,
            lm_head: None,
            lm_head_bias: None,
            dense_head: Vec::new(),
            spec,
        })
    }

    /// The last norm and the output layer.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(crate) fn head(&mut self, names: &TensorNames) -> Result<OwnHead> {
        Ok(OwnHead {
            norm: self.norm(names.final_norm.as_ref())?,
            weight: self.matrices(&Joined::rows([names.head()]))?,
            bias: self.optional(names.lm_head_bias.as_ref())?,
        })
    }

    /// A head for multi-token prediction.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(crate) fn mtp(&mut self, MtpSpec { layer: spec }: MtpSpec, names: &MtpNames) -> Result<MtpHead> {
        self.total = names.packed_matrices().iter().map(Joined::weights).sum();
        Ok(MtpHead {
            norms: [self.gains(&names.embedding_norm)?, self.gains(&names.state_norm)?],
            fc: self.linear(std::slice::from_ref(&names.fc))?,
            layer: self.layer(&spec, 0, &names.layer)?,
            norm: self.gains(&names.norm)?,
            spec,
        })
    }

    fn dense(&self, names: &DenseNames) -> Result<Dense> {
        let n = names.weight.len / names.weight.k.unwrap_or(1).max(1);
        let weight = self.float_matrix(&self.vector(&names.weight)?, n)?;
        let bias = self.optional(names.bias.as_ref())?;
        Ok(Dense {
            linear: Linear { name: names.weight.name.clone(), weight, bias },
            norm: self.norm(names.norm.as_ref())?,
        })
    }

    /// Gains, with the biases after them if there are any.
    fn norm(&self, names: Option<&NormNames>) -> Result<Option<Vec<f32>>> {
        names.map(|names| self.gains(names)).transpose()
    }

    fn gains(&self, NormNames { gains, bias }: &NormNames) -> Result<Vec<f32>> {
        let mut norm = self.vector(gains)?;
        norm.extend(self.optional(bias.as_ref())?.unwrap_or_default());
        Ok(norm)
    }

    fn layer_inputs(&mut self, names: &LayerInputsNames) -> Result<LayerInputs> {
        Ok(LayerInputs {
            embedding: self.matrices(&Joined::rows([&names.embedding]))?,
            projection: self.linear(std::slice::from_ref(&names.projection))?,
            norm: self.vector(&names.norm)?,
        })
    }

    fn streams(&mut self, names: &StreamsNames) -> Result<Streams> {
        let mut all = |names: &[LinearNames]| {
            names.iter().map(|name| self.linear(std::slice::from_ref(name))).collect::<Result<_>>()
        };
        Ok(Streams { spread: all(&names.spread)?, merge: all(&names.merge)? })
    }

    fn layer_streams(&self, names: &LayerStreamsNames) -> Result<LayerStreams> {
        let LayerStreamsNames { router_norm, router, prediction, correction, scale } = names;
        let mut router_norm = self.vector(router_norm)?;
        let width = router_norm.len() as f32;
        router_norm.iter_mut().for_each(|gain| *gain /= width);
        let matrix =
            |name: &VectorName| self.float_matrix(&self.vector(name)?, name.len / name.k.unwrap_or(1).max(1));
        let correction = matrix(correction)?;
        Ok(LayerStreams {
            router_norm,
            router: matrix(router)?,
            prediction: matrix(prediction)?,
            ones: vec![1.0; correction.n()],
            correction,
            scale: self.optional(scale.as_ref())?,
        })
    }

    fn low_rank(&mut self, names: &LowRankNames) -> Result<LowRank> {
        Ok(LowRank {
            left: self.linear(std::slice::from_ref(&names.left))?,
            right: self.linear(std::slice::from_ref(&names.right))?,
            norm: self.vector(&names.norm)?,
        })
    }

    /// The layer with number `layer`.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub(crate) fn layer(
        &mut self,
        spec: &DecoderSpec,
        layer: usize,
        names: &LayerNames,
    ) -> Result<DecoderLayer> {
        Ok(DecoderLayer {
            input_norm: self.norm(names.input_norm.as_ref())?,
            mixer: Mixer::read(LayerRef { spec, layer }, &names.mixer, self)?,
            o: self.linear(std::slice::from_ref(&names.o))?,
            low_rank: names.low_rank.as_ref().map(|names| self.low_rank(names)).transpose()?,
            attention_out_norm: self.norm(names.attention_out_norm.as_ref())?,
            attention_sum_norm: self.norm(names.attention_sum_norm.as_ref())?,
            mlp_norm: self.norm(names.mlp_norm.as_ref())?,
            mlp: match &names.mlp {
                MlpNames::Dense(names) => Mlp::Dense(self.gated(names)?),
                MlpNames::Sparse(names) => Mlp::Sparse(self.sparse(names, spec.layers[layer].cutoff)?),
                MlpNames::Plain(PlainNames { up, down, xielu }) => Mlp::Plain(PlainMlp {
                    up: self.linear(std::slice::from_ref(up))?,
                    down: self.linear(std::slice::from_ref(down))?,
                    activation: xielu.as_ref().map(|names| self.xielu(names)).transpose()?,
                }),
                MlpNames::Moe(names) => Mlp::Moe(Box::new(self.moe(names)?)),
                MlpNames::None => Mlp::None,
            },
            mlp_out_norm: self.norm(names.mlp_out_norm.as_ref())?,
            mlp_sum_norm: self.norm(names.mlp_sum_norm.as_ref())?,
            streams: names.streams.as_ref().map(|names| self.layer_streams(names)).transpose()?,
            input: match &names.input {
                Some(names) => Some(LayerInput {
                    gate: self.linear(std::slice::from_ref(&names.gate))?,
                    projection: self.linear(std::slice::from_ref(&names.projection))?,
                    norm: self.vector(&names.norm)?,
                }),
                None => None,
            },
            scalar: self.optional(names.scalar.as_ref())?.and_then(|scalar| scalar.first().copied()),
        })
    }

    /// xIELU with its stored parameters, as transformers computes it.
    fn xielu(&self, XieluNames { alpha_p, alpha_n, beta, eps }: &XieluNames) -> Result<Activation> {
        let number = |name: &VectorName| Ok::<_, Error>(self.vector(name)?[0]);
        let (beta, bound) = (number(beta)?, number(eps)?);
        // Without effect where it is as small as it is published: see the kernel.
        if !(-1e-5..=0.0).contains(&bound) {
            let message = format!("{}: expected a number from -1e-5 to 0, found {bound}", eps.name);
            return Err(Error::unsupported_model(message).with("tensor", eps.name.clone()));
        }
        let softplus = |x: f32| libm::log1p(libm::exp(f64::from(x)));
        let alpha_n = f64::from(beta) + softplus(number(alpha_n)?);
        Ok(Activation::Xielu { alpha_p: softplus(number(alpha_p)?) as f32, alpha_n: alpha_n as f32, beta })
    }

    fn gated(&mut self, names: &GatedNames) -> Result<GatedMlp> {
        let Some(gate) = &names.gate else {
            return Ok(GatedMlp {
                gate_up: self.linear(std::slice::from_ref(&names.up))?,
                gated: false,
                down: self.linear(std::slice::from_ref(&names.down))?,
            });
        };
        let weight = self.matrices(&Joined::gated(&gate.weight, &names.up.weight))?;
        let biases = gate.bias.as_ref().zip(names.up.bias.as_ref());
        let bias =
            biases.map(|(gate, up)| Ok::<_, Error>(gated_bias(&self.vector(gate)?, &self.vector(up)?)));
        Ok(GatedMlp {
            gate_up: Linear { name: gate.weight.name.clone(), weight, bias: bias.transpose()? },
            gated: true,
            down: self.linear(std::slice::from_ref(&names.down))?,
        })
    }

    /// The gate is cut off at `cutoff`.
    fn sparse(&mut self, names: &GatedNames, cutoff: Option<f32>) -> Result<SparseMlp> {
        let GatedNames { gate, up, down } = names;
        let parts: Vec<LinearNames> = gate.iter().chain([up]).cloned().collect();
        Ok(SparseMlp {
            gate_up: self.linear(&parts)?,
            down: self.linear(std::slice::from_ref(down))?,
            cutoff: cutoff.ok_or_else(|| Error::internal("a sparse MLP without a cutoff"))?,
        })
    }

    fn moe(&mut self, names: &MoeNames) -> Result<MoeWeights> {
        let experts = names.experts.iter().map(|expert| self.gated(expert)).collect::<Result<_>>()?;
        let shared = names.shared.as_ref().map(|shared| self.gated(shared)).transpose()?;
        let mut router = self.vector(&names.router)?;
        let mut router_bias = self.optional(names.router_bias.as_ref())?;
        if let Some(gate) = &names.shared_gate {
            router.extend(self.vector(gate)?);
            router_bias.iter_mut().for_each(|bias| bias.push(0.0));
        }
        Ok(MoeWeights {
            router: self.float_matrix(&router, names.experts.len() + names.shared_gate.iter().count())?,
            router_bias,
            correction: self.optional(names.correction.as_ref())?,
            experts,
            shared,
            parallel_mlp: names.parallel_mlp.as_ref().map(|names| self.parallel_mlp(names)).transpose()?,
        })
    }

    fn parallel_mlp(&mut self, names: &ParallelMlpNames) -> Result<ParallelMlpWeights> {
        let mut router_norm = self.vector(&names.router_norm)?;
        let root = libm::sqrtf(router_norm.len() as f32);
        router_norm.iter_mut().for_each(|gain| *gain /= root);
        Ok(ParallelMlpWeights {
            dense: self.gated(&names.dense)?,
            dense_out_norm: self.vector(&names.dense_out_norm)?,
            expert_norm: self.vector(&names.expert_norm)?,
            expert_out_norm: self.vector(&names.expert_out_norm)?,
            router_norm,
            expert_scale: self.vector(&names.expert_scale)?,
        })
    }

    /// The matrices as one.
    pub(crate) fn matrices(&mut self, names: &Joined<'_>) -> Result<PackedMatrix> {
        if let Some(matrix) = self.ready.remove(&names.name()) {
            return Ok(matrix);
        }
        let segments = self.weights.segments(names, self.weight_type)?;
        let parts = segments.iter().map(|segment| self.segment(segment)).collect::<Result<_>>()?;
        self.done += names.weights();
        match (self.progress)(self.done, self.total) {
            true => Ok(PackedMatrix::joined(parts)),
            false => Err(Error::new(ErrorKind::Cancelled, "loading was cancelled")),
        }
    }

    fn segment(&mut self, Segment { names, format }: &Segment<'_>) -> Result<PackedMatrix> {
        let Weights::Packed(file) = self.weights else { return self.pack(names, *format) };
        let (n, k, name) = (names.n(), names.k(), names.name());
        match &self.mapped {
            Some(mapped) => {
                Ok(PackedMatrix::from_parts(*format, n, k, &mut file.mapped_panels(&name, mapped))?)
            }
            None => Ok(self.pool.region(|region| {
                PackedMatrix::from_parts(*format, n, k, &mut file.read_panels(&name, region))
            })??),
        }
    }

    fn pack(&mut self, names: &Joined<'_>, format: ComputeFormat) -> Result<PackedMatrix> {
        let sources = names.parts.iter().map(|name| self.weights.matrix(name, &mut self.last));
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let sources: Vec<&dyn RowSource> = sources.iter().map(AsRef::as_ref).collect();
        // A region of its own for each: other models compute in between, and `progress` may do what it likes.
        self.pool
            .region(|region| match *sources.as_slice() {
                [gate, up] if names.gated => {
                    PackedMatrix::pack_gated(self.kernels, region, format, [gate, up])
                }
                _ => PackedMatrix::pack(self.kernels, region, format, &sources),
            })?
            .map_err(|error| Error::from(error).context(&names.parts[0].name))
    }
}

impl ReadWeights for Builder<'_> {
    fn vector(&self, name: &VectorName) -> Result<Vec<f32>> {
        let values = self.weights.vector(name)?;
        let mut sha256 = self.vectors.borrow_mut();
        sha256.update((name.name.len() as u64).to_le_bytes());
        sha256.update(&name.name);
        sha256.update((values.len() as u64).to_le_bytes());
        sha256.update(bytes_of(&values));
        Ok(values)
    }

    fn float_matrix(&self, values: &[f32], n: usize) -> Result<PackedMatrix> {
        let rows = InMemory { values, k: values.len() / n.max(1) };
        Ok(self
            .pool
            .region(|region| PackedMatrix::pack(self.kernels, region, ComputeFormat::F32, &[&rows]))??)
    }

    fn linear(&mut self, parts: &[LinearNames]) -> Result<Linear> {
        let weight = self.matrices(&Joined::rows(parts.iter().map(|part| &part.weight)))?;
        let mut bias = None;
        if parts.iter().any(|part| part.bias.is_some()) {
            let values = bias.insert(Vec::new());
            for part in parts {
                // A part without a bias has one of zeros.
                values.extend(self.optional(part.bias.as_ref())?.unwrap_or_else(|| vec![0.0; part.weight.n]));
            }
        }
        Ok(Linear {
            name: parts.first().map_or_else(String::new, |part| part.weight.name.clone()),
            weight,
            bias,
        })
    }

    fn matrices_of(&mut self, names: &[LinearNames]) -> Result<Vec<PackedMatrix>> {
        names.iter().map(|name| self.matrices(&Joined::rows([&name.weight]))).collect()
    }
}

/// The biases of a gate and an up projection in the order of the columns of `PackedMatrix::pack_gated`.
fn gated_bias(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut bias = vec![0.0; PackedMatrix::gated_columns(gate.len()).unwrap_or(0)];
    let panels = bias.chunks_mut(LANES);
    let pairs = gate.chunks(LANES).zip(up.chunks(LANES)).flat_map(|(gate, up)| [gate, up]);
    for (panel, part) in panels.zip(pairs) {
        panel[..part.len()].copy_from_slice(part);
    }
    bias
}
