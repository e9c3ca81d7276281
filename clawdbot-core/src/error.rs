//! The one error type: a stable number, a kind, a message a person can act on, and structured detail.
//!
//! [`ErrorKind`] is the table that the C constants and the Python exception classes are derived from.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! error_kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// What went wrong, as a class. The numbers are stable and never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum ErrorKind { $($(#[doc = $doc])+ $name = $code,)+ }

        impl ErrorKind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$name,)+];

            /// The kind's name as written in Rust (and, in other notations, in C and Python).
            pub const fn name(self) -> &'static str {
                match self { $(ErrorKind::$name => stringify!($name),)+ }
            }

            /// One line on what the kind means.
            pub fn summary(self) -> &'static str {
                match self { $(ErrorKind::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

error_kinds! {
    /// An argument or option has a value that is out of range or of the wrong type.
    InvalidArgument = 1,
    /// An option of that name does not exist.
    UnknownOption = 2,
    /// A file or directory that is needed does not exist.
    NotFound = 3,
    /// The operating system refused to read or map a file, or to start a thread.
    Io = 4,
    /// A model file is malformed, truncated or inconsistent with its configuration.
    InvalidModel = 5,
    /// The model is well formed, but uses an architecture or a feature that is not supported.
    UnsupportedModel = 6,
    /// The tokenizer files are malformed or do not belong to the model.
    InvalidTokenizer = 7,
    /// The chat template does not compile or failed while rendering.
    InvalidTemplate = 8,
    /// The model has no chat template, so messages cannot be rendered.
    MissingTemplate = 9,
    /// The chat template itself refused the conversation (its `raise_exception`).
    TemplateRaised = 10,
    /// The prompt has no tokens and the model has no beginning-of-sequence token to start from.
    EmptyPrompt = 11,
    /// Prompt and requested tokens do not fit into the context.
    ContextOverflow = 12,
    /// The memory budget does not allow it.
    OutOfBudget = 13,
    /// The work was cancelled.
    Cancelled = 14,
    /// The object was closed, or its last request failed and left it without state.
    Closed = 15,
    /// The process was forked after the runtime had started; the child must make its own.
    ForkedRuntime = 16,
    /// Text that must be UTF-8 is not.
    InvalidUtf8 = 17,
    /// A required pointer is null.
    NullPointer = 18,
    /// The model produced logits that are not finite numbers.
    NonFinite = 19,
    /// A bug in clawdbot: please report it.
    Internal = 20,
    /// A download failed: the hub cannot be reached, keeps failing, or sends what does not match its checksum.
    Download = 21,
    /// The hub refuses: a token is missing or invalid, or has no right to read a private or gated repository.
    AccessDenied = 22,
    /// As many requests wait as may (`max_queue`): try again later.
    Overloaded = 23,
    /// A constraint on the output (a JSON Schema, a regular expression, a grammar, choices) is malformed, uses what is not
    /// enforced, or is too large.
    InvalidConstraint = 24,
}

impl ErrorKind {
    /// The stable number.
    pub fn code(self) -> i32 {
        self as i32
    }
}

/// An error: kind, message, structured detail, and the system error that caused it, if there is one
/// ([`source`](std::error::Error::source)). Cheap to move (one pointer).
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    detail: Map<String, Value>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error of `kind`. The message says what was expected and what was found.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), detail: Map::new(), source: None }))
    }

    /// Adds a field to the structured detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.detail.insert(key.to_owned(), value.into());
        self
    }

    /// Puts `prefix: ` in front of the message, to say where it happened.
    #[must_use]
    pub fn context(mut self, prefix: impl fmt::Display) -> Self {
        self.0.message = format!("{prefix}: {}", self.0.message);
        self
    }

    /// Sets the error that caused this one.
    fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Replaces the message.
    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.0.message = message;
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable number of the kind.
    pub fn code(&self) -> i32 {
        self.0.kind.code()
    }

    /// The message, without the kind.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Structured detail, for programs.
    pub fn detail(&self) -> &Map<String, Value> {
        &self.0.detail
    }

    /// An I/O error on `path`: `NotFound` if it does not exist, `Io` otherwise.
    pub(crate) fn io(path: &std::path::Path, error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        let message = format!("{}: {error}", path.display());
        Error::new(kind, message).with("path", path.display().to_string()).caused_by(error)
    }
}

