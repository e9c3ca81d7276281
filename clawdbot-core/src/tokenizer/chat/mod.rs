//! Renders chat templates exactly as transformers does: jinja2 in an immutable sandbox with `trim_blocks`,
//! `lstrip_blocks` and loop controls, and with the functions that transformers adds. The engine is minijinja; the
//! submodules give it Python's semantics.
//!
//! Templates are untrusted: nesting, steps, memory, output and time are bounded (by the engine's fuel, and by
//! `budget`), and a panic in the engine becomes an error.

use std::sync::Arc;
use std::time::Instant;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::large_stack::on_large_stack;

use super::AddGenerationPrompt;
use super::special::SpecialTokens;

mod args;
mod budget;
mod checks;
mod choosing;
mod comparisons;
mod errors;
mod expression;
mod fields;
mod filters;
mod iteration;
mod json;
mod lexer;
mod messages;
mod method_names;
mod methods;
mod numbers;
mod numeric;
mod objects;
mod operators;
mod parser;
mod percent;
mod rewrite;
mod sequences;
mod sorting;
mod text;
mod time;
mod values;

pub use time::LocalTime;

/// Longest template source, in bytes.
const MAX_SOURCE: usize = 4 << 20;

/// Steps that a template may take for any input. The engine also counts 64 bytes of text as one step.
const BASE_FUEL: u64 = 50_000;

/// Additional steps for each byte of the conversation.
const FUEL_PER_BYTE: u64 = 64;

/// Most steps in all. Each level of a list that a template nests in itself costs several steps, and some stack when it
/// is dropped: this bounds the depth to what the large stack holds.
const MAX_FUEL: u64 = 3_000_000;

/// Units of the budget for each step, about bytes.
const UNITS_PER_FUEL: u64 = 64;

/// A compiled chat template. Cheap to clone, `Send + Sync`.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    special_tokens: Arc<Map<String, Value>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

const NAME: &str = "chat_template";

/// Arguments of a rendering.
struct Arguments<'a> {
    messages: &'a Value,
    tools: Option<&'a Value>,
    add_generation_prompt: AddGenerationPrompt,
    variables: &'a Map<String, Value>,
    now: LocalTime,
}

impl ChatTemplate {
    /// Compiles `source`. `special` defines the variables `bos_token`, `eos_token`, ...
    ///
    /// # Errors
    /// `InvalidTemplate` if the source does not compile; the message has the line and the reason.
    pub fn new(source: &str, special: &SpecialTokens) -> Result<Self> {
        Self::with_variables(source, special.to_variables())
    }

