//! A constraint that is compiled for a vocabulary.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::Logger;
use llguidance::api::GrammarInit;
use llguidance::earley::Parser;
use llguidance::earley::lexerspec::LexerSpec;

use super::guard::{guarded, panicked};
use super::limits::limits;
use super::place;
use super::source::{Source, of_tools};
use super::spec::ConstraintSpec;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::large_stack::on_large_stack;

/// What the parser's crate says of JSON Schemas, and what that means here.
const REASONS: [(&str, &str); 6] = [
    ("'multipleOf' has too many", "multipleOf: expected a number of at most 9 digits"),
    (
        "oneOf constraints",
        "oneOf: expected alternatives that differ in type, constants or a required property",
    ),
    ("Unsatisfiable schema", "expected a schema that some value satisfies, found none"),
    ("circular references", "$ref: expected no keywords next to references that lead back to themselves"),
    ("are not disjoint", "patternProperties: expected patterns that no name matches two of"),
    ("min/maxProperties", "minProperties and maxProperties: expected all properties to be required"),
];

/// A constraint for the tokens of a model, from which each sequence makes a [`Matcher`](super::Matcher). Compiled once;
/// sequences share nothing that they change.
pub struct Grammar {
    option: &'static str,
    /// What ends texts without quotes in it, and all.
    ends: Vec<Vec<u8>>,
    vocabulary: Arc<Vocabulary>,
    /// At the beginning of a text, its first mask computed.
    start: Mutex<Parser>,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("option", &self.option).finish_non_exhaustive()
    }
}

impl Grammar {
    /// Compiles `spec` for `vocabulary`. Takes milliseconds, for large schemas tens of them.
    ///
    /// # Errors
    /// `InvalidConstraint` if it is malformed, uses what is not enforced, or is too large.
    pub fn compile(spec: &ConstraintSpec, vocabulary: &Arc<Vocabulary>) -> Result<Self> {
        Self::compile_source(&spec.clone().into(), vocabulary)
    }

    /// As [`Grammar::compile`], of more than a constraint.
    pub(crate) fn compile_source(source: &Source, vocabulary: &Arc<Vocabulary>) -> Result<Self> {
        let option = source.option();
        let parser = on_large_stack("clawdbot-constraint", panicked, || compile(source, vocabulary))?;
        let ends = source.ends(vocabulary);
        Ok(Grammar { option, ends, vocabulary: Arc::clone(vocabulary), start: Mutex::new(parser) })
    }

    /// The tokens that it was compiled for.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// About how many bytes it takes, apart from the vocabulary.
    pub fn bytes(&self) -> usize {
        /// Of its rules and of the first mask.
        const REST: usize = 256 << 10;
        self.start.lock().unwrap_or_else(PoisonError::into_inner).lexer_stats().num_bytes + REST
    }

    /// Name of the option that the constraint is of.
    pub(super) fn ends(&self) -> &[Vec<u8>] {
        &self.ends
    }

    pub(super) fn option(&self) -> &'static str {
        self.option
    }

    /// A parser at the beginning of a text, with tables of its own.
    ///
    /// # Errors
    /// `Internal` if the parser's crate panics.
    pub(super) fn parser(&self) -> Result<Parser> {
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        guarded(|| start.deep_clone())
    }
}

/// What the parser's crate says, in the library's words.
fn in_words(reason: &str) -> String {
    let known = REASONS.iter().find(|(theirs, _)| reason.contains(theirs));
    known.map_or(reason.lines().next().unwrap_or_default(), |(_, ours)| ours).to_owned()
}

fn compile(source: &Source, vocabulary: &Arc<Vocabulary>) -> Result<Parser> {
    let option = source.option();
    let refused = |reason: String| {
        let reason = in_words(&reason);
        Error::invalid_constraint(format!("option {option}: {reason}")).with("option", option)
    };
    let grammar = GrammarInit::Serialized(source.read(vocabulary)?);
    let (grammar, lexer) = grammar.to_internal(None, limits()).map_err(|error| {
        let in_answer = source.answer_schema().and_then(|schema| place::find(schema, in_words));
        let in_calls = || {
            let found = source.call_schemas().into_iter().find_map(|schema| place::find(schema, in_words));
            found.map(of_tools)
        };
        in_answer.or_else(in_calls).unwrap_or_else(|| refused(format!("{error:#}")))
    })?;
    check(&lexer).map_err(refused)?;
    let init = GrammarInit::Internal(grammar, lexer);
    let slices = vocabulary.slices().extra_lexemes();
    let compiled = init
        .to_cgrammar(None, &mut Logger::new(0, 0), limits(), slices)
        .map_err(|error| refused(format!("{error:#}")))?;
    let mut parser = Parser::new(vocabulary.env().clone(), compiled, limits(), Arc::default())
        .map_err(|error| refused(format!("{error:#}")))?;
    // Computed here, so that the sequences find it.
    parser.compute_bias(vocabulary.computer(true), &[]);
    if let Some(error) = parser.get_error() {
        return Err(refused(format!("expected a simpler constraint: {}", error.message())));
    }
    Ok(parser)
}

/// Refuses settings of grammars that would have no effect here, or keep a sequence from going back.
fn check(lexer: &LexerSpec) -> Result<(), String> {
    let found = [
        ("max_tokens", lexer.has_max_tokens),
        ("stop", lexer.has_stop),
        ("temperature", lexer.has_temperature),
        ("a token", lexer.special_token_rx.is_some()),
    ];
    match found.iter().find(|(_, found)| *found) {
        Some((name, _)) => Err(format!("expected rules without settings of tokens, found {name}")),
        None => Ok(()),
    }
}
