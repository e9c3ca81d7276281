//! Reads `tokenizer.json` in one pass. The tokenizers crate copies a model twice on the way to what it is (to find out
//! its type), which takes most of the time; a BPE model that says its type first, as all published ones do, is taken
//! from the text as it comes. Everything else is left to the crate.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::{
    DecoderWrapper, Model, NormalizedString, Normalizer, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Token, TokenizerImpl,
};

use super::charsmap;
use crate::json;

/// Values that a file may have: few but in its model and its added tokens.
const LIMITS: json::Limits<'_> = json::Limits { values: 1 << 16, of_key: &values_of };

/// Most values of a part by itself. The largest published vocabulary, with its merges, has 2.1 million; it is read as it
/// comes, while other models are built as JSON values first, at 72 bytes each, and copied.
fn values_of(key: &str, rest: &[u8]) -> Option<usize> {
    let as_it_comes = || {
        let mut words = rest.split(|byte| byte.is_ascii_whitespace()).flatten().take(BPE_MODEL.len());
        words.by_ref().eq(BPE_MODEL)
    };
    match key {
        "model" => Some(if as_it_comes() { 1 << 22 } else { 1 << 21 }),
        "added_tokens" => Some(1 << 21),
        _ => None,
    }
}

/// How a model begins that is read as it comes, without the spaces.
const BPE_MODEL: &[u8] = br#"{"type":"BPE""#;

type Parsed =
    TokenizerImpl<ReadModel, ReadNormalizer, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// The tokenizer in `json`, and the largest id that it knows.
///
/// # Errors
/// With the parser's words.
pub(super) fn read(json: &[u8]) -> serde_json::Result<(tokenizers::Tokenizer, Option<u32>)> {
    let json = json::checked(json, &LIMITS).map_err(serde_json::Error::custom)?;
    let parsed: Parsed = serde_json::from_slice(&json)?;
    let of_model = match parsed.get_model() {
        ReadModel { largest_id: Some(id), .. } => Some(*id),
        model => model.get_vocab().into_values().max(),
    };
    let added = parsed.get_added_vocabulary().get_vocab().values().max().copied();
    Ok((parsed.into(), of_model.max(added)))
}

/// A model, and its largest id where reading it showed that.
struct ReadModel {
    model: ModelWrapper,
    largest_id: Option<u32>,
}

impl From<ReadModel> for ModelWrapper {
    fn from(read: ReadModel) -> Self {
        read.model
    }
}

impl<'de> Deserialize<'de> for ReadModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModelVisitor;
        impl<'de> Visitor<'de> for ModelVisitor {
            type Value = ReadModel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadModel, A::Error> {
                let mut seen = serde_json::Map::new();
                if let Some(key) = map.next_key::<String>()? {
                    let value: Value = map.next_value()?;
                    if key == "type" && value == "BPE" {
                        return read_bpe(map);
                    }
                    seen.insert(key, value);
                }
                while let Some((key, value)) = map.next_entry()? {
                    seen.insert(key, value);
                }
                let model = ModelWrapper::deserialize(Value::Object(seen)).map_err(A::Error::custom)?;
                Ok(ReadModel { model, largest_id: None })
            }
        }
        deserializer.deserialize_map(ModelVisitor)
    }
}

/// A normalizer whose rules for characters were checked before they were read.
struct ReadNormalizer(NormalizerWrapper);

impl From<ReadNormalizer> for NormalizerWrapper {
    fn from(read: ReadNormalizer) -> Self {
        read.0
    }
}

impl Normalizer for ReadNormalizer {
    fn normalize(&self, normalized: &mut NormalizedString) -> tokenizers::Result<()> {
        self.0.normalize(normalized)
    }
}

impl<'de> Deserialize<'de> for ReadNormalizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        charsmap::check(&value).map_err(D::Error::custom)?;
        NormalizerWrapper::deserialize(value).map(ReadNormalizer).map_err(D::Error::custom)
    }
}

