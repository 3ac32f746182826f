//! Values nobody asked for: strings are passed over, brackets counted, words ignored.

use memchr::memchr2;

use super::{Reader, State};

impl Reader {
    pub(super) fn skip<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let mut tail = rest;
        while let Some(at) = tail.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')) {
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

/// The next quote or backslash: short strings are walked, long ones searched.
pub(super) fn quote_or_backslash(rest: &[u8]) -> Option<usize> {
    const WALK: usize = 16;
    let head = rest.get(..WALK).unwrap_or(rest);
    match head.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        Some(at) => Some(at),
        None => {
            let long = rest.get(WALK..)?;
            memchr2(b'"', b'\\', long).map(|at| at.saturating_add(WALK))
        }
    }
}

/// The bytes before index `at`, and those behind it.
pub(super) fn split_behind(rest: &[u8], at: usize) -> (&[u8], &[u8]) {
    (rest.get(..at).unwrap_or_default(), rest.get(at.saturating_add(1)..).unwrap_or_default())
}

pub(super) fn word_length(rest: &[u8]) -> usize {
    rest.iter()
        .position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'))
        .unwrap_or(rest.len())
}
