//! Prompts: text, or token ids as any sequence or integer array; alone, or a batch of them.

use clawdbot_core::{Item, Prompt};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyIterator, PyList, PySequence, PyString};

use crate::error::{invalid_argument, set_place, wrong_type};
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
    let Some(sequence) = items(object) else { return one(object, "prompt").map(Prompts::One) };
    if sequence.is_empty()? {
        let both = "an empty sequence is neither a prompt nor a batch: give \"\" for the empty prompt";
        return Err(invalid_argument(format!("prompt: {both}")));
    }
    let first = sequence.get_item(0)?;
    let many_of = |first: &Bound<'_, PyAny>| first.is_instance_of::<PyString>() || items(first).is_some();
    // An iterator can be gone through once.
    if !first.is_instance_of::<PyIterator>() && !many_of(&unpacked(&first)?) {
        return one(object, "prompt").map(Prompts::One);
    }
    many(object, &PROMPTS).map(Prompts::Batch)
}

/// An argument with several items.
pub(crate) struct Items {
    /// Its name.
    path: &'static str,
    /// What errors call its items.
    what: &'static str,
    item: fn(usize) -> Item,
}

/// The prompts of `generate`.
pub(crate) const PROMPTS: Items = Items { path: "prompt", what: "prompts", item: Item::Prompt };
/// The continuations of `score`.
pub(crate) const CONTINUATIONS: Items =
    Items { path: "continuations", what: "continuations", item: Item::Continuation };
/// The texts of `embed`.
pub(crate) const TEXTS: Items = Items { path: "texts", what: "texts", item: Item::Text };
/// The documents of `rerank`.
pub(crate) const DOCUMENTS: Items = Items { path: "documents", what: "texts", item: Item::Document };

/// Prompts, in a sequence.
///
/// # Errors
/// `TypeError` for what is no sequence; for each prompt as [`one`].
pub(crate) fn many(object: &Bound<'_, PyAny>, items: &Items) -> PyResult<Vec<PyResult<Prompt>>> {
    let bytes = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Tokens(tokens) => size_of_val(tokens.as_slice()),
        _ => 0,
    };
    each(object, items, one, bytes)
}

/// Texts, in a sequence.
///
/// # Errors
/// `TypeError` for what is no sequence; for each text as [`text`].
pub(crate) fn texts(object: &Bound<'_, PyAny>, items: &Items) -> PyResult<Vec<PyResult<String>>> {
    each(object, items, text, String::len)
}

