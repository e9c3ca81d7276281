//! Which models can guess tokens, and how.

use crate::error::{Error, Result};
use crate::load::source::Opened;
use crate::options::{ModelOptions, Speculation};

/// Refuses to guess tokens of a model that generates none.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn check_speculation(opened: &Opened, options: &ModelOptions) -> Result<()> {
    if options.speculation == Speculation::None || opened.spec.generates() {
        return Ok(());
    }
    let (architecture, found) = (opened.spec.architecture, options.speculation.name());
    let message = format!(
        "option speculation: expected none, as {architecture} has no output layer and generates nothing, found {found}"
    );
    Err(Error::invalid_argument(message)
        .with("option", "speculation")
        .with("expected", "none")
        .with("found", found))
}
