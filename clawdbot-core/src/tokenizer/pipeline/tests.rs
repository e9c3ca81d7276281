//! Each part compared with the tokenizers crate; errors.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::Decoder as _;
use tokenizers::DecoderWrapper;
use tokenizers::pattern::Pattern as _;

use super::steps::Finder;
use super::*;

#[test]
fn patterns_agree_with_oniguruma() {
    let file: Value = serde_json::from_str(include_str!("oniguruma_cases.json")).unwrap();
    let texts: Vec<&str> =
        file["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for case in file["cases"].as_array().unwrap() {
        let pattern = case[0].as_str().unwrap();
        let regex = Finder::Regex(oniguruma::compile(pattern, &mut u64::MAX.clone()).unwrap());
        for (text, expected) in texts.iter().zip(case[1].as_array().unwrap()) {
            let parts = (&regex).find_matches(text).unwrap();
            let parts: Vec<&str> = parts.iter().map(|((start, end), _)| &text[*start..*end]).collect();
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            assert_eq!(json!(parts), *expected, "{pattern} in {text:?}");
        }
    }
}

#[test]
fn patterns_with_another_meaning_are_refused() {
    for (pattern, word) in [
        (r"\K", "not supported"),
        (r"\G", "not supported"),
        (r"\y", "not supported"),
        (r"\Qa\E", "not supported"),
        (r"\N", "not supported"),
        (r"(a)\1", "not supported"),
        (r"(?<n>a)\k<n>", "not supported"),
        (r"\xe9", "not characters"),
        (r"(?~ab)", "not supported"),
        (r"(?(1)a|b)", "not supported"),
        (r"(?x: a b )", "not supported"),
        (r"(?s:.)", "not supported"),
        (r"(?P<n>a)", "not supported"),
        (r"\p{Script=Han}", "unknown property"),
        (r"\p{In_Basic_Latin}", "unknown property"),
        (r"\pL", "in braces"),
        (r"[[:foo:]]", "unknown class"),
        (r"[a-\d]", "range"),
        (r"[\d-z]", "range"),
        (r"[b-a]", "range"),
        (r"[a&&]", "characters between"),
        (r"[a", "end of the pattern"),
        ("(a", "for each ("),
        ("a)", "expected a ( for each )"),
        ("*a", "repeat"),
        ("a|+", "repeat"),
        ("^*", "repeat"),
        ("a+?*", "several"),
        ("(?:a*)*", "can be empty"),
        ("a{3,1}", "ascending interval"),
        ("a{2000000}", "repetitions"),
        ("(?i)ss", "one character"),
        ("(?i)f{2}", "one character"),
        ("(?i)(?:f)i", "one character"),
        ("(?i)[s]t", "one character"),
        ("(?i)\u{e9}", "not supported"),
        (r"(?i)[\p{Lu}a]", "not supported"),
        (r"\w{100}\w{100}", "take at most"),
        (&"(".repeat(100), "deep"),
        (&"[".repeat(100), "deep"),
        (&"a".repeat(20_000), "characters"),
    ] {
        let error = oniguruma::compile(pattern, &mut oniguruma::MAX_COST.clone()).unwrap_err();
        assert!(error.contains(word), "{pattern:.50}: {error}");
    }
}

#[test]
fn compiled_patterns_are_counted_together() {
    let split =
        json!({"type": "Split", "pattern": {"Regex": r"\w{20}"}, "behavior": "Isolated", "invert": false});
    let parse = |count: usize| {
        let mut limits = Limits::default();
        PreTokenizers::parse(
            json!({"type": "Sequence", "pretokenizers": vec![split.clone(); count]}),
            &mut limits,
        )
        .map(|_| ())
    };
    parse(5).unwrap();
    assert!(parse(20).unwrap_err().contains("take at most"));
}

fn decoders() -> impl Strategy<Value = Value> {
    let metaspace =
        |scheme: &str| json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme});
    let replace =
        |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let one = prop::sample::select(vec![
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": false}),
        metaspace("always"),
        metaspace("never"),
        json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": true}),
        json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        replace(json!({"String": "\u{2581}"}), " "),
        replace(json!({"Regex": "[ab]+"}), "xy"),
    ]);
    prop::collection::vec(one, 1..5).prop_map(|steps| json!({"type": "Sequence", "decoders": steps}))
}

proptest! {
    #[test]
    fn decoders_agree_with_the_crate(
        decoder in decoders(),
        tokens in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "\u{2581}", "\u{2581}a", "##a", "a</w>", "<0xC3>", "<0xA9>", "<0x41>", "<0xZZ>", "|", " ", "  x ", "\u{120}x",
            ".", " 's", "\u{e9}", " do not",
        ]), 1..8),
    ) {
        let tokens: Vec<String> = tokens.into_iter().map(str::to_owned).collect();
        let crates: DecoderWrapper = serde_json::from_value(decoder.clone()).unwrap();
        let ours = Decoder::parse(decoder, &mut Limits::default()).unwrap().unwrap();
        prop_assume!(crates_can(&ours, &tokens));
        prop_assert_eq!(ours.decode(tokens.clone()).unwrap(), crates.decode(tokens).unwrap());
    }
}

