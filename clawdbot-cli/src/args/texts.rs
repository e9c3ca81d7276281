//! Texts on the command line: those that begin with a dash, and escapes.
//!
//! [`prepare`] looks at the arguments before they are parsed, for the parser takes every dash as the start of an option.

use std::convert::Infallible;
use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, Command, Error};

/// What positional arguments that are texts are called in the help.
const TEXTS: [&str; 3] = ["PROMPT", "TEXT", "DOCUMENT"];
/// Before a text that begins with a dash: no argument of a program has this character.
const MARK: char = '\0';

/// The arguments, with those that are texts marked, so that [`text`] reads them whatever they begin with.
///
/// # Errors
/// For an option where a text is missing, as in `--prompt --max-tokens 3`.
pub(crate) fn prepare(args: Vec<OsString>, program: &mut Command) -> Result<Vec<OsString>, Error> {
    program.build();
    let is_command = |arg: &OsString| !arg.as_encoded_bytes().starts_with(b"-");
    let Some(at) = args.iter().skip(1).position(is_command).map(|at| at + 1) else { return Ok(args) };
    let name = args[at].clone();
    let Some(command) = program.find_subcommand_mut(name) else { return Ok(args) };
    let takes_texts = command.get_positionals().any(|arg| {
        arg.get_value_names().is_some_and(|names| names.iter().any(|name| TEXTS.contains(&name.as_str())))
    });
    let mut args = args.into_iter();
    let mut prepared: Vec<OsString> = args.by_ref().take(at + 1).collect();
    while let Some(mut arg) = args.next() {
        let shown = arg.to_string_lossy().into_owned();
        if shown == "--" {
            prepared.push(arg);
            let dash = |arg: &OsString| takes_texts && arg == "-";
            prepared.extend(args.map(|arg| if dash(&arg) { marked(&arg) } else { arg }));
            break;
        }
        if let Some(option) = option(command, &shown) {
            prepared.push(arg);
            let Some(value) = args.next() else { break };
            if option.is_allow_hyphen_values_set() && is_like_an_option(command, &value.to_string_lossy()) {
                let message = format!(
                    "a text is missing after '{shown}', where '{value}' follows; if that is the text, write '{shown}={value}'",
                    value = value.display()
                );
                return Err(command.error(ErrorKind::InvalidValue, message));
            }
            prepared.push(value);
            continue;
        }
        if takes_texts && is_text(command, &shown) {
            arg = marked(&arg);
        }
        prepared.push(arg);
    }
    Ok(prepared)
}

fn marked(arg: &OsString) -> OsString {
    let mut marked = OsString::from(MARK.to_string());
    marked.push(arg);
    marked
}

/// A text of the command line, or where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Given {
    Text(String),
    /// `-`
    Stdin,
}

/// A text, marked or not.
pub(super) fn text(given: &str) -> Result<Given, Infallible> {
    Ok(match given {
        "-" => Given::Stdin,
        text => Given::Text(text.strip_prefix(MARK).unwrap_or(text).to_owned()),
    })
}

/// The option with a value that `arg` is the whole of: `--name` or `-n`.
fn option<'a>(command: &'a Command, arg: &str) -> Option<&'a Arg> {
    let is_it = |option: &&Arg| match arg.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => {
            option.get_short().is_some_and(|short| arg.strip_prefix('-') == Some(short.to_string().as_str()))
        }
    };
    command
        .get_arguments()
        .filter(|option| option.get_action().takes_values() && !option.is_positional())
        .find(is_it)
}

fn has_short(command: &Command, letter: char) -> bool {
    letter == 'h' || command.get_arguments().any(|option| option.get_short() == Some(letter))
}

/// `--word`, `--word=...`, or a letter that the command knows: nobody's text.
fn is_like_an_option(command: &Command, value: &str) -> bool {
    match value.strip_prefix("--") {
        Some(long) => is_word(long.split('=').next().unwrap_or_default()),
        None => value.strip_prefix('-').is_some_and(|rest| {
            let mut letters = rest.chars();
            matches!((letters.next(), letters.next()), (Some(letter), None) if has_short(command, letter))
        }),
    }
}

