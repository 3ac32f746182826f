//! Exact decimals: the only arithmetic that money and prices go through.
//!
//! A `Decimal` is an integer and a number of decimal places; nothing here rounds except `round_to_pico`,
//! which rounds half to even, once. Every operation is checked: a result beyond `i128` is an error, never a
//! wrap.

/// Decimal places of the unit of money, the pico-USD.
pub const PICO_PLACES: u32 = 12;
/// Decimal places a price or multiplier may have.
pub const PLACES_MAX: u32 = 24;
/// Digits a price or multiplier may have before the decimal point.
const WHOLE_DIGITS_MAX: usize = 12;
/// Digits of an amount of USD before the decimal point.
const USD_WHOLE_DIGITS_MAX: usize = 16;
/// Length of any decimal string.
const TEXT_BYTES_MAX: usize = 64;
/// Size of an exponent that may be written.
const EXPONENT_MAX: i32 = 40;

/// Why a text is not a usable decimal, or why a sum does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoneyError(pub String);

fn refuse<T>(message: impl Into<String>) -> Result<T, MoneyError> {
    Err(MoneyError(message.into()))
}

/// `units` / 10^`places`, exactly; trailing zeros of the places are cut when parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The digits as an integer, signed.
    pub units: i128,
    /// How many of the digits stand after the decimal point.
    pub places: u32,
}

impl Decimal {
    /// Parse `12`, `-0.5`, `+3.30` or `5e-06`; at most `places_max` places and `whole_max` digits before
    /// the point.
    fn parse(text: &str, places_max: u32, whole_max: usize) -> Result<Self, MoneyError> {
        if text.len() > TEXT_BYTES_MAX {
            return refuse("a decimal number has at most 64 characters");
        }
        let Some((negative, digits, exponent)) = split(text) else {
            return refuse(format!("not a decimal number: {text:?}"));
        };
        let significant = digits.iter().skip_while(|digit| **digit == b'0').count();
        let trailing = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        if significant == 0 {
            return Ok(Self { units: 0, places: 0 });
        }
        let kept = digits.get(..digits.len().saturating_sub(trailing)).unwrap_or_default();
        let shift = exponent.saturating_add(i32::try_from(trailing).unwrap_or(i32::MAX));
        let whole = i64::try_from(significant).unwrap_or(i64::MAX).saturating_add(i64::from(exponent));
        if whole > i64::try_from(whole_max).unwrap_or(0) {
            return refuse(format!("too large: {text:?}"));
        }
        if shift < 0 && shift.unsigned_abs() > places_max {
            return refuse(format!("more than {places_max} decimals in {text:?}"));
        }
        let zeros = if shift > 0 { shift.unsigned_abs() } else { 0 };
        let units = kept
            .iter()
            .try_fold(0_i128, |sum, digit| {
                sum.checked_mul(10)?.checked_add(i128::from(digit.wrapping_sub(b'0')))
            })
            .and_then(|units| units.checked_mul(power_of_ten(zeros)?));
        match units {
            Some(units) => Ok(Self {
                units: if negative { units.saturating_neg() } else { units },
                places: if shift < 0 { shift.unsigned_abs() } else { 0 },
            }),
            None => refuse(format!("too many digits: {text:?}")),
        }
    }

    /// A price or multiplier: not negative, at most 12 digits before and 24 after the point.
    pub fn parse_price(text: &str) -> Result<Self, MoneyError> {
        let price = Self::parse(text, PLACES_MAX, WHOLE_DIGITS_MAX)?;
        if price.units < 0 { refuse(format!("negative: {text:?}")) } else { Ok(price) }
    }

    /// The integer this decimal is at `places` decimal places; None if it has more places or does not fit.
    pub fn units_at(self, places: u32) -> Option<i128> {
        self.units.checked_mul(power_of_ten(places.checked_sub(self.places)?)?)
    }
}

