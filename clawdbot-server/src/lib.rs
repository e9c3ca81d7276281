//! Language models over HTTP: clawdbot's own interface, and OpenAI's.
//!
//! ```no_run
//! use clawdbot_core::{Driver, ModelPool, PoolModel, Runtime, RuntimeOptions, Source};
//! use clawdbot_server::{App, Settings, serve};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime::new(&RuntimeOptions::default().driver(Driver::Thread))?;
//! let pool = ModelPool::new(&runtime)?;
//! pool.add("stories", PoolModel::new(Source::Builtin, Default::default()))?;
//! let app = App::new(pool, Settings::default())?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! serve(app, listener, std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is inferred here: a request is converted, the core is called, its answer is converted back. [`router`] is for
//! programs that have a server of their own.
#![forbid(unsafe_code)]

mod access;
mod answers;
mod anthropic;
mod app;
mod body;
mod caller;
mod config;
mod counters;
mod fault;
mod fields;
mod health;
mod ids;
mod kept;
mod keyed;
mod keys;
mod listen;
mod metrics;
mod native;
mod openai;
mod prompt;
mod record;
mod rerank;
mod router;
mod settings;
mod sse;
mod store;
#[cfg(feature = "tls")]
mod tls;
mod tokens;

pub use app::App;
pub use config::{Config, ConfigModel, ConfigTls};
pub use keys::{KeyLimits, new_key};
pub use listen::{Listener, serve};
pub use record::AccessRecord;
pub use router::router;
pub use settings::{Fields as FieldPolicy, MetricsDialect, Settings};
#[cfg(feature = "tls")]
pub use tls::{Pem, Tls, TlsError, TlsEvent, TlsOptions, TlsStack};
