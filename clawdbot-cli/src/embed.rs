//! `clawdbot embed` and `clawdbot rerank`

use std::time::Instant;

use clawdbot_core::{Error, ErrorKind, Model, Prompt, Result};
use serde_json::{Value, json};

use crate::args::{BatchArgs, EmbedArgs, Given, RerankArgs};
use crate::generate::{is_stdin, name_of, read, text_of};
use crate::load::load;
use crate::output::{Failure, Outcome, note, print, print_line};
use crate::progress::watch;
use crate::report::counted;
use crate::stdin::warn_of_unread;

pub(crate) fn run(args: &EmbedArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let (batch, output) = (&args.batch, &args.batch.common.output);
    let reads = reads_of_stdin(args.texts.iter(), batch)?;
    let texts = texts(&args.texts, batch, "TEXT")?;
    let model = open(batch, reads)?;
    let start = Instant::now();
    let prompts = texts.into_iter().map(Prompt::Text).collect();
    let found = watch("embedding", output, |progress| model.embed_with_progress(prompts, &options, progress))
        .map_err(|error| placed(error, batch, "TEXT"))?;
    let seconds = start.elapsed().as_secs_f64();
    for (index, row) in found.rows().enumerate() {
        if output.json {
            print_line(&json!({"index": index, "embedding": row}))?;
        } else {
            let numbers: Vec<String> = row.iter().map(f32::to_string).collect();
            print(&format!("{}\n", numbers.join(" ")))?;
        }
    }
    if !output.quiet && !output.json {
        let (count, tokens) = (found.rows().len(), found.tokens);
        let rate = tokens as f64 / seconds;
        let (texts, tokens) = (counted(count, "text"), counted(tokens, "token"));
        note(format_args!("{texts}, {tokens} in {seconds:.2} s ({rate:.0} tokens/s)"));
    }
    Ok(Outcome::Done)
}

pub(crate) fn rerank(args: &RerankArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let (batch, output) = (&args.batch, &args.batch.common.output);
    let reads = reads_of_stdin(args.documents.iter().chain([&args.query]), batch)?;
    let documents = texts(&args.documents, batch, "DOCUMENT")?;
    let query = text_of(&args.query)?;
    let model = open(batch, reads)?;
    let scores = watch("scoring", output, |progress| {
        model.rerank_with_progress(&query, &documents, &options, progress)
    })
    .map_err(|error| placed(error, batch, "DOCUMENT"))?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    for index in order {
        let (score, document) = (scores[index], &documents[index]);
        if output.json {
            print_line(&json!({"index": index, "score": score, "document": document}))?;
        } else {
            print(&format!("{score:.6}\t{document}\n"))?;
        }
    }
    Ok(Outcome::Done)
}

/// Whether stdin is read.
///
/// # Errors
/// `InvalidArgument` if it would be read twice.
fn reads_of_stdin<'a>(given: impl Iterator<Item = &'a Given>, batch: &BatchArgs) -> Result<bool> {
    let of_input = usize::from(batch.input.as_ref().is_some_and(|path| is_stdin(path)));
    let times = given.filter(|given| **given == Given::Stdin).count() + of_input;
    if times > 1 {
        let message = format!(
            "expected `-` once, as stdin can only be read once, found it {times} times (after `--`, `-` is a text)"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "input"));
    }
    Ok(times == 1)
}

/// Loads the model.
fn open(batch: &BatchArgs, reads_stdin: bool) -> Result<Model> {
    let model = load(Some(&batch.model), &batch.common.load.options()?, &batch.common)?;
    // By now stdin has data, if it ever will.
    if !reads_stdin {
        warn_of_unread("`-` reads it as one text, --input - as one text per line", &batch.common.output);
    }
    Ok(model)
}

/// Names the text that an error is about as on the command line, instead of `texts[2]`.
fn placed(error: Error, batch: &BatchArgs, what: &str) -> Error {
    let Some(index) = error.detail().get("text").and_then(Value::as_u64) else { return error };
    let place = match &batch.input {
        Some(path) => format!("{}, line {}", name_of(path), index + 1),
        None => format!("{what} {}", index + 1),
    };
    let message = match error.message().split_once(&format!("[{index}]: ")) {
        Some((name, rest)) if !name.contains(' ') => rest,
        _ => error.message(),
    };
    let detail = error.detail().clone();
    let placed = Error::new(error.kind(), format!("{place}: {message}"));
    detail.into_iter().fold(placed, |error, (key, value)| error.with(&key, value))
}

/// The given texts, or the lines of a file.
fn texts(given: &[Given], batch: &BatchArgs, what: &str) -> Result<Vec<String>> {
    let Some(path) = &batch.input else {
        if given.is_empty() {
            let message =
                format!("expected a {what} (`-` for stdin), or --input FILE with one per line; found none");
            return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "input"));
        }
        return given.iter().map(text_of).collect();
    };
    Ok(read(path)?.lines().map(str::to_owned).collect())
}
