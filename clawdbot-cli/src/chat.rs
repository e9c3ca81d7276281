//! `clawdbot chat`

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clawdbot_core::{
    AddGenerationPrompt, Completion, Error, ErrorKind, GenerateOptions, Model, Result, Session, Stream,
};
use serde_json::{Map, Value, json};

use crate::args::{CHAT_COMMANDS, ChatArgs};
use crate::generate::{MAX_TEXT, answer, read, too_long};
use crate::input::{Input, Line};
use crate::interrupt::Work;
use crate::load::load;
use crate::output::{Failure, Outcome, note, print, print_line, tell};
use crate::report::{completion_json, summary};

pub(crate) fn run(args: &ChatArgs) -> Result<Outcome, Failure> {
    let (options, variables) = (args.options.options()?, args.variables()?);
    let output = &args.common.output;
    let quiet = output.quiet || output.json;
    let mut input = Input::new(!quiet, args.history.as_deref())?;
    let template = args.chat_template.as_deref().map(read).transpose()?;
    let load_options = args.common.load.options()?.chat_template(template);
    let model = load(args.model(), &load_options, &args.common)?;
    let options = args.lora.load(&model, options)?;
    if !model.info().plan.tasks.contains(&"generate") {
        model.session()?;
    }
    if !model.info().plan.has_chat_template {
        // Says so in the library's words.
        model.render_chat(&clawdbot_core::Chat::default(), AddGenerationPrompt::Yes)?;
    }
    let mut chat = Chat::new(&model, options, variables);
    chat.check_variables()?;
    if let Some(text) = args.system.as_deref().filter(|text| !text.is_empty()) {
        chat.set_system(text).map_err(|error| error.context("option system").with("option", "system"))?;
    }
    if input.is_terminal() {
        note(format_args!("{} - /help lists the commands", model.info().plan.name));
    }
    let mut outcome = Outcome::Done;
    loop {
        let done = match next(&mut input) {
            Ok(Entry::End) => break,
            Ok(Entry::Interrupted) => return Ok(Outcome::Interrupted),
            Ok(Entry::Command(line)) => match chat.command(&line) {
                Ok(ControlFlow::Break(())) => break,
                Ok(ControlFlow::Continue(said)) => {
                    said.filter(|_| !quiet).iter().for_each(note);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Ok(Entry::Message(text)) => chat.turn(text, args)?,
            // After any other error nothing more can be read.
            Err(error) if error.kind() != ErrorKind::InvalidUtf8 => return Err(error.into()),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tell(&error, output.json.into());
            outcome = Outcome::Failed;
        }
    }
    Ok(outcome)
}

/// An entry of the user.
enum Entry {
    /// One or several lines.
    Message(String),
    /// A line that begins with a slash.
    Command(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    End,
}

/// Delimits a message of several lines.
const QUOTES: &str = "\"\"\"";

/// Reads the next entry. Ctrl-C drops an incomplete message.
///
/// # Errors
/// As [`Input::line`]; `InvalidArgument` for quotes that are not closed.
fn next(input: &mut Input) -> Result<Entry> {
    'entry: loop {
        let line = match input.line("> ")? {
            Line::End => return Ok(Entry::End),
            Line::Interrupted => return Ok(Entry::Interrupted),
            Line::Text(line) => line,
        };
        if line.starts_with('/') {
            return Ok(Entry::Command(line));
        }
        let quoted = line.trim_start().strip_prefix(QUOTES).map(str::to_owned);
        let (mut message, quoted) = quoted.map_or((line, false), |rest| (rest, true));
        let is_open = |message: &str| match quoted {
            true => !message.trim_end().ends_with(QUOTES),
            false => message.ends_with('\\'),
        };
        while is_open(&message) {
            match input.line("... ")? {
                Line::End if quoted => {
                    let message =
                        "expected \"\"\" after the message that begins with it, found the end of the input";
                    return Err(invalid(message.to_owned()));
                }
                Line::End => break,
                Line::Interrupted => continue 'entry,
                Line::Text(line) => {
                    if !quoted {
                        message.pop();
                    }
                    message.push('\n');
                    message.push_str(&line);
                    if message.len() as u64 > MAX_TEXT {
                        return Err(too_long("a message"));
                    }
                }
            }
        }
        if quoted {
            let inner = message.trim_end();
            let inner = inner.strip_suffix(QUOTES).unwrap_or(&message);
            message = inner.strip_prefix('\n').unwrap_or(inner).trim_end_matches('\n').to_owned();
        }
        if !message.trim().is_empty() {
            return Ok(Entry::Message(message));
        }
    }
}

/// A conversation, and the session that holds its tokens.
struct Chat<'a> {
    model: &'a Model,
    options: GenerateOptions,
    /// Variables of the template.
    variables: Map<String, Value>,
    messages: Vec<Value>,
    /// Number of messages at the start that a reset keeps.
    fixed: usize,
    /// `None` before the first answer, and after a failure, which may leave a session in any state.
    session: Option<Session>,
    /// File of the last /save, which the next one may overwrite.
    saved: Option<PathBuf>,
}

impl<'a> Chat<'a> {
    fn new(model: &'a Model, options: GenerateOptions, variables: Map<String, Value>) -> Self {
        Chat { model, options, variables, fixed: 0, messages: Vec::new(), session: None, saved: None }
    }

    /// Executes a command. Continues with something to report, if any, or breaks to leave.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown command; `Io`.
    fn command(&mut self, line: &str) -> Result<ControlFlow<(), Option<String>>> {
        let (name, rest) = line.trim_end().split_once(char::is_whitespace).unwrap_or((line.trim_end(), ""));
        let rest = rest.trim();
        let said = match (name, rest) {
            ("/quit" | "/exit", "") => return Ok(ControlFlow::Break(())),
            ("/help", "") => {
                note(CHAT_COMMANDS);
                None
            }
            ("/reset", "") => {
                self.reset()?;
                Some("started a new conversation".to_owned())
            }
            ("/system", "") => Some(self.remove_system()),
            ("/system", text) => Some(self.set_system(text)?),
            ("/save", "") => return Err(invalid("/save: expected the name of a file".to_owned())),
            ("/save", file) => Some(self.save(PathBuf::from(file))?),
            ("/quit" | "/exit" | "/help" | "/reset", _) => {
                return Err(invalid(format!("{name}: expected nothing after it, found {rest:?}")));
            }
            _ => {
                return Err(invalid(format!(
                    "unknown command {name:?}; known: /help, /reset, /system, /save, /quit; to begin a message with a \
                     slash, put a space in front"
                )));
            }
        };
        Ok(ControlFlow::Continue(said))
    }

    fn remove_system(&mut self) -> String {
        self.messages.drain(..std::mem::take(&mut self.fixed));
        "removed the system message".to_owned()
    }

    /// Sets the system message at the start, replacing an earlier one.
    ///
    /// # Errors
    /// `InvalidArgument` if the model's template ignores it.
    fn set_system(&mut self, text: &str) -> Result<String> {
        let system = json!({"role": "system", "content": text});
        let user = json!({"role": "user", "content": "Hello"});
        let render =
            |messages: Value| self.model.render_chat(&self.conversation(messages), AddGenerationPrompt::Yes);
        let with = render(json!([&system, &user]));
        let found = match &with {
            Ok(with) if render(json!([user])).is_ok_and(|without| without == *with) => {
                "one that leaves it out".to_owned()
            }
            Ok(_) => String::new(),
            Err(error) => format!("one that says: {error}"),
        };
        if !found.is_empty() {
            return Err(invalid(format!(
                "expected a model whose chat template uses a system message, found {found} ({}); write it as a part of the \
                 first message, or use another template (--chat-template FILE)",
                self.model.info().plan.name
            )));
        }
        self.remove_system();
        self.messages.insert(0, system);
        self.fixed = 1;
        Ok("set the system message; /system without a text removes it".to_owned())
    }

    /// Writes the conversation to a new file, or to one that this conversation wrote before.
    fn save(&mut self, path: PathBuf) -> Result<String> {
        let shown = path.display().to_string();
        let failed =
            |message| Error::new(ErrorKind::Io, format!("{shown}: {message}")).with("path", shown.as_str());
        if self.saved.as_ref() != Some(&path) && path.exists() {
            return Err(failed("expected a new file, found an existing one".to_owned()));
        }
        let json = format!("{:#}\n", Value::from(self.messages.clone()));
        fs::write(&path, json).map_err(|error| failed(error.to_string()))?;
        self.saved = Some(path);
        Ok(format!("saved {} messages to {shown}", self.messages.len()))
    }

    fn reset(&mut self) -> Result<()> {
        self.messages.truncate(self.fixed);
        self.session.as_mut().map_or(Ok(()), |session| session.truncate(0))
    }

    /// A message and its answer. After an inner error the message is dropped; an outer error ends the chat.
    fn turn(&mut self, line: String, args: &ChatArgs) -> Result<Result<()>, Failure> {
        let work = Work::begin();
        self.messages.push(json!({"role": "user", "content": line}));
        let completion =
            self.start().map_err(Failure::from).and_then(|stream| answer(stream, &work, &args.common.output));
        let completion = match completion {
            Ok(completion) => completion,
            Err(Failure::Library(error)) => {
                self.messages.pop();
                self.session = None;
                let full = error.kind() == ErrorKind::ContextOverflow && self.messages.len() > self.fixed;
                return Ok(Err(if full { with_way_out(&error) } else { error }));
            }
            Err(failure) => return Err(failure),
        };
        self.messages.push(answered(&completion));
        self.print(&completion, args)?;
        Ok(Ok(()))
    }

    fn print(&self, completion: &Completion, args: &ChatArgs) -> Result<(), Failure> {
        if args.common.output.json {
            return print_line(&completion_json(completion, self.model));
        }
        print("\n")?;
        if !args.common.output.quiet {
            note(summary(completion, self.model));
        }
        Ok(())
    }

    /// The conversation as arguments of the template.
    fn conversation(&self, messages: impl Into<Value>) -> clawdbot_core::Chat {
        clawdbot_core::Chat::new(messages).variables(self.variables.clone())
    }

    /// Refuses invalid variables before the first message.
    fn check_variables(&self) -> Result<()> {
        if self.variables.is_empty() {
            return Ok(());
        }
        let example = self.conversation(json!([{"role": "user", "content": "Hello"}]));
        match self.model.render_chat(&example, AddGenerationPrompt::Yes) {
            Err(error) if matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::UnknownOption) => {
                Err(error.context("option template_variable").with("option", "template_variable"))
            }
            // Other errors are about the example conversation.
            _ => Ok(()),
        }
    }

    /// Starts the answer, reusing what the session has computed.
    fn start(&mut self) -> Result<Stream> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.model.session()?,
        };
        let chat = self.conversation(self.messages.clone());
        self.session.insert(session).chat_stream(&chat, &self.options)
    }
}

/// A completion as a message.
fn answered(completion: &Completion) -> Value {
    let mut message = json!({"role": "assistant", "content": completion.text});
    if !completion.reasoning.is_empty() {
        message["reasoning_content"] = completion.reasoning.as_str().into();
    }
    if !completion.tool_calls.is_empty() {
        let calls = completion.tool_calls.iter().map(|call| {
            // They are an object, as every call's.
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        });
        message["tool_calls"] = calls.collect();
    }
    message
}

/// Adds how to continue: a conversation that is too long stays so.
fn with_way_out(error: &Error) -> Error {
    let message = format!("{}; /reset starts a new conversation", error.message());
    let with = |error: Error, (key, value): (&String, &Value)| error.with(key, value.clone());
    error.detail().iter().fold(Error::new(error.kind(), message), with)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
