//! One answer's usage, gathered from its documents in the order they came.
//!
//! Statements restate, they never add (the only sums are compaction passes and spliced messages). For
//! Anthropic each member of a later statement overwrites; everywhere else the later statement stands as a
//! whole.

mod report;

use crate::document::{Document, Statement, ToolCalls};
use crate::flags::{self, Flags};
use crate::formats::{Family, Format, messages, responses};
use crate::json::CAPTURE_BYTES_MAX;
use crate::normal::{CacheSemantics, Totals};
use crate::tree::Field;

/// A usage object without one of these reports nothing.
const REPORTING: u64 = Field::Input.bit()
    | Field::Output.bit()
    | Field::Total.bit()
    | Field::Thoughts.bit()
    | Field::BilledInput.bit()
    | Field::BilledOutput.bit();

/// Other models kept apart over spliced messages.
const OTHER_MODELS_MAX: usize = 16;

/// What is known of the answer so far.
#[derive(Debug)]
pub struct Answer {
    family: Family,
    semantics: CacheSemantics,
    usage: Statement,
    has_usage: bool,
    is_final: bool,
    earlier: Option<Totals>,
    earlier_web_searches: u64,
    raws: Vec<Vec<u8>>,
    raw_latest: Vec<u8>,
    metrics: Statement,
    seconds: Option<u64>,
    has_cost: bool,
    tools: ToolCalls,
    tool_items: ToolCalls,
    images: u64,
    had_output: bool,
    is_finished: bool,
    is_closed: bool,
    flags: Flags,
    /// The format's terminal event was seen, or a whole JSON body.
    pub is_complete: bool,
    /// The body ended as its transfer framing says.
    pub is_ended: bool,
    /// An upstream error was seen.
    pub is_failed: bool,
    /// Generated text so far.
    pub output_bytes: u64,
    model: Vec<u8>,
    id: Vec<u8>,
    tier: Vec<u8>,
    speed: Vec<u8>,
    geo: Vec<u8>,
}

impl Answer {
    /// An answer of a format of which nothing is known.
    pub fn new(format: &Format, semantics: CacheSemantics) -> Self {
        Self {
            family: format.family,
            semantics,
            usage: Statement::default(),
            has_usage: false,
            is_final: false,
            earlier: None,
            earlier_web_searches: 0,
            raws: Vec::new(),
            raw_latest: Vec::new(),
            metrics: Statement::default(),
            seconds: None,
            has_cost: false,
            tools: ToolCalls::default(),
            tool_items: ToolCalls::default(),
            images: 0,
            had_output: false,
            is_finished: false,
            is_closed: false,
            flags: Flags::NONE,
            is_complete: false,
            is_ended: false,
            is_failed: false,
            output_bytes: 0,
            model: Vec::new(),
            id: Vec::new(),
            tier: Vec::new(),
            speed: Vec::new(),
            geo: Vec::new(),
        }
    }

    /// Say an anomaly.
    pub fn flag(&mut self, flag: Flags) {
        self.flags.raise(flag);
    }

    /// Take a complete document; true when it is the format's terminal event.
    pub fn commit(&mut self, document: &mut Document) -> bool {
        self.flags.raise(document.flags);
        self.is_finished |= document.is_finish;
        let is_terminal = self.is_terminal(document);
        self.is_failed |= document.is_error
            || matches!(document.kind.as_slice(), b"error" | b"response.failed")
            || document.status == b"failed";
        self.take_text(document, is_terminal);
        self.take_extras(document, is_terminal);
        match self.family {
            Family::Messages | Family::Invoke => self.merge(document),
            _ => self.restate(document),
        }
        self.take_names(document);
        self.is_complete |= is_terminal;
        is_terminal
    }

    /// Take what a document said before the body was cut: closed usage objects, never as the last word.
    pub fn commit_cut(&mut self, document: &mut Document) {
        self.commit(document);
        self.is_final = false;
        self.is_closed = false;
        self.is_complete = false;
    }

