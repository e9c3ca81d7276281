//! The normal form of arguments: JSON without spaces, keys in the order in which they were written.
//!
//! It can be made of a text from its beginning on, which the previews of calls need. So a key that was written twice is there
//! twice: readers of JSON take the last of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A JSON value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// Neither a list nor an object.
    Simple(Value),
    List(Vec<Tree>),
    /// With the keys that came twice.
    Object(Vec<(String, Tree)>),
}

impl Tree {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Tree::Simple(value) => value.as_str(),
            _ => None,
        }
    }
}

/// In normal form.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = |f: &mut fmt::Formatter<'_>, at: usize| if at > 0 { f.write_str(",") } else { Ok(()) };
        match self {
            Tree::Simple(value) => write!(f, "{value}"),
            Tree::List(list) => {
                f.write_str("[")?;
                for (at, value) in list.iter().enumerate() {
                    comma(f, at)?;
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
            Tree::Object(members) => {
                f.write_str("{")?;
                for (at, (key, value)) in members.iter().enumerate() {
                    comma(f, at)?;
                    write!(f, "{}:{value}", Value::from(key.as_str()))?;
                }
                f.write_str("}")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfTree)
    }
}

struct OfTree;

impl<'de> Visitor<'de> for OfTree {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Simple(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Simple(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Simple(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Simple(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Simple(value.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Simple(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = entries.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Object(members))
    }
}

/// Arguments that are read one by one.
#[derive(Debug, Clone, Default)]
pub(super) struct Members(String);

impl Members {
    /// Adds an argument.
    pub(super) fn insert(&mut self, key: &str, value: &Value) {
        let text = member(self.0.is_empty(), key, value);
        self.0.push_str(&text);
    }

    /// All of them as an object in normal form.
    pub(super) fn object(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// An argument in an object, with the comma before it.
pub(super) fn member(first: bool, key: &str, value: &Value) -> String {
    let comma = if first { "" } else { "," };
    format!("{comma}{}:{value}", Value::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_come_as_often_as_they_were_written() {
        let text = " {\"b\": [1, -2, 1.50, 1e2, true, null, \"\\u00fc\\/\\n\"], \"a\": {}, \"b\": {\"x\": 1, \"x\": 2}} ";
        let tree: Tree = serde_json::from_str(text).unwrap();
        let normal = "{\"b\":[1,-2,1.5,100.0,true,null,\"ü/\\n\"],\"a\":{},\"b\":{\"x\":1,\"x\":2}}";
        assert_eq!(tree.to_string(), normal);
        let mut members = Members::default();
        members.insert("a\"", &serde_json::json!([1]));
        members.insert("b", &Value::Null);
        assert_eq!(members.object(), "{\"a\\\"\":[1],\"b\":null}");
        assert_eq!(Members::default().object(), "{}");
    }
}
