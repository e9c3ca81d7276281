//! Reads `tokenizer.json` in one pass. The tokenizers crate copies a model several times on the way to what it is, which
//! takes most of the time and many times the file's size in memory; here its fields are read as what they are, and its
//! type decides in the end.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{AddedToken, DecoderWrapper, Model, PostProcessorWrapper, Token, TokenizerImpl};

use super::lengths;
use super::merges::Merges;
use super::pipeline::{self, Decoder, Limits, Normalizers, PreTokenizers};
use super::words::Words;
use crate::json;

/// Values that a file may have: few but in its model and its added tokens. The largest published vocabulary, with its
/// merges, has 2.1 million.
const LIMITS: json::Limits<'_> = json::Limits { values: 1 << 16, of_key: &values_of };

/// Most values of a part by itself.
fn values_of(key: &str, _: &[u8]) -> Option<usize> {
    match key {
        "model" => Some(1 << 22),
        "added_tokens" => Some(1 << 21),
        _ => None,
    }
}

/// What texts are encoded with; its decoder is apart.
pub(super) type Encoder =
    TokenizerImpl<ReadModel, Normalizers, PreTokenizers, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer as its file describes it.
pub(super) struct Read {
    pub(super) encoder: Encoder,
    pub(super) decoder: Option<Decoder>,
    pub(super) largest_id: Option<u32>,
}

/// The tokenizer in `json`.
///
/// # Errors
/// With the parser's words.
pub(super) fn read(json: &[u8]) -> serde_json::Result<Read> {
    let json = json::checked(json, &LIMITS).map_err(serde_json::Error::custom)?;
    serde_json::from_slice(&json)
}

/// An added token as the file has it. Its id is that of the model's token of this text, or the next one.
#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// Longest added token in bytes: any text could be made of a longer one with each letter, or be looked through for it.
const MAX_ADDED: usize = 1024;

impl From<Added> for AddedToken {
    fn from(added: Added) -> Self {
        let token = AddedToken::from(added.content, added.special);
        let token = token.single_word(added.single_word).lstrip(added.lstrip).rstrip(added.rstrip);
        token.normalized(added.normalized)
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReadVisitor;
        impl<'de> Visitor<'de> for ReadVisitor {
            type Value = Read;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tokenizer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
                let mut limits = Limits::default();
                let (mut normalizer, mut pre_tokenizer, mut post_processor) = (None, None, None);
                let (mut decoder, mut model, mut added) = (None, None, Vec::<Added>::new());
                let part = A::Error::custom::<String>;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "version" => match map.next_value::<String>()?.as_str() {
                            "1.0" => {}
                            other => return Err(part(format!("expected version 1.0, found {other:.50?}"))),
                        },
                        "added_tokens" => added = map.next_value()?,
                        "normalizer" => {
                            let value = map.next_value()?;
                            normalizer = Normalizers::parse(value, &mut limits).map_err(part)?;
                        }
                        "pre_tokenizer" => {
                            let value = map.next_value()?;
                            pre_tokenizer = PreTokenizers::parse(value, &mut limits).map_err(part)?;
                        }
                        "post_processor" => {
                            let value = map.next_value()?;
                            post_processor = pipeline::post_processor(value).map_err(part)?;
                        }
                        "decoder" => {
                            let value = map.next_value()?;
                            decoder = Decoder::parse(value, &mut limits).map_err(part)?;
                        }
                        "model" => model = Some(map.next_value::<ReadModel>()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let model = model.ok_or_else(|| A::Error::missing_field("model"))?;
                let largest_id = model.largest_id;
                let mut encoder = Encoder::new(model);
                encoder.with_pre_tokenizer(pre_tokenizer).with_post_processor(post_processor);
                encoder.with_normalizer(normalizer).map_err(A::Error::custom)?;
                let others = add(&mut encoder, added).map_err(part)?;
                Ok(Read { encoder, decoder, largest_id: largest_id.max(others) })
            }
        }
        deserializer.deserialize_map(ReadVisitor)
    }
}

