//! Errors of this library as candle's, and back.

use crate::error::{Error, ErrorKind};

impl From<Error> for candle_core::Error {
    /// Only the message is displayed; the rest is kept for the way back.
    fn from(error: Error) -> Self {
        // The one variant of candle that keeps an error without adding text.
        candle_core::Error::Io(std::io::Error::other(error)).bt()
    }
}

/// Converts an error of candle. An [`Error`] that was converted to candle's becomes itself again. Others: `NotFound`
/// and `Io` for files, `InvalidModel` for tensors that are missing or malformed in them, `InvalidArgument` for
/// operations that candle refuses.
///
/// A function, because with a second conversion to [`Error`] the error type of closures with `?` would be ambiguous.
pub fn from_candle(error: candle_core::Error) -> Error {
    use candle_core::Error as E;
    match error {
        // Messages are one line.
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
    fn errors_survive_conversion_to_candle() {
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
