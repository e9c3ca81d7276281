//! The error type of kernels, memory and threads.

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can fail here. Nothing aborts: sizes are checked before memory is allocated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of range: a size of a group, the name of a set of kernels.
    #[error("{0}")]
    InvalidArgument(String),
    /// Weights are inconsistent or not finite.
    #[error("{message}")]
    InvalidWeights {
        /// What was expected, and what was found.
        message: String,
        /// The row of the matrix, if one is at fault.
        row: Option<usize>,
    },
    /// Not supported on this machine.
    #[error("{0}")]
    Unsupported(String),
    /// A size overflows, or the system has no memory.
    #[error("{message}")]
    OutOfMemory {
        /// What could not be allocated.
        message: String,
        /// Bytes that were requested.
        bytes: Option<u64>,
    },
    /// The process is a fork of the one that made the pool: its threads do not exist here.
    #[error(
        "this process was forked after the runtime was made; make a new runtime and load the model in the child"
    )]
    Forked {
        /// The process that made the pool.
        pool_pid: u32,
        /// This process.
        pid: u32,
    },
    /// The system cannot start a thread.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The system does not let a thread or memory be where it should be.
    #[error("the system refuses {what}: {error}")]
    Placement {
        /// To do what.
        what: &'static str,
        /// Its reason.
        #[source]
        error: std::io::Error,
    },
    /// A source of rows or panels failed: its own error.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// A bug: please report it.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn invalid_weights(message: impl Into<String>) -> Self {
        Error::InvalidWeights { message: message.into(), row: None }
    }

    pub(crate) fn invalid_row(row: usize, message: impl Into<String>) -> Self {
        Error::InvalidWeights { message: message.into(), row: Some(row) }
    }

    pub(crate) fn out_of_memory(message: impl Into<String>) -> Self {
        Error::OutOfMemory { message: message.into(), bytes: None }
    }
}
