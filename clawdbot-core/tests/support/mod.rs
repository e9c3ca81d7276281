//! Helpers of the integration tests.

#![allow(unreachable_pub, reason = "a module of each test crate, which exports nothing")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

/// The folder `sub` of the shared conformance material, if it is there. `CLAWDBOT_SHARED` says where to look instead
/// of beside the workspace. Prints why a test is skipped.
pub fn shared(sub: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CLAWDBOT_SHARED").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).to_path_buf(),
        PathBuf::from,
    );
    let path = root.join(sub);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} not found", path.display());
    None
}
