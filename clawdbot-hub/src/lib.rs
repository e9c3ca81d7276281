//! Downloads of models from Hugging Face and ModelScope, into the caches that their own tools use.
//!
//! ```no_run
//! use clawdbot_hub::{ModelId, Request, Settings, fetch};
//!
//! let id = ModelId::parse("Qwen/Qwen3-0.6B")?;
//! let settings = Settings::from_env(id.site())?;
//! let mut request = Request::new(id);
//! request.small_files = vec!["config.json".into(), "tokenizer.json".into()];
//! let snapshot = fetch(&settings, &request, |progress| {
//!     eprintln!("{} of {} bytes", progress.bytes, progress.total_bytes);
//!     true
//! })?;
//! println!("{}", snapshot.path.display());
//! # Ok::<(), clawdbot_hub::Error>(())
//! ```
//!
//! Only the files that the model needs are downloaded, and never a pickle. The hub's list of files is the plan: its
//! sizes add up to the total of the progress and must fit on the disk, and downloaded files must have its checksums.
//! Interrupted downloads resume where they stopped. Two processes that need the same file wait for each other. The
//! token is sent to the hub only, not to servers that it redirects to.
#![forbid(unsafe_code)]

mod cache;
mod checksum;
mod control;
mod download;
mod error;
mod fetch;
mod http;
mod id;
mod json;
mod listing;
mod lock;
mod reference;
mod select;
mod settings;

pub use control::Progress;
pub use error::{Error, ErrorKind, Result};
pub use fetch::{Request, Snapshot, fetch, fetch_with_warnings};
pub use id::{ModelId, Site};
pub use reference::{Reference, hint};
pub use settings::Settings;
