//! Goes through the layers: records, rounds, and goes on with the rounded layer.

use std::collections::BTreeMap;

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::{Aim, CodedRows, ComputeFormat, Drift, Factors, Gram, PackedMatrix, RowSource};

use super::Text;
use super::record::{Inputs, Recorder, last_matrix};
use crate::cancel::{Progress, Stage, cancelled};
use crate::error::{Error, Result};
use crate::forward::cpu::Watcher;
use crate::forward::decoder::{Decoder, DecoderLayer};
use crate::forward::ops::{Norm, Ops, Shape};
use crate::forward::scratch::Scratch;
use crate::load::build::Builder;
use crate::load::formats::weights_in;
use crate::load::passes::{InPass, Passes};
use crate::load::source::Opened;
use crate::options::{KvType, WeightType};
use crate::runtime::{LogLevel, Reservation, Runtime};
use crate::spec::DecoderSpec;
use crate::spec::packing::Joined;
use crate::spec::tensors::TensorNames;

/// Tokens that go through a layer at a time.
const PASS_TOKENS: usize = 2048;

/// Makes the matrices of a model one after another, in the order of [`order`].
pub(crate) struct Calibrated<'a> {
    runtime: &'a Runtime,
    opened: &'a Opened,
    names: &'a TensorNames,
    /// int4, or mixed
    weights: WeightType,
    progress: &'a mut dyn FnMut(Progress) -> bool,
    done: u64,
    text: Text,
    /// The residual stream of all tokens
    hidden: AlignedBuf<f32>,
    /// The same in the model as it is; empty after the last layer that makes up for what the others lack
    exact: AlignedBuf<f32>,
    scratch: Scratch,
    passes: Passes,
    /// Without layers; its embedding is what tokens are looked up in
    ends: Decoder,
    /// The layer whose matrices are being made
    layer: usize,
    recorder: Option<Recorder>,
    /// Its matrices that are made, by name
    made: BTreeMap<String, PackedMatrix>,
    /// How many of its matrices are not made yet
    left: usize,
    /// What the log was told last
    logged: Option<Stage>,
    _reservation: Reservation,
}

/// All packed matrices, in the order in which they are made: what is looked up may be the head too, and so comes last.
pub(crate) fn order(names: &TensorNames) -> Vec<Joined<'_>> {
    let mut order = names.packed_matrices();
    order.rotate_left(1);
    order
}

impl<'a> Calibrated<'a> {
    /// Reads the texts' embeddings.
    ///
    /// # Errors
    /// `UnsupportedModel` for models whose layers read more than the residual stream; `OutOfBudget` before anything is
    /// allocated.
    pub(crate) fn new(
        runtime: &'a Runtime,
        opened: &'a Opened,
        names: &'a TensorNames,
        weights: WeightType,
        text: Text,
        progress: &'a mut dyn FnMut(Progress) -> bool,
    ) -> Result<Self> {
        let spec = &opened.spec;
        let passes = Passes::new(runtime, spec, KvType::F32, &text, PASS_TOKENS).map_err(|error| {
            error.context(format_args!("{}: option calibrate", opened.name)).with("option", "calibrate")
        })?;
        let bytes = bytes(runtime, opened, names, weights, &text)?
            .ok_or_else(|| Error::invalid_model("sizes overflow"))?;
        let pages = passes.cache_bytes().ok_or_else(|| Error::invalid_model("sizes overflow"))?;
        let mut reservation = runtime.budget().reserve(bytes.saturating_add(pages), "the calibration")?;
        // The cache reserves its own.
        reservation.resize(bytes, "the calibration")?;
        let ends = builder(runtime, opened, WeightType::Stored, &mut |_, _| true).ends(spec.clone())?;
        let mut hidden = AlignedBuf::default();
        hidden.reserve(text.tokens.len() * spec.hidden_size)?;
        let mut calibrated = Calibrated {
            runtime,
            opened,
            names,
            weights,
            progress,
            done: 0,
            text,
            hidden,
            exact: AlignedBuf::default(),
            scratch: Scratch::default(),
            passes,
            ends,
            layer: 0,
            recorder: None,
            made: BTreeMap::new(),
            left: 0,
            logged: None,
            _reservation: reservation,
        };
        calibrated.each_pass(|now, pass| {
            pass.ends.embed(now.ops, now.batch, pass.scratch)?;
            pass.hidden.copy_from_slice(&pass.scratch.hidden[..pass.hidden.len()]);
            Ok(())
        })?;
        if followed(spec, names) > 0 {
            calibrated.exact.reserve(calibrated.hidden.len())?;
            calibrated.exact.copy_from_slice(&calibrated.hidden);
        }
        Ok(calibrated)
    }

