//! [`Simd`] in plain Rust, for every CPU: the specification of the others.
//!
//! Unlike theirs, its arithmetic is not inlined: it needs no features of its callers, and sixteen lanes in every place of every
//! tile would be most of the library.

use super::{LANES, Simd};

/// Any CPU.
#[derive(Clone, Copy)]
pub struct Scalar;

#[inline(always)]
fn map<A: Copy, R: Copy + Default>(a: [A; LANES], f: impl Fn(A) -> R) -> [R; LANES] {
    let mut out = [R::default(); LANES];
    for (out, a) in out.iter_mut().zip(a) {
        *out = f(a);
    }
    out
}

#[inline(always)]
fn zip<A: Copy, R: Copy + Default>(a: [A; LANES], b: [A; LANES], f: impl Fn(A, A) -> R) -> [R; LANES] {
    let mut out = [R::default(); LANES];
    for (out, (a, b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
        *out = f(a, b);
    }
    out
}

/// Lanes i and i + 8, then i + 4, i + 2, i + 1.
#[inline(always)]
fn reduce<A: Copy>(mut v: [A; LANES], f: impl Fn(A, A) -> A) -> A {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            v[i] = f(v[i], v[i + width]);
        }
        width /= 2;
    }
    v[0]
}

/// To nearest, ties to even; NaN to quiet NaN.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

impl Simd for Scalar {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type W8 = [i8; 4 * LANES];
    type A4 = [i8; 4];

    const FLIPPED: bool = false;
    const REGISTERS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F32 {
        *x
    }
    #[inline(always)]
    fn store(self, v: Self::F32, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(never)]
    fn select_below(self, count: usize, a: Self::F32, b: Self::F32) -> Self::F32 {
        let mut out = b;
        let count = count.min(LANES);
        out[..count].copy_from_slice(&a[..count]);
        out
    }

