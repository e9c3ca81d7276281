//! What describes a format: how calls, or reasoning, are marked in a model's output.

use super::call::Calls;
use super::preview::Begin;
pub(super) use super::quotes::{Arguments, Quotes};
use super::tools::Tools;
use super::writing::Writing;

/// How a family of models writes tool calls.
#[derive(Debug)]
pub(super) struct ToolFormat {
    /// Its name in `tool_format`.
    pub(super) name: &'static str,
    /// Models that write it, for the documentation.
    #[allow(dead_code, reason = "a test compares the documentation with it")]
    pub(super) models: &'static str,
    /// A call in this format, for the documentation.
    #[allow(dead_code, reason = "a test compares the documentation with it")]
    pub(super) example: &'static str,
    /// Texts that a chat template has if its model writes this format: all those of one line.
    pub(super) template: &'static [&'static [&'static str]],
    /// Marks inside of calls, for formats whose marks are special tokens.
    pub(super) inner: &'static [&'static str],
    /// How calls are written where they are enforced; `None` if they cannot be.
    pub(super) writing: Option<Writing>,
    pub(super) grammar: Grammar,
}

/// How reasoning is marked.
#[derive(Debug)]
pub(super) struct ReasoningFormat {
    /// Its name in `reasoning_format`.
    pub(super) name: &'static str,
    /// Models that write it, for the documentation.
    #[allow(dead_code, reason = "a test compares the documentation with it")]
    pub(super) models: &'static str,
    /// As in [`ToolFormat`].
    pub(super) template: &'static [&'static [&'static str]],
    /// What opens it: the first one in documentation.
    pub(super) open: &'static [&'static str],
    pub(super) close: &'static str,
    /// Whether it may come after text of the answer too: only if the marks are no text that an answer has.
    pub(super) anywhere: bool,
    /// Marks around the answer, which are left out.
    pub(super) dropped: &'static [&'static str],
    /// Whether it is that of [`Grammar::Messages`], with no marks of its own.
    pub(super) messages: bool,
}

impl ReasoningFormat {
    /// Whether a prompt whose text ends with `tail` has opened it.
    pub(super) fn opened_by(&self, tail: &str) -> bool {
        let tail = tail.trim_end();
        self.open.iter().any(|open| tail.ends_with(open.trim_end()))
    }
}

/// How the output is divided.
#[derive(Debug, Clone, Copy)]
pub(super) enum Grammar {
    /// Text with blocks of calls in it.
    Blocks {
        blocks: &'static [Block],
        /// Marks between blocks, which are left out.
        dropped: &'static [&'static str],
    },
    /// OpenAI's Harmony: messages with headers (`harmony.rs`).
    Messages,
}

/// A part of the output with calls in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) open: &'static str,
    pub(super) end: End,
    /// Where marks do not count.
    pub(super) quotes: Quotes,
    /// Whether it opens only where no text of the answer came before: for marks that a text may have.
    pub(super) first: bool,
    /// Whether what opens it is part of what is read.
    pub(super) keeps_open: bool,
    /// Whether it is ordinary text, without a warning, if there is no call in it.
    pub(super) maybe: bool,
    /// Whether reasoning ends where it opens: for marks that are special tokens, which are not written in passing.
    pub(super) ends_reasoning: bool,
    /// Reads what is in it.
    pub(super) read: fn(&str, &Tools) -> Calls,
    /// What the beginning of its text says of its preview. Once it says something, it says so of all longer texts.
    pub(super) begin: fn(&str) -> Begin,
}

/// Where a block ends; the end of the output ends every block.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// With this mark, which is left out.
    Mark(&'static str),
    /// After a JSON value: the first list, or object.
    Value,
    /// With the output.
    Output,
}

impl Block {
    /// A block between two marks.
    pub(super) const fn between(
        open: &'static str,
        close: &'static str,
        quotes: Quotes,
        read: fn(&str, &Tools) -> Calls,
        begin: fn(&str) -> Begin,
    ) -> Self {
        let end = End::Mark(close);
        Block {
            open,
            end,
            quotes,
            first: false,
            keeps_open: false,
            maybe: false,
            ends_reasoning: false,
            read,
            begin,
        }
    }

    /// A JSON value after a mark.
    pub(super) const fn value(
        open: &'static str,
        read: fn(&str, &Tools) -> Calls,
        begin: fn(&str) -> Begin,
    ) -> Self {
        let (end, quotes) = (End::Value, Quotes::Json);
        Block {
            open,
            end,
            quotes,
            first: false,
            keeps_open: false,
            maybe: false,
            ends_reasoning: false,
            read,
            begin,
        }
    }

    /// The same block, with arguments that may be JSON.
    pub(super) const fn with_arguments(mut self, arguments: &'static Arguments) -> Self {
        self.quotes = Quotes::Arguments(arguments);
        self
    }

    /// What opens and closes it.
    pub(super) fn marks(&self) -> impl Iterator<Item = &'static str> {
        let close = match self.end {
            End::Mark(mark) => Some(mark),
            End::Value | End::Output => None,
        };
        std::iter::once(self.open).chain(close)
    }

    /// The same block, with a special token as its mark.
    pub(super) const fn special(mut self) -> Self {
        self.ends_reasoning = true;
        self
    }

    /// An output that is nothing but calls, and begins with `open`.
    pub(super) const fn whole(
        open: &'static str,
        read: fn(&str, &Tools) -> Calls,
        begin: fn(&str) -> Begin,
    ) -> Self {
        let (end, quotes) = (End::Output, Quotes::None);
        Block {
            open,
            end,
            quotes,
            first: true,
            keeps_open: true,
            maybe: true,
            ends_reasoning: false,
            read,
            begin,
        }
    }
}
