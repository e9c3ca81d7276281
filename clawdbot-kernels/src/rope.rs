//! Rotary position embedding of one token's heads, with norms of queries and keys where a family has them.

use super::simd::LANES;
use super::{Kernel, KernelSet, Simd};

/// RMSNorm of query heads and of key heads.
#[derive(Clone, Copy)]
pub struct HeadNorms<'a> {
    /// Weights for queries, `[head_dim]`.
    pub queries: &'a [f32],
    /// Weights for keys, `[head_dim]`.
    pub keys: &'a [f32],
    /// The epsilon.
    pub eps: f32,
}

/// Which dimensions of a head form a pair, which is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RotaryPairs {
    /// i and i + rotary_dim / 2.
    #[default]
    Halves,
    /// 2i and 2i + 1.
    Interleaved,
}

/// Arguments of `RotateHeads`.
pub struct RotateArgs<'a> {
    /// `[heads, head_dim]`: queries, then keys.
    pub heads: &'a mut [f32],
    /// Elements of a head.
    pub head_dim: usize,
    /// How many of the heads are queries.
    pub queries: usize,
    /// Applied before the rotation.
    pub norms: Option<HeadNorms<'a>>,
    /// `[rotary_dim / 2]`
    pub cos: &'a [f32],
    /// `[rotary_dim / 2]`
    pub sin: &'a [f32],
    /// Which dimensions are rotated together.
    pub pairs: RotaryPairs,
}

/// See [`KernelSet::rotate_heads`].
pub(super) struct RotateHeads;
impl Kernel for RotateHeads {
    type Args<'a> = RotateArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: RotateArgs<'_>) {
        let RotateArgs { heads, head_dim, queries, norms, cos, sin, pairs } = args;
        let half = cos.len();
        assert!(sin.len() == half && 2 * half <= head_dim && heads.len().is_multiple_of(head_dim));
        for (index, head) in heads.chunks_exact_mut(head_dim).enumerate() {
            if let Some(norms) = norms {
                norm(s, head, if index < queries { norms.queries } else { norms.keys }, norms.eps);
            }
            if pairs == RotaryPairs::Interleaved {
                rotate_pairs(head, cos, sin);
                continue;
            }
            let (first, rest) = head.split_at_mut(half);
            for i in (0..half).step_by(LANES) {
                let end = half.min(i + LANES);
                let (a, b) = (s.load_partial(&first[i..end]), s.load_partial(&rest[i..end]));
                let (c, d) = (s.load_partial(&cos[i..end]), s.load_partial(&sin[i..end]));
                s.store_partial(s.sub(s.mul(a, c), s.mul(b, d)), &mut first[i..end]);
                s.store_partial(s.add(s.mul(b, c), s.mul(a, d)), &mut rest[i..end]);
            }
        }
    }
}

/// The rotation of neighbouring dimensions: the same operations, pair by pair.
#[inline(always)]
fn rotate_pairs(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for (pair, (c, d)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
        let [a, b] = *pair;
        *pair = [a * c - b * d, b * c + a * d];
    }
}

/// [`KernelSet::rms_norm`] in place.
#[inline(always)]
fn norm<S: Simd>(s: S, x: &mut [f32], weight: &[f32], eps: f32) {
    let mut squares = s.zero();
    for x in x.chunks(LANES) {
        let v = s.load_partial(x);
        squares = s.fma(v, v, squares);
    }
    let mean = s.reduce_add(squares) / x.len() as f32;
    let r = s.splat(1.0 / (mean + eps).sqrt());
    for (x, weight) in x.chunks_mut(LANES).zip(weight.chunks(LANES)) {
        let v = s.mul(s.mul(s.load_partial(x), r), s.load_partial(weight));
        s.store_partial(v, x);
    }
}

impl KernelSet {
    /// Norms the heads and rotates their first `rotary_dim` dimensions, in place: `a, b = a * cos - b * sin, b * cos + a * sin`
    /// for dimensions i and i + rotary_dim / 2, or 2i and 2i + 1, each operation rounded.
    pub fn rotate_heads(&self, args: RotateArgs<'_>) {
        self.rotate_heads.call(args);
    }

    /// [`KernelSet::rms_norm`] in place.
    pub fn norm_in_place(&self, x: &mut [f32], weight: &[f32], eps: f32) {
        let (head_dim, none) = (x.len(), &[][..]);
        self.rotate_heads(RotateArgs {
            heads: x,
            head_dim,
            queries: 1,
            norms: Some(HeadNorms { queries: weight, keys: weight, eps }),
            cos: none,
            sin: none,
            pairs: RotaryPairs::Halves,
        });
    }
}
