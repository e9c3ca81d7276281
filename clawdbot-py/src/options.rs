//! Keyword arguments to the core's options, so that names, ranges and messages are the core's.

use std::path::PathBuf;

use clawdbot_core::{
    EmbedOptions, GenerateOptions, ModelOptions, PackOptions, RerankOptions, RuntimeOptions, Source,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString};
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
    GenerateOptions::from_json(&set(&all, GenerateOptions::NAMES)?).map_err(to_py)
}

/// As [`generate`], for rendered conversations: special tokens come from the template.
pub(crate) fn chat(
    py: Python<'_>,
    options: Option<&Bound<'_, PyMapping>>,
    kwargs: Kwargs<'_, '_>,
) -> PyResult<GenerateOptions> {
    let given = |name| -> PyResult<bool> {
        Ok(match (options, kwargs) {
            (_, Some(kwargs)) if kwargs.contains(name)? => true,
            (Some(options), _) => options.contains(name)?,
            _ => false,
        })
    };
    let explicit = given("add_special_tokens")?;
    let options = generate(py, options, kwargs)?;
    Ok(if explicit { options } else { options.add_special_tokens(false) })
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

/// The arguments as a JSON object. A known option that is `None` keeps its default.
fn set(kwargs: &Bound<'_, PyDict>, names: &[&str]) -> PyResult<Map<String, Value>> {
    let mut object = json::map_from_py(Some(kwargs))?;
    object.retain(|name, value| !(value.is_null() && names.contains(&name.as_str())));
    Ok(object)
}

/// Options of a runtime.
///
/// # Errors
/// As [`generate`].
pub(crate) fn runtime(kwargs: &Bound<'_, PyDict>) -> PyResult<RuntimeOptions> {
    RuntimeOptions::from_json(&set(kwargs, RuntimeOptions::NAMES)?).map_err(to_py)
}

/// Options of a model.
///
/// # Errors
/// As [`generate`].
pub(crate) fn model(kwargs: Kwargs<'_, '_>) -> PyResult<ModelOptions> {
    let Some(kwargs) = kwargs else { return Ok(ModelOptions::default()) };
    ModelOptions::from_json(&set(kwargs, ModelOptions::NAMES)?).map_err(to_py)
}

/// Options of embedding.
///
/// # Errors
/// As [`generate`].
pub(crate) fn embed(kwargs: Kwargs<'_, '_>) -> PyResult<EmbedOptions> {
    let Some(kwargs) = kwargs else { return Ok(EmbedOptions::default()) };
    EmbedOptions::from_json(&set(kwargs, EmbedOptions::NAMES)?).map_err(to_py)
}

/// Options of reranking.
///
/// # Errors
/// As [`generate`].
pub(crate) fn rerank(kwargs: Kwargs<'_, '_>) -> PyResult<RerankOptions> {
    let Some(kwargs) = kwargs else { return Ok(RerankOptions::default()) };
    RerankOptions::from_json(&set(kwargs, RerankOptions::NAMES)?).map_err(to_py)
}

/// Options of packing.
///
/// # Errors
/// As [`generate`].
pub(crate) fn pack(kwargs: Kwargs<'_, '_>) -> PyResult<PackOptions> {
    let Some(kwargs) = kwargs else { return Ok(PackOptions::default()) };
    PackOptions::from_json(&set(kwargs, PackOptions::NAMES)?).map_err(to_py)
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
