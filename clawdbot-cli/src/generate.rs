//! `clawdbot generate`

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use clawdbot_core::{Completion, Error, ErrorKind, Event, Model, Result, Stream};

use crate::Outcome;
use crate::args::{GenerateArgs, OutputArgs};
use crate::hub::source;
use crate::interrupt::Work;
use crate::output::{Failure, note, print, print_line};
use crate::progress::load;
use crate::report::{completion_json, summary};

/// What the built-in model starts from when nobody says.
const BUILTIN_PROMPT: &str = "Once upon a time";

pub(crate) fn run(args: &GenerateArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let prompt = prompt(args)?;
    let source = source(args.model.as_ref(), None, &args.hub, &args.output)?;
    let model = load(&args.runtime.runtime()?, &source, &args.load, &args.output)?;
    let options = args.lora.load(&model, options)?;
    let stream = model.stream(prompt.as_str(), &options)?;
    // The text continues the prompt: a reader wants to see both, a program that gave the prompt does not.
    let given = args.prompt.is_some() || args.prompt_file.is_some();
    if !args.output.quiet && !args.output.json && (!given || io::stdout().is_terminal()) {
        print(&prompt)?;
    }
    let work = Work::begin();
    let completion = answer(stream, &work, &args.output)?;
    finish(&completion, &model, &args.output)?;
    Ok(if work.interrupted() { Outcome::Interrupted } else { Outcome::Done })
}

/// Takes a stream to its end; unless the output is JSON, its text goes to stdout as it comes.
pub(crate) fn answer(mut stream: Stream, work: &Work, output: &OutputArgs) -> Result<Completion, Failure> {
    work.cancels(stream.cancel_handle());
    while let Some(event) = stream.next_event()? {
        match event {
            Event::Token { text, .. } if !output.json && !text.is_empty() => print(&text)?,
            Event::Done(completion) => return Ok(*completion),
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::Internal, "the stream ended without a completion").into())
}

/// What follows the text: the figures, or everything as JSON.
fn finish(completion: &Completion, model: &Model, output: &OutputArgs) -> Result<(), Failure> {
    if output.json {
        return print_line(&completion_json(completion, model));
    }
    // On a terminal what follows begins a line of its own; in a file the text is the text.
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

fn prompt(args: &GenerateArgs) -> Result<String> {
    match (&args.prompt, &args.prompt_file) {
        (Some(text), _) if text == "-" => read(Path::new("-")),
        (Some(text), _) => Ok(text.clone()),
        (None, Some(path)) => read(path),
        (None, None) if args.model.is_none() => Ok(BUILTIN_PROMPT.to_owned()),
        (None, None) => {
            let message = "expected a prompt: --prompt TEXT, --prompt-file FILE, or `-` for stdin";
            Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "prompt"))
        }
    }
}

/// All of a file, or of stdin for `-`, as it is.
///
/// # Errors
/// `NotFound`, `Io`; `InvalidUtf8`.
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let (name, read) = match path.to_str() {
        Some("-") => ("stdin".to_owned(), io::stdin().lock().read_to_end(&mut bytes).map(drop)),
        _ => (path.display().to_string(), std::fs::read(path).map(|read| bytes = read)),
    };
    let failed = |kind, message: String| Error::new(kind, message).with("path", name.as_str());
    read.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        failed(kind, format!("{name}: {error}"))
    })?;
    String::from_utf8(bytes)
        .map_err(|error| failed(ErrorKind::InvalidUtf8, format!("{name}: expected UTF-8: {error}")))
}
