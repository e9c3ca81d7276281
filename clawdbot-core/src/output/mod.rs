//! Reads what a model wrote: its reasoning, the answer, and the calls of functions that it asks for.
//!
//! A format is an entry of the tables in `table.rs` and `reasoning.rs`; `formats/` has a file for each kind of calls. Most formats
//! are text with blocks between marks, which `blocks.rs` divides; `harmony.rs` reads messages with headers. A call comes once it
//! is complete; what cannot be read as a call stays text, with a warning. `preview.rs` gives the beginnings of calls before.

mod blocks;
mod call;
mod compact;
mod format;
mod formats;
mod harmony;
mod marks;
mod normal;
mod objects;
mod parser;
mod preview;
mod quotes;
mod reasoning;
mod steps;
mod table;
mod tools;
mod value;
mod writing;
mod written;

pub(crate) use call::{Piece, place_after};
pub use call::{ToolCall, ToolCallDelta};
pub(crate) use harmony::MARKS as HARMONY_MARKS;
pub(crate) use parser::{OutputFormats, OutputParser, ReasoningMarks};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use table::output_examples;
pub(crate) use table::{
    AUTO, NONE, REASONING_FORMAT_NAMES, TOOL_FORMAT_NAMES, reasoning_format_of, tool_format_of,
};
pub(crate) use tools::Tools;
pub(crate) use writing::{Function, Part, functions};
pub(crate) use written::{Opening, WrittenCalls};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_previews;
