//! The Python face of the meter: this file and its modules are the only ones that know PyO3.

mod admission;
mod body;
mod plain;
mod records;
mod recovery;
mod settlement;
mod whole_answer;
mod wire;

use pyo3::prelude::*;

/// The extension module `farebox._meter`.
#[pymodule]
fn _meter(module: &Bound<'_, PyModule>) -> PyResult<()> {
    body::add_body(module)?;
    admission::add_admission(module)?;
    plain::add_plain(module)?;
    settlement::add_settlement(module)?;
    records::add_records(module)?;
    recovery::add_recovery(module)?;
    whole_answer::add_whole_answer(module)?;
    wire::add_wire(module)
}
