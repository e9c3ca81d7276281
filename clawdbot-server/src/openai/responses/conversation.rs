//! Items as the messages that chat templates read.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::openai::messages::{normalized, part_text};

/// A message of the assistant, made of items.
#[derive(Default)]
struct Turn<'a> {
    reasoning: Vec<&'a str>,
    text: Option<String>,
    calls: Vec<Value>,
}

impl Turn<'_> {
    /// Ends the message, if it has begun.
    fn end(&mut self, messages: &mut Vec<Value>) {
        let Turn { reasoning, text, calls } = std::mem::take(self);
        if reasoning.is_empty() && text.is_none() && calls.is_empty() {
            return;
        }
        let mut message = json!({"role": "assistant", "content": text.unwrap_or_default()});
        if !reasoning.is_empty() {
            message["reasoning_content"] = reasoning.join("\n").into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        messages.push(message);
    }
}

/// The conversation of `items`, in the form in which they are kept, after `instructions`.
pub(super) fn messages(instructions: Option<&str>, items: &[Value]) -> Result<Value, Fault> {
    let mut messages: Vec<Value> =
        instructions.into_iter().map(|text| json!({"role": "system", "content": text})).collect();
    let (mut turn, mut names) = (Turn::default(), HashMap::new());
    let text = |item: &'_ Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    for item in items {
        match (item["type"].as_str(), item["role"].as_str()) {
            (Some("reasoning"), _) => {
                if turn.text.is_some() || !turn.calls.is_empty() {
                    turn.end(&mut messages);
                }
                let content = parts(&item["content"]);
                let parts = if content.is_empty() { parts(&item["summary"]) } else { content };
                turn.reasoning.extend(parts.iter().filter_map(|part| part["text"].as_str()));
            }
            (Some("message"), Some("assistant")) => {
                if turn.text.is_some() {
                    turn.end(&mut messages);
                }
                turn.text = Some(joined(&item["content"]));
            }
            (Some("function_call"), _) => {
                let (id, name) = (text(item, "call_id"), text(item, "name"));
                names.insert(id.clone(), name.clone());
                let function = json!({"name": name, "arguments": item["arguments"]});
                turn.calls.push(json!({"id": id, "type": "function", "function": function}));
            }
            (Some("function_call_output"), _) => {
                turn.end(&mut messages);
                let id = text(item, "call_id");
                let name = names.get(&id).ok_or_else(|| {
                    let expected = "the call_id of a function_call before it";
                    Fault::field(
                        "input",
                        &format!("a function_call_output with {expected}"),
                        &id.as_str().into(),
                    )
                })?;
                let content = joined(&item["output"]);
                messages.push(json!({"role": "tool", "tool_call_id": id, "name": name, "content": content}));
            }
            _ => {
                turn.end(&mut messages);
                messages.push(json!({"role": item["role"], "content": joined(&item["content"])}));
            }
        }
    }
    turn.end(&mut messages);
    normalized(messages.into())
}

fn parts(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts of parts, a line each, or a text.
fn joined(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        list => parts(list).iter().filter_map(part_text).collect::<Vec<_>>().join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, text: &str) -> Value {
        json!({"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]})
    }

    #[test]
    fn items_of_an_answer_are_one_message() {
        let call =
            |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{\"a\":1}"});
        let output = |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "rain"});
        let items = [
            message("developer", "d"),
            message("user", "u"),
            json!({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "r"}]}),
            message("assistant", "a"),
            call("1"),
            call("2"),
            output("1"),
            output("2"),
            json!({"type": "reasoning", "content": [], "summary": [{"type": "summary_text", "text": "s"}]}),
            call("3"),
            json!({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]}),
            message("assistant", "b"),
            message("assistant", "c"),
        ];
        let called = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": {"a": 1}}});
        let told = |id: &str| json!({"role": "tool", "tool_call_id": id, "name": "f", "content": "rain"});
        let expected = json!([
            {"role": "system", "content": "i"},
            {"role": "system", "content": "d"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": [called("1"), called("2")]},
            told("1"),
            told("2"),
            {"role": "assistant", "content": "", "reasoning_content": "s", "tool_calls": [called("3")]},
            {"role": "assistant", "content": "b", "reasoning_content": "t"},
            {"role": "assistant", "content": "c"},
        ]);
        assert_eq!(messages(Some("i"), &items).expect("messages"), expected);
    }

    #[test]
    fn outputs_need_their_calls() {
        let fault = messages(None, &[json!({"type": "function_call_output", "call_id": "x", "output": "a"})]);
        let fault = fault.expect_err("refused");
        assert!(fault.message.contains("call_id") && fault.message.contains("\"x\""), "{}", fault.message);
    }
}
