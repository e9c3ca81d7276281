//! [candle](https://github.com/huggingface/candle)'s tensors in and out, with the feature `candle`.
//!
//! - Results as tensors: [`Model::logits_tensor`], [`Model::hidden_states_tensor`], [`Model::embed_tensor`].
//! - Weights from a `VarBuilder`: [`Runtime::load_var_builder`].
//! - [`Int8Linear`]: a linear layer of a candle program, computed in int8.
//!
//! Tensors are on the CPU. [`candle_core`] and [`candle_nn`] are those that this crate was built with. An [`Error`] becomes a
//! `candle_core::Error` with `?`, and [`from_candle`] makes it the same one again.
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
//! [`Model::logits_tensor`]: crate::Model::logits_tensor
//! [`Model::hidden_states_tensor`]: crate::Model::hidden_states_tensor
//! [`Model::embed_tensor`]: crate::Model::embed_tensor
//! [`Runtime::load_var_builder`]: crate::Runtime::load_var_builder

mod floats;
mod linear;
mod tensors;
mod var_builder;

pub use candle_core;
pub use candle_nn;

pub use self::linear::{Int8Linear, int8_linear, int8_linear_b, int8_linear_no_bias};
pub use self::var_builder::SmallFiles;
use crate::error::{Error, ErrorKind};

impl From<Error> for candle_core::Error {
    /// The message alone shows; the rest is there for the way back.
    fn from(error: Error) -> Self {
        // Of candle's variants, the one that keeps an error as it is and adds no text to it.
        candle_core::Error::Io(std::io::Error::other(error)).bt()
    }
}

/// What candle refuses, as an error of this library. What was an [`Error`] is that again. Of others: `NotFound` and `Io` for
/// files, `InvalidModel` for tensors that are missing or malformed in them, `InvalidArgument` for all that candle does not do
/// with the tensors it was given.
///
/// A function, because a second conversion to [`Error`] would leave the error type of closures with `?` open.
pub fn from_candle(error: candle_core::Error) -> Error {
    use candle_core::Error as E;
    match error {
        // A message is one line.
        E::WithBacktrace { inner, .. } => from_candle(*inner),
        E::WithPath { inner, path } => from_candle(*inner).context(path.display()),
        E::Context { inner, context } => from_candle(*inner).context(context),
        E::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(own) => own.clone(),
            None if error.kind() == std::io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, error.to_string())
            }
            None => Error::new(ErrorKind::Io, error.to_string()),
        },
        E::CannotFindTensor { .. } | E::SafeTensor(_) | E::UnsupportedSafeTensorDtype(_) => {
            Error::invalid_model(error.to_string())
        }
        error => Error::invalid_argument(format!("candle: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_way_through_candle() {
        let ours = Error::new(ErrorKind::OutOfBudget, "weights need 5 bytes").with("needed", 5);
        let theirs = candle_core::Error::from(ours);
        assert!(theirs.to_string().starts_with("weights need 5 bytes"), "{theirs}");
        let back = from_candle(theirs.context("layer 3"));
        assert_eq!((back.kind(), back.message()), (ErrorKind::OutOfBudget, "layer 3: weights need 5 bytes"));
        assert_eq!(back.detail()["needed"], 5);
    }

    #[test]
    fn errors_of_candle_get_a_kind() {
        use candle_core::Error as E;
        let file = std::io::Error::from(std::io::ErrorKind::NotFound);
        for (error, kind) in [
            (E::Io(file).with_path("a/b"), ErrorKind::NotFound),
            (E::Io(std::io::Error::other("torn")), ErrorKind::Io),
            (E::CannotFindTensor { path: "a.weight".to_owned() }.bt(), ErrorKind::InvalidModel),
            (E::Msg("no such thing".to_owned()), ErrorKind::InvalidArgument),
        ] {
            assert_eq!(from_candle(error).kind(), kind);
        }
        let missing = from_candle(E::Io(std::io::ErrorKind::NotFound.into()).with_path("a/b"));
        assert!(missing.message().starts_with("a/b: "), "{missing}");
    }
}
