//! Request heads of clients, as far as they are plain: what nearly every client sends, read in one step.
//!
//! This is no second parser of HTTP but a strict subset of one: a head that is odd in any way (`None`) is left
//! to the general parser, which decides what is acceptable. Plain is: POST or GET of a path, HTTP/1.1, every
//! line ended by CRLF, names of token characters, values of visible ASCII, exactly one host, at most one of
//! each header that frames, names or types the body, no transfer coding, no expectation, no upgrade. A
//! property test holds that whatever is read here the general parser reads alike.

use memchr::memchr2;

/// A plain head is never longer; a longer one is left to the general parser with its own limits.
const HEAD_BYTES_MAX: usize = 8000;
const HEADERS_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 256;
const HOST_BYTES_MAX: usize = 255;
const LENGTH_DIGITS_MAX: usize = 15;
const BEARER: &[u8] = b"bearer ";

/// Sent where a client of a messages route names none.
pub const ANTHROPIC_VERSION: &[u8] = b"2023-06-01";

/// Routes whose upstream wants `Anthropic-Version`.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// One plain head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// POST, else GET.
    pub is_post: bool,
    /// The target up to the first `?`.
    pub path: &'a str,
    /// The rest, empty when none.
    pub query: &'a str,
    /// The API key, where exactly one well-formed credential and no query is sent; else to be looked for.
    pub key: Option<&'a str>,
    /// Declared as JSON in UTF-8.
    pub is_json: bool,
    /// The connection may carry another exchange afterwards.
    pub keep_alive: bool,
    /// The headers that go to the upstream, as lines.
    pub lines: Vec<u8>,
    /// Bytes of the head; the body starts here.
    pub length: usize,
    /// Bytes of the body.
    pub body_length: u64,
}

/// Read a plain head from the start of `data`; `None` for everything else, incomplete heads included.
pub fn parse_request(data: &[u8]) -> Option<Request<'_>> {
    let window = data.get(..HEAD_BYTES_MAX).unwrap_or(data);
    let (line, mut rest) = next_line(window)?;
    let (is_post, target) = parse_request_line(line)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut facts = Facts::default();
    for _ in 0..=HEADERS_MAX {
        let (line, after) = next_line(rest)?;
        rest = after;
        if line.is_empty() {
            return facts.request(is_post, path, query, window.len().saturating_sub(rest.len()));
        }
        facts.take(line)?;
    }
    None
}

/// The next line without its CRLF, and what follows.
fn next_line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr2(b'\r', b'\n', data)?;
    let (line, rest) = data.split_at_checked(end)?;
    Some((line, rest.strip_prefix(b"\r\n")?))
}

/// Method and target.
fn parse_request_line(line: &[u8]) -> Option<(bool, &str)> {
    let rest = line.strip_suffix(b" HTTP/1.1")?;
    let (is_post, target) = match rest.strip_prefix(b"POST ") {
        Some(target) => (true, target),
        None => (false, rest.strip_prefix(b"GET ")?),
    };
    let is_path = matches!(target, [b'/'] | [b'/', b'!'..=b'.' | b'0'..=b'~', ..]);
    (is_path && target.iter().copied().all(is_target_byte))
        .then(|| str::from_utf8(target).ok())?
        .map(|target| (is_post, target))
}

/// Of RFC 3986: unreserved, sub-delims, `:`, `@`, `/`, `?`, and `%`.
fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&byte)
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:[]-".contains(&byte)
}

/// What the headers said so far.
#[derive(Default)]
struct Facts<'a> {
    host: bool,
    connection: bool,
    user_agent: bool,
    content_type: Option<&'a [u8]>,
    content_length: Option<u64>,
    credentials: usize,
    key: Option<&'a str>,
    close: bool,
    names_version: bool,
    lines: Vec<u8>,
}

impl<'a> Facts<'a> {
    fn take(&mut self, line: &'a [u8]) -> Option<()> {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = without_spaces(value.get(1..)?);
        let is_plain = !name.is_empty()
            && name.iter().copied().all(is_token_byte)
            && !value.is_empty()
            && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_plain {
            return None;
        }
        let mut lower = [0_u8; 32];
        let Some(lower) = lower.get_mut(..name.len()) else { return Some(()) };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.take_named(lower, value)
    }

