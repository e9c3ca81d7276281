//! Which tokens have given texts in them.

use std::sync::{Arc, Mutex, PoisonError};

use super::{AddSpecialTokens, SkipSpecialTokens, Tokenizer};
use crate::error::Result;

/// Lists of texts whose tokens are remembered: looking for them decodes the whole vocabulary.
const REMEMBERED: usize = 8;

/// A list of texts, with the tokens that have one of them.
type Known = (Vec<String>, Arc<[u32]>);

/// The tokens of some lists of texts, once somebody has asked.
#[derive(Debug, Default)]
pub(crate) struct Containing(Mutex<Vec<Known>>);

impl Containing {
    /// As [`Tokenizer::containing`], remembered for the lists that were asked for last.
    ///
    /// # Errors
    /// As [`Tokenizer::containing`].
    pub(crate) fn of(&self, tokenizer: &Tokenizer, texts: &[String]) -> Result<Arc<[u32]>> {
        let known =
            |known: &Vec<Known>| known.iter().find(|(list, _)| list == texts).map(|(_, ids)| Arc::clone(ids));
        // Not locked while it decodes: at worst, two do so at the same time.
        if let Some(ids) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(ids);
        }
        let ids: Arc<[u32]> = tokenizer.containing(texts)?.into();
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known(&lists).is_none() {
            if lists.len() == REMEMBERED {
                lists.remove(0);
            }
            lists.push((texts.to_vec(), Arc::clone(&ids)));
        }
        Ok(ids)
    }
}

impl Tokenizer {
    /// The ids of tokens whose texts contain one of `texts`, sorted. For a text that no token contains, the last token that
    /// it is encoded as.
    ///
    /// # Errors
    /// `InvalidTokenizer` when the tokenizer's file is inconsistent.
    pub(crate) fn containing(&self, texts: &[String]) -> Result<Vec<u32>> {
        let mut found = vec![false; texts.len()];
        let mut ids = Vec::new();
        for id in (0..self.id_limit()).filter(|_| !texts.is_empty()) {
            let token = self.decode(&[id], SkipSpecialTokens::No)?;
            let mut contains = false;
            for (text, found) in texts.iter().zip(&mut found) {
                let here = token.contains(text.as_str());
                (contains, *found) = (contains | here, *found | here);
            }
            if contains {
                ids.push(id);
            }
        }
        for (text, _) in texts.iter().zip(found).filter(|(_, found)| !found) {
            ids.extend(self.encode(text, AddSpecialTokens::No)?.last());
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_what_is_in_their_texts() {
        let model = crate::api::model::Model::builtin().unwrap();
        let tokenizer = model.tokenizer().unwrap();
        let texts = ["e".to_owned(), ", there".to_owned()];
        let ids = tokenizer.containing(&texts).unwrap();
        let text = |id: u32| tokenizer.decode(&[id], SkipSpecialTokens::No).unwrap();
        // No token has the second text.
        let last = *tokenizer.encode(", there", AddSpecialTokens::No).unwrap().last().unwrap();
        assert!(ids.is_sorted() && ids.len() > 10 && ids.contains(&last));
        for id in 0..tokenizer.id_limit() {
            assert_eq!(ids.contains(&id), id == last || text(id).contains('e'), "{id}");
        }
        let remembered = Containing::default();
        let first = remembered.of(&tokenizer, &texts).unwrap();
        assert_eq!(*first, *ids);
        assert!(Arc::ptr_eq(&first, &remembered.of(&tokenizer, &texts).unwrap()));
        assert!(remembered.of(&tokenizer, &[]).unwrap().is_empty());
        for number in 0..20 {
            remembered.of(&tokenizer, &[number.to_string()]).unwrap();
        }
        assert_eq!(remembered.0.lock().unwrap().len(), REMEMBERED);
    }
}
