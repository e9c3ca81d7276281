//! The fields of `POST /v1/responses`.

use clawdbot_core::{Chat, GenerateOptions};
use serde_json::{Map, Value, json};

use super::conversation::messages;
use super::input::Input;
use super::record::{REPEATED, Record};
use super::tools::Tools;
use crate::body::{Body, Ignored, missing};
use crate::caller::Caller;
use crate::fault::Fault;
use crate::fields::{Field, Kind, idle, read};
use crate::ids;
use crate::keyed::Keys;
use crate::openai::chat::{choose, constrain, max_tokens};
use crate::openai::{list_of_stops, stream_options};
use crate::settings::Fields;

/// Fields besides the core's options.
pub(super) const FIELDS: &[Field] = &[
    read("model", Kind::Text),
    read("input", Kind::Any),
    read("instructions", Kind::Text),
    read("tools", Kind::List),
    read("tool_choice", Kind::Any),
    read("text", Kind::Object),
    read("max_output_tokens", Kind::Whole),
    read("reasoning", Kind::Object),
    read("truncation", Kind::Text),
    read("include", Kind::List),
    read("top_logprobs", Kind::Whole),
    read("metadata", Kind::Object),
    read("store", Kind::Bool),
    read("previous_response_id", Kind::Text),
    read("background", Kind::Bool),
    read("stream", Kind::Bool),
    read("stream_options", Kind::Object),
    read("stop", Kind::Any),
    read("chat_template_kwargs", Kind::Object),
    // Of tools on OpenAI's own servers.
    idle("max_tool_calls", Kind::Whole),
    idle("prompt_cache_options", Kind::Object),
    idle("client_metadata", Kind::Object),
];

/// What `include` may ask for that no answer here has.
const NEVER: [&str; 7] = [
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
];

/// Most pairs of `metadata`, and most characters of their keys and values: as OpenAI's.
const METADATA: [usize; 3] = [16, 64, 512];

/// What a request asks for.
pub(super) struct Asked {
    /// With functions that are strict unless they say that they are not.
    pub(super) chat: Chat,
    /// The same without, if some say neither and no call is required.
    pub(super) relaxed: Option<Chat>,
    pub(super) options: GenerateOptions,
    pub(super) stream: bool,
    pub(super) record: Record,
}

/// Reads the fields.
pub(super) fn asked(
    mut body: Body,
    ignored: &mut Ignored,
    app: &Caller,
    model: String,
) -> Result<Asked, Fault> {
    let mut keys = Keys { policy: app.settings().fields, ignored };
    let (id, previous) = (ids::id("resp_"), body.text("previous_response_id")?);
    let mut input = Input { store: app.responses(), id: &id, left: app.settings().max_body };
    let mut all = previous.as_deref().map(|id| input.chain(id)).transpose()?.unwrap_or_default();
    let given = body.take("input").ok_or_else(|| missing("input", "a text or a list of items"))?;
    let items = input.read(&given, &mut keys)?;
    all.extend_from_slice(&items);

    let instructions = body.text("instructions")?;
    let messages = messages(instructions.as_deref(), &all)?;
    refuse(&mut body)?;
    let stream = stream_options(&mut body)?;
    if stream.is_some_and(|stream| stream.usage || stream.continuous) {
        let message = "field stream_options: expected include_obfuscation alone: the usage comes at the end";
        return Err(Fault::invalid(message).at("stream_options"));
    }
    let store = body.take("store").is_none_or(|store| store == true);
    let metadata = metadata(&mut body)?;
    let most = body.get("max_output_tokens").cloned();
    max_tokens(&mut body, "max_output_tokens")?;
    list_of_stops(&mut body);
    logprobs(&mut body, &mut keys)?;
    let format = format(&mut body, &mut keys)?;
    let mut variables = body.object("chat_template_kwargs")?.unwrap_or_default();
    let effort = effort(&mut body, &mut keys)?;
    if let Some(effort) = &effort {
        variables.entry("reasoning_effort").or_insert(effort.clone());
    }
    let tools = body.take("tools").unwrap_or_default();
    let mut tools = Tools::read(tools.as_array().map(Vec::as_slice).unwrap_or_default(), &mut keys)?;
    let choice = body.take("tool_choice");
    if let Some(choice) = &choice {
        let choice = tools.choice(choice)?;
        choose(&mut body, choice, tools.for_chat(true).is_some(), keys.ignored);
    }

    let mut repeated = Map::new();
    for (name, default) in REPEATED {
        repeated.insert(name.into(), body.get(name).cloned().unwrap_or(default.into()));
    }
    let options: GenerateOptions = body.options()?;
    for (option, set) in [("n", options.n > 1), ("prompt_logprobs", options.prompt_logprobs.is_some())] {
        if set {
            let message = format!("option {option}: expected none, as a response has no place for it");
            return Err(Fault::invalid(message).at(option));
        }
    }
    let rest = json!({
        "background": false,
        "instructions": instructions,
        "max_output_tokens": most,
        "max_tool_calls": null,
        "metadata": metadata,
        "parallel_tool_calls": options.parallel_tool_calls,
        "previous_response_id": previous,
        "prompt_cache_key": null,
        "reasoning": {"effort": effort, "summary": null},
        "safety_identifier": null,
        "service_tier": "default",
        "store": store,
        "text": {"format": format},
        "tool_choice": choice.unwrap_or_else(|| "auto".into()),
        "tools": tools.json(true),
        "top_logprobs": options.logprobs.unwrap_or(0),
        "truncation": "disabled",
        "user": null,
    });
    if let Value::Object(rest) = rest {
        repeated.extend(rest);
    }
    let chat =
        |default| Chat::new(messages.clone()).tools(tools.for_chat(default)).variables(variables.clone());
    let relaxed = (options.tool_choice == "auto" && tools.are_strict_by_default()).then(|| chat(false));
    let chat = chat(true);
    let record = Record { id, created: ids::now(), model, repeated, tools, items, previous, store };
    Ok(Asked { chat, relaxed, options, stream: stream.is_some(), record })
}

