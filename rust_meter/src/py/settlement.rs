//! The end of a plain exchange as Python sees it: its charge, its journal record, and journal frames.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::body::Pipe;
use super::plain::PlainTerms;
use crate::journal::{OVERHEAD_BYTES, Place, push_frame};
use crate::normal::Counts;
use crate::pipe;
use crate::settlement::{Charged, Facts, Take, Wording, line, record};

/// What all exchanges of one model on one route have in common, for their records.
#[pyclass(frozen, module = "farebox._meter")]
struct SettlementWording(Wording);

#[pymethods]
impl SettlementWording {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "the record's own fields")]
    fn new(
        wallet: String,
        model: String,
        wire_format: String,
        price_version: u64,
        multiplier: String,
        upstream: String,
        free: bool,
        upstream_model_characters_max: usize,
    ) -> Self {
        Self(Wording {
            wallet,
            model,
            wire_format,
            price_version,
            multiplier,
            upstream,
            free,
            upstream_model_characters_max,
        })
    }
}

/// The exact charge of a plain answer, and what it was for.
#[pyclass(frozen, module = "farebox._meter")]
pub struct PlainCharge(pub Charged);

#[pymethods]
impl PlainCharge {
    #[getter]
    fn amount_pico(&self) -> i64 {
        self.0.amount_pico
    }

    #[getter]
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        self.0.counts.above_zero().try_for_each(|(kind, count)| counts.set_item(kind, count))?;
        Ok(counts)
    }

    #[getter]
    fn evidence<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        intern!(py, "exact")
    }

    #[getter]
    fn quarantine<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        intern!(py, "")
    }

    #[getter]
    fn input_total(&self) -> u64 {
        self.0.input_total
    }

    #[getter]
    fn flags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.flags)
    }

    #[getter]
    fn used(&self) -> &str {
        &self.0.used
    }

    #[getter]
    fn upstream_model(&self) -> &str {
        &self.0.upstream_model
    }

    #[getter]
    fn raw_usage(&self) -> &str {
        &self.0.raw_usage
    }

    #[allow(clippy::too_many_arguments, reason = "the record's own fields")]
    fn settlement<'py>(
        &self,
        py: Python<'py>,
        wording: &SettlementWording,
        exchange: &str,
        user: &str,
        key: &str,
        takes: &Bound<'py, PyTuple>,
        remaining_pico: Option<i64>,
        outcome: &str,
        status: u64,
        upstream_request: &str,
        stream: bool,
        started_ms: i64,
        first_byte_ms: i64,
        ended_ms: i64,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyString>)> {
        let mut parts = Vec::with_capacity(takes.len());
        for take in takes {
            let take = take.cast_into::<PyTuple>()?;
            let lot = take.get_item(0)?.cast_into::<PyString>()?;
            let pool = take.get_item(1)?.cast_into::<PyString>()?;
            parts.push((lot, pool, take.get_item(2)?.extract::<i64>()?));
        }
        let mut borrowed: Vec<Take<'_>> = Vec::with_capacity(parts.len());
        for (lot, pool, amount_pico) in &parts {
            borrowed.push((lot.to_str()?, pool.to_str()?, *amount_pico));
        }
        let facts = Facts {
            exchange,
            user,
            key,
            takes: borrowed,
            outcome,
            status,
            upstream_request,
            stream,
            started_ms,
            first_byte_ms,
            ended_ms,
        };
        let record = record(&wording.0, &self.0, &facts);
        let line = line(&wording.0, &self.0, &facts, remaining_pico);
        Ok((PyBytes::new(py, &record), PyString::new(py, &line)))
    }
}

impl PlainCharge {
    /// The charge of an answer if it is plain.
    pub fn of(terms: &PlainTerms, pipe: &pipe::Pipe) -> Option<Self> {
        let reading = pipe.reading();
        let charge = terms.0.charge(&reading)?;
        Some(Self(Charged {
            amount_pico: i64::try_from(charge.amount_pico).ok()?,
            counts: reading.counts,
            input_total: reading.input_total,
            flags: reading.flags,
            upstream_model: reading.model.unwrap_or_default(),
            raw_usage: String::from_utf8(reading.raw).ok()?,
            used: charge.used,
        }))
    }
}

/// The charge of a tap's answer if it is plain.
#[pyfunction]
fn plain_charge(terms: &PlainTerms, pipe: PyRef<'_, Pipe>) -> Option<PlainCharge> {
    PlainCharge::of(terms, &pipe.0)
}

/// What plain settlements add up to, until it is taken over into the counters.
#[pyclass(module = "farebox._meter")]
#[derive(Default)]
struct Tally {
    exchanges: u64,
    latency_ms: i64,
    charged_pico: i64,
    counts: Counts,
}

#[pymethods]
impl Tally {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn settled(&mut self, charge: &PlainCharge, latency_ms: i64) {
        self.exchanges = self.exchanges.saturating_add(1);
        self.latency_ms = self.latency_ms.saturating_add(latency_ms);
        self.charged_pico = self.charged_pico.saturating_add(charge.0.amount_pico);
        self.counts.add_all(&charge.0.counts);
    }

    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<(u64, i64, i64, Bound<'py, PyDict>)> {
        let taken = std::mem::take(self);
        let counts = PyDict::new(py);
        taken.counts.above_zero().try_for_each(|(kind, count)| counts.set_item(kind, count))?;
        Ok((taken.exchanges, taken.latency_ms, taken.charged_pico, counts))
    }
}

/// Frames at positions that follow each other, and the last one's CRC.
#[pyfunction]
fn encode_frames<'py>(
    py: Python<'py>,
    records: &Bound<'py, PyList>,
    journal: u64,
    first_pos: u64,
    synced_pos: u64,
    before_crc: u32,
) -> PyResult<(Bound<'py, PyBytes>, u32)> {
    let too_long = || PyValueError::new_err("a frame cannot be that long");
    let place = Place { journal, synced_pos };
    let (mut out, mut pos, mut crc) =
        (Vec::with_capacity(OVERHEAD_BYTES.saturating_mul(32)), first_pos, before_crc);
    for record in records {
        let record = record.cast_into::<PyTuple>()?;
        let kind = record.get_item(0)?.extract::<u8>()?;
        let payload = record.get_item(1)?.cast_into::<PyBytes>()?;
        crc = push_frame(&mut out, place, kind, pos, crc, payload.as_bytes()).ok_or_else(too_long)?;
        pos = pos.saturating_add(1);
    }
    Ok((PyBytes::new(py, &out), crc))
}

/// Add what ends an exchange.
pub fn add_settlement(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SettlementWording>()?;
    module.add_class::<PlainCharge>()?;
    module.add_class::<Tally>()?;
    module.add_function(wrap_pyfunction!(plain_charge, module)?)?;
    module.add_function(wrap_pyfunction!(encode_frames, module)?)
}
