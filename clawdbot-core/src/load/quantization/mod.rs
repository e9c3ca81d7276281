//! Quantized safetensors directories: what `quantization_config` says of a module, and its tensors as a matrix.
//!
//! A projection `M` of `n` outputs and `k` inputs is stored as (words are I32, `b` the bits of a code, `g` the groups):
//! ```text
//! compressed-tensors  M.weight [n, k] I8, or M.weight_packed [n, k b / 32] words; M.weight_scale [n, g];
//!                     M.weight_zero_point [n, g] I8, or packed along n; M.weight_g_idx [k]
//!                     M.weight [n, k] F8_E4M3; M.weight_scale [1], [n, 1] or [blocks of n, blocks of k]
//!                     M.weight_packed [n, k / 2] U8; M.weight_scale [n, k / 32] (MXFP4) or [n, k / 16] (NVFP4);
//!                     M.weight_global_scale [1] (NVFP4)
//! GPTQ                M.qweight [k b / 32, n] words; M.qzeros [g, n b / 32] words; M.scales [g, n]; M.g_idx [k]
//! AWQ (gemm)          M.qweight [k, n / 8] words; M.qzeros [g, n / 8] words; M.scales [g, n]
//! FP8                 M.weight [n, k] F8_E4M3; M.weight_scale_inv [blocks of n, blocks of k], or M.weight_scale
//! ```
//! Whether a module is quantized follows from its tensors, how it is from the configuration; where these contradict each other
//! the model is refused. Activations are quantized as everywhere (per token and group, at run time), whatever the
//! configuration says of them.
//! Sources: <https://github.com/vllm-project/compressed-tensors>, <https://github.com/ModelCloud/GPTQModel>,
//! <https://github.com/casper-hansen/AutoAWQ>.

mod floats;
mod int_rows;
mod ints;
mod scales;
mod scheme;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use clawdbot_kernels::{ComputeFormat, RowSource};

use self::floats::{Fp4Tensor, Fp8Tensor};
use self::int_rows::IntMatrix;
use self::ints::IntTensor;
use self::scheme::Method;
pub(crate) use self::scheme::Quantization;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::config::ModelConfig;
use crate::spec::tensors::{MatrixName, PartStorage};
use crate::spec::{DecoderSpec, registry};
use crate::weights::{Dtype, MatrixSize, WeightSource, quoted};

/// What the name of a projection's matrix ends with.
const WEIGHT: &str = ".weight";
/// Tensors of a quantized module besides those that are read: of static activations, and shapes, which are known.
const OTHERS: [&str; 7] = [
    "weight_shape",
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "input_scale_ub",
    "output_scale",
    "g_idx",
];

/// Tensors that only quantized modules have.
const CODES: [&str; 4] = ["qweight", "weight_packed", "weight_scale", "weight_scale_inv"];

/// Reads a model's configuration. Weights in a foreign quantization would be misread, so that is looked at first.
///
/// # Errors
/// As [`registry::parse_spec`].
pub(crate) fn parse_spec(config: &ModelConfig) -> Result<DecoderSpec> {
    parse_quantization(config)?;
    registry::parse_spec(config)
}

/// How the configuration says the matrices are quantized; `None` if not, or in a way that is part of the architecture.
///
/// # Errors
/// As [`registry::parse_spec`].
pub(crate) fn parse_quantization(config: &ModelConfig) -> Result<Option<Quantization>> {
    let (text, own) = registry::text_config(config)?;
    Quantization::parse(text.as_ref().unwrap_or(config), own)
}

/// The tensors of a directory, and how they are quantized.
#[derive(Debug)]
pub(crate) struct FileWeights {
    pub(crate) source: WeightSource,
    pub(crate) quantization: Option<Quantization>,
}

impl From<WeightSource> for FileWeights {
    /// Of a source that is not quantized.
    fn from(source: WeightSource) -> Self {
        FileWeights { source, quantization: None }
    }
}

