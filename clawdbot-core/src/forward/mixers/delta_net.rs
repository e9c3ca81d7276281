//! Gated delta nets, as in Qwen3-Next and Qwen3.5 (three layers of four).
//! Source: transformers 5, `models/qwen3_next/modeling_qwen3_next.py`; Yang et al. 2024, <https://arxiv.org/abs/2412.06464>.
//!
//! ```text
//! q, k, v = silu(conv(...)), q and k of length 1;   decay = exp(-exp(A_log) softplus(a + dt_bias)),  beta = sigmoid(b)
//! S = decay S;   S += k (beta (v - k^T S))^T;   out = norm(q^T S / sqrt(key_head_dim)) * silu(z)
//! ```

use clawdbot_kernels::PackedMatrix;

use super::{MixContext, MixerWeights, ReadWeights};
use crate::cache::LayerState;
use crate::error::Result;
use crate::forward::linear::Linear;
use crate::forward::ops::{
    Columns, Convolution, GateFormula, LayerRef, Ops, OutputGate, Recur, RecurBuffers, Rows, Shape,
    StateSource, Store, UnitLength, UpdateRule,
};
use crate::forward::recurrence::{Channels, Recurrence};
use crate::spec::mixers::delta_net::{DeltaNetNames, DeltaNetSpec};

/// Added to the squared length of queries and keys.
const LENGTH_EPS: f32 = 1e-6;

/// Weights of a gated delta net.
pub(crate) struct DeltaNetWeights {
    /// hidden_size -> queries, keys, values, gates
    pub(crate) qkvz: Linear,
    /// f32, `[2 * value_heads, hidden_size]`: logits of beta, then the decays' `a`
    pub(crate) gates: PackedMatrix,
    /// `[kernel_size, channels]`
    pub(crate) conv: Vec<f32>,
    /// `[value_heads]`: `-exp(A_log)`
    pub(crate) minus_a: Vec<f32>,
    /// `[value_heads]`
    pub(crate) dt_bias: Vec<f32>,
    /// `[value_head_dim]`
    pub(crate) norm: Vec<f32>,
}

impl DeltaNetSpec {
    fn recurrence(&self) -> Recurrence {
        Recurrence {
            heads: self.num_value_heads,
            key_heads: self.num_key_heads,
            tiled: self.tiled,
            key_dim: self.key_head_dim,
            value_dim: self.value_head_dim,
            kernel_size: self.kernel_size,
        }
    }
}

impl MixerWeights for DeltaNetWeights {
    type Spec = DeltaNetSpec;
    type Names = DeltaNetNames;

    fn read(
        spec: &DeltaNetSpec,
        _: LayerRef<'_>,
        names: &DeltaNetNames,
        weights: &mut impl ReadWeights,
    ) -> Result<Self> {
        let qkvz = weights.linear(&names.qkvz)?;
        let mut gates = weights.vector(&names.beta)?;
        gates.extend(weights.vector(&names.decay)?);
        Ok(DeltaNetWeights {
            qkvz,
            gates: weights.float_matrix(&gates, 2 * spec.num_value_heads)?,
            conv: weights.convolution(&names.conv, spec.channels())?,
            minus_a: weights.vector(&names.minus_a)?,
            dt_bias: weights.vector(&names.dt_bias)?,
            norm: weights.vector(&names.norm)?,
        })
    }

    fn state(spec: &DeltaNetSpec, _: LayerRef<'_>) -> LayerState {
        LayerState::Recurrent { floats: spec.recurrence().state_len() }
    }

    fn wide_sizes(spec: &DeltaNetSpec, _: LayerRef<'_>) -> [usize; 5] {
        let (heads, recurrence) = (spec.num_value_heads, spec.recurrence());
        let channels = recurrence.channels();
        [channels + spec.values(), channels, 2 * heads, recurrence.results(), 2 * heads]
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        vec![&self.qkvz.weight]
    }

    fn forward<O: Ops>(
        &self,
        delta: &DeltaNetSpec,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, codes, .. } = context;
        let (recurrence, keys, rows) = (delta.recurrence(), delta.keys(), batch.rows());
        let [qkvz, mixed, logits, results, gates] = &mut scratch.wide;

        ops.linear(x, rows, &self.qkvz, Store::Overwrite, qkvz, codes)?;
        let columns = |first: usize| Columns { rows: &*qkvz, stride: self.qkvz.weight.n(), first };
        ops.matmul_f32(x, rows, &self.gates, None, logits);
        let formula = GateFormula::DeltaNet { minus_a: &self.minus_a, bias: &self.dt_bias };
        ops.recurrence_gates(formula, logits, Shape { rows, width: delta.num_value_heads }, gates);

        let conv = Convolution { weights: &self.conv, bias: None, kernel_size: delta.kernel_size };
        let recur = Recur {
            recurrence,
            conv,
            inputs: columns(0),
            at: Channels { queries: 0, keys, values: 2 * keys },
            unit_length: Some(UnitLength { eps: LENGTH_EPS }),
            rule: UpdateRule::Delta,
            gates: &*gates,
        };
        let states = StateSource { cache, layer, batch };
        ops.recur(states, &recur, RecurBuffers { mixed, results })?;

        let z = columns(recurrence.channels());
        let gate = OutputGate::NormThenGate { norm: &self.norm, eps: spec.rms_norm_eps, z };
        ops.gather_results(recurrence, batch, results, &gate, out);
        Ok(())
    }
}
