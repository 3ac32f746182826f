//! The Python face of the meter: the only file that knows PyO3.

mod admission;

use pyo3::prelude::*;

/// The extension module `farebox._meter`.
#[pymodule]
fn _meter(module: &Bound<'_, PyModule>) -> PyResult<()> {
    admission::add_admission(module)
}
