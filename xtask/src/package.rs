//! `cargo xtask package`: what would be published builds by itself and is small.

use std::path::Path;

use crate::command::{cargo, target};

/// In the order in which they are published.
pub(crate) const PACKAGES: &[&str] = &[
    "clawdbot-kernels",
    "clawdbot-hub",
    "clawdbot-core",
    "clawdbot-server",
    "clawdbot-cli",
    "clawdbot-capi",
];

/// The most that crates.io takes, in bytes.
const MOST_BYTES: u64 = 10 << 20;

/// Packs the crates, builds what was packed, and looks at the sizes.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut arguments = vec!["package", "--allow-dirty"];
    arguments.extend(PACKAGES.iter().flat_map(|package| ["--package", package]));
    cargo(root, &arguments)?;
    let directory = target(root).join("package");
    let mut large = Vec::new();
    for package in PACKAGES {
        let path = directory.join(format!("{package}-{}.crate", env!("CARGO_PKG_VERSION")));
        let bytes = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
        println!("{package:18} {:6.2} MiB", bytes as f64 / f64::from(1 << 20));
        if bytes > MOST_BYTES {
            large.push(format!("{package}: expected at most {MOST_BYTES} bytes, found {bytes}"));
        }
    }
    if large.is_empty() { Ok(()) } else { Err(large.join("\n")) }
}
