//! Constraints over a small byte-level tokenizer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Accepted, Constraint, ConstraintSpec, LazyVocabulary, Matcher, Vocabulary};
use crate::cancel::CancelHandle;
use crate::error::{Error, ErrorKind};
use crate::tokenizer::Tokenizer;

/// The token that ends a text.
const END: u32 = 0;

/// Random numbers (splitmix64, <https://prng.di.unimi.it/splitmix64.c>).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// A byte-level tokenizer: the bytes, some pairs, and an end token.
fn tokenizer() -> Tokenizer {
    tokenizer_with(&[])
}

/// The same with further special tokens.
pub(super) fn tokenizer_with(special: &[&str]) -> Tokenizer {
    let byte = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).expect("a character"),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte - 0x7f)).expect("a character"),
        0xad => '\u{143}',
    };
    let mut vocab = serde_json::Map::new();
    vocab.insert("</s>".into(), json!(0));
    for id in 0..=255_u8 {
        vocab.insert(byte(id).to_string(), json!(u32::from(id) + 1));
    }
    let merges = ["{ \"", "\" :", "\" ,", "\" }", "a b", "1 2", "} }", "t r", "tr u", "tru e", ": Ġ"];
    for (id, merge) in merges.iter().enumerate() {
        vocab.insert(merge.replace(' ', ""), json!(257 + id));
    }
    let added = std::iter::once((0, "</s>")).chain((300..).zip(special.iter().copied()));
    let added = added.map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let json = json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).expect("well formed")
}

pub(super) fn vocabulary() -> Arc<Vocabulary> {
    Arc::new(Vocabulary::new(&tokenizer()).expect("supported"))
}

fn constraint(spec: ConstraintSpec) -> Constraint {
    Constraint::with(&vocabulary(), &spec).expect("compiles")
}

pub(super) fn schema(schema: Value) -> Constraint {
    constraint(ConstraintSpec::JsonSchema(schema))
}

fn matcher(constraint: &Constraint) -> Matcher {
    Matcher::new(constraint.grammar(), &[END], false).expect("a matcher")
}

