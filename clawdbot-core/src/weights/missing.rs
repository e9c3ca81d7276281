//! What is said of tensors and files that are not there.

use std::path::Path;

use super::safetensors::quoted;
use super::shards::{INDEX_FILE, SINGLE_FILE, WeightSource};
use crate::error::{Error, ErrorKind};

/// File name endings that hold weights in formats that are not read.
const OTHER_FORMATS: &[&str] = &["bin", "pth", "pt"];

impl WeightSource {
    pub(super) fn missing(&self, name: &str) -> Error {
        let similar = self.similar(name);
        let hint =
            if similar.is_empty() { String::new() } else { format!("; similar: {}", similar.join(", ")) };
        Error::invalid_model(format!("{}: expected a tensor {}, found none{hint}", self.name, quoted(name)))
            .with("tensor", name)
    }

    /// Up to three names that share most of their beginning and end with `name`.
    fn similar(&self, name: &str) -> Vec<String> {
        let same = |pair: &(u8, u8)| pair.0 == pair.1;
        let mut scored: Vec<(usize, &str)> = Vec::new();
        for candidate in self.names() {
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
}

pub(super) fn not_found(dir: &Path) -> Error {
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
