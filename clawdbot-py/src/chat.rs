//! Conversations from Python.

use clawdbot_core::Chat;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::json;

/// A conversation; what its messages must be is the core's to say.
///
/// # Errors
/// As [`json::from_py`].
pub(crate) fn chat(
    messages: &Bound<'_, PyAny>,
    tools: Option<&Bound<'_, PyAny>>,
    variables: Option<&Bound<'_, PyDict>>,
) -> PyResult<Chat> {
    let tools = tools.map(|tools| json::from_py(tools, "tools")).transpose()?;
    let messages = json::from_py(messages, "messages")?;
    Ok(Chat::new(messages).tools(tools).variables(json::map_from_py(variables)?))
}
