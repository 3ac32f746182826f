//! Cohere v2 chat: what is billed stands in `billed_units`; `tokens` are larger, raw numbers.

use crate::fields::Fields;
use crate::flags::{self, Flags};
use crate::normal::Totals;
use crate::tree::{Entry, Field, Node, Source, Take, count, either, leaf, object};

const BILLED: &[Entry] =
    &[("input_tokens", count(Field::BilledInput)), ("output_tokens", count(Field::BilledOutput))];
const TOKENS: &[Entry] = &[
    ("input_tokens", count(Field::Input)),
    ("output_tokens", count(Field::Output)),
    ("reasoning_tokens", count(Field::Reasoning)),
];
const USAGE: &[Entry] =
    &[("billed_units", object(Take::Step, BILLED)), ("tokens", object(Take::Step, TOKENS))];
const CONTENT: &[Entry] = &[("text", leaf(Take::Output)), ("thinking", leaf(Take::Output))];
static CONTENTS: Node = object(Take::Step, CONTENT);
const MESSAGE: &[Entry] =
    &[("content", either(Take::Step, CONTENT, &CONTENTS)), ("tool_plan", leaf(Take::Output))];
const DELTA: &[Entry] = &[
    ("usage", object(Take::Usage(Source::Inner), USAGE)),
    ("message", object(Take::Step, MESSAGE)),
    ("finish_reason", leaf(Take::Finish)),
];
const ROOT_KEYS: &[Entry] = &[
    ("type", leaf(Take::Kind)),
    ("id", leaf(Take::Id)),
    ("delta", object(Take::Step, DELTA)),
    ("message", object(Take::Step, MESSAGE)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("finish_reason", leaf(Take::Finish)),
    ("error", leaf(Take::Error)),
];
/// A body or event.
pub static ROOT: Node = object(Take::Step, ROOT_KEYS);

/// Totals as billed; the raw tokens where nothing is stated as billed.
pub fn totals(fields: &Fields, flags: &mut Flags) -> Totals {
    let differs = |billed: Field, raw: Field| match (fields.get(billed), fields.get(raw)) {
        (Some(billed), Some(raw)) => billed != raw,
        _ => false,
    };
    let is_different =
        differs(Field::BilledInput, Field::Input) || differs(Field::BilledOutput, Field::Output);
    flags.raise_if(is_different, flags::BILLED_DIFFER);
    let input = fields.get(Field::BilledInput).or(fields.get(Field::Input)).unwrap_or(0);
    Totals {
        input_total: input,
        uncached_input: input,
        output: fields.get(Field::BilledOutput).or(fields.get(Field::Output)).unwrap_or(0),
        reasoning: fields.get(Field::Reasoning),
        inference_input: input,
        ..Totals::default()
    }
}
