//! [`Int8Linear`]: a linear layer for candle programs on this library's kernels.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Module, Shape, Tensor};
use candle_nn::{Linear, VarBuilder};
use clawdbot_kernels::{ActivationFormat, ComputeFormat, Epilogue, Lhs, PackedMatrix, gemm};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::error::from_candle;
use super::floats::{FloatRows, Floats, check, with_floats};
use crate::error::{Error, ErrorKind, Result};
use crate::forward::decoder::zeroed_rows;
use crate::load::formats::format;
use crate::options::WeightType;
use crate::runtime::{Reservation, RowSizes, Runtime, SharedRows};

/// `y = x * weight^T + bias` with int8 weights, for inference: replaces a [`candle_nn::Linear`].
///
/// Weights and activations are quantized like those of a model with int8 weights (`docs/numerics.md`). An output row
/// has the same bits in every batch, with any number of threads and on every instruction set. It runs on the threads of
/// the runtime, and its memory counts in that budget; a runtime computes one product (or forward pass) at a time. Cheap
/// to clone; usable from several threads. Gradients through it are an error.
#[derive(Clone)]
pub struct Int8Linear(Arc<Layer>);

struct Layer {
    runtime: Runtime,
    /// `[n, k]`
    weight: PackedMatrix,
    activations: ActivationFormat,
    /// `[n]`
    bias: Option<Vec<f32>>,
    rows: Arc<Mutex<SharedRows>>,
    _reservation: Reservation,
}

/// A linear layer with a bias, like [`candle_nn::linear()`]: `weight` `[out_dim, in_dim]` and `bias` `[out_dim]` of `vb`.
///
/// # Errors
/// As [`Int8Linear::new`]; candle's own for tensors that are missing or of another shape.
pub fn int8_linear(
    in_dim: usize,
    out_dim: usize,
    vb: VarBuilder<'_>,
    runtime: &Runtime,
) -> Result<Int8Linear> {
    int8_linear_b(in_dim, out_dim, true, vb, runtime)
}

/// A linear layer without a bias, like [`candle_nn::linear_no_bias`].
///
/// # Errors
/// As [`int8_linear`].
pub fn int8_linear_no_bias(
    in_dim: usize,
    out_dim: usize,
    vb: VarBuilder<'_>,
    runtime: &Runtime,
) -> Result<Int8Linear> {
    int8_linear_b(in_dim, out_dim, false, vb, runtime)
}

/// A linear layer with a bias or without, like [`candle_nn::linear_b`].
///
/// # Errors
/// As [`int8_linear`].
pub fn int8_linear_b(
    in_dim: usize,
    out_dim: usize,
    bias: bool,
    vb: VarBuilder<'_>,
    runtime: &Runtime,
) -> Result<Int8Linear> {
    // The variables are those of candle's own layer, initialized in the same way.
    let linear = candle_nn::linear_b(in_dim, out_dim, bias, vb.clone()).map_err(from_candle)?;
    Int8Linear::from_linear(runtime, &linear).map_err(|error| match vb.prefix() {
        prefix if prefix.is_empty() => error,
        prefix => error.context(prefix),
    })
}

impl Int8Linear {
    /// Packs `weight` `[n, k]` and `bias` `[n]`: f32, f16 or bf16 on the CPU.
    ///
    /// # Errors
    /// `InvalidArgument` for tensors of other shapes or dtypes or on other devices, `InvalidModel` for weights that are
    /// not finite, `OutOfBudget`, `ForkedRuntime`.
    pub fn new(runtime: &Runtime, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let what = |what: &'static str| move |error: Error| error.context(what);
        let &[n, k] = weight.dims() else {
            let message = format!("weight: expected shape [n, k], found {:?}", weight.dims());
            return Err(Error::invalid_argument(message));
        };
        if n == 0 || k == 0 {
            return Err(Error::invalid_argument(format!(
                "weight: expected at least one element, found shape [{n}, {k}]"
            )));
        }
        let format = format(WeightType::Int8);
        let activations = ComputeFormat::activations(format).ok_or_else(|| {
            Error::internal("expected int8 activations for an int8 product, found another type")
        })?;
        let bytes = PackedMatrix::packed_bytes(format, n, k)?;
        let bias_bytes = if bias.is_some() { 4 * n as u64 } else { 0 };
        let reservation = runtime.budget().reserve(bytes.saturating_add(bias_bytes), "int8 weights")?;
        let bias = match bias {
            None => None,
            Some(bias) if bias.dims() != [n] => {
                let message = format!("bias: expected shape [{n}], found {:?}", bias.dims());
                return Err(Error::invalid_argument(message));
            }
            Some(bias) => Some(read(bias, n).map_err(what("bias"))?),
        };
        let pack = |values: Floats<'_>| {
            let rows = FloatRows { values, k };
            let kernels = runtime.kernel_set();
            Ok(runtime.pool().region(|region| PackedMatrix::pack(kernels, region, format, &[&rows]))??)
        };
        let weight = with_floats(weight, pack).map_err(what("weight"))?;
        let rows = runtime.shared_rows();
        let runtime = runtime.clone();
        let layer = Layer { runtime, weight, activations, bias, rows, _reservation: reservation };
        Ok(Int8Linear(Arc::new(layer)))
    }

    /// Packs the weights of `linear`.
    ///
    /// # Errors
    /// As [`Int8Linear::new`].
    pub fn from_linear(runtime: &Runtime, linear: &Linear) -> Result<Self> {
        Self::new(runtime, linear.weight(), linear.bias())
    }

    /// Elements of an input row: k.
    pub fn in_dim(&self) -> usize {
        self.0.weight.k()
    }

    /// Elements of an output row: n.
    pub fn out_dim(&self) -> usize {
        self.0.weight.n()
    }

    /// Bytes of its weights and bias.
    pub fn bytes(&self) -> u64 {
        let weights = PackedMatrix::packed_bytes(self.0.weight.format(), self.out_dim(), self.in_dim());
        weights.unwrap_or(u64::MAX) + self.0.bias.as_ref().map_or(0, |bias| 4 * bias.len() as u64)
    }
}