/// Adds the added tokens, and says which of their ids is the largest.
fn add(encoder: &mut Encoder, mut added: Vec<Added>) -> Result<Option<u32>, String> {
    if let Some(long) = added.iter().find(|token| token.content.len() > MAX_ADDED) {
        let found = long.content.len();
        return Err(format!("added token {}: expected at most {MAX_ADDED} bytes, found {found}", long.id));
    }
    // Ids go on from there.
    let free = u32::MAX - u32::try_from(added.len()).unwrap_or(u32::MAX);
    let sizes = encoder.get_model().get_vocab_size();
    let last = encoder.get_model().largest_id.unwrap_or(0);
    if last > free || u32::try_from(sizes).is_ok_and(|size| size > free) {
        return Err(format!("expected ids below {free}, found {last}"));
    }
    added.retain(|token| !token.content.is_empty());
    let tokens: Vec<AddedToken> = added.into_iter().map(Into::into).collect();
    encoder.add_tokens(tokens).map_err(|error| format!("added_tokens: {error}"))?;
    let added = encoder.get_added_vocabulary();
    for (&id, token) in added.get_added_tokens_decoder() {
        let found = added.simple_id_to_token(id).unwrap_or_default();
        // Each of them in a run of white space would take the whole run.
        if (token.lstrip || token.rstrip) && found.chars().all(char::is_whitespace) {
            return Err(format!("added token {id}: expected no lstrip or rstrip, as it is white space"));
        }
    }
    Ok(added.get_vocab().values().max().copied())
}

/// A model, and its largest id.
pub(super) struct ReadModel {
    pub(super) model: ModelWrapper,
    largest_id: Option<u32>,
    /// What of any text becomes tokens for certain.
    pub(super) covers: Covers,
    words: Words,
}

impl ReadModel {
    fn new(model: impl Into<ModelWrapper>, largest_id: Option<u32>, covers: Covers) -> Self {
        ReadModel { model: model.into(), largest_id, covers, words: Words::default() }
    }
}

/// What a model makes tokens of, and how long they are at most: characters that it does not know may be passed over, or
/// become one token together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Covers {
    Unknown,
    /// Every character, in tokens of at most so many bytes.
    Text(usize),
    /// Every character of byte-level texts, in tokens of at most so many of them.
    ByteLevel(usize),
    /// Each word, in one token or more.
    Words,
}

/// The fields of models of every type.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    vocab: Option<Tokens>,
    merges: Option<Merges>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    unk_id: Option<usize>,
    max_input_chars_per_word: Option<usize>,
}

/// A vocabulary.
enum Tokens {
    Ids(Vocab),
    Scores(Vec<(String, f64)>),
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TokensVisitor;
        impl<'de> Visitor<'de> for TokensVisitor {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tokens to ids, or a list of tokens and scores")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tokens, A::Error> {
                Vocab::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Tokens::Ids)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Tokens, A::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(seq)).map(Tokens::Scores)
            }
        }
        deserializer.deserialize_any(TokensVisitor)
    }
}

impl<'de> Deserialize<'de> for ReadModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModelVisitor;
        impl<'de> Visitor<'de> for ModelVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "type" => fields.kind = map.next_value()?,
                        "vocab" => fields.vocab = map.next_value()?,
                        "merges" => fields.merges = map.next_value()?,
                        "dropout" => fields.dropout = map.next_value()?,
                        "unk_token" => fields.unk_token = map.next_value()?,
                        "continuing_subword_prefix" => fields.continuing_subword_prefix = map.next_value()?,
                        "end_of_word_suffix" => fields.end_of_word_suffix = map.next_value()?,
                        "fuse_unk" => fields.fuse_unk = map.next_value()?,
                        "byte_fallback" => fields.byte_fallback = map.next_value()?,
                        "ignore_merges" => fields.ignore_merges = map.next_value()?,
                        "unk_id" => fields.unk_id = map.next_value()?,
                        "max_input_chars_per_word" => fields.max_input_chars_per_word = map.next_value()?,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(ModelVisitor)?.build().map_err(D::Error::custom)
    }
}

/// Longest words of WordPiece, in characters: its time is their length cubed.
const MAX_WORD: usize = 1000;

impl Fields {
    fn build(self) -> Result<ReadModel, String> {
        lengths::check_affixes([
            ("unk_token", &self.unk_token),
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ])?;
        // Older files have no type.
        let kind = match (&self.kind, &self.vocab) {
            (Some(kind), _) => kind.as_str(),
            (None, Some(Tokens::Scores(_))) => "Unigram",
            (None, _) if self.merges.is_some() => "BPE",
            (None, _) if self.max_input_chars_per_word.is_some() => "WordPiece",
            (None, _) => "WordLevel",
        };
        match kind {
            "BPE" => self.bpe(),
            "Unigram" => self.unigram(),
            "WordPiece" => self.word_piece(),
            "WordLevel" => self.word_level(),
            other => Err(format!("model: expected BPE, Unigram, WordPiece or WordLevel, found {other:.50?}")),
        }
    }

    fn ids(vocab: Option<Tokens>) -> Result<(Vocab, Option<u32>), String> {
        match vocab {
            Some(Tokens::Ids(vocab)) => {
                // Which of two tokens an id stands for would be a matter of chance.
                let mut ids: Vec<u32> = vocab.values().copied().collect();
                ids.sort_unstable();
                if let Some(twice) = ids.windows(2).find(|ids| ids[0] == ids[1]) {
                    return Err(format!(
                        "vocab: expected one token of each id, found two of id {}",
                        twice[0]
                    ));
                }
                Ok((vocab, ids.last().copied()))
            }
            Some(Tokens::Scores(_)) => Err("vocab: expected a map of tokens to ids".to_owned()),
            None => Err("expected vocab".to_owned()),
        }
    }

