//! The meter: finds the documents of a body whatever its framing, and says where the terminal event begins.
//!
//! The framing is found from the first byte that is no white space: `{` one or more JSON documents, `[` an
//! array of them, NUL an AWS event stream, anything else server-sent events. Content types are not trusted.

mod beginning;
mod envelope;
mod framed;

use crate::answer::Answer;
use crate::document::Document;
use crate::flags;
use crate::formats::{Family, Format, bedrock};
use crate::frames::Frames;
use crate::json::{Progress, Reader};
use crate::normal::CacheSemantics;
use crate::sse::{self, Lines};
use beginning::Beginning;
use envelope::Envelope;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Detect { mark: u8, is_indented: bool },
    Events,
    Json,
    Array,
    Frames,
    Ignore,
}

/// Where the reader stands in a `data` line or JSON body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Document,
    Done(usize),
    Junk,
}

const DONE: &[u8] = b"[DONE]";
const MARK: &[u8] = b"\xEF\xBB\xBF";

/// An event that must not reach the client as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Body offset of its first byte.
    pub from: u64,
    /// Body offset behind it.
    pub to: u64,
}

/// The meter of one body (decoded from transfer and content coding).
#[derive(Debug)]
pub struct Meter {
    family: Family,
    /// What is known.
    pub answer: Answer,
    mode: Mode,
    place: Place,
    reader: Reader,
    document: Document,
    beginning: Beginning,
    lines: Lines,
    frames: Frames,
    envelope: Option<(Reader, Envelope)>,
    position: u64,
    event_start: Option<u64>,
    event_documents: u64,
    event_strips: bool,
    event_kept: bool,
    last_removed: bool,
    strips: bool,
    terminal: Option<u64>,
    /// Events to remove, in order; the caller takes them.
    pub cuts: Vec<Cut>,
}

impl Meter {
    /// A meter for a format; `strips` finds injected usage events.
    pub fn new(format: &'static Format, semantics: CacheSemantics, strips: bool) -> Self {
        let is_wrapped = format.family == Family::Invoke;
        Self {
            family: format.family,
            answer: Answer::new(format, semantics),
            mode: Mode::Detect { mark: 0, is_indented: false },
            place: Place::Between,
            reader: Reader::new(format.root),
            document: Document::default(),
            beginning: Beginning::default(),
            lines: Lines::default(),
            frames: Frames::default(),
            envelope: is_wrapped.then(|| (Reader::new(&bedrock::ENVELOPE), Envelope::new(format.root))),
            position: 0,
            event_start: None,
            event_documents: 0,
            event_strips: false,
            event_kept: false,
            last_removed: false,
            strips: strips && format.family == Family::Chat,
            terminal: None,
            cuts: Vec::new(),
        }
    }

    /// Whether injected usage events are looked for.
    pub fn strips(&self) -> bool {
        self.strips
    }

    /// Body bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Body offset at which the first terminal event found since the last call begins.
    pub fn take_terminal(&mut self) -> Option<u64> {
        self.terminal.take()
    }

    /// Body offset up to which bytes are decided: the start of an event that may have to be removed, or the
    /// end.
    pub fn decided(&self) -> u64 {
        match self.event_start {
            Some(start) if self.strips && self.mode == Mode::Events && !self.event_kept => start,
            _ => self.position,
        }
    }

    /// Bytes of the open event so far.
    pub fn event_bytes(&self) -> u64 {
        self.event_start.map_or(0, |start| self.position.saturating_sub(start))
    }

    /// The open event is too long to be an injected one: it passes.
    pub fn keep_event(&mut self) {
        self.event_kept = true;
    }

    /// Read the next bytes.
    pub fn feed(&mut self, data: &[u8]) {
        let start = self.position;
        let mut rest = data;
        while !rest.is_empty() {
            let consumed = data.len().saturating_sub(rest.len());
            self.position = start.saturating_add(u64::try_from(consumed).unwrap_or(0));
            rest = match self.mode {
                Mode::Detect { mark, is_indented } => self.detect(mark, is_indented, rest),
                Mode::Events => self.events(rest),
                Mode::Json | Mode::Array => self.bare(rest),
                Mode::Frames => self.frame(rest),
                Mode::Ignore => &[],
            };
        }
        self.position = start.saturating_add(u64::try_from(data.len()).unwrap_or(0));
    }

    /// The body is over; `is_clean` when its framing says so.
    pub fn finish(&mut self, is_clean: bool) {
        if self.mode == Mode::Events && (self.lines.is_in_line() || self.event_start.is_some()) {
            self.line_end();
            self.event_end(self.position);
        } else if self.place == Place::Document {
            self.answer.flag(flags::CUT_DOCUMENT);
            if self.mode == Mode::Json {
                self.answer.commit_cut(&mut self.document);
            }
        }
        if self.frames.is_in_frame() {
            self.answer.flag(flags::CUT_DOCUMENT);
        }
        self.place = Place::Junk;
        self.mode = Mode::Ignore;
        self.answer.is_ended = is_clean;
    }

