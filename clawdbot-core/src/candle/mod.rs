//! Interface to the tensors of [candle](https://github.com/huggingface/candle), with the feature `candle`.
//!
//! - Results as tensors: [`Model::logits_tensor`], [`Model::hidden_states_tensor`], [`Model::embed_tensor`].
//! - Weights from a `VarBuilder`: [`Runtime::load_var_builder`].
//! - [`Int8Linear`]: a linear layer of a candle program, computed in int8.
//!
//! Tensors are on the CPU. [`candle_core`] and [`candle_nn`] are the versions that this crate was built with. `?` turns
//! an [`Error`] into a `candle_core::Error`, and [`from_candle`] turns it back.
//!
//! ```
//! use clawdbot_core::candle::candle_core::{DType, Device, Tensor};
//! use clawdbot_core::candle::candle_nn::{Module, VarBuilder, VarMap, linear};
//! use clawdbot_core::candle::int8_linear;
//! use clawdbot_core::{Runtime, RuntimeOptions};
//!
//! # fn main() -> clawdbot_core::candle::candle_core::Result<()> {
//! let runtime = Runtime::new(&RuntimeOptions::default())?;
//! let weights = VarMap::new();
//! let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
//! let before = linear(256, 512, vb.clone())?;
//! let layer = int8_linear(256, 512, vb, &runtime)?;
//! let x = Tensor::randn(0_f32, 1.0, (3, 256), &Device::Cpu)?;
//! assert_eq!(layer.forward(&x)?.dims(), before.forward(&x)?.dims());
//! # Ok(())
//! # }
//! ```
//!
//! [`Error`]: crate::Error
//! [`Model::logits_tensor`]: crate::Model::logits_tensor
//! [`Model::hidden_states_tensor`]: crate::Model::hidden_states_tensor
//! [`Model::embed_tensor`]: crate::Model::embed_tensor
//! [`Runtime::load_var_builder`]: crate::Runtime::load_var_builder

mod error;
mod floats;
mod linear;
mod tensors;
mod var_builder;

pub use candle_core;
pub use candle_nn;

pub use self::error::from_candle;
pub use self::linear::{Int8Linear, int8_linear, int8_linear_b, int8_linear_no_bias};
pub use self::var_builder::SmallFiles;
