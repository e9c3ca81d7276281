//! The text of a job: characters, up to a stop text, and what they mean.

use crate::error::Result;
use crate::event::Event;
use crate::options::Resolved;
use crate::output::{
    OutputFormats, OutputParser, Piece as Part, ReasoningMarks, ToolCall, ToolCallDelta, Tools, place_after,
};
use crate::tokenizer::{SkipSpecialTokens, StopMatcher, StreamDecoder, Tokenizer};

/// Tokens of the prompt that the decoder gets: enough to know how its text ends.
const CONTEXT_TOKENS: usize = 8;
/// Tokens of the prompt that tell whether it has opened the reasoning: enough for the longest mark, by the byte.
const TAIL_TOKENS: usize = 32;

/// Turns token ids into text, up to a stop text, and reads what it means.
#[derive(Debug)]
pub(crate) struct JobText {
    /// `None` after the end.
    decoder: Option<StreamDecoder>,
    stop: StopMatcher,
    /// Ids from here on are padding of the model's vocabulary and have no text.
    id_limit: u32,
    reader: Option<OutputReader>,
}

/// Tells reasoning, answer and calls in a text from each other.
#[derive(Debug)]
struct OutputReader {
    parser: OutputParser,
    /// To find the special tokens that are left out of the text.
    tokenizer: Tokenizer,
    /// Whether special tokens are left out, but for those that the parser must see.
    skips: bool,
    shown: Vec<u32>,
    reasoning: Option<ReasoningMarks>,
}

impl OutputReader {
    /// `None` if nothing is to be read.
    fn new(tokenizer: &Tokenizer, options: &Resolved, prompt: &[u32], tools: Tools) -> Result<Option<Self>> {
        let formats = OutputFormats::new(&options.tool_format, &options.reasoning_format)?;
        let Some(formats) = formats else { return Ok(None) };
        let tail = &prompt[prompt.len().saturating_sub(TAIL_TOKENS)..];
        let limit = tokenizer.id_limit();
        let tail: Vec<u32> = tail.iter().copied().filter(|&id| id < limit).collect();
        let tail = tokenizer.decode(&tail, SkipSpecialTokens::No)?;
        let marks = formats.marks();
        let shown = marks.iter().filter_map(|mark| tokenizer.token_to_id(mark)).collect();
        let parser = formats.parser(tools, place_after(prompt), &tail);
        let reasoning = formats.reasoning_marks(&tail);
        let tokenizer = tokenizer.clone();
        Ok(Some(OutputReader { parser, tokenizer, skips: options.skip_special_tokens, shown, reasoning }))
    }

    /// Whether the parser gets to see `id`.
    fn shows(&self, id: u32) -> bool {
        !self.skips || !self.tokenizer.is_special(id) || self.shown.contains(&id)
    }
}

/// What became certain of an output.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    /// Of calls, those here included: one for each.
    pub(crate) deltas: Vec<ToolCallDelta>,
    pub(crate) calls: Vec<ToolCall>,
    pub(crate) warnings: Vec<String>,
}

impl Said {
    fn add(&mut self, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Text(text) => self.text.push_str(&text),
                Part::Reasoning(text) => self.reasoning.push_str(&text),
                Part::Delta(delta) => match self.deltas.last_mut() {
                    Some(last) if last.index == delta.index => last.arguments.push_str(&delta.arguments),
                    _ => self.deltas.push(delta),
                },
                Part::Call(call) => self.calls.push(call),
                Part::Warning(warning) => self.warnings.push(warning),
            }
        }
    }

    /// Adds what came after it, but for deltas.
    pub(super) fn extend(&mut self, said: &Said) {
        self.text.push_str(&said.text);
        self.reasoning.push_str(&said.reasoning);
        self.calls.extend_from_slice(&said.calls);
        self.warnings.extend_from_slice(&said.warnings);
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        let calls = self
            .calls
            .iter()
            .map(|call| size_of::<ToolCall>() + call.id.len() + call.name.len() + call.arguments.len());
        let warnings: usize = self.warnings.iter().map(String::len).sum();
        self.text.capacity() + self.reasoning.capacity() + calls.sum::<usize>() + warnings
    }
}

