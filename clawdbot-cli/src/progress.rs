//! A status line on stderr, for people who wait.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clawdbot_core::{Model, ModelOptions, Progress, Result, Runtime, Source};

use crate::args::{CommonArgs, OutputArgs};
use crate::hub::source;
use crate::interrupt::Work;
use crate::output::note;

/// What is over sooner is not worth a line, and the eye sees no more changes than one in this time.
const INTERVAL: Duration = Duration::from_millis(150);
/// Cells of the bar.
const WIDTH: u64 = 32;

/// A line that is written over, and gone at the end. Shown when stderr is a terminal.
pub(crate) struct StatusLine {
    visible: bool,
    /// Whether something may be said on stderr that is no terminal, once.
    audible: bool,
    /// Whether there is something to erase.
    shown: bool,
    changed: Instant,
}

impl StatusLine {
    pub(crate) fn new(output: &OutputArgs) -> Self {
        let audible = !output.quiet && !output.json;
        let visible = io::stderr().is_terminal() && audible;
        StatusLine { visible, audible, shown: false, changed: Instant::now() }
    }

    /// Shows `text` unless the line changed a moment ago.
    pub(crate) fn update(&mut self, text: impl FnOnce() -> String) {
        if self.visible && self.changed.elapsed() >= INTERVAL {
            self.show(&text());
        }
    }

    /// Shows `text` at once; where lines cannot be written over, as the only one.
    pub(crate) fn announce(&mut self, text: &str) {
        if !self.visible && std::mem::take(&mut self.audible) {
            note(text);
        }
        self.show(text);
    }

    /// Shows `text` at once.
    pub(crate) fn show(&mut self, text: &str) {
        if self.visible {
            self.shown = true;
            self.changed = Instant::now();
            write_over(text);
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        if self.shown {
            write_over("");
        }
    }
}

fn write_over(text: &str) {
    let mut stderr = io::stderr().lock();
    // Carriage return, erase to the end of the line.
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

pub(crate) fn bar(what: &str, done: u64, total: u64) -> String {
    let filled =
        (u128::from(done) * u128::from(WIDTH) / u128::from(total.max(1))).min(u128::from(WIDTH)) as usize;
    let rest = WIDTH as usize - filled;
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!("{what} [{}{}] {percent:3} %", "#".repeat(filled), " ".repeat(rest))
}

/// Does `work`, which reports its progress, with a bar. Ctrl-C cancels.
///
/// # Errors
/// As `work`.
pub(crate) fn watch<T>(
    what: &str,
    output: &OutputArgs,
    work: impl FnOnce(&mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<T>,
) -> Result<T> {
    let interrupt = Work::begin();
    let mut line = StatusLine::new(output);
    work(&mut |now| {
        line.update(|| bar(what, now.done, now.total));
        interrupt.next()
    })
}

/// Loads a model with a bar, on a runtime of its own. Ctrl-C cancels.
///
/// # Errors
/// As `Source::fetch` and [`Runtime::load`]; `Cancelled`.
pub(crate) fn load(model: Option<&PathBuf>, options: &ModelOptions, args: &CommonArgs) -> Result<Model> {
    let runtime = args.runtime.runtime(&args.output)?;
    let source = source(&runtime, model, None, &args.hub, &args.output)?;
    load_on(&runtime, &source, options, &args.output)
}

/// The same, on a runtime that there is.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar("loading", 0, 10), format!("loading [{}]   0 %", " ".repeat(32)));
        assert_eq!(bar("loading", 5, 10), format!("loading [{}{}]  50 %", "#".repeat(16), " ".repeat(16)));
        assert_eq!(bar("loading", u64::MAX, u64::MAX), format!("loading [{}] 100 %", "#".repeat(32)));
        assert!(bar("loading", 0, 0).ends_with("  0 %"));
    }
}
