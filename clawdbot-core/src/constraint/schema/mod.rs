//! JSON Schemas, read before the parser's crate sees them: what it would not enforce exactly is refused, with keyword and
//! place. What comes out has only keywords that are enforced, in the meaning of draft 2020-12.

mod bounded;
mod draft;
mod formats;
mod keywords;
mod limits;
mod multiples;
mod numbers;
mod pattern;
mod reader;
mod values;

pub(super) use bounded::bound_numbers;
pub(super) use reader::{read, read_at, refused};
