//! What admission needs from a request body, found in one strict pass without building objects.
//!
//! Two parsers must never read one body differently: a field that is read may stand only once at its level,
//! in its own spelling, with its own type (fault rows B01 to B11). Everything else passes unread and
//! unchanged.

mod edit;
mod facts;
mod frame;
mod json;
mod keys;
mod values;

use edit::Spans;
pub use edit::edited;
use facts::Facts;
use frame::{Frame, Label};
use json::{Fault, Reader, Text, Token};
pub use keys::Format;
use keys::{Key, Place, Slot};

/// Bytes a key may have, unescaped, to be compared with those that are read.
const KEY_BYTES_MAX: usize = 32;

/// Why a body cannot be served: stable code, JSON path of the culprit, what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanError {
    /// utf8, json, depth, duplicate_key, type, missing, range or limit.
    pub code: &'static str,
    /// JSON path, or empty.
    pub field: String,
    /// What to change.
    pub message: String,
}

/// Facts of one request body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The model asked for, 1 to 256 bytes.
    pub model: String,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Output tokens the client allows per choice.
    pub output_limit: Option<u32>,
    /// Choices per prompt x prompts, at least 1.
    pub choices: u64,
    /// `stream_options.include_usage` as sent.
    pub include_usage: Option<bool>,
    /// Length of the body less `data_bytes`.
    pub text_bytes: usize,
    /// Bytes of inline media.
    pub data_bytes: usize,
    /// Images, inline or referred to.
    pub image_count: u64,
    /// Audio clips.
    pub audio_count: u64,
    /// Documents and other files.
    pub file_count: u64,
    /// Messages, input items, prompts or embedding inputs.
    pub message_count: u64,
    /// Tools the request defines, hosted or not.
    pub tool_count: u64,
    /// The upstream adds prompt that the body does not show.
    pub server_context: bool,
    /// Fields that change the price or the way of serving, in the order of the body.
    pub price_fields: Vec<(&'static str, String)>,
    /// Types of tools the upstream runs, each once, in the order of the body.
    pub hosted_tools: Vec<String>,
    spans: Spans,
}

/// Read a request body. Linear time, memory bounded by the depth.
pub fn scan(body: &[u8], format: Format, depth_max: usize) -> Result<Scan, ScanError> {
    if let Err(error) = std::str::from_utf8(body) {
        let message = format!("the body is not valid UTF-8 (byte {})", error.valid_up_to());
        return Err(ScanError { code: "utf8", field: String::new(), message });
    }
    let mut walk =
        Walk { body, reader: Reader::new(body), facts: Facts::new(format), stack: Vec::with_capacity(8) };
    match walk.run(depth_max) {
        Ok(()) => walk.facts.finish(body.len()),
        Err(Fault { code: "json", message }) => {
            Err(ScanError { code: "json", field: String::new(), message })
        }
        Err(fault) => Err(ScanError { code: fault.code, field: walk.path(), message: fault.message }),
    }
}

struct Walk<'a> {
    body: &'a [u8],
    reader: Reader<'a>,
    facts: Facts,
    stack: Vec<Frame>,
}

