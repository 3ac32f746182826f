//! Transfer decoding: where the body's bytes are in what the socket gave, and where the body ends.
//!
//! Chunked coding is read strictly: one to sixteen hexadecimal digits, an optional extension, CRLF; data,
//! CRLF; after the last chunk trailers, each ended by CRLF. Extensions and trailers are bounded and ignored.
//! Anything else (`0x`, signs, underscores, spaces before the extension, a bare LF) breaks the body.

use std::ops::Range;

/// `framing` of a chunked body.
pub const CHUNKED: i64 = -1;
/// `framing` of a body that ends with the connection.
pub const UNTIL_CLOSE: i64 = -2;

const DIGITS_MAX: u8 = 16;
const EXTENSION_BYTES_MAX: usize = 1024;
const TRAILER_BYTES_MAX: usize = 8192;

/// What the coding says after a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The body is complete.
    pub ended: bool,
    /// The framing is invalid.
    pub broken: bool,
    /// Bytes follow the body's end.
    pub extra: bool,
    /// The input is whole chunks and nothing else: it may pass as it is where chunks are wanted.
    pub whole_chunks: bool,
}

/// The decoder of one body.
#[derive(Debug)]
pub enum Transfer {
    /// Chunked.
    Chunked(Chunked),
    /// So many bytes are missing.
    Length(u64),
    /// Until close.
    UntilClose,
}

impl Transfer {
    /// A decoder for `framing`: CHUNKED, UNTIL_CLOSE or a length. `None` for another negative number.
    pub fn new(framing: i64) -> Option<Self> {
        match framing {
            CHUNKED => Some(Self::Chunked(Chunked::default())),
            UNTIL_CLOSE => Some(Self::UntilClose),
            length => u64::try_from(length).ok().map(Self::Length),
        }
    }

    /// Find the body's bytes in `data`; their ranges go to `found`.
    pub fn decode(&mut self, data: &[u8], found: &mut Vec<Range<usize>>) -> Outcome {
        match self {
            Self::Chunked(chunked) => chunked.decode(data, found),
            Self::UntilClose => {
                found.push(0..data.len());
                Outcome::default()
            }
            Self::Length(left) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                let taken = length.min(*left);
                *left = left.saturating_sub(taken);
                found.push(0..usize::try_from(taken).unwrap_or(data.len()));
                Outcome { ended: *left == 0, extra: length > taken, ..Outcome::default() }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Size,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    Trailer,
    TrailerFeed,
    Ended,
    Broken,
}

/// Chunked coding.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    size: u64,
    digits: u8,
    line_bytes: usize,
    line_empty: bool,
}

impl Chunked {
    fn decode(&mut self, data: &[u8], found: &mut Vec<Range<usize>>) -> Outcome {
        let starts_clean = self.state == State::Size && self.digits == 0;
        let mut had_extension = false;
        let mut at = 0_usize;
        while let Some(&byte) = data.get(at) {
            match self.state {
                State::Data => {
                    at = self.data(data, at, found);
                    continue;
                }
                State::Ended | State::Broken => break,
                state => {
                    let whole = self.whole_line(data.get(at..).unwrap_or_default());
                    if whole > 0 {
                        at = at.saturating_add(whole);
                        continue;
                    }
                    self.step(state, byte);
                }
            }
            had_extension |= self.state == State::Extension;
            at = at.saturating_add(1);
        }
        let ended = self.state == State::Ended;
        Outcome {
            ended,
            broken: self.state == State::Broken,
            extra: ended && at < data.len(),
            whole_chunks: starts_clean
                && !had_extension
                && self.state == State::Size
                && self.digits == 0
                && !data.is_empty(),
        }
    }

    fn data(&mut self, data: &[u8], at: usize, found: &mut Vec<Range<usize>>) -> usize {
        let here = data.len().saturating_sub(at);
        let taken = usize::try_from(self.size).unwrap_or(usize::MAX).min(here);
        let end = at.saturating_add(taken);
        found.push(at..end);
        self.size = self.size.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        if self.size == 0 {
            self.state = State::DataReturn;
        }
        end
    }

    /// The line with a chunk's size or the line end behind its data, where it stands whole in this piece; its
    /// length, 0 where it does not.
    fn whole_line(&mut self, rest: &[u8]) -> usize {
        match self.state {
            State::DataReturn if rest.starts_with(b"\r\n") => {
                self.state = State::Size;
                2
            }
            State::Size if self.digits == 0 => {
                let Some((size, length)) = size_line(rest) else { return 0 };
                self.size = size;
                self.state = self.size_complete();
                length
            }
            _ => 0,
        }
    }

    /// One byte outside chunk data.
    fn step(&mut self, state: State, byte: u8) {
        self.state = match (state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeFeed,
            (State::Size, b';') if self.digits > 0 => {
                self.line_bytes = 0;
                State::Extension
            }
            (State::Size, _) => self.size_digit(byte),
            (State::Extension, b'\r') => State::SizeFeed,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.within(EXTENSION_BYTES_MAX, State::Extension)
            }
            (State::SizeFeed, b'\n') => self.size_complete(),
            (State::DataReturn, b'\r') => State::DataFeed,
            (State::DataFeed, b'\n') => State::Size,
            (State::Trailer, b'\r') => State::TrailerFeed,
            (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.line_empty = false;
                self.within(TRAILER_BYTES_MAX, State::Trailer)
            }
            (State::TrailerFeed, b'\n') if self.line_empty => State::Ended,
            (State::TrailerFeed, b'\n') => {
                self.line_empty = true;
                State::Trailer
            }
            _ => State::Broken,
        };
    }

    fn size_digit(&mut self, byte: u8) -> State {
        let Some(digit) = char::from(byte).to_digit(16) else { return State::Broken };
        if self.digits == DIGITS_MAX {
            return State::Broken;
        }
        self.digits = self.digits.saturating_add(1);
        self.size = self.size.wrapping_shl(4) | u64::from(digit);
        State::Size
    }

    fn size_complete(&mut self) -> State {
        self.digits = 0;
        if self.size > 0 {
            return State::Data;
        }
        self.line_bytes = 0;
        self.line_empty = true;
        State::Trailer
    }

    fn within(&mut self, bytes_max: usize, state: State) -> State {
        self.line_bytes = self.line_bytes.saturating_add(1);
        if self.line_bytes > bytes_max { State::Broken } else { state }
    }
}

/// The size that a whole line without extension states, and the line's length.
fn size_line(rest: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0_u64;
    for (digits, byte) in rest.iter().enumerate() {
        match char::from(*byte).to_digit(16) {
            Some(digit) if digits < usize::from(DIGITS_MAX) => size = size.wrapping_shl(4) | u64::from(digit),
            _ => {
                let is_whole = digits > 0 && rest.get(digits..)?.starts_with(b"\r\n");
                return is_whole.then(|| (size, digits.saturating_add(2)));
            }
        }
    }
    None
}
