//! `clawdbot chat`

use std::path::Path;

use serde_json::Value;

use crate::support::{empty_dir, model_with_template, run, run_with};

const GREEDY: [&str; 4] = ["--temperature", "0", "--max-tokens", "20"];

/// Answers of a chat in JSON.
fn answers(args: &[&str], input: &str) -> Vec<Value> {
    let run = run_with(&[&["chat", "--json"], &GREEDY[..], args].concat(), input.as_bytes());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a fresh request answers to a rendered conversation.
fn fresh(args: &[&str], rendered: &str) -> String {
    let prompt = ["generate", "--quiet", "--add-special-tokens", "false", "--prompt", rendered];
    run(&[&prompt, &GREEDY[..], args].concat()).text()
}

#[test]
fn turns_are_answered_as_fresh_requests_would_be_and_reuse_the_cache() {
    let found =
        answers(&[], "Tell me a story.\n\nWhat came next?\n/reset\nTell me a story.\n/exit\nignored\n");
    assert_eq!(found.len(), 3);
    let first = found[0]["text"].as_str().unwrap();
    let head = "<s><|user|>\nTell me a story.<|end|>\n<|assistant|>\n";
    assert_eq!(first, fresh(&[], head));
    let all = format!("{head}{}<|end|>\n<|user|>\nWhat came next?<|end|>\n<|assistant|>\n", first.trim());
    assert_eq!(found[1]["text"], fresh(&[], &all));
    assert!(found[1]["usage"]["cached_tokens"].as_u64() >= found[0]["usage"]["prompt_tokens"].as_u64());
    assert_eq!(found[2]["text"], found[0]["text"]);
    assert_eq!(found[2]["usage"]["prompt_tokens"], found[0]["usage"]["prompt_tokens"]);
}

#[test]
fn a_template_may_rewrite_history() {
    // The last message alone, with a count in front: no two renderings have a long beginning in common. (Jinja drops a last line
    // feed of the template itself.)
    let template =
        "<s>{{ messages | length }}<|user|>\n{{ messages[-1].content }}<|end|>\n<|assistant|>{{ '\n' }}";
    let dir = model_with_template("rewriting", Some(template));
    let model = ["--model", dir.to_str().unwrap()];
    let found = answers(&model, "Hello there\nHello again\n");
    for (answer, rendered) in found.iter().zip([
        "<s>1<|user|>\nHello there<|end|>\n<|assistant|>\n",
        "<s>3<|user|>\nHello again<|end|>\n<|assistant|>\n",
    ]) {
        assert_eq!(answer["text"], fresh(&model, rendered));
    }
    assert!(found[1]["usage"]["cached_tokens"].as_u64() < found[1]["usage"]["prompt_tokens"].as_u64());
}

#[test]
fn a_system_message_comes_first() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    let dir = model_with_template("system", Some(template));
    let model = ["--model", dir.to_str().unwrap()];
    let found = answers(&[&model[..], &["--system", "Be kind"]].concat(), "Hello\n/reset\nHello\n");
    assert_eq!(found[0]["text"], fresh(&model, "system: Be kind\nuser: Hello\nassistant:"));
    assert_eq!(found[1]["text"], found[0]["text"], "it stays on reset");
}

#[test]
fn plain_output_has_a_line_for_each_answer() {
    let input = b"Tell me a story.\nWhat came next?\n";
    let quiet = run_with(&[&["chat", "--quiet"], &GREEDY[..]].concat(), input);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    let texts = answers(&[], "Tell me a story.\nWhat came next?\n");
    let lines: String =
        texts.iter().map(|answer| format!("{}\n", answer["text"].as_str().unwrap())).collect();
    assert_eq!(quiet.stdout, lines);
    let plain = run_with(&[&["chat"], &GREEDY[..]].concat(), input);
    assert_eq!(plain.stdout, lines);
    assert_eq!(plain.stderr.matches("tokens/s").count(), 4, "{}", plain.stderr);
}

