//! Tables compared with the maps of the tokenizers crate, and hostile tables.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::blob::{Blob, BlobWriter, Section};
use super::vocab::TableVocab;
use super::{NoTables, Parts, bytes, check, hash};
use crate::tokenizer::{AddSpecialTokens, SkipSpecialTokens, StreamDecoder, Tokenizer};
use crate::{ErrorKind, Result};

#[path = "../../../tests/support/large_tokenizer.rs"]
mod large_tokenizer;

/// The tokenizer in `json`, with maps and with tables.
fn both(json: &[u8]) -> (Tokenizer, Tokenizer) {
    let tables = Tokenizer::tables(json).unwrap().expect("tables");
    assert_eq!(Ok(&tables), Tokenizer::tables(json).unwrap().as_ref(), "the same bytes each time");
    (Tokenizer::from_bytes(json).unwrap(), Tokenizer::from_tables(tables, json.len() as u64).unwrap())
}

fn outcome<T>(result: Result<T>) -> std::result::Result<T, (ErrorKind, String)> {
    result.map_err(|error| (error.kind(), error.message().to_owned()))
}

/// Checks that both do the same with `text`.
fn same_text(maps: &Tokenizer, tables: &Tokenizer, text: &str) {
    for add in [AddSpecialTokens::No, AddSpecialTokens::Yes] {
        let ids = outcome(maps.encode(text, add));
        assert_eq!(outcome(tables.encode(text, add)), ids, "{text:.200?}");
        assert_eq!(
            outcome(tables.encode_within(text, Some("a b"), add, 9)),
            outcome(maps.encode_within(text, Some("a b"), add, 9)),
            "{text:.200?}"
        );
        let Ok(ids) = ids else { continue };
        for skip in [SkipSpecialTokens::No, SkipSpecialTokens::Yes] {
            assert_eq!(outcome(tables.decode(&ids, skip)), outcome(maps.decode(&ids, skip)), "{text:.200?}");
            let stream = |tokenizer: &Tokenizer| {
                let mut stream = StreamDecoder::new(tokenizer, skip);
                let pieces: Vec<_> = ids.iter().take(300).map(|&id| outcome(stream.push(id))).collect();
                (pieces, outcome(stream.finish()))
            };
            assert_eq!(stream(tables), stream(maps), "{text:.200?}");
        }
    }
    assert_eq!(tables.at_least(text), maps.at_least(text), "{text:.200?}");
}

/// Checks that the tokenizer in `json` does the same with maps and with tables.
pub(in crate::tokenizer) fn same(json: &[u8]) {
    let (maps, tables) = both(json);
    assert_eq!((tables.vocab_size(), tables.id_limit()), (maps.vocab_size(), maps.id_limit()));
    assert_eq!(tables.notes(), maps.notes());
    assert_eq!((tables.inner.bound, tables.inner.decoding), (maps.inner.bound, maps.inner.decoding));
    let limit = maps.id_limit();
    let mut tokens = String::new();
    for id in (0..limit.saturating_add(3).min(300_000)).chain([u32::MAX - 1, u32::MAX]) {
        let token = maps.id_to_token(id);
        assert_eq!(
            (tables.id_to_token(id), tables.is_special(id)),
            (token.clone(), maps.is_special(id)),
            "{id}"
        );
        let Some(token) = token else { continue };
        assert_eq!(tables.token_to_id(&token), maps.token_to_id(&token), "{token:?}");
        let other = format!("{token}~");
        assert_eq!(tables.token_to_id(&other), maps.token_to_id(&other), "{other:?}");
        if id % 7 == 0 && tokens.len() < 4000 {
            tokens.push_str(&token);
            tokens.push_str(if id % 2 == 0 { " " } else { "" });
        }
    }
    let long = "ab".repeat(20_000) + "é日本" + &"x".repeat(300);
    let texts = [
        "",
        " ",
        "a",
        "Once upon a time, 12 cafés\n\tsaid 😀!",
        "  two  spaces\r\n\r\n",
        "日本語 🚀 ещё 12345678",
        "<s> b\u{fdfa}\u{301}</s><unk>",
        "don't I'LL 3.14 \u{0} \u{a0}\u{2003}x",
        "xé ż",
        "##b [UNK] ▁▁a",
        &tokens,
        &long,
    ];
    for text in texts {
        same_text(&maps, &tables, text);
    }
}

