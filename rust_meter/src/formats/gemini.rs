//! Gemini generateContent and Interactions: the last statement stands as a whole; reasoning and tool prompts
//! are apart.

use crate::document::Statement;
use crate::flags::{self, Flags};
use crate::normal::Totals;
use crate::tree::{Entry, Field, Node, Pairs, Source, Take, count, leaf, list, object};

const MODALITY: &[Entry] = &[("modality", leaf(Take::Label)), ("tokenCount", leaf(Take::Number))];
static MODALITIES: Node = object(Take::Pair, MODALITY);
const USAGE: &[Entry] = &[
    ("promptTokenCount", count(Field::Input)),
    ("candidatesTokenCount", count(Field::Output)),
    ("responseTokenCount", count(Field::Output)),
    ("totalTokenCount", count(Field::Total)),
    ("cachedContentTokenCount", count(Field::Cached)),
    ("thoughtsTokenCount", count(Field::Thoughts)),
    ("toolUsePromptTokenCount", count(Field::ToolPrompt)),
    ("promptTokensDetails", list(Take::Pairs(Pairs::Prompt), &MODALITIES)),
    ("candidatesTokensDetails", list(Take::Pairs(Pairs::Output), &MODALITIES)),
    ("cacheTokensDetails", list(Take::Pairs(Pairs::Cached), &MODALITIES)),
    ("serviceTier", leaf(Take::Tier)),
];
const PART: &[Entry] = &[("text", leaf(Take::Output))];
static PARTS: Node = object(Take::Step, PART);
const CONTENT: &[Entry] = &[("parts", list(Take::Step, &PARTS))];
const CANDIDATE: &[Entry] = &[("content", object(Take::Step, CONTENT)), ("finishReason", leaf(Take::Finish))];
static CANDIDATES: Node = object(Take::Step, CANDIDATE);
const GENERATE_ROOT: &[Entry] = &[
    ("candidates", list(Take::Step, &CANDIDATES)),
    ("usageMetadata", object(Take::Usage(Source::Main), USAGE)),
    ("modelVersion", leaf(Take::Model)),
    ("responseId", leaf(Take::Id)),
    ("error", leaf(Take::Error)),
];
/// A generateContent body, event or array element.
pub static GENERATE: Node = object(Take::Step, GENERATE_ROOT);

const MODALITY_TOKENS: &[Entry] = &[("modality", leaf(Take::Label)), ("tokens", leaf(Take::Number))];
static MODALITY_TOKENS_LIST: Node = object(Take::Pair, MODALITY_TOKENS);
const INTERACTION_USAGE: &[Entry] = &[
    ("total_input_tokens", count(Field::Input)),
    ("total_output_tokens", count(Field::Output)),
    ("total_thought_tokens", count(Field::Thoughts)),
    ("total_cached_tokens", count(Field::Cached)),
    ("total_tool_use_tokens", count(Field::ToolPrompt)),
    ("total_tokens", count(Field::Total)),
    ("input_tokens_by_modality", list(Take::Pairs(Pairs::Prompt), &MODALITY_TOKENS_LIST)),
    ("output_tokens_by_modality", list(Take::Pairs(Pairs::Output), &MODALITY_TOKENS_LIST)),
    ("cached_tokens_by_modality", list(Take::Pairs(Pairs::Cached), &MODALITY_TOKENS_LIST)),
];
const INTERACTION: &[Entry] = &[
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("status", leaf(Take::Status)),
    ("service_tier", leaf(Take::Tier)),
    ("usage", object(Take::Usage(Source::Inner), INTERACTION_USAGE)),
];
const DELTA: &[Entry] = &[("text", leaf(Take::Output))];
const INTERACTIONS_ROOT: &[Entry] = &[
    ("event_type", leaf(Take::Kind)),
    ("interaction", object(Take::Step, INTERACTION)),
    ("delta", object(Take::Step, DELTA)),
    ("id", leaf(Take::Id)),
    ("model", leaf(Take::Model)),
    ("status", leaf(Take::Status)),
    ("service_tier", leaf(Take::Tier)),
    ("usage", object(Take::Usage(Source::Main), INTERACTION_USAGE)),
    ("error", leaf(Take::Error)),
];
/// An Interactions body or event.
pub static INTERACTIONS: Node = object(Take::Step, INTERACTIONS_ROOT);

/// Totals of one statement. Absent counts are zero (proto3 drops zeros); the prompt includes cached tokens.
pub fn totals(usage: &Statement, names_tool_prompt: bool, flags: &mut Flags) -> Totals {
    let fields = &usage.fields;
    let tool_prompt = fields.get(Field::ToolPrompt).filter(|&value| value > 0);
    let input_total = fields.or_zero(Field::Input).saturating_add(tool_prompt.unwrap_or(0));
    let cached = fields.get(Field::Cached);
    let thoughts = fields.get(Field::Thoughts);
    let tool_prompt = tool_prompt.filter(|_| names_tool_prompt);
    flags.raise_if(tool_prompt.is_some(), flags::TOOL_PROMPT);
    let mut output = fields.or_zero(Field::Output).saturating_add(thoughts.unwrap_or(0));
    let excess = fields.or_zero(Field::Total).saturating_sub(input_total.saturating_add(output));
    if excess > 0 {
        output = output.saturating_add(excess);
        flags.raise(flags::HIDDEN_OUTPUT);
    }
    let modality = |all: Field, cached: Field| fields.or_zero(all).saturating_sub(fields.or_zero(cached));
    Totals {
        input_total,
        uncached_input: input_total.saturating_sub(cached.unwrap_or(0)),
        output,
        cache_read: cached,
        reasoning: thoughts,
        tool_use_prompt: tool_prompt,
        audio_input: modality(Field::AudioInput, Field::AudioCached),
        audio_output: fields.or_zero(Field::AudioOutput),
        image_input: modality(Field::ImageInput, Field::ImageCached),
        image_output: fields.or_zero(Field::ImageOutput),
        inference_input: input_total,
        ..Totals::default()
    }
}
