//! Keys of objects within a request: read, known to change nothing, or refused, as its fields are.

use serde_json::{Map, Value};

use crate::body::Ignored;
use crate::fault::Fault;
use crate::settings::Fields;

/// What happens to keys, and which changed nothing.
pub(crate) struct Keys<'a> {
    pub(crate) policy: Fields,
    pub(crate) ignored: &'a mut Ignored,
}

impl Keys<'_> {
    /// The keys `read` of the object at `path`. What is null is not there. Those of `idle` are known to change nothing.
    pub(crate) fn of(
        &mut self,
        path: &str,
        object: &Map<String, Value>,
        read: &[&str],
        idle: &[&str],
    ) -> Result<Map<String, Value>, Fault> {
        let mut found = Map::new();
        for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let known = idle.contains(&key.as_str());
            match read.contains(&key.as_str()) {
                true => {
                    found.insert(key.clone(), value.clone());
                }
                false if known && self.policy != Fields::Strict => self.idle(&format!("{path}.{key}")),
                false if self.policy == Fields::Lenient => self.idle(&format!("{path}.{key}")),
                false => {
                    let expected = read.join(", ");
                    let message = format!("field {path}: expected the keys {expected}; found {key:?}");
                    return Err(Fault::invalid(message).at(format!("{path}.{key}")));
                }
            }
        }
        Ok(found)
    }

    /// Says that what is at `path` changed nothing.
    pub(crate) fn idle(&mut self, path: &str) {
        self.ignored.add(path);
    }
}

/// The text `key` of the object at `path`, which is needed.
pub(crate) fn text<'a>(path: &str, object: &'a Map<String, Value>, key: &str) -> Result<&'a str, Fault> {
    let found = object.get(key).unwrap_or(&Value::Null);
    found.as_str().ok_or_else(|| Fault::field(&format!("{path}.{key}"), "a text", found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_read_or_named_or_refused() {
        let object = json!({"a": 1, "b": 2, "c": null});
        let object = object.as_object().expect("an object");
        let keys = |policy, read: &[&str], idle: &[&str]| {
            let mut ignored = Ignored::default();
            let found = Keys { policy, ignored: &mut ignored }.of("x", object, read, idle);
            found.map(|found| (found.len(), ignored))
        };
        let mut named = Ignored::default();
        named.add("x.b");
        assert_eq!(keys(Fields::Known, &["a"], &["b"]).expect("known"), (1, named.clone()));
        assert_eq!(keys(Fields::Lenient, &["a"], &[]).expect("lenient"), (1, named));
        assert_eq!(keys(Fields::Known, &["a"], &[]).expect_err("refused").param.as_deref(), Some("x.b"));
        assert_eq!(keys(Fields::Strict, &["a"], &["b"]).expect_err("refused").param.as_deref(), Some("x.b"));
        assert_eq!(text("x", object, "a").expect_err("refused").param.as_deref(), Some("x.a"));
    }
}
