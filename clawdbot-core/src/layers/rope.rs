//! Rotary position embedding, "rotate half" convention: dimensions i and i + rotary_dim / 2 form a pair.
//!
//! Su et al. 2021, <https://arxiv.org/abs/2104.09864>. Angles are `position * inv_freq` in float32, as in
//! transformers; their cosines and sines are computed in float64 by portable code, so all platforms agree.

use crate::kernels::{KernelSet, RotateArgs};
use crate::model::rope_scaling::RopeSpec;
use crate::model::spec::{DecoderSpec, NormSpec};

/// cos and sin of each position's angles, `[positions, rotary_dim / 2]`.
pub(crate) fn rope_tables(rope: &RopeSpec, positions: &[usize], cos: &mut [f32], sin: &mut [f32]) {
    let half = rope.inv_freq.len();
    for (row, &position) in positions.iter().enumerate() {
        for (i, &inv_freq) in rope.inv_freq.iter().enumerate() {
            let (s, c) = libm::sincos(f64::from(position as f32 * inv_freq));
            cos[row * half + i] = c as f32 * rope.attention_scaling;
            sin[row * half + i] = s as f32 * rope.attention_scaling;
        }
    }
}

/// Norms (where the family has them) and rotates the query and key heads of one token, in place.
///
/// `heads` is `[num_attention_heads + 2 num_key_value_heads, head_dim]`: queries, keys, values.
pub(crate) fn rotate_heads(
    kernels: &KernelSet,
    spec: &DecoderSpec,
    norms: Option<&(Vec<f32>, Vec<f32>)>,
    (cos, sin): (&[f32], &[f32]),
    heads: &mut [f32],
) {
    let (head_dim, queries) = (spec.head_dim, spec.num_attention_heads);
    let norms = norms.zip(spec.qk_norm).map(|((q, k), NormSpec { eps })| (q.as_slice(), k.as_slice(), eps));
    let heads = &mut heads[..(queries + spec.num_key_value_heads) * head_dim];
    kernels.rotate_heads(RotateArgs { heads, head_dim, queries, norms, cos, sin });
}
