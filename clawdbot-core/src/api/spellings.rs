//! The texts of a model's tokens, kept from the first request that leaves texts out of its output.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::load::text::{Text, no_tokenizer};
use crate::runtime::{Budget, Reservation};
use crate::sampling::BadWords;
use crate::tokenizer::TokenTexts;

/// The texts of tokens, once a request has needed them.
#[derive(Default)]
pub(crate) struct Spellings(Mutex<Option<(Arc<TokenTexts>, Reservation)>>);

impl Spellings {
    /// What leaves `words` out of an output with the tokens of `text`; `None` without any.
    ///
    /// # Errors
    /// `InvalidTokenizer` without a tokenizer; `UnsupportedModel` if its tokens have no text of their own; `OutOfBudget`.
    pub(super) fn bad_words(
        &self,
        words: &[String],
        text: Option<&Text>,
        budget: &Budget,
    ) -> Result<Option<Arc<BadWords>>> {
        if words.is_empty() {
            return Ok(None);
        }
        let texts = self.texts(text.ok_or_else(no_tokenizer)?, budget)?;
        Ok(Some(Arc::new(BadWords::new(words, texts))))
    }

    fn texts(&self, text: &Text, budget: &Budget) -> Result<Arc<TokenTexts>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((texts, _)) = &*made {
            return Ok(Arc::clone(texts));
        }
        let texts = Arc::new(TokenTexts::new(&text.tokenizer)?);
        let reservation = budget.reserve_growing(texts.size(), "the texts of tokens")?;
        Ok(Arc::clone(&made.insert((texts, reservation)).0))
    }
}

#[cfg(test)]
mod tests {
    use crate::options::GenerateOptions;
    use crate::{Model, ModelOptions, Runtime, RuntimeOptions, Source};

    #[test]
    fn texts_are_left_out_however_they_are_spelled() {
        let model = Model::builtin().unwrap();
        let options = GenerateOptions::default().temperature(0.0).max_tokens(60_u32);
        let plain = model.generate("Once upon a time", &options).unwrap();
        let word = |text: &str| text.split(' ').map(str::to_owned).find(|word| word.len() > 3).unwrap();
        let mut left_out: Vec<String> = Vec::new();
        let mut text = plain.text;
        for _ in 0..8 {
            left_out.push(word(&text)[1..].to_owned());
            let found =
                model.generate("Once upon a time", &options.clone().bad_words(left_out.clone())).unwrap();
            assert!(left_out.iter().all(|word| !found.text.contains(word)), "{left_out:?} {}", found.text);
            assert_eq!(found.options["bad_words"], serde_json::json!(left_out));
            text = found.text;
        }
        // Within a constraint too.
        let options = options.choices(vec!["cat".to_owned(), "dog".to_owned()]);
        let first = model.generate("Once", &options).unwrap().text;
        let other = model.generate("Once", &options.clone().bad_words(vec![first[..1].to_owned()])).unwrap();
        assert!(other.text != first && ["cat", "dog"].contains(&&*other.text), "{} {first}", other.text);
    }

    #[test]
    fn what_they_take_is_in_the_budget() {
        let runtime = Runtime::new(&RuntimeOptions::default()).unwrap();
        let model = runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap();
        let before = runtime.memory_used();
        let options = GenerateOptions::default().max_tokens(1_u32).bad_words(vec!["a".to_owned()]);
        model.generate("Once", &options).unwrap();
        assert!(runtime.memory_used() > before);
    }
}
