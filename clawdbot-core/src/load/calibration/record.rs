//! Records what projections read.

use std::cell::RefCell;
use std::collections::BTreeMap;

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{Drift, Factors, Gram, KernelSet, MeanSquares};

use crate::error::{Error, Result};
use crate::forward::cpu::{Cpu, Watcher};
use crate::spec::DecoderSpec;
use crate::spec::packing::Joined;
use crate::spec::tensors::{GatedNames, LayerNames, MatrixName, MlpNames};

/// What is added to the diagonal of a layer's matrices, by its mean.
const DAMPING: f32 = 0.05;
/// Of what the stream lacks, `tokens / (tokens + CHANCE * k)` is made up for: the fewer tokens there are for each input, the
/// more of what these seem to explain is chance.
const CHANCE: f32 = 5.0;

/// How the inputs of a projection are recorded.
enum Kind {
    /// All tokens use it.
    Feedback,
    /// An expert's
    Scales,
}

/// The inputs of one projection.
pub(super) enum Inputs {
    /// For feedback
    Gram(Box<Gram>),
    /// For a search of the scales
    Squares(MeanSquares),
}

impl Inputs {
    fn add(&mut self, kernels: &KernelSet, region: &Region<'_>, x: &[f32], k: usize) -> Result<()> {
        match self {
            Inputs::Gram(gram) => gram.add(kernels, region, x)?,
            Inputs::Squares(squares) => x.chunks_exact(k.max(1)).for_each(|x| squares.add(x)),
        }
        Ok(())
    }

    /// # Errors
    /// `InvalidArgument` for inputs that nothing can be made of.
    pub(super) fn factors(self, kernels: &KernelSet, region: &Region<'_>) -> Result<Factors> {
        match self {
            Inputs::Gram(gram) if gram.tokens() == 0 => Err(Error::internal("no inputs were recorded")),
            Inputs::Gram(gram) => Ok(Factors::new(kernels, region, &gram, DAMPING)?),
            Inputs::Squares(squares) => {
                let means = squares.relative();
                let floor = DAMPING * means.iter().sum::<f32>() / means.len().max(1) as f32;
                // An expert that no token chose: all columns count the same.
                let floor = if floor > 0.0 { floor } else { 1.0 };
                Ok(Factors::diagonal(means.into_iter().map(|mean| mean + floor).collect()))
            }
        }
    }
}

/// The inputs of the projections of a layer.
pub(super) struct Recorder {
    /// By the name of the first tensor of each
    inputs: RefCell<BTreeMap<String, Inputs>>,
    last: RefCell<Option<Last>>,
}

/// The projection whose outputs are the last that a layer adds to the residual stream.
struct Last {
    name: String,
    /// What it has read in the last pass
    x: AlignedBuf<f32>,
    /// What the stream lacks after it
    drift: Drift,
}

/// The matrix whose outputs are the last that a layer adds to the residual stream, if it is one, and they are added as they
/// are.
pub(super) fn last_matrix<'a>(spec: &DecoderSpec, layer: &'a LayerNames) -> Option<&'a MatrixName> {
    let changed = layer.mlp_out_norm.is_some() || layer.mlp_sum_norm.is_some() || layer.scalar.is_some();
    match &layer.mlp {
        MlpNames::Dense(mlp) if !changed && layer.input.is_none() && spec.residual_multiplier == 1.0 => {
            Some(&mlp.down.weight)
        }
        _ => None,
    }
}

