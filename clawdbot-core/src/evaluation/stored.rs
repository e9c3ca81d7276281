//! Reports that are stored in the packed files that were evaluated.

use std::path::Path;

use serde_json::{Value, json};

use super::report::Evaluation;
use crate::cancel::{Progress, Stage};
use crate::error::{Error, Result};
use crate::load::source::{Opened, Source};
use crate::load::weights::Weights;
use crate::options::EvaluateOptions;
use crate::weights::PackedFile;

/// Where a report is stored.
pub(super) struct Stored<'a> {
    file: &'a PackedFile,
    path: &'a Path,
}

/// The file, if `options` want the report to be stored.
///
/// # Errors
/// `InvalidArgument` for what is no packed file, or is evaluated with adapters that it does not have.
pub(super) fn check<'a>(
    opened: &'a Opened,
    source: &'a Source,
    options: &EvaluateOptions,
) -> Result<Option<Stored<'a>>> {
    if !options.store {
        return Ok(None);
    }
    match (&opened.weights, source) {
        (Weights::Packed(file), Source::Path(path)) => Ok(Some(Stored { file, path })),
        _ => {
            let expected = "a packed model file, without adapters";
            let message = format!("option store: expected {expected}, found {}", opened.name);
            Err(Error::invalid_argument(message).with("option", "store").with("expected", expected))
        }
    }
}

impl Stored<'_> {
    /// Stores `found` with the version that found it.
    pub(super) fn store(&self, found: &Evaluation, progress: &mut dyn FnMut(Progress) -> bool) -> Result<()> {
        let Value::Object(mut report) = json!(found) else {
            return Err(Error::internal("a report that is no object"));
        };
        report.insert("written_by".to_owned(), env!("CARGO_PKG_VERSION").into());
        self.file.store_report(self.path, &report, &mut |done, total| {
            progress(Progress { done, total, stage: Some(Stage::StoringReport) })
        })
    }
}
