//! Several residual streams, low-rank blocks, and their tensors. `forward/streams.rs` and `forward/blocks.rs` have the formulas.

use super::DecoderSpec;
use super::expect::{expect, expect_size};
use super::tensors::{LinearNames, VectorName, linear};
use crate::error::Result;

/// Most residual streams: published models have 4.
const MAX_STREAMS: usize = 16;

/// Several residual streams (AltUp): layers compute with one of them, and their results correct all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamsSpec {
    pub(crate) count: usize,
    /// The stream that layers compute with.
    pub(crate) active: usize,
    /// Whether layers multiply the active stream by stored factors where per-layer embeddings read it.
    pub(crate) scaled: bool,
}

/// The tensors that make the other streams of the first one, and the result of all; one for each stream but the first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StreamsNames {
    /// `[hidden_size, hidden_size]` each.
    pub(crate) spread: Vec<LinearNames>,
    /// `[hidden_size, hidden_size]` each.
    pub(crate) merge: Vec<LinearNames>,
}

/// The tensors of a layer that predict and correct the streams. Matrices are row-major and stay in f32.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerStreamsNames {
    /// `[hidden_size]`, of the router's input.
    pub(crate) router_norm: VectorName,
    /// `[streams, hidden_size]`
    pub(crate) router: VectorName,
    /// `[streams * streams, streams]`
    pub(crate) prediction: VectorName,
    /// `[streams, streams]`
    pub(crate) correction: VectorName,
    /// `[hidden_size]`
    pub(crate) scale: Option<VectorName>,
}

impl LayerStreamsNames {
    pub(super) fn vectors(&self) -> impl Iterator<Item = &VectorName> {
        [&self.router_norm, &self.router, &self.prediction, &self.correction].into_iter().chain(&self.scale)
    }
}

/// The tensors of a low-rank block.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LowRankNames {
    /// `[rank, hidden_size]`
    pub(crate) left: LinearNames,
    /// `[hidden_size, rank]`
    pub(crate) right: LinearNames,
    /// `[hidden_size]`
    pub(crate) norm: VectorName,
}

impl DecoderSpec {
    /// Names of the tensors before and after all layers, where there are several streams.
    pub(super) fn streams_tensors(&self) -> Option<StreamsNames> {
        let StreamsSpec { count, .. } = self.streams?;
        let hidden = self.hidden_size;
        let all = |module: &str| {
            let prefix = format!("model.{module}");
            (0..count.saturating_sub(1)).map(|i| linear(&prefix, &i.to_string(), hidden, hidden)).collect()
        };
        Some(StreamsNames { spread: all("altup_projections"), merge: all("altup_unembed_projections") })
    }

    /// Names of the tensors of the layer `prefix`, where there are several streams.
    pub(super) fn layer_streams_tensors(&self, prefix: &str) -> Option<LayerStreamsNames> {
        let StreamsSpec { count, scaled, .. } = self.streams?;
        let hidden = self.hidden_size;
        let matrix = |module: &str, n: usize, k: usize| {
            VectorName::matrix(format!("{prefix}.altup.{module}.weight"), vec![n, k], k)
        };
        Some(LayerStreamsNames {
            router_norm: self.stream_norm(&format!("{prefix}.altup.router_norm"), hidden).gains,
            router: matrix("modality_router", count, hidden),
            prediction: matrix("prediction_coefs", count * count, count),
            correction: matrix("correction_coefs", count, count),
            scale: scaled
                .then(|| VectorName::new(format!("{prefix}.altup.correct_output_scale"), hidden, 0.0)),
        })
    }

    /// Names of the tensors of the layer's low-rank block, if it has one.
    pub(super) fn low_rank_tensors(&self, prefix: &str) -> Option<LowRankNames> {
        let (rank, hidden) = (self.low_rank?, self.hidden_size);
        Some(LowRankNames {
            left: linear(prefix, "laurel.linear_left", rank, hidden),
            right: linear(prefix, "laurel.linear_right", hidden, rank),
            norm: self.stream_norm(&format!("{prefix}.laurel.post_laurel_norm"), hidden).gains,
        })
    }

    /// Checks the numbers of streams and ranks.
    ///
    /// # Errors
    /// `InvalidModel` naming the key.
    pub(super) fn check_streams(&self) -> Result<()> {
        if let Some(rank) = self.low_rank {
            expect_size("laurel_rank", rank)?;
        }
        let Some(StreamsSpec { count, active, .. }) = self.streams else { return Ok(()) };
        let expected = format!("an integer from 1 to {MAX_STREAMS}");
        expect((1..=MAX_STREAMS).contains(&count), "altup_num_inputs", &expected, count)?;
        let expected = format!("below altup_num_inputs, which is {count}");
        expect(active < count, "altup_active_idx", &expected, active)
    }

    /// Elements in the matrices of streams and low-rank blocks; `None` if the number is absurd.
    pub(super) fn streams_parameters(&self) -> Option<u64> {
        let hidden = self.hidden_size as u64;
        let rank = self.low_rank.unwrap_or(0) as u64;
        let count = self.streams.map_or(1, |streams| streams.count as u64);
        let of_layer = hidden.checked_mul(2 * rank + count)?;
        let ends = hidden.checked_mul(hidden)?.checked_mul(2 * (count - 1))?;
        of_layer.checked_mul(self.num_hidden_layers as u64)?.checked_add(ends)
    }
}