/// Whether an argument can only be a text: it begins with a dash, and no option does so.
fn is_text(command: &Command, arg: &str) -> bool {
    let Some(rest) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else { return false };
    match rest.strip_prefix('-') {
        Some(long) => !is_word(long.split('=').next().unwrap_or_default()),
        None => {
            let first = rest.chars().next().unwrap_or_default();
            !has_short(command, first) && (!first.is_ascii_alphabetic() || rest.contains(char::is_whitespace))
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A text in which `\n`, `\r`, `\t`, `\\`, `\xNN` (bytes of UTF-8) and `\u{N}` stand for what shells make hard to write.
pub(crate) fn escaped(given: &str) -> Result<String, String> {
    let expected = || {
        format!(
            "expected \\n, \\r, \\t, \\xNN, \\u{{N}}, or \\\\ for a backslash, wherever {given:?} has a backslash"
        )
    };
    let mut bytes = Vec::with_capacity(given.len());
    let mut rest = given;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let mut characters = after.chars();
        let kind = characters.next().ok_or_else(expected)?;
        rest = characters.as_str();
        match kind {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(expected)?;
                let digits =
                    Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let byte =
                    digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(expected)?;
                bytes.push(byte);
                rest = after;
            }
            'u' => {
                let inner = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                let (digits, after) = inner.ok_or_else(expected)?;
                let digits =
                    Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let character = code.and_then(char::from_u32).ok_or_else(expected)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => return Err(expected()),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| format!("expected UTF-8 from the \\xNN in {given:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::CommandFactory;

    fn prepared(args: &[&str]) -> Result<Vec<String>, Error> {
        let args = std::iter::once("clawdbot").chain(args.iter().copied()).map(OsString::from).collect();
        let text = |arg: OsString| arg.into_string().unwrap();
        Ok(prepare(args, &mut Cli::command())?.into_iter().skip(1).map(text).collect())
    }

    #[test]
    fn texts_with_a_dash_are_marked() {
        let args = ["embed", "-m", "-odd", "- a", "--json", "--", "-b", "--json"];
        assert_eq!(
            prepared(&args).unwrap(),
            ["embed", "-m", "-odd", "\0- a", "--json", "--", "-b", "--json"]
        );
        for (arg, marked) in [
            ("- a", true),
            ("-5 degrees", true),
            ("---", true),
            ("-a text", true),
            ("--not an option", true),
            ("-mDIR with a space", false),
            ("--input=a b", false),
            ("--jsom", false),
            ("-x", false),
            ("-", false),
            ("text", false),
        ] {
            assert_eq!(prepared(&["embed", arg]).unwrap()[1].starts_with(MARK), marked, "{arg}");
        }
        assert_eq!(prepared(&["embed", "-", "--", "-", "a"]).unwrap(), ["embed", "-", "--", "\0-", "a"]);
        assert_eq!(
            [text("-"), text("\0-"), text("a")],
            [Given::Stdin, Given::Text("-".to_owned()), Given::Text("a".to_owned())].map(Ok)
        );
        // Where no text is expected nothing is.
        assert_eq!(prepared(&["inspect", "- a"]).unwrap(), ["inspect", "- a"]);
        assert_eq!(prepared(&["--help"]).unwrap(), ["--help"]);
        assert_eq!(prepared(&["what", "- a"]).unwrap(), ["what", "- a"]);
    }

    #[test]
    fn options_are_no_texts() {
        for text in ["- a", "---", "-5", "--what is it", "-", "-p is a flag", "-x"] {
            assert!(prepared(&["generate", "--prompt", text]).is_ok(), "{text}");
            assert!(prepared(&["generate", "-p", text]).is_ok(), "{text}");
        }
        for option in ["--max-tokens", "--max-token", "--stop=x", "-n"] {
            for prompt in ["--prompt", "-p", "--stop"] {
                let error = prepared(&["generate", prompt, option, "3"]).unwrap_err().to_string();
                assert!(error.contains(&format!("{prompt}={option}")), "{error}");
            }
        }
    }

    #[test]
    fn escapes() {
        for (given, text) in [
            ("plain", "plain"),
            (r"\n\n", "\n\n"),
            (r"a\tb\r\\n", "a\tb\r\\n"),
            (r"\x41\xc3\xa9\u{e9}\u{1F600}", "Aéé😀"),
            ("\n", "\n"),
        ] {
            assert_eq!(escaped(given).as_deref(), Ok(text));
        }
        for bad in [r"\", r"a\q", r"\x4", r"\x+1", r"\xc3", r"\u{}", r"\u{110000}", r"\u41", r"\xé"] {
            assert!(escaped(bad).is_err(), "{bad}");
        }
    }
}