    fn bpe(self) -> Result<ReadModel, String> {
        let (Some(vocab), Some(Merges(merges))) = (self.vocab, self.merges) else {
            return Err("expected vocab and merges".to_owned());
        };
        let (vocab, largest_id) = Self::ids(Some(vocab))?;
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err("dropout: expected 0 or null, as a text must always have the same tokens".to_owned());
        }
        let longest = vocab.keys().map(String::len).max().unwrap_or(0);
        // What the crate takes for granted: that a merge's tokens are there, and fit together.
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or_default();
        for (a, b) in &merges {
            let rest = b.strip_prefix(prefix).ok_or_else(|| {
                format!("merges: expected the prefix {prefix:.50?} before the second token, found {b:.50?}")
            })?;
            if a.len() + rest.len() > longest {
                return Err(format!("merges: {a:.50?} and {b:.50?} make a token out of vocabulary"));
            }
        }
        let fallback = self.byte_fallback.unwrap_or(false);
        let bytes = |written: &dyn Fn(u8) -> String| (0..=255).all(|byte| vocab.contains_key(&written(byte)));
        let alphabet = |byte: u8| super::stream::char_of(byte).to_string();
        let plain = self.end_of_word_suffix.is_none() && prefix.is_empty();
        let covers = if plain && fallback && bytes(&|byte| format!("<0x{byte:02X}>")) {
            Covers::Text(longest)
        } else if plain && bytes(&alphabet) {
            Covers::ByteLevel(vocab.keys().map(|token| token.chars().count()).max().unwrap_or(0))
        } else {
            Covers::Unknown
        };
        let mut builder: BpeBuilder = BPE::builder();
        set(&mut builder, self.unk_token, BpeBuilder::unk_token);
        set(&mut builder, self.continuing_subword_prefix, BpeBuilder::continuing_subword_prefix);
        set(&mut builder, self.end_of_word_suffix, BpeBuilder::end_of_word_suffix);
        set(&mut builder, self.fuse_unk, BpeBuilder::fuse_unk);
        set(&mut builder, self.byte_fallback, BpeBuilder::byte_fallback);
        set(&mut builder, self.ignore_merges, BpeBuilder::ignore_merges);
        let bpe = builder.vocab_and_merges(vocab, merges).build().map_err(|error| error.to_string())?;
        Ok(ReadModel::new(bpe, largest_id, covers))
    }

    fn unigram(self) -> Result<ReadModel, String> {
        let Some(Tokens::Scores(vocab)) = self.vocab else {
            return Err("vocab: expected a list of tokens and scores".to_owned());
        };
        lengths::check_pieces(&vocab)?;
        let largest_id = vocab.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let unigram = Unigram::from(vocab, self.unk_id, self.byte_fallback.unwrap_or(false));
        let unigram = unigram.map_err(|error| error.to_string())?;
        Ok(ReadModel::new(unigram, largest_id, Covers::Words))
    }

    fn word_piece(self) -> Result<ReadModel, String> {
        let (vocab, largest_id) = Self::ids(self.vocab)?;
        let missing = |key: &str| format!("missing field `{key}`");
        let longest = self.max_input_chars_per_word.ok_or_else(|| missing("max_input_chars_per_word"))?;
        if longest > MAX_WORD {
            return Err(format!("max_input_chars_per_word: expected at most {MAX_WORD}, found {longest}"));
        }
        let word_piece = WordPiece::builder()
            .vocab(vocab)
            .unk_token(self.unk_token.ok_or_else(|| missing("unk_token"))?)
            .continuing_subword_prefix(
                self.continuing_subword_prefix.ok_or_else(|| missing("continuing_subword_prefix"))?,
            )
            .max_input_chars_per_word(longest)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(ReadModel::new(word_piece, largest_id, Covers::Words))
    }

    fn word_level(self) -> Result<ReadModel, String> {
        let (vocab, largest_id) = Self::ids(self.vocab)?;
        let unknown = self.unk_token.ok_or("missing field `unk_token`")?;
        let word_level = WordLevel::builder().vocab(vocab).unk_token(unknown).build();
        let word_level = word_level.map_err(|error| error.to_string())?;
        Ok(ReadModel::new(word_level, largest_id, Covers::Words))
    }
}

/// Sets what is not null.
fn set<T>(builder: &mut BpeBuilder, value: Option<T>, with: impl FnOnce(BpeBuilder, T) -> BpeBuilder) {
    if let Some(value) = value {
        *builder = with(std::mem::take(builder), value);
    }
}

