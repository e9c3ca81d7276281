//! Rows of floats as a numpy array, without a copy.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Rows and columns of an array.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Owns the floats that an array looks at; numpy keeps it alive as the array's `base`.
#[pyclass(frozen, module = "clawdbot._clawdbot", name = "_Floats")]
struct Floats {
    address: usize,
    shape: Shape,
    _data: Vec<f32>,
}

#[pymethods]
impl Floats {
    /// numpy's description of the memory: <https://numpy.org/doc/stable/reference/arrays.interface.html>.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", (self.shape.rows, self.shape.columns))?;
        interface.set_item("typestr", if cfg!(target_endian = "little") { "<f4" } else { ">f4" })?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }
}

/// `data`, `[rows, columns]` row-major, as a float32 array.
///
/// # Errors
/// What importing numpy raises.
pub(crate) fn to_numpy(py: Python<'_>, mut data: Vec<f32>, shape: Shape) -> PyResult<Bound<'_, PyAny>> {
    // Moving the vector leaves its heap block where it is, and nothing here touches it again.
    let address = data.as_mut_ptr().expose_provenance();
    let owner = Bound::new(py, Floats { address, shape, _data: data })?;
    py.import("numpy")?.call_method1("asarray", (owner,))
}
