//! `clawdbot chat`

use std::io::{self, BufRead, IsTerminal};

use clawdbot_core::{Completion, Error, ErrorKind, GenerateOptions, Model, Result, Session, Stream};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::ChatArgs;
use crate::generate::answer;
use crate::hub::source;
use crate::interrupt::Work;
use crate::output::{Failure, note, print, print_line, tell};
use crate::progress::load;
use crate::report::{completion_json, summary};

const HELP: &str = "\
Every line is a message. Commands:
  /reset   forget the conversation
  /exit    leave (so does the end of input)
  /help    this text
Ctrl-C stops an answer; at the prompt it leaves.";

pub(crate) fn run(args: &ChatArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let source = source(args.model.as_ref(), None, &args.hub, &args.output)?;
    let model = load(&args.runtime.runtime()?, &source, &args.load, &args.output)?;
    let options = args.lora.load(&model, options)?;
    if !model.info().has_chat_template {
        // Says so in the library's words.
        model.render_chat(&clawdbot_core::Chat::default(), true)?;
    }
    let mut chat = Chat::new(&model, options, args);
    let terminal = io::stdin().is_terminal() && !args.output.quiet && !args.output.json;
    if terminal {
        note(format_args!("{} - /help lists the commands", model.info().plan.name));
    }
    let mut outcome = Outcome::Done;
    loop {
        if terminal {
            print("> ")?;
        }
        match read_line() {
            Ok(None) => break,
            Ok(Some(line)) => match line.trim() {
                "" => {}
                "/exit" => break,
                "/reset" => chat.reset()?,
                "/help" => note(HELP),
                command if command.starts_with('/') => {
                    tell(&unknown_command(command), args.output.json);
                    outcome = Outcome::Failed;
                }
                _ => {
                    if let Err(error) = chat.turn(line, args)? {
                        tell(&error, args.output.json);
                        outcome = Outcome::Failed;
                    }
                }
            },
            Err(error) => {
                tell(&error, args.output.json);
                outcome = Outcome::Failed;
                // After other errors than this one nothing more can be read.
                if error.kind() != ErrorKind::InvalidUtf8 {
                    break;
                }
            }
        }
    }
    Ok(outcome)
}

/// A line of stdin without its end; `None` at the end of input.
fn read_line() -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let failed = |error| Error::new(ErrorKind::Io, format!("stdin: {error}"));
    if io::stdin().lock().read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8(bytes)
        .map_err(|error| Error::new(ErrorKind::InvalidUtf8, format!("stdin: expected UTF-8: {error}")))?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn unknown_command(command: &str) -> Error {
    let message = format!("there is no command {command:?}; known: /reset, /exit, /help");
    Error::new(ErrorKind::InvalidArgument, message)
}

/// A conversation and the session that holds its tokens.
struct Chat<'a> {
    model: &'a Model,
    options: GenerateOptions,
    add_special_tokens: bool,
    messages: Vec<Value>,
    /// Messages at the head that stay on reset.
    fixed: usize,
    /// `None` before the first answer, and after a failure, which may leave a session in any state.
    session: Option<Session>,
}

impl<'a> Chat<'a> {
    fn new(model: &'a Model, options: GenerateOptions, args: &ChatArgs) -> Self {
        let messages: Vec<Value> =
            args.system.iter().map(|text| json!({"role": "system", "content": text})).collect();
        Chat {
            model,
            options,
            add_special_tokens: args.options.chat_special_tokens(),
            fixed: messages.len(),
            messages,
            session: None,
        }
    }

    fn reset(&mut self) -> Result<()> {
        self.messages.truncate(self.fixed);
        self.session.as_mut().map_or(Ok(()), |session| session.truncate(0))
    }

    /// One message and its answer. The inner error takes the message back; the outer one is the end.
    fn turn(&mut self, line: String, args: &ChatArgs) -> Result<Result<()>, Failure> {
        let work = Work::begin();
        self.messages.push(json!({"role": "user", "content": line}));
        let completion =
            self.start().map_err(Failure::from).and_then(|stream| answer(stream, &work, &args.output));
        let completion = match completion {
            Ok(completion) => completion,
            Err(Failure::Library(error)) => {
                self.messages.pop();
                self.session = None;
                return Ok(Err(error));
            }
            Err(failure) => return Err(failure),
        };
        self.messages.push(json!({"role": "assistant", "content": completion.text}));
        self.print(&completion, args)?;
        Ok(Ok(()))
    }

    fn print(&self, completion: &Completion, args: &ChatArgs) -> Result<(), Failure> {
        if args.output.json {
            return print_line(&completion_json(completion, self.model));
        }
        print("\n")?;
        if !args.output.quiet {
            note(summary(completion, self.model));
        }
        Ok(())
    }

    /// Brings the session to the conversation as rendered now, and starts the answer.
    ///
    /// What the session holds is kept as far as its tokens are those of the rendered conversation, so only the rest is
    /// computed, and the answer is the one that a fresh session would give. (A template may rewrite earlier turns, and
    /// text does not always become the tokens again that it was generated as.)
    fn start(&mut self) -> Result<Stream> {
        let chat = clawdbot_core::Chat::new(self.messages.clone());
        let text = self.model.render_chat(&chat, true)?;
        let tokens = self.model.tokenizer()?.encode(&text, self.add_special_tokens)?;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.model.session()?,
        };
        let kept = common_prefix(&session.tokens()?, &tokens);
        session.truncate(kept)?;
        session.append(&tokens[kept..], false)?;
        self.session.insert(session).stream(&self.options)
    }
}

/// How many tokens to keep. One at least is left to append: the answer starts from its logits.
fn common_prefix(held: &[u32], wanted: &[u32]) -> usize {
    let same = held.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    same.min(wanted.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::common_prefix;

    #[test]
    fn kept_tokens() {
        for (held, wanted, kept) in [
            (&[][..], &[1, 2][..], 0),
            (&[1, 2], &[1, 2, 3], 2),
            (&[1, 9, 3], &[1, 2, 3], 1),
            (&[1, 2, 3], &[1, 2], 1),
            (&[1, 2], &[1, 2], 1),
            (&[1], &[], 0),
        ] {
            assert_eq!(common_prefix(held, wanted), kept, "{held:?} {wanted:?}");
        }
    }
}
