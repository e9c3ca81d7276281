//! What several tests need.

use std::path::PathBuf;

/// A file or directory of the conformance material, which is not part of the repository: `$CLAWDBOT_SHARED`, or
/// `shared` beside the repository. `None`, with a line that says so, where it is not there.
pub fn shared(sub: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CLAWDBOT_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let path = root.join(sub);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} not found", path.display());
    None
}
