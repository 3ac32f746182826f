//! The two edits a body may get on its way to the upstream, spliced in: every other byte stays as the
//! client sent it.

use std::ops::Range;

use super::Scan;
use super::json::quoted;

/// Where the things that may be edited stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans {
    /// First byte inside the request object.
    pub root: usize,
    /// The model's string, quotes included.
    pub model: Range<usize>,
    /// First byte inside `stream_options`, when it is an object.
    pub stream_options: Option<usize>,
    /// `stream_options` when it is null.
    pub null_options: Option<Range<usize>>,
    /// The value of `include_usage`.
    pub include_usage: Option<Range<usize>>,
}

/// `body` with another model and, if asked, with `stream_options.include_usage` true. None if `body` is not
/// the one that was scanned.
pub fn edited(scan: &Scan, body: &[u8], model: Option<&str>, include_usage: bool) -> Option<Vec<u8>> {
    if body.len() != scan.text_bytes.saturating_add(scan.data_bytes) {
        return None;
    }
    let mut splices: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
    if let Some(model) = model {
        splices.push((scan.spans.model.clone(), quoted(model)));
    }
    if include_usage && scan.include_usage != Some(true) {
        splices.push(usage_splice(&scan.spans, body));
    }
    splices.sort_by_key(|(range, _)| range.start);
    let added: usize = splices.iter().map(|(_, text)| text.len()).fold(0, usize::saturating_add);
    let mut result = Vec::with_capacity(body.len().saturating_add(added));
    let mut kept = 0_usize;
    for (range, text) in splices {
        result.extend_from_slice(body.get(kept..range.start)?);
        result.extend_from_slice(text.as_bytes());
        kept = range.end;
    }
    result.extend_from_slice(body.get(kept..)?);
    Some(result)
}

/// What to write where, so that `stream_options.include_usage` is true.
fn usage_splice(spans: &Spans, body: &[u8]) -> (Range<usize>, String) {
    const MEMBER: &str = "\"include_usage\":true";
    if let Some(value) = &spans.include_usage {
        return (value.clone(), "true".to_owned());
    }
    if let Some(inside) = spans.stream_options {
        let rest = body.get(inside..).unwrap_or_default();
        let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
        let comma = if next == Some(&b'}') { "" } else { "," };
        return (inside..inside, format!("{MEMBER}{comma}"));
    }
    if let Some(null) = &spans.null_options {
        return (null.clone(), format!("{{{MEMBER}}}"));
    }
    (spans.root..spans.root, format!("\"stream_options\":{{{MEMBER}}},"))
}