impl Walk<'_> {
    fn run(&mut self, depth_max: usize) -> Result<(), Fault> {
        let mut slot = Slot::Body;
        loop {
            self.reader.space();
            let start = self.reader.at;
            let token = self.reader.value()?;
            match token {
                Token::Object | Token::Array => {
                    if self.stack.len() >= depth_max {
                        let message = format!("the body is nested deeper than {depth_max} levels");
                        return Err(Fault { code: "depth", message });
                    }
                    let is_array = token == Token::Array;
                    let place = self.facts.open(slot, is_array, self.reader.at)?;
                    self.stack.push(Frame::new(place, is_array));
                    if let Some(next) = self.first_child()? {
                        slot = next;
                        continue;
                    }
                }
                scalar => self.facts.scalar(
                    slot,
                    scalar,
                    self.body,
                    start..self.reader.at,
                    self.stack.last_mut(),
                )?,
            }
            match self.next_sibling()? {
                Some(next) => slot = next,
                None => return self.reader.end(),
            }
        }
    }

    /// The slot of the first child of the container just opened; None if it is empty (and closed by now).
    fn first_child(&mut self) -> Result<Option<Slot>, Fault> {
        let is_array = self.stack.last().is_some_and(|frame| frame.is_array);
        if self.reader.take(if is_array { b']' } else { b'}' }) {
            self.close();
            return Ok(None);
        }
        self.child().map(Some)
    }

    /// After a value: the slot of the next one, with all containers that end here closed; None at the
    /// body's end.
    fn next_sibling(&mut self) -> Result<Option<Slot>, Fault> {
        while let Some(frame) = self.stack.last() {
            let (end, wanted) = if frame.is_array { (b']', "`,` or `]`") } else { (b'}', "`,` or `}`") };
            if self.reader.take(b',') {
                return self.child().map(Some);
            }
            if !self.reader.take(end) {
                return self.reader.unexpected(wanted);
            }
            self.close();
        }
        Ok(None)
    }

    fn close(&mut self) {
        if let Some(frame) = self.stack.pop() {
            self.facts.close(frame, self.stack.last_mut());
        }
    }

    /// The slot of the next child of the innermost container; reads the key in an object.
    fn child(&mut self) -> Result<Slot, Fault> {
        let Some(frame) = self.stack.last_mut() else {
            return Ok(Slot::Skip);
        };
        if frame.is_array {
            frame.label = Label::Index(frame.next_index);
            frame.next_index = frame.next_index.saturating_add(1);
            return Ok(Slot::Element(frame.place));
        }
        let text = self.reader.key()?;
        let place = frame.place;
        frame.label = Label::Other;
        if place == Place::Opaque {
            return Ok(Slot::Skip);
        }
        let Some(key) = known_key(self.body, text, place, self.facts.format)? else {
            return Ok(Slot::Skip);
        };
        frame.label = Label::Key(key);
        if !frame.first_time(key) {
            let message = format!("`{}` stands twice in the same object; send it once", key.name());
            return Err(Fault { code: "duplicate_key", message });
        }
        Ok(Slot::Member(place, key))
    }

    /// JSON path of the value being read, as far as its keys are ones we know.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match frame.label {
                Label::Index(index) => path.push_str(&format!("[{index}]")),
                Label::Key(key) if path.is_empty() => path.push_str(key.name()),
                Label::Key(key) => path.push_str(&format!(".{}", key.name())),
                Label::Other => break,
            }
        }
        path
    }
}

/// The key a text spells, if it is read at `place`. A key that differs only in case from one that is read
/// is refused: some upstreams ignore case and would read it.
fn known_key(body: &[u8], text: Text, place: Place, format: Format) -> Result<Option<Key>, Fault> {
    let unescaped;
    let spelled = if text.escaped {
        unescaped = json::unescaped(body, text);
        unescaped.as_bytes()
    } else {
        body.get(text.start..text.end).unwrap_or_default()
    };
    if spelled.len() > KEY_BYTES_MAX {
        return Ok(None);
    }
    let read = |name: &[u8]| Key::named(name).filter(|key| keys::is_read(place, *key, format));
    if let Some(key) = read(spelled) {
        return Ok(Some(key));
    }
    let case_matters =
        matches!(place, Place::Root | Place::StreamOptions) && spelled.iter().any(u8::is_ascii_uppercase);
    match if case_matters { read(&spelled.to_ascii_lowercase()) } else { None } {
        None => Ok(None),
        Some(key) => {
            let message =
                format!("a key differs from `{}` only in case; spell it so or leave it out", key.name());
            Err(Fault { code: "duplicate_key", message })
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests;

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests_facts;
