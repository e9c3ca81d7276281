//! Fields of requests, as tables: which are read, and which are known to change nothing.

use serde_json::Value;

/// A field of a request's body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) effect: Effect,
}

/// What a field does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is read.
    Read,
    /// It says nothing about the answer.
    None,
}

/// What a field's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Whole,
    Text,
    List,
    Object,
    Any,
}

impl Kind {
    /// What errors say that was expected.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Whole => "a whole number, 0 or more",
            Kind::Text => "a text",
            Kind::List => "a list",
            Kind::Object => "an object",
            Kind::Any => "a value",
        }
    }

    pub(crate) fn has(self, value: &Value) -> bool {
        match self {
            Kind::Bool => value.is_boolean(),
            Kind::Whole => value.is_u64(),
            Kind::Text => value.is_string(),
            Kind::List => value.is_array(),
            Kind::Object => value.is_object(),
            Kind::Any => true,
        }
    }
}

/// A field that is read.
pub(crate) const fn read(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, effect: Effect::Read }
}

/// A field that says nothing about the answer.
pub(crate) const fn idle(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, effect: Effect::None }
}

/// What OpenAI's clients send along.
pub(crate) const OPENAI_IDLE: &[Field] = &[
    idle("store", Kind::Bool),
    idle("metadata", Kind::Object),
    idle("user", Kind::Text),
    idle("service_tier", Kind::Text),
    idle("prompt_cache_key", Kind::Text),
    idle("prompt_cache_retention", Kind::Text),
    idle("safety_identifier", Kind::Text),
];
