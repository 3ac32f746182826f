//! `Pipe` and `Reading` as Python sees them.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::normal::{CacheSemantics, Totals};
use crate::pipe::{self, Fed, OptionError, Options};
use crate::reading;
use crate::transfer;

/// Add the classes and constants of response bodies to the module.
pub fn add_body(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CHUNKED", transfer::CHUNKED)?;
    module.add("UNTIL_CLOSE", transfer::UNTIL_CLOSE)?;
    module.add("TERMINAL", pipe::TERMINAL)?;
    module.add("END", pipe::END)?;
    module.add("REUSABLE", pipe::REUSABLE)?;
    module.add("BROKEN", pipe::BROKEN)?;
    module.add("OVERSIZE", pipe::OVERSIZE)?;
    module.add_class::<Pipe>()?;
    module.add_class::<Reading>()
}

/// One response body on its way through.
#[pyclass(module = "farebox._meter")]
pub struct Pipe(pub pipe::Pipe);

#[pymethods]
impl Pipe {
    #[new]
    #[pyo3(signature = (wire_format, framing, *, chunked_out=false, strip_usage=false, content_encoding="",
        cache_semantics="auto", inflated_bytes_max=268_435_456, event_bytes_max=67_108_864))]
    #[allow(clippy::too_many_arguments, reason = "the Python contract's keywords")]
    fn new(
        wire_format: &str,
        framing: i64,
        chunked_out: bool,
        strip_usage: bool,
        content_encoding: &str,
        cache_semantics: &str,
        inflated_bytes_max: u64,
        event_bytes_max: u64,
    ) -> PyResult<Self> {
        let cache_semantics = match cache_semantics {
            "auto" => CacheSemantics::Auto,
            "inclusive" => CacheSemantics::Inclusive,
            "exclusive" => CacheSemantics::Exclusive,
            other => return Err(PyValueError::new_err(format!("unknown cache_semantics {other:?}"))),
        };
        let options = Options {
            wire_format,
            framing,
            chunked_out,
            strip_usage,
            content_encoding,
            cache_semantics,
            inflated_bytes_max,
            event_bytes_max,
        };
        let message = |error| match error {
            OptionError::WireFormat => format!("unknown wire_format {wire_format:?}"),
            OptionError::Framing => format!("framing {framing} is no length"),
            OptionError::ContentEncoding => {
                format!("content_encoding {content_encoding:?} cannot be metered")
            }
        };
        pipe::Pipe::new(&options).map(Self).map_err(|error| PyValueError::new_err(message(error)))
    }

    fn feed<'py>(&mut self, py: Python<'py>, data: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        given(py, &self.0.feed(data.as_bytes()))
    }

    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        given(py, &self.0.finish())
    }

    #[getter]
    fn output_bytes(&self) -> u64 {
        self.0.output_bytes()
    }

    fn reading(&self, py: Python<'_>) -> PyResult<Reading> {
        Reading::new(py, &self.0.reading())
    }
}

fn given<'py>(py: Python<'py>, fed: &Fed<'_>) -> PyResult<Bound<'py, PyAny>> {
    match fed {
        Fed::Same => Ok(py.None().into_bound(py)),
        Fed::Bytes(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
        Fed::Split { now, held, state } => {
            let parts = (PyBytes::new(py, now), PyBytes::new(py, held), *state);
            let tuple: Bound<'py, PyTuple> = parts.into_pyobject(py)?;
            Ok(tuple.into_any())
        }
    }
}

/// What a response body says about its usage.
#[pyclass(module = "farebox._meter", frozen, get_all)]
struct Reading {
    usage: Option<Py<PyDict>>,
    counts: Py<PyDict>,
    input_total: u64,
    other_models: Py<PyDict>,
    complete: bool,
    r#final: bool,
    failed: bool,
    flags: Vec<&'static str>,
    model: Option<String>,
    response_id: Option<String>,
    service_tier: Option<String>,
    speed: Option<String>,
    inference_geo: Option<String>,
    raw: Py<PyBytes>,
    output_bytes: u64,
}

impl Reading {
    fn new(py: Python<'_>, reading: &reading::Reading) -> PyResult<Self> {
        let usage = match &reading.totals {
            Some(totals) => Some(usage_members(py, totals)?.unbind()),
            None => None,
        };
        let other_models = PyDict::new(py);
        for other in reading.totals.iter().flat_map(|totals| &totals.others) {
            other_models.set_item(lossy(&other.model), members(py, other.totals.counts().above_zero())?)?;
        }
        Ok(Self {
            usage,
            counts: members(py, reading.counts.above_zero())?.unbind(),
            input_total: reading.input_total,
            other_models: other_models.unbind(),
            complete: reading.is_complete,
            r#final: reading.is_final,
            failed: reading.is_failed,
            flags: reading.flags.clone(),
            model: reading.model.clone(),
            response_id: reading.response_id.clone(),
            service_tier: reading.service_tier.clone(),
            speed: reading.speed.clone(),
            inference_geo: reading.inference_geo.clone(),
            raw: PyBytes::new(py, &reading.raw).unbind(),
            output_bytes: reading.output_bytes,
        })
    }
}

/// The members of the corpus index's `expected`.
fn usage_members<'py>(py: Python<'py>, totals: &Totals) -> PyResult<Bound<'py, PyDict>> {
    let usage = PyDict::new(py);
    usage.set_item("input_total", totals.input_total)?;
    usage.set_item("uncached_input", totals.uncached_input)?;
    usage.set_item("output", totals.output)?;
    usage.set_item("cache_read", totals.cache_read)?;
    usage.set_item("cache_write", totals.cache_write)?;
    usage.set_item("cache_write_5m", totals.cache_write_5m)?;
    usage.set_item("cache_write_1h", totals.cache_write_1h)?;
    usage.set_item("reasoning", totals.reasoning)?;
    if let Some(tool_use_prompt) = totals.tool_use_prompt {
        usage.set_item("tool_use_prompt_tokens", tool_use_prompt)?;
    }
    if !totals.others.is_empty() {
        let others = PyDict::new(py);
        for other in &totals.others {
            let entry = PyDict::new(py);
            entry.set_item("type", lossy(&other.kind))?;
            entry.set_item("uncached_input", other.totals.uncached_input)?;
            entry.set_item("output", other.totals.output)?;
            entry.set_item("cache_read", other.totals.cache_read)?;
            entry.set_item("cache_write", other.totals.cache_write)?;
            others.set_item(lossy(&other.model), entry)?;
        }
        usage.set_item("other_models", others)?;
    }
    Ok(usage)
}

fn members<'py>(
    py: Python<'py>,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (kind, count) in counts {
        dict.set_item(kind, count)?;
    }
    Ok(dict)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
