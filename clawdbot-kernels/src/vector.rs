//! Kernels over vectors of f32: norms, activations, conversions.

use super::simd::LANES;
use super::{Kernel, KernelSet, Simd};

/// `exp(x)`, at most 2 ULP off; 0 below, infinity above
/// the f32 range; NaN for NaN.
///
/// Cody-Waite reduction to `|r| <= ln(2) / 2` and the degree-5 polynomial of Cephes' `expf`
/// (<https://www.netlib.org/cephes/>), evaluated with FMA.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // The operand order lets NaN through. Beyond the bounds the result is 0 or infinite already.
    let x = s.max(s.splat(-104.0), x);
    let x = s.min(s.splat(89.0), x);
    let n = s.round_to_i32(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let minus_n = s.sub(s.zero(), s.i32_to_f32(n));
    // ln(2) in two parts; the first has few bits, so its product with n is exact.
    let r = s.fma(minus_n, s.splat(0.693_359_4), x);
    let r = s.fma(minus_n, s.splat(-2.121_944_4e-4), r);
    let p = s.splat(1.987_569_1e-4);
    let p = s.fma(p, r, s.splat(1.398_199_9e-3));
    let p = s.fma(p, r, s.splat(8.333_452e-3));
    let p = s.fma(p, r, s.splat(4.166_579_6e-2));
    let p = s.fma(p, r, s.splat(0.166_666_65));
    let p = s.fma(p, r, s.splat(0.5));
    let y = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    // 2^n in two factors: n itself may be beyond the exponents of f32.
    let half = s.half_i32(n);
    s.mul(s.mul(y, s.pow2(half)), s.pow2(s.sub_i32(n, half)))
}

/// `2^x` for x up to a little above 0, relative error at most 6e-7; 0 from -126.5 down; NaN for NaN.
///
/// `2^round(x)` times the polynomial of degree 5 that comes closest to `2^f` for `|f| <= 1/2` and is 1 for 0.
#[inline(always)]
pub(super) fn exp2_below<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // The operand order lets NaN through.
    let x = s.max(s.splat(-127.0), x);
    let n = s.round_to_i32(x);
    let f = s.sub(x, s.i32_to_f32(n));
    let p = s.splat(1.112_550_7e-3);
    let p = s.fma(p, f, s.splat(9.666_283e-3));
    let p = s.fma(p, f, s.splat(5.557_400_4e-2));
    let p = s.fma(p, f, s.splat(0.240_223_51));
    let p = s.fma(p, f, s.splat(0.693_142_83));
    let p = s.fma(p, f, s.splat(1.0));
    s.mul(p, s.pow2(n))
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let e = exp(s, s.sub(s.zero(), x));
    s.div(x, s.add(s.splat(1.0), e))
}

/// `out[i] = f(a[i], b[i])` in vectors; the tail is padded with zeros. (`f` is a macro argument, not a closure, because
/// a closure does not inherit the target features.)
macro_rules! for_each_vector {
    ($s:ident, $out:expr, [$($x:ident = $input:expr),+] $body:expr) => {{
        let out: &mut [f32] = $out;
        let len = out.len();
        $(let $x: &[f32] = $input; assert_eq!($x.len(), len);)+
        let mut i = 0;
        while i + LANES <= len {
            let result = { $(let $x = $s.load_partial(&$x[i..i + LANES]);)+ $body };
            $s.store_partial(result, &mut out[i..i + LANES]);
            i += LANES;
        }
        if i < len {
            let result = { $(let $x = $s.load_partial(&$x[i..]);)+ $body };
            $s.store_partial(result, &mut out[i..]);
        }
    }};
}

pub(super) use for_each_vector;

/// `tanh(x) = 1 - 2 / (exp(2x) + 1)`, absolute error at most 2e-7.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let one = s.splat(1.0);
    let e = exp(s, s.add(x, x));
    s.sub(one, s.div(s.splat(2.0), s.add(e, one)))
}

/// See [`KernelSet::rms_norm`].
pub(super) struct RmsNorm;
impl Kernel for RmsNorm {
    type Args<'a> = (&'a [f32], &'a [f32], f32, &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (x, weight, eps, out): Self::Args<'_>) {
        let mut squares = s.zero();
        let (chunks, tail) = x.as_chunks::<LANES>();
        for chunk in chunks {
            let v = s.load(chunk);
            squares = s.fma(v, v, squares);
        }
        if !tail.is_empty() {
            let v = s.load_partial(tail);
            squares = s.fma(v, v, squares);
        }
        let mean = s.reduce_add(squares) / x.len() as f32;
        let r = s.splat(1.0 / (mean + eps).sqrt());
        for_each_vector!(s, out, [x = x, weight = weight] s.mul(s.mul(x, r), weight));
    }
}

/// See [`KernelSet::silu_mul`].
#[cfg(any(test, feature = "bench-support"))]
pub(super) struct SiluMul;
#[cfg(any(test, feature = "bench-support"))]
impl Kernel for SiluMul {
    type Args<'a> = (&'a [f32], &'a [f32], &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (gate, up, out): Self::Args<'_>) {
        for_each_vector!(s, out, [gate = gate, up = up] s.mul(silu(s, gate), up));
    }
}

/// [`exp`] of a slice, to measure and to test it.
#[cfg(any(test, feature = "bench-support"))]
pub(super) struct Exp;
#[cfg(any(test, feature = "bench-support"))]
impl Kernel for Exp {
    type Args<'a> = (&'a [f32], &'a mut [f32]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (x, out): Self::Args<'_>) {
        for_each_vector!(s, out, [x = x] exp(s, x));
    }
}

/// See [`KernelSet::to_bf16`].
pub(super) struct ToBf16;
impl Kernel for ToBf16 {
    type Args<'a> = (&'a [f32], &'a mut [u16]);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (x, out): Self::Args<'_>) {
        assert_eq!(x.len(), out.len());
        let (chunks, tail) = x.as_chunks::<LANES>();
        let (out_chunks, out_tail) = out.as_chunks_mut::<LANES>();
        for (chunk, out) in chunks.iter().zip(out_chunks) {
            s.store_bf16(s.load(chunk), out);
        }
        let mut lanes = [0; LANES];
        s.store_bf16(s.load_partial(tail), &mut lanes);
        out_tail.copy_from_slice(&lanes[..tail.len()]);
    }
}

impl KernelSet {
    /// `out = x * (1 / sqrt(mean(x^2) + eps)) * weight`, all of one length. The sum of squares has 16 lanes (element i
    /// in lane i mod 16, FMA) reduced as [`Simd::reduce_add`] says; the rest are single IEEE operations.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        self.rms_norm.call((x, weight, eps, out));
    }

    /// `out = silu(gate) * up` with `silu(x) = x / (1 + exp(-x))`, all of one length: the epilogue of gated products by
    /// itself, to measure and to test it.
    #[cfg(any(test, feature = "bench-support"))]
    pub fn silu_mul(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        self.silu_mul.call((gate, up, out));
    }

    /// `out = exp(x)`, see `exp`.
    #[cfg(any(test, feature = "bench-support"))]
    pub fn exp(&self, x: &[f32], out: &mut [f32]) {
        self.exp.call((x, out));
    }

    /// f32 to bf16, to nearest, ties to even.
    pub fn to_bf16(&self, x: &[f32], out: &mut [u16]) {
        self.to_bf16.call((x, out));
    }
}