impl Error {
    /// An I/O error of what is called `name` and may have no path.
    pub(crate) fn stream(name: &str, error: std::io::Error) -> Self {
        Error::new(ErrorKind::Io, format!("{name}: {error}")).caused_by(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

// By hand: with an `Arc` as source, `thiserror` would return the `Arc`, which cannot be downcast to the error in it.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<clawdbot_kernels::Error> for Error {
    fn from(error: clawdbot_kernels::Error) -> Self {
        use clawdbot_kernels::Error as Kernels;
        let kind = match &error {
            Kernels::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Kernels::InvalidWeights { .. } => ErrorKind::InvalidModel,
            Kernels::Unsupported(_) => ErrorKind::UnsupportedModel,
            Kernels::OutOfMemory { .. } => ErrorKind::OutOfBudget,
            Kernels::Forked { .. } => ErrorKind::ForkedRuntime,
            Kernels::Thread(_) | Kernels::Placement { .. } => ErrorKind::Io,
            _ => ErrorKind::Internal,
        };
        let plain = Error::new(kind, error.to_string());
        match error {
            Kernels::InvalidWeights { row: Some(row), .. } => plain.with("row", row),
            Kernels::OutOfMemory { bytes: Some(bytes), .. } => plain.with("bytes", bytes),
            Kernels::Thread(error) | Kernels::Placement { error, .. } => plain.caused_by(error),
            Kernels::Forked { pool_pid, pid } => plain.with("runtime_pid", pool_pid).with("pid", pid),
            // An error of a row source, which the kernels pass through.
            Kernels::Source(source) => source.downcast::<Error>().map_or(plain, |error| *error),
            _ => plain,
        }
    }
}

impl From<Error> for clawdbot_kernels::Error {
    fn from(error: Error) -> Self {
        clawdbot_kernels::Error::Source(Box::new(error))
    }
}

macro_rules! shorthand {
    ($($function:ident => $kind:ident),+ $(,)?) => {
        impl Error {
            $(#[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
            pub(crate) fn $function(message: impl Into<String>) -> Self {
                Error::new(ErrorKind::$kind, message)
            })+
        }
    };
}

shorthand! {
    invalid_argument => InvalidArgument,
    invalid_model => InvalidModel,
    unsupported_model => UnsupportedModel,
    invalid_tokenizer => InvalidTokenizer,
    internal => Internal,
    invalid_constraint => InvalidConstraint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ascending() {
        let codes: Vec<i32> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
        assert_eq!(codes[0], 1, "0 means success in C");
    }

    #[test]
    fn system_errors_are_the_source() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = Error::io(std::path::Path::new("a"), missing).context("b");
        let source =
            std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::NotFound));
        assert!(std::error::Error::source(&Error::internal("c")).is_none());
    }

    #[test]
    fn errors_pass_through_the_kernels() {
        let found = Error::invalid_model("row 3").with("row", 3);
        let back = Error::from(clawdbot_kernels::Error::from(found));
        assert_eq!(
            (back.kind(), back.message(), &back.detail()["row"]),
            (ErrorKind::InvalidModel, "row 3", &3.into())
        );
        let error = clawdbot_kernels::memory::AlignedBuf::<f32>::zeroed(usize::MAX / 4).map(|_| ());
        let error = error.map_err(Error::from).expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::OutOfBudget);
        assert!(error.detail().contains_key("bytes"), "{error:?}");
    }

    #[test]
    fn context_and_detail_are_kept() {
        let error = Error::invalid_model("expected 3, found 4").with("found", 4).context("model.safetensors");
        assert_eq!(error.to_string(), "model.safetensors: expected 3, found 4");
        assert_eq!(error.detail()["found"], 4);
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
    }
}
