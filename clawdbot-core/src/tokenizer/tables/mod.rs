//! The large parts of a tokenizer as tables that are used as they lie in a packed file: nothing is parsed, sorted or put
//! into a map when the file is opened. [`Blob`] has the layout of the bytes.
//!
//! The bytes are untrusted. Opening checks every length, offset and index once, in linear time. What the hash tables say
//! is not checked: every probe is bounded (`hash.rs`), so wrong ones give wrong tokens and nothing worse.

mod blob;
mod bpe;
mod build;
mod hash;
mod model;
mod settings;
#[cfg(test)]
pub(super) mod tests;
mod trie;
mod unigram;
mod vocab;

pub(super) use blob::{Blob, VERSION, version};
pub(crate) use build::NoTables;
pub(super) use build::{Parts, bytes, check};
pub(super) use model::TableModel;
pub(super) use settings::Settings;

/// Kinds of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bpe,
    Unigram,
    WordPiece,
    WordLevel,
}

impl Kind {
    const ALL: [(Kind, &str); 4] = [
        (Kind::Bpe, "BPE"),
        (Kind::Unigram, "Unigram"),
        (Kind::WordPiece, "WordPiece"),
        (Kind::WordLevel, "WordLevel"),
    ];

    /// As in `tokenizer.json`.
    pub(super) fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The kind called `name`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Kind::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}
