//! What a model's own `generation_config.json` makes of options that a request leaves out.

use super::early_stopping::EarlyStopping;

/// Most sequences of `bad_words_ids`.
pub(crate) const MAX_BAD_WORDS: usize = 10_000;
/// Most token ids of them all, and of a list of tokens.
pub(crate) const MAX_LISTED_IDS: usize = 1 << 20;

/// What `generation_config.json` says; `None` and empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GenerationDefaults {
    pub(crate) do_sample: Option<bool>,
    /// Finite, >= 0.
    pub(crate) temperature: Option<f32>,
    /// 0 means no limit.
    pub(crate) top_k: Option<usize>,
    /// In [0, 1].
    pub(crate) top_p: Option<f32>,
    /// In [0, 1].
    pub(crate) min_p: Option<f32>,
    /// > 0; from 1 on it is off.
    pub(crate) typical_p: Option<f32>,
    /// Finite, > 0.
    pub(crate) repetition_penalty: Option<f32>,
    /// Finite.
    pub(crate) length_penalty: Option<f32>,
    pub(crate) early_stopping: Option<EarlyStopping>,
    pub(crate) eos_token_id: Vec<u32>,
    pub(crate) bos_token_id: Option<u32>,
    pub(crate) pad_token_id: Option<u32>,
    /// Tokens.
    pub(crate) max_new_tokens: Option<usize>,
    /// Tokens, those of the prompt included.
    pub(crate) max_length: Option<usize>,
    /// Tokens.
    pub(crate) min_new_tokens: Option<usize>,
    /// Tokens, those of the prompt included.
    pub(crate) min_length: Option<usize>,
    pub(crate) suppress_tokens: Vec<u32>,
    pub(crate) begin_suppress_tokens: Vec<u32>,
    pub(crate) bad_words_ids: Vec<Vec<u32>>,
    /// 0 is off.
    pub(crate) no_repeat_ngram_size: Option<usize>,
    pub(crate) stop_strings: Vec<String>,
}

impl GenerationDefaults {
    /// Leaves out ids that the model has no row for: they are never generated in any case. Says which lists had some.
    pub(crate) fn keep_below(&mut self, vocab_size: usize) -> Vec<&'static str> {
        let inside = |id: &u32| (*id as usize) < vocab_size;
        let mut found = Vec::new();
        for (key, list) in [
            ("suppress_tokens", &mut self.suppress_tokens),
            ("begin_suppress_tokens", &mut self.begin_suppress_tokens),
        ] {
            if !list.iter().all(inside) {
                list.retain(inside);
                found.push(key);
            }
        }
        if !self.bad_words_ids.iter().flatten().all(inside) {
            self.bad_words_ids.retain(|sequence| sequence.iter().all(inside));
            found.push("bad_words_ids");
        }
        found
    }
}