/// Whether no step of the crate gets an empty list, at which its `BPEDecoder` panics.
fn crates_can(decoder: &Decoder, tokens: &[String]) -> bool {
    !decoder.steps().iter().any(|step| matches!(step, DecoderStep::Ctc { .. }))
        || tokens.iter().any(|token| token == "b")
}

#[test]
fn stripping_more_than_the_text_leaves_nothing() {
    let strip = json!({"type": "Strip", "content": "a", "start": 3, "stop": 5});
    let decoder = Decoder::parse(strip, &mut Limits::default()).unwrap().unwrap();
    for (token, expected) in [("a", ""), ("", ""), ("aaaa", ""), ("aaaabaaaaaa", "aba"), ("b", "b")] {
        assert_eq!(decoder.decode(vec![token.to_owned()]).unwrap(), expected, "{token}");
    }
}

#[test]
fn parts_are_bounded() {
    let limits = || Limits::default();
    let normalizer = |part: Value| Normalizers::parse(part, &mut limits()).err().unwrap();
    let pre_tokenizer = |part: Value| PreTokenizers::parse(part, &mut limits()).err().unwrap();
    let decoder = |part: Value| Decoder::parse(part, &mut limits()).err().unwrap();
    let processor = |part: Value| post_processor(part).err().unwrap();
    let nested = |key: &str, depth: usize| {
        (0..depth).fold(json!({"type": "Fuse"}), |inner, _| json!({"type": "Sequence", key: [inner]}))
    };
    let template = |single: Value, pair: Value| {
        json!({"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": {"x": {"id": "x", "ids": [1, 2], "tokens": ["x"]}}})
    };
    let a = json!({"Sequence": {"id": "A", "type_id": 0}});
    let x = json!({"SpecialToken": {"id": "x", "type_id": 0}});
    let y = json!({"SpecialToken": {"id": "y", "type_id": 0}});
    let bert = json!({"type": "BertProcessing", "sep": ["a", 0], "cls": ["a", 0]});
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let replace = |pattern: Value| json!({"type": "Replace", "pattern": pattern, "content": "x"});
    for (error, word) in [
        (normalizer(json!([])), "an object or null"),
        (normalizer(json!({"type": "Nope"})), "a known type"),
        (normalizer(json!({"type": "Prepend", "prepend": "a".repeat(100)})), "at most 64"),
        (normalizer(replace(json!({"Regex": "a*"}))), "the empty text"),
        (normalizer(replace(json!({"Regex": "^"}))), "the empty text"),
        (normalizer(replace(json!({"String": ""}))), "an empty string"),
        (normalizer(replace(json!({"Regex": "a", "String": "a"}))), "expected a pattern"),
        (normalizer(nested("normalizers", 65)), "64 deep"),
        (
            normalizer(json!({"type": "Sequence", "normalizers": vec![json!({"type": "NFC"}); 101]})),
            "100 steps",
        ),
        (normalizer(json!({"type": "Precompiled", "precompiled_charsmap": ""})), "length of a table"),
        (pre_tokenizer(json!({"type": "FixedLength", "length": 0})), "above 0"),
        (pre_tokenizer(json!({"type": "Sequence", "pretokenizers": vec![byte_level; 4]})), "at most 3"),
        (decoder(json!({"type": "Strip", "content": "a", "start": 0, "stop": 17})), "at most 16"),
        (decoder(json!({"type": "BPEDecoder", "suffix": ""})), "at least one"),
        (processor(template(json!([a, a]), json!([a]))), "once"),
        (processor(template(json!([{"Sequence": {"id": "B", "type_id": 0}}]), json!([a]))), "once"),
        (processor(template(json!([a, x]), json!([a]))), "as many ids"),
        (processor(template(json!([a, y]), json!([a]))), "among the special"),
        (processor(template(json!(vec![y; 101]), json!([a]))), "100 pieces"),
        (processor(json!({"type": "Sequence", "processors": [bert, bert]})), "one step"),
    ] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn byte_level_words_agree_with_the_crate() {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};
    let text = "it's  I'll\n\n caf\u{e9} 12 \u{65e5}\u{672c} !?\t x  ";
    for add_prefix_space in [false, true] {
        let json = json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true,
            "use_regex": true});
        let crates: tokenizers::PreTokenizerWrapper = serde_json::from_value(json.clone()).unwrap();
        let ours = PreTokenizers::parse(json, &mut Limits::default()).unwrap().unwrap();
        let (mut expected, mut found) = (PreTokenizedString::from(text), PreTokenizedString::from(text));
        crates.pre_tokenize(&mut expected).unwrap();
        ours.pre_tokenize(&mut found).unwrap();
        let words = |text: &PreTokenizedString| -> Vec<String> {
            let splits = text.get_splits(OffsetReferential::Normalized, OffsetType::None);
            splits.into_iter().map(|(word, ..)| word.to_owned()).collect()
        };
        assert_eq!(words(&found), words(&expected));
        assert_eq!(words(&found)[0] == "\u{120}it", add_prefix_space);
    }
}
