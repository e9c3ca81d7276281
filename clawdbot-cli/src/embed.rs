//! `clawdbot embed` and `clawdbot rerank`

use std::path::Path;
use std::time::Instant;

use clawdbot_core::{Error, ErrorKind, Prompt, Result};
use serde_json::json;

use crate::Outcome;
use crate::args::{EmbedArgs, RerankArgs};
use crate::generate::read;
use crate::hub::source;
use crate::output::{Failure, note, print, print_line};
use crate::progress::{load, watch};

pub(crate) fn run(args: &EmbedArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let texts = texts(&args.texts, args.input.as_deref(), "TEXT")?;
    let runtime = args.runtime.runtime(&args.output)?;
    let source = source(&runtime, Some(&args.model), None, &args.hub, &args.output)?;
    let model = load(&runtime, &source, &args.load, &args.output)?;
    let start = Instant::now();
    let prompts = texts.into_iter().map(Prompt::Text).collect();
    let found =
        watch("embedding", &args.output, |progress| model.embed_with_progress(prompts, &options, progress))?;
    let seconds = start.elapsed().as_secs_f64();
    for (index, row) in found.rows().enumerate() {
        if args.output.json {
            print_line(&json!({"index": index, "embedding": row}))?;
        } else {
            let numbers: Vec<String> = row.iter().map(f32::to_string).collect();
            print(&format!("{}\n", numbers.join(" ")))?;
        }
    }
    if !args.output.quiet && !args.output.json {
        let (count, tokens) = (found.rows().len(), found.tokens);
        let rate = tokens as f64 / seconds;
        note(format_args!("{count} texts, {tokens} tokens in {seconds:.2} s ({rate:.0} tokens/s)"));
    }
    Ok(Outcome::Done)
}

pub(crate) fn rerank(args: &RerankArgs) -> Result<Outcome, Failure> {
    let options = args.options.options()?;
    let documents = texts(&args.documents, args.input.as_deref(), "DOCUMENT")?;
    let runtime = args.runtime.runtime(&args.output)?;
    let source = source(&runtime, Some(&args.model), None, &args.hub, &args.output)?;
    let model = load(&runtime, &source, &args.load, &args.output)?;
    let scores = watch("scoring", &args.output, |progress| {
        model.rerank_with_progress(&args.query, &documents, &options, progress)
    })?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    for index in order {
        let (score, document) = (scores[index], &documents[index]);
        if args.output.json {
            print_line(&json!({"index": index, "score": score, "document": document}))?;
        } else {
            print(&format!("{score:.6}\t{document}\n"))?;
        }
    }
    Ok(Outcome::Done)
}

/// Those that were given, or the lines of a file; `-` is stdin.
fn texts(given: &[String], input: Option<&Path>, what: &str) -> Result<Vec<String>> {
    let Some(path) = input else {
        if given.is_empty() {
            let message = format!("expected a {what}, or --input FILE with one a line (`-` for stdin)");
            return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "input"));
        }
        return Ok(given.to_vec());
    };
    Ok(read(path)?.lines().map(str::to_owned).collect())
}