#[test]
fn a_message_that_fails_is_taken_back() {
    let template = "{% if messages[-1].content == 'bad' %}{{ raise_exception('no') }}{% endif %}<s>\
                    {% for m in messages %}{{ m.content }}\n{% endfor %}";
    let dir = model_with_template("raising", Some(template));
    let args = ["chat", "--json", "--model", dir.to_str().unwrap()];
    let run = run_with(&[&args[..], &GREEDY].concat(), b"Hello\nbad\n/what\n\xff\nAnd then\n");
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""));
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["error"]["kind"].as_str().unwrap_or("-")).collect();
    assert_eq!(kinds, ["-", "TemplateRaised", "InvalidArgument", "InvalidUtf8", "-"]);
    let without = run_with(&[&args[..], &GREEDY].concat(), b"Hello\nAnd then\n");
    let last: Value = serde_json::from_str(without.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(lines[4]["text"], last["text"]);
}

#[test]
fn messages_may_have_several_lines() {
    let found =
        answers(&[], "\"\"\"\nOne\n\ntwo\n\"\"\"\n/reset\n\"\"\"One\n\ntwo\"\"\"\n/reset\nOne\\\n\\\ntwo\n");
    let expected = fresh(&[], "<s><|user|>\nOne\n\ntwo<|end|>\n<|assistant|>\n");
    assert_eq!(found.len(), 3);
    for answer in found {
        assert_eq!(answer["text"], expected);
    }
    // A space makes a message of what looks like a command; a byte order mark is none of the first line.
    let found = answers(&[], "\u{feff}/reset\n /reset now\n");
    assert_eq!(found.len(), 1);
}

#[test]
fn a_system_message_can_be_replaced_and_the_conversation_saved() {
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    let file = empty_dir("template").join("template.jinja");
    std::fs::write(&file, template).unwrap();
    // The model's own template knows no system messages.
    let model = ["--chat-template", file.to_str().unwrap()];
    let saved = empty_dir("save").join("talk.json");
    let save = format!("/save {}\n", saved.display());
    let input = format!("/system Be kind\nHello\n{save}/reset\nHello\n/system\n/reset\nHello\n{save}");
    let found = answers(&model, &input);
    let kind = fresh(&[], "system: Be kind\nuser: Hello\nassistant:");
    let plain = fresh(&[], "user: Hello\nassistant:");
    let texts: Vec<&str> = found.iter().map(|answer| answer["text"].as_str().unwrap()).collect();
    assert_eq!(texts, [&kind, &kind, &plain]);
    let talk: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    let expected =
        serde_json::json!([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": plain}]);
    assert_eq!(talk, expected);
    // Another conversation does not replace the file.
    let refused = run_with(&["chat", "--quiet"], save.as_bytes());
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("talk.json"), "{}", refused.stderr);
    let bad = run_with(&["chat"], b"/save\n/reset now\n/nothing\n/quit\nHello\n");
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(1), ""));
    assert_eq!(bad.stderr.matches("error: ").count(), 3, "{}", bad.stderr);
}

#[test]
fn a_system_message_that_the_template_does_nothing_with_is_refused_at_once() {
    let ignoring = model_with_template("no-system", Some("{{ messages[-1].content }}"));
    let ignoring = ignoring.to_str().unwrap();
    for (model, word) in [(&[][..], "one that says"), (&["--model", ignoring], "one that leaves it out")] {
        let refused = run_with(&[&["chat", "--system", "Be kind"], model].concat(), b"Hello\n");
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        for words in ["error: --system: expected", word, "--chat-template FILE"] {
            assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
        }
        // In a conversation, which goes on.
        let args = [&["chat", "--json"], &GREEDY[..], model].concat();
        let told = run_with(&args, b"/system Be kind\nHello\n");
        let lines: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["error"]["kind"], "InvalidArgument");
        assert_eq!(lines[1]["text"], answers(model, "Hello\n")[0]["text"]);
    }
}

