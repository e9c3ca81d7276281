//! What is read, compared with the tokenizers crate.

use serde_json::{Value, json};

/// The model as JSON with its largest id, or an error.
type Outcome = Result<(Value, Option<u32>), String>;

/// A model as read by the crate, and as read here.
fn both(model: &Value) -> (Outcome, Outcome) {
    let added = json!([{"id": 9, "content": "<x>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}]);
    let json = json!({"version": "1.0", "added_tokens": added, "model": model}).to_string();
    let crates = tokenizers::Tokenizer::from_bytes(json.as_bytes());
    let crates = crates.map(|crates| (json!(crates.get_model()), crates.get_vocab(true).into_values().max()));
    let ours = super::read(json.as_bytes(), None)
        .map(|ours| (json!(ours.encoder.get_model().maps()), ours.largest_id));
    (crates.map_err(|error| error.to_string()), ours.map_err(|error| error.to_string()))
}

fn vocab() -> Value {
    json!({"a": 0, "b": 1, "ab": 2, "c": 3, "abc": 7})
}

#[test]
fn models_agree_with_the_crate() {
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
        bpe(json!({"merges": [["a", "b"]], "dropout": null, "unk_token": "a", "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": true, "continuing_subword_prefix": null})),
        bpe(json!({"merges": ["a b"], "continuing_subword_prefix": "", "end_of_word_suffix": "c"})),
        // The type is not the first field.
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
fn errors_of_the_crate_are_errors() {
    for (more, word) in [
        (json!({"vocab": vocab()}), "vocab and merges"),
        (json!({"merges": []}), "vocab and merges"),
        (json!({"vocab": [], "merges": []}), "a map of tokens"),
        (json!({"vocab": vocab(), "merges": ["ab"]}), "two tokens"),
        (json!({"vocab": vocab(), "merges": ["a b c"]}), "two tokens"),
        (json!({"vocab": vocab(), "merges": [["a"]]}), "two tokens"),
        (json!({"vocab": vocab(), "merges": [["a", "b", "c"]]}), "two tokens"),
        (json!({"vocab": vocab(), "merges": [1]}), "two tokens"),
        (json!({"vocab": vocab(), "merges": ["a b", ["a", "b"]]}), "found both"),
        (json!({"vocab": vocab(), "merges": ["a x"]}), "out of vocabulary"),
        (json!({"vocab": vocab(), "merges": [], "dropout": 3.0}), "ropout"),
        (json!({"vocab": vocab(), "merges": [], "unk_token": 1}), "a string"),
    ] {
        let mut model = json!({"type": "BPE"});
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (crates, ours) = both(&model);
        assert!(crates.is_err(), "{model}");
        assert!(ours.unwrap_err().contains(word), "{model}");
    }
}

#[test]
fn panics_of_the_crate_are_errors() {
    let bpe = |more: Value| {
        let mut model = json!({"type": "BPE", "vocab": vocab()});
        model.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        model
    };
    let word_piece = json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100_000, "vocab": vocab()});
    for (model, word) in [
        (bpe(json!({"merges": [["a", "b"]], "continuing_subword_prefix": "##"})), "the prefix"),
        (bpe(json!({"merges": [["abc", "ab"]]})), "not in the vocabulary"),
        (bpe(json!({"merges": [], "dropout": 0.5})), "the same tokens"),
        (word_piece, "at most 200"),
    ] {
        let json = json!({"version": "1.0", "model": model}).to_string();
        let error = super::read(json.as_bytes(), None).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn tables_have_all_that_is_read() {
    let model = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
    let mut file = json!({"truncation": null, "model": model});
    let mut keys: Vec<&str> = super::Part::ALL.iter().map(|(_, key)| *key).collect();
    for key in &keys {
        let json = json!({"model": model, *key: 7}).to_string();
        assert!(super::read(json.as_bytes(), None).is_err(), "{key} is read");
        file[*key] = match *key {
            "version" => json!("1.0"),
            "model" => model.clone(),
            "added_tokens" => json!([]),
            _ => json!(null),
        };
    }
    let blob = super::tables(file.to_string().as_bytes()).unwrap().unwrap();
    let rest: serde_json::Map<String, Value> = serde_json::from_slice(blob.rest()).unwrap();
    keys.sort_unstable();
    let mut found: Vec<&str> = rest.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, keys);
}

#[test]
fn added_tokens_with_the_same_normal_form_are_refused() {
    let read = |normalized: bool, other: &str| {
        let token = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": normalized, "special": false})
        };
        let json = json!({"version": "1.0", "normalizer": {"type": "Lowercase"},
            "added_tokens": [token(3, "Foo"), token(4, other)],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}});
        super::read(json.to_string().as_bytes(), None).map(|_| ()).map_err(|error| error.to_string())
    };
    let error = read(true, "FOO").unwrap_err();
    assert!(error.contains(r#""FOO" and "Foo", which both become "foo""#), "{error}");
    assert_eq!((read(false, "FOO"), read(true, "Bar"), read(true, "Foo")), (Ok(()), Ok(()), Ok(())));
}

#[test]
fn ignored_ids_are_noted() {
    let notes = |tokens: Value| {
        let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 3}, "merges": []});
        let json = json!({"version": "1.0", "added_tokens": tokens, "model": model}).to_string();
        let read = super::read(json.as_bytes(), None).unwrap();
        let crates = tokenizers::Tokenizer::from_bytes(json.as_bytes()).unwrap();
        for content in ["<x>", "<y>", "b"] {
            assert_eq!(read.encoder.token_to_id(content), crates.token_to_id(content), "{content}");
        }
        read.notes
    };
    let token = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    assert!(notes(json!([token(2, "<x>"), token(3, "b")])).is_empty());
    let noted = notes(json!([token(4, "<x>"), token(5, "<y>"), token(3, "b")]));
    let [note] = noted.as_slice() else { panic!("{noted:?}") };
    assert!(note.contains("2 tokens") && note.contains(r#""<x>" has 2, the file says 4"#), "{note}");
    let noted = notes(json!([token(2, "<x>"), token(4, "<y>")]));
    assert!(noted[0].contains(r#""<y>" has 3, the id of "b" too, the file says 4"#), "{noted:?}");
}
