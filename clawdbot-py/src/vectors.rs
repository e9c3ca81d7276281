//! Vectors of texts, and scores of documents.

use clawdbot_core as core;
use clawdbot_core::{CancelHandle, EmbedResults, RerankResults};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString};

use crate::floats::{Shape, to_numpy};
use crate::progress::watched;
use crate::{batch, options, prompt};

/// `Model.embed`.
pub(crate) fn embed<'py>(
    py: Python<'py>,
    model: &core::Model,
    texts: &Bound<'py, PyAny>,
    return_exceptions: bool,
    on_progress: Option<Py<PyAny>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = options::embed(options::EMBED, options)?;
    let single = texts.is_instance_of::<PyString>();
    let texts = match single {
        true => vec![prompt::one(texts, "texts")],
        false => prompt::many(texts, &prompt::TEXTS)?,
    };
    let count = texts.len();
    let EmbedResults { embeddings, faults, .. } = watched(py, on_progress, |progress| {
        model.embed_each(batch::given(texts), &options, &CancelHandle::default(), progress)
    })?;
    let vectors = to_numpy(py, embeddings.values, Shape { rows: count, columns: embeddings.dimensions })?;
    if faults.is_empty() && !return_exceptions && !single {
        return Ok(vectors);
    }
    let mut results = batch::results(faults, count, |index| vectors.get_item(index).map(Bound::unbind));
    match results.pop_if(|_| single) {
        Some(result) => batch::deliver_one(py, result, return_exceptions),
        None => batch::deliver(py, results, return_exceptions),
    }
}

/// `Model.rerank`, of a query and documents.
pub(crate) fn rerank<'py>(
    py: Python<'py>,
    model: &core::Model,
    (query, documents): (&Bound<'py, PyAny>, &Bound<'py, PyAny>),
    return_exceptions: bool,
    on_progress: Option<Py<PyAny>>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let options = options::rerank(options::RERANK, options)?;
    let (query, documents) = (prompt::text(query, "query")?, prompt::texts(documents, &prompt::DOCUMENTS)?);
    let count = documents.len();
    let RerankResults { scores, faults, .. } = watched(py, on_progress, |progress| {
        let documents = batch::given(documents);
        model.rerank_each(&query, documents, &options, &CancelHandle::default(), progress)
    })?;
    if faults.is_empty() && !return_exceptions {
        return to_numpy(py, scores, Shape { rows: 1, columns: count })?.call_method1("reshape", (count,));
    }
    let score = |index: usize| Ok(PyFloat::new(py, scores[index].into()).into_any().unbind());
    batch::deliver(py, batch::results(faults, count, score), return_exceptions)
}
