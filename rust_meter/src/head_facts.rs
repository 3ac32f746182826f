//! What of a response head is passed on: an allow-list. To the client goes what describes the body, and
//! Retry-After; everything else an upstream says is about the operator's account (limits, organisation,
//! cookies, server names) and stays here, but its request id, which is kept for the log.

use crate::head::Head;

/// The part of a head that matters beyond the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts<'a> {
    /// Header lines for the client. Streams are marked not to be buffered on the way.
    pub lines: Vec<u8>,
    /// The body is a stream of events.
    pub is_event_stream: bool,
    /// As stated, empty when not.
    pub content_encoding: &'a [u8],
    /// The upstream's id of the request: visible ASCII and short, else empty.
    pub request_id: &'a str,
}

const EVENT_STREAM: &[u8] = b"text/event-stream";

impl Head {
    /// Sort the headers, each looked at once.
    pub fn facts(&self, request_id_bytes_max: usize) -> Facts<'_> {
        let mut facts = Facts { lines: Vec::with_capacity(128), ..Facts::default() };
        for (name, value) in self.headers() {
            match name {
                b"content-type" => {
                    append(&mut facts.lines, b"Content-Type: ", value);
                    if value.get(..EVENT_STREAM.len()).is_some_and(|is| is.eq_ignore_ascii_case(EVENT_STREAM))
                    {
                        facts.is_event_stream = true;
                        append(&mut facts.lines, b"Cache-Control: ", b"no-cache");
                        append(&mut facts.lines, b"X-Accel-Buffering: ", b"no");
                    }
                }
                b"content-encoding" => {
                    append(&mut facts.lines, b"Content-Encoding: ", value);
                    facts.content_encoding = value;
                }
                b"retry-after" => append(&mut facts.lines, b"Retry-After: ", value),
                b"x-request-id" | b"request-id" if facts.request_id.is_empty() => {
                    facts.request_id = loggable(value, request_id_bytes_max);
                }
                _ => {}
            }
        }
        facts
    }
}

fn append(lines: &mut Vec<u8>, start: &[u8], value: &[u8]) {
    lines.extend_from_slice(start);
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
}

fn loggable(value: &[u8], bytes_max: usize) -> &str {
    let is_loggable = value.len() <= bytes_max && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    str::from_utf8(value).ok().filter(|_| is_loggable).unwrap_or_default()
}