/// Refuses what is not done here.
fn refuse(body: &mut Body) -> Result<(), Fault> {
    if body.flag("background")? {
        let expected = "false (an answer ends with its connection)";
        return Err(Fault::field("background", expected, &true.into()));
    }
    match body.text("truncation")? {
        Some(other) if other != "disabled" => {
            let expected = "disabled (what does not fit into the context is refused)";
            Err(Fault::field("truncation", expected, &other.into()))
        }
        _ => Ok(()),
    }
}

fn metadata(body: &mut Body) -> Result<Map<String, Value>, Fault> {
    let metadata = body.object("metadata")?.unwrap_or_default();
    let [pairs, key, value] = METADATA;
    let fits = |(name, text): (&String, &Value)| {
        name.chars().count() <= key && text.as_str().is_some_and(|text| text.chars().count() <= value)
    };
    if metadata.len() > pairs || !metadata.iter().all(fits) {
        let expected =
            format!("at most {pairs} texts of at most {value} characters, with keys of at most {key}");
        return Err(Fault::field("metadata", &expected, &metadata.into()));
    }
    Ok(metadata)
}

/// Reads `include` and `top_logprobs`.
fn logprobs(body: &mut Body, keys: &mut Keys<'_>) -> Result<(), Fault> {
    let include = body.take("include").unwrap_or_default();
    let mut asked = false;
    for name in include.as_array().into_iter().flatten() {
        match name.as_str().unwrap_or_default() {
            "message.output_text.logprobs" => asked = true,
            name if NEVER.contains(&name) && keys.policy != Fields::Strict => {
                keys.idle(&format!("include.{name}"));
            }
            _ => return Err(Fault::field("include", "message.output_text.logprobs", name)),
        }
    }
    let top = body.whole("top_logprobs")?.unwrap_or(0);
    if asked || top > 0 {
        body.set("logprobs", top);
    }
    Ok(())
}

/// Reads `text`: what the response repeats of its format.
fn format(body: &mut Body, keys: &mut Keys<'_>) -> Result<Value, Fault> {
    let text = body.object("text")?.unwrap_or_default();
    let text = keys.of("text", &text, &["format"], &["verbosity"])?;
    let format = match text.get("format") {
        None => return Ok(json!({"type": "text"})),
        Some(Value::Object(format)) => format,
        Some(other) => return Err(Fault::field("text.format", "an object", other)),
    };
    let format = keys.of("text.format", format, &["type", "name", "schema", "strict", "description"], &[])?;
    constrain(body, &format, format.get("schema"), ["text.format.type", "text.format.schema"])?;
    Ok(format.into())
}

/// Reads `reasoning`: the effort.
fn effort(body: &mut Body, keys: &mut Keys<'_>) -> Result<Option<Value>, Fault> {
    let reasoning = body.object("reasoning")?.unwrap_or_default();
    let idle = ["summary", "generate_summary", "context", "mode"];
    let effort = keys.of("reasoning", &reasoning, &["effort"], &idle)?.remove("effort");
    match effort {
        Some(other) if !other.is_string() => Err(Fault::field("reasoning.effort", "a text", &other)),
        effort => Ok(effort),
    }
}