/// Sign, digits without the point, and the power of ten they are multiplied by.
fn split(text: &str) -> Option<(bool, Vec<u8>, i32)> {
    let (negative, body) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let mark = body.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (number, exponent) = match mark {
        Some(at) => (body.get(..at)?, parse_exponent(body.get(at.checked_add(1)?..)?)?),
        None => (body, 0),
    };
    let mut parts = number.split(|byte| *byte == b'.');
    let whole = parts.next()?;
    let fraction = parts.next();
    let well_formed = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    if parts.next().is_some() || !well_formed(whole) || !fraction.is_none_or(well_formed) {
        return None;
    }
    let fraction = fraction.unwrap_or_default();
    let places = i32::try_from(fraction.len()).ok()?;
    Some((negative, [whole, fraction].concat(), exponent.checked_sub(places)?))
}

fn parse_exponent(bytes: &[u8]) -> Option<i32> {
    let exponent: i32 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent).then_some(exponent)
}

/// 10^`exponent`, or None beyond i128.
pub fn power_of_ten(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

/// `units` / 10^`places` USD as pico-USD, rounded half to even; None beyond i128. `units` is not negative.
pub fn round_to_pico(units: i128, places: u32) -> Option<i128> {
    let Some(extra) = places.checked_sub(PICO_PLACES).filter(|extra| *extra > 0) else {
        return units.checked_mul(power_of_ten(PICO_PLACES.checked_sub(places)?)?);
    };
    let Some(divisor) = power_of_ten(extra) else {
        return Some(0); // 10^39 and more: any i128 is below half of it
    };
    let quotient = units.checked_div(divisor)?;
    let twice = units.checked_rem(divisor)?.checked_mul(2)?;
    let up = twice > divisor || (twice == divisor && quotient & 1 == 1);
    quotient.checked_add(i128::from(up))
}

/// Room for the digits of any i128, in pairs.
const DIGITS_MAX: usize = 40;

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [*b"00"; 100];
    let mut rest: &mut [[u8; 2]] = &mut pairs;
    let mut number = 0_u8;
    while let [pair, others @ ..] = rest {
        *pair = [b'0'.wrapping_add(number / 10), b'0'.wrapping_add(number % 10)];
        number = number.wrapping_add(1);
        rest = others;
    }
    pairs
};

/// The digits of `value` at the end of `buffer`, which lends them.
///
/// Written out, because charges are told several times an exchange and the standard library's way costs five
/// times as much.
fn digits_of(value: u128, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut left = value;
    let mut start = DIGITS_MAX;
    let (slots, _) = buffer.as_chunks_mut();
    for slot in slots.iter_mut().rev() {
        let pair;
        // Division of 64 bits is a few instructions, of 128 bits a function.
        (left, pair) = match u64::try_from(left) {
            Ok(short) => (u128::from(short / 100), usize::try_from(short % 100)),
            Err(_) => (left / 100, usize::try_from(left % 100)),
        };
        *slot = pair.ok().and_then(|pair| PAIRS.get(pair)).copied().unwrap_or(*b"00");
        start = start.saturating_sub(2);
        if left == 0 {
            break;
        }
    }
    let digits = buffer.get(start..).unwrap_or_default();
    match digits {
        [b'0', rest @ ..] if !rest.is_empty() => rest,
        _ => digits,
    }
}

/// Append an integer in decimal.
pub fn push_integer(out: &mut Vec<u8>, number: i128) {
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(digits_of(number.unsigned_abs(), &mut [0; DIGITS_MAX]));
}

/// Append the shortest exact decimal string of `units` / 10^`places`.
fn push_units(out: &mut Vec<u8>, units: i128, places: u32) {
    let mut buffer = [0; DIGITS_MAX];
    let digits = digits_of(units.unsigned_abs(), &mut buffer);
    let places = usize::try_from(places).unwrap_or(usize::MAX);
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(places));
    let zeros = places.saturating_sub(digits.len());
    let kept = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last.saturating_add(1));
    if units < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    if kept > 0 {
        out.push(b'.');
        out.resize(out.len().saturating_add(zeros), b'0');
        out.extend_from_slice(fraction.get(..kept).unwrap_or_default());
    }
}

/// Shortest exact decimal string of `units` / 10^`places`.
pub fn format_units(units: i128, places: u32) -> String {
    let mut text = Vec::with_capacity(DIGITS_MAX);
    push_units(&mut text, units, places);
    String::from_utf8(text).unwrap_or_default()
}

