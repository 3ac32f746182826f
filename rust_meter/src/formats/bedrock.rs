//! Amazon Bedrock: Converse, and InvokeModel with the model's own body.
//!
//! Converse states its counts beside the cache. InvokeModel streams end with metrics that state the same
//! usage a second time: they are compared, and used only where the model stated nothing.

use super::messages;
use crate::document::Statement;
use crate::fields::Fields;
use crate::normal::{Totals, exclusive};
use crate::tree::{Entry, Field, Node, Pairs, Source, Take, count, leaf, list, object};

const WRITE_PAIR: &[Entry] = &[("ttl", leaf(Take::Label)), ("inputTokens", leaf(Take::Number))];
static WRITE_PAIRS: Node = object(Take::Pair, WRITE_PAIR);
const USAGE: &[Entry] = &[
    ("inputTokens", count(Field::Input)),
    ("outputTokens", count(Field::Output)),
    ("totalTokens", count(Field::Total)),
    ("cacheReadInputTokens", count(Field::CacheRead)),
    ("cacheWriteInputTokens", count(Field::CacheWrite)),
    ("cacheReadInputTokenCount", count(Field::CacheReadCount)),
    ("cacheWriteInputTokenCount", count(Field::CacheWriteCount)),
    ("cacheDetails", list(Take::Pairs(Pairs::Writes), &WRITE_PAIRS)),
];
const TEXT: &[Entry] = &[("text", leaf(Take::Output))];
const REASONING: &[Entry] = &[("text", leaf(Take::Output)), ("reasoningText", object(Take::Step, TEXT))];
const TOOL_USE: &[Entry] = &[("input", leaf(Take::Output))];
const DELTA: &[Entry] = &[
    ("text", leaf(Take::Output)),
    ("reasoningContent", object(Take::Step, REASONING)),
    ("toolUse", object(Take::Step, TOOL_USE)),
];
static BLOCKS: Node = object(Take::Step, DELTA);
const MESSAGE: &[Entry] = &[("content", list(Take::Step, &BLOCKS))];
const OUTPUT: &[Entry] = &[("message", object(Take::Step, MESSAGE))];
const CONVERSE_ROOT: &[Entry] = &[
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("output", object(Take::Step, OUTPUT)),
    ("delta", object(Take::Step, DELTA)),
    ("stopReason", leaf(Take::Finish)),
    ("error", leaf(Take::Error)),
];
/// A Converse body or the payload of a frame.
pub static CONVERSE: Node = object(Take::Step, CONVERSE_ROOT);

const METRICS: &[Entry] = &[
    ("inputTokenCount", count(Field::Input)),
    ("outputTokenCount", count(Field::Output)),
    ("cacheReadInputTokenCount", count(Field::CacheRead)),
    ("cacheWriteInputTokenCount", count(Field::CacheWrite)),
];
const NOVA_METADATA: &[Entry] = &[("usage", object(Take::Usage(Source::Aside), USAGE))];
const NOVA_DELTA: &[Entry] = &[("delta", object(Take::Step, DELTA))];
/// Anthropic's members and Nova's: the two families of bodies never share a name with another meaning.
const INVOKE_USAGE: &[Entry] = &[
    ("input_tokens", count(Field::Input)),
    ("output_tokens", count(Field::Output)),
    ("cache_read_input_tokens", count(Field::CacheRead)),
    ("cache_creation_input_tokens", count(Field::CacheWrite)),
    ("inputTokens", count(Field::Input)),
    ("outputTokens", count(Field::Output)),
    ("cacheReadInputTokenCount", count(Field::CacheReadCount)),
    ("cacheWriteInputTokenCount", count(Field::CacheWriteCount)),
    ("prompt_tokens", count(Field::Input)),
    ("completion_tokens", count(Field::Output)),
    ("service_tier", leaf(Take::Tier)),
];
const INVOKE_ROOT: &[Entry] = &[
    ("type", leaf(Take::Kind)),
    ("delta", object(Take::Step, messages::DELTA)),
    ("message", object(Take::Step, messages::MESSAGE)),
    ("usage", object(Take::Usage(Source::Main), INVOKE_USAGE)),
    ("metadata", object(Take::Step, NOVA_METADATA)),
    ("contentBlockDelta", object(Take::Step, NOVA_DELTA)),
    ("amazon-bedrock-invocationMetrics", object(Take::Metrics, METRICS)),
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("content", list(Take::Step, &messages::BLOCKS)),
    ("output", object(Take::Step, OUTPUT)),
    ("stop_reason", leaf(Take::Finish)),
    ("error", leaf(Take::Error)),
];
/// An InvokeModel body or the document inside a frame.
pub static INVOKE: Node = object(Take::Step, INVOKE_ROOT);

const ENVELOPE_ROOT: &[Entry] = &[("bytes", leaf(Take::Bytes))];
/// The payload of an InvokeModel frame.
pub static ENVELOPE: Node = object(Take::Step, ENVELOPE_ROOT);

/// Totals of a Converse usage.
pub fn converse(fields: &Fields) -> Totals {
    let read = aliased(fields, Field::CacheRead, Field::CacheReadCount);
    let write = aliased(fields, Field::CacheWrite, Field::CacheWriteCount);
    exclusive(fields, read, write)
}

/// Totals of InvokeModel's merged usage.
pub fn invoke(usage: &Statement, flags: &mut crate::flags::Flags) -> Totals {
    let mut usage = usage.clone();
    for (name, second) in
        [(Field::CacheRead, Field::CacheReadCount), (Field::CacheWrite, Field::CacheWriteCount)]
    {
        if let Some(value) = aliased(&usage.fields, name, second) {
            usage.fields.set(name, value);
        }
    }
    messages::totals(&usage, flags)
}

/// Bedrock's second names are zero-filled: they count only above zero.
fn aliased(fields: &Fields, name: Field, second: Field) -> Option<u64> {
    let second = fields.get(second).filter(|&value| value > 0);
    fields.get(name).max(second)
}
