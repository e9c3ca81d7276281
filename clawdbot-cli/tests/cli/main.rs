//! The program as its users run it: arguments and stdin in; stdout, stderr and exit code out.
#![allow(clippy::unwrap_used, reason = "a test")]

mod adapters;
mod bench;
mod chat;
mod embed;
mod errors;
mod evaluate;
mod generate;
mod help;
#[cfg(feature = "hub")]
mod hub;
mod inspect;
#[cfg(unix)]
mod interrupt;
#[cfg(target_os = "linux")]
mod machine;
mod pack;
#[cfg(unix)]
mod serve;
#[cfg(target_os = "linux")]
#[path = "../../../clawdbot-core/tests/support/skipped.rs"]
#[allow(unreachable_pub, clippy::print_stdout, reason = "a module of several test crates")]
mod skipped;
#[cfg(unix)]
mod stdin;
mod support;
#[cfg(unix)]
mod terminal;
mod texts;