    fn is_terminal(&self, document: &Document) -> bool {
        match self.family {
            Family::Messages | Family::Invoke => document.kind == b"message_stop",
            Family::Responses => responses::is_terminal(&document.kind),
            _ => false,
        }
    }

    /// The document is left with the names before it, to be forgotten.
    fn take_names(&mut self, document: &mut Document) {
        if !document.id.is_empty() {
            std::mem::swap(&mut self.id, &mut document.id);
        }
        if !document.model.is_empty() && (self.model.is_empty() || self.family == Family::Responses) {
            std::mem::swap(&mut self.model, &mut document.model);
        }
        for (known, said) in [
            (&mut self.tier, &mut document.tier),
            (&mut self.speed, &mut document.speed),
            (&mut self.geo, &mut document.geo),
        ] {
            if !said.is_empty() {
                std::mem::swap(known, said);
            }
        }
    }

    /// Closing events repeat the text of the deltas: they count only where there were none.
    fn take_text(&mut self, document: &Document, is_terminal: bool) {
        let repeats = document.repeat_bytes > 0
            && self.output_bytes == 0
            && (document.kind.is_empty() || is_terminal || document.kind == b"transcript.text.done");
        let repeated = if repeats { document.repeat_bytes } else { 0 };
        self.output_bytes = self.output_bytes.saturating_add(document.output_bytes).saturating_add(repeated);
    }

    fn take_extras(&mut self, document: &Document, is_terminal: bool) {
        if self.family == Family::Responses {
            if document.kind == b"response.output_item.done" {
                self.tool_items.add(&document.tools);
            } else if is_terminal || document.kind.is_empty() {
                self.tools.clone_from(&document.tools);
            }
        }
        self.images = self.images.max(document.data);
        if document.main.present {
            self.seconds = document.main.fields.get(Field::Seconds).or(self.seconds);
            self.has_cost |= document.main.fields.get(Field::Cost).is_some();
        }
    }

    /// Anthropic: start and deltas overwrite member by member; a message of another id is a second one.
    fn merge(&mut self, document: &mut Document) {
        if document.metrics.present {
            self.is_closed = true;
            std::mem::swap(&mut self.metrics, &mut document.metrics);
        }
        let kind = document.kind.as_slice();
        let is_start = kind == b"message_start";
        if is_start
            && self.has_usage
            && !self.id.is_empty()
            && !document.id.is_empty()
            && self.id != document.id
        {
            self.splice();
        }
        let is_whole = matches!(kind, b"message" | b"");
        let statement = if is_start {
            &document.inner
        } else if is_whole || kind == b"message_delta" {
            if document.main.present { &document.main } else { &document.aside }
        } else {
            return;
        };
        if !statement.is_closed || !(reports(statement) || statement.iterations.is_some()) {
            return;
        }
        messages::merge(&mut self.usage, statement, &mut self.flags);
        self.has_usage = true;
        self.is_final |= !is_start;
        self.flags.raise_if(statement.raw_dropped, flags::RAW_DROPPED);
        if is_start {
            self.raws.push(statement.raw.clone());
            self.raws.dedup();
        } else {
            self.raw_latest.clone_from(&statement.raw);
        }
        self.bound_raws();
    }

    fn splice(&mut self) {
        self.flags.raise(flags::SPLICED_MESSAGES);
        let totals = messages::totals(&self.usage, &mut self.flags);
        match &mut self.earlier {
            Some(earlier) => earlier.add(totals),
            None => self.earlier = Some(totals),
        }
        if let Some(earlier) = &mut self.earlier
            && earlier.others.len() > OTHER_MODELS_MAX
        {
            earlier.others.truncate(OTHER_MODELS_MAX);
            self.flags.raise(flags::OTHER_MODELS_CUT);
        }
        self.earlier_web_searches =
            self.earlier_web_searches.saturating_add(self.usage.fields.or_zero(Field::WebSearch));
        self.usage = Statement::default();
        self.raws.push(std::mem::take(&mut self.raw_latest));
        self.is_final = false;
        self.is_finished = false;
    }

