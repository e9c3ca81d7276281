//! The runtime of a command, and loading its model.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clawdbot_core::{LogLevel, Model, ModelOptions, Result, Runtime, RuntimeOptions, Source};

use crate::args::{CommonArgs, OutputArgs, RuntimeArgs};
use crate::hub::source;
use crate::output::{in_own_terms, warn};
use crate::progress::watch;

impl RuntimeArgs {
    /// A runtime with these options. Its warnings go to stderr.
    pub(crate) fn runtime(&self, output: &OutputArgs) -> Result<Runtime> {
        runtime(&self.options()?, output)
    }
}

/// A runtime with `options`. Its warnings go to stderr.
pub(crate) fn runtime(options: &RuntimeOptions, output: &OutputArgs) -> Result<Runtime> {
    if output.quiet {
        return Runtime::new(options);
    }
    // What every message of a chat would say again is said once.
    let last = Mutex::new(String::new());
    Runtime::with_log(options, move |record| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if record.level == LogLevel::Warning && *last != record.message {
            last.clone_from(&record.message);
            warn(&in_own_terms(&record.message));
        }
    })
}

/// Loads a model with a progress bar, on a new runtime. Ctrl-C cancels.
///
/// # Errors
/// As `Source::fetch` and [`Runtime::load`]; `Cancelled`.
pub(crate) fn load(model: Option<&PathBuf>, options: &ModelOptions, args: &CommonArgs) -> Result<Model> {
    let runtime = args.runtime.runtime(&args.output)?;
    let source = source(&runtime, model, None, &args.hub, &args.output)?;
    load_on(&runtime, &source, options, &args.output)
}

/// Loads a model with a progress bar, on an existing runtime. Ctrl-C cancels.
///
/// # Errors
/// As [`Runtime::load`]; `Cancelled`.
pub(crate) fn load_on(
    runtime: &Runtime,
    source: &Source,
    options: &ModelOptions,
    output: &OutputArgs,
) -> Result<Model> {
    watch("loading", output, |progress| runtime.load_with_progress(source, options, progress))
}