fn each<T>(
    object: &Bound<'_, PyAny>,
    &Items { path, what, item: named }: &Items,
    read: impl Fn(&Bound<'_, PyAny>, &str) -> PyResult<T>,
    bytes: impl Fn(&T) -> usize,
) -> PyResult<Vec<PyResult<T>>> {
    let object = &unpacked(object)?;
    // What a sequence says of its length need not be true.
    let mut left = MAX_BATCH_BYTES;
    let sequence = items(object).ok_or_else(|| wrong_type(path, &format!("a sequence of {what}"), object))?;
    let one = |(i, item): (usize, PyResult<Bound<'_, PyAny>>)| {
        // What a signal handler raises is the call's, not the item's.
        object.py().check_signals()?;
        if i == MAX_ITERATED {
            return Err(invalid_argument(format!(
                "{path}: expected at most {MAX_ITERATED} {what}, found more"
            )));
        }
        match item.and_then(|item| read(&item, &named(i).to_string())) {
            Err(error) if !error.is_instance_of::<PyException>(object.py()) => Err(error),
            result => {
                if let Err(error) = &result {
                    set_place(object.py(), error, named(i));
                }
                let taken = result.as_ref().map_or(0, &bytes);
                left = left.checked_sub(taken).ok_or_else(|| {
                    let most = MAX_BATCH_BYTES >> 20;
                    invalid_argument(format!("{path}: expected {what} of at most {most} MiB in one call"))
                })?;
                Ok(result)
            }
        }
    };
    sequence.try_iter()?.enumerate().map(one).collect()
}

/// A text.
///
/// # Errors
/// `TypeError`, `InvalidUtf8`.
pub(crate) fn text(object: &Bound<'_, PyAny>, path: &str) -> PyResult<String> {
    let object = &unpacked(object)?;
    match object.cast::<PyString>() {
        Ok(text) => json::text_of(text, path),
        Err(_) => Err(wrong_type(path, "str", object)),
    }
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
/// Most items that are taken from an iterator, which may have no end.
pub(crate) const MAX_ITERATED: usize = 1 << 22;
/// Most bytes that the prompts or texts of a call have.
const MAX_BATCH_BYTES: usize = 1 << 30;
/// Ids that are converted between two looks for Ctrl-C.
const IDS_PER_LOOK: usize = 1 << 16;

/// Token ids, where `other` was possible too.
fn ids_or(object: &Bound<'_, PyAny>, path: &str, other: &str) -> PyResult<Vec<u32>> {
    let object = unpacked(object)?;
    let expected = || format!("{other}a sequence of token ids");
    let sequence = items(&object).ok_or_else(|| wrong_type(path, &expected(), &object))?;
    let count = sequence.len()?;
    if count > MAX_IDS {
        return Err(invalid_argument(format!("{path}: expected at most {MAX_IDS} token ids, found {count}")));
    }
    let mut ids = Vec::with_capacity(count);
    for (i, id) in sequence.try_iter()?.take(count).enumerate() {
        if i > 0 && i % IDS_PER_LOOK == 0 {
            object.py().check_signals()?;
        }
        ids.push(token(&id?, || format!("{path}[{i}]"))?);
    }
    Ok(ids)
}

/// A token id; `path` is what errors call it.
///
/// # Errors
/// `TypeError` for what is no whole number, `InvalidArgument` for one that is not 32-bit.
pub(crate) fn token(id: &Bound<'_, PyAny>, path: impl Fn() -> String) -> PyResult<u32> {
    if !id.hasattr("__index__")? || id.is_instance_of::<PyBool>() {
        let found = id.get_type().name()?;
        let hint = match found.to_str() {
            Ok("dict") => " (messages are for chat)",
            Ok("str") => " (a list of texts is for generate)",
            _ => "",
        };
        let path = path();
        return Err(PyTypeError::new_err(format!("{path}: expected a token id, found {found}{hint}")));
    }
    let bad = || invalid_argument(format!("{}: expected a token id, found {id}", path()));
    json::index(id)?.and_then(|index| index.extract().ok()).ok_or_else(bad)
}

/// Arrays are no sequences, but give their items as a list, which is also faster than one by one; iterators and views of
/// dicts have items for a list.
fn unpacked<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(tolist) = object.getattr_opt("tolist")? {
        return tolist.call0();
    }
    let views = object.py().import("collections.abc")?.getattr("MappingView")?;
    if !object.is_instance_of::<PyIterator>() && !object.is_instance(&views)? {
        return Ok(object.clone());
    }
    let list = PyList::empty(object.py());
    for (i, item) in object.try_iter()?.enumerate() {
        if i % IDS_PER_LOOK == 0 {
            object.py().check_signals()?;
        }
        if i == MAX_ITERATED {
            let most = MAX_ITERATED;
            return Err(invalid_argument(format!(
                "expected an iterator of at most {most} items, found more"
            )));
        }
        list.append(item?)?;
    }
    Ok(list.into_any())
}

/// A sequence that is not text or bytes.
fn items<'a, 'py>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, PySequence>> {
    let is_text = object.is_instance_of::<PyString>()
        || object.is_instance_of::<PyBytes>()
        || object.is_instance_of::<PyByteArray>();
    object.cast::<PySequence>().ok().filter(|_| !is_text)
}
