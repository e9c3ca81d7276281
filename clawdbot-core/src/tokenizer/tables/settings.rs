//! The settings of a model with tables.

/// The settings of models of all kinds.
#[derive(Debug, Clone, Default)]
pub(in crate::tokenizer) struct Settings {
    pub(in crate::tokenizer) unk_token: Option<String>,
    /// Before all parts of a word but the first.
    pub(in crate::tokenizer) prefix: Option<String>,
    /// After the last part of a word.
    pub(in crate::tokenizer) suffix: Option<String>,
    pub(in crate::tokenizer) fuse_unk: bool,
    pub(in crate::tokenizer) byte_fallback: bool,
    pub(in crate::tokenizer) ignore_merges: bool,
    pub(in crate::tokenizer) unk_id: Option<usize>,
    /// Most characters of a word (WordPiece).
    pub(in crate::tokenizer) longest_word: usize,
}