    fn detect<'a>(&mut self, mark: u8, is_indented: bool, rest: &'a [u8]) -> &'a [u8] {
        let Some((&byte, tail)) = rest.split_first() else { return rest };
        if MARK.get(usize::from(mark)) == Some(&byte) {
            self.mode = Mode::Detect { mark: mark.saturating_add(1), is_indented };
            return tail;
        }
        self.mode = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                self.mode = Mode::Detect { mark: 3, is_indented: matches!(byte, b' ' | b'\t') };
                return tail;
            }
            b'{' => Mode::Json,
            b'[' => {
                self.mode = Mode::Array;
                return tail;
            }
            0 => Mode::Frames,
            _ => {
                if is_indented {
                    self.lines.skip_line();
                }
                Mode::Events
            }
        };
        rest
    }

    fn events<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let (token, tail) = self.lines.next(rest);
        match token {
            sse::Token::Line(is_comment) => {
                self.last_removed = false;
                if !is_comment && self.event_start.is_none() {
                    self.event_start = Some(self.position);
                }
            }
            sse::Token::Data(piece) => self.data(piece),
            sse::Token::DataEnd => self.line_end(),
            sse::Token::ErrorField => self.answer.is_failed = true,
            sse::Token::Other => {}
            sse::Token::Blank => {
                let consumed = rest.len().saturating_sub(tail.len());
                self.event_end(self.position.saturating_add(u64::try_from(consumed).unwrap_or(0)));
            }
            sse::Token::LateFeed => {
                if self.last_removed && self.event_start.is_none() {
                    self.cuts.push(Cut { from: self.position, to: self.position.saturating_add(1) });
                }
            }
        }
        tail
    }

    /// A piece of a `data` value: documents, or the word `[DONE]`.
    fn data(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.place {
                Place::Between => match byte {
                    b' ' | b'\t' => rest = tail,
                    b'{' => {
                        self.answer_glued();
                        self.place = Place::Document;
                        rest = self.beginning.begin(rest, &mut self.reader, &mut self.document);
                    }
                    b'[' => self.place = Place::Done(0),
                    _ => self.junk(),
                },
                Place::Done(matched) if DONE.get(matched) == Some(&byte) => {
                    rest = tail;
                    let matched = matched.saturating_add(1);
                    self.place = Place::Done(matched);
                    if matched == DONE.len() {
                        self.done();
                    }
                }
                Place::Done(_) => self.junk(),
                Place::Document => rest = self.document(rest),
                Place::Junk => return,
            }
        }
    }

    fn begin_document(&mut self) {
        self.answer_glued();
        self.reader.begin();
        self.document.begin();
        self.place = Place::Document;
    }

    fn answer_glued(&mut self) {
        if self.event_documents > 0 {
            self.answer.flag(flags::GLUED_DOCUMENTS);
        }
    }

    fn junk(&mut self) {
        self.place = Place::Junk;
        self.event_strips = false;
        self.event_documents = self.event_documents.saturating_add(1);
        self.answer.flag(flags::MALFORMED_JSON);
    }

    fn done(&mut self) {
        self.place = Place::Junk;
        self.event_kept = true;
        if matches!(self.family, Family::Chat | Family::Responses) {
            self.answer.is_complete = true;
            self.found_terminal();
        }
    }

    fn found_terminal(&mut self) {
        if self.terminal.is_none() {
            self.terminal = Some(self.event_start.unwrap_or(self.position));
        }
    }

    /// Feed the reader; a complete document is committed at once, a malformed one forgotten.
    fn document<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        match self.reader.feed(rest, &mut self.document) {
            Progress::More => &[],
            Progress::Done(tail) => {
                self.place = Place::Between;
                self.commit();
                tail
            }
            Progress::Bad => {
                self.answer.flag(flags::MALFORMED_JSON);
                self.event_documents = self.event_documents.saturating_add(1);
                self.event_strips = false;
                self.place = Place::Junk;
                &[]
            }
        }
    }

    fn commit(&mut self) {
        let first = self.event_documents == 0;
        self.event_documents = self.event_documents.saturating_add(1);
        self.event_strips = first && self.document.choices == Some(0) && self.document.main.present;
        if self.mode == Mode::Events && self.answer.is_complete {
            self.answer.flag(flags::AFTER_TERMINAL);
        }
        if self.answer.commit(&mut self.document) {
            self.found_terminal();
        }
    }

    fn line_end(&mut self) {
        match self.place {
            Place::Document if self.reader.is_in_text() => {
                self.answer.flag(flags::MALFORMED_JSON);
                self.event_documents = self.event_documents.saturating_add(1);
                self.event_strips = false;
                self.place = Place::Between;
            }
            Place::Document => {
                self.document(b"\n");
                if self.place == Place::Junk {
                    self.place = Place::Between;
                }
            }
            Place::Done(_) | Place::Junk | Place::Between => self.place = Place::Between,
        }
    }

    fn event_end(&mut self, to: u64) {
        if self.place == Place::Document {
            self.answer.flag(flags::CUT_DOCUMENT);
            self.place = Place::Between;
            self.event_strips = false;
        }
        self.last_removed = false;
        if let Some(from) = self.event_start
            && self.strips
            && self.event_strips
            && !self.event_kept
        {
            self.cuts.push(Cut { from, to });
            self.last_removed = true;
        }
        self.event_start = None;
        self.event_documents = 0;
        self.event_strips = false;
        self.event_kept = false;
    }

    /// JSON that is no event: documents one after another, or the elements of an array.
    fn bare<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        if self.place == Place::Document {
            let tail = self.document(rest);
            if self.place == Place::Junk {
                self.mode = Mode::Ignore;
            }
            if self.place == Place::Between && self.mode == Mode::Json {
                self.answer.is_complete = true;
            }
            return tail;
        }
        let Some((&byte, tail)) = rest.split_first() else { return rest };
        match (byte, self.mode) {
            (b' ' | b'\t' | b'\n' | b'\r', _) | (b',', Mode::Array) => tail,
            (b'{', _) if self.place == Place::Between => {
                if self.mode == Mode::Array {
                    self.event_documents = 0;
                }
                self.begin_document();
                rest
            }
            (b']', Mode::Array) => {
                self.answer.is_complete = true;
                self.mode = Mode::Ignore;
                tail
            }
            _ => {
                if self.place != Place::Junk {
                    self.answer.flag(flags::TRAILING_BYTES);
                }
                self.mode = Mode::Ignore;
                &[]
            }
        }
    }
}
