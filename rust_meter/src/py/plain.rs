//! `PlainTerms` as Python sees it: the common exchange's bounds and charge, each in one call.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::admission::{Price, Scan};
use crate::plain::{InputBound, Rate, Terms};

/// One model on one wire format.
#[pyclass(frozen, module = "farebox._meter")]
pub struct PlainTerms(pub Terms);

/// Bounds in the order of Python's `Ask`.
type AskParts = (u64, u64, u64, i64, u64);

#[pymethods]
impl PlainTerms {
    #[new]
    #[pyo3(signature = (price, *, input_bound, context_tokens, assumed_output_tokens, output_tokens_max,
        slice_output_tokens, estimate_bytes_per_token, rates, plain_tiers, count_max))]
    #[allow(clippy::too_many_arguments, reason = "the Python contract's keywords")]
    fn new(
        price: &Price,
        input_bound: (u64, u64, u64, u64, u64),
        context_tokens: Option<u64>,
        assumed_output_tokens: u64,
        output_tokens_max: Option<u64>,
        slice_output_tokens: u64,
        estimate_bytes_per_token: u64,
        rates: Vec<(u64, i128, i128)>,
        plain_tiers: Vec<String>,
        count_max: u64,
    ) -> PyResult<Self> {
        let (request_tokens, message_tokens, envelope_bytes, message_bytes, bytes_per_token) = input_bound;
        if bytes_per_token == 0 || estimate_bytes_per_token == 0 {
            return Err(PyValueError::new_err("a token has at least one byte"));
        }
        let rate =
            |(reached_tokens, input_pico, output_pico)| Rate { reached_tokens, input_pico, output_pico };
        Ok(Self(Terms {
            price: price.0.clone(),
            input: InputBound {
                request_tokens,
                message_tokens,
                envelope_bytes,
                message_bytes,
                bytes_per_token,
            },
            context_tokens,
            assumed_output_tokens,
            output_tokens_max,
            slice_output_tokens,
            estimate_bytes_per_token,
            rates: rates.into_iter().map(rate).collect(),
            plain_tiers,
            count_max,
        }))
    }

    fn ask(&self, scan: &Scan) -> Option<AskParts> {
        let ask = self.0.ask(&scan.0)?;
        let hold_pico = i64::try_from(ask.hold_pico).ok()?;
        Some((
            ask.input_tokens,
            ask.output_tokens,
            ask.first_output_tokens,
            hold_pico,
            ask.input_estimate_tokens,
        ))
    }
}

/// Add what the common exchange uses.
pub fn add_plain(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PlainTerms>()
}
