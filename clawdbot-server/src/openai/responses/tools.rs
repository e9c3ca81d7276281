//! Functions that may be called, and the choice among them.

use serde_json::{Map, Value, json};

use crate::fault::Fault;
use crate::keyed::{Keys, text};
use crate::settings::Fields;

/// What may be called.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tools {
    functions: Vec<Function>,
    /// The only names that may be called, if a choice says so.
    allowed: Option<Vec<String>>,
}

/// A function.
#[derive(Debug, Clone, PartialEq)]
struct Function {
    name: String,
    description: Option<Value>,
    parameters: Option<Value>,
    /// None if the request does not say it.
    strict: Option<bool>,
}

impl Tools {
    /// Reads the field `tools`.
    pub(super) fn read(tools: &[Value], keys: &mut Keys<'_>) -> Result<Self, Fault> {
        let mut read = Tools::default();
        for (at, tool) in tools.iter().enumerate() {
            let path = format!("tools[{at}]");
            let object = tool.as_object().ok_or_else(|| Fault::field(&path, "an object", tool))?;
            let kind = text(&path, object, "type")?;
            if kind != "function" {
                if keys.policy == Fields::Lenient {
                    keys.idle(&format!("{path}.{kind}"));
                    continue;
                }
                let expected = "function (tools of OpenAI's own servers are not here)";
                return Err(Fault::field(&format!("{path}.type"), expected, &kind.into()));
            }
            read.functions.push(Function::read(&path, object, keys)?);
        }
        Ok(read)
    }

    /// Reads the field `tool_choice`: what it says to the core.
    pub(super) fn choice(&mut self, choice: &Value) -> Result<String, Fault> {
        let wrong = || {
            let expected = r#"auto, none, required, {"type": "function", "name": NAME} or {"type": "allowed_tools", "mode": MODE, "tools": LIST}"#;
            Fault::field("tool_choice", expected, choice)
        };
        if let Value::String(word) = choice {
            return Ok(word.clone());
        }
        let name = |of: &Value| {
            let function = of.get("type").is_some_and(|kind| kind == "function");
            of.get("name").and_then(Value::as_str).filter(|_| function).map(str::to_owned)
        };
        if let Some(name) = name(choice) {
            return Ok(name);
        }
        let get = |key| choice.get(key);
        let (Some("allowed_tools"), Some(mode @ ("auto" | "required")), Some(list)) = (
            get("type").and_then(Value::as_str),
            get("mode").and_then(Value::as_str),
            get("tools").and_then(Value::as_array),
        ) else {
            return Err(wrong());
        };
        let allowed: Vec<String> = list.iter().map(name).collect::<Option<_>>().ok_or_else(wrong)?;
        if let Some(other) = allowed.iter().find(|name| !self.functions.iter().any(|one| one.name == **name))
        {
            let message = format!("field tool_choice.tools: expected names of tools, found {other:?}");
            return Err(Fault::invalid(message).at("tool_choice.tools"));
        }
        self.allowed = Some(allowed);
        Ok(mode.to_owned())
    }

    /// Whether a function is enforced only because the request does not say that it is not.
    pub(super) fn are_strict_by_default(&self) -> bool {
        self.offered().any(|function| function.strict.is_none())
    }

    fn offered(&self) -> impl Iterator<Item = &Function> {
        let allowed =
            |name: &String| self.allowed.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == name));
        self.functions.iter().filter(move |function| allowed(&function.name))
    }

    /// The functions for the chat template and the core; `default` is `strict` of those that do not say it. Those that are not
    /// allowed are not shown.
    pub(super) fn for_chat(&self, default: bool) -> Option<Value> {
        let functions: Vec<Value> = self.offered().map(|function| function.for_chat(default)).collect();
        (!functions.is_empty()).then_some(functions.into())
    }

    /// The functions as the response repeats them.
    pub(super) fn json(&self, default: bool) -> Value {
        self.functions.iter().map(|function| function.json(default)).collect()
    }
}

