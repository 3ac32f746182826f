//! What a run of journal frames says of the exchanges that begin, go on and end in it.
//!
//! The reference is `_Fold.add` of `farebox/journal/recovery.py`, frame by frame; a property test holds both
//! equal. Frames that are not about an exchange (prices) or name none are not for this file.

use std::collections::{HashMap, VecDeque};

use crate::journal::{Frame, OPEN, OPEN_SENT, PROGRESS, Run, SENT};

/// An exchange that has not ended: where it began, and the last payload of each kind.
#[derive(Debug)]
pub struct Began<'a> {
    /// The position of its first record here.
    pub pos: u64,
    /// Kinds and payloads.
    pub payloads: Vec<(u8, &'a [u8])>,
}

/// A run of frames, folded to what is still of interest.
#[derive(Debug)]
pub struct Folded<'a> {
    opens: HashMap<&'a [u8], Began<'a>>,
    /// What was said here of exchanges that began elsewhere.
    pub continued: Vec<(&'a [u8], u8, &'a [u8])>,
    /// Exchanges that ended here and the frames that ended them, in order; where they began is not told.
    pub ends: Vec<(&'a [u8], Frame<'a>)>,
    /// Frames behind the last position known synced.
    pub unsynced: VecDeque<Frame<'a>>,
    /// Where the frames end.
    pub run: Run<'a>,
}

/// Folds the frames of a run up to one that is not about an exchange. Those up to `given_pos` were folded
/// before, from the segment where they stood first; everything up to `synced_pos` is known synced.
pub fn fold(mut run: Run<'_>, given_pos: u64, synced_pos: u64) -> Folded<'_> {
    run.synced_pos = run.synced_pos.max(synced_pos);
    let mut folded = Folded {
        opens: HashMap::new(),
        continued: Vec::new(),
        ends: Vec::new(),
        unsynced: VecDeque::new(),
        run,
    };
    while let Some(frame) = run.next() {
        let is_known = frame.is_end() || frame.is_beginning() || matches!(frame.kind, SENT | PROGRESS);
        let Some(exchange) = frame.exchange().filter(|_| is_known) else { break };
        if frame.pos > given_pos {
            folded.add(frame, exchange);
        }
        while folded.unsynced.front().is_some_and(|first| first.pos <= run.synced_pos) {
            folded.unsynced.pop_front();
        }
        folded.run = run;
    }
    folded
}

impl<'a> Folded<'a> {
    /// Exchanges that began here and did not end, in the order of their beginnings.
    pub fn opens(&self) -> Vec<(&'a [u8], &Began<'a>)> {
        let mut opens: Vec<_> = self.opens.iter().map(|(exchange, began)| (*exchange, began)).collect();
        opens.sort_unstable_by_key(|(_, began)| began.pos);
        opens
    }

    fn add(&mut self, frame: Frame<'a>, exchange: &'a [u8]) {
        self.unsynced.push_back(frame);
        if frame.is_end() {
            self.opens.remove(exchange);
            self.ends.push((exchange, frame));
        } else if frame.is_beginning() {
            let began = self.opens.entry(exchange).or_insert(Began { pos: frame.pos, payloads: Vec::new() });
            began.note(OPEN, frame.payload);
            if frame.kind == OPEN_SENT {
                began.note(SENT, b"");
            }
        } else if let Some(began) = self.opens.get_mut(exchange) {
            began.note(frame.kind, frame.payload);
        } else {
            self.continued.push((exchange, frame.kind, frame.payload));
        }
    }
}

impl<'a> Began<'a> {
    fn note(&mut self, kind: u8, payload: &'a [u8]) {
        self.payloads.retain(|(known, _)| *known != kind);
        self.payloads.push((kind, payload));
    }
}
