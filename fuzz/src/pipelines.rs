//! Whole tokenizers, put together at random: the input's bytes choose the parts and what is in them.

use clawdbot_core::{Result, fuzz_support as core};
use serde_json::{Value, json};

use crate::rng::Rng;

/// Reads choices from the input; zeros at its end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    fn below(&mut self, count: usize) -> usize {
        self.byte() as usize % count
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.below(from.len())]
    }

    /// A text: of those that mean something to a part, or bytes of the input, or many times one of them.
    fn text(&mut self) -> String {
        match self.below(8) {
            0 => self.pick(TEXTS).repeat(1 + self.below(200)),
            1 => {
                let len = self.below(6).min(self.0.len());
                let (text, rest) = self.0.split_at(len);
                self.0 = rest;
                String::from_utf8_lossy(text).into_owned()
            }
            _ => self.pick(TEXTS).to_owned(),
        }
    }

    fn number(&mut self) -> u64 {
        match self.below(10) {
            0 => u64::from(u32::MAX),
            1 => 1 << 40,
            2 => u64::MAX,
            3 => 70_000,
            n => n as u64 - 4,
        }
    }

    fn list(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> Value) -> Vec<Value> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }
}

const TEXTS: &[&str] = &[
    "a",
    "b",
    " ",
    "\u{2581}",
    "",
    "ab",
    "\u{e9}",
    "e\u{301}",
    "\u{fdfa}",
    "</w>",
    "##",
    "\u{120}",
    "<0xC3>",
    "<0xA9>",
    "<unk>",
    "\u{1f469}\u{200d}\u{1f4bb}",
    "\u{4e00}",
    "A",
    "\u{130}",
    "\n",
    "\u{300}",
    "|",
    "<s>",
    "12",
    "\u{0}",
    "\u{1e9e}",
    "''",
    "x y",
];
/// Patterns that are compiled fast, most of them.
const PATTERNS: &[&str] = &[
    "a*",
    "",
    "^",
    "$",
    "(a+)+$",
    r"(?:a|aa)+b",
    r"\R",
    r"(?<=a)b",
    r"a{0,3}+",
    "(?i)ss",
    ".",
    r"[^a]",
    r"(?>a+)a|b",
    " +",
    "((((((((((a*)*)*)*)*)*)*)*)*)*",
];
/// Those with classes of Unicode, which take a hundred times as long.
const CLASSES: &[&str] =
    &[r"\s+(?!\S)|\s+", r"\p{N}{1,3}| ?\p{L}+", r"[[:alpha:]]+", r"\b", r"\X", r"(?i:'s|'t)|.", r"\w{20}"];
const BEHAVIORS: &[&str] = &["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];
const SCHEMES: &[&str] = &["always", "first", "never"];
/// Rules for characters that are refused.
const RULES: &[&str] = &["", "AAAA", "BAAAAAAAAAAA", "/////wAAAAAA", "AAAAAGI=", "BAAAAAAEAABiAA=="];

fn pattern(choices: &mut Choices<'_>) -> Value {
    if choices.flag() {
        return json!({"String": choices.text()});
    }
    match choices.below(64) {
        0..8 => json!({"Regex": choices.text()}),
        8 => json!({"Regex": choices.pick(CLASSES)}),
        _ => json!({"Regex": choices.pick(PATTERNS)}),
    }
}

/// A step; sometimes a sequence.
fn nested(choices: &mut Choices<'_>, key: &str, depth: usize, one: fn(&mut Choices<'_>) -> Value) -> Value {
    if depth == 0 && choices.below(12) == 0 {
        return Value::Null;
    }
    if depth < 5 && choices.below(2) == 0 {
        let steps = choices.list(6, |choices| nested(choices, key, depth + 1, one));
        return json!({"type": "Sequence", key: steps});
    }
    let mut step = one(choices);
    if choices.below(32) == 0
        && let Some(step) = step.as_object_mut()
    {
        // As older files have it.
        step.remove("type");
    }
    step
}

