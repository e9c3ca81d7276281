//! Grammars that are written by the library: calls of functions, an answer under a constraint, or both.

use serde_json::Value;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};

use super::schema;
use super::spec::{ConstraintSpec, json_grammar, literal};
use super::vocabulary::{Vocabulary, mark_bytes};
use crate::error::{Error, Result};
use crate::output::{HARMONY_MARKS, Part, WrittenCalls};

/// The name of the answer's grammar.
const ANSWER: &str = "answer";
/// Most texts that are tried as ends.
const MAX_ENDS: usize = 16;

/// What a text is: an answer, or calls.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Source {
    pub(crate) answer: Option<ConstraintSpec>,
    /// What is written before the answer.
    pub(crate) header: &'static str,
    pub(crate) calls: Option<WrittenCalls>,
    /// How a text may be that has both free text and calls.
    pub(crate) auto: Auto,
}

/// How free text and calls go together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Auto {
    /// There is no free text.
    #[default]
    None,
    /// The free text is read already, with the mark that begins calls.
    AfterMark,
    /// The answer is a message of free text, and messages may come before it and before calls.
    Messages,
}

impl Source {
    /// What ends texts without quotes, other values, and all calls: what completes a text soon.
    pub(super) fn ends(&self, vocabulary: &Vocabulary) -> Vec<Vec<u8>> {
        let mut ends: Vec<&str> = Vec::new();
        let mut open: Vec<&[Part]> = Vec::new();
        if let Some(calls) = &self.calls {
            ends.push(calls.close);
            open.push(&calls.rest);
            if self.auto == Auto::Messages {
                ends.push(self.header);
                open.push(&calls.before);
            }
        }
        while let Some(parts) = open.pop() {
            for (at, part) in parts.iter().enumerate() {
                match part {
                    Part::Text(_) | Part::Pattern(_) => {}
                    Part::Json(_) => {
                        // What may be left out comes between.
                        let rest = &parts[at + 1..];
                        let next = rest.iter().find(|part| !matches!(part, Part::Maybe(_)));
                        if let Some(Part::Text(text)) = next {
                            ends.push(text);
                        }
                    }
                    Part::Until { end, .. } => ends.push(end),
                    Part::One(ways) => open.extend(ways.iter().map(Vec::as_slice)),
                    Part::Maybe(parts) | Part::Many { item: parts, .. } => open.push(parts),
                }
            }
        }
        let mut found: Vec<&str> = Vec::new();
        for end in ends {
            if !end.is_empty() && !found.contains(&end) && found.len() < MAX_ENDS {
                found.push(end);
            }
        }
        let bytes = |text: &str| pieces(text, vocabulary).flat_map(|piece| piece.bytes()).collect();
        found.into_iter().map(bytes).collect()
    }

    /// The JSON Schema of the answer.
    pub(super) fn answer_schema(&self) -> Option<&Value> {
        match &self.answer {
            Some(ConstraintSpec::JsonSchema(schema)) => Some(schema),
            _ => None,
        }
    }

    /// The JSON Schemas of calls.
    pub(super) fn call_schemas(&self) -> Vec<&Value> {
        let mut found = Vec::new();
        let mut open: Vec<&Part> = self.calls.iter().flat_map(|calls| &calls.rest).collect();
        while let Some(part) = open.pop() {
            match part {
                Part::Json(schema) => found.push(schema),
                Part::One(ways) => open.extend(ways.iter().flatten()),
                Part::Maybe(parts) | Part::Many { item: parts, .. } => open.extend(parts),
                Part::Text(_) | Part::Pattern(_) | Part::Until { .. } => {}
            }
        }
        found
    }

    /// Texts that special tokens may stand for.
    pub(crate) fn marks(&self) -> Vec<&'static str> {
        let mut marks = self.calls.as_ref().map(|calls| calls.marks.clone()).unwrap_or_default();
        if !self.header.is_empty() {
            marks.extend_from_slice(HARMONY_MARKS);
        }
        marks
    }
}

impl From<ConstraintSpec> for Source {
    fn from(spec: ConstraintSpec) -> Self {
        Source { answer: Some(spec), header: "", calls: None, auto: Auto::None }
    }
}

impl Source {
    /// Name of the option that asks for it.
    pub(super) fn option(&self) -> &'static str {
        match (&self.answer, &self.calls) {
            (Some(answer), _) => answer.option(),
            _ => "tool_choice",
        }
    }

    /// As the parser's crate takes it, with the special tokens of `vocabulary`.
    ///
    /// # Errors
    /// `InvalidConstraint` for what is malformed, or not enforced.
    pub(super) fn read(&self, vocabulary: &Vocabulary) -> Result<TopLevelGrammar> {
        let answer = self.answer.as_ref().map(ConstraintSpec::read).transpose()?;
        if self.calls.is_none() && self.header.is_empty() {
            return answer.ok_or_else(|| Error::internal("a constraint that constrains nothing"));
        }
        let mut lark = Lark { vocabulary, terminals: String::new(), count: 0, schemas: Vec::new() };
        let mut starts = Vec::new();
        if let Some(calls) = &self.calls {
            let mark =
                calls.opening.filter(|_| self.auto == Auto::AfterMark).map_or("", |opening| opening.mark);
            let open = Part::Text(calls.open.strip_prefix(mark).unwrap_or(calls.open).to_owned());
            starts.push(lark.sequence([&open].into_iter().chain(&calls.rest))?);
        }
        if answer.is_some() {
            starts.push(format!("{} @{ANSWER}", lark.text(self.header)));
        }
        let mut start = starts.join(" | ");
        if let Some(calls) = self.calls.as_ref().filter(|_| self.auto == Auto::Messages) {
            let free = lark.free(&calls.marks);
            let (header, before) = (lark.text(self.header), lark.sequence(&calls.before)?);
            start = format!("{before}* ({start} | {header} {free}?)");
        }
        let mut grammar = TopLevelGrammar::from_lark(format!(
            "%llguidance {{\"allow_invalid_utf8\": true}}\nstart: {start}\n{}",
            lark.terminals
        ));
        if let Some(mut first) = answer.and_then(|answer| answer.grammars.into_iter().next()) {
            first.name = Some(ANSWER.to_owned());
            grammar.grammars.push(first);
        }
        for (at, schema) in lark.schemas.into_iter().enumerate() {
            let mut part = json_part(schema)?;
            part.name = Some(name(at));
            grammar.grammars.push(part);
        }
        Ok(grammar)
    }
}

