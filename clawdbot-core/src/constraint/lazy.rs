//! A tokenizer whose vocabulary is made when a constraint first needs it.

use std::sync::{Arc, Mutex, PoisonError};

use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// The vocabulary of a tokenizer, which all its constraints share, made at the first call for it.
#[derive(Debug)]
pub struct LazyVocabulary {
    tokenizer: Tokenizer,
    made: Mutex<Option<Arc<Vocabulary>>>,
}

impl LazyVocabulary {
    /// That of `tokenizer`. Makes nothing yet.
    pub fn new(tokenizer: Tokenizer) -> Self {
        LazyVocabulary { tokenizer, made: Mutex::default() }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The vocabulary. Threads that ask while it is made wait for it.
    ///
    /// # Errors
    /// As [`Vocabulary::new`]; the next call tries again.
    pub fn get(&self) -> Result<Arc<Vocabulary>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let vocabulary = match made.take() {
            Some(vocabulary) => vocabulary,
            None => Arc::new(Vocabulary::new(&self.tokenizer)?),
        };
        Ok(Arc::clone(made.insert(vocabulary)))
    }
}
