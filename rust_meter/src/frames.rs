//! AWS event streams (`application/vnd.amazon.eventstream`), cut into frames without keeping payloads.
//!
//! A frame: total length, headers length, CRC of both (4 bytes each, big endian); headers; payload; CRC of
//! all. A frame whose lengths or checksums are wrong ends metering: what follows cannot be trusted.

use flate2::Crc;

/// Payload limit the format's definition names, with headers.
const FRAME_BYTES_MAX: u32 = 17 * 1024 * 1024;
const HEADERS_BYTES_MAX: u32 = 128 * 1024;
const PRELUDE_BYTES: usize = 12;

/// What comes next in a stream of frames.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// Nothing to tell yet.
    Other,
    /// A frame's headers are complete.
    Begin,
    /// A piece of its payload.
    Payload(&'a [u8]),
    /// It is complete and its checksum right.
    End,
    /// The stream is damaged.
    Damaged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Prelude,
    Headers,
    Payload,
    Check,
}

/// The cutter; it keeps at most one frame's headers.
#[derive(Debug, Default)]
pub struct Frames {
    state: State,
    buffer: Vec<u8>,
    crc: Crc,
    headers_left: usize,
    payload_left: usize,
    /// The `:event-type` (or `:exception-type`) of the frame.
    pub kind: Vec<u8>,
    /// The frame is an exception or error.
    pub is_error: bool,
}

impl Frames {
    /// Whether a frame has begun and not ended.
    pub fn is_in_frame(&self) -> bool {
        self.state != State::Prelude || !self.buffer.is_empty()
    }

    /// The next token of an input, and the input behind it.
    pub fn next<'a>(&mut self, rest: &'a [u8]) -> (Token<'a>, &'a [u8]) {
        match self.state {
            State::Prelude => match self.fill(PRELUDE_BYTES, rest) {
                (true, tail) => (self.prelude(), tail),
                (false, tail) => (Token::Other, tail),
            },
            State::Headers => match self.fill(self.headers_left, rest) {
                (true, tail) => {
                    self.crc.update(&self.buffer);
                    self.read_headers();
                    self.buffer.clear();
                    self.state = State::Payload;
                    (Token::Begin, tail)
                }
                (false, tail) => (Token::Other, tail),
            },
            State::Payload => {
                let (piece, tail) = rest.split_at_checked(self.payload_left).unwrap_or((rest, &[]));
                self.payload_left = self.payload_left.saturating_sub(piece.len());
                self.crc.update(piece);
                if self.payload_left == 0 {
                    self.state = State::Check;
                }
                (Token::Payload(piece), tail)
            }
            State::Check => match self.fill(4, rest) {
                (true, tail) => {
                    let is_right = big_endian(&self.buffer, 0) == self.crc.sum();
                    self.buffer.clear();
                    self.state = State::Prelude;
                    (if is_right { Token::End } else { Token::Damaged }, tail)
                }
                (false, tail) => (Token::Other, tail),
            },
        }
    }

    fn fill<'a>(&mut self, length: usize, rest: &'a [u8]) -> (bool, &'a [u8]) {
        let missing = length.saturating_sub(self.buffer.len());
        let (piece, tail) = rest.split_at_checked(missing).unwrap_or((rest, &[]));
        self.buffer.extend_from_slice(piece);
        (self.buffer.len() == length, tail)
    }

    fn prelude(&mut self) -> Token<'static> {
        let total = big_endian(&self.buffer, 0);
        let headers = big_endian(&self.buffer, 4);
        self.crc.reset();
        self.crc.update(self.buffer.get(..8).unwrap_or_default());
        let is_right = self.crc.sum() == big_endian(&self.buffer, 8);
        let payload = total.checked_sub(16).and_then(|rest| rest.checked_sub(headers));
        self.crc.update(self.buffer.get(8..).unwrap_or_default());
        self.buffer.clear();
        match payload {
            Some(payload) if is_right && total <= FRAME_BYTES_MAX && headers <= HEADERS_BYTES_MAX => {
                self.headers_left = usize::try_from(headers).unwrap_or(0);
                self.payload_left = usize::try_from(payload).unwrap_or(0);
                self.kind.clear();
                self.is_error = false;
                self.state = State::Headers;
                Token::Other
            }
            _ => Token::Damaged,
        }
    }

    /// Names and values of string headers; a header of another type ends the search.
    fn read_headers(&mut self) {
        let mut rest = self.buffer.as_slice();
        while let Some((name, value, tail)) = header(rest) {
            match name {
                b":event-type" | b":exception-type" => self.kind = value.to_vec(),
                b":message-type" => self.is_error = matches!(value, b"exception" | b"error"),
                _ => {}
            }
            rest = tail;
        }
    }
}

fn header(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&length, rest) = rest.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let (&kind, rest) = rest.split_first()?;
    if kind != 7 {
        return None;
    }
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((name, value, rest))
}

fn big_endian(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|tail| tail.first_chunk::<4>()).map_or(0, |chunk| u32::from_be_bytes(*chunk))
}
