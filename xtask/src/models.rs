//! `cargo xtask models`: loom explores the thread pool (`clawdbot-kernels/src/threads/models.rs`) and how events get to who reads
//! them (`clawdbot-core/src/engine/models.rs`).

use std::path::Path;

use crate::command::{cargo_command, execute, target};

const MODELS: [&[&str]; 2] = [
    &["--package", "clawdbot-kernels", "--lib", "threads::models"],
    &["--package", "clawdbot-core", "--features", "async", "--lib", "engine::models"],
];

/// Runs the models.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    MODELS.into_iter().try_for_each(|models| {
        let mut command = cargo_command(root, &[&["test"], models].concat());
        // Other flags, so other builds of everything: in a directory of their own.
        execute(command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target(root).join("loom")))
    })
}