impl fmt::Debug for Int8Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Int8Linear")
            .field("in_dim", &self.in_dim())
            .field("out_dim", &self.out_dim())
            .field("bias", &self.0.bias.is_some())
            .finish_non_exhaustive()
    }
}

impl Module for Int8Linear {
    /// `x`: `[.., k]`, f32, f16 or bf16 on the CPU, with any strides. Returns `[.., n]` in the dtype of `x`; other
    /// dtypes than f32 are converted to f32 first, and the result is rounded once.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let k = self.in_dim();
        check(x).map_err(|error| error.context("Int8Linear"))?;
        if x.dims().last() != Some(&k) {
            let message = format!("Int8Linear: expected an input of shape [.., {k}], found {:?}", x.dims());
            return Err(Error::invalid_argument(message).into());
        }
        x.contiguous()?.apply_op1(Product(Arc::clone(&self.0)))
    }
}

/// The product as an operation of candle, so that asking for its gradient gives an error.
struct Product(Arc<Layer>);

impl CustomOp1 for Product {
    fn name(&self) -> &'static str {
        "clawdbot-int8-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.0.weight.n();
        }
        let x = Floats::new(storage, layout)?;
        let out = self.0.forward(x)?;
        let out = match x {
            Floats::F32(_) => CpuStorage::F32(out),
            Floats::F16(_) => {
                CpuStorage::F16(rounded(&out, f16::ZERO, |all, out| out.convert_from_f32_slice(all))?)
            }
            Floats::BF16(_) => {
                CpuStorage::BF16(rounded(&out, bf16::ZERO, |all, out| out.convert_from_f32_slice(all))?)
            }
        };
        Ok((out, Shape::from_dims(&dims)))
    }
}

impl Layer {
    /// `x`: `[m, k]`. Returns `[m, n]`.
    ///
    /// # Errors
    /// `OutOfBudget`, `ForkedRuntime`.
    fn forward(&self, x: Floats<'_>) -> Result<Vec<f32>> {
        let (k, n) = (self.weight.k(), self.weight.n());
        let m = x.len() / k;
        let mut out = zeroed_rows(m, n)?;
        if m == 0 {
            return Ok(out);
        }
        let widened;
        let x = match x {
            Floats::F32(x) => x,
            _ => {
                let mut all = zeroed_rows(m, k)?;
                x.read(0, &mut all);
                widened = all;
                &widened
            }
        };
        let kernels = self.runtime.kernel_set();
        self.runtime.pool().region(|region| {
            // No contention: a runtime runs one region at a time.
            let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            let sizes = RowSizes { m, k, group: self.activations.group };
            let rows = rows.room(self.runtime.budget(), sizes)?;
            rows.quantize(kernels, region, x, m, k, self.activations)?;
            let epilogue = Epilogue { bias: self.bias.as_deref(), ..Epilogue::default() };
            gemm(kernels, region, Lhs::Int8(rows), m, &self.weight, &mut out, epilogue);
            Ok(out)
        })?
    }
}

/// The `n` elements of a tensor.
fn read(tensor: &Tensor, n: usize) -> Result<Vec<f32>> {
    with_floats(tensor, |values| {
        let mut all = zeroed_rows(1, n)?;
        values.read(0, &mut all);
        Ok(all)
    })
}

/// Converts `all` to another dtype.
fn rounded<T: Copy>(all: &[f32], zero: T, round: impl FnOnce(&[f32], &mut [T])) -> Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(all.len()).map_err(|_| {
        Error::new(
            ErrorKind::OutOfBudget,
            format!("expected memory for {} elements, found none left", all.len()),
        )
    })?;
    out.resize(all.len(), zero);
    round(all, &mut out);
    Ok(out)
}
