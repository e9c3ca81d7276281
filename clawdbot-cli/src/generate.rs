//! `clawdbot generate`

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use clawdbot_core::{
    CancelHandle, Completion, Error, ErrorKind, Event, GenerateOptions, Model, Result, Stream,
};
use serde_json::Value;

use crate::args::{GenerateArgs, Given, OutputArgs};
use crate::interrupt::Work;
use crate::load::load;
use crate::output::{Failure, Outcome, note, print, print_line, warn};
use crate::report::{completion_json, summary};
use crate::stdin::warn_of_unread;

/// Default prompt of the built-in model.
const BUILTIN_PROMPT: &str = "Once upon a time";
/// Most bytes of a text or of a file of texts: reading `/dev/zero` has to end somewhere.
pub(crate) const MAX_TEXT: u64 = 256 << 20;
/// Byte order mark, which some editors write.
const MARK: char = '\u{feff}';

pub(crate) fn run(args: &GenerateArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let given = given_prompt(args)?;
    let (given, prompt) = match given {
        Some(prompt) => (true, prompt),
        None if args.model.is_none() => (false, BUILTIN_PROMPT.to_owned()),
        None => {
            let message = "expected a prompt: a text (or `-` for stdin), or --prompt-file FILE; found none";
            return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "prompt").into());
        }
    };
    let output = &args.common.output;
    if given && args.model.is_none() && !output.quiet && is_like_a_model(&prompt) {
        warn(&format!("using {prompt} as the prompt; to choose a model, use -m"));
    }
    let model = load(args.model.as_ref(), &args.common.load.options()?, &args.common)?;
    let options = args.lora.load(&model, options)?;
    if options.n > 1 || options.num_beams > 1 || options.best_of.is_some_and(|best_of| best_of > 1) {
        return several(&model, &prompt, &options, output);
    }
    let stream = model.stream(prompt.as_str(), &options)?;
    // By now stdin has data, if it ever will.
    if !reads_stdin(args) {
        warn_of_unread("as the prompt, `-` reads it", output);
    }
    // The text continues the prompt: people want to see both, programs only the new text.
    if !output.quiet && !output.json && (!given || io::stdout().is_terminal()) {
        print(&prompt)?;
    }
    let work = Work::begin();
    let completion = answer(stream, &work, output)?;
    finish(&completion, &model, output)?;
    Ok(if work.interrupted() { Outcome::Interrupted } else { Outcome::Done })
}

/// Prints what cannot be streamed when all is there: the best text of a beam search, or several completions, a blank line apart.
fn several(
    model: &Model,
    prompt: &str,
    options: &GenerateOptions,
    output: &OutputArgs,
) -> Result<Outcome, Failure> {
    let (work, cancel) = (Work::begin(), CancelHandle::default());
    work.cancels(cancel.clone());
    let completion = model.generate_until(prompt, options, &cancel)?;
    if !output.json {
        let texts = std::iter::once(&completion).chain(&completion.alternatives);
        let texts: Vec<&str> = texts.map(|one| one.text.as_str()).collect();
        print(&texts.join("\n\n"))?;
    }
    finish(&completion, model, output)?;
    Ok(if work.interrupted() { Outcome::Interrupted } else { Outcome::Done })
}

/// Reads a stream to its end; unless the output is JSON, prints its text to stdout as it comes, and each tool call as a line of
/// JSON. Reasoning is shown on a terminal alone, dimmed.
pub(crate) fn answer(mut stream: Stream, work: &Work, output: &OutputArgs) -> Result<Completion, Failure> {
    work.cancels(stream.cancel_handle());
    // On a terminal an error starts on a new line.
    let apart = |error: Error| match !output.json && io::stdout().is_terminal() {
        true => print("\n").err().unwrap_or_else(|| error.into()),
        false => error.into(),
    };
    let (mut reasoned, mut within) = (false, false);
    while let Some(event) = stream.next_event().map_err(apart)? {
        match event {
            Event::Token { text, .. } if !output.json && !text.is_empty() => {
                // The answer begins on a line of its own.
                let apart = if std::mem::take(&mut reasoned) { "\n\n" } else { "" };
                print(&format!("{apart}{text}"))?;
                within = !text.ends_with('\n');
            }
            Event::Reasoning { text } if !output.json && io::stdout().is_terminal() => {
                print(&format!("\x1b[2m{text}\x1b[0m"))?;
                (reasoned, within) = (true, true);
            }
            Event::ToolCall(call) if !output.json => {
                let apart = if std::mem::take(&mut within) { "\n" } else { "" };
                print_line(&format!("{apart}{}", Value::Object(call.to_json())))?;
            }
            Event::Done(completion) => {
                if !output.quiet {
                    completion.warnings.iter().for_each(|warning| warn(warning));
                }
                return Ok(*completion);
            }
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::Internal, "the stream ended without a completion").into())
}

