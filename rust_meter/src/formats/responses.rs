//! OpenAI Responses: usage at the top of a body, or inside the terminal event's `response`.

use crate::tree::{Entry, Field, Node, Source, Take, count, leaf, list, object};

const INPUT_DETAILS: &[Entry] = &[
    ("cached_tokens", count(Field::Cached)),
    ("cache_write_tokens", count(Field::Write)),
    ("audio_tokens", count(Field::AudioInput)),
    ("image_tokens", count(Field::ImageInput)),
];
const OUTPUT_DETAILS: &[Entry] = &[
    ("reasoning_tokens", count(Field::Reasoning)),
    ("audio_tokens", count(Field::AudioOutput)),
    ("image_tokens", count(Field::ImageOutput)),
];
const USAGE: &[Entry] = &[
    ("input_tokens", count(Field::Input)),
    ("output_tokens", count(Field::Output)),
    ("total_tokens", count(Field::Total)),
    ("input_tokens_details", object(Take::Step, INPUT_DETAILS)),
    ("output_tokens_details", object(Take::Step, OUTPUT_DETAILS)),
];
const ACTION: &[Entry] = &[("type", leaf(Take::ItemAction))];
const PART: &[Entry] = &[("text", leaf(Take::Repeat)), ("refusal", leaf(Take::Repeat))];
static PARTS: Node = object(Take::Step, PART);
const ITEM: &[Entry] = &[
    ("type", leaf(Take::ItemKind)),
    ("action", object(Take::Step, ACTION)),
    ("container_id", leaf(Take::ItemContainer)),
    ("content", list(Take::Step, &PARTS)),
    ("summary", list(Take::Step, &PARTS)),
    ("arguments", leaf(Take::Repeat)),
    ("input", leaf(Take::Repeat)),
    ("code", leaf(Take::Repeat)),
];
static ITEMS: Node = object(Take::Item, ITEM);
const RESPONSE: &[Entry] = &[
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("status", leaf(Take::Status)),
    ("service_tier", leaf(Take::Tier)),
    ("error", leaf(Take::Error)),
    ("output", list(Take::Step, &ITEMS)),
    ("usage", object(Take::Usage(Source::Inner), USAGE)),
];
const ROOT_KEYS: &[Entry] = &[
    ("type", leaf(Take::Kind)),
    ("delta", leaf(Take::Output)),
    ("response", object(Take::Step, RESPONSE)),
    ("item", object(Take::Item, ITEM)),
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("status", leaf(Take::Status)),
    ("service_tier", leaf(Take::Tier)),
    ("error", leaf(Take::Error)),
    ("output", list(Take::Step, &ITEMS)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
];
/// A body or event.
pub static ROOT: Node = object(Take::Step, ROOT_KEYS);

/// Whether an event of this type ends the answer and carries its usage.
pub fn is_terminal(kind: &[u8]) -> bool {
    matches!(kind, b"response.completed" | b"response.incomplete" | b"response.failed")
}