#[test]
fn texts_are_accepted_and_forbidden() {
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
        "required": ["a"], "additionalProperties": false});
    for (constraint, good, bad) in [
        (
            schema(object),
            &[r#"{"a":1}"#, r#"{"a": -20, "b": "x\né"}"#, "{\n  \"a\": 1\n}"][..],
            &[
                (r#"{"b":"x"}"#, Some(2)),
                (r#"{"a":1.5}"#, Some(6)),
                (r#"{"a":1"#, None),
                ("  {}", Some(0)),
                ("{\n\n", Some(2)),
            ][..],
        ),
        (constraint(ConstraintSpec::JsonObject), &[r#"{"x":[{}, null, true, 1e5]}"#], &[("[]", Some(0))]),
        (
            constraint(ConstraintSpec::Regex("^[a-c]{2}\\d*$".into())),
            &["ab", "cc12"],
            &[("a", None), ("ad", Some(1))],
        ),
        (
            constraint(ConstraintSpec::Grammar("start: item+\nitem: \"x\" | \"(\" start \")\"".into())),
            &["x", "(x(xx))x"],
            &[("(x", None), (")", Some(0))],
        ),
        (
            constraint(ConstraintSpec::Choices(vec!["yes".into(), "yes, of course".into(), "a/b".into()])),
            &["yes", "yes, of course", "a/b"],
            &[("yes,", None), ("no", Some(0))],
        ),
    ] {
        for text in good {
            assert_eq!(constraint.forbidden_at(text).expect("runs"), None, "{text}");
            assert!(constraint.accepts(text).expect("runs"), "{text}");
        }
        for (text, at) in bad {
            assert!(!constraint.accepts(text).expect("runs"), "{text}");
            assert_eq!(constraint.forbidden_at(text).expect("runs"), *at, "{text}");
        }
    }
}

#[test]
fn places_are_in_whole_characters() {
    // Both letters begin with the same byte, which is a token.
    let letter = constraint(ConstraintSpec::Regex("éè".into()));
    assert_eq!(letter.forbidden_at("éé").expect("runs"), Some(1));
    assert_eq!(letter.forbidden_at("éèé").expect("runs"), Some(2));
    assert_eq!(letter.forbidden_at("é").expect("runs"), None);
    let clef = constraint(ConstraintSpec::JsonObject);
    assert_eq!(clef.forbidden_at("{\"𝄞é\": x}").expect("runs"), Some(7));
}

#[test]
fn checking_is_cancelled() {
    let (constraint, cancel) = (constraint(ConstraintSpec::JsonObject), CancelHandle::default());
    assert!(constraint.accepts_until("{}", &cancel).expect("runs"));
    cancel.cancel();
    let cancelled = |error: Error| assert_eq!(error.kind(), ErrorKind::Cancelled);
    cancelled(constraint.accepts_until("{}", &cancel).expect_err("cancelled"));
    cancelled(constraint.forbidden_at_until("{}", &cancel).expect_err("cancelled"));
}

#[test]
fn a_vocabulary_is_made_once() {
    let lazy = LazyVocabulary::new(tokenizer());
    let first = lazy.get().expect("supported");
    assert!(Arc::ptr_eq(&first, &lazy.get().expect("supported")));
    assert_eq!(lazy.tokenizer().vocab_size(), first.tokenizer().vocab_size());
}

#[test]
fn masks_hold_what_fits_and_the_end() {
    let constraint = schema(json!({"enum": ["ab", 12]}));
    let mut matcher = matcher(&constraint);
    let vocabulary = Arc::clone(constraint.grammar().vocabulary());
    let texts = |matcher: &mut Matcher| -> Vec<String> {
        let mask = matcher.mask(None).expect("a mask");
        mask.ids().map(|id| String::from_utf8_lossy(vocabulary.token(id, false)).into_owned()).collect()
    };
    assert_eq!(texts(&mut matcher), ["\"", "1", "12"]);
    let id = |text: &str| vocabulary.tokenizer().token_to_id(text).expect("a token");
    assert_eq!(matcher.accept(id("12"), None).expect("fits"), Accepted::Yes);
    assert!(matcher.is_complete().expect("runs") && matcher.must_end().expect("runs"));
    assert_eq!(matcher.mask(None).expect("a mask").ids().collect::<Vec<_>>(), [END]);
    matcher.rollback(1).expect("one token");
    assert_eq!(texts(&mut matcher), ["\"", "1", "12"]);
    matcher.accept(id("\""), None).expect("fits");
    assert!(matcher.accept(id("b"), None).is_err_and(|error| error.kind() == ErrorKind::InvalidArgument));
    assert_eq!(texts(&mut matcher), ["a", "ab"]);
    assert!(!matcher.is_complete().expect("runs"));
    assert!(matcher.rollback(2).is_err());
}

#[test]
fn texts_without_end_tokens_end_where_nothing_fits() {
    let constraint = constraint(ConstraintSpec::Regex("c{3}(,c{3})*".into()));
    for left in 3..12 {
        let mut matcher = Matcher::new(constraint.grammar(), &[], false).expect("a matcher");
        let mut text = 0;
        for left in (0..left).rev() {
            let id = matcher.mask(Some(left + 1)).expect("a mask").ids().next().expect("a token");
            assert_eq!(matcher.accept(id, Some(left + 1)).expect("allowed"), Accepted::Yes);
            text += 1;
            if matcher.must_end_within(left).expect("runs") {
                break;
            }
        }
        assert!(text == (left + 1) / 4 * 4 - 1 && matcher.is_complete().expect("runs"), "{left}: {text}");
    }
}

#[test]
fn stop_tokens_that_a_constraint_needs_are_named() {
    let constraint = constraint(ConstraintSpec::Regex("c{3}".into()));
    let c = constraint.grammar().vocabulary().tokenizer().token_to_id("c").expect("a token");
    let mut matcher = Matcher::new(constraint.grammar(), &[END, c], false).expect("a matcher");
    assert!(matcher.mask(None).expect_err("none left").message().contains("stop_token_ids"));
}

#[test]
fn masks_that_are_kept_are_those_of_their_place() {
    let constraint = constraint(ConstraintSpec::Grammar(
        "start: T (\"+\" /[0-9]*/)?\nT: /(?s:.*)/ & ~/(?s:.*(<a>|[+]).*)/\n".into(),
    ));
    let vocabulary = constraint.grammar().vocabulary();
    for text in ["a<a<<b<a b<<a", "<a<a+12", "a\"b<", "ab+1"] {
        let mut matcher = matcher(&constraint);
        let ids = vocabulary.tokenizer().encode(text, false.into()).expect("encodes");
        for (at, &id) in ids.iter().enumerate() {
            let kept = matcher.mask(None).expect("a mask").clone();
            let mut fresh = Matcher::new(constraint.grammar(), &[END], false).expect("a matcher");
            ids[..at]
                .iter()
                .for_each(|&id| assert_eq!(fresh.accept(id, None).expect("allowed"), Accepted::Yes));
            assert_eq!(&kept, fresh.mask(None).expect("a mask"), "{text} {at}");
            if at % 3 == 2 {
                // Back and elsewhere.
                matcher.rollback(1).expect("back");
                matcher.mask(None).expect("a mask");
                matcher.accept(ids[at - 1], None).expect("allowed");
            }
            matcher.accept(id, None).expect("allowed");
        }
    }
}

#[test]
fn the_end_of_a_text_is_taken_back_too() {
    let constraint = schema(json!({"const": true}));
    let mut matcher = matcher(&constraint);
    for id in constraint
        .grammar()
        .vocabulary()
        .tokenizer()
        .encode("true", crate::AddSpecialTokens::No)
        .expect("ids")
    {
        matcher.accept(id, None).expect("fits");
    }
    matcher.accept(END, None).expect("complete");
    assert!(matcher.mask(None).is_err() && matcher.must_end().expect("runs"));
    matcher.rollback(1).expect("the end");
    assert!(matcher.mask(None).expect("a mask").allows(END));
}

#[test]
fn forced_tokens_are_those_of_the_tokenizer() {
    let constraint = schema(json!({"type": "object", "properties": {"abab": {"const": true}},
        "required": ["abab"], "additionalProperties": false}));
    let mut matcher = matcher(&constraint);
    let vocabulary = Arc::clone(constraint.grammar().vocabulary());
    let id = |text: &str| vocabulary.tokenizer().token_to_id(text).expect("a token");
    assert!(matcher.forced().expect("runs").is_empty());
    matcher.accept(id("{\""), None).expect("fits");
    // The quotation mark could become `":`.
    assert_eq!(matcher.forced().expect("runs"), [id("ab"), id("ab")]);
    for _ in 0..2 {
        matcher.accept(id("ab"), None).expect("fits");
    }
    matcher.accept(id("\":"), None).expect("fits");
    assert!(matcher.mask(None).expect("a mask").allows(id("true")));
}

#[test]
fn texts_are_complete_when_nothing_is_left() {
    let schemas = [
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"a": {"type": "string", "minLength": 3}, "b": {"type": "array",
            "items": {"$ref": "#"}}}, "required": ["a", "b"]}),
        json!({"type": "array", "items": {"anyOf": [{"type": "array"}, {"type": "number"}, {"enum": ["abababab"]}]}}),
        json!({"type": "string", "pattern": "^(ab)*12$"}),
    ];
    for schema_json in schemas {
        let constraint = schema(schema_json.clone());
        let shortest = matcher(&constraint).shortest_completion_tokens().expect("found");
        for seed in 0..12_u32 {
            let limit = shortest + seed as usize;
            let mut matcher = matcher(&constraint);
            let mut random = seed.wrapping_mul(2_654_435_761) | 1;
            let mut left = limit;
            let mut bytes = Vec::new();
            while left > 0 {
                let mask = matcher.mask(Some(left)).expect("a mask");
                // The longest tokens that nest, at random: what a model does at its worst.
                let ids: Vec<u32> = mask.ids().filter(|&id| id != END).collect();
                if ids.is_empty() {
                    break;
                }
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let id = ids[random as usize / 65_536 % ids.len()];
                if matcher.accept(id, Some(left)).expect("allowed") == Accepted::Yes {
                    bytes.extend_from_slice(constraint.grammar().vocabulary().token(id, false));
                    left -= 1;
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            assert!(matcher.is_complete().expect("runs"), "{schema_json}: {text}");
            assert!(serde_json::from_slice::<Value>(&bytes).is_ok(), "{schema_json}: {text}");
        }
        let mut short = Matcher::new(constraint.grammar(), &[END], false).expect("a matcher");
        let error = short.mask(Some(shortest - 1)).expect_err("too few");
        assert_eq!(
            (error.kind(), error.detail()["needed"].clone()),
            (ErrorKind::InvalidArgument, json!(shortest))
        );
    }
}

/// A few digits complete any number to a multiple, not thousands of zeros.
#[test]
fn numbers_are_completed_to_multiples() {
    for multiple in [97, 199, 499, 512, 250] {
        let constraint = schema(json!({"type": "integer", "multipleOf": multiple}));
        let id = |digit: u32| constraint.grammar().vocabulary().tokenizer().token_to_id(&digit.to_string());
        let mut matcher = matcher(&constraint);
        for digit in [1, 2, 1, 2, 1] {
            matcher.accept(id(digit).expect("a token"), None).expect("fits");
            let found = matcher.shortest_completion_tokens().expect("found");
            assert!(found <= 10, "{multiple}: {found}");
        }
    }
}

#[test]
fn what_the_grammar_refuses_is_said_in_words() {
    for (schema, reason) in [
        (json!({"oneOf": [{"minimum": 1}, {"maximum": 2}]}), "oneOf at \"#\": expected alternatives"),
        (
            json!({"items": {"anyOf": [{"type": "null"}, {"oneOf": [{"minimum": 1}, {"maximum": 2}]}]}}),
            "oneOf at \"#/items/anyOf/1\": expected alternatives",
        ),
        (
            json!({"properties": {"a/b": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"multipleOf": 1e-12}}}),
            "multipleOf at \"#/$defs/n\": expected a number of at most 9 digits",
        ),
        (
            json!({"type": "object", "properties": {"a": {"minLength": 2, "maxLength": 1, "type": "string"}}, "required": ["a"]}),
            "a schema at \"#/properties/a\": expected a schema that some value satisfies",
        ),
        (json!({"patternProperties": {"^a": {}, "b$": {}}}), "patternProperties at \"#\": expected"),
        (
            json!({"properties": {"a": {}}, "maxProperties": 3}),
            "a schema at \"#\": minProperties and maxProperties: expected",
        ),
    ] {
        let error = Constraint::with(&vocabulary(), &ConstraintSpec::JsonSchema(schema)).expect_err(reason);
        assert!(error.message().starts_with(&format!("option json_schema: {reason}")), "{error}");
    }
}

#[test]
fn constraints_that_cannot_be_are_refused() {
    for spec in [
        ConstraintSpec::JsonSchema(json!(false)),
        ConstraintSpec::JsonSchema(json!({"type": "integer", "minimum": 3, "maximum": 2})),
        ConstraintSpec::Regex("(".into()),
        ConstraintSpec::Regex("(?=a)b".into()),
        ConstraintSpec::Grammar("start: nothing".into()),
        ConstraintSpec::Grammar("start[max_tokens=3]: /a+/".into()),
        ConstraintSpec::Grammar("start: /a+/ <[1-3]>".into()),
        ConstraintSpec::Grammar("start: </s>".into()),
    ] {
        let error = Constraint::with(&vocabulary(), &spec).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidConstraint, "{spec:?}");
        assert!(error.message().starts_with(&format!("option {}", spec.option())), "{error}");
    }
}
