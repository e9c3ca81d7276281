//! Checks a conversation before the template sees it: for malformed ones, templates print nonsense, or nothing.
//!
//! The template's source counts: a role, key or kind of content that it mentions is passed on as it is.

use serde_json::{Map, Value};

use super::AddGenerationPrompt;
use super::{ChatTemplate, LocalTime};
use crate::error::{Error, ErrorKind, Result};
use crate::options::shown;
use crate::suggest::{closest, hint};

/// Roles that all kinds of templates know.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Message keys that have a meaning, or no effect, in all kinds of templates.
const KEYS: [&str; 9] = [
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "reasoning_content",
    "reasoning",
    "thinking",
    "refusal",
];

const EXAMPLE: &str = r#"{"role": "user", "content": "Hello"}"#;

impl ChatTemplate {
    /// As [`render`](Self::render), for a conversation that is checked before, and tools that the template must use.
    ///
    /// # Errors
    /// As [`render`](Self::render); `InvalidArgument` for a malformed conversation, and for tools that the template
    /// ignores; `UnknownOption` for a variable whose name resembles that of another, or of an argument.
    pub(crate) fn render_checked(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: AddGenerationPrompt,
        variables: &Map<String, Value>,
    ) -> Result<String> {
        check_messages(self.source(), messages)?;
        let given = check_tools(tools)?;
        check_variables(self.source(), variables)?;
        let now = LocalTime::now();
        let render = |tools| self.render_at(messages, tools, add_generation_prompt, variables, now);
        let rendered = render(tools)?;
        // A template that fails without tools uses them.
        if given && render(None).is_ok_and(|without| without == rendered) {
            let message = "tools: the model's chat template ignores tools: leave them out, or describe them in a \
                           message";
            return Err(Error::invalid_argument(message).with("argument", "tools"));
        }
        Ok(rendered)
    }

    /// Names of `variables` that the template does not mention.
    pub(crate) fn unused<'a>(&self, variables: &'a Map<String, Value>) -> Vec<&'a str> {
        variables.keys().map(String::as_str).filter(|name| !mentions(self.source(), name)).collect()
    }
}

/// Checks the tools; returns whether there are any.
fn check_tools(tools: Option<&Value>) -> Result<bool> {
    let Some(tools) = tools.filter(|tools| !tools.is_null()) else { return Ok(false) };
    let expected = "a list of mappings that describe functions";
    let Value::Array(list) = tools else { return Err(wrong("tools", expected, tools)) };
    match list.iter().enumerate().find(|(_, tool)| !tool.is_object()) {
        Some((i, tool)) => Err(wrong(&format!("tools[{i}]"), "a mapping that describes a function", tool)),
        None => Ok(!list.is_empty()),
    }
}

/// Arguments of transformers' `apply_chat_template` that do not exist here and would become variables.
const ELSEWHERE: [&str; 9] = [
    "continue_final_message",
    "max_length",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tokenizer_kwargs",
    "truncation",
];

/// Refuses variables that the template does not mention and that look like a misspelt variable or argument. Others may
/// be meant for other models.
fn check_variables(source: &str, variables: &Map<String, Value>) -> Result<()> {
    let arguments = ["messages", "tools", "add_generation_prompt"];
    for name in variables.keys().filter(|name| !arguments.contains(&name.as_str()) && !mentions(source, name))
    {
        let unknown =
            |message: String| Error::new(ErrorKind::UnknownOption, message).with("option", name.as_str());
        if ELSEWHERE.contains(&name.as_str()) {
            return Err(unknown(format!(
                "expected messages, tools, add_generation_prompt and variables of the chat template, found {name:?}, an \
                 argument of transformers that has no effect here"
            )));
        }
        if let Some(meant) = closest(name, arguments) {
            let message = format!("unknown argument {name:?}{}", hint(Some(meant)));
            return Err(unknown(message).with("suggestion", meant));
        }
        if let Some(meant) = closest(name, similar(source, name)) {
            let message = format!("the chat template does not use a variable {name:?}{}", hint(Some(meant)));
            return Err(unknown(message).with("suggestion", meant));
        }
    }
    Ok(())
}

/// Words of a template's source of about the length of `name`, unless that is short and many words resemble it.
fn similar<'a>(source: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(move |word| word.len() >= 6 && word.len().abs_diff(name.len()) <= 2)
}

fn check_messages(source: &str, messages: &Value) -> Result<()> {
    let expected = format!("a list of messages such as {EXAMPLE}");
    let Value::Array(list) = messages else { return Err(wrong("messages", &expected, messages)) };
    if list.is_empty() {
        return Err(wrong("messages", "at least one message", messages));
    }
    list.iter()
        .enumerate()
        .try_for_each(|(i, message)| check_message(source, &format!("messages[{i}]"), message))
}

