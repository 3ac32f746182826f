//! Anthropic Messages: the start states the input, each delta restates what it names, compaction comes on
//! top.
//!
//! The input count stands beside both cache counts. Only `message_start` carries the split of cache writes by
//! time to live, so growth after it keeps the start's time to live and is flagged.

use crate::document::Statement;
use crate::fields::Fields;
use crate::flags::{self, Flags};
use crate::iterations::{ENTRY_FIELDS, OtherModel};
use crate::normal::{OtherUsage, Totals, exclusive, sum_reported};
use crate::tree::{Entry, Field, Node, Source, Take, count, leaf, list, object};

const CREATION: &[Entry] = &[
    ("ephemeral_5m_input_tokens", count(Field::Write5m)),
    ("ephemeral_1h_input_tokens", count(Field::Write1h)),
];
const ITERATION: &[Entry] = &[
    ("type", leaf(Take::IterationKind)),
    ("model", leaf(Take::IterationModel)),
    ("input_tokens", count(Field::Input)),
    ("output_tokens", count(Field::Output)),
    ("cache_read_input_tokens", count(Field::CacheRead)),
    ("cache_creation_input_tokens", count(Field::CacheWrite)),
    ("cache_creation", object(Take::Step, CREATION)),
];
static ITERATIONS: Node = object(Take::Iteration, ITERATION);
const OUTPUT_DETAILS: &[Entry] = &[("thinking_tokens", count(Field::Reasoning))];
const SERVER_TOOLS: &[Entry] = &[("web_search_requests", count(Field::WebSearch))];
/// The members of a usage object.
pub const USAGE: &[Entry] = &[
    ("input_tokens", count(Field::Input)),
    ("output_tokens", count(Field::Output)),
    ("cache_read_input_tokens", count(Field::CacheRead)),
    ("cache_creation_input_tokens", count(Field::CacheWrite)),
    ("cache_creation", object(Take::Step, CREATION)),
    ("output_tokens_details", object(Take::Step, OUTPUT_DETAILS)),
    ("server_tool_use", object(Take::Step, SERVER_TOOLS)),
    ("iterations", list(Take::Iterations, &ITERATIONS)),
    ("service_tier", leaf(Take::Tier)),
    ("speed", leaf(Take::Speed)),
    ("inference_geo", leaf(Take::Geo)),
];
/// The message an opening event carries.
pub const MESSAGE: &[Entry] = &[
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("usage", object(Take::Usage(Source::Inner), USAGE)),
];
/// The pieces of generated text of a delta.
pub const DELTA: &[Entry] = &[
    ("text", leaf(Take::Output)),
    ("thinking", leaf(Take::Output)),
    ("partial_json", leaf(Take::Output)),
    ("stop_reason", leaf(Take::Finish)),
];
const BLOCK: &[Entry] = &[("text", leaf(Take::Output)), ("thinking", leaf(Take::Output))];
/// Content blocks of a whole body.
pub static BLOCKS: Node = object(Take::Step, BLOCK);
const ROOT_KEYS: &[Entry] = &[
    ("type", leaf(Take::Kind)),
    ("delta", object(Take::Step, DELTA)),
    ("message", object(Take::Step, MESSAGE)),
    ("usage", object(Take::Usage(Source::Main), USAGE)),
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("content", list(Take::Step, &BLOCKS)),
    ("stop_reason", leaf(Take::Finish)),
    ("error", leaf(Take::Error)),
];
/// A body or event.
pub static ROOT: Node = object(Take::Step, ROOT_KEYS);

const MERGED: [Field; 10] = [
    Field::Input,
    Field::Output,
    Field::CacheRead,
    Field::CacheWrite,
    Field::Write5m,
    Field::Write1h,
    Field::Reasoning,
    Field::WebSearch,
    Field::CacheReadCount,
    Field::CacheWriteCount,
];
const INPUTS: [Field; 3] = [Field::Input, Field::CacheRead, Field::CacheWrite];

/// Overwrite a message's usage with what a later statement names.
///
/// A statement whose inputs are all zero keeps earlier real ones: sloppy emulators send such deltas.
pub fn merge(usage: &mut Statement, later: &Statement, flags: &mut Flags) {
    usage.present = true;
    let before = sum(&usage.fields);
    let keeps_inputs = before > 0 && later.fields.get(Field::Input).is_some() && sum(&later.fields) == 0;
    flags.raise_if(keeps_inputs, flags::ZERO_RESTATED);
    for field in MERGED {
        if !(keeps_inputs && INPUTS.contains(&field))
            && let Some(value) = later.fields.get(field)
        {
            usage.fields.set(field, value);
        }
    }
    if later.iterations.is_some() {
        usage.iterations.clone_from(&later.iterations);
    }
}

fn sum(fields: &Fields) -> u64 {
    INPUTS.iter().fold(0_u64, |sum, &field| sum.saturating_add(fields.or_zero(field)))
}

/// Totals of one message.
pub fn totals(usage: &Statement, flags: &mut Flags) -> Totals {
    let mut fields = usage.fields.clone();
    let stale = settle_writes(&mut fields);
    flags.raise_if(stale, flags::BREAKDOWN_STALE);
    let mut totals = exclusive(&fields, fields.get(Field::CacheRead), fields.get(Field::CacheWrite));
    let Some(iterations) = &usage.iterations else {
        flags.raise_if(fields.or_zero(Field::WebSearch) > 0, flags::SPANS_INFERENCES);
        return totals;
    };
    flags.raise(iterations.flags);
    if iterations.prompt_max > 0 {
        totals.inference_input = iterations.prompt_max;
    }
    if iterations.compactions > 0 {
        flags.raise(flags::COMPACTION_ADDED);
        add_compaction(&mut totals, iterations.compaction.clone());
    }
    add_others(&mut totals, &iterations.others, flags);
    if iterations.is_fallback {
        flags.raise(flags::FALLBACK);
        add_others(&mut totals, &iterations.hops, flags);
    }
    totals
}

/// Make the split by time to live agree with the number of tokens written; true when it did not.
fn settle_writes(fields: &mut Fields) -> bool {
    let (write_5m, write_1h) = (fields.get(Field::Write5m), fields.get(Field::Write1h));
    let Some(split) = sum_reported(write_5m, write_1h) else { return false };
    let Some(written) = fields.get(Field::CacheWrite) else {
        fields.set(Field::CacheWrite, split);
        return false;
    };
    if split == written {
        return false;
    }
    let hour = write_1h.unwrap_or(0).min(written);
    let is_hourly = hour > 0 && write_5m.unwrap_or(0) == 0;
    let hour = if is_hourly { written } else { hour };
    if write_1h.is_some() {
        fields.set(Field::Write1h, hour);
    }
    fields.set(Field::Write5m, written.saturating_sub(hour));
    true
}

fn add_compaction(totals: &mut Totals, mut compaction: Fields) {
    settle_writes(&mut compaction);
    let added = exclusive(&compaction, compaction.get(Field::CacheRead), compaction.get(Field::CacheWrite));
    let inference_input = totals.inference_input;
    totals.add(added);
    totals.inference_input = inference_input;
}

fn add_others(totals: &mut Totals, others: &[OtherModel], flags: &mut Flags) {
    for other in others {
        flags.raise(flags::OTHER_MODELS);
        let mut counts = Fields::default();
        counts.overlay(&other.counts, &ENTRY_FIELDS);
        settle_writes(&mut counts);
        totals.add_other(OtherUsage {
            model: other.model.clone(),
            kind: other.kind.clone(),
            totals: exclusive(&counts, counts.get(Field::CacheRead), counts.get(Field::CacheWrite)),
        });
    }
}
