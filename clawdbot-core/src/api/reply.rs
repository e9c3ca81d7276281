//! What the answer of a conversation may be: which calls it may have, and what that constrains.

use serde_json::Value;

use crate::constraint::{Auto, CallMarks, ConstraintSpec, Source};
use crate::error::{Error, Result};
use crate::options::GenerateOptions;
use crate::output::{AUTO, Function, NONE, OutputFormats, Tools, WrittenCalls, functions};

/// The value of `tool_choice` that asks for at least one call.
const REQUIRED: &str = "required";

/// What an answer may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    /// What may be called, for the reader of calls.
    pub(crate) tools: Tools,
    /// What its text is constrained to.
    pub(crate) source: Option<Source>,
    /// The text is free, and the constrained text begins with the calls that these begin, if they come.
    pub(crate) free: Option<CallMarks>,
    /// What would end reasoning with calls that are not enforced.
    pub(crate) refused: Vec<&'static str>,
}

impl Reply {
    /// An answer to a prompt that offers no functions.
    ///
    /// # Errors
    /// `InvalidArgument` for options of calls.
    pub(crate) fn of(options: &GenerateOptions) -> Result<Self> {
        if !matches!(options.tool_choice.as_str(), AUTO | NONE) {
            return Err(wrong_choice(options, "expected a chat with tools, found none"));
        }
        let header = answer_header(options)?;
        let source = ConstraintSpec::of(options).map(|spec| Source { header, ..spec.into() });
        Ok(Reply { source, ..Reply::default() })
    }

    /// An answer in a chat with `tools`, where `options` have the formats that are read.
    ///
    /// # Errors
    /// `InvalidArgument` for a choice that the tools do not have, and for what a format does not enforce;
    /// `InvalidConstraint` for schemas that are not enforced.
    pub(crate) fn to(tools: Option<&Value>, options: &GenerateOptions) -> Result<Self> {
        let plain = GenerateOptions { tool_choice: AUTO.to_owned(), ..options.clone() };
        let reply = Reply { tools: Tools::new(tools), ..Reply::of(&plain)? };
        let choice = options.tool_choice.as_str();
        let invalid = |reason: String| Err(wrong_choice(options, &reason));
        let Some(tools) = tools.filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty()))
        else {
            return match choice {
                AUTO | NONE => Ok(reply),
                _ => invalid("expected tools with it, found none".to_owned()),
            };
        };
        let answer = ConstraintSpec::of(options);
        let offered = match functions(tools) {
            Ok(offered) => offered,
            // The template decides what tools are, where nothing is enforced.
            Err(_)
                if choice == AUTO
                    && options.parallel_tool_calls
                    && answer.is_none()
                    && !mentions_strict(tools) =>
            {
                return Ok(reply);
            }
            Err(reason) => return Err(Error::invalid_argument(reason).with("option", "tools")),
        };
        let strict = offered.iter().any(|(_, strict)| *strict);
        let mut functions: Vec<Function> = offered.into_iter().map(|(function, _)| function).collect();
        match choice {
            NONE => return Ok(Reply { tools: Tools::default(), ..reply }),
            AUTO if answer.is_none() && !strict && options.parallel_tool_calls => return Ok(reply),
            AUTO | REQUIRED => {}
            name => {
                let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
                if !names.contains(&name) {
                    let names = names.join(", ");
                    return invalid(format!(
                        "expected auto, none, required or one of the tools ({names}), found {name}"
                    ));
                }
                functions.retain(|function| function.name == name);
            }
        }
        if choice != AUTO
            && let Some(option) = answer.as_ref().map(ConstraintSpec::option)
        {
            return invalid(format!(
                "expected auto or none with a constraint of the answer, found {choice} and {option}"
            ));
        }
        check_schemas(&functions)?;
        let calls = WrittenCalls::new(&options.tool_format, &functions, options.parallel_tool_calls);
        let calls = calls.map_err(|reason| wrong_choice(options, &reason))?;
        let openings = calls.opening.iter().chain(&calls.others);
        let refused = openings.filter(|opening| opening.in_reasoning).map(|opening| opening.mark).collect();
        let mut reply = Reply { refused, ..reply };
        let auto = match calls.opening {
            _ if choice != AUTO || answer.is_some() => Auto::None,
            None => Auto::Messages,
            Some(enforced) => {
                reply.free = Some(CallMarks { enforced, others: calls.others.clone() });
                if enforced.first { Auto::None } else { Auto::AfterMark }
            }
        };
        let header = answer_header(options)?;
        reply.source = Some(Source { answer, header, calls: Some(calls), auto });
        Ok(reply)
    }
}

/// What is written before the text of an answer.
fn answer_header(options: &GenerateOptions) -> Result<&'static str> {
    let formats = OutputFormats::new(&options.tool_format, &options.reasoning_format)?;
    Ok(formats.map_or("", |formats| formats.answer_header()))
}

/// Refuses schemas that are not enforced, by the names of their functions.
fn check_schemas(functions: &[Function]) -> Result<()> {
    functions.iter().try_for_each(|function| {
        ConstraintSpec::JsonSchema(function.parameters.clone()).check().map_err(|error| {
            let place = format!("tools: function {:?}", function.name);
            let message = error.message().replacen("option json_schema", &place, 1);
            error.with_message(message).with("option", "tools").with("function", function.name.as_str())
        })
    })
}

/// Whether a function asks to be enforced, in whatever way.
fn mentions_strict(tools: &Value) -> bool {
    let asks =
        |value: Option<&Value>| value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    let tools = tools.as_array().map(Vec::as_slice).unwrap_or_default();
    tools.iter().any(|tool| {
        let inner = tool.get("function").and_then(|function| function.get("strict"));
        asks(tool.get("strict")) || asks(inner)
    })
}

fn wrong_choice(options: &GenerateOptions, reason: &str) -> Error {
    Error::invalid_argument(format!("option tool_choice: {reason}"))
        .with("option", "tool_choice")
        .with("found", options.tool_choice.as_str())
}
