//! Keyword arguments to the core's options, so that names, ranges and messages are the core's.

use std::path::PathBuf;

use clawdbot_core::{
    EmbedOptions, GenerateOptions, ModelOptions, PackOptions, RerankOptions, Result, RuntimeOptions, Source,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMapping, PyString};
use serde_json::{Map, Value};

use crate::error::{invalid_argument, to_py};
use crate::json;

type Kwargs<'a, 'py> = Option<&'a Bound<'py, PyDict>>;

/// Options of a generation: those of the mapping `options`, and over them the keyword arguments.
///
/// # Errors
/// `UnknownOption`, `InvalidArgument`, and those of the conversion.
pub(crate) fn generate(
    py: Python<'_>,
    options: Option<&Bound<'_, PyMapping>>,
    kwargs: Kwargs<'_, '_>,
) -> PyResult<GenerateOptions> {
    let all = PyDict::new(py);
    if let Some(options) = options {
        all.update(options)?;
    }
    if let Some(kwargs) = kwargs {
        all.update(kwargs.as_mapping())?;
    }
    if let Some(text) = all.get_item("stop")?.filter(|stop| stop.is_instance_of::<PyString>()) {
        all.set_item("stop", [text])?;
    }
    if let Some(biases) = all.get_item("logit_bias")?.filter(|biases| biases.is_instance_of::<PyMapping>()) {
        all.set_item("logit_bias", text_keys(biases.cast::<PyMapping>()?)?)?;
    }
    read(&all, GenerateOptions::NAMES, GenerateOptions::from_json)
}

/// Options of several generations: one mapping for all, or a list with one (or None) for each.
///
/// # Errors
/// `InvalidArgument` for a list of another length, `TypeError` for what is neither. Inside, for each: as [`generate`].
pub(crate) fn generate_each(
    py: Python<'_>,
    options: Option<&Bound<'_, PyAny>>,
    kwargs: Kwargs<'_, '_>,
    count: usize,
) -> PyResult<Vec<PyResult<GenerateOptions>>> {
    let one = |options: Option<&Bound<'_, PyAny>>| generate(py, mapping(options)?, kwargs);
    match options {
        Some(list) if !list.is_instance_of::<PyMapping>() && !list.is_instance_of::<PyString>() => {
            let Ok(items) = list.try_iter() else { return mapping(options).map(|_| Vec::new()) };
            let items: Vec<Bound<'_, PyAny>> = items.collect::<PyResult<_>>()?;
            if items.len() != count {
                let found = items.len();
                return Err(invalid_argument(format!(
                    "options: expected a mapping, or a list with one for each of {count} prompts, found a list of {found}"
                )));
            }
            Ok(items.iter().map(|options| one(Some(options).filter(|options| !options.is_none()))).collect())
        }
        // One error for all of them is the call's.
        _ => one(options).map(|options| vec![options; count].into_iter().map(Ok).collect()),
    }
}

/// `options` as a mapping.
///
/// # Errors
/// `TypeError`.
pub(crate) fn mapping<'a, 'py>(
    options: Option<&'a Bound<'py, PyAny>>,
) -> PyResult<Option<&'a Bound<'py, PyMapping>>> {
    let Some(options) = options else { return Ok(None) };
    options.cast::<PyMapping>().map(Some).map_err(|_| {
        let found = options.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
        let message = format!("options: expected a mapping such as a dict, found {found}");
        PyTypeError::new_err(message)
    })
}

/// Token ids as JSON keys.
fn text_keys<'py>(biases: &Bound<'py, PyMapping>) -> PyResult<Bound<'py, PyDict>> {
    let keyed = PyDict::new(biases.py());
    for item in biases.items()? {
        let (token, bias): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        keyed.set_item(token.str()?, bias)?;
    }
    Ok(keyed)
}

/// The core's options from arguments. A known option that is `None` keeps its default; sets, ranges and other collections
/// are lists.
fn read<T>(
    kwargs: &Bound<'_, PyDict>,
    names: &[&str],
    from_json: impl FnOnce(&Map<String, Value>) -> Result<T>,
) -> PyResult<T> {
    let plain = PyDict::new(kwargs.py());
    for (name, value) in kwargs {
        plain.set_item(name, listed(value)?)?;
    }
    let mut object = json::map_from_py(Some(&plain))?;
    object.retain(|name, value| !(value.is_null() && names.contains(&name.as_str())));
    from_json(&object).map_err(to_py)
}

/// A collection that is neither text nor a mapping, as a list.
fn listed(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let abc = value.py().import("collections.abc")?;
    let is = |class: &str| value.is_instance(&abc.getattr(class)?);
    let collection = is("Set")? || is("Sequence")? || is("ValuesView")?;
    let text = value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>();
    if !collection || text {
        return Ok(value);
    }
    let list = PyList::empty(value.py());
    value.try_iter()?.try_for_each(|item| list.append(item?))?;
    Ok(list.into_any())
}

macro_rules! options {
    ($($(#[$doc:meta])* $function:ident -> $type:ident;)+) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// As [`generate`].
        pub(crate) fn $function(kwargs: Kwargs<'_, '_>) -> PyResult<$type> {
            let Some(kwargs) = kwargs else { return Ok($type::default()) };
            read(kwargs, $type::NAMES, $type::from_json)
        })+
    };
}

options! {
    /// Options of a runtime.
    runtime -> RuntimeOptions;
    /// Options of a model.
    model -> ModelOptions;
    /// Options of embedding.
    embed -> EmbedOptions;
    /// Options of reranking.
    rerank -> RerankOptions;
    /// Options of packing.
    pack -> PackOptions;
}

/// Takes a runtime's options out of those of a model.
pub(crate) fn split_runtime<'py>(
    py: Python<'py>,
    kwargs: Kwargs<'_, 'py>,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
    let (of_runtime, of_model) = (PyDict::new(py), PyDict::new(py));
    for (name, value) in kwargs.into_iter().flatten() {
        let known = RuntimeOptions::NAMES.contains(&name.extract::<String>()?.as_str());
        let target = if known { &of_runtime } else { &of_model };
        target.set_item(name, value)?;
    }
    Ok((of_runtime, of_model))
}

/// A path, a shape, or neither: the built-in model.
///
/// # Errors
/// `InvalidArgument` for both.
pub(crate) fn source(path: Option<PathBuf>, shape: Option<String>) -> PyResult<Source> {
    match (path, shape) {
        (None, None) => Ok(Source::Builtin),
        (Some(path), None) => Ok(Source::Path(path)),
        (None, Some(shape)) => Ok(Source::Shape(shape)),
        (Some(_), Some(_)) => Err(invalid_argument("expected a path or a shape, found both")),
    }
}
