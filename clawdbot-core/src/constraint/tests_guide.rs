//! Constrained texts after reasoning, and calls within free text, written by random tokens.

use std::sync::Arc;

use serde_json::{Value, json};

use super::tests::{Random, tokenizer_with};
use super::{Accepted, Auto, CallMarks, ConstraintSpec, Grammar, Guide, Lead, Source, Vocabulary};
use crate::error::ErrorKind;
use crate::output::{Function, ReasoningMarks, WrittenCalls};

const END: u32 = 0;

/// A guide whose tokenizer has `special` as special tokens.
fn guide(source: Source, special: &[&str], lead: Lead) -> (Guide, Arc<Vocabulary>) {
    let tokenizer = tokenizer_with(special);
    let marks = source.marks();
    let known = special.iter().filter(|mark| marks.contains(mark));
    let known = known.map(|mark| ((*mark).to_owned(), tokenizer.token_to_id(mark).unwrap()));
    let vocabulary =
        Arc::new(Vocabulary::with_marks(&tokenizer, &known.collect::<Vec<_>>()).expect("supported"));
    let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary).expect("compiles"));
    (Guide::new(&grammar, &[END], true, lead).expect("a guide"), vocabulary)
}

fn reasoning(opened: bool) -> ReasoningMarks {
    ReasoningMarks {
        open: &["<think>"],
        close: "</think>",
        opened,
        spaces: true,
        anywhere: false,
        dropped: &[],
    }
}

fn after(reasoning: ReasoningMarks) -> Lead {
    Lead { reasoning: Some(reasoning), ..Lead::default() }
}

/// Writes at most `most` tokens: `prefers` says which to take, and random ones otherwise. Ends where the text ends.
fn write(
    guide: &mut Guide,
    vocabulary: &Vocabulary,
    most: usize,
    seed: u64,
    prefers: impl Fn(&[u8]) -> Option<u32>,
) -> String {
    let mut bytes = Vec::new();
    let (mut left, mut random) = (most, Random(seed));
    while left > 0 {
        let allowed = |guide: &mut Guide| -> Vec<u32> {
            let all = || {
                (0..u32::try_from(vocabulary.len()).unwrap()).filter(|&id| !vocabulary.text_of(id).is_empty())
            };
            match guide.mask(left).expect("a mask") {
                Some(mask) => mask.ids().collect(),
                None => all().collect(),
            }
        };
        let allowed = allowed(guide);
        let id = prefers(&bytes).filter(|id| allowed.contains(id));
        let id = id.unwrap_or_else(|| allowed[random.below(allowed.len())]);
        match guide.accept(id, left).expect("allowed") {
            Accepted::Refused => continue,
            Accepted::Yes if id == END => break,
            Accepted::Yes => bytes.extend(vocabulary.text_of(id)),
        }
        left -= 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn schema() -> ConstraintSpec {
    ConstraintSpec::JsonSchema(json!({
        "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"],
        "additionalProperties": false
    }))
}

fn is_instance(text: &str) -> bool {
    serde_json::from_str(text)
        .is_ok_and(|value: Value| value["a"].as_i64().is_some_and(|a| (0..100).contains(&a)))
}

#[test]
fn what_comes_after_reasoning_is_complete_when_nothing_is_left() {
    for special in [&["<think>", "</think>"][..], &[]] {
        for opened in [true, false] {
            for seed in 0..40 {
                let lead = after(reasoning(opened));
                let (mut guide, vocabulary) = guide(schema().into(), special, lead);
                let most = 40 + 3 * usize::try_from(seed).unwrap();
                guide.check(most).expect("room");
                // Half of the texts that may open reasoning do.
                let open = vocabulary.tokenizer().token_to_id("<think>");
                let less = vocabulary.tokenizer().token_to_id("<");
                let first = |bytes: &[u8]| match (bytes, special.is_empty()) {
                    ([], false) if seed % 2 == 0 => open,
                    ([], true) if seed % 2 == 0 => less,
                    _ => None,
                };
                let text = write(&mut guide, &vocabulary, most, seed, first);
                let (before, answer) = text.rsplit_once("</think>").unwrap_or(("", &text));
                assert!(is_instance(answer), "{special:?} {opened}: {text:?}");
                let reasons = opened || text.starts_with('<');
                assert!(reasons || seed % 2 == 1, "{text:?}");
                assert!(before.starts_with("<think>") || opened || !reasons, "{text:?}");
                assert_eq!(text.contains("</think>"), reasons, "{text:?}");
            }
        }
    }
}

#[test]
fn too_little_room_is_refused() {
    let lead = after(reasoning(true));
    let (mut guide, _) = guide(schema().into(), &[], lead);
    let error = guide.check(8).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let needed = usize::try_from(error.detail()["needed"].as_u64().unwrap()).unwrap();
    guide.check(needed).expect("room");
    assert!(guide.check(needed - 1).is_err());
}

fn hermes() -> WrittenCalls {
    let function = Function {
        name: "f".into(),
        parameters: json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
            "additionalProperties": false}),
    };
    WrittenCalls::new("hermes", &[function], false).expect("enforced")
}