    #[inline(never)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a + b)
    }
    #[inline(never)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a - b)
    }
    #[inline(never)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a * b)
    }
    #[inline(never)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a / b)
    }
    #[inline(never)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        let mut out = c;
        for (out, (a, b)) in out.iter_mut().zip(a.into_iter().zip(b)) {
            *out = a.mul_add(b, *out);
        }
        out
    }
    #[inline(never)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(never)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(never)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        map(a, f32::abs)
    }
    #[inline(never)]
    fn any_above(self, a: Self::F32, b: Self::F32) -> bool {
        a.iter().zip(&b).any(|(a, b)| a > b)
    }
    #[inline(never)]
    fn reduce_add(self, v: Self::F32) -> f32 {
        reduce(v, |a, b| a + b)
    }
    #[inline(never)]
    fn reduce_max(self, v: Self::F32) -> f32 {
        reduce(v, |a, b| if a > b { a } else { b })
    }

    #[inline(never)]
    fn butterfly<const STRIDE: usize>(self, v: Self::F32) -> Self::F32 {
        let mut out = v;
        for (i, out) in out.iter_mut().enumerate() {
            let other = v[i ^ STRIDE];
            *out = if i & STRIDE == 0 { v[i] + other } else { other - v[i] };
        }
        out
    }

    #[inline(never)]
    fn round_to_i32(self, v: Self::F32) -> Self::I32 {
        map(v, |x| x.round_ties_even() as i32)
    }
    #[inline(never)]
    fn i32_to_f32(self, v: Self::I32) -> Self::F32 {
        map(v, |x| x as f32)
    }
    #[inline(never)]
    fn pow2(self, n: Self::I32) -> Self::F32 {
        map(n, |n| f32::from_bits((n.wrapping_add(127) as u32) << 23))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::I32 {
        *x
    }
    #[inline(always)]
    fn store_i32(self, v: Self::I32, out: &mut [i32; LANES]) {
        *out = v;
    }
    #[inline(never)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(never)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(never)]
    fn half_i32(self, v: Self::I32) -> Self::I32 {
        map(v, |x| x >> 1)
    }
    #[inline(never)]
    fn times_128_i32(self, v: Self::I32) -> Self::I32 {
        map(v, |x| x << 7)
    }
    #[inline(never)]
    fn reduce_add_i32(self, v: Self::I32) -> i32 {
        reduce(v, i32::wrapping_add)
    }

    #[inline(never)]
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F32 {
        map(*x, |x| f32::from_bits(u32::from(x) << 16))
    }
    #[inline(never)]
    fn load_bf16_pairs(self, x: &[u16; 2 * LANES]) -> (Self::F32, Self::F32) {
        let (mut even, mut odd) = ([0; LANES], [0; LANES]);
        for (i, pair) in x.as_chunks::<2>().0.iter().enumerate() {
            (even[i], odd[i]) = (pair[0], pair[1]);
        }
        (self.load_bf16(&even), self.load_bf16(&odd))
    }
    #[inline(never)]
    fn load_f16(self, x: &[u16; LANES]) -> Self::F32 {
        map(*x, |x| half::f16::from_bits(x).to_f32())
    }
    #[inline(never)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::I32 {
        map(*x, i32::from)
    }
    #[inline(never)]
    fn store_bf16(self, v: Self::F32, out: &mut [u16; LANES]) {
        *out = map(v, to_bf16);
    }
    #[inline(never)]
    fn store_u14(self, v: [Self::I32; 4], high: &mut [i8; 4 * LANES], low: &mut [i8; 4 * LANES]) {
        for ((x, high), low) in v.as_flattened().iter().zip(high).zip(low) {
            (*high, *low) = ((x >> 7) as i8, (x & 127) as i8);
        }
    }
    #[inline(never)]
    fn store_i8(self, v: Self::I32, out: &mut [i8; LANES]) {
        *out = map(v, |x| x as i8);
    }

    #[inline(always)]
    fn load_w8(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        *x
    }
    #[inline(always)]
    fn prepare_w8(self, x: &[i8; 4 * LANES], out: &mut [i8; 4 * LANES]) {
        *out = *x;
    }
    #[inline(always)]
    fn load_prepared(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        *x
    }
    #[inline(always)]
    fn splat_a4(self, x: &[i8; 4]) -> Self::A4 {
        *x
    }
    #[inline(never)]
    fn dot4(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32 {
        let mut out = acc;
        for (out, w) in out.iter_mut().zip(w.as_chunks::<4>().0) {
            for (w, a) in w.iter().zip(a) {
                *out += i32::from(*w) * i32::from(a);
            }
        }
        out
    }

    #[inline(always)]
    fn load_signed_w8(self, x: &[i8; 4 * LANES]) -> Self::W8 {
        *x
    }
    #[inline(never)]
    fn dot4_positive(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32 {
        self.dot4(acc, w, a)
    }
    #[inline(never)]
    fn load_u4(self, x: &[u8; 4 * LANES]) -> (Self::W8, Self::W8) {
        let (mut low, mut high) = ([0; 4 * LANES], [0; 4 * LANES]);
        self.unpack_u4(x, 0, &mut low, &mut high);
        (low, high)
    }
    #[inline(never)]
    fn load_u6(self, x: &[[u8; 4 * LANES]; 3]) -> [Self::W8; 4] {
        std::array::from_fn(|quarter| {
            std::array::from_fn(|at| {
                let low = x[quarter / 2][at] >> (quarter % 2 * 4) & 15;
                (low | (x[2][at] >> (2 * quarter) & 3) << 4) as i8
            })
        })
    }
    #[inline(never)]
    fn dot4_u4(self, acc: Self::I32, w: Self::W8, a: Self::A4) -> Self::I32 {
        self.dot4(acc, w, a)
    }
    #[inline(never)]
    fn unpack_u4(self, x: &[u8; 4 * LANES], zero: i8, low: &mut [i8; 4 * LANES], high: &mut [i8; 4 * LANES]) {
        for (x, (low, high)) in x.iter().zip(low.iter_mut().zip(high)) {
            *low = ((x & 15) as i8).wrapping_sub(zero);
            *high = ((x >> 4) as i8).wrapping_sub(zero);
        }
    }
    #[inline(never)]
    fn unpack_u6(self, x: &[[u8; 4 * LANES]; 3], zero: i8, out: [&mut [i8; 4 * LANES]; 4]) {
        for (codes, out) in self.load_u6(x).into_iter().zip(out) {
            *out = codes.map(|code| code.wrapping_sub(zero));
        }
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}
