//! The parser of an output: which reader it takes, and what it must see.

use super::blocks::Blocks;
use super::call::Piece;
use super::format::{Grammar, ReasoningFormat, ToolFormat};
use super::harmony::{ANALYSIS, FINAL, MARKS, Messages, NEXT, Wants};
use super::table::{marks_of, reasoning_format, tool_format, with_tokens};
use super::tools::Tools;
use crate::error::{Error, Result};

/// How an output is read: formats of calls and of reasoning, by their names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputFormats {
    tools: Option<&'static ToolFormat>,
    reasoning: Option<&'static ReasoningFormat>,
}

impl OutputFormats {
    /// The formats with these names; `None` if nothing is to be read. Any name that is no format stands for none.
    ///
    /// # Errors
    /// `InvalidArgument` for Harmony and another format: its messages hold both.
    pub(crate) fn new(tools: &str, reasoning: &str) -> Result<Option<Self>> {
        let (tools, reasoning) = (tool_format(tools), reasoning_format(reasoning));
        if let (Some(tools), Some(reasoning)) = (tools, reasoning)
            && matches!(tools.grammar, Grammar::Messages) != reasoning.messages
        {
            let (expected, found) =
                if reasoning.messages { ("none", reasoning) } else { ("harmony or none", reasoning) };
            let found = found.name;
            let message = format!(
                "option reasoning_format: expected {expected} with tool_format {}, found {found}",
                tools.name
            );
            let error = Error::invalid_argument(message).with("option", "reasoning_format");
            return Err(error.with("expected", expected).with("found", found));
        }
        Ok((tools.is_some() || reasoning.is_some()).then_some(OutputFormats { tools, reasoning }))
    }

    /// The marks that a parser must see, where they are special tokens.
    pub(crate) fn marks(&self) -> Vec<&'static str> {
        let mut marks = self.tools.map(marks_of).unwrap_or_default();
        if let Some(reasoning) = self.reasoning {
            marks.extend_from_slice(reasoning.open);
            marks.push(reasoning.close);
            marks.extend_from_slice(reasoning.dropped);
            if reasoning.messages {
                marks.extend_from_slice(MARKS);
            }
        }
        with_tokens(marks)
    }

    /// The marks of the reasoning that may come after a prompt whose text ends with `tail`.
    pub(crate) fn reasoning_marks(&self, tail: &str) -> Option<ReasoningMarks> {
        if self.is_messages() {
            let open: &'static [&'static str] = &[ANALYSIS];
            let opened = tail.trim_end().ends_with(ANALYSIS);
            let (anywhere, dropped) = (false, &[][..]);
            return Some(ReasoningMarks { open, close: NEXT, opened, spaces: false, anywhere, dropped });
        }
        let format = self.reasoning?;
        let opened = format.opened_by(tail);
        let ReasoningFormat { open, close, anywhere, dropped, .. } = *format;
        Some(ReasoningMarks { open, close, opened, spaces: true, anywhere, dropped })
    }

    /// What is written before the text of an answer.
    pub(crate) fn answer_header(&self) -> &'static str {
        if self.is_messages() { FINAL } else { "" }
    }

    fn is_messages(&self) -> bool {
        let tools = self.tools.is_some_and(|format| matches!(format.grammar, Grammar::Messages));
        tools || self.reasoning.is_some_and(|format| format.messages)
    }

    /// A parser of an output at `place` ([`super::place_after`]), after a prompt whose text ends with `tail`.
    pub(crate) fn parser(&self, tools: Tools, place: u64, tail: &str) -> OutputParser {
        if self.is_messages() {
            let wants = Wants { reasoning: self.reasoning.is_some(), calls: self.tools.is_some() };
            return OutputParser(Reader::Messages(Messages::new(wants, place, tail)));
        }
        let parts: (&'static [_], &'static [_]) = match self.tools.map(|format| format.grammar) {
            Some(Grammar::Blocks { blocks, dropped }) => (blocks, dropped),
            _ => (&[], &[]),
        };
        let inside = self.reasoning.is_some_and(|format| format.opened_by(tail));
        OutputParser(Reader::Blocks(Blocks::new(self.reasoning, parts, tools, place, inside)))
    }
}

/// The marks of reasoning that may come before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReasoningMarks {
    /// What opens it: one of these.
    pub(crate) open: &'static [&'static str],
    pub(crate) close: &'static str,
    /// Whether the prompt has opened it.
    pub(crate) opened: bool,
    /// Whether white space may come after it.
    pub(crate) spaces: bool,
    /// As [`ReasoningFormat::anywhere`].
    pub(crate) anywhere: bool,
    /// As [`ReasoningFormat::dropped`].
    pub(crate) dropped: &'static [&'static str],
}

/// Reads an output piece by piece: text, reasoning, calls. All that it gives, in order, is the output, but for marks and the spaces
/// next to them. It keeps at most the output, and its work is proportional to the output's length.
#[derive(Debug, Clone)]
pub(crate) struct OutputParser(Reader);

#[derive(Debug, Clone)]
enum Reader {
    Blocks(Blocks),
    Messages(Messages),
}

impl OutputParser {
    /// Adds `text`. Returns what is certain now.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.read(text, false)
    }

    /// Ends the output. Returns what is left: a call that is not complete is text.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        self.read("", true)
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            Reader::Blocks(blocks) => blocks.bytes(),
            Reader::Messages(messages) => messages.bytes(),
        }
    }

    fn read(&mut self, text: &str, last: bool) -> Vec<Piece> {
        let mut out = Vec::new();
        match &mut self.0 {
            Reader::Blocks(blocks) => blocks.push(text, last, &mut out),
            Reader::Messages(messages) => messages.push(text, last, &mut out),
        }
        out
    }
}