/// The tensors of a quantized module: there, and of the right shapes and types.
enum QuantizedTensor<'a> {
    Int(IntTensor<'a>),
    Fp8(Fp8Tensor<'a>),
    Fp4(Fp4Tensor<'a>),
}

impl FileWeights {
    /// The quantized tensors of the matrix `tensor`, seen as `[n, k]` where `k` is its last dimension; `None` if it is
    /// not quantized.
    ///
    /// # Errors
    /// `InvalidModel` for tensors that are missing, of another shape or contradict the configuration;
    /// `UnsupportedModel` for types and layouts that are not read.
    fn quantized(&self, tensor: &str, shape: &[usize]) -> Result<Option<QuantizedTensor<'_>>> {
        let (Some(quantization), Some(module)) = (&self.quantization, tensor.strip_suffix(WEIGHT)) else {
            return Ok(None);
        };
        let &[n, k] = shape else { return Ok(None) };
        let size = MatrixSize { n, k };
        let files = &self.source;
        let dtype = files.tensor(tensor).map(|tensor| tensor.dtype);
        let has = |suffix: &str| files.tensor(&format!("{module}.{suffix}")).is_some();
        let tensor = match quantization.method {
            Method::Gptq(args) if has("qweight") => {
                QuantizedTensor::Int(IntTensor::gptq(files, module, size, args)?)
            }
            Method::Awq { group } if has("qweight") => {
                QuantizedTensor::Int(IntTensor::awq(files, module, size, group)?)
            }
            Method::Fp8 { block } if dtype == Some(Dtype::F8_E4M3) => {
                QuantizedTensor::Fp8(Fp8Tensor::open(files, module, size, block)?)
            }
            Method::CompressedTensors
                if has("weight_packed") || matches!(dtype, Some(Dtype::I8 | Dtype::F8_E4M3)) =>
            {
                self.compressed(quantization, module, size)?
            }
            _ if has("weight_scale") || has("weight_scale_inv") => {
                let name = quoted(module);
                let found = dtype.map_or_else(|| "no weight".to_owned(), |dtype| dtype.to_string());
                return Err(Error::unsupported_model(format!(
                    "module {name}: expected a weight of the configured quantization with its scales, found {found}"
                ))
                .with("module", module));
            }
            _ => return Ok(None),
        };
        Ok(Some(tensor))
    }

    fn compressed(
        &self,
        quantization: &Quantization,
        module: &str,
        size: MatrixSize,
    ) -> Result<QuantizedTensor<'_>> {
        let files = &self.source;
        Ok(match quantization.scheme(module)? {
            scheme::Scheme::Int(args) => {
                QuantizedTensor::Int(IntTensor::compressed(files, module, size, args)?)
            }
            scheme::Scheme::Fp8 { block } => {
                QuantizedTensor::Fp8(Fp8Tensor::open(files, module, size, Some(block))?)
            }
            scheme::Scheme::Fp4(kind) => QuantizedTensor::Fp4(Fp4Tensor::open(files, module, size, kind)?),
        })
    }

    /// The rows of `tensor`, of `shape`, if it is quantized.
    ///
    /// # Errors
    /// As `WeightSource::matrix`; `InvalidModel` for scales that are not finite and groups that do not exist.
    pub(crate) fn rows(&self, tensor: &str, shape: &[usize]) -> Result<Option<Box<dyn RowSource + '_>>> {
        Ok(match self.quantized(tensor, shape)? {
            Some(QuantizedTensor::Int(tensor)) => Some(Box::new(IntMatrix::read(tensor)?)),
            Some(QuantizedTensor::Fp8(tensor)) => Some(Box::new(tensor.read()?)),
            Some(QuantizedTensor::Fp4(tensor)) => Some(Box::new(tensor.read()?)),
            None => None,
        })
    }

    /// Whether the files have codes for the matrix `tensor` that are not elements.
    pub(crate) fn is_quantized(&self, tensor: &str) -> bool {
        let module = tensor.strip_suffix(WEIGHT).unwrap_or(tensor);
        self.quantization.is_some()
            && CODES.iter().any(|suffix| self.source.tensor(&format!("{module}.{suffix}")).is_some())
    }

    /// Checks the tensors of `tensor`, of `shape`, if it is quantized, and adds their names to `used`. Whether it is.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), but for the values.
    pub(crate) fn check(&self, tensor: &str, shape: &[usize], used: &mut HashSet<String>) -> Result<bool> {
        let names = match self.quantized(tensor, shape)? {
            Some(QuantizedTensor::Int(tensor)) => tensor.names(),
            Some(QuantizedTensor::Fp8(tensor)) => tensor.names(),
            Some(QuantizedTensor::Fp4(tensor)) => tensor.names(),
            None => return Ok(false),
        };
        used.extend(names.into_iter().map(str::to_owned));
        let module = tensor.strip_suffix(WEIGHT).unwrap_or(tensor);
        used.extend(OTHERS.map(|suffix| format!("{module}.{suffix}")));
        Ok(true)
    }

    /// In which format a matrix's own codes are computed with; `None` where they are converted, and of floats.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn compute_format(&self, name: &MatrixName) -> Result<Option<ComputeFormat>> {
        let (tensor, shape) = match name.part.as_deref() {
            None => (&name.name, &[name.n, name.k][..]),
            Some(part) if part.storage == PartStorage::Rows => (&part.tensor, part.shape.as_slice()),
            // Its rows are columns here.
            Some(_) => return Ok(None),
        };
        Ok(match self.quantized(tensor, shape)? {
            Some(QuantizedTensor::Int(tensor)) => tensor.compute_format(),
            Some(QuantizedTensor::Fp4(tensor)) => Some(tensor.compute_format()),
            Some(QuantizedTensor::Fp8(_)) | None => None,
        })
    }

    /// The name of the format in which a matrix is stored.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn stored_format(&self, name: &MatrixName) -> Result<String> {
        let (tensor, shape) = match name.part.as_deref() {
            None => (&name.name, &[name.n, name.k][..]),
            Some(part) if matches!(part.storage, PartStorage::Mxfp4) => return Ok("MXFP4".to_owned()),
            Some(part) => (&part.tensor, part.shape.as_slice()),
        };
        Ok(match self.quantized(tensor, shape)? {
            Some(QuantizedTensor::Int(tensor)) => tensor.format_name(),
            Some(QuantizedTensor::Fp8(tensor)) => tensor.format_name(),
            Some(QuantizedTensor::Fp4(tensor)) => tensor.format_name().to_owned(),
            None => {
                let tensor = self.source.tensor(tensor);
                tensor.map_or_else(|| "none".to_owned(), |tensor| tensor.dtype.to_string())
            }
        })
    }

    /// Checks that biases which quantizers write for modules without one are zeros.
    ///
    /// # Errors
    /// `UnsupportedModel` for one of `unused` that is not.
    pub(crate) fn check_unused_biases(&self, unused: &[String]) -> Result<()> {
        if self.quantization.is_none() {
            return Ok(());
        }
        for name in unused {
            let Some(module) = name.strip_suffix(".bias") else { continue };
            let Some(bias) = self.source.tensor(name) else { continue };
            if self.source.tensor(&format!("{module}.qweight")).is_some()
                && bias.read()?.iter().any(|&byte| byte != 0)
            {
                let message = "expected zeros, as the architecture has no bias there";
                return Err(bias.error(ErrorKind::UnsupportedModel, message));
            }
        }
        Ok(())
    }
}