impl Recorder {
    /// Of the projections `groups` of a layer; not of single heads. `last` is [`last_matrix`].
    pub(super) fn new(layer: &LayerNames, groups: &[Joined<'_>], last: Option<&MatrixName>) -> Result<Self> {
        let kinds = kinds(layer);
        let mut inputs = BTreeMap::new();
        for group in groups {
            let (name, k) = (group.parts[0].name.as_str(), group.k());
            let new = match kinds.get(name) {
                Some(Kind::Feedback) => Inputs::Gram(Box::new(Gram::new(k)?)),
                Some(Kind::Scales) => Inputs::Squares(MeanSquares::new(k)),
                None => continue,
            };
            inputs.insert(name.to_owned(), new);
        }
        let last = match last {
            Some(MatrixName { name, n, k, .. }) => {
                Some(Last { name: name.clone(), x: AlignedBuf::default(), drift: Drift::new(*n, *k)? })
            }
            None => None,
        };
        Ok(Recorder { inputs: RefCell::new(inputs), last: RefCell::new(last) })
    }

    /// Adds what the residual stream lacks after the layer, `[rows, hidden_size]`, in the pass that was recorded last. There
    /// are `tokens` in all passes.
    pub(super) fn add_drift(&self, cpu: &Cpu<'_>, lacking: &mut [f32], tokens: usize) -> Result<()> {
        let mut last = self.last.borrow_mut();
        let Some(Last { x, drift, .. }) = last.as_mut() else { return Ok(()) };
        let share = tokens as f32 / (tokens as f32 + CHANCE * drift.k() as f32);
        lacking.iter_mut().for_each(|lacking| *lacking *= share);
        let x = &x[..lacking.len() / drift.n() * drift.k()];
        Ok(drift.add(cpu.kernels, cpu.region, lacking, x)?)
    }

    /// Bytes that the inputs of the projections `groups` take, `tokens` at a time; none on overflow.
    pub(super) fn bytes(
        spec: &DecoderSpec,
        layer: &LayerNames,
        groups: &[Joined<'_>],
        tokens: usize,
    ) -> Option<u64> {
        let kinds = kinds(layer);
        groups.iter().try_fold(0_u64, |sum, group| {
            sum.checked_add(match kinds.get(group.parts[0].name.as_str()) {
                Some(Kind::Feedback) => {
                    let last = match last_matrix(spec, layer) {
                        Some(MatrixName { name, n, k, .. }) if *name == group.parts[0].name => {
                            let read = (4 * tokens as u64).checked_mul(*k as u64)?;
                            Drift::bytes(*n, *k, tokens)?.checked_add(read)?
                        }
                        _ => 0,
                    };
                    Gram::bytes(group.k(), tokens)?.checked_add(last)?
                }
                Some(Kind::Scales) => 8 * group.k() as u64,
                None => 0,
            })
        })
    }

    /// The inputs of a projection, once.
    pub(super) fn take(&mut self, name: &str) -> Option<Inputs> {
        self.inputs.get_mut().remove(name)
    }

    /// What the stream lacks after a projection, once; none if it is not the last.
    pub(super) fn take_drift(&mut self, name: &str) -> Option<Drift> {
        Some(self.last.get_mut().take_if(|last| last.name == name)?.drift)
    }
}

impl Watcher for Recorder {
    fn see(&self, cpu: &Cpu<'_>, name: &str, x: &[f32], k: usize) -> Result<()> {
        if let Some(last) = self.last.borrow_mut().as_mut().filter(|last| last.name == name) {
            last.x.reserve(x.len())?;
            last.x[..x.len()].copy_from_slice(x);
        }
        let mut inputs = self.inputs.borrow_mut();
        let Some(inputs) = inputs.get_mut(name) else { return Ok(()) };
        inputs.add(cpu.kernels, cpu.region, x, k).map_err(|error: Error| error.context(name))
    }
}

/// How inputs are recorded, by the name of the first tensor of a projection.
fn kinds(layer: &LayerNames) -> BTreeMap<&str, Kind> {
    let experts: &[GatedNames] = match &layer.mlp {
        MlpNames::Moe(moe) => &moe.experts,
        MlpNames::Dense(_) | MlpNames::Sparse(_) | MlpNames::Plain(_) | MlpNames::None => &[],
    };
    let experts = experts.iter().flat_map(|expert| [expert.first(), &expert.down]);
    let experts = experts.map(|linear| (linear.weight.name.as_str(), Kind::Scales));
    let all = layer.adaptable().into_iter();
    all.map(|projections| (projections.parts[0].weight.name.as_str(), Kind::Feedback))
        .chain(experts)
        .collect()
}
