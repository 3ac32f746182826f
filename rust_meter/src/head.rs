//! Response heads: strict HTTP/1.x, so that upstream and meter always agree where a body ends.
//!
//! Whatever two parsers could read differently is refused (RFC 9112 sections 2 to 6): line ends that are
//! not CRLF, folded headers, control bytes, a length beside a transfer coding, lengths that differ, codings
//! but `chunked`.

use std::ops::Range;

use memchr::{memchr, memchr3};

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes.
    UntilClose,
    /// This many bytes.
    Length(u64),
}

/// One parsed response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Status code, 100 to 599.
    pub status: u16,
    /// 0 or 1, of HTTP/1.x.
    pub minor_version: u8,
    /// Where the body ends.
    pub framing: Framing,
    /// The connection may carry another exchange afterwards.
    pub keep_alive: bool,
    /// Bytes of the head.
    pub length: usize,
    headers: Headers,
}

impl Head {
    /// Lower-cased names and stripped values, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter()
    }
}

/// The headers, where they stand in the head.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Headers {
    /// The head with its names in lower case.
    text: Vec<u8>,
    places: Vec<(Range<usize>, Range<usize>)>,
}

impl Headers {
    fn new(head: &[u8], places: Vec<(Range<usize>, Range<usize>)>) -> Self {
        let mut text = head.to_vec();
        for (name, _) in &places {
            text.get_mut(name.clone()).unwrap_or_default().make_ascii_lowercase();
        }
        Self { text, places }
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let at = |place: &Range<usize>| self.text.get(place.clone()).unwrap_or_default();
        self.places.iter().map(move |(name, value)| (at(name), at(value)))
    }

    /// Values of every header called `name`.
    fn values(&self, name: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(own, _)| *own == name).map(|(_, value)| value)
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadError(pub &'static str);

/// Digits of a content length; 10^18 is beyond any body.
const LENGTH_DIGITS_MAX: usize = 18;

/// Parse a head from the start of `data`; None while it is incomplete.
pub fn parse_head(
    data: &[u8],
    no_body: bool,
    bytes_max: usize,
    headers_max: usize,
) -> Result<Option<Head>, HeadError> {
    let window = data.get(..bytes_max).unwrap_or(data);
    let whole = data.len() < bytes_max;
    let mut lines = Lines { data: window, at: 0 };
    let Some(status_line) = lines.next_line()? else {
        return incomplete(whole);
    };
    let (minor_version, status) = parse_status_line(status_line)?;
    let mut places = Vec::with_capacity(16);
    loop {
        let start = lines.at;
        let Some(line) = lines.next_line()? else {
            return incomplete(whole);
        };
        if line.is_empty() {
            break;
        }
        if places.len() >= headers_max {
            return Err(HeadError("too many headers"));
        }
        places.push(parse_header(line, start)?);
    }
    let headers = Headers::new(data.get(..lines.at).unwrap_or_default(), places);
    let framing = framing_of(&headers, minor_version, status, no_body)?;
    let keep_alive = framing != Framing::UntilClose && status != 101 && stays_open(&headers, minor_version);
    Ok(Some(Head { status, minor_version, headers, framing, keep_alive, length: lines.at }))
}

fn incomplete(whole: bool) -> Result<Option<Head>, HeadError> {
    if whole { Ok(None) } else { Err(HeadError("the head is too long")) }
}

struct Lines<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its CRLF; None while it is incomplete.
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, HeadError> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let Some(end) = memchr3(b'\r', b'\n', 0, rest) else {
            return Ok(None);
        };
        let line = rest.get(..end).unwrap_or_default();
        match (rest.get(end), rest.get(end.saturating_add(1))) {
            (Some(b'\r'), Some(b'\n')) => {
                self.at = self.at.saturating_add(end).saturating_add(2);
                Ok(Some(line))
            }
            (Some(b'\r'), None) => Ok(None),
            (Some(b'\r'), Some(_)) => Err(HeadError("CR without LF")),
            (Some(b'\n'), _) => Err(HeadError("LF without CR")),
            _ => Err(HeadError("NUL byte")),
        }
    }
}

