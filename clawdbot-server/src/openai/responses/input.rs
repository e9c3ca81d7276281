//! The items of a request.

use std::collections::HashMap;

use clawdbot_core::{Error, ErrorKind};
use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::keyed::{Keys, text};
use crate::openai::messages::part_text;
use crate::store::Shelf;

/// Letters of a response's id that its items have in theirs.
const STEM: usize = 24;

/// A kind of item.
struct Kind {
    name: &'static str,
    /// What its id begins with.
    prefix: &'static str,
    keys: &'static [&'static str],
    /// Keys that say nothing to a model. Clients send back what they got.
    silent: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "message",
        prefix: "msg_",
        keys: &["type", "role", "content"],
        silent: &["id", "status", "phase"],
    },
    Kind {
        name: "function_call",
        prefix: "fc_",
        keys: &["type", "call_id", "name", "arguments"],
        silent: &["id", "status", "created_by"],
    },
    Kind {
        name: "function_call_output",
        prefix: "fco_",
        keys: &["type", "call_id", "output"],
        silent: &["id", "status", "name", "created_by"],
    },
    Kind {
        name: "reasoning",
        prefix: "rs_",
        keys: &["type", "summary", "content", "encrypted_content"],
        silent: &["id", "status"],
    },
];

/// Reads items, and looks up those that they refer to.
pub(super) struct Input<'a> {
    pub(super) store: Shelf<'a>,
    /// The response that the items belong to.
    pub(super) id: &'a str,
    /// How many bytes more may come from the store.
    pub(super) left: usize,
}

/// The part of a response's id that the ids of its items have.
pub(super) fn stem(id: &str) -> &str {
    id.split_once('_').map_or(id, |(_, stem)| stem)
}

impl Input<'_> {
    /// The items of the responses that `previous` follows, and of itself.
    pub(super) fn chain(&mut self, previous: &str) -> Result<Vec<Value>, Fault> {
        let mut items = Vec::new();
        for entry in self.store.chain(previous)? {
            self.take("previous_response_id", entry.bytes())?;
            items.append(&mut list(serde_json::from_str(&entry.input)));
            items.append(&mut output(&entry.response));
        }
        Ok(items)
    }

    /// The field `input`: items in the form in which they are kept, with references replaced.
    pub(super) fn read(&mut self, input: &Value, keys: &mut Keys<'_>) -> Result<Vec<Value>, Fault> {
        let list = match input {
            Value::String(text) => vec![json!({"role": "user", "content": text})],
            Value::Array(list) if !list.is_empty() => list.clone(),
            _ => return Err(Fault::field("input", "a text or a list of items", input)),
        };
        let mut looked_up = HashMap::new();
        let read = list.iter().enumerate().map(|(at, item)| self.item(at, item, keys, &mut looked_up));
        read.collect()
    }

    fn take(&mut self, field: &str, bytes: usize) -> Result<(), Fault> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| {
            let message =
                format!("field {field}: expected a conversation that is no longer than a request may be");
            Fault::invalid(message).at(field)
        })?;
        Ok(())
    }

    fn item(
        &mut self,
        at: usize,
        item: &Value,
        keys: &mut Keys<'_>,
        looked_up: &mut HashMap<String, Vec<Value>>,
    ) -> Result<Value, Fault> {
        let path = format!("input[{at}]");
        let object = item.as_object().ok_or_else(|| Fault::field(&path, "an item", item))?;
        let named = match object.get("type").unwrap_or(&Value::Null) {
            Value::Null if object.contains_key("role") => "message",
            Value::Null if object.contains_key("id") => "item_reference",
            _ => text(&path, object, "type")?,
        };
        if named == "item_reference" {
            return self.referred(&path, text(&path, object, "id")?, looked_up);
        }
        let Some(kind) = KINDS.iter().find(|kind| kind.name == named) else {
            let expected = "message, function_call, function_call_output, reasoning or item_reference";
            return Err(Fault::field(&format!("{path}.type"), expected, &named.into()));
        };
        let mut object = object.clone();
        object.retain(|key, _| !kind.silent.contains(&key.as_str()));
        let object = keys.of(&path, &object, kind.keys, &[])?;
        let id = format!("{}{}i{at:05}", kind.prefix, stem(self.id));
        match kind.name {
            "message" => message(&path, &id, &object),
            "reasoning" => reasoning(&path, &id, &object),
            "function_call" => Ok(json!({
                "id": id, "type": kind.name, "status": "completed", "call_id": text(&path, &object, "call_id")?,
                "name": text(&path, &object, "name")?, "arguments": text(&path, &object, "arguments")?,
            })),
            _ => {
                let found = object.get("output").unwrap_or(&Value::Null);
                let output: Value = match found {
                    Value::String(output) => output.as_str().into(),
                    Value::Array(parts) => texts(&format!("{path}.output"), parts, "input_text")?.into(),
                    _ => {
                        return Err(Fault::field(
                            &format!("{path}.output"),
                            "a text or a list of texts",
                            found,
                        ));
                    }
                };
                let call_id = text(&path, &object, "call_id")?;
                Ok(
                    json!({"id": id, "type": kind.name, "status": "completed", "call_id": call_id, "output": output}),
                )
            }
        }
    }

    /// The item that has this id, of a response that is stored.
    fn referred(
        &mut self,
        path: &str,
        id: &str,
        looked_up: &mut HashMap<String, Vec<Value>>,
    ) -> Result<Value, Fault> {
        let missing = || {
            let message = format!(
                "field {path}.id: expected an item of a response that is stored, found {id:?} (send the item itself)"
            );
            Fault::from(Error::new(ErrorKind::NotFound, message))
                .at(format!("{path}.id"))
                .coded("item_not_found")
        };
        let response = stem(id).get(..STEM).map(|stem| format!("resp_{stem}")).ok_or_else(missing)?;
        if !looked_up.contains_key(&response) {
            let entry = self.store.get(&response).ok_or_else(missing)?;
            self.take(path, entry.bytes())?;
            let mut items = output(&entry.response);
            items.append(&mut list(serde_json::from_str(&entry.input)));
            looked_up.insert(response.clone(), items);
        }
        let items = looked_up.get(&response).map(Vec::as_slice).unwrap_or_default();
        let found = items.iter().find(|item| item["id"] == id).ok_or_else(missing)?;
        self.take(path, found.to_string().len())?;
        Ok(found.clone())
    }
}

