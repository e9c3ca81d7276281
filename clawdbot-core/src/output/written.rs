//! The calls that a format's grammar has: those of some functions, one or several.

use super::call::RawCall;
use super::table::{marks_of, tool_format};
use super::writing::{Function, Part, Writing};

/// Most functions.
const MAX_FUNCTIONS: usize = 512;

/// Calls of one format as they may be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WrittenCalls {
    /// With what they begin.
    pub(crate) open: &'static str,
    /// As [`Writing::mark`].
    pub(crate) mark: &'static str,
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
        let Writing { open, mark, close, .. } = writing;
        Ok(WrittenCalls { open, mark, close, rest, marks: marks_of(format) })
    }
}

/// Refuses what a reader would not read back.
fn named(function: &Function) -> Result<(), String> {
    let call = RawCall::new(&function.name, String::new())?;
    match call.name == function.name {
        true => Ok(()),
        false => Err("expected a name without white space around it".to_owned()),
    }
}
