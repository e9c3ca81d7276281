//! The model of a `tokenizer.json`, and the type of the tokenizer around it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::{DecoderWrapper, Model, PostProcessorWrapper, Token, TokenizerImpl};

use crate::tokenizer::pipeline::{Normalizers, PreTokenizers, work};
use crate::tokenizer::tables::TableModel;
use crate::tokenizer::words::Words;

/// The tokenizer for encoding; the decoder is separate.
pub(in crate::tokenizer) type Encoder =
    TokenizerImpl<ReadModel, Normalizers, PreTokenizers, PostProcessorWrapper, DecoderWrapper>;

/// A model, and its largest id.
pub(in crate::tokenizer) struct ReadModel {
    model: AnyModel,
    pub(super) largest_id: Option<u32>,
    /// Which text is certain to become tokens.
    pub(in crate::tokenizer) covers: Covers,
    words: Words,
}

/// Where the tokens are.
pub(in crate::tokenizer) enum AnyModel {
    /// In maps of the tokenizers crate.
    Maps(Box<ModelWrapper>),
    /// In the tables of a packed file.
    Tables(TableModel),
}

impl<M: Into<ModelWrapper>> From<M> for AnyModel {
    fn from(model: M) -> Self {
        AnyModel::Maps(Box::new(model.into()))
    }
}

impl ReadModel {
    pub(super) fn new(model: AnyModel, largest_id: Option<u32>, covers: Covers) -> Self {
        ReadModel { model, largest_id, covers, words: Words::default() }
    }

    /// Whether it is a BPE model.
    pub(in crate::tokenizer) fn is_bpe(&self) -> bool {
        match &self.model {
            AnyModel::Maps(model) => matches!(**model, ModelWrapper::BPE(_)),
            AnyModel::Tables(model) => matches!(model, TableModel::Bpe(_)),
        }
    }

    /// The model in maps.
    #[cfg(test)]
    pub(in crate::tokenizer) fn maps(&self) -> Option<&ModelWrapper> {
        match &self.model {
            AnyModel::Maps(model) => Some(model),
            AnyModel::Tables(_) => None,
        }
    }
}

/// Which text certainly becomes tokens, and how long these are at most. Unknown characters may be skipped, or become
/// one token together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tokenizer) enum Covers {
    Unknown,
    /// Every character, in tokens of at most this many bytes.
    Text(usize),
    /// Every character of byte-level text, in tokens of at most this many.
    ByteLevel(usize),
    /// Every word, in one token or more.
    Words,
}

/// The crate needs this to add the added tokens.
impl Model for ReadModel {
    type Trainer = <ModelWrapper as Model>::Trainer;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        work::check()?;
        match &self.model {
            AnyModel::Maps(model) => match &**model {
                ModelWrapper::BPE(bpe) => self.words.tokenize(bpe, sequence),
                model => model.tokenize(sequence),
            },
            AnyModel::Tables(TableModel::Bpe(bpe)) => self.words.tokenize(bpe.as_ref(), sequence),
            AnyModel::Tables(model) => model.tokenize(sequence),
        }
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        match &self.model {
            AnyModel::Maps(model) => model.token_to_id(token),
            AnyModel::Tables(model) => model.token_to_id(token),
        }
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        match &self.model {
            AnyModel::Maps(model) => model.id_to_token(id),
            AnyModel::Tables(model) => model.id_to_token(id),
        }
    }
    fn get_vocab(&self) -> HashMap<String, u32> {
        match &self.model {
            AnyModel::Maps(model) => model.get_vocab(),
            AnyModel::Tables(model) => model.to_map(),
        }
    }
    fn get_vocab_size(&self) -> usize {
        match &self.model {
            AnyModel::Maps(model) => model.get_vocab_size(),
            AnyModel::Tables(model) => model.len(),
        }
    }
    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        match &self.model {
            AnyModel::Maps(model) => model.save(folder, prefix),
            AnyModel::Tables(_) => Err("tables are not written as text".into()),
        }
    }
    /// Nothing is trained here.
    fn get_trainer(&self) -> Self::Trainer {
        ModelWrapper::from(BPE::default()).get_trainer()
    }
}
