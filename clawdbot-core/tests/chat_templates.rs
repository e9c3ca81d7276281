//! Published chat templates, rendered byte for byte as transformers renders them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use clawdbot_core::tokenizer::{ChatTemplate, LocalTime, SpecialTokens};
use clawdbot_core::{AddGenerationPrompt, Chat, ErrorKind, ModelOptions, Runtime, RuntimeOptions, Source};
use serde_json::{Map, Value};

mod support;

use support::child::{Limits, in_child};

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
                    template.render_at(&case["messages"], tools, prompt.into(), variables, now)
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
            match model.render_chat(&chat, case["add_generation_prompt"].as_bool().unwrap().into()) {
                Ok(_) => rendered += 1,
                Err(error) if error.message().contains("chat template ignores") => refused += 1,
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

/// What we do not do as jinja2 does, by a part of the template: an error, never other text.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "'<&>'|e",
        "escaped texts escape what they are put together with: only filters that print them are supported",
    ),
    (".encode()", "there are no bytes"),
    ("(d.keys()) -", "there are no sets"),
    ("(-7) ** 0.5", "there are no complex numbers"),
    ("'٣'|int", "digits of other scripts"),
    ("l|map('string')", "the text of a generator has its address in it"),
    ("y='d') %}", "an undefined argument for a parameter with a default"),
    ("{{ m(*[none, u]) }}", "the same"),
    ("varargs", "more arguments than a macro has parameters"),
    ("kwargs", "the same"),
    ("[1:]", "jinja2 computes slices of constants at compile time, where an error means undefined"),
    ("[:1]", "the same"),
    ("[-2:]", "the same"),
    ("[::2]", "the same"),
    ("[::-1]", "the same"),
    ("[1:99:1]", "the same"),
];

