//! Tokenizers and texts made to hurt, each in a process with limits: a typed error or a result, in bounded time and memory,
//! and nothing on stderr.
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

#[path = "support/child.rs"]
#[allow(unsafe_code, reason = "limits of a process")]
mod child;

use std::path::Path;

use child::{Limits, in_child};
use clawdbot_core::{
    AddSpecialTokens, CancelHandle, EmbedOptions, ErrorKind, GenerateOptions, Model, ModelOptions, Pooling,
    Result, Runtime, RuntimeOptions, SkipSpecialTokens, Source, Tokenizer, tokenizer::StreamDecoder,
};
use serde_json::{Value, json};

/// A tokenizer of two tokens, with parts of its own.
fn tokenizer(parts: &Value) -> Result<Tokenizer> {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    });
    json.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    Tokenizer::from_bytes(json.to_string().as_bytes())
}

/// Makes 64^7 letters of one.
fn grow(steps: &str) -> Value {
    let one = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(64)});
    json!({"type": "Sequence", steps: vec![one; 7]})
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
    let error = result.expect_err(words);
    assert_eq!(error.kind(), ErrorKind::InvalidTokenizer, "{error}");
    assert!(error.message().contains(words), "{words}: {error}");
}

#[test]
fn text_does_not_grow_without_bound() {
    in_child(Limits { peak: 100, ..Limits::default() }, || {
        let growing = tokenizer(&json!({"normalizer": grow("normalizers")})).unwrap();
        refused(growing.encode("a", AddSpecialTokens::Yes), "bytes long");
        assert!(growing.encode("b", AddSpecialTokens::Yes).is_ok());
        let added = json!({"id": 2, "content": "a", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": false});
        let at_load = json!({"normalizer": grow("normalizers"), "added_tokens": [added]});
        refused(tokenizer(&at_load), "bytes long");
        let decoding = tokenizer(&json!({"decoder": grow("decoders")})).unwrap();
        refused(decoding.decode(&[0], SkipSpecialTokens::Yes), "bytes of decoded text");
        for kind in ["BPE", "WordLevel", "WordPiece"] {
            let model = json!({"type": kind, "vocab": {"a": 0, "b": 1, "c": 0}, "merges": [], "unk_token": "a",
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 9});
            refused(tokenizer(&json!({ "model": model })), "two of id 0");
        }
    });
}

#[test]
fn no_panic_is_printed() {
    in_child(Limits::default(), || {
        let strip = json!({"decoder": {"type": "Strip", "content": "a", "start": 0, "stop": 5}});
        assert_eq!(tokenizer(&strip).unwrap().decode(&[0, 1], SkipSpecialTokens::Yes).unwrap(), "b");
        let empty = json!({"decoder": {"type": "Sequence", "decoders": [
            {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": true},
            {"type": "BPEDecoder", "suffix": "</w>"}]}});
        assert_eq!(tokenizer(&empty).unwrap().decode(&[0], SkipSpecialTokens::Yes).unwrap(), "");
        let rules =
            json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAEAABiAA=="}});
        refused(tokenizer(&rules), "outside of it");
        let template = json!({"post_processor": {"type": "TemplateProcessing", "special_tokens": {},
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}], "pair": []}});
        refused(tokenizer(&template), "among the special tokens");
        let prefix = json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]],
            "continuing_subword_prefix": "\u{e9}"}});
        refused(tokenizer(&prefix), "the prefix");
        // A text whose first character would be from nowhere.
        let nothing = json!({"type": "Prepend", "prepend": ""});
        for others in [
            json!([nothing, {"type": "Lowercase"}]),
            json!([{"type": "NFC"}, nothing, {"type": "ByteLevel"}]),
        ] {
            let front = json!({"normalizer": {"type": "Sequence", "normalizers": others}});
            assert_eq!(tokenizer(&front).unwrap().encode("ab", AddSpecialTokens::Yes).unwrap(), [0, 1]);
        }
        // A token that is found in every place.
        let nothing = json!({"normalizer": {"type": "Strip", "strip_left": true, "strip_right": true}, "added_tokens": [
            {"id": 2, "content": "\n", "single_word": true, "lstrip": false, "rstrip": false, "normalized": true,
                "special": false}]});
        refused(tokenizer(&nothing), "text that is left after normalizing");
        // White space that two tokens take, one of them whole.
        let added = |id: u32, content: &str, left: bool, right: bool, normalized: bool| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": left, "rstrip": right,
                "normalized": normalized, "special": false})
        };
        let with = |tokens: Value| tokenizer(&json!({ "added_tokens": tokens }));
        for normalized in [true, false] {
            let token = added(2, "<s>", false, true, normalized);
            refused(with(json!([token, added(3, " ", true, false, normalized)])), "white space");
            refused(with(json!([added(2, "\n ", true, false, normalized), token])), "white space");
            for other in [added(3, " ", false, false, normalized), added(3, " a", true, false, normalized)] {
                let both = with(json!([token, other])).unwrap();
                for text in ["<s>   a", "<s> ", " <s>\n  <s> a  ", "   ", "a   b"] {
                    both.encode(text, AddSpecialTokens::Yes).unwrap();
                }
            }
        }
    });
}

