//! `cargo xtask models`: loom explores the thread pool, see `clawdbot-kernels/src/threads/models.rs`.

use std::path::Path;

use crate::command::{cargo_command, execute, target};

/// Runs the models.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let arguments = ["test", "--package", "clawdbot-kernels", "--lib", "threads::models"];
    let mut command = cargo_command(root, &arguments);
    // Other flags, so other builds of everything: in a directory of their own.
    execute(command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target(root).join("loom")))
}
