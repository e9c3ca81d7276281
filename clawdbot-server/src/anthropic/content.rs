//! Messages made of blocks, as the messages that chat templates read.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::keyed::{Keys, text};
use crate::openai::messages::normalized;

/// The names of functions, by the ids of their calls.
type Names = HashMap<String, String>;

/// A block, after its path.
type Placed = (String, Map<String, Value>);

/// The conversation of `messages` after `system`.
pub(super) fn conversation(
    system: Option<&Value>,
    messages: &Value,
    keys: &mut Keys<'_>,
) -> Result<Value, Fault> {
    let mut found = Vec::new();
    if let Some(system) = system.filter(|system| system.as_array().is_none_or(|blocks| !blocks.is_empty())) {
        found.push(json!({"role": "system", "content": texts("system", system, keys)?}));
    }
    let list = messages.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| Fault::field("messages", "a list of messages", messages))?;
    let mut names = Names::new();
    let mut last = "";
    for (at, message) in list.iter().enumerate() {
        let path = format!("messages[{at}]");
        let object = message.as_object().ok_or_else(|| Fault::field(&path, "an object", message))?;
        let object = keys.of(&path, object, &["role", "content"], &["id", "cache_control"])?;
        let content = object.get("content").unwrap_or(&Value::Null);
        let path = format!("{path}.content");
        last = match text(&path, &object, "role")? {
            "user" => {
                user(&path, content, &names, &mut found, keys)?;
                "user"
            }
            "assistant" => {
                found.push(assistant(&path, content, &mut names, keys)?);
                "assistant"
            }
            "system" => {
                found.push(json!({"role": "system", "content": texts(&path, content, keys)?}));
                "system"
            }
            other => {
                let path = format!("messages[{at}].role");
                return Err(Fault::field(&path, "user, assistant or system", &other.into()));
            }
        };
    }
    if last == "assistant" {
        let message = "field messages: expected a message of the user last, found one of the assistant: the beginning of an \
                       answer cannot be given";
        return Err(Fault::invalid(message).at("messages"));
    }
    normalized(found.into())
}

/// The blocks of a content; a text is one.
fn blocks(path: &str, content: &Value) -> Result<Vec<Placed>, Fault> {
    match content {
        Value::String(text) => {
            let block = json!({"type": "text", "text": text});
            Ok(block.as_object().cloned().map(|block| (path.to_owned(), block)).into_iter().collect())
        }
        Value::Array(list) => {
            let block = |(at, block): (usize, &Value)| {
                let path = format!("{path}[{at}]");
                let object = block.as_object().cloned();
                object.ok_or_else(|| Fault::field(&path, "a block", block)).map(|object| (path, object))
            };
            list.iter().enumerate().map(block).collect()
        }
        other => Err(Fault::field(path, "a text or a list of blocks", other)),
    }
}

/// The text of a block that has one.
fn block_text(path: &str, block: &Map<String, Value>, keys: &mut Keys<'_>) -> Result<String, Fault> {
    let block = keys.of(path, block, &["type", "text"], &["cache_control", "citations"])?;
    text(path, &block, "text").map(str::to_owned)
}

fn wrong(path: &str, kind: &str, expected: &str) -> Fault {
    Fault::field(&format!("{path}.type"), expected, &kind.into())
}

