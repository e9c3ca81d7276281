//! Published chat templates, rendered byte for byte as transformers renders them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use clawdbot_core::tokenizer::{ChatTemplate, LocalTime, SpecialTokens};
use clawdbot_core::{Chat, ModelOptions, Runtime, RuntimeOptions, Source};
use serde_json::{Map, Value};

mod support;

#[test]
fn published_templates_render_as_transformers_does() {
    let Some(folder) = support::shared("conformance/chat_templates") else { return };
    let now = LocalTime { year: 2026, month: 1, day: 2, hour: 3, minute: 4, second: 5, microsecond: 0 };
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("readable folder")
        .map(|entry| entry.expect("readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    let (mut cases, mut failures) = (0, Vec::new());
    for path in &paths {
        let file: Value = serde_json::from_slice(&std::fs::read(path).expect("readable file")).expect("JSON");
        let source = file["chat_template"].as_str().expect("chat_template");
        for case in file["cases"].as_array().expect("cases") {
            cases += 1;
            let place =
                format!("{} {}", path.file_name().unwrap_or_default().to_string_lossy(), case["case"]);
            let rendered = SpecialTokens::parse(case)
                .and_then(|special| ChatTemplate::new(source, &special))
                .and_then(|template| {
                    let none = Map::new();
                    let variables = case["kwargs"].as_object().unwrap_or(&none);
                    let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
                    let prompt = case["add_generation_prompt"].as_bool().expect("add_generation_prompt");
                    template.render_at(&case["messages"], tools, prompt, variables, now)
                });
            match (case["expected"].as_str(), rendered) {
                (Some(expected), Ok(found)) if expected == found => {}
                (Some(expected), Ok(found)) => {
                    failures.push(format!("{place}: {}", first_difference(expected, &found)));
                }
                (Some(_), Err(error)) => failures.push(format!("{place}: {error}")),
                (None, Ok(_)) => failures.push(format!("{place}: expected the error {}", case["error"])),
                (None, Err(_)) => {}
            }
        }
    }
    assert!(paths.len() >= 44 && cases >= 9 * 44, "{} files, {cases} cases", paths.len());
    assert!(failures.is_empty(), "{} of {cases} cases fail:\n{}", failures.len(), failures.join("\n"));
}

/// Well-formed conversations pass the checks of messages, but for tools and calls that a template leaves out.
#[test]
fn published_templates_take_checked_messages() {
    let Some(folder) = support::shared("conformance/chat_templates") else { return };
    let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
    let (mut rendered, mut refused) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let file: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let template = file["chat_template"].as_str().unwrap().to_owned();
        let model = runtime.load(&Source::Builtin, &ModelOptions::default().chat_template(template)).unwrap();
        for case in file["cases"].as_array().unwrap().iter().filter(|case| case["expected"].is_string()) {
            let chat = Chat::new(case["messages"].clone())
                .tools(Some(case["tools"].clone()).filter(|tools| !tools.is_null()))
                .variables(case["kwargs"].as_object().cloned().unwrap_or_default());
            match model.render_chat(&chat, case["add_generation_prompt"].as_bool().unwrap()) {
                Ok(_) => rendered += 1,
                Err(error) if error.message().contains("does not use them") => refused += 1,
                Err(error) => panic!("{} {}: {error}", file["name"], case["case"]),
            }
        }
    }
    assert!(rendered > 300 && (10..40).contains(&refused), "{rendered} rendered, {refused} refused");
}

fn first_difference(expected: &str, found: &str) -> String {
    let same = expected.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(same.saturating_sub(20)).take(60).collect::<String>();
    format!("at character {same}: expected {:?}, found {:?}", around(expected), around(found))
}
