//! Messages of a conversation as clients send them, made to those that chat templates read.

use serde_json::{Map, Value};

use crate::fault::Fault;

/// Keys of messages that say nothing to a model.
const IDLE: [&str; 4] = ["refusal", "audio", "annotations", "function_call"];

/// The messages for a chat template: texts in place of lists of texts, arguments of calls as objects, and the role `system` for
/// `developer`.
pub(crate) fn normalized(messages: Value) -> Result<Value, Fault> {
    let Value::Array(messages) = messages else { return Ok(messages) };
    let messages = messages.into_iter().enumerate().map(|(at, message)| match message {
        Value::Object(message) => normal(at, message).map(Value::Object),
        // The core says what it expects.
        other => Ok(other),
    });
    messages.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn normal(at: usize, mut message: Map<String, Value>) -> Result<Map<String, Value>, Fault> {
    message.retain(|key, value| !(value.is_null() && key != "content"));
    for key in IDLE {
        if message.get(key).is_some_and(|value| value == "" || value.as_array().is_some_and(Vec::is_empty)) {
            message.remove(key);
        }
    }
    if message.get("role").is_some_and(|role| role == "developer") {
        message.insert("role".into(), "system".into());
    }
    if let Some(Value::Array(parts)) = message.get("content") {
        let text = text_of(&format!("messages[{at}].content"), parts)?;
        message.insert("content".into(), text.into());
    }
    // Clients send back what they got under both names.
    if message.contains_key("reasoning") && message.contains_key("reasoning_content") {
        message.remove("reasoning");
    }
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        if calls.is_empty() {
            message.remove("tool_calls");
        } else {
            calls.iter_mut().for_each(parse_arguments);
        }
    }
    Ok(message)
}

/// The texts of parts, a line each.
fn text_of(path: &str, parts: &[Value]) -> Result<String, Fault> {
    let texts = parts.iter().enumerate().map(|(at, part)| {
        part_text(part).ok_or_else(|| {
            let expected = r#"a part such as {"type": "text", "text": "Hello"} (models read text only)"#;
            Fault::field(&format!("{path}[{at}]"), expected, part).at("messages")
        })
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The text of a part, if it is one of text.
pub(super) fn part_text(part: &Value) -> Option<&str> {
    if let Value::String(text) = part {
        return Some(text);
    }
    let key = match part.get("type")?.as_str()? {
        "text" | "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        _ => return None,
    };
    part.get(key)?.as_str()
}

/// Makes an object of the arguments of a call, which clients send as text and templates write.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else { return };
    let object = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    if let Some(object) = object {
        *arguments = Value::Object(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_what_templates_read() {
        let messages = json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": null},
            {"role": "assistant", "content": null, "refusal": null, "reasoning": "r", "reasoning_content": "r",
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
            {"role": "assistant", "content": "c", "tool_calls": []},
        ]);
        let expected = json!([
            {"role": "system", "content": "a\nb"},
            {"role": "assistant", "content": null, "reasoning_content": "r",
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "assistant", "content": "c"},
        ]);
        assert_eq!(normalized(messages).expect("normal"), expected);
    }

    #[test]
    fn images_are_refused_by_their_place() {
        let messages =
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
        let fault = normalized(messages).expect_err("refused");
        assert!(fault.message.contains("messages[0].content[0]"), "{}", fault.message);
    }
}
