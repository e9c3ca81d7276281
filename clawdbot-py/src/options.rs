//! Keyword arguments to the core's options, so that names, ranges and messages are the core's.

use std::path::PathBuf;

use clawdbot_core::constraint::ConstraintSpec;
use clawdbot_core::{
    Chat, EmbedOptions, EvaluateOptions, GenerateOptions, ModelOptions, OptionSet, OptionSpec, OptionType,
    PackOptions, RerankOptions, RuntimeOptions, Source, check_option_names,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMapping, PyString};
use serde_json::{Map, Value};

use crate::error::{invalid_argument, of_prompt, to_py, wrong_type};
use crate::json;
use crate::processor;
use crate::prompt::MAX_ITERATED;

type Kwargs<'a, 'py> = Option<&'a Bound<'py, PyDict>>;

/// What a call takes by name besides its options. Nothing but the text of errors depends on it.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    /// The names of its arguments.
    Plain(&'static [&'static str]),
    /// One that answers a conversation: its template has variables.
    Chat,
}

/// `Model.generate`.
pub(crate) const GENERATE: Call = Call::Plain(&["prompt", "options", "return_exceptions"]);
/// `Model.stream`.
pub(crate) const STREAM: Call = Call::Plain(&["prompt", "options"]);
/// `Session.generate` and `Session.stream`.
pub(crate) const CONTINUE: Call = Call::Plain(&["options"]);
/// `Model.from_pretrained`.
pub(crate) const PRETRAINED: Call =
    Call::Plain(&["path", "revision", "file", "offline", "on_download", "runtime", "on_log", "on_progress"]);
/// `Model.from_shape`.
pub(crate) const SHAPE: Call = Call::Plain(&["shape", "runtime", "on_log", "on_progress"]);
/// `Runtime.plan`.
pub(crate) const PLAN: Call = Call::Plain(&["path", "shape"]);
/// `Runtime.load`.
pub(crate) const LOAD: Call = Call::Plain(&["path", "shape", "on_progress"]);
/// `ModelPool.add`.
pub(crate) const POOL_ADD: Call = Call::Plain(&["name", "path", "shape", "pin", "idle_unload", "instances"]);
/// An instance of `ModelPool.add`, and `Model.instance`.
pub(crate) const INSTANCE: Call = Call::Plain(&[]);
/// `Runtime.pack`.
pub(crate) const PACK: Call = Call::Plain(&["path", "target", "shape", "on_progress"]);
/// `Runtime.evaluate`.
pub(crate) const EVALUATE: Call = Call::Plain(&["path", "shape", "on_progress"]);
/// `Runtime`, whose arguments are its options.
pub(crate) const RUNTIME: Call = Call::Plain(&["on_log"]);
/// `download`.
pub(crate) const DOWNLOAD: Call = Call::Plain(&["name", "revision", "file", "offline", "on_download"]);
/// `Session.append`.
pub(crate) const APPEND: Call = Call::Plain(&["prompt", "add_special_tokens"]);
/// `Model.embed`.
pub(crate) const EMBED: Call = Call::Plain(&["texts", "on_progress", "return_exceptions"]);
/// `Constraint`, whose arguments are its options.
const CONSTRAINT: Call = Call::Plain(&["tokenizer"]);
/// `Model.rerank`.
pub(crate) const RERANK: Call = Call::Plain(&["query", "documents", "on_progress", "return_exceptions"]);

impl Call {
    /// Refuses all names: the call takes none but its arguments.
    pub(crate) fn no_more(self, kwargs: Kwargs<'_, '_>) -> PyResult<()> {
        kwargs.map_or(Ok(()), |kwargs| self.check(kwargs, &[]))
    }

    /// Refuses names that are neither of `options` nor arguments.
    fn check(self, kwargs: &Bound<'_, PyDict>, options: &[&[&str]]) -> PyResult<()> {
        let names = kwargs.keys().iter().map(|name| text_of(&name)).collect::<PyResult<Vec<_>>>()?;
        let names = names.iter().map(String::as_str);
        let checked = match self {
            Call::Plain(arguments) => check_option_names(names, options, arguments),
            Call::Chat => Chat::check_option_names(names, &["messages", "tools", "options", "variables"]),
        };
        checked.map_err(to_py)
    }
}

fn text_of(name: &Bound<'_, PyAny>) -> PyResult<String> {
    match name.cast::<PyString>() {
        Ok(name) => json::text_of(name, "options"),
        Err(_) => Err(wrong_type("options", "names of type str", name)),
    }
}

/// Options of a generation: those of the mapping `options`, and over them the keyword arguments.
///
/// # Errors
/// `UnknownOption`, `InvalidArgument`, and those of the conversion; `TypeError` for what is no mapping.
pub(crate) fn generate(
    call: Call,
    py: Python<'_>,
    options: Option<&Bound<'_, PyAny>>,
    kwargs: Kwargs<'_, '_>,
) -> PyResult<GenerateOptions> {
    let all = PyDict::new(py);
    if let Some(options) = options {
        all.update(mapping(options)?)?;
    }
    if let Some(kwargs) = kwargs {
        all.update(kwargs.as_mapping())?;
    }
    let processor = processor::take(&all)?;
    call.check(&all, &[GenerateOptions::NAMES])?;
    Ok(read::<GenerateOptions>(&all)?.logits_processor(processor))
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
    let one = |options: Option<&Bound<'_, PyAny>>| generate(GENERATE, py, options, kwargs);
    match options {
        Some(list) if !list.is_instance_of::<PyMapping>() && !list.is_instance_of::<PyString>() => {
            let Ok(items) = list.try_iter() else { return mapping(list).map(|_| Vec::new()) };
            // However long it is.
            let items: Vec<Bound<'_, PyAny>> = items.take(count + 1).collect::<PyResult<_>>()?;
            if items.len() != count {
                let found = list.len().unwrap_or(items.len());
                return Err(invalid_argument(format!(
                    "options: expected a mapping, or a list with one for each of {count} prompts, found a list of {found}"
                )));
            }
            let one = |(index, options): (usize, &Bound<'_, PyAny>)| {
                one(Some(options).filter(|options| !options.is_none()))
                    .map_err(|error| of_prompt(py, error, index))
            };
            Ok(items.iter().enumerate().map(one).collect())
        }
        // One error for all of them is the call's.
        _ => one(options).map(|options| vec![options; count].into_iter().map(Ok).collect()),
    }
}

