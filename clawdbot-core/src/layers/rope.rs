//! Rotary position embedding, "rotate half" convention: dimensions i and i + rotary_dim / 2 form a pair.
//!
//! Su et al. 2021, <https://arxiv.org/abs/2104.09864>. Angles are `position * inv_freq` in float32, as in
//! transformers; their cosines and sines are computed in float64 by portable code, so all platforms agree.

use crate::kernels::KernelSet;
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
    let rotated = spec.num_attention_heads + spec.num_key_value_heads;
    let mut normed = norms.map(|_| vec![0.0; spec.head_dim]);
    for (index, head) in heads.chunks_exact_mut(spec.head_dim).take(rotated).enumerate() {
        if let (Some((q_norm, k_norm)), Some(normed), Some(NormSpec { eps })) =
            (norms, &mut normed, spec.qk_norm)
        {
            let weight = if index < spec.num_attention_heads { q_norm } else { k_norm };
            kernels.rms_norm(head, weight, eps, normed);
            head.copy_from_slice(normed);
        }
        let half = cos.len();
        let (first, rest) = head.split_at_mut(half);
        for (((a, b), &c), &s) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}
