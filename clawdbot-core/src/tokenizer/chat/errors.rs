//! Errors of templates.

use minijinja::{Error, ErrorKind};

/// A template error in Python's words.
pub(super) fn type_error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