/// `HTTP/1.x SP 3DIGIT [SP reason]`: minor version and status.
fn parse_status_line(line: &[u8]) -> Result<(u8, u16), HeadError> {
    let Some(rest) = line.strip_prefix(b"HTTP/1.") else {
        return Err(HeadError("not an HTTP/1.x status line"));
    };
    let [minor @ (b'0' | b'1'), b' ', a, b, c, reason @ ..] = rest else {
        return Err(HeadError("malformed status line"));
    };
    let digits = [*a, *b, *c];
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(reason.first(), None | Some(b' ')) {
        return Err(HeadError("malformed status"));
    }
    if !reason.iter().copied().all(is_value_byte) {
        return Err(HeadError("control byte in the reason"));
    }
    let status = digits.iter().fold(0_u16, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u16::from(digit.saturating_sub(b'0')))
    });
    if !(100..=599).contains(&status) {
        return Err(HeadError("status outside 100-599"));
    }
    Ok((minor.saturating_sub(b'0'), status))
}

/// Where name and value of a header stand; its line begins at `start`.
fn parse_header(line: &[u8], start: usize) -> Result<(Range<usize>, Range<usize>), HeadError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadError("folded or indented header"));
    }
    let Some(colon) = memchr(b':', line) else {
        return Err(HeadError("header without a colon"));
    };
    let name = line.get(..colon).unwrap_or_default();
    let value = line.get(colon.saturating_add(1)..).unwrap_or_default();
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(HeadError("bad byte in a header name"));
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(HeadError("control byte in a header value"));
    }
    let behind_name = start.saturating_add(colon);
    let value_end =
        start.saturating_add(line.len()).saturating_sub(value.len()).saturating_add(trim_end(value).len());
    let value_start = value_end.saturating_sub(trim(value).len());
    Ok((start..behind_name, value_start..value_end))
}

/// Without optional white space (SP and HTAB only) at both ends.
fn trim(value: &[u8]) -> &[u8] {
    let mut rest = trim_end(value);
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    rest
}

fn trim_end(value: &[u8]) -> &[u8] {
    let mut rest = value;
    while let [front @ .., b' ' | b'\t'] = rest {
        rest = front;
    }
    rest
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn framing_of(
    headers: &Headers,
    minor_version: u8,
    status: u16,
    no_body: bool,
) -> Result<Framing, HeadError> {
    let mut length = None;
    for value in headers.values(b"content-length") {
        let this = parse_length(value)?;
        if length.is_some_and(|other| other != this) {
            return Err(HeadError("two different content lengths"));
        }
        length = Some(this);
    }
    let mut codings = headers.values(b"transfer-encoding");
    let coding = codings.next();
    if codings.next().is_some() {
        return Err(HeadError("two transfer codings"));
    }
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err(HeadError("a transfer coding other than chunked"));
    }
    if coding.is_some() && minor_version == 0 {
        return Err(HeadError("a transfer coding on HTTP/1.0"));
    }
    if coding.is_some() && length.is_some() {
        return Err(HeadError("both Content-Length and Transfer-Encoding"));
    }
    if no_body || status < 200 || status == 204 || status == 304 {
        return Ok(Framing::Length(0));
    }
    Ok(match (coding, length) {
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    })
}

fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError("malformed content length"));
    }
    Ok(value.iter().fold(0_u64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
    }))
}

/// RFC 9112 section 9.3: 1.1 stays open unless `close` is said, 1.0 closes unless `keep-alive` is said.
fn stays_open(headers: &Headers, minor_version: u8) -> bool {
    let says = |option: &[u8]| {
        headers
            .values(b"connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|part| trim(part).eq_ignore_ascii_case(option))
    };
    !says(b"close") && (minor_version == 1 || says(b"keep-alive"))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#[path = "head_tests.rs"]
mod tests;