/// Rules for characters: those of three texts, or broken ones.
fn rules(choices: &mut Choices<'_>) -> String {
    if choices.below(8) == 0 {
        return choices.pick(RULES).to_owned();
    }
    let mut replacements = String::new();
    // A trie (double array): the children of node n are at 256 n and beyond, by their byte.
    let mut table = vec![0_u32; 512];
    table[0] = 256 << 10;
    for _ in 0..1 + choices.below(3) {
        let (from, to) = (choices.pick(TEXTS), choices.pick(TEXTS));
        let mut at = 0;
        for &byte in from.as_bytes().iter().filter(|&&byte| byte != 0) {
            let parent = at ^ (table[at] as usize >> 10);
            at = parent | usize::from(byte);
            if table[at] == 0 {
                let child = table.len();
                table.resize(child + 256, 0);
                table[at] = u32::from(byte) | ((at ^ child) as u32) << 10;
            }
        }
        if at != 0 {
            let leaf = at ^ (table[at] as usize >> 10);
            table[at] |= 1 << 8;
            table[leaf] = 1 << 31 | replacements.len() as u32;
            replacements.push_str(&to.replace('\0', ""));
            replacements.push('\0');
        }
    }
    let units: Vec<u8> = table.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    base64(&[&(units.len() as u32).to_le_bytes()[..], &units, replacements.as_bytes()].concat())
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = alphabet[(bits >> (18 - 6 * i)) as usize & 63] as char;
            text.push(if i <= group.len() { digit } else { '=' });
        }
    }
    text
}

fn normalizer(choices: &mut Choices<'_>) -> Value {
    match choices.below(14) {
        0..=2 => json!({"type": "Replace", "pattern": pattern(choices), "content": choices.text()}),
        3 => json!({"type": "Prepend", "prepend": choices.text()}),
        4 => json!({"type": "Strip", "strip_left": choices.flag(), "strip_right": choices.flag()}),
        5 => json!({"type": "Precompiled", "precompiled_charsmap": rules(choices)}),
        6 => {
            json!({"type": "BertNormalizer", "clean_text": choices.flag(), "handle_chinese_chars": choices.flag(),
            "strip_accents": choices.flag(), "lowercase": choices.flag()})
        }
        n => {
            let kind = ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "StripAccents", "ByteLevel"];
            json!({"type": kind[(n + choices.below(8)) % 8]})
        }
    }
}

fn metaspace(choices: &mut Choices<'_>) -> Value {
    json!({"type": "Metaspace", "replacement": choices.text().chars().next().unwrap_or('\u{2581}'),
        "prepend_scheme": choices.pick(SCHEMES), "split": choices.flag()})
}

fn byte_level(choices: &mut Choices<'_>) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": choices.flag(), "trim_offsets": choices.flag(),
        "use_regex": choices.flag()})
}

fn pre_tokenizer(choices: &mut Choices<'_>) -> Value {
    match choices.below(12) {
        0..=3 => json!({"type": "Split", "pattern": pattern(choices), "behavior": choices.pick(BEHAVIORS),
            "invert": choices.flag()}),
        4 => metaspace(choices),
        5 => byte_level(choices),
        6 => json!({"type": "Digits", "individual_digits": choices.flag()}),
        7 => json!({"type": "Punctuation", "behavior": choices.pick(BEHAVIORS)}),
        8 => json!({"type": "CharDelimiterSplit", "delimiter": "a"}),
        9 => json!({"type": "FixedLength", "length": choices.number()}),
        _ => {
            json!({"type": choices.pick(&["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"])})
        }
    }
}

fn post_processor(choices: &mut Choices<'_>) -> Value {
    let pair = |choices: &mut Choices<'_>| json!([choices.text(), choices.number()]);
    let piece = |choices: &mut Choices<'_>| {
        let kind = choices.pick(&["Sequence", "Sequence", "SpecialToken"]);
        json!({kind: {"id": choices.pick(&["A", "B", "<s>", "x"]), "type_id": choices.number()}})
    };
    match choices.below(4) {
        0 => byte_level(choices),
        1 => json!({"type": "BertProcessing", "sep": pair(choices), "cls": pair(choices)}),
        2 => json!({"type": "RobertaProcessing", "sep": pair(choices), "cls": pair(choices),
            "trim_offsets": choices.flag(), "add_prefix_space": choices.flag()}),
        _ => {
            let ids = choices.list(3, |choices| json!(choices.number()));
            json!({"type": "TemplateProcessing", "single": choices.list(4, piece), "pair": choices.list(4, piece),
                "special_tokens": {"<s>": {"id": "<s>", "ids": ids, "tokens": choices.list(3, |c| json!(c.text()))},
                    "x": {"id": "x", "ids": [1], "tokens": ["x"]}}})
        }
    }
}

