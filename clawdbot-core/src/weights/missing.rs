//! Errors about tensors and files that are not there.

use std::path::Path;

use super::index::{INDEX_FILE, SINGLE_FILE};
use super::safetensors::quoted;
use crate::error::{Error, ErrorKind};

/// File name endings that hold weights in formats that are not read.
const OTHER_FORMATS: &[&str] = &["bin", "pth", "pt"];

/// There is no tensor `name` in `source`, which has `names`.
pub(super) fn no_tensor<'a>(source: &str, name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let similar = similar(name, names);
    let hint = if similar.is_empty() { String::new() } else { format!("; similar: {}", similar.join(", ")) };
    Error::invalid_model(format!("{source}: expected a tensor {}, found none{hint}", quoted(name)))
        .with("tensor", name)
}

/// Up to three of `names` that share most of their beginning and end with `name`.
fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let same = |pair: &(u8, u8)| pair.0 == pair.1;
    let mut scored: Vec<(usize, &str)> = Vec::new();
    for candidate in names {
        let (a, b) = (name.as_bytes(), candidate.as_bytes());
        let prefix = a.iter().copied().zip(b.iter().copied()).take_while(same).count();
        let suffix = a.iter().rev().copied().zip(b.iter().rev().copied()).take_while(same).count();
        let score = (prefix + suffix).min(a.len());
        if score * 3 >= a.len().max(b.len()) * 2 {
            scored.push((score, candidate));
        }
    }
    scored.sort_by_key(|&(score, _)| std::cmp::Reverse(score));
    scored.iter().take(3).map(|(_, name)| quoted(name)).collect()
}

/// There are no weights in `dir` that could be loaded.
pub(super) fn no_weights(dir: &Path) -> Error {
    let mut message = format!("{}: expected {SINGLE_FILE} or {INDEX_FILE}, found neither", dir.display());
    let mut others: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| OTHER_FORMATS.contains(&extension))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    others.sort();
    if !others.is_empty() {
        others.truncate(3);
        message.push_str(&format!(", but {}: formats that are not supported yet", others.join(", ")));
    }
    let gguf = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    if let Some(path) =
        gguf.filter(|path| path.extension().is_some_and(|extension| extension == "gguf")).min()
    {
        message.push_str(&format!("; a GGUF file is loaded by its own path: {}", path.display()));
    }
    Error::new(ErrorKind::NotFound, message).with("path", dir.display().to_string())
}
