//! The Python face of the meter: the only file that knows PyO3.

use pyo3::prelude::*;

/// The extension module `farebox._meter`.
#[pymodule]
fn _meter(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
