//! What is to be answered: texts, token ids, or a conversation.

use clawdbot_core::{
    AddGenerationPrompt, CancelHandle, Chat, Completion, Error, ErrorKind, GenerateOptions, Model, Prompt,
    Stream,
};
use serde_json::Value;

use crate::fault::Fault;

/// Most prompts of a request.
const MAX_PROMPTS: usize = 2048;

/// What is to be answered.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Prompt(Prompt),
    Chat(Chat),
}

impl Ask {
    /// Begins the answer, event by event.
    pub(crate) fn stream(&self, model: &Model, options: &GenerateOptions) -> Result<Stream, Error> {
        match self {
            Ask::Prompt(prompt) => model.stream(prompt.clone(), options),
            Ask::Chat(chat) => model.chat_stream(chat, options),
        }
    }

    /// Begins the answer, with its completion as the only event.
    pub(crate) fn submit(&self, model: &Model, options: &GenerateOptions) -> Result<Stream, Error> {
        match self {
            Ask::Prompt(prompt) => model.submit(prompt.clone(), options),
            Ask::Chat(chat) => model.chat_submit(chat, options),
        }
    }

    /// Answers on this thread: several completions, or those of a beam search.
    pub(crate) fn complete(
        &self,
        model: &Model,
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<Completion, Error> {
        match self {
            Ask::Prompt(prompt) => model.generate_until(prompt.clone(), options, cancel),
            Ask::Chat(chat) => model.chat_until(chat, options, cancel),
        }
    }

    /// How many tokens it has.
    pub(crate) fn count(&self, model: &Model, cancel: &CancelHandle) -> Result<usize, Error> {
        let text = match self {
            Ask::Prompt(Prompt::Tokens(ids)) => return Ok(ids.len()),
            Ask::Prompt(_) | Ask::Chat(_) => self.text(model)?,
        };
        // A chat template writes its own special tokens.
        let special = matches!(self, Ask::Prompt(_));
        model.tokenizer()?.encode_until(&text, special.into(), cancel).map(|tokens| tokens.len())
    }

    /// Its text, as the model sees it.
    pub(crate) fn text(&self, model: &Model) -> Result<String, Error> {
        match self {
            Ask::Prompt(Prompt::Text(text)) => Ok(text.clone()),
            Ask::Prompt(Prompt::Tokens(ids)) => model.tokenizer()?.decode(ids, false.into()),
            Ask::Prompt(_) => {
                Err(Error::new(ErrorKind::Internal, "a prompt of a kind that the server does not know"))
            }
            Ask::Chat(chat) => model.render_chat(chat, AddGenerationPrompt::Yes),
        }
    }
}

/// The prompts of the field `name`: a text, token ids, or a list of either.
pub(crate) fn prompts(name: &str, value: &Value) -> Result<Vec<Prompt>, Fault> {
    let expected = "a text, a list of token ids, or a list of either";
    let wrong = || Fault::field(name, expected, value);
    let one = |value: &Value| match value {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(_) => ids(value).map(Prompt::Tokens),
        _ => None,
    };
    let Value::Array(list) = value else { return one(value).map(|prompt| vec![prompt]).ok_or_else(wrong) };
    if list.is_empty() {
        return Err(wrong());
    }
    if let Some(ids) = ids(value) {
        return Ok(vec![Prompt::Tokens(ids)]);
    }
    if list.len() > MAX_PROMPTS {
        let message = format!("field {name}: expected at most {MAX_PROMPTS} prompts, found {}", list.len());
        return Err(Fault::invalid(message).at(name));
    }
    list.iter().map(one).collect::<Option<_>>().ok_or_else(wrong)
}

/// A list of token ids.
pub(crate) fn ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prompts_have_four_forms() {
        let text = |text: &str| Prompt::Text(text.into());
        let read = |value: Value| prompts("prompt", &value);
        assert_eq!(read(json!("a")).expect("one"), [text("a")]);
        assert_eq!(read(json!(["a", "b"])).expect("two"), [text("a"), text("b")]);
        assert_eq!(read(json!([1, 2])).expect("one"), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(read(json!([[1], [2]])).expect("two"), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])]);
        for wrong in [json!([]), json!(1), json!([-1]), json!([1, "a"]), json!([[1, 2.5]]), json!({})] {
            assert_eq!(read(wrong).expect_err("refused").param.as_deref(), Some("prompt"));
        }
    }
}
