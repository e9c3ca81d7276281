//! What all plain data has: fields as a dict and back, JSON, comparison, pickle.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};

use crate::error::invalid_argument;
use crate::json;

/// The methods of a class, and those that all plain data has: fields as a dict and back, JSON, comparison, pickle.
macro_rules! plain_data {
    ($class:ident { $($methods:tt)* }) => {
        #[pymethods]
        impl $class {
            /// From the fields that `to_dict` gives.
            #[new]
            fn py_new(fields: &Bound<'_, PyDict>) -> PyResult<Self> {
                clawdbot_core::$class::from_json(&$crate::plain_data::object(fields)?).map(Self::from).map_err(to_py)
            }

            /// All fields as a dict of plain values.
            fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
                objects::map_to_py(py, &self.core().to_json())
            }

            /// All fields as a JSON text.
            fn to_json(&self) -> String {
                Value::Object(self.core().to_json()).to_string()
            }

            fn __eq__(&self, other: &Self) -> bool {
                self.core() == other.core()
            }

            fn __reduce__<'py>(
                &self,
                py: Python<'py>,
            ) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
                Ok((py.get_type::<Self>(), PyTuple::new(py, [self.to_dict(py)?])?))
            }

            $($methods)*
        }
    };
}

pub(crate) fn object(fields: &Bound<'_, PyDict>) -> PyResult<Map<String, Value>> {
    match json::from_py(fields, "fields")? {
        Value::Object(map) => Ok(map),
        _ => Err(invalid_argument("fields: expected a dict")),
    }
}
pub(crate) use plain_data;