impl Function {
    fn read(path: &str, object: &Map<String, Value>, keys: &mut Keys<'_>) -> Result<Self, Fault> {
        let read = ["type", "name", "description", "parameters", "strict"];
        let mut object = keys.of(path, object, &read, &[])?;
        let name = text(path, &object, "name")?.to_owned();
        let description = object.remove("description");
        if let Some(wrong) = description.as_ref().filter(|description| !description.is_string()) {
            return Err(Fault::field(&format!("{path}.description"), "a text", wrong));
        }
        let strict = object.remove("strict");
        let strict = strict.map(|strict| {
            let wrong = || Fault::field(&format!("{path}.strict"), "true or false", &strict);
            strict.as_bool().ok_or_else(wrong)
        });
        Ok(Function {
            name,
            description,
            parameters: object.remove("parameters"),
            strict: strict.transpose()?,
        })
    }

    fn for_chat(&self, default: bool) -> Value {
        let mut function = json!({"name": self.name});
        if let Some(description) = &self.description {
            function["description"] = description.clone();
        }
        if let Some(parameters) = &self.parameters {
            function["parameters"] = parameters.clone();
        }
        if self.strict.unwrap_or(default) {
            function["strict"] = true.into();
        }
        json!({"type": "function", "function": function})
    }

    fn json(&self, default: bool) -> Value {
        json!({
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict.unwrap_or(default),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Ignored;

    fn read(tools: Value, policy: Fields) -> Result<(Tools, Ignored), Fault> {
        let mut ignored = Ignored::default();
        let mut keys = Keys { policy, ignored: &mut ignored };
        let tools = Tools::read(tools.as_array().expect("a list"), &mut keys)?;
        Ok((tools, ignored))
    }

    #[test]
    fn functions_are_strict_unless_they_say_otherwise() {
        let schema = json!({"type": "object", "properties": {}});
        let tools = json!([
            {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": null},
            {"type": "function", "name": "g", "strict": false},
        ]);
        let (tools, _) = read(tools, Fields::Known).expect("tools");
        assert!(tools.are_strict_by_default());
        let strict = tools.for_chat(true).expect("some");
        let first = json!({"name": "f", "description": "d", "parameters": schema, "strict": true});
        assert_eq!(strict[0], json!({"type": "function", "function": first}));
        assert_eq!(strict[1], json!({"type": "function", "function": {"name": "g"}}));
        assert!(tools.for_chat(false).expect("some")[0]["function"].get("strict").is_none());
        assert_eq!(
            (&tools.json(true)[0]["strict"], &tools.json(true)[1]["strict"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(Tools::default().for_chat(true), None);
    }

    #[test]
    fn choices_name_functions() {
        let tools = json!([{"type": "function", "name": "f"}, {"type": "function", "name": "g"}]);
        let (mut tools, _) = read(tools, Fields::Known).expect("tools");
        assert_eq!(tools.choice(&json!("required")).expect("a word"), "required");
        assert_eq!(tools.choice(&json!({"type": "function", "name": "g"})).expect("a name"), "g");
        for wrong in [
            json!({"type": "web_search"}),
            json!({"type": "function"}),
            json!(1),
            json!({"type": "allowed_tools", "mode": "none", "tools": []}),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "h"}]}),
        ] {
            let fault = tools.choice(&wrong).expect_err("refused");
            assert!(
                fault.param.as_deref().is_some_and(|param| param.starts_with("tool_choice")),
                "{fault:?}"
            );
        }
        let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]});
        assert_eq!(tools.choice(&allowed).expect("a mode"), "required");
        assert_eq!(tools.for_chat(false).expect("one").as_array().map(Vec::len), Some(1));
        assert_eq!(tools.json(false).as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn other_tools_are_refused_by_name() {
        let tools = json!([{"type": "web_search"}]);
        let fault = read(tools.clone(), Fields::Known).expect_err("refused");
        assert!(fault.message.contains("web_search") && fault.param.as_deref() == Some("tools[0].type"));
        let (lenient, ignored) = read(tools, Fields::Lenient).expect("ignored");
        assert_eq!(lenient, Tools::default());
        let mut named = Ignored::default();
        named.add("tools[0].web_search");
        assert_eq!(ignored, named);
        for (wrong, param) in [
            (json!([1]), "tools[0]"),
            (json!([{"type": "function"}]), "tools[0].name"),
            (json!([{"type": "function", "name": "f", "strict": 1}]), "tools[0].strict"),
            (json!([{"type": "function", "name": "f", "x": 1}]), "tools[0].x"),
        ] {
            assert_eq!(read(wrong, Fields::Known).expect_err("refused").param.as_deref(), Some(param));
        }
    }
}
