//! Conversations: messages, which the model's chat template renders, and their answers.

use std::time::Instant;

use serde_json::{Map, Value};

use super::alternatives::Alternatives;
use super::beams::Beams;
use super::loaded::Loaded;
use super::model::Model;
use super::reply::Reply;
use super::session::{Delivery, Session, Stream, Wanted, overflow_at_least};
use crate::cancel::CancelHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Completion;
use crate::options::{GenerateOptions, PromptKind, check_names};
use crate::output::{AUTO, NONE, OutputFormats, reasoning_format_of, tool_format_of};
use crate::runtime::LogLevel;
use crate::tokenizer::{AddGenerationPrompt, AddSpecialTokens};

/// A conversation to be answered: its messages, and what the model's chat template is given with them.
///
/// ```
/// use clawdbot_core::{Chat, GenerateOptions, Model};
/// use serde_json::json;
///
/// let model = Model::builtin()?;
/// let chat = Chat::new(json!([{"role": "user", "content": "Tell me a story."}]));
/// let completion = model.chat(&chat, &GenerateOptions::default().max_tokens(20_u32))?;
/// # assert!(!completion.token_ids.is_empty());
/// # Ok::<(), clawdbot_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Chat {
    /// An array of `{"role", "content", ...}`. Roles are `system`, `developer`, `user`, `assistant`, `tool`, and those
    /// that the template names.
    pub messages: Value,
    /// An array of functions that the model may call.
    pub tools: Option<Value>,
    /// Further variables for the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Chat {
    /// A conversation without tools and variables.
    pub fn new(messages: impl Into<Value>) -> Self {
        Chat { messages: messages.into(), ..Chat::default() }
    }

    /// Checks names that were given for options of a call that answers a conversation; `arguments`: what else the
    /// call takes by name, in a language with keyword arguments.
    ///
    /// # Errors
    /// `UnknownOption`, as [`check_option_names`](crate::check_option_names), which says where variables of the template go.
    pub fn check_option_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
        arguments: &[&str],
    ) -> Result<()> {
        let aside = " (variables of the chat template go into `variables`)";
        check_names(names, &[GenerateOptions::NAMES], arguments, aside)
    }

    /// Whether it offers functions.
    pub(crate) fn has_tools(&self) -> bool {
        self.tools.as_ref().and_then(Value::as_array).is_some_and(|tools| !tools.is_empty())
    }

    /// Sets `tools`.
    #[must_use]
    pub fn tools(mut self, tools: impl Into<Option<Value>>) -> Self {
        self.tools = tools.into();
        self
    }

    /// Sets `variables`.
    #[must_use]
    pub fn variables(mut self, variables: Map<String, Value>) -> Self {
        self.variables = variables;
        self
    }
}

impl Loaded {
    /// The conversation as the model's template renders it.
    pub(crate) fn render(&self, chat: &Chat, add_generation_prompt: AddGenerationPrompt) -> Result<String> {
        let missing = || {
            Error::new(
                ErrorKind::MissingTemplate,
                "the model has no chat template: give the prompt as text, or load it with the option chat_template",
            )
        };
        let templates = self.text()?.templates.as_ref().map_err(Error::clone)?;
        let templates = templates.as_ref().ok_or_else(missing)?;
        let Chat { messages, tools, variables } = chat;
        let template = templates.select(tools.as_ref())?;
        let rendered = template.render_checked(messages, tools.as_ref(), add_generation_prompt, variables)?;
        let unused = template.unused(variables);
        if !unused.is_empty() {
            let unused = unused.join(", ");
            self.runtime.log(LogLevel::Warning, || {
                format!("the chat template has no use for the variables that it was given: {unused}")
            });
        }
        Ok(rendered)
    }

    /// Puts the formats of the model's template where `options` leave them open: that of calls if there are tools.
    fn choose_formats(&self, chat: &Chat, options: &mut GenerateOptions) -> Result<()> {
        let Some(templates) = self.text()?.templates.as_ref().map_err(Error::clone)? else { return Ok(()) };
        let source = templates.select(chat.tools.as_ref())?.source();
        if options.tool_choice == NONE {
            options.tool_format = NONE.to_owned();
        }
        if options.tool_format == AUTO {
            options.tool_format = if chat.has_tools() { tool_format_of(source) } else { NONE }.to_owned();
        }
        if options.reasoning_format == AUTO {
            let found = reasoning_format_of(source);
            // Beside calls in another format than the template's, its reasoning may be none.
            let fits = OutputFormats::new(&options.tool_format, found).is_ok();
            options.reasoning_format = if fits { found } else { NONE }.to_owned();
        }
        Ok(())
    }