/// What the store has was written here: it can be read.
fn list(read: serde_json::Result<Vec<Value>>) -> Vec<Value> {
    read.unwrap_or_default()
}

/// The items of a response that is stored.
fn output(response: &str) -> Vec<Value> {
    let mut response: Value = serde_json::from_str(response).unwrap_or_default();
    match response["output"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// Parts with texts alone, all of one kind.
fn texts(path: &str, parts: &[Value], kind: &str) -> Result<Vec<Value>, Fault> {
    let part = |(at, part): (usize, &Value)| {
        let expected = r#"a part such as {"type": "input_text", "text": "Hello"} (models read text only)"#;
        let text = part_text(part).ok_or_else(|| Fault::field(&format!("{path}[{at}]"), expected, part))?;
        Ok(match kind {
            "output_text" => json!({"type": kind, "text": text, "annotations": [], "logprobs": []}),
            _ => json!({"type": kind, "text": text}),
        })
    };
    parts.iter().enumerate().map(part).collect()
}

fn message(path: &str, id: &str, object: &Map<String, Value>) -> Result<Value, Fault> {
    let role = text(path, object, "role")?;
    if !matches!(role, "user" | "assistant" | "system" | "developer") {
        let expected = "user, assistant, system or developer";
        return Err(Fault::field(&format!("{path}.role"), expected, &role.into()));
    }
    let kind = if role == "assistant" { "output_text" } else { "input_text" };
    let path = format!("{path}.content");
    let content = match object.get("content").unwrap_or(&Value::Null) {
        one @ Value::String(_) => texts(&path, std::slice::from_ref(one), kind)?,
        Value::Array(parts) => texts(&path, parts, kind)?,
        other => return Err(Fault::field(&path, "a text or a list of texts", other)),
    };
    Ok(json!({"id": id, "type": "message", "status": "completed", "role": role, "content": content}))
}

/// Reasoning of an earlier answer. Clients that have a summary alone send that.
fn reasoning(path: &str, id: &str, object: &Map<String, Value>) -> Result<Value, Fault> {
    let parts = |key: &str, kind: &str| {
        let path = format!("{path}.{key}");
        let found = object.get(key).unwrap_or(&Value::Null);
        let parts = match found {
            Value::Null => &[],
            Value::Array(parts) => parts.as_slice(),
            _ => return Err(Fault::field(&path, "a list of texts", found)),
        };
        let part = |(at, part): (usize, &Value)| match (part.get("type"), part.get("text")) {
            (Some(Value::String(name)), Some(text @ Value::String(_))) if name == kind => {
                Ok(json!({"type": kind, "text": text}))
            }
            _ => Err(Fault::field(
                &format!("{path}[{at}]"),
                &format!("a part of type {kind} with a text"),
                part,
            )),
        };
        parts.iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()
    };
    let (summary, content) = (parts("summary", "summary_text")?, parts("content", "reasoning_text")?);
    if let (true, true, Some(found)) =
        (summary.is_empty(), content.is_empty(), object.get("encrypted_content"))
    {
        let expected = "none without content, as it is another server's";
        return Err(Fault::field(&format!("{path}.encrypted_content"), expected, found));
    }
    Ok(json!({"id": id, "type": "reasoning", "summary": summary, "content": content}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Ignored;
    use crate::settings::Fields;
    use crate::store::{Entry, Store};

    const ID: &str = "resp_0123456789abcdef01234567";

    fn read_from(store: Shelf<'_>, left: usize, input: &Value) -> Result<Vec<Value>, Fault> {
        let mut ignored = Ignored::default();
        let mut keys = Keys { policy: Fields::Known, ignored: &mut ignored };
        Input { store, id: "resp_a", left }.read(input, &mut keys)
    }

    fn read(input: &Value) -> Result<Vec<Value>, Fault> {
        read_from(Store::new(0, 0).of(""), 0, input)
    }

    #[test]
    fn items_have_one_form() {
        let items = read(&json!([
            {"role": "developer", "content": "a"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "phase": "final_answer",
             "content": [{"type": "output_text", "text": "b", "annotations": [], "logprobs": []}, {"type": "refusal", "refusal": "c"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null,
             "content": [{"type": "reasoning_text", "text": "d"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "x", "name": "f", "arguments": "{}", "status": "completed"},
            {"type": "function_call_output", "call_id": "x", "output": [{"type": "input_text", "text": "e"}]},
        ]));
        let items = items.expect("items");
        let ids: Vec<&str> = items.iter().map(|item| item["id"].as_str().expect("an id")).collect();
        assert_eq!(ids, ["msg_ai00000", "msg_ai00001", "rs_ai00002", "fc_ai00003", "fco_ai00004"]);
        assert_eq!(items[0]["content"], json!([{"type": "input_text", "text": "a"}]));
        assert_eq!(items[1]["content"][1]["text"], "c");
        assert_eq!(items[2]["content"][0]["text"], "d");
        assert_eq!(items[4]["output"][0]["text"], "e");
        let text = read(&json!("hi")).expect("a text");
        assert_eq!((&text[0]["role"], &text[0]["content"][0]["text"]), (&json!("user"), &json!("hi")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (item, param) in [
            (json!(1), "input[0]"),
            (json!({"type": "web_search_call", "id": "ws_1"}), "input[0].type"),
            (json!({"type": 1}), "input[0].type"),
            (json!({"role": "tool", "content": "a"}), "input[0].role"),
            (json!({"role": "user"}), "input[0].content"),
            (json!({"role": "user", "content": "a", "name": "b"}), "input[0].name"),
            (
                json!({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}),
                "input[0].content[0]",
            ),
            (json!({"type": "function_call", "call_id": "x", "name": "f"}), "input[0].arguments"),
            (json!({"type": "function_call_output", "call_id": "x", "output": 1}), "input[0].output"),
            (
                json!({"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}),
                "input[0].encrypted_content",
            ),
            (json!({"type": "reasoning", "summary": ["a"]}), "input[0].summary[0]"),
            (json!({"type": "item_reference", "id": "msg_1"}), "input[0].id"),
        ] {
            let fault = read(&json!([item])).expect_err("refused");
            assert_eq!(fault.param.as_deref(), Some(param), "{}", fault.message);
        }
        assert!(read(&json!([])).is_err() && read(&json!({})).is_err());
    }

    #[test]
    fn references_are_looked_up_within_bounds() {
        let store = Store::new(9, usize::MAX);
        let store = store.of("");
        let item = json!({"id": format!("msg_{}0001", stem(ID)), "type": "message", "role": "assistant", "content": []});
        let response = json!({"output": [item]}).to_string();
        store.put(ID, Entry { response: response.into(), input: "[]".into(), previous: None });
        // Without a type, too.
        let twice = json!([{"type": "item_reference", "id": item["id"]}, {"id": item["id"]}]);
        assert_eq!(read_from(store, 4000, &twice).expect("two"), [item.clone(), item.clone()]);
        let fault = read_from(store, 100, &twice).expect_err("too long");
        assert!(fault.message.contains("no longer than"), "{}", fault.message);
        let many: Vec<Value> = (0..100).map(|_| json!({"id": item["id"]})).collect();
        assert!(read_from(store, 4000, &many.into()).is_err());
        for id in [
            format!("msg_{}0002", stem(ID)),
            "msg_".into(),
            "x".into(),
            "msg_ääääääääääääääääääääääääää".into(),
        ] {
            let fault =
                read_from(store, 4000, &json!([{"type": "item_reference", "id": id}])).expect_err("none");
            assert_eq!((fault.code, fault.status.as_u16()), (Some("item_not_found"), 404));
        }
    }
}