fn check_message(source: &str, path: &str, message: &Value) -> Result<()> {
    let object = match message {
        Value::Object(object) => object,
        Value::Array(_) => {
            let expected = format!("a message such as {EXAMPLE} (pass one conversation at a time)");
            return Err(wrong(path, &expected, message));
        }
        other => return Err(wrong(path, &format!("a message such as {EXAMPLE}"), other)),
    };
    for (key, value) in object {
        if !KEYS.contains(&key.as_str()) && !is_nothing(value) && !mentions(source, key) {
            let message = format!(
                "{path}: expected one of the keys {} or one that the chat template uses, found {key:?}{}",
                KEYS.join(", "),
                hint(closest(key, KEYS))
            );
            return Err(Error::invalid_argument(message).with("argument", path).with("key", key.as_str()));
        }
    }
    let role = check_role(source, path, object)?;
    for key in ["tool_calls", "function_call"] {
        if object.get(key).is_some_and(|value| !is_nothing(value)) && !mentions(source, key) {
            let message = format!("{path}.{key}: the model's chat template ignores {key}: leave them out");
            return Err(Error::invalid_argument(message).with("argument", format!("{path}.{key}")));
        }
    }
    check_content(source, path, role, object)
}

fn check_role<'a>(source: &str, path: &str, message: &'a Map<String, Value>) -> Result<&'a str> {
    let (path, expected) = (format!("{path}.role"), format!("one of {}", ROLES.join(", ")));
    let Some(role) = message.get("role") else { return Err(wrong(&path, &expected, &Value::Null)) };
    let Value::String(role) = role else { return Err(wrong(&path, &expected, role)) };
    let quoted = |quote| source.contains(&format!("{quote}{role}{quote}"));
    if ROLES.contains(&role.as_str()) || !role.is_empty() && (quoted('\'') || quoted('"')) {
        return Ok(role);
    }
    let found = shown(&Value::from(role.as_str()));
    let message = format!("{path}: expected {expected}, found {found}{}", hint(closest(role, ROLES)));
    Err(Error::invalid_argument(message).with("argument", path).with("found", role.as_str()))
}

fn check_content(source: &str, path: &str, role: &str, message: &Map<String, Value>) -> Result<()> {
    let path = format!("{path}.content");
    let calls = ["tool_calls", "function_call"]
        .iter()
        .any(|key| message.get(*key).is_some_and(|value| !is_nothing(value)));
    match message.get("content") {
        Some(Value::String(_)) => Ok(()),
        None | Some(Value::Null) if role == "assistant" && calls => Ok(()),
        Some(Value::Array(parts)) => check_parts(source, &path, parts),
        // Content of a tool message may be any data.
        Some(Value::Object(_)) if !["system", "developer", "user", "assistant"].contains(&role) => Ok(()),
        found => Err(wrong(&path, "a string or a list of parts", found.unwrap_or(&Value::Null))),
    }
}

fn check_parts(source: &str, path: &str, parts: &[Value]) -> Result<()> {
    for (i, part) in parts.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let kind = part.get("type").and_then(Value::as_str);
        if kind != Some("text") || !part.get("text").is_some_and(Value::is_string) {
            let expected = r#"a part such as {"type": "text", "text": "Hello"} (models read text only)"#;
            return Err(wrong(&path, expected, part));
        }
    }
    if !mentions(source, "text") {
        let message = format!(
            "{path}: expected a string, as the model's chat template does not read lists of parts, found a list"
        );
        return Err(Error::invalid_argument(message).with("argument", path));
    }
    Ok(())
}

/// Values that programs write for an absent one.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether the source contains the word.
fn mentions(source: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    !word.is_empty()
        && source.match_indices(word).any(|(at, _)| {
            !source[..at].ends_with(part_of_word) && !source[at + word.len()..].starts_with(part_of_word)
        })
}

