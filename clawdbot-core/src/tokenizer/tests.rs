//! Tokenizers of several kinds, built from small vocabularies.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;

/// The byte-level alphabet with a token for each byte, and a few that mix whole and partial characters.
fn byte_level() -> Value {
    let alphabet = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
    let mut tokens: Vec<String> = alphabet.filter_map(char::from_u32).map(String::from).collect();
    tokens.extend(["Ġa", "Ã©", "aÃ", "©b", "ðŁĺ"].map(str::to_owned));
    let step =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    model(&tokens, step.clone(), step)
}

/// Like Llama 2: Metaspace characters, byte tokens, one leading space stripped.
fn byte_fallback() -> Value {
    let mut tokens: Vec<String> =
        ["<unk>", "▁", "a", "b", "▁a", "▁▁", "é", "<0x", "日"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    model(
        &tokens,
        Value::Null,
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]}),
    )
}

fn with_decoder(decoder: Value) -> Value {
    let tokens = ["a", "▁", "▁b", "##c", "c", ".", "é", "</w>", "d</w>", "'s", ""].map(str::to_owned);
    model(&tokens, Value::Null, decoder)
}

fn model(tokens: &[String], pre_tokenizer: Value, decoder: Value) -> Value {
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let special = json!({
        "id": tokens.len(), "content": "<|end|>", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    });
    json!({
        "version": "1.0", "added_tokens": [special], "normalizer": null, "post_processor": null,
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
        "pre_tokenizer": pre_tokenizer, "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": null},
    })
}

fn load(json: &Value) -> Tokenizer {
    Tokenizer::from_bytes(json.to_string().as_bytes()).expect("well formed")
}

