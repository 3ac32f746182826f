//! Types and ranges of the values that are read; each fault says what the field must be.

use super::json::{Fault, Token, unescaped};
use super::keys::Key;

/// Largest limit or count a request may name.
const COUNT_MAX: u64 = 0x7fff_ffff;
/// Bytes of a price field's value or a tool's type.
pub const WORD_BYTES_MAX: usize = 128;

/// What the field's value must be, for people.
pub fn wanted_type(key: Key) -> &'static str {
    match key {
        Key::Model => "a string",
        Key::Stream | Key::Background => "true or false",
        Key::StreamOptions | Key::CacheOptions | Key::WebSearchOptions | Key::Prompt => "an object",
        Key::MaxTokens | Key::MaxCompletionTokens | Key::MaxOutputTokens | Key::N | Key::BestOf => {
            "an integer between 1 and 2147483647"
        }
        Key::Messages | Key::Input | Key::System => "a string or an array",
        Key::Tools | Key::McpServers | Key::Modalities => "an array",
        _ => "of another type",
    }
}

/// The fault of a field of the wrong type.
pub fn type_fault<T>(name: &str, wanted: &str) -> Result<T, Fault> {
    let name = if name == "the body" { name.to_owned() } else { format!("`{name}`") };
    Err(Fault { code: "type", message: format!("{name} must be {wanted}") })
}

/// An integer in [1, 2^31-1] written in plain digits.
pub fn count(key: Key, token: Token, body: &[u8]) -> Result<u32, Fault> {
    let Token::Number(start, end) = token else {
        return type_fault(key.name(), wanted_type(key));
    };
    let digits = body.get(start..end).unwrap_or_default();
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    if !unsigned.iter().all(u8::is_ascii_digit) {
        return type_fault(key.name(), wanted_type(key));
    }
    let value: Option<u64> = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    match value.filter(|value| (1..=COUNT_MAX).contains(value)).map(u32::try_from) {
        Some(Ok(value)) => Ok(value),
        _ => {
            let message = format!("`{}` must be {}", key.name(), wanted_type(key));
            Err(Fault { code: "range", message })
        }
    }
}

/// A short string; None for null.
pub fn word(name: &str, token: Token, body: &[u8]) -> Result<Option<String>, Fault> {
    match token {
        Token::Null => Ok(None),
        Token::Text(text) if text.end.saturating_sub(text.start) <= WORD_BYTES_MAX => {
            Ok(Some(unescaped(body, text)))
        }
        Token::Text(_) => {
            let message = format!("`{name}` is longer than {WORD_BYTES_MAX} bytes");
            Err(Fault { code: "limit", message })
        }
        _ => type_fault(name, "a string"),
    }
}