/// Prints what follows the text: statistics, or everything as JSON.
fn finish(completion: &Completion, model: &Model, output: &OutputArgs) -> Result<(), Failure> {
    if output.json {
        return print_line(&completion_json(completion, model));
    }
    // On a terminal statistics start on a new line; in a file the text stays as it is.
    if io::stdout().is_terminal() {
        print("\n")?;
    } else if !output.quiet {
        note("");
    }
    if !output.quiet {
        note(summary(completion, model));
    }
    Ok(())
}

/// Whether a prompt looks like the name of a model.
fn is_like_a_model(prompt: &str) -> bool {
    let path = Path::new(prompt);
    let one_word = !prompt.contains(char::is_whitespace);
    one_word
        && (path.is_dir()
            || path.extension().is_some_and(|end| end == "gguf" || end == "clawdbot")
            || prompt.contains('/'))
}

fn reads_stdin(args: &GenerateArgs) -> bool {
    args.prompt_file.as_ref().is_some_and(|path| is_stdin(path)) || args.given() == Some(&Given::Stdin)
}

fn given_prompt(args: &GenerateArgs) -> Result<Option<String>> {
    match (args.prompt()?, &args.prompt_file) {
        (Some(given), _) => text_of(&given).map(Some),
        (None, Some(path)) => read(path).map(Some),
        (None, None) => Ok(None),
    }
}

/// A text from the command line, or all of stdin.
///
/// # Errors
/// As [`read`].
pub(crate) fn text_of(given: &Given) -> Result<String> {
    match given {
        Given::Text(text) => Ok(text.clone()),
        Given::Stdin => read(Path::new("-")),
    }
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The name of a file, or of stdin, for messages.
pub(crate) fn name_of(path: &Path) -> String {
    if is_stdin(path) { "stdin".to_owned() } else { path.display().to_string() }
}

/// Reads all of a file, or of stdin for `-`, without a byte order mark. The last line end of stdin is dropped: typed or
/// piped text ends with one that does not belong to it.
///
/// # Errors
/// `NotFound`, `Io`; `InvalidArgument` if it is too long; `InvalidUtf8`.
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let (name, stdin) = (name_of(path), is_stdin(path));
    let read = match stdin {
        true => io::stdin().lock().take(MAX_TEXT + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes)),
    };
    let length = read.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Error::new(kind, format!("{name}: {error}")).with("path", name.as_str())
    })?;
    if length as u64 > MAX_TEXT {
        return Err(too_long(&name));
    }
    let mut text = utf8(bytes, &name)?;
    if stdin {
        text.truncate(without_line_end(&text).len());
    }
    Ok(text)
}

pub(crate) fn too_long(name: &str) -> Error {
    let message = format!("{name}: expected a text of at most {MAX_TEXT} bytes, found a longer one");
    Error::new(ErrorKind::InvalidArgument, message).with("path", name)
}

/// Decodes `bytes`, without a byte order mark.
///
/// # Errors
/// `InvalidUtf8`.
pub(crate) fn utf8(bytes: Vec<u8>, name: &str) -> Result<String> {
    let found = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ", found UTF-16",
        _ => "",
    };
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let message = match found {
            "" => not_utf8(error.as_bytes(), error.utf8_error().valid_up_to(), name),
            found => format!("{name}: expected UTF-8{found}"),
        };
        Error::new(ErrorKind::InvalidUtf8, message).with("path", name)
    })?;
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    Ok(text)
}

/// Says which byte is not UTF-8, with its line if there are several.
fn not_utf8(bytes: &[u8], at: usize, name: &str) -> String {
    let (before, rest) = bytes.split_at(at);
    let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let several =
        start > 0 || rest.iter().position(|&byte| byte == b'\n').is_some_and(|end| end + 1 < rest.len());
    let line = match several {
        true => format!(", line {}", before.iter().filter(|&&byte| byte == b'\n').count() + 1),
        false => String::new(),
    };
    let found = rest.first().map_or_else(|| "the end".to_owned(), |byte| format!("0x{byte:02x}"));
    format!("{name}{line}: expected UTF-8, found {found} as byte {}", at - start + 1)
}

/// `text` without its last line end.
pub(crate) fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
