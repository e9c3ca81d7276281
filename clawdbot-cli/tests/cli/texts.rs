//! Texts as people write them: with dashes, escapes, byte order marks, and line ends at the end of stdin.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{empty_dir, model_with_template, run, run_with};

const SHORT: [&str; 6] = ["generate", "--temperature", "0", "--max-tokens", "4", "--quiet"];

/// Token ids of the prompt and of the answer, more or less: what the program made of a text.
fn made_of(args: &[&str], input: &[u8]) -> Value {
    let json = run_with(&[&SHORT[..], &["--json"], args].concat(), input).json();
    json!([json["usage"]["prompt_tokens"], json["token_ids"]])
}

fn fixture(name: &str) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings");
    golden.join(name).display().to_string()
}

#[test]
fn prompts_have_many_forms() {
    let expected = made_of(&["--prompt", "The sea"], b"");
    for args in [&["The sea"][..], &["-p", "The sea"], &["--prompt=The sea"], &["--", "The sea"]] {
        assert_eq!(made_of(args, b""), expected, "{args:?}");
    }
    for args in [&["-"][..], &["-p", "-"], &["--prompt", "-"], &["--prompt-file", "-"]] {
        for input in [&b"The sea"[..], b"The sea\n", b"The sea\r\n", b"\xef\xbb\xbfThe sea\n"] {
            assert_eq!(made_of(args, input), expected, "{args:?} {input:?}");
        }
        assert_ne!(made_of(args, b"The sea\n\n"), expected, "one line end is dropped, not two");
    }
    assert_eq!(made_of(&["--", "-"], b"The sea"), made_of(&["--", "-"], b""), "a dash as a text");
    let json = run(&["generate", "-n", "3", "--ignore-eos", "--json", "The sea"]).json();
    assert_eq!(json["usage"]["completion_tokens"], 3);
    for (prompt, warned) in
        [("Qwen/Qwen3-0.6B", true), ("m.gguf", true), ("and/or so", false), ("Once", false)]
    {
        let run = run(&["generate", "-n", "1", prompt]);
        assert_eq!(run.stderr.contains("to choose a model, use -m"), warned, "{prompt}: {}", run.stderr);
    }
    let both = run(&["generate", "a", "--prompt", "b"]);
    assert_eq!(both.code, Some(2));
    assert!(both.stderr.contains("--prompt"), "{}", both.stderr);
}

