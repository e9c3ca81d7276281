//! The residual stream of a text in a model, layer after layer.

use std::collections::BTreeMap;
use std::time::Instant;

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::{ComputeFormat, PackedMatrix};

use super::unpacked::unpack;
use crate::cancel::{Progress, cancelled};
use crate::error::{Error, Result};
use crate::forward::scratch::Scratch;
use crate::load::build::{Builder, OwnHead};
use crate::load::calibration::Text;
use crate::load::passes::Passes;
use crate::load::source::Opened;
use crate::load::weights::Weights;
use crate::options::{KvType, WeightType};
use crate::runtime::Runtime;
use crate::spec::DecoderSpec;
use crate::spec::packing::Joined;
use crate::spec::tensors::TensorNames;

/// Tokens that go through a layer at a time. Between passes, the work can be cancelled.
const PASS_TOKENS: usize = 1024;

/// What a model is computed with.
#[derive(Clone, Copy)]
pub(super) struct Wished {
    pub(super) weights: WeightType,
    /// Not `Auto`
    pub(super) kv: KvType,
}

/// Tells how far the work is.
pub(super) struct Reporter<'a> {
    pub(super) progress: &'a mut dyn FnMut(Progress) -> bool,
    pub(super) now: Progress,
}

impl Reporter<'_> {
    /// Reports what is done, and `more` weights.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) fn report(&mut self, more: u64) -> Result<()> {
        match self.goes_on(more) {
            true => Ok(()),
            false => Err(cancelled()),
        }
    }

    fn goes_on(&mut self, more: u64) -> bool {
        (self.progress)(Progress { done: self.now.done + more, ..self.now })
    }
}

/// A text in a model.
pub(super) struct Stream<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) opened: &'a Opened,
    names: &'a TensorNames,
    text: &'a Text,
    wished: Wished,
    /// What a packed file has, if that is not what is computed with
    packed: Option<WeightType>,
    pub(super) passes: Passes,
    /// `[tokens, hidden_size]`
    hidden: AlignedBuf<f32>,
    /// Seconds that forward passes took
    pub(super) seconds: f64,
}

impl<'a> Stream<'a> {
    /// The text before the model. Nothing is allocated.
    ///
    /// # Errors
    /// As [`Passes::new`].
    pub(super) fn new(
        runtime: &'a Runtime,
        opened: &'a Opened,
        names: &'a TensorNames,
        text: &'a Text,
        wished: Wished,
    ) -> Result<Self> {
        let passes = Passes::new(runtime, &opened.spec, wished.kv, text, PASS_TOKENS)
            .map_err(|error| error.context(&opened.name))?;
        let packed = match &opened.weights {
            Weights::Packed(file) => {
                Some(file.info().weights.parse()?).filter(|&packed| packed != wished.weights)
            }
            _ => None,
        };
        let hidden = AlignedBuf::default();
        Ok(Stream { runtime, opened, names, text, wished, packed, passes, hidden, seconds: 0.0 })
    }