#[test]
fn filters_tests_and_operators_are_those_of_jinja2() {
    let golden: Value = serde_json::from_str(include_str!("golden/template_matrix.json")).expect("JSON");
    let texts = golden["texts"].as_array().expect("texts");
    let mut variables = golden["variables"].as_object().expect("variables").clone();
    let messages = variables.remove("messages").expect("messages");
    let mut cases = Vec::new();
    for (rows, operands) in [("cases", "operands"), ("argument_cases", "argument_operands")] {
        let operands = golden[operands].as_array().expect("operands");
        for (template, row) in golden[rows].as_object().expect("cases") {
            for (operand, found) in operands.iter().zip(row.as_str().expect("a row").split(' ')) {
                let expected = found.parse::<usize>().ok().map(|at| texts[at].as_str().expect("a text"));
                cases.push((template.replace('@', operand.as_str().expect("an operand")), expected));
            }
        }
    }
    let singles = golden["singles"].as_object().expect("singles");
    cases.extend(singles.iter().map(|(template, text)| (template.clone(), text.as_str())));
    assert!(cases.len() > 13_000, "{} cases", cases.len());

    let mut failures = Vec::new();
    let mut used = vec![false; DIFFERENCES.len()];
    for (template, expected) in &cases {
        let found = ChatTemplate::new(template, &SpecialTokens::default())
            .and_then(|compiled| compiled.render(&messages, None, AddGenerationPrompt::Yes, &variables));
        let known = DIFFERENCES.iter().position(|(part, _)| template.contains(part));
        match (expected, found) {
            (Some(expected), Ok(found)) if *expected == found => {}
            (None, Err(_)) => {}
            (Some(_), Err(_)) if known.is_some() => used[known.unwrap_or(0)] = true,
            (expected, found) => failures.push(format!("{template}: expected {expected:?}, found {found:?}")),
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    let unused: Vec<_> = DIFFERENCES.iter().zip(used).filter(|(_, used)| !used).collect();
    assert!(unused.is_empty(), "no such differences any more: {unused:?}");
}

/// Templates that double what they have, and what walks over it; others that repeat what one step may cost.
fn hostile_templates() -> Vec<String> {
    let doubled = |first: &str, times: usize, then: &str| {
        format!(
            "{{% set ns = namespace(x={first}) %}}{{% for i in range({times}) %}}{{% set ns.x = ns.x + ns.x %}}{{% endfor %}}{then}"
        )
    };
    let many = |set: &str, step: &str| {
        format!("{{% set a = {set} %}}{{% for i in range(90000) %}}{{% set x = {step} %}}{{% endfor %}}")
    };
    let mut templates = vec![
        doubled("[1]", 36, ""),
        doubled("(1,)", 36, ""),
        doubled("'a'", 40, ""),
        doubled("['a']", 31, "{{ ns.x ~ '' }}"),
        doubled("['a']", 31, "{{ ''.join(ns.x)|length }}"),
        doubled("['a']", 31, "{{ ns.x|reverse|first }}{{ ns.x|tojson|length }}"),
        "{{ ([1] * 100000000)|length }}".to_owned(),
        "{{ ('a' * 1000000000)|length }}".to_owned(),
        "{{ [1]|batch(100000000, 'x')|list|length }}".to_owned(),
        "{{ [1]|slice(100000000)|list|length }}".to_owned(),
        "{{ ('a-' * 20000000)|wordwrap(3) }}".to_owned(),
        "{% macro f(x, n) %}{% if n %}{{ f([x, x], n - 1) }}{% else %}{{ x == x }}{% endif %}{% endmacro %}{{ f([1], 60) }}"
            .to_owned(),
        format!("{{% if 0 %}}{}{{{{ {}1 }}}}{{% endif %}}", "{% elif 0 %}".repeat(985), "not ".repeat(860)),
        format!("{}{{#", " ".repeat(70_000)),
    ];
    let list = "range(90000)|map('string')|list";
    for step in [
        "a == a + []",
        "a|sort",
        "a|unique|list",
        "a|groupby(0)",
        "'x' in a",
        "a[::-1]",
        "a|join",
        "a|tojson",
        "cycler(*a)",
    ] {
        templates.push(many(list, step));
    }
    for step in [
        "a.find('b')",
        "a[-1]",
        "a|upper",
        "a == a ~ ''",
        "{a: 1}",
        "'%99999d' % 1",
        "a|wordcount",
        "a.split('a')",
    ] {
        templates.push(many("'a' * 1000000", step));
    }
    templates
}

#[test]
fn hostile_templates_end_in_bounds() {
    in_child(Limits { cpu: 60, ..Limits::default() }, || {
        // A long conversation gives a template the most that it may use.
        let messages = serde_json::json!([{"role": "user", "content": "hi ".repeat(20_000)}]);
        for template in hostile_templates() {
            let rendered = ChatTemplate::new(&template, &SpecialTokens::default())
                .and_then(|compiled| compiled.render(&messages, None, AddGenerationPrompt::Yes, &Map::new()));
            let fails = !template.contains("elif");
            let name = template.get(..200).unwrap_or(&template);
            assert_eq!(rendered.is_err(), fails, "{name}");
            assert!(rendered.err().is_none_or(|error| error.kind() != ErrorKind::Internal), "{name}");
        }
    });
}

#[test]
fn a_deep_template_fits_a_small_stack() {
    in_child(Limits::default(), || {
        let deep = format!(
            "{}{{% if 0 %}}{}{{{{ {}{}1{} }}}}{}",
            "{% if 1 %}".repeat(70),
            "{% elif 0 %}".repeat(985),
            "(".repeat(60),
            "not ".repeat(860),
            ")".repeat(60),
            "{% endif %}".repeat(71)
        );
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let thread = small.spawn(move || {
            let compiled = ChatTemplate::new(&deep, &SpecialTokens::default())?;
            compiled.render(&Value::Array(Vec::new()), None, AddGenerationPrompt::Yes, &Map::new())
        });
        assert_eq!(thread.expect("a thread").join().expect("no panic").expect("renders"), "");
    });
}