#[test]
fn long_tokens_are_dropped_on_small_stacks() {
    in_child(Limits::default(), || {
        let unigram = |len: usize| {
            let vocab = json!([["a", -1.0], ["a".repeat(len), -1.0]]);
            tokenizer(&json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}))
        };
        refused(unigram(200_000), "at most 256 bytes");
        let small = std::thread::Builder::new().stack_size(512 << 10);
        small.spawn(move || drop(unigram(256).unwrap())).unwrap().join().unwrap();
    });
}

#[test]
fn what_looks_for_added_tokens_is_bounded() {
    in_child(Limits { peak: 250, ..Limits::default() }, || {
        let added = |count: usize, content: &dyn Fn(usize) -> String| {
            let token = |at: usize| {
                json!({"id": at + 2, "content": content(at), "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": at.is_multiple_of(2), "special": true})
            };
            let tokens: Vec<Value> = (0..count).map(token).collect();
            tokenizer(&json!({ "added_tokens": tokens }))
        };
        // Each another one from its first byte on.
        let digits = |mut n: usize, len: usize| -> String {
            let letter = |_| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(b'a' + (n >> 33) as u8 % 26)
            };
            (0..len).map(letter).collect()
        };
        refused(added(3000, &|at| digits(at, 1700)), "distinct prefixes");
        assert_eq!(added(3000, &|at| digits(at, 150)).unwrap().vocab_size(), 3002);
        // As many as published tokenizers have for images and sounds.
        let many = added(30_000, &|at| format!("<|visual token {at:06}|>")).unwrap();
        assert_eq!(many.encode("a<|visual token 029999|>", AddSpecialTokens::Yes).unwrap(), [0, 30_001]);
    });
}

#[test]
fn tokenizers_that_are_dropped_leave_nothing() {
    in_child(Limits { peak: 60, cpu: 30, ..Limits::default() }, || {
        let text: Vec<String> = (0..300).map(|at| "ab".repeat(at % 100) + " ").collect();
        for _ in 0..200 {
            let words = json!({"pre_tokenizer": {"type": "WhitespaceSplit"}});
            tokenizer(&words).unwrap().encode(&text.concat(), AddSpecialTokens::Yes).unwrap();
        }
    });
}

#[test]
fn pieces_are_no_large_tree() {
    in_child(Limits { peak: 600, cpu: 60, ..Limits::default() }, || {
        let unigram = |piece: &dyn Fn(usize) -> String| {
            let vocab: Vec<Value> = (0..25_000).map(|at| json!([piece(at), -1.0])).collect();
            tokenizer(
                &json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false}}),
            )
        };
        // As many bytes, most of them at the same places in the tree.
        unigram(&|at| format!("{}{at}", "a".repeat(200))).unwrap();
        refused(unigram(&|at| format!("{at:05}{}", "a".repeat(200))), "distinct prefixes");
    });
}

#[test]
fn tokens_around_a_text_are_of_the_vocabulary() {
    in_child(Limits::default(), || {
        let bert = |cls: u32| {
            tokenizer(
                &json!({"post_processor": {"type": "BertProcessing", "sep": ["a", 0], "cls": ["b", cls]}}),
            )
        };
        assert_eq!(bert(1).unwrap().encode("ab", AddSpecialTokens::Yes).unwrap(), [1, 0, 1, 0]);
        for id in [2, u32::MAX] {
            refused(bert(id), "post_processor: expected tokens of the vocabulary");
        }
    });
}

#[test]
fn patterns_are_bounded_together() {
    in_child(Limits::default(), || {
        let split = json!({"type": "Split", "pattern": {"Regex": r"\w{100}"}, "behavior": "Isolated", "invert": false});
        let many = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": vec![split; 90]}});
        refused(tokenizer(&many), "take at most");
    });
}