#[test]
fn files_are_taken_as_they_are_but_for_the_mark() {
    let file = empty_dir("marks").join("prompt.txt");
    let path = file.to_str().unwrap();
    let of_file = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        made_of(&["--prompt-file", path], b"")
    };
    let expected = made_of(&["-p", "The sea"], b"");
    assert_eq!(of_file(b"The sea"), expected);
    assert_eq!(of_file(b"\xef\xbb\xbfThe sea"), expected);
    assert_ne!(of_file(b"The sea\n"), expected);
    // As PowerShell writes it.
    std::fs::write(&file, b"\xff\xfeT\0h\0e\0").unwrap();
    let utf16 = run(&["generate", "--prompt-file", path]);
    assert_eq!(utf16.code, Some(1));
    assert!(utf16.stderr.contains("expected UTF-8, found UTF-16"), "{}", utf16.stderr);

    let lines = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        run(&["embed", "-m", &fixture("bert"), "--input", path, "--quiet"]).text()
    };
    assert_eq!(lines(b"\xef\xbb\xbfa text\nanother\n"), lines(b"a text\nanother"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_text_without_an_end_is_refused() {
    let endless = run(&["generate", "--prompt-file", "/dev/zero"]);
    // Not what the bytes are, for they were not all read.
    assert_eq!(endless.code, Some(1));
    assert!(endless.stderr.contains("/dev/zero: expected a text of at most"), "{}", endless.stderr);
}

#[test]
fn texts_may_begin_with_a_dash() {
    for text in ["- summarize this", "---\nx", "-5 degrees", "--not-an-option at all", "-x is a flag"] {
        let expected = made_of(&[&format!("--prompt={text}")], b"");
        for args in [&["--prompt", text][..], &["-p", text], &[text], &[text, "--max-context", "100"]] {
            assert_eq!(made_of(args, b""), expected, "{args:?}");
        }
    }
    let stop = ["--prompt", "Once", "--stop", "---", "--stop", "- "];
    assert_eq!(made_of(&stop, b""), made_of(&["--prompt", "Once"], b""));
    let (bert, score) = (fixture("bert"), fixture("bert_score"));
    let embed = ["embed", "-m", &bert, "--quiet"];
    let expected = run(&[&embed[..], &["--", "- a", "b", "-2"]].concat()).text();
    assert_eq!(run(&[&embed[..], &["- a", "b", "-2"]].concat()).text(), expected);
    let rank = ["rerank", "-m", &score, "--quiet"];
    let expected = run(&[&rank[..], &["--query=-5 degrees", "--", "- cold", "warm"]].concat()).text();
    assert_eq!(run(&[&rank[..], &["--query", "-5 degrees", "- cold", "warm"]].concat()).text(), expected);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let dir = model_with_template("dash-system", Some(template));
    let chat = |args: &[&str]| {
        let args =
            [&["chat", dir.to_str().unwrap(), "--quiet", "--temperature", "0", "-n", "4"], args].concat();
        run_with(&args, b"hi\n").text()
    };
    assert_eq!(chat(&["--system", "- be brief"]), chat(&["--system=- be brief"]));
}

#[test]
fn a_missing_text_is_an_error() {
    for (args, words) in [
        (&["generate", "--prompt", "--max-tokens", "3"][..], "--prompt=--max-tokens"),
        (&["generate", "--prompt", "--max-token", "3"], "--prompt=--max-token"),
        (&["generate", "-p", "-n", "3"], "-p=-n"),
        (&["generate", "a", "--stop", "--ignore-eos"], "--stop=--ignore-eos"),
        (&["chat", "--system", "--quiet"], "--system=--quiet"),
        (&["generate", "a", "--jsom"], "--json"),
        (&["generate", "a", "b"], "unexpected argument 'b'"),
        (&["embed", "-m", "x", "-q"], "-q"),
    ] {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains(words), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn words_without_quotes_get_a_hint() {
    for (args, hint) in [
        (&["generate", "tell", "me", "a", "story"][..], "clawdbot generate \"tell me a story\""),
        (&["generate", "cost", "of", "$5"], "clawdbot generate \"Once upon a time\""),
        (&["tell", "me", "a", "story"], "clawdbot generate \"tell me a story\""),
        (&["Once upon a time"], "clawdbot generate \"Once upon a time\""),
        (&["chat", "model", "hello"], "messages are typed"),
    ] {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?}");
        assert!(run.stderr.contains(hint), "{args:?}: {}", run.stderr);
    }
    let unknown = run(&["generate", "a", "--jsom"]).stderr;
    assert!(!unknown.contains("quotes"), "{unknown}");
}

#[test]
fn escapes_are_read_where_it_is_said() {
    let args = ["generate", "--temperature", "0", "--max-tokens", "60", "--json"];
    let text = run(&args).json()["text"].as_str().unwrap().to_owned();
    let stop: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let escaped: String = stop.chars().map(|c| format!("\\u{{{:x}}}", u32::from(c))).collect();
    let found = run(&[&args[..], &["--stop", &escaped]].concat()).json();
    assert_eq!(found["text"], text[..text.find(&stop).unwrap()]);
    // A prompt is taken as it is.
    assert_eq!(made_of(&["-e", r"The\x20sea"], b""), made_of(&["The sea"], b""));
    assert_eq!(made_of(&["-e", "-p", r"a\\nb\n"], b""), made_of(&["a\\nb\n"], b""));
    assert_ne!(made_of(&[r"The\x20sea"], b""), made_of(&["The sea"], b""));
    for bad in [&["--stop", r"\d+"][..], &["-e", "-p", r"C:\dir"]] {
        let run = run(&[&["generate"], bad].concat());
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.contains(r"\\ for a backslash"), "{}", run.stderr);
    }
}
