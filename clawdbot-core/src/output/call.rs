//! What a parser of output gives: pieces of text, and tool calls.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A call of a function that the model asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// Its number among the calls of the answer, from 0.
    pub index: usize,
    /// What the model called it, or 9 letters and digits that follow from the call and its place in the conversation.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// The arguments: a JSON object as text.
    pub arguments: String,
}

/// A part of a model's output, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text of the answer.
    Text(String),
    /// Text of the reasoning before it.
    Reasoning(String),
    /// A call that is complete.
    Call(ToolCall),
    /// Something that looked like a call and was none; it is part of the text.
    Warning(String),
}

/// A call as a format reads it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RawCall {
    pub(super) name: String,
    pub(super) arguments: Map<String, Value>,
    /// The id that the model wrote.
    pub(super) id: Option<String>,
}

/// The calls of a block, or why there are none.
pub(super) type Calls = Result<Vec<RawCall>, String>;

impl RawCall {
    /// # Errors
    /// For a name that no function can have.
    pub(super) fn new(name: &str, arguments: Map<String, Value>) -> Result<Self, String> {
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

    /// Call number `index` of an answer to a prompt of `prompt` tokens.
    pub(super) fn finish(self, index: usize, prompt: usize) -> ToolCall {
        let arguments = Value::Object(self.arguments).to_string();
        let id = self.id.unwrap_or_else(|| made_id(prompt, index, &self.name, &arguments));
        ToolCall { index, id, name: self.name, arguments }
    }
}

/// Most bytes of the name of a function, and of an id.
const MAX_NAME: usize = 256;
/// Letters and digits of an id: as many as Mistral's templates want.
const ID_LENGTH: usize = 9;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>) of where the call stands and what it says: equal runs give equal ids,
/// and the turns of a conversation have prompts of different lengths.
fn made_id(prompt: usize, index: usize, name: &str, arguments: &str) -> String {
    let numbers = [prompt as u64, index as u64].map(u64::to_le_bytes);
    let bytes = numbers.iter().flatten().chain(name.as_bytes()).chain(arguments.as_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
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
        let call = |index, prompt| RawCall::new("f", Map::new()).unwrap().finish(index, prompt);
        assert_eq!(call(0, 5), call(0, 5));
        let ids = [call(0, 5).id, call(1, 5).id, call(0, 6).id];
        assert!(ids.iter().all(|id| id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric())));
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        let named = RawCall::new(" f ", Map::new()).unwrap().with_id(Some("functions.f:0"));
        assert_eq!(named.finish(0, 5).id, "functions.f:0");
    }

    #[test]
    fn names_are_names() {
        for bad in ["", " ", "a b", "{", "f\n", &"f".repeat(257)] {
            let found = RawCall::new(bad, Map::new());
            assert!(bad == "f\n" || found.is_err(), "{bad:?}");
        }
    }
}
