//! Prompts: text, or token ids as any sequence or integer array; alone, or a batch of them.

use clawdbot_core::Prompt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PySequence, PyString};

use crate::error::invalid_argument;
use crate::json;

/// What `generate` was given.
pub(crate) enum Prompts {
    /// One prompt: the answer is one completion.
    One(Prompt),
    /// A list of them: the answer is a list.
    Batch(Vec<PyResult<Prompt>>),
}

/// One prompt, or a sequence of prompts when its first item is itself text or a sequence.
///
/// # Errors
/// `TypeError`, `InvalidUtf8`, and `InvalidArgument` for an empty sequence, which could mean either.
pub(crate) fn one_or_many(object: &Bound<'_, PyAny>) -> PyResult<Prompts> {
    let object = &unpacked(object)?;
    let Ok(sequence) = items(object) else { return one(object, "prompt").map(Prompts::One) };
    if sequence.is_empty()? {
        let both = "an empty sequence is neither a prompt nor a batch: give \"\" for the empty prompt";
        return Err(invalid_argument(format!("prompt: {both}")));
    }
    let first = unpacked(&sequence.get_item(0)?)?;
    if !first.is_instance_of::<PyString>() && items(&first).is_err() {
        return one(object, "prompt").map(Prompts::One);
    }
    many(object, "prompt").map(Prompts::Batch)
}

/// Prompts, in a sequence.
///
/// # Errors
/// `TypeError` for what is no sequence; what a signal handler raises; for each prompt as [`one`].
pub(crate) fn many(object: &Bound<'_, PyAny>, path: &str) -> PyResult<Vec<PyResult<Prompt>>> {
    let object = &unpacked(object)?;
    let sequence = sequence(object, path, "prompts")?;
    let mut prompts = Vec::new();
    for (i, prompt) in sequence.try_iter()?.enumerate() {
        object.py().check_signals()?;
        prompts.push(prompt.and_then(|prompt| one(&prompt, &format!("{path}[{i}]"))));
    }
    Ok(prompts)
}

/// Texts, in a sequence.
///
/// # Errors
/// `TypeError`, `InvalidUtf8`.
pub(crate) fn texts(object: &Bound<'_, PyAny>, path: &str) -> PyResult<Vec<String>> {
    let object = &unpacked(object)?;
    let texts = sequence(object, path, "texts")?.try_iter()?.enumerate();
    texts.map(|(i, item)| text(&item?, &format!("{path}[{i}]"))).collect()
}

/// A text.
///
/// # Errors
/// `TypeError`, `InvalidUtf8`.
pub(crate) fn text(object: &Bound<'_, PyAny>, path: &str) -> PyResult<String> {
    let object = &unpacked(object)?;
    match object.cast::<PyString>() {
        Ok(text) => json::text_of(text, path),
        Err(_) => {
            let found = object.get_type().name()?;
            Err(PyTypeError::new_err(format!("{path}: expected str, found {found}")))
        }
    }
}

fn sequence<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
    path: &str,
    what: &str,
) -> PyResult<&'a Bound<'py, PySequence>> {
    items(object).map_err(|found| {
        PyTypeError::new_err(format!("{path}: expected a sequence of {what}, found {found}"))
    })
}

/// One prompt; `path` is what errors call it.
///
/// # Errors
/// `TypeError`, `InvalidUtf8`; `InvalidArgument` for ids that are not 32-bit.
pub(crate) fn one(object: &Bound<'_, PyAny>, path: &str) -> PyResult<Prompt> {
    let object = &unpacked(object)?;
    match object.cast::<PyString>() {
        Ok(text) => Ok(Prompt::Text(json::text_of(text, path)?)),
        Err(_) => Ok(Prompt::Tokens(ids_or(object, path, "str or ")?)),
    }
}

/// Token ids.
///
/// # Errors
/// As [`one`].
pub(crate) fn ids(object: &Bound<'_, PyAny>, path: &str) -> PyResult<Vec<u32>> {
    ids_or(object, path, "")
}

/// Most token ids of a prompt: no model has a context of that length.
const MAX_IDS: usize = 1 << 24;
/// Ids that are converted between two looks for Ctrl-C.
const IDS_PER_LOOK: usize = 1 << 16;

/// Token ids, where `other` was possible too.
fn ids_or(object: &Bound<'_, PyAny>, path: &str, other: &str) -> PyResult<Vec<u32>> {
    let object = unpacked(object)?;
    let sequence = items(&object).map_err(|found| {
        PyTypeError::new_err(format!("{path}: expected {other}a sequence of token ids, found {found}"))
    })?;
    let count = sequence.len()?;
    if count > MAX_IDS {
        return Err(invalid_argument(format!("{path}: expected at most {MAX_IDS} token ids, found {count}")));
    }
    let mut ids = Vec::with_capacity(count);
    for (i, id) in sequence.try_iter()?.take(count).enumerate() {
        if i % IDS_PER_LOOK == 0 {
            object.py().check_signals()?;
        }
        ids.push(token(&id?, path, i)?);
    }
    Ok(ids)
}

fn token(id: &Bound<'_, PyAny>, path: &str, index: usize) -> PyResult<u32> {
    if !id.hasattr("__index__")? || id.is_instance_of::<PyBool>() {
        let found = id.get_type().name()?;
        let hint = match found.to_str() {
            Ok("dict") => " (messages are for chat)",
            Ok("str") => " (a list of texts is for generate)",
            _ => "",
        };
        return Err(PyTypeError::new_err(format!(
            "{path}[{index}]: expected a token id, found {found}{hint}"
        )));
    }
    let bad = |_| invalid_argument(format!("{path}[{index}]: expected a token id, found {id}"));
    id.extract().map_err(bad)
}

/// Arrays are no sequences, but give their items as a list, which is also faster than one by one.
fn unpacked<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match object.getattr_opt("tolist")? {
        Some(tolist) => tolist.call0(),
        None => Ok(object.clone()),
    }
}

/// A sequence that is not text or bytes.
///
/// # Errors
/// The name of the type that was found.
fn items<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Result<&'a Bound<'py, PySequence>, String> {
    let is_text = object.is_instance_of::<PyString>()
        || object.is_instance_of::<PyBytes>()
        || object.is_instance_of::<PyByteArray>();
    match object.cast::<PySequence>() {
        Ok(sequence) if !is_text => Ok(sequence),
        _ => Err(object.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string())),
    }
}
