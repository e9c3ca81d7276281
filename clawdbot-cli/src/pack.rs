//! `clawdbot pack`

use std::time::Instant;

use clawdbot_core::{ModelOptions, Source};
use serde_json::json;

use crate::args::{PackArgs, Packing};
use crate::hub::source;
use crate::output::{Failure, Outcome, print, print_line};
use crate::progress::watch;
use crate::report::{bytes, peak_rss_bytes};

pub(crate) fn run(args: &PackArgs) -> Result<Outcome, Failure> {
    let runtime = args.runtime.runtime(&args.output)?;
    let Packing { model, shape, target } = args.packing()?;
    let options = args.options.options()?;
    let source = source(&runtime, model, shape, &args.hub, &args.output)?;
    let start = Instant::now();
    let doing = if options.calibrate.is_some() { "calibrating and packing" } else { "packing" };
    let size = watch(doing, &args.output, |progress| {
        runtime.pack_with_progress(&source, target, &options, progress)
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let path = target.display().to_string();
    let weights = runtime.plan(&Source::Path(target.to_owned()), &ModelOptions::default())?.weights;
    if args.output.json {
        print_line(&json!({
            "path": path, "bytes": size, "weights": weights, "seconds": seconds,
            "peak_rss_bytes": peak_rss_bytes(),
        }))?;
    } else if !args.output.quiet {
        print(&format!("{path}: {} of {} weights, packed in {seconds:.2} s\n", bytes(size), weights))?;
    }
    Ok(Outcome::Done)
}