fn decoder(choices: &mut Choices<'_>) -> Value {
    match choices.below(10) {
        0 | 1 => json!({"type": "Replace", "pattern": pattern(choices), "content": choices.text()}),
        2 => {
            json!({"type": "Strip", "content": choices.text().chars().next().unwrap_or(' '), "start": choices.number(),
            "stop": choices.number()})
        }
        3 => metaspace(choices),
        4 => byte_level(choices),
        5 => json!({"type": "WordPiece", "prefix": choices.text(), "cleanup": choices.flag()}),
        6 => json!({"type": "BPEDecoder", "suffix": choices.text()}),
        7 => json!({"type": "CTC", "pad_token": choices.text(), "word_delimiter_token": choices.text(),
            "cleanup": choices.flag()}),
        8 => json!({"type": "Fuse"}),
        _ => json!({"type": "ByteFallback"}),
    }
}

fn model(choices: &mut Choices<'_>) -> Value {
    let tokens: Vec<String> = (0..1 + choices.below(24)).map(|_| choices.text()).collect();
    let far = choices.below(8) == 0;
    let id = |choices: &mut Choices<'_>, at: usize| if far { choices.number() } else { at as u64 };
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(at, token)| (token.clone(), json!(id(choices, at)))).collect();
    let one = |choices: &mut Choices<'_>| tokens[choices.below(tokens.len())].clone();
    let unknown = one(choices);
    match choices.below(6) {
        0 => json!({"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": choices.text(),
            "max_input_chars_per_word": choices.number(), "vocab": vocab}),
        1 => json!({"type": "WordLevel", "unk_token": unknown, "vocab": vocab}),
        2 => {
            let scored: Vec<Value> =
                tokens.iter().map(|token| json!([token, -(choices.number() as f64)])).collect();
            json!({"type": "Unigram", "unk_id": if choices.flag() { json!(choices.number()) } else { json!(0) },
                "vocab": scored, "byte_fallback": choices.flag()})
        }
        _ => {
            let merges = choices.list(4, |choices| json!([one(choices), one(choices)]));
            let option = |choices: &mut Choices<'_>| match choices.below(4) {
                0 => json!(choices.text()),
                _ => Value::Null,
            };
            json!({"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": if choices.flag() { json!(unknown) } else { Value::Null },
                "fuse_unk": choices.flag(), "byte_fallback": choices.flag(), "ignore_merges": choices.flag(),
                "continuing_subword_prefix": option(choices), "end_of_word_suffix": option(choices)})
        }
    }
}

fn compose(choices: &mut Choices<'_>) -> Value {
    let added = choices.list(4, |choices| {
        json!({"id": choices.number(), "content": choices.text(), "single_word": choices.flag(),
            "lstrip": choices.flag(), "rstrip": choices.flag(), "normalized": choices.flag(), "special": choices.flag()})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": nested(choices, "normalizers", 0, normalizer),
        "pre_tokenizer": nested(choices, "pretokenizers", 0, pre_tokenizer),
        "post_processor": nested(choices, "processors", 0, post_processor),
        "decoder": nested(choices, "decoders", 0, decoder),
        "model": model(choices),
    })
}

/// A tokenizer put together by `data`, and texts there and back.
pub fn run(data: &[u8]) -> Result<()> {
    let choices = &mut Choices(data);
    let json = compose(choices).to_string();
    let texts = [(); 3].map(|()| (0..choices.below(12)).map(|_| choices.text()).collect::<String>());
    let [first, second, third] = texts.each_ref().map(String::as_str);
    core::tokenizer_with(json.as_bytes(), &[first, second, "Once upon a time, 12 caf\u{e9}s\n said!", third])
}

/// Those of many random inputs that make a tokenizer.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut rng = Rng(7);
    let inputs = (0..4000).map(|_| (0..300).map(|_| rng.next() as u8).collect::<Vec<u8>>());
    inputs.filter(|input| run(input).is_ok()).take(60).collect()
}