#[test]
fn patterns_that_go_back_without_end_are_errors() {
    in_child(Limits { cpu: 60, ..Limits::default() }, || {
        let text = "a".repeat(200_000);
        let pattern = json!({"Regex": r"(?=[\s\S]*b)a"});
        let replace = json!({"type": "Replace", "pattern": pattern, "content": "b"});
        let fused = json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, replace]});
        refused(
            tokenizer(&json!({"normalizer": replace})).unwrap().encode(&text, AddSpecialTokens::Yes),
            "too long",
        );
        let decoding = tokenizer(&json!({"decoder": fused})).unwrap();
        refused(decoding.decode(&vec![0; text.len()], SkipSpecialTokens::Yes), "too long");
        let split = |pattern: &str| {
            let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            tokenizer(&json!({"pre_tokenizer": split})).unwrap()
        };
        for pattern in [r"(?=[\s\S]*b)a", "(?!a*b)a", "(?:a+)+b", "(?:a|aa)+b", "(?>a?)a*b|a"] {
            refused(split(pattern).encode(&text, AddSpecialTokens::Yes), "too long");
        }
        // All tokens of a stream share what patterns may do.
        let slow = json!({"type": "Replace", "pattern": {"Regex": "(?:a|aa)+b"}, "content": "b"});
        let model = json!({"type": "BPE", "vocab": {"a".repeat(24): 0, "b": 1}, "merges": []});
        let decoding = tokenizer(&json!({"decoder": slow, "model": model})).unwrap();
        assert_eq!(decoding.decode(&[0], SkipSpecialTokens::Yes).unwrap().len(), 24);
        let mut stream = StreamDecoder::new(&decoding, SkipSpecialTokens::Yes);
        let failed = (0..1000).find_map(|_| stream.push(0).err()).unwrap();
        assert!(failed.message().contains("too long"), "{failed}");
        // As often as there are letters.
        for pattern in ["[^b]*b|a", "a*b|a", r"a+$|a"] {
            let tokens = split(pattern).encode(&text, AddSpecialTokens::Yes).unwrap();
            assert_eq!(tokens.len(), text.len());
        }
    });
}

#[test]
fn what_a_text_could_repeat_without_end_is_refused() {
    in_child(Limits { peak: 150, ..Limits::default() }, || {
        for (content, lstrip, rstrip) in [(" ", true, true), (" ", false, true), ("\n\t", true, false)] {
            let added = json!({"id": 2, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
                "normalized": false, "special": false});
            refused(tokenizer(&json!({"added_tokens": [added]})), "white space");
        }
        // White space once it is normalized.
        let added = json!({"id": 2, "content": "<x>", "single_word": false, "lstrip": true, "rstrip": false,
            "normalized": true, "special": false});
        let normalizer = json!({"type": "Replace", "pattern": {"String": "<x>"}, "content": " "});
        refused(tokenizer(&json!({"added_tokens": [added], "normalizer": normalizer})), "white space");
        let unigram = |pieces: Vec<String>| {
            let vocab: Vec<Value> = pieces.into_iter().map(|piece| json!([piece, -1.0])).collect();
            json!({"model": {"type": "Unigram", "vocab": vocab, "unk_id": 0}})
        };
        refused(tokenizer(&unigram(vec!["a".repeat(40_000)])), "pieces of at most");
        refused(tokenizer(&unigram((1..1000).map(|len| "a".repeat(len)).collect())), "pieces of at most");
        let some = tokenizer(&unigram((1..100).map(|len| "a".repeat(len)).collect())).unwrap();
        assert!(!some.encode(&"a".repeat(20_000), AddSpecialTokens::Yes).unwrap().is_empty());
        for (kind, key) in [("BPE", "unk_token"), ("WordPiece", "continuing_subword_prefix")] {
            let mut model = json!({"type": kind, "vocab": {"a": 0}, "merges": [], "unk_token": "a",
                "continuing_subword_prefix": "#", "max_input_chars_per_word": 9});
            model[key] = "x".repeat(1 << 20).into();
            refused(tokenizer(&json!({ "model": model })), "at most 64 bytes");
        }
    });
}

#[test]
fn lists_of_nothing_take_no_memory() {
    in_child(Limits { peak: 200, ..Limits::default() }, || {
        let zeros = "0,".repeat(8_000_000);
        for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
            let json = format!(r#"{{"version": "1.0", "{part}": {{"type": "x", "y": [{zeros}0]}}}}"#);
            refused(Tokenizer::from_bytes(json.as_bytes()), "expected at most 65536 values");
        }
    });
}

