//! The body of a request: an object in JSON, of which every field is read, known to change nothing, or refused.

use std::fmt::Write as _;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use clawdbot_core::{Error, ErrorKind, OptionSet, check_option_names};
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::fields::{Effect, Field, Kind};
use crate::settings::Fields;

/// The header of an answer that names the fields that changed nothing.
const IGNORED: HeaderName = HeaderName::from_static("x-clawdbot-ignored");

/// The fields of a request. What is null is not there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body(Map<String, Value>);

/// Fields of a request that changed nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ignored(Vec<String>);

impl Body {
    /// Reads the body of a request whose fields are in `tables`, besides the core's options `T`. Returns it with the fields
    /// that change nothing.
    pub(crate) fn read<T: OptionSet>(
        bytes: &[u8],
        tables: &[&[Field]],
        policy: Fields,
    ) -> Result<(Self, Ignored), Fault> {
        let options: Vec<&str> = T::GROUP.options.iter().map(|option| option.name).collect();
        let parsed: Value = serde_json::from_slice(bytes)
            .map_err(|error| Fault::invalid(format!("body: expected an object in JSON: {error}")))?;
        let Value::Object(mut given) = parsed else {
            return Err(Fault::field("body", "an object", &parsed));
        };
        given.retain(|_, value| !value.is_null());
        let mut ignored = Vec::new();
        let mut unknown = Vec::new();
        let mut fields = Map::new();
        for (name, value) in given {
            let known = tables.iter().flat_map(|table| table.iter()).find(|field| field.name == name);
            match known {
                Some(field) if !field.kind.has(&value) => {
                    return Err(Fault::field(&name, field.kind.expected(), &value));
                }
                Some(Field { effect: Effect::None, .. }) if policy != Fields::Strict => ignored.push(name),
                Some(Field { effect: Effect::None, .. }) => {
                    let message = format!("field {name}: expected none, as it would change nothing");
                    return Err(Fault::invalid(message).at(name));
                }
                Some(_) => {
                    fields.insert(name, value);
                }
                None if options.contains(&name.as_str()) => {
                    fields.insert(name, value);
                }
                None => unknown.push(name),
            }
        }
        if policy == Fields::Lenient {
            ignored.append(&mut unknown);
        }
        if !unknown.is_empty() {
            let names: Vec<&str> =
                tables.iter().flat_map(|table| table.iter()).map(|field| field.name).collect();
            let unknown = unknown.iter().map(String::as_str);
            check_option_names(unknown, &[&names, &options], &[])?;
        }
        Ok((Body(fields), Ignored(ignored)))
    }

    /// The field `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Takes the field `name`.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn typed<T>(
        &mut self,
        name: &str,
        kind: Kind,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| Fault::field(name, kind.expected(), &value))
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.typed(name, Kind::Text, |value| value.as_str().map(str::to_owned))
    }

    /// Takes true or false; without the field, false.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Fault> {
        Ok(self.typed(name, Kind::Bool, Value::as_bool)?.unwrap_or(false))
    }

    /// Takes a whole number.
    pub(crate) fn whole(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        self.typed(name, Kind::Whole, Value::as_u64)
    }

    /// Takes an object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Fault> {
        self.typed(name, Kind::Object, |value| value.as_object().cloned())
    }

    /// Sets an option of the core.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Refuses what is left, where no option of the core has an effect.
    pub(crate) fn end(self) -> Result<(), Fault> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Fault::invalid(format!("field {name}: expected none here")).at(name)),
        }
    }

    /// What is left: options of the core.
    pub(crate) fn options<T: OptionSet>(self) -> Result<T, Fault> {
        Ok(T::from_json(&self.0)?)
    }
}

impl Ignored {
    /// Adds a field.
    pub(crate) fn add(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// Names the fields in a header of `response`.
    pub(crate) fn told_in(&self, mut response: Response) -> Response {
        let mut text = String::new();
        for name in &self.0 {
            let apart = if text.is_empty() { "" } else { ", " };
            // A name may have any characters.
            let name: String = name.chars().filter(char::is_ascii_graphic).take(64).collect();
            let _ = write!(text, "{apart}{name}");
        }
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(&text)) {
            response.headers_mut().insert(IGNORED, value);
        }
        response
    }
}

/// The fault of a field that is needed.
pub(crate) fn missing(name: &str, expected: &str) -> Fault {
    let error =
        Error::new(ErrorKind::InvalidArgument, format!("field {name}: expected {expected}, found none"));
    Fault::from(error).at(name).with_status(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use clawdbot_core::GenerateOptions;

    use super::*;
    use crate::fields::{idle, read};

    const TABLE: &[Field] = &[read("model", Kind::Text), idle("user", Kind::Text)];

    fn body(text: &str, policy: Fields) -> Result<(Body, Ignored), Fault> {
        Body::read::<GenerateOptions>(text.as_bytes(), &[TABLE], policy)
    }

    #[test]
    fn fields_are_read_or_named_or_refused() {
        let text = r#"{"model": "m", "user": "u", "top_k": 3, "stop": null}"#;
        let (mut read, ignored) = body(text, Fields::Known).expect("a body");
        assert_eq!(read.text("model").expect("a text").as_deref(), Some("m"));
        let options: GenerateOptions = read.options().expect("options");
        assert_eq!(options.top_k, Some(3));
        assert_eq!(ignored, Ignored(vec!["user".into()]));
        let response = ignored.told_in(Response::default());
        assert_eq!(response.headers().get(IGNORED).expect("a header"), "user");
        assert_eq!(body(text, Fields::Strict).expect_err("refused").param.as_deref(), Some("user"));

        let unknown = r#"{"temprature": 1}"#;
        let fault = body(unknown, Fields::Known).expect_err("refused");
        assert!(fault.message.contains("temperature"), "{}", fault.message);
        assert_eq!(body(unknown, Fields::Lenient).expect("ignored").1, Ignored(vec!["temprature".into()]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("", "expected an object in JSON"),
            ("[]", "expected an object, found []"),
            (r#"{"model": 1}"#, "field model: expected a text, found 1"),
            (&format!("{}1{}", "[".repeat(1000), "]".repeat(1000)), "recursion limit"),
        ] {
            let fault = body(text, Fields::Known).expect_err("refused");
            assert!(fault.message.contains(expected), "{}", fault.message);
            assert_eq!(fault.status, StatusCode::BAD_REQUEST);
        }
    }
}
