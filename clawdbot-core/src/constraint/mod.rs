//! Structured output: which tokens may come next so that the text stays within a JSON Schema, a regular expression, a
//! grammar or a list of choices. Knows texts and tokens, no engine.
//!
//! A [`Vocabulary`] is made once for a tokenizer, a [`Grammar`] once for a constraint. Each sequence has a [`Matcher`],
//! which gives a [`Mask`] over token ids before a token is drawn, and takes the token after it. Parsing is the crate
//! `llguidance`'s: an Earley parser over a lexer of derivatives. What it would not enforce exactly is refused before it
//! sees it (`schema/`, `spec.rs`).

mod check;
mod closing;
mod forced;
mod free;
mod grammar;
mod guard;
mod guide;
mod lazy;
mod limits;
mod mask;
mod matcher;
mod place;
mod schema;
mod source;
mod spec;
mod vocabulary;

pub use check::Constraint;
pub(crate) use free::CallMarks;
pub use grammar::Grammar;
pub use guide::Guide;
pub(crate) use guide::Lead;
pub use lazy::LazyVocabulary;
pub use mask::Mask;
pub use matcher::{Accepted, Matcher};
pub(crate) use source::{Auto, Source};
pub use spec::ConstraintSpec;
pub use vocabulary::Vocabulary;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod tests_calls;
#[cfg(test)]
mod tests_guide;
#[cfg(test)]
mod tests_schemas;
