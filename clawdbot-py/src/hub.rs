//! Models by the name of their repository.

use std::path::PathBuf;

use clawdbot_core::{HubOptions, Runtime, Source};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::error::invalid_argument;
use crate::options::DOWNLOAD;
use crate::progress::watched;

/// What `path` stands for: nothing for the built-in model; a string for a path or a repository, which is downloaded; any
/// other path object for a path. What is repeated goes to the log of `runtime`.
///
/// # Errors
/// As `Source::fetch`; what `on_download` raises.
pub(crate) fn source(
    py: Python<'_>,
    runtime: &Runtime,
    path: Option<&Bound<'_, PyAny>>,
    options: &HubOptions,
    on_download: Option<Py<PyAny>>,
) -> PyResult<Source> {
    let source = match path {
        Some(path) => match path.cast::<PyString>() {
            Ok(name) => {
                let name: String = name.extract()?;
                let path = watched(py, on_download, |progress| runtime.fetch(&name, options, progress));
                return path.map(Source::Path);
            }
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

/// Downloads a model, unless the cache has it, and returns its path: for `Runtime.load`, `Runtime.plan`, `Runtime.pack`.
/// Arguments as those of `Model.from_pretrained`; any other is an error.
#[pyfunction]
#[pyo3(signature = (name, *, revision=None, file=None, offline=None, on_download=None, **others))]
pub(crate) fn download(
    py: Python<'_>,
    name: &str,
    revision: Option<String>,
    file: Option<String>,
    offline: Option<bool>,
    on_download: Option<Py<PyAny>>,
    others: Option<&Bound<'_, PyDict>>,
) -> PyResult<PathBuf> {
    DOWNLOAD.no_more(others)?;
    let options = HubOptions::default().revision(revision).file(file).offline(offline);
    watched(py, on_download, |progress| Source::fetch(name, &options, progress))
}
