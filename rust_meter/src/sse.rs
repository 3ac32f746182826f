//! Server-sent events, cut into lines without keeping any.
//!
//! Line ends are LF, CRLF and CR, mixed at will and split anywhere; a CR ends its line at once and an LF
//! right behind it belongs to it, so no empty line is ever made up. A byte order mark is skipped by the
//! caller. Only `data` lines are handed on; one space behind the colon is not part of the value.

use memchr::memchr2;

/// What comes next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A line begins here; true for comments.
    Line(bool),
    /// A piece of a `data` line's value.
    Data(&'a [u8]),
    /// A `data` line ended.
    DataEnd,
    /// A field named `error`: llama.cpp says its errors this way.
    ErrorField,
    /// A line of no interest ended, or bytes that are not part of one.
    Other,
    /// An empty line: the event is complete.
    Blank,
    /// The LF of a line end whose CR came before.
    LateFeed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Start,
    Name(usize),
    ErrorName(usize),
    Space,
    Data,
    Skip,
}

const NAME: &[u8] = b"data";
const WHOLE_NAME: &[u8] = b"data: ";
const ERROR_NAME: &[u8] = b"error:";

/// The cutter; it keeps a few bytes of state.
#[derive(Debug, Default)]
pub struct Lines {
    state: State,
    after_return: bool,
}

impl Lines {
    /// Whether a line has begun and not ended.
    pub fn is_in_line(&self) -> bool {
        self.state != State::Start
    }

    /// The line that begins is of no interest whatever it is named (it was indented).
    pub fn skip_line(&mut self) {
        self.state = State::Skip;
    }

    /// The next token of a non-empty input, and the input behind it.
    pub fn next<'a>(&mut self, rest: &'a [u8]) -> (Token<'a>, &'a [u8]) {
        let Some((&byte, tail)) = rest.split_first() else { return (Token::Other, rest) };
        if std::mem::take(&mut self.after_return) && byte == b'\n' {
            return (Token::LateFeed, tail);
        }
        match self.state {
            State::Start if matches!(byte, b'\n' | b'\r') => self.end(Token::Blank, byte, tail),
            State::Start => {
                // Nearly every line, where its value stands in the same piece.
                if let Some(value) = rest.strip_prefix(WHOLE_NAME).filter(|value| !value.is_empty()) {
                    self.state = State::Data;
                    return (Token::Line(false), value);
                }
                self.state = match byte {
                    b':' => State::Skip,
                    b'e' => State::ErrorName(0),
                    _ => State::Name(0),
                };
                (Token::Line(byte == b':'), rest)
            }
            State::Name(matched) => self.name(matched, rest),
            State::ErrorName(matched) => {
                if ERROR_NAME.get(matched) != Some(&byte) {
                    self.state = State::Skip;
                    return (Token::Other, rest);
                }
                let matched = matched.saturating_add(1);
                let is_whole = matched == ERROR_NAME.len();
                self.state = if is_whole { State::Skip } else { State::ErrorName(matched) };
                (if is_whole { Token::ErrorField } else { Token::Other }, tail)
            }
            State::Space => {
                self.state = State::Data;
                (Token::Data(&[]), if byte == b' ' { tail } else { rest })
            }
            State::Data | State::Skip => self.body(rest),
        }
    }

    fn name<'a>(&mut self, matched: usize, rest: &'a [u8]) -> (Token<'a>, &'a [u8]) {
        let wanted = NAME.get(matched..).unwrap_or_default();
        let common = wanted.iter().zip(rest).take_while(|(one, two)| one == two).count();
        let tail = rest.get(common..).unwrap_or_default();
        let matched = matched.saturating_add(common);
        self.state = match tail.first() {
            None => State::Name(matched),
            Some(b':') if matched == NAME.len() => {
                let value = tail.get(1..).unwrap_or_default();
                self.state = if value.is_empty() { State::Space } else { State::Data };
                return (Token::Other, value.strip_prefix(b" ").unwrap_or(value));
            }
            Some(b'\n' | b'\r') if matched == NAME.len() => State::Data,
            Some(_) => State::Skip,
        };
        (Token::Other, tail)
    }

    fn body<'a>(&mut self, rest: &'a [u8]) -> (Token<'a>, &'a [u8]) {
        let is_data = self.state == State::Data;
        if let Some((byte @ (b'\n' | b'\r'), tail)) = rest.split_first() {
            return self.end(if is_data { Token::DataEnd } else { Token::Other }, *byte, tail);
        }
        let at = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        (if is_data { Token::Data(piece) } else { Token::Other }, tail)
    }

    fn end<'a>(&mut self, token: Token<'a>, byte: u8, tail: &'a [u8]) -> (Token<'a>, &'a [u8]) {
        self.state = State::Start;
        if byte == b'\r' {
            if let Some((b'\n', behind)) = tail.split_first() {
                return (token, behind);
            }
            self.after_return = tail.is_empty();
        }
        (token, tail)
    }
}
