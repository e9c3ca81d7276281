//! Texts between tags, as in XML but without its escapes.

use crate::output::value::start_of;

/// What comes after `tag`, if the text begins with it after spaces.
pub(super) fn next_tag<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    text.trim_start().strip_prefix(tag)
}

/// The text before `close`, and what comes after it.
///
/// # Errors
/// Where there is no `close`.
pub(super) fn between<'a>(text: &'a str, close: &str) -> Result<(&'a str, &'a str), String> {
    text.split_once(close).ok_or_else(|| format!("expected {close} after {}", start_of(text)))
}

/// A value on lines of its own, without the line ends next to its tags.
pub(super) fn of_lines(text: &str) -> &str {
    let text = text.strip_prefix('\n').unwrap_or(text);
    text.strip_suffix('\n').unwrap_or(text)
}
