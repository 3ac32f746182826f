//! Settle records of the journal in fewer bytes: what nearly every one says stands there as one byte.
//!
//! A record is a JSON array. JSON has no control characters and UTF-8 no byte from 0xF8 on, so these bytes are
//! free to stand for `WORDS`. What is no word stands as it is, and so does everything up to the end of the first
//! string, the exchange's id, by which a record is followed without being unpacked. A record written before
//! there were words is its own packed form. Any bytes at all come back as they were: a free byte that means
//! itself has `LITERAL` before it.
//!
//! Journals are read by later versions: words may be added at the end of the list, none may change or go.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memchr;

use crate::marks::push_replaced;

/// Each begins with a comma, so that only commas are looked at. The i-th is written as `code(i)`.
const WORDS: [&str; 38] = [
    // The record's own members.
    r#","exact",[],{"input":"#,
    r#","output":"#,
    r#","cache_read":"#,
    r#","cache_write_5m":"#,
    ",{},",
    r#","","#,
    r#","","ok",200,""#,
    ",false,",
    ",true,",
    r#","chat","#,
    r#","messages","#,
    r#","responses","#,
    r#","ohmygpt",""#,
    r#","openhands",""#,
    r#","subscription",""#,
    r#","credits","#,
    r#","refCredits","#,
    r#","creditsNew","#,
    r#","credits_permanent","#,
    r#","credits_monthly","#,
    // The usage object of the upstream, which a record keeps as a string.
    r#","{\"prompt_tokens\":"#,
    r#",\"completion_tokens\":"#,
    r#",\"total_tokens\":"#,
    r#",\"prompt_tokens_details\":{\"cached_tokens\":"#,
    r#",\"audio_tokens\":"#,
    r#",\"completion_tokens_details\":{\"reasoning_tokens\":"#,
    r#",\"accepted_prediction_tokens\":"#,
    r#",\"rejected_prediction_tokens\":"#,
    r#","{\"input_tokens\":"#,
    r#",\"output_tokens\":"#,
    r#",\"input_tokens_details\":{\"cached_tokens\":"#,
    r#",\"output_tokens_details\":{\"reasoning_tokens\":"#,
    r#",\"cache_creation_input_tokens\":"#,
    r#",\"cache_read_input_tokens\":"#,
    r#",\"cache_creation\":{\"ephemeral_5m_input_tokens\":"#,
    r#",\"ephemeral_1h_input_tokens\":"#,
    r#",\"service_tier\":\"standard\""#,
    r#",\"service_tier\":\"default\""#,
];

/// What stands before a free byte that means itself.
const LITERAL: u8 = 0x1F;

/// The first words have the codes from 1 up to `LITERAL`, the others those from here on.
const SECOND_CODES: u8 = 0xF8;

/// Whether no JSON text has this byte.
const fn is_free(byte: u8) -> bool {
    (byte < b' ') | (byte >= SECOND_CODES)
}

/// The byte that stands for a word.
fn code(index: usize) -> Option<u8> {
    let index = u8::try_from(index).ok()?;
    match index.checked_sub(LITERAL.checked_sub(1)?) {
        None => index.checked_add(1),
        Some(second) => SECOND_CODES.checked_add(second),
    }
}

/// The word that a byte stands for.
fn word(code: u8) -> Option<&'static [u8]> {
    let index = match code.checked_sub(SECOND_CODES) {
        Some(second) => second.checked_add(LITERAL)?.checked_sub(1)?,
        None => code.checked_sub(1).filter(|_| code < LITERAL)?,
    };
    WORDS.get(usize::from(index)).map(|word| word.as_bytes())
}

