//! The counts of one usage object, and how a number on the wire becomes a count.

use crate::tree::Field;

/// Counts by field; a field is reported or it is not (null, absent and unreadable are not zero).
#[derive(Debug, Clone)]
pub struct Fields {
    values: [u64; 40],
    reported: u64,
}

impl Default for Fields {
    fn default() -> Self {
        Self { values: [0; 40], reported: 0 }
    }
}

impl Fields {
    /// Nothing is reported any more.
    pub fn clear(&mut self) {
        self.reported = 0;
    }

    /// The count, where it was reported.
    pub fn get(&self, field: Field) -> Option<u64> {
        let value = self.values.get(field as usize).copied()?;
        (self.reported & field.bit() != 0).then_some(value)
    }

    /// The count, zero where it was not reported.
    pub fn or_zero(&self, field: Field) -> u64 {
        self.get(field).unwrap_or(0)
    }

    /// State a count.
    pub fn set(&mut self, field: Field, value: u64) {
        if let Some(slot) = self.values.get_mut(field as usize) {
            *slot = value;
            self.reported |= field.bit();
        }
    }

    /// Add to a count, saturating.
    pub fn add(&mut self, field: Field, value: u64) {
        self.set(field, self.or_zero(field).saturating_add(value));
    }

    /// Whether any field of the set (bits) is reported.
    pub fn has_any(&self, bits: u64) -> bool {
        self.reported & bits != 0
    }

    /// Overwrite with every field the other reports.
    pub fn overlay(&mut self, other: &Self, each: &[Field]) {
        for &field in each {
            if let Some(value) = other.get(field) {
                self.set(field, value);
            }
        }
    }

    /// The greatest of several names of one number; `None` when none is reported.
    pub fn greatest(&self, aliases: &[Field]) -> Option<u64> {
        aliases.iter().filter_map(|&alias| self.get(alias)).max()
    }

    /// Whether two names of one number are both above zero and differ.
    pub fn disagree(&self, aliases: &[Field]) -> bool {
        let mut above = aliases.iter().filter_map(|&alias| self.get(alias)).filter(|&value| value > 0);
        above.next().is_some_and(|first| above.any(|other| other != first))
    }
}

/// What a number token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// An exact non-negative integer.
    Exact(u64),
    /// A fraction, rounded up.
    RoundedUp(u64),
    /// Below zero: gateways mean "unknown".
    Negative,
    /// Above what a count can be.
    Huge,
    /// `NaN`, `Infinity` or another word.
    NotFinite,
    /// null, true, false or junk: nothing reported.
    Nothing,
}

/// Read a JSON number (or bare word) as a count; exact, without floats.
pub fn number(token: &[u8], cut: bool) -> Number {
    if cut {
        return if token.iter().all(u8::is_ascii_digit) { Number::Huge } else { Number::NotFinite };
    }
    let (negative, unsigned) = match token.split_first() {
        Some((b'-', tail)) => (true, tail),
        _ => (false, token),
    };
    if unsigned.iter().any(u8::is_ascii_alphabetic) && !unsigned.first().is_some_and(u8::is_ascii_digit) {
        let known = matches!(unsigned, b"null" | b"true" | b"false");
        return if known { Number::Nothing } else { Number::NotFinite };
    }
    match (decimal(unsigned), negative) {
        (Some(Number::Exact(0)), true) => Number::Exact(0),
        (Some(_), true) => Number::Negative,
        (Some(value), false) => value,
        (None, _) => Number::Nothing,
    }
}

/// `digits[.digits][e[+-]digits]` as a count.
fn decimal(token: &[u8]) -> Option<Number> {
    let (mantissa, exponent) = match token.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (token.get(..at)?, exponent(token.get(at.checked_add(1)?..)?)?),
        None => (token, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        Some(at) => (mantissa.get(..at)?, mantissa.get(at.checked_add(1)?..)?),
        None => (mantissa, &[][..]),
    };
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    Some(round_up(whole.iter().chain(fraction), point))
}

/// The value of digits whose decimal point stands behind the first `point` of them.
fn round_up<'a>(digits: impl Iterator<Item = &'a u8>, point: i64) -> Number {
    let mut value = 0_u64;
    let mut position = 0_i64;
    let mut has_fraction = false;
    for digit in digits {
        let digit = u64::from(digit.wrapping_sub(b'0'));
        if position < point {
            match value.checked_mul(10).and_then(|tens| tens.checked_add(digit)) {
                Some(next) => value = next,
                None => return Number::Huge,
            }
        } else if digit > 0 {
            has_fraction = true;
        }
        position = position.saturating_add(1);
    }
    while position < point && value > 0 {
        match value.checked_mul(10) {
            Some(next) => value = next,
            None => return Number::Huge,
        }
        position = position.saturating_add(1);
    }
    if has_fraction { Number::RoundedUp(value.saturating_add(1)) } else { Number::Exact(value) }
}

fn exponent(digits: &[u8]) -> Option<i64> {
    let (negative, unsigned) = match digits.split_first() {
        Some((b'-', tail)) => (true, tail),
        Some((b'+', tail)) => (false, tail),
        _ => (false, digits),
    };
    if unsigned.is_empty() || !unsigned.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = unsigned.iter().fold(0_i64, |value, digit| {
        value.saturating_mul(10).saturating_add(i64::from(digit.wrapping_sub(b'0'))).min(1_000_000)
    });
    Some(if negative { value.saturating_neg() } else { value })
}
