//! What one JSON document (an event's data, a frame, a whole body) says along its format's paths.
//!
//! Nothing here reaches the reading before the document is complete: a malformed one leaves no trace.

mod said;
mod sink;

use crate::fields::{Fields, Number, number};
use crate::flags::{self, Flags};
use crate::iterations::Iterations;
use crate::tree::{Field, Pairs, Source, Take};
pub use said::Said;

/// Containers told apart for code interpreter calls.
const CONTAINERS_MAX: usize = 64;

/// One usage object.
#[derive(Debug, Default, Clone)]
pub struct Statement {
    /// An object began there.
    pub present: bool,
    /// It came to its end.
    pub is_closed: bool,
    /// Its counts.
    pub fields: Fields,
    /// Anthropic's list of inferences, where the member stood there; apart, because few have one and it is large.
    pub iterations: Option<Box<Iterations>>,
    /// The object as sent; empty when too long.
    pub raw: Vec<u8>,
    /// It was too long.
    pub raw_dropped: bool,
}

impl Statement {
    fn clear(&mut self) {
        self.present = false;
        self.is_closed = false;
        self.fields.clear();
        self.iterations = None;
        self.raw.clear();
        self.raw_dropped = false;
    }
}

/// Calls of tools the upstream ran, as the Responses format lists them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ToolCalls {
    /// Web searches (not page visits).
    pub web_search: u64,
    /// File searches.
    pub file_search: u64,
    /// Code interpreter calls that name no container.
    pub code_interpreter: u64,
    /// Containers code interpreter calls ran in.
    pub containers: Vec<Vec<u8>>,
}

impl ToolCalls {
    fn clear(&mut self) {
        self.web_search = 0;
        self.file_search = 0;
        self.code_interpreter = 0;
        self.containers.clear();
    }

    /// Take the calls of one further item.
    pub fn add(&mut self, other: &Self) {
        self.web_search = self.web_search.saturating_add(other.web_search);
        self.file_search = self.file_search.saturating_add(other.file_search);
        self.code_interpreter = self.code_interpreter.saturating_add(other.code_interpreter);
        for container in &other.containers {
            self.add_container(container);
        }
    }

    /// Sessions to bill: containers, and calls that name none.
    pub fn sessions(&self) -> u64 {
        u64::try_from(self.containers.len()).unwrap_or(u64::MAX).saturating_add(self.code_interpreter)
    }

    fn add_container(&mut self, container: &[u8]) {
        if self.containers.iter().any(|known| known == container) {
            return;
        }
        if self.containers.len() < CONTAINERS_MAX {
            self.containers.push(container.to_vec());
        } else {
            self.code_interpreter = self.code_interpreter.saturating_add(1);
        }
    }
}

/// The document being read.
#[derive(Debug, Default)]
pub struct Document {
    /// Its type.
    pub kind: Vec<u8>,
    /// The response's id.
    pub id: Vec<u8>,
    /// The serving model.
    pub model: Vec<u8>,
    /// The serving tier.
    pub tier: Vec<u8>,
    /// The serving speed.
    pub speed: Vec<u8>,
    /// Where inference ran.
    pub geo: Vec<u8>,
    /// The response's status.
    pub status: Vec<u8>,
    /// Usage at the main place.
    pub main: Statement,
    /// Usage inside the carried message, response or interaction.
    pub inner: Statement,
    /// Usage at a vendor's second place.
    pub aside: Statement,
    /// Bedrock's metrics.
    pub metrics: Statement,
    /// The answer has come to its end.
    pub is_finish: bool,
    /// It is or carries an error.
    pub is_error: bool,
    /// The number of choices, where the member stood there.
    pub choices: Option<u64>,
    /// Elements of the counted list.
    pub data: u64,
    /// Tool calls listed.
    pub tools: ToolCalls,
    /// Bytes of generated text.
    pub output_bytes: u64,
    /// Bytes of generated text that repeat earlier events.
    pub repeat_bytes: u64,
    /// Oddities.
    pub flags: Flags,
    scratch: Vec<u8>,
    target: Target,
    pairs: Option<Pairs>,
    label: Vec<u8>,
    count: Option<u64>,
    item: Item,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Target {
    #[default]
    None,
    Main,
    Inner,
    Aside,
    Metrics,
    Iteration(Source),
}

#[derive(Debug, Default)]
struct Item {
    kind: Vec<u8>,
    action: Vec<u8>,
    container: Vec<u8>,
}

impl Document {
    /// Make ready for the next document.
    pub fn begin(&mut self) {
        self.names_mut().into_iter().for_each(Vec::clear);
        for text in [
            &mut self.scratch,
            &mut self.label,
            &mut self.item.kind,
            &mut self.item.action,
            &mut self.item.container,
        ] {
            text.clear();
        }
        for statement in [&mut self.main, &mut self.inner, &mut self.aside, &mut self.metrics] {
            if statement.present {
                statement.clear();
            }
        }
        self.is_finish = false;
        self.is_error = false;
        self.choices = None;
        self.data = 0;
        self.tools.clear();
        self.output_bytes = 0;
        self.repeat_bytes = 0;
        self.flags = Flags::NONE;
        self.target = Target::None;
        self.pairs = None;
        self.count = None;
    }

