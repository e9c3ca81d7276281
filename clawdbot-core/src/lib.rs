//! clawdbot runs language models inside your program, on the CPU it has.
#![deny(unsafe_code)]

mod error;
mod memory;
mod model;
mod threads;
mod weights;

pub use error::{Error, ErrorKind, Result};