/// Append pico-USD as the shortest exact USD decimal string.
pub fn push_pico(out: &mut Vec<u8>, amount_pico: i128) {
    push_units(out, amount_pico, PICO_PLACES);
}

/// Pico-USD of a USD decimal string, exactly; at most 16 digits before the point and 12 after it.
pub fn parse_pico(text: &str) -> Result<i128, MoneyError> {
    let amount = Decimal::parse(text, PICO_PLACES, USD_WHOLE_DIGITS_MAX)?;
    match amount.units_at(PICO_PLACES) {
        Some(units) => Ok(units),
        None => refuse(format!("too large: {text:?}")),
    }
}

/// Pico-USD as the shortest exact USD decimal string.
pub fn format_pico(amount_pico: i128) -> String {
    format_units(amount_pico, PICO_PLACES)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
mod tests {
    //! Exact text to integer and back; rounding half to even.
    use super::*;
    use proptest::prelude::*;

    fn pico(text: &str) -> i128 {
        parse_pico(text).unwrap_or(i128::MIN)
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(pico("0.027405"), 27_405_000_000);
        assert_eq!(pico("-1"), -1_000_000_000_000);
        assert_eq!(pico("+6.60"), 6_600_000_000_000);
        assert_eq!(pico("1e-12"), 1);
        assert_eq!(pico("5E2"), 500_000_000_000_000);
        assert_eq!(pico("0.0000000000010"), 1);
        assert_eq!(pico("0e40"), 0);
        assert_eq!(pico("-0"), 0);
        assert_eq!(pico("0000000000000000000001"), 1_000_000_000_000);
        assert_eq!(pico("9999999999999999.999999999999"), 9_999_999_999_999_999_999_999_999_999);
    }

    #[test]
    fn junk_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "1..2",
            "1.2.3",
            "1e",
            "e5",
            "1e+",
            "1e41",
            "1e-41",
            "1e99999999999",
            "NaN",
            "inf",
            " 1",
            "1 ",
            "1_0",
            "0x10",
            "١",
            "--1",
            "1e5.5",
            "0.0000000000001",
            "1e-13",
            "10000000000000000",
            "1e16",
        ] {
            assert!(parse_pico(text).is_err(), "{text:?}");
        }
        assert!(parse_pico(&"0".repeat(65)).is_err());
    }

    #[test]
    fn prices_have_bounds() {
        assert!(Decimal::parse_price("0.0833333333333333333").is_ok());
        assert!(Decimal::parse_price("0.0000000000000000000000001").is_err());
        assert!(Decimal::parse_price("-0.1").is_err());
        assert!(Decimal::parse_price("1000000000000").is_err());
        assert_eq!(Decimal::parse_price("3.300"), Ok(Decimal { units: 33, places: 1 }));
        assert_eq!(Decimal::parse_price("5e-06"), Ok(Decimal { units: 5, places: 6 }));
        assert_eq!(Decimal::parse_price("300"), Ok(Decimal { units: 300, places: 0 }));
    }

    #[test]
    fn ties_go_to_the_even_neighbour() {
        assert_eq!(round_to_pico(25, 13), Some(2));
        assert_eq!(round_to_pico(35, 13), Some(4));
        assert_eq!(round_to_pico(251, 14), Some(3));
        assert_eq!(round_to_pico(249, 14), Some(2));
        assert_eq!(round_to_pico(7, 11), Some(70));
        assert_eq!(round_to_pico(i128::MAX, 0), None);
        assert_eq!(round_to_pico(i128::MAX, 60), Some(0));
    }

    proptest! {
        #[test]
        fn format_and_parse_are_inverse(amount in -10_i128.pow(28) + 1..10_i128.pow(28)) {
            prop_assert_eq!(parse_pico(&format_pico(amount)), Ok(amount));
        }

        #[test]
        fn any_text_is_answered(text in "[-+]?[0-9.eE]{0,40}") {
            if let Ok(amount) = parse_pico(&text) {
                prop_assert_eq!(pico(&format_pico(amount)), amount);
            }
        }
    }
}