/// A text, or blocks of text, a line each.
fn texts(path: &str, content: &Value, keys: &mut Keys<'_>) -> Result<String, Fault> {
    let read = blocks(path, content)?.into_iter().map(|(path, block)| match text(&path, &block, "type")? {
        "text" => block_text(&path, &block, keys),
        other => Err(wrong(&path, other, "text (models read text only)")),
    });
    Ok(read.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// Adds a message of the user, after the results of tools that are in it.
fn user(
    path: &str,
    content: &Value,
    names: &Names,
    found: &mut Vec<Value>,
    keys: &mut Keys<'_>,
) -> Result<(), Fault> {
    let mut said = Vec::new();
    let mut results = Vec::new();
    for (path, block) in blocks(path, content)? {
        match text(&path, &block, "type")? {
            "text" => said.push(block_text(&path, &block, keys)?),
            "tool_result" => {
                let known = ["type", "tool_use_id", "content"];
                let block = keys.of(&path, &block, &known, &["is_error", "cache_control"])?;
                let id = text(&path, &block, "tool_use_id")?;
                let name = names.get(id).ok_or_else(|| {
                    let expected = "the id of a tool_use block before it";
                    Fault::field(&format!("{path}.tool_use_id"), expected, &id.into())
                })?;
                let content = match block.get("content") {
                    None => String::new(),
                    Some(content) => texts(&format!("{path}.content"), content, keys)?,
                };
                results.push(json!({"role": "tool", "tool_call_id": id, "name": name, "content": content}));
            }
            other => return Err(wrong(&path, other, "text or tool_result (models read text only)")),
        }
    }
    let only_results = said.is_empty() && !results.is_empty();
    found.append(&mut results);
    if !only_results {
        found.push(json!({"role": "user", "content": said.join("\n")}));
    }
    Ok(())
}

/// A message of the assistant.
fn assistant(path: &str, content: &Value, names: &mut Names, keys: &mut Keys<'_>) -> Result<Value, Fault> {
    let (mut said, mut thought, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for (path, block) in blocks(path, content)? {
        match text(&path, &block, "type")? {
            "text" => said.push(block_text(&path, &block, keys)?),
            "thinking" => {
                let silent = ["signature", "cache_control"];
                let block = keys.of(&path, &without(&block, &silent), &["type", "thinking"], &[])?;
                thought.push(text(&path, &block, "thinking")?.to_owned());
            }
            // Only who has written it can read it.
            "redacted_thinking" => keys.idle(&path),
            "tool_use" => {
                let silent = ["cache_control", "caller"];
                let block =
                    keys.of(&path, &without(&block, &silent), &["type", "id", "name", "input"], &[])?;
                let (id, name) = (text(&path, &block, "id")?, text(&path, &block, "name")?);
                let input = block.get("input").unwrap_or(&Value::Null);
                if !input.is_object() {
                    return Err(Fault::field(&format!("{path}.input"), "an object", input));
                }
                names.insert(id.to_owned(), name.to_owned());
                let function = json!({"name": name, "arguments": input});
                calls.push(json!({"id": id, "type": "function", "function": function}));
            }
            other => {
                return Err(wrong(&path, other, "text, thinking or tool_use (models read text only)"));
            }
        }
    }
    let mut message = json!({"role": "assistant", "content": said.join("\n")});
    if !thought.is_empty() {
        message["reasoning_content"] = thought.join("\n").into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Ok(message)
}

/// A block without what clients send back as they got it.
fn without(block: &Map<String, Value>, silent: &[&str]) -> Map<String, Value> {
    let kept = block.iter().filter(|(key, _)| !silent.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Ignored;
    use crate::settings::Fields;

    fn read(system: Option<Value>, messages: &Value) -> Result<Value, Fault> {
        let mut ignored = Ignored::default();
        let mut keys = Keys { policy: Fields::Known, ignored: &mut ignored };
        conversation(system.as_ref(), messages, &mut keys)
    }

    #[test]
    fn blocks_become_messages() {
        let system = json!([{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]);
        let messages = json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "x"}, {"type": "redacted_thinking", "data": "y"},
                {"type": "text", "text": "b"}, {"type": "tool_use", "id": "1", "name": "f", "input": {"k": 1}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "c"},
                {"type": "tool_result", "tool_use_id": "1", "is_error": false, "content": [{"type": "text", "text": "d"}]}]},
            {"role": "system", "content": "e"},
        ]);
        let expected = json!([
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning_content": "t",
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"k": 1}}}]},
            {"role": "tool", "tool_call_id": "1", "name": "f", "content": "d"},
            {"role": "user", "content": "c"},
            {"role": "system", "content": "e"},
        ]);
        assert_eq!(read(Some(system), &messages).expect("a conversation"), expected);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let image = json!({"type": "image", "source": {"type": "base64", "data": "x"}});
        for (content, param) in [
            (json!([image]), "messages[0].content[0].type"),
            (json!([1]), "messages[0].content[0]"),
            (json!(1), "messages[0].content"),
            (json!([{"type": "tool_result", "tool_use_id": "1"}]), "messages[0].content[0].tool_use_id"),
            (json!([{"type": "text", "text": "a", "colour": 1}]), "messages[0].content[0].colour"),
        ] {
            let fault = read(None, &json!([{"role": "user", "content": content}])).expect_err("refused");
            assert_eq!(fault.param.as_deref(), Some(param), "{}", fault.message);
        }
        let begun = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        assert!(read(None, &begun).expect_err("refused").message.contains("beginning of an answer"));
        assert!(read(None, &json!([])).is_err());
    }
}
