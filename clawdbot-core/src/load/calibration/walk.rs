//! Goes through the layers: records, rounds, and goes on with the rounded layer.

use std::collections::BTreeMap;
use std::ops::Range;

use clawdbot_kernels::memory::AlignedBuf;
use clawdbot_kernels::{CodedRows, ComputeFormat, Factors, Gram, PackedMatrix, RowSource};

use super::Text;
use super::record::{Inputs, Recorder};
use crate::cache::{KvCache, PageTables};
use crate::cancel::cancelled;
use crate::error::{Error, Result};
use crate::forward::batch::Batch;
use crate::forward::cpu::{Cpu, Watcher};
use crate::forward::decoder::{Decoder, DecoderLayer, ForwardContext, Layers, Pass};
use crate::forward::ops::{Norm, Ops, Shape};
use crate::forward::scratch::Scratch;
use crate::load::build::Builder;
use crate::load::formats::weights_in;
use crate::load::source::Opened;
use crate::options::{KvType, WeightType};
use crate::runtime::{Reservation, Runtime};
use crate::spec::KeySource;
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
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    text: Text,
    /// The residual stream of all tokens
    hidden: AlignedBuf<f32>,
    scratch: Scratch,
    cache: KvCache,
    tables: Vec<PageTables>,
    /// Without layers; its embedding is what tokens are looked up in
    ends: Decoder,
    /// The layer whose matrices are being made
    layer: usize,
    recorder: Option<Recorder>,
    /// Its matrices that are made, by name
    made: BTreeMap<String, PackedMatrix>,
    /// How many of its matrices are not made yet
    left: usize,
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
        progress: &'a mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Self> {
        let spec = &opened.spec;
        if spec.per_layer_inputs.is_some()
            || spec.layers.iter().any(|layer| matches!(layer.keys, KeySource::Layer(_)))
        {
            let message = format!(
                "{}: option calibrate: expected layers that read the layer before them alone; this architecture's layers share more",
                opened.name
            );
            return Err(Error::unsupported_model(message).with("option", "calibrate"));
        }
        let bytes = bytes(runtime, opened, names, weights, &text)?
            .ok_or_else(|| Error::invalid_model("sizes overflow"))?;
        let reservation = runtime.budget().reserve(bytes, "the calibration")?;
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
            scratch: Scratch::default(),
            cache: KvCache::new(KvType::F32, &spec.layer_states(), runtime.budget())?,
            tables: Vec::new(),
            ends,
            layer: 0,
            recorder: None,
            made: BTreeMap::new(),
            left: 0,
            _reservation: reservation,
        };
        calibrated.each_pass(|ops, pass| {
            pass.ends.embed(ops, pass.batch, pass.scratch)?;
            pass.hidden.copy_from_slice(&pass.scratch.hidden[..pass.hidden.len()]);
            Ok(())
        })?;
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
            self.round(parts, inputs, format)?
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
        match (self.progress)(self.done, weights_in(&self.opened.spec)) {
            true => Ok(()),
            false => Err(cancelled()),
        }
    }

    /// Records what the layer's projections read.
    fn record(&mut self) -> Result<()> {
        let names = &self.names.layers[self.layer];
        let groups: Vec<Joined<'_>> = names.packed().iter().map(|projections| projections.joined()).collect();
        let recorder = Recorder::new(names, &groups)?;
        self.left = groups.len();
        let layer = builder(self.runtime, self.opened, WeightType::Stored, &mut |_, _| true).layer(
            &self.opened.spec,
            self.layer,
            names,
        )?;
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
        let first = self.layer;
        self.each_pass(|ops, pass| {
            let ops =
                &Cpu { watcher: recorder.map(|recorder| recorder as &dyn Watcher), adapters: None, ..*ops };
            let Passed { ends, batch, hidden, scratch, cache } = pass;
            scratch.hidden[..hidden.len()].copy_from_slice(hidden);
            let layers = Layers { spec: &ends.spec, layers: std::slice::from_ref(layer), first };
            let context = ForwardContext {
                ops,
                cache,
                scratch: &mut *scratch,
                #[cfg(test)]
                trap: None,
            };
            if layers.forward(context, batch)? == Pass::Cancelled {
                return Err(cancelled());
            }
            if recorder.is_none() {
                hidden.copy_from_slice(&scratch.hidden[..hidden.len()]);
            }
            Ok(())
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
        self.each_pass(|ops, pass| {
            let Passed { ends, batch, hidden, scratch, .. } = pass;
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
        format: ComputeFormat,
    ) -> Result<PackedMatrix> {
        let (kernels, pool) = (self.runtime.kernel_set(), self.runtime.pool());
        let factors = match inputs {
            Some(inputs) => pool
                .region(|region| inputs.factors(kernels, region))?
                .map_err(|error| error.context(parts.name()))?,
            None => Factors::diagonal(vec![1.0; parts.k()]),
        };
        let mut last = None;
        let mut coded = Vec::new();
        for name in &parts.parts {
            let source = self.opened.weights.matrix(name, &mut last)?;
            let (done, total) = (self.done, weights_in(&self.opened.spec));
            let go_on = || (self.progress)(done, total);
            let rows = pool.region(|region| CodedRows::round(kernels, region, &factors, &*source, go_on))?;
            let rows = rows.map_err(|error| Error::from(error).context(&name.name))?;
            coded.push(rows.ok_or_else(cancelled)?);
        }
        drop(factors);
        let sources: Vec<&dyn RowSource> = coded.iter().map(|rows| rows as &dyn RowSource).collect();
        Ok(pool.region(|region| match *sources.as_slice() {
            [gate, up] if parts.gated => PackedMatrix::pack_gated(kernels, region, format, [gate, up]),
            _ => PackedMatrix::pack(kernels, region, format, &sources),
        })??)
    }

    /// Calls `f` with the texts, some whole sequences at a time.
    fn each_pass(&mut self, mut f: impl FnMut(&Cpu<'_>, Passed<'_>) -> Result<()>) -> Result<()> {
        let (length, width) = (self.text.length, self.opened.spec.hidden_size);
        let (count, at_once) = (self.text.tokens.len() / length, (PASS_TOKENS / length).max(1));
        let recurrent = self.cache.state_bytes() > 0;
        for start in (0..count).step_by(at_once) {
            let sequences = start..(start + at_once).min(count);
            if recurrent {
                // Every pass begins with states of zeros.
                self.tables.drain(..).for_each(|mut tables| self.cache.release_all(&mut tables));
            }
            while self.tables.len() < sequences.len() {
                let mut tables = PageTables::default();
                self.cache.grow(&mut tables, length)?;
                self.tables.push(tables);
            }
            let rows: Range<usize> = sequences.start * length..sequences.end * length;
            let mut batch = Batch::new();
            for (tokens, tables) in self.text.tokens[rows.clone()].chunks_exact(length).zip(&self.tables) {
                batch.push_of(length, tokens, 0, 0, tables);
            }
            let hidden = &mut self.hidden[rows.start * width..rows.end * width];
            let (ends, scratch, cache) = (&self.ends, &mut self.scratch, &mut self.cache);
            let kernels = self.runtime.kernel_set();
            self.runtime.pool().region(|region| {
                let ops = &Cpu { kernels, region, adapters: None, watcher: None };
                f(ops, Passed { ends, batch: &batch, hidden, scratch, cache })
            })??;
            self.report()?;
        }
        Ok(())
    }
}

/// Some sequences, and what they are computed with.
struct Passed<'a> {
    ends: &'a Decoder,
    batch: &'a Batch<'a>,
    /// Their residual stream, `[rows, hidden_size]`
    hidden: &'a mut [f32],
    scratch: &'a mut Scratch,
    cache: &'a mut KvCache,
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
        let mut sum = Recorder::bytes(layer, &groups, at_once);
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
    let hidden = (text.tokens.len() as u64).checked_mul(4 * spec.hidden_size as u64);
    let scratch = <Scratch>::bytes(spec, at_once, 0, runtime.threads())?;
    let sum = most.zip(hidden).and_then(|(most, hidden)| most.checked_add(hidden)?.checked_add(ends));
    Ok(sum.and_then(|sum| sum.checked_add(scratch)?.checked_add(spec.vectors_bytes())))
}
