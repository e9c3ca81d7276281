//! A model whose tables are used as they lie in a packed file.

use std::collections::HashMap;

use tokenizers::Token;

use super::Kind;
use super::blob::Blob;
use super::bpe::TableBpe;
use super::settings::Settings;
use super::unigram::TableUnigram;
use super::vocab::TableVocab;
use crate::tokenizer::words::Splittable;

/// A model with tables.
#[derive(Debug)]
pub(in crate::tokenizer) enum TableModel {
    Bpe(Box<TableBpe>),
    Unigram(Box<TableUnigram>),
    Words(Box<TableWords>),
}

impl TableModel {
    /// # Errors
    /// With what was expected and found.
    pub(in crate::tokenizer) fn open(blob: &Blob, kind: Kind, settings: Settings) -> Result<Self, String> {
        let vocab = TableVocab::open(blob)?;
        Ok(match kind {
            Kind::Bpe => TableModel::Bpe(Box::new(TableBpe::open(vocab, settings)?)),
            Kind::Unigram => TableModel::Unigram(Box::new(TableUnigram::open(vocab, &settings)?)),
            Kind::WordPiece | Kind::WordLevel => {
                TableModel::Words(Box::new(TableWords { vocab, settings, whole: kind == Kind::WordLevel }))
            }
        })
    }

    fn vocab(&self) -> &TableVocab {
        match self {
            TableModel::Bpe(model) => &model.vocab,
            TableModel::Unigram(model) => &model.vocab,
            TableModel::Words(model) => &model.vocab,
        }
    }

    /// Number of tokens.
    pub(in crate::tokenizer) fn len(&self) -> usize {
        self.vocab().len()
    }

    /// Bytes of the longest token.
    pub(in crate::tokenizer) fn longest(&self) -> usize {
        self.vocab().longest
    }

    /// Characters of the longest token.
    pub(in crate::tokenizer) fn most_chars(&self) -> usize {
        self.vocab().most_chars
    }

    pub(in crate::tokenizer) fn largest_id(&self) -> Option<u32> {
        self.vocab().largest_id()
    }

    pub(in crate::tokenizer) fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocab().id_of(token)
    }

    pub(in crate::tokenizer) fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocab().text_of(id).map(str::to_owned)
    }

    pub(in crate::tokenizer) fn to_map(&self) -> HashMap<String, u32> {
        let mut map = HashMap::new();
        for index in 0..self.len() {
            if let (Some(text), Some(id)) = (self.vocab().text(index), self.vocab().id(index)) {
                map.insert(text.to_owned(), id);
            }
        }
        map
    }

    /// The tokens of a word. Their texts are left out.
    ///
    /// # Errors
    /// As those of the tokenizers crate: for unknown text without an unknown token.
    pub(in crate::tokenizer) fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            TableModel::Bpe(model) => model.tokenize(word),
            TableModel::Unigram(model) => model.tokenize(word),
            TableModel::Words(model) => model.tokenize(word),
        }
    }
}

/// WordPiece and WordLevel: tokens are looked up, and nothing else.
#[derive(Debug)]
pub(in crate::tokenizer) struct TableWords {
    vocab: TableVocab,
    settings: Settings,
    /// Whether a word is one token.
    whole: bool,
}

impl TableWords {
    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        let pieces = match self.whole {
            true => self.vocab.id_of(word).map(|id| vec![Token::new(id, String::new(), (0, word.len()))]),
            false => self.pieces(word),
        };
        if let Some(pieces) = pieces {
            return Ok(pieces);
        }
        let unknown = self.settings.unk_token.as_deref().and_then(|token| self.vocab.id_of(token));
        let kind = if self.whole { "WordLevel" } else { "WordPiece" };
        let missing = || format!("{kind} error: Missing [UNK] token from the vocabulary");
        Ok(vec![Token::new(unknown.ok_or_else(missing)?, String::new(), (0, word.len()))])
    }

    /// The longest pieces from the left; `None` if there is none for a part of the word.
    fn pieces(&self, word: &str) -> Option<Vec<Token>> {
        if word.chars().count() > self.settings.longest_word {
            return None;
        }
        let prefix = self.settings.prefix.as_deref().unwrap_or_default();
        let (mut start, mut tokens) = (0, Vec::new());
        let mut text = String::new();
        while start < word.len() {
            text.clear();
            text.push_str(if start > 0 { prefix } else { "" });
            let before = text.len();
            text.push_str(&word[start..]);
            let id = loop {
                if text.len() == before {
                    return None;
                }
                if let Some(id) = self.vocab.id_of(&text) {
                    break id;
                }
                text.pop();
            };
            let end = start + text.len() - before;
            tokens.push(Token::new(id, String::new(), (start, end)));
            start = end;
        }
        Some(tokens)
    }
}