fn wrong(path: &str, expected: &str, found: &Value) -> Error {
    Error::invalid_argument(format!("{path}: expected {expected}, found {}", shown(found)))
        .with("argument", path)
        .with("expected", expected)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tokenizer::SpecialTokens;

    const PLAIN: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    const RICH: &str = "{% if tools %}T{{ tools | tojson }}{% endif %}{% for m in messages %}{% if m.role == 'ipython' or m.tool_calls %}\
                        {{ m.tool_calls }}{{ m.mood }}{% endif %}{% if m.content is string %}{{ m.content }}{% elif m.content %}{% for p in m.content %}\
                        {{ p.text }}{% endfor %}{% endif %}{% endfor %}{{ enable_thinking }}";

    fn render(source: &str, messages: Value, tools: Option<Value>) -> Result<String> {
        let template = ChatTemplate::new(source, &SpecialTokens::default()).unwrap();
        template.render_checked(&messages, tools.as_ref(), AddGenerationPrompt::Yes, &Map::new())
    }

    #[test]
    fn valid_conversations_are_rendered() {
        let call = json!([{"type": "function", "function": {"name": "f", "arguments": {}}}]);
        for messages in [
            json!([{"role": "system", "content": ""}, {"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]),
            json!([{"role": "assistant", "content": null, "tool_calls": call}, {"role": "tool", "content": {"a": 1}}]),
            json!([{"role": "assistant", "tool_calls": call, "reasoning_content": "hm", "mood": "x"}]),
            json!([{"role": "ipython", "content": "1"}]),
            json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}]),
            // As other libraries write out an answer.
            json!([{"role": "assistant", "content": "a", "refusal": null, "audio": null, "annotations": [], "tool_calls": null}]),
        ] {
            render(RICH, messages.clone(), None).unwrap_or_else(|error| panic!("{messages}: {error}"));
        }
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        assert!(
            render(RICH, json!([{"role": "user", "content": "a"}]), Some(tools)).unwrap().starts_with("T[")
        );
        assert_eq!(
            render(PLAIN, json!([{"role": "user", "content": "a"}]), Some(json!([]))).unwrap(),
            "<user>a"
        );
    }

    #[test]
    fn malformed_conversations_are_refused() {
        let of = |message: Value| json!([message]);
        let user = |content: Value| json!([{"role": "user", "content": content}]);
        for (messages, words) in [
            (json!("Hello"), "messages: expected a list of messages such as"),
            (json!({"role": "user", "content": "a"}), "messages: expected a list"),
            (json!([]), "at least one message"),
            (of(json!("Hello")), "messages[0]: expected a message such as"),
            (of(json!([{"role": "user", "content": "a"}])), "one conversation at a time"),
            (
                of(json!({"content": "a"})),
                "messages[0].role: expected one of system, developer, user, assistant, tool, found nothing",
            ),
            (of(json!({"role": 1, "content": "a"})), "messages[0].role"),
            (of(json!({"role": "usr", "content": "a"})), "did you mean \"user\"?"),
            (of(json!({"role": "bot", "content": "a"})), "found \"bot\""),
            (of(json!({"role": "ipython", "content": "a"})), "found \"ipython\""),
            (of(json!({"role": "user", "contents": "a"})), "found \"contents\"; did you mean \"content\"?"),
            (of(json!({"role": "user", "content": "a", "mood": "b"})), "found \"mood\""),
            (
                of(json!({"role": "user"})),
                "messages[0].content: expected a string or a list of parts, found nothing",
            ),
            (of(json!({"role": "assistant", "content": null, "tool_calls": []})), "messages[0].content"),
            (of(json!({"role": "assistant", "tool_calls": [{"name": "f"}]})), "messages[0].tool_calls"),
            (user(json!(7)), "found 7"),
            (user(json!({"a": 1})), "messages[0].content"),
            (user(json!([{"type": "text", "text": "a"}])), "does not read lists of parts"),
            (user(json!([{"type": "image", "url": "x"}])), "messages[0].content[0]"),
            (user(json!(["a"])), "messages[0].content[0]"),
            (json!([{"role": "user", "content": "a"}, null]), "messages[1]"),
        ] {
            let error = render(PLAIN, messages.clone(), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{messages}");
            assert!(error.message().contains(words), "{messages}: {error}");
        }
    }

    #[test]
    fn tools_and_variables_have_an_effect() {
        let messages = json!([{"role": "user", "content": "a"}]);
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let error = render(PLAIN, messages.clone(), Some(tools.clone())).unwrap_err();
        assert!(error.message().contains("ignores tools"), "{error}");
        // Mentioned, but still without effect.
        assert!(render("{% if tools and false %}{% endif %}x", messages.clone(), Some(tools)).is_err());
        for bad in [json!({"a": 1}), json!(["f"]), json!("f")] {
            assert!(render(RICH, messages.clone(), Some(bad)).unwrap_err().message().starts_with("tools"));
        }
        let template = ChatTemplate::new(RICH, &SpecialTokens::default()).unwrap();
        let variables = json!({"enable_thinking": true, "enable_thinkin": true, "think": 1});
        assert_eq!(template.unused(variables.as_object().unwrap()), ["enable_thinkin", "think"]);
        let checked = |variables: Value| {
            template.render_checked(
                &messages,
                None,
                AddGenerationPrompt::Yes,
                variables.as_object().expect("an object"),
            )
        };
        for (slip, meant) in [
            ("add_generation_promt", Some("add_generation_prompt")),
            ("enable_thinkin", Some("enable_thinking")),
            ("enableThinking", Some("enable_thinking")),
            ("continue_final_message", None),
        ] {
            let error = checked(json!({slip: false})).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownOption, "{slip}");
            assert_eq!(error.detail().get("suggestion"), meant.map(|meant| json!(meant)).as_ref(), "{slip}");
        }
        // For other models.
        assert!(checked(json!({"documents": [], "think": 1, "reasoning_effort": "low"})).is_ok());
    }
}
