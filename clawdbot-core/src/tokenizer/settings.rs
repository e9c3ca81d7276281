//! Settings in `tokenizer_config.json` that transformers applies and this library does not.

use serde_json::Value;

use super::{SpecialTokens, Tokenizer};

/// The keys checked for that, apart from special tokens.
pub(crate) const WITHOUT_EFFECT: [&str; 5] =
    [CLEAN_UP, CLEAN_UP_BPE, ADDED, "additional_special_tokens", EXTRA];
const CLEAN_UP: &str = "clean_up_tokenization_spaces";
const CLEAN_UP_BPE: &str = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
const ADDED: &str = "added_tokens_decoder";
const EXTRA: &str = "extra_special_tokens";

impl Tokenizer {
    /// Warnings about `config`, the object in `tokenizer_config.json` with the special tokens `special`.
    pub(crate) fn settings_without_effect(&self, config: &Value, special: &SpecialTokens) -> Vec<String> {
        let is = |key: &str| config.get(key) == Some(&Value::Bool(true));
        let bpe = self.inner.encoder.get_model().is_bpe();
        let mut notes = Vec::new();
        if is(CLEAN_UP) && (!bpe || is(CLEAN_UP_BPE)) {
            notes.push(format!("{CLEAN_UP}: ignored: decoded text keeps the spaces before punctuation"));
        }
        let listed = WITHOUT_EFFECT.iter().filter_map(|key| Some((*key, tokens(config.get(*key)?))));
        let named = special.to_variables();
        let named = named.iter().map(|(key, token)| (key.as_str(), vec![token]));
        for (key, tokens) in listed.chain(named) {
            let mut others = tokens.into_iter().filter_map(|token| self.otherwise(token, key == ADDED));
            let Some(first) = others.next() else { continue };
            let more = match others.count() {
                0 => String::new(),
                count => format!(", and {count} more"),
            };
            notes.push(format!("{key}: ignored, unlike in transformers: {first}{more}"));
        }
        notes
    }

    /// How `wanted` differs from the added tokens: it is missing or, if `flags`, has other flags.
    fn otherwise(&self, wanted: &Value, flags: bool) -> Option<String> {
        let content = wanted.as_str().or_else(|| wanted.get("content")?.as_str())?;
        let added = self.inner.encoder.get_added_vocabulary();
        let id = added.get_vocab().get(content);
        let Some(found) = id.and_then(|id| added.get_added_tokens_decoder().get(id)) else {
            return Some(format!("{content:.50?} is not an added token of tokenizer.json"));
        };
        let known = [
            ("single_word", found.single_word),
            ("lstrip", found.lstrip),
            ("rstrip", found.rstrip),
            ("normalized", found.normalized),
            ("special", found.special),
        ];
        known.into_iter().filter(|_| flags).find_map(|(flag, found)| {
            let wanted = wanted.get(flag)?.as_bool()?;
            (wanted != found)
                .then(|| format!("{content:.50?} has {flag} {} in tokenizer.json, {wanted} here", !wanted))
        })
    }
}

/// The tokens in a list, or in an object by name or by id.
fn tokens(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(tokens) => tokens.iter().collect(),
        Value::Object(tokens) => tokens.values().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn notes(model: &Value, config: &Value) -> Vec<String> {
        let added = json!([{"id": 2, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}]);
        let json = json!({"version": "1.0", "added_tokens": added, "model": model}).to_string();
        let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        tokenizer.settings_without_effect(config, &SpecialTokens::parse(config).unwrap())
    }

    #[test]
    fn settings_without_effect_are_noted() {
        let bpe = json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []});
        let word_level = json!({"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"});
        for (model, config, word) in [
            (&word_level, json!({"clean_up_tokenization_spaces": true}), "spaces before punctuation"),
            (&bpe, json!({"clean_up_tokenization_spaces": true, CLEAN_UP_BPE: true}), "spaces before"),
            (&bpe, json!({"extra_special_tokens": ["<s>", "<x>"]}), r#""<x>" is not an added token"#),
            (&bpe, json!({"extra_special_tokens": {"image_token": "<x>"}}), r#""<x>" is not an added token"#),
            (&bpe, json!({"additional_special_tokens": ["<x>", {"content": "<y>"}]}), "and 1 more"),
            (&bpe, json!({"pad_token": "a"}), r#"pad_token: ignored, unlike in transformers: "a" is not"#),
            (
                &bpe,
                json!({"added_tokens_decoder": {"2": {"content": "<s>", "lstrip": true}}}),
                "lstrip false in",
            ),
        ] {
            let noted = notes(model, &config);
            let [note] = noted.as_slice() else { panic!("{config}: {noted:?}") };
            assert!(note.contains(word), "{note}");
        }
        for (model, config) in [
            (
                &bpe,
                json!({"clean_up_tokenization_spaces": true, "bos_token": "<s>", "extra_special_tokens": ["<s>"]}),
            ),
            (
                &bpe,
                json!({"added_tokens_decoder": {"7": {"content": "<s>", "lstrip": false, "special": true}}}),
            ),
            (&word_level, json!({"clean_up_tokenization_spaces": false, "extra_special_tokens": {}})),
        ] {
            assert_eq!(notes(model, &config), [""; 0], "{config}");
        }
    }
}
