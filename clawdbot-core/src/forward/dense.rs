//! A layer of the dense head: `norm(act(weight * x + bias))`.

use super::linear::Linear;
use super::ops::{Buffer, Codes, Norm, Ops, Rows, Shape, Store};
use crate::error::Result;
use crate::spec::{DecoderSpec, DenseSpec};

/// Its weights, in f32.
pub(crate) struct Dense {
    pub(crate) linear: Linear,
    pub(crate) norm: Option<Vec<f32>>,
}

impl Dense {
    /// The result for `x`, `[rows, inputs]`: `[rows, outputs]`.
    ///
    /// # Errors
    /// `OutOfBudget` without memory.
    pub(crate) fn forward<O: Ops>(
        &self,
        ops: &O,
        model: &DecoderSpec,
        spec: &DenseSpec,
        x: &Rows<O>,
        rows: usize,
    ) -> Result<Rows<O>> {
        let shape = Shape { rows, width: spec.outputs };
        let mut out = Rows::<O>::default();
        out.reserve(shape.len())?;
        ops.linear(x, rows, &self.linear, Store::Overwrite, &mut out, &mut Codes::<O>::default())?;
        if let Some(activation) = spec.activation {
            ops.activate(&mut out, activation, shape);
        }
        let Some(gains) = &self.norm else { return Ok(out) };
        let mut normed = Rows::<O>::default();
        normed.reserve(shape.len())?;
        ops.norm(&out, Norm::of(model, gains), shape, &mut normed);
        Ok(normed)
    }
}
