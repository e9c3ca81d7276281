//! Rotary position embedding: dimensions i and i + rotary_dim / 2, or 2i and 2i + 1, form a pair.
//!
//! Su et al. 2021, <https://arxiv.org/abs/2104.09864>. Angles are `position * inv_freq` in float32, as in
//! transformers; their cosines and sines are computed in float64 by portable code, so all platforms agree.

use clawdbot_kernels::RotaryPairs;

use super::batch::Batch;
use crate::spec::rope_scaling::{QueryGrowth, RopeSpec};

/// cos and sin of the angles of a pass's positions, for each rotation of a model.
pub(crate) struct RopeTables<'a>(Vec<Table<'a>>);

/// cos and sin of one rotation.
struct Table<'a> {
    /// `[positions, rotary_dim / 2]`
    cos: &'a [f32],
    /// `[positions, rotary_dim / 2]`
    sin: &'a [f32],
    half: usize,
    pairs: RotaryPairs,
    /// `[positions]`: multipliers of queries; empty: 1
    scales: Vec<f32>,
}

/// cos and sin for the heads of one token.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rotation<'a> {
    /// `[rotary_dim / 2]`
    pub(crate) cos: &'a [f32],
    /// `[rotary_dim / 2]`
    pub(crate) sin: &'a [f32],
    pub(crate) pairs: RotaryPairs,
    /// Multiplier of queries
    pub(crate) scale: Option<f32>,
}

impl<'a> RopeTables<'a> {
    /// Fills `buffer`, which has room for the rows of `batch` times the sum of all `rotary_dim`.
    pub(crate) fn fill(ropes: &[RopeSpec], batch: &Batch<'_>, buffer: &'a mut [f32]) -> Self {
        let (mut rest, rows) = (buffer, batch.rows());
        let table = |rope: &RopeSpec| {
            let half = rope.inv_freq.len();
            let (table, others) = std::mem::take(&mut rest).split_at_mut(2 * half * rows);
            rest = others;
            let (cos, sin) = table.split_at_mut(half * rows);
            rope_tables(rope, batch, cos, sin);
            let scale = |growth: QueryGrowth| batch.positions.iter().map(|&p| growth.at(p)).collect();
            let scales = rope.growth.map_or_else(Vec::new, scale);
            let pairs = if rope.interleaved { RotaryPairs::Interleaved } else { RotaryPairs::Halves };
            Table { cos, sin, half, pairs, scales }
        };
        RopeTables(ropes.iter().map(table).collect())
    }

    /// Row `row` of rotation `rope`. Without a rotation the result is empty, and rotates nothing.
    pub(crate) fn row(&self, rope: Option<usize>, row: usize) -> Rotation<'_> {
        let Some(table) = rope.and_then(|rope| self.0.get(rope)) else { return Rotation::default() };
        let part = row * table.half..(row + 1) * table.half;
        let scale = table.scales.get(row).copied();
        let (cos, sin) = (&table.cos[part.clone()], &table.sin[part]);
        Rotation { cos, sin, pairs: table.pairs, scale }
    }
}

/// cos and sin of each position's angles, `[positions, rotary_dim / 2]`.
fn rope_tables(rope: &RopeSpec, batch: &Batch<'_>, cos: &mut [f32], sin: &mut [f32]) {
    let half = rope.inv_freq.len();
    for (row, (&position, &length)) in batch.positions.iter().zip(&batch.lengths).enumerate() {
        for (i, &inv_freq) in rope.inv_freq(length).iter().enumerate() {
            let (s, c) = libm::sincos(f64::from(position as f32 * inv_freq));
            cos[row * half + i] = c as f32 * rope.attention_scaling;
            sin[row * half + i] = s as f32 * rope.attention_scaling;
        }
    }
}
