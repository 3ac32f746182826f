//! The common answer in one call: head and body in one read, of stated length, plainly priced.
//!
//! What `parse_head`, `Head.facts`, `Pipe` and `plain_charge` say one after the other, and nothing else:
//! anything but such an answer is left to them.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::plain::PlainTerms;
use super::settlement::PlainCharge;
use crate::head::{Framing, parse_head};
use crate::money::push_pico;
use crate::normal::CacheSemantics;
use crate::pipe::{self, BROKEN, END, Fed, OVERSIZE, Options, REUSABLE};

/// Take a whole answer from what an upstream's socket gave; None where it is not one.
#[pyfunction]
#[pyo3(signature = (data, terms, wire_format, own_lines, *, head_bytes_max, headers_max, body_bytes_max,
    request_id_bytes_max))]
#[allow(clippy::too_many_arguments, reason = "the Python contract's keywords")]
fn whole_answer<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    terms: &PlainTerms,
    wire_format: &str,
    own_lines: &[u8],
    head_bytes_max: usize,
    headers_max: usize,
    body_bytes_max: u64,
    request_id_bytes_max: usize,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let bytes = data.as_bytes();
    let Ok(Some(head)) = parse_head(bytes, false, head_bytes_max, headers_max) else { return Ok(None) };
    let Framing::Length(length) = head.framing else { return Ok(None) };
    let body = bytes.get(head.length..).unwrap_or_default();
    let is_whole = length > 0 && length <= body_bytes_max && u64::try_from(body.len()) == Ok(length);
    if !is_whole || !(200..300).contains(&head.status) {
        return Ok(None);
    }
    let facts = head.facts(request_id_bytes_max);
    if facts.is_event_stream || !facts.content_encoding.is_empty() {
        return Ok(None);
    }
    let Some((charge, reusable)) = metered(body, length, terms, wire_format) else { return Ok(None) };
    let mut lines = facts.lines;
    lines.extend_from_slice(own_lines);
    lines.extend_from_slice(b"x-farebox-cost: ");
    push_pico(&mut lines, i128::from(charge.0.amount_pico));
    lines.extend_from_slice(b"\r\n");
    let parts =
        (head.status, PyBytes::new(py, &lines), PyBytes::new(py, body), charge, facts.request_id, reusable);
    parts.into_pyobject(py).map(Some)
}

/// Charge of a body of known length, and whether its connection may serve again.
fn metered(body: &[u8], length: u64, terms: &PlainTerms, wire_format: &str) -> Option<(PlainCharge, bool)> {
    let mut pipe = pipe::Pipe::new(&Options {
        wire_format,
        framing: i64::try_from(length).ok()?,
        chunked_out: false,
        strip_usage: false,
        content_encoding: "",
        cache_semantics: CacheSemantics::Auto,
        // The body is here and is bounded already.
        inflated_bytes_max: u64::MAX,
        event_bytes_max: u64::MAX,
    })
    .ok()?;
    let Fed::Split { state, .. } = pipe.feed(body) else { return None };
    if state & END == 0 || state & (BROKEN | OVERSIZE) != 0 {
        return None;
    }
    Some((PlainCharge::of(terms, &pipe)?, state & REUSABLE != 0))
}

/// Add the common answer's call.
pub fn add_whole_answer(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(whole_answer, module)?)
}
