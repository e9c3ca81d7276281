//! What a parser of output gives: pieces of text, and tool calls.

use serde::{Deserialize, Serialize};

/// A call of a function that the model asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// Its number among the calls of the answer, from 0. Numbers of deltas that no call followed are left out.
    pub index: usize,
    /// What the model called it before the arguments, or 9 letters and digits that follow from its place in the conversation, its
    /// index and its name.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// The arguments: a JSON object as text, without spaces, with the keys in the order in which the model wrote them.
    pub arguments: String,
}

/// A part of a tool call that became certain while the model writes it. The arguments of a call's deltas, in their order, are those
/// of the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCallDelta {
    /// Index of the call.
    pub index: usize,
    /// Id of the call, in its first delta.
    pub id: Option<String>,
    /// Name of the function, in the first delta.
    pub name: Option<String>,
    /// The text of the arguments that became certain.
    pub arguments: String,
}

/// A part of a model's output, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text of the answer.
    Text(String),
    /// Text of the reasoning before it.
    Reasoning(String),
    /// A part of a call that is not complete. If no call with its index follows, it was none.
    Delta(ToolCallDelta),
    /// A call that is complete.
    Call(ToolCall),
    /// Something that looked like a call and was none; it is part of the text.
    Warning(String),
}

/// A call as a format reads it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RawCall {
    pub(super) name: String,
    /// In normal form ([`super::normal`]).
    pub(super) arguments: String,
    /// The id that the model wrote.
    pub(super) id: Option<String>,
}

/// The calls of a block, or why there are none.
pub(super) type Calls = Result<Vec<RawCall>, String>;

impl RawCall {
    /// # Errors
    /// For a name that no function can have.
    pub(super) fn new(name: &str, arguments: String) -> Result<Self, String> {
        let name = name.trim();
        let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(valid) {
            let shown: String = name.chars().take(40).collect();
            return Err(format!("expected the name of a function, found {shown:?}"));
        }
        Ok(RawCall { name: name.to_owned(), arguments, id: None })
    }

    /// With `id`, if it is one.
    pub(super) fn with_id(mut self, id: Option<&str>) -> Self {
        self.id = id.map(str::trim).filter(|id| !id.is_empty() && id.len() <= MAX_NAME).map(str::to_owned);
        self
    }

    /// Call number `index` of the answer at `place`.
    pub(super) fn finish(self, index: usize, place: u64) -> ToolCall {
        let id = self.id.unwrap_or_else(|| made_id(place, index, &self.name));
        ToolCall { index, id, name: self.name, arguments: self.arguments }
    }
}

/// What became certain of a call in a block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Certain {
    /// Number of the call in the block.
    pub(super) number: usize,
    /// Name and id, where the call begins.
    pub(super) named: Option<(String, Option<String>)>,
    /// Text of the arguments.
    pub(super) arguments: String,
}

impl Certain {
    /// The beginning of a call.
    pub(super) fn named(number: usize, name: String, id: Option<String>) -> Self {
        Certain { number, named: Some((name, id)), arguments: String::new() }
    }

    /// More of a call.
    pub(super) fn more(number: usize) -> Self {
        Certain { number, named: None, arguments: String::new() }
    }

    /// The delta of this, in the answer at `place` with `before` calls before the block.
    pub(super) fn delta(self, before: usize, place: u64) -> ToolCallDelta {
        let index = before + self.number;
        let (name, id) = self.named.unzip();
        let id =
            id.map(|id| id.unwrap_or_else(|| made_id(place, index, name.as_deref().unwrap_or_default())));
        ToolCallDelta { index, id, name, arguments: self.arguments }
    }
}

/// Most bytes of the name of a function, and of an id.
const MAX_NAME: usize = 256;
/// Letters and digits of an id: as many as Mistral's templates want.
const ID_LENGTH: usize = 9;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>).
fn hash<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The place of an answer: after these tokens. The turns of a conversation have different ones.
pub(crate) fn place_after(prompt: &[u32]) -> u64 {
    let tokens: Vec<[u8; 4]> = prompt.iter().map(|id| id.to_le_bytes()).collect();
    hash(tokens.iter().flatten())
}

/// An id that is known when the arguments begin. Equal runs give equal ids.
fn made_id(place: u64, index: usize, name: &str) -> String {
    let numbers = [place, index as u64].map(u64::to_le_bytes);
    let mut hash = hash(numbers.iter().flatten().chain(name.as_bytes()));
    let digit = || {
        let digit = ALPHABET[(hash % 62) as usize];
        hash /= 62;
        char::from(digit)
    };
    std::iter::repeat_with(digit).take(ID_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_by_place_and_are_the_same_again() {
        let call = |index, place| RawCall::new("f", "{}".to_owned()).unwrap().finish(index, place);
        assert_eq!(call(0, 5), call(0, 5));
        let ids = [call(0, 5).id, call(1, 5).id, call(0, 6).id];
        assert_ne!(place_after(&[1, 2]), place_after(&[2, 1]));
        let delta = |named: Option<&str>| {
            let named = named.map(|name| (name.to_owned(), None));
            Certain { number: 1, named, arguments: "{".to_owned() }.delta(2, 5)
        };
        let first = delta(Some("f"));
        assert_eq!((first.index, first.id, first.name.as_deref()), (3, Some(call(3, 5).id), Some("f")));
        assert_eq!((delta(None).id, delta(None).name), (None, None));
        assert!(ids.iter().all(|id| id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric())));
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        let named = RawCall::new(" f ", "{}".to_owned()).unwrap().with_id(Some("functions.f:0"));
        assert_eq!(named.finish(0, 5).id, "functions.f:0");
    }

    #[test]
    fn names_are_names() {
        for bad in ["", " ", "a b", "{", "f\n", &"f".repeat(257)] {
            let found = RawCall::new(bad, "{}".to_owned());
            assert!(bad == "f\n" || found.is_err(), "{bad:?}");
        }
    }
}