    /// The next matrix.
    ///
    /// # Errors
    /// As the weight files give them; `Cancelled`; `InvalidArgument` where inputs are not finite.
    pub(crate) fn matrix(&mut self, parts: &Joined<'_>) -> Result<&PackedMatrix> {
        let name = parts.name();
        if self.left == 0 {
            if self.recorder.take().is_some() {
                self.go_on()?;
            }
            self.made.clear();
            let stage = self.now().stage;
            if let Some(stage) = stage.filter(|_| stage != self.logged) {
                self.runtime.log(LogLevel::Info, || format!("{}: {stage}", self.opened.name));
            }
            self.logged = stage;
            if self.layer < self.names.layers.len() {
                self.record()?;
            }
        }
        let format = self.opened.format(self.weights);
        let [segment] = &*self.opened.weights.segments(parts, self.weights)? else {
            return Err(Error::internal(format!("{name}: several formats of int4")));
        };
        let matrix = if segment.format == format {
            let inputs = match &mut self.recorder {
                Some(recorder) => recorder.take(&parts.parts[0].name),
                None => self.head_inputs(parts)?,
            };
            let last = &parts.parts[0].name;
            let drift = self.recorder.as_mut().and_then(|recorder| recorder.take_drift(last));
            self.round(parts, inputs, drift.as_ref(), format)?
        } else {
            builder(self.runtime, self.opened, self.weights, &mut |_, _| true).matrices(parts)?
        };
        self.made.insert(name.clone(), matrix);
        self.left = self.left.saturating_sub(1);
        self.done += parts.weights();
        self.report()?;
        self.made.get(&name).ok_or_else(|| Error::internal("a matrix that was made is missing"))
    }

    fn report(&mut self) -> Result<()> {
        let now = self.now();
        match (self.progress)(now) {
            true => Ok(()),
            false => Err(cancelled()),
        }
    }

    /// How far the calibration is.
    fn now(&self) -> Progress {
        let layers = self.names.layers.len();
        let stage = match self.layer {
            layer if layer < layers => Stage::CalibratingLayer { layer: layer + 1, layers },
            _ => Stage::CalibratingOutput,
        };
        Progress { done: self.done, total: weights_in(&self.opened.spec), stage: Some(stage) }
    }

    /// Records what the layer's projections read.
    fn record(&mut self) -> Result<()> {
        let names = &self.names.layers[self.layer];
        let groups: Vec<Joined<'_>> = names.packed().iter().map(|projections| projections.joined()).collect();
        let follows = self.layer < followed(&self.opened.spec, self.names);
        if !follows {
            self.exact = AlignedBuf::default();
        }
        let last = last_matrix(&self.opened.spec, names).filter(|_| follows);
        let recorder = Recorder::new(names, &groups, last)?;
        self.left = groups.len();
        let layer = builder(self.runtime, self.opened, WeightType::Stored, &mut |_, _| true).layer(
            &self.opened.spec,
            self.layer,
            names,
        )?;
        if follows {
            std::mem::swap(&mut self.hidden, &mut self.exact);
            let passed = self.pass_through(&layer, None);
            std::mem::swap(&mut self.hidden, &mut self.exact);
            passed?;
        }
        self.pass_through(&layer, Some(&recorder))?;
        self.recorder = Some(recorder);
        Ok(())
    }

    /// Takes the texts through the rounded layer.
    fn go_on(&mut self) -> Result<()> {
        let mut progress = |_, _| true;
        let mut builder = builder(self.runtime, self.opened, self.weights, &mut progress);
        builder.ready = std::mem::take(&mut self.made);
        let names = &self.names.layers[self.layer];
        let layer = builder.layer(&self.opened.spec, self.layer, names)?;
        self.pass_through(&layer, None)?;
        self.layer += 1;
        Ok(())
    }