fn file(tokens: &[&str], model: Value) -> Vec<u8> {
    let vocab: Map<String, Value> =
        tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), json!(id))).collect();
    let mut fields = model.as_object().unwrap().clone();
    fields.entry("vocab").or_insert_with(|| vocab.into());
    let added = json!([{"id": tokens.len(), "content": "<s>", "single_word": false, "lstrip": false, "rstrip": true,
        "normalized": false, "special": true}]);
    let json = json!({"version": "1.0", "added_tokens": added, "model": fields,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": {"type": "Fuse"}});
    json.to_string().into_bytes()
}

#[test]
fn models_of_all_kinds_do_the_same() {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut tokens =
        vec!["<unk>", "a", "b", "é", "ab", "aba", "x", "xx", "é日", "##b", "##a", "b</w>", "~", ""];
    let merges = json!(["a b", "ab a", "x x", "x x"]);
    for fallback in [false, true] {
        for more in [
            json!({}),
            json!({"unk_token": "<unk>"}),
            json!({"unk_token": "<unk>", "fuse_unk": true}),
            json!({"unk_token": "none"}),
            json!({"ignore_merges": true, "unk_token": "<unk>"}),
            json!({"end_of_word_suffix": "</w>", "unk_token": "<unk>", "merges": []}),
            json!({"continuing_subword_prefix": "##", "merges": [["a", "##b"]]}),
        ] {
            let mut model = json!({"type": "BPE", "merges": merges, "byte_fallback": fallback});
            model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            same(&file(&tokens, model));
        }
        let mut scores: Vec<(&str, f64)> = vec![("<unk>", 0.0), ("a", -2.0), ("b", -2.5), ("ab", -3.0)];
        scores.extend([("aba", -9.0), ("é", -1.0), ("é日", -1.5), ("xx", -4.0), ("ab", -1.0), ("", -1.0)]);
        if fallback {
            scores.extend(bytes.iter().map(|token| (token.as_str(), -8.0)));
        }
        for unk in [json!(0), json!(1), json!(null)] {
            same(&file(
                &[],
                json!({"type": "Unigram", "vocab": scores, "unk_id": unk, "byte_fallback": fallback}),
            ));
        }
        tokens.extend(bytes.iter().map(String::as_str).filter(|_| !fallback));
    }
    same(&file(&[], json!({"type": "Unigram", "vocab": [], "unk_id": null})));
    same(&file(&[], json!({"type": "BPE", "merges": []})));
    for unk in ["<unk>", "none"] {
        for longest in [3, 100] {
            let more = json!({"type": "WordPiece", "unk_token": unk, "continuing_subword_prefix": "##",
                "max_input_chars_per_word": longest});
            same(&file(&tokens, more));
        }
        same(&file(&tokens, json!({"type": "WordLevel", "unk_token": unk})));
    }
    // Fields of other kinds have no effect.
    let others = json!({"merges": ["no such"], "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>",
        "max_input_chars_per_word": 1000, "unk_id": 1000});
    for (own, foreign) in [
        (json!({"type": "BPE", "merges": ["a b"]}), &["max_input_chars_per_word", "unk_id"][..]),
        (
            json!({"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]], "unk_id": 0}),
            &["merges", "continuing_subword_prefix", "end_of_word_suffix", "max_input_chars_per_word"],
        ),
        (
            json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100}),
            &["merges", "end_of_word_suffix", "unk_id"],
        ),
        (
            json!({"type": "WordLevel", "unk_token": "<unk>"}),
            &["merges", "continuing_subword_prefix", "max_input_chars_per_word", "unk_id"],
        ),
    ] {
        let mut model = own;
        for key in foreign {
            model[*key] = others[*key].clone();
        }
        same(&file(&tokens, model));
    }
    // Ids with gaps, in any order.
    let vocab = json!({"b": 70, "a": 4, "ab": 4_294_967_000_u32, "c": 5});
    same(&file(&[], json!({"type": "BPE", "vocab": vocab, "merges": ["a b"]})));
}

#[test]
fn fixtures_do_the_same() {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").read_dir().unwrap();
    let mut files: Vec<_> = folders.map(|folder| folder.unwrap().path().join("tokenizer.json")).collect();
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/builtin/tokenizer.json"));
    let mut seen = std::collections::HashSet::new();
    for file in files.into_iter().filter(|file| file.exists()) {
        let json = std::fs::read(&file).unwrap();
        if seen.insert(json.clone()) {
            same(&json);
        }
    }
    assert!(seen.len() >= 2);
}

#[test]
fn a_large_tokenizer_does_the_same() {
    same(large_tokenizer::tokenizer_json(6000).as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any text of letters that are often merged.
    #[test]
    fn any_text_does_the_same(text in "[abx\u{e9}\u{65e5}~ ]{0,60}", fuse: bool, skip: bool) {
        let tokens = ["<unk>", "a", "b", "\u{e9}", "ab", "aba", "x", "xx", "bb", "abab", "abx", "xa", "bx"];
        let merges = json!(["a b", "x a", "ab a", "x x", "b b", "ab ab", "b x", "ab x", "a bx"]);
        let model = json!({"type": "BPE", "merges": merges, "unk_token": "<unk>", "fuse_unk": fuse,
            "ignore_merges": skip});
        let (maps, tables) = both(&file(&tokens, model));
        same_text(&maps, &tables, &text);
        let scores: Vec<_> = tokens.iter().zip(0..).map(|(token, i)| json!([token, -f64::from(i * 7 % 11)])).collect();
        let (maps, tables) = both(&file(&[], json!({"type": "Unigram", "vocab": scores, "unk_id": 0})));
        same_text(&maps, &tables, &text);
    }

    /// Tables with other bytes are errors, or tokenizers that do something else.
    #[test]
    fn hostile_tables_are_errors_or_other_tokens(
        kind in 0..3_usize, at in any::<prop::sample::Index>(), value: u32, cut in any::<prop::sample::Index>(), how in 0..4,
    ) {
        let tokens = ["<unk>", "a", "b", "ab", "x", "##b", "\u{e9}", "\u{e9}b"];
        let json = match kind {
            0 => file(&tokens, json!({"type": "BPE", "merges": ["a b", "\u{e9} b"], "unk_token": "<unk>"})),
            1 => {
                let scores: Vec<_> = tokens.iter().map(|token| json!([token, -1.5])).collect();
                file(&[], json!({"type": "Unigram", "vocab": scores, "unk_id": 0}))
            }
            _ => file(&tokens, json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100})),
        };
        let mut bytes = Tokenizer::tables(&json).unwrap().unwrap();
        let word = at.index(bytes.len() / 4) * 4;
        match how {
            0 => bytes.truncate(cut.index(bytes.len())),
            1 => bytes[word..word + 4].copy_from_slice(&value.to_le_bytes()),
            2 => bytes[word..word + 4].copy_from_slice(&(value % 20).to_le_bytes()),
            _ => bytes[word] ^= value as u8,
        }
        match Tokenizer::from_tables(bytes, json.len() as u64) {
            Ok(tokenizer) => {
                for text in ["ab\u{e9}b x zz <s> a", &"ab\u{e9}".repeat(9000)] {
                    if let Ok(ids) = tokenizer.encode(text, AddSpecialTokens::Yes) {
                        prop_assert!(ids.iter().all(|&id| id < tokenizer.id_limit()));
                        tokenizer.decode(&ids, SkipSpecialTokens::No).unwrap();
                    }
                }
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidTokenizer),
        }
    }
}