/// What the crate needs to put the added tokens on top.
impl Model for ReadModel {
    type Trainer = <ModelWrapper as Model>::Trainer;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        self.words.tokenize(&self.model, sequence)
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.model.token_to_id(token)
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        self.model.id_to_token(id)
    }
    fn get_vocab(&self) -> HashMap<String, u32> {
        self.model.get_vocab()
    }
    fn get_vocab_size(&self) -> usize {
        self.model.get_vocab_size()
    }
    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        self.model.save(folder, prefix)
    }
    fn get_trainer(&self) -> Self::Trainer {
        self.model.get_trainer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As JSON, with the largest id.
    type Outcome = Result<(Value, Option<u32>), String>;

    /// What the crate makes of a model, and what is made of it here.
    fn both(model: &Value) -> (Outcome, Outcome) {
        let added = json!([{"id": 9, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}]);
        let json = json!({"version": "1.0", "added_tokens": added, "model": model}).to_string();
        let crates = tokenizers::Tokenizer::from_bytes(json.as_bytes());
        let crates =
            crates.map(|crates| (json!(crates.get_model()), crates.get_vocab(true).into_values().max()));
        let ours = read(json.as_bytes()).map(|ours| (json!(ours.encoder.get_model().model), ours.largest_id));
        (crates.map_err(|error| error.to_string()), ours.map_err(|error| error.to_string()))
    }

    fn vocab() -> Value {
        json!({"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 7})
    }

    #[test]
    fn models_are_what_the_crate_makes_of_them() {
        let bpe = |more: Value| {
            let mut model = json!({"type": "BPE", "vocab": vocab()});
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            model
        };
        let word_piece = json!({"unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab()});
        let mut tagged = json!({"type": "WordPiece"});
        tagged.as_object_mut().unwrap().extend(word_piece.as_object().unwrap().clone());
        let models = [
            bpe(json!({"merges": []})),
            bpe(json!({"merges": ["a b", "ab c"]})),
            bpe(json!({"merges": ["#version: 0.2", "a b"]})),
            bpe(json!({"merges": [["a", "b"], ["ab", "c"]]})),
            bpe(json!({"merges": [["a", "b"]], "dropout": null, "unk_token": "a", "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": true, "continuing_subword_prefix": null})),
            bpe(json!({"merges": ["a b"], "continuing_subword_prefix": "", "end_of_word_suffix": "c"})),
            // Without a type in front.
            json!({"vocab": vocab(), "merges": ["a b"]}),
            json!({"vocab": vocab(), "merges": ["a b"], "type": "BPE"}),
            json!({"type": "WordLevel", "vocab": vocab(), "unk_token": "a"}),
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0], ["b", -2.0]]}),
            tagged,
            word_piece,
        ];
        for model in models {
            let (crates, ours) = both(&model);
            assert_eq!(ours.unwrap(), crates.unwrap(), "{model}");
        }
    }

    #[test]
    fn what_the_crate_refuses_is_refused() {
        for (more, word) in [
            (json!({"vocab": vocab()}), "vocab and merges"),
            (json!({"merges": []}), "vocab and merges"),
            (json!({"vocab": [], "merges": []}), "a map of tokens"),
            (json!({"vocab": vocab(), "merges": ["ab"]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": ["a b c"]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": [["a"]]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": [["a", "b", "c"]]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": [1]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": ["a b", ["a", "b"]]}), "found both"),
            (json!({"vocab": vocab(), "merges": ["a x"]}), "out of vocabulary"),
            (json!({"vocab": vocab(), "merges": [], "dropout": 3.0}), "ropout"),
            (json!({"vocab": vocab(), "merges": [], "unk_token": 1}), "a string"),
        ] {
            let mut model = json!({"type": "BPE"});
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (crates, ours) = both(&model);
            assert!(crates.is_err(), "{model}");
            assert!(ours.unwrap_err().contains(word), "{model}");
        }
    }

    #[test]
    fn what_the_crate_would_panic_at_is_refused() {
        let bpe = |more: Value| {
            let mut model = json!({"type": "BPE", "vocab": vocab()});
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            model
        };
        let word_piece = json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100_000, "vocab": vocab()});
        for (model, word) in [
            (bpe(json!({"merges": [["a", "b"]], "continuing_subword_prefix": "##"})), "the prefix"),
            (bpe(json!({"merges": [["abc", "ab"]]})), "out of vocabulary"),
            (bpe(json!({"merges": [], "dropout": 0.5})), "the same tokens"),
            (word_piece, "at most 1000"),
        ] {
            let json = json!({"version": "1.0", "model": model}).to_string();
            let error = read(json.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