    /// Takes the texts through a layer. Without a recorder, they are what they are after it.
    fn pass_through(&mut self, layer: &DecoderLayer, recorder: Option<&Recorder>) -> Result<()> {
        let (first, tokens) = (self.layer, self.text.tokens.len());
        self.each_pass(|mut now, pass| {
            let Passed { ends, hidden, exact, scratch } = pass;
            scratch.hidden[..hidden.len()].copy_from_slice(hidden);
            let watcher = recorder.map(|recorder| recorder as &dyn Watcher);
            now.through(&ends.spec, first, layer, watcher, scratch)?;
            let Some(recorder) = recorder else {
                hidden.copy_from_slice(&scratch.hidden[..hidden.len()]);
                return Ok(());
            };
            let lacking = &mut scratch.hidden[..exact.len()];
            lacking.iter_mut().zip(exact).for_each(|(x, exact)| *x = exact - *x);
            recorder.add_drift(now.ops, lacking, tokens)
        })
    }

    /// What the output layer reads, if `parts` is that.
    fn head_inputs(&mut self, parts: &Joined<'_>) -> Result<Option<Inputs>> {
        let spec = &self.opened.spec;
        let tied = self.names.lm_head.is_none();
        let is_embedding = parts.parts[0].name == self.names.embed_tokens.name;
        if !spec.generates() || is_embedding != tied {
            return Ok(None);
        }
        let mut gram = Gram::new(spec.hidden_size)?;
        self.each_pass(|InPass { ops, batch, .. }, pass| {
            let Passed { ends, hidden, scratch, .. } = pass;
            let shape = Shape { rows: batch.rows(), width: ends.spec.hidden_size };
            scratch.hidden[..hidden.len()].copy_from_slice(hidden);
            let normed = match &ends.norm {
                Some(gains) => {
                    let norm = Norm::of(&ends.spec, gains);
                    ops.norm(&scratch.hidden, norm, shape, &mut scratch.normed);
                    &scratch.normed
                }
                None => &scratch.hidden,
            };
            Ok(gram.add(ops.kernels, ops.region, &normed[..shape.len()])?)
        })?;
        Ok(Some(Inputs::Gram(Box::new(gram))))
    }

    /// int4 of the matrices `parts`, with their inputs if these were recorded.
    ///
    /// # Errors
    /// As [`matrix`](Self::matrix).
    fn round(
        &mut self,
        parts: &Joined<'_>,
        inputs: Option<Inputs>,
        drift: Option<&Drift>,
        format: ComputeFormat,
    ) -> Result<PackedMatrix> {
        let (kernels, pool) = (self.runtime.kernel_set(), self.runtime.pool());
        let factors = match inputs {
            Some(inputs) => pool
                .region(|region| inputs.factors(kernels, region))?
                .map_err(|error| error.context(parts.name()))?,
            None => Factors::diagonal(vec![1.0; parts.k()]),
        };
        let aim = drift.map_or(Aim::Same, Aim::Besides);
        let mut last = None;
        let mut coded = Vec::new();
        for name in &parts.parts {
            let source = self.opened.weights.matrix(name, &mut last)?;
            let of_matrix = |error| Error::from(error).context(&name.name);
            let mut rounding = CodedRows::round(&factors, aim, &*source).map_err(of_matrix)?;
            while !rounding.is_done() {
                self.report()?;
                pool.region(|region| rounding.step(kernels, region))?.map_err(of_matrix)?;
            }
            coded.push(rounding.finish());
        }
        drop(factors);
        let sources: Vec<&dyn RowSource> = coded.iter().map(|rows| rows as &dyn RowSource).collect();
        Ok(pool.region(|region| match *sources.as_slice() {
            [gate, up] if parts.gated => PackedMatrix::pack_gated(kernels, region, format, [gate, up]),
            _ => PackedMatrix::pack(kernels, region, format, &sources),
        })??)
    }