    /// Tokens of a text prompt after `before` tokens. A beginning-of-sequence token that the text itself begins with, as
    /// a rendered conversation may, is not put there twice. A text that cannot fit into the context is not tokenized.
    pub(crate) fn encode(
        &self,
        text: &str,
        add_special_tokens: AddSpecialTokens,
        before: usize,
        wanted: Wanted,
        cancel: &CancelHandle,
    ) -> Result<Vec<u32>> {
        let tokenizer = &self.text()?.tokenizer;
        let length = before.saturating_add(tokenizer.at_least(text));
        if length > self.max_context {
            return Err(overflow_at_least(length, wanted, self.max_context));
        }
        let _memory = self.reserve_encoding(&[text], cancel)?;
        let mut tokens = tokenizer.encode_until(text, add_special_tokens, cancel)?;
        if add_special_tokens.is_yes()
            && let [first, second, ..] = tokens[..]
            && first == second
            && Some(first) == self.bos
            && tokenizer.id_to_token(first).is_some_and(|bos| text.starts_with(&bos))
        {
            tokens.remove(0);
            self.runtime.log(LogLevel::Info, || {
                "the prompt begins with the beginning-of-sequence token: it is not added once more".to_owned()
            });
        }
        Ok(tokens)
    }

    /// Tokens of a conversation that is to be answered, without its functions if none may be called. The template brings its special tokens, unless options ask for more.
    pub(crate) fn encode_chat(
        &self,
        chat: &Chat,
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<Vec<u32>> {
        let add_special_tokens = (options.add_special_tokens == Some(true)).into();
        let without = (options.tool_choice == NONE && chat.has_tools()).then(|| chat.clone().tools(None));
        let text = self.render(without.as_ref().unwrap_or(chat), AddGenerationPrompt::Yes)?;
        self.encode(&text, add_special_tokens, 0, Wanted::of(options), cancel)
    }
}

impl Model {
    /// Renders a conversation with the model's chat template, after checking it.
    ///
    /// `add_generation_prompt`: whether the text ends with what opens the assistant's answer. A prompt that is generated
    /// from gets no second beginning-of-sequence token if the template has written one.
    ///
    /// # Errors
    /// `InvalidArgument` for messages that are none, for tools that the template does not use; `MissingTemplate`,
    /// `InvalidTemplate`, `TemplateRaised`, `Closed`.
    pub fn render_chat(&self, chat: &Chat, add_generation_prompt: AddGenerationPrompt) -> Result<String> {
        self.loaded()?.render(chat, add_generation_prompt)
    }

    /// Generates the next message of a conversation, event by event.
    ///
    /// # Errors
    /// As [`Model::render_chat`] and [`Model::stream`].
    pub fn chat_stream(&self, chat: &Chat, options: &GenerateOptions) -> Result<Stream> {
        Session::once(self.generating()?)?.chat_stream(chat, options)
    }

    /// As [`Model::chat_stream`], with the completion as the only event: for callers that await it alone.
    ///
    /// # Errors
    /// As [`Model::chat_stream`].
    pub fn chat_submit(&self, chat: &Chat, options: &GenerateOptions) -> Result<Stream> {
        self.chat_submit_since(chat, options, Instant::now())
    }

    /// As [`Model::chat_submit`], for a call that was made at `called` and handed to this thread: its deadline counts from then.
    ///
    /// # Errors
    /// As [`Model::chat_stream`].
    pub fn chat_submit_since(
        &self,
        chat: &Chat,
        options: &GenerateOptions,
        called: Instant,
    ) -> Result<Stream> {
        let mut session = Session::once(self.generating()?)?;
        session.chat_request(chat, options, Delivery::at_the_end_since(called), &CancelHandle::default())
    }

    /// Generates the next message of a conversation. [`Session::chat`](crate::Session::chat) does so from what it has computed already.
    ///
    /// # Errors
    /// As [`Model::chat_stream`]; `OutOfBudget`, `NonFinite` while computing.
    pub fn chat(&self, chat: &Chat, options: &GenerateOptions) -> Result<Completion> {
        self.chat_until(chat, options, &CancelHandle::default())
    }

