//! Models by the name of their repository.

use std::path::PathBuf;

use clawdbot_core::{HubOptions, Source};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::invalid_argument;
use crate::runtime::watched;

/// What `path` stands for: nothing for the built-in model; a string for a path or a repository, which is downloaded; any
/// other path object for a path.
///
/// # Errors
/// As `Source::fetch`; what `on_download` raises.
pub(crate) fn source(
    py: Python<'_>,
    path: Option<&Bound<'_, PyAny>>,
    options: &HubOptions,
    on_download: Option<Py<PyAny>>,
) -> PyResult<Source> {
    let source = match path {
        Some(path) => match path.cast::<PyString>() {
            Ok(name) => return fetch(py, name, options, on_download).map(Source::Path),
            Err(_) => Source::Path(path.extract::<PathBuf>()?),
        },
        None => Source::Builtin,
    };
    if options.revision.is_some() || options.file.is_some() {
        return Err(invalid_argument(
            "revision and file: expected with the name of a repository, OWNER/NAME",
        ));
    }
    Ok(source)
}

fn fetch(
    py: Python<'_>,
    name: &Bound<'_, PyString>,
    options: &HubOptions,
    on_download: Option<Py<PyAny>>,
) -> PyResult<PathBuf> {
    let name: String = name.extract()?;
    watched(py, on_download, |progress| Source::fetch(&name, options, progress))
}

/// Downloads a model, unless the cache has it, and returns its path: for `Runtime.load`, `Runtime.plan`, `Runtime.pack`.
/// Arguments as those of `Model.from_pretrained`.
#[pyfunction]
#[pyo3(signature = (name, *, revision=None, file=None, offline=None, on_download=None))]
pub(crate) fn download(
    py: Python<'_>,
    name: &Bound<'_, PyString>,
    revision: Option<String>,
    file: Option<String>,
    offline: Option<bool>,
    on_download: Option<Py<PyAny>>,
) -> PyResult<PathBuf> {
    let options = HubOptions::default().revision(revision).file(file).offline(offline);
    fetch(py, name, &options, on_download)
}
