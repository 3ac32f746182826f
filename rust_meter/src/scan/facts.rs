//! Facts gathered while a body is walked: what each value that is read means, and what its type must be.

use std::ops::Range;

use super::frame::{Frame, Label, Marks};
use super::json::{Fault, Text, Token, unescaped};
use super::keys::{Format, Key, Place, Slot, price_field, runs_at_client};
use super::values::{WORD_BYTES_MAX, count, type_fault, wanted_type, word};
use super::{Scan, ScanError};

/// Bytes of a model's name.
const MODEL_BYTES_MAX: usize = 256;
/// Different hosted tools in one request.
const HOSTED_TOOLS_MAX: usize = 32;

/// The facts of one body, while it is read.
pub struct Facts {
    /// The route's request format.
    pub format: Format,
    scan: Scan,
    choices: u64,
    best_of: u64,
    max_completion_tokens: Option<u32>,
    has_model: bool,
    prompts: u64,
}

impl Facts {
    /// Nothing read yet.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            scan: Scan::default(),
            choices: 1,
            best_of: 1,
            max_completion_tokens: None,
            has_model: false,
            prompts: 0,
        }
    }

    /// A container begins: what it is. `inside` is the first byte after its bracket.
    pub fn open(&mut self, slot: Slot, is_array: bool, inside: usize) -> Result<Place, Fault> {
        match slot {
            Slot::Body if is_array => type_fault("the body", "an object"),
            Slot::Body => {
                self.scan.spans.root = inside;
                Ok(Place::Root)
            }
            Slot::Skip => Ok(Place::Opaque),
            Slot::Element(place) => Ok(self.open_element(place, is_array)),
            Slot::Member(Place::Root, key) => self.open_root(key, is_array, inside),
            Slot::Member(_, key) => self.open_nested(key, is_array),
        }
    }

    fn open_element(&mut self, place: Place, is_array: bool) -> Place {
        match place {
            Place::Turns => {
                self.scan.message_count = self.scan.message_count.saturating_add(1);
                self.prompts = self.prompts.saturating_add(1);
                if is_array || self.format == Format::Embeddings { Place::Opaque } else { Place::Part }
            }
            Place::Parts if !is_array => Place::Part,
            Place::Tools if !is_array => {
                self.scan.tool_count = self.scan.tool_count.saturating_add(1);
                Place::Tool
            }
            Place::McpServers => {
                self.hosted("mcp");
                Place::Opaque
            }
            _ => Place::Opaque,
        }
    }

    fn open_root(&mut self, key: Key, is_array: bool, inside: usize) -> Result<Place, Fault> {
        match key {
            Key::StreamOptions if !is_array => {
                self.scan.spans.stream_options = Some(inside);
                Ok(Place::StreamOptions)
            }
            Key::CacheOptions if !is_array => Ok(Place::CacheOptions),
            Key::Messages | Key::Input | Key::Prompt if is_array => Ok(Place::Turns),
            Key::System if is_array => Ok(Place::Parts),
            Key::Tools if is_array => Ok(Place::Tools),
            Key::McpServers if is_array => Ok(Place::McpServers),
            Key::Modalities if is_array => Ok(Place::Modalities),
            Key::Prompt | Key::PreviousResponse | Key::Conversation | Key::Container | Key::Thread => {
                self.scan.server_context = true;
                Ok(Place::Opaque)
            }
            Key::WebSearchOptions => {
                self.hosted(key.name());
                Ok(Place::Opaque)
            }
            key if price_field(key) => {
                let shape = if is_array { "array" } else { "object" };
                self.changes_price(key.name(), shape.to_owned());
                Ok(Place::Opaque)
            }
            Key::Messages | Key::Tools | Key::McpServers => type_fault(key.name(), "an array"),
            other => type_fault(other.name(), wanted_type(other)),
        }
    }

    fn open_nested(&mut self, key: Key, is_array: bool) -> Result<Place, Fault> {
        Ok(match key {
            Key::IncludeUsage => return type_fault("include_usage", "true or false"),
            Key::Content | Key::Output if is_array => Place::Parts,
            Key::Content | Key::Output => Place::Part,
            Key::ImageUrl | Key::VideoUrl | Key::InputAudio | Key::File if !is_array => Place::Media,
            Key::Source if !is_array => Place::Source,
            Key::Tools if is_array => Place::Tools,
            Key::Tool if !is_array => Place::Tool,
            Key::Audio => {
                self.scan.server_context = true;
                Place::Opaque
            }
            _ => Place::Opaque,
        })
    }

    /// A complete scalar at `span` of `body`; `frame` is the container it stands in.
    pub fn scalar(
        &mut self,
        slot: Slot,
        token: Token,
        body: &[u8],
        span: Range<usize>,
        frame: Option<&mut Frame>,
    ) -> Result<(), Fault> {
        match slot {
            Slot::Skip => Ok(()),
            Slot::Body => type_fault("the body", "an object"),
            Slot::Element(place) => self.element(place, token, body),
            Slot::Member(Place::Root, key) => self.root_member(key, token, body, span),
            Slot::Member(Place::StreamOptions, _) => {
                self.scan.include_usage = match token {
                    Token::Bool(value) => Some(value),
                    Token::Null => None,
                    _ => return type_fault("include_usage", "true or false"),
                };
                self.scan.spans.include_usage = Some(span);
                Ok(())
            }
            Slot::Member(Place::CacheOptions, key) => match word(key.name(), token, body)? {
                Some(ttl) if ttl != "30m" => {
                    self.changes_price("prompt_cache_options.ttl", ttl);
                    Ok(())
                }
                _ => Ok(()),
            },
            Slot::Member(place, key) => {
                if let (Token::Text(text), Some(frame)) = (token, frame) {
                    self.prompt_text(place, key, text, body, frame)?;
                }
                Ok(())
            }
        }
    }

    fn element(&mut self, place: Place, token: Token, body: &[u8]) -> Result<(), Fault> {
        match (place, token) {
            (Place::Turns, Token::Text(_)) => {
                self.scan.message_count = self.scan.message_count.saturating_add(1);
                self.prompts = self.prompts.saturating_add(1);
                Ok(())
            }
            (Place::Modalities, token) => match word("modalities", token, body)? {
                Some(kind) if kind != "text" => {
                    self.changes_price("modalities", kind);
                    Ok(())
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn root_member(&mut self, key: Key, token: Token, body: &[u8], span: Range<usize>) -> Result<(), Fault> {
        match (key, token) {
            (Key::Model, Token::Text(text)) => self.model(text, body, span),
            (Key::Stream, Token::Bool(stream)) => {
                self.scan.stream = stream;
                Ok(())
            }
            (Key::Model | Key::Stream, _) => type_fault(key.name(), wanted_type(key)),
            (Key::StreamOptions, Token::Null) => {
                self.scan.spans.null_options = Some(span);
                Ok(())
            }
            (Key::Messages | Key::Input | Key::Prompt, Token::Text(_)) => {
                self.scan.message_count = 1;
                Ok(())
            }
            (_, Token::Null) | (Key::System, Token::Text(_)) => Ok(()),
            (Key::MaxTokens | Key::MaxOutputTokens, token) => {
                self.scan.output_limit = Some(count(key, token, body)?);
                Ok(())
            }
            (Key::MaxCompletionTokens, token) => {
                self.max_completion_tokens = Some(count(key, token, body)?);
                Ok(())
            }
            (Key::N, token) => {
                self.choices = u64::from(count(key, token, body)?);
                Ok(())
            }
            (Key::BestOf, token) => {
                self.best_of = u64::from(count(key, token, body)?);
                Ok(())
            }
            (Key::PreviousResponse | Key::Conversation | Key::Container | Key::Thread, _) => {
                self.scan.server_context = true;
                Ok(())
            }
            (key, token) if price_field(key) => self.price_field(key, token, body),
            (key, _) => type_fault(key.name(), wanted_type(key)),
        }
    }

    fn model(&mut self, text: Text, body: &[u8], span: Range<usize>) -> Result<(), Fault> {
        let escapes_allowance = MODEL_BYTES_MAX.saturating_mul(6);
        let model = if text.end.saturating_sub(text.start) > escapes_allowance {
            None
        } else {
            Some(unescaped(body, text)).filter(|model| model.len() <= MODEL_BYTES_MAX)
        };
        let Some(model) = model else {
            let message = format!("`model` is longer than {MODEL_BYTES_MAX} bytes; name a model of the list");
            return Err(Fault { code: "limit", message });
        };
        if model.is_empty() {
            return Err(Fault { code: "missing", message: "`model` is empty; name a model".to_owned() });
        }
        self.scan.model = model;
        self.scan.spans.model = span;
        self.has_model = true;
        Ok(())
    }

    /// A scalar field that changes the price; what says "as usual" is left out.
    fn price_field(&mut self, key: Key, token: Token, body: &[u8]) -> Result<(), Fault> {
        let value = match token {
            Token::Bool(true) => "true".to_owned(),
            Token::Text(_) => match word(key.name(), token, body)? {
                Some(value)
                    if key == Key::CacheRetention && matches!(value.as_str(), "in_memory" | "in-memory") =>
                {
                    return Ok(());
                }
                Some(value) => value,
                None => return Ok(()),
            },
            Token::Number(..) => "number".to_owned(),
            _ => return Ok(()),
        };
        if matches!(key, Key::ServiceTier | Key::Speed | Key::InferenceGeo)
            && !matches!(token, Token::Text(_))
        {
            return type_fault(key.name(), "a string");
        }
        if key == Key::Background && token != Token::Bool(true) {
            return type_fault(key.name(), "true or false");
        }
        self.changes_price(key.name(), value);
        Ok(())
    }

    /// A string inside the prompt or the tools.
    fn prompt_text(
        &mut self,
        place: Place,
        key: Key,
        text: Text,
        body: &[u8],
        frame: &mut Frame,
    ) -> Result<(), Fault> {
        let raw = body.get(text.start..text.end).unwrap_or_default();
        match (place, key) {
            (Place::Tool, Key::Type) => {
                let tool = word("type", Token::Text(text), body)?.unwrap_or_default();
                if !runs_at_client(&tool) {
                    if self.scan.hosted_tools.len() >= HOSTED_TOOLS_MAX {
                        let message = format!("more than {HOSTED_TOOLS_MAX} kinds of hosted tools");
                        return Err(Fault { code: "limit", message });
                    }
                    self.hosted(&tool);
                }
            }
            (Place::Part, Key::Type) => self.part_type(raw, text, body, frame),
            (Place::Source, Key::Type) => frame.marks.base64 = raw == b"base64",
            (Place::Source, Key::Data) => frame.marks.data = raw.len(),
            (Place::Part, Key::Result) => frame.marks.data = raw.len(),
            (Place::Media, Key::Data) | (_, Key::FileData) => {
                self.inline(raw.len());
                frame.marks.file |= place == Place::Part;
            }
            (_, Key::FileId) => {
                self.scan.server_context = true;
                frame.marks.file |= place == Place::Part;
            }
            (Place::Part, Key::ImageUrl) => {
                frame.marks.image = true;
                self.url(raw, frame);
            }
            (Place::Part, Key::FileUrl | Key::VideoUrl) => {
                frame.marks.file = true;
                self.url(raw, frame);
            }
            (Place::Media | Place::Source, Key::Url | Key::FileUrl) => self.url(raw, frame),
            _ => {}
        }
        Ok(())
    }

    fn part_type(&mut self, raw: &[u8], text: Text, body: &[u8], frame: &mut Frame) {
        let spelled =
            if text.escaped && raw.len() <= WORD_BYTES_MAX { unescaped(body, text) } else { String::new() };
        let kind = if text.escaped { spelled.as_bytes() } else { raw };
        self.scan.server_context |= kind == b"item_reference";
        frame.marks.note_type(kind);
    }

    fn url(&mut self, raw: &[u8], frame: &mut Frame) {
        if raw.starts_with(b"data:") { self.inline(raw.len()) } else { frame.marks.remote = true }
    }

    fn inline(&mut self, bytes: usize) {
        self.scan.data_bytes = self.scan.data_bytes.saturating_add(bytes);
    }

    /// Note a price field once, so that a long list of modalities costs no memory.
    fn changes_price(&mut self, name: &'static str, value: String) {
        if !self.scan.price_fields.iter().any(|(known, _)| *known == name) {
            self.scan.price_fields.push((name, value));
        }
    }

    fn hosted(&mut self, tool: &str) {
        if !self.scan.hosted_tools.iter().any(|known| known == tool) {
            self.scan.hosted_tools.push(tool.to_owned());
        }
    }

    /// A container ends: count what it was, hand the rest of its marks to the container around it.
    pub fn close(&mut self, frame: Frame, around: Option<&mut Frame>) {
        let marks = frame.marks;
        match frame.place {
            Place::Media | Place::Source => {
                self.inline(if marks.base64 { marks.data } else { 0 });
                if let Some(around) = around {
                    around.marks.remote |= marks.remote;
                    match around.label {
                        Label::Key(Key::ImageUrl) => around.marks.image = true,
                        Label::Key(Key::InputAudio) => around.marks.audio = true,
                        Label::Key(Key::File | Key::VideoUrl) => around.marks.file = true,
                        // Inline data of a kind we do not know is bounded like a file.
                        _ => around.marks.file |= marks.base64,
                    }
                }
            }
            Place::Part => self.close_part(marks),
            _ => {}
        }
    }

    fn close_part(&mut self, marks: Marks) {
        self.inline(if marks.base64 { marks.data } else { 0 });
        let file = marks.file && !marks.not_file;
        self.scan.image_count = self.scan.image_count.saturating_add(u64::from(marks.image));
        self.scan.audio_count = self.scan.audio_count.saturating_add(u64::from(marks.audio));
        self.scan.file_count = self.scan.file_count.saturating_add(u64::from(file));
        // An image has a bounded size wherever it comes from; a remote document may fill the whole context.
        self.scan.server_context |= marks.remote && !marks.image;
    }

    /// The facts, once the whole body was read.
    pub fn finish(mut self, body_bytes: usize) -> Result<Scan, ScanError> {
        let refused = |code, field: &str, message: &str| {
            Err(ScanError { code, field: field.to_owned(), message: message.to_owned() })
        };
        if !self.has_model {
            return refused("missing", "model", "`model` is missing; name a model");
        }
        match (self.scan.output_limit, self.max_completion_tokens) {
            (Some(old), Some(new)) if old != new => {
                let message = "`max_tokens` and `max_completion_tokens` differ; send one of them";
                return refused("range", "max_completion_tokens", message);
            }
            (None, Some(new)) => self.scan.output_limit = Some(new),
            _ => {}
        }
        let prompts = if self.format == Format::Completions { self.prompts.max(1) } else { 1 };
        self.scan.choices = self.choices.max(self.best_of).saturating_mul(prompts);
        self.scan.text_bytes = body_bytes.saturating_sub(self.scan.data_bytes);
        Ok(self.scan)
    }
}