    /// Every name a document may state, in the order of `Said`.
    fn names_mut(&mut self) -> [&mut Vec<u8>; 7] {
        let Self { kind, id, model, tier, speed, geo, status, .. } = self;
        [kind, id, model, tier, speed, geo, status]
    }

    fn statement(&mut self, target: Target) -> Option<&mut Statement> {
        match target {
            Target::None => None,
            Target::Main | Target::Iteration(Source::Main) => Some(&mut self.main),
            Target::Inner | Target::Iteration(Source::Inner) => Some(&mut self.inner),
            Target::Aside | Target::Iteration(Source::Aside) => Some(&mut self.aside),
            Target::Metrics => Some(&mut self.metrics),
        }
    }

    fn iterations(&mut self, source: Source) -> Option<&mut Iterations> {
        self.statement(Target::Iteration(source))?.iterations.as_deref_mut()
    }

    fn set(&mut self, field: Field, value: u64) {
        let target = self.target;
        if let Some(statement) = self.statement(target) {
            match (target, &mut statement.iterations) {
                (Target::Iteration(_), Some(iterations)) => iterations.entry.set(field, value),
                (Target::Iteration(_), None) => {}
                _ => statement.fields.set(field, value),
            }
        }
    }

    /// A count on the wire: what cannot be one is not reported, and said.
    fn read_count(&mut self, token: &[u8], cut: bool) -> Option<u64> {
        match number(token, cut) {
            Number::Exact(value) => return Some(value),
            Number::RoundedUp(value) => {
                self.flags.raise(flags::NUMBER_FRACTION);
                return Some(value);
            }
            Number::Huge => {
                self.flags.raise(flags::NUMBER_HUGE);
                return Some(u64::MAX);
            }
            Number::Negative => self.flags.raise(flags::NUMBER_NEGATIVE),
            Number::NotFinite => self.flags.raise(flags::NUMBER_NOT_FINITE),
            Number::Nothing => {}
        }
        None
    }

    fn take_count(&mut self, take: Take, token: &[u8], cut: bool) {
        match take {
            Take::Count(field) => {
                if let Some(value) = self.read_count(token, cut) {
                    self.set(field, value);
                }
            }
            Take::Number => self.count = self.read_count(token, cut),
            _ => {}
        }
    }

    fn take_pair(&mut self) {
        let (Some(pairs), Some(count)) = (self.pairs, self.count.take()) else { return };
        let field = match (pairs, self.label.to_ascii_lowercase().as_slice()) {
            (Pairs::Prompt, b"audio") => Field::AudioInput,
            (Pairs::Prompt, b"image") => Field::ImageInput,
            (Pairs::Output, b"audio") => Field::AudioOutput,
            (Pairs::Output, b"image") => Field::ImageOutput,
            (Pairs::Cached, b"audio") => Field::AudioCached,
            (Pairs::Cached, b"image") => Field::ImageCached,
            (Pairs::Writes, b"5m") => Field::Write5m,
            (Pairs::Writes, b"1h") => Field::Write1h,
            _ => return,
        };
        let target = self.target;
        if let Some(statement) = self.statement(target) {
            statement.fields.add(field, count);
        }
    }

    fn take_item(&mut self) {
        match self.item.kind.as_slice() {
            b"web_search_call" if matches!(self.item.action.as_slice(), b"" | b"search") => {
                self.tools.web_search = self.tools.web_search.saturating_add(1);
            }
            b"file_search_call" => self.tools.file_search = self.tools.file_search.saturating_add(1),
            b"code_interpreter_call" if self.item.container.is_empty() => {
                self.tools.code_interpreter = self.tools.code_interpreter.saturating_add(1);
            }
            b"code_interpreter_call" => self.tools.add_container(&self.item.container),
            _ => {}
        }
    }

    fn begin_usage(&mut self, target: Target) {
        let is_again = match self.statement(target) {
            Some(statement) => {
                let again = statement.present && target != Target::Aside;
                statement.clear();
                statement.present = true;
                again
            }
            None => false,
        };
        self.flags.raise_if(is_again, flags::DUPLICATE_KEYS);
        self.target = target;
    }

    fn source(&self) -> Source {
        match self.target {
            Target::Inner | Target::Iteration(Source::Inner) => Source::Inner,
            Target::Aside | Target::Iteration(Source::Aside) => Source::Aside,
            _ => Source::Main,
        }
    }

    fn text_slot(&mut self, take: Take) -> Option<&mut Vec<u8>> {
        Some(match take {
            Take::Kind => &mut self.kind,
            Take::Id => &mut self.id,
            Take::Model => &mut self.model,
            Take::Tier => &mut self.tier,
            Take::Speed => &mut self.speed,
            Take::Geo => &mut self.geo,
            Take::Status => &mut self.status,
            Take::Label => &mut self.label,
            Take::ItemKind => &mut self.item.kind,
            Take::ItemAction => &mut self.item.action,
            Take::ItemContainer => &mut self.item.container,
            _ => return None,
        })
    }
}
