//! Texts between tags, as in XML but without its escapes.

use crate::output::format::{End, Quotes};
use crate::output::marks::EndSearch;
use crate::output::tools::Tools;
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

/// The bytes of the JSON list or object that a text begins with, in whose texts marks do not count; 0 if there is none.
pub(super) fn json_length(text: &str) -> usize {
    if !text.trim_start().starts_with(['{', '[']) {
        return 0;
    }
    let found = EndSearch::new(End::Value, Quotes::Json).find(text, &Tools::default());
    found.map_or(0, |found| found.whole)
}

/// Where marks begin to count in the text of an argument: after its list or object, if it is JSON. JSON that does not end has marks
/// everywhere.
///
/// # Errors
/// For JSON that does not end, if more text may come: `grows`.
pub(super) fn marks_from(text: &str, is_json: bool, grows: bool) -> Result<usize, String> {
    let from = if is_json { json_length(text) } else { 0 };
    match grows && is_json && from == 0 && text.trim_start().starts_with(['{', '[']) {
        true => Err(format!("expected the end of {}", start_of(text))),
        false => Ok(from),
    }
}

/// As [`between`], of a text that may begin with JSON. `grows`: as in [`marks_from`].
///
/// # Errors
/// As [`between`].
pub(super) fn argument<'a>(
    text: &'a str,
    close: &str,
    is_json: bool,
    grows: bool,
) -> Result<(&'a str, &'a str), String> {
    let from = marks_from(text, is_json, grows)?;
    let (rest, after) = between(&text[from..], close)?;
    Ok((&text[..from + rest.len()], after))
}

/// A value on lines of its own, without the line ends next to its tags.
pub(super) fn of_lines(text: &str) -> &str {
    let text = text.strip_prefix('\n').unwrap_or(text);
    text.strip_suffix('\n').unwrap_or(text)
}
