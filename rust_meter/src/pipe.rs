//! One response body on its way through: transfer decoding, metering, removal of the injected usage event,
//! and re-framing for the client. The bytes are the upstream's; only that one event is ever taken out.

use std::ops::Range;

use crate::formats::Format;
use crate::inflate::Inflate;
use crate::normal::CacheSemantics;
use crate::reading::Reading;
use crate::transfer::{Outcome, Transfer};
use crate::usage::{Cut, Meter};

/// `held` begins with the terminal event.
pub const TERMINAL: u8 = 1;
/// The body is complete.
pub const END: u8 = 2;
/// The connection stands at a message boundary.
pub const REUSABLE: u8 = 4;
/// The body is cut or its framing invalid.
pub const BROKEN: u8 = 8;
/// A limit of the meter was crossed.
pub const OVERSIZE: u8 = 16;

/// An injected usage event is never longer; a longer event is not withheld.
const WITHHELD_BYTES_MAX: usize = 64 * 1024;

/// How a body is to be piped.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Wire format; empty meters nothing.
    pub wire_format: &'a str,
    /// CHUNKED, UNTIL_CLOSE or a length.
    pub framing: i64,
    /// Outputs are chunk-framed.
    pub chunked_out: bool,
    /// Remove the injected usage event.
    pub strip_usage: bool,
    /// The body's content encoding.
    pub content_encoding: &'a str,
    /// Whether prompt counts include the cache.
    pub cache_semantics: CacheSemantics,
    /// Limit on decompressed bytes.
    pub inflated_bytes_max: u64,
    /// Limit on one event while usage is to be removed.
    pub event_bytes_max: u64,
}

/// Why a pipe cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionError {
    /// The wire format has no meter.
    WireFormat,
    /// The framing is no length.
    Framing,
    /// The content encoding cannot be metered.
    ContentEncoding,
}

/// What a feed gives back.
#[derive(Debug, PartialEq, Eq)]
pub enum Fed<'a> {
    /// The input may be sent as it is.
    Same,
    /// Send these.
    Bytes(&'a [u8]),
    /// Send `now`, do what `state` asks for, then send `held`.
    Split {
        /// To be sent at once.
        now: &'a [u8],
        /// To be sent after what `state` asks for.
        held: &'a [u8],
        /// State bits.
        state: u8,
    },
}

#[derive(Debug)]
enum Metering {
    None,
    Plain(Box<Meter>),
    Encoded(Box<Inflate>),
}

/// The pipe of one body.
#[derive(Debug)]
pub struct Pipe {
    transfer: Transfer,
    metering: Metering,
    chunked_out: bool,
    strips: bool,
    event_bytes_max: u64,
    over: Option<u8>,
    terminal_told: bool,
    fed: u64,
    sent: u64,
    withheld: Vec<u8>,
    found: Vec<Range<usize>>,
    now: Vec<u8>,
    held: Vec<u8>,
}

impl Pipe {
    /// A pipe for one body.
    ///
    /// # Errors
    /// When an option names something unknown.
    pub fn new(options: &Options<'_>) -> Result<Self, OptionError> {
        let transfer = Transfer::new(options.framing).ok_or(OptionError::Framing)?;
        let encoding = options.content_encoding.trim().to_ascii_lowercase();
        let is_plain = matches!(encoding.as_str(), "" | "identity");
        let strips = options.strip_usage && is_plain;
        let metering = if options.wire_format.is_empty() {
            Metering::None
        } else {
            let format = Format::named(options.wire_format).ok_or(OptionError::WireFormat)?;
            let meter = Meter::new(format, options.cache_semantics, strips);
            if is_plain {
                Metering::Plain(Box::new(meter))
            } else {
                let inflate = Inflate::new(&encoding, meter, options.inflated_bytes_max);
                Metering::Encoded(Box::new(inflate.ok_or(OptionError::ContentEncoding)?))
            }
        };
        Ok(Self {
            transfer,
            strips: matches!(&metering, Metering::Plain(meter) if meter.strips()),
            metering,
            chunked_out: options.chunked_out,
            event_bytes_max: options.event_bytes_max,
            over: None,
            terminal_told: false,
            fed: 0,
            sent: 0,
            withheld: Vec::new(),
            found: Vec::new(),
            now: Vec::new(),
            held: Vec::new(),
        })
    }

