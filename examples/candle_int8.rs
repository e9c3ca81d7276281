//! A candle model whose linear layers are computed in int8: what to change, the loss of accuracy, and the speedup.
//!
//! `cargo run --release -p clawdbot-core --features candle --example candle_int8 -- [ROUNDS]`
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::time::Instant;

use clawdbot_core::candle::candle_core::{D, DType, Device, Error, Result, Tensor};
use clawdbot_core::candle::candle_nn::{
    Activation, Module, RmsNorm, VarBuilder, VarMap, linear_no_bias, ops, rms_norm,
};
use clawdbot_core::candle::{Int8Linear, int8_linear_no_bias};
use clawdbot_core::{Runtime, RuntimeOptions};

/// Sizes of a layer of a model with half a billion weights.
const HIDDEN: usize = 896;
const INTERMEDIATE: usize = 4864;
const HEADS: usize = 14;

/// Makes a linear layer: candle's, or this library's.
type MakeLinear<'a> = dyn Fn(usize, usize, VarBuilder<'static>) -> Result<Box<dyn Module>> + 'a;

/// A transformer layer of a candle program. `linear` makes its linear layers.
struct Layer {
    norms: [RmsNorm; 2],
    q: Box<dyn Module>,
    k: Box<dyn Module>,
    v: Box<dyn Module>,
    o: Box<dyn Module>,
    gate: Box<dyn Module>,
    up: Box<dyn Module>,
    down: Box<dyn Module>,
}

impl Layer {
    fn new(vb: &VarBuilder<'static>, linear: &MakeLinear<'_>) -> Result<Self> {
        let make = |name: &str, k, n| linear(k, n, vb.pp(name));
        Ok(Layer {
            norms: [rms_norm(HIDDEN, 1e-6, vb.pp("norm1"))?, rms_norm(HIDDEN, 1e-6, vb.pp("norm2"))?],
            q: make("q", HIDDEN, HIDDEN)?,
            k: make("k", HIDDEN, HIDDEN)?,
            v: make("v", HIDDEN, HIDDEN)?,
            o: make("o", HIDDEN, HIDDEN)?,
            gate: make("gate", HIDDEN, INTERMEDIATE)?,
            up: make("up", HIDDEN, INTERMEDIATE)?,
            down: make("down", INTERMEDIATE, HIDDEN)?,
        })
    }
}

impl Module for Layer {
    /// `x`: `[tokens, HIDDEN]`; every token sees every other.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = x.dim(0)?;
        let normed = self.norms[0].forward(x)?;
        let heads = |projection: &dyn Module| {
            let states = projection.forward(&normed)?;
            states.reshape((tokens, HEADS, HIDDEN / HEADS))?.transpose(0, 1)?.contiguous()
        };
        let (q, k, v) = (heads(&*self.q)?, heads(&*self.k)?, heads(&*self.v)?);
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? / ((HIDDEN / HEADS) as f64).sqrt())?;
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&v)?;
        let mixed = mixed.transpose(0, 1)?.contiguous()?.reshape((tokens, HIDDEN))?;
        let x = (x + self.o.forward(&mixed)?)?;
        let normed = self.norms[1].forward(&x)?;
        let gate = Activation::Silu.forward(&self.gate.forward(&normed)?)?;
        &x + self.down.forward(&(gate * self.up.forward(&normed)?)?)?
    }
}

/// Cosine of the angle between two tensors, and the largest difference of their elements relative to the largest element.
fn compare(found: &Tensor, expected: &Tensor) -> Result<(f32, f32)> {
    let sum = |a: &Tensor, b: &Tensor| (a * b)?.sum_all()?.to_scalar::<f32>();
    let cosine = sum(found, expected)? / (sum(found, found)? * sum(expected, expected)?).sqrt();
    let largest = |x: &Tensor| x.abs()?.flatten_all()?.max(D::Minus1)?.to_scalar::<f32>();
    Ok((cosine, largest(&(found - expected)?)? / largest(expected)?))
}

/// Median seconds of a call, over `rounds`, for two layers that take turns.
fn times(layers: [&dyn Module; 2], x: &Tensor, rounds: usize) -> Result<[f64; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (layer, times) in layers.iter().zip(&mut times) {
            let start = Instant::now();
            layer.forward(x)?;
            // The first round warms up the caches.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(20), |rounds| rounds.parse()).map_err(Error::wrap)?;
    let runtime = Runtime::new(&RuntimeOptions::default())?;
    let weights = VarMap::new();
    let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    let before = Layer::new(&vb, &|k, n, vb| Ok(Box::new(linear_no_bias(k, n, vb)?)))?;
    // The only line that changes.
    let after = Layer::new(&vb, &|k, n, vb| Ok(Box::new(int8_linear_no_bias(k, n, vb, &runtime)?)))?;
    println!("{} threads, kernels {}", runtime.threads(), runtime.kernels());
    let gate = linear_no_bias(HIDDEN, INTERMEDIATE, vb.pp("gate"))?;
    let int8_gate = Int8Linear::from_linear(&runtime, &gate)?;
    for tokens in [1, 512] {
        let x = Tensor::randn(0_f32, 1.0, (tokens, HIDDEN), &Device::Cpu)?;
        report("layer", [&before, &after], &x, rounds)?;
        report("gate projection alone", [&gate, &int8_gate], &x, rounds)?;
    }
    Ok(())
}

/// Prints how close two layers are, and how long they take.
fn report(what: &str, layers: [&dyn Module; 2], x: &Tensor, rounds: usize) -> Result<()> {
    let (cosine, difference) = compare(&layers[1].forward(x)?, &layers[0].forward(x)?)?;
    let [f32, int8] = times(layers, x, rounds.max(1))?;
    println!(
        "{what}, {} tokens: cosine {cosine:.5}, largest difference {difference:.1e} of the largest element; \
         candle f32 {:.3} ms, int8 {:.3} ms, ratio {:.1}",
        x.dim(0)?,
        1e3 * f32,
        1e3 * int8,
        f32 / int8
    );
    Ok(())
}
