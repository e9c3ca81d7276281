//! What to write instead, where the parser does not know.

use std::ffi::{OsStr, OsString};

use clap::Error;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// The error of a command line, with a hint where words without quotes stand for one text.
pub(crate) fn with_hint(mut error: Error, args: &[OsString]) -> Error {
    let command = args.get(1).and_then(|name| name.to_str()).unwrap_or_default();
    let hint = match error.kind() {
        ErrorKind::UnknownArgument if is_option(&error) => return error,
        ErrorKind::UnknownArgument if command == "generate" => {
            format!("a prompt of several words needs quotes: clawdbot generate {}", quoted(&args[2..]))
        }
        ErrorKind::UnknownArgument if command == "chat" => {
            "one model is expected; messages are typed once it is loaded, or come from stdin".to_owned()
        }
        ErrorKind::InvalidSubcommand if args.len() > 2 || command.contains(char::is_whitespace) => {
            format!("to continue a text: clawdbot generate {}", quoted(&args[1..]))
        }
        _ => return error,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(hint)]));
    error
}

/// Whether `--json` is among the arguments: they could not be parsed, but a program waits for JSON.
pub(crate) fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// A usage error in the library's form: the message without what clap writes around it, with the option that it is about.
pub(crate) fn as_library_error(error: &Error) -> clawdbot_core::Error {
    use clawdbot_core::ErrorKind as Kind;
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let message = text[..end.unwrap_or(text.len())].trim_end();
    let kind = if is_option(error) { Kind::UnknownOption } else { Kind::InvalidArgument };
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => "command line".to_owned(),
    };
    clawdbot_core::Error::new(kind, message).with("option", argument)
}

/// Whether the parser took the argument for an option.
fn is_option(error: &Error) -> bool {
    error.kind() == ErrorKind::UnknownArgument
        && matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(arg)) if arg.starts_with('-'))
}

/// The words as one text in quotes; another one where they are not words alone.
fn quoted(words: &[OsString]) -> String {
    let plain = |word: &OsString| {
        let word = word.to_str().unwrap_or("-");
        !word.starts_with('-')
            && !word.contains(['"', '$', '`', '\\', '!'])
            && !word.contains(char::is_control)
    };
    match words.iter().all(plain) {
        true => format!("\"{}\"", words.join(OsStr::new(" ")).to_string_lossy()),
        false => "\"Once upon a time\"".to_owned(),
    }
}
