//! Strict JSON tokens (RFC 8259) from a body that is known to be UTF-8: no objects, no recursion, linear
//! time.
//!
//! Beyond the grammar it refuses what two parsers could read differently: halves of surrogate pairs,
//! numbers too large for a double, numbers of absurd length.

use crate::marks::{BLOCK_BYTES, block_of, first, from, is_escaped, marks};

/// Bytes of one number; longer ones cost some parsers quadratic time.
const NUMBER_BYTES_MAX: usize = 1024;
/// Digits a double can always hold without becoming infinite.
const SAFE_DIGITS: usize = 300;

/// Why a body cannot be read: stable code and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One of the codes of `ScanError`.
    pub code: &'static str,
    /// What to change.
    pub message: String,
}

/// A string's bytes between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// First byte after the opening quote.
    pub start: usize,
    /// The closing quote.
    pub end: usize,
    /// Contains a backslash.
    pub escaped: bool,
}

/// The beginning of a value; scalars are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// `{`
    Object,
    /// `[`
    Array,
    /// A string.
    Text(Text),
    /// A number from its first byte to behind its last.
    Number(usize, usize),
    /// `true` or `false`
    Bool(bool),
    /// `null`
    Null,
}

/// A position in a body.
pub struct Reader<'a> {
    body: &'a [u8],
    /// The next byte to be read.
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// Start at the first byte.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn step(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    /// Skip white space.
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.step(1);
        }
    }

    /// Skip white space, then consume `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.peek() == Some(byte);
        self.step(usize::from(found));
        found
    }

    /// The fault of an unexpected byte here.
    pub fn unexpected<T>(&self, wanted: &str) -> Result<T, Fault> {
        let found = match self.peek() {
            None => "the body ends".to_owned(),
            Some(byte) if byte.is_ascii_graphic() => format!("`{}` stands", char::from(byte)),
            Some(byte) => format!("byte 0x{byte:02x} stands"),
        };
        self.fault(format!("{found} where {wanted} is expected"))
    }

    fn fault<T>(&self, what: String) -> Result<T, Fault> {
        Err(Fault { code: "json", message: format!("the body is not valid JSON: {what} (byte {})", self.at) })
    }

    /// The next value's token.
    pub fn value(&mut self) -> Result<Token, Fault> {
        self.space();
        match self.peek() {
            Some(b'"') => self.text().map(Token::Text),
            Some(b'{') => {
                self.step(1);
                Ok(Token::Object)
            }
            Some(b'[') => {
                self.step(1);
                Ok(Token::Array)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Token::Bool(true)),
            Some(b'f') => self.word(b"false", Token::Bool(false)),
            Some(b'n') => self.word(b"null", Token::Null),
            _ => self.unexpected("a value"),
        }
    }

    /// A member's key and its colon.
    pub fn key(&mut self) -> Result<Text, Fault> {
        self.space();
        if self.peek() != Some(b'"') {
            return self.unexpected("a key in double quotes");
        }
        let key = self.text()?;
        if self.take(b':') { Ok(key) } else { self.unexpected("`:`") }
    }

    fn word(&mut self, word: &[u8], token: Token) -> Result<Token, Fault> {
        if !self.body.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return self.unexpected("a value");
        }
        self.step(word.len());
        Ok(token)
    }

    /// A string; `at` stands on the opening quote.
    fn text(&mut self) -> Result<Text, Fault> {
        self.step(1);
        let start = self.at;
        let mut escaped = false;
        loop {
            let block_start = self.at;
            let rest = self.body.get(block_start..).unwrap_or_default();
            // Behind the body's end stands nothing that belongs into a string.
            let mut special = marks(&block_of(rest, 0), is_escaped);
            while special != 0 {
                self.at = block_start.saturating_add(first(special));
                match self.peek() {
                    Some(b'"') => {
                        let end = self.at;
                        self.step(1);
                        return Ok(Text { start, end, escaped });
                    }
                    Some(b'\\') => {
                        escaped = true;
                        self.escape()?;
                    }
                    _ => {
                        return self.unexpected("a string's closing quote or an escaped control character");
                    }
                }
                special = from(special, self.at.saturating_sub(block_start));
            }
            self.at = self.at.max(block_start.saturating_add(BLOCK_BYTES));
        }
    }

    /// One escape sequence; `at` stands on the backslash.
    fn escape(&mut self) -> Result<(), Fault> {
        self.step(1);
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.step(1);
                Ok(())
            }
            Some(b'u') => self.unicode_escape(),
            _ => self.unexpected("an escape sequence"),
        }
    }

    /// `uXXXX`, and its other half when it is the first of a surrogate pair; `at` stands on the `u`.
    fn unicode_escape(&mut self) -> Result<(), Fault> {
        let Some(unit) = self.hex4(self.at.saturating_add(1)) else {
            return self.unexpected("four hexadecimal digits after \\u");
        };
        self.step(5);
        if !(0xd800..=0xdfff).contains(&unit) {
            return Ok(());
        }
        let pair = self.body.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"));
        let low = if pair { self.hex4(self.at.saturating_add(2)) } else { None };
        if unit >= 0xdc00 || !low.is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) {
            let message = format!("a string contains half of a surrogate pair (before byte {})", self.at);
            return Err(Fault { code: "utf8", message });
        }
        self.step(6);
        Ok(())
    }

    fn hex4(&self, from: usize) -> Option<u32> {
        let digits = self.body.get(from..from.saturating_add(4))?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn digits(&mut self) -> usize {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.step(count);
        count
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        self.step(usize::from(self.peek() == Some(b'-')));
        let leading_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (leading_zero && whole > 1) {
            return self.unexpected("a number without leading zeros");
        }
        if self.peek() == Some(b'.') {
            self.step(1);
            if self.digits() == 0 {
                return self.unexpected("a digit");
            }
        }
        let exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if exponent {
            self.step(1);
            self.step(usize::from(matches!(self.peek(), Some(b'+' | b'-'))));
            if self.digits() == 0 {
                return self.unexpected("a digit");
            }
        }
        self.check_size(start, exponent || whole > SAFE_DIGITS)?;
        Ok(Token::Number(start, self.at))
    }

    fn check_size(&self, start: usize, may_overflow: bool) -> Result<(), Fault> {
        if self.at.saturating_sub(start) > NUMBER_BYTES_MAX {
            let message = format!("a number has more than {NUMBER_BYTES_MAX} characters (byte {start})");
            return Err(Fault { code: "limit", message });
        }
        let digits = self.body.get(start..self.at).unwrap_or_default();
        let value: Option<f64> = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
        if may_overflow && !value.is_some_and(f64::is_finite) {
            let message = format!("a number is too large for a double (byte {start})");
            return Err(Fault { code: "range", message });
        }
        Ok(())
    }

    /// Refuse anything but white space from here on.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.space();
        if self.at < self.body.len() { self.unexpected("the end of the body") } else { Ok(()) }
    }
}

