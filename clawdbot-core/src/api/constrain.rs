//! What requests of a model are constrained with: its vocabulary as a trie, and compiled constraints, which are kept for requests
//! with the same ones.

use std::sync::{Arc, Mutex, PoisonError};

use crate::constraint::{Grammar, Source, Vocabulary};
use crate::error::Result;
use crate::load::text::{Text, no_tokenizer};
use crate::runtime::{Budget, Reservation};

/// Most constraints that are kept.
const MAX_KEPT: usize = 16;

/// Most vocabularies that are kept.
const MAX_VOCABULARIES: usize = 3;

/// A compiled constraint, and what it was compiled of.
struct Kept {
    source: Source,
    grammar: Arc<Grammar>,
    _reservation: Reservation,
}

/// A vocabulary, and its special tokens that grammars may ask for.
struct KnownVocabulary {
    marks: Vec<(String, u32)>,
    vocabulary: Arc<Vocabulary>,
    _reservation: Reservation,
}

/// What constraints of a model need, made when the first request asks for one.
#[derive(Default)]
pub(crate) struct Constraints {
    /// With the marks that each has: one without, and those of formats whose marks are special tokens.
    vocabularies: Mutex<Vec<KnownVocabulary>>,
    /// The last one was used last.
    kept: Mutex<Vec<Kept>>,
}

impl Constraints {
    /// `source`, compiled for the tokens of `text`.
    ///
    /// # Errors
    /// `InvalidConstraint`, also for more than is enforced; `UnsupportedModel` without a tokenizer, or if its tokens have no text of
    /// their own; `OutOfBudget`.
    pub(super) fn grammar(
        &self,
        source: Source,
        text: Option<&Text>,
        budget: &Budget,
    ) -> Result<Arc<Grammar>> {
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = kept.iter().position(|one| one.source == source) {
                let one = kept.remove(at);
                let grammar = Arc::clone(&one.grammar);
                kept.push(one);
                return Ok(grammar);
            }
        }
        let vocabulary = self.vocabulary(&source.marks(), text.ok_or_else(no_tokenizer)?, budget)?;
        let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary)?);
        let reserve = || budget.reserve_growing(grammar.bytes() as u64, "a compiled constraint");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let reservation = match reserve() {
            Ok(reservation) => reservation,
            Err(_) => {
                kept.clear();
                reserve()?
            }
        };
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push(Kept { source, grammar: Arc::clone(&grammar), _reservation: reservation });
        Ok(grammar)
    }

    /// The tokens of the model, with those of `marks` that are special tokens.
    fn vocabulary(&self, marks: &[&str], text: &Text, budget: &Budget) -> Result<Arc<Vocabulary>> {
        let tokenizer = &text.tokenizer;
        let special = |mark: &&str| {
            let id = tokenizer.token_to_id(mark).filter(|&id| tokenizer.is_special(id))?;
            Some(((*mark).to_owned(), id))
        };
        let mut marks: Vec<_> = marks.iter().filter_map(special).collect();
        marks.sort_unstable();
        marks.dedup();
        let mut made = self.vocabularies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.iter().find(|known| known.marks == marks) {
            return Ok(Arc::clone(&known.vocabulary));
        }
        let vocabulary = Arc::new(Vocabulary::with_marks(tokenizer, &marks)?);
        let reserve = || budget.reserve_growing(vocabulary.bytes(), "the vocabulary for constraints");
        let reservation = match reserve() {
            Ok(reservation) => reservation,
            Err(_) => {
                made.clear();
                reserve()?
            }
        };
        if made.len() >= MAX_VOCABULARIES {
            made.remove(0);
        }
        made.push(KnownVocabulary { marks, vocabulary: Arc::clone(&vocabulary), _reservation: reservation });
        Ok(vocabulary)
    }
}
