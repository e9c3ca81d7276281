//! The calls that a format's grammar has: those of some functions, one or several.

use super::call::RawCall;
use super::format::{Block, Grammar, ToolFormat};
use super::harmony::HEADER_MARKS;
use super::table::{marks_of, tool_format};
use super::writing::{Function, Part, Writing};

/// Most functions.
const MAX_FUNCTIONS: usize = 512;

/// Calls of one format as they may be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WrittenCalls {
    /// With what they begin.
    pub(crate) open: &'static str,
    /// As [`Writing::before`].
    pub(crate) before: Vec<Part>,
    /// What begins them in a free text; `None` if free text and calls are messages.
    pub(crate) opening: Option<Opening>,
    /// What begins calls that are written in another way.
    pub(crate) others: Vec<Opening>,
    /// With what they end.
    pub(crate) close: &'static str,
    /// What follows `open`, `close` included.
    pub(crate) rest: Vec<Part>,
    /// Texts that special tokens may stand for.
    pub(crate) marks: Vec<&'static str>,
}

impl WrittenCalls {
    /// Calls of `functions` in the format of this name, which is one; with `parallel`, several where the format has several.
    ///
    /// # Errors
    /// What is expected instead, for a format that is not enforced, and for functions that it cannot call.
    pub(crate) fn new(format: &str, functions: &[Function], parallel: bool) -> Result<Self, String> {
        let enforced = tool_format(format).and_then(|format| Some((format, format.writing?)));
        let (format, writing) = enforced
            .ok_or_else(|| format!("expected another tool_format than {format}, which is not enforced"))?;
        if functions.len() > MAX_FUNCTIONS {
            return Err(format!("expected at most {MAX_FUNCTIONS} functions, found {}", functions.len()));
        }
        let twice = |(at, function): &(usize, &Function)| {
            functions[..*at].iter().any(|one| one.name == function.name)
        };
        if let Some((_, function)) = functions.iter().enumerate().find(twice) {
            return Err(format!("function {:?}: expected a name of its own, found two of it", function.name));
        }
        let calls = functions.iter().map(|function| {
            named(function)
                .and_then(|()| (writing.call)(function))
                .map_err(|reason| format!("function {:?}: {reason}", function.name))
        });
        let calls = calls.collect::<Result<Vec<_>, _>>()?;
        let item = vec![Part::One(calls)];
        let mut rest = match writing.between.filter(|_| parallel) {
            Some(between) => vec![Part::Many { item, between }],
            None => item,
        };
        if !writing.close.is_empty() {
            rest.push(Part::text(writing.close));
        }
        let Writing { open, close, .. } = writing;
        let (opening, others) = openings(format, writing.mark);
        let (before, marks) = ((writing.before)(), marks_of(format));
        Ok(WrittenCalls { open, before, opening, others, close, rest, marks })
    }
}

/// A mark that begins calls in a free text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) mark: &'static str,
    /// Whether it counts only where no text came before it.
    pub(crate) first: bool,
    /// Whether it counts in reasoning, which it ends.
    pub(crate) in_reasoning: bool,
}

/// What begins the calls of a format that begin with `mark`, and what begins others.
fn openings(format: &ToolFormat, mark: &'static str) -> (Option<Opening>, Vec<Opening>) {
    let Grammar::Blocks { blocks, .. } = format.grammar else {
        // Reasoning is a message, which has no header in it.
        let inside = |&mark| Opening { mark, first: false, in_reasoning: true };
        return (None, HEADER_MARKS.iter().map(inside).collect());
    };
    let exact = blocks.iter().any(|block| block.open == mark);
    let (same, others): (Vec<&Block>, Vec<&Block>) = blocks.iter().partition(|block| match exact {
        true => block.open == mark,
        false => block.open.starts_with(mark) || mark.starts_with(block.open),
    });
    // A mark around blocks counts where they do.
    let which = if same.is_empty() { &others } else { &same };
    let opening = Opening {
        mark,
        first: !same.is_empty() && same.iter().all(|block| block.first),
        in_reasoning: which.iter().any(|block| block.ends_reasoning),
    };
    let others = others.into_iter().map(|block| Opening {
        mark: block.open,
        first: block.first,
        in_reasoning: block.ends_reasoning,
    });
    (Some(opening), others.collect())
}

/// Refuses what a reader would not read back.
fn named(function: &Function) -> Result<(), String> {
    let call = RawCall::new(&function.name, String::new())?;
    match call.name == function.name {
        true => Ok(()),
        false => Err("expected a name without white space around it".to_owned()),
    }
}