impl JobText {
    /// For text that continues `prompt`. `tools`: what may be called.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        options: &Resolved,
        prompt: &[u32],
        tools: Tools,
    ) -> Result<Self> {
        let reader = OutputReader::new(tokenizer, options, prompt, tools)?;
        let skips = options.skip_special_tokens && reader.is_none();
        let mut decoder = StreamDecoder::new(tokenizer, skips.into());
        let id_limit = tokenizer.id_limit();
        // Whether a token's leading space is kept depends on whether text precedes it.
        let tail = &prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..];
        for &id in tail.iter().filter(|&&id| id < id_limit) {
            decoder.push(id)?;
        }
        Ok(JobText { decoder: Some(decoder), stop: StopMatcher::new(&options.stop)?, id_limit, reader })
    }

    /// The marks of the reasoning that may come before the answer.
    pub(crate) fn reasoning_marks(&self) -> Option<ReasoningMarks> {
        self.reader.as_ref().and_then(|reader| reader.reasoning)
    }

    /// Whether the text comes after another one.
    pub(crate) fn follows(&self) -> bool {
        self.decoder.as_ref().is_some_and(StreamDecoder::follows)
    }

    /// Adds a token (`None`: one without text). Returns the text that is certain now.
    pub(super) fn push(&mut self, token: Option<u32>) -> Result<Piece> {
        let mut text = String::new();
        let token = token.filter(|&id| self.has_text(id));
        if let (Some(decoder), Some(id)) = (&mut self.decoder, token) {
            text = decoder.push(id)?;
        }
        Ok(self.up_to_stop(&text))
    }

    fn has_text(&self, id: u32) -> bool {
        id < self.id_limit && self.reader.as_ref().is_none_or(|reader| reader.shows(id))
    }

    /// What `piece` says; `last`: no more text comes.
    pub(super) fn read(&mut self, piece: Piece, last: bool) -> Said {
        let mut said = Said::default();
        match &mut self.reader {
            None => said.text = piece.text,
            Some(reader) => {
                said.add(reader.parser.push(&piece.text));
                if last {
                    said.add(reader.parser.finish());
                }
            }
        }
        said
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        self.reader.as_ref().map_or(0, |reader| reader.parser.bytes())
    }

    /// Adds the last token. Returns all text that is left.
    pub(super) fn finish(&mut self, token: Option<u32>) -> Result<Piece> {
        let mut text = String::new();
        let token = token.filter(|&id| self.has_text(id));
        if let Some(mut decoder) = self.decoder.take() {
            if let Some(id) = token {
                text = decoder.push(id)?;
            }
            text.push_str(&decoder.finish()?);
        }
        let mut piece = self.up_to_stop(&text);
        if !piece.stopped {
            piece.text.push_str(&self.stop.flush());
        }
        Ok(piece)
    }

    /// All that the tokens of an output say. `stopped`: the last of them ends it, and has no text.
    pub(crate) fn whole(mut self, output: &[u32], stopped: bool) -> Result<Said> {
        let mut said = Said::default();
        let Some((last, before)) = output.split_last() else { return Ok(said) };
        for &id in before {
            let piece = self.push(Some(id))?;
            said.extend(&self.read(piece, false));
        }
        let piece = self.finish((!stopped).then_some(*last))?;
        said.extend(&self.read(piece, true));
        Ok(said)
    }

    fn up_to_stop(&mut self, text: &str) -> Piece {
        let outcome = self.stop.push(text);
        Piece { text: outcome.emit, stopped: outcome.stopped.is_some() }
    }
}

/// The events of calls and their deltas. All deltas come first: those of a call may come after those of the next one, whose arguments
/// were certain before.
pub(super) fn events_of_calls(
    deltas: Vec<ToolCallDelta>,
    calls: Vec<ToolCall>,
) -> impl Iterator<Item = Event> {
    deltas.into_iter().map(Event::ToolCallDelta).chain(calls.into_iter().map(Event::ToolCall))
}