    fn with_variables(source: &str, special_tokens: Map<String, Value>) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            return Err(invalid(format!(
                "expected a chat template of at most {MAX_SOURCE} bytes, found {} bytes",
                source.len()
            )));
        }
        let environment = guarded(|| compile(source))?;
        Ok(ChatTemplate {
            environment: Arc::new(environment),
            source: Arc::from(source),
            special_tokens: Arc::new(special_tokens),
        })
    }

    /// The source as given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `messages` (a list of objects with `role` and `content`). `tools` is a list of JSON schemas;
    /// `variables` are passed to the template by name and take precedence over special tokens.
    ///
    /// # Errors
    /// `TemplateRaised` if the template refuses the conversation, `InvalidTemplate` if it fails otherwise,
    /// `InvalidArgument` if `messages` is not a list, or a variable has the name of another argument.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: AddGenerationPrompt,
        variables: &Map<String, Value>,
    ) -> Result<String> {
        self.render_at(messages, tools, add_generation_prompt, variables, LocalTime::now())
    }

    /// [`render`](Self::render), with the time for `strftime_now`.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_at(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        add_generation_prompt: AddGenerationPrompt,
        variables: &Map<String, Value>,
        now: LocalTime,
    ) -> Result<String> {
        let arguments = Arguments { messages, tools, add_generation_prompt, variables, now };
        self.render_before(&arguments, Instant::now().checked_add(budget::MAX_TIME))
    }

    fn render_before(&self, arguments: &Arguments<'_>, deadline: Option<Instant>) -> Result<String> {
        let &Arguments { messages, tools, add_generation_prompt, variables, now } = arguments;
        if !messages.is_array() {
            return Err(Error::invalid_argument(format!(
                "expected messages to be a list, found {}",
                json_kind(messages)
            )));
        }
        for name in ["messages", "tools", "add_generation_prompt"] {
            if variables.contains_key(name) {
                return Err(Error::invalid_argument(format!(
                    "template variable {name}: expected another name, as this is the name of an argument"
                )));
            }
        }
        guarded(|| {
            let convert = |name: &str, value: &Value| {
                values::from_json(value).map_err(|error| {
                    Error::invalid_argument(format!(
                        "{name}: {}",
                        error.detail().unwrap_or("cannot be converted")
                    ))
                })
            };
            let mut context: Vec<(String, minijinja::Value)> = Vec::new();
            context.push(("documents".to_owned(), minijinja::Value::from(())));
            for (name, value) in self.special_tokens.iter().chain(variables) {
                context.push((name.clone(), convert(name, value)?));
            }
            context.push(("messages".to_owned(), convert("messages", messages)?));
            context.push(("tools".to_owned(), convert("tools", tools.unwrap_or(&Value::Null))?));
            context.push((
                "add_generation_prompt".to_owned(),
                minijinja::Value::from(add_generation_prompt.is_yes()),
            ));
            context.push(("strftime_now".to_owned(), clock(now)));

            let mut environment = (*self.environment).clone();
            let input: u64 = context.iter().map(|(_, value)| size(value)).sum();
            let fuel = BASE_FUEL.saturating_add(input.saturating_mul(FUEL_PER_BYTE)).min(MAX_FUEL);
            environment.set_fuel(Some(fuel));
            let _budget = budget::start(fuel.saturating_mul(UNITS_PER_FUEL), deadline);
            let template = environment.get_template(NAME).map_err(convert_error)?;
            template.render(minijinja::Value::from_pairs(context)).map_err(convert_error)
        })
    }
}

/// Renders `template` once; `variables` include the special tokens (`bos_token`, `eos_token`, ...).
///
/// # Errors
/// As [`ChatTemplate::new`] and [`ChatTemplate::render`].
pub fn render_chat_template(
    template: &str,
    messages: &Value,
    tools: Option<&Value>,
    add_generation_prompt: AddGenerationPrompt,
    variables: &Map<String, Value>,
) -> Result<String> {
    ChatTemplate::with_variables(template, Map::new())?.render(
        messages,
        tools,
        add_generation_prompt,
        variables,
    )
}

/// The chat templates of a model: one, or several by name.
#[derive(Debug, Clone)]
pub struct ChatTemplates {
    templates: Vec<(String, ChatTemplate)>,
}

impl ChatTemplates {
    /// Reads the field `chat_template` of `tokenizer_config.json`: a string, or a list of `{"name": ..., "template":
    /// ...}`. `None` if the model has no template.
    ///
    /// # Errors
    /// `InvalidTemplate` if the field has another form or a template does not compile.
    pub fn from_config(chat_template: &Value, special: &SpecialTokens) -> Result<Option<Self>> {
        let templates = match chat_template {
            Value::Null => return Ok(None),
            Value::String(source) => vec![("default".to_owned(), ChatTemplate::new(source, special)?)],
            Value::Array(entries) => entries
                .iter()
                .map(|entry| {
                    let field = |key: &str| {
                        entry.get(key).and_then(Value::as_str).ok_or_else(|| {
                            invalid(format!("chat_template: expected a list of objects with the string {key:?}, found {entry}"))
                        })
                    };
                    let name = field("name")?;
                    let template = ChatTemplate::new(field("template")?, special)
                        .map_err(|error| error.context(format!("chat template {name:?}")))?;
                    Ok((name.to_owned(), template))
                })
                .collect::<Result<Vec<_>>>()?,
            other => {
                return Err(invalid(format!("chat_template: expected a string or a list, found {}", json_kind(other))));
            }
        };
        Ok((!templates.is_empty()).then_some(ChatTemplates { templates }))
    }

