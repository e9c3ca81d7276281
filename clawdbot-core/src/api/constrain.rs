//! What requests of a model are constrained with: its vocabulary as a trie, and compiled constraints, which are kept for requests
//! with the same ones.

use std::sync::{Arc, Mutex, PoisonError};

use crate::constraint::{ConstraintSpec, Grammar, Vocabulary};
use crate::error::Result;
use crate::load::text::{Text, no_tokenizer};
use crate::options::GenerateOptions;
use crate::runtime::{Budget, Reservation};

/// Most constraints that are kept.
const MAX_KEPT: usize = 16;

/// A compiled constraint, and what it was compiled of.
struct Kept {
    spec: ConstraintSpec,
    grammar: Arc<Grammar>,
    _reservation: Reservation,
}

/// What constraints of a model need, made when the first request asks for one.
#[derive(Default)]
pub(crate) struct Constraints {
    vocabulary: Mutex<Option<(Arc<Vocabulary>, Reservation)>>,
    /// The last one was used last.
    kept: Mutex<Vec<Kept>>,
}

impl Constraints {
    /// The constraint that `options` ask for, compiled for the tokens of `text`.
    ///
    /// # Errors
    /// `InvalidConstraint`, also for more than is enforced; `UnsupportedModel` without a tokenizer, or if its tokens have no text of
    /// their own; `OutOfBudget`.
    pub(super) fn grammar(
        &self,
        options: &GenerateOptions,
        text: Option<&Text>,
        budget: &Budget,
    ) -> Result<Option<Arc<Grammar>>> {
        let Some(spec) = ConstraintSpec::of(options) else { return Ok(None) };
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = kept.iter().position(|one| one.spec == spec) {
                let one = kept.remove(at);
                let grammar = Arc::clone(&one.grammar);
                kept.push(one);
                return Ok(Some(grammar));
            }
        }
        let grammar =
            Arc::new(Grammar::compile(&spec, &self.vocabulary(text.ok_or_else(no_tokenizer)?, budget)?)?);
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
        kept.push(Kept { spec, grammar: Arc::clone(&grammar), _reservation: reservation });
        Ok(Some(grammar))
    }

    /// The tokens of the model, as constraints need them.
    fn vocabulary(&self, text: &Text, budget: &Budget) -> Result<Arc<Vocabulary>> {
        let mut made = self.vocabulary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((vocabulary, _)) = &*made {
            return Ok(Arc::clone(vocabulary));
        }
        let vocabulary = Arc::new(Vocabulary::new(&text.tokenizer)?);
        let reservation = budget.reserve_growing(vocabulary.bytes(), "the vocabulary for constraints")?;
        *made = Some((Arc::clone(&vocabulary), reservation));
        Ok(vocabulary)
    }
}