/// A BPE model from what comes behind its type.
fn read_bpe<'de, A: MapAccess<'de>>(mut map: A) -> Result<ReadModel, A::Error> {
    let mut builder: BpeBuilder = BPE::builder();
    let (mut vocab, mut merges) = (None::<Vocab>, None::<Merges>);
    while let Some(key) = map.next_key::<String>()? {
        match key.as_str() {
            "vocab" => vocab = Some(map.next_value()?),
            "merges" => merges = Some(map.next_value()?),
            "dropout" => set(&mut builder, map.next_value()?, BpeBuilder::dropout),
            "unk_token" => set(&mut builder, map.next_value()?, BpeBuilder::unk_token),
            "continuing_subword_prefix" => {
                set(&mut builder, map.next_value()?, BpeBuilder::continuing_subword_prefix);
            }
            "end_of_word_suffix" => set(&mut builder, map.next_value()?, BpeBuilder::end_of_word_suffix),
            "fuse_unk" => set(&mut builder, map.next_value()?, BpeBuilder::fuse_unk),
            "byte_fallback" => set(&mut builder, map.next_value()?, BpeBuilder::byte_fallback),
            "ignore_merges" => set(&mut builder, map.next_value()?, BpeBuilder::ignore_merges),
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }
    let (Some(vocab), Some(Merges(merges))) = (vocab, merges) else {
        return Err(A::Error::custom("expected vocab and merges"));
    };
    let largest_id = vocab.values().max().copied();
    let bpe = builder.vocab_and_merges(vocab, merges).build().map_err(A::Error::custom)?;
    Ok(ReadModel { model: bpe.into(), largest_id })
}

/// Sets what is not null.
fn set<T>(builder: &mut BpeBuilder, value: Option<T>, with: impl FnOnce(BpeBuilder, T) -> BpeBuilder) {
    if let Some(value) = value {
        *builder = with(std::mem::take(builder), value);
    }
}

/// Pairs of tokens, by rank.
struct Merges(Vec<(String, String)>);

/// One of them: both tokens in a list, or, as older files have it, with a space between them.
enum Merge {
    Pair(String, String),
    Text(String, String),
    /// A line that names a version.
    Comment,
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergesVisitor;
        impl<'de> Visitor<'de> for MergesVisitor {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merges, A::Error> {
                let mut merges = Vec::new();
                let mut kinds = [false; 2];
                while let Some(merge) = seq.next_element::<Merge>()? {
                    let (kind, pair) = match merge {
                        Merge::Pair(a, b) => (0, Some((a, b))),
                        Merge::Text(a, b) => (1, Some((a, b))),
                        Merge::Comment => (1, None),
                    };
                    kinds[kind] = true;
                    merges.extend(pair);
                }
                if kinds == [true; 2] {
                    return Err(A::Error::custom("merges: expected lists or texts, found both"));
                }
                Ok(Merges(merges))
            }
        }
        deserializer.deserialize_seq(MergesVisitor)
    }
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens: a list, or a text with one space")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
                if text.starts_with("#version") {
                    return Ok(Merge::Comment);
                }
                match text.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(Merge::Text(a.to_owned(), b.to_owned())),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let short = |len: usize| A::Error::invalid_length(len, &"two tokens");
                let a = seq.next_element()?.ok_or_else(|| short(0))?;
                let b = seq.next_element()?.ok_or_else(|| short(1))?;
                match seq.next_element::<IgnoredAny>()? {
                    Some(_) => Err(short(3)),
                    None => Ok(Merge::Pair(a, b)),
                }
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}

/// What the crate needs to put the added tokens on top.
impl Model for ReadModel {
    type Trainer = <ModelWrapper as Model>::Trainer;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        self.model.tokenize(sequence)
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
    use serde_json::json;

    /// As JSON, with the largest id.
    type Outcome = Result<(Value, Option<u32>), String>;

    /// What the crate makes of a model, and what is made of it here.
    fn both(model: &Value) -> (Outcome, Outcome) {
        let added = json!([{"id": 9, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}]);
        let json = json!({"version": "1.0", "added_tokens": added, "model": model}).to_string();
        let crates = tokenizers::Tokenizer::from_bytes(json.as_bytes());
        let crates = crates.map(|crates| (json!(crates), crates.get_vocab(true).into_values().max()));
        let ours = read(json.as_bytes()).map(|(ours, largest)| (json!(ours), largest));
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
            bpe(json!({"merges": [["a", "b"]], "dropout": 0.5, "unk_token": "a", "fuse_unk": true,
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
            (json!({"vocab": [], "merges": []}), "expected a map"),
            (json!({"vocab": vocab(), "merges": ["ab"]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": ["a b c"]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": [["a"]]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": [["a", "b", "c"]]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": [1]}), "two tokens"),
            (json!({"vocab": vocab(), "merges": ["a b", ["a", "b"]]}), "found both"),
            (json!({"vocab": vocab(), "merges": ["a x"]}), "out of vocabulary"),
            (json!({"vocab": vocab(), "merges": [], "dropout": 3.0}), "ropout"),
        ] {
            let mut model = json!({"type": "BPE"});
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (crates, ours) = both(&model);
            assert!(crates.is_err(), "{model}");
            assert!(ours.unwrap_err().contains(word), "{model}");
        }
    }
}
