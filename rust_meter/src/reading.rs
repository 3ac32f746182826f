//! What the meter says about a body.

use crate::normal::{Counts, Totals};

/// The usage as known at some moment; see the Python contract for the members' meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Totals in the field's words; `None` when there is no usage.
    pub totals: Option<Totals>,
    /// Disjoint kinds for pricing.
    pub counts: Counts,
    /// Prompt tokens of one inference.
    pub input_total: u64,
    /// The terminal event or the whole body was seen.
    pub is_complete: bool,
    /// The usage is the format's last word.
    pub is_final: bool,
    /// The body is or contains an upstream error.
    pub is_failed: bool,
    /// Anomalies, sorted.
    pub flags: Vec<&'static str>,
    /// The serving model.
    pub model: Option<String>,
    /// The response's id.
    pub response_id: Option<String>,
    /// The serving tier.
    pub service_tier: Option<String>,
    /// The serving speed.
    pub speed: Option<String>,
    /// Where inference ran.
    pub inference_geo: Option<String>,
    /// The usage objects as sent.
    pub raw: Vec<u8>,
    /// Bytes of generated text.
    pub output_bytes: u64,
}