    /// Everywhere else: the last statement that reports anything stands as a whole.
    fn restate(&mut self, document: &mut Document) {
        let closes = self.closes(document);
        self.is_closed |= closes;
        let Some(statement) = self.chosen(document) else { return };
        let disagrees = document.main.present && document.aside.present && {
            let (main, aside) = (&document.main.fields, &document.aside.fields);
            [Field::Input, Field::Output, Field::Total]
                .iter()
                .any(|&field| main.get(field) != aside.get(field))
        };
        self.flags.raise_if(disagrees && reports(&document.aside), flags::STATEMENTS_DISAGREE);
        let statement = match statement {
            Place::Main => &mut document.main,
            Place::Inner => &mut document.inner,
            Place::Aside => &mut document.aside,
        };
        if self.has_usage {
            self.flags.raise_if(falls(&self.usage, statement), flags::NON_MONOTONIC);
            self.had_output |= self.usage.fields.or_zero(Field::Output) > 0;
        }
        std::mem::swap(&mut self.usage, statement);
        self.has_usage = true;
        let is_apart = self.family == Family::Chat && document.choices == Some(0);
        self.is_final = closes || is_apart || self.is_finished;
    }

    /// Where the usage of this document stands, if it is one that may carry it.
    fn chosen(&self, document: &Document) -> Option<Place> {
        let kind = document.kind.as_slice();
        let (main, inner) = match self.family {
            Family::Responses => (kind.is_empty(), responses::is_terminal(kind)),
            Family::Interactions => (kind.is_empty(), true),
            Family::Cohere => (kind.is_empty(), kind == b"message-end"),
            Family::Converse => (matches!(kind, b"" | b"metadata"), false),
            Family::Transcriptions => (matches!(kind, b"" | b"transcript.text.done"), false),
            Family::Images => (kind.is_empty() || kind.ends_with(b".completed"), false),
            _ => (true, false),
        };
        if main && reports(&document.main) {
            Some(Place::Main)
        } else if inner && reports(&document.inner) {
            Some(Place::Inner)
        } else if self.family == Family::Chat && reports(&document.aside) {
            Some(Place::Aside)
        } else {
            None
        }
    }

    /// Whether this document is the last one its format sends before the body ends.
    fn closes(&self, document: &Document) -> bool {
        let kind = document.kind.as_slice();
        match self.family {
            Family::Chat | Family::Generate => self.is_finished,
            Family::Responses => responses::is_terminal(kind),
            Family::Interactions => matches!(kind, b"interaction.completed" | b"interaction.complete"),
            Family::Cohere => kind == b"message-end",
            Family::Converse => kind == b"metadata",
            Family::Transcriptions => kind == b"transcript.text.done",
            Family::Images => kind.ends_with(b".completed"),
            _ => false,
        }
    }

    /// Spliced starts beyond what a row may keep are dropped, the first one first.
    fn bound_raws(&mut self) {
        let length = |raws: &[Vec<u8>]| {
            raws.iter().fold(2_usize, |sum, raw| sum.saturating_add(raw.len()).saturating_add(1))
        };
        while !self.raws.is_empty()
            && length(&self.raws).saturating_add(self.raw_latest.len()) > CAPTURE_BYTES_MAX
        {
            self.raws.remove(0);
            self.flags.raise(flags::RAW_DROPPED);
        }
    }
}

enum Place {
    Main,
    Inner,
    Aside,
}

fn reports(statement: &Statement) -> bool {
    statement.is_closed && statement.fields.has_any(REPORTING)
}

/// Whether a later statement is below an earlier one, by total where both state one.
fn falls(earlier: &Statement, later: &Statement) -> bool {
    let parts = |statement: &Statement| {
        statement.fields.or_zero(Field::Input).saturating_add(statement.fields.or_zero(Field::Output))
    };
    match (earlier.fields.get(Field::Total), later.fields.get(Field::Total)) {
        (Some(earlier), Some(later)) => later < earlier,
        _ => parts(later) < parts(earlier),
    }
}
