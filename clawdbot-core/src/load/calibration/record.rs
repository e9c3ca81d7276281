//! Records what projections read.

use std::cell::RefCell;
use std::collections::BTreeMap;

use clawdbot_kernels::threads::Region;
use clawdbot_kernels::{Factors, Gram, KernelSet, MeanSquares};

use crate::error::{Error, Result};
use crate::forward::cpu::{Cpu, Watcher};
use crate::spec::packing::Joined;
use crate::spec::tensors::{GatedNames, LayerNames, MlpNames};

/// What is added to the diagonal of a layer's matrices, by its mean.
const DAMPING: f32 = 0.01;

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

    pub(super) fn factors(self, kernels: &KernelSet, region: &Region<'_>) -> Result<Factors> {
        match self {
            Inputs::Gram(gram) => Ok(Factors::new(kernels, region, &gram, DAMPING)?),
            Inputs::Squares(squares) => {
                let means = squares.relative();
                let floor = DAMPING * means.iter().sum::<f32>() / means.len().max(1) as f32;
                // An expert that no token chose: all columns alike.
                let floor = if floor > 0.0 { floor } else { 1.0 };
                Ok(Factors::diagonal(means.into_iter().map(|mean| mean + floor).collect()))
            }
        }
    }
}

/// The inputs of the projections of a layer, by the name of the first tensor of each.
pub(super) struct Recorder(RefCell<BTreeMap<String, Inputs>>);

impl Recorder {
    /// Of the projections `groups` of a layer.
    pub(super) fn new(layer: &LayerNames, groups: &[Joined<'_>]) -> Result<Self> {
        let experts = expert_names(layer);
        let inputs = groups.iter().map(|group| {
            let (name, k) = (group.parts[0].name.clone(), group.k());
            let inputs = match experts.contains(&name.as_str()) {
                true => Inputs::Squares(MeanSquares::new(k)),
                false => Inputs::Gram(Box::new(Gram::new(k)?)),
            };
            Ok((name, inputs))
        });
        Ok(Recorder(RefCell::new(inputs.collect::<Result<_>>()?)))
    }

    /// Bytes that the inputs of the projections `groups` take, `tokens` at a time; none on overflow.
    pub(super) fn bytes(layer: &LayerNames, groups: &[Joined<'_>], tokens: usize) -> Option<u64> {
        let experts = expert_names(layer);
        groups.iter().try_fold(0_u64, |sum, group| {
            let expert = experts.contains(&group.parts[0].name.as_str());
            let bytes = if expert { 8 * group.k() as u64 } else { Gram::bytes(group.k(), tokens)? };
            sum.checked_add(bytes)
        })
    }

    /// The inputs of a projection, once.
    pub(super) fn take(&mut self, name: &str) -> Option<Inputs> {
        self.0.get_mut().remove(name)
    }
}

impl Watcher for Recorder {
    fn see(&self, cpu: &Cpu<'_>, name: &str, x: &[f32], k: usize) -> Result<()> {
        let mut inputs = self.0.borrow_mut();
        let Some(inputs) = inputs.get_mut(name) else { return Ok(()) };
        inputs.add(cpu.kernels, cpu.region, x, k).map_err(|error: Error| error.context(name))
    }
}

/// The names of projections that only some tokens use.
fn expert_names(layer: &LayerNames) -> Vec<&str> {
    let experts: &[GatedNames] = match &layer.mlp {
        MlpNames::Moe(moe) => &moe.experts,
        MlpNames::Dense(_) | MlpNames::Plain(_) => &[],
    };
    let names = experts.iter().flat_map(|expert| [&expert.gate, &expert.down]);
    names.map(|linear| linear.weight.name.as_str()).collect()
}
