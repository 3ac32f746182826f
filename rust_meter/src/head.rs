//! Response heads: strict HTTP/1.x, so that upstream and meter always agree where a body ends.
//!
//! Whatever two parsers could read differently is refused (RFC 9112 sections 2 to 6): line ends that are not CRLF,
//! folded headers, control bytes, a length beside a transfer coding, lengths that differ, codings but `chunked`.

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
    /// Lower-cased names and stripped values, in order.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the body ends.
    pub framing: Framing,
    /// The connection may carry another exchange afterwards.
    pub keep_alive: bool,
    /// Bytes of the head.
    pub length: usize,
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
    let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(16);
    loop {
        let Some(line) = lines.next_line()? else {
            return incomplete(whole);
        };
        if line.is_empty() {
            break;
        }
        if headers.len() >= headers_max {
            return Err(HeadError("too many headers"));
        }
        headers.push(parse_header(line)?);
    }
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

fn parse_header(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), HeadError> {
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
    Ok((name.to_ascii_lowercase(), trim(value).to_vec()))
}

/// Without optional white space (SP and HTAB only) at both ends.
fn trim(value: &[u8]) -> &[u8] {
    let mut rest = value;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
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

/// Values of every header called `name`.
fn values<'a>(headers: &'a [(Vec<u8>, Vec<u8>)], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_slice())
}

fn framing_of(
    headers: &[(Vec<u8>, Vec<u8>)],
    minor_version: u8,
    status: u16,
    no_body: bool,
) -> Result<Framing, HeadError> {
    let mut length = None;
    for value in values(headers, b"content-length") {
        let this = parse_length(value)?;
        if length.is_some_and(|other| other != this) {
            return Err(HeadError("two different content lengths"));
        }
        length = Some(this);
    }
    let mut codings = values(headers, b"transfer-encoding");
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
fn stays_open(headers: &[(Vec<u8>, Vec<u8>)], minor_version: u8) -> bool {
    let says = |option: &[u8]| {
        values(headers, b"connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|part| trim(part).eq_ignore_ascii_case(option))
    };
    !says(b"close") && (minor_version == 1 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    //! U22, H08 to H12 on the upstream's side: what is ambiguous is refused; any prefix is incomplete, never wrong.
    use super::*;
    use proptest::prelude::*;

    fn parse(data: &[u8]) -> Result<Option<Head>, HeadError> {
        parse_head(data, false, 65536, 100)
    }

    fn framing(headers: &str) -> Result<Framing, HeadError> {
        let data = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        parse(data.as_bytes()).map(|head| head.map_or(Framing::UntilClose, |head| head.framing))
    }

    #[test]
    fn a_usual_head_is_read() {
        let data = b"HTTP/1.1 200 OK\r\nContent-Type:  text/event-stream \r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello";
        let head = parse(data).ok().flatten();
        let expected = Head {
            status: 200,
            minor_version: 1,
            headers: vec![
                (b"content-type".to_vec(), b"text/event-stream".to_vec()),
                (b"transfer-encoding".to_vec(), b"Chunked".to_vec()),
            ],
            framing: Framing::Chunked,
            keep_alive: true,
            length: 82,
        };
        assert_eq!(head, Some(expected));
        assert!((0..82).all(|end| parse(data.get(..end).unwrap_or_default()) == Ok(None)));
    }

    #[test]
    fn h08_content_lengths() {
        assert_eq!(framing("content-length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("content-length: 5\r\nContent-Length:5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing(""), Ok(Framing::UntilClose));
        for bad in ["", "+5", "-1", "0x10", "1_0", "5, 5", "5, 6", "1234567890123456789", "٥", "5\u{b}", "5\u{a0}", "5 5"] {
            assert!(framing(&format!("content-length: {bad}\r\n")).is_err(), "{bad:?}");
        }
        assert!(framing("content-length: 5\r\ncontent-length: 6\r\n").is_err());
    }

    #[test]
    fn h09_transfer_codings() {
        for bad in [
            "xchunked", "chunked, identity", "identity, chunked", ",chunked", "chunked;q=1", "gzip, chunked", "identity", "",
            "chunked\u{a0}", "\u{b}chunked",
        ] {
            assert!(framing(&format!("transfer-encoding: {bad}\r\n")).is_err(), "{bad:?}");
        }
        assert!(framing("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n").is_err());
        assert!(framing("transfer-encoding: chunked\r\ncontent-length: 5\r\n").is_err());
        assert!(parse(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert_eq!(framing("transfer-encoding:\t chunked\t\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn h12_lines_and_bytes() {
        for bad in [
            "HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\n\r\n", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA\r\n\r\n", "HTTP/1.1 200 OK\r\nA: \u{0}\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \u{1}\r\n\r\n", "HTTP/1.1 200 OK\r\nA: \u{7f}\r\n\r\n", "HTTP/1.1 200 OK\r\nÄ: b\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 600 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200OK\r\n\r\n", "HTTP/1.1 200 O\u{1}K\r\n\r\n", "HTTP/1.1\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse(b"HTTP/1.1 200\r\nA: \xff\r\n\r\n").is_ok_and(|head| head.is_some()));
    }

    #[test]
    fn u22_bounds() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(parse(many.as_bytes()), Err(HeadError("too many headers")));
        let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(70_000));
        assert_eq!(parse(long.as_bytes()), Err(HeadError("the head is too long")));
        let exact = b"HTTP/1.1 200 OK\r\n\r\n";
        assert!(parse_head(exact, false, exact.len(), 0).is_ok_and(|head| head.is_some()));
        assert!(parse_head(exact, false, exact.len() - 1, 0).is_err());
    }

    #[test]
    fn bodies_that_cannot_be() {
        for status in ["100", "103", "101", "204", "304"] {
            let data = format!("HTTP/1.1 {status} X\r\ncontent-length: 7\r\n\r\n");
            let head = parse(data.as_bytes()).ok().flatten();
            assert_eq!(head.map(|head| head.framing), Some(Framing::Length(0)), "{status}");
        }
        let head = parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", true, 65536, 100).ok().flatten();
        assert_eq!(head.map(|head| head.framing), Some(Framing::Length(0)));
    }

    #[test]
    fn connections_stay_open_only_when_both_know_the_end() {
        let stays = |text: &str| parse(text.as_bytes()).ok().flatten().is_some_and(|head| head.keep_alive);
        assert!(stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(stays("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive\r\n\r\n"));
        assert!(!stays("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!stays("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, CLOSE\r\n\r\n"));
        assert!(!stays("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!stays("HTTP/1.1 101 Switching\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut text = b"HTTP/1.1 200 OK\r\n".to_vec();
            text.extend_from_slice(&data);
            let _ = parse(&data);
            if let Ok(Some(head)) = parse(&text) {
                prop_assert!(head.length <= text.len());
            }
        }
    }
}