    /// Take bytes from the upstream's socket.
    pub fn feed<'a>(&'a mut self, data: &'a [u8]) -> Fed<'a> {
        if let Some(state) = self.over {
            return Fed::Split { now: &[], held: &[], state };
        }
        self.found.clear();
        let outcome = self.transfer.decode(data, &mut self.found);
        let start = self.fed;
        self.meter(data);
        if outcome.ended || outcome.broken {
            self.meter_finish(outcome.ended);
        }
        let mut state = self.state_of(outcome);
        let split = match self.take_terminal(start) {
            Some(at) => {
                state |= TERMINAL;
                at
            }
            None if outcome.ended => start.min(self.fed),
            None => u64::MAX,
        };
        state |= self.overflow();
        self.close(state);
        self.emit(data, start, split, state, outcome)
    }

    /// The upstream closed.
    pub fn finish(&mut self) -> Fed<'_> {
        if let Some(state) = self.over {
            return Fed::Split { now: &[], held: &[], state };
        }
        let ended = matches!(self.transfer, Transfer::UntilClose | Transfer::Length(0));
        self.found.clear();
        let start = self.fed;
        self.meter_finish(ended);
        let mut state = if ended { END } else { BROKEN };
        self.close(state);
        let split = if ended { self.sent } else { u64::MAX };
        if self.take_terminal(start).is_some() {
            state |= TERMINAL;
        }
        self.emit(&[], start, split, state, Outcome::default())
    }

    /// Bytes of generated text so far.
    pub fn output_bytes(&self) -> u64 {
        self.plain().map_or(0, |meter| meter.answer.output_bytes)
    }

    /// The usage as known now.
    pub fn reading(&self) -> Reading {
        self.plain().map(|meter| meter.answer.reading()).unwrap_or_default()
    }

    /// After the end every call says the same, but that the connection is no longer reusable.
    fn close(&mut self, state: u8) {
        if state & (END | BROKEN) != 0 {
            self.over = Some(state & (END | BROKEN | OVERSIZE));
        }
    }

    fn plain(&self) -> Option<&Meter> {
        match &self.metering {
            Metering::None => None,
            Metering::Plain(meter) => Some(meter),
            Metering::Encoded(inflate) => inflate.bounded().map(|bounded| &bounded.meter),
        }
    }

    fn plain_mut(&mut self) -> Option<&mut Meter> {
        match &mut self.metering {
            Metering::None => None,
            Metering::Plain(meter) => Some(meter),
            Metering::Encoded(inflate) => inflate.bounded_mut().map(|bounded| &mut bounded.meter),
        }
    }

    fn meter(&mut self, data: &[u8]) {
        for range in &self.found {
            let piece = data.get(range.clone()).unwrap_or_default();
            self.fed = self.fed.saturating_add(length(piece));
            match &mut self.metering {
                Metering::None => {}
                Metering::Plain(meter) => meter.feed(piece),
                Metering::Encoded(inflate) => inflate.feed(piece),
            }
        }
    }

    fn meter_finish(&mut self, is_clean: bool) {
        if let Some(meter) = self.plain_mut() {
            meter.finish(is_clean);
        }
    }

    fn state_of(&self, outcome: Outcome) -> u8 {
        let mut state = 0;
        if outcome.ended {
            state |= END;
            if !outcome.extra {
                state |= REUSABLE;
            }
        }
        if outcome.broken {
            state |= BROKEN;
        }
        if let Metering::Encoded(inflate) = &self.metering
            && inflate.bounded().is_some_and(|bounded| bounded.is_over)
        {
            state = (state | BROKEN | OVERSIZE) & !(END | REUSABLE);
        }
        state
    }

    /// Where in this feed's bytes the terminal event begins; told once.
    fn take_terminal(&mut self, start: u64) -> Option<u64> {
        let is_plain = matches!(self.metering, Metering::Plain(_));
        let at = self.plain_mut()?.take_terminal()?;
        if std::mem::replace(&mut self.terminal_told, true) {
            return None;
        }
        Some(if is_plain { at } else { start })
    }

    /// An event that grows beyond what ours can be passes on; beyond the limit it breaks the body.
    fn overflow(&mut self) -> u8 {
        if !self.strips {
            return 0;
        }
        let event_bytes_max = self.event_bytes_max;
        let Metering::Plain(meter) = &mut self.metering else { return 0 };
        let open = meter.position().saturating_sub(meter.decided());
        if open > u64::try_from(WITHHELD_BYTES_MAX).unwrap_or(u64::MAX) {
            meter.keep_event();
        }
        if meter.event_bytes() > event_bytes_max { BROKEN | OVERSIZE } else { 0 }
    }

    /// Give out what is decided: everything, less an undecided event and the events to remove.
    fn emit<'a>(
        &'a mut self,
        data: &'a [u8],
        start: u64,
        split: u64,
        state: u8,
        outcome: Outcome,
    ) -> Fed<'a> {
        let is_last = state & (END | BROKEN) != 0;
        let (decided, cuts) = match &mut self.metering {
            Metering::Plain(meter) if self.strips => {
                let decided = if is_last { self.fed } else { meter.decided() };
                (decided, std::mem::take(&mut meter.cuts))
            }
            _ => (self.fed, Vec::new()),
        };
        let passes = self.withheld.is_empty() && cuts.is_empty() && decided == self.fed;
        if passes && state == 0 && self.passes_whole(data, outcome) {
            self.sent = self.fed;
            return Fed::Same;
        }
        if passes && !self.chunked_out && self.found.len() <= 1 {
            return self.emit_slices(data, start, split, state);
        }
        self.emit_copies(data, split, decided, &cuts);
        if self.chunked_out {
            frame_chunk(&mut self.now);
            frame_chunk(&mut self.held);
        }
        if state == 0 {
            return Fed::Bytes(&self.now);
        }
        Fed::Split { now: &self.now, held: &self.held, state }
    }

    fn passes_whole(&self, data: &[u8], outcome: Outcome) -> bool {
        if self.chunked_out {
            return outcome.whole_chunks;
        }
        matches!(self.found.as_slice(), [one] if one.start == 0 && one.end == data.len())
    }

    /// The body's bytes of this feed lie together: give slices of the input.
    fn emit_slices<'a>(&'a mut self, data: &'a [u8], start: u64, split: u64, state: u8) -> Fed<'a> {
        let piece = self.found.first().and_then(|range| data.get(range.clone())).unwrap_or_default();
        self.sent = self.fed;
        if state == 0 {
            return Fed::Bytes(piece);
        }
        let at = usize::try_from(split.saturating_sub(start)).unwrap_or(usize::MAX).min(piece.len());
        let (now, held) = piece.split_at_checked(at).unwrap_or((piece, &[]));
        Fed::Split { now, held, state }
    }

    /// Copy body offsets `sent..decided`, from the withheld bytes and this feed's, around the cuts.
    fn emit_copies(&mut self, data: &[u8], split: u64, decided: u64, mut cuts: &[Cut]) {
        self.now.clear();
        self.held.clear();
        if decided <= self.sent && cuts.is_empty() {
            for range in &self.found {
                self.withheld.extend_from_slice(data.get(range.clone()).unwrap_or_default());
            }
            return;
        }
        let withheld = std::mem::take(&mut self.withheld);
        let pieces = self.found.iter().map(|range| data.get(range.clone()).unwrap_or_default());
        let mut at = self.sent;
        let mut left = Vec::new();
        for piece in std::iter::once(withheld.as_slice()).chain(pieces) {
            let end = at.saturating_add(length(piece));
            let mut from = at;
            while let Some((_, later)) = cuts.split_first().filter(|(cut, _)| cut.to <= at) {
                cuts = later;
            }
            for cut in cuts.iter().take_while(|cut| cut.from < end) {
                copy(piece, at, from..cut.from.min(decided), split, &mut self.now, &mut self.held);
                from = from.max(cut.to);
            }
            copy(piece, at, from..end.min(decided), split, &mut self.now, &mut self.held);
            left.extend_from_slice(part(piece, at, decided.max(at)..end));
            at = end;
        }
        self.withheld = left;
        self.sent = decided;
    }
}

/// Copy the part of `piece` (which stands at offset `at`) that lies in `range`, before and behind `split`.
fn copy(piece: &[u8], at: u64, range: Range<u64>, split: u64, now: &mut Vec<u8>, held: &mut Vec<u8>) {
    now.extend_from_slice(part(piece, at, range.start..range.end.min(split)));
    held.extend_from_slice(part(piece, at, range.start.max(split)..range.end));
}

fn part(piece: &[u8], at: u64, range: Range<u64>) -> &[u8] {
    let from = usize::try_from(range.start.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
    let to = usize::try_from(range.end.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
    piece.get(from..to).unwrap_or_default()
}

fn length(piece: &[u8]) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

/// Make `bytes` one chunk; nothing stays nothing (an empty chunk would end the body).
fn frame_chunk(bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let head = format!("{:x}\r\n", bytes.len());
    bytes.splice(0..0, head.into_bytes());
    bytes.extend_from_slice(b"\r\n");
}