/// The string a `Text` of `body` stands for. Escapes were checked by the reader.
pub fn unescaped(body: &[u8], text: Text) -> String {
    let raw = body.get(text.start..text.end).unwrap_or_default();
    if !text.escaped {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let mut units: Vec<u8> = Vec::with_capacity(raw.len());
    let mut at = 0_usize;
    while let Some(byte) = raw.get(at).copied() {
        at = at.saturating_add(1);
        if byte != b'\\' {
            units.push(byte);
            continue;
        }
        let (character, used) = one_escape(raw.get(at..).unwrap_or_default());
        at = at.saturating_add(used);
        let mut buffer = [0_u8; 4];
        units.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
    }
    String::from_utf8_lossy(&units).into_owned()
}

/// The character an escape stands for, and its bytes after the backslash.
fn one_escape(rest: &[u8]) -> (char, usize) {
    let unit = |from: usize| {
        let digits = rest.get(from..from.saturating_add(4)).unwrap_or_default();
        u16::from_str_radix(std::str::from_utf8(digits).unwrap_or_default(), 16).unwrap_or(0xfffd)
    };
    match rest.first() {
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b'n') => ('\n', 1),
        Some(b'r') => ('\r', 1),
        Some(b't') => ('\t', 1),
        Some(b'u') => {
            let first = unit(1);
            let pair = [first, if (0xd800..=0xdbff).contains(&first) { unit(7) } else { 0 }];
            match char::decode_utf16(pair).next() {
                Some(Ok(character)) => (character, if character.len_utf16() == 2 { 11 } else { 5 }),
                _ => (char::REPLACEMENT_CHARACTER, 5),
            }
        }
        Some(other) => (char::from(*other), 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

/// `text` as a JSON string with its quotes.
pub fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len().saturating_add(2));
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}
