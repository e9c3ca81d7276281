//! Steps of recurrent layers: causal convolutions and the gated delta rule.

use super::simd::LANES;
use super::vector::silu;
use super::{Kernel, KernelSet, Simd};

/// Arguments of [`KernelSet::causal_conv`].
pub struct ConvArgs<'a> {
    /// Inputs of earlier tokens and of this one, oldest first: `[kernel_size][channels]`
    pub inputs: &'a [&'a [f32]],
    /// `[kernel_size, channels]`
    pub weights: &'a [f32],
    /// `[channels]`
    pub bias: Option<&'a [f32]>,
    /// Whether SiLU follows.
    pub silu: bool,
    /// `[channels]`
    pub out: &'a mut [f32],
}

/// See [`KernelSet::causal_conv`].
pub(super) struct CausalConv;
impl Kernel for CausalConv {
    type Args<'a> = ConvArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, ConvArgs { inputs, weights, bias, silu: with_silu, out }: ConvArgs<'_>) {
        let channels = out.len();
        assert_eq!(weights.len(), inputs.len() * channels, "weights: [{}, {channels}]", inputs.len());
        for start in (0..channels).step_by(LANES) {
            let end = channels.min(start + LANES);
            let mut sum = match bias {
                Some(bias) => s.load_partial(&bias[start..end]),
                None => s.zero(),
            };
            for (input, weights) in inputs.iter().zip(weights.chunks_exact(channels)) {
                sum = s.fma(s.load_partial(&input[start..end]), s.load_partial(&weights[start..end]), sum);
            }
            let sum = if with_silu { silu(s, sum) } else { sum };
            s.store_partial(sum, &mut out[start..end]);
        }
    }
}

/// See [`KernelSet::l2_norm`].
pub(super) struct L2Norm;
impl Kernel for L2Norm {
    type Args<'a> = (&'a mut [f32], f32, f32);
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, (x, eps, factor): Self::Args<'_>) {
        let mut squares = s.zero();
        for x in x.chunks(LANES) {
            let v = s.load_partial(x);
            squares = s.fma(v, v, squares);
        }
        let r = s.splat(1.0 / (s.reduce_add(squares) + eps).sqrt());
        let factor = s.splat(factor);
        for x in x.chunks_mut(LANES) {
            let v = s.mul(s.mul(s.load_partial(x), r), factor);
            s.store_partial(v, x);
        }
    }
}

/// Arguments of [`KernelSet::delta_rule`].
pub struct DeltaArgs<'a> {
    /// `[key_dim, 16]`: 16 columns of a head's state
    pub state: &'a mut [f32],
    /// For each token, the factor of the state (decay) and the weight of its correction (beta).
    pub gates: &'a [[f32; 2]],
    /// Whether the value that the state gives for a key is subtracted from its value: the delta rule.
    pub corrects: bool,
    /// Queries, from the first token's on; `[key_dim]` each
    pub queries: &'a [f32],
    /// Keys, from the first token's on; `[key_dim]` each
    pub keys: &'a [f32],
    /// Values of the columns, from the first token's on; `columns` each
    pub values: &'a [f32],
    /// Elements from token to token of queries, keys and values.
    pub stride: usize,
    /// Columns that exist, at most 16.
    pub columns: usize,
    /// `[tokens, 16]`
    pub out: &'a mut [f32],
}

/// See [`KernelSet::delta_rule`].
pub(super) struct DeltaRule;
impl Kernel for DeltaRule {
    type Args<'a> = DeltaArgs<'a>;
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(s: S, args: DeltaArgs<'_>) {
        let DeltaArgs { state, gates, corrects, queries, keys, values, stride, columns, out } = args;
        let (state, out) = (state.as_chunks_mut::<LANES>().0, out.as_chunks_mut::<LANES>().0);
        let dim = state.len();
        for (token, ([decay, beta], out)) in gates.iter().zip(out).enumerate() {
            let query = &queries[token * stride..][..dim];
            let key = &keys[token * stride..][..dim];
            let value = s.load_partial(&values[token * stride..][..columns]);
            let decay = s.splat(*decay);
            if !corrects {
                let added = s.mul(value, s.splat(*beta));
                let mut sums = [s.zero(); WAYS];
                for (i, (state, (&key, &query))) in state.iter_mut().zip(key.iter().zip(query)).enumerate() {
                    let updated = s.fma(s.splat(key), added, s.mul(s.load(state), decay));
                    s.store(updated, state);
                    sums[i % WAYS] = s.fma(s.splat(query), updated, sums[i % WAYS]);
                }
                s.store(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])), out);
                continue;
            }
            // Four independent sums, so that no addition waits for the one before.
            let mut sums = [s.zero(); WAYS];
            for (i, (state, &key)) in state.iter_mut().zip(key).enumerate() {
                let decayed = s.mul(s.load(state), decay);
                s.store(decayed, state);
                sums[i % WAYS] = s.fma(s.splat(key), decayed, sums[i % WAYS]);
            }
            let recalled = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
            let delta = s.mul(s.sub(value, recalled), s.splat(*beta));
            let mut sums = [s.zero(); WAYS];
            for (i, (state, (&key, &query))) in state.iter_mut().zip(key.iter().zip(query)).enumerate() {
                let updated = s.fma(s.splat(key), delta, s.load(state));
                s.store(updated, state);
                sums[i % WAYS] = s.fma(s.splat(query), updated, sums[i % WAYS]);
            }
            s.store(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])), out);
        }
    }
}

