//! Constraints without a model, to check texts with.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use clawdbot_core::constraint::{Constraint, ConstraintSpec};

use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{give, quietly, required};
use crate::options::json_object;
use crate::tokenizer::clawdbot_tokenizer;

/// What a text is constrained to, to check texts without a model.
pub struct clawdbot_constraint(Constraint);

/// Compiles a constraint for the tokens of a tokenizer, which it outlives.
///
/// `options_json`: a JSON object with exactly one of the options json_schema, json_object, regex, grammar and choices of
/// `clawdbot_model_generate_text`, such as {"regex": "[a-z]+"}. One that cannot be enforced exactly is
/// `CLAWDBOT_ERROR_INVALID_CONSTRAINT`, whose message names the place. Tables of the tokenizer's tokens are made with the
/// first constraint, about a second for 130,000 tokens, and are kept with the tokenizer's handle for the next ones.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_constraint_new(
    tokenizer: Option<&clawdbot_tokenizer>,
    options_json: *const c_char,
    out: Option<&mut MaybeUninit<*mut clawdbot_constraint>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (tokenizer, out) = (required(tokenizer, "tokenizer")?, required(out, "out")?);
        // SAFETY: by the header, `options_json` is NULL or ends with a NUL.
        let options = unsafe { json_object(options_json, "options_json") }?;
        let spec = ConstraintSpec::from_json(&options)?;
        give(out, clawdbot_constraint(Constraint::with(&tokenizer.0.get()?, &spec)?));
        Ok(())
    })
}

/// Whether a text satisfies the constraint as a whole: 1 or 0 to `out`.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_constraint_accepts(
    constraint: Option<&clawdbot_constraint>,
    text: *const c_char,
    length: usize,
    out: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (constraint, out) = (required(constraint, "constraint")?, required(out, "out")?);
        // SAFETY: by the header, `text` is NULL or readable for `length` bytes, or up to a NUL.
        let text = unsafe { crate::handle::text(text, length, "text") }?;
        out.write(constraint.0.accepts(text)?.into());
        Ok(())
    })
}

/// Where the first token of a text that is forbidden begins, in characters (code points, not bytes), to `out`. -1 if all are
/// allowed: the text is accepted, or the beginning of one that is.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_constraint_forbidden_at(
    constraint: Option<&clawdbot_constraint>,
    text: *const c_char,
    length: usize,
    out: Option<&mut MaybeUninit<i64>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (constraint, out) = (required(constraint, "constraint")?, required(out, "out")?);
        // SAFETY: by the header, `text` is NULL or readable for `length` bytes, or up to a NUL.
        let text = unsafe { crate::handle::text(text, length, "text") }?;
        // A text has fewer than 2^63 characters.
        let place = |at| i64::try_from(at).unwrap_or(i64::MAX);
        out.write(constraint.0.forbidden_at(text)?.map_or(-1, place));
        Ok(())
    })
}

/// Frees a constraint. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_constraint_free(constraint: Option<Box<clawdbot_constraint>>) {
    quietly(|| drop(constraint));
}