#[test]
fn what_is_no_file_is_not_read() {
    in_child(Limits::default(), || {
        let zero = Tokenizer::from_file("/dev/zero").unwrap_err();
        assert_eq!(zero.kind(), ErrorKind::Io, "{zero}");
        let fifo = std::env::temp_dir().join(format!("clawdbot-fifo-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let error = Tokenizer::from_file(&fifo).unwrap_err();
        std::fs::remove_file(&fifo).unwrap();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    });
}

#[test]
fn a_small_stack_is_enough() {
    in_child(Limits::default(), || {
        let nested = |steps: &str, leaf: Value| {
            (0..60).fold(leaf, |inner, _| json!({"type": "Sequence", steps: [inner]}))
        };
        let parts = json!({
            "normalizer": nested("normalizers", json!({"type": "NFC"})),
            "pre_tokenizer": nested("pretokenizers", json!({"type": "Whitespace"})),
            "decoder": nested("decoders", json!({"type": "Fuse"})),
            "post_processor": nested("processors", json!({"type": "ByteLevel", "add_prefix_space": true,
                "trim_offsets": true, "use_regex": true})),
        });
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let run = move || {
            let tokenizer = tokenizer(&parts).unwrap();
            assert_eq!(tokenizer.encode("ab", AddSpecialTokens::Yes).unwrap(), [0, 1]);
            assert_eq!(tokenizer.decode(&[0, 1], SkipSpecialTokens::Yes).unwrap(), "ab");
        };
        small.spawn(run).unwrap().join().unwrap();
    });
}

fn builtin(budget: u64) -> Model {
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1).memory_budget(budget)).unwrap();
    runtime.load(&Source::Builtin, &ModelOptions::default()).unwrap()
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_tokenized() {
    in_child(Limits { peak: 150, ..Limits::default() }, || {
        let model = builtin(80 << 20);
        let options = GenerateOptions::default().max_tokens(3);
        for text in ["a".repeat(4_000_000), "hello ".repeat(700_000)] {
            let error = model.generate(text.as_str(), &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ContextOverflow, "{error}");
            assert!(error.message().contains("at least"), "{error}");
            let embed = EmbedOptions::default().pooling(Pooling::Mean);
            let error = model.embed(vec![text.as_str().into()], &embed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ContextOverflow, "{error}");
            let error = model.session().unwrap().append(text.as_str(), AddSpecialTokens::Yes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ContextOverflow, "{error}");
        }
        // One that might fit, but whose tokens take more than there is.
        let tight = builtin(model.runtime().memory_used() + (1 << 20));
        let error = tight.generate("a".repeat(8_000).as_str(), &options).unwrap_err();
        assert!([ErrorKind::OutOfBudget, ErrorKind::ContextOverflow].contains(&error.kind()), "{error}");
    });
}

#[test]
fn tokenizing_is_cancelled() {
    in_child(Limits { peak: 1500, cpu: 60, ..Limits::default() }, || {
        let cancel = CancelHandle::default();
        cancel.cancel();
        let model = builtin(1 << 30);
        let error =
            model.tokenizer().unwrap().encode_until("a b", AddSpecialTokens::Yes, &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let error =
            model.tokenizer().unwrap().decode_until(&[1; 9], SkipSpecialTokens::Yes, &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let mut session = model.session().unwrap();
        let error = session.append_until("a b", AddSpecialTokens::Yes, &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(session.tokens().unwrap().is_empty());
    });
}

#[test]
fn tokens_beyond_the_models_rows_are_errors_in_prompts_only() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quantized");
    let folder = std::env::temp_dir().join(format!("clawdbot-added-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(golden.join("fp8")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(golden.join("tokenizer.json")).unwrap()).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let rows = u32::try_from(config["vocab_size"].as_u64().unwrap()).unwrap();
    let tokens = json["model"]["vocab"].as_object().unwrap().len();
    // Fills what is between the last token and the rows, and goes one beyond.
    let added: Vec<Value> = (tokens..=rows as usize)
        .map(|id| {
            json!({"id": id, "content": format!("<x{id}>"), "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json["added_tokens"] = added.into();
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    // A byte order mark is no part of the file.
    let marked = [b"\xef\xbb\xbf".as_slice(), json.to_string().as_bytes()].concat();
    assert!(Tokenizer::from_bytes(&marked).is_ok());
    let model = Model::from_pretrained(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    let model = model.unwrap();
    let options = GenerateOptions::default().max_tokens(1);
    let error = model.generate(format!("<x{rows}>").as_str(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.message().contains(&rows.to_string()), "{error}");
    model.generate(vec![1, 2], &options).unwrap();
}