fn mapping<'a, 'py>(options: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyMapping>> {
    options.cast::<PyMapping>().map_err(|_| {
        let hint = if options.is_instance_of::<PyString>() { " (a prompt is no option)" } else { "" };
        let expected = "a mapping such as {'max_tokens': 20}, or options by their names";
        let error = wrong_type("options", expected, options);
        PyTypeError::new_err(format!("{}{hint}", error.value(options.py())))
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

/// A constraint of its own: the options that set one.
///
/// # Errors
/// `InvalidArgument` for none and for more than one; else as [`generate`].
pub(crate) fn constraint(kwargs: &Bound<'_, PyDict>) -> PyResult<ConstraintSpec> {
    CONSTRAINT.check(kwargs, &[ConstraintSpec::OPTIONS])?;
    ConstraintSpec::from_json(&object::<GenerateOptions>(kwargs)?).map_err(to_py)
}

/// The core's options from arguments, whose names are checked. One that is `None` keeps its default.
fn read<T: OptionSet>(kwargs: &Bound<'_, PyDict>) -> PyResult<T> {
    T::from_json(&object::<T>(kwargs)?).map_err(to_py)
}

/// The arguments that are not `None` as JSON, which the options of `T` take.
fn object<T: OptionSet>(kwargs: &Bound<'_, PyDict>) -> PyResult<Map<String, Value>> {
    let mut object = Map::new();
    for (name, value) in kwargs {
        let name: String = name.extract()?;
        let option = T::GROUP.options.iter().find(|option| option.name == name);
        let value = match option {
            _ if value.is_none() => continue,
            Some(option) => option_value(option, value)?,
            // Which the core refuses.
            None => Value::Null,
        };
        object.insert(name, value);
    }
    Ok(object)
}

/// A value as JSON: sets, ranges and other collections are lists, paths their text, and a text alone is a list of one.
///
/// # Errors
/// The core's `InvalidArgument` for a number that JSON cannot hold; those of the conversion.
fn option_value(option: &OptionSpec, value: Bound<'_, PyAny>) -> PyResult<Value> {
    let py = value.py();
    let given = match option.values {
        OptionType::List { of: OptionType::Text, .. } if value.is_instance_of::<PyString>() => {
            PyList::new(py, [&value])?.into_any()
        }
        OptionType::TokenMap(_) if value.is_instance_of::<PyMapping>() => {
            text_keys(value.cast::<PyMapping>()?)?.into_any()
        }
        _ => listed(value)?,
    };
    json::from_py(&given, option.name).map_err(|error| match json::unfit_number(py, &error) {
        Some(found) => to_py(option.error(found)),
        None => error,
    })
}

/// A collection that is neither text nor a mapping as a list, a path as text; paths in the list too.
fn listed(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if value.is_instance_of::<PyString>() || value.hasattr("__fspath__")? {
        return pathlike(value);
    }
    let abc = value.py().import("collections.abc")?;
    let is = |class: &str| value.is_instance(&abc.getattr(class)?);
    let bytes = value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>();
    if bytes || !(is("Set")? || is("Sequence")? || is("ValuesView")? || is("Iterator")?) {
        return Ok(value);
    }
    let list = PyList::empty(value.py());
    for (i, item) in value.try_iter()?.enumerate() {
        if i == MAX_ITERATED {
            let message = format!("an option: expected a list of at most {MAX_ITERATED} items, found more");
            return Err(invalid_argument(message));
        }
        list.append(pathlike(item?)?)?;
    }
    Ok(list.into_any())
}

fn pathlike(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    match value.getattr_opt("__fspath__")? {
        Some(path) => path.call0(),
        None => Ok(value),
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $function:ident -> $type:ident;)+) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// As [`generate`].
        pub(crate) fn $function(call: Call, kwargs: Kwargs<'_, '_>) -> PyResult<$type> {
            let Some(kwargs) = kwargs else { return Ok($type::default()) };
            call.check(kwargs, &[$type::NAMES])?;
            read(kwargs)
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
    /// Options of evaluating.
    evaluate -> EvaluateOptions;
}

/// Options of a model, and apart from them those of a runtime.
pub(crate) fn split_runtime<'py>(
    call: Call,
    py: Python<'py>,
    kwargs: Kwargs<'_, 'py>,
) -> PyResult<(Bound<'py, PyDict>, ModelOptions)> {
    let (of_runtime, of_model) = (PyDict::new(py), PyDict::new(py));
    if let Some(kwargs) = kwargs {
        call.check(kwargs, &[ModelOptions::NAMES, RuntimeOptions::NAMES])?;
    }
    for (name, value) in kwargs.into_iter().flatten() {
        let known = RuntimeOptions::NAMES.contains(&name.extract::<String>()?.as_str());
        let target = if known { &of_runtime } else { &of_model };
        target.set_item(name, value)?;
    }
    let options = model(call, Some(&of_model))?;
    Ok((of_runtime, options))
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