    /// The template called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&ChatTemplate> {
        self.templates.iter().rev().find(|(known, _)| known == name).map(|(_, template)| template)
    }

    /// The names in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|(name, _)| name.as_str())
    }

    /// The template that transformers selects: `tool_use` if tools are given and it exists, else `default`.
    ///
    /// # Errors
    /// `MissingTemplate` when there is no `default`.
    pub fn select(&self, tools: Option<&Value>) -> Result<&ChatTemplate> {
        let chosen = tools.and_then(|_| self.get("tool_use"));
        chosen.or_else(|| self.get("default")).ok_or_else(|| {
            let names: Vec<&str> = self.names().collect();
            Error::new(
                ErrorKind::MissingTemplate,
                format!("expected a chat template called \"default\", found {}", names.join(", ")),
            )
        })
    }
}

fn compile(source: &str) -> Result<Environment<'static>> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| Error::internal(format!("template syntax: {error}")))?;
    env.set_syntax(syntax);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, _, value| values::write_str(out, value));
    env.set_unknown_method_callback(methods::call);
    // Otherwise errors would copy the variables.
    env.set_debug(false);
    filters::install(&mut env);
    checks::install(&mut env);
    let source = rewrite::rewrite(&rewrite::with_line_feeds(source)).map_err(|error| {
        invalid(format!("chat template, line {}: {}", error.line, error.reason)).with("line", error.line)
    })?;
    env.add_template_owned(NAME, source).map_err(convert_error)?;
    Ok(env)
}

/// The global function `strftime_now(format)`.
fn clock(now: LocalTime) -> minijinja::Value {
    minijinja::Value::from_function(move |format: Option<&str>, kwargs: Kwargs| {
        let format = match format {
            Some(format) => format,
            None => kwargs.get::<&str>("format")?,
        };
        kwargs.assert_all_used()?;
        // No directive writes more than 32 characters.
        budget::text(format.len().checked_mul(32))?;
        now.format(format)
    })
}

/// Bytes of text in `value`, roughly.
fn size(value: &minijinja::Value) -> u64 {
    if let Some(text) = value.as_str() {
        return text.len() as u64 + 1;
    }
    let object = value.as_object();
    let pairs = object
        .filter(|_| value.kind() == minijinja::value::ValueKind::Map)
        .and_then(|map| map.try_iter_pairs());
    match (pairs, object) {
        (Some(pairs), _) => 1 + pairs.map(|(key, item)| size(&key) + size(&item)).sum::<u64>(),
        (None, Some(list)) => 1 + list.try_iter().into_iter().flatten().map(|item| size(&item)).sum::<u64>(),
        _ => 1,
    }
}

/// Runs `work` on a large stack: the engine recurses when it compiles, renders and drops. A panic becomes an error.
fn guarded<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_large_stack(
        "chat-template",
        || invalid("the template engine panicked on this template".to_owned()),
        work,
    )
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidTemplate, message)
}

/// Converts an error of the engine. `raise_exception` is looked for in the whole chain of sources.
fn convert_error(error: minijinja::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut reasons = Vec::new();
    let mut line = None;
    while let Some(inner) = source {
        if let Some(raised) = inner.downcast_ref::<filters::Raised>() {
            return Error::new(ErrorKind::TemplateRaised, raised.0.clone());
        }
        match inner.downcast_ref::<minijinja::Error>() {
            Some(inner) => {
                line = inner.line().or(line);
                reasons.push(inner.detail().map_or_else(|| inner.kind().to_string(), str::to_owned));
            }
            None => reasons.push(inner.to_string()),
        }
        source = inner.source();
    }
    let place = line.map_or_else(String::new, |line| format!(", line {line}"));
    let error = invalid(format!("chat template{place}: {}", reasons.join(": ")));
    match line {
        Some(line) => error.with("line", line),
        None => error,
    }
}

fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