    pub(super) fn spec(&self) -> &'a DecoderSpec {
        &self.opened.spec
    }

    pub(super) fn width(&self) -> usize {
        self.spec().hidden_size
    }

    pub(super) fn layers(&self) -> usize {
        self.names.layers.len()
    }

    pub(super) fn tokens(&self) -> usize {
        self.text.tokens.len()
    }

    /// The residual stream, `[tokens, hidden_size]`.
    pub(super) fn hidden(&self) -> &[f32] {
        &self.hidden
    }

    /// Weights that the text goes through: the embedding, the layers, and the output layer.
    pub(super) fn weights(&self) -> u64 {
        let layers = (0..self.layers()).flat_map(|layer| self.of_layer(layer));
        layers.chain(self.ends()).map(|group| group.weights()).sum()
    }

    /// The embedding and the output layer.
    pub(super) fn ends(&self) -> [Joined<'a>; 2] {
        [&self.names.embed_tokens, self.names.head()].map(|matrix| Joined::rows([matrix]))
    }

    /// The matrices of a layer.
    pub(super) fn of_layer(&self, layer: usize) -> Vec<Joined<'a>> {
        self.names.layers[layer].packed().iter().map(|projections| projections.joined()).collect()
    }

    /// The bytes of `groups` as they are computed with, and most that one of them takes besides while it is made; none on
    /// overflow.
    ///
    /// # Errors
    /// As `Weights::segments`, and for impossible sizes.
    pub(super) fn packed_bytes(&self, groups: &[Joined<'_>]) -> Result<Option<u64>> {
        let bytes = |group: &Joined<'_>, weights| -> Result<Option<u64>> {
            let mut sum = Some(0_u64);
            for segment in self.opened.weights.segments(group, weights)? {
                let bytes = PackedMatrix::packed_bytes(segment.format, segment.names.n(), segment.names.k())?;
                sum = sum.and_then(|sum| sum.checked_add(bytes));
            }
            Ok(sum)
        };
        let (mut sum, mut besides) = (Some(0_u64), Some(0_u64));
        for group in groups {
            let own = bytes(group, self.wished.weights)?;
            sum = sum.zip(own).and_then(|(sum, own)| sum.checked_add(own));
            if let Some(packed) = self.packed {
                let packed = bytes(group, packed)?;
                besides = besides.zip(packed).map(|(most, packed)| most.max(packed));
            }
        }
        Ok(sum.zip(besides).and_then(|(sum, besides)| sum.checked_add(besides)))
    }

    /// A builder that has what `groups` need and a packed file has otherwise.
    fn builder<'b>(
        &'b self,
        groups: &[Joined<'_>],
        progress: &'b mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Builder<'b>> {
        let mut builder = Builder {
            kernels: self.runtime.kernel_set(),
            pool: self.runtime.pool(),
            weights: &self.opened.weights,
            last: None,
            mapped: None,
            weight_type: self.packed.unwrap_or(self.wished.weights),
            progress,
            done: 0,
            total: 0,
            ready: BTreeMap::new(),
            vectors: Default::default(),
        };
        if self.packed.is_some() {
            let format = match self.wished.weights {
                WeightType::F32 => ComputeFormat::F32,
                WeightType::Bf16 => ComputeFormat::Bf16,
                other => return Err(Error::internal(format!("{other}: expected floats"))),
            };
            let mut ready = BTreeMap::new();
            for group in groups {
                let packed = builder.matrices(group)?;
                ready.insert(group.name(), unpack(self.runtime, &packed, group, format)?);
            }
            builder.ready = ready;
        }
        Ok(builder)
    }

    /// Looks the tokens up in the embedding.
    ///
    /// # Errors
    /// As the weight files give them; `OutOfBudget`, `Cancelled`.
    pub(super) fn embed(&mut self, scratch: &mut Scratch, reporter: &mut Reporter<'_>) -> Result<()> {
        let width = self.width();
        let size = self.text.tokens.len().checked_mul(width);
        self.hidden.reserve(size.ok_or_else(|| Error::invalid_model("sizes overflow"))?)?;
        let [group, _] = self.ends();
        let ends = self
            .builder(std::slice::from_ref(&group), &mut |_, _| reporter.goes_on(0))?
            .ends(self.spec().clone())?;
        for index in 0..self.passes.count() {
            let tokens = self.passes.tokens(index);
            let hidden = &mut self.hidden[tokens.start * width..tokens.end * width];
            self.passes.run(self.runtime, self.text, index, |pass| {
                ends.embed(pass.ops, pass.batch, scratch)?;
                hidden.copy_from_slice(&scratch.hidden[..hidden.len()]);
                Ok(())
            })?;
        }
        reporter.now.done += group.weights();
        reporter.report(0)
    }

    /// Takes the text through the layer with number `layer`. [`embed`](Self::embed) has made room for it in `scratch`.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub(super) fn layer(
        &mut self,
        layer: usize,
        scratch: &mut Scratch,
        reporter: &mut Reporter<'_>,
    ) -> Result<()> {
        let (groups, width) = (self.of_layer(layer), self.width());
        let spec = self.spec();
        let weights = self.builder(&groups, &mut |_, _| reporter.goes_on(0))?.layer(
            spec,
            layer,
            &self.names.layers[layer],
        )?;
        let all: u64 = groups.iter().map(Joined::weights).sum();
        let passes = self.passes.count();
        for index in 0..passes {
            let tokens = self.passes.tokens(index);
            let hidden = &mut self.hidden[tokens.start * width..tokens.end * width];
            let start = Instant::now();
            self.passes.run(self.runtime, self.text, index, |mut pass| {
                scratch.hidden[..hidden.len()].copy_from_slice(hidden);
                pass.through(spec, layer, &weights, None, scratch)?;
                hidden.copy_from_slice(&scratch.hidden[..hidden.len()]);
                Ok(())
            })?;
            self.seconds += start.elapsed().as_secs_f64();
            reporter.report(all / passes as u64 * (index as u64 + 1))?;
        }
        reporter.now.done += all;
        Ok(())
    }

    /// The last norm and the output layer.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub(super) fn head(&self, reporter: &mut Reporter<'_>) -> Result<OwnHead> {
        let [_, group] = self.ends();
        self.builder(&[group], &mut |_, _| reporter.goes_on(0))?.head(self.names)
    }
}