    fn take_named(&mut self, name: &[u8], value: &'a [u8]) -> Option<()> {
        match name {
            b"host" => {
                let is_host = value.len() <= HOST_BYTES_MAX && value.iter().copied().all(is_host_byte);
                first(&mut self.host).filter(|()| is_host)
            }
            b"connection" => {
                self.close = value.eq_ignore_ascii_case(b"close");
                first(&mut self.connection)
                    .filter(|()| self.close || value.eq_ignore_ascii_case(b"keep-alive"))
            }
            b"user-agent" => first(&mut self.user_agent),
            b"content-type" => self.content_type.replace(value).is_none().then_some(()),
            b"content-length" => {
                let is_length = value.len() <= LENGTH_DIGITS_MAX && value.iter().all(u8::is_ascii_digit);
                let length = str::from_utf8(value).ok()?.parse().ok().filter(|_| is_length)?;
                self.content_length.replace(length).is_none().then_some(())
            }
            b"authorization" => {
                let (scheme, key) = value.split_at_checked(BEARER.len()).unwrap_or_default();
                self.take_key(scheme.eq_ignore_ascii_case(BEARER).then_some(key))
            }
            b"x-api-key" | b"api-key" | b"x-goog-api-key" => self.take_key(Some(value)),
            b"transfer-encoding"
            | b"content-encoding"
            | b"expect"
            | b"upgrade"
            | b"http2-settings"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"content-location"
            | b"content-range"
            | b"etag"
            | b"max-forwards"
            | b"server"
            | b"sec-websocket-key1" => None,
            _ => {
                self.names_version |= append_line(&mut self.lines, name, value);
                Some(())
            }
        }
    }

    fn take_key(&mut self, key: Option<&'a [u8]>) -> Option<()> {
        self.credentials = self.credentials.saturating_add(1);
        self.key = key
            .filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX && !key.contains(&b' '))
            .and_then(|key| str::from_utf8(key).ok());
        Some(())
    }

    fn request(mut self, is_post: bool, path: &'a str, query: &'a str, length: usize) -> Option<Request<'a>> {
        if !self.names_version && path.starts_with(MESSAGES_PATH) {
            append_line(&mut self.lines, b"anthropic-version", ANTHROPIC_VERSION);
        }
        self.host.then_some(Request {
            is_post,
            path,
            query,
            key: self.key.filter(|_| self.credentials == 1 && query.is_empty()),
            is_json: self.content_type.is_some_and(is_json),
            keep_alive: !self.close,
            lines: self.lines,
            length,
            body_length: self.content_length.unwrap_or(0),
        })
    }
}

fn without_spaces(value: &[u8]) -> &[u8] {
    let mut rest = value;
    while let [b' ', tail @ ..] = rest {
        rest = tail;
    }
    while let [front @ .., b' '] = rest {
        rest = front;
    }
    rest
}

/// Note that a header came; `None` the second time.
fn first(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

fn is_json(declared: &[u8]) -> bool {
    ["application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"]
        .iter()
        .any(|known| declared.eq_ignore_ascii_case(known.as_bytes()))
}

/// Append a client's header as a line if it is one that goes to the upstream; true when it is the version of
/// Anthropic's protocol. Everything else names the caller or frames the body, and stays here.
pub fn append_line(lines: &mut Vec<u8>, lower_name: &[u8], value: &[u8]) -> bool {
    let start: &[u8] = match lower_name {
        b"accept" => b"Accept: ",
        b"anthropic-version" => b"Anthropic-Version: ",
        b"anthropic-beta" => b"Anthropic-Beta: ",
        b"openai-beta" => b"OpenAI-Beta: ",
        b"traceparent" => b"Traceparent: ",
        b"tracestate" => b"Tracestate: ",
        _ => return false,
    };
    lines.extend_from_slice(start);
    lines.extend_from_slice(value);
    lines.extend_from_slice(b"\r\n");
    lower_name == b"anthropic-version"
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