/// A code and its word.
type Coded = (u8, &'static [u8]);

/// Codes and words by what `place` says of their beginnings; of those in one place the longest first.
static PLACES: LazyLock<Vec<Vec<Coded>>> = LazyLock::new(|| {
    let mut words: Vec<_> =
        WORDS.iter().enumerate().filter_map(|(index, word)| Some((code(index)?, word.as_bytes()))).collect();
    words.sort_by_key(|(_, word)| std::cmp::Reverse(word.len()));
    let mut places = vec![Vec::new(); PLACES_COUNT];
    for (code, word) in words {
        if let Some(place) = place(word).and_then(|place| places.get_mut(place)) {
            place.push((code, word));
        }
    }
    places
});

const PLACES_COUNT: usize = 64;

/// Where a word that begins like this may stand; `None`: it is shorter than any.
fn place(beginning: &[u8]) -> Option<usize> {
    let [_, one, two, three] = beginning.first_chunk::<4>()?;
    let mixed = one.wrapping_mul(3) ^ two.wrapping_mul(5) ^ three;
    Some(usize::from(mixed) % PLACES_COUNT)
}

/// The code of the longest word that some bytes begin with, and its length.
fn coded(rest: &[u8]) -> Option<(u8, usize)> {
    let words = PLACES.get(place(rest)?)?;
    words.iter().find(|(_, word)| rest.starts_with(word)).map(|(code, word)| (*code, word.len()))
}

/// The length of what is never packed: up to the end of the first string.
fn name_bytes(record: &[u8]) -> usize {
    let behind = record.get(2..).unwrap_or_default();
    memchr(b'"', behind).map_or(record.len(), |end| end.saturating_add(3))
}

/// Append a record, packed.
pub fn push_packed(out: &mut Vec<u8>, record: &[u8]) {
    let (name, rest) = record.split_at_checked(name_bytes(record)).unwrap_or((record, &[]));
    out.extend_from_slice(name);
    push_replaced(
        out,
        rest,
        |byte| (byte == b',') | is_free(byte),
        |out, here| {
            let literal = here.first().filter(|byte| is_free(**byte)).map(|_| (LITERAL, 0));
            literal.or_else(|| coded(here)).map_or(0, |(code, bytes)| {
                out.push(code);
                bytes
            })
        },
    );
}

/// The record that was packed. What is no code stands as it is, for the record's reader to refuse.
pub fn unpack(packed: &[u8]) -> Cow<'_, [u8]> {
    let (name, rest) = packed.split_at_checked(name_bytes(packed)).unwrap_or((packed, &[]));
    if !rest.iter().any(|byte| is_free(*byte)) {
        return Cow::Borrowed(packed);
    }
    let mut out = Vec::with_capacity(packed.len().saturating_mul(2));
    out.extend_from_slice(name);
    push_replaced(&mut out, rest, is_free, |out, here| match here {
        [LITERAL, byte, ..] => {
            out.push(*byte);
            2
        }
        [code, ..] => word(*code).map_or(0, |word| {
            out.extend_from_slice(word);
            1
        }),
        [] => 0,
    });
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    //! Whatever is packed comes back, and a code means what it always meant.
    use super::*;
    use proptest::prelude::*;

    fn packed(record: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        push_packed(&mut out, record);
        out.strip_prefix(b"before").unwrap().to_vec()
    }

    /// Words, their parts, free bytes and others, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let part = (0..WORDS.len(), 0_usize..60).prop_map(|(index, length)| {
            let word = WORDS[index].as_bytes();
            word.get(..length).unwrap_or(word).to_vec()
        });
        let other = proptest::sample::select(vec![
            b"\x1F".to_vec(),
            b"\x00".to_vec(),
            b"\xF8".to_vec(),
            b"\xFF".to_vec(),
            b"\"".to_vec(),
            b",".to_vec(),
            vec![b'7'; 31],
        ]);
        let piece = prop_oneof![part, other, proptest::collection::vec(any::<u8>(), 0..9)];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(record in pieces()) {
            let packed = packed(&record);
            prop_assert_eq!(unpack(&packed).into_owned(), record);
        }

        #[test]
        fn what_has_no_free_byte_is_its_own_packed_form(record in "[ -~é€𝄞]{0,99}") {
            prop_assert_eq!(unpack(record.as_bytes()).into_owned(), record.as_bytes());
            prop_assert!(packed(record.as_bytes()).len() <= record.len());
        }

        #[test]
        fn what_nobody_packed_can_be_unpacked(payload in proptest::collection::vec(any::<u8>(), 0..99)) {
            unpack(&payload);
        }
    }

    #[test]
    fn each_word_has_one_code_and_is_written_with_it() {
        let mut codes = Vec::new();
        for (index, text) in WORDS.iter().enumerate() {
            let code = code(index).unwrap();
            assert!(
                text.starts_with(',')
                    && is_free(code)
                    && code != LITERAL
                    && word(code) == Some(text.as_bytes())
            );
            let record = format!("[\"e1\"{text}");
            assert_eq!(packed(record.as_bytes()), [b"[\"e1\"", &[code][..]].concat(), "{text}");
            codes.push(code);
        }
        codes.dedup();
        assert_eq!(codes.len(), WORDS.len());
        assert_eq!((code(WORDS.len()), word(0), word(LITERAL)), (None, None, None));
    }

    #[test]
    fn no_word_that_stands_in_journals_ever_changes() {
        let mut checked = flate2::Crc::new();
        WORDS.iter().take(38).for_each(|word| checked.update(format!("{word}\n").as_bytes()));
        assert_eq!(checked.sum(), 1_536_086_939);
    }

    #[test]
    fn the_name_stands_as_it_is() {
        let record = br#"["e,false,7","u",false,7]"#;
        assert_eq!(packed(record), b"[\"e,false,7\",\"u\"\x087]");
        for odd in [&b""[..], b"[", b"[\"", b",false,", b"[\"e,false,"] {
            assert_eq!(packed(odd), odd);
        }
    }
}
