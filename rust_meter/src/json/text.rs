//! Strings along the tree's paths: keys are matched, values handed on with their escapes resolved.

use super::skip::{quote_or_backslash, split_behind};
use super::{Escape, Reader, Sink, State};
use crate::marks::{BLOCK_BYTES, block_of, first, from, marks};
use crate::tree::Node;

impl Reader {
    /// Inside a key: the usual key is matched where it stands, any other from the buffer.
    pub(super) fn key_text<'a, S: Sink>(&mut self, rest: &'a [u8], sink: &mut S) -> &'a [u8] {
        if self.escape != Escape::None {
            return self.unescape(rest, |reader, piece| reader.keep_word(piece));
        }
        let Some(at) = quote_or_backslash(rest) else {
            self.keep_word(rest);
            return &[];
        };
        let (piece, tail) = split_behind(rest, at);
        if rest.get(at) == Some(&b'\\') {
            self.keep_word(piece);
            self.escape = Escape::Backslash;
            return tail;
        }
        if self.word.is_empty() && !self.word_cut {
            self.match_key(piece, sink);
        } else {
            self.keep_word(piece);
            let word = std::mem::take(&mut self.word);
            self.match_key(if self.word_cut { &[] } else { &word }, sink);
            self.word = word;
        }
        self.state = State::Colon;
        tail
    }

    pub(super) fn match_key<S: Sink>(&mut self, key: &[u8], sink: &mut S) {
        self.node = None;
        let Some(frame) = self.stack.last_mut() else { return };
        let Some(index) = frame.node.index_of(key) else { return };
        let bit = 1_u64.wrapping_shl(u32::try_from(index).unwrap_or(63));
        if frame.seen & bit != 0 {
            sink.duplicate();
        }
        frame.seen |= bit;
        self.node = frame.node.keys.get(index).map(|(_, node)| node);
    }

    pub(super) fn text<'a, S: Sink>(&mut self, rest: &'a [u8], sink: &mut S) -> &'a [u8] {
        let Some(node) = self.node else {
            self.state = State::SkipText;
            return rest;
        };
        if self.escape != Escape::None {
            return self.unescape(rest, |_, piece| sink.text(node, piece));
        }
        if sink.measures(node) {
            return self.measure(node, rest, sink);
        }
        let Some(at) = quote_or_backslash(rest) else {
            sink.text(node, rest);
            return &[];
        };
        let (piece, tail) = split_behind(rest, at);
        if !piece.is_empty() {
            sink.text(node, piece);
        }
        if rest.get(at) == Some(&b'\\') {
            self.escape = Escape::Backslash;
        } else {
            sink.text_end(node);
            self.after();
        }
        tail
    }

    /// The same for a string of which only the length matters: escapes that stand whole in this piece are
    /// counted in passing.
    fn measure<'a, S: Sink>(&mut self, node: &'static Node, rest: &'a [u8], sink: &mut S) -> &'a [u8] {
        let mut at = quote_or_backslash(rest).unwrap_or(rest.len());
        if rest.get(at) == Some(&b'"') {
            return self.measured_end(node, at, split_behind(rest, at).1, sink);
        }
        // What escapes take beyond the bytes they stand for.
        let mut surplus = 0_usize;
        while let Some(ahead) = rest.get(at..).filter(|ahead| !ahead.is_empty()) {
            let mut stops = marks(&block_of(ahead, 0), |byte| matches!(byte, b'"' | b'\\'));
            let mut covered = ahead.len().min(BLOCK_BYTES);
            while stops != 0 {
                let stop = first(stops);
                let (_, behind) = split_behind(ahead, stop);
                let bytes = at.saturating_add(stop).saturating_sub(surplus);
                if ahead.get(stop) == Some(&b'"') {
                    return self.measured_end(node, bytes, behind, sink);
                }
                let Some((stands_for, length)) = self.whole_escape(behind) else {
                    sink.measured(node, bytes);
                    self.escape = Escape::Backslash;
                    return behind;
                };
                surplus = surplus.saturating_add(length.saturating_sub(stands_for));
                let end = stop.saturating_add(length);
                covered = covered.max(end);
                stops = from(stops, end);
            }
            at = at.saturating_add(covered);
        }
        sink.measured(node, rest.len().saturating_sub(surplus));
        &[]
    }

    fn measured_end<'a, S: Sink>(
        &mut self,
        node: &'static Node,
        bytes: usize,
        behind: &'a [u8],
        sink: &mut S,
    ) -> &'a [u8] {
        sink.measured(node, bytes);
        sink.text_end(node);
        self.after();
        behind
    }

    /// How many bytes an escape stands for and how long it is with its backslash; `None` where it does not stand
    /// whole in `behind` the backslash, or is none.
    #[inline]
    fn whole_escape(&mut self, behind: &[u8]) -> Option<(usize, usize)> {
        match behind.first()? {
            b'n' | b'"' | b'\\' | b't' | b'r' | b'/' | b'b' | b'f' => {
                self.high_surrogate = 0;
                Some((1, 2))
            }
            b'u' => {
                let value = behind.get(1..5)?.iter().try_fold(0_u32, |value, digit| {
                    Some(value.wrapping_shl(4) | char::from(*digit).to_digit(16)?)
                })?;
                Some((self.pair_up(value).map_or(0, char::len_utf8), 6))
            }
            _ => None,
        }
    }

    /// One byte of an escape; a complete escape is handed on as UTF-8 (a lone surrogate as U+FFFD).
    fn unescape<'a>(&mut self, rest: &'a [u8], mut give: impl FnMut(&mut Self, &[u8])) -> &'a [u8] {
        let Some((&byte, tail)) = rest.split_first() else { return rest };
        match self.escape {
            Escape::Unicode { digits, value } => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    self.state = State::Bad;
                    return tail;
                };
                let value = value.wrapping_shl(4) | digit;
                if digits < 3 {
                    self.escape = Escape::Unicode { digits: digits.saturating_add(1), value };
                    return tail;
                }
                self.escape = Escape::None;
                if let Some(character) = self.pair_up(value) {
                    let mut utf8 = [0; 4];
                    give(self, character.encode_utf8(&mut utf8).as_bytes());
                }
            }
            _ => match byte {
                b'u' => self.escape = Escape::Unicode { digits: 0, value: 0 },
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                    self.escape = Escape::None;
                    self.high_surrogate = 0;
                    give(self, &[unescaped(byte)]);
                }
                _ => self.state = State::Bad,
            },
        }
        tail
    }

    /// Join the halves of a surrogate pair; `None` while the first half waits for the second.
    fn pair_up(&mut self, value: u32) -> Option<char> {
        let high = std::mem::take(&mut self.high_surrogate);
        match value {
            0xD800..=0xDBFF => {
                self.high_surrogate = value;
                None
            }
            0xDC00..=0xDFFF if high != 0 => {
                let joined = (high & 0x3FF).wrapping_shl(10) | (value & 0x3FF);
                Some(char::from_u32(joined.wrapping_add(0x1_0000)).unwrap_or(char::REPLACEMENT_CHARACTER))
            }
            _ => Some(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        other => other,
    }
}
