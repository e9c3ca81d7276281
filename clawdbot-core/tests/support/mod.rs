//! Helpers of the integration tests.

#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    reason = "a module of each test crate, which exports nothing and uses some"
)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "limits and waiting are system calls")]
pub mod child;

/// Elsewhere without limits.
#[cfg(not(target_os = "linux"))]
pub mod child {
    /// As on Linux.
    pub struct Limits {
        pub address_space: u64,
        pub peak: u64,
        pub cpu: u64,
    }

    impl Default for Limits {
        fn default() -> Self {
            Limits { address_space: 3000, peak: 400, cpu: 5 }
        }
    }

    pub fn in_child<F: FnOnce()>(_limits: Limits, body: F) {
        body();
    }
}

pub mod load;
pub mod mtp;
mod skipped;

use std::path::{Path, PathBuf};

pub use skipped::skipped;

/// The folder `sub` of the shared conformance material, if it is there. `CLAWDBOT_SHARED` says where to look instead
/// of next to the workspace. Without it a test is skipped, and says so.
pub fn shared(sub: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CLAWDBOT_SHARED").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).to_path_buf(),
        PathBuf::from,
    );
    let path = root.join(sub);
    if path.exists() {
        return Some(path);
    }
    skipped(&format!("{sub}: not there (CLAWDBOT_SHARED)"));
    None
}

/// Small models of published families, made by `tools/fixtures`.
const FAMILIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models");

/// The folders in `folder` by name.
fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut found: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).collect();
    found.sort();
    found
}

/// The small models of published families by name.
pub fn families() -> Vec<(String, PathBuf)> {
    folders(Path::new(FAMILIES))
}

/// Those, and further ones that are not the project's, where they are.
pub fn all_families() -> Vec<(String, PathBuf)> {
    let mut found = families();
    found.extend(shared("conformance/models").iter().flat_map(|folder| folders(folder)));
    found
}

/// The folder of one of [`families`].
pub fn family(name: &str) -> PathBuf {
    let folder = Path::new(FAMILIES).join(name);
    assert!(folder.exists(), "{} is missing", folder.display());
    folder
}

/// A copy of a model directory, to be changed, and removed in the end.
pub struct Copy(PathBuf);

impl Copy {
    /// Copies the files of `dir` to a temporary directory.
    pub fn of(dir: &Path, name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("clawdbot-{}-{name}", std::process::id()));
        copy(dir, &path);
        Copy(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Changes a JSON file.
    pub fn edit(&self, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.0.join(file);
        let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    }

    /// Changes a text file.
    pub fn edit_text(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.0.join(file);
        let text = change(std::fs::read_to_string(&path).unwrap());
        std::fs::write(path, text).unwrap();
    }
}

fn copy(dir: &Path, target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let place = target.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::write(place, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
