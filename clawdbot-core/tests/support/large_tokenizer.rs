//! A made-up tokenizer as large as published ones, in the form of Llama 3's: byte-level BPE, 256 reserved tokens.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::json;

/// Llama 3's pattern.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Special tokens after the others.
const RESERVED: usize = 256;
/// Most characters of a token.
const LONGEST: usize = 12;

/// `tokenizer.json` with `tokens` tokens, always the same. Each token has all merges that make it, about two.
pub(crate) fn tokenizer_json(tokens: usize) -> String {
    let alphabet = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
    let mut vocab: Vec<String> = alphabet.filter_map(char::from_u32).map(String::from).collect();
    let mut known: HashMap<String, usize> = vocab.iter().cloned().zip(0..).collect();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    while vocab.len() + RESERVED < tokens {
        // Lower-case letters and the space most often, as in text.
        let mut part = |vocab: &[String]| match random(4) {
            0 => random(vocab.len()),
            1 => random(vocab.len().min(6000)),
            2 => random(vocab.len().min(700)),
            _ => known
                .get(
                    "abcdefghijklmnopqrstuvwxyzaeioueaĠĠĠ"
                        .get(random(34)..)
                        .unwrap_or("Ġ")
                        .get(..1)
                        .unwrap_or("Ġ"),
                )
                .copied()
                .unwrap_or(0),
        };
        let (a, b) = (part(&vocab), part(&vocab));
        let token = format!("{}{}", vocab[a], vocab[b]);
        if token.chars().count() <= LONGEST
            && !token.chars().skip(1).any(|c| c == 'Ġ')
            && !known.contains_key(&token)
        {
            known.insert(token.clone(), vocab.len());
            vocab.push(token);
        }
    }
    let mut merges = String::new();
    for token in &vocab {
        for (at, _) in token.char_indices().skip(1) {
            let (a, b) = token.split_at(at);
            if known.contains_key(a) && known.contains_key(b) {
                let comma = if merges.is_empty() { "" } else { ",\n" };
                // Writing to a string cannot fail.
                let _ = write!(merges, "{comma}{}", json!(format!("{a} {b}")));
            }
        }
    }
    let entries: Vec<String> =
        vocab.iter().zip(0..).map(|(token, id)| format!("{}: {id}", json!(token))).collect();
    let special = (0..RESERVED.min(tokens)).map(|i| {
        let content = match i {
            0 => "<|begin_of_text|>".to_owned(),
            1 => "<|end_of_text|>".to_owned(),
            _ => format!("<|reserved_special_token_{i}|>"),
        };
        json!({"id": vocab.len() + i, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    });
    let special: Vec<_> = special.collect();
    let begin = vocab.len();
    let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false}, byte_level(false),
    ]});
    let post_processor = json!({"type": "Sequence", "processors": [
        byte_level(true),
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                  {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [begin], "tokens": ["<|begin_of_text|>"]}}},
    ]});
    format!(
        "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": {}, \"normalizer\": null,\n\
         \"pre_tokenizer\": {pre_tokenizer}, \"post_processor\": {post_processor}, \"decoder\": {},\n\
         \"model\": {{\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null,\n\
         \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": true,\n\
         \"vocab\": {{{}}},\n\"merges\": [{merges}]}}}}",
        json!(special),
        byte_level(true),
        entries.join(",\n"),
    )
}
