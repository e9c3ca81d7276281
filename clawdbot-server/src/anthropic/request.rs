//! The fields of a request.

use clawdbot_core::{Chat, GenerateOptions};
use serde_json::{Map, Value, json};

use super::content::conversation;
use super::tools;
use crate::body::{Body, Ignored, missing};
use crate::fault::Fault;
use crate::fields::{Field, Kind, idle, read};
use crate::keyed::Keys;
use crate::openai::chat::{choose, constrain};
use crate::settings::Fields;

/// Fields besides the core's options.
pub(super) const FIELDS: &[Field] = &[
    read("model", Kind::Text),
    read("messages", Kind::List),
    read("system", Kind::Any),
    read("stop_sequences", Kind::List),
    read("tools", Kind::List),
    read("tool_choice", Kind::Object),
    read("thinking", Kind::Object),
    read("output_config", Kind::Object),
    read("stream", Kind::Bool),
    read("chat_template_kwargs", Kind::Object),
    idle("cache_control", Kind::Object),
    // Nothing of a conversation is left out here.
    idle("context_management", Kind::Object),
    idle("metadata", Kind::Object),
    idle("service_tier", Kind::Text),
];

/// What a request asks for.
pub(super) struct Asked {
    pub(super) chat: Chat,
    pub(super) options: GenerateOptions,
}

/// Reads the fields; `limited`: a request for an answer, which says how long it may be.
pub(super) fn asked(
    mut body: Body,
    policy: Fields,
    ignored: &mut Ignored,
    limited: bool,
) -> Result<Asked, Fault> {
    let mut keys = Keys { policy, ignored };
    let messages = body.take("messages").ok_or_else(|| missing("messages", "a list of messages"))?;
    let system = body.take("system");
    let messages = conversation(system.as_ref(), &messages, &mut keys)?;
    if limited && body.get("max_tokens").is_none() {
        return Err(missing("max_tokens", "a whole number, 1 or more"));
    }
    if let Some(stops) = body.take("stop_sequences") {
        if body.get("stop").is_some() {
            return Err(Fault::invalid("field stop: expected stop_sequences alone, found both").at("stop"));
        }
        body.set("stop", stops);
    }
    let tools = body.take("tools").filter(|tools| tools.as_array().is_none_or(|tools| !tools.is_empty()));
    let tools = tools.map(|tools| tools::functions(&tools, &mut keys)).transpose()?;
    if let Some(choice) = body.object("tool_choice")? {
        let (choice, alone) = tools::choice(&choice, &mut keys)?;
        choose(&mut body, choice, tools.is_some(), keys.ignored);
        if alone {
            body.set("parallel_tool_calls", false);
        }
    }
    let mut variables = body.object("chat_template_kwargs")?.unwrap_or_default();
    if let Some(thinking) = body.object("thinking")? {
        think(&thinking, &mut variables, &mut keys)?;
    }
    if let Some(output) = body.object("output_config")? {
        let output = keys.of("output_config", &output, &["effort", "format"], &[])?;
        if let Some(effort) = output.get("effort") {
            variables.entry("reasoning_effort").or_insert_with(|| effort.clone());
        }
        if let Some(format) = output.get("format") {
            let path = "output_config.format";
            let format = format.as_object().ok_or_else(|| Fault::field(path, "an object", format))?;
            let format = keys.of(path, format, &["type", "schema"], &[])?;
            let paths = ["output_config.format.type", "output_config.format.schema"];
            constrain(&mut body, &format, format.get("schema"), paths)?;
        }
    }
    let options: GenerateOptions = body.options()?;
    if options.n > 1 {
        return Err(Fault::invalid("option n: expected none, as a message is one answer").at("n"));
    }
    Ok(Asked { chat: Chat::new(messages).tools(tools).variables(variables), options })
}

/// Sets the variable by which chat templates let a model reason, or not.
fn think(
    thinking: &Map<String, Value>,
    variables: &mut Map<String, Value>,
    keys: &mut Keys<'_>,
) -> Result<(), Fault> {
    let thinking = keys.of("thinking", thinking, &["type"], &["budget_tokens", "display"])?;
    let kind = thinking.get("type").unwrap_or(&Value::Null);
    let on = match kind.as_str() {
        Some("enabled") => true,
        Some("disabled") => false,
        // As the model is made.
        Some("adaptive") => return Ok(()),
        _ => return Err(Fault::field("thinking.type", "enabled, disabled or adaptive", kind)),
    };
    variables.entry("enable_thinking").or_insert(json!(on));
    Ok(())
}
