//! Values nobody asked for: strings are passed over, brackets counted, words ignored.

use memchr::memchr2;

use super::{Reader, State};
use crate::marks::{BLOCK_BYTES, marks};

impl Reader {
    pub(super) fn skip<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let mut tail = rest;
        while let Some(at) = quote_or_bracket(tail) {
            let byte = tail.get(at).copied().unwrap_or_default();
            (_, tail) = split_behind(tail, at);
            match byte {
                b'"' => match after_text(tail) {
                    Some(behind) => tail = behind,
                    None => return self.enter_skipped_text(tail),
                },
                b'{' | b'[' => self.skip_depth = self.skip_depth.saturating_add(1),
                _ => {
                    self.skip_depth = self.skip_depth.saturating_sub(1);
                    if self.skip_depth == 0 {
                        self.after();
                        return tail;
                    }
                }
            }
        }
        &[]
    }

    fn enter_skipped_text<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        self.skip_escaped = false;
        self.state = State::SkipText;
        rest
    }

    pub(super) fn skip_text<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let mut tail = rest;
        if self.skip_escaped {
            self.skip_escaped = false;
            (_, tail) = split_behind(tail, 0);
        }
        loop {
            let Some(at) = quote_or_backslash(tail) else { return &[] };
            let is_escape = tail.get(at) == Some(&b'\\');
            (_, tail) = split_behind(tail, at);
            if !is_escape {
                if self.skip_depth > 0 {
                    self.state = State::Skip;
                } else {
                    self.after();
                }
                return tail;
            }
            if tail.is_empty() {
                self.skip_escaped = true;
                return &[];
            }
            (_, tail) = split_behind(tail, 0);
        }
    }

    pub(super) fn skip_word<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let tail = rest.get(word_length(rest)..).unwrap_or_default();
        if !tail.is_empty() {
            self.after();
        }
        tail
    }
}

/// Where a skipped string ends, if it ends in this piece.
fn after_text(rest: &[u8]) -> Option<&[u8]> {
    let mut tail = rest;
    loop {
        let at = quote_or_backslash(tail)?;
        let is_escape = tail.get(at) == Some(&b'\\');
        tail = tail.get(at.saturating_add(1)..)?;
        if !is_escape {
            return Some(tail);
        }
        tail = tail.get(1..)?;
    }
}

/// The next quote or backslash: near ones are looked for eight bytes at a time, far ones by a search.
pub(super) fn quote_or_backslash(rest: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    for eight in rest.as_chunks().0.iter().take(2) {
        let word = u64::from_le_bytes(*eight);
        let found = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        if found != 0 {
            let within = usize::try_from(found.trailing_zeros() / 8).unwrap_or(0);
            return Some(at.saturating_add(within));
        }
        at = at.saturating_add(8);
    }
    let far = rest.get(at..)?;
    let found = if far.len() < 8 {
        far.iter().position(|byte| matches!(byte, b'"' | b'\\'))
    } else {
        memchr2(b'"', b'\\', far)
    };
    found.map(|found| found.saturating_add(at))
}

/// Eight times the same byte.
const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The highest bit of every byte that is zero. Bits above the lowest one may be wrong, that one is right.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(0x01)) & !word & repeated(0x80)
}

/// The next quote or bracket.
fn quote_or_bracket(rest: &[u8]) -> Option<usize> {
    const NEAR: usize = 16;
    let is_sought = |byte| (byte == b'"') | (byte == b'{') | (byte == b'}') | (byte == b'[') | (byte == b']');
    let position = |bytes: &[u8]| bytes.iter().position(|byte| is_sought(*byte));
    if let Some(at) = position(rest.get(..NEAR).unwrap_or(rest)) {
        return Some(at);
    }
    let (blocks, _) = rest.get(NEAR..)?.as_chunks();
    let clean = blocks.iter().take_while(|block| marks(block, is_sought) == 0).count();
    let behind = clean.saturating_mul(BLOCK_BYTES).saturating_add(NEAR);
    position(rest.get(behind..)?).map(|at| at.saturating_add(behind))
}

/// The bytes before index `at`, and those behind it.
pub(super) fn split_behind(rest: &[u8], at: usize) -> (&[u8], &[u8]) {
    (rest.get(..at).unwrap_or_default(), rest.get(at.saturating_add(1)..).unwrap_or_default())
}

/// How long the number or bare word is that `rest` begins with.
pub(super) fn word_length(rest: &[u8]) -> usize {
    rest.iter().position(|byte| !is_of_word(*byte)).unwrap_or(rest.len())
}

fn is_of_word(byte: u8) -> bool {
    const IS_OF_WORD: [bool; 256] = {
        let mut table = [false; 256];
        let mut rest: &mut [bool] = &mut table;
        let mut byte = 0_u8;
        while let [slot, others @ ..] = rest {
            *slot = matches!(byte, b'-' | b'+' | b'.' | b'_') || byte.is_ascii_alphanumeric();
            byte = byte.wrapping_add(1);
            rest = others;
        }
        table
    };
    IS_OF_WORD.get(usize::from(byte)).copied().unwrap_or(false)
}
