//! The fields of the model of a `tokenizer.json`, and what is built of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;

use super::model::{AnyModel, Covers, ReadModel};
use crate::tokenizer::lengths;
use crate::tokenizer::merges::Merges;
use crate::tokenizer::tables::{Blob, Kind, Parts, Settings, TableModel};

/// The fields of models of all types.
#[derive(Default)]
pub(super) struct Fields {
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

impl<'de> Deserialize<'de> for Fields {
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
        deserializer.deserialize_map(ModelVisitor)
    }
}

/// Most characters of a word in WordPiece, whose time is cubic in them. Published models have 100.
const MAX_WORD: usize = 200;
/// Key of what WordPiece puts before all parts of a word but the first.
const PREFIX: &str = "continuing_subword_prefix";

impl Fields {
    /// The model, with maps of the tokenizers crate.
    ///
    /// # Errors
    /// With what was expected and found.
    pub(super) fn build(self) -> Result<ReadModel, String> {
        self.check_affixes()?;
        match self.kind()? {
            Kind::Bpe => self.bpe(),
            Kind::Unigram => self.unigram(),
            Kind::WordPiece => self.word_piece(),
            Kind::WordLevel => self.word_level(),
        }
    }

    /// The kind of the model.
    fn kind(&self) -> Result<Kind, String> {
        // Older files have no type.
        let kind = match (&self.kind, &self.vocab) {
            (Some(kind), _) => kind.as_str(),
            (None, Some(Tokens::Scores(_))) => "Unigram",
            (None, _) if self.merges.is_some() => "BPE",
            (None, _) if self.max_input_chars_per_word.is_some() => "WordPiece",
            (None, _) => "WordLevel",
        };
        Kind::named(kind)
            .ok_or_else(|| format!("model: expected BPE, Unigram, WordPiece or WordLevel, found {kind:.50?}"))
    }

    /// The model with the tables in `blob` as its vocabulary and merges.
    ///
    /// # Errors
    /// With what was expected and found.
    pub(super) fn build_with(self, blob: &Blob) -> Result<ReadModel, String> {
        self.check_affixes()?;
        let kind = self.kind()?;
        for (key, found) in [("vocab", self.vocab.is_some()), ("merges", self.merges.is_some())] {
            if found {
                return Err(format!("model: expected settings only, as tables have the rest, found {key}"));
            }
        }
        if matches!(kind, Kind::WordPiece | Kind::WordLevel) {
            required(self.unk_token.as_ref(), "unk_token")?;
        }
        let longest_word = match kind {
            Kind::WordPiece => {
                required(self.continuing_subword_prefix.as_ref(), PREFIX)?;
                longest_word(self.max_input_chars_per_word)?
            }
            _ => 0,
        };
        let settings = Settings {
            unk_token: self.unk_token,
            prefix: self.continuing_subword_prefix,
            suffix: self.end_of_word_suffix,
            fuse_unk: self.fuse_unk.unwrap_or(false),
            byte_fallback: self.byte_fallback.unwrap_or(false),
            ignore_merges: self.ignore_merges.unwrap_or(false),
            unk_id: self.unk_id,
            longest_word,
        };
        let plain = settings.suffix.is_none() && settings.prefix.as_deref().unwrap_or_default().is_empty();
        let fallback = settings.byte_fallback;
        let model = TableModel::open(blob, kind, settings)?;
        let covers = match kind {
            Kind::Bpe => {
                let has = |token: &str| model.token_to_id(token).is_some();
                covers(plain, fallback, has, model.longest(), || model.most_chars())
            }
            _ => Covers::Words,
        };
        let largest_id = model.largest_id();
        Ok(ReadModel::new(AnyModel::Tables(model), largest_id, covers))
    }

    /// The settings as JSON, and what tables are made of.
    ///
    /// # Errors
    /// With what was expected and found.
    pub(super) fn split(self) -> Result<(Value, Parts), String> {
        let kind = self.kind()?;
        // Other kinds may have any number there.
        let longest_word = self.max_input_chars_per_word.filter(|_| kind == Kind::WordPiece);
        let settings = json!({
            "type": kind.name(), "unk_token": self.unk_token,
            "continuing_subword_prefix": self.continuing_subword_prefix,
            "end_of_word_suffix": self.end_of_word_suffix, "fuse_unk": self.fuse_unk,
            "byte_fallback": self.byte_fallback, "ignore_merges": self.ignore_merges, "unk_id": self.unk_id,
            "max_input_chars_per_word": longest_word,
        });
        let (tokens, scores) = match self.vocab.ok_or("expected vocab")? {
            Tokens::Ids(vocab) => (vocab.into_iter().collect(), None),
            Tokens::Scores(pieces) => {
                let (pieces, scores): (Vec<_>, Vec<f64>) = pieces.into_iter().unzip();
                (pieces.into_iter().zip(0..).collect(), Some(scores))
            }
        };
        // Models of other kinds have no merges, whatever the file says.
        let (merges, prefix) = match kind {
            Kind::Bpe => (self.merges, self.continuing_subword_prefix),
            _ => (None, None),
        };
        let merges = merges.map_or_else(Vec::new, |Merges(merges)| merges);
        Ok((settings, Parts { tokens, scores, merges, prefix: prefix.unwrap_or_default() }))
    }