/// Text of a token.
#[derive(Default)]
pub(super) struct Piece {
    text: String,
    /// Whether a stop text was found, before which `text` ends.
    pub(super) stopped: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::NONE;
    use crate::tokenizer::AddSpecialTokens;

    /// The built-in one, with special tokens of Mistral's in the place of its own.
    fn tokenizer() -> Tokenizer {
        let json = include_str!("../../assets/builtin/tokenizer.json");
        let json = json.replace("<|user|>", "[TOOL_CALLS]").replace("<|assistant|>", "[ARGS]");
        Tokenizer::from_bytes(json.as_bytes()).unwrap()
    }

    /// What `output` says, token by token.
    fn read(tool_format: &str, reasoning_format: &str, skip: bool, prompt: &str, output: &str) -> Said {
        let tokenizer = tokenizer();
        let encode = |text: &str| tokenizer.encode(text, AddSpecialTokens::No).unwrap();
        let options = Resolved {
            tool_format: tool_format.to_owned(),
            reasoning_format: reasoning_format.to_owned(),
            skip_special_tokens: skip,
            ..Resolved::greedy()
        };
        let mut text = JobText::new(&tokenizer, &options, &encode(prompt), Tools::default()).unwrap();
        let mut said = Said::default();
        for id in encode(output) {
            let piece = text.push(Some(id)).unwrap();
            said.extend(&text.read(piece, false));
        }
        let piece = text.finish(None).unwrap();
        said.extend(&text.read(piece, true));
        said
    }

    #[test]
    fn calls_come_after_their_deltas() {
        let options = Resolved { tool_format: "hermes".to_owned(), ..Resolved::greedy() };
        let mut text = JobText::new(&tokenizer(), &options, &[], Tools::default()).unwrap();
        let mut events = Vec::new();
        for (piece, last) in [
            // The arguments of the first call come before its name.
            (
                "<tool_call>[{\"arguments\": {\"a\": 1}, \"name\": \"f\"}, {\"name\": \"g\", \"arguments\": {\"b\": 2",
                false,
            ),
            ("3}}]</tool_call>", true),
        ] {
            let said = text.read(Piece { text: piece.to_owned(), stopped: false }, last);
            events.extend(events_of_calls(said.deltas, said.calls));
        }
        let mut given = [String::new(), String::new()];
        let mut calls = 0;
        for event in events {
            match event {
                Event::ToolCallDelta(delta) => given[delta.index].push_str(&delta.arguments),
                Event::ToolCall(call) => {
                    assert_eq!(given[call.index], call.arguments);
                    calls += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((calls, given), (2, ["{\"a\":1}", "{\"b\":23}"].map(str::to_owned)));
    }

    const OUTPUT: &str = "I call.[TOOL_CALLS]f[ARGS]{\"a\": \"\u{fc}\"}<|end|>";

    #[test]
    fn special_tokens_of_the_format_are_seen_and_others_left_out() {
        let found = read("mistral", NONE, true, "Hi", OUTPUT);
        assert_eq!((found.text.as_str(), found.warnings.len()), ("I call.", 0));
        assert_eq!(
            (found.calls[0].name.as_str(), found.calls[0].arguments.as_str()),
            ("f", "{\"a\":\"\u{fc}\"}")
        );
        assert_eq!(read("mistral", NONE, false, "Hi", OUTPUT).text, "I call.<|end|>");
        let raw = "I call.f{\"a\": \"\u{fc}\"}";
        assert_eq!(read(NONE, NONE, true, "Hi", OUTPUT).text, raw);
        assert_eq!(read("hermes", NONE, true, "Hi", OUTPUT).text, raw);
        assert_eq!(read(NONE, NONE, false, "Hi", OUTPUT).text, OUTPUT);
    }

    #[test]
    fn the_prompt_may_open_the_reasoning() {
        let found = read(NONE, "think", true, "Hi <think>\n", "Hm.</think>Yes.");
        assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("Hm.", "Yes."));
        let found = read(NONE, "think", true, "Hi <think></think>\n", "Hm.");
        assert_eq!((found.reasoning.as_str(), found.text.as_str()), ("", "Hm."));
    }
}