fn every_kind() -> Vec<(&'static str, Tokenizer)> {
    let metaspace = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    vec![
        ("ByteLevel", load(&byte_level())),
        ("byte fallback", load(&byte_fallback())),
        ("Metaspace always", load(&with_decoder(metaspace("always")))),
        ("Metaspace never", load(&with_decoder(metaspace("never")))),
        ("WordPiece", load(&with_decoder(json!({"type": "WordPiece", "prefix": "##", "cleanup": true})))),
        ("BPEDecoder", load(&with_decoder(json!({"type": "BPEDecoder", "suffix": "</w>"})))),
        ("none", load(&with_decoder(Value::Null))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pieces_add_up_to_the_whole(seed in prop::collection::vec(any::<u32>(), 0..40), skip: bool) {
        for (name, tokenizer) in every_kind() {
            let ids: Vec<u32> = seed.iter().map(|id| id % tokenizer.id_limit()).collect();
            let mut stream = StreamDecoder::new(&tokenizer, skip.into());
            let mut text = String::new();
            for id in &ids {
                text.push_str(&stream.push(*id).expect("in the vocabulary"));
            }
            text.push_str(&stream.finish().expect("decodable"));
            prop_assert_eq!(text, tokenizer.decode(&ids, skip.into()).expect("decodable"), "{} {:?}", name, ids);
        }
    }

    #[test]
    fn hostile_files_are_errors_not_panics(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut bytes = byte_fallback().to_string().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Err(error) = Tokenizer::from_bytes(&bytes) {
            prop_assert_eq!(error.kind(), ErrorKind::InvalidTokenizer);
        }
    }
}

#[test]
fn text_survives_and_is_neither_truncated_nor_padded() {
    let tokenizer = load(&byte_level());
    for text in ["hello wörld", "", "日本語 🚀\n", "a"] {
        let ids = tokenizer.encode(text, AddSpecialTokens::Yes).expect("encodable");
        assert_eq!(ids.len(), text.len(), "one token a byte");
        assert_eq!(tokenizer.decode(&ids, SkipSpecialTokens::Yes).expect("decodable"), text);
    }
}

#[test]
fn special_tokens_in_the_text_are_parsed() {
    let tokenizer = load(&byte_level());
    let end = tokenizer.token_to_id("<|end|>").expect("special token");
    assert!(tokenizer.is_special(end) && !tokenizer.is_special(0));
    let ids = tokenizer.encode("a<|end|>b", AddSpecialTokens::No).expect("encodable");
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[1], end);
    assert_eq!(tokenizer.decode(&ids, SkipSpecialTokens::Yes).expect("decodable"), "ab");
    assert_eq!(tokenizer.decode(&ids, SkipSpecialTokens::No).expect("decodable"), "a<|end|>b");
    assert_eq!(tokenizer.id_to_token(end).as_deref(), Some("<|end|>"));
    assert_eq!((tokenizer.vocab_size(), tokenizer.id_limit()), (end as usize + 1, end + 1));
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let tokenizer = load(&byte_level());
    let error = tokenizer.decode(&[0, 100_000], SkipSpecialTokens::Yes).expect_err("out of range");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(error.detail()["token_id"], 100_000);
    let mut stream = StreamDecoder::new(&tokenizer, SkipSpecialTokens::Yes);
    assert!(stream.push(u32::MAX).is_err());
    assert_eq!(stream.push(tokenizer.token_to_id("a").expect("a letter")).expect("valid"), "a");
}

#[test]
fn malformed_and_missing_files_are_different_errors() {
    for text in ["", "{}", "[1]", r#"{"model": {"type": "Nope"}}"#] {
        let error = Tokenizer::from_bytes(text.as_bytes()).expect_err("malformed");
        assert_eq!(error.kind(), ErrorKind::InvalidTokenizer, "{text}");
    }
    let error = Tokenizer::from_file("no/such/tokenizer.json").expect_err("missing");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_long_run_of_tokens_is_streamed_in_linear_time() {
    let tokenizer = load(&byte_fallback());
    let mut stream = StreamDecoder::new(&tokenizer, SkipSpecialTokens::Yes);
    let byte = tokenizer.token_to_id("<0x80>").expect("byte token");
    let letter = tokenizer.token_to_id("a").expect("letter");
    let mut length = 0;
    for at in 0..40_000 {
        length += stream.push(if at < 20_000 { byte } else { letter }).expect("valid").chars().count();
    }
    assert_eq!(length, 40_000);
    assert!(stream.ids.len() <= 2 && stream.bytes.is_empty());
}

#[test]
fn the_bound_never_exceeds_the_tokens() {
    let word_piece = json!({"version": "1.0", "added_tokens": [], "normalizer": {"type": "BertNormalizer",
        "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"u": 0, "a": 1, "##b": 2}}});
    let mut spaced = byte_fallback();
    spaced["model"]["byte_fallback"] = true.into();
    spaced["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let unigram = json!({"version": "1.0", "added_tokens": [], "post_processor": null, "decoder": null,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": pipeline::b_for_a()},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["u", 0.0], ["▁ab", -1.0], ["▁a", -1.0]]}});
    let mut stripping = spaced.clone();
    stripping["added_tokens"][0]["rstrip"] = true.into();
    let mut normalized = byte_level();
    normalized["normalizer"] = json!({"type": "NFKC"});
    let texts = [
        "",
        "a",
        "a b  ab\n",
        "aaaaaaaaaa",
        "<|end|>    <|end|> ",
        "\u{1d400}\u{ff21}\u{1161}",
        "日本 é 語\u{301}",
        "ab.ab a-b",
    ];
    for (json, some) in [
        (&word_piece, true),
        (&unigram, true),
        (&spaced, true),
        (&stripping, true),
        (&normalized, true),
        (&byte_level(), true),
        (&with_decoder(Value::Null), false),
    ] {
        let tokenizer = load(json);
        let mut most = 0;
        for text in texts {
            let text = text.repeat(3);
            let found = tokenizer.encode(&text, AddSpecialTokens::No).map_or(usize::MAX, |ids| ids.len());
            let said = tokenizer.at_least(&text);
            assert!(said <= found, "{text:?}: said {said}, found {found}");
            most = most.max(said);
        }
        assert_eq!(most > 1, some, "{json}");
    }
}

#[test]
fn truncation_agrees_with_the_crate() {
    use tokenizers::{TruncationParams, truncate_encodings};
    for (a, b) in [(0, 9), (3, 9), (9, 3), (5, 5), (8, 9), (9, 8), (1, 0), (4, 4)] {
        for most in 1..20 {
            let encoding =
                |count: usize| Encoding::from_tokens(vec![Token::new(0, String::new(), (0, 0)); count], 0);
            let params = TruncationParams { max_length: most, ..TruncationParams::default() };
            let (first, second) = truncate_encodings(encoding(a), Some(encoding(b)), &params).expect("cut");
            let expected = (first.len(), second.map_or(0, |second| second.len()));
            let found = if a + b > most { cut(a, b, most) } else { (a, b) };
            assert_eq!(found, expected, "{a} {b} {most}");
        }
        let alone = if a > 4 { cut(a, 0, 4).0 } else { a };
        assert_eq!(alone, a.min(4));
    }
}

#[test]
fn padding_ids_decode_to_nothing() {
    let tokenizer = load(&byte_level());
    let limit = tokenizer.id_limit();
    let a = tokenizer.token_to_id("a").expect("a letter");
    assert!(tokenizer.decode(&[a, limit], SkipSpecialTokens::Yes).is_err());
    let padded = tokenizer.padded_to(limit as usize + 2);
    assert_eq!(padded.decode(&[a, limit, limit + 1, a], SkipSpecialTokens::Yes).expect("padding"), "aa");
    assert!(padded.decode(&[limit + 2], SkipSpecialTokens::Yes).is_err());
    assert_eq!(padded.id_limit(), limit);
}

#[test]
fn silent_tokens_are_not_kept() {
    for json in [
        byte_fallback(),
        with_decoder(json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})),
    ] {
        let mut json = json;
        json["model"]["vocab"]["silent"] = 900.into();
        let decoder = json["decoder"].clone();
        let silent = json!({"type": "Replace", "pattern": {"String": "silent"}, "content": ""});
        let steps = match decoder.get("decoders") {
            Some(steps) => [vec![silent], steps.as_array().expect("a list").clone()].concat(),
            None => vec![silent, decoder],
        };
        json["decoder"] = json!({"type": "Sequence", "decoders": steps});
        let tokenizer = load(&json);
        let id = |token: &str| tokenizer.token_to_id(token).expect("a token");
        let ids = [
            vec![id("silent"); 40],
            vec![id("▁"), id("▁"), id("a")],
            vec![id("silent"); 2000],
            vec![id("▁"); 200],
            vec![id("a")],
        ];
        let ids = ids.concat();
        let mut stream = StreamDecoder::new(&tokenizer, SkipSpecialTokens::Yes);
        let mut text = String::new();
        for &id in &ids {
            text.push_str(&stream.push(id).expect("valid"));
            assert!(stream.ids.len() < 50, "{} ids are kept", stream.ids.len());
        }
        text.push_str(&stream.finish().expect("decodable"));
        assert_eq!(text, tokenizer.decode(&ids, SkipSpecialTokens::Yes).expect("decodable"));
    }
}