    fn check_affixes(&self) -> Result<(), String> {
        lengths::check_affixes([
            ("unk_token", &self.unk_token),
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ])
    }

    fn ids(vocab: Option<Tokens>) -> Result<(Vocab, Option<u32>), String> {
        match vocab {
            Some(Tokens::Ids(vocab)) => {
                // Which of two tokens an id stands for would be left to chance.
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
        // The crate assumes that the tokens of a merge exist and fit together.
        let prefix = self.continuing_subword_prefix.as_deref().unwrap_or_default();
        for (a, b) in &merges {
            let rest = b.strip_prefix(prefix).ok_or_else(|| {
                format!("merges: expected the prefix {prefix:.50?} before the second token, found {b:.50?}")
            })?;
            if a.len() + rest.len() > longest {
                return Err(format!(
                    "merges: {a:.50?} and {b:.50?} make a token that is not in the vocabulary"
                ));
            }
        }
        let plain = self.end_of_word_suffix.is_none() && prefix.is_empty();
        let covers = covers(
            plain,
            self.byte_fallback.unwrap_or(false),
            |token| vocab.contains_key(token),
            longest,
            || vocab.keys().map(|token| token.chars().count()).max().unwrap_or(0),
        );
        // The crate caches words for each thread, and keeps them when the tokenizer is dropped.
        let mut builder: BpeBuilder = BPE::builder().cache_capacity(0);
        set(&mut builder, self.unk_token, BpeBuilder::unk_token);
        set(&mut builder, self.continuing_subword_prefix, BpeBuilder::continuing_subword_prefix);
        set(&mut builder, self.end_of_word_suffix, BpeBuilder::end_of_word_suffix);
        set(&mut builder, self.fuse_unk, BpeBuilder::fuse_unk);
        set(&mut builder, self.byte_fallback, BpeBuilder::byte_fallback);
        set(&mut builder, self.ignore_merges, BpeBuilder::ignore_merges);
        let bpe = builder.vocab_and_merges(vocab, merges).build().map_err(|error| error.to_string())?;
        Ok(ReadModel::new(bpe.into(), largest_id, covers))
    }

    fn unigram(self) -> Result<ReadModel, String> {
        let Some(Tokens::Scores(vocab)) = self.vocab else {
            return Err("vocab: expected a list of tokens and scores".to_owned());
        };
        lengths::check_pieces(&vocab)?;
        let largest_id = vocab.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let unigram = Unigram::from(vocab, self.unk_id, self.byte_fallback.unwrap_or(false));
        let unigram = unigram.map_err(|error| error.to_string())?;
        Ok(ReadModel::new(unigram.into(), largest_id, Covers::Words))
    }

    fn word_piece(self) -> Result<ReadModel, String> {
        let (vocab, largest_id) = Self::ids(self.vocab)?;
        let word_piece = WordPiece::builder()
            .vocab(vocab)
            .unk_token(required(self.unk_token, "unk_token")?)
            .continuing_subword_prefix(required(self.continuing_subword_prefix, PREFIX)?)
            .max_input_chars_per_word(longest_word(self.max_input_chars_per_word)?)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(ReadModel::new(word_piece.into(), largest_id, Covers::Words))
    }

    fn word_level(self) -> Result<ReadModel, String> {
        let (vocab, largest_id) = Self::ids(self.vocab)?;
        let unknown = required(self.unk_token, "unk_token")?;
        let word_level = WordLevel::builder().vocab(vocab).unk_token(unknown).build();
        let word_level = word_level.map_err(|error| error.to_string())?;
        Ok(ReadModel::new(word_level.into(), largest_id, Covers::Words))
    }
}

/// The setting called `key`, which a model cannot do without.
fn required<T>(setting: Option<T>, key: &str) -> Result<T, String> {
    setting.ok_or_else(|| format!("missing field `{key}`"))
}

/// Most characters of a word in WordPiece.
fn longest_word(setting: Option<usize>) -> Result<usize, String> {
    let longest = required(setting, "max_input_chars_per_word")?;
    if longest > MAX_WORD {
        return Err(format!("max_input_chars_per_word: expected at most {MAX_WORD}, found {longest}"));
    }
    Ok(longest)
}

/// What a BPE model covers, if `plain`: without marks where words begin and end. Its longest token has `longest` bytes.
fn covers(
    plain: bool,
    byte_fallback: bool,
    has: impl Fn(&str) -> bool,
    longest: usize,
    most_chars: impl FnOnce() -> usize,
) -> Covers {
    let bytes = |written: &dyn Fn(u8) -> String| (0..=255).all(|byte| has(&written(byte)));
    let alphabet = |byte: u8| crate::tokenizer::byte_tokens::char_of(byte).to_string();
    if plain && byte_fallback && bytes(&|byte| format!("<0x{byte:02X}>")) {
        Covers::Text(longest)
    } else if plain && bytes(&alphabet) {
        Covers::ByteLevel(most_chars())
    } else {
        Covers::Unknown
    }
}

/// Sets the value unless it is null.
fn set<T>(builder: &mut BpeBuilder, value: Option<T>, with: impl FnOnce(BpeBuilder, T) -> BpeBuilder) {
    if let Some(value) = value {
        *builder = with(std::mem::take(builder), value);
    }
}
