//! The source files of a crate: their paths, modules and code.

use std::path::{Path, PathBuf};

pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The source files below `directory`, without those of tests, which may use anything.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem.starts_with("tests") || ["simulation", "testing", "trap"].contains(&&*stem) {
            continue;
        }
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") && stem != "lib" {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `forward/mixers/mod.rs` -> `[forward, mixers]`
pub(crate) fn module(source: &Path, file: &Path) -> Vec<String> {
    let path = file.strip_prefix(source).unwrap_or(file).with_extension("");
    let parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").collect()
}

/// A file without its comments and tests.
pub(crate) fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n");
    let code: String = lines.collect();
    code.split("\nmod tests {").next().unwrap_or_default().to_owned()
}