    /// Calls `f` with the texts, some whole sequences at a time.
    fn each_pass(&mut self, mut f: impl FnMut(InPass<'_>, Passed<'_>) -> Result<()>) -> Result<()> {
        let width = self.opened.spec.hidden_size;
        for index in 0..self.passes.count() {
            let tokens = self.passes.tokens(index);
            let values = tokens.start * width..tokens.end * width;
            // None of a stream that is not followed
            let exact = self.exact.get(values.clone()).unwrap_or_default();
            let hidden = &mut self.hidden[values];
            let (ends, scratch) = (&self.ends, &mut self.scratch);
            self.passes.run(self.runtime, &self.text, index, |now| {
                f(now, Passed { ends, hidden, exact, scratch })
            })?;
            self.report()?;
        }
        Ok(())
    }
}

/// What some sequences are computed with.
struct Passed<'a> {
    ends: &'a Decoder,
    /// Their residual stream, `[rows, hidden_size]`
    hidden: &'a mut [f32],
    /// The same in the model as it is; empty if it is not followed
    exact: &'a [f32],
    scratch: &'a mut Scratch,
}

/// How many layers the text also goes through as they are: up to the last one that makes up for what the others lack.
fn followed(spec: &DecoderSpec, names: &TensorNames) -> usize {
    let last = names.layers.iter().rposition(|layer| last_matrix(spec, layer).is_some());
    last.map_or(0, |last| last + 1)
}

fn builder<'a>(
    runtime: &'a Runtime,
    opened: &'a Opened,
    wanted: WeightType,
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
) -> Builder<'a> {
    Builder {
        kernels: runtime.kernel_set(),
        pool: runtime.pool(),
        weights: &opened.weights,
        last: None,
        mapped: None,
        weight_type: opened.weight_type(Some(wanted)),
        progress,
        done: 0,
        total: 0,
        ready: BTreeMap::new(),
        vectors: Default::default(),
    }
}

/// Bytes that the calibration takes at most, but for keys and values; none on overflow.
fn bytes(
    runtime: &Runtime,
    opened: &Opened,
    names: &TensorNames,
    own: WeightType,
    text: &Text,
) -> Result<Option<u64>> {
    let spec = &opened.spec;
    let at_once = PASS_TOKENS.max(text.length);
    let packed = |group: &Joined<'_>, weights: WeightType| -> Result<u64> {
        let segments = opened.weights.segments(group, opened.weight_type(Some(weights)))?;
        let bytes = segments
            .iter()
            .map(|part| PackedMatrix::packed_bytes(part.format, part.names.n(), part.names.k()));
        Ok(bytes.collect::<clawdbot_kernels::Result<Vec<_>>>()?.iter().sum())
    };
    let coded = |group: &Joined<'_>| -> Option<u64> {
        group.parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(CodedRows::bytes(part.n, part.k)?))
    };
    let mut most = Some(0_u64);
    for layer in &names.layers {
        let groups: Vec<Joined<'_>> = layer.packed().iter().map(|projections| projections.joined()).collect();
        let mut sum = Recorder::bytes(spec, layer, &groups, at_once);
        for group in &groups {
            let both = packed(group, WeightType::Stored)?.saturating_add(packed(group, own)?);
            sum = sum.and_then(|sum| sum.checked_add(both));
        }
        let largest = groups.iter().map(coded).try_fold(0, |most, bytes| Some(bytes?.max(most)));
        let layer = sum.zip(largest).and_then(|(sum, largest)| sum.checked_add(largest));
        most = most.zip(layer).map(|(most, layer)| most.max(layer));
    }
    let mut ends = packed(&Joined::rows([&names.embed_tokens]), WeightType::Stored)?;
    let mut head = Gram::bytes(spec.hidden_size, at_once);
    for matrix in std::iter::once(&names.embed_tokens).chain(&names.lm_head) {
        let group = Joined::rows([matrix]);
        ends = ends.saturating_add(packed(&group, own)?);
        head = head.zip(coded(&group)).and_then(|(head, coded)| head.checked_add(coded));
    }
    let most = most.zip(head).map(|(layers, head)| layers.max(head));
    let streams = if followed(spec, names) > 0 { 2 } else { 1 };
    let hidden = (text.tokens.len() as u64).checked_mul(streams * 4 * spec.hidden_size as u64);
    let scratch = <Scratch>::bytes(spec, at_once, 0, runtime.threads())?;
    let sum = most.zip(hidden).and_then(|(most, hidden)| most.checked_add(hidden)?.checked_add(ends));
    Ok(sum.and_then(|sum| sum.checked_add(scratch)?.checked_add(spec.vectors_bytes())))
}
