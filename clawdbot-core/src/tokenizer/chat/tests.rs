//! Small templates with the text that jinja2 renders.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tokenizer::AddGenerationPrompt;

const NOW: LocalTime =
    LocalTime { year: 2026, month: 1, day: 2, hour: 3, minute: 4, second: 5, microsecond: 0 };

fn render(template: &str) -> Result<String> {
    let messages = json!([
        {"role": "user", "content": "Hello World"},
        {"role": "assistant", "content": null, "tool_calls": [{"items": 1, "a": 2.5}]},
    ]);
    let variables = json!({"d": {"items": {"type": "s"}, "b": [1, 2]}, "n": null, "bos_token": "<s>"});
    let template = ChatTemplate::new(template, &SpecialTokens::default())?;
    template.render_at(
        &messages,
        None,
        AddGenerationPrompt::Yes,
        variables.as_object().expect("an object"),
        NOW,
    )
}

#[test]
fn rendering_agrees_with_jinja2() {
    for (template, expected) in [
        ("{{ none }} {{ true }} {{ 1.0 }} {{ 1e16 }} {{ undefined_name }}|", "None True 1.0 1e+16 |"),
        (
            "{{ messages[1] }}",
            "{'role': 'assistant', 'content': None, 'tool_calls': [{'items': 1, 'a': 2.5}]}",
        ),
        ("{{ d['items'].type }} {{ d.items() | list | length }}", "s 2"),
        ("{{ d | tojson }}", r#"{"items": {"type": "s"}, "b": [1, 2]}"#),
        ("{{ d.b | tojson(indent=2) }}", "[\n  1,\n  2\n]"),
        ("{{ '<é>' | tojson }}{{ '<é>' | tojson(ensure_ascii=true) }}", r#""<é>""<\u00e9>""#),
        ("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", r#"{"a":2,"b":1}"#),
        (
            "{% if messages | selectattr('role', 'equalto', 'x') %}a generator is true{% endif %}",
            "a generator is true",
        ),
        (
            "{% set g = messages | map(attribute='role') %}{{ g | join(',') }}|{{ g | join(',') }}",
            "user,assistant|",
        ),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}{% endfor %}", "1/1"),
        (
            "{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
        ("{%- generation -%}\n a {% endgeneration %}b", "a b"),
        (
            "{{ ' a  b '.split() }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'xax'.strip('x') }}",
            "['a', 'b']['a,b', 'c']a",
        ),
        ("{{ 'abc'[::-1] }}{{ 'abc'[-2:] }}{{ messages[::-1][0].role }}", "cbabcassistant"),
        ("{{ strftime_now('%d %b %Y') }}", "02 Jan 2026"),
        (
            "{{ bos_token }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}",
            "<s>TrueTrueTrue",
        ),
        ("{{ 'x' | int }}{{ none | trim }}{{ 'a' in 'abc' }}{{ 1 == 1.0 }}", "0NoneTrueTrue"),
    ] {
        assert_eq!(render(template).expect(template), expected, "{template}");
    }
}

#[test]
fn errors_agree_with_jinja2() {
    for template in [
        "{{ undefined_name.x }}",
        "{% for x in none %}{% endfor %}",
        "{{ messages | map(attribute='role') | tojson }}",
        "{{ undefined_name | tojson }}",
        "{{ d.b.append(1) }}",
        "{{ 'a' + 1 }}",
        "{{ n | length }}",
        "{% set d.x = 1 %}",
        "{{ 'a,b' | split(',') }}",
        "{{ strftime_now('%Q') }}",
        "{% if %}",
    ] {
        let error = render(template).expect_err(template);
        assert_eq!(error.kind(), ErrorKind::InvalidTemplate, "{template}");
        assert_eq!(error.detail()["line"], 1, "{template}");
    }
}

#[test]
fn a_raised_exception_keeps_its_message() {
    let error = render("{% macro f() %}{{ raise_exception('no ' ~ 'tools') }}{% endmacro %}\n{{ f() }}")
        .expect_err("raises");
    assert_eq!((error.kind(), error.message()), (ErrorKind::TemplateRaised, "no tools"));
}

#[test]
fn hostile_templates_end_with_an_error() {
    for template in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% for j in range(9) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"
            .to_owned(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns ~ '' }}".to_owned(),
        "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}".to_owned(),
        format!("{{% set a = [1, 2] %}}{}{{{{ a ~ a }}}}", "{% set a = [a, a] %}".repeat(60)),
        "{% set ns = namespace() %}{% set ns.x = [ns]|map('default') %}".to_owned(),
        "{% set ns = namespace() %}{% for x in [ns] %}{% set ns.x = loop %}{% endfor %}".to_owned(),
        "{% for x in [1] %}{{ loop.cycle() }}{% endfor %}".to_owned(),
        "{% for x in [1] %}{{ loop.cycle(*[]) }}{% endfor %}".to_owned(),
        "{{ 'aaaa'.replace('a', 'b' * 1000000) }}{{ '{:>999999999}'.format(1) }}".to_owned(),
        format!("{{{{ {}1 }}}}", "-".repeat(50_000)),
        format!("{{{{ {}{} }}}}", "[".repeat(400), "]".repeat(400)),
    ] {
        let error = render(&template).expect_err("must not succeed");
        assert_eq!(error.kind(), ErrorKind::InvalidTemplate);
    }
}

#[test]
fn line_ends_of_the_source_are_line_feeds() {
    for (template, expected) in [
        ("a\r\nb\rc\n\rd", "a\nb\nc\n\nd"),
        ("{{ 'a\r\nb' }}{{ 'c\\r\\n' }}", "a\nbc\r\n"),
        ("{% set x %}\r\na\r{% endset %}\r\n{{ x|length }}\r\n", "2"),
        ("{% if true %}\r\nx\r\n{% endif %}\r\n", "x\n"),
    ] {
        assert_eq!(render(template).expect(template), expected, "{template:?}");
    }
    assert_eq!(render("a\r\nb\r{{ none.x.y }}").expect_err("undefined").detail()["line"], 3);
}

#[test]
fn a_rendering_ends_at_its_deadline() {
    let template = ChatTemplate::new("{% for i in range(9) %}{{ i }}{% endfor %}", &SpecialTokens::default())
        .expect("valid");
    let (messages, variables) = (json!([]), Map::new());
    let arguments = Arguments {
        messages: &messages,
        tools: None,
        add_generation_prompt: AddGenerationPrompt::Yes,
        variables: &variables,
        now: NOW,
    };
    assert_eq!(template.render_before(&arguments, None).expect("in time"), "012345678");
    let error = template.render_before(&arguments, Some(Instant::now())).expect_err("too late");
    assert_eq!(error.kind(), ErrorKind::InvalidTemplate);
    assert!(error.message().contains("renders within"), "{error}");
}

#[test]
fn literals_in_braces_are_dictionaries() {
    // Types of the engine are recognized by name.
    for (template, expected) in [
        ("{{ {'a': 1} is mapping }}{{ [] is mapping }}", "TrueFalse"),
        ("{{ namespace(a=1) is mapping }}{% for x in [1] %}{{ loop is mapping }}{% endfor %}", "FalseFalse"),
    ] {
        assert_eq!(render(template).expect(template), expected, "{template}");
    }
}

#[test]
fn selection_agrees_with_transformers() {
    let config = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
    let templates =
        ChatTemplates::from_config(&config, &SpecialTokens::default()).expect("valid").expect("some");
    assert_eq!(templates.select(Some(&Value::Null)).expect("tool_use").source(), "t");
    assert_eq!(templates.select(None).expect("default").source(), "d");
    let single =
        ChatTemplates::from_config(&json!("s"), &SpecialTokens::default()).expect("valid").expect("some");
    assert_eq!(single.select(Some(&Value::Null)).expect("default").source(), "s");
    assert!(ChatTemplates::from_config(&Value::Null, &SpecialTokens::default()).expect("valid").is_none());
    assert!(ChatTemplates::from_config(&json!([{"name": 1}]), &SpecialTokens::default()).is_err());
    let only =
        ChatTemplates::from_config(&json!([{"name": "rag", "template": "r"}]), &SpecialTokens::default());
    let error = only.expect("valid").expect("some").select(None).expect_err("no default");
    assert_eq!(error.kind(), ErrorKind::MissingTemplate);
}

#[test]
fn wrong_arguments_are_refused() {
    let render = |messages: Value, variables: Value| {
        render_chat_template(
            "x",
            &messages,
            None,
            AddGenerationPrompt::Yes,
            variables.as_object().expect("an object"),
        )
    };
    assert_eq!(render(json!({}), json!({})).expect_err("no list").kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        render(json!([]), json!({"tools": []})).expect_err("twice").kind(),
        ErrorKind::InvalidArgument
    );
    assert_eq!(render(json!([]), json!({})).expect("valid"), "x");
}

proptest! {
    #[test]
    fn arbitrary_templates_do_not_panic(parts in prop::collection::vec(prop::sample::select(vec![
        "{{ ", " }}", "{% ", " %}", "{%- ", "for x in ", "messages", "if ", "endfor", "endif", "generation",
        "endgeneration", "raw", "endraw", "'", "(", ")", "[", "|tojson", "|list", ".split(", ")", "é", "{#", "#}", "1",
    ]), 0..20)) {
        let source = parts.concat();
        if let Err(error) = render(&source) {
            prop_assert!(!error.message().contains("panicked"), "{source}");
        }
    }
}
