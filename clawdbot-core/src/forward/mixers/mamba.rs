//! Mamba-2 layers, as in Granite 4 and Nemotron-H.
//! Source: transformers 5, `models/granitemoehybrid/modeling_granitemoehybrid.py`; Dao, Gu 2024,
//! <https://arxiv.org/abs/2405.21060>.
//!
//! ```text
//! x, B, C = silu(conv(...));   t = softplus(dt + dt_bias),  decay = exp(-exp(A_log) t)
//! S = decay S + B (t x)^T;     out = norm((C^T S + D x) * silu(z))
//! ```

use clawdbot_kernels::PackedMatrix;

use super::{MixContext, MixerWeights, ReadWeights};
use crate::cache::LayerState;
use crate::error::Result;
use crate::forward::linear::Linear;
use crate::forward::ops::{
    Columns, Convolution, GateFormula, GroupNorm, LayerRef, Ops, OutputGate, Recur, RecurBuffers, Rows,
    Shape, StateSource, Store, UpdateRule,
};
use crate::forward::recurrence::{Channels, Recurrence};
use crate::spec::mixers::mamba::{MambaNames, MambaSpec};

/// Weights of a Mamba-2 layer.
pub(crate) struct MambaWeights {
    /// hidden_size -> z, x, B, C
    pub(crate) input: Linear,
    /// f32, `[heads, hidden_size]`: dt
    pub(crate) steps: PackedMatrix,
    /// `[kernel_size, channels]`
    pub(crate) conv: Vec<f32>,
    /// `[channels]`
    pub(crate) conv_bias: Option<Vec<f32>>,
    /// `[heads]`: `-exp(A_log)`
    pub(crate) minus_a: Vec<f32>,
    /// `[heads]`
    pub(crate) dt_bias: Vec<f32>,
    /// `[heads]`
    pub(crate) skip: Vec<f32>,
    /// `[heads * head_dim]`
    pub(crate) norm: Vec<f32>,
}

impl MambaSpec {
    fn recurrence(&self) -> Recurrence {
        Recurrence {
            heads: self.num_heads,
            key_heads: self.num_groups,
            tiled: false,
            key_dim: self.state_size,
            value_dim: self.head_dim,
            kernel_size: self.kernel_size,
        }
    }
}

impl MixerWeights for MambaWeights {
    type Spec = MambaSpec;
    type Names = MambaNames;

    fn read(
        spec: &MambaSpec,
        _: LayerRef<'_>,
        names: &MambaNames,
        weights: &mut impl ReadWeights,
    ) -> Result<Self> {
        let input = weights.linear(std::slice::from_ref(&names.input))?;
        let steps = weights.vector(&names.steps)?;
        Ok(MambaWeights {
            input,
            steps: weights.float_matrix(&steps, spec.num_heads)?,
            conv: weights.convolution(&names.conv, spec.channels())?,
            conv_bias: weights.optional(names.conv_bias.as_ref())?,
            minus_a: weights.vector(&names.minus_a)?,
            dt_bias: weights.vector(&names.dt_bias)?,
            skip: weights.vector(&names.skip)?,
            norm: weights.vector(&names.norm)?,
        })
    }

    fn state(spec: &MambaSpec, _: LayerRef<'_>) -> LayerState {
        LayerState::Recurrent { floats: spec.recurrence().state_len() }
    }

    fn wide_sizes(spec: &MambaSpec, _: LayerRef<'_>) -> [usize; 5] {
        let (heads, recurrence) = (spec.num_heads, spec.recurrence());
        let channels = recurrence.channels();
        [spec.inner() + channels, channels, heads, recurrence.results(), 2 * heads]
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        vec![&self.input.weight]
    }

    fn forward<O: Ops>(
        &self,
        mamba: &MambaSpec,
        context: MixContext<'_, O>,
        x: &Rows<O>,
        out: &mut Rows<O>,
    ) -> Result<()> {
        let MixContext { ops, spec, layer, cache, batch, scratch, codes, .. } = context;
        let (recurrence, inner, rows) = (mamba.recurrence(), mamba.inner(), batch.rows());
        let [input, mixed, steps, results, gates] = &mut scratch.wide;

        ops.linear(x, rows, &self.input, Store::Overwrite, input, codes)?;
        let columns = |first: usize| Columns { rows: &*input, stride: self.input.weight.n(), first };
        ops.matmul_f32(x, rows, &self.steps, None, steps);
        let formula = GateFormula::Mamba { minus_a: &self.minus_a, bias: &self.dt_bias };
        ops.recurrence_gates(formula, steps, Shape { rows, width: mamba.num_heads }, gates);

        let keys = mamba.num_groups * mamba.state_size;
        let bias = self.conv_bias.as_deref();
        let recur = Recur {
            recurrence,
            conv: Convolution { weights: &self.conv, bias, kernel_size: mamba.kernel_size },
            inputs: columns(inner),
            at: Channels { queries: inner + keys, keys: inner, values: 0 },
            unit_length: None,
            rule: UpdateRule::Add,
            gates: &*gates,
        };
        let states = StateSource { cache, layer, batch };
        ops.recur(states, &recur, RecurBuffers { mixed: &mut *mixed, results: &mut *results })?;

        let gate = OutputGate::SkipGateThenNorm {
            skip: &self.skip,
            values: Columns { rows: &*mixed, stride: recurrence.channels(), first: 0 },
            z: columns(0),
            norm: GroupNorm { gains: &self.norm, size: inner / mamba.num_groups, eps: spec.rms_norm_eps },
        };
        ops.gather_results(recurrence, batch, results, &gate, out);
        Ok(())
    }
}