/// Independent sums.
const WAYS: usize = 4;

impl KernelSet {
    /// A depthwise convolution at one token: `out[c] = bias[c] + sum over j of weights[j][c] * inputs[j][c]`, one FMA each,
    /// j ascending.
    pub fn causal_conv(&self, args: ConvArgs<'_>) {
        self.causal_conv.call(args);
    }

    /// `x = x / sqrt(sum(x^2) + eps) * factor`; the sum as in [`KernelSet::rms_norm`].
    pub fn l2_norm(&self, x: &mut [f32], eps: f32, factor: f32) {
        self.l2_norm.call((x, eps, factor));
    }

    /// The gated delta rule (Yang et al. 2024, <https://arxiv.org/abs/2412.06464>) for some columns of a head, token by token:
    /// ```text
    /// S = decay S;   S += k (beta (v - k^T S))^T;   out = q^T S
    /// ```
    /// Without correction `S += k (beta v)^T`.
    pub fn delta_rule(&self, args: DeltaArgs<'_>) {
        self.delta_rule.call(args);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::available;

    fn noise(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn convolutions_are_those_of_the_formula() {
        for (kernel_size, channels) in [(1, 5), (3, 16), (4, 50)] {
            let (inputs, weights) = (noise(kernel_size * channels, 1), noise(kernel_size * channels, 2));
            let bias = noise(channels, 3);
            let rows: Vec<&[f32]> = inputs.chunks(channels).collect();
            for (bias, silu) in [(None, false), (Some(bias.as_slice()), true)] {
                let results: Vec<Vec<f32>> = available()
                    .into_iter()
                    .map(|set| {
                        let mut out = vec![f32::NAN; channels];
                        let args = ConvArgs { inputs: &rows, weights: &weights, bias, silu, out: &mut out };
                        set.causal_conv(args);
                        out
                    })
                    .collect();
                for c in 0..channels {
                    let terms = (0..kernel_size)
                        .map(|j| f64::from(rows[j][c]) * f64::from(weights[j * channels + c]));
                    let sum = terms.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[c]));
                    let expected = if silu { sum / (1.0 + (-sum).exp()) } else { sum };
                    assert!(
                        (f64::from(results[0][c]) - expected).abs() < 1e-6,
                        "{kernel_size} {channels} {c}"
                    );
                }
                assert!(results.iter().all(|result| bits(result) == bits(&results[0])));
            }
        }
    }

    #[test]
    fn the_delta_rule_is_that_of_the_formula_in_any_chunks() {
        let (dim, tokens, stride, columns) = (10, 7, 40, 13);
        let data = noise(tokens * stride, 4);
        let gates: Vec<[f32; 2]> =
            (0..tokens).map(|token| [0.9 - 0.05 * token as f32, 0.3 + 0.1 * token as f32]).collect();
        let start = noise(dim * LANES, 5);
        let run = |set: &KernelSet, chunk: usize, corrects: bool| {
            let (mut state, mut out) = (start.clone(), vec![0.0; tokens * LANES]);
            for first in (0..tokens).step_by(chunk) {
                let rows = first..tokens.min(first + chunk);
                set.delta_rule(DeltaArgs {
                    state: &mut state,
                    gates: &gates[rows.clone()],
                    corrects,
                    queries: &data[first * stride..],
                    keys: &data[first * stride + 10..],
                    values: &data[first * stride + 20..],
                    stride,
                    columns,
                    out: &mut out[rows.start * LANES..rows.end * LANES],
                });
            }
            (bits(&state), out)
        };
        for (column, corrects) in (0..columns).flat_map(|column| [(column, true), (column, false)]) {
            let (state, out) = run(available()[0], tokens, corrects);
            for set in available() {
                for chunk in [1, 3, tokens] {
                    let (other, found) = run(set, chunk, corrects);
                    assert!(other == state && bits(&found) == bits(&out), "{} {chunk}", set.name);
                }
            }
            let mut state: Vec<f64> = (0..dim).map(|i| f64::from(start[i * LANES + column])).collect();
            for token in 0..tokens {
                let at = |offset: usize| f64::from(data[token * stride + offset]);
                let [decay, beta] = gates[token].map(f64::from);
                state.iter_mut().for_each(|x| *x *= decay);
                let recalled: f64 = (0..dim).map(|i| at(10 + i) * state[i]).sum();
                let recalled = if corrects { recalled } else { 0.0 };
                let delta = (at(20 + column) - recalled) * beta;
                (0..dim).for_each(|i| state[i] += at(10 + i) * delta);
                let expected: f64 = (0..dim).map(|i| at(i) * state[i]).sum();
                assert!((f64::from(out[token * LANES + column]) - expected).abs() < 1e-5, "{token} {column}");
            }
        }
    }

    #[test]
    fn rows_are_normalized() {
        for len in [3, 16, 40] {
            let x = noise(len, 6);
            let norm = (x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() + 1e-6).sqrt();
            for set in available() {
                let mut y = x.clone();
                set.l2_norm(&mut y, 1e-6, 0.25);
                for (x, y) in x.iter().zip(&y) {
                    assert!((f64::from(*y) - f64::from(*x) / norm * 0.25).abs() < 1e-6);
                }
            }
        }
    }
}
