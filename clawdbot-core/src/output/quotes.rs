//! Quotes around texts in calls: marks in such texts are text.

use super::tools::Tools;

/// Which quotes texts have in a block.
#[derive(Debug, Clone, Copy)]
pub(super) enum Quotes {
    /// None: marks are marks everywhere.
    None,
    /// `"`, with backslashes, as in JSON.
    Json,
    /// `"` and `'`, with backslashes, as in Python.
    Python,
    /// A mark before and after.
    Mark(&'static str),
    /// `"` in arguments that are JSON, and none in others.
    Arguments(&'static Arguments),
}

/// Where arguments are that have no quotes if they are texts.
#[derive(Debug)]
pub(super) struct Arguments {
    /// What comes before the name of a function; empty if that is at the beginning.
    pub(super) function: &'static str,
    /// What comes before the key of an argument.
    pub(super) key: &'static str,
    /// What comes after it, and before the value.
    pub(super) open: &'static str,
    /// What comes after the value.
    pub(super) close: &'static str,
    /// Whether an argument is JSON. The first text begins with the function's name, the second one is the key.
    pub(super) is_json: fn(&str, &str, &Tools) -> bool,
}