    /// As [`Model::chat`], until `cancel` is asked to stop: see [`Model::generate_until`].
    ///
    /// # Errors
    /// As [`Model::chat`]; `Cancelled` when it is asked before all of the conversation is tokens.
    pub fn chat_until(
        &self,
        chat: &Chat,
        options: &GenerateOptions,
        cancel: &CancelHandle,
    ) -> Result<Completion> {
        let called = Instant::now();
        if options.completions() > 1 || options.has_beams() {
            let (loaded, mut options) = (self.generating()?, options.for_prompt(PromptKind::Chat));
            let tokens = loaded.encode_chat(chat, &options, cancel)?;
            loaded.choose_formats(chat, &mut options)?;
            let reply = Reply::to(chat.tools.as_ref(), &options)?;
            if options.has_beams() {
                let (beams, streams) = Beams::begin(&loaded, tokens, &options, reply, called, cancel)?;
                return beams.finish(streams);
            }
            return Alternatives::begin(&loaded, tokens, &options, &reply, called, cancel)?.finish();
        }
        let mut session = Session::once(self.generating()?)?;
        session.chat_request(chat, options, Delivery::at_the_end_since(called), cancel)?.finish()
    }
}

impl Session {
    /// Generates the next message of a conversation, using what the session has computed of it: its tokens become those
    /// of the rendered conversation, and only what comes after the first difference is computed. The answer is, to the bit,
    /// the one that [`Model::chat_stream`] gives.
    ///
    /// # Errors
    /// As [`Model::chat_stream`]; the session is as before then.
    pub fn chat_stream(&mut self, chat: &Chat, options: &GenerateOptions) -> Result<Stream> {
        self.chat_request(chat, options, Delivery::each_token(), &CancelHandle::default())
    }

    /// Generates the next message of a conversation, as [`Session::chat_stream`].
    ///
    /// # Errors
    /// As [`Session::chat_stream`]; `OutOfBudget`, `NonFinite` while computing.
    pub fn chat(&mut self, chat: &Chat, options: &GenerateOptions) -> Result<Completion> {
        self.chat_request(chat, options, Delivery::at_the_end(), &CancelHandle::default())?.finish()
    }

    fn chat_request(
        &mut self,
        chat: &Chat,
        options: &GenerateOptions,
        delivery: Delivery,
        cancel: &CancelHandle,
    ) -> Result<Stream> {
        let mut options = options.for_prompt(PromptKind::Chat);
        let tokens = self.loaded().encode_chat(chat, &options, cancel)?;
        self.loaded().choose_formats(chat, &mut options)?;
        let reply = Reply::to(chat.tools.as_ref(), &options)?;
        self.request_from(Some(tokens), reply, &options, delivery, cancel.ticket())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::event::Event;
    use crate::load::source::Source;
    use crate::options::{ModelOptions, RuntimeOptions};
    use crate::runtime::Runtime;

    #[test]
    fn the_template_says_what_is_read() {
        let template =
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call>{% endif %} <think>";
        let runtime = Runtime::new(&RuntimeOptions::default().threads(1)).unwrap();
        let options = ModelOptions::default().chat_template(template.to_owned());
        let model = runtime.load(&Source::Builtin, &options).unwrap();
        let chat = Chat::new(json!([{"role": "user", "content": "Once"}]));
        let options = GenerateOptions::default().max_tokens(5).temperature(0.0);
        let formats = |completion: &Completion| {
            ["tool_format", "reasoning_format"]
                .map(|name| completion.options[name].as_str().unwrap().to_owned())
        };
        let read = model.chat(&chat, &options).unwrap();
        assert_eq!(formats(&read), ["none", "think"]);
        assert!(read.text.is_empty() && !read.reasoning.is_empty(), "{read:?}");
        let raw = model.chat(&chat, &options.clone().reasoning_format("none")).unwrap();
        assert_eq!((raw.text.trim(), &raw.token_ids), (read.reasoning.as_str(), &read.token_ids));
        let events: Vec<Event> = model.chat_stream(&chat, &options).unwrap().map(Result::unwrap).collect();
        let reasoning: String = events
            .iter()
            .filter_map(|event| match event {
                Event::Reasoning { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(reasoning, read.reasoning);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Token { .. })).count(), 5);
        let with_tools = chat.tools(json!([{"type": "function", "function": {"name": "f"}}]));
        assert_eq!(formats(&model.chat(&with_tools, &options).unwrap()), ["hermes", "think"]);
        // A format that is named, beside what the template says.
        let named = options.clone().tool_format("harmony");
        assert_eq!(formats(&model.chat(&with_tools, &named).unwrap()), ["harmony", "none"]);
        let error = model.chat(&with_tools, &named.reasoning_format("think")).unwrap_err();
        assert_eq!(error.detail()["option"], "reasoning_format");
        // A text is not read.
        let text = model.generate("Once <think>", &options).unwrap();
        assert!(text.reasoning.is_empty() && !text.text.is_empty());
    }
}
