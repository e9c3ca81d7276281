//! clawdbot runs language models inside your program, on the CPU it has.
#![deny(unsafe_code)]

#[cfg(feature = "bench-support")]
#[doc(hidden)]
pub mod bench_support;
mod error;
mod kernels;
mod memory;
mod threads;

pub use error::{Error, ErrorKind, Result};
