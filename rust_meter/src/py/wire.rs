//! Heads as Python sees them: a client's plain request, an upstream's response.

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::transfer::{CHUNKED, UNTIL_CLOSE};
use crate::{head, request};

create_exception!(
    farebox._meter,
    HeadError,
    PyValueError,
    "The upstream's response head is not acceptable HTTP/1.x."
);

/// Read a plain request from what a client's socket gave.
#[pyfunction]
fn parse_request<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    body_bytes_max: u64,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let bytes = data.as_bytes();
    let Some(found) = request::parse_request(bytes) else { return Ok(None) };
    let (head, body) = bytes.split_at_checked(found.length).unwrap_or((bytes, &[]));
    let here = u64::try_from(body.len()).unwrap_or(u64::MAX);
    if here > found.body_length || found.body_length > body_bytes_max {
        return Ok(None);
    }
    let parts = (
        if found.is_post { intern!(py, "POST") } else { intern!(py, "GET") },
        found.path,
        if found.query.is_empty() { intern!(py, "").clone() } else { PyString::new(py, found.query) },
        found.key,
        found.is_json,
        found.keep_alive,
        PyBytes::new(py, &found.lines),
        PyBytes::new(py, head),
        PyBytes::new(py, body),
        found.body_length.saturating_sub(here),
    );
    parts.into_pyobject(py).map(Some)
}

/// The client's headers that go to the upstream, as lines.
#[pyfunction]
fn request_lines<'py>(
    py: Python<'py>,
    raw_headers: Vec<(PyBackedBytes, PyBackedBytes)>,
    path: &str,
) -> Bound<'py, PyBytes> {
    let mut lines = Vec::new();
    let mut names_version = !path.starts_with(request::MESSAGES_PATH);
    for (name, value) in &raw_headers {
        names_version |= request::append_line(&mut lines, &name.to_ascii_lowercase(), value);
    }
    if !names_version {
        request::append_line(&mut lines, b"anthropic-version", request::ANTHROPIC_VERSION);
    }
    PyBytes::new(py, &lines)
}

/// One parsed response head.
#[pyclass(frozen, module = "farebox._meter")]
struct Head(head::Head);

#[pymethods]
impl Head {
    #[getter]
    fn status(&self) -> u16 {
        self.0.status
    }

    #[getter]
    fn minor_version(&self) -> u8 {
        self.0.minor_version
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        self.0.headers().map(|(name, value)| (PyBytes::new(py, name), PyBytes::new(py, value))).collect()
    }

    #[getter]
    fn framing(&self) -> i64 {
        match self.0.framing {
            head::Framing::Chunked => CHUNKED,
            head::Framing::UntilClose => UNTIL_CLOSE,
            head::Framing::Length(length) => i64::try_from(length).unwrap_or(i64::MAX),
        }
    }

    #[getter]
    fn keep_alive(&self) -> bool {
        self.0.keep_alive
    }

    #[getter]
    fn length(&self) -> usize {
        self.0.length
    }

    fn facts<'py>(&self, py: Python<'py>, request_id_bytes_max: usize) -> PyResult<Bound<'py, PyTuple>> {
        let facts = self.0.facts(request_id_bytes_max);
        let encoding: String = facts.content_encoding.iter().copied().map(char::from).collect();
        let parts = (
            PyBytes::new(py, &facts.lines),
            facts.is_event_stream,
            if encoding.is_empty() { intern!(py, "").clone() } else { PyString::new(py, &encoding) },
            facts.request_id,
        );
        parts.into_pyobject(py)
    }
}

#[pyfunction]
fn parse_head(data: &[u8], no_body: bool, bytes_max: usize, headers_max: usize) -> PyResult<Option<Head>> {
    match head::parse_head(data, no_body, bytes_max, headers_max) {
        Ok(head) => Ok(head.map(Head)),
        Err(head::HeadError(reason)) => Err(HeadError::new_err(reason)),
    }
}

/// Add what the two sides of the wire use.
pub fn add_wire(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("HeadError", module.py().get_type::<HeadError>())?;
    module.add_class::<Head>()?;
    module.add_function(wrap_pyfunction!(parse_request, module)?)?;
    module.add_function(wrap_pyfunction!(request_lines, module)?)?;
    module.add_function(wrap_pyfunction!(parse_head, module)?)
}