/// Tables of the tokens `<unk>` and `a` with scores, and what is left of the file.
fn made_of(rest: &str) -> (Vec<u8>, Parts) {
    let tokens = [("<unk>", 0), ("a", 1)].map(|(text, id)| (text.to_owned(), id)).to_vec();
    let parts = Parts { tokens, scores: Some(vec![-1.0, -2.0]), merges: Vec::new(), prefix: String::new() };
    (bytes(&parts, rest.as_bytes().to_vec(), 1).unwrap().unwrap(), parts)
}

#[test]
fn settings_without_use_are_refused() {
    let word_piece = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 200});
    let with = |key: &str, value: Value| {
        let mut model = word_piece.clone();
        model[key] = value;
        let (tables, _) = made_of(&json!({"model": model}).to_string());
        Tokenizer::from_tables(tables, 1).map(|_| ()).map_err(|error| error.message().to_owned())
    };
    assert_eq!(with("type", json!("WordPiece")), Ok(()));
    for (key, value, words) in [
        ("max_input_chars_per_word", json!(201), "max_input_chars_per_word: expected at most 200, found 201"),
        ("max_input_chars_per_word", json!(null), "missing field `max_input_chars_per_word`"),
        ("unk_token", json!(null), "missing field `unk_token`"),
        ("continuing_subword_prefix", json!(null), "missing field `continuing_subword_prefix`"),
        ("vocab", json!({}), "found vocab"),
        ("merges", json!([]), "found merges"),
    ] {
        let error = with(key, value).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

/// Building takes time for every token, and the key may be there any number of times.
#[test]
fn a_repeated_model_is_built_once() {
    let wrong = r#""model": {"type": "none"}, "#.repeat(1000);
    let rest = format!(r#"{{{wrong} "model": {{"type": "WordLevel", "unk_token": "<unk>"}}}}"#);
    let tokenizer = Tokenizer::from_tables(made_of(&rest).0, 1).unwrap();
    assert_eq!(tokenizer.encode("a", AddSpecialTokens::No).unwrap(), [1]);
}

#[test]
fn what_is_packed_is_compared() {
    let (tables, mut parts) = made_of("{}");
    let blob = Blob::open(tables).unwrap();
    check(&blob, &parts).unwrap();
    parts.scores = Some(vec![-1.0, -3.0]);
    assert!(check(&blob, &parts).unwrap_err().contains("piece 1"));
    parts.tokens[1].0 = "b".to_owned();
    assert!(check(&blob, &parts).unwrap_err().contains("token 1"));
}

#[test]
fn what_is_too_large_has_no_tables() {
    let tokens = vec![("a".repeat((128 << 20) + 1), 0)];
    let parts = Parts { tokens, scores: None, merges: Vec::new(), prefix: String::new() };
    let Err(NoTables(reason)) = bytes(&parts, Vec::new(), 1).unwrap() else { panic!("tables") };
    assert_eq!(reason, "expected at most 134217728 bytes of tokens, found 134217729");
    let mut out = BlobWriter::new();
    out.set(Section::Ends, vec![0; 4 * (hash::MAX_KEYS + 1)]);
    let error = TableVocab::open(&Blob::open(out.finish(1, 0)).unwrap()).unwrap_err();
    assert!(error.contains("expected at most 8388606 tokens, found 8388607"), "{error}");
}

#[test]
fn errors_say_what_was_found() {
    let unigram =
        |unk_id: u32| made_of(&json!({"model": {"type": "Unigram", "unk_id": unk_id}}).to_string()).0;
    let good = unigram(1);
    Tokenizer::from_tables(good.clone(), 1).unwrap();
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut tables = good.clone();
        change(&mut tables);
        Tokenizer::from_tables(tables, 1).unwrap_err().message().to_owned()
    };
    let length = |section: Section| 40 + 8 * section as usize;
    let begin = |section: Section| {
        let before = &Section::ALL[..section as usize];
        before.iter().fold(40 + 8 * Section::COUNT, |at, &section| {
            at + usize::from(good[length(section)]).next_multiple_of(8)
        })
    };
    let set = |at: usize, value: u8| error(&move |tables| tables[at] = value);
    assert!(Section::ALL.iter().enumerate().all(|(i, &section)| section as usize == i));
    for (found, words) in [
        (set(0, b'x'), r#"expected "clawdbot-tables\x00" at the start, found "xlawdbot"#),
        (set(16, 9), "expected version 1, found version 9"),
        (error(&|tables| tables.truncate(50)), "expected a header of 128 bytes, found 50"),
        (set(length(Section::Texts) + 3, 9), "Texts: expected at most"),
        (set(length(Section::Scores), 15), "Scores: expected 16 bytes for 2 pieces, found 15"),
        (set(begin(Section::FirstChild), 9), "children in ascending order, found 9 before"),
        (set(begin(Section::FirstChild) + 4 * 7, 99), "children of at most 7, found 99"),
        (error(&|tables| *tables = unigram(2)), "unk_id: expected an id below 2, found 2"),
    ] {
        assert!(found.contains(words), "{found}");
    }
}

#[test]
fn tables_of_another_file_and_version_are_refused() {
    let json = file(&["a"], json!({"type": "BPE", "merges": []}));
    let mut bytes = Tokenizer::tables(&json).unwrap().unwrap();
    let error = Tokenizer::from_tables(bytes.clone(), 7).unwrap_err();
    assert!(error.message().contains("a tokenizer.json of 7 bytes"), "{error}");
    assert_eq!(Tokenizer::unknown_tables(&bytes), None);
    bytes[16] = 9;
    assert_eq!(Tokenizer::unknown_tables(&bytes), Some(9));
    let error = Tokenizer::from_tables(bytes, json.len() as u64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidTokenizer);
}
