//! A Python function that changes logits.

use clawdbot_core::{Error, ErrorKind, LogitsProcessor, Result, SharedProcessor};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::error::wrong_type;
use crate::floats::{Shape, to_numpy};

/// The name of the option.
pub(crate) const NAME: &str = "logits_processor";

struct Function(Py<PyAny>);

impl LogitsProcessor for Function {
    fn process(&self, prompt: &[u32], output: &[u32], logits: &mut [f32]) -> Result<()> {
        let called = Python::try_attach(|py| {
            self.call(py, prompt, output, logits).map_err(|error| {
                let message = format!("{NAME}: it raised {error}");
                Error::new(ErrorKind::InvalidArgument, message).with("option", NAME)
            })
        });
        called.unwrap_or_else(|| {
            Err(Error::new(ErrorKind::InvalidArgument, format!("{NAME}: the interpreter has ended")))
        })
    }
}

impl Function {
    /// Calls it with copies, and takes over what it returns, or what it has changed.
    fn call(&self, py: Python<'_>, prompt: &[u32], output: &[u32], logits: &mut [f32]) -> PyResult<()> {
        let count = logits.len();
        let rows = to_numpy(py, logits.to_vec(), Shape { rows: 1, columns: count })?;
        let array = rows.call_method1("reshape", (count,))?;
        let lists = (PyList::new(py, prompt)?, PyList::new(py, output)?, &array);
        let returned = self.0.bind(py).call1(lists)?;
        let changed = if returned.is_none() { array } else { returned };
        let floats = py.import("numpy")?.call_method1("ascontiguousarray", (changed, "<f4"))?;
        let bytes = floats.call_method0("tobytes")?;
        let bytes = bytes.cast::<PyBytes>()?.as_bytes();
        if bytes.len() != 4 * count {
            let found = floats.getattr("shape")?;
            let message =
                format!("expected None or an array of shape ({count},), found one of shape {found}");
            return Err(pyo3::exceptions::PyValueError::new_err(message));
        }
        let (chunks, _) = bytes.as_chunks::<4>();
        logits.iter_mut().zip(chunks).for_each(|(logit, bytes)| *logit = f32::from_le_bytes(*bytes));
        Ok(())
    }
}

/// Takes the function out of options, if there is one.
///
/// # Errors
/// `TypeError` for what cannot be called.
pub(crate) fn take(options: &Bound<'_, PyDict>) -> PyResult<Option<SharedProcessor>> {
    let Some(function) = options.get_item(NAME)? else { return Ok(None) };
    options.del_item(NAME)?;
    if function.is_none() {
        return Ok(None);
    }
    if !function.is_callable() {
        let expected = "a function of the prompt's token ids, the output's, and the logits";
        return Err(wrong_type(NAME, expected, &function));
    }
    Ok(Some(SharedProcessor::new(Function(function.unbind()))))
}