#[test]
fn a_template_gets_variables() {
    let template = "{% if brief is false %}long{% endif %}{{ mood }}:{{ messages[-1].content }}";
    let dir = model_with_template("variables", Some(template));
    let model = ["--model", dir.to_str().unwrap()];
    let with = |variables: &[&str]| {
        let given = variables.iter().flat_map(|variable| ["--template-variable", variable]);
        answers(&model.into_iter().chain(given).collect::<Vec<_>>(), "Hello\n")[0]["text"].clone()
    };
    assert_eq!(with(&["brief=false", "mood=glad"]), fresh(&model, "longglad:Hello"));
    assert_eq!(with(&["brief=true", "mood=\"1\""]), fresh(&model, "1:Hello"));
    let chat = |variable: &str| {
        let args = [&["chat", "--template-variable", variable], &GREEDY[..], &model].concat();
        run_with(&args, b"Hello\nHello\n")
    };
    let unused = chat("weather=1");
    assert_eq!((unused.code, unused.stderr.matches("warning: ").count()), (Some(0), 1), "{}", unused.stderr);
    assert!(
        unused.stderr.contains("no use for the variables that it was given: weather"),
        "{}",
        unused.stderr
    );
    for wrong in ["messages=1", "tolls=[]"] {
        let refused = chat(wrong);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{wrong}");
        assert!(refused.stderr.starts_with("error: --template-variable: "), "{}", refused.stderr);
    }
}

#[test]
fn a_full_context_says_what_to_do() {
    let args = ["chat", "--max-context", "60", "--temperature", "0", "-n", "10"];
    let full = run_with(&args, b"Tell me a story\n".repeat(6).as_slice());
    assert_eq!(full.code, Some(1));
    assert!(full.stderr.contains("; /reset starts a new conversation\n"), "{}", full.stderr);
    // A message that is too long alone.
    let long = run_with(&args, "Tell me a story ".repeat(60).as_bytes());
    assert!(long.code == Some(1) && !long.stderr.contains("/reset"), "{}", long.stderr);
}

#[test]
fn quotes_without_an_end_are_an_error() {
    let open = run_with(&["chat", "--json"], b"\"\"\"Tell me\na story\n");
    assert_eq!((open.code, open.stdout.matches("\"error\"").count()), (Some(1), 1), "{}", open.stdout);
    assert!(open.stdout.contains("found the end of the input"), "{}", open.stdout);
}

#[test]
fn a_model_that_does_not_generate_is_refused_at_once() {
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clawdbot-core/tests/golden/embeddings/bert");
    let refused = run(&["chat", bert.to_str().unwrap()]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("does not generate"), "{}", refused.stderr);
}

#[test]
fn another_template_helps_where_the_models_own_is_none() {
    let dir = model_with_template("broken-template", Some("{% for m in %}"));
    let model = ["--model", dir.to_str().unwrap()];
    let refused = run(&[&["chat"], &model[..]].concat());
    assert_eq!(refused.code, Some(1));
    let words = ["tokenizer_config.json", "chat template, line 1", "--chat-template"];
    assert!(words.iter().all(|words| refused.stderr.contains(words)), "{}", refused.stderr);
    let file = empty_dir("good-template").join("template.jinja");
    std::fs::write(&file, "{{ messages[-1].content }}:").unwrap();
    let found = answers(&[&model[..], &["--chat-template", file.to_str().unwrap()]].concat(), "Hello\n");
    let text = run(&[&["generate", "--add-special-tokens", "false", "Hello:"], &GREEDY[..], &model].concat());
    assert!(text.stderr.contains("warning: ") && text.stderr.contains("cannot chat"), "{}", text.stderr);
    assert_eq!(found[0]["text"], text.stdout);
    let plan = run(&[&["inspect", "--json"], &model[..]].concat()).json();
    assert_eq!(plan["has_chat_template"], false);
    assert!(plan["warnings"][0].as_str().unwrap().contains("cannot chat"), "{plan}");
}

#[test]
fn a_chat_template_of_a_file_is_checked() {
    let file = empty_dir("bad-template").join("template.jinja");
    std::fs::write(&file, "{% for m in %}").unwrap();
    let run = run(&["chat", "--chat-template", file.to_str().unwrap()]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("error: --chat-template, line 1: "), "{}", run.stderr);
}