/// The name of the grammar of JSON number `at`.
fn name(at: usize) -> String {
    format!("json{at}")
}

/// An error about a schema, of the schemas of tools.
pub(super) fn of_tools(error: Error) -> Error {
    let message = error.message().replacen("option json_schema", "tools", 1);
    error.with_message(message).with("option", "tools")
}

fn json_part(schema: Value) -> Result<GrammarWithLexer> {
    let mut read = schema::read(&schema).map_err(of_tools)?;
    schema::bound_numbers(&mut read);
    let grammars = json_grammar(read).grammars;
    grammars.into_iter().next().ok_or_else(|| Error::internal("a schema without a grammar"))
}

/// A grammar in Lark's syntax that is being written.
struct Lark<'a> {
    vocabulary: &'a Vocabulary,
    /// Rules of terminals, a line each.
    terminals: String,
    count: usize,
    schemas: Vec<Value>,
}

impl Lark<'_> {
    fn sequence<'a>(&mut self, parts: impl IntoIterator<Item = &'a Part>) -> Result<String> {
        let parts = parts.into_iter().map(|part| self.part(part)).collect::<Result<Vec<_>>>()?;
        Ok(parts.join(" "))
    }

    fn part(&mut self, part: &Part) -> Result<String> {
        Ok(match part {
            Part::Text(text) => self.text(text),
            Part::Json(schema) => {
                let at = self.schemas.iter().position(|known| known == schema).unwrap_or_else(|| {
                    self.schemas.push(schema.clone());
                    self.schemas.len() - 1
                });
                format!("@{}", name(at))
            }
            Part::Pattern(pattern) => format!("/{pattern}/"),
            Part::Until { never, end } => {
                let never = without(never);
                let end = pieces(end, self.vocabulary).map(|piece| match piece {
                    Piece::Text(text) => format!("(?u:{})", literal(text)),
                    Piece::Mark(id) => mark_pattern(id),
                });
                let end = end.collect::<String>();
                self.terminal(&format!("(/(?us:.*)/ & {never}) /{end}/"))
            }
            Part::One(ways) => {
                let ways = ways.iter().map(|way| self.sequence(way)).collect::<Result<Vec<_>>>()?;
                format!("({})", ways.join(" | "))
            }
            Part::Maybe(parts) => format!("({})?", self.sequence(parts)?),
            Part::Many { item, between } => {
                let (item, between) = (self.sequence(item)?, self.text(between));
                format!("{item} ({between} {item})*")
            }
        })
    }

    /// A text of at least a character without `never`.
    fn free(&mut self, never: &[&str]) -> String {
        self.terminal(&format!("/(?us:.+)/ & {}", without(never)))
    }

    /// `text` with its marks as special tokens.
    fn text(&mut self, text: &str) -> String {
        let pieces: Vec<Piece<'_>> = pieces(text, self.vocabulary).collect();
        let written = pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => Value::from(text).to_string(),
            Piece::Mark(id) => self.mark(id),
        });
        written.collect::<Vec<_>>().join(" ")
    }

    fn mark(&mut self, id: u32) -> String {
        self.terminal(&format!("/{}/", mark_pattern(id)))
    }

    /// The name of a terminal that is `definition`.
    fn terminal(&mut self, definition: &str) -> String {
        let name = format!("T{}", self.count);
        self.count += 1;
        self.terminals.push_str(&format!("{name}: {definition}\n"));
        name
    }
}

/// What matches texts that have none of `never`.
fn without(never: &[&str]) -> String {
    let never: Vec<String> = never.iter().map(|text| literal(text)).collect();
    // Texts are in characters here, though marks are not.
    format!("~/(?us:.*({}).*)/", never.join("|"))
}

/// A regular expression for the special token `id`.
fn mark_pattern(id: u32) -> String {
    let bytes: String = mark_bytes(id).iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("(?-u:{bytes})")
}

/// A piece of a text with marks.
enum Piece<'a> {
    Text(&'a str),
    Mark(u32),
}

impl Piece<'_> {
    fn bytes(self) -> Vec<u8> {
        match self {
            Piece::Text(text) => text.as_bytes().to_vec(),
            Piece::Mark(id) => mark_bytes(id).to_vec(),
        }
    }
}

/// `text` in pieces, with the special tokens of `vocabulary`.
fn pieces<'a>(text: &'a str, vocabulary: &'a Vocabulary) -> impl Iterator<Item = Piece<'a>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let places = vocabulary.marks().iter();
        let places = places.filter_map(|(mark, id)| Some((rest.find(mark.as_str())?, mark.len(), *id)));
        // The first one, and of those the longest.
        match places.min_by_key(|&(place, length, _)| (place, std::cmp::Reverse(length))) {
            Some((0, length, id)) => {
                rest = &rest[length..];
                Some(Piece::Mark(id))
            }
            place => {
                let (before, after) = rest.split_at(place.map_or(rest.len(), |(place, ..)| place));
                rest = after;
                Some(Piece::Text(before))
            }
        }
    })
}