fn calls() -> Source {
    Source { answer: None, header: "", calls: Some(hermes()), auto: Auto::AfterMark }
}

/// After free text.
fn free(reasoning: Option<ReasoningMarks>) -> Lead {
    let WrittenCalls { opening, others, .. } = hermes();
    Lead { reasoning, free: Some(CallMarks { enforced: opening.expect("one"), others }), refused: Vec::new() }
}

#[test]
fn calls_begin_within_free_text() {
    let mut begun = 0;
    for special in [&["<tool_call>", "</tool_call>", "<think>", "</think>"][..], &[]] {
        for opened in [true, false] {
            for seed in 0..20 {
                let lead = free(Some(reasoning(opened)));
                let (mut guide, vocabulary) = guide(calls(), special, lead);
                let ids = |text: &str| vocabulary.tokenizer().encode(text, false.into()).expect("encodes");
                // A mark in reasoning is none.
                let wanted = match opened {
                    true => "hm <tool_call> hm</think> then <tool_call>",
                    false => "so <tool_call>",
                };
                let wanted_ids = ids(wanted);
                let lengths: Vec<usize> = wanted_ids
                    .iter()
                    .scan(0, |at, &id| {
                        *at += vocabulary.text_of(id).len();
                        Some(*at)
                    })
                    .collect();
                let prefers = |bytes: &[u8]| {
                    let at = lengths.iter().filter(|&&end| end <= bytes.len()).count();
                    wanted_ids.get(at).copied()
                };
                let text = write(&mut guide, &vocabulary, wanted_ids.len() + 60, seed, prefers);
                let call = text.strip_prefix(wanted).unwrap_or_else(|| panic!("{text:?}"));
                let json = call.trim().strip_suffix("</tool_call>").unwrap_or_else(|| panic!("{text:?}"));
                let call: Value = serde_json::from_str(json).expect("JSON");
                assert!(call["name"] == "f" && call["arguments"]["a"].is_boolean(), "{text:?}");
                begun += 1;
            }
        }
    }
    assert_eq!(begun, 80);
}

#[test]
fn marks_that_tokens_do_not_spell_are_refused() {
    let source = Source::from(schema());
    let vocabulary = super::tests::vocabulary();
    let grammar = Arc::new(Grammar::compile_source(&source, &vocabulary).expect("compiles"));
    let new = |open: &'static [&'static str], close| {
        let reasoning = ReasoningMarks { open, close, ..reasoning(false) };
        Guide::new(&grammar, &[END], true, after(reasoning))
    };
    assert!(new(&["<think>"], "</think>").is_ok());
    let error = new(&["<think>"], "").expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidTokenizer);
    // Without what opens it there is none.
    assert!(new(&[""], "</think>").expect("a guide").in_text());
}

#[test]
fn white_space_before_free_text_is_not_kept() {
    let lead = free(Some(reasoning(false)));
    let (mut guide, vocabulary) = guide(calls(), &["<tool_call>", "</tool_call>"], lead);
    let write = |guide: &mut Guide, text: &str, left: usize| {
        for id in vocabulary.tokenizer().encode(text, false.into()).expect("encodes") {
            assert_eq!(guide.accept(id, left).expect("allowed"), Accepted::Yes);
        }
    };
    write(&mut guide, " ", 4000);
    let before = guide.bytes();
    write(&mut guide, &"\n ".repeat(1000), 4000);
    assert!(guide.bytes() < before + 20, "{} {before}", guide.bytes());
    write(&mut guide, " <thi", 4000);
    write(&mut guide, "nk><tool_call></think> <tool_call>", 4000);
    assert!(guide.in_text());
}

#[test]
fn a_call_that_would_not_fit_does_not_begin() {
    let lead = free(None);
    let (mut guide, vocabulary) = guide(calls(), &["<tool_call>", "</tool_call>"], lead);
    let open = vocabulary.tokenizer().token_to_id("<tool_call>").unwrap();
    assert!(guide.mask(10).expect("free").is_none());
    assert_eq!(guide.accept(open, 10).expect("runs"), Accepted::Refused);
    let mask = guide.mask(10).expect("a mask").expect("one that lacks it");
    assert!(!mask.allows(open) && mask.allows(open + 1));
    assert_eq!(guide.accept(open + 1, 10).expect("runs"), Accepted::Yes);
    assert!(guide.mask(9).expect("free again").is_none());
}
