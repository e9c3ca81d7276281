//! Python objects to JSON values: messages, tools, template variables, options.

use clawdbot_core::{Error, ErrorKind};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyMapping, PySequence, PyString,
};
use serde_json::{Map, Number, Value};

use crate::error::{invalid_argument, to_py, wrong_type};

/// Deepest nesting that is converted: an object that contains itself ends here.
const MAX_DEPTH: usize = 128;
/// About the bytes that the values of an object may take: one list may stand in another many times.
const MAX_BYTES: usize = 256 << 20;
/// Bytes of a value, but for its text.
const VALUE_BYTES: usize = 64;

/// Converts `object`; `path` is what errors call it.
///
/// Mappings keep their order; sequences, iterators and numpy arrays become arrays; whatever has `__index__` is an integer.
///
/// # Errors
/// `TypeError` for other types, `InvalidArgument` for numbers JSON cannot hold and for nesting that is too deep,
/// `InvalidUtf8` for lone surrogates. All name the path.
pub(crate) fn from_py(object: &Bound<'_, PyAny>, path: &str) -> PyResult<Value> {
    convert(object, path, MAX_DEPTH, &mut { MAX_BYTES })
}

/// Takes `bytes` off what is left.
fn spend(left: &mut usize, bytes: usize, path: &str) -> PyResult<()> {
    *left = left.checked_sub(bytes).ok_or_else(|| {
        invalid_argument(format!("{path}: expected values of at most {} MiB in all", MAX_BYTES >> 20))
    })?;
    Ok(())
}

fn convert(object: &Bound<'_, PyAny>, path: &str, depth: usize, left: &mut usize) -> PyResult<Value> {
    spend(left, VALUE_BYTES, path)?;
    if depth == 0 {
        return Err(invalid_argument(format!("{path}: nested deeper than {MAX_DEPTH} levels")));
    }
    if object.is_none() {
        Ok(Value::Null)
    } else if let Ok(text) = object.cast::<PyString>() {
        let text = text_of(text, path)?;
        spend(left, text.len(), path)?;
        Ok(Value::String(text))
    } else if let Ok(value) = object.cast::<PyBool>() {
        Ok(Value::Bool(value.is_true()))
    } else if let Ok(value) = object.cast::<PyFloat>() {
        let number = Number::from_f64(value.extract()?);
        number.map(Value::Number).ok_or_else(|| out_of_range(path, "a finite number", object))
    } else if let Ok(mapping) = object.cast::<PyMapping>() {
        convert_mapping(mapping, path, depth, left)
    } else if let Some(tolist) = object.getattr_opt("tolist")? {
        // Arrays and scalars of numpy and its relatives give their items as Python's own.
        convert(&tolist.call0()?, path, depth - 1, left)
    } else if is_series(object) {
        let items = object.try_iter()?.enumerate();
        items.map(|(i, item)| convert(&item?, &format!("{path}[{i}]"), depth - 1, left)).collect()
    } else if object.is_instance_of::<PyInt>() || object.hasattr("__index__")? {
        integer(object, path)
    } else {
        Err(wrong_type(path, "dict, list, tuple, str, int, float, bool or None", object))
    }
}

/// Whether it is a sequence or an iterator, but not bytes.
fn is_series(object: &Bound<'_, PyAny>) -> bool {
    let bytes = object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>();
    !bytes && (object.is_instance_of::<PySequence>() || object.cast::<PyIterator>().is_ok())
}

fn convert_mapping(
    mapping: &Bound<'_, PyMapping>,
    path: &str,
    depth: usize,
    left: &mut usize,
) -> PyResult<Value> {
    let mut object = Map::new();
    // One after another: their list could have no end.
    for key in mapping.try_iter()? {
        let key = key?;
        let value = mapping.get_item(&key)?;
        let Ok(key) = key.cast::<PyString>() else {
            return Err(wrong_type(path, "keys of type str", &key));
        };
        let key = text_of(key, path)?;
        spend(left, key.len(), path)?;
        let value = convert(&value, &format!("{path}.{key}"), depth - 1, left)?;
        object.insert(key, value);
    }
    Ok(Value::Object(object))
}

/// JSON integers are those of 64 bits, with or without sign.
fn integer(object: &Bound<'_, PyAny>, path: &str) -> PyResult<Value> {
    let too_large = || out_of_range(path, "an integer of at most 64 bits", object);
    let index = index(object)?.ok_or_else(too_large)?;
    match (index.extract::<i64>(), index.extract::<u64>()) {
        (Ok(value), _) => Ok(value.into()),
        (_, Ok(value)) => Ok(value.into()),
        _ => Err(too_large()),
    }
}

/// The `int` that an object stands for; `None` if it is none after all.
///
/// # Errors
/// What its `__index__` raises, a `TypeError` aside.
pub(crate) fn index<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if object.is_exact_instance_of::<PyInt>() {
        return Ok(Some(object.clone()));
    }
    match object.call_method0("__index__") {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

fn out_of_range(path: &str, expected: &str, object: &Bound<'_, PyAny>) -> PyErr {
    let found = object.to_string();
    let message = format!("{path}: expected {expected}, found {found}");
    let error = Error::new(ErrorKind::InvalidArgument, message);
    to_py(error.with("argument", path).with("expected", expected).with("found", found))
}

/// What a conversion found, if `error` is about a number that JSON cannot hold.
pub(crate) fn unfit_number(py: Python<'_>, error: &PyErr) -> Option<String> {
    let detail = error.value(py).getattr("detail").ok()?;
    detail.get_item("found").ok()?.extract().ok()
}

/// Refuses what is no whole number.
///
/// # Errors
/// `TypeError`.
pub(crate) fn check_whole(object: &Bound<'_, PyAny>, path: &str) -> PyResult<()> {
    match object.hasattr("__index__")? && !object.is_instance_of::<PyBool>() {
        true => Ok(()),
        false => Err(wrong_type(path, "a whole number", object)),
    }
}

/// A whole number of at most `most`, for arguments that count or number something.
///
/// # Errors
/// `TypeError` for what is none, `InvalidArgument` for one out of range.
pub(crate) fn whole(object: &Bound<'_, PyAny>, path: &str, most: u64) -> PyResult<u64> {
    check_whole(object, path)?;
    let found = index(object)?.and_then(|index| index.extract::<u64>().ok()).filter(|&found| found <= most);
    found.ok_or_else(|| out_of_range(path, &format!("a whole number from 0 to {most}"), object))
}

/// The text of a `str`.
///
/// # Errors
/// `InvalidUtf8` when it has lone surrogates.
pub(crate) fn text_of(text: &Bound<'_, PyString>, path: &str) -> PyResult<String> {
    let bad = |error: PyErr| to_py(Error::new(ErrorKind::InvalidUtf8, format!("{path}: {error}")));
    Ok(text.to_cow().map_err(bad)?.into_owned())
}

/// An object made of keyword arguments; `None` stands for none.
pub(crate) fn map_from_py(kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<Map<String, Value>> {
    let convert = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let key: String = key.extract()?;
        let value = from_py(&value, &key)?;
        Ok((key, value))
    };
    kwargs.into_iter().flat_map(|kwargs| kwargs.iter()).map(convert).collect()
}
