//! A status line on stderr while the user waits.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use clawdbot_core::{Progress, Result};

use crate::args::OutputArgs;
use crate::interrupt::Work;
use crate::output::note;

/// Shorter waits need no line, and more frequent changes cannot be read.
const INTERVAL: Duration = Duration::from_millis(150);
/// Characters of the bar.
const WIDTH: u64 = 32;

/// A line that is overwritten, and erased at the end. Shown if stderr is a terminal.
pub(crate) struct StatusLine {
    visible: bool,
    /// Whether one message may still be printed if stderr is not a terminal.
    audible: bool,
    /// Whether a line has to be erased.
    shown: bool,
    changed: Instant,
}

impl StatusLine {
    pub(crate) fn new(output: &OutputArgs) -> Self {
        let audible = !output.quiet && !output.json;
        let visible = io::stderr().is_terminal() && audible;
        StatusLine { visible, audible, shown: false, changed: Instant::now() }
    }

    /// Shows `text` unless the line has changed just before.
    pub(crate) fn update(&mut self, text: impl FnOnce() -> String) {
        if self.visible && self.changed.elapsed() >= INTERVAL {
            self.show(&text());
        }
    }

    /// Shows `text` at once; without a terminal, as the only message.
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
    // Carriage return, then erase to the end of the line.
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

pub(crate) fn bar(what: &str, done: u64, total: u64) -> String {
    let filled =
        (u128::from(done) * u128::from(WIDTH) / u128::from(total.max(1))).min(u128::from(WIDTH)) as usize;
    let rest = WIDTH as usize - filled;
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    format!("{what} [{}{}] {percent:3} %", "#".repeat(filled), " ".repeat(rest))
}

/// The bar of `what`, or of its stage.
fn shown(what: &str, now: Progress) -> String {
    match now.stage {
        Some(stage) => bar(&stage.to_string(), now.done, now.total),
        None => bar(what, now.done, now.total),
    }
}

/// Does `work` with a progress bar. Ctrl-C cancels.
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
        line.update(|| shown(what, now));
        interrupt.next()
    })
}

#[cfg(test)]
mod tests {
    use clawdbot_core::Stage;

    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar("loading", 0, 10), format!("loading [{}]   0 %", " ".repeat(32)));
        assert_eq!(bar("loading", 5, 10), format!("loading [{}{}]  50 %", "#".repeat(16), " ".repeat(16)));
        assert_eq!(bar("loading", u64::MAX, u64::MAX), format!("loading [{}] 100 %", "#".repeat(32)));
        assert!(bar("loading", 0, 0).ends_with("  0 %"));
        let mut now = Progress { done: 5, total: 10, stage: None };
        assert!(shown("packing", now).starts_with("packing [####"));
        now.stage = Some(Stage::CalibratingLayer { layer: 3, layers: 30 });
        assert!(shown("packing", now).starts_with("calibrating layer 3 of 30 [####"));
        now.stage = Some(Stage::CalibratingOutput);
        assert!(shown("packing", now).starts_with("calibrating the output layer [####"));
        now.stage = Some(Stage::EvaluatingLayer { layer: 3, layers: 30 });
        assert!(shown("evaluating", now).starts_with("evaluating layer 3 of 30 [####"));
    }
}
