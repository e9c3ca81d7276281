//! `clawdbot evaluate`

use clawdbot_core::{Evaluation, LayerError, Source};
use serde_json::json;

use crate::args::EvaluateArgs;
use crate::hub::{another, source};
use crate::output::{Failure, Outcome, print, print_line};
use crate::progress::watch;
use crate::report::{counted, peak_rss_bytes};

/// So that nobody is alarmed.
const OF_BUILTIN: &str = "\
The built-in model is a tiny one that knows short stories alone: its perplexity on other texts is large.
";

pub(crate) fn run(args: &EvaluateArgs) -> Result<Outcome, Failure> {
    let runtime = args.runtime.runtime(&args.output)?;
    let mut options = args.options.options()?;
    let source = source(&runtime, args.model(), args.shape.as_ref(), &args.hub, &args.output)?;
    if let Some(path) = &options.reference_model
        && let Source::Path(path) = another(&runtime, path, &args.hub, &args.output)?
    {
        options.reference_model = Some(path);
    }
    let mut found = None;
    let stored = watch("evaluating", &args.output, |progress| {
        runtime.evaluate_with_report(&source, &options, progress, |report| found = Some(report.clone()))
    });
    // Also when it could not be stored.
    if let Some(found) = found {
        if args.output.json {
            let mut object = json!(found);
            object["peak_rss_bytes"] = json!(peak_rss_bytes());
            print_line(&object)?;
        } else {
            print(&table(&found))?;
            if matches!(source, Source::Builtin) && !args.output.quiet {
                print(OF_BUILTIN)?;
            }
        }
    }
    stored?;
    Ok(Outcome::Done)
}

fn table(found: &Evaluation) -> String {
    let Evaluation { model, weights, kv, kernels, .. } = found;
    let threads = counted(found.threads, "thread");
    let sequences = counted(found.sequences, "sequence");
    let mut perplexity = format!("{:.4}", found.perplexity);
    if let Some(reference) = &found.reference {
        perplexity += &format!(" (reference: {:.4})", reference.perplexity);
    }
    let mut rows = vec![
        ("model", format!("{model}, {weights} weights, {kv} KV cache, {kernels}, {threads}")),
        ("text", format!("{}, {sequences}, {}", found.text, counted(found.tokens, "token"))),
    ];
    if let Some(reference) = &found.reference {
        rows.push(("reference", format!("{}, {} KV cache", reference.description, reference.kv)));
    }
    rows.push(("perplexity", perplexity));
    if let (Some(mean), Some(error), Some(p99)) = (found.kl_divergence, found.kl_standard_error, found.kl_p99)
    {
        let divergence =
            format!("{mean:.3e} nats (standard error {error:.1e}; 99 % of tokens: at most {p99:.2e})");
        rows.push(("divergence", divergence));
    }
    if let Some(top1) = found.top1_agreement {
        rows.push(("same top-1", format!("{:.2} %", 100.0 * top1)));
    }
    let speed = format!("{:.1} tokens/s, evaluated in {:.1} s", found.tokens_per_s, found.seconds);
    rows.push(("speed", speed));
    let mut text: String = rows.into_iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect();
    if !found.layers.is_empty() {
        text += "\nrelative error of the residual stream after each layer (0: embedding)\n";
        text += &format!("{:>5}{:>16}{:>16}\n", "layer", "all tokens", "mean of tokens");
    }
    for LayerError { layer, relative_error, mean_token_error, .. } in &found.layers {
        let percent = |error: &f64| format!("{:.4} %", 100.0 * error);
        let (all, mean) = (percent(relative_error), percent(mean_token_error));
        text += &format!("{layer:>5}{all:>16}{mean:>16}\n");
    }
    text
}
