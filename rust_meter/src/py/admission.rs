//! The part of the Python face that admission and pricing use.

use std::collections::HashMap;

use pyo3::create_exception;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyDict};

use crate::{money, price, scan};

// ---- request scan -------------------------------------------------------------------------------

/// Bodies above this are read with the interpreter lock released; below, releasing costs more than it
/// gives.
const RELEASE_LOCK_BYTES_MIN: usize = 64 * 1024;

create_exception!(farebox._meter, ScanError, PyValueError, "The request body cannot be served.");
create_exception!(
    farebox._meter,
    PriceError,
    PyValueError,
    "A price or amount is not usable, or a charge overflows."
);

fn scan_error(py: Python<'_>, error: &scan::ScanError) -> PyErr {
    let raised = ScanError::new_err(error.message.clone());
    let value = raised.value(py);
    let attributes =
        value.setattr("code", error.code).and_then(|()| value.setattr("field", error.field.as_str()));
    attributes.err().unwrap_or(raised)
}

/// What admission needs from a request body.
#[pyclass(frozen, module = "farebox._meter")]
pub struct Scan(pub scan::Scan);

#[pymethods]
impl Scan {
    #[getter]
    fn model(&self) -> &str {
        &self.0.model
    }

    #[getter]
    fn stream(&self) -> bool {
        self.0.stream
    }

    #[getter]
    fn output_limit(&self) -> Option<u32> {
        self.0.output_limit
    }

    #[getter]
    fn choices(&self) -> u64 {
        self.0.choices
    }

    #[getter]
    fn include_usage(&self) -> Option<bool> {
        self.0.include_usage
    }

    #[getter]
    fn text_bytes(&self) -> usize {
        self.0.text_bytes
    }

    #[getter]
    fn data_bytes(&self) -> usize {
        self.0.data_bytes
    }

    #[getter]
    fn image_count(&self) -> u64 {
        self.0.image_count
    }

    #[getter]
    fn audio_count(&self) -> u64 {
        self.0.audio_count
    }

    #[getter]
    fn file_count(&self) -> u64 {
        self.0.file_count
    }

    #[getter]
    fn tool_count(&self) -> u64 {
        self.0.tool_count
    }

    #[getter]
    fn message_count(&self) -> u64 {
        self.0.message_count
    }

    #[getter]
    fn server_context(&self) -> bool {
        self.0.server_context
    }

    #[getter]
    fn price_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        self.0.price_fields.iter().try_for_each(|(name, value)| fields.set_item(name, value))?;
        Ok(fields)
    }

    #[getter]
    fn hosted_tools(&self) -> Vec<String> {
        self.0.hosted_tools.clone()
    }

    fn edited<'py>(
        &self,
        py: Python<'py>,
        body: &[u8],
        model: Option<&str>,
        include_usage: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        match scan::edited(&self.0, body, model, include_usage) {
            Some(bytes) => Ok(PyBytes::new(py, &bytes)),
            None => Err(PyValueError::new_err("this is not the body that was scanned")),
        }
    }
}

#[pyfunction]
#[pyo3(name = "scan", signature = (body, wire_format, depth_max = 128))]
fn scan_body(py: Python<'_>, body: &[u8], wire_format: &str, depth_max: usize) -> PyResult<Scan> {
    let Some(format) = scan::Format::named(wire_format) else {
        return Err(PyValueError::new_err(format!("no request body has the wire format {wire_format:?}")));
    };
    let result = if body.len() < RELEASE_LOCK_BYTES_MIN {
        scan::scan(body, format, depth_max)
    } else {
        py.detach(|| scan::scan(body, format, depth_max))
    };
    result.map(Scan).map_err(|error| scan_error(py, &error))
}

// ---- prices -------------------------------------------------------------------------------------

fn price_error(error: price::PriceError) -> PyErr {
    PriceError::new_err(error.0)
}

/// A count as Python holds it; PriceError when it is negative or beyond 2^64-1.
fn natural(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PriceError::new_err(format!("{value} is no count: it must be 0 to 2^64-1"))
        } else {
            error
        }
    })
}

fn amount_error(error: money::MoneyError) -> PyErr {
    PriceError::new_err(error.0)
}

/// Priced usage.
#[pyclass(frozen, module = "farebox._meter")]
struct Charge(price::Charge);

#[pymethods]
impl Charge {
    #[getter]
    fn amount_pico<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // Amounts below 9.2 million USD take the interpreter's short way for machine words.
        match i64::try_from(self.0.amount_pico) {
            Ok(short) => Ok(short.into_pyobject(py)?.into_any()),
            Err(_) => Ok(self.0.amount_pico.into_pyobject(py)?.into_any()),
        }
    }

    #[getter]
    fn lines(&self) -> Vec<price::ChargeLine> {
        self.0.lines.clone()
    }

    #[getter]
    fn multiplier(&self) -> &str {
        &self.0.multiplier
    }

    #[getter]
    fn tier(&self) -> i64 {
        self.0.tier
    }

    #[getter]
    fn missing(&self) -> Vec<String> {
        self.0.missing.clone()
    }
}

/// Compiled, immutable prices of one model.
#[pyclass(frozen, module = "farebox._meter")]
pub struct Price(pub price::Price);

#[pymethods]
impl Price {
    #[new]
    #[pyo3(signature = (lines, multiplier = "1", *, tiers = Vec::new(), variants = HashMap::new()))]
    fn new(
        lines: HashMap<String, String>,
        multiplier: &str,
        tiers: Vec<(u64, bool, HashMap<String, String>)>,
        variants: HashMap<String, HashMap<String, String>>,
    ) -> PyResult<Self> {
        let texts = |lines: HashMap<String, String>| lines.into_iter().collect::<price::LineTexts>();
        let tiers: Vec<price::TierTexts> = tiers
            .into_iter()
            .map(|(threshold, inclusive, lines)| (threshold, inclusive, texts(lines)))
            .collect();
        let variants: Vec<_> = variants.into_iter().map(|(name, lines)| (name, texts(lines))).collect();
        price::Price::new(&texts(lines), multiplier, &tiers, &variants).map(Self).map_err(price_error)
    }

    #[pyo3(signature = (counts, input_total, variant = None))]
    fn charge(
        &self,
        counts: &Bound<'_, PyDict>,
        input_total: &Bound<'_, PyAny>,
        variant: Option<&str>,
    ) -> PyResult<Charge> {
        let mut kinds: Vec<(PyBackedStr, u64)> = Vec::with_capacity(counts.len());
        for (kind, count) in counts.iter() {
            kinds.push((kind.extract()?, natural(&count)?));
        }
        let input_total = natural(input_total)?;
        let counts: Vec<(&str, u64)> = kinds.iter().map(|(kind, count)| (&**kind, *count)).collect();
        self.0.charge(&counts, input_total, variant).map(Charge).map_err(price_error)
    }
}

#[pyfunction]
fn parse_pico(amount: &str) -> PyResult<i128> {
    money::parse_pico(amount).map_err(amount_error)
}

#[pyfunction]
fn format_pico(amount_pico: i128) -> String {
    money::format_pico(amount_pico)
}

/// Add what admission and pricing use.
pub fn add_admission(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("ScanError", py.get_type::<ScanError>())?;
    module.add("PriceError", py.get_type::<PriceError>())?;
    module.add_class::<Scan>()?;
    module.add_class::<Charge>()?;
    module.add_class::<Price>()?;
    module.add_function(wrap_pyfunction!(scan_body, module)?)?;
    module.add_function(wrap_pyfunction!(parse_pico, module)?)?;
    module.add_function(wrap_pyfunction!(format_pico, module)?)
}
